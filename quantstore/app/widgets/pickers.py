"""Choices that are part of the address: target, model, one of a few."""

from collections.abc import Collection

import streamlit as st

from quantstore.app.widgets import address
from quantstore.app.widgets.notes import escaped
from quantstore.errors import printable
from quantstore.schemes import DEFAULT_TARGET, TARGETS, Scheme, Target, target_of

# The default comes first.
_TARGETS = sorted(TARGETS, key=lambda name: name != DEFAULT_TARGET.name)


def target() -> Target:
    """The target that the sidebar (or a click in the matrix) chose; it is part of the address.

    Known once the sidebar is drawn: before, an address has not reached its widget.
    """
    return TARGETS.get(str(st.session_state.get("target")), DEFAULT_TARGET)


def scheme() -> Scheme:
    """The scheme that pages about weights judge by: the target's."""
    return target().layer_scheme


def pick_target() -> None:
    """The picker of the target, on every page that judges."""
    _follow_scheme()
    address.link("target", default=DEFAULT_TARGET.name, options=_TARGETS)
    st.selectbox(
        "Target",
        _TARGETS,
        key="target",
        format_func=lambda name: capital(TARGETS[name].title),
        help="What your hardware and its tools do with weights and activations. Every page gives"
        " its verdicts for this target; pages about weights use its weight scheme.",
    )
    st.caption(TARGETS[target().name].description)


def _follow_scheme() -> None:
    """Addresses of earlier releases name a scheme: the target that rounds its weights."""
    name = target_of(st.query_params.get("scheme", ""), "both")
    if name is not None and "target" not in st.query_params:
        st.query_params["target"] = name


def capital(title: str) -> str:
    """A title as a label begins."""
    return title[0].upper() + title[1:]


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
        st.warning(not_in_store(noun, named))


def not_in_store(noun: str, named: str) -> str:
    """The notice about what an address asks for in vain: ``a model named``, and which."""
    return f"The store has no {noun} {named}."


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
