"""Muted lines of prose, and words that explain themselves."""

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from quantstore.app.widgets import navigation
from quantstore.charts.palette import DARK, LIGHT, both
from quantstore.wording import notes as wording
from quantstore.wording.explanations import EXPLANATIONS
from quantstore.wording.text import markdown


def evidence_notes(verdicts: pd.DataFrame) -> None:
    """Below a matrix: what its words rest on, as far as they occur in it.

    Args:
        verdicts: the rows that the matrix shows.
    """
    for text in wording.evidence_notes(verdicts.to_dict("records")):
        note(text)


def note(text: str) -> None:
    """One muted line of prose, as HTML; escape what comes from a file."""
    st.html(f'<div style="font-size:12px;color:{both(LIGHT.muted, DARK.muted)}">{text}</div>')


def explain(*names: str, limits: Mapping[str, float]) -> None:
    """A line of buttons, one per word, each of which opens what the word means.

    Args:
        names: keys of ``EXPLANATIONS``.
        limits: the lower limit of each band in dB.
    """
    with st.container(
        horizontal=True, gap="small", vertical_alignment="center", key=_row_key(names)
    ):
        st.caption("Explain:", width="content")
        for name in names:
            with st.popover(EXPLANATIONS[name].title, type="tertiary", key=f"explain_{name}"):
                st.markdown(EXPLANATIONS[name].under(limits))
                navigation.link("example", "See it with a few numbers")


def _row_key(names: Sequence[str]) -> str:
    return f"explanations_{'_'.join(names)}"


def escaped(text: str) -> str:
    """A name for Markdown that shows it as itself."""
    return markdown(text)
