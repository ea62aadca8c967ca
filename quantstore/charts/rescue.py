"""Rescue: what every step gains on inputs that decided nothing, and what it costs in MACs.

Frames have one row per step, as ``queries.rescue_steps`` gives them.
"""

import json
import math
import textwrap

import altair as alt
import pandas as pd

from quantstore.charts.common import AnyChart, band_colour, styled, tooltip
from quantstore.charts.compare import band_tints, band_zones, room
from quantstore.charts.palette import Palette
from quantstore.errors import printable
from quantstore.wording.rescues import DROPPED, KEPT, step_title
from quantstore.wording.units import db, seconds, share

# Height of a step, and of what stands above and below all of them, in px.
STEP_HEIGHT, FRAME_HEIGHT = 40, 74
MACS_HEIGHT = 280
# Letters of a line of a step's name, beside the plot.
LINE_LETTERS = 25
# The axis begins at 0 dB and shows the band that is fine, whatever was reached.
LEAST_MOST_DB = 40.0
# Room for the value behind the last dot, in dB.
VALUE_ROOM_DB = 7.0
COLUMNS = ["y", "x", "band", "said_title", "said_detail", "said_db", "said_validation"]
COLUMNS += ["said_predicted", "said_macs", "said_seconds", "said_result", "said"]


def staircase(
    steps: pd.DataFrame, limits: dict[str, float], palette: Palette, *, reach_db: float
) -> AnyChart:
    """A row per step from the top: the stairs follow what was kept, the grey lead to the dropped.

    Args:
        limits: the lower limit of each band in dB.
        reach_db: the goal, a dashed line.
    """
    low, high = _domain(steps["test_db"], reach_db)
    frame = _with_words(steps, low, high)
    count = len(frame)
    x_scale = alt.Scale(domain=[low, high], nice=False)
    x_axis = alt.Axis(
        tickCount=6,
        grid=False,
        labelFlush=True,
        labelExpr="replace(datum.label, '-', '\u2212')",
        title="output SQNR on unseen inputs, dB",
    )
    x = alt.X("x:Q", scale=x_scale, axis=x_axis)
    y_scale = alt.Scale(domain=[count - 0.4, -0.95], nice=False)
    names = {
        str(row): textwrap.wrap(name, LINE_LETTERS, max_lines=3)
        for row, name in enumerate(frame["name"])
    }
    y = alt.Y(
        "y:Q",
        scale=y_scale,
        axis=alt.Axis(
            grid=False,
            title=None,
            values=list(range(count)),
            labelExpr=f'{json.dumps(names)}[format(datum.value, "~g")]',
            labelColor=palette.text,
            labelLineHeight=13,
            labelOverlap=False,
            labelLimit=200,
        ),
    )
    kept, dropped = frame[frame["kept"]], frame[~frame["kept"]]
    tips = tooltip(
        ("said_title", "step"),
        ("said_detail", "detail"),
        ("said_db", "unseen inputs"),
        ("said_validation", "search inputs"),
        ("said_predicted", "predicted"),
        ("said_macs", "MACs in int8"),
        ("said_seconds", "CPU time"),
        ("said_result", "result"),
    )
    described = alt.Description("said:N")
    layers: list[alt.Chart] = [
        *_zones(band_tints(limits, palette, low=low, high=high), x_scale, x_axis),
        alt.Chart(pd.DataFrame({"x": [reach_db], "label": [f"goal {db(reach_db)}"]}))
        .mark_rule(strokeDash=[5, 4], strokeWidth=1.3, color=palette.text, aria=False)
        .encode(x=x),
        alt.Chart(_stairs(kept))
        .mark_line(strokeWidth=2, strokeJoin="round", color=palette.text, aria=False)
        .encode(x=x, y=y, order=alt.Order("order:Q")),
    ]
    if not dropped.empty:
        layers += [
            alt.Chart(dropped[["x", "y", "level"]])
            .mark_rule(strokeDash=[2, 3], strokeWidth=1.5, color=palette.muted, aria=False)
            .encode(x=x, x2=alt.X2("level:Q"), y=y),
            alt.Chart(dropped[COLUMNS])
            .mark_point(
                filled=True,
                size=90,
                opacity=1,
                color=palette.bar_alternate,
                stroke=palette.muted,
                strokeWidth=1.2,
            )
            .encode(x=x, y=y, tooltip=tips, description=described),
        ]
    layers += [
        alt.Chart(kept[COLUMNS])
        .mark_point(filled=True, size=150, opacity=1, stroke=palette.background, strokeWidth=1.5)
        .encode(x=x, y=y, color=band_colour(palette), tooltip=tips, description=described),
        *(
            alt.Chart(part[["x", "y", "label_x", "said_db"]])
            .mark_text(align="left", dx=11, fontSize=12, color=colour, aria=False)
            .encode(
                x=alt.X("label_x:Q", scale=x_scale, axis=x_axis), y=y, text=alt.Text("said_db:N")
            )
            for part, colour in ((kept, palette.text), (dropped, palette.muted))
            if not part.empty
        ),
    ]
    chart = alt.layer(*layers).resolve_scale(color="independent")
    return styled(chart, palette, height=STEP_HEIGHT * count + FRAME_HEIGHT)


def macs(
    steps: pd.DataFrame,
    limits: dict[str, float],
    palette: Palette,
    *,
    reach_db: float,
    keep_macs: float,
) -> AnyChart:
    """SQNR on unseen inputs over the share of MACs in int8: what the last dB cost.

    Args:
        keep_macs: the share that had to stay, a dotted line beside the dashed one of the goal.
    """
    low, high = _domain(steps["test_db"], reach_db)
    frame = _with_words(steps, low, high)
    frame = frame.assign(macs=100 * frame["int8_macs"].astype(float).fillna(1.0))
    kept, dropped = frame[frame["kept"]], frame[~frame["kept"]]
    chosen = kept.tail(1)
    least_macs = min(float(frame["macs"].min()), 100 * keep_macs)
    margin = max(0.5, (100 - least_macs) / 12)
    x_scale = alt.Scale(domain=[max(0.0, least_macs - margin), 100 + margin / 2], nice=False)
    x_axis = alt.Axis(
        grid=False,
        tickCount=6,
        labelExpr="datum.value > 100 ? '' : format(datum.value, ',~r') + ' %'",
        title="multiply-accumulates (MACs) in int8",
    )
    x = alt.X("macs:Q", scale=x_scale, axis=x_axis)
    y_scale = alt.Scale(domain=[low, high], nice=False)
    y_axis = alt.Axis(
        grid=False,
        tickCount=6,
        labelExpr="replace(datum.label, '-', '\u2212')",
        title="output SQNR on unseen inputs, dB",
    )
    y = alt.Y("x:Q", scale=y_scale, axis=y_axis)
    tips = tooltip(
        ("said_title", "step"),
        ("said_detail", "detail"),
        ("said_db", "unseen inputs"),
        ("said_macs", "MACs in int8"),
        ("said_result", "result"),
    )
    columns = ["macs", *COLUMNS]
    layers: list[alt.Chart] = [
        *band_zones(band_tints(limits, palette, low=low, high=high), scale=y_scale, axis=y_axis),
        alt.Chart(pd.DataFrame({"x": [reach_db]}))
        .mark_rule(strokeDash=[5, 4], strokeWidth=1.3, color=palette.text, aria=False)
        .encode(y=y),
        alt.Chart(pd.DataFrame({"macs": [100 * keep_macs]}))
        .mark_rule(strokeDash=[1, 3], strokeWidth=1.6, color=palette.text, aria=False)
        .encode(x=x),
        alt.Chart(kept[["macs", "x", "y"]])
        .mark_line(strokeWidth=2, color=palette.text, aria=False)
        .encode(x=x, y=y, order=alt.Order("y:Q")),
    ]
    if not dropped.empty:
        layers.append(
            alt.Chart(dropped[columns])
            .mark_point(
                filled=True,
                size=70,
                opacity=1,
                color=palette.bar_alternate,
                stroke=palette.muted,
                strokeWidth=1.2,
            )
            .encode(x=x, y=y, tooltip=tips, description=alt.Description("said:N"))
        )
    layers += [
        alt.Chart(chosen[["macs", "x"]])
        .mark_point(filled=False, size=330, strokeWidth=2, color=palette.text, aria=False)
        .encode(x=x, y=y),
        alt.Chart(kept[columns])
        .mark_point(filled=True, size=120, opacity=1, stroke=palette.background, strokeWidth=1.5)
        .encode(
            x=x,
            y=y,
            color=band_colour(palette),
            tooltip=tips,
            description=alt.Description("said:N"),
        ),
    ]
    chart = alt.layer(*layers).resolve_scale(color="independent")
    return styled(chart.properties(padding=room(right=56)), palette, height=MACS_HEIGHT)


def drift(layers: pd.DataFrame, limits: dict[str, float], palette: Palette) -> AnyChart:
    """SQNR of what each layer hands on, along the network: as the target rounds, and rescued.

    Args:
        layers: as ``queries.rescue_drift`` gives them; a value beyond the upper edge is drawn
            there, and so is one that is NULL, which is exact.
    """
    values = pd.concat([layers["before_db"], layers["after_db"]]).astype(float)
    # A layer that loses next to nothing would press the others together.
    values = values.clip(upper=LEAST_MOST_DB)
    low, high = _domain(values, 0.0)
    frame = pd.concat(
        [
            pd.DataFrame(
                {
                    "depth": layers["depth"],
                    "x": layers[column].astype(float).fillna(high).clip(low, high),
                    "when": when,
                    "said_node": layers["node_name"].map(printable),
                    "said_type": layers["op_type"],
                    "said_db": layers[column].map(db),
                }
            )
            for when, column in (("before", "before_db"), ("after", "after_db"))
        ]
    )
    frame["said"] = frame["said_node"] + ", " + frame["when"] + ": " + frame["said_db"]
    x = alt.X(
        "depth:Q",
        scale=alt.Scale(domain=[-0.5, max(1.0, float(layers["depth"].max())) + 0.5], nice=False),
        axis=alt.Axis(grid=False, tickMinStep=1, format="d", title="layer, in network order"),
    )
    y_scale = alt.Scale(domain=[low, high], nice=False)
    y_axis = alt.Axis(
        grid=False,
        tickCount=6,
        labelExpr="replace(datum.label, '-', '\u2212')",
        title="SQNR on unseen inputs, dB",
    )
    y = alt.Y("x:Q", scale=y_scale, axis=y_axis)
    color = alt.Color(
        "when:N",
        scale=alt.Scale(domain=["before", "after"], range=[palette.muted, palette.text]),
        legend=alt.Legend(title=None, orient="top"),
    )
    # Not by colour alone.
    dash = alt.StrokeDash(
        "when:N", scale=alt.Scale(domain=["before", "after"], range=[[4, 3], [1, 0]]), legend=None
    )
    tips = tooltip(
        ("said_node", "node"), ("said_type", "operator"), ("when", "rescue"), ("said_db", "SQNR")
    )
    lines = (
        alt.Chart(frame[["depth", "x", "when"]])
        .mark_line(strokeWidth=2, aria=False)
        .encode(x=x, y=y, color=color, strokeDash=dash)
    )
    dots = (
        alt.Chart(frame)
        .mark_point(filled=True, size=36, opacity=1)
        .encode(x=x, y=y, color=color, tooltip=tips, description=alt.Description("said:N"))
    )
    zones = band_zones(band_tints(limits, palette, low=low, high=high), scale=y_scale, axis=y_axis)
    chart = alt.layer(alt.layer(*zones), alt.layer(lines, dots)).resolve_scale(color="independent")
    return styled(chart.properties(padding=room(right=56)), palette, height=MACS_HEIGHT)


def _domain(values: pd.Series, reach_db: float) -> tuple[float, float]:
    """From 0 dB, or what is below it, to what was reached or asked for, with room for a value."""
    finite = [*values.dropna().astype(float), reach_db]
    low = min(0.0, 10 * math.floor(min(finite) / 10))
    high = max(LEAST_MOST_DB, 10 * math.ceil((max(finite) + VALUE_ROOM_DB) / 10))
    return low, high


def _with_words(steps: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    """The steps with a place in the plot and the words of a tooltip.

    What loses nothing stands at the right end, with the room of a value beside it.
    """
    shown = (
        steps["test_db"].astype(float).fillna(high - VALUE_ROOM_DB).clip(low, high - VALUE_ROOM_DB)
    )
    frame = steps.assign(
        y=range(len(steps)),
        x=shown,
        said_title=[
            step_title(str(remedy), is_first=row == 0) for row, remedy in enumerate(steps["remedy"])
        ],
        said_detail=[printable(str(detail)) for detail in steps["detail"]],
        said_db=[db(_figure_or_none(value)) for value in steps["test_db"]],
        said_validation=[db(_figure_or_none(value)) for value in steps["validation_db"]],
        said_predicted=[
            "–" if pd.isna(value) else db(float(value)) for value in steps["predicted_db"]
        ],
        said_macs=[
            "–" if pd.isna(value) else share(float(value), digits=1) for value in steps["int8_macs"]
        ],
        said_seconds=[
            "–" if pd.isna(value) else seconds(float(value)) for value in steps["seconds"]
        ],
        said_result=[KEPT if is_kept else DROPPED for is_kept in steps["kept"]],
    )
    frame = frame.assign(name=_names(frame))
    levels, level = [], float(shown.iloc[0]) if len(shown) else 0.0
    for value, is_kept in zip(shown, steps["kept"], strict=True):
        levels.append(level)
        level = float(value) if is_kept else level
    frame = frame.assign(level=levels)
    return frame.assign(
        # Behind the dot, or the end of the stairs that lead down to it.
        label_x=frame[["x", "level"]].max(axis=1),
        said=[
            f"{title}: {value} on unseen inputs, {result}"
            for title, value, result in zip(
                frame["said_title"], frame["said_db"], frame["said_result"], strict=True
            )
        ],
    )


def _names(frame: pd.DataFrame) -> list[str]:
    """What each step is called beside its row: where several share a title, with what they did."""
    is_shared = frame["said_title"].duplicated(keep=False)
    return [
        f"{title}: {printable(str(detail)).partition(';')[0]}" if shared else title
        for title, detail, shared in zip(
            frame["said_title"], frame["said_detail"], is_shared, strict=True
        )
    ]


def _stairs(kept: pd.DataFrame) -> pd.DataFrame:
    """The corners of a line that falls from row to row and turns to what each step reached."""
    corners: list[tuple[float, float]] = []
    for x, y in zip(kept["x"].tolist(), kept["y"].tolist(), strict=True):
        if corners:
            corners.append((corners[-1][0], y))
        corners.append((x, y))
    frame = pd.DataFrame(corners, columns=["x", "y"])
    return frame.assign(order=range(len(frame)))


def _zones(tints: pd.DataFrame, scale: alt.Scale, axis: alt.Axis) -> list[alt.Chart]:
    """The bands of SQNR from left to right, named on top."""
    return [
        alt.Chart(tints)
        .mark_rect(aria=False)
        .encode(
            x=alt.X("low:Q", scale=scale, axis=axis),
            x2=alt.X2("high:Q"),
            color=alt.Color("tint:N", scale=None),
        ),
        alt.Chart(tints)
        .mark_text(fontSize=11, dy=12, baseline="middle", aria=False)
        .encode(
            x=alt.X("middle:Q", scale=scale, axis=axis),
            y=alt.YValue(0),
            text=alt.Text("band:N"),
            color=alt.Color("ink:N", scale=None),
        ),
    ]


def _figure_or_none(value: object) -> float | None:
    return None if pd.isna(value) else float(value)  # type: ignore[call-overload, arg-type]
