"""Charts of the worked example: values above a line, what returns on it, codes below.

Every frame is one of ``wording.worked_example``: ``points`` has a row per value, ``grid`` a row
per code.
"""

from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import pandas as pd

from quantstore.charts.common import AnyChart, styled, tooltip
from quantstore.charts.palette import Palette
from quantstore.wording.units import with_minus

# Labels are kept apart as if the chart were this wide: safe from there on, a little crowded below.
_WIDTH = 620
_CHARACTER_WIDTH = 7.0
_LABEL_LEVELS = 6
# Heights count from the line up; the values float at 1, and 1 is so many pixels.
_UNIT = 62
_LABEL_HEIGHT = 0.24


@dataclass(frozen=True, slots=True)
class _Canvas:
    """One view that all layers share: value units from left to right, heights from the line up."""

    leftmost: float
    rightmost: float
    bottom: float
    top: float
    palette: Palette

    @property
    def x(self) -> alt.X:
        scale = alt.Scale(domain=[self.leftmost, self.rightmost], nice=False, zero=False)
        return alt.X("at:Q", axis=None, scale=scale)

    def y(self, field: str) -> alt.Y:
        scale = alt.Scale(domain=[self.bottom, self.top], nice=False, zero=False)
        return alt.Y(f"{field}:Q", axis=None, scale=scale)

    def pixels(self, distance: float) -> float:
        return _WIDTH * distance / (self.rightmost - self.leftmost)

    def drawn(self, *layers: alt.Chart) -> AnyChart:
        height = round(_UNIT * (self.top - self.bottom))
        return styled(alt.layer(*layers), self.palette, height=height)


def whole_line(
    points: pd.DataFrame, grid: pd.DataFrame, enlarged: range | None, palette: Palette
) -> AnyChart:
    """Every grid point as a tick, every value above, its return on the line.

    Args:
        enlarged: the codes that another chart enlarges; their stretch is shaded.
    """
    low = min(grid["position"].min(), points["value"].min())
    high = max(grid["position"].max(), points["value"].max())
    margin = 0.03 * (high - low)
    canvas = _Canvas(float(low - margin), float(high + margin), -0.62, 1.75, palette)
    shade = []
    if enlarged is not None:
        codes = grid[grid["code"].isin(enlarged)].assign(colour=palette.zero_zone)
        # One rectangle: several side by side would show their seams.
        ends = codes.iloc[[0]].assign(last=codes["position"].iloc[-1])
        shade = [_stretches(ends, _step(grid), -0.22, 1.45, canvas)]
    return canvas.drawn(
        *shade,
        _line(canvas),
        _ticks(grid, 0.11, canvas),
        *_moves(points, canvas, size=60),
        _text(_clustered(points, canvas), canvas, size=12, weight=600),
        _text(_landmarks(grid, canvas), canvas),
    )


def enlarged_line(
    points: pd.DataFrame, grid: pd.DataFrame, step_label: str, palette: Palette
) -> AnyChart:
    """A few grid points, wide apart: which values lie nearest to which of them.

    The tint behind a grid point is the stretch whose values all end up there.

    Args:
        points: the values that go to one of these grid points.
        grid: at least two grid points, neighbours.
    """
    step = _step(grid)
    low = min(grid["position"].min() - 0.5 * step, points["value"].min())
    high = max(grid["position"].max() + 0.5 * step, points["value"].max())
    margin = 0.02 * (high - low)
    canvas = _Canvas(float(low - margin), float(high + margin), -1.5, 1.35, palette)
    labels = _dodged(points, canvas)
    canvas = _Canvas(
        canvas.leftmost,
        canvas.rightmost,
        canvas.bottom,
        canvas.top + _LABEL_HEIGHT * labels["level"].max(),
        palette,
    )
    gathering = grid[grid["group"] >= 0]
    tints = [_colour(palette, group)[1] for group in gathering["group"]]
    captions = pd.concat(
        [
            pd.DataFrame({"at": grid["position"], "height": -0.4, "text": grid["label"]}),
            pd.DataFrame(
                {
                    "at": grid["position"],
                    "height": -0.66,
                    "text": [with_minus(f"code {code}") for code in grid["code"]],
                }
            ),
            pd.DataFrame(
                {
                    "at": [grid["position"].iloc[-2] + step / 2],
                    "height": [-1.28],
                    "text": [f"one step, s = {step_label}"],
                }
            ),
        ]
    )
    return canvas.drawn(
        _stretches(gathering.assign(colour=tints), step, 0, 1, canvas),
        _line(canvas),
        _ticks(grid, 0.18, canvas),
        _bracket(float(grid["position"].iloc[-2]), step, canvas),
        *_moves(points, canvas, size=90),
        _text(labels, canvas, size=12, weight=600),
        _text(captions, canvas),
    )


def _step(grid: pd.DataFrame) -> float:
    return float(grid["position"].iloc[1] - grid["position"].iloc[0])


def _stretches(
    grid: pd.DataFrame, step: float, bottom: float, top: float, canvas: _Canvas
) -> alt.Chart:
    """What lies nearest to a grid point (or, up to ``last``, to a row of them), as a tint."""
    last = grid["last"] if "last" in grid else grid["position"]
    data = pd.DataFrame(
        {
            "at": grid["position"] - step / 2,
            "end": last + step / 2,
            "top": top,
            "bottom": bottom,
            "colour": grid["colour"],
        }
    )
    chart: alt.Chart = (
        alt.Chart(data)
        .mark_rect(aria=False)
        .encode(
            x=canvas.x,
            x2=alt.X2("end"),
            y=canvas.y("top"),
            y2=alt.Y2("bottom"),
            color=alt.Color("colour:N", scale=None),
        )
    )
    return chart


def _line(canvas: _Canvas) -> alt.Chart:
    data = pd.DataFrame({"at": [canvas.leftmost], "end": [canvas.rightmost], "height": [0.0]})
    chart: alt.Chart = (
        alt.Chart(data)
        .mark_rule(color=canvas.palette.axis, aria=False)
        .encode(x=canvas.x, x2=alt.X2("end"), y=canvas.y("height"))
    )
    return chart


def _ticks(grid: pd.DataFrame, half: float, canvas: _Canvas) -> alt.Chart:
    data = pd.DataFrame({"at": grid["position"], "top": half, "bottom": -half})
    chart: alt.Chart = (
        alt.Chart(data)
        .mark_rule(color=canvas.palette.axis, aria=False)
        .encode(x=canvas.x, y=canvas.y("top"), y2=alt.Y2("bottom"))
    )
    return chart


def _bracket(first: float, step: float, canvas: _Canvas) -> alt.Chart:
    """A ruler from one grid point to the next: a line with two end caps."""
    data = pd.DataFrame(
        {
            "at": [first, first, first + step],
            "end": [first + step, first, first + step],
            "top": [-1.02, -0.96, -0.96],
            "bottom": [-1.02, -1.08, -1.08],
        }
    )
    chart: alt.Chart = (
        alt.Chart(data)
        .mark_rule(color=canvas.palette.muted, aria=False)
        .encode(x=canvas.x, x2=alt.X2("end"), y=canvas.y("top"), y2=alt.Y2("bottom"))
    )
    return chart


def _moves(points: pd.DataFrame, canvas: _Canvas, *, size: int) -> list[alt.Chart]:
    """A circle above for each value, a diamond on the line for its return, a rule between."""
    data = points.assign(
        at=points["value"],
        top=1.0,
        bottom=0.0,
        colour=[_colour(canvas.palette, group)[0] for group in points["group"]],
        words=points["label"]
        + " becomes "
        + points["returned_label"]
        + ", code "
        + points["code"].astype(str)
        + ", "
        + points["merged_label"],
    )
    landed = data.assign(at=data["returned"])
    colour: Any = alt.Color("colour:N", scale=None)
    tooltips = tooltip(
        ("label", "x"),
        ("code", "code q"),
        ("returned_label", "x′"),
        ("error_label", "error x′ − x"),
        ("merged_label", "merged"),
    )
    return [
        alt.Chart(data)
        .mark_rule(strokeWidth=1.5, aria=False)
        .encode(
            x=canvas.x, x2=alt.X2("returned"), y=canvas.y("top"), y2=alt.Y2("bottom"), color=colour
        ),
        alt.Chart(landed)
        .mark_point(shape="diamond", filled=True, size=2 * size, opacity=1, aria=False)
        .encode(x=canvas.x, y=canvas.y("bottom"), color=colour, tooltip=tooltips),
        alt.Chart(data)
        .mark_point(shape="circle", filled=True, size=size, opacity=1)
        .encode(
            x=canvas.x,
            y=canvas.y("top"),
            color=colour,
            tooltip=tooltips,
            description=alt.Description("words:N"),
        ),
    ]


def _text(
    data: pd.DataFrame, canvas: _Canvas, *, size: int = 11, weight: Literal[400, 600] = 400
) -> alt.Chart:
    """Words at (``at``, ``height``), in the colour of their ``group`` where they have one."""
    groups = data["group"] if "group" in data else [-1] * len(data)
    colours = [_colour(canvas.palette, group)[0] for group in groups]
    chart: alt.Chart = (
        alt.Chart(data.assign(colour=colours))
        .mark_text(fontSize=size, fontWeight=weight, aria=False)
        .encode(
            x=canvas.x,
            y=canvas.y("height"),
            text=alt.Text("text:N"),
            color=alt.Color("colour:N", scale=None),
        )
    )
    return chart


def _clustered(points: pd.DataFrame, canvas: _Canvas) -> pd.DataFrame:
    """One label for values whose own labels would overlap: ``4 values``."""
    in_order = points.sort_values("value")
    widths = in_order["label"].str.len() * _CHARACTER_WIDTH
    gaps = canvas.pixels(1) * in_order["value"].diff()
    starts_anew = gaps > (widths + widths.shift(fill_value=0)) / 2 + 8
    rows = []
    for _, cluster in in_order.groupby(starts_anew.cumsum()):
        groups = set(cluster["group"])
        label = cluster["label"].iloc[0] if len(cluster) == 1 else f"{len(cluster)} values"
        rows.append(
            {
                "at": cluster["value"].mean(),
                "height": 1.28,
                "text": label,
                "group": groups.pop() if len(groups) == 1 else -1,
            }
        )
    return pd.DataFrame(rows)


def _landmarks(grid: pd.DataFrame, canvas: _Canvas) -> pd.DataFrame:
    """The first, the last and the zero code below the line, unless zero is close to an end."""
    zero = int(grid["position"].abs().to_numpy().argmin())
    last = len(grid) - 1
    chosen = [0, last]
    span = canvas.pixels(_step(grid))
    if span * zero > 90 and span * (last - zero) > 90:
        chosen.insert(1, zero)
    rows = grid.iloc[chosen]
    codes = [with_minus(f"code {code}") for code in rows["code"]]
    if len(chosen) == 3:
        codes[1] += " is zero"
    return pd.DataFrame({"at": rows["position"], "height": -0.4, "text": codes})


def _dodged(points: pd.DataFrame, canvas: _Canvas) -> pd.DataFrame:
    """Labels above the values, each at the lowest level where it touches no other."""
    ends = [-1e9] * _LABEL_LEVELS
    rows = []
    for _, point in points.sort_values("value").iterrows():
        middle = canvas.pixels(point["value"] - canvas.leftmost)
        half = (len(point["label"]) * _CHARACTER_WIDTH + 8) / 2
        level = next((i for i, end in enumerate(ends) if end <= middle - half), None)
        if level is None:
            # No room: the tooltip still names it.
            continue
        ends[level] = middle + half
        rows.append(
            {
                "at": point["value"],
                "height": 1.0 + _LABEL_HEIGHT * (level + 0.95),
                "text": point["label"],
                "group": point["group"],
                "level": level,
            }
        )
    return pd.DataFrame(rows)


def _colour(palette: Palette, group: int) -> tuple[str, str]:
    """Ink and tint of a group; beyond three they share the last one, words tell them apart."""
    if group < 0:
        return palette.muted, palette.zero_zone
    return palette.merged[min(group, len(palette.merged) - 1)]
