"""Records in, rows of a table out: one by one, or many through numpy arrays.

Neither pandas nor pyarrow is loaded for it: importing them takes longer than a small model takes.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from quantstore.records import Array


# Up to so many cells, rows that DuckDB converts one by one are written sooner than columns that it
# plans a statement for.
FEW_CELLS = 20_000

# What is kept of a SQNR of the weights.
DB_DECIMALS = 3


def load_numpy() -> None:
    """Load the library, which :func:`insert` would otherwise do while the store is locked."""
    import numpy.ma  # noqa: F401


def may_be_infinite(table: str, column: str) -> bool:
    """Whether infinity has a meaning of its own: in audits, where nothing is lost.

    There NULL means that a value was not measured.
    """
    return table.startswith("audit") and column.endswith("_db")


def insert(connection: duckdb.DuckDBPyConnection, table: str, columns: "dict[str, Any]") -> None:
    """Append columns to a table by name.

    Args:
        columns: all of one length, each an array or a list. What a list holds is a number, a bool,
            text, a date, bytes, an array, a sequence of text or of numbers, or None. NaN, which
            means "not defined", becomes NULL, and so do infinities unless the column keeps them:
            see :func:`may_be_infinite`.
    """
    samples = [
        next((value for value in values if value is not None), None) for values in columns.values()
    ]
    holds_sequences = any(isinstance(sample, list | tuple | bytes) for sample in samples)
    if holds_sequences or sum(map(_cell_count, columns.values())) <= FEW_CELLS:
        _append(connection, table, columns)
    else:
        _insert_many(connection, table, columns)


def _cell_count(values: Any) -> int:
    import numpy as np

    holds_arrays = len(values) > 0 and isinstance(values[0], np.ndarray)
    return sum(map(len, values)) if holds_arrays else len(values)


def _append(connection: duckdb.DuckDBPyConnection, table: str, columns: "dict[str, Any]") -> None:
    cells = [
        _cells(values, has_infinities=may_be_infinite(table, name))
        for name, values in columns.items()
    ]
    with connection.appender(table, columns=list(columns)) as appender:
        appender.append_rows(zip(*cells, strict=True))


def _cells(values: Any, *, has_infinities: bool) -> "Iterable[Any]":
    import numpy as np

    if has_infinities:
        return [None if math.isnan(value) else value for value in values]
    return _plain(values) if isinstance(values, np.ndarray) else map(_plain, values)


def _plain(cell: Any) -> Any:
    """A cell as Python has it; None where it is not defined."""
    import numpy as np

    if isinstance(cell, np.ndarray):
        return list(map(_plain, cell.tolist())) if cell.dtype.kind == "f" else cell.tolist()
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _insert_many(
    connection: duckdb.DuckDBPyConnection, table: str, columns: "dict[str, Any]"
) -> None:
    """Append columns of arrays, numbers, text and dates, which DuckDB reads where they lie."""
    import numpy as np

    incoming: dict[str, Array] = {}
    expressions, joins = [], []
    with ExitStack() as registered:
        # Objects are text. DuckDB would otherwise guess a type from a sample of them.
        connection.execute("set pandas_analyze_sample = 0")
        for name, values in columns.items():
            if isinstance(values[0], np.ndarray):
                # numpy has no column of lists: every item has a row of its own on the way.
                _register(connection, registered, f"items_of_{name}", _items(values))
                joins.append(
                    f"left join (select incoming_row, list(item order by place) as {name}"
                    f" from items_of_{name} group by incoming_row) using (incoming_row)"
                )
                incoming["incoming_row"] = np.arange(len(values))
                expressions.append(f"coalesce({name}, []) as {name}")
            else:
                incoming[name] = _column(values, has_infinities=may_be_infinite(table, name))
                expressions.append(name)
        _register(connection, registered, "incoming", incoming)
        if joins:
            # A join may bring the rows in any order.
            joins.append("order by incoming_row")
        listed, joined = ", ".join(expressions), " ".join(joins)
        connection.execute(f"insert into {table} by name select {listed} from incoming {joined}")


def _register(
    connection: duckdb.DuckDBPyConnection,
    registered: ExitStack,
    name: str,
    columns: "dict[str, Array]",
) -> None:
    """Let statements read columns under a name until ``registered`` is closed."""
    connection.register(name, columns)

    def unregister() -> None:
        # After a failure the transaction answers nothing but a rollback.
        with suppress(duckdb.TransactionException):
            connection.unregister(name)

    registered.callback(unregister)


def _items(arrays: "Sequence[Array]") -> "dict[str, Array]":
    """The items of arrays below one another, with the row and the place of each."""
    import numpy as np

    items = np.concatenate(arrays)
    return {
        "incoming_row": np.repeat(np.arange(len(arrays)), [len(array) for array in arrays]),
        "place": np.arange(len(items)),
        "item": _column(items),
    }


def _column(values: Any, *, has_infinities: bool = False) -> "Array":
    """An array as DuckDB reads it, with a mask where a value is missing or not defined."""
    import numpy as np

    if isinstance(values, np.ndarray):
        column, is_missing = values, np.zeros(len(values), dtype=np.bool_)
    else:
        is_missing = np.array([value is None for value in values], dtype=np.bool_)
        present = [value for value in values if value is not None]
        if not present or isinstance(present[0], str | datetime):
            column = np.empty(len(values), dtype=object)
            column[:] = values
            return column
        dense = np.array(present)
        column = np.zeros(len(values), dtype=dense.dtype)
        column[~is_missing] = dense
    if column.dtype.kind == "f":
        is_missing |= np.isnan(column) if has_infinities else ~np.isfinite(column)
    return np.ma.MaskedArray(column, mask=is_missing) if is_missing.any() else column


def columns_of(records: Sequence[Any]) -> dict[str, list[Any]]:
    """Records as columns, by the name of their fields; a mapping is a column for each key.

    Fields that belong to other tables (``records.NO_COLUMN``) are left out.
    """
    columns: dict[str, list[Any]] = {}
    for field in dataclasses.fields(records[0]):
        if not field.metadata.get("is_column", True):
            continue
        values = [getattr(record, field.name) for record in records]
        if isinstance(values[0], Mapping):
            columns |= {name: [figures[name] for figures in values] for name in values[0]}
        else:
            columns[field.name] = values
    return columns


def stacked(layers: "Sequence[tuple[int, Mapping[str, Array]]]") -> "dict[str, Array]":
    """Columns of several layers below one another, with the key of the layer beside each row.

    A column that a layer lacks is not defined there.
    """
    import numpy as np

    sizes = [len(columns["channel"]) for _, columns in layers]
    names = dict.fromkeys(name for _, columns in layers for name in columns)
    by_name: dict[str, Array] = {
        name: np.concatenate(
            [
                columns[name] if name in columns else np.full(size, np.nan)
                for (_, columns), size in zip(layers, sizes, strict=True)
            ]
        )
        for name in names
    }
    return by_name | {"layer_id": np.repeat([layer_id for layer_id, _ in layers], sizes)}


def rounded_db(columns: "dict[str, Any]") -> "dict[str, Any]":
    """The columns, with every SQNR to 0.001 dB, which DuckDB keeps in half the room."""
    import numpy as np

    def rounded(values: Any) -> Any:
        if isinstance(values[0], np.ndarray):
            return [curve.round(DB_DECIMALS) for curve in values]
        return np.round(np.asarray(values, dtype=np.float64), DB_DECIMALS)

    in_db = [name for name in columns if name.endswith("_db")]
    return columns | {name: rounded(columns[name]) for name in in_db}
