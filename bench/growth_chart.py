"""Draws how the time of an ingest grows with the model, into docs/images/growth.svg.

``python bench/growth_chart.py`` reads ``results/growth.json``, which ``make bench BENCH=growth``
wrote, and needs vl-convert-python (bench/requirements.txt).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "growth.json"
PICTURE = HERE.parent / "docs" / "images" / "growth.svg"
# Blue, orange and grey stay apart for colour-blind readers; so do the shapes.
COLOURS = ["#1f6fb4", "#d9730d", "#6b7280"]
MARGIN = {"left": 12, "right": 20, "top": 12, "bottom": 12}


def main() -> None:
    """Draw it."""
    measured = json.loads(RESULTS.read_text())
    points = list(_points(measured["rows"]))
    series = sorted(
        {point["series"] for point in points}, key=lambda name: name.startswith("plain")
    )
    # Two legends that agree in everything are drawn as one.
    legend = alt.Legend(title=None, orient="top", symbolSize=80)
    colour = alt.Color("series:N", legend=legend).scale(domain=series, range=COLOURS)
    shape = alt.Shape("series:N", legend=legend).scale(domain=series)
    base = alt.Chart(alt.Data(values=points)).encode(
        alt.X("weights:Q", title="Weights in the model")
        .scale(type="log")
        .axis(format="~s", values=[1e6, 1e7, 1e8, 5e8]),
        color=colour,
    )
    line = base.mark_line(strokeWidth=2).encode(
        alt.Y("ns:Q", title="Nanoseconds per weight (median; bars: min to max)")
    )
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(alt.Y("ns:Q"), shape=shape)
    spreads = base.mark_rule(strokeWidth=1.5).encode(alt.Y("least:Q"), alt.Y2("most:Q"))
    chart = (
        (line + spreads + dots)
        .properties(width=560, height=280, padding=MARGIN, background="white")
        .configure_axis(grid=True, gridColor="#e5e7eb", labelFontSize=12, titleFontSize=12)
        .configure_legend(labelFontSize=12, labelLimit=300)
        .configure_view(stroke=None)
    )
    PICTURE.parent.mkdir(exist_ok=True)
    chart.save(PICTURE)


def _points(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen = set()
    for row in rows:
        size = re.fullmatch(r"generated, (\d+) M weights", row["model"])
        if size is None or row["unit"] != "ns per weight":
            continue
        weights = int(size[1]) * 1e6
        for series, spread in (
            (f"quantstore: {row['what']}", row["ours"]),
            (row["peer"], row["theirs"]),
        ):
            # The peer stands beside each of ours.
            if isinstance(spread, str) or (series, weights) in seen:
                continue
            seen.add((series, weights))
            figures = sorted(spread["values"])
            yield {
                "series": series,
                "weights": weights,
                "ns": figures[len(figures) // 2],
                "least": figures[0],
                "most": figures[-1],
            }


if __name__ == "__main__":
    main()
