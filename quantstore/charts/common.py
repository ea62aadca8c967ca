"""What all charts share: type, grid, axes and the words of a tooltip."""

from typing import Any

import altair as alt

from quantstore.palette import BANDS, Palette

# In Streamlit the page's own font is there; elsewhere the generic name at the end keeps the text.
FONT = "Source Sans, Source Sans Pro, sans-serif"

# What a click on a mark is called, on every chart whose marks are layers.
CLICK = "open_layer"

AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart


def styled(chart: AnyChart, palette: Palette) -> AnyChart:
    """A finished chart: quiet axes, hairline grid, no frame, colours of the theme on screen."""
    finished: AnyChart = (
        chart.configure(font=FONT, background="transparent")
        .configure_view(strokeWidth=0)
        .configure_axis(
            labelColor=palette.muted,
            titleColor=palette.muted,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            gridColor=palette.grid,
            domain=False,
            ticks=False,
            labelPadding=6,
            titlePadding=8,
        )
        .configure_legend(
            labelColor=palette.text,
            labelFontSize=12,
            title=None,
            orient="top",
            symbolType="circle",
            symbolStrokeWidth=0,
            offset=8,
        )
        .configure_text(font=FONT)
    )
    return finished


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


def tooltip(*pairs: tuple[str, str]) -> list[Any]:
    """A tooltip from (field, title) pairs; fields hold finished words."""
    return [alt.Tooltip(f"{field}:N", title=title) for field, title in pairs]
