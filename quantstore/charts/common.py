"""What all charts share: type, grid, axes and the words of a tooltip."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import altair as alt
import pandas as pd
from altair.utils import schemapi

from quantstore.charts.palette import BANDS, Palette

# Every channel is an object of its class, ``x2=alt.X2("right:Q")``. To find the class for a bare
# ``x2="right:Q"``, Altair hashes its whole schema anew, which takes 10 ms.

# In Streamlit the page's own font is there; elsewhere the generic name at the end keeps the text.
FONT = "Source Sans, Source Sans Pro, sans-serif"

# What a click on a mark is called, on every chart whose marks are layers.
CLICK = "open_layer"

# The view of a chart that has parameters. Without a name Altair makes one of all that the view
# holds: it writes out the rows, which takes as long as to draw them.
MARKS = "marks"

AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart | alt.VConcatChart


def leave_parts_unchecked() -> None:
    """For a process that serves pages: no part of a chart is checked as it is made, from now on.

    Altair holds each against the schema of Vega-Lite, which is half of the time a page takes. The
    whole chart is checked whenever ``to_dict()`` is called plainly, and the tests do that.
    """
    schemapi.disable_debug_mode()


def styled(chart: AnyChart, palette: Palette, **properties: Any) -> AnyChart:
    """A finished chart: quiet axes, hairline grid, no frame, colours of the theme on screen.

    The chart is changed itself: a copy costs Altair as much as all of the rest.

    Args:
        properties: of the chart, such as its ``height`` in pixels.
    """
    for name, value in properties.items():
        chart[name] = value
    _write_keys_as_text(chart, {})
    chart.config = {
        "font": FONT,
        "background": "transparent",
        "view": {"strokeWidth": 0},
        "axis": {
            "labelColor": palette.muted,
            "titleColor": palette.muted,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "gridColor": palette.grid,
            "domain": False,
            "ticks": False,
            "labelPadding": 6,
            "titlePadding": 8,
        },
        "legend": {
            "labelColor": palette.text,
            "labelFontSize": 12,
            "title": None,
            "orient": "top",
            "symbolType": "circle",
            "symbolStrokeWidth": 0,
            "offset": 8,
        },
        "text": {"font": FONT},
    }
    return chart


def _write_keys_as_text(chart: Any, written: dict[int, Any]) -> None:
    """Make text of the keys that a click tells: JavaScript would round a number of 63 bits."""
    for part in getattr(chart, "layer", None) or getattr(chart, "vconcat", None) or []:
        _write_keys_as_text(part, written)
    frame = chart.data
    if not hasattr(frame, "columns"):
        return
    # Parts that share a frame go on sharing one.
    if id(frame) not in written:
        keys = [
            column
            for column in frame.columns
            if str(column).endswith("_id") and frame[column].dtype.kind in "iu"
        ]
        texts = {
            column: [None if key is pd.NA else str(key) for key in frame[column]] for column in keys
        }
        written[id(frame)] = frame.assign(**texts) if texts else frame
    chart.data = written[id(frame)]


def ready(chart: AnyChart) -> AnyChart:
    """The chart for a page: ``to_dict()`` no longer checks it, which takes longer than drawing."""
    # Assigned the usual way it would become a part of the chart.
    object.__setattr__(chart, "to_dict", partial(chart.to_dict, validate=False))
    return chart


def stacked(charts: Sequence[AnyChart], palette: Palette) -> AnyChart:
    """Finished charts above one another, as one."""
    for chart in charts:
        # The whole has one; Altair refuses those of parts.
        chart.config = alt.Undefined
    return styled(alt.vconcat(*charts, spacing=4), palette)


def standalone(chart: AnyChart, palette: Palette, width: int, title: str) -> AnyChart:
    """The chart outside the app: on a ground of its own, with a title, with all of its rows.

    Args:
        width: of what is drawn, without the axis, in pixels.
    """
    for part in chart.vconcat if isinstance(chart, alt.VConcatChart) else [chart]:
        part["width"] = width
        _explain_bands(part)
    chart["title"] = alt.TitleParams(
        title, anchor="start", color=palette.text, fontSize=14, fontWeight="normal"
    )
    chart["description"] = title
    chart["padding"] = 12
    chart.config["background"] = palette.background
    plain_to_dict = chart.to_dict

    def to_dict(*arguments: Any, **options: Any) -> dict[str, Any]:
        # Altair refuses more than 5,000 rows, in case they end up in a notebook: they shall.
        with alt.data_transformers.enable("default", max_rows=None):
            spec: dict[str, Any] = plain_to_dict(*arguments, **options)
        return spec

    # Assigned the usual way it would become a part of the chart.
    object.__setattr__(chart, "to_dict", to_dict)
    return chart


def _explain_bands(chart: Any) -> None:
    """A legend of the bands, which the pages and the report have beside the chart."""
    for layer in chart.layer if isinstance(chart, alt.LayerChart) else [chart]:
        colour = getattr(layer.encoding, "color", alt.Undefined)
        if isinstance(colour, alt.Color) and colour["shorthand"] == _BAND_FIELD:
            colour["legend"] = alt.Legend(title=None, orient="bottom", symbolType="square")


_BAND_FIELD = "band:N"


def band_colour(palette: Palette, field: str = "band") -> alt.Color:
    """The fill of a mark by its band. Without a legend: the page draws one beside the words."""
    return alt.Color(
        f"{field}:N",
        scale=alt.Scale(domain=list(BANDS), range=palette.band_fills),
        legend=None,
    )


def opens_layer() -> alt.Parameter:
    """A click on a mark, reported to the page as ``CLICK`` with the mark's ``layer_id``."""
    return alt.selection_point(name=CLICK, fields=["layer_id"], on="click", empty=False)


def depth_axis() -> alt.Axis:
    """Input on the left, output on the right."""
    return alt.Axis(
        grid=False,
        values=[0, 0.25, 0.5, 0.75, 1],
        labelFlush=True,
        labelExpr=(
            "datum.value == 0 ? 'input' : datum.value == 1 ? 'output' :"
            " format(100 * datum.value, ',~r') + ' %'"
        ),
    )


def tooltip(*pairs: tuple[str, str]) -> list[Any]:
    """A tooltip from (field, title) pairs; fields hold finished words."""
    return [alt.Tooltip(f"{field}:N", title=title) for field, title in pairs]


def specification(chart: AnyChart) -> dict[str, Any]:
    """The chart as Vega-Lite, as wide as the place it is put in, however many rows it has."""
    with alt.data_transformers.enable("default", max_rows=None):
        spec: dict[str, Any] = chart.to_dict(validate=False)
    return spec | {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
