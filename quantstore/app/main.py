"""Names the pages, frames them, and turns a known failure into a sentence on the page.

``streamlit run`` comes here through ``app.py`` from a checkout, and through
``start/streamlit_app.py`` from an installed package.
"""

import gc
import logging
from pathlib import Path

import streamlit as st

from quantstore.app import sidebar
from quantstore.app.widgets import address, colours, stores, welcome
from quantstore.errors import MissingStoreError, OlderStoreError, QuantstoreError
from quantstore.wording.text import markdown

PACKAGE = Path(__file__).resolve().parent

# The pages that judge by the scheme of the sidebar.
JUDGING = (
    *("Compare", "Revisions", "Model", "Layer", "Drift", "Weights against reality"),
    "Models",
)

logger = logging.getLogger(__name__)

# Streamlit looks for garbage after every run, also of a part of a page, and would each time go
# through all that was imported: a tenth of a second. That is never garbage.
gc.freeze()


def run() -> None:
    """Draw the frame and the page that the address names."""
    # Before st.navigation: a page's material icon as favicon would come from the network.
    st.set_page_config(
        page_title="quantstore",
        page_icon=str(PACKAGE / "assets" / "favicon.png"),
        layout="wide",
        menu_items={"Get help": None, "Report a bug": None, "About": None},
    )
    st.html(PACKAGE / "assets" / "style.css")
    theme = colours.theme()
    st.logo(str(PACKAGE / "assets" / f"wordmark-{theme}.svg"), size="large")
    page = st.navigation(
        [
            st.Page(
                PACKAGE / "pages" / "compare.py",
                title="Compare",
                icon=":material/table_chart:",
                default=True,
            ),
            st.Page(
                PACKAGE / "pages" / "revisions.py",
                title="Revisions",
                icon=":material/difference:",
            ),
            st.Page(PACKAGE / "pages" / "model.py", title="Model", icon=":material/schema:"),
            st.Page(PACKAGE / "pages" / "layer.py", title="Layer", icon=":material/layers:"),
            st.Page(PACKAGE / "pages" / "drift.py", title="Drift", icon=":material/trending_down:"),
            st.Page(
                PACKAGE / "pages" / "reality.py",
                title="Weights against reality",
                icon=":material/scatter_plot:",
                url_path="reality",
            ),
            st.Page(
                PACKAGE / "pages" / "example.py",
                title="Worked example",
                icon=":material/straighten:",
                url_path="example",
            ),
            st.Page(
                PACKAGE / "pages" / "sql.py",
                title="SQL",
                icon=":material/terminal:",
                url_path="sql",
            ),
            st.Page(PACKAGE / "pages" / "models.py", title="Models", icon=":material/inventory_2:"),
        ]
    )
    address.begin(page.title)
    try:
        sidebar.draw(has_scheme=page.title in JUDGING)
        page.run()
        address.publish()
    except MissingStoreError:
        welcome.empty_page(page.title)
    except OlderStoreError as error:
        stores.offer_update(error)
    except QuantstoreError as error:
        st.error(markdown(error.sentence))
    except Exception:
        # Pages stop and rerun by exceptions that are no Exception; what arrives here is a bug.
        logger.exception("The page %s failed", page.title)
        st.error(
            "Something went wrong on this page. The details are in the terminal that runs the app;"
            " reload the page, or choose another one."
        )
