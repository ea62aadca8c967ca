"""The sections of the Layer page on its output channels: their boxes, their SQNR, their figures."""

import re
from typing import Any

import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.app.widgets import (
    address,
    colours,
    components,
    downloads,
    drawing,
    notes,
    pickers,
    stores,
)
from quantstore.charts import codes
from quantstore.charts import layer as charts
from quantstore.charts.palette import BANDS
from quantstore.numerics.quantization import Grid
from quantstore.schemes import INT8_SCHEMES, SCHEMES, Scheme
from quantstore.store import Connection
from quantstore.wording import frames, tables
from quantstore.wording.units import NO_BREAK_SPACE, count, counted, db, share, times, weight

# A channel this much larger than a typical one is worth naming.
TELLING_RATIO = 2.0
# Up to here every channel is wide enough to be seen and pointed at.
MOST_WITHOUT_ZOOM = 32
ROWS_PER_PAGE = 10
TITLE, TABLE_TITLE = "Channels", "Channel by channel"
ONE_SCHEME, ALL_SCHEMES = "chosen scheme", "all int8 schemes"


def section(
    con: Connection,
    details: dict[str, Any],
    facts: dict[str, Any],
    scheme: Scheme,
    grid: Grid | None,
    limits: dict[str, float],
) -> None:
    """The boxes of the channels against the grid they share, and below them their SQNR.

    Args:
        details: as ``queries.layer_details`` gives them; the layer has a finite weight.
        facts: as ``queries.layer_channel_facts`` gives them.
        grid: None where every channel has one of its own.
    """
    layer_id = int(details["layer_id"])
    known_channels = int(facts["known_channels"])
    st.space("small")
    st.header(TITLE, anchor=False)
    controls = st.container(horizontal=True, gap="medium", vertical_alignment="bottom")
    with controls:
        order = _order(known_channels)
        axis = _axis(details)
        shown = ONE_SCHEME
        if known_channels > 1:
            shown = pickers.choice(
                "SQNR under", [ONE_SCHEME, ALL_SCHEMES], key="sqnr_under", label_is_hidden=True
            )
    first, last = _stretch(layer_id, known_channels, order)
    step = None if grid is None else codes.step_of(grid)
    columns = queries.layer_channel_columns(
        con, layer_id, scheme.name, order=order, first=first, last=last
    )
    story = _story(facts, details, step, marks=charts.marks_outliers(columns, order))
    if story:
        st.markdown(story)
    can_zoom = known_channels > MOST_WITHOUT_ZOOM
    st.caption(_how_to_read(columns, step, can_zoom=can_zoom))
    _boxes(columns, order, axis, step, story, can_zoom=can_zoom)
    names = [scheme.name] if shown == ONE_SCHEME else list(INT8_SCHEMES)
    for name in names:
        bands = facts["bands"]
        if name != scheme.name:
            columns = queries.layer_channel_columns(
                con, layer_id, name, order=order, first=first, last=last
            )
            bands = queries.layer_channel_facts(con, layer_id, name)["bands"]
        _sqnr(columns, order, name, bands, is_one_of_many=len(names) > 1)
    colours.legend(limits)


def _order(known_channels: int) -> charts.ChannelOrder:
    if known_channels == 1:
        return charts.ORDERS[0]
    return charts.as_order(
        pickers.choice("Order", list(charts.ORDERS), key="channel_order", label_is_hidden=True)
    )


def _axis(details: dict[str, Any]) -> charts.AxisKind:
    axes: list[charts.AxisKind] = ["linear", "symlog"]
    suited = charts.default_axis(frames.figure_or_none(details["channel_range_ratio"]))
    # A key of its own for every layer: each begins with the axis that suits it.
    chosen = st.segmented_control(
        "Axis",
        axes,
        default=suited,
        key=f"weight_axis_{details['layer_id']}",
        required=True,
        label_visibility="collapsed",
    )
    return chosen or suited


# Zoom


def _stretch(layer_id: int, known_channels: int, order: charts.ChannelOrder) -> tuple[int, int]:
    """The places on show, from and to, in the order chosen: part of the address, all at first."""
    if st.session_state.get("channels_of", (layer_id, order)) != (layer_id, order):
        # A stretch of another layer, or of another order, would be any channels at all.
        address.choose("channels", "")
    st.session_state["channels_of"] = (layer_id, order)
    address.link("channels", default="")
    first, last = parse_stretch(str(st.session_state["channels"]), known_channels)
    if known_channels <= MOST_WITHOUT_ZOOM:
        return 0, known_channels - 1
    key = f"stretch_{layer_id}_{order}"
    st.session_state[key] = (first, last)

    def moved() -> None:
        low, high = st.session_state[key]
        _show(low, high, known_channels)

    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        st.slider(
            "Zoom: first and last channel"
            if order == charts.ORDERS[0]
            else "Zoom: first and last rank, widest first",
            0,
            known_channels - 1,
            key=key,
            on_change=address.by_hand(moved),
            width=420,
        )
        if (first, last) != (0, known_channels - 1):
            st.button(
                f"Show all {count(known_channels)}",
                icon=":material/zoom_out_map:",
                type="tertiary",
                key="all_channels",
                on_click=_show,
                args=(0, known_channels - 1, known_channels),
            )
    return first, last


def parse_stretch(text: str, known_channels: int) -> tuple[int, int]:
    """``64-127`` as numbers within the channels that there are; all of them where it is no such."""
    match = re.fullmatch(r"(\d{1,9})-(\d{1,9})", text)
    if match is None:
        return 0, known_channels - 1
    first, last = sorted(min(int(number), known_channels - 1) for number in match.groups())
    return first, last


def _show(first: int, last: int, known_channels: int) -> None:
    """From a callback: these places and no others."""
    address.choose(
        "channels", "" if (first, last) == (0, known_channels - 1) else f"{first}-{last}"
    )


def _boxes(
    columns: pd.DataFrame,
    order: charts.ChannelOrder,
    axis: charts.AxisKind,
    step: float | None,
    story: str,
    *,
    can_zoom: bool,
) -> None:
    chart = charts.channel_boxes(
        columns, colours.palette(), order=order, axis=axis, step=step, can_zoom=can_zoom
    )
    description = f"Distribution of the weights of each output channel. {story}"
    if not can_zoom:
        drawing.chart(chart, key="channel_boxes", alt=description)
        return
    places = columns["place"].tolist()
    # Another stretch is another chart: what was dragged over is gone with the old one.
    key = f"channel_boxes_{places[0]}_{places[-1]}"

    def dragged() -> None:
        slots = next(iter(st.session_state[key].selection.get(charts.ZOOM, {}).values()), None)
        if slots is None:
            return
        low, high = (min(max(round(float(slot)), 0), len(places) - 1) for slot in sorted(slots))
        last = places[high] + int(columns["channels"].iloc[high]) - 1
        address.choose("channels", f"{places[low]}-{last}")

    drawing.chart(chart, key=key, on_select=dragged, alt=description)
    components.hide_brush(charts.ZOOM)


def _sqnr(
    columns: pd.DataFrame,
    order: charts.ChannelOrder,
    scheme_name: str,
    bands: dict[str, int],
    *,
    is_one_of_many: bool,
) -> None:
    band_counts = ", ".join(f"{count(int(bands[band]))} {band}" for band in BANDS if band in bands)
    title = SCHEMES[scheme_name].title
    if is_one_of_many:
        notes.note(f"{scheme_heading(title)} {band_counts}")
    height = charts.SQNR_HEIGHT_OF_MANY if is_one_of_many else charts.SQNR_HEIGHT
    drawing.chart(
        charts.channel_sqnr(columns, colours.palette(), order=order, height=height),
        key=f"channel_sqnr_{scheme_name}",
        alt=f"SQNR of each output channel under {title}: {band_counts}",
    )


# Words


def scheme_heading(title: str) -> str:
    """What stands before the channels under one scheme of several, as HTML."""
    return f"<b style='font-weight:600'>{title}</b>:"


def what_a_channel_is(channel_count: int) -> str:
    """What can be typed to find a channel."""
    return (
        f"Enter a channel number from 0 to {count(channel_count - 1)}, or a range such as 64-127."
    )


def _how_to_read(columns: pd.DataFrame, step: float | None, *, can_zoom: bool) -> str:
    together = int(columns["channels"].max())
    if together > 1:
        text = (
            f"One column per {together} neighbouring channels. Solid: quartile to quartile. Paler:"
            " whiskers. Palest: smallest to largest weight. Colour: band of the worst channel."
        )
    elif len(columns) > charts.MOST_BOXES:
        text = (
            "One column per output channel. Solid: quartile to quartile. Paler: whiskers. Palest:"
            " smallest to largest weight. Colour: band of the channel."
        )
    else:
        text = (
            "One box per output channel: quartiles, whiskers, and dots for extreme outliers."
            " Colour: band of the channel."
        )
    if step is not None:
        text += f" Weights in the grey zone (±{weight(step / 2)}) round to zero."
    if can_zoom:
        text += " Drag to zoom."
    return text + " Bottom: SQNR of each channel, measured down from 40 dB. Longer bars are worse."


def _story(
    facts: dict[str, Any], details: dict[str, Any], step: float | None, *, marks: bool
) -> str:
    """What stands out among the channels, in words."""
    channel_count, known_channels = int(details["channel_count"]), int(facts["known_channels"])
    typical, largest = float(facts["typical_abs"]), float(facts["largest_abs"])
    sentences = []
    if known_channels > 2 and typical > 0 and largest >= TELLING_RATIO * typical:
        sets = f"sets the step for all {count(channel_count)} channels" if step else "is the widest"
        sentences.append(
            f"Channel {int(facts['largest_channel'])} {sets}: its largest weight is"
            f" {times(largest / typical, ' times')} that of a typical channel."
        )
    outliers = int(details["outlier_channel_count"])
    if outliers:
        noun = "channel is" if outliers == 1 else "channels are"
        mark = " (triangle)" if marks else ""
        sentences.append(
            f"{count(outliers)} {noun} much wider than the others{mark}: beyond Tukey's upper fence"
            " of the channel ranges."
        )
    zeros = int(facts["zero_channels"])
    if zeros:
        sentences.append(f"{counted(zeros, 'channel')} hold{'s' if zeros == 1 else ''} only zeros.")
    if known_channels < channel_count:
        lost = channel_count - known_channels
        sentences.append(f"{counted(lost, 'channel')} without finite weights left out.")
    return " ".join(sentences)


# The table


def table(con: Connection, details: dict[str, Any], scheme: Scheme) -> None:
    """Every channel with its figures, a page at a time, worst first; all of them as CSV."""
    layer_id, channel_count = int(details["layer_id"]), int(details["channel_count"])
    if channel_count == 1:
        return
    st.space("small")
    st.header(TABLE_TITLE, anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        address.link("channel_sort", default=queries.CHANNEL_SORTS[0], options=_SORTS)
        order = st.selectbox(
            "Order of the table",
            _SORTS,
            key="channel_sort",
            label_visibility="collapsed",
            width=200,
        )
        address.link("channel", default="")
        channel_text = st.text_input(
            "Find a channel",
            placeholder=f"channel, or from-to, of 0 to {channel_count - 1}",
            key="channel",
            label_visibility="collapsed",
            width=260,
        )
        st.space("stretch")
        _download(details, scheme)
    channels = _channels_to_list(channel_text, channel_count)
    if channels is None:
        st.caption(what_a_channel_is(channel_count))
        return
    listed = channels[1] - channels[0] + 1
    pages = -(-listed // ROWS_PER_PAGE)
    page_key = f"channel_page_{layer_id}_{order}_{channel_text}"
    page = min(int(st.session_state.get(page_key) or 1), pages)
    rows = queries.layer_channel_rows(
        con,
        layer_id,
        scheme.name,
        order=order,
        channels=channels,
        skip=ROWS_PER_PAGE * (page - 1),
        limit=ROWS_PER_PAGE,
    )
    components.table(
        columns=_columns(scheme),
        rows=[_row(row, scheme) for row in rows.to_dict("records")],
        key="channel_table",
    )
    if pages > 1:
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            st.pagination(pages, key=page_key)
            last = min(ROWS_PER_PAGE * page, listed)
            first = ROWS_PER_PAGE * (page - 1) + 1
            st.caption(f"{count(first)} to {count(last)} of {counted(listed, 'channel')}")


_SORTS = list(queries.CHANNEL_SORTS)


def _channels_to_list(text: str, channel_count: int) -> tuple[int, int] | None:
    """The first and the last channel to list; None where the text names none."""
    if not text.strip():
        return 0, channel_count - 1
    match = re.fullmatch(r"\s*(\d{1,9})(?:\s*[-–]\s*(\d{1,9}))?\s*", text)
    if match is None:
        return None
    low, high = sorted((int(match[1]), int(match[2] or match[1])))
    return (low, min(high, channel_count - 1)) if low < channel_count else None


def _columns(scheme: Scheme) -> list[dict[str, Any]]:
    columns: list[dict[str, Any]] = [
        {"title": "channel", "kind": "pair", "number": True},
        {"title": "band, SQNR", "kind": "chip", "help": f"under {scheme.title}"},
    ]
    columns += [
        {
            "title": f"per {other_scheme.granularity}, {other_scheme.symmetry}",
            "kind": "pair",
            "number": True,
        }
        for other_scheme in INT8_SCHEMES.values()
        if other_scheme != scheme
    ]
    columns += [
        {"title": "rounds to zero", "kind": "pair", "number": True},
        {"title": "range", "kind": "pair", "number": True},
        {"title": "quartiles, median", "kind": "pair", "number": True, "wide": True},
        {
            "title": "outliers",
            "kind": "pair",
            "number": True,
            "wide": True,
            "help": "Weights beyond the fences of the channel",
        },
    ]
    return columns


def _row(row: dict[Any, Any], scheme: Scheme) -> dict[str, Any]:
    if pd.isna(row["weight_min"]):
        nothing = {"text": "–"}
        cells = [{"text": str(row["channel"]), "small": "no finite weight"}]
        return {"key": int(row["channel"]), "cells": cells + [nothing] * (len(INT8_SCHEMES) + 4)}
    is_zero = row["weight_min"] == 0 == row["weight_max"]
    sqnr = {
        name: "all zero" if is_zero else db(frames.figure_or_none(row[f"{name}_db"]))
        for name in INT8_SCHEMES
    }
    return {
        "key": int(row["channel"]),
        "cells": [
            {"text": str(row["channel"])},
            {"band": row["band"], "small": sqnr[scheme.name]},
            *({"text": sqnr[name]} for name in INT8_SCHEMES if name != scheme.name),
            {"text": share(float(row["zeroed_fraction"]))},
            {
                "text": weight(row["weight_range"]),
                "small": f"{weight(row['weight_min'])} to {weight(row['weight_max'])}",
            },
            {
                "text": f"{weight(row['q1'])} to {weight(row['q3'])}",
                "small": f"median{NO_BREAK_SPACE}{weight(row['median'])}",
            },
            {"text": count(int(row["outlier_count"]))},
        ],
    }


def _download(details: dict[str, Any], scheme: Scheme) -> None:
    layer_id = int(details["layer_id"])

    def every_channel() -> str:
        with stores.open_store() as con:
            return tables.to_csv(
                queries.layer_channel_rows(con, layer_id, scheme.name, order="by index")
            )

    st.download_button(
        "CSV",
        data=every_channel,
        file_name=downloads.file_name(str(details["model"]), str(details["layer"]), "channels")
        + ".csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
        key="channels_csv",
        help=f"All channels of the layer with their values under {scheme.title}",
    )
