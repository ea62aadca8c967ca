"""Names and lists, fit for a line of HTML, Markdown or plain text."""

import html
from collections.abc import Sequence

from quantstore.errors import printable
from quantstore.wording.units import NO_BREAK_SPACE


def visible_lines(text: str) -> str:
    """A text of several lines, with every other control character made visible."""
    return "\n".join(map(printable, text.split("\n")))


def breakable(name: str) -> str:
    """A node name as safe HTML that may break after a slash, dot or underscore, never elsewhere."""
    pieces: list[str] = []
    for character in name:
        pieces.append(html.escape(character))
        if character in "/._":
            pieces.append("<wbr>")
    return "".join(pieces)


def markdown(text: str) -> str:
    """Text that Markdown shows as itself: every character it could read as a sign is escaped."""
    # Our own words hold no-break spaces, which count as unprintable.
    visible = NO_BREAK_SPACE.join(map(printable, text.split(NO_BREAK_SPACE)))
    return "".join(f"\\{c}" if c in _MARKDOWN_SIGNS else c for c in visible)


_MARKDOWN_SIGNS = frozenset("\\`*_{}[]()<>#+-.!|~$:&=^\"'/@")


def short_name(name: str, length: int = 28) -> str:
    """The end of a long node name, for a label inside a chart; tables never shorten names."""
    return name if len(name) <= length else "…" + name[-(length - 1) :]


def listed(items: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join((", ".join(items[:-1]), items[-1])) if len(items) > 1 else "".join(items)
