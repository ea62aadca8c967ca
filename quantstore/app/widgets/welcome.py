"""What the app shows before there is a model."""

from pathlib import Path

import streamlit as st

from quantstore import settings
from quantstore.app.page_list import Page
from quantstore.app.queue import FILES
from quantstore.app.widgets import arrivals, navigation, reach, upload_box
from quantstore.app.widgets.colours import theme
from quantstore.file_formats import SUFFIXES, any_of
from quantstore.pipeline.files import demo_paths

ASSETS = Path(__file__).resolve().parents[1] / "assets"

TITLE = "Will your model survive int8?"
ADD_EXAMPLES = "Add the example models"
NO_MODEL_YET = f"The store has no models yet. Drop {any_of(SUFFIXES)} files anywhere on this page."


def add_examples() -> None:
    """Queue the example models that ship with the package."""
    arrivals.expect(
        FILES.add(path, settings.store_path(), name=path.name, source=f"example {path.name}")
        for path in demo_paths()
    )


def empty_page(page: Page) -> None:
    """What a page shows before there is a model."""
    if not page.is_default:
        st.title(page.title)
        st.write(NO_MODEL_YET)
        upload_box.draw("welcome", keep=bool(st.session_state.get("keep_uploads")))
        st.button(
            ADD_EXAMPLES,
            type="primary",
            icon=":material/add:",
            on_click=add_examples,
            key="add_examples",
        )
        return
    st.title(TITLE)
    st.markdown(
        "Add an ONNX file. quantstore shows whether the model survives int8 on your hardware, which"
        " layers break it, and what would rescue it. Nothing leaves this computer."
    )
    upload_box.draw("welcome", keep=bool(st.session_state.get("keep_uploads")))
    st.caption(f"You can drop files and folders anywhere on a page. {upload_box.DATA_FILES_TOO}")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            ADD_EXAMPLES,
            icon=":material/add:",
            on_click=add_examples,
            key="add_examples",
        )
        st.caption("Four small digit classifiers are included. One of them fails in int8.")
    where = "Enter a path in the sidebar, or run" if reach.is_this_computer_only() else "Run"
    st.markdown(f"Larger files? {where}:")
    st.code(
        settings.command("ingest path/to/models"), language=None, width="content", wrap_lines=True
    )
    st.space("small")
    st.header("What you will see", anchor=False)
    with st.grid(3, min_column_width=140, gap="medium"):
        for name, heading, promise in _PROMISES:
            with st.container(gap="xsmall"):
                st.image(str(ASSETS / f"empty-{name}-{theme()}.svg"), alt=f"Picture: {promise}")
                st.subheader(heading, anchor=False)
                st.caption(promise)
    navigation.link("example", "New to quantization? Start with the worked example")


_PROMISES = (
    ("matrix", "Which model survives", "A verdict for each model and target."),
    (
        "network",
        "Which layers break",
        "The network from input to output. Longer bars are worse.",
    ),
    ("channels", "Why they break", "The channels of a layer on the int8 grid that they share."),
)
