"""Model: the network from input to output, one hanging bar per layer."""

import altair as alt
import pandas as pd

from quantstore.charts.common import MARKS, AnyChart, band_colour, opens_layer, styled, tooltip
from quantstore.charts.compare import HANG_FROM_DB, with_words
from quantstore.charts.palette import Palette
from quantstore.wording.verdicts import NINE_IN_TEN_REACH

# A sliver, in dB, that even the best layer keeps: every layer is there to be clicked.
SLIVER_DB = 0.6


def layer_map(profiles: pd.DataFrame, palette: Palette) -> AnyChart:
    """Where one model breaks: bars from 40 dB down to the SQNR 90 % of channels reach.

    Args:
        profiles: one row per layer of a single model, in graph order.
    """
    frame = with_words(profiles, "channel_sqnr_p10_db")
    reached = frame["channel_sqnr_p10_db"].fillna(HANG_FROM_DB)
    frame = frame.assign(
        left=frame["depth"] - 0.5,
        right=frame["depth"] + 0.5,
        top=HANG_FROM_DB,
        bottom=reached.clip(0, HANG_FROM_DB - SLIVER_DB),
    )
    count = len(frame)
    x = alt.X(
        "left:Q",
        scale=alt.Scale(domain=[-0.5, count - 0.5], nice=False),
        title="depth (layer number from input to output)",
        axis=alt.Axis(
            grid=False,
            tickMinStep=1,
            labelExpr="format(datum.value + 1, ',~r')",
            values=_ticks(count),
        ),
    )
    base = alt.Chart(frame).encode(x=x, x2=alt.X2("right:Q"))
    bars = base.mark_rect(
        stroke=palette.background, strokeWidth=1 if count <= 150 else 0, aria=False
    ).encode(
        y=alt.Y(
            "top:Q",
            scale=alt.Scale(domain=[0, HANG_FROM_DB], nice=False),
            title=None,
            axis=alt.Axis(
                values=[0, 10, 20, 30, 40], labelExpr="format(datum.value, ',~r') + ' dB'"
            ),
        ),
        y2=alt.Y2("bottom:Q"),
        color=band_colour(palette),
    )
    # The whole column of a layer answers the pointer: the bar of a fine one is a sliver.
    columns = (
        base.mark_rect(opacity=0, cursor="pointer")
        .encode(
            y=alt.YValue(0),
            y2=alt.Y2Value("height"),
            tooltip=tooltip(
                ("said_layer", "layer"),
                ("said_p10", NINE_IN_TEN_REACH),
                ("said_position", "position"),
                ("said_operator", "operator"),
            ),
            description=alt.Description("said:N"),
        )
        .properties(name=MARKS)
        .add_params(opens_layer())
    )
    return styled(alt.layer(bars, columns), palette, height=250)


def _ticks(count: int) -> list[int]:
    """Positions whose layer numbers (from 1) are round."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, count) if count / s <= 14)
    return [0, *(number - 1 for number in range(step, count + 1, step) if number > 1)]
