"""The theme on screen, its palette, and the legend of the bands."""

import html

import streamlit as st

from quantstore.app.widgets import components
from quantstore.charts.palette import DARK, LIGHT, PALETTES, Palette, ThemeName, both
from quantstore.wording.notes import band_ranges
from quantstore.wording.units import counted


def theme() -> ThemeName:
    """The theme to draw in: what the browser last reported, at first what Streamlit believes."""
    reported_theme = st.session_state.get("theme_name")
    if reported_theme is None:
        reported_theme = "dark" if st.context.theme.type == "dark" else "light"
        st.session_state["theme_name"] = reported_theme
    return "dark" if reported_theme == "dark" else "light"


def watch_theme() -> None:
    """Redraw when the person switches the theme: charts cannot follow it by themselves."""
    browser_theme = components.watch_theme(theme())
    if browser_theme is not None and browser_theme != theme():
        st.session_state["theme_name"] = browser_theme
        st.rerun()


def palette() -> Palette:
    """The colours of the theme on screen."""
    return PALETTES[theme()]


def legend(limits: dict[str, float], counts: dict[str, int] | None = None) -> None:
    """The bands with their limits, or with how many layers each holds."""
    items = []
    muted = both(LIGHT.muted, DARK.muted)
    for band, label in band_ranges(limits):
        fill = both(LIGHT.bands[band].fill, DARK.bands[band].fill)
        if counts is not None:
            label = counted(counts.get(band, 0), "layer")
        items.append(
            '<span style="white-space:nowrap;margin-right:16px">'
            f'<span style="display:inline-block;width:11px;height:11px;border-radius:2px;'
            f'background:{fill};margin-right:6px;vertical-align:-1px"></span>'
            f"<b style='font-weight:600'>{html.escape(band)}</b> "
            f'<span style="color:{muted}">{html.escape(label)}</span></span>'
        )
    st.html(f'<div style="font-size:12px;line-height:1.8">{"".join(items)}</div>')
