"""Charts on a page, to look at or to click, and sparks in a table."""

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from quantstore import queries
from quantstore.app.widgets.navigation import open_layer
from quantstore.charts.common import CLICK, AnyChart, ready
from quantstore.charts.palette import BANDS


def spark(counts: Sequence[int], limits: dict[str, float]) -> dict[str, Any]:
    """A small histogram of a layer's channels by SQNR, each bin in the colour of its band."""
    numbers = [int(number) for number in counts]
    width = queries.SPARK_DB_PER_BIN
    bands = [
        next((band for band, low in limits.items() if position * width >= low), BANDS[0])
        for position in range(len(numbers))
    ]
    below = sum(number for number, band in zip(numbers, bands, strict=True) if band == "broken")
    label = f"{below} of {sum(numbers)} channels below {limits.get('at risk', 10):g} dB"
    return {"counts": numbers, "bands": bands, "label": label}


def clickable_chart(chart: AnyChart, *, key: str, alt: str) -> None:
    """A chart whose marks open their layer.

    Args:
        alt: what the chart shows, for people who cannot see it.
    """

    def clicked() -> None:
        picked = st.session_state[key].selection.get(CLICK, [])
        if picked:
            open_layer(int(picked[0]["layer_id"]))

    st.altair_chart(ready(chart), key=key, on_select=clicked, alt=alt)


def chart(
    drawing: AnyChart, *, key: str, alt: str, on_select: Callable[[], None] | None = None
) -> None:
    """A chart to look at.

    Args:
        alt: what the chart shows, for people who cannot see it.
        on_select: called when the person has selected something in it.
    """
    st.altair_chart(ready(drawing), key=key, on_select=on_select or "ignore", alt=alt)
