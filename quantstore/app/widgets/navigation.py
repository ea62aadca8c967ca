"""From one page to another, with what the address carries."""

from pathlib import Path

import streamlit as st

from quantstore import queries
from quantstore.app.widgets import address
from quantstore.app.widgets.stores import open_store

PAGES = Path(__file__).resolve().parent.parent / "pages"


def go_to(page: str) -> None:
    """Open another page; what the address carries (model, layer, scheme) comes along."""
    st.switch_page(PAGES / f"{page}.py", query_params=address.travel())


def follow_click() -> None:
    """Open what was clicked in a chart or a matrix. First thing on every page with one.

    A callback may set what widgets show, but only the script itself may change the page.
    """
    page = st.session_state.pop("go_to", None)
    if page is not None:
        go_to(page)


def open_layer(layer_id: int) -> None:
    """From a callback: show this layer, on the Layer page."""
    with open_store() as con:
        model_and_layer = queries.layer_address(con, layer_id)
    if model_and_layer is not None:
        address.choose("model", model_and_layer[0])
        address.choose("layer", model_and_layer[1])
        st.session_state["go_to"] = "layer"
