"""SQL: what does my own SQL query return?"""

import io
import re
from typing import Any
from urllib.parse import quote

import pandas as pd
import streamlit as st

from quantstore import queries, settings, store
from quantstore.app.widgets import address, colours, drawing, editor, pickers, stores
from quantstore.charts import result as charts
from quantstore.console import statement as console
from quantstore.console.answer import Answer
from quantstore.console.examples import EXAMPLES
from quantstore.errors import RejectedQueryError
from quantstore.process.running import Running
from quantstore.wording import tables
from quantstore.wording.text import markdown
from quantstore.wording.units import counted, seconds

Outcome = Answer | RejectedQueryError

ROW_LIMIT = 10_000
TIMEOUT_SECONDS = 30
LONGEST_STATEMENT = 20_000
# What servers and messengers let through.
LONGEST_LINK_BYTES = 6_000
VIEWS = ["Table", "Chart"]
MOST_REMEMBERED = 15
# Rows that the page shows without scrolling inside the table.
TALLEST_TABLE = 25
# What to read first; the others follow by name, views before tables.
FIRST_THINGS = ("verdicts", "layer_errors", "model_summary", "model_layers", "layer_channels")
TYPES = {"varchar": "text", "varchar[]": "text[]"}
# What the editor completes besides names: clauses, and the functions that such a store asks for.
WORDS = (
    *("select", "from", "where", "group by", "group by all", "having", "qualify", "order by"),
    *("limit", "offset", "join", "left join", "using", "with", "as", "distinct", "case", "when"),
    *("then", "else", "end", "between", "is null", "is not null", "nulls last", "desc", "filter"),
    *("count", "sum", "avg", "min", "max", "median", "quantile_cont", "stddev", "corr", "arg_max"),
    *("arg_min", "any_value", "list", "unnest", "row_number", "rank", "over", "partition by"),
    *("coalesce", "round", "floor", "ceil", "abs", "log2", "log10", "sqrt", "greatest", "least"),
    *("union all", "describe", "show tables", "explain", "summarize", "like", "ilike", "printf"),
)
AUTOMATIC = "automatic"
NO_COLOUR = "no colour"
TOO_LONG_FOR_A_LINK = (
    "This query is too long for the URL, so a link will not contain it. Save the query in a file"
    " and"
    " run it with *quantstore sql*."
)


def main() -> None:
    """Draw the page. A statement in the address runs at once: it can only read."""
    with stores.open_store() as con:
        # The process that answers takes longest to start: it does while the page is drawn.
        statement = _statement()
        begun = _begin(statement) if statement.strip() else None
        schema = _schema(stores.ask(con, queries.schema))
    st.title("SQL")
    with st.container(horizontal=True, gap="large", key="sql_page"):
        with st.container(key="sql_main"):
            _editor(schema, statement)
            _result(statement, begun)
        with st.container(key="sql_schema"):
            _tables(schema, statement)


# The statement


def _statement() -> str:
    """The statement to answer; callbacks have put into the address what was typed or chosen."""
    address.link("query", default=next(iter(EXAMPLES.values())))
    return str(st.session_state["query"])


def _editor(schema: list[dict[str, Any]], statement: str) -> None:
    """Examples, the box, what was asked before."""
    # The example that is in the editor is the one that is marked, however it got there.
    st.session_state["example"] = next(
        (name for name, text in EXAMPLES.items() if text == statement.strip()), None
    )
    st.pills(
        "Examples",
        list(EXAMPLES),
        key="example",
        on_change=address.by_hand(_fill_in),
        label_visibility="collapsed",
    )
    if st.session_state.get("sql_in_editor") != statement:
        # An example, a statement of before, a link, Back: not what was typed there.
        st.session_state["sql_in_editor"] = statement
        st.session_state["sql_revision"] = st.session_state.get("sql_revision", 0) + 1
    editor.editor(
        statement=statement,
        revision=st.session_state.get("sql_revision", 0),
        tables=schema,
        keywords=WORDS,
        label=(
            "Ctrl + Enter runs, Ctrl + Space completes. Read-only,"
            f" at most {ROW_LIMIT:,} rows and {TIMEOUT_SECONDS} seconds."
        ),
        is_running=False,
        key="sql_editor",
        on_run=_sent,
    )
    if len(quote(statement)) > LONGEST_LINK_BYTES:
        address.leave_out("query")
        st.caption(TOO_LONG_FOR_A_LINK)


def _sent() -> None:
    """From a callback: the text of the box is to be answered, even if it was before."""
    text = st.session_state["sql_editor"].run
    if isinstance(text, str):
        st.session_state["sql_in_editor"] = text
        st.session_state["sql_is_sent"] = True
        address.choose("query", text)


def _fill_in() -> None:
    name = st.session_state["example"]
    if name in EXAMPLES:
        _put(EXAMPLES[name])


def _put(statement: str) -> None:
    """From a callback: into the editor, whatever is typed there."""
    st.session_state.pop("sql_in_editor", None)
    address.choose("query", statement)


# The answer


def _result(statement: str, begun: Running[Answer] | Outcome | None) -> None:
    if begun is None:
        st.info("Write a query above, or start from an example.")
        return
    outcome = _outcome(statement, begun)
    if outcome is None:
        _waiting()
        return
    if isinstance(outcome, RejectedQueryError):
        if str(outcome) == console.CANCELLED:
            st.info("Cancelled. Run the query again, or reduce what it reads.")
            _history()
            return
        st.error(markdown(outcome.sentence))
        if outcome.detail:
            st.code(outcome.detail, language=None)
        _history()
        return
    frame = outcome.frame
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        first = "First " if outcome.was_cut else ""
        st.header(
            f"{first}{counted(len(frame), 'row')} :gray[in {seconds(outcome.seconds)}]",
            anchor=False,
            width="stretch",
        )
        view = pickers.choice("View", VIEWS, key="view", label_is_hidden=True)
        _history()
        _download(outcome)
    if outcome.was_cut:
        st.caption(
            f"The table, the chart and the download hold only the first {ROW_LIMIT:,} rows."
            " Aggregate or filter in the query, or run it with *quantstore sql*, which has no"
            " limit."
        )
    if frame.empty:
        st.caption("The query returned no rows.")
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


def _begin(statement: str) -> Running[Answer] | Outcome:
    """Ask, or look after what was asked already.

    An answer is kept until the statement or the store changes, or somebody asks again.
    """
    path = settings.store_path()
    asked = (statement, str(path.absolute()), store.stamp(path))
    is_sent = st.session_state.pop("sql_is_sent", False)
    cached: tuple[object, Outcome] | None = st.session_state.get("sql_outcome")
    if cached is not None and cached[0] == asked and not is_sent:
        return cached[1]
    pending: tuple[object, Running[Answer]] | None = st.session_state.get("sql_question")
    if pending is not None and not is_sent and pending[0] == asked:
        return pending[1]
    if pending is not None:
        pending[1].cancel()
        del st.session_state["sql_question"]
    try:
        if len(statement) > LONGEST_STATEMENT:
            raise RejectedQueryError(
                f"the query is longer than {LONGEST_STATEMENT:,} characters",
                "run it with: quantstore sql",
            )
        question = console.start(
            path, statement, row_limit=ROW_LIMIT, timeout_seconds=TIMEOUT_SECONDS
        )
    except RejectedQueryError as error:
        st.session_state["sql_outcome"] = (asked, error)
        _remember(statement, error)
        return error
    st.session_state["sql_question"] = (asked, question)
    return question


def _outcome(statement: str, begun: Running[Answer] | Outcome) -> Outcome | None:
    """The answer; None while it is under way.

    Raises:
        StoreError: the frame shows it.
    """
    if not isinstance(begun, Running):
        return begun
    if not begun.is_over(console.PATIENCE_SECONDS):
        return None
    asked, _ = st.session_state.pop("sql_question")
    # Whoever asks once asks again.
    console.get_ready()
    outcome = console.outcome(begun)
    st.session_state["sql_outcome"] = (asked, outcome)
    _remember(statement, outcome)
    return outcome


def _waiting() -> None:
    """How long it has taken and how long it may, and a way to end it; looks again by itself."""
    question: Running[Answer] = st.session_state["sql_question"][1]

    @st.fragment(run_every=0.3)
    def look() -> None:
        if question.is_over():
            address.rerun()
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            took = min(question.seconds, TIMEOUT_SECONDS)
            st.markdown(f"Running: {took:.1f} of {TIMEOUT_SECONDS} seconds", width="content")
            st.button(
                "Cancel",
                icon=":material/stop_circle:",
                key="cancel_query",
                on_click=question.cancel,
            )

    look()


# What was asked before


def _remember(statement: str, outcome: Outcome) -> None:
    if isinstance(outcome, Answer):
        cut = "first " if outcome.was_cut else ""
        result_text = f"{cut}{counted(outcome.table.num_rows, 'row')} in {seconds(outcome.seconds)}"
    else:
        result_text = "cancelled" if str(outcome) == console.CANCELLED else "refused"
    before = [entry for entry in st.session_state.get("sql_history", []) if entry[0] != statement]
    st.session_state["sql_history"] = [(statement, result_text), *before][:MOST_REMEMBERED]


def _history() -> None:
    """The statements of this session, the last one first; a click brings one back."""
    with st.popover("History", icon=":material/history:"):
        st.caption("Queries of this session. Click one to run it again.")
        for position, (statement, result_text) in enumerate(
            st.session_state.get("sql_history", [])
        ):
            st.button(
                f"{markdown(_in_short(statement))} :gray[{markdown(result_text)}]",
                key=f"history_{position}",
                type="tertiary",
                help=f"```sql\n{statement.replace('```', '')}\n```",
                on_click=_put,
                args=(statement,),
            )


def _in_short(statement: str) -> str:
    """The beginning of a statement on one line, without its comments."""
    text = " ".join(re.sub(r"--[^\n]*", "", statement).split()) or " ".join(statement.split())
    return text if len(text) <= 70 else f"{text[:69]}…"


# Taking it along


def _download(answer: Answer) -> None:
    frame = answer.frame
    with st.popover("Download", icon=":material/download:"):
        for title, data, mime in (
            ("CSV", lambda: tables.to_csv(frame), "text/csv"),
            ("JSON", lambda: tables.to_json(frame), "application/json"),
            ("Parquet", lambda: _parquet(answer), "application/vnd.apache.parquet"),
        ):
            st.download_button(
                title,
                data=data,
                file_name=f"result.{title.lower()}",
                mime=mime,
                on_click="ignore",
                key=f"download_{title.lower()}",
                width="stretch",
            )


def _parquet(answer: Answer) -> bytes:
    file = io.BytesIO()
    tables.write_parquet(answer.table, file)
    return file.getvalue()


# The chart


def _chart(frame: pd.DataFrame) -> None:
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        mark = _pick("Draw", [AUTOMATIC, *charts.MARKS], "mark")
        if mark == AUTOMATIC:
            drawn = charts.quick_chart(frame, colours.palette())
        else:
            suited = charts.suited(frame)
            names = [str(name) for name in frame.columns]
            numbers = charts.number_columns(frame)
            if not numbers:
                st.info(charts.NEEDS_NUMBERS)
                return
            x = _pick("By", names, "x", suited.x)
            y = _pick("Value", numbers, "y", suited.y)
            colour = _pick(
                "Colour",
                [NO_COLOUR, *charts.text_columns(frame)],
                "colour",
                suited.colour or NO_COLOUR,
            )
            drawn = charts.drawn_as(
                frame,
                colours.palette(),
                mark=charts.as_mark(mark),
                x=x,
                y=y,
                colour=None if colour == NO_COLOUR else colour,
            )
    if drawn.chart is None:
        st.info(markdown(drawn.caption))
        return
    advice = (
        " The chart shows the first suitable columns. Choose others above."
        if mark == AUTOMATIC
        else ""
    )
    st.caption(f"{markdown(drawn.caption)}{advice}")
    drawing.chart(drawn.chart, key="result_chart", alt=drawn.caption)


def _pick(label: str, options: list[str], key: str, first: str | None = None) -> str:
    default = first or options[0]
    address.link(key, default=default, options=options)
    return st.selectbox(label, options, key=key, width=170)


def _column_formats(frame: pd.DataFrame) -> dict[str, Any]:
    """Decibels with one decimal, as everywhere; other figures as they come."""
    return {
        name: st.column_config.NumberColumn(format="%.1f")
        for name in frame.columns
        if name.endswith("_db") and pd.api.types.is_float_dtype(frame[name])
    }


# What there is to ask


def _schema(schema: pd.DataFrame) -> list[dict[str, Any]]:
    """Every view and table with its columns, as the browser gets them, the telling ones first."""
    ranks = {name: rank for rank, name in enumerate(FIRST_THINGS)}
    relations = []
    for name, columns in schema.groupby("thing", sort=False):
        meaning = columns["meaning"].iloc[0]
        relation_type = "view" if columns["is_view"].iloc[0] else "table"
        relations.append(
            {
                "name": str(name),
                "kind": relation_type,
                "meaning": f"{relation_type.capitalize()}."
                + (f" {meaning}" if isinstance(meaning, str) else ""),
                "columns": [_column(row) for row in columns.to_dict("records")],
            }
        )
    return sorted(relations, key=lambda relation: ranks.get(str(relation["name"]), len(ranks)))


def _tables(schema: list[dict[str, Any]], statement: str) -> None:
    st.header("Tables and views", anchor=False)
    # What the statement speaks of lies open.
    spoken_of = [
        relation["name"]
        for relation in schema
        if re.search(rf"\b{re.escape(relation['name'])}\b", statement) is not None
    ]
    relations = [relation | {"is_open": relation["name"] in spoken_of} for relation in schema]
    st.caption("Click a name to insert it at the cursor.")
    editor.schema(relations=relations, revision=" ".join(spoken_of), key="sql_tables")


def _column(column: dict[Any, Any]) -> dict[str, str]:
    """Name, type with unit, and what the column means."""
    comment = column["comment"] if isinstance(column["comment"], str) else ""
    data_type = str(column["data_type"]).lower()
    name = str(column["column_name"])
    unit = _unit(name, comment)
    return {
        "name": name,
        "type": TYPES.get(data_type, data_type) + (f", {unit}" if unit else ""),
        "comment": comment,
    }


def _unit(name: str, comment: str) -> str:
    """The unit that the comment or the name of a column gives it."""
    if name.endswith("_db"):
        return "dB"
    if "from 0 to 1" in comment:
        return "0 to 1"
    match = re.search(r", in (weight units squared|weight units|seconds|bytes|bits)", comment)
    if match:
        return match[1]
    return "bits" if name.endswith("_bits") else ""


if __name__ == "__main__":
    main()
