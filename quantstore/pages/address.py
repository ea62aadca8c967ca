"""What the address carries, so that a page can be bookmarked, sent and gone back to.

Streamlit can bind a widget to the address by itself, but then neither a click in a table can set
the widget nor may the script change the page (1.67). So the address is read before a widget is
drawn and written once, when the page is done: one step in the browser's history for one change.
"""

from collections.abc import Sequence
from typing import Any

import streamlit as st

Value = str | list[str]

# These mean the same on every page and travel along.
TRAVELLING = ("scheme", "model", "layer")


def begin(page: str) -> None:
    """Once a run, before any widget: notice whether the person came from another page."""
    st.session_state["_address_page_changed"] = st.session_state.get("_address_page") != page
    st.session_state["_address_page"] = page
    st.session_state["_address_links"] = {}


def link(
    key: str,
    *,
    default: Value,
    options: Sequence[str] | None = None,
    is_always_written: bool = False,
) -> None:
    """Give the widget of this key the value that the address, or else the memory, has for it.

    Call it right before the widget. An option that does not exist falls back to the default. The
    default stays out of the address unless ``is_always_written``: for a default that another model
    in the store would change.
    """
    in_address = tuple(st.query_params.get_all(key))
    seen = _store("_address_seen")
    memory = _store("_address_memory")
    if in_address != seen.get(key, ()) and (
        in_address or not st.session_state.get("_address_page_changed")
    ):
        # A first visit, a link, Back or Forward; not a change that we wrote ourselves.
        wanted: Value = default
        if isinstance(default, list):
            wanted = list(in_address)
        elif in_address:
            wanted = in_address[-1]
        seen[key] = in_address
    else:
        wanted = st.session_state.get(key, memory.get(key, default))
    if options is not None:
        if isinstance(wanted, list):
            wanted = [one for one in wanted if one in options]
        elif wanted not in options:
            wanted = default
    # Always, even where it is equal: a widget of the same key on another page is another widget,
    # and would start from its own default.
    st.session_state[key] = wanted
    memory[key] = wanted
    st.session_state["_address_links"][key] = (default, is_always_written)


def hold(key: str) -> None:
    """Let no address change a linked value in this run: what the browser sends may be outdated.

    A part of the page that runs by itself may ask for a run before the browser knows the address
    that the run before has written.
    """
    _store("_address_seen")[key] = tuple(st.query_params.get_all(key))


def leave_out(key: str) -> None:
    """Keep a linked value out of the address of this run: it is longer than a link may be."""
    st.session_state["_address_links"].pop(key, None)
    _store("_address_memory")[key] = st.session_state[key]
    _store("_address_seen")[key] = ()


def asked_for(key: str) -> str | None:
    """What the address says of a key, whether or not it exists; None where it says nothing."""
    return st.query_params.get(key)


def remembered(key: str) -> str | None:
    """What a key was on the page where it was last shown; None where it never was."""
    found = _store("_address_memory").get(key)
    return found if isinstance(found, str) else None


def choose(key: str, value: Value) -> None:
    """Set a linked widget, from a callback or before the widget is drawn."""
    st.session_state[key] = value
    _store("_address_memory")[key] = value


def publish() -> None:
    """Once a run, when the page is drawn: write what its widgets show into the address."""
    memory, seen = _store("_address_memory"), _store("_address_seen")
    wanted: dict[str, list[str]] = {}
    for key, (default, is_always_written) in st.session_state["_address_links"].items():
        value = st.session_state.get(key, default)
        memory[key] = value
        texts = tuple(value if isinstance(value, list) else [value])
        # A default is not written, but one that a link spells out stays: the link keeps its meaning
        # in a store with another default.
        is_spelt_out = is_always_written or tuple(st.query_params.get_all(key)) == texts
        if value == default and (not is_spelt_out or texts == ("",)):
            texts = ()
        seen[key] = texts
        if texts:
            wanted[key] = list(texts)
    # What another page wrote does not belong to this one.
    if {key: st.query_params.get_all(key) for key in st.query_params} != wanted:
        st.query_params.from_dict(wanted)


def travel() -> dict[str, str]:
    """The part of the address that goes along to another page."""
    memory, seen = _store("_address_memory"), _store("_address_seen")
    along = {key: str(memory[key]) for key in TRAVELLING if memory.get(key)}
    seen.update({key: (value,) for key, value in along.items()})
    return along


def _store(name: str) -> dict[str, Any]:
    found: dict[str, Any] = st.session_state.setdefault(name, {})
    return found
