"""Two revisions of one network: where each layer's SQNR was, and where it is now.

Frames have one row per pair of layers, as ``queries.matching.changes`` gives them.
"""

from typing import Literal

import altair as alt
import numpy as np
import pandas as pd

from quantstore.charts.common import MARKS, AnyChart, opens_layer, styled, tooltip
from quantstore.charts.compare import band_tints, band_zones, room
from quantstore.charts.palette import Palette
from quantstore.queries.matching import from_to
from quantstore.wording.nodes import operator
from quantstore.wording.text import short_name
from quantstore.wording.units import db, weight
from quantstore.wording.verdicts import NINE_IN_TEN, NINE_IN_TEN_REACH

PairOrder = Literal["change", "depth"]

HEIGHT = 340
HIGHEST_DB = 50.0
# Beyond this many layers their dots would touch.
ROOMY_LAYERS = 150
# On a narrower plot, in px, a name would lie over the dots beside its own; the table has them all.
ROOM_FOR_NAMES_PX = 600
# A name below a dot needs this much of the axis.
LABEL_ROOM_DB = 4.0


def dumbbells(
    pairs: pd.DataFrame, palette: Palette, limits: dict[str, float], *, order: PairOrder
) -> AnyChart:
    """From a ring, where the SQNR was, to a dot, where it is now; a click opens the later layer.

    Args:
        pairs: layers that have a partner; in the order of the later network.
        limits: the lower limit of each band in dB.
        order: by ``change`` only layers that changed are drawn, the largest loss first; by
            ``depth`` all, those that did not change as dots alone.
    """
    frame = _placed(pairs, order)
    x_scale = alt.Scale(domain=[0.3, max(len(frame), 1) + 0.7], nice=False)
    y_scale = alt.Scale(domain=[0, HIGHEST_DB], nice=False)
    title = (
        "changed layers, largest loss first"
        if order == "change"
        else "depth (layer number from input to output, as matched)"
    )
    x = alt.X(
        "x:Q",
        scale=x_scale,
        title=title,
        axis=alt.Axis(grid=False, labels=order == "depth", tickMinStep=1),
    )
    layers: list[alt.Chart] = [
        *band_zones(
            band_tints(limits, palette),
            scale=y_scale,
            axis=alt.Axis(
                values=[0, 10, 20, 30, 40, 50],
                grid=False,
                title=f"{NINE_IN_TEN}, dB",
            ),
        ),
        alt.Chart(frame[frame["has_changed"]])
        .mark_rule(color=palette.muted, strokeWidth=1.5)
        .encode(x=x, y=alt.Y("was:Q", scale=y_scale), y2=alt.Y2("is_now:Q")),
        _dots(frame, x, y_scale, palette),
    ]
    layers += _named(frame, x, y_scale, palette)
    chart = alt.layer(*layers).resolve_scale(color="independent")
    return styled(chart, palette, height=HEIGHT, padding=room(right=70))


def _placed(pairs: pd.DataFrame, order: PairOrder) -> pd.DataFrame:
    """Where each pair stands, and what a tooltip says about it."""
    frame = pairs.assign(
        has_changed=pairs["outcome"].isin(["better", "worse"]),
        was=_height(pairs["channel_sqnr_p10_before_db"]),
        is_now=_height(pairs["channel_sqnr_p10_after_db"]),
        layer_id=pairs["layer_id_after"].astype(int),
    )
    if order == "change":
        frame = frame[frame["has_changed"]].sort_values("change_db", kind="stable")
    frame = frame.assign(x=np.arange(1, len(frame) + 1))
    frame["said_layer"] = [short_name(str(name), 80) for name in frame["layer"]]
    was, is_now, change = (
        [None if pd.isna(value) else float(value) for value in frame[column]]
        for column in ("channel_sqnr_p10_before_db", "channel_sqnr_p10_after_db", "change_db")
    )
    frame["said_sqnr"] = [
        from_to(before_db, after_db) for before_db, after_db in zip(was, is_now, strict=True)
    ]
    frame["said_change"] = [
        db(difference, signed=True)
        if difference is not None and np.isfinite(difference)
        else "from or to exact"
        for difference in change
    ]
    frame["said_range"] = [
        f"{weight(float(range_before))} → {weight(float(range_after))}"
        for range_before, range_after in zip(
            frame["weight_range_before"], frame["weight_range_after"], strict=True
        )
    ]
    frame["said_operator"] = [
        operator(str(op_type), bool(is_depthwise))
        for op_type, is_depthwise in zip(
            frame["op_type_after"], frame["is_depthwise_after"], strict=True
        )
    ]
    frame["said"] = [
        f"{layer}: {outcome}, {sqnr}"
        for layer, outcome, sqnr in zip(
            frame["said_layer"], frame["outcome"], frame["said_sqnr"], strict=True
        )
    ]
    return frame


def _height(values: pd.Series) -> pd.Series:
    """Exact layers and those beyond the axis stand at its upper end."""
    return values.astype(float).fillna(HIGHEST_DB).clip(0, HIGHEST_DB)


def _dots(frame: pd.DataFrame, x: alt.X, y_scale: alt.Scale, palette: Palette) -> alt.Chart:
    """A ring for before, a dot for after; one grey dot where nothing changed."""
    columns = ["x", "layer_id", "said_layer", "said_sqnr", "said_change", "said_range"]
    columns += ["said_operator", "said"]
    changed, unchanged = frame[frame["has_changed"]], frame[~frame["has_changed"]]
    kinds = {
        "unchanged": unchanged[columns].assign(y=unchanged["is_now"], moment="unchanged"),
        "before": changed[columns].assign(y=changed["was"], moment="before"),
        "after": changed[columns].assign(y=changed["is_now"], moment="after"),
    }
    # Before after: where both nearly coincide, the dot of today is the one to see.
    marks = pd.concat(kinds.values(), ignore_index=True)
    shown = [moment for moment in ("before", "after", "unchanged") if len(kinds[moment])]
    fills = {
        "before": palette.background,
        "after": palette.text,
        "unchanged": palette.unfocused,
    }
    size = 46 if len(frame) <= ROOMY_LAYERS else 22
    dots: alt.Chart = (
        alt.Chart(marks)
        .mark_point(size=size, strokeWidth=1.2, opacity=1, cursor="pointer")
        .encode(
            x=x,
            y=alt.Y("y:Q", scale=y_scale),
            fill=alt.Fill(
                "moment:N",
                scale=alt.Scale(domain=shown, range=[fills[moment] for moment in shown]),
                legend=alt.Legend(symbolStrokeWidth=1.2, symbolType="circle"),
            ),
            stroke=alt.Stroke(
                "moment:N",
                scale=alt.Scale(
                    domain=shown,
                    range=[
                        palette.unfocused if moment == "unchanged" else palette.text
                        for moment in shown
                    ],
                ),
                legend=alt.Legend(symbolStrokeWidth=1.2, symbolType="circle"),
            ),
            tooltip=tooltip(
                ("said_layer", "layer"),
                ("said_sqnr", NINE_IN_TEN_REACH),
                ("said_change", "change"),
                ("said_range", "weight range"),
                ("said_operator", "operator"),
            ),
            description=alt.Description("said:N"),
        )
        .properties(name=MARKS)
        .add_params(opens_layer())
    )
    return dots


def _named(frame: pd.DataFrame, x: alt.X, y_scale: alt.Scale, palette: Palette) -> list[alt.Chart]:
    """The names of the largest loss, below its dot, and of the largest gain, above it."""
    charts: list[alt.Chart] = []
    for outcome in ("worse", "better"):
        changed = frame[frame["outcome"] == outcome]
        if changed.empty:
            continue
        gains = changed["change_db"]
        layer = changed.iloc[[int(gains.argmin() if outcome == "worse" else gains.argmax())]]
        layer = layer.assign(label=short_name(str(layer["layer"].iloc[0]), 32))
        share = float(layer["x"].iloc[0]) / len(frame)
        is_below = outcome == "worse" and float(layer["is_now"].iloc[0]) > LABEL_ROOM_DB
        # First a halo in the colour of the page, so that rules stay out of the words.
        for halo in (4, 0):
            text_mark = alt.Chart(layer).mark_text(
                align="left" if share < 1 / 3 else "right" if share > 2 / 3 else "center",
                dx=-5 if share < 1 / 3 else 5 if share > 2 / 3 else 0,
                dy=15 if is_below else -13,
                fontWeight=600,
                fontSize=12,
                color=palette.background if halo else palette.text,
                stroke=palette.background,
                strokeWidth=halo,
                strokeJoin="round",
                opacity=alt.ExprRef(f"width < {ROOM_FOR_NAMES_PX} ? 0 : 1"),
            )
            charts.append(
                text_mark.encode(x=x, y=alt.Y("is_now:Q", scale=y_scale), text=alt.Text("label:N"))
            )
    return charts
