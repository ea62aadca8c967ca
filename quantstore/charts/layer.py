"""Layer: every channel against the grid it shares, and the codes that its weights get.

Channels come as ``queries.layer_channel_columns`` gives them, one row per column of a chart, in
order; histograms as ``queries.layer_histogram`` does, one row per bin. Everything is in weight
units unless it says dB.
"""

import json
import math
from collections.abc import Callable
from typing import Literal

import altair as alt
import numpy as np
import pandas as pd

from quantstore.charts.codes import codes_between, codes_of, step_of, zero_code
from quantstore.charts.common import MARKS, AnyChart, band_colour, stacked, styled, tooltip
from quantstore.charts.palette import BANDS, Palette
from quantstore.numerics.quantization import Grid
from quantstore.wording.units import (
    MINUS,
    NO_BREAK_SPACE,
    count,
    counted,
    db,
    share,
    weight,
    with_minus,
)

ChannelOrder = Literal["by index", "widest first"]
AxisKind = Literal["linear", "symlog"]
ORDERS: tuple[ChannelOrder, ...] = ("by index", "widest first")

# The measure of every page: bars hang from here, longer is worse.
HANG_FROM_DB = 40.0
# An SQNR of 0 dB still shows that there is a bar.
LOWEST_DB = 0.6
# Beyond this many channels a box is noise: a column in three shades says the same.
MOST_BOXES = 128
# From this spread on a linear axis shows the typical channel as a line.
SYMLOG_FROM_RANGE_RATIO = 8.0
# Beyond this many outlier channels a mark on each is a line.
MOST_MARKED = 40
# What a stretch dragged over the boxes is called; the page shows it alone.
ZOOM = "zoom"
# Both charts of the channels leave the same room for their y axis, so that columns line up.
Y_AXIS_PIXELS = 58
BOXES_HEIGHT = 300
SQNR_HEIGHT = 96
# Of several schemes one below the other.
SQNR_HEIGHT_OF_MANY = 56
CODES_HEIGHT = 250
# Up to this many columns each one's own channel number fits below it, or every other's does.
MOST_NAMED = 64
# Up to here every edge between two codes is drawn.
MOST_EDGES = 40
# Up to here a code has several bars, in alternate shades; beyond, a bar is a code.
MOST_SHADED_CODES = 60
BULK_BARS = 60
WHOLE_RANGE_BARS = 128


def as_order(text: str) -> ChannelOrder:
    """The order of this name; by index where there is none."""
    return next((order for order in ORDERS if order == text), ORDERS[0])


def default_axis(channel_range_ratio: float | None) -> AxisKind:
    """Symlog once the widest channel would flatten a typical one."""
    is_finite = channel_range_ratio is not None and math.isfinite(channel_range_ratio)
    return (
        "symlog" if is_finite and (channel_range_ratio or 0) > SYMLOG_FROM_RANGE_RATIO else "linear"
    )


def marks_outliers(channels: pd.DataFrame, order: ChannelOrder) -> bool:
    """Whether channels much wider than the others get a mark; sorted by width, they come first."""
    return order == "by index" and 0 < int(channels["is_outlier"].sum()) <= MOST_MARKED


def channel_boxes(
    channels: pd.DataFrame,
    palette: Palette,
    *,
    order: ChannelOrder,
    axis: AxisKind,
    step: float | None,
    can_zoom: bool = False,
) -> AnyChart:
    """A box per output channel, in the colour of the channel's own band.

    Args:
        channels: at least one channel with finite weights.
        step: weight units per code where all channels share a grid: half of it on either side of
            zero is the zone that rounds to 0. None where every channel has a grid of its own.
        can_zoom: whether a stretch can be dragged over, reported as ``ZOOM`` with its slots.
    """
    columns = _columns(channels, order)
    half_step = 0.0 if step is None else step / 2
    scale = _weight_scale(columns, axis, half_step, step)
    y_axis = alt.Axis(
        values=scale.ticks,
        labelExpr=_number_label(),
        minExtent=Y_AXIS_PIXELS,
        maxExtent=Y_AXIS_PIXELS,
        labelOverlap=False,
    )

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", scale=scale.vega, axis=y_axis, title="weight")

    base = alt.Chart(columns)
    axis_x = _ColumnAxis(columns, order, has_labels=True)
    x = axis_x("left")
    colour = band_colour(palette)
    layers: list[alt.Chart] = []
    if half_step > 0:
        zone = pd.DataFrame({"low": [-half_step], "high": [half_step]})
        layers.append(
            alt.Chart(zone)
            .mark_rect(color=palette.zero_zone, aria=False)
            .encode(y=y("low"), y2=alt.Y2("high:Q"))
        )
    if len(columns) > MOST_BOXES:
        # Palest from smallest to largest, solid from quartile to quartile.
        for low, high, opacity in (
            ("weight_min", "weight_max", 0.28),
            ("whisker_low", "whisker_high", 0.5),
            ("q1", "q3", 1.0),
        ):
            layers.append(
                base.mark_rect(opacity=opacity, aria=False).encode(
                    x=x, x2=alt.X2("right:Q"), y=y(low), y2=alt.Y2(f"{high}:Q"), color=colour
                )
            )
    else:
        layers += _boxes(columns, x, y, colour, palette, scale)
    hover = _hover(base, axis_x, palette)
    if can_zoom:
        hover = hover.properties(name=MARKS).add_params(
            alt.selection_interval(name=ZOOM, encodings=["x"])
        )
    layers.append(hover)
    if marks_outliers(channels, order):
        layers.append(
            alt.Chart(columns[columns["is_outlier"]])
            .mark_point(shape="triangle-down", size=42, filled=True, color=palette.text, aria=False)
            .encode(x=axis_x("slot"), y=alt.YValue(4))
        )
    return styled(alt.layer(*layers), palette, height=BOXES_HEIGHT)


def channel_sqnr(
    channels: pd.DataFrame, palette: Palette, *, order: ChannelOrder, height: int = SQNR_HEIGHT
) -> AnyChart:
    """The SQNR of each channel as a bar that hangs from 40 dB, in line with the boxes above."""
    columns = _columns(channels, order)
    bars = columns[columns["sqnr_db"] < HANG_FROM_DB].copy()
    bars["bottom"] = bars["sqnr_db"].clip(lower=LOWEST_DB)
    bars["hang"] = HANG_FROM_DB
    y_scale = alt.Scale(domain=[0, HANG_FROM_DB], nice=False)
    axis_x = _ColumnAxis(columns, order, has_labels=False)
    drawn = (
        alt.Chart(bars)
        .mark_rect(aria=False)
        .encode(
            x=axis_x("left"),
            x2=alt.X2("right:Q"),
            y=alt.Y(
                "hang:Q",
                scale=y_scale,
                axis=alt.Axis(
                    values=[0, 20, 40],
                    minExtent=Y_AXIS_PIXELS,
                    maxExtent=Y_AXIS_PIXELS,
                ),
                title="SQNR, dB" if height >= SQNR_HEIGHT else "dB",
            ),
            y2=alt.Y2("bottom:Q"),
            color=band_colour(palette),
        )
    )
    layered = alt.layer(drawn, _hover(alt.Chart(columns), axis_x, palette))
    return styled(layered, palette, height=height)


def channels_above_sqnr(
    channels: pd.DataFrame,
    palette: Palette,
    *,
    order: ChannelOrder,
    axis: AxisKind,
    step: float | None,
) -> AnyChart:
    """The boxes of :func:`channel_boxes`, and below them the bars of :func:`channel_sqnr`."""
    boxes = channel_boxes(channels, palette, order=order, axis=axis, step=step)
    return stacked([boxes, channel_sqnr(channels, palette, order=order)], palette)


def code_bars(
    per_code: pd.DataFrame, grid: Grid, palette: Palette, *, band: str, format_name: str
) -> AnyChart:
    """Weights per code over the whole grid, counts on a log scale; zero in the layer's own band.

    Args:
        per_code: ``code`` and ``weights``, as ``codes.weights_per_code`` gives.
        band: the layer's.
        format_name: of the codes, such as ``int8``.
    """
    step, zero = step_of(grid), zero_code(grid)
    bars = per_code.assign(
        left=per_code["code"] - 0.5,
        right=per_code["code"] + 0.5,
        bottom=0,
        said_code=[with_minus(str(code)) for code in per_code["code"]],
        said_weights=[f"≈{NO_BREAK_SPACE}{count(n)}" for n in per_code["weights"]],
        said_value=[weight(step * (code - zero)) for code in per_code["code"]],
    )
    codes = alt.Scale(domain=[grid.qmin - 1, grid.qmax + 1], nice=False)
    code_ticks = list(range(-120, 121, 40)) if grid.qmin < 0 else list(range(0, 256, 32))
    code_ticks = [tick for tick in code_ticks if grid.qmin <= tick <= grid.qmax]
    values = _nice_ticks((grid.qmin - zero) * step, (grid.qmax - zero) * step, 6)
    drawn = (
        alt.Chart(bars)
        .mark_rect()
        .encode(
            x=alt.X(
                "left:Q",
                scale=codes,
                title=f"{format_name} code",
                axis=alt.Axis(values=code_ticks, grid=False, labelExpr=_number_label()),
            ),
            x2=alt.X2("right:Q"),
            y=_count_y("bottom", bars["weights"].max() if len(bars) else 1),
            y2=alt.Y2("weights:Q"),
            color=alt.condition(
                alt.datum.code == zero,
                alt.value(palette.bands[band].fill),
                alt.value(palette.bar),
            ),
            tooltip=tooltip(
                ("said_code", "code"), ("said_value", "dequantized"), ("said_weights", "weights")
            ),
            description=alt.Description("said_code:N"),
        )
    )
    above = _top_axis(
        codes,
        [value / step + zero for value in values],
        f"(datum.value - {zero}) * {json.dumps(step)}",
        "weight",
    )
    layered = alt.layer(drawn, above).resolve_axis(x="independent")
    return styled(layered, palette, height=CODES_HEIGHT)


ALL_BECOME_ONE = "all weights become one value"
EACH_SIDE_BECOMES_ONE = "all weights on one side of the dashed line become one value"
BETWEEN_LINES_BECOME_ONE = "all weights between two dashed lines become one value"


def codes_shown(code_count: int) -> str:
    """How ``bulk_bars`` shows this many codes of a grid."""
    if code_count == 1:
        return ALL_BECOME_ONE
    if code_count == 2:
        return EACH_SIDE_BECOMES_ONE
    if code_count <= MOST_EDGES:
        return BETWEEN_LINES_BECOME_ONE
    if code_count <= MOST_SHADED_CODES:
        return "all weights between two changes of shade become one value"
    return "one bar per code"


def bulk_bars(
    histogram: pd.DataFrame, window: tuple[float, float], grid: Grid | None, palette: Palette
) -> AnyChart:
    """The middle of the weights, with the codes of a shared grid above and its edges in between.

    Args:
        histogram: at least one bin.
        window: from where to where.
        grid: None where every channel has a grid of its own; the bars are then plain.
    """
    bars = _bulk(histogram, window, grid)
    code_count = None if grid is None else codes_between(*window, grid)
    is_shaded = grid is not None and (code_count or 0) <= MOST_SHADED_CODES
    if grid is not None and is_shaded:
        centres = ((bars["left"] + bars["right"]) / 2).to_numpy(dtype=np.float32)
        bars["is_odd"] = codes_of(centres, grid).astype(np.int64) % 2 != zero_code(grid) % 2
    else:
        bars["is_odd"] = False
    x_scale = _fitting(window, bars)
    layers: list[alt.Chart] = []
    drawn = _histogram_bars(bars, x_scale).encode(
        y=alt.Y("bottom:Q", title="weights", axis=alt.Axis(tickCount=5, format=",d", tickMinStep=1))
    )
    layers.append(
        drawn.encode(
            color=alt.condition(
                alt.datum.is_odd, alt.value(palette.bar_alternate), alt.value(palette.bar)
            )
        )
    )
    if grid is None:
        return styled(alt.layer(*layers), palette, height=CODES_HEIGHT)
    step, zero = step_of(grid), zero_code(grid)
    first, last = codes_of(np.array(window, dtype=np.float32), grid).astype(np.int64).tolist()
    if last - first + 1 <= MOST_EDGES:
        edges = [(code + 0.5 - zero) * step for code in range(first, last)]
        edges = [edge for edge in edges if window[0] < edge < window[1]]
        layers.append(
            alt.Chart(pd.DataFrame({"edge": edges}, dtype="float64"))
            .mark_rule(color=palette.muted, strokeDash=[2, 3], strokeWidth=1, aria=False)
            .encode(x=alt.X("edge:Q", scale=x_scale, axis=None))
        )
    every = _nice_step((last - first) / 9)
    positions = []
    for code in range(first, last + 1):
        if (code - zero) % every == 0:
            # Of a code that is cut off, above the part on show.
            left_edge = max(window[0], (code - 0.5 - zero) * step)
            right_edge = min(window[1], (code + 0.5 - zero) * step)
            positions.append((left_edge + right_edge) / 2)
    layers.append(
        _top_axis(x_scale, positions, f"datum.value / {json.dumps(step)} + {zero}", "code", "d")
    )
    layered = alt.layer(*layers).resolve_axis(x="independent")
    return styled(layered, palette, height=CODES_HEIGHT)


def whole_range(histogram: pd.DataFrame, palette: Palette) -> AnyChart:
    """Every weight from the smallest to the largest, counts on a log scale.

    Args:
        histogram: at least one bin.
    """
    per_bar = max(1, math.ceil(len(histogram) / WHOLE_RANGE_BARS))
    bars = _merged(histogram, np.arange(len(histogram)) // per_bar)
    window = (float(bars["left"].min()), float(bars["right"].max()))
    drawn = _histogram_bars(bars, _fitting(window, bars)).encode(
        y=_count_y("bottom", bars["weights"].max()), color=alt.ColorValue(palette.bar)
    )
    return styled(alt.layer(drawn), palette, height=CODES_HEIGHT)


# The channels


def _columns(channels: pd.DataFrame, order: ChannelOrder) -> pd.DataFrame:
    """The rows with their places in the chart and their words."""
    columns = channels.reset_index(drop=True)
    width = 0.78 if len(columns) <= MOST_NAMED else 0.9 if len(columns) <= MOST_BOXES else 1.0
    slots = np.arange(len(columns))
    columns = columns.assign(
        slot=slots,
        left=slots - width / 2,
        right=slots + width / 2,
        slot_left=slots - 0.5,
        slot_right=slots + 0.5,
    )
    return _with_words(columns, order)


def _with_words(columns: pd.DataFrame, order: ChannelOrder) -> pd.DataFrame:
    said_channel, said_sqnr, said_zeroed, said_range = [], [], [], []
    for row in columns.to_dict("records"):
        several = row["channels"] > 1
        if not several:
            name = f"channel {row['first']}"
        elif order == "by index":
            name = f"channels {row['first']} to {row['last']}"
        else:
            name = f"{row['channels']} channels of similar width, including {row['first']}"
        all_zero = row["weight_min"] == 0 == row["weight_max"]
        said_channel.append(name + (", an outlier" if row["is_outlier"] and not several else ""))
        said_sqnr.append(
            "all zero"
            if all_zero
            else f"{'worst ' if several else ''}{db(row['sqnr_db'])}, {row['band']}"
        )
        said_zeroed.append(share(row["zeroed_fraction"]))
        said_range.append(
            f"{weight(row['weight_range'])}, from {weight(row['weight_min'])}"
            f" to {weight(row['weight_max'])}"
        )
    said_middle = [
        f"{weight(q1)} to {weight(q3)}, median {weight(median)}"
        for q1, median, q3 in zip(columns["q1"], columns["median"], columns["q3"], strict=True)
    ]
    return columns.assign(
        said_channel=said_channel,
        said_sqnr=said_sqnr,
        said_zeroed=said_zeroed,
        said_range=said_range,
        said_middle=said_middle,
        said_outliers=[counted(int(n), "weight") for n in columns["outlier_count"]],
        said=[f"{a}: {b}" for a, b in zip(said_channel, said_sqnr, strict=True)],
    )


def _boxes(
    columns: pd.DataFrame,
    x: alt.X,
    y: "Callable[[str], alt.Y]",
    colour: alt.Color,
    palette: Palette,
    scale: "_WeightScale",
) -> list[alt.Chart]:
    base = alt.Chart(columns)
    centre = alt.X("slot:Q")
    below = columns[columns["weight_min"] < columns["whisker_low"]]
    above = columns[columns["weight_max"] > columns["whisker_high"]]
    dots = pd.concat(
        [
            below[["slot", "weight_min", "band"]].rename(columns={"weight_min": "extreme"}),
            above[["slot", "weight_max", "band"]].rename(columns={"weight_max": "extreme"}),
        ]
    )
    # A median rule in the colour of the page would wipe out a box that is hardly higher.
    height = columns["q3"].map(scale.share_of_height) - columns["q1"].map(scale.share_of_height)
    high_enough = columns[height * BOXES_HEIGHT >= 6]
    boxes = [
        base.mark_rule(strokeWidth=1, aria=False).encode(
            x=centre, y=y("whisker_low"), y2=alt.Y2("whisker_high:Q"), color=colour
        ),
        # The outline keeps a box without height visible.
        base.mark_rect(strokeWidth=1, aria=False).encode(
            x=x,
            x2=alt.X2("right:Q"),
            y=y("q1"),
            y2=alt.Y2("q3:Q"),
            color=colour,
            stroke=alt.Stroke(
                "band:N",
                scale=alt.Scale(domain=list(BANDS), range=palette.band_fills),
                legend=None,
            ),
        ),
        alt.Chart(high_enough)
        .mark_rule(strokeWidth=1.5, color=palette.background, aria=False)
        .encode(x=alt.X("left:Q"), x2=alt.X2("right:Q"), y=y("median")),
    ]
    if not dots.empty:
        boxes.append(
            alt.Chart(dots)
            .mark_point(
                size=20 if len(columns) <= MOST_NAMED else 10, filled=True, opacity=1, aria=False
            )
            .encode(x=centre, y=y("extreme"), color=colour)
        )
    return boxes


def _hover(base: alt.Chart, axis_x: "_ColumnAxis", palette: Palette) -> alt.Chart:
    """The whole slot of a channel answers the pointer, however thin its mark is."""
    hover: alt.Chart = base.mark_rect(color=palette.text, opacity=0).encode(
        x=axis_x("slot_left"),
        x2=alt.X2("slot_right:Q"),
        y=alt.YValue(0),
        y2=alt.Y2Value("height"),
        tooltip=tooltip(
            ("said_channel", "output"),
            ("said_sqnr", "SQNR"),
            ("said_zeroed", "rounds to zero"),
            ("said_range", "range"),
            ("said_middle", "quartiles"),
            ("said_outliers", "beyond the fences"),
        ),
        description=alt.Description("said:N"),
    )
    return hover


class _ColumnAxis:
    """The x axis of both charts of the channels: one slot for each column."""

    def __init__(self, columns: pd.DataFrame, order: ChannelOrder, *, has_labels: bool) -> None:
        self._scale = alt.Scale(domain=[-0.5, len(columns) - 0.5], nice=False)
        self._title = "output channel" if order == "by index" else "output channel, widest first"
        self._axis = None
        if not has_labels:
            return
        names = columns["first"].astype(int).tolist()
        if order == "widest first" and len(columns) > MOST_NAMED:
            # Channel numbers in random order are no axis: here the place in the order is one.
            self._title = "rank among the output channels, widest first"
            names = (columns["place"] + 1).astype(int).tolist()
        shown = {str(slot): count(name) for slot, name in _labelled(names).items()}
        self._axis = alt.Axis(
            values=[int(slot) for slot in shown],
            grid=False,
            labelExpr=f"{json.dumps(shown)}[datum.value]",
            labelOverlap="greedy",
        )

    def __call__(self, field: str) -> alt.X:
        return alt.X(f"{field}:Q", scale=self._scale, axis=self._axis, title=self._title)


def _labelled(names: list[int]) -> dict[int, int]:
    """What stands under which column: every name, every other, or round numbers only."""
    if len(names) <= MOST_NAMED:
        every_other = range(0, len(names), 1 if len(names) <= MOST_NAMED // 2 else 2)
        return {column: names[column] for column in every_other}
    every = _nice_step((max(names) - min(names)) / 16)
    labels = {0: names[0]}
    for column in range(1, len(names)):
        if names[column] // every > names[column - 1] // every:
            # Of a column of several channels the round number is close to the first.
            labels[column] = names[column] // every * every
    return labels


class _WeightScale:
    """The y axis of the boxes: where a weight lies, as a share of the height, and its ticks."""

    def __init__(self, low: float, high: float, axis: AxisKind, constant: float) -> None:
        self._constant = constant if axis == "symlog" else None
        bottom, top = self._bend(low), self._bend(high)
        margin = 0.04 * (top - bottom)
        self._bottom, self._top = bottom - margin, top + margin
        domain = [self._straighten(self._bottom), self._straighten(self._top)]
        if self._constant is None:
            self.vega = alt.Scale(domain=domain, nice=False, zero=False)
            self.ticks = _nice_ticks(domain[0], domain[1], 6)
        else:
            self.vega = alt.Scale(type="symlog", constant=constant, domain=domain, nice=False)
            self.ticks = self._decades(domain[0], domain[1])

    def share_of_height(self, value: float) -> float:
        """0 at the bottom, 1 at the top."""
        return (self._bend(value) - self._bottom) / (self._top - self._bottom)

    def _bend(self, value: float) -> float:
        if self._constant is None:
            return value
        return math.copysign(math.log1p(abs(value) / self._constant), value)

    def _straighten(self, bent: float) -> float:
        if self._constant is None:
            return bent
        return math.copysign(math.expm1(abs(bent)) * self._constant, bent)

    def _decades(self, low: float, high: float) -> list[float]:
        """Zero and powers of ten, outermost first, none closer than a label is high."""
        largest = max(abs(low), abs(high))
        ticks = [0.0]
        top = math.floor(math.log10(largest))
        for exponent in range(top, top - 9, -1):
            for tick in (10.0**exponent, -(10.0**exponent)):
                is_apart = all(
                    abs(self.share_of_height(tick) - self.share_of_height(t)) >= 0.075
                    for t in ticks
                )
                if low <= tick <= high and is_apart:
                    ticks.append(tick)
        return sorted(ticks)


def _weight_scale(
    columns: pd.DataFrame, axis: AxisKind, half_step: float, step: float | None
) -> _WeightScale:
    low = min(float(columns["weight_min"].min()), -half_step, 0.0)
    high = max(float(columns["weight_max"].max()), half_step, 0.0)
    if low == high:
        low, high = -1.0, 1.0
    iqr = float((columns["q3"] - columns["q1"]).quantile(0.75))
    # As wide as typical boxes, so that they look as they do on a linear axis.
    constant = max(2 * iqr, step or 0.0) or max(-low, high) / 127
    return _WeightScale(low, high, axis, constant)


# The histograms


def _merged(
    histogram: pd.DataFrame, group: "np.ndarray[tuple[int], np.dtype[np.int64]]"
) -> pd.DataFrame:
    """Neighbouring bins as one bar each."""
    bars = (
        histogram.groupby(group)
        .agg(left=("bin_low", "min"), right=("bin_high", "max"), weights=("weights", "sum"))
        .reset_index(drop=True)
    )
    flat = bars["right"] <= bars["left"]
    if flat.any():
        # The only bin of a constant tensor has no width.
        room = (0.02 * bars["left"].abs()).replace(0, 0.5)
        bars.loc[flat, "left"] -= room
        bars.loc[flat, "right"] += room
    return bars


def _bulk(histogram: pd.DataFrame, window: tuple[float, float], grid: Grid | None) -> pd.DataFrame:
    centres = (histogram["bin_low"] + histogram["bin_high"]) / 2
    inside = histogram[(centres >= window[0]) & (centres <= window[1])]
    if inside.empty:
        inside = histogram
    if grid is None:
        per_bar = math.ceil(len(inside) / BULK_BARS)
        return _merged(inside, np.arange(len(inside)) // per_bar)
    code_count = codes_between(*window, grid)
    if code_count > MOST_SHADED_CODES:
        middle = ((inside["bin_low"] + inside["bin_high"]) / 2).to_numpy(dtype=np.float32)
        return _merged(inside, codes_of(middle, grid).astype(np.int64))
    # Several bars to a code, so that the shape under it shows.
    bin_width = float((inside["bin_high"] - inside["bin_low"]).iloc[0])
    bins_per_code = step_of(grid) / bin_width if bin_width > 0 else 1.0
    per_bar = max(1, min(math.ceil(len(inside) / BULK_BARS), int(bins_per_code / 2)))
    return _merged(inside, np.arange(len(inside)) // per_bar)


def _histogram_bars(bars: pd.DataFrame, x_scale: alt.Scale) -> alt.Chart:
    bin_labels = [
        f"{weight(low)} to {weight(high)}"
        for low, high in zip(bars["left"], bars["right"], strict=True)
    ]
    described = bars.assign(
        bottom=0, said_weights=[count(int(n)) for n in bars["weights"]], said_bin=bin_labels
    )
    drawn: alt.Chart = (
        alt.Chart(described[described["weights"] > 0])
        .mark_rect()
        .encode(
            x=alt.X(
                "left:Q",
                scale=x_scale,
                title="weight",
                axis=alt.Axis(grid=False, tickCount=7, labelExpr=_number_label()),
            ),
            x2=alt.X2("right:Q"),
            y2=alt.Y2("weights:Q"),
            tooltip=tooltip(("said_bin", "weight"), ("said_weights", "weights")),
            description=alt.Description("said_bin:N"),
        )
    )
    return drawn


def _fitting(window: tuple[float, float], bars: pd.DataFrame) -> alt.Scale:
    low = min(window[0], float(bars["left"].min()))
    high = max(window[1], float(bars["right"].max()))
    return alt.Scale(domain=[low, high], nice=False, zero=False)


def _count_y(field: str, largest: float) -> alt.Y:
    """Counts on a log scale that has a 0."""
    decades = [10.0**n for n in range(math.floor(math.log10(max(1.0, largest))) + 1)]
    # 0 and 1 come so close with large counts that their labels would touch.
    if math.log1p(1) / math.log1p(1.15 * largest) > 0.1:
        decades.insert(0, 0.0)
    return alt.Y(
        f"{field}:Q",
        title="weights (log scale)",
        scale=alt.Scale(type="symlog", constant=1, domain=[0, 1.15 * largest], nice=False),
        axis=alt.Axis(values=decades, labelExpr="format(datum.value, ',.0f')", labelOverlap=False),
    )


def _top_axis(
    x_scale: alt.Scale,
    values: list[float],
    expression: str,
    title: str,
    number_format: str = ".4~g",
) -> alt.Chart:
    """An axis above the bars that says the same places in another unit; it has no marks."""
    unseen: alt.Chart = (
        alt.Chart(pd.DataFrame({"place": values}, dtype="float64"))
        .mark_rule(opacity=0, aria=False)
        .encode(
            x=alt.X(
                "place:Q",
                scale=x_scale,
                title=title,
                axis=alt.Axis(
                    orient="top",
                    values=values,
                    grid=False,
                    labelExpr=_with_minus(f"format({expression}, '{number_format}')"),
                ),
            )
        )
    )
    return unseen


def _number_label() -> str:
    """A tick of any size with a true minus sign; axis formats would follow the tick's precision."""
    return _with_minus("format(datum.value, '.6~g')")


def _with_minus(expression: str) -> str:
    return f"replace({expression}, regexp('-', 'g'), '{MINUS}')"


def _nice_step(rough: float) -> int:
    """1, 2, 5, 10, 20, ...: the next one above ``rough``."""
    exponent = math.floor(math.log10(max(rough, 1)))
    for factor in (1, 2, 5, 10):
        if factor * 10**exponent >= rough:
            return int(factor * 10**exponent)
    return int(10 ** (exponent + 1))


def _nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between two others, zero among them where it lies between."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    exponent = math.floor(math.log10(rough))
    step = next(f * 10.0**exponent for f in (1, 2, 5, 10) if f * 10.0**exponent >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{n * step:.12g}") for n in range(first, last + 1)]
