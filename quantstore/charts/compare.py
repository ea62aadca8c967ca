"""Compare: how the layers of several models differ, and where in each network it hurts.

Frames have one row per layer, as ``queries.layer_profiles`` gives them, models in display order.
"""

import json
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd

from quantstore.charts.common import (
    MARKS,
    AnyChart,
    band_colour,
    depth_axis,
    opens_layer,
    styled,
    tooltip,
)
from quantstore.charts.palette import BANDS, Palette
from quantstore.numerics.measures import Axis
from quantstore.wording import stories
from quantstore.wording.nodes import operator
from quantstore.wording.text import short_name
from quantstore.wording.units import MINUS, bits, db, share, weight, weights
from quantstore.wording.verdicts import NINE_IN_TEN_REACH

Domain = tuple[float, float]

# The measure of every page: bars hang from here, longer is worse.
HANG_FROM_DB = 40.0
# What a line of an axis title holds beside names, on a phone.
TITLE_CHARACTERS = 44
# Beyond this many models a chart gives each row less room.
ROOMY_MODELS = 4
# Beyond this many layers single bricks are thinner than their outline.
SINGLE_BRICKS = 400


# The families of operators that are convolutions.
CONVOLUTIONS = ("conv", "conv_transpose")


def convolutions(profiles: pd.DataFrame) -> pd.DataFrame:
    """What a distribution counts unless somebody chooses operators: convolutions, as the article.

    Of a model that has none, every layer counts.
    """
    is_conv = profiles["op_family"].isin(CONVOLUTIONS)
    return profiles[is_conv | ~profiles["model"].isin(profiles.loc[is_conv, "model"])]


def kind_of(counted: pd.DataFrame) -> str:
    """What one count stands for: ``convolution``, or ``layer`` where there are others."""
    return "convolution" if counted["op_family"].isin(CONVOLUTIONS).all() else "layer"


def not_counted(profiles: pd.DataFrame, counted: pd.DataFrame) -> tuple[int, list[str]]:
    """How many layers of other kinds are left out, and the models that have no convolution.

    Where no model has any, all layers count alike and there is nothing to say.
    """
    is_conv = counted["op_family"].isin(CONVOLUTIONS)
    if not is_conv.any():
        return 0, []
    with_some = set(counted.loc[is_conv, "model"])
    without = [model for model in dict.fromkeys(counted["model"]) if model not in with_some]
    return len(profiles) - len(counted), without


@dataclass(frozen=True, slots=True)
class Measure:
    """What the bricks are sorted by: a column, its words, and how its axis is cut into bins.

    The end of the column's name is the unit: ``_db``, ``_bits``, ``_percent``; else there is none.
    ``label`` is how a control calls it, ``short_title`` how a dot does, and ``explanation`` what a
    caption says of it.
    """

    column: str
    title: str
    axis: Axis
    bins_per_decade: int = 10
    bin_width: float = 1.0
    has_db_labels: bool = False
    label: str = ""
    short_title: str = ""
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class Landmarks:
    """The layers that a caption names: how far raw range can be trusted."""

    widest: pd.Series
    widest_unharmed: pd.Series | None
    narrowest_broken: pd.Series | None


def landmarks(profiles: pd.DataFrame, column: str) -> Landmarks | None:
    """The widest layer, the widest that is not at risk, the narrowest that breaks."""
    positive = profiles[profiles[column] > 0]
    if positive.empty:
        return None
    unharmed = positive[positive["band"].isin(["fine", "watch"])]
    broken = positive[positive["band"] == "broken"]
    return Landmarks(
        widest=positive.iloc[int(positive[column].to_numpy().argmax())],
        widest_unharmed=None
        if unharmed.empty
        else unharmed.iloc[int(unharmed[column].to_numpy().argmax())],
        narrowest_broken=None
        if broken.empty
        else broken.iloc[int(broken[column].to_numpy().argmin())],
    )


def range_story(profiles: pd.DataFrame, column: str) -> str:
    """How far raw range can be trusted, as plain text; empty where no layer has one."""
    marked = landmarks(profiles, column)
    if marked is None:
        return ""
    layers = (marked.widest, marked.widest_unharmed, marked.narrowest_broken)
    return stories.range_story(
        [None if layer is None else layer.to_dict() for layer in layers],
        column,
        is_several=profiles["model"].nunique() > 1,
    )


def spread_story(profiles: pd.DataFrame, column: str) -> str:
    """Which model spreads most and which least, as plain text; empty for a single one."""
    spread_bits = profiles.groupby("model", sort=False)[column].quantile(0.9).dropna()
    least_first = spread_bits.sort_values()
    return stories.spread_story(
        dict(zip(map(str, least_first.index), least_first.tolist(), strict=True)),
        kind_of(profiles),
    )


def bricks(profiles: pd.DataFrame, measure: Measure, palette: Palette) -> AnyChart:
    """One brick per layer, stacked in bins; every model on a baseline of its own, same bins.

    The worst band lies on top of a stack. A brick opens its layer.
    """
    models = list(dict.fromkeys(profiles["model"]))
    laid = lay_bricks(profiles, measure)
    roomy = len(models) <= ROOMY_MODELS
    unit = 8.0 if roomy else 4.5
    baselines, levels = _baselines(laid, models, unit)
    laid = laid.assign(
        bottom=laid["model"].map(baselines) + laid["level"],
        top=laid["model"].map(baselines) + laid["level"] + laid["height"],
    )
    domain = _bin_domain(laid, measure)
    x = alt.X("left:Q", scale=scale_of(domain, measure), axis=axis_of(domain, measure))
    y_scale = alt.Scale(domain=[0, levels], nice=False)
    merged = bool((laid["layers"] > 1).any())
    stroke = 0.0 if merged else (1.0 if roomy else 0.7)
    click = opens_layer()
    names = model_axis(baselines, palette)
    layers: list[alt.Chart] = [
        alt.Chart(pd.DataFrame({"y": list(baselines.values())}))
        .mark_rule(color=palette.axis, strokeWidth=1)
        .encode(y=alt.Y("y:Q", scale=y_scale, axis=names)),
        alt.Chart(laid)
        .mark_rect(stroke=palette.background, strokeWidth=stroke, cursor="pointer")
        .encode(
            x=x,
            x2=alt.X2("right:Q"),
            # The same axis: where two layers differ, Vega-Lite thins out the names.
            y=alt.Y("bottom:Q", scale=y_scale, axis=names),
            y2=alt.Y2("top:Q"),
            color=band_colour(palette),
            tooltip=tooltip(
                ("said_layer", "layer"),
                ("model", "model"),
                ("said_value", measure.title),
                ("said_p10", NINE_IN_TEN_REACH),
                ("said_operator", "operator"),
            ),
            description=alt.Description("said:N"),
        )
        .properties(name=MARKS)
        .add_params(click),
    ]
    if roomy:
        layers.append(_stack_counts(laid, measure, domain, palette))
    return styled(alt.layer(*layers), palette, height=levels * unit + 62)


def grouped_bars(profiles: pd.DataFrame, measure: Measure, palette: Palette) -> AnyChart:
    """The article's chart: layers per bin, models beside one another, square-root axis."""
    models = list(dict.fromkeys(profiles["model"]))
    binned = _binned(profiles, measure)
    counts = binned.groupby(["model", "left", "right"], as_index=False).size()
    counts["middle_share"] = counts["model"].map({m: i for i, m in enumerate(models)})
    width = len(models)
    if measure.axis == "log":
        ratio = (counts["right"] / counts["left"]) ** (0.92 / width)
        counts["from"] = counts["left"] * ratio ** counts["middle_share"]
        counts["to"] = counts["from"] * ratio
    else:
        step = (counts["right"] - counts["left"]) * 0.92 / width
        counts["from"] = counts["left"] + step * counts["middle_share"]
        counts["to"] = counts["from"] + step
    counts["none"] = 0
    counts["said"] = [f"{n} layer{'' if n == 1 else 's'}" for n in counts["size"]]
    counts["said_bin"] = [
        f"{weight(a)} to {weight(b)}" for a, b in zip(counts["left"], counts["right"], strict=True)
    ]
    domain = _bin_domain(binned, measure)
    base = alt.Chart(counts).encode(
        x=alt.X("from:Q", scale=scale_of(domain, measure), axis=axis_of(domain, measure)),
        y=alt.Y(
            "size:Q",
            scale=alt.Scale(type="sqrt"),
            title="layers (square-root scale)",
            axis=alt.Axis(tickCount=6, labelExpr="format(datum.value, ',~r')"),
        ),
    )
    bars = base.mark_rect().encode(
        x2=alt.X2("to:Q"),
        y2=alt.Y2("none:Q"),
        color=alt.Color(
            "model:N",
            scale=alt.Scale(domain=models, range=list(palette.models[:width])),
            legend=alt.Legend(labelLimit=260),
        ),
        tooltip=tooltip(("model", "model"), ("said_bin", measure.title), ("said", "layers")),
    )
    labels = base.mark_text(dy=-7, fontSize=11, color=palette.muted, align="left").encode(
        text=alt.Text("size:Q")
    )
    return styled(alt.layer(bars, labels), palette, height=300)


def hanging_bars(profiles: pd.DataFrame, palette: Palette) -> AnyChart:
    """Where in each network it hurts: one bar per layer, hanging from 40 dB down to its p10."""
    models = list(dict.fromkeys(profiles["model"]))
    roomy = len(models) <= ROOMY_MODELS
    pitch = 72.0 if roomy else 54.0
    gap = 16.0
    tops = {model: (len(models) - row) * pitch - gap for row, model in enumerate(models)}
    reach = pitch - gap

    frame = with_words(profiles, "channel_sqnr_p10_db")
    reached = frame["channel_sqnr_p10_db"].fillna(HANG_FROM_DB).clip(0.6, HANG_FROM_DB)
    top = frame["model"].map(tops)
    frame = frame.assign(
        left=frame["depth"] / frame["layer_count"],
        right=(frame["depth"] + 1) / frame["layer_count"],
        top=top,
        # A sliver even for the best layers: every layer is there to be clicked.
        bottom=top - np.maximum(1.2, reach * (1 - reached / HANG_FROM_DB)),
    )
    levels = (0, 20, 40)
    lines = pd.DataFrame(
        [
            {"y": tops[model] - reach * (1 - level / HANG_FROM_DB)}
            for model in models
            for level in (0, 10, 20, 30, 40)
        ]
    )
    labelled = models if roomy else models[:1]
    labels = pd.DataFrame(
        [
            {
                "x": 1.0,
                "y": tops[model] - reach * (1 - level / HANG_FROM_DB),
                "text": f"{level} dB" if level == 0 else str(level),
            }
            for model in labelled
            for level in levels
        ]
    )
    x_scale = alt.Scale(domain=[0, 1.0], nice=False)
    y_scale = alt.Scale(domain=[0, len(models) * pitch - gap + 4], nice=False)
    most = int(profiles["layer_count"].max())
    names = {model: tops[model] - reach / 2 for model in models}
    chart = alt.layer(
        alt.Chart(lines)
        .mark_rule(color=palette.grid)
        .encode(y=alt.Y("y:Q", scale=y_scale, axis=model_axis(names, palette))),
        alt.Chart(frame)
        .mark_rect(
            stroke=palette.background, strokeWidth=0.7 if most <= 150 else 0, cursor="pointer"
        )
        .encode(
            x=alt.X(
                "left:Q",
                scale=x_scale,
                title="depth (position among the layers)",
                axis=depth_axis(),
            ),
            x2=alt.X2("right:Q"),
            y=alt.Y("top:Q", scale=y_scale),
            y2=alt.Y2("bottom:Q"),
            color=band_colour(palette),
            tooltip=tooltip(
                ("said_layer", "layer"),
                ("model", "model"),
                ("said_p10", NINE_IN_TEN_REACH),
                ("said_position", "position"),
                ("said_operator", "operator"),
            ),
            description=alt.Description("said:N"),
        )
        .properties(name=MARKS)
        .add_params(opens_layer()),
        alt.Chart(labels)
        .mark_text(align="left", dx=6, fontSize=11, color=palette.muted)
        .encode(
            x=alt.X("x:Q", scale=x_scale), y=alt.Y("y:Q", scale=y_scale), text=alt.Text("text:N")
        ),
    )
    height = len(models) * pitch + 56
    return styled(chart, palette, height=height, padding=room(right=40))


def lay_bricks(profiles: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Where each brick lies: ``left`` and ``right`` in units of the measure, ``level`` in bricks.

    Layers without the measure are left out. Where a stack of a model would grow too high, bricks of
    that model lie abreast; those of the others keep their size. A model of more than 400 layers
    gets one rectangle per bin and band; ``layers`` says how many layers a rectangle stands for.
    """
    binned = _binned(profiles, measure)
    binned["band_order"] = binned["band"].map({band: i for i, band in enumerate(reversed(BANDS))})
    binned = binned.sort_values(["model", "left", "band_order"], kind="stable")
    most_levels = _most_levels(profiles["model"].nunique(), measure)
    tallest = binned.groupby(["model", "left"]).size().groupby("model").max()
    abreast_by_model = (-(-tallest // most_levels)).to_dict()
    abreast = binned["model"].map(abreast_by_model)
    order_in_bin = binned.groupby(["model", "left"]).cumcount()
    binned["level"] = order_in_bin // abreast
    binned["height"] = 1.0
    binned["layers"] = 1
    column = order_in_bin % abreast
    if measure.axis == "log":
        ratio = (binned["right"] / binned["left"]) ** (0.94 / abreast)
        left_edge = binned["left"] * ratio**column
        binned["right"], binned["left"] = left_edge * ratio, left_edge
    else:
        step = (binned["right"] - binned["left"]) * 0.94 / abreast
        left_edge = binned["left"] + step * column
        binned["right"], binned["left"] = left_edge + step, left_edge
    crowded = profiles.groupby("model").size()
    crowded_models = set(crowded[crowded > SINGLE_BRICKS].index)
    if crowded_models:
        binned = _merge_crowded(binned, crowded_models, abreast_by_model)
    return binned


def _merge_crowded(
    laid: pd.DataFrame, models: set[str], abreast: dict[object, int]
) -> pd.DataFrame:
    """One rectangle per bin and band for models with too many layers to draw each."""
    merged = []
    crowded = laid[laid["model"].isin(models)]
    for (model, _), stack in crowded.groupby(["model", "bin"], sort=False):
        level = 0.0
        for band, part in stack.groupby("band", sort=False):
            first = part.iloc[0].copy()
            first["left"], first["right"] = stack["left"].min(), stack["right"].max()
            first["level"], first["height"] = level, len(part) / abreast[model]
            first["layers"] = len(part)
            first["said_layer"] = f"{len(part)} layers in the band {band}"
            first["said_p10"] = first["said_operator"] = ""
            level += len(part) / abreast[model]
            merged.append(first)
    return pd.concat([laid[~laid["model"].isin(models)], pd.DataFrame(merged)], ignore_index=True)


def _binned(profiles: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """The layers that have the measure, with the edges of their bin."""
    values = profiles[measure.column]
    keep = values.notna() & ((values > 0) if measure.axis == "log" else True)
    frame = with_words(profiles[keep], measure.column)
    values = frame[measure.column].astype(float)
    if measure.axis == "log":
        number = np.floor(np.log10(values) * measure.bins_per_decade + 1e-9)
        frame["left"] = 10 ** (number / measure.bins_per_decade)
        frame["right"] = 10 ** ((number + 1) / measure.bins_per_decade)
    else:
        number = np.floor(values / measure.bin_width + 1e-9)
        frame["left"] = number * measure.bin_width
        frame["right"] = (number + 1) * measure.bin_width
    frame["bin"] = number.astype(int)
    return frame


def with_words(profiles: pd.DataFrame, column: str) -> pd.DataFrame:
    """The layers with everything a tooltip says, in finished words."""
    said_value = said_as(column)
    frame = profiles.copy()
    frame["said_layer"] = [short_name(name, 80) for name in frame["layer"]]
    frame["said_value"] = [
        "" if pd.isna(value) else said_value(float(value)) for value in frame[column]
    ]
    frame["said_p10"] = [db(_float(value)) for value in frame["channel_sqnr_p10_db"]]
    frame["said_operator"] = [
        f"{operator(op_type, bool(depthwise))}, {weights(int(count))} weights"
        for op_type, depthwise, count in zip(
            frame["op_type"], frame["is_depthwise"], frame["weight_count"], strict=True
        )
    ]
    frame["said_position"] = [
        f"layer {depth + 1} of {count}"
        for depth, count in zip(frame["depth"], frame["layer_count"], strict=True)
    ]
    frame["said"] = [
        f"{layer} of {model}: {band}, {p10}"
        for layer, model, band, p10 in zip(
            frame["said_layer"], frame["model"], frame["band"], frame["said_p10"], strict=True
        )
    ]
    return frame


def said_as(column: str) -> Callable[[float | None], str]:
    """How the values of a column are written, with their unit."""
    if column.endswith("_db"):
        return db
    if column.endswith("_percent"):
        return percent
    return bits if column.endswith("_bits") else weight


def percent(value: float | None) -> str:
    """``1.5 %``; the value is in percent already."""
    return "–" if value is None or not math.isfinite(value) else share(value / 100, digits=1)


def in_colours(
    frame: pd.DataFrame, palette: Palette, focus: str | None = None
) -> tuple[pd.DataFrame, alt.Color]:
    """The rows with the ``group`` that their colour says, and that colour.

    Up to four models have one each; beyond, one model stands out and is drawn last.

    Args:
        focus: the model that stands out; the first one unless told otherwise.
    """
    models = list(dict.fromkeys(frame["model"]))
    if len(models) <= ROOMY_MODELS:
        frame = frame.assign(group=frame["model"])
        groups, colours = models, list(palette.models[: len(models)])
    else:
        chosen = str(focus if focus in models else models[0])
        is_chosen = frame["model"] == chosen
        groups, colours = [chosen, "the others"], [palette.models[0], palette.unfocused]
        frame = frame.assign(group=np.where(is_chosen, chosen, "the others"))
        frame = pd.concat([frame[~is_chosen], frame[is_chosen]])
    colour = alt.Color(
        "group:N",
        scale=alt.Scale(domain=groups, range=colours),
        legend=alt.Legend(labelLimit=260, symbolType="circle"),
    )
    return frame, colour


def _float(value: object) -> float | None:
    return None if pd.isna(value) else float(value)  # type: ignore[call-overload, arg-type]


def _most_levels(model_count: int, measure: Measure) -> int:
    """How high a stack may grow before bricks lie side by side."""
    if measure.axis == "log":
        return 26
    return 16 if model_count <= 2 else 13 if model_count <= ROOMY_MODELS else 9


def _baselines(
    laid: pd.DataFrame, models: list[str], unit: float
) -> tuple[dict[str, float], float]:
    """The height of each model's baseline, the first model on top; and of the whole chart."""
    name_height = 20 / unit
    head_room = 16 / unit if unit > 5 else 6 / unit
    heights = laid["level"] + laid["height"]
    baselines: dict[str, float] = {}
    height = 0.5
    for model in reversed(models):
        baselines[model] = height
        stack_height = (
            float(heights[laid["model"] == model].max()) if (laid["model"] == model).any() else 0
        )
        height += max(stack_height + head_room, name_height)
    return dict(reversed(baselines.items())), height


def _stack_counts(
    laid: pd.DataFrame, measure: Measure, domain: Domain, palette: Palette
) -> alt.Chart:
    stacks = laid.groupby(["model", "bin"], as_index=False).agg(
        left=("left", "min"), right=("right", "max"), top=("top", "max"), layers=("layers", "sum")
    )
    stacks["middle"] = (
        np.sqrt(stacks["left"] * stacks["right"])
        if measure.axis == "log"
        else (stacks["left"] + stacks["right"]) / 2
    )
    counts: alt.Chart = (
        alt.Chart(stacks)
        .mark_text(dy=-7, fontSize=11, color=palette.muted)
        .encode(
            x=alt.X("middle:Q", scale=scale_of(domain, measure)),
            y=alt.Y("top:Q"),
            text=alt.Text("layers:Q"),
        )
    )
    return counts


def _bin_domain(binned: pd.DataFrame, measure: Measure) -> Domain:
    if binned.empty:
        return (0.1, 1.0)
    low, high = float(binned["left"].min()), float(binned["right"].max())
    return (low / 1.03, high * 1.03) if measure.axis == "log" else (min(0.0, low), high)


def dot_domain(values: pd.Series, measure: Measure) -> Domain:
    """The ends of an axis that holds these values, with a little room."""
    if values.empty:
        return (0.1, 1.0)
    low, high = float(values.min()), float(values.max())
    if measure.axis == "log":
        return (low / 1.1, high * 1.1)
    low = min(0.0, low)
    room = 0.03 * (high - low) or 1.0
    return (low - room, high + room)


def scale_of(domain: Domain, measure: Measure) -> alt.Scale:
    """The scale of a measure."""
    return alt.Scale(type=measure.axis, domain=list(domain), nice=False)


def axis_of(domain: Domain, measure: Measure, *, grid: bool = True) -> alt.Axis:
    """The axis of a measure, with round numbers in words."""
    whole_title = f"{measure.title}{' (log scale)' if measure.axis == 'log' else ''}"
    title = textwrap.wrap(whole_title, TITLE_CHARACTERS)
    number = "replace(format(datum.value, ',~r'), '-', '" + MINUS + "')"
    if measure.has_db_labels:
        # A second line: what uniform rounding noise predicts at this span.
        number = f"[{number}, '≈ ' + format(58.9 - 20 * log(datum.value) / LN10, '.0f') + ' dB']"
    if measure.axis == "linear":
        return alt.Axis(title=title, labelExpr=number, tickCount=10, grid=grid)
    ticks = _log_ticks(*domain)
    return alt.Axis(title=title, labelExpr=number, values=ticks, labelOverlap=True, grid=grid)


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between the ends; finer ones where that would leave fewer than two."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    usual = (1, 2, 5) if high / low < 1e6 else (1,)
    ticks: list[float] = []
    for mantissas in (usual, range(1, 10), [tenth / 10 for tenth in range(10, 100)]):
        finer = [mantissa * 10.0**decade for decade in decades for mantissa in mantissas]
        ticks = [tick for tick in finer if low <= tick <= high]
        if len(ticks) >= 2:
            break
    return ticks


def model_axis(heights: dict[str, float], palette: Palette) -> alt.Axis:
    """Model names beside their rows; JSON, because a name may hold any character."""
    names = {f"{height:.6g}": name for name, height in heights.items()}
    table = json.dumps(names)
    return alt.Axis(
        title=None,
        grid=False,
        values=list(heights.values()),
        labelExpr=f"{table}[format(datum.value, '.6~g')]",
        labelFontSize=13,
        labelFontWeight=600,
        # Rows lie at least as far apart as a name is high; one that is left out is missed.
        labelOverlap=False,
        labelColor=palette.text,
        labelLimit=170,
    )


def band_tints(
    limits: dict[str, float], palette: Palette, *, low: float = 0.0, high: float = 50.0
) -> pd.DataFrame:
    """One row per band that lies between two SQNRs: its limits there, its tint and its ink."""
    rows = []
    floor = low
    for band in reversed(BANDS):
        low = max(floor, limits.get(band, floor))
        if low < high:
            colour = palette.bands[band]
            rows.append(
                {
                    "band": band,
                    "low": low,
                    "high": high,
                    "middle": (low + high) / 2,
                    "tint": colour.tint,
                    "ink": colour.ink,
                }
            )
        high = min(high, low)
    return pd.DataFrame(rows)


def band_zones(tints: pd.DataFrame, *, scale: alt.Scale, axis: alt.Axis) -> list[alt.Chart]:
    """The bands of SQNR behind what is drawn over them, named on the right.

    Args:
        tints: from :func:`band_tints`.
        axis: with its title.
    """
    return [
        alt.Chart(tints)
        .mark_rect()
        .encode(
            y=alt.Y("low:Q", scale=scale, axis=axis),
            y2=alt.Y2("high:Q"),
            color=alt.Color("tint:N", scale=None),
        ),
        alt.Chart(tints)
        .mark_text(align="left", dx=8, fontSize=12)
        .encode(
            x=alt.XValue("width"),
            y=alt.Y("middle:Q", scale=scale, axis=axis),
            text=alt.Text("band:N"),
            color=alt.Color("ink:N", scale=None),
        ),
    ]


def room(*, right: int) -> dict[str, int]:
    """Padding around a chart with words to the right of its plot."""
    return {"right": right, "left": 5, "top": 5, "bottom": 5}
