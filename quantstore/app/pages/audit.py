"""Audit: why does this int8 file give other answers than the float file it was made from?"""

from typing import Any

import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.app.sections import audit_form, runs_under_way
from quantstore.app.widgets import (
    address,
    colours,
    drawing,
    listing,
    navigation,
    pickers,
    stores,
)
from quantstore.charts import audit as charts
from quantstore.errors import printable
from quantstore.records import AuditRecord
from quantstore.schemes import DEFAULT_TARGET
from quantstore.store import Connection
from quantstore.wording import audit_tables as tables
from quantstore.wording import audits as wording
from quantstore.wording import frames
from quantstore.wording.text import markdown
from quantstore.wording.units import counted, moment

FIRST_ROWS = 8
AGAIN = "Audit this file again, or another pair"


def main() -> None:
    """Draw the page."""
    navigation.follow_click()
    with stores.open_store() as con:
        every_audit = queries.audits(con)
        arrived = _adopt(every_audit)
        title_column, picker_column = st.columns([3, 1.1], vertical_alignment="bottom")
        with picker_column:
            model = pickers.pick_model(_ranked(con, every_audit), is_always_written=True)
        with title_column:
            st.title("Audit")
        headline = st.empty()
        partner = _partner(con)
        audits = every_audit[(every_audit[["int8_model", "float_model"]] == model).any(axis=1)]
        picked = _pick(audits, partner, arrived)
        runs_under_way.under_way()
        if picked is None or not _is_of(audits, picked, partner):
            headline.header(no_audit_yet(model, partner), anchor=False)
            st.markdown(wording.WHAT_IT_IS)
            audit_form.explain_and_offer(con, model, partner)
            return
        with st.expander(AGAIN):
            st.caption(wording.WHAT_IT_IS)
            audit_form.draw(con, model, partner)
        row = audits[audits["audit_id"] == picked].iloc[0].to_dict()
        layers, tensors, outputs = (
            question(con, picked)
            for question in (queries.audit_layers, queries.audit_tensors, queries.audit_outputs)
        )
        limits = queries.band_limits(con)
    record = frames.audit_record(row, layers, tensors, outputs)
    answer = wording.headline(
        record, str(row["int8_model"]), str(row["float_model"]), _band(row, record)
    )
    headline.header(markdown(answer), anchor=False)
    names = frames.audit_layer_names(layers)
    st.markdown("  \n".join(map(markdown, wording.sentences(record, names))))
    for note in record.notes:
        st.caption(markdown(pickers.capital(note)))
    st.caption(markdown(wording.inputs_sentence(record)))
    if record.failure is not None:
        return
    if record.was_run:
        _ways(record, limits)
    _layers(layers)
    if record.was_run:
        _tensors(tensors)
        _outputs(outputs, record)


def no_audit_yet(model: str, partner: str = "") -> str:
    """The headline of a model without an audit, or without one against another model."""
    against = f" against {markdown(partner)}" if partner else ""
    return f"No audit of {markdown(model)}{against} yet"


# Which audit


def _ranked(con: Connection, audits: pd.DataFrame) -> list[str]:
    """Every model: int8 models of audits first, the latest first, then the other int8 models."""
    names = stores.worst_first(con, DEFAULT_TARGET)
    integers = queries.integer_models(con)
    first = dict.fromkeys(str(name) for name in audits["int8_model"])
    first |= dict.fromkeys(name for name in names if name in integers)
    return list(first | dict.fromkeys(names))


def _adopt(audits: pd.DataFrame) -> str | None:
    """The key of an audit that this session started and that is there now; its model is chosen."""
    keys = dict(zip(audits["audit_id"].astype(str), audits["int8_model"], strict=True))
    arrived = [key for key in runs_under_way.adopt_results("audit") if key in keys]
    if not arrived:
        return None
    address.choose("model", str(keys[arrived[-1]]))
    return arrived[-1]


def _partner(con: Connection) -> str:
    """The model on the other side that the address asks for; empty where it asks for none."""
    names = queries.model_names(con)
    pickers.say_missing("model named", names, "float")
    address.link("float", default="", options=["", *names])
    return str(st.session_state["float"])


def _is_of(audits: pd.DataFrame, picked: int, partner: str) -> bool:
    """Whether the audit is the one that was asked for: of this partner, where one is named."""
    row = audits[audits["audit_id"] == picked].iloc[0]
    return partner in ("", row["float_model"], row["int8_model"])


def _pick(audits: pd.DataFrame, partner: str, arrived: str | None) -> int | None:
    """The audit on show, part of the address; the latest unless one is asked for."""
    rows = {str(row["audit_id"]): row for row in audits.to_dict("records")}
    if not rows:
        return None
    pickers.say_missing("audit numbered", rows, "audit")
    sides = ("float_model", "int8_model")
    of_partner = [key for key, row in rows.items() if partner in (row[side] for side in sides)]
    first = next(iter(of_partner or rows))
    address.link("audit", default=first, options=list(rows), is_always_written=True)
    if arrived is not None:
        address.choose("audit", arrived)
        address.choose("float", "")
    picked = st.selectbox(
        "Audit",
        list(rows),
        key="audit",
        on_change=lambda: address.choose("float", ""),
        format_func=lambda key: _title(rows[key]),
        label_visibility="collapsed",
    )
    return int(picked)


def _title(row: dict[Any, Any]) -> str:
    """``rtmdet-int8 against rtmdet, 12 images from images/, 1 Dec 2026, 02:35: 18.6 dB``."""
    pair = f"{printable(str(row['int8_model']))} against {printable(str(row['float_model']))}"
    failed = isinstance(row["failure"], str)
    grid_db = frames.figure_or_none(row["grid_db"])
    result = "failed" if failed else wording.result_of(grid_db, int(row["sample_count"]))
    inputs = printable(str(row["input_source"]))
    return f"{pair}, {inputs}, {moment(row['created_at'])}: {result}"


def _band(row: dict[Any, Any], record: AuditRecord) -> str | None:
    return str(row["band"]) if record.failure is None and isinstance(row["band"], str) else None


# What came of it


def _ways(record: AuditRecord, limits: dict[str, float]) -> None:
    st.space("small")
    st.header(tables.WAYS, anchor=False)
    st.caption(tables.ways_note(record))
    drawing.chart(
        charts.six_values(record, limits, colours.palette()),
        key="audit_ways",
        alt="; ".join(
            f"{title}: {wording.kept(value)}" for title, value in wording.figures(record)
        ),
    )
    colours.legend(limits)


def _layers(layers: pd.DataFrame) -> None:
    st.space("small")
    st.header(tables.LAYERS, anchor=False)
    st.caption(f"{tables.LAYERS_NOTE} Click a row to open the layer.")
    rows = _shown(layers.to_dict("records"), "layer")

    def clicked() -> None:
        target = st.session_state["audit_layers"].clicked
        if target and not pd.isna(rows[int(target["row"])]["layer_id"]):
            navigation.open_layer(int(rows[int(target["row"])]["layer_id"]))

    listing.draw(tables.LAYER_COLUMNS, rows, key="audit_layers", on_click=clicked)
    _show_all(len(layers), len(rows), "layer")


def _tensors(tensors: pd.DataFrame) -> None:
    st.space("small")
    st.header(tables.TENSORS, anchor=False)
    if tensors.empty:
        st.caption(tables.NO_GRIDS)
        return
    st.caption(tables.TENSORS_NOTE)
    rows = _shown(tensors.to_dict("records"), "tensor")
    listing.draw(tables.TENSOR_COLUMNS, rows, key="audit_tensors")
    _show_all(len(tensors), len(rows), "tensor")


def _shown(rows: list[dict[Any, Any]], noun: str) -> list[dict[Any, Any]]:
    is_whole = st.session_state.get(f"show_all_audit_{noun}s", False)
    return rows if is_whole or len(rows) <= FIRST_ROWS + 2 else rows[:FIRST_ROWS]


def _show_all(all_rows: int, shown_rows: int, noun: str) -> None:
    if shown_rows == all_rows:
        return
    st.button(
        f"Show all {counted(all_rows, noun)}",
        icon=":material/expand_more:",
        type="tertiary",
        key=f"show_audit_{noun}s",
        on_click=lambda: st.session_state.update({f"show_all_audit_{noun}s": True}),
    )


def _outputs(outputs: pd.DataFrame, record: AuditRecord) -> None:
    st.space("small")
    st.header(tables.OUTPUTS, anchor=False)
    listing.draw(
        tables.output_columns(record), outputs.to_dict("records"), key="audit_output_table"
    )


if __name__ == "__main__":
    main()
