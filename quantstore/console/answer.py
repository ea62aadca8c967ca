"""What a statement came to: rows as an Arrow table and as a frame, or a mistake in a sentence."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from quantstore.errors import RejectedQueryError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# Some messages quote the whole value they are about.
LONGEST_SENTENCE = 400


@dataclass(frozen=True)
class Answer:
    """What a statement came to. ``was_cut`` says that there are more rows than were asked for."""

    table: "pa.Table"
    was_cut: bool
    seconds: float

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """The rows as a frame, see :func:`frame_of`."""
        return frame_of(self.table)


def out_of_memory() -> RejectedQueryError:
    """What to say of a statement that wanted more memory than it may have."""
    return RejectedQueryError(
        "the query needs more memory than it may have", "ask for fewer rows or columns at once"
    )


def unique_names(names: list[str]) -> list[str]:
    """The names, each once: ``a``, ``a_1``, ``a_2``."""
    taken = set(names)
    seen: set[str] = set()
    # A statement may ask for a hundred thousand columns: where the count of each name stands.
    numbers: dict[str, int] = {}
    unique = []
    for name in names:
        candidate = name
        if name in seen:
            number = numbers.get(name, 0) + 1
            while (candidate := f"{name}_{number}") in taken:
                number += 1
            numbers[name] = number
            taken.add(candidate)
        seen.add(name)
        unique.append(candidate)
    return unique


def frame_of(table: "pa.Table") -> "pd.DataFrame":
    """Rows as a frame: decimals are numbers, integers with NULLs stay integers (``Int64``)."""
    import pandas as pd

    names = unique_names(table.column_names)
    return pd.DataFrame(
        {name: _series(column) for name, column in zip(names, table.columns, strict=True)}
    )


def _series(column: "pa.ChunkedArray") -> "pd.Series[Any]":
    import pandas as pd
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    elif pa.types.is_decimal(column.type):
        column = _number(column)
    if pa.types.is_integer(column.type) and column.null_count:
        unsigned = pa.types.is_uint64(column.type)
        dtype = pd.UInt64Dtype() if unsigned else pd.Int64Dtype()
        return cast("pd.Series[Any]", column.to_pandas(types_mapper=lambda _: dtype))
    return cast("pd.Series[Any]", column.to_pandas(maps_as_pydicts="lossy"))


def _number(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Decimals as numbers: sums of integers are decimals to Arrow, and integers to a reader.

    Integers that no integer of a frame holds arrive as text, which has every digit.
    """
    import pyarrow as pa

    if column.type.scale != 0:
        return column.cast(pa.float64())
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column.cast(pa.string())


_DUCKDB_ERROR = re.compile(r"(?:[\w ]+ Error: )?(?P<json>\{.*\})", re.DOTALL)


def explained(
    error: RejectedQueryError, sql: str, too_slow: RejectedQueryError | None = None
) -> RejectedQueryError:
    """DuckDB's error as a sentence with a next step, and the place it points to.

    Args:
        error: as :meth:`quantstore.store.Connection.answering` raises it.
        too_slow: what to say where the statement was interrupted.
    """
    match = _DUCKDB_ERROR.fullmatch(str(error))
    if match is None:
        return error
    details = json.loads(match["json"])
    exception_type, message = details["exception_type"], details["exception_message"]
    if exception_type == "INTERRUPT" and too_slow is not None:
        return too_slow
    if exception_type == "Out of Memory" or message.startswith("Arrow Appender"):
        return out_of_memory()
    # What follows the first line is advice, which the hint gives better.
    sentence = (message.strip() or exception_type).splitlines()[0].rstrip("!. ")
    if len(sentence) > LONGEST_SENTENCE:
        sentence = f"{sentence[:LONGEST_SENTENCE]}…"
    position, detail = _position(sql, details.get("location"))
    return RejectedQueryError(f"{sentence}{position}", _hint(details, sentence), detail)


def _position(sql: str, location: str | None) -> tuple[str, str]:
    """Where DuckDB's ``[offset,length]``, in bytes, is: in words, and as a picture."""
    if location is None:
        return "", ""
    offset, length = json.loads(location)
    source = sql.encode()
    if not 0 <= offset <= len(source):
        return "", ""
    before = source[:offset].decode(errors="replace")
    line_number = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1)
    line = sql.split("\n")[line_number - 1].replace("\t", " ")
    spot = source[offset : offset + length].decode(errors="replace").split("\n")[0]
    label = f"line {line_number}: "
    mark = " " * (len(label) + column) + "^" * max(1, len(spot))
    return f", at line {line_number}, column {column + 1}", f"{label}{line}\n{mark}"


READS_THE_STORE_ONLY = "queries can read only the store"
WRITE_VALUES = "write the values into the query"


def _hint(details: dict[str, str], sentence: str) -> str:
    candidates = [name for name in details.get("candidates", "").split(",") if name][:3]
    if candidates:
        *others, last = candidates
        return f"did you mean {', '.join(others)} or {last}?" if others else f"did you mean {last}?"
    if details.get("type") == "Table":
        return "list the tables with: show tables"
    if details.get("error_subtype") == "COLUMN_NOT_FOUND":
        return "list the columns of a table with: describe TABLE"
    if details["exception_type"] == "Permission":
        return READS_THE_STORE_ONLY
    if "read-only mode" in sentence:
        # duckdb loads with it: only where it is said.
        from quantstore.store.statements import ONE_SELECT

        return ONE_SELECT
    if "parameters" in sentence:
        return WRITE_VALUES
    return ""
