"""Frames the page that the address names, and turns a known failure into a sentence on it.

``streamlit run`` comes here through ``app.py`` from a checkout, and through
``start/streamlit_app.py`` from an installed package.
"""

import gc
import logging
from functools import cache
from pathlib import Path

import streamlit as st
from streamlit import delta_generator

from quantstore.app import sidebar
from quantstore.app.page_list import PAGES, Page
from quantstore.app.sections import search
from quantstore.app.widgets import address, colours, stores, welcome
from quantstore.charts import common
from quantstore.errors import MissingStoreError, OlderStoreError, QuantstoreError, printable
from quantstore.wording.text import markdown

PACKAGE = Path(__file__).resolve().parent

logger = logging.getLogger(__name__)

PRODUCT = "quantstore"
FAVICON = str(PACKAGE / "assets" / "favicon.png")
PAGE_FAILED = (
    "Something went wrong on this page. Reload the page, or choose another one. Details are in the"
    " terminal that runs the app."
)


def run() -> None:
    """Draw the frame and the page that the address names."""
    _make_pages_quick()
    # Before st.navigation: a page's material icon as favicon would come from the network.
    st.set_page_config(
        # The one on show, until it is known what this run shows.
        page_title=st.session_state.get("tab_title", PRODUCT),
        page_icon=FAVICON,
        layout="wide",
        menu_items={"Get help": None, "Report a bug": None, "About": None},
    )
    st.html(PACKAGE / "assets" / "style.css")
    theme = colours.theme()
    st.logo(str(PACKAGE / "assets" / f"wordmark-{theme}.svg"), size="large")
    drawn_pages = [
        st.Page(
            page.file,
            title=page.title,
            icon=f":material/{page.icon}:",
            url_path=page.name,
            default=page.is_default,
        )
        for page in PAGES
    ]
    chosen_page = st.navigation(drawn_pages)
    page = PAGES[drawn_pages.index(chosen_page)]
    address.begin(page.name)
    try:
        if sidebar.draw(has_target=page.judges):
            search.draw()
        chosen_page.run()
        address.publish()
    except MissingStoreError:
        welcome.empty_page(page)
    except OlderStoreError as error:
        stores.offer_update(error)
    except QuantstoreError as error:
        st.error(markdown(error.sentence))
    except Exception:
        # Pages stop and rerun by exceptions that are no Exception; what arrives here is a bug.
        logger.exception("The page %s failed", page.title)
        st.error(PAGE_FAILED)
    _name_tab(page)


def tab_title(page: Page, model: str | None) -> str:
    """What the tab of the browser is called: ``rtmdet-nano · Model · quantstore``."""
    subject = [printable(model)] if model else []
    return " · ".join([*subject, page.title, PRODUCT])


def _name_tab(page: Page) -> None:
    """Call the tab by what the page shows."""
    title = tab_title(page, address.shown("model"))
    if st.session_state.get("tab_title") != title:
        st.session_state["tab_title"] = title
        st.set_page_config(page_title=title, page_icon=FAVICON)


@cache
def _make_pages_quick() -> None:
    """Once for the process, which is a server's: what a program that imports us must not find."""
    common.leave_parts_unchecked()
    # With its first element Streamlit looks for a REPL around it, to warn about that. The search
    # asks every module for its file, which loads those that others left for later: sympy, for one.
    delta_generator._use_warning_has_been_displayed = True
    # Streamlit looks for garbage after every run, also of a part of a page, and would each time go
    # through all that was imported: a tenth of a second. That is never garbage.
    gc.freeze()
