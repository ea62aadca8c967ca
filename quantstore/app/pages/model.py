"""Model: which layers break it, why, and what would rescue each?"""

import math
from typing import Any

import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.app.sections import answers, findings, overlays, probe, targets
from quantstore.app.widgets import (
    address,
    colours,
    components,
    downloads,
    drawing,
    matrix,
    navigation,
    notes,
    pickers,
    report_button,
    stores,
)
from quantstore.charts import compare, model
from quantstore.charts.measures import CHANNEL_SPREAD, WEIGHT_RANGE, measure_of
from quantstore.charts.palette import BANDS
from quantstore.errors import printable
from quantstore.schemes import DEFAULT_SCHEME, Scheme, Target
from quantstore.store import Connection
from quantstore.wording import frames, tables
from quantstore.wording.causes import causes
from quantstore.wording.headlines import layers_in_words, model_headline
from quantstore.wording.nodes import operator
from quantstore.wording.remedies import (
    MOST_BITS,
    REMEDIES,
    equalization_hope,
    fine_from,
    what_helps,
)
from quantstore.wording.units import count, counted, db, shape, share, weight
from quantstore.wording.verdicts import NINE_IN_TEN, UNFOLDED, verdict_sentence

FIRST_ROWS = 8
# Beyond this many rows a scrolling table serves better than a long page.
MOST_ROWS = 200
BREAKS, RESCUES = "What breaks it", "What would rescue it"
LAYER_AND_CAUSE, LAYER_AND_REMEDY = "layer, and what breaks it", "layer, and what helps it most"
FILTERS = {"Broken": ("broken",), "At risk and worse": ("broken", "at risk"), "All": BANDS}


def main() -> None:
    """Draw the page."""
    navigation.follow_click()
    target = pickers.target()
    with stores.open_store() as con:
        title_column, picker_column = st.columns([3, 1.1], vertical_alignment="bottom")
        with picker_column:
            name = pickers.pick_model(queries.rank_of_models(con, target.name))
        with title_column:
            st.title(notes.escaped(name), anchor=False)
        _draw(con, name, target)


def _draw(con: Connection, name: str, target: Target) -> None:
    scheme = target.layer_scheme
    verdicts = queries.verdicts(con, [name])
    by_target = {row["target"]: row for row in verdicts.to_dict("records")}
    verdict_row = by_target[target.name]
    facts = queries.model_facts(verdict_row)
    per_channel = None
    if target.per_channel is not None:
        per_channel = queries.model_facts(by_target[target.per_channel.name])
    limits = queries.band_limits(con)
    st.header(model_headline(facts, per_channel, target), anchor=False)
    if facts.says_more_on_one_line:
        sentence = verdict_sentence(facts)
        st.markdown(notes.escaped(f"{sentence[0].upper()}{sentence[1:]}."))
    rescues = answers.stored_rescues(con, name)
    answers.section(facts, [queries.model_facts(row) for row in by_target.values()], rescues)
    st.space("small")
    matrix.verdict_matrix(verdicts, [name], target, corner="verdict by target", key="model_matrix")
    layers_said = layers_in_words(facts)
    st.caption(
        f"{layers_said[0].upper()}{layers_said[1:]}; {count(verdict_row['channels_below_10db'])} of"
        f" {count(verdict_row['channel_count'])} channels stay below 10 dB. Median weight range of"
        f" a layer {weight(verdict_row['median_weight_range'])},"
        f" largest {weight(verdict_row['max_weight_range'])}."
        + ("" if verdict_row["folded"] else f" Measured with {UNFOLDED}.")
    )
    notes.evidence_notes(matrix.in_matrix(verdicts, target))
    notes.explain("probe", "sqnr", "bands", "per_channel", limits=limits)
    report_button.draw([name], target, key="report_model")
    runs = queries.model_runs(con, name)
    probe.section(runs, scheme)
    (origin,) = queries.origins(con, [name])
    targets.section(name, origin.source, queries.model_targets(con, name), rescues)
    profiles = queries.layer_profiles(con, [name], scheme.name)
    layers = queries.worst_layers(con, name, scheme.name).merge(
        queries.layer_rescues(con, name, scheme.name), on="layer_id"
    )
    layers["label"] = frames.layer_labels(layers)
    bits_needed = queries.model_bits_needed(con, name)
    hopes = None
    if scheme == DEFAULT_SCHEME:
        hopes = queries.model_equalization(con, name, scheme.name)
    _map(profiles, verdict_row, limits, runs, scheme)
    is_table = layers["op_family"] == "embedding"
    _worst(layers[~is_table], scheme, limits, _what_helps(bits_needed, hopes))
    if is_table.any():
        _embeddings(layers[is_table], scheme, limits)
    findings.of_model(queries.model_findings(con, name))
    _spread(profiles, scheme)
    overlays.section(origin, target)


def _map(
    profiles: pd.DataFrame,
    verdict_row: dict[Any, Any],
    limits: dict[str, float],
    runs: pd.DataFrame,
    scheme: Scheme,
) -> None:
    st.space("small")
    st.header("Where it breaks", anchor=False)
    reason = probe.activations_to_blame(runs, scheme)
    if reason is not None:
        st.markdown(reason)
        probe.drift_link(runs, key="why_drift")
    st.caption(
        "Input on the left, output on the right. Bars show the SQNR that 90 % of the layer's"
        " channels reach, measured down from 40 dB. Longer bars are worse. Click one to open"
        " the layer."
    )
    worst = verdict_row["worst_layer"]
    drawing.clickable_chart(
        model.layer_map(profiles, colours.palette()),
        key="map",
        alt=f"SQNR of every layer from input to output; the worst is {worst}",
    )
    counts = {band: int(verdict_row[f"layers_{band.replace(' ', '_')}"]) for band in BANDS}
    colours.legend(limits, counts)


def _what_helps(bits_needed: dict[str, int | None], hopes: pd.DataFrame | None) -> str:
    """What could be done about the worst layers: neighbours to share scale with, and bits.

    Args:
        hopes: as ``queries.model_equalization`` gives them; None under other schemes than theirs.
    """
    sentences = []
    if hopes is not None:
        by_band = {row["band"]: row for row in hopes.to_dict("records")}
        worst = next((band for band in ("broken", "at risk") if band in by_band), None)
        if worst is not None:
            hope = by_band[worst]
            sentences.append(
                equalization_hope(
                    worst,
                    layers=int(hope["layers"]),
                    with_pair=int(hope["layers_with_pair"]),
                    lifted=int(hope["layers_lifted"]),
                )
            )
    if bits_needed:
        sentences.append(fine_from(bits_needed, of_model=True))
    return " ".join(sentences)


def _worst(layers: pd.DataFrame, scheme: Scheme, limits: dict[str, float], what_helps: str) -> None:
    st.space("small")
    st.header("Worst layers first", anchor=False)
    if what_helps:
        st.caption(what_helps)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        address.link("find", default="")
        text = st.text_input(
            "Find a layer by name",
            placeholder="Find a layer by name",
            label_visibility="collapsed",
            key="find",
            width=320,
        )
        kept = pickers.choice("Bands", list(FILTERS), key="kept", first="All", label_is_hidden=True)
        view = pickers.choice("Columns", [BREAKS, RESCUES], key="columns", label_is_hidden=True)
        st.space("stretch")
        _download(layers, scheme)
    matching = layers[layers["band"].isin(FILTERS[kept])]
    if text:
        matching = queries.found_by_name(matching, text)
    if matching.empty:
        st.caption(no_such_layer(is_filtered=kept != "All") if text else NO_LAYER_IS_THAT_BAD)
        return
    if len(matching) > MOST_ROWS:
        _long_table(matching, scheme, view)
        return
    show_all = st.session_state.get("show_all_layers", False) or len(matching) <= FIRST_ROWS + 2
    rows = matching if show_all else matching.head(FIRST_ROWS)

    def clicked() -> None:
        target = st.session_state["worst"].clicked
        if target:
            navigation.open_layer(int(target["row"]))

    if view == RESCUES:
        st.caption(RESCUE_NOTE)
    remedies = _remedies(layers, scheme)
    components.table(
        columns=_columns(scheme) if view == BREAKS else _rescue_columns(remedies),
        rows=[
            _row(layer, scheme, limits) if view == BREAKS else _rescue_row(layer, remedies)
            for layer in rows.to_dict("records")
        ],
        key="worst",
        on_click=clicked,
    )
    if not show_all:
        st.button(
            f"Show all {len(matching)} layers",
            icon=":material/expand_more:",
            type="tertiary",
            key="show_all",
            on_click=lambda: st.session_state.update(show_all_layers=True),
        )


NO_LAYER_IS_THAT_BAD = "No layer of this model is that bad."


def no_such_layer(*, is_filtered: bool) -> str:
    """That no layer has what somebody typed in its name; some bands may be filtered out."""
    among = ", among those of this filter" if is_filtered else ""
    return f"No layer has this in its name{among}."


RESCUE_NOTE = (
    "What 90 % of channels would reach with each remedy, and the gain. Clipped: the largest"
    " weights cut off at the least squared error. Equalized: scale shared with the better"
    " neighbour. Bits: the fewest that keep 90 % of channels at 30 dB. Weights only."
)


def _remedies(layers: pd.DataFrame, scheme: Scheme) -> dict[str, str]:
    """Those that the store knows of some layer under this scheme."""
    return {
        column: name
        for column, name in REMEDIES.items()
        if layers[column].notna().any()
        and not (scheme.is_per_channel and column == "per_channel_p10_db")
    }


def _rescue_columns(remedies: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"title": LAYER_AND_REMEDY, "kind": "name"},
        {"title": "band, at p10", "kind": "chip", "help": NINE_IN_TEN},
        *({"title": f"p10 {name}", "kind": "pair", "number": True} for name in remedies.values()),
        {"title": "bits per tensor", "kind": "pair", "number": True, "wide": True},
        {"title": "per channel", "kind": "pair", "number": True, "wide": True},
        {"title": "in blocks of 32", "kind": "pair", "number": True, "wide": True},
    ]


def _rescue_row(layer: dict[Any, Any], remedies: dict[str, str]) -> dict[str, Any]:
    now = frames.figure_or_none(layer["channel_sqnr_p10_db"])
    reached = frames.reached_with(layer, remedies)
    helped = what_helps(str(layer["band"]), now, reached)
    return {
        "key": int(layer["layer_id"]),
        "cells": [
            {"text": printable(str(layer["label"])), "small": helped},
            {"band": layer["band"], "small": db(now)},
            *(_reached(now, value) for value in reached.values()),
            *(
                {"text": _bits(layer[f"bits_{granularity}"])}
                for granularity in ("tensor", "channel", "block")
            ),
        ],
    }


def _reached(now: float | None, value: float | None) -> dict[str, str]:
    if value is None:
        return {"text": "–"}
    if now is None or not math.isfinite(value):
        return {"text": db(value)}
    return {"text": db(value), "small": db(value - now, signed=True)}


def _bits(value: Any) -> str:
    number = frames.figure_or_none(value)
    if number is None:
        return "–"
    return f"> {MOST_BITS}" if number < 0 else str(int(number))


def _download(layers: pd.DataFrame, scheme: Scheme) -> None:
    """Every layer with its statistics, its errors and what would rescue it."""
    name = downloads.file_name(str(layers["model"].iloc[0]), scheme.name, "layers")
    st.download_button(
        "CSV",
        data=lambda: tables.to_csv(layers.drop(columns=["spark", "label"])),
        file_name=f"{name}.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
        key="layers_csv",
        help="Every layer with its values, judged under the scheme on show",
    )


def _embeddings(tables: pd.DataFrame, scheme: Scheme, limits: dict[str, float]) -> None:
    st.space("small")
    st.header("Embeddings", anchor=False)
    st.caption(
        "Tables whose rows are looked up, not multiplied: many runtimes leave them in float or give"
        " every row a scale. The verdict counts them as layers; the list above leaves them out."
    )

    def clicked() -> None:
        target = st.session_state["embeddings"].clicked
        if target:
            navigation.open_layer(int(target["row"]))

    components.table(
        columns=_columns(scheme),
        rows=[_row(table, scheme, limits) for table in tables.head(MOST_ROWS).to_dict("records")],
        key="embeddings",
        on_click=clicked,
    )


def _columns(scheme: Scheme) -> list[dict[str, Any]]:
    columns: list[dict[str, Any]] = [
        {"title": LAYER_AND_CAUSE, "kind": "name"},
        {"title": "operator, weight shape", "kind": "pair", "wide": True},
        {"title": "its channels by SQNR, 0 to 50 dB", "kind": "spark", "wide": True},
        {"title": "band, at p10", "kind": "chip", "help": NINE_IN_TEN},
        {"title": "channels below 10 dB", "kind": "pair", "number": True},
        {"title": "weights zeroed", "kind": "pair", "number": True, "wide": True},
    ]
    if not scheme.is_per_channel:
        columns.append({"title": "p10 if per channel", "kind": "pair", "number": True})
    return columns


def _row(layer: dict[Any, Any], scheme: Scheme, limits: dict[str, float]) -> dict[str, Any]:
    reasons = causes(frames.layer_facts(layer), scheme)
    name = printable(str(layer["label"]))
    cells: list[dict[str, Any]] = [
        {"text": name, "small": "; ".join(reasons)},
        {
            "text": operator(layer["op_type"], layer["is_depthwise"]),
            "small": shape(layer["shape"]),
        },
        drawing.spark(layer["spark"], limits),
        {"band": layer["band"], "small": db(layer["channel_sqnr_p10_db"])},
        {
            "text": count(layer["channels_below_10db"]),
            "small": f"of {count(layer['channel_count'])}",
        },
        {"text": share(layer["zeroed_fraction"])},
    ]
    if not scheme.is_per_channel:
        cells.append({"text": db(layer["per_channel_p10_db"])})
    return {"key": int(layer["layer_id"]), "cells": cells}


def _long_table(layers: pd.DataFrame, scheme: Scheme, view: str) -> None:
    ids = layers["layer_id"].tolist()

    def clicked() -> None:
        picked = st.session_state["long_worst"].selection.rows
        if picked:
            navigation.open_layer(int(ids[picked[0]]))

    columns: dict[str, Any] = {"layer": layers["label"].map(printable), "band": layers["band"]}
    columns["p10, dB"] = layers["channel_sqnr_p10_db"]
    if view == BREAKS:
        columns |= {
            "operator": [
                operator(op, depthwise)
                for op, depthwise in zip(layers["op_type"], layers["is_depthwise"], strict=True)
            ],
            "weight shape": [shape(dimensions) for dimensions in layers["shape"]],
            "channels below 10 dB": layers["channels_below_10db"],
            "channels": layers["channel_count"],
            "weights zeroed": layers["zeroed_fraction"],
        }
    if view == RESCUES:
        for column, name in _remedies(layers, scheme).items():
            columns[f"p10 {name}, dB"] = layers[column]
        for granularity, title in (("tensor", "bits per tensor"), ("channel", "bits per channel")):
            columns[title] = layers[f"bits_{granularity}"].map(_bits)
    st.caption(f"{counted(len(layers), 'layer')}. Choose a row to open the layer.")
    st.dataframe(
        pd.DataFrame(columns),
        hide_index=True,
        key="long_worst",
        on_select=clicked,
        selection_mode="single-row",
        column_config={
            **{
                name: st.column_config.NumberColumn(format="%.1f")
                for name in columns
                if name.endswith(", dB")
            },
            "weights zeroed": st.column_config.NumberColumn(format="percent"),
        },
        height=480,
    )


def _spread(profiles: pd.DataFrame, scheme: Scheme) -> None:
    st.space("small")
    st.header("How its layers spread", anchor=False)
    labels = [WEIGHT_RANGE, CHANNEL_SPREAD]
    label = pickers.choice("Measure", labels, key="model_measure", label_is_hidden=True)
    drawing.clickable_chart(
        compare.bricks(profiles, measure_of(label, scheme), colours.palette()),
        key="model_bricks",
        alt=f"{label} of the layers, one brick per layer",
    )


if __name__ == "__main__":
    main()
