"""Model: which layers break the model, why, and what would rescue each?"""

from typing import Any

import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.app.sections import (
    answers,
    audits,
    findings,
    network,
    overlays,
    probe,
    targets,
    ways_on,
)
from quantstore.app.widgets import (
    address,
    colours,
    downloads,
    drawing,
    listing,
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
from quantstore.file_formats import FORMATS, ONNX
from quantstore.schemes import DEFAULT_SCHEME, Scheme, Target
from quantstore.store import Connection
from quantstore.wording import frames, stories, tables
from quantstore.wording import layers as wording
from quantstore.wording.headlines import model_headline, verdict_line, weights_line
from quantstore.wording.nodes import operator
from quantstore.wording.remedies import model_remedies
from quantstore.wording.runs import activations_to_blame
from quantstore.wording.units import counted, shape

LAYERS, NETWORK = "Layers", "Network"
FIRST_ROWS = 8
# Beyond this many rows a scrolling table serves better than a long page.
MOST_ROWS = 200
BREAKS, RESCUES = "What breaks it", wording.RESCUES
FILTERS = {"Broken": ("broken",), "At risk and worse": ("broken", "at risk"), "All": BANDS}


def main() -> None:
    """Draw the page."""
    navigation.follow_click()
    target = pickers.target()
    with stores.open_store() as con:
        title_column, picker_column = st.columns([3, 1.1], vertical_alignment="bottom")
        with picker_column:
            name = pickers.pick_model(stores.worst_first(con, target))
        with title_column:
            st.title(notes.escaped(name), anchor=False)
        _draw(con, name, target)


def _draw(con: Connection, name: str, target: Target) -> None:
    scheme = target.layer_scheme
    verdicts = stores.verdicts(con, [name])
    by_target = {row["target"]: row for row in verdicts.to_dict("records")}
    verdict_row = by_target[target.name]
    facts = queries.model_facts(verdict_row)
    per_channel = None
    if target.per_channel is not None:
        per_channel = queries.model_facts(by_target[target.per_channel.name])
    limits = queries.band_limits(con)
    st.header(model_headline(facts, per_channel, target), anchor=False)
    if sentence := verdict_line(facts):
        st.markdown(notes.escaped(sentence))
    audits.of_model(con, name, is_integer=facts.is_already_quantized)
    rescues = queries.stored_rescues(con, name)
    (origin,) = queries.origins(con, [name])
    all_facts = [queries.model_facts(row) for row in by_target.values()]
    answers.section(facts, all_facts, rescues, origin.why_not_run)
    if facts.is_untested:
        ways_on.finish_test([origin], target, key="finish_test")
    st.space("small")
    matrix.verdict_matrix(verdicts, [name], target, corner="verdict by target", key="model_matrix")
    st.caption(weights_line(verdict_row, facts))
    notes.evidence_notes(matrix.in_matrix(verdicts, target))
    notes.explain("probe", "sqnr", "bands", "per_channel", limits=limits)
    report_button.draw([name], target, key="report_model")
    runs = queries.model_runs(con, name)
    st.space("small")
    has_graph = FORMATS.get(origin.file_format, ONNX).has_graph
    views = [LAYERS, NETWORK]
    if has_graph and pickers.choice("Show", views, key="show", label_is_hidden=True) == NETWORK:
        network.section(con, name, target, limits)
    else:
        _layers(con, name, verdict_row, runs, target, has_graph=has_graph)
    if not origin.why_not_run:
        probe.section(runs, scheme)
    figures = queries.model_targets(con, name)
    ways_on.measure_again(origin, figures)
    targets.section(origin, figures, rescues)
    findings.of_model(queries.model_findings(con, name))
    overlays.section(origin, target)


def _layers(
    con: Connection,
    name: str,
    verdict_row: dict[Any, Any],
    runs: pd.DataFrame,
    target: Target,
    *,
    has_graph: bool,
) -> None:
    """Every layer: along the network, worst first, and how they spread."""
    scheme, limits = target.layer_scheme, queries.band_limits(con)
    profiles = queries.layer_profiles(con, [name], scheme.name)
    layers = queries.worst_layers(con, name, scheme.name).merge(
        queries.layer_rescues(con, name, scheme.name), on="layer_id"
    )
    layers["label"] = frames.layer_labels(layers)
    bits_needed = queries.model_bits_needed(con, name)
    hopes = []
    if scheme == DEFAULT_SCHEME:
        hopes = queries.model_equalization(con, name, scheme.name).to_dict("records")
    _map(profiles, verdict_row, limits, runs, scheme, has_graph=has_graph)
    is_table = layers["op_family"] == "embedding"
    _worst(layers[~is_table], scheme, limits, model_remedies(hopes, bits_needed))
    if is_table.any():
        _embeddings(layers[is_table], scheme, limits)
    _spread(profiles, scheme)


def _map(
    profiles: pd.DataFrame,
    verdict_row: dict[Any, Any],
    limits: dict[str, float],
    runs: pd.DataFrame,
    scheme: Scheme,
    *,
    has_graph: bool,
) -> None:
    heading = stories.map_heading(verdict_row["layers_broken"], has_graph=has_graph)
    st.header(heading, anchor=False)
    reason = activations_to_blame(runs.to_dict("records"), scheme)
    if reason is not None:
        st.markdown(reason)
        probe.drift_link(runs, key="why_drift")
    order = stories.FROM_INPUT if has_graph else stories.WITHOUT_GRAPH
    st.caption(f"{order} {stories.DEPTH_NOTE} Click one to open the layer.")
    worst = verdict_row["worst_layer"]
    drawing.clickable_chart(
        model.layer_map(profiles, colours.palette()),
        key="map",
        alt=f"SQNR of every layer from input to output; the worst is {worst}",
    )
    colours.legend(limits, queries.layers_by_band(verdict_row))


def _worst(layers: pd.DataFrame, scheme: Scheme, limits: dict[str, float], what_helps: str) -> None:
    st.space("small")
    st.header(wording.HEADING, anchor=False)
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
        st.caption(wording.RESCUE_NOTE)
    listing.draw(
        wording.cause_columns(scheme, limits)
        if view == BREAKS
        else wording.remedy_columns(wording.stored_remedies(layers, scheme)),
        rows.to_dict("records"),
        key="worst",
        row_key="layer_id",
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


NO_LAYER_IS_THAT_BAD = "No layer of this model is in this band."


def no_such_layer(*, is_filtered: bool) -> str:
    """That no layer has what somebody typed in its name; some bands may be filtered out."""
    among = " in the chosen bands" if is_filtered else ""
    return f"No layer name{among} contains this text."


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
        help="All layers with their values under the chosen scheme",
    )


def _embeddings(tables: pd.DataFrame, scheme: Scheme, limits: dict[str, float]) -> None:
    st.space("small")
    st.header(wording.EMBEDDINGS, anchor=False)
    st.caption(wording.EMBEDDINGS_NOTE)

    def clicked() -> None:
        target = st.session_state["embeddings"].clicked
        if target:
            navigation.open_layer(int(target["row"]))

    listing.draw(
        wording.cause_columns(scheme, limits),
        tables.head(MOST_ROWS).to_dict("records"),
        key="embeddings",
        row_key="layer_id",
        on_click=clicked,
    )


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
        for column, name in wording.stored_remedies(layers, scheme).items():
            columns[f"p10 {name}, dB"] = layers[column]
        for granularity, title in (("tensor", "bits per tensor"), ("channel", "bits per channel")):
            columns[title] = layers[f"bits_{granularity}"].map(wording.bits)
    st.caption(f"{counted(len(layers), 'layer')}. Click a row to open the layer.")
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
    st.header("Weight range and channel spread", anchor=False)
    labels = [WEIGHT_RANGE, CHANNEL_SPREAD]
    label = pickers.choice("Measure", labels, key="model_measure", label_is_hidden=True)
    drawing.clickable_chart(
        compare.bricks(profiles, measure_of(label, scheme), colours.palette()),
        key="model_bricks",
        alt=f"{label} of the layers, one brick per layer",
    )


if __name__ == "__main__":
    main()
