"""Layer: what it does to a shared range to be clipped, threshold by threshold.

Curves come as ``queries.layer_clipping`` gives them, one row per threshold.
"""

import math

import altair as alt
import numpy as np
import pandas as pd

from quantstore.charts.common import AnyChart, styled, tooltip
from quantstore.charts.palette import Palette
from quantstore.wording.units import MINUS, NO_BREAK_SPACE, db, share

HEIGHT = 220
# Thresholds with a label below the axis, in percent of the largest weight.
TICKS = [1, 2, 5, 10, 20, 50, 100]
# The dot of an exact threshold lies this much above the highest finite one.
ROOM_ABOVE = 1.08

WHOLE_TENSOR = "whole tensor"
NINE_IN_TEN = "90 % of channels"
MEDIAN = "median channel"
THRESHOLD_TITLE = "clipping threshold, % of the largest weight (log scale)"


def lines_of(curves: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The curves that are drawn, by the words of the legend; empty where there is none.

    Where the channels have curves these stand beside the whole tensor; elsewhere a second width.
    """
    by_measure = dict(iter(curves.groupby(["bits", "measure"])))
    if (8, "channel_p10") in by_measure:
        names = {
            (8, "tensor"): WHOLE_TENSOR,
            (8, "channel_p10"): NINE_IN_TEN,
            (8, "channel_median"): MEDIAN,
        }
    else:
        names = {
            (bits, "tensor"): f"{WHOLE_TENSOR}, int{bits}"
            for bits in sorted({int(bits) for bits in curves["bits"]}, reverse=True)
        }
    return {name: by_measure[key] for key, name in names.items() if key in by_measure}


def sqnr_at(curve: pd.DataFrame, threshold: float) -> float | None:
    """SQNR in dB at a threshold between those of the curve; None where no point is finite."""
    finite = curve[curve["sqnr_db"].notna()]
    if finite.empty:
        return None
    log_thresholds = np.log(finite["threshold"].to_numpy(dtype=float))
    return float(
        np.interp(math.log(threshold), log_thresholds, finite["sqnr_db"].to_numpy(dtype=float))
    )


def clipping_lines(curves: pd.DataFrame, palette: Palette) -> AnyChart:
    """SQNR against the threshold, a line per measure and a dot at the best of each.

    Args:
        curves: at least one line with a finite point. What is exact has no place on the line; its
            dot lies at the upper edge.
    """
    lines = lines_of(curves)
    points = pd.concat([curve.assign(line=name) for name, curve in lines.items()])
    lowest = min(0.0, float(points["sqnr_db"].min()))
    # Without any error left nothing is higher than a little.
    highest = ROOM_ABOVE * max(1.0, float(points["sqnr_db"].max()))
    points = points.assign(
        percent=100 * points["threshold"],
        place=points["sqnr_db"].fillna(highest),
        said_threshold=[f"{share(t, digits=1)} of the largest weight" for t in points["threshold"]],
        said_sqnr=[db(value) for value in points["sqnr_db"]],
    )
    points = points.assign(
        said=[
            f"{line}: {sqnr} at {threshold}"
            for line, sqnr, threshold in zip(
                points["line"], points["said_sqnr"], points["said_threshold"], strict=True
            )
        ]
    )
    names = list(lines)
    colours = {NINE_IN_TEN: palette.text, MEDIAN: palette.accent, names[0]: palette.muted}
    dashes = [[4, 3] if name.startswith(WHOLE_TENSOR) else [1, 0] for name in names]
    x = alt.X(
        "percent:Q",
        title=THRESHOLD_TITLE,
        scale=alt.Scale(type="log", domain=[TICKS[0], TICKS[-1]], nice=False),
        axis=alt.Axis(
            values=TICKS,
            grid=False,
            labelExpr=f"datum.label + '{NO_BREAK_SPACE}%'",
            labelOverlap=False,
        ),
    )
    y = alt.Y(
        "place:Q",
        title="SQNR, dB",
        scale=alt.Scale(domain=[lowest, highest], nice=False),
        axis=alt.Axis(tickCount=5, labelExpr=f"replace(datum.label, '-', '{MINUS}')"),
    )
    colour = alt.Color(
        "line:N",
        sort=names,
        scale=alt.Scale(domain=names, range=[colours.get(n, palette.accent) for n in names]),
        legend=alt.Legend(symbolType="stroke", symbolStrokeWidth=2, symbolSize=250, labelLimit=300),
    )
    drawn = (
        alt.Chart(points[points["sqnr_db"].notna()])
        .mark_line(strokeWidth=2, aria=False)
        .encode(
            x=x,
            y=y,
            color=colour,
            strokeDash=alt.StrokeDash(
                "line:N", sort=names, scale=alt.Scale(domain=names, range=dashes)
            ),
        )
    )
    best = (
        alt.Chart(points[points["is_best"]])
        .mark_point(filled=True, size=60, opacity=1, aria=False)
        .encode(x=x, y=y, color=colour)
    )
    # Every threshold answers the pointer, within a little of the line.
    hover = (
        alt.Chart(points)
        .mark_point(filled=True, size=150, opacity=0)
        .encode(
            x=x,
            y=y,
            tooltip=tooltip(
                ("line", "line"), ("said_threshold", "threshold"), ("said_sqnr", "SQNR")
            ),
            description=alt.Description("said:N"),
        )
    )
    return styled(alt.layer(drawn, best, hover), palette, height=HEIGHT)
