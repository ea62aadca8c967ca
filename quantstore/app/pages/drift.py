"""Drift: where along the network does the quantized model leave the float one?"""

import math
from typing import Any

import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.app.sections import drift_runs, run_form
from quantstore.app.widgets import (
    address,
    colours,
    components,
    drawing,
    navigation,
    notes,
    pickers,
    stores,
)
from quantstore.charts import drift as charts
from quantstore.charts.common import ready
from quantstore.errors import printable
from quantstore.numerics.correlation import spearman
from quantstore.store import Connection
from quantstore.wording import frames
from quantstore.wording.nodes import operator
from quantstore.wording.targets import stayed_in_float
from quantstore.wording.text import markdown, short_name
from quantstore.wording.units import bits, counted, db, weight, with_minus

# What a person reads of a list before it is only length.
MOST_JUMPS, MOST_WORST, MOST_SENSITIVE = 6, 8, 8
# A smaller fall is the ripple of every network.
TELLING_FALL_DB = 1.0

NO_DRIFT_RUN_YET = "No drift run yet"
NO_JUMP = f"No single step costs {db(TELLING_FALL_DB)} or more"


def main() -> None:
    """Draw the page."""
    navigation.follow_click()
    target = pickers.target()
    with stores.open_store() as con:
        st.title("Drift")
        headline = st.empty()
        runs = queries.drift_runs(con)
        sources = queries.sources(con)
        model = drift_runs.about(queries.model_names(con))
        if runs.empty:
            drift_runs.keep(model)
            run_form.under_way()
            headline.header(NO_DRIFT_RUN_YET, anchor=False)
            run_form.explain_and_offer(sources, target, model)
            return
        picked, model = drift_runs.pick(runs, target, model)
        drift_runs.keep(model)
        run_form.under_way()
        is_first_run = bool(model) and model not in set(runs["model"])
        with st.expander("Run a model in float and int8", expanded=is_first_run):
            st.caption(run_form.WHAT_IT_IS)
            run_form.draw(sources, target, first=model)
        if not picked:
            if is_first_run:
                headline.header(f"No run of {notes.escaped(model)} yet", anchor=False)
                return
            headline.header("Which runs?", anchor=False)
            st.caption(f"Choose up to {drift_runs.MOST_RUNS} runs to set them side by side.")
            return
        chosen = runs.set_index("simulation_id").loc[picked].reset_index()
        names = drift_runs.names(chosen)
        tensors = queries.drift(con, picked)
        tensors = tensors.assign(run=tensors["simulation_id"].map(names))
        jumps = _jumps(tensors)
        headline.header(_headline(chosen, jumps), anchor=False)
        _say_float_layers(chosen, names)
        _lines(tensors, jumps, chosen)
        _jump_table(jumps, is_several=len(picked) > 1)
        _worst(tensors, is_several=len(picked) > 1)
        _one_tensor(con, tensors, names)
        _sensitivity(con, list(dict.fromkeys(chosen["model"])))


# Where the error comes in


def _headline(chosen: pd.DataFrame, jumps: pd.DataFrame) -> str:
    compared = chosen[chosen["output_sqnr_db"].notna()]
    if compared.empty:
        return "The outputs are exact, or could not be compared"
    worst = compared.sort_values("output_sqnr_db", kind="stable").iloc[0]
    which = "" if len(chosen) == 1 else f" ({drift_runs.rounded(worst.to_dict())})"
    sentence = (
        f"{pickers.capital(str(worst['band']))}: output SQNR of"
        f" {notes.escaped(str(worst['model']))}{which} is {db(float(worst['output_sqnr_db']))}."
    )
    run_jumps = jumps[jumps["simulation_id"] == worst["simulation_id"]]
    if run_jumps.empty:
        return f"{sentence} {NO_JUMP}."
    steepest = run_jumps.sort_values("drop_db", ascending=False, kind="stable").iloc[0]
    name = notes.escaped(short_name(str(steepest["node_name"]), 60))
    return f"{sentence} Largest drop: {name}, {_before_and_after(steepest)}."


def _say_float_layers(chosen: pd.DataFrame, names: dict[int, str]) -> None:
    for row in chosen.to_dict("records"):
        sentence = stayed_in_float(frames.names_or_none(row["float_layers"]))
        if sentence:
            run = f"{names[int(row['simulation_id'])]}: " if len(chosen) > 1 else ""
            st.caption(markdown(f"{run}{sentence}."))


def _before(row: Any) -> str:
    before = float(row["lowest_before_db"])
    return f"{'≥ ' if before >= queries.FALLS_FROM_DB else ''}{db(before)}"


def _before_and_after(row: Any) -> str:
    return f"{_before(row)} → {db(float(row['lowest_before_db']) - float(row['drop_db']))}"


def _jumps(tensors: pd.DataFrame) -> pd.DataFrame:
    """The steepest falls, numbered as the chart and the table number them."""
    falls = tensors[tensors["drop_db"] >= TELLING_FALL_DB]
    runs = max(1, tensors["simulation_id"].nunique())
    each = max(2, MOST_JUMPS // runs)
    steepest = (
        falls.sort_values("drop_db", ascending=False, kind="stable")
        .groupby("simulation_id", sort=False)
        .head(each)
        .head(MOST_JUMPS + 2)
    )
    return steepest.assign(number=range(1, len(steepest) + 1))


def _lines(tensors: pd.DataFrame, jumps: pd.DataFrame, chosen: pd.DataFrame) -> None:
    options = ["Accumulated and by itself", "Accumulated only"]
    # Two lines for each of several runs are a thicket.
    first = options[0] if len(chosen) == 1 else options[1]
    which = pickers.choice("Errors", options, key="errors", first=first, label_is_hidden=True)
    dotted = ""
    if which == options[0]:
        dotted = " Dotted line: the node by itself, with float inputs."
    st.caption(
        "Solid line: the whole model is quantized, so every tensor carries the error from before"
        f" it.{dotted} At 0 dB the error is as large as the signal. Numbers mark the largest drops,"
        " listed below. Click the line to see the values of a tensor."
    )

    def clicked() -> None:
        picked = st.session_state["drift_lines"].selection.get(charts.CLICK, [])
        if picked:
            _show_tensor(int(picked[0]["simulation_id"]), str(picked[0]["tensor"]))

    worst = chosen["output_sqnr_db"].min()
    st.altair_chart(
        ready(charts.lines(tensors, jumps, colours.palette(), with_local=which == options[0])),
        key="drift_lines",
        on_select=clicked,
        alt=f"Error along depth of {counted(len(chosen), 'run')}; the lowest ends at {db(worst)}",
    )


def _show_tensor(run: int, tensor: str) -> None:
    """From a callback: the histograms of this tensor."""
    address.choose("of", str(run))
    address.choose("tensor", tensor)


def _jump_table(jumps: pd.DataFrame, *, is_several: bool) -> None:
    st.space("small")
    st.header("Where the error jumps", anchor=False)
    if jumps.empty:
        st.caption(f"{NO_JUMP}; the error builds up gradually.")
        return
    without = jumps["layer_id"].isna()
    st.caption(
        "Nodes whose SQNR is lower than that of everything before them, largest drop first, and"
        " what their weights look like. Click a row to open its layer"
        + (", or the values of a node without weights." if without.any() else ".")
    )
    rows = jumps.to_dict("records")

    def clicked() -> None:
        target = st.session_state["jumps"].clicked
        if not target:
            return
        row = rows[int(target["row"])]
        if pd.isna(row["layer_id"]):
            _show_tensor(int(row["simulation_id"]), str(row["tensor"]))
        else:
            navigation.open_layer(int(row["layer_id"]))

    components.table(
        columns=[
            {"title": "node", "kind": "name"},
            {"title": "accumulated", "kind": "pair"},
            {"title": "by itself", "kind": "pair", "number": True},
            {"title": "its weights, at p10", "kind": "chip"},
            {"title": "weight range, channel spread", "kind": "pair", "number": True, "wide": True},
        ],
        rows=[
            {"key": row_index, "cells": _jump_cells(row, is_several)}
            for row_index, row in enumerate(rows)
        ],
        key="jumps",
        on_click=clicked,
    )


def _jump_cells(row: dict[Any, Any], is_several: bool) -> list[dict[str, Any] | None]:
    is_layer = not pd.isna(row["layer_id"])
    small = f"{row['op_type']}" + (f" · {row['run']}" if is_several else "")
    ratio = frames.figure_or_none(row["channel_range_ratio"])
    return [
        {"text": f"{row['number']}. {printable(str(row['node_name']))}", "small": small},
        {
            "text": _before_and_after(row),
            "small": db(-float(row["drop_db"]), signed=True),
        },
        {"text": _local(row)},
        {"band": row["band"], "small": db(frames.figure_or_none(row["channel_sqnr_p10_db"]))}
        if is_layer
        else None,
        {
            "text": weight(frames.figure_or_none(row["weight_range"])),
            "small": "" if ratio is None or ratio <= 0 else bits(math.log2(ratio)),
        }
        if is_layer
        else {"text": "no weights"},
    ]


def _local(row: dict[Any, Any]) -> str:
    return db(frames.figure_or_none(row["local_db"])) if row["has_local"] else "–"


def _worst(tensors: pd.DataFrame, *, is_several: bool) -> None:
    st.space("small")
    st.header("Worst tensors", anchor=False)
    inexact = tensors[tensors["sqnr_db"].notna()]
    if inexact.empty:
        st.caption("Every tensor is exact.")
        return
    st.caption(
        "Lowest accumulated SQNR first. Mean shift is in standard deviations of the float tensor."
        " Click a row to see its values below."
    )
    rows = inexact.sort_values("sqnr_db", kind="stable").head(MOST_WORST).to_dict("records")

    def clicked() -> None:
        target = st.session_state["worst_tensors"].clicked
        if target:
            row = rows[int(target["row"])]
            _show_tensor(int(row["simulation_id"]), str(row["tensor"]))

    components.table(
        columns=[
            {"title": "tensor, and the node that computes it", "kind": "name"},
            {"title": "accumulated", "kind": "pair", "number": True},
            {"title": "by itself", "kind": "pair", "number": True},
            {"title": "mean shift", "kind": "pair", "number": True, "wide": True},
            {"title": "std, quantized over float", "kind": "pair", "number": True, "wide": True},
            {"title": "depth", "kind": "pair", "number": True, "wide": True},
        ],
        rows=[
            {
                "key": row_index,
                "cells": [
                    {
                        "text": printable(str(row["tensor"])),
                        "small": f"{row['op_type']} {printable(str(row['node_name']))}"
                        + (f" · {row['run']}" if is_several else ""),
                    },
                    {"text": db(frames.figure_or_none(row["sqnr_db"]))},
                    {"text": _local(row)},
                    {"text": _figure(row["mean_shift"], signed=True)},
                    {"text": _figure(row["std_ratio"])},
                    {"text": f"{100 * float(row['place']):.0f} %"},
                ],
            }
            for row_index, row in enumerate(rows)
        ],
        key="worst_tensors",
        on_click=clicked,
    )


def _figure(value: Any, *, signed: bool = False) -> str:
    figure = frames.figure_or_none(value)
    if figure is None:
        return "–"
    if round(figure, 2) == 0:
        return "0.00"
    return with_minus(f"{figure:+.2f}" if signed else f"{figure:.2f}")


# One tensor


def _one_tensor(con: Connection, tensors: pd.DataFrame, names: dict[int, str]) -> None:
    st.space("small")
    st.header("One tensor, float beside quantized", anchor=False)
    runs = [str(run) for run in names]
    with st.container(horizontal=True, gap="small"):
        run = runs[0]
        if len(runs) > 1:
            address.link("of", default=runs[0], options=runs)
            run = st.selectbox(
                "Run",
                runs,
                key="of",
                format_func=lambda option: names[int(option)],
                label_visibility="collapsed",
            )
        run_tensors = tensors[tensors["simulation_id"] == int(run)]
        labels = {
            str(row["tensor"]): f"{row['op_type']} {printable(str(row['node_name']))}:"
            f" {printable(str(row['tensor']))}"
            for row in run_tensors.to_dict("records")
        }
        inexact = run_tensors[run_tensors["sqnr_db"].notna()].sort_values("sqnr_db", kind="stable")
        worst = str((inexact if not inexact.empty else run_tensors).iloc[0]["tensor"])
        address.link("tensor", default=worst, options=list(labels))
        tensor = st.selectbox(
            "Tensor",
            list(labels),
            key="tensor",
            format_func=lambda option: labels.get(option, option),
            label_visibility="collapsed",
        )
    tensor_rows = queries.tensor_values(con, int(run), tensor)
    if tensor_rows.empty:
        st.caption("This run does not hold the tensor.")
        return
    row = tensor_rows.iloc[0]
    st.caption(_tensor_words(row))
    if row["float_counts"] is None or frames.figure_or_none(row["low"]) is None:
        st.caption("Its values were not kept.")
    elif float(row["low"]) == float(row["high"]):
        st.caption(f"Every value is {weight(float(row['low']))} in both models.")
    else:
        drawing.chart(
            charts.histograms(row, colours.palette()),
            key="tensor_values",
            alt=f"Values of {tensor} in the float and in the quantized model",
        )


def _tensor_words(row: pd.Series) -> str:
    clauses = [f"{db(frames.figure_or_none(row['sqnr_db']))} accumulated"]
    cosine = frames.figure_or_none(row["cosine"])
    if cosine is not None:
        clauses.append(f"cosine {with_minus(f'{cosine:.4f}')}")
    clauses.append(f"mean shift {_figure(row['mean_shift'], signed=True)} standard deviations")
    clauses.append(f"std {_figure(row['std_ratio'])} times that of float")
    for which in ("float", "quantized"):
        low, high = (frames.figure_or_none(row[f"{which}_{end}"]) for end in ("min", "max"))
        clauses.append(f"{which} {weight(low)} to {weight(high)}")
    return " · ".join(clauses)


# Sensitivity


def _sensitivity(con: Connection, models: list[str]) -> None:
    by_model = {model: frame for model in models if len(frame := queries.sensitivities(con, model))}
    if not by_model:
        return
    st.space("small")
    st.header("Sensitivity", anchor=False)
    model = next(iter(by_model))
    if len(by_model) > 1:
        model = pickers.choice("Model", list(by_model), key="sensitive", label_is_hidden=True)
    frame = by_model[model]
    first = frame.iloc[0]
    st.markdown(_agreement(frame))
    st.caption(
        f"{notes.escaped(model)}, {drift_runs.rounded(first.to_dict())}, on"
        f" {notes.escaped(str(first['input_source']))}. {_quantized_alone(first)}; the value is the"
        " SQNR at the outputs, lowest first. Click a row to open its layer."
    )

    def clicked() -> None:
        target = st.session_state["sensitivity"].clicked
        if target:
            navigation.open_layer(int(target["row"]))

    components.table(
        columns=[
            {"title": "quantized alone", "kind": "name"},
            {"title": "at the outputs", "kind": "pair", "number": True},
            {"title": "its weights, at p10", "kind": "chip"},
            {"title": "rank by weights", "kind": "pair", "number": True},
        ],
        rows=[
            {
                "key": int(row["layer_id"]),
                "cells": [
                    {
                        "text": f"{row['rank']}. {printable(str(row['layer']))}",
                        "small": operator(str(row["op_type"]), bool(row["is_depthwise"])),
                    },
                    {"text": db(frames.figure_or_none(row["output_sqnr_db"]))},
                    {
                        "band": row["band"],
                        "small": db(frames.figure_or_none(row["channel_sqnr_p10_db"])),
                    },
                    {"text": f"{row['weight_rank']}", "small": f"of {len(frame)}"},
                ],
            }
            for row in frame.head(MOST_SENSITIVE).to_dict("records")
        ],
        key="sensitivity",
        on_click=clicked,
    )


def _quantized_alone(row: pd.Series) -> str:
    """What is quantized at a time. Release 0.1.0 took what a layer reads and makes with it."""
    parts = {"weights": "weights", "both": "weights, inputs and outputs"}.get(
        row["mode"], "inputs and outputs"
    )
    if row["unit_kind"] == "weights":
        parts = "weights"
    return f"Only the {parts} of this layer are quantized"


def _agreement(frame: pd.DataFrame) -> str:
    infinite = float("inf")
    rank_correlation = spearman(
        frame["output_sqnr_db"].astype(float).fillna(infinite),
        frame["channel_sqnr_p10_db"].astype(float).fillna(infinite),
    )
    if rank_correlation.rho is None:
        return "Too few layers to compare this ranking with the ranking by weights."
    rho = with_minus(f"{rank_correlation.rho:.2f}")
    verb = (
        "agrees with"
        if rank_correlation.rho >= 0.8
        else "leans to"
        if rank_correlation.rho >= 0.4
        else "differs from"
    )
    return (
        f"The ranking by outputs {verb} the ranking by weights (channel p10): Spearman"
        f" **{rho}** over {counted(rank_correlation.n, 'layer')}."
    )


if __name__ == "__main__":
    main()
