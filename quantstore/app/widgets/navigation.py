"""From one page to another, with what the address carries."""

from collections.abc import Mapping
from typing import Literal

import streamlit as st

from quantstore import queries
from quantstore.app.page_list import page_named
from quantstore.app.widgets import address
from quantstore.app.widgets.stores import open_store


def go_to(name: str) -> None:
    """Open the page of this name; what the address carries (model, layer, scheme) comes along."""
    st.switch_page(page_named(name).file, query_params=address.travel())


def link(
    name: str,
    label: str,
    *,
    icon: str = "",
    query_params: Mapping[str, str | list[str]] | None = None,
    width: Literal["stretch", "content"] = "stretch",
) -> None:
    """A link to the page of this name, with the page's icon unless another is named."""
    page = page_named(name)
    st.page_link(
        page.file,
        label=label,
        icon=f":material/{icon or page.icon}:",
        query_params=query_params,
        width=width,
    )


def follow_click() -> None:
    """Open what was clicked in a chart or a matrix. First thing on every page with one.

    A callback may set what widgets show, but only the script itself may change the page.
    """
    name = st.session_state.pop("go_to", None)
    if name is not None:
        go_to(name)


def open_next(name: str) -> None:
    """From a callback: have the page of this name opened by :func:`follow_click`."""
    st.session_state["go_to"] = name


def open_layer(layer_id: int) -> None:
    """From a callback: show this layer, on the Layer page."""
    if choose_layer(layer_id):
        open_next("layer")


def choose_layer(layer_id: int) -> bool:
    """From a callback: pages about a layer are about this one; whether the store still has it."""
    with open_store() as con:
        model_and_layer = queries.layer_address(con, layer_id)
    if model_and_layer is not None:
        address.choose("model", model_and_layer[0])
        address.choose("layer", model_and_layer[1])
    return model_and_layer is not None
