"""Layer: what do the channels of a layer look like, and what would rescue the layer?"""

import html
from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.app.sections import channels, clipping, equalization, findings
from quantstore.app.widgets import address, colours, components, drawing, navigation, notes, stores
from quantstore.app.widgets import pickers as pickers_widgets
from quantstore.charts import codes
from quantstore.charts import layer as charts
from quantstore.charts.palette import DARK, LIGHT, both
from quantstore.errors import printable
from quantstore.numerics.quantization import Grid
from quantstore.schemes import (
    DEFAULT_SCHEME,
    INT8_CHANNEL_SYMMETRIC,
    INT8_SCHEMES,
    SCHEMES,
    Scheme,
)
from quantstore.store import Connection
from quantstore.wording import frames
from quantstore.wording.causes import causes, expected_db
from quantstore.wording.nodes import node_settings, operator
from quantstore.wording.remedies import TELLING_GAIN_DB, fine_from
from quantstore.wording.text import breakable, listed
from quantstore.wording.units import (
    NO_BREAK_SPACE,
    bits,
    count,
    counted,
    db,
    shape,
    share,
    times,
    weight,
    weights,
)
from quantstore.wording.verdicts import NINE_IN_TEN_REACH

# What is left beside these are the tails.
MOST_WEIGHTS = 0.9
# What the table shows at first: the schemes of int8 hardware, and one of each other kind of rescue.
FIRST_SCHEMES = (
    *INT8_SCHEMES,
    "int8_tensor_symmetric_mse",
    "int8_block32_symmetric",
    "fp8_e4m3_channel",
    "int4_channel_symmetric",
    "int4_block32_symmetric",
)

MUTED = both(LIGHT.muted, DARK.muted)

CODES_TITLE = "How many int8 codes the weights use"
DISTRIBUTION_TITLE = "How the weights are distributed"
RESCUE_TITLE = "What would rescue it"


def main() -> None:
    """Draw the page."""
    navigation.follow_click()
    chosen_scheme = pickers_widgets.scheme()
    has_channels = chosen_scheme.name in INT8_SCHEMES
    scheme = chosen_scheme if has_channels else INT8_CHANNEL_SYMMETRIC
    with stores.open_store() as con:
        top = st.container(horizontal=True, vertical_alignment="center", gap="small")
        pickers = st.container(horizontal=True, gap="small")
        with pickers:
            # The address names model and layer even where both are the worst: another model in the
            # store would change which those are.
            by_damage = stores.worst_first(con, pickers_widgets.target())
            model = pickers_widgets.pick_model(by_damage, is_always_written=True)
            ranked = stores.ask(con, queries.ranked_layers, model, scheme.name)
            row = _pick_layer(model, ranked)
        with top:
            _ways_out(model, row, ranked)
        _say_missing(model)
        if not has_channels:
            st.info(no_channels_under(chosen_scheme))
        _draw(con, int(row["layer_id"]), ranked, scheme)


def no_channels_under(scheme: Scheme) -> str:
    """What the page shows instead of a scheme without figures of channels."""
    return (
        f"No channel values are stored for {scheme.title}. This page shows"
        f" {INT8_CHANNEL_SYMMETRIC.title} instead; the table of schemes below shows both."
    )


def _draw(con: Connection, layer_id: int, ranked: pd.DataFrame, scheme: Scheme) -> None:
    details = queries.layer_details(con, layer_id)
    schemes = queries.layer_schemes(con, layer_id)
    channel_facts = queries.layer_channel_facts(con, layer_id, scheme.name)
    (errors,) = schemes[schemes["scheme"] == scheme.name].to_dict("records")
    row: dict[Any, Any] = {**details, **errors, **channel_facts}
    limits = queries.band_limits(con)
    _heading(row, details, scheme, len(ranked))
    findings.of_layer(queries.layer_findings(con, layer_id))
    histogram = queries.layer_histogram(con, layer_id)
    if histogram.empty:
        st.info("This layer has no finite weights, so there is nothing to measure or draw.")
        return
    _facts(row, details, scheme)
    notes.explain("bands", "sqnr", "spread", "per_channel", limits=limits)
    grid = None
    if not scheme.is_per_channel:
        grid = codes.shared_grid(row["weight_min"], row["weight_max"], scheme)
    channels.section(con, details, channel_facts, scheme, grid, limits)
    _codes(histogram, row, details, scheme, grid)
    sparks = queries.layer_sparks(con, layer_id)
    _rescue(schemes, sparks, scheme, limits, queries.layer_bits_needed(con, layer_id))
    clipping.section(queries.layer_clipping(con, layer_id), int(row["channel_count"]))
    neighbours = queries.layer_equalization(con, layer_id, DEFAULT_SCHEME.name)
    equalization.section(neighbours, details, _opener(ranked))
    channels.table(con, details, scheme)


# Which layer


def _pick_layer(model: str, ranked: pd.DataFrame) -> dict[Any, Any]:
    """The row of the layer on show; the worst one unless somebody chose."""
    rows = ranked.to_dict("records")
    labels = frames.layer_labels(ranked)
    asked, asked_model = address.asked_for("layer"), address.asked_for("model")
    came_from = st.session_state.get("layer_of", model)
    st.session_state["layer_of"] = model
    # A layer of the model shown before, or of a model that is not there, needs no explanation.
    is_expected = came_from == model and asked_model in (None, model)
    if asked is not None and asked not in labels and is_expected:
        st.session_state["layer_missing"] = (
            f"{model} has no layer named {asked}. This is its worst one."
        )
    address.link("layer", default=labels[0], options=labels, is_always_written=True)
    picked = st.selectbox(
        "Layer",
        labels,
        key="layer",
        format_func=printable,
        label_visibility="collapsed",
        on_change=address.by_hand(_forget_missing),
    )
    return rows[labels.index(picked) if picked in labels else 0]


def _say_missing(model: str) -> None:
    """Kept until another layer is picked: the first run of a page may not be its last."""
    missing = st.session_state.get("layer_missing")
    if missing is not None and missing.startswith(f"{model} "):
        st.warning(notes.escaped(missing))


def _forget_missing() -> None:
    st.session_state.pop("layer_missing", None)


def _show(label: str) -> None:
    """From a callback: another layer of the same model."""
    address.choose("layer", label)
    _forget_missing()


def _opener(ranked: pd.DataFrame) -> Callable[[int], None]:
    """What shows a layer of the model by its key."""
    labels = dict(zip(ranked["layer_id"].tolist(), frames.layer_labels(ranked), strict=True))

    def open_layer(layer_id: int) -> None:
        _show(labels[layer_id])

    return open_layer


def _ways_out(model: str, row: dict[Any, Any], ranked: pd.DataFrame) -> None:
    """Back to the model; to the neighbours by severity, and to those in the network."""

    st.button(
        notes.escaped(model),
        icon=":material/arrow_back:",
        type="tertiary",
        key="back_to_model",
        help="Back to the model",
        on_click=navigation.open_next,
        args=("model",),
    )
    st.space("stretch")
    labels = frames.layer_labels(ranked)
    by_depth = [label for _, label in sorted(zip(ranked["depth"], labels, strict=True))]
    layer_label = labels[int(row["rank"]) - 1]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
        _steps(
            labels,
            layer_label,
            "#{} of {} by severity",
            ("worse_layer", "Worse"),
            ("better_layer", "Better"),
        )
    with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
        _steps(
            by_depth,
            layer_label,
            "layer {} of {}",
            ("earlier_layer", "Previous"),
            ("later_layer", "Next"),
        )


def _steps(
    labels: list[str], layer_label: str, place: str, back: tuple[str, str], on: tuple[str, str]
) -> None:
    """To the layer before and the one behind in some order, and the place between them."""
    position = labels.index(layer_label)
    if position > 0:
        key, button_label = back
        st.button(
            button_label,
            icon=":material/chevron_left:",
            key=key,
            on_click=_show,
            args=(labels[position - 1],),
        )
    st.markdown(place.format(count(position + 1), count(len(labels))), width="content")
    if position + 1 < len(labels):
        key, button_label = on
        st.button(
            button_label,
            icon=":material/chevron_right:",
            icon_position="right",
            key=key,
            on_click=_show,
            args=(labels[position + 1],),
        )


# What it is


def _heading(
    row: dict[Any, Any], details: dict[str, Any], scheme: Scheme, layer_count: int
) -> None:
    band = str(row["band"])
    tint = both(LIGHT.bands[band].tint, DARK.bands[band].tint)
    ink = both(LIGHT.bands[band].ink, DARK.bands[band].ink)
    why = "; ".join(causes(frames.layer_facts(row), scheme)) or "no single cause stands out"
    if frames.figure_or_none(row["weight_range"]) is None:
        why = "nothing to judge"
    operand = "" if row["operand"] in ("W", "B") else f", operand {row['operand']}"
    facts = [
        operator(str(row["op_type"]), bool(row["is_depthwise"])) + operand,
        f"weight {shape(details['shape'])}",
        counted(int(row["channel_count"]), "output channel"),
        counted(1, "weight")
        if row["weight_count"] == 1
        else f"{_exactly(row['weight_count'])} weights",
        *node_settings(_text(details["attributes"]), int(details["group_count"])),
        f"layer {count(int(row['depth']) + 1)} of {count(layer_count)}",
    ]
    if details["batchnorm_folded"] and details["mul_folded"]:
        facts.append("BatchNormalization and Mul folded in")
    elif details["batchnorm_folded"]:
        facts.append("BatchNormalization folded in")
    elif details["mul_folded"]:
        facts.append("Mul folded in")
    if details["already_quantized"]:
        facts.append(
            f"stored as {details['stored_scheme']}, step {weight(details['stored_step'])}:"
            " earlier loss unknown"
        )
    if details["nonfinite_count"]:
        facts.append(f"{count(int(details['nonfinite_count']))} NaN or infinite weights left out")
    st.html(
        '<h1 style="font-size:26px;font-weight:650;line-height:1.25;padding:0;margin:0 0 10px;'
        f'overflow-wrap:anywhere">{breakable(printable(str(row["layer"])))}</h1>'
        '<div style="display:flex;gap:10px;align-items:baseline;margin-bottom:8px">'
        f'<span style="background:{tint};color:{ink};font-weight:600;border-radius:5px;'
        f'padding:2px 10px;white-space:nowrap">{html.escape(band)}</span>'
        f'<span style="font-weight:600">under {html.escape(scheme.title)}: {html.escape(why)}'
        "</span></div>"
        f'<div style="font-size:12px;color:{MUTED}">'
        f"{' · '.join(html.escape(fact) for fact in facts)}</div>"
    )


def _facts(row: dict[Any, Any], details: dict[str, Any], scheme: Scheme) -> None:
    channel_count = int(row["channel_count"])
    below = int(row["channels_below_10db"])
    span = frames.figure_or_none(
        details["symmetric_span_over_rms" if scheme.is_symmetric else "asymmetric_span_over_rms"]
    )
    if span and not scheme.is_per_channel and frames.figure_or_none(row["sqnr_db"]) is not None:
        expected = f"≈{NO_BREAK_SPACE}{expected_db(span):.0f}{NO_BREAK_SPACE}dB"
        range_note = f"grid spans {weight(span)} rms, {expected}"
    else:
        range_note = f"{weight(row['weight_min'])} to {weight(row['weight_max'])}"
    ratio = frames.figure_or_none(details["channel_range_ratio"])
    spread_note = "–" if ratio is None else f"widest channel {times(ratio)} the median"
    lowest, median = row["channel_sqnr_min_db"], row["channel_sqnr_median_db"]
    facts = (
        (
            NINE_IN_TEN_REACH,
            db(row["channel_sqnr_p10_db"]),
            f"lowest {db(lowest)}, median {db(median)}"
            if channel_count > 1
            else "its only channel",
        ),
        (
            "channels below 10 dB",
            f"{count(below)} of {count(channel_count)}",
            share(below / channel_count) if channel_count else "",
        ),
        (
            "weights rounded to zero",
            share(float(row["zeroed_fraction"]), digits=1),
            f"of {_exactly(row['weight_count'])}",
        ),
        ("weight range", weight(row["weight_range"]), range_note),
        (
            "channel spread",
            bits(frames.figure_or_none(details["channel_spread_bits"])),
            spread_note,
        ),
    )
    with st.grid(5, min_column_width=130):
        for title, value, note in facts:
            st.html(
                '<div style="line-height:1.35;font-variant-numeric:tabular-nums">'
                f'<div style="font-size:12px;color:{MUTED}">{title}</div>'
                f'<div style="font-size:21px;font-weight:600">{html.escape(value)}</div>'
                f'<div style="font-size:12px;color:{MUTED}">{html.escape(note)}</div></div>'
            )


# Its codes


def _codes(
    histogram: pd.DataFrame,
    row: dict[Any, Any],
    details: dict[str, Any],
    scheme: Scheme,
    grid: Grid | None,
) -> None:
    window = codes.bulk_of(
        details["q1"], details["q3"], details["weight_min"], details["weight_max"]
    )
    inside = "within three interquartile ranges of the quartiles"
    if details["q1"] == details["q3"]:
        inside = "which are all of them, because more than half are equal"
    st.space("small")
    if grid is None:
        st.header(DISTRIBUTION_TITLE, anchor=False)
        with st.grid(2, min_column_width=430, gap="medium"):
            with st.container():
                st.subheader("From the smallest to the largest", anchor=False)
                st.caption(
                    "All weights of the layer, counts on a log scale. Every channel has its own"
                    " grid, so no grid is drawn."
                )
                drawing.chart(
                    charts.whole_range(histogram, colours.palette()),
                    key="whole_range",
                    alt=f"Histogram of {count(int(row['weight_count']))} weights from"
                    f" {weight(row['weight_min'])} to {weight(row['weight_max'])}",
                )
            with st.container():
                st.subheader("Most weights", anchor=False)
                st.caption(f"The central weights, {inside}.")
                drawing.chart(
                    charts.bulk_bars(histogram, window, None, colours.palette()),
                    key="bulk",
                    alt=f"Histogram of the weights from {weight(window[0])} to {weight(window[1])}",
                )
        return
    per_code = codes.weights_per_code(histogram, grid)
    code_count = scheme.qmax - scheme.qmin + 1
    holding = codes.codes_holding(per_code, MOST_WEIGHTS)
    most = f"{share(MOST_WEIGHTS)} of the weights"
    title = f"≈{NO_BREAK_SPACE}{holding} of {code_count} codes hold {most}"
    zero = float(details["zero_fraction"])
    at_zero = share(zero + (1 - zero) * float(row["zeroed_fraction"]), digits=1)
    used = frames.figure_or_none(row["levels_used"]) or 0
    st.header(CODES_TITLE, anchor=False)
    with st.grid(2, min_column_width=430, gap="medium"):
        with st.container():
            st.subheader(title, anchor=False)
            st.caption(
                f"All weights, one bar per {scheme.format} code. {at_zero} of the weights get the"
                f" code for zero (coloured). {counted(int(used), 'code')}"
                f" {'is' if used == 1 else 'are'} used in total."
            )
            drawing.chart(
                charts.code_bars(
                    per_code,
                    grid,
                    colours.palette(),
                    band=str(row["band"]),
                    format_name=scheme.format,
                ),
                key="code_bars",
                alt=f"Weights per {scheme.format} code: {title}",
            )
        with st.container():
            bulk_codes = codes.codes_between(*window, grid)
            verb = "share" if bulk_codes <= charts.MOST_SHADED_CODES else "spread over"
            heading = f"Most weights {verb} {counted(bulk_codes, 'code')}"
            st.subheader(heading, anchor=False)
            st.caption(
                f"The central weights, {inside}: {charts.codes_shown(bulk_codes)}."
                f" The step is {weight(codes.step_of(grid))}."
            )
            drawing.chart(
                charts.bulk_bars(histogram, window, grid, colours.palette()),
                key="bulk",
                alt=f"Histogram of the weights from {weight(window[0])} to {weight(window[1])}."
                f" {heading}",
            )


# What helps


def _rescue(
    schemes: pd.DataFrame,
    sparks: dict[str, list[int]],
    scheme: Scheme,
    limits: dict[str, float],
    bits_needed: dict[str, int | None],
) -> None:
    st.space("small")
    st.header(RESCUE_TITLE, anchor=False)
    by_name = {str(row["scheme"]): row for row in schemes.to_dict("records")}
    st.markdown(_rescue_sentence(by_name, scheme) + _on_its_grid(by_name))
    if bits_needed:
        notes.note(fine_from(bits_needed))
    columns: list[dict[str, Any]] = [
        {"title": "scheme", "kind": "pair"},
        {"title": "band", "kind": "chip"},
        {"title": "channels by SQNR, 0 to 50 dB", "kind": "spark", "wide": True},
        {"title": NINE_IN_TEN_REACH, "kind": "pair", "number": True},
        {
            "title": f"gain over {DEFAULT_SCHEME.title}",
            "kind": "pair",
            "number": True,
            "help": "Gain in the SQNR that 90 % of channels reach, over the default scheme",
        },
        {"title": "channels below 10 dB", "kind": "pair", "number": True},
        {"title": "weights zeroed", "kind": "pair", "number": True},
        {"title": "whole tensor", "kind": "pair", "number": True, "wide": True},
    ]
    rows = []
    measured = [name for name in SCHEMES if name in by_name]
    shows_all = st.session_state.get("show_all_schemes", False)
    for name in measured if shows_all else [name for name in FIRST_SCHEMES if name in by_name]:
        row_scheme = SCHEMES[name]
        row = by_name[name]
        rows.append(
            {
                "key": name,
                "chosen": name == scheme.name,
                "cells": [
                    {"text": row_scheme.title, "small": "chosen" if name == scheme.name else ""},
                    {"band": row["band"]},
                    drawing.spark(sparks[name], limits) if name in sparks else None,
                    {"text": db(row["channel_sqnr_p10_db"])},
                    {"text": _gain(by_name, row_scheme)},
                    {"text": count(int(row["channels_below_10db"]))},
                    {"text": share(float(row["zeroed_fraction"]), digits=1)},
                    {"text": db(row["sqnr_db"])},
                ],
            }
        )
    components.table(columns=columns, rows=rows, key="rescue")
    if len(rows) < len(measured):
        st.button(
            f"Show all {len(measured)} schemes",
            icon=":material/expand_more:",
            type="tertiary",
            key="show_schemes",
            on_click=lambda: st.session_state.update(show_all_schemes=True),
        )
    notes.note(
        "Do not rely on the SQNR of the whole tensor: outliers carry most of the signal energy, so"
        " the value looks good even when most channels are lost. Weights only; activations were"
        " not measured."
    )


def _rescue_sentence(by_name: dict[str, dict[Any, Any]], scheme: Scheme) -> str:
    """What one scale per channel would give, or gives."""
    shared_row = by_name[scheme.per_tensor.name]
    own_row = by_name[scheme.per_channel.name]
    before = frames.figure_or_none(shared_row["channel_sqnr_p10_db"])
    after = frames.figure_or_none(own_row["channel_sqnr_p10_db"])
    if before is None:
        return "Nothing to rescue: 90 % of channels are exact already."
    if after is None:
        return f"A scale per channel makes 90 % of channels exact (per tensor: {db(before)})."
    gain = after - before
    from_to = f"from {db(before)} to {db(after)}: **{db(gain, signed=True)}**"
    if shared_row["band"] == "fine" and abs(gain) < TELLING_GAIN_DB:
        return (
            f"Nothing to rescue: 90 % of channels reach {db(before)} per tensor and"
            f" {db(after)} per channel."
        )
    if shared_row["band"] == "fine":
        return (
            f"Nothing to rescue: per tensor is fine. A scale per channel takes 90 % of channels"
            f" {from_to}."
        )
    if gain < TELLING_GAIN_DB:
        return f"A scale per channel hardly helps: it takes 90 % of channels {from_to}."
    verb = "lifts" if not scheme.is_per_channel else "has lifted"
    still = "" if own_row["band"] == "fine" else f". The layer is {_stays(own_row['band'])}"
    return f"A scale per channel {verb} 90 % of channels {from_to}{still}."


def _on_its_grid(by_name: dict[str, dict[Any, Any]]) -> str:
    exact = [
        int8_scheme.title
        for name, int8_scheme in INT8_SCHEMES.items()
        if frames.figure_or_none(by_name[name]["sqnr_db"]) is None
    ]
    if not exact or not any(row["already_quantized"] for row in by_name.values()):
        return ""
    return (
        f" The stored weights are already on the grid of {listed(exact)}, so there is no second"
        " loss."
    )


def _stays(band: object) -> str:
    return "still rated watch" if band == "watch" else f"still {band}"


def _gain(by_name: dict[str, dict[Any, Any]], scheme: Scheme) -> str:
    """What 90 % of channels gain over the default scheme, whichever scheme is chosen."""
    if scheme == DEFAULT_SCHEME:
        return ""
    before = frames.figure_or_none(by_name[DEFAULT_SCHEME.name]["channel_sqnr_p10_db"])
    after = frames.figure_or_none(by_name[scheme.name]["channel_sqnr_p10_db"])
    if before is None:
        return "–"
    return "exact" if after is None else db(after - before, signed=True)


# Words


def _text(value: object) -> str | None:
    """A text out of a frame, None where the store has NULL."""
    return value if isinstance(value, str) else None


def _exactly(number: int) -> str:
    """A number of weights: to the last one while that is readable."""
    return count(int(number)) if number < 100_000 else weights(int(number))


if __name__ == "__main__":
    main()
