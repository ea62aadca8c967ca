"""One measure of the layers against another, or against their depth: one dot per layer.

Frames have one row per layer, as ``queries.layer_profiles`` gives them, models in display order.
"""

import math
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
from quantstore.charts.compare import (
    ROOMY_MODELS,
    Domain,
    Measure,
    axis_of,
    band_tints,
    band_zones,
    dot_domain,
    in_colours,
    landmarks,
    model_axis,
    room,
    said_as,
    scale_of,
    with_words,
)
from quantstore.charts.palette import Palette
from quantstore.wording.causes import expected_db
from quantstore.wording.units import NO_BREAK_SPACE, with_minus

# What a rectangle drawn over the dots is called: the page lists the layers in it.
BRUSH = "brushed"
HIGHEST_DB = 50.0
HEIGHT = 360


@dataclass(frozen=True, slots=True)
class BrushBox:
    """A rectangle over a scatter, in units of its two measures; ends included."""

    x: tuple[float, float]
    y: tuple[float, float]

    def holds(self, dots: pd.DataFrame) -> pd.Series:
        """Which of the :func:`placed` dots lie inside."""
        return dots["x"].between(*self.x) & dots["y"].between(*self.y)


def placed(profiles: pd.DataFrame, across: Measure, up: Measure) -> pd.DataFrame:
    """The layers that have both measures, with the ``x`` and ``y`` of their dots.

    SQNR ends at 50 dB: beyond, and for exact layers, the dot lies on the edge.
    """
    frame = profiles.assign(x=_shown(profiles, across), y=_shown(profiles, up))
    keep = frame["x"].notna() & frame["y"].notna()
    for name, measure in (("x", across), ("y", up)):
        if measure.axis == "log":
            keep &= frame[name] > 0
    return frame[keep]


def _shown(profiles: pd.DataFrame, measure: Measure) -> pd.Series:
    values = profiles[measure.column].astype(float)
    if measure.column.endswith("_db"):
        return values.fillna(HIGHEST_DB).clip(0, HIGHEST_DB)
    return values


def scatter(
    profiles: pd.DataFrame,
    across: Measure,
    up: Measure,
    palette: Palette,
    limits: dict[str, float],
    *,
    focus: str | None = None,
    box: BrushBox | None = None,
) -> AnyChart:
    """One dot per layer; a click opens it, a rectangle drawn over dots picks them.

    Against the SQNR the bands lie behind, and against the span of a tensor's only scale the law of
    uniform rounding noise.

    Args:
        limits: the lower limit of each band in dB.
        focus: the model that stands out beyond four; the first one unless told otherwise.
        box: the rectangle to begin with.
    """
    dots = placed(profiles, across, up)
    frame = with_words(dots, across.column)
    frame["said_x"] = frame["said_value"]
    frame["said_y"] = [
        said_as(up.column)(None if pd.isna(value) else float(value)) for value in frame[up.column]
    ]
    frame, colour = in_colours(frame, palette, focus)
    x_domain = _domain(frame["x"], across)
    y_domain = _domain(frame["y"], up)
    x = alt.X("x:Q", scale=scale_of(x_domain, across), axis=axis_of(x_domain, across, grid=False))
    y_scale, y_axis = scale_of(y_domain, up), axis_of(y_domain, up, grid=False)
    if _is_db(up):
        y_axis = alt.Axis(title=up.title, values=[0, 10, 20, 30, 40, 50], grid=False)
    y = alt.Y("y:Q", scale=y_scale, axis=y_axis)
    layers: list[alt.Chart] = []
    if _is_db(up):
        tints = band_tints(limits, palette, low=y_domain[0], high=y_domain[1])
        layers = band_zones(tints, scale=y_scale, axis=y_axis)
    if across.has_db_labels and _is_db(up):
        layers.append(_law(x, y, x_domain, palette))
    brush = alt.selection_interval(
        name=BRUSH,
        encodings=["x", "y"],
        value=alt.Undefined if box is None else {"x": list(box.x), "y": list(box.y)},
        mark=alt.BrushConfig(
            fill=palette.text, fillOpacity=0.08, stroke=palette.muted, strokeWidth=1
        ),
    )
    layers.append(
        alt.Chart(frame)
        .mark_circle(
            size=46, opacity=1, stroke=palette.background, strokeWidth=0.8, cursor="pointer"
        )
        .encode(
            x=x,
            y=y,
            color=colour,
            tooltip=tooltip(
                ("said_layer", "layer"),
                ("model", "model"),
                ("said_x", across.title),
                ("said_y", up.title),
                ("band", "band"),
            ),
            description=alt.Description("said:N"),
        )
        .properties(name=MARKS)
        .add_params(opens_layer(), brush)
    )
    if up.column == "channel_sqnr_p10_db":
        layers += _rings(_marked_cases(frame, across), x, y, palette)
    chart = alt.layer(*layers).resolve_scale(color="independent")
    return styled(chart, palette, height=HEIGHT, padding=room(right=70))


def by_depth(profiles: pd.DataFrame, measure: Measure, palette: Palette) -> AnyChart:
    """A measure of every layer from input to output, a row per model, all on the same scale.

    The fill is the layer's band; a click opens the layer.
    """
    values = profiles[measure.column].astype(float)
    drawable = profiles[values.notna() & ((values > 0) if measure.axis == "log" else True)]
    frame = with_words(drawable, measure.column)
    models = list(dict.fromkeys(profiles["model"]))
    pitch = 84.0 if len(models) <= ROOMY_MODELS else 58.0
    gap = 14.0
    floors = {model: (len(models) - row - 1) * pitch + gap / 2 for row, model in enumerate(models)}
    domain = dot_domain(frame[measure.column].astype(float), measure)
    reach = pitch - gap

    def height(value: pd.Series) -> pd.Series:
        return _share(value.astype(float), domain, measure) * reach

    frame = frame.assign(
        x=(frame["depth"] + 0.5) / frame["layer_count"],
        floor=frame["model"].map(floors),
        y=frame["model"].map(floors) + height(frame[measure.column]),
    )
    ticks = pd.Series(_few_ticks(domain, measure))
    labelled = models if len(models) <= ROOMY_MODELS else models[:1]
    lines = pd.DataFrame(
        {
            "x": 1.0,
            "y": [floors[model] + rise for model in models for rise in height(ticks)],
            "text": [
                _tick_words(float(tick), measure) if model in labelled else ""
                for model in models
                for tick in ticks
            ],
        }
    )
    x_scale = alt.Scale(domain=[0, 1.0], nice=False)
    y_scale = alt.Scale(domain=[0, len(models) * pitch], nice=False)
    names = model_axis({model: floors[model] + reach / 2 for model in models}, palette)
    chart = alt.layer(
        alt.Chart(lines)
        .mark_rule(color=palette.grid)
        .encode(y=alt.Y("y:Q", scale=y_scale, axis=names)),
        alt.Chart(frame)
        .mark_rule(strokeWidth=1, opacity=0.3)
        .encode(
            x=alt.X("x:Q", scale=x_scale),
            y=alt.Y("floor:Q", scale=y_scale, axis=names),
            y2=alt.Y2("y:Q"),
            color=band_colour(palette),
        ),
        alt.Chart(frame)
        .mark_circle(size=34, opacity=1, cursor="pointer")
        .encode(
            x=alt.X(
                "x:Q",
                scale=x_scale,
                title="depth (position among the layers)",
                axis=depth_axis(),
            ),
            y=alt.Y("y:Q", scale=y_scale, axis=names),
            color=band_colour(palette),
            tooltip=tooltip(
                ("said_layer", "layer"),
                ("model", "model"),
                ("said_value", measure.title),
                ("said_position", "position"),
                ("band", "band"),
                ("said_operator", "operator"),
            ),
            description=alt.Description("said:N"),
        )
        .properties(name=MARKS)
        .add_params(opens_layer()),
        alt.Chart(lines)
        .mark_text(align="left", dx=6, fontSize=11, color=palette.muted)
        .encode(
            x=alt.X("x:Q", scale=x_scale),
            y=alt.Y("y:Q", scale=y_scale, axis=names),
            text=alt.Text("text:N"),
        ),
    )
    height_px = len(models) * pitch + 56
    return styled(chart, palette, height=height_px, padding=room(right=64))


def _is_db(measure: Measure) -> bool:
    return measure.column.endswith("_db")


def _domain(values: pd.Series, measure: Measure) -> Domain:
    return (0.0, HIGHEST_DB) if _is_db(measure) else dot_domain(values, measure)


def _share(values: pd.Series, domain: Domain, measure: Measure) -> pd.Series:
    """How far up an axis the values stand, 0 to 1."""
    low, high = domain
    if measure.axis == "log":
        return pd.Series(np.log(values / low) / np.log(high / low), index=values.index)
    return (values - low) / (high - low)


def _few_ticks(domain: Domain, measure: Measure) -> list[float]:
    """Two or three round values inside the domain."""
    low, high = domain
    if measure.axis == "log":
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        decades = [10.0**power for power in powers if low <= 10.0**power <= high]
        if len(decades) > 1:
            return decades[:: -(-len(decades) // 3)]
        finer = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        inside = [tick for tick in finer if low <= tick <= high]
        return [inside[0], inside[-1]] if len(inside) > 1 else [low, high]
    step = next(
        digit * 10.0**power
        for power in range(-6, 12)
        for digit in (1, 2, 5)
        if (high - low) / (digit * 10.0**power) <= 3
    )
    return [tick * step for tick in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _tick_words(value: float, measure: Measure) -> str:
    """A round value with its unit: ``20 dB``, ``0.001``."""
    units = {"_db": "dB", "_bits": "bits", "_percent": "%"}
    unit = next((unit for end, unit in units.items() if measure.column.endswith(end)), "")
    return f"{value:,.4g}{NO_BREAK_SPACE + unit if unit else ''}"


def _law(x: alt.X, y: alt.Y, domain: Domain, palette: Palette) -> alt.Chart:
    """The SQNR that uniform rounding noise leaves the whole tensor."""
    law = pd.DataFrame({"x": np.geomspace(domain[0], domain[1], 60)})
    law["y"] = [expected_db(value) for value in law["x"]]
    line: alt.Chart = (
        alt.Chart(law[law["y"].between(0, HIGHEST_DB)])
        .mark_line(strokeDash=[4, 3], color=palette.muted, strokeWidth=1.5)
        .encode(x=x, y=y)
    )
    return line


def _rings(marked: pd.DataFrame, x: alt.X, y: alt.Y, palette: Palette) -> list[alt.Chart]:
    """Rings around the cases of the caption, and short labels."""
    if marked.empty:
        return []
    rings = alt.Chart(marked).mark_point(
        size=150, color=palette.text, strokeWidth=1.5, filled=False
    )
    charts: list[alt.Chart] = [rings.encode(x=x, y=y)]
    for side in ("left", "right"):
        part = marked[marked["side"] == side]
        if part.empty:
            continue
        # First a halo in the colour of the page, so that dots below stay out of the words.
        for halo in (4, 0):
            text_mark = alt.Chart(part).mark_text(
                align="right" if side == "left" else "left",
                dx=-12 if side == "left" else 12,
                dy=-10,
                fontWeight=600,
                fontSize=12,
                color=palette.background if halo else palette.text,
                stroke=palette.background,
                strokeWidth=halo,
                strokeJoin="round",
            )
            charts.append(text_mark.encode(x=x, y=y, text=alt.Text("label:N")))
    return charts


def _marked_cases(frame: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """The two layers of the caption, with short labels."""
    extremes = landmarks(frame, measure.column)
    if extremes is None:
        return pd.DataFrame()
    rows = []
    low, high = float(frame["x"].min()), float(frame["x"].max())
    middle = np.sqrt(low * high) if measure.axis == "log" else (low + high) / 2
    for case in (extremes.widest_unharmed, extremes.narrowest_broken):
        if case is None:
            continue
        rows.append(
            {
                "x": float(case["x"]),
                "y": float(case["y"]),
                "label": with_minus(f"{measure.short_title} {case['said_value']}, {case['band']}"),
                "side": "left" if float(case["x"]) > middle else "right",
            }
        )
    # Both only together: either alone says nothing about how far the measure can be trusted.
    return pd.DataFrame(rows) if len(rows) == 2 else pd.DataFrame()
