"""Charts on a page, to look at or to click, and sparks in a table."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import streamlit as st

from quantstore.app.widgets.navigation import open_layer
from quantstore.charts.common import CLICK, AnyChart, ready
from quantstore.wording import columns
from quantstore.wording.layers import SPARK_DB


def spark(counts: Sequence[int], limits: dict[str, float]) -> dict[str, Any]:
    """A small histogram of a layer's channels by SQNR, each bin in the colour of its band."""
    return asdict(columns.spark(counts, limits, SPARK_DB))


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
