"""What the graph and the weights give away before anything is run, as a list: on two pages."""

import html
from typing import Any

import pandas as pd
import streamlit as st

from quantstore.charts.palette import DARK, LIGHT, both
from quantstore.errors import printable
from quantstore.wording.text import breakable, listed
from quantstore.wording.units import counted

HEADING = "Findings"
MOST_NAMED = 3
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
    st.header(HEADING, anchor=False)
    st.caption("From the graph and the weights, and from the test with noise.")
    _list([(row, _where(row)) for row in findings.to_dict("records")])


def of_layer(findings: pd.DataFrame) -> None:
    """A list on the Layer page; nothing where there is no finding.

    Args:
        findings: as ``queries.layer_findings`` gives them.
    """
    if not findings.empty:
        _list([(row, "") for row in findings.to_dict("records")])


def _where(row: dict[Any, Any]) -> str:
    """The layers a finding was made in, as HTML, empty where it concerns the whole model."""
    names, count = list(row["layers"]), int(row["layer_count"])
    if not count:
        return ""
    shown = [breakable(printable(str(name))) for name in names[:MOST_NAMED]]
    if count > len(shown):
        shown.append(f"{counted(count - len(shown), 'more layer')}")
    example = " The first of them:" if count > 1 else ""
    return f"In {listed(shown)}.{example}"


def _list(items: list[tuple[dict[Any, Any], str]]) -> None:
    cell = f"padding:8px 0;border-top:1px solid {_GRID};"
    lines = []
    for row, where in items:
        location = f'<div style="color:{_MUTED};font-size:12px">{where}</div>' if where else ""
        lines.append(
            f'<div style="{cell}font-weight:600" role="term">{html.escape(row["severity"])}</div>'
            f'<div style="{cell}overflow-wrap:anywhere" role="definition">{location}'
            f"<div>{_text(row['message'])}</div>"
            f'<div style="color:{_MUTED}">{_text(row["remedy"])}</div></div>'
        )
    st.html(
        '<div style="display:grid;grid-template-columns:6.5em minmax(0,1fr);column-gap:12px;'
        f'font-size:14px;line-height:1.45;max-width:60em">{"".join(lines)}</div>'
    )


def _text(sentence: str) -> str:
    # Messages quote names from the file.
    return html.escape(printable(str(sentence)))
