"""Tables of text for any renderer: a column knows its title, its cells and how they sit.

Rows go in, plain text comes out; the app and the report draw the same columns. Names in cells are
printable, and nothing is escaped: that is the renderer's part.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from quantstore.wording.frames import figure_or_none
from quantstore.wording.units import db

Row = Mapping[Any, Any]
# A name wraps and may have a note; a pair is a text above a small one; a chip is a band.
CellStyle = Literal["name", "pair", "chip", "spark", "interval"]
# Where there is nothing to show.
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Spark:
    """A small histogram: ``counts`` by bin, the band of each bin, and what it says in words."""

    counts: tuple[int, ...]
    bands: tuple[str, ...]
    label: str


Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Interval:
    """The ends of a grid and of the values on it, None where unknown; what they say in words."""

    grid: Span | None
    seen: Span | None
    label: str

    @property
    def bars(self) -> tuple[Span | None, Span | None]:
        """Both as start and length, as shares of the whole from the least end to the largest."""
        spans = [span for span in (self.grid, self.seen) if span is not None]
        low, high = min(span[0] for span in spans), max(span[1] for span in spans)
        whole = (high - low) or 1.0

        def bar(span: Span | None) -> Span | None:
            if span is None:
                return None
            return round((span[0] - low) / whole, 4), round((span[1] - span[0]) / whole, 4)

        return bar(self.grid), bar(self.seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one cell says: ``small`` stands below the text, ``band`` takes its place.

    A picture of an ``interval`` stands above both.
    """

    text: str = ""
    small: str = ""
    note: str = ""
    band: str | None = None
    spark: Spark | None = None
    interval: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: how it reads its cell of a row, None for an empty one, and how that is drawn.

    ``is_wide`` columns give way where a table is narrow; ``help`` explains the title.
    """

    title: str
    cell: Callable[[Row], Cell | None]
    style: CellStyle = "pair"
    is_number: bool = False
    is_wide: bool = False
    help: str = ""


def decibels(value: Any) -> Cell:
    """An SQNR out of a frame, NULL where nothing is lost."""
    return Cell(text=db(figure_or_none(value)))


def band_at(band: Any, value: Any) -> Cell:
    """A band, and the SQNR that puts something into it."""
    return Cell(band=str(band), small=db(figure_or_none(value)))


def spark(counts: Sequence[int], limits: Mapping[str, float], most_db: float) -> Spark:
    """A histogram of a layer's channels by SQNR, each bin in the band of its lower edge.

    Args:
        counts: of channels, in bins of one width from 0 dB.
        limits: the lower limit of each band in dB, best band first.
        most_db: where the last bin ends.
    """
    numbers = tuple(int(number) for number in counts)
    width = most_db / len(numbers)
    worst = list(limits)[-1]
    bands = tuple(
        next((band for band, low in limits.items() if position * width >= low), worst)
        for position in range(len(numbers))
    )
    below = sum(number for number, band in zip(numbers, bands, strict=True) if band == worst)
    limit = limits[list(limits)[-2]]
    return Spark(numbers, bands, f"{below:,} of {sum(numbers):,} channels below {limit:g} dB")
