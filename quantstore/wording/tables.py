"""Frames in, text out: a table to read, CSV and JSON to go on with.

The table rounds, groups digits and makes control characters visible. CSV and JSON carry every
digit and no decoration; times are ISO 8601 in UTC in all three. Text that a spreadsheet would run
as a formula gets an apostrophe in CSV; whoever needs it to the letter takes JSON or Parquet.
"""

import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from quantstore.errors import printable

if TYPE_CHECKING:
    import pyarrow as pa

DB_DECIMALS = 1
SIGNIFICANT_DIGITS = 4
# Beyond these, digits say less than a power of ten.
SMALLEST_PLAIN, LARGEST_PLAIN = 1e-4, 1e9


# The name of a column and the text of one of its cells in, the text with colours out.
Paint = Callable[[str, str], str]

# Tables keep so much of a name as tells it from its neighbours.
SHORTEST_TEXT = 24
SHORTEST_HEADER = 8
ELLIPSIS = "…"
# What tabulate puts between two columns, and beside a header (its MIN_PADDING).
_GAP = 2
_HEADER_PADDING = 2


@dataclass(frozen=True, slots=True)
class FittedTable:
    """A table that fits a width: its text, the columns it leaves out, those it shortens."""

    text: str
    left_out: tuple[str, ...] = ()
    shortened: tuple[str, ...] = ()


@dataclass(slots=True)
class _TerminalColumn:
    """A column as text; ``header`` may have several lines."""

    name: str
    header: str
    cells: list[str]
    is_number: bool

    @property
    def cell_width(self) -> int:
        return max(map(_width, self.cells), default=0)

    @property
    def width(self) -> int:
        return max(self.cell_width, _HEADER_PADDING + max(map(_width, self.header.split("\n"))))

    @property
    def least_width(self) -> int:
        """Text can be shortened, a number cannot."""
        return self.width if self.is_number else min(self.width, SHORTEST_TEXT)

    def wrap_header(self) -> None:
        """Break the header at underscores where it is wider than what stands below it."""
        widest = max(self.cell_width - _HEADER_PADDING, SHORTEST_HEADER)
        lines = [""]
        for part in re.findall(r"[^_]+_*|_+", self.header):
            if lines[-1] and len(lines[-1]) + len(part) > widest:
                lines.append("")
            lines[-1] += part
        self.header = "\n".join(lines)

    def shorten(self, width: int) -> None:
        """Cut the middle out of what is wider: names in a network begin alike."""
        header_width = width - _HEADER_PADDING
        lines = [_shortened(line, header_width) for line in self.header.split("\n")]
        self.header = "\n".join(lines)
        self.cells = [_shortened(cell, width) for cell in self.cells]


def to_table(frame: pd.DataFrame, paint: Paint | None = None) -> str:
    """A table for people: columns aligned, numbers short, one line per row."""
    return _drawn(_columns(frame), paint)


def fitted_table(
    frame: pd.DataFrame, width: int, expendable: Sequence[str] = (), paint: Paint | None = None
) -> FittedTable:
    """The same within a width, of which a terminal shows every line on one line.

    Headers are broken first. Where that is not enough, the least important columns are left out
    until the others fit with texts of ``SHORTEST_TEXT`` characters; then texts are shortened in
    the middle, the longest first.

    Args:
        width: in characters.
        expendable: the least important column first; those that are not named follow, from the
            right. One column stays, however narrow the line is.
    """
    columns = _columns(frame)
    if _total(column.width for column in columns) <= width:
        return FittedTable(_drawn(columns, paint))
    for column in columns:
        column.wrap_header()
    ranks = {name: rank for rank, name in enumerate(expendable)}
    leaving = columns[::-1]
    leaving.sort(key=lambda column: ranks.get(column.name, len(ranks)))
    left_out = []
    while len(columns) > 1 and _total(column.least_width for column in columns) > width:
        left_out.append(leaving.pop(0))
        columns = [column for column in columns if column is not left_out[-1]]
    shortened = _shorten_texts(columns, width)
    return FittedTable(_drawn(columns, paint), tuple(column.name for column in left_out), shortened)


def _shorten_texts(columns: list[_TerminalColumn], width: int) -> tuple[str, ...]:
    """Shorten the widest texts until all columns fit; returns the names of those it shortened."""
    texts = [column for column in columns if not column.is_number]
    widths = [column.width for column in texts]
    excess = _total(column.width for column in columns) - width
    least = SHORTEST_TEXT if len(columns) > 1 else SHORTEST_HEADER
    while excess > 0 and max(widths, default=0) > least:
        widths[widths.index(max(widths))] -= 1
        excess -= 1
    shortened = []
    for column, text_width in zip(texts, widths, strict=True):
        if text_width < column.width:
            column.shorten(text_width)
            shortened.append(column.name)
    return tuple(shortened)


def _shortened(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    head, tail = (width - 1) // 3, width - 1 - (width - 1) // 3
    while _width(text[:head]) + _width(text[-tail:]) > width - 1:
        head, tail = (head - 1, tail) if head else (head, tail - 1)
    return f"{text[:head]}{ELLIPSIS}{text[-tail:]}"


def _width(text: str) -> int:
    """How many places of a terminal a text takes: two for each wide letter of East Asia.

    Source: Unicode Standard Annex 11, https://www.unicode.org/reports/tr11/
    """
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def _total(widths: Iterable[int]) -> int:
    """The width of a table of columns."""
    return sum(width + _GAP for width in widths) - _GAP


def _columns(frame: pd.DataFrame) -> list[_TerminalColumn]:
    columns = []
    for number, name in enumerate(map(str, frame.columns)):
        values = _values(frame.iloc[:, number])
        cells = [_cell(value, is_db=name.endswith("_db")) for value in values]
        columns.append(_TerminalColumn(name, printable(name), cells, _holds_numbers(values)))
    return columns


def _drawn(columns: list[_TerminalColumn], paint: Paint | None) -> str:
    from tabulate import tabulate

    if not columns:
        return ""
    cells = [
        column.cells if paint is None else [paint(column.name, cell) for cell in column.cells]
        for column in columns
    ]
    return tabulate(
        list(zip(*cells, strict=True)),
        headers=[column.header for column in columns],
        tablefmt="simple",
        colalign=["right" if column.is_number else "left" for column in columns],
        # Names such as 1e5 or 007 are text, and spaces at their edges belong to them.
        disable_numparse=True,
        preserve_whitespace=True,
    )


def to_csv(frame: pd.DataFrame) -> str:
    """Comma-separated values with a head line; NULL and NaN are empty, a list is its JSON.

    Text that a spreadsheet would run as a formula begins with an apostrophe, in the head as well:
    names of layers come from files that anybody can write.
    """
    text = _UnixLines()
    # The terminator decides what is quoted: a bare carriage return would begin a line as well.
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([_inert(str(name)) for name in frame.columns])
    writer.writerows(_rows(frame, _csv_cell))
    return text.getvalue()


def to_json(frame: pd.DataFrame) -> str:
    """A list of objects, one per row and line; NULL, NaN and infinities are null."""
    names = [str(name) for name in frame.columns]
    lines = [
        json.dumps(dict(zip(names, row, strict=True)), allow_nan=False)
        for row in _rows(frame, _finite)
    ]
    return "[\n  " + ",\n  ".join(lines) + "\n]\n" if lines else "[]\n"


def _rows(frame: pd.DataFrame, cell: Callable[[object], object]) -> list[tuple[object, ...]]:
    columns = [
        [cell(value) for value in _values(frame.iloc[:, number])]
        for number in range(frame.shape[1])
    ]
    return list(zip(*columns, strict=True))


def _values(column: "pd.Series[Any]") -> list[object]:
    """The column as Python's own values, None where there is none."""
    if column.dtype.kind == "M":
        times = column.dt.tz_convert("UTC") if column.dt.tz is not None else column
        return [None if pd.isna(moment) else _iso(moment) for moment in times]
    is_plain = column.dtype.kind in "biuf" or isinstance(column.dtype, pd.StringDtype)
    if is_plain and not column.hasnans:
        return column.tolist()
    return [_plain(value) for value in column.tolist()]


def _plain(value: object) -> object:
    """Nothing but None, bool, int, float, str, list and dict, at every depth."""
    if isinstance(value, str):
        return value
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, bool | int):
        return value
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, datetime):
        return _iso(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def _iso(moment: datetime) -> str:
    """``2026-11-23T04:09:13Z``, with a fraction where there is one; times in a store are UTC."""
    try:
        return moment.replace(tzinfo=None).isoformat() + "Z"
    except NotImplementedError:
        # Before the year 1 and after 9999, where infinity lies, too.
        return f"{pd.Timestamp(moment).asm8}Z"


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value


# What makes a cell a formula, or leads to one; the wide forms count where people write Japanese.
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)


def _inert(text: str) -> str:
    """The text as it is, unless a spreadsheet would run it: then behind an apostrophe."""
    is_formula = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text


class _UnixLines(io.StringIO):
    """Text of which every line that is written ends in a line feed only."""

    def write(self, line: str) -> int:
        return super().write(line.removesuffix("\r\n") + "\n")


def _csv_cell(value: object) -> object:
    if isinstance(value, str):
        return _inert(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)
    return value


def _holds_numbers(values: list[object]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in present
    )


def _cell(value: object, *, is_db: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _short(value, is_db=is_db)
    if isinstance(value, list | dict):
        return printable(json.dumps(value, ensure_ascii=False))
    return printable(str(value))


def _short(value: float, *, is_db: bool) -> str:
    if not math.isfinite(value):
        return str(value)
    if is_db:
        # Adding zero turns a -0.0 into 0.0.
        return f"{round(value, DB_DECIMALS) + 0.0:.{DB_DECIMALS}f}"
    size = abs(value)
    if value and not SMALLEST_PLAIN <= size < LARGEST_PLAIN:
        return f"{value:.{SIGNIFICANT_DIGITS}g}"
    whole_digits = math.floor(math.log10(size)) + 1 if size >= 1 else 0
    if whole_digits >= SIGNIFICANT_DIGITS:
        return f"{value:,.0f}"
    return f"{value:.{SIGNIFICANT_DIGITS}g}"


def write_parquet(table: "pa.Table", path: "Path | IO[bytes]") -> None:
    """Write an answer's rows, exact and with their types, as a Parquet file."""
    from pyarrow import parquet

    parquet.write_table(table, path)
