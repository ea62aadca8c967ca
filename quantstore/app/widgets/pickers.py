"""Choices that are part of the address: scheme, model, tag, one of a few."""

from collections.abc import Collection, Mapping

import streamlit as st

from quantstore.app.widgets import address
from quantstore.app.widgets.notes import escaped
from quantstore.errors import printable
from quantstore.schemes import DEFAULT_SCHEME, INT8_SCHEMES, Scheme

ANY_TAG = ""


def scheme() -> Scheme:
    """The scheme that the sidebar (or a click in the matrix) chose; it is part of the address.

    Known once the sidebar is drawn: before, an address has not reached its widget.
    """
    return INT8_SCHEMES.get(str(st.session_state.get("scheme")), DEFAULT_SCHEME)


def pick_scheme() -> None:
    """The picker of the scheme, on every page that judges."""
    address.link("scheme", default=DEFAULT_SCHEME.name, options=list(INT8_SCHEMES))
    st.selectbox(
        "Scheme",
        list(INT8_SCHEMES),
        key="scheme",
        format_func=lambda name: INT8_SCHEMES[name].title,
        help="How the weights are rounded: who shares one scale, and whether zero sits in the"
        " middle of the codes. Every page judges by it. Activations, where they are quantized"
        " too, share one scale per tensor.",
    )


def pick_model(ranked: list[str], *, is_always_written: bool = False) -> str:
    """The picker of the model, part of the address; the worst one at first.

    Args:
        is_always_written: whether the address names the worst one too.
    """
    say_missing("model named", ranked, "model")
    address.link("model", default=ranked[0], options=ranked, is_always_written=is_always_written)
    return st.selectbox(
        "Model", ranked, key="model", format_func=printable, label_visibility="collapsed"
    )


def say_missing(noun: str, existing: Collection[str], *keys: str) -> None:
    """A notice where the address asks for what is not, or no longer, in the store.

    Before the keys are linked: what the page shows instead must not pass for what was asked for.

    Args:
        noun: in the singular, with what leads to its name: ``model named``.
        existing: all that the store holds of the kind, not only what the page offers.
    """
    asked = dict.fromkeys(name for key in keys for name in st.query_params.get_all(key))
    missing = [escaped(name) for name in asked if name and name not in existing]
    if missing:
        named = " or ".join(", ".join(part) for part in (missing[:-1], missing[-1:]) if part)
        st.warning(f"The store holds no {noun} {named}.")


def choice(
    label: str,
    options: list[str],
    *,
    key: str,
    first: str | None = None,
    label_is_hidden: bool = False,
) -> str:
    """One of a few options, part of the address; the first one unless told otherwise."""
    default = first or options[0]
    address.link(key, default=default, options=options)
    chosen_option = st.segmented_control(
        label,
        options,
        key=key,
        required=True,
        label_visibility="collapsed" if label_is_hidden else "visible",
    )
    return chosen_option if chosen_option in options else default


def tag_picker(tags: Mapping[str, int], *, key: str) -> str | None:
    """A choice among the tags in use, part of the address; None for any, or where there is none.

    Args:
        tags: how many models have each.
    """
    if not tags:
        return None
    options = [ANY_TAG, *tags]
    address.link(key, default=ANY_TAG, options=options)
    tag = st.selectbox(
        "Tag",
        options,
        key=key,
        format_func=lambda option: f"{printable(option)} ({tags[option]})" if option else "Any tag",
        label_visibility="collapsed",
        width=220,
    )
    return tag or None
