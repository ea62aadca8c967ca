"""The section of the Drift page on answers: float and int8 side by side, and the difference."""

import html
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.answers import NetworkAnswer
from quantstore.app.widgets import address, notes
from quantstore.charts import answers as charts
from quantstore.charts.palette import DARK, LIGHT, both
from quantstore.errors import printable
from quantstore.records import AnswerRecord
from quantstore.store import Connection
from quantstore.wording import frames
from quantstore.wording.changed_answers import (
    NETWORKS,
    change_of,
    changes,
    described,
    not_readable,
    note_on,
    place_of,
    readable,
    why_none,
)
from quantstore.wording.text import breakable, markdown

HEADING = "Answers in float and in int8"
_MUTED = both(LIGHT.muted, DARK.muted)
_TEXT = both(LIGHT.text, DARK.text)
_BAR = both(LIGHT.bar_alternate, DARK.bar_alternate)


def by_run(con: Connection, runs: Sequence[int]) -> dict[int, list[AnswerRecord]]:
    """The rows of every run, those first whose outputs changed most."""
    frame = queries.simulation_answers(con, runs)
    return {
        run: [
            frames.answer_record(row)
            for row in frame[frame["simulation_id"] == run].to_dict("records")
        ]
        for run in runs
    }


def section(
    answers: dict[int, list[AnswerRecord]], names: dict[int, str], chosen: pd.DataFrame
) -> None:
    """Draw the section.

    Args:
        answers: as :func:`by_run` gives them.
        names: of the runs, by what tells them apart.
        chosen: the runs on show, as ``queries.drift_runs`` gives them.
    """
    st.space("small")
    st.header(HEADING, anchor=False)
    runs = [run for run, rows in answers.items() if rows]
    for run in runs:
        which = f"{names[run]}: " if len(answers) > 1 else ""
        st.markdown(markdown(f"{which}{changes(answers[run])}"))
    if not runs:
        st.caption(why_none([str(source) for source in chosen["input_source"]]))
        return
    run = runs[0]
    if len(runs) > 1:
        options = [str(option) for option in runs]
        address.link("answers_of", default=options[0], options=options)
        run = int(
            st.selectbox(
                "Run",
                options,
                key="answers_of",
                format_func=lambda option: names[int(option)],
                label_visibility="collapsed",
            )
        )
    rows = answers[run]
    shown = [row for row in rows if row.is_shown and row.float_answer is not None]
    if not shown:
        return
    notes.note(html.escape(note_on(shown, len(rows))))
    blocks = "".join(_block(row, len(rows)) for row in shown)
    st.html(
        '<div style="display:grid;gap:20px 28px;'
        f'grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr))">{blocks}</div>'
    )


def _block(row: AnswerRecord, input_count: int) -> str:
    """An input with both answers side by side, below one another where there is no room."""
    before, after = readable(row.float_answer), readable(row.int8_answer)
    if before is None or after is None:
        sides = f"<div>{html.escape(not_readable(row))}</div>"
    else:
        # The same on both sides.
        full_bar = max((item.score for item in (*before.classes, *after.classes)), default=0.0)
        sides = "".join(
            _side(row, answer, network, full_bar)
            for network, answer in zip(NETWORKS, (before, after), strict=True)
        )
    return (
        f'<div style="line-height:1.4;color:{_TEXT}">'
        f'<div style="display:flex;gap:10px">{_thumbnail(row)}<div>'
        f'<div style="font-weight:600">{breakable(printable(row.input_name))}</div>'
        f'<div style="font-size:12px;color:{_MUTED}">{html.escape(change_of(row))}'
        f"<br>{html.escape(place_of(row, input_count))}</div></div></div>"
        '<div style="display:grid;gap:8px;margin-top:6px;'
        f'grid-template-columns:repeat(auto-fit,minmax(min(100%,150px),1fr))">{sides}</div></div>'
    )


def _thumbnail(row: AnswerRecord) -> str:
    """The picture by itself, where an answer is not drawn on it."""
    source = charts.thumbnail(row.picture) if row.form == "classes" else ""
    alt = html.escape(printable(row.input_name), quote=True)
    style = "height:56px;border-radius:4px"
    return f'<img src="{source}" alt="{alt}" style="{style}">' if source else ""


def _side(row: AnswerRecord, answer: NetworkAnswer, network: str, full_bar: float) -> str:
    title = f'<div style="font-size:12px;color:{_MUTED}">{network}</div>'
    if answer.form == "classes":
        return f"<div>{title}{_classes(answer, full_bar)}</div>"
    source = charts.as_address(charts.drawn(answer, row.picture, network))
    alt = html.escape(described(row, answer, network), quote=True)
    image = f'<img src="{source}" alt="{alt}" style="width:100%;border-radius:4px">'
    scale = _scale(answer) if answer.map is not None else ""
    return f"<div>{title}{image}{scale}</div>"


def _scale(answer: NetworkAnswer) -> str:
    """What bright and dark mean: the same on both sides."""
    full = 0.0 if answer.map is None else answer.map.full_scale
    return (
        f'<div style="display:flex;gap:6px;align-items:center;font-size:12px;color:{_MUTED}">0'
        '<span style="flex:1;height:6px;border-radius:3px;'
        'background:linear-gradient(90deg,#20242a,#ffffff);border:1px solid #8794a3"></span>'
        f"{full:.3g}</div>"
    )


def _classes(answer: NetworkAnswer, full_bar: float) -> str:
    """The largest scores as short bars, the largest in bold."""
    lines = []
    for index, item in enumerate(answer.classes):
        share = 100 * min(1.0, max(0.0, item.score / full_bar)) if full_bar > 0 else 0.0
        weight = 600 if index == 0 else 400
        lines.append(
            f'<div style="display:flex;justify-content:space-between;gap:8px;font-weight:{weight}">'
            f"<span>{breakable(printable(answer.name_of(item.label)))}</span>"
            f'<span style="font-variant-numeric:tabular-nums">{item.score:.3g}</span></div>'
            f'<div style="height:4px;width:{share:.0f}%;min-width:1px;background:{_BAR}"></div>'
        )
    return f'<div style="font-size:13px">{"".join(lines)}</div>'
