"""SQL: which question of my own can the store answer?"""

import html
import re
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from quantstore import console, formats, queries, settings
from quantstore.charts import result as charts
from quantstore.console import Answer
from quantstore.errors import QuantstoreError, RejectedQueryError, StoreError
from quantstore.pages import address, shared
from quantstore.palette import DARK, LIGHT, both
from quantstore.sql_examples import EXAMPLES
from quantstore.words import counted, markdown, seconds

ROW_LIMIT = 10_000
TIMEOUT_SECONDS = 5
VIEWS = ["Table", "Chart"]
# Rows that the page shows without scrolling inside the table.
TALLEST_TABLE = 25
# What to read first; the others follow by name, views before tables.
FIRST_THINGS = ("verdicts", "layer_errors", "model_summary", "model_layers", "layer_channels")
TYPES = {"varchar": "text", "varchar[]": "text[]"}
MUTED = both(LIGHT.muted, DARK.muted)


def main() -> None:
    """Draw the page. A statement in the address runs at once: it can only read."""
    with shared.open_store() as con:
        schema = queries.schema(con)
    st.title("SQL")
    with st.container(horizontal=True, gap="large", key="sql_page"):
        with st.container(key="sql_main"):
            statement, is_sent = _editor()
            _result(statement, is_sent)
        with st.container(key="sql_schema"):
            _schema(schema, statement)


def _editor() -> tuple[str, bool]:
    """Examples, the statement and the button: what is asked, and whether it was pressed."""
    address.link("query", default=next(iter(EXAMPLES.values())))
    shown = str(st.session_state["query"]).strip()
    # The example that is in the editor is the one that is marked, however it got there.
    st.session_state["example"] = next(
        (name for name, statement in EXAMPLES.items() if statement == shown), None
    )
    st.pills(
        "Examples",
        list(EXAMPLES),
        key="example",
        on_change=_fill_in,
        label_visibility="collapsed",
    )
    with st.form("statement", border=False):
        statement = st.text_area(
            "SQL statement",
            key="query",
            height="content",
            max_chars=20_000,
            label_visibility="collapsed",
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            is_sent = st.form_submit_button("Run", type="primary", icon=":material/play_arrow:")
            st.caption(
                f"Ctrl + Enter runs it. Read-only, first {ROW_LIMIT:,} rows, five seconds at most.",
                width="content",
            )
    return statement, is_sent


def _fill_in() -> None:
    name = st.session_state["example"]
    if name in EXAMPLES:
        address.choose("query", EXAMPLES[name])


def _result(statement: str, is_sent: bool) -> None:
    if not statement.strip():
        st.info("Write a statement above, or begin with an example.")
        return
    outcome = _outcome(statement, is_sent)
    if isinstance(outcome, RejectedQueryError):
        st.error(markdown(outcome.sentence))
        if outcome.detail:
            st.code(outcome.detail, language=None)
        return
    frame = outcome.frame
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        first = "First " if outcome.was_cut else ""
        st.header(
            f"{first}{counted(len(frame), 'row')} :gray[in {seconds(outcome.seconds)}]",
            anchor=False,
            width="stretch",
        )
        view = _view_and_download(outcome)
    if outcome.was_cut:
        st.caption(
            f"There are more rows than {ROW_LIMIT:,}; the table, the chart and the download hold"
            " the first ones. Sum up or filter in the statement to see all, or run it with"
            " *quantstore sql*, which has no limit."
        )
    if frame.empty:
        st.caption("The statement ran; nothing matches it.")
        return
    if view == "Chart":
        _chart(frame)
    else:
        st.dataframe(
            frame,
            hide_index=True,
            column_config=_column_formats(frame),
            height="content" if len(frame) <= TALLEST_TABLE else 600,
            key="result",
            alt=f"The result: {counted(len(frame), 'row')}, {len(frame.columns)} columns",
        )


def _outcome(statement: str, is_sent: bool) -> Answer | RejectedQueryError:
    """The answer, kept until the statement or the store changes, or somebody asks again.

    Raises:
        StoreError: the frame shows it.
    """
    path = settings.store_path()
    asked = (statement, str(path.absolute()), _stamp(path))
    known = st.session_state.get("sql_outcome")
    if known is not None and known[0] == asked and not is_sent:
        kept: Answer | RejectedQueryError = known[1]
        return kept
    outcome: Answer | RejectedQueryError
    try:
        with st.spinner("Running", show_time=True):
            outcome = console.run(
                path, statement, row_limit=ROW_LIMIT, timeout_seconds=TIMEOUT_SECONDS
            )
    except StoreError:
        raise
    except RejectedQueryError as error:
        outcome = error
    except QuantstoreError as error:
        outcome = RejectedQueryError(str(error), error.hint)
    st.session_state["sql_outcome"] = (asked, outcome)
    return outcome


def _stamp(path: Path) -> tuple[int, int]:
    """Changes when the store does. The file itself must not be opened beside DuckDB."""
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def _view_and_download(answer: Answer) -> str:
    frame = answer.frame
    view = shared.choice("View", VIEWS, key="view", label_is_hidden=True)
    with st.popover("Download", icon=":material/download:"):
        st.download_button(
            "CSV",
            data=lambda: formats.to_csv(frame),
            file_name="result.csv",
            mime="text/csv",
            on_click="ignore",
            key="download_csv",
            width="stretch",
        )
        st.download_button(
            "JSON",
            data=lambda: formats.to_json(frame),
            file_name="result.json",
            mime="application/json",
            on_click="ignore",
            key="download_json",
            width="stretch",
        )
    return view


def _chart(frame: pd.DataFrame) -> None:
    drawn = charts.quick_chart(frame, shared.palette())
    if drawn.chart is None:
        st.info(markdown(drawn.words))
        return
    st.caption(
        f"{markdown(drawn.words)} The first columns that fit are drawn: change their order to see"
        " others."
    )
    shared.chart(drawn.chart, key="result_chart", alt=drawn.words)


def _column_formats(frame: pd.DataFrame) -> dict[str, Any]:
    """Decibels with one decimal, as everywhere; other figures as they come."""
    return {
        name: st.column_config.NumberColumn(format="%.1f")
        for name in frame.columns
        if name.endswith("_db") and pd.api.types.is_float_dtype(frame[name])
    }


def _schema(schema: pd.DataFrame, statement: str) -> None:
    st.header("Tables and views", anchor=False)
    things = list(dict.fromkeys(schema["thing"]))
    ranks = {name: rank for rank, name in enumerate(FIRST_THINGS)}
    for thing in sorted(things, key=lambda name: ranks.get(name, len(ranks))):
        columns = schema[schema["thing"] == thing]
        # What the statement speaks of lies open.
        is_open = re.search(rf"\b{re.escape(thing)}\b", statement) is not None
        with st.expander(f"`{thing}`" if thing.isidentifier() else markdown(thing), is_open):
            meaning = columns["meaning"].iloc[0]
            kind = "View" if columns["is_view"].iloc[0] else "Table"
            st.caption(f"{kind}. {markdown(meaning)}" if isinstance(meaning, str) else f"{kind}.")
            st.html("".join(_column_line(row) for row in columns.to_dict("records")))


def _column_line(column: dict[Any, Any]) -> str:
    """Name, type and unit; what the column means shows when the pointer rests on it."""
    comment = column["comment"] if isinstance(column["comment"], str) else ""
    kind = str(column["data_type"]).lower()
    unit = _unit(str(column["column_name"]), comment)
    words = TYPES.get(kind, kind) + (f", {unit}" if unit else "")
    return (
        f'<div title="{html.escape(comment, quote=True)}" style="display:flex;gap:4px 10px;'
        'flex-wrap:wrap;justify-content:space-between;align-items:baseline;padding:2px 0">'
        "<span style=\"font-family:'Source Code Pro',monospace;font-size:12.5px;"
        f'overflow-wrap:anywhere">{html.escape(str(column["column_name"]))}</span>'
        f'<span style="font-size:12px;color:{MUTED};margin-left:auto">{html.escape(words)}</span>'
        "</div>"
    )


def _unit(name: str, comment: str) -> str:
    """The unit that the comment or the name of a column gives it."""
    if name.endswith("_db"):
        return "dB"
    if "from 0 to 1" in comment:
        return "0 to 1"
    found = re.search(r", in (weight units squared|weight units|seconds|bytes|bits)", comment)
    if found:
        return found[1]
    return "bits" if name.endswith("_bits") else ""


main()
