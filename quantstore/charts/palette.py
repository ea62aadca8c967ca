"""Every colour of the app, for the light and the dark page.

Colour means band and nothing else: what is untested is grey. Models get colours only where up to
four share one plot. The worse a band, the more it contrasts with the page. Contrast against the
page is at least 3:1 for marks and 4.5:1 for text; the smallest OKLab distance between two bands
under simulated protanopia, deuteranopia and tritanopia (Machado et al. 2009) is 10.
"""

from dataclasses import dataclass, fields, replace
from typing import Literal

ThemeName = Literal["light", "dark"]
BANDS = ("broken", "at risk", "watch", "fine")


@dataclass(frozen=True, slots=True)
class BandColour:
    """``fill`` for marks; ``ink`` on ``tint`` for words."""

    fill: str
    tint: str
    ink: str


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of one theme."""

    bands: dict[str, BandColour]
    untested: BandColour
    models: tuple[str, ...]
    merged: tuple[tuple[str, str], ...]  # ink on tint, one per group of merged values
    background: str
    text: str
    muted: str
    grid: str
    axis: str
    zero_zone: str
    bar: str
    bar_alternate: str
    unfocused: str
    accent: str

    @property
    def verdicts(self) -> dict[str, BandColour]:
        """The colours of every verdict: of each band, and the grey of what is untested."""
        return {**self.bands, "untested": self.untested}

    @property
    def band_fills(self) -> list[str]:
        """Fills in the order of ``BANDS``."""
        return [self.bands[band].fill for band in BANDS]


LIGHT = Palette(
    bands={
        "fine": BandColour("#6496B6", "#E5EEF4", "#2C5B7A"),
        "watch": BandColour("#B78D10", "#F8F0D8", "#6A5203"),
        "at risk": BandColour("#B8480C", "#FBE9DE", "#8F3807"),
        "broken": BandColour("#7D1038", "#F8E3EA", "#7D1038"),
    },
    untested=BandColour("#8794A3", "#ECEEF1", "#4A535E"),
    models=("#251D75", "#14A762", "#D85BDD", "#51606B"),
    merged=(
        ("#5140B8", "#ECEAF9"),
        ("#0A6B4E", "#E0F1EB"),
        ("#9A2A8A", "#F8E6F5"),
        ("#44525C", "#E9ECEF"),
    ),
    background="#FFFFFF",
    text="#11161D",
    muted="#5A6470",
    grid="#E3E7EB",
    axis="#AEB6BF",
    zero_zone="#E9ECF0",
    bar="#8794A3",
    bar_alternate="#B4BCC5",
    unfocused="#B4BCC5",
    accent="#2F5D9B",
)
DARK = Palette(
    bands={
        "fine": BandColour("#436C8E", "#1A3140", "#A9CCE3"),
        "watch": BandColour("#867130", "#362E14", "#E3CB85"),
        "at risk": BandColour("#F47F24", "#45290F", "#FFBE85"),
        "broken": BandColour("#FF98B8", "#4A1B2B", "#FFC2CE"),
    },
    untested=BandColour("#8A96A3", "#23282F", "#B6C0CB"),
    models=("#5657ED", "#98F2D7", "#A0447D", "#94A5BB"),
    merged=(
        ("#A79BFF", "#2A2748"),
        ("#5FD3AE", "#17352C"),
        ("#EE8BDD", "#42223E"),
        ("#B3C0CC", "#2A323A"),
    ),
    background="#12151A",
    text="#E4E8ED",
    muted="#9AA5B1",
    grid="#2A313A",
    axis="#56606C",
    zero_zone="#262C34",
    bar="#8A96A3",
    bar_alternate="#59636F",
    unfocused="#5A646F",
    accent="#5B93DA",
)
PALETTES: dict[ThemeName, Palette] = {"light": LIGHT, "dark": DARK}


def both(light: str, dark: str) -> str:
    """A CSS colour that follows the page's theme by itself."""
    return f"light-dark({light}, {dark})"


def css_variables() -> str:
    """The colours as CSS custom properties, for HTML that follows the theme without a rerun."""
    lines = []
    for verdict, light in LIGHT.verdicts.items():
        name = verdict.replace(" ", "-")
        dark = DARK.verdicts[verdict]
        lines += [
            f"--{name}-fill: {both(light.fill, dark.fill)};",
            f"--{name}-tint: {both(light.tint, dark.tint)};",
            f"--{name}-ink: {both(light.ink, dark.ink)};",
        ]
    for name in ("text", "muted", "grid", "axis", "bar_alternate", "accent", "background"):
        css_name = name.replace("_", "-")
        lines.append(f"--{css_name}: {both(getattr(LIGHT, name), getattr(DARK, name))};")
    return "\n".join(lines)


def by_name(palette: Palette) -> dict[str, str]:
    """Every colour of a palette under the name it has as a CSS custom property."""
    names: dict[str, str] = {}
    for band, colour in palette.verdicts.items():
        prefix = f"--{band.replace(' ', '-')}"
        names |= {f"{prefix}-{field.name}": getattr(colour, field.name) for field in fields(colour)}
    names |= {f"--model-{number}": colour for number, colour in enumerate(palette.models, 1)}
    for number, (ink, tint) in enumerate(palette.merged, 1):
        names |= {f"--merged-{number}-ink": ink, f"--merged-{number}-tint": tint}
    for field in fields(palette):
        value = getattr(palette, field.name)
        if isinstance(value, str):
            names[f"--{field.name.replace('_', '-')}"] = value
    return names


def _as_properties(palette: Palette) -> Palette:
    """The palette with ``var(--name)`` in place of every colour."""
    named = {name: f"var({name})" for name in by_name(palette)}
    plain = {
        field.name: named[f"--{field.name.replace('_', '-')}"]
        for field in fields(palette)
        if isinstance(getattr(palette, field.name), str)
    }
    verdicts = {
        verdict: BandColour(
            *(named[f"--{verdict.replace(' ', '-')}-{field.name}"] for field in fields(BandColour))
        )
        for verdict in palette.verdicts
    }
    return replace(
        palette,
        bands={band: verdicts[band] for band in palette.bands},
        untested=verdicts["untested"],
        models=tuple(named[f"--model-{number}"] for number in range(1, len(palette.models) + 1)),
        merged=tuple(
            (named[f"--merged-{number}-ink"], named[f"--merged-{number}-tint"])
            for number in range(1, len(palette.merged) + 1)
        ),
        **plain,
    )


# For charts in a page that sets these properties itself: such a chart follows the theme, and the
# printer, without being drawn anew.
PROPERTIES = _as_properties(LIGHT)
