"""Whether two stores hold the same figures: the largest difference of every column of every table.

``python bench/same_figures.py BEFORE.duckdb AFTER.duckdb`` prints a line for each table whose rows
differ. Ingest the same files into both, before a change of the arithmetic and after it. Decibels
differ by so many dB, other measured numbers by a share of the larger one; everything else is equal
or counted. Times, paths and memory differ in any case.
"""

import sys
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

# What every ingest makes anew.
OF_THE_RUN = {"ingests", "store_info"}
MEASURED = ("FLOAT", "DOUBLE")


def main() -> None:
    """Compare the stores of the command line; fails where rows are missing or counts differ."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    before, after = (duckdb.connect(path, read_only=True) for path in sys.argv[1:])
    tables = before.execute("select table_name from duckdb_tables() order by all").fetchall()
    for (table,) in tables:
        if table not in OF_THE_RUN:
            differences = list(differences_of(before, after, table))
            print(f"{table}: {'; '.join(differences) or 'the same'}")


def differences_of(
    before: duckdb.DuckDBPyConnection, after: duckdb.DuckDBPyConnection, table: str
) -> Iterator[str]:
    """A phrase for each column of a table that is not the same in both stores."""
    columns = before.execute(
        "select column_name, data_type from duckdb_columns() where table_name = ?"
        " and not internal and not starts_with(data_type, 'TIMESTAMP') order by column_index",
        [table],
    ).fetchall()
    keys = [
        name
        for name, data_type in columns
        if not data_type.startswith(MEASURED) and not data_type.endswith("[]")
    ]
    query = "select {} from {} order by {}".format(
        ", ".join(quoted(name) for name, _ in columns),
        quoted(table),
        ", ".join(map(quoted, keys)) or "all",
    )
    rows_before, rows_after = (store.execute(query).fetchall() for store in (before, after))
    if len(rows_before) != len(rows_after):
        yield f"{len(rows_before)} rows became {len(rows_after)}"
        return
    for (name, data_type), old, new in zip(
        columns, zip(*rows_before, strict=True), zip(*rows_after, strict=True), strict=False
    ):
        if not data_type.startswith(MEASURED):
            changed = sum(one != other for one, other in zip(old, new, strict=True))
            if changed:
                yield f"{name}: {changed} of {len(old)} changed"
        elif phrase := largest_difference(flat(old), flat(new), in_db=name.endswith("_db")):
            yield f"{name}: {phrase}"


def largest_difference(
    old: npt.NDArray[np.float64], new: npt.NDArray[np.float64], *, in_db: bool
) -> str:
    """How far the numbers of a column are apart at most; empty where they are equal."""
    if old.shape != new.shape:
        return f"{old.size} numbers became {new.size}"
    is_finite = np.isfinite(old) & np.isfinite(new)
    lost = np.count_nonzero(~is_finite & ~((old == new) | (np.isnan(old) & np.isnan(new))))
    if lost:
        return f"{lost} of {old.size} became infinite, absent or finite"
    gap = np.abs(old[is_finite] - new[is_finite])
    if not gap.any():
        return ""
    if in_db:
        return f"{gap.max():.2g} dB"
    larger = np.maximum(np.abs(old[is_finite]), np.abs(new[is_finite]))
    return f"{(gap[gap > 0] / larger[gap > 0]).max():.2g} of the value"


def flat(values: tuple[Any, ...]) -> npt.NDArray[np.float64]:
    """The numbers of a column, or of its lists; NaN where there is none."""
    lists = (value if isinstance(value, list) else [value] for value in values)
    return np.array([np.nan if n is None else n for numbers in lists for n in numbers], dtype=float)


def quoted(name: str) -> str:
    """An identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


if __name__ == "__main__":
    main()
