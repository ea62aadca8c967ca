"""Audit: what an int8 file keeps of its float file, in six ways."""

import json
import math
import textwrap
from collections.abc import Mapping

import altair as alt
import pandas as pd

from quantstore.charts.common import AnyChart, band_colour, styled, tooltip
from quantstore.charts.compare import room
from quantstore.charts.palette import Palette
from quantstore.records import AuditRecord
from quantstore.wording.audits import PAIRING_CHECK, way_titles, ways
from quantstore.wording.units import db

# Height of a bar with its gap, and of the axis, in px.
ROW_HEIGHT, FRAME_HEIGHT = 34, 46
# The axis ends here, unless the file keeps more. What lies beyond ends with the axis: the check of
# the pairing, whose height says nothing of int8, and what is exact.
LEAST_MOST_DB = 40.0
LINE_LETTERS = 22


def six_values(record: AuditRecord, limits: Mapping[str, float], palette: Palette) -> AnyChart:
    """A bar for each way, from 0 dB: longer is better. The check of the pairing is grey.

    Args:
        limits: the lower limit of each band in dB, best band first.
    """
    frame = _frame(record, limits)
    judged = frame["column"] != PAIRING_CHECK
    low, high = _domain(frame["value"][judged])
    frame["end"] = frame["value"].clip(low, high)
    # Bars of negative values run to the left; their labels stand to the right of them all the same.
    frame["label_at"] = frame["end"].clip(lower=0)
    x_scale = alt.Scale(domain=[low, high], nice=False)
    x_axis = alt.Axis(
        tickCount=6,
        labelExpr="replace(datum.label, '-', '\u2212')",
        title="output SQNR, dB",
    )
    names = {
        str(row): textwrap.wrap(title, LINE_LETTERS, max_lines=2)
        for row, title in enumerate(frame["title"])
    }
    y = alt.Y(
        "row:Q",
        scale=alt.Scale(domain=[len(frame) - 0.5, -0.5], nice=False),
        axis=alt.Axis(
            grid=False,
            title=None,
            values=list(range(len(frame))),
            labelExpr=f'{json.dumps(names)}[format(datum.value, "~g")]',
            labelColor=palette.text,
            labelLineHeight=13,
            labelOverlap=False,
            labelLimit=200,
        ),
    )
    tips = tooltip(("title", "way"), ("said", "SQNR"), ("band", "band"))

    def bars(part: pd.DataFrame, **colour: alt.Color) -> alt.Chart:
        drawn: alt.Chart = (
            alt.Chart(part[["row", "start", "end", "title", "said", "band", "description"]])
            .mark_bar(size=18, color=palette.bar)
            .encode(
                x=alt.X("start:Q", scale=x_scale, axis=x_axis),
                x2=alt.X2("end:Q"),
                y=y,
                tooltip=tips,
                description=alt.Description("description:N"),
                **colour,
            )
        )
        return drawn

    chart = alt.layer(
        bars(frame[judged], color=band_colour(palette)),
        bars(frame[~judged]),
        alt.Chart(frame[["row", "label_at", "said"]])
        .mark_text(align="left", dx=6, fontSize=12, color=palette.text, aria=False)
        .encode(x=alt.X("label_at:Q", scale=x_scale, axis=x_axis), y=y, text=alt.Text("said:N")),
    )
    return styled(
        chart.properties(padding=room(right=50)),
        palette,
        height=ROW_HEIGHT * len(frame) + FRAME_HEIGHT,
    )


def _frame(record: AuditRecord, limits: Mapping[str, float]) -> pd.DataFrame:
    columns = [column for column in ways(record) if not math.isnan(getattr(record, column))]
    frame = pd.DataFrame({"column": columns})
    frame["row"] = range(len(frame))
    frame["title"] = [way_titles(record)[column] for column in columns]
    frame["value"] = [float(getattr(record, column)) for column in columns]
    frame["said"] = [db(value) for value in frame["value"]]
    frame["band"] = [
        next(band for band, low in limits.items() if value >= low) for value in frame["value"]
    ]
    frame["start"] = 0.0
    frame["description"] = [
        f"{title}: {words}" for title, words in zip(frame["title"], frame["said"], strict=True)
    ]
    return frame


def _domain(values: pd.Series) -> tuple[float, float]:
    finite = values[values.map(math.isfinite)]
    high = max(LEAST_MOST_DB, float(finite.max()) if len(finite) else 0.0)
    return min(0.0, float(finite.min()) if len(finite) else 0.0), high
