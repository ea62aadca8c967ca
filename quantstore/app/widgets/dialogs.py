"""A question that stays open until it is answered.

The queue in the sidebar draws the page anew whenever a model arrives. What is open is therefore a
word in the session, and the page draws it last.
"""

from collections.abc import Callable
from typing import Any, Literal

import streamlit as st

from quantstore.errors import QuantstoreError
from quantstore.wording.text import markdown, short_name


def ask(key: str, question: Any) -> None:
    """From a callback: open a question."""
    st.session_state[key] = question


def asked(key: str) -> Any:
    """The question that is open; None where none is."""
    return st.session_state.get(key)


def close(key: str) -> None:
    """Close the question."""
    st.session_state[key] = None


def close_and_redraw(key: str) -> None:
    """Close the question and draw the page, which may have changed."""
    close(key)
    st.rerun()


def draw(
    key: str, title: str, body: Callable[[], None], width: Literal["small", "medium"] = "small"
) -> None:
    """Draw the question that is open."""

    def guarded() -> None:
        # A dialog runs by itself, out of reach of the frame, which explains failures elsewhere.
        try:
            body()
        except QuantstoreError as error:
            st.error(markdown(error.sentence))

    st.dialog(markdown(short_name(title, 90)), width=width, on_dismiss=lambda: close(key))(
        guarded
    )()
