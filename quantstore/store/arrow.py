"""Records in, rows of a table out, through Arrow: the fastest way in, and the exact one."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    import pyarrow as pa


def load_arrow() -> None:
    """Load the library, which :func:`insert` would otherwise do while the store is locked."""
    import pyarrow as pa

    # Its parts load when they are first used.
    pa.array([0])


def insert(connection: duckdb.DuckDBPyConnection, table: str, columns: "dict[str, Any]") -> None:
    """Append columns to a table by name, through Arrow: the fastest way in, and the exact one."""
    import pyarrow as pa

    arrow = pa.table({name: _arrow(values) for name, values in columns.items()})
    connection.register("incoming", arrow)
    try:
        connection.execute(f"insert into {table} by name select * from incoming")
    finally:
        # After a failure the transaction answers nothing but a rollback.
        with suppress(duckdb.TransactionException):
            connection.unregister("incoming")


def _arrow(values: Any) -> "pa.Array":
    """An Arrow array; NaN and infinities, which mean "not defined", become NULL."""
    import numpy as np
    import pyarrow as pa

    if isinstance(values, np.ndarray):
        undefined = ~np.isfinite(values) if values.dtype.kind == "f" else None
        return pa.array(values, mask=undefined)
    if values and isinstance(values[0], np.ndarray):
        offsets = np.cumsum([0, *(len(value) for value in values)])
        return pa.LargeListArray.from_arrays(
            pa.array(offsets, pa.int64()), _arrow(np.concatenate(values))
        )
    if isinstance(next((value for value in values if value is not None), None), float):
        return _arrow(np.array([np.nan if value is None else value for value in values], float))
    return pa.array(values)


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


def stacked(layers: "Sequence[tuple[int, Any]]") -> "dict[str, Any]":
    """Columns of several layers below one another, with the key of the layer beside each row."""
    import numpy as np

    stacked: dict[str, Any] = {}
    sizes = [len(columns.channel) for _, columns in layers]
    stacked["layer_id"] = np.repeat(np.array([i for i, _ in layers], dtype=np.int64), sizes)
    for field in dataclasses.fields(layers[0][1]):
        layer_columns = [getattr(columns, field.name) for _, columns in layers]
        if isinstance(layer_columns[0], np.ndarray):
            stacked[field.name] = np.concatenate(layer_columns)
        else:
            stacked[field.name] = np.repeat(np.array(layer_columns, dtype=object), sizes)
    return stacked
