"""How a measure spreads over the layers of each model: cumulative lines, and ridges for many.

Frames have one row per layer, as ``queries.layer_profiles`` gives them, models in display order.
"""

import altair as alt
import numpy as np
import pandas as pd

from quantstore.charts.common import MARKS, AnyChart, band_colour, opens_layer, styled, tooltip
from quantstore.charts.compare import (
    Measure,
    axis_of,
    dot_domain,
    in_colours,
    model_axis,
    scale_of,
    with_words,
)
from quantstore.charts.palette import Palette

CUMULATIVE_HEIGHT = 320
RIDGE_PITCH = 46.0
RIDGE_POINTS = 160
# How far a layer is smeared, as a share of the axis.
RIDGE_BANDWIDTH = 0.015


def cumulative(
    profiles: pd.DataFrame, measure: Measure, palette: Palette, *, focus: str | None = None
) -> AnyChart:
    """The share of a model's layers that a measure does not exceed, one line per model.

    Layers without a finite SQNR are exact: they count, but no line reaches them. A dot on a line is
    a layer and opens it.

    Args:
        focus: the model that stands out beyond four; the first one unless told otherwise.
    """
    frame = with_words(ranked_shares(profiles, measure), measure.column)
    frame, colour = in_colours(frame, palette, focus)
    # Where one model stands out its dots are shown; the others keep theirs for the pointer.
    frame = frame.assign(is_shown=frame["group"] != "the others")
    domain = dot_domain(frame["x"], measure)
    # Every line begins on the floor and ends at the right edge of the plot.
    ends = frame.groupby("model", sort=False, as_index=False).agg(
        group=("group", "first"), first=("x", "min"), percent=("percent", "max")
    )
    steps = pd.concat(
        [
            ends.assign(x=ends["first"], percent=0.0),
            frame[["model", "group", "x", "percent"]],
            ends.assign(x=domain[1]),
        ]
    )[["model", "group", "x", "percent"]]
    x = alt.X("x:Q", scale=scale_of(domain, measure), axis=axis_of(domain, measure))
    y = alt.Y(
        "percent:Q",
        scale=alt.Scale(domain=[0, 100], nice=False),
        title="layers at or below this value, %",
        axis=alt.Axis(values=[0, 25, 50, 75, 100]),
    )
    base = alt.Chart(frame).encode(
        x=x,
        y=y,
        color=colour,
        tooltip=tooltip(
            ("said_layer", "layer"),
            ("model", "model"),
            ("said_value", measure.title),
            ("said_percent", "layers at or below this value"),
            ("band", "band"),
        ),
        description=alt.Description("said:N"),
    )
    dots = (
        base.mark_circle(size=18, cursor="pointer")
        .encode(opacity=alt.condition(alt.datum.is_shown, alt.value(1), alt.value(0)))
        .properties(name=MARKS)
        .add_params(opens_layer())
    )
    layers = [
        _steps(steps[steps["group"] == group], x, y, colour) for group in _back_to_front(steps)
    ]
    return styled(alt.layer(*layers, dots), palette, height=CUMULATIVE_HEIGHT)


def _back_to_front(steps: pd.DataFrame) -> list[str]:
    """Groups in the order in which they are drawn: what stands out comes last."""
    groups = list(dict.fromkeys(steps["group"]))
    return sorted(groups, key=lambda group: group != "the others")


def _steps(steps: pd.DataFrame, x: alt.X, y: alt.Y, colour: alt.Color) -> alt.Chart:
    lines: alt.Chart = (
        alt.Chart(steps)
        .mark_line(interpolate="step-after", strokeWidth=1.8)
        .encode(x=x, y=y, color=colour, detail=alt.Detail("model:N"))
    )
    return lines


def ranked_shares(profiles: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """The layers that have the measure, ascending within each model: ``x`` and ``percent``."""
    values = profiles[measure.column].astype(float)
    # A missing SQNR is an infinite one, a missing range none at all.
    counts = measure.column.endswith("_db") | values.notna()
    if measure.axis == "log":
        counts &= values.isna() | (values > 0)
    frame = profiles[counts].assign(x=values[counts])
    total = frame.groupby("model")["x"].transform("size")
    frame["percent"] = 100 * frame.groupby("model")["x"].rank(method="max") / total
    frame = frame[frame["x"].notna()]
    order = {model: rank for rank, model in enumerate(dict.fromkeys(frame["model"]))}
    frame = frame.sort_values(
        ["model", "x"], key=lambda column: column.map(order) if column.name == "model" else column
    )
    return frame.assign(said_percent=[f"{value:.0f}\u00a0%" for value in frame["percent"]])


def ridges(profiles: pd.DataFrame, measure: Measure, palette: Palette) -> AnyChart:
    """One ridge per model over a common axis, each as high as its own peak; a tick is a layer."""
    values = profiles[measure.column].astype(float)
    keep = values.notna() & ((values > 0) if measure.axis == "log" else True)
    frame = with_words(profiles[keep], measure.column)
    frame["x"] = values[keep]
    models = list(dict.fromkeys(profiles["model"]))
    floors = {model: (len(models) - row - 1) * RIDGE_PITCH + 12 for row, model in enumerate(models)}
    domain = dot_domain(frame["x"], measure)
    shapes = pd.concat(
        [
            _ridge(frame.loc[frame["model"] == model, "x"], domain, measure).assign(
                model=model, floor=floors[model]
            )
            for model in models
        ],
        ignore_index=True,
    )
    shapes["y"] = shapes["floor"] + shapes["height"] * (RIDGE_PITCH - 16)
    frame = frame.assign(low=frame["model"].map(floors) - 7, high=frame["model"].map(floors) - 1)
    y_scale = alt.Scale(domain=[0, len(models) * RIDGE_PITCH + 4], nice=False)
    names = model_axis(floors, palette)
    x = alt.X("x:Q", scale=scale_of(domain, measure), axis=axis_of(domain, measure))
    chart = alt.layer(
        alt.Chart(shapes)
        .mark_area(color=palette.bar_alternate, line={"color": palette.bar, "strokeWidth": 1.2})
        .encode(
            x=x,
            y=alt.Y("floor:Q", scale=y_scale, axis=names),
            y2=alt.Y2("y:Q"),
            detail=alt.Detail("model:N"),
        ),
        alt.Chart(frame)
        .mark_rule(strokeWidth=2, cursor="pointer")
        .encode(
            x=x,
            y=alt.Y("low:Q", scale=y_scale, axis=names),
            y2=alt.Y2("high:Q"),
            color=band_colour(palette),
            tooltip=tooltip(
                ("said_layer", "layer"),
                ("model", "model"),
                ("said_value", measure.title),
                ("band", "band"),
                ("said_operator", "operator"),
            ),
            description=alt.Description("said:N"),
        )
        .properties(name=MARKS)
        .add_params(opens_layer()),
    )
    return styled(chart, palette, height=len(models) * RIDGE_PITCH + 56)


def _ridge(values: pd.Series, domain: tuple[float, float], measure: Measure) -> pd.DataFrame:
    """The outline of one model: ``height`` from 0 to 1 along the axis, layers smeared a little."""
    forward, back = (np.log, np.exp) if measure.axis == "log" else (np.asarray, np.asarray)
    low, high = (float(forward(end)) for end in domain)
    grid = np.linspace(low, high, RIDGE_POINTS)
    if values.empty:
        return pd.DataFrame({"x": back(grid), "height": 0.0})
    width = RIDGE_BANDWIDTH * (high - low)
    distance = (grid[:, np.newaxis] - forward(values.to_numpy(dtype=float))[np.newaxis]) / width
    density = np.exp(-0.5 * distance**2).sum(axis=1)
    return pd.DataFrame({"x": back(grid), "height": density / density.max()})
