"""What the address carries, so that a page can be bookmarked, sent and gone back to.

Streamlit can bind a widget to the address by itself, but then neither a click in a table can set
the widget nor may the script change the page (1.67). So the address is read before a widget is
drawn and written once, when the page is done: one step in the browser's history for one change.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

Value = str | list[str]

# These mean the same on every page and travel along.
TRAVELLING = ("target", "model", "layer")

# How a person got to an address: from another page or from outside, or by Back and Forward.
FROM_ELSEWHERE, BY_HISTORY = "from elsewhere", "by history"


def begin(page: str) -> None:
    """Once a run, before any widget: notice whether the person came to another address.

    Every other address is what the browser knew when it asked for this run, and a run before may
    have written another since: it is no news.
    """
    context = get_script_run_ctx()
    if st.session_state.get("_address_page") != page:
        st.session_state["_address_arrival"] = FROM_ELSEWHERE
        st.session_state["_address_shown"] = set()
    elif context is not None and context.is_history_navigation:
        st.session_state["_address_arrival"] = BY_HISTORY
    st.session_state["_address_page"] = page
    st.session_state["_address_links"] = {}


def page() -> str:
    """The name of the page that this run draws."""
    return str(st.session_state.get("_address_page", ""))


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
    arrival = st.session_state.get("_address_arrival")
    is_news = in_address != seen.get(key, ())
    # Another page keeps what its address says nothing of.
    if is_news and (arrival == BY_HISTORY or (arrival == FROM_ELSEWHERE and in_address)):
        value: Value = default
        if isinstance(default, list):
            value = list(in_address)
        elif in_address:
            value = in_address[-1]
        seen[key] = in_address
    elif key in st.session_state["_address_shown"]:
        value = st.session_state.get(key, memory.get(key, default))
    else:
        # What the session says before a widget of this page is there may be older than what one of
        # another page said.
        value = memory.get(key, st.session_state.get(key, default))
    st.session_state["_address_shown"].add(key)
    if options is not None:
        if isinstance(value, list):
            value = [option for option in value if option in options]
        elif value not in options:
            value = default
    # Always, even where it is equal: a widget of the same key on another page is another widget,
    # and would start from its own default.
    st.session_state[key] = value
    memory[key] = value
    st.session_state["_address_links"][key] = (default, is_always_written)


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
    value = _store("_address_memory").get(key)
    return value if isinstance(value, str) else None


def shown(key: str) -> str | None:
    """What the page of this run shows for a key; None where it has none."""
    return remembered(key) if key in st.session_state.get("_address_links", ()) else None


def choose(key: str, value: Value) -> None:
    """Set a linked widget, from a callback or before the widget is drawn."""
    st.session_state[key] = value
    _store("_address_memory")[key] = value


def publish() -> None:
    """Once a run, when the page is drawn: write what its widgets show into the address."""
    memory, seen = _store("_address_memory"), _store("_address_seen")
    st.session_state["_address_arrival"] = None
    parameters: dict[str, list[str]] = {}
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
            parameters[key] = list(texts)
    # What another page wrote does not belong to this one.
    if {key: st.query_params.get_all(key) for key in st.query_params} != parameters:
        st.query_params.from_dict(parameters)


def rerun() -> None:
    """Run the page, from a part of it that looks after something by itself.

    Such a part runs on what the browser knew of the widgets when it asked, perhaps before the page
    set them anew: they stay as they were shown last.
    """
    memory = _store("_address_memory")
    for key in st.session_state.get("_address_links", ()):
        st.session_state[key] = memory[key]
    st.rerun()


def by_hand(callback: Callable[[], None]) -> Callable[[], None]:
    """A callback of a widget that the page sets, too, for what a person does to it alone.

    Where a part of the page asks for a run of its own, the browser may still have the widget as it
    was before the page set it, which looks like a change.
    """

    @wraps(callback)
    def called() -> None:
        context = get_script_run_ctx()
        if context is None or not context.fragment_ids_this_run:
            callback()

    return called


def travel() -> dict[str, str]:
    """The part of the address that goes along to another page."""
    memory, seen = _store("_address_memory"), _store("_address_seen")
    along = {key: str(memory[key]) for key in TRAVELLING if memory.get(key)}
    seen.update({key: (value,) for key, value in along.items()})
    return along


def _store(name: str) -> dict[str, Any]:
    contents: dict[str, Any] = st.session_state.setdefault(name, {})
    return contents
