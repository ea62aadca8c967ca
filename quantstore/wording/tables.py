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
from collections.abc import Callable
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


def to_table(frame: pd.DataFrame) -> str:
    """A table for people: columns aligned, numbers short, one line per row."""
    from tabulate import tabulate

    names = [str(name) for name in frame.columns]
    columns = [_values(frame.iloc[:, number]) for number in range(len(names))]
    are_numbers = [_holds_numbers(values) for values in columns]
    cells = [
        [_cell(value, is_db=name.endswith("_db")) for value in values]
        for name, values in zip(names, columns, strict=True)
    ]
    if not names:
        return ""
    return tabulate(
        list(zip(*cells, strict=True)),
        headers=[printable(name) for name in names],
        tablefmt="simple",
        colalign=["right" if is_number else "left" for is_number in are_numbers],
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
