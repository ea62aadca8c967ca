"""Drift: how far the quantized model has moved away from the float one, tensor by tensor.

Frames have one row per run and tensor, as ``queries.drift`` gives them, with a column ``run`` that
holds the words of the legend.
"""

from typing import Any, Literal

import altair as alt
import numpy as np
import pandas as pd

from quantstore.charts.common import MARKS, AnyChart, depth_axis, styled, tooltip
from quantstore.charts.palette import Palette
from quantstore.wording.text import short_name
from quantstore.wording.units import db, weight

# Above this nothing is told from exact; below 0 dB the error is larger than the signal.
MOST_DB, LEAST_DB = 60.0, 0.0
# Without the legend, which has a line per run.
LINES_HEIGHT, HISTOGRAM_HEIGHT = 330, 240
# The line of what the pointer is near to, below the title of the axis; and the room that it takes.
READOUT_BELOW, READOUT_HEIGHT = 47, 20
# Marks closer than this, as a share of the depth of a narrow chart and in dB, would touch.
APART = (0.045, 3.5)
# What a click on a point is called; it carries the run and the tensor.
CLICK = "pick_tensor"
# The tensor nearest to the pointer: it stays in the browser.
HOVER = "nearest_tensor"
POINT_COLUMNS = [
    *("run", "simulation_id", "tensor", "place", "shown"),
    *("said_db", "said_local", "said", "readout"),
]


def lines(
    tensors: pd.DataFrame, jumps: pd.DataFrame, palette: Palette, *, with_local: bool
) -> AnyChart:
    """Error along depth: a line per run, falling as the error accumulates.

    Args:
        jumps: some rows of ``tensors`` with a column ``number``, marked in the chart.
        with_local: also the error that each node makes by itself, thin and dotted.
    """
    frame = _with_words(tensors)
    runs = list(dict.fromkeys(frame["run"]))
    x = alt.X(
        "place:Q",
        scale=alt.Scale(domain=[0, 1], nice=False),
        title="depth (position among the compared tensors)",
        axis=depth_axis(),
    )
    y_scale = alt.Scale(domain=[LEAST_DB, MOST_DB], nice=False)
    y = alt.Y(
        "shown:Q",
        scale=y_scale,
        title="SQNR of the tensor, dB (higher is closer to float)",
        axis=alt.Axis(values=[0, 10, 20, 30, 40, 50, 60], labelOverlap=False),
    )
    colour = alt.Color(
        "run:N",
        sort=runs,
        scale=alt.Scale(domain=runs, range=list(palette.models[: len(runs)])),
        # What one run is called stands above the chart already.
        legend=None
        if len(runs) == 1
        else alt.Legend(
            # The rest of the line, beside the stroke.
            labelLimit=alt.ExprRef("max(120, width - 40)"),
            symbolType="stroke",
            symbolStrokeWidth=2.5,
            symbolSize=250,
            columns=1,
            direction="vertical",
        ),
    )
    layers: list[alt.Chart] = []
    if with_local and frame["has_local"].any():
        local = frame[frame["has_local"]].assign(shown=lambda rows: rows["shown_local"])
        layers.append(
            alt.Chart(local[["run", "place", "shown"]])
            .mark_line(strokeWidth=1.2, strokeDash=[1, 3], strokeCap="round", aria=False)
            .encode(x=x, y=y, color=colour)
        )
    layers.append(
        alt.Chart(frame[["run", "place", "shown"]])
        .mark_line(strokeWidth=2, strokeJoin="round", aria=False)
        .encode(x=x, y=y, color=colour)
    )
    # Of a single line the nearest along the network, wherever the pointer is above or below it.
    nearest: dict[str, Any] = (
        {"encodings": ["x"]} if len(runs) == 1 else {"fields": ["simulation_id", "tensor"]}
    )
    hover = alt.selection_point(
        name=HOVER, on="pointermove", clear="pointerout", nearest=True, empty=False, **nearest
    )
    layers += _readout(frame[POINT_COLUMNS], hover, x, palette)
    layers.append(
        alt.Chart(frame[POINT_COLUMNS])
        .mark_point(filled=True, size=70, cursor="pointer", tooltip=None)
        .encode(
            x=x,
            y=y,
            color=colour,
            opacity=alt.when(hover).then(alt.value(1)).otherwise(alt.value(0)),
            description=alt.Description("said:N"),
        )
        .properties(name=MARKS)
        .add_params(
            hover,
            alt.selection_point(
                name=CLICK,
                fields=["simulation_id", "tensor"],
                on="click",
                nearest=True,
                empty=False,
            ),
        )
    )
    if not jumps.empty:
        marked = _apart(_with_words(jumps))
        marked = marked.assign(label=[str(number) for number in marked["number"]])
        moved = marked[marked["at"] != marked["shown"]]
        at = alt.Y("at:Q", scale=y_scale)
        marks = alt.Chart(marked[["run", "place", "shown", "at", "label"]]).encode(x=x, y=at)
        layers += [
            alt.Chart(moved[["place", "shown", "at"]])
            .mark_rule(color=palette.text, strokeWidth=1, aria=False)
            .encode(x=x, y=y, y2=alt.Y2("at:Q")),
            marks.mark_point(
                filled=True,
                size=230,
                opacity=1,
                color=palette.background,
                stroke=palette.text,
                strokeWidth=1.3,
                aria=False,
            ),
            marks.mark_text(fontSize=11, fontWeight=600, color=palette.text, aria=False).encode(
                text=alt.Text("label:N")
            ),
        ]
    legend_height = 20 * len(runs) if len(runs) > 1 else 0
    return styled(
        alt.layer(*layers),
        palette,
        height=LINES_HEIGHT + READOUT_HEIGHT + legend_height,
        padding={"left": 5, "right": 5, "top": 5, "bottom": READOUT_HEIGHT},
    )


def _readout(
    points: pd.DataFrame, hover: alt.Parameter, x: alt.X, palette: Palette
) -> list[alt.Chart]:
    """A rule through the nearest tensor, and below the axis what it is.

    A tooltip beside the pointer would hide the lines.
    """
    base = alt.Chart(points).transform_filter(hover).encode(x=x)
    rule = base.mark_rule(color=palette.axis, strokeWidth=1, aria=False)
    # To the side with more room.
    sides: tuple[tuple[str, Literal["left", "right"]], ...] = (
        ("datum.place < 0.5", "left"),
        ("datum.place >= 0.5", "right"),
    )
    texts = [
        base.transform_filter(side)
        .mark_text(
            align=align,
            fontSize=12,
            fontWeight=600,
            color=palette.text,
            limit=alt.ExprRef("max(180, width / 2)"),
            aria=False,
        )
        .encode(y=alt.YValue(alt.ExprRef(f"height + {READOUT_BELOW}")), text=alt.Text("readout:N"))
        for side, align in sides
    ]
    return [rule, *texts]


def histograms(tensor: pd.Series, palette: Palette) -> AnyChart:
    """The values of one tensor in both models: float as bars, quantized as a line of steps."""
    counts = np.asarray(tensor["float_counts"], dtype=float)
    quantized = np.asarray(tensor["quantized_counts"], dtype=float)
    edges = np.linspace(float(tensor["low"]), float(tensor["high"]), len(counts) + 1)
    bars = pd.DataFrame(
        {
            "left": edges[:-1],
            "right": edges[1:],
            "float": counts,
            "quantized": quantized,
            "none": 0.0,
        }
    )
    bars["said_bin"] = [
        f"{weight(a)} to {weight(b)}" for a, b in zip(bars["left"], bars["right"], strict=True)
    ]
    bars["said_float"] = [f"{int(number):,}" for number in counts]
    bars["said_quantized"] = [f"{int(number):,}" for number in quantized]
    bars["said"] = [
        f"{bin_label}: float {float_count}, quantized {quantized_count}"
        for bin_label, float_count, quantized_count in zip(
            bars["said_bin"], bars["said_float"], bars["said_quantized"], strict=True
        )
    ]
    # Both ends of every step, so that the last bin has its full width.
    steps = pd.DataFrame({"x": np.repeat(edges, 2)[1:-1], "y": np.repeat(quantized, 2)})
    names = ["float", "quantized"]
    colour = alt.Scale(domain=names, range=[palette.bar_alternate, palette.accent])
    x = alt.X(
        "left:Q",
        scale=alt.Scale(domain=[edges[0], edges[-1]], nice=False),
        title="value in the tensor",
        axis=alt.Axis(
            grid=False, tickCount=8, labelExpr="replace(format(datum.value, ',~r'), '-', '\u2212')"
        ),
    )
    y_scale = alt.Scale(type="sqrt", domain=[0, float(max(counts.max(), quantized.max(), 1))])
    y = alt.Y(
        "float:Q",
        scale=y_scale,
        title="values (square-root scale)",
        axis=alt.Axis(tickCount=5, labelExpr="format(datum.value, ',~r')"),
    )
    legend = alt.Legend(symbolType="square", labelLimit=200)
    floats = (
        alt.Chart(bars.assign(which="float"))
        .mark_rect()
        .encode(
            x=x,
            x2=alt.X2("right:Q"),
            y=y,
            y2=alt.Y2("none:Q"),
            color=alt.Color("which:N", scale=colour, legend=legend),
            tooltip=tooltip(
                ("said_bin", "value"), ("said_float", "float"), ("said_quantized", "quantized")
            ),
            description=alt.Description("said:N"),
        )
    )
    line = (
        alt.Chart(steps.assign(which="quantized", order=range(len(steps))))
        .mark_line(strokeWidth=1.8, aria=False)
        .encode(
            x=alt.X("x:Q"),
            y=alt.Y("y:Q", scale=y_scale),
            order=alt.Order("order:Q"),
            color=alt.Color("which:N", scale=colour, legend=legend),
        )
    )
    return styled(alt.layer(floats, line), palette, height=HISTOGRAM_HEIGHT)


def _apart(marked: pd.DataFrame) -> pd.DataFrame:
    """The marks, steepest first, with the level ``at`` which each touches no earlier one."""
    kept: list[tuple[float, float]] = []
    for position, shown in zip(marked["place"].tolist(), marked["shown"].tolist(), strict=True):
        near = [level for kept_position, level in kept if abs(position - kept_position) < APART[0]]
        kept.append((position, _free_level(shown, near)))
    return marked.assign(at=[at for _, at in kept])


def _free_level(shown: float, taken: list[float]) -> float:
    """The level of a mark: that of its point, else the nearest where it touches none of these."""
    beside = [level + side * APART[1] for level in taken for side in (1, -1)]
    free = [
        at
        for at in (shown, *beside)
        if LEAST_DB <= at <= MOST_DB
        and all(abs(at - taken_level) > 0.99 * APART[1] for taken_level in taken)
    ]
    return min(free, key=lambda at: abs(at - shown), default=shown)


def _with_words(tensors: pd.DataFrame) -> pd.DataFrame:
    frame = tensors.assign(
        shown=tensors["sqnr_db"].astype(float).fillna(MOST_DB).clip(LEAST_DB, MOST_DB),
        shown_local=tensors["local_db"].astype(float).fillna(MOST_DB).clip(LEAST_DB, MOST_DB),
        said_node=[short_name(str(name), 80) for name in tensors["node_name"]],
        said_db=[db(_figure_or_none(value)) for value in tensors["sqnr_db"]],
        said_local=[
            db(_figure_or_none(value)) if has_local else "not measured"
            for value, has_local in zip(tensors["local_db"], tensors["has_local"], strict=True)
        ],
    )
    frame = frame.assign(
        said_drop=[
            f", drop {db(drop)}" if drop > 0 else "" for drop in frame["drop_db"].astype(float)
        ]
    )
    return frame.assign(
        readout=[
            f"{node}: {value}{drop}; local {local}"
            for node, value, drop, local in zip(
                *(frame[column] for column in ("said_node", "said_db", "said_drop", "said_local")),
                strict=True,
            )
        ],
        said=[
            f"{node}, {run}: {value}"
            for node, run, value in zip(
                frame["said_node"], frame["run"], frame["said_db"], strict=True
            )
        ],
    )


def _figure_or_none(value: object) -> float | None:
    return None if pd.isna(value) else float(value)  # type: ignore[call-overload, arg-type]
