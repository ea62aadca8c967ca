"""Rescue: what keeps the model accurate on this target, and where are the files?"""

from typing import Any

import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.app.sections import rescue_files, rescue_form, runs_under_way
from quantstore.app.widgets import (
    address,
    colours,
    drawing,
    listing,
    navigation,
    notes,
    pickers,
    stores,
)
from quantstore.charts import rescue as charts
from quantstore.errors import printable
from quantstore.records import RescueRecord
from quantstore.schemes import TARGETS, Target
from quantstore.store import Connection
from quantstore.wording import frames
from quantstore.wording import rescue_tables as tables
from quantstore.wording import rescues as wording
from quantstore.wording.text import markdown
from quantstore.wording.units import counted, db, moment, share

FIRST_UNITS = 8


def main() -> None:
    """Draw the page."""
    navigation.follow_click()
    target = pickers.target()
    with stores.open_store() as con:
        title_column, picker_column = st.columns([3, 1.1], vertical_alignment="bottom")
        with picker_column:
            model = pickers.pick_model(stores.worst_first(con, target))
        with title_column:
            st.title("Rescue")
        headline = st.empty()
        rescues = queries.rescues(con, model)
        (origin,) = queries.origins(con, [model])
        picked = _pick(rescues, target)
        runs_under_way.under_way()
        if picked is None:
            headline.header(no_rescue_yet(model, target), anchor=False)
            st.markdown(rescue_form.WHAT_IT_IS)
            rescue_form.draw(origin, target)
            return
        with st.expander("Rescue again, for this target or another"):
            st.caption(rescue_form.WHAT_IT_IS)
            rescue_form.draw(origin, target)
        row = rescues[rescues["rescue_id"] == picked].iloc[0].to_dict()
        record = frames.rescue_record(row)
        bands = tables.bands_of(row, record)
        headline.header(notes.escaped(wording.headline(record, *bands)), anchor=False)
        _verdict(record, bands)
        if record.failure is None:
            _result(con, picked, record)
        rescue_files.section(queries.rescue_files(con, picked), model)
        _limits()


def no_rescue_yet(model: str, target: Target) -> str:
    """The headline of a model without a rescue for a target."""
    return f"No rescue of {markdown(model)} with {target.title} yet"


# Which rescue


def _pick(rescues: pd.DataFrame, target: Target) -> int | None:
    """The rescue on show, part of the address; the latest for the target unless one is asked for.

    None where the model has none for the target, and nobody picked another.
    """
    if rescues.empty:
        st.session_state["rescue_judged"] = target.name
        return None
    targets = {str(row["rescue_id"]): str(row["target"]) for row in rescues.to_dict("records")}
    titles = {str(row["rescue_id"]): _title(row) for row in rescues.to_dict("records")}
    # A picture of a file is worth more than that of a later failure.
    ranked = rescues.sort_values("is_latest", ascending=False, kind="stable")
    of_target = [
        str(row["rescue_id"]) for row in ranked.to_dict("records") if row["target"] == target.name
    ]
    first = of_target[0] if of_target else ""
    options = list(titles) if of_target else ["", *titles]
    pickers.say_missing("rescue numbered", titles, "rescue")
    address.link("rescue", default=first, options=options, is_always_written=True)
    before = st.session_state.get("rescue_judged")
    st.session_state["rescue_judged"] = target.name
    current = str(st.session_state["rescue"])
    if before not in (None, target.name) and targets.get(current) != target.name:
        address.choose("rescue", first)
    arrived = [key for key in runs_under_way.adopt_results("rescue") if key in titles]
    if arrived:
        address.choose("rescue", arrived[-1])
    picked = st.selectbox(
        "Rescue",
        options,
        key="rescue",
        format_func=lambda key: titles.get(key, f"None with {target.title}"),
        label_visibility="collapsed",
    )
    return int(picked) if picked else None


def _title(row: dict[Any, Any]) -> str:
    """``Per-channel int8, 1 Dec 2026, 02:35: 2.0 → 35.7 dB``."""
    record = frames.rescue_record(row)
    target = TARGETS[record.target].title if record.target in TARGETS else printable(record.target)
    result = (
        "failed"
        if record.failure is not None
        else wording.before_and_after(record.before_db, wording.rescued_db(record))
    )
    if record.is_proposal:
        result += ", proposal"
    return f"{pickers.capital(target)}, {moment(record.created_at)}: {result}"


# What came of it


def _verdict(record: RescueRecord, bands: tuple[str | None, str | None]) -> None:
    if record.failure is None:
        st.markdown("  \n".join(map(markdown, tables.answer_lines(record, bands))))
    for note in record.notes:
        st.caption(markdown(f"{note[:1].upper()}{note[1:]}"))
    st.caption(markdown(tables.inputs_sentence(record)))


def _result(con: Connection, picked: int, record: RescueRecord) -> None:
    steps = queries.rescue_steps(con, picked)
    units = queries.rescue_units(con, picked, only_promoted=True)
    limits = queries.band_limits(con)
    if not steps.empty:
        _staircase(steps, limits, record)
        _macs(steps, limits, record)
    if not units.empty:
        _units(units)
    layers = queries.rescue_drift(con, picked)
    if not layers.empty:
        _drift(layers, limits)


def _staircase(steps: pd.DataFrame, limits: dict[str, float], record: RescueRecord) -> None:
    st.space("small")
    st.header(tables.STEPS, anchor=False)
    st.caption(tables.steps_note(record))
    drawing.chart(
        charts.staircase(steps, limits, colours.palette(), reach_db=record.reach_db),
        key="rescue_steps",
        alt=f"{counted(len(steps), 'step')}, from {db(record.before_db)} to"
        f" {db(wording.rescued_db(record))} on unseen inputs",
    )
    with st.expander("All steps as a table"):
        listing.draw(tables.STEP_COLUMNS, steps.to_dict("records"), key="rescue_step_table")


def _macs(steps: pd.DataFrame, limits: dict[str, float], record: RescueRecord) -> None:
    st.space("small")
    st.header("What it costs", anchor=False)
    if not (steps["int8_macs"] < 1).any():
        st.caption(tables.ALL_IN_INT8)
        return
    st.caption(
        "X axis: share of multiply-accumulates (MACs) that stay in int8. The ring marks the chosen"
        f" plan. Dashed line: the goal, {db(record.reach_db)}. Dotted line: the minimum share,"
        f" {share(record.keep_macs, digits=1)}."
    )
    drawing.chart(
        charts.macs(
            steps,
            limits,
            colours.palette(),
            reach_db=record.reach_db,
            keep_macs=record.keep_macs,
        ),
        key="rescue_macs",
        alt=f"SQNR over MACs in int8; the plan keeps {share(record.int8_macs, digits=1)} and"
        f" reaches {db(wording.rescued_db(record))}",
    )


def _units(units: pd.DataFrame) -> None:
    st.space("small")
    st.header(tables.UNITS, anchor=False)
    st.caption(f"{tables.units_note(len(units))} Click a row to open its layer.")
    rows = tables.numbered(units.to_dict("records"))
    show_all = st.session_state.get("show_all_units", False) or len(rows) <= FIRST_UNITS + 2
    shown = rows if show_all else rows[:FIRST_UNITS]

    def clicked() -> None:
        target = st.session_state["rescue_units"].clicked
        if target:
            layer_id = shown[int(target["row"])]["layer_id"]
            if not pd.isna(layer_id):
                navigation.open_layer(int(layer_id))

    listing.draw(tables.UNIT_COLUMNS, shown, key="rescue_units", on_click=clicked)
    if not show_all:
        st.button(
            f"Show all {len(rows)}",
            icon=":material/expand_more:",
            type="tertiary",
            key="show_units",
            on_click=lambda: st.session_state.update(show_all_units=True),
        )


def _drift(layers: pd.DataFrame, limits: dict[str, float]) -> None:
    st.space("small")
    st.header("Layer by layer", anchor=False)
    st.caption(
        "Accumulated SQNR of each layer's output. Dashed line: before the rescue. Solid line: with"
        " the rescue plan."
    )
    before, after = (layers[column].astype(float).min() for column in ("before_db", "after_db"))
    drawing.chart(
        charts.drift(layers, limits, colours.palette()),
        key="rescue_drift",
        alt=f"SQNR along {counted(len(layers), 'layer')}; the lowest is {db(before)} before and"
        f" {db(after)} after",
    )


def _limits() -> None:
    st.space("small")
    st.header("Limits of these values", anchor=False)
    st.markdown("\n".join(f"- {sentence}" for sentence in wording.LIMITS))


if __name__ == "__main__":
    main()
