"""What the graph and the weights give away before anything is run, as a list: on two pages."""

import html

import pandas as pd
import streamlit as st

from quantstore.charts.palette import DARK, LIGHT, both
from quantstore.wording import findings as wording
from quantstore.wording.text import breakable

_MUTED = both(LIGHT.muted, DARK.muted)
_GRID = both(LIGHT.grid, DARK.grid)


def of_model(findings: pd.DataFrame) -> None:
    """A section of the Model page; nothing where there is no finding.

    Args:
        findings: as ``queries.model_findings`` gives them.
    """
    if findings.empty:
        return
    st.space("small")
    st.header(wording.HEADING, anchor=False)
    st.caption(wording.CAPTION)
    of_layer(findings)


def of_layer(findings: pd.DataFrame) -> None:
    """A list; nothing where there is no finding.

    Args:
        findings: as ``queries.model_findings`` or ``queries.layer_findings`` gives them.
    """
    cell = f"padding:8px 0;border-top:1px solid {_GRID};"
    lines = []
    for finding in wording.in_words(findings.to_dict("records")):
        where = f'<div style="color:{_MUTED};font-size:12px">{breakable(finding.where)}</div>'
        lines.append(
            f'<div style="{cell}font-weight:600" role="term">{html.escape(finding.severity)}</div>'
            f'<div style="{cell}overflow-wrap:anywhere" role="definition">'
            f"{where if finding.where else ''}<div>{html.escape(finding.message)}</div>"
            f'<div style="color:{_MUTED}">{html.escape(finding.remedy)}</div></div>'
        )
    if lines:
        st.html(
            '<div style="display:grid;grid-template-columns:6.5em minmax(0,1fr);column-gap:12px;'
            f'font-size:14px;line-height:1.45;max-width:60em">{"".join(lines)}</div>'
        )
