"""Small HTML for a notebook. Names are escaped, and shown on one line; nothing comes from outside.

Text has the colour of the notebook. Only a verdict has colours of its own, ink and ground together,
so that it can be read whatever theme the notebook is in.
"""

import html
from collections.abc import Mapping, Sequence

from quantstore.charts.palette import BANDS, DARK, LIGHT, both
from quantstore.errors import printable
from quantstore.wording.units import NO_BREAK_SPACE

# JupyterLab and VS Code say which theme they have; elsewhere the system decides.
_STYLE = """
<style>
.quantstore { color-scheme: light dark }
[data-jp-theme-light="true"] .quantstore, .vscode-light .quantstore { color-scheme: light }
[data-jp-theme-light="false"] .quantstore, .vscode-dark .quantstore { color-scheme: dark }
.quantstore p { margin: .2em 0 }
.quantstore .verdict { border-radius: .3em; padding: .1em .5em; white-space: nowrap }
.quantstore td, .quantstore th { text-align: left; padding: .2em .8em .2em 0 }
.quantstore .number { text-align: right }
.quantstore .more { opacity: .75 }
</style>
"""


def framed(*content: str) -> str:
    """Finished HTML in a frame of its own."""
    return f'{_STYLE}<div class="quantstore">{"".join(content)}</div>'


def text(value: object) -> str:
    """A value as it is, never as markup, on one line."""
    # Our own words hold no-break spaces, which count as unprintable.
    return html.escape(NO_BREAK_SPACE.join(map(printable, str(value).split(NO_BREAK_SPACE))))


def paragraph(content: str, css_class: str = "") -> str:
    """A paragraph of finished HTML."""
    attribute = f' class="{css_class}"' if css_class else ""
    return f"<p{attribute}>{content}</p>"


def verdict_chip(verdict: str) -> str:
    """The word of a verdict in its colours."""
    light, dark = LIGHT.verdicts[verdict], DARK.verdicts[verdict]
    style = f"color:{both(light.ink, dark.ink)};background:{both(light.tint, dark.tint)}"
    return f'<span class="verdict" style="{style}">{text(verdict)}</span>'


def table(columns: Mapping[str, Sequence[str]], *, numbers: frozenset[str] = frozenset()) -> str:
    """A table of finished HTML, by column.

    Args:
        numbers: the columns that are set to the right.
    """

    def row(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="number">{cell}</{tag}>' if name in numbers else f"<{tag}>{cell}</{tag}>"
            for name, cell in zip(columns, cells, strict=True)
        )

    head = f"<tr>{row('th', [text(name) for name in columns])}</tr>"
    body = "".join(f"<tr>{row('td', cells)}</tr>" for cells in zip(*columns.values(), strict=True))
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def layers_by_band(counts: Mapping[str, int]) -> str:
    """``8 broken, 2 fine``: how many layers are in which band, the worst first."""
    return ", ".join(f"{counts[band]:,} {band}" for band in BANDS if counts[band])
