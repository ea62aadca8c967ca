"""Weights against reality: a statistic of the weights against what came out of the network.

Frames have one row per model, as ``queries.reality`` gives them.
"""

import math
from dataclasses import dataclass
from statistics import median
from typing import Literal

import altair as alt
import pandas as pd

from quantstore.charts.common import MARKS, AnyChart, band_colour, styled, tooltip
from quantstore.charts.compare import (
    Measure,
    axis_of,
    band_tints,
    band_zones,
    dot_domain,
    room,
    scale_of,
)
from quantstore.charts.palette import Palette
from quantstore.wording.text import short_name
from quantstore.wording.units import db, weight

HEIGHT = 420
# What a click on a dot is called; it carries the model's name.
CLICK = "open_model"
# Names stand beside the dots up to here; beyond, only those that have room.
ROOM_FOR_NAMES = 40
# The narrowest plot that names are laid out for, in px, without axis and title; on a wider one they
# have more room.
NARROW_PX, LOW_PX = 330, 340
NAME_PX_PER_LETTER, NAME_HEIGHT_PX, DOT_PX = 6.3, 13, 11


@dataclass(frozen=True, slots=True)
class Side:
    """Where a name stands beside its dot, in px from the middle of the dot."""

    align: Literal["left", "right"]
    dx: int
    dy: int = 0


# Left, top, right and bottom.
LabelBox = tuple[float, float, float, float]

# The best first.
SIDES = {
    "right": Side("left", 9),
    "left": Side("right", -9),
    "above right": Side("left", -4, -12),
    "above left": Side("right", 4, -12),
    "below right": Side("left", -4, 12),
    "below left": Side("right", 4, 12),
}


@dataclass(frozen=True, slots=True)
class Statistic:
    """A statistic of a model's weights: its column, its words, whether its axis is logarithmic."""

    column: str
    title: str
    axis_title: str
    is_log: bool
    is_db: bool = False


def scatter(
    models: pd.DataFrame,
    statistic: Statistic,
    limits: dict[str, float],
    palette: Palette,
    *,
    title: str,
) -> AnyChart:
    """One dot per model over the bands of SQNR at the outputs; a click opens the model.

    Args:
        title: what the chart shows, with the correlation and its n.
    """
    frame = _placed(models, statistic)
    measure = Measure(
        column=statistic.column,
        title=statistic.axis_title,
        axis="log" if statistic.is_log else "linear",
    )
    low, high = dot_domain(frame["x"], measure)
    # Room for whole dots and some of their names.
    domain = (low / 1.2, high * 1.3) if statistic.is_log else (low, high)
    low = min(0.0, float(frame["y"].min()) - 2)
    high = max(50.0, float(frame["y"].max()) + 3)
    x = alt.X("x:Q", scale=scale_of(domain, measure), axis=axis_of(domain, measure, grid=False))
    y_scale = alt.Scale(domain=[low, high], nice=False)
    y = alt.Y("y:Q", scale=y_scale)
    layers: list[alt.Chart] = [
        *band_zones(
            band_tints(limits, palette, low=low, high=high),
            scale=y_scale,
            axis=alt.Axis(
                grid=False,
                tickCount=6,
                labelExpr="replace(datum.label, '-', '\u2212')",
                title="measured SQNR at the outputs, dB",
            ),
        ),
        alt.Chart(frame)
        .mark_circle(size=90, opacity=1, stroke=palette.background, strokeWidth=1, cursor="pointer")
        .encode(
            x=x,
            y=y,
            color=band_colour(palette),
            tooltip=tooltip(
                ("model", "model"),
                ("said_x", statistic.title),
                ("said_y", "measured at the outputs"),
                ("band", "band"),
                ("input_source", "inputs"),
            ),
            description=alt.Description("said:N"),
        )
        .properties(name=MARKS)
        .add_params(alt.selection_point(name=CLICK, fields=["model"], on="click", empty=False)),
    ]
    named = _with_room(frame, domain, (low, high), statistic)
    for side, part in named.groupby("side"):
        name_side = SIDES[str(side)]
        layers.append(
            alt.Chart(part)
            .mark_text(
                align=name_side.align,
                dx=name_side.dx,
                dy=name_side.dy,
                fontSize=12,
                color=palette.text,
                aria=False,
            )
            .encode(x=x, y=y, text=alt.Text("label:N"))
        )
    chart = alt.layer(*layers).resolve_scale(color="independent")
    return styled(
        chart.properties(
            height=HEIGHT,
            padding=room(right=70),
            title=alt.TitleParams(
                title, anchor="start", fontSize=13, fontWeight=600, color=palette.text, offset=12
            ),
        ),
        palette,
    )


def _placed(models: pd.DataFrame, statistic: Statistic) -> pd.DataFrame:
    """The models with a place in the plot: a log axis has none for zero, no axis for infinity."""
    drawable = models[models[statistic.column].notna()]
    if statistic.is_log:
        drawable = drawable[drawable[statistic.column] > 0]
    say = db if statistic.is_db else weight
    frame = drawable.assign(
        x=drawable[statistic.column].astype(float), y=drawable["output_sqnr_db"]
    )
    return frame.assign(
        said_x=[say(value) for value in frame["x"]],
        said_y=[db(value) for value in frame["y"]],
        label=[short_name(name) for name in frame["model"]],
        said=[
            f"{model}: {statistic.title} {say(x)}, measured {db(y)}"
            for model, x, y in zip(frame["model"], frame["x"], frame["y"], strict=True)
        ],
    )


def _with_room(
    frame: pd.DataFrame,
    domain: tuple[float, float],
    height: tuple[float, float],
    statistic: Statistic,
) -> pd.DataFrame:
    """The dots whose name touches no other name and no other dot, with its side.

    What lies far out comes first: those are the ones that people ask about.
    """
    if len(frame) > ROOM_FOR_NAMES:
        return frame.head(0).assign(side="")
    measure = Measure(
        column=statistic.column, title="", axis="log" if statistic.is_log else "linear"
    )
    places = [
        (
            share_of(x, domain, measure) * NARROW_PX,
            (height[1] - y) / (height[1] - height[0]) * LOW_PX,
        )
        for x, y in zip(frame["x"], frame["y"], strict=True)
    ]
    middle = [median(ends) for ends in zip(*places, strict=True)]
    outermost_first = sorted(
        range(len(places)), key=lambda row: math.dist(places[row], middle), reverse=True
    )
    half = DOT_PX / 2
    taken = [(px - half, py - half, px + half, py + half) for px, py in places]
    sides: dict[int, str] = {}
    for row in outermost_first:
        other_boxes = [other_box for number, other_box in enumerate(taken) if number != row]
        for name, side in SIDES.items():
            box = _box(places[row], side, NAME_PX_PER_LETTER * len(frame["label"].iloc[row]))
            if (
                box[0] < 0
                or box[2] > NARROW_PX
                or any(_touch(box, other_box) for other_box in other_boxes)
            ):
                continue
            taken.append(box)
            sides[row] = name
            break
    kept = sorted(sides)
    return frame.iloc[kept].assign(side=[sides[row] for row in kept])


def _box(dot: tuple[float, float], side: Side, length: float) -> LabelBox:
    """Where a name of this length lies."""
    start = dot[0] + side.dx - (length if side.align == "right" else 0)
    top = dot[1] + side.dy - NAME_HEIGHT_PX / 2
    return start, top, start + length, top + NAME_HEIGHT_PX


def _touch(box: LabelBox, other_box: LabelBox) -> bool:
    return (
        box[0] < other_box[2]
        and other_box[0] < box[2]
        and box[1] < other_box[3]
        and other_box[1] < box[3]
    )


def share_of(value: float, domain: tuple[float, float], measure: Measure) -> float:
    """Where a value lies on an axis, from 0 to 1."""
    if measure.axis == "log":
        return math.log(value / domain[0]) / math.log(domain[1] / domain[0])
    return (value - domain[0]) / (domain[1] - domain[0])
