"""Pieces of HTML: figures and names in, text out that shows them as themselves."""

import html
from collections.abc import Iterable, Mapping, Sequence

from quantstore.charts.palette import BANDS
from quantstore.errors import printable
from quantstore.wording.text import breakable, short_name
from quantstore.wording.units import NO_BREAK_SPACE, counted

SPARK_WIDTH, SPARK_HEIGHT = 150, 30
# More of a name than anybody reads on paper; the whole of it is in the title.
LONGEST_NAME = 300


def text(content: object) -> str:
    """Words, wherever they come from, on one line and never markup, in an attribute neither."""
    return html.escape(_one_line(str(content)))


def name(full_name: str) -> str:
    """A name that may break after a slash, dot or underscore; whole in its title."""
    whole = _one_line(full_name)
    return f'<span class="name" title="{html.escape(whole)}">{breakable(_cut(whole))}</span>'


def element(tag: str, content: str, css_class: str = "", **attributes: str) -> str:
    """An element around finished HTML."""
    all_attributes = {
        "class": css_class,
        **{key.replace("_", "-"): value for key, value in attributes.items()},
    }
    written = "".join(
        f' {key}="{html.escape(value)}"' for key, value in all_attributes.items() if value
    )
    return f"<{tag}{written}>{content}</{tag}>"


def paragraph(content: str, css_class: str = "") -> str:
    """A paragraph of plain words."""
    return element("p", text(content), css_class) if content else ""


def chip(band: str) -> str:
    """The name of a band in its colours."""
    return element("span", text(band), f"chip {band_class(band)}")


def strip(counts: Mapping[str, int]) -> str:
    """How the layers share out over the bands, worst first."""
    label = ", ".join(f"{number} {band}" for band, number in counts.items() if number)
    segments = "".join(
        f'<i class="{band_class(band)}" style="flex:{number}"></i>'
        for band, number in counts.items()
        if number
    )
    return (
        f'<span class="strip" role="img" aria-label="{text(label)}" title="{text(label)}">'
        f"{segments}</span>"
    )


def spark(counts: Sequence[int], bands: Sequence[str], label: str) -> str:
    """A small histogram of channels, each bin in the colour of its band, square-root height."""
    highest = max(1, *counts) ** 0.5
    step = SPARK_WIDTH / len(counts)
    bars = []
    for position, (number, band) in enumerate(zip(counts, bands, strict=True)):
        if number:
            height = max(2.0, (SPARK_HEIGHT - 1) * number**0.5 / highest)
            bars.append(
                f'<rect class="{band_class(band)}" x="{position * step:g}" width="{step - 0.6:g}"'
                f' y="{SPARK_HEIGHT - 1 - height:.4g}" height="{height:.4g}"/>'
            )
    return (
        f'<svg class="spark" role="img" aria-label="{text(label)}" width="{SPARK_WIDTH}"'
        f' height="{SPARK_HEIGHT}" viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}">'
        f"<title>{text(label)}</title>{''.join(bars)}"
        f'<rect class="ground" y="{SPARK_HEIGHT - 1}" width="{SPARK_WIDTH}" height="1"/></svg>'
    )


def legend(limits: Mapping[str, float]) -> str:
    """The bands with their limits."""
    items = []
    for position, band in enumerate(BANDS):
        if position == 0:
            span_text = f"below {limits[BANDS[1]]:g}{NO_BREAK_SPACE}dB"
        elif position == len(BANDS) - 1:
            span_text = f"{limits[band]:g}{NO_BREAK_SPACE}dB and more"
        else:
            span_text = f"{limits[band]:g} to {limits[BANDS[position + 1]]:g}{NO_BREAK_SPACE}dB"
        items.append(
            f'<li><i class="{band_class(band)}"></i><b>{text(band)}</b> {text(span_text)}</li>'
        )
    return element("ul", "".join(items), "legend")


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Terms and finished HTML, one under the other."""
    return element(
        "dl",
        "".join(f"<div><dt>{text(term)}</dt><dd>{value}</dd></div>" for term, value in pairs),
        "facts",
    )


def table(heads: Sequence[tuple[str, str]], rows: Iterable[str], css_class: str) -> str:
    """A table of finished rows under (title, class) heads; it scrolls where it does not fit."""
    head = "".join(element("th", text(title), css, scope="col") for title, css in heads)
    body = "".join(rows)
    return f'<table class="{css_class}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def band_class(band: str) -> str:
    """The CSS class of a band."""
    return band.replace(" ", "-")


def layers_by_band(row: Mapping[str, int]) -> dict[str, int]:
    """How many layers of a row of ``queries.verdicts`` are in each band, worst first."""
    return {band: int(row[f"layers_{band.replace(' ', '_')}"]) for band in BANDS}


def plural(number: int, noun: str) -> str:
    """``24 layers``, for running text."""
    return counted(number, noun).replace(NO_BREAK_SPACE, " ")


def _cut(full_name: str) -> str:
    # The end of a node's name tells more than its beginning.
    return short_name(full_name, LONGEST_NAME)


def _one_line(content: str) -> str:
    # Our own words hold no-break spaces, which count as unprintable.
    return NO_BREAK_SPACE.join(map(printable, content.split(NO_BREAK_SPACE)))
