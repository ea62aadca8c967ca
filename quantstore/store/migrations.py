"""Bring a store of an earlier release to the schema of this one, or of one with fewer measures.

There is one description of the schema, schema.sql, and no list of changes beside it: tables that
look as it says stay untouched, others are made anew and get their rows back by the names of
columns, a new column its default or what is known of earlier releases (``_KNOWN_OF_EARLIER``).
Views and comments are always made anew. Keys were numbers once, counted in each store: those are
replaced by keys from content (keys.py). Tables and views that somebody added to the file stay as
they are. Models that lack a measure are marked to be measured anew when they are ingested again.
"""

import logging
import re
import time
from contextlib import suppress
from pathlib import Path

import duckdb

from quantstore.errors import StoreError
from quantstore.schemes import INT8_SCHEMES, TARGETS, target_of
from quantstore.store.keys import CONTENT, KEY_COLUMNS, key_of
from quantstore.store.rows import DB_DECIMALS
from quantstore.store.schema import (
    SCHEMA_VERSION,
    STORAGE_VERSION,
    fill_registries,
    hand_down_comments,
    lacking_measures,
    now,
    schema_sql,
)
from quantstore.store.tables import DERIVED, INGESTS, OF_MODELS
from quantstore.store.totals import renew_totals
from quantstore.version import __version__

logger = logging.getLogger(__name__)

NO_COPY = "was not updated, because it cannot be copied first"

# Every statement of schema.sql starts in one of these ways, or is a comment on what they made.
_CREATION = re.compile(r"^(?:create|insert) (?P<kind>table|sequence|view|into) (?P<name>\w+)", re.M)


# A run of an earlier release named a scheme and a mode. With other ranges than the smallest and the
# largest value it was for no target.
_WHENS = " ".join(
    f"when scheme = '{target.scheme.name}' and mode = '{target.mode}' then '{target.name}'"
    for target in TARGETS.values()
    if target_of(target.scheme.name, target.mode) == target.name
)
_TARGET_OF_KEPT = f"case {_WHENS} end"
# What is known of rows that lack a column, by table and column: expressions over the row.
_KNOWN_OF_EARLIER = {
    "models": {
        "file_format": (
            "case when lower(source) like '%.tflite' then 'TensorFlow Lite' else 'ONNX' end"
        ),
    },
    "simulations": {
        "target": (
            "case when input_source = 'noise' or coalesce(calibration, 'minmax') = 'minmax'"
            f" then {_TARGET_OF_KEPT} end"
        ),
        "deciding_sqnr_db": "output_sqnr_db",
    },
    "sensitivities": {
        "target": _TARGET_OF_KEPT,
        "unit": "(select layer from kept_layers where kept_layers.layer_id = kept.layer_id)",
        "unit_kind": "'layer'",
    },
}  # Stores of earlier schemas counted their keys.
_FIRST_WITH_KEYS_FROM_CONTENT = 8

_ROUNDED = f"round(columns('_db$'), {DB_DECIMALS}) as '\\0'"
_BY_SCHEME = ",\n".join(
    f"round(max(sqnr_db) filter (scheme = '{name}'), {DB_DECIMALS}) as {name}_sqnr_db,"
    f" max(zeroed_fraction) filter (scheme = '{name}') as {name}_zeroed_fraction"
    for name in INT8_SCHEMES
)
_IS_WHOLE = " and ".join(
    f"abs({fraction} * n - round({fraction} * n)) < 1e-6"
    for fraction in (f"coalesce({name}_zeroed_fraction, 0)" for name in INT8_SCHEMES)
)
_ZEROED_COUNTS = ", ".join(
    f"round({name}_zeroed_fraction * nonzero_count)::bigint as {name}_zeroed_count, {name}_sqnr_db"
    for name in INT8_SCHEMES
)
# Tables that take the place of others, whose names are views now: a query for their rows.
_FORMER = {
    "stored_errors": (
        f"select columns(lambda name: not ends_with(name, '_db')), {_ROUNDED} from main.errors"
    ),
    # How many weights of a channel are not 0 is not known. With the smallest number that makes a
    # whole number of every share, the shares stay what they were.
    "stored_channels": f"""
        with by_scheme as (
            select layer_id, channel, {_BY_SCHEME}
            from main.channel_errors
            group by layer_id, channel
        ),
        counted as (
            select
                channels.* exclude (weight_range),
                by_scheme.* exclude (layer_id, channel),
                kept_layers.weight_count // kept_layers.channel_count as n,
                case
                    when {_IS_WHOLE} then n
                    else coalesce(list_min(list_filter(range(1, n), lambda n: {_IS_WHOLE})), n)
                end as nonzero_count
            from main.channels
            join kept_layers using (layer_id)
            left join by_scheme using (layer_id, channel)
        )
        select *, {_ZEROED_COUNTS}
        from counted
        order by layer_id, channel
        """,
    "stored_clipping": f"""
        select
            layer_id, bits, measure,
            thresholds[1] as lowest_threshold,
            list_position(thresholds, best_threshold) as best_point,
            list_transform(sqnr_db, lambda db: round(db, {DB_DECIMALS})) as sqnr_db
        from main.clipping
        """,
}


def migrate(connection: duckdb.DuckDBPyConnection, path: Path, version: int) -> Path:
    """Keep a copy of the store, then change it in one transaction.

    Args:
        connection: the store, open for writing, outside a transaction; nobody else can write.
        version: the schema version that it has.

    Returns:
        The copy, beside the store.

    Raises:
        StoreError: there is no room for the copy, or the change failed; the store is as it was.
    """
    started = time.perf_counter()
    backup = back_up(connection, path, version)
    connection.execute("begin")
    try:
        _rebuild(connection, version)
        connection.execute("commit")
    except BaseException as error:
        with suppress(duckdb.Error):
            connection.execute("rollback")
        if isinstance(error, duckdb.Error):
            raise StoreError(
                f"{path} was not updated and is as before: {_first_line(error)}",
                f"keep it, and the copy {backup}, and report this as a bug of quantstore",
            ) from error
        raise
    logger.info(
        "brought %s of schema %d up to date with schema %d in %.3f s; as it was: %s",
        path,
        version,
        SCHEMA_VERSION,
        time.perf_counter() - started,
        backup,
    )
    return backup


def back_up(connection: duckdb.DuckDBPyConnection, path: Path, version: int) -> Path:
    """Copy the open store into a file beside it that did not exist before.

    DuckDB copies: reading the file as a file would drop DuckDB's lock on it, and miss its log.
    """
    name = f"{path.name}.schema-{version}.backup"
    unfinished = path.with_name(f"{name}.unfinished")
    # Only whoever holds the store makes these, so that one was left by a process that was killed.
    number = 1
    backup = path.with_name(name)
    while backup.exists():
        number += 1
        backup = path.with_name(f"{name}-{number}")
    try:
        _remove(unfinished)
        _copy(connection, unfinished)
        unfinished.rename(backup)
    except (duckdb.Error, OSError) as error:
        with suppress(OSError):
            _remove(unfinished)
        raise StoreError(
            f"{path} {NO_COPY}: {_first_line(error)}",
            "free some space there, or move the store to a folder that you may write to",
        ) from error
    return backup


def _copy(connection: duckdb.DuckDBPyConnection, target: Path) -> None:
    ((name,),) = connection.execute("select current_database()").fetchall()
    database = _quoted(name)
    connection.execute(
        f"attach ? as backup (read_write, storage_version '{STORAGE_VERSION}')", [str(target)]
    )
    try:
        connection.execute(f"copy from database {database} to backup")
    finally:
        connection.execute("detach backup")


def _remove(unfinished: Path) -> None:
    for leftover in (unfinished, unfinished.with_name(f"{unfinished.name}.wal")):
        leftover.unlink(missing_ok=True)


def _rebuild(connection: duckdb.DuckDBPyConnection, version: int) -> None:
    statements = [statement.query for statement in connection.extract_statements(schema_sql())]
    comments = [statement for statement in statements if _CREATION.search(statement) is None]
    creations = [creation for creation in map(_CREATION.search, statements) if creation is not None]
    lacks_measures = bool(lacking_measures(connection))
    stored_tables = _tables(connection)
    views = {
        creation["name"]: creation.string for creation in creations if creation["kind"] == "view"
    }
    for name in views:
        if name not in stored_tables:
            connection.execute(f"drop view if exists {name}")
    with duckdb.connect(":memory:") as fresh:
        for creation in creations:
            fresh.execute(creation.string)
        schema_tables = _tables(fresh)
        columns = {table: _columns(fresh, table) for table in schema_tables}
    staying = {
        table
        for table in stored_tables.keys() & schema_tables.keys()
        if stored_tables[table] == schema_tables[table]
    }
    # In the order of schema.sql: parents come before their children.
    to_refill = [
        creation["name"]
        for creation in creations
        if creation["kind"] == "table"
        and creation["name"] in stored_tables
        and creation["name"] not in staying
    ]
    for table in to_refill:
        connection.execute(f"create temporary table kept_{table} as from main.{table}")
        connection.execute(f"drop table main.{table}")

    for creation in creations:
        # A table that had rows keeps them: bands, for example, may have been changed by somebody.
        is_there = creation["name"] in (stored_tables if creation["kind"] == "into" else staying)
        if creation["kind"] != "view" and not is_there:
            connection.execute(creation.string)

    keys_were_counted = version < _FIRST_WITH_KEYS_FROM_CONTENT
    for table in to_refill:
        _refill(connection, table, columns[table], keys_were_counted=keys_were_counted)
    for table in _FORMER.keys() - stored_tables.keys():
        _take_over(connection, table, columns[table])
    for table in to_refill:
        connection.execute(f"drop table temp.kept_{table}")
    if keys_were_counted:
        for table in CONTENT:
            connection.execute(f"drop table if exists temp.keys_of_{table}")
            sequence = f"{table.removesuffix('s')}_ids"
            connection.execute(f"drop sequence if exists main.{sequence}")
    for name, statement in views.items():
        if name in stored_tables:
            # Another table has its rows by now.
            connection.execute(f"drop table main.{name}")
        connection.execute(statement)
    _renew_comments(connection, comments, staying)
    fill_registries(connection)
    renew_totals(connection)
    if lacks_measures:
        connection.execute("update models set measures_version = 0")
    connection.executemany(
        "insert or replace into store_info values (?, ?)",
        [
            ["schema_version", str(SCHEMA_VERSION)],
            ["updated_by", f"quantstore {__version__}"],
            ["updated_at", now()],
        ],
    )


def _take_over(connection: duckdb.DuckDBPyConnection, table: str, columns: list[str]) -> None:
    """Fill a new table with the rows of those that it takes the place of, all of layers.

    They had counted keys whenever they were written.
    """
    statement = _FORMER[table]
    cursor = connection.execute(f"from ({statement}) limit 0")
    names = [name for name, *_ in cursor.description or () if name in columns]
    listed = ", ".join("from_content as layer_id" if name == "layer_id" else name for name in names)
    connection.execute(
        f"insert into {table} by name select {listed} from ({statement}) as former"
        " join keys_of_layers on counted = former.layer_id"
    )


def _refill(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    columns: list[str],
    *,
    keys_were_counted: bool,
) -> None:
    """Give a table that was made anew the rows that were kept of it."""
    kept_columns = _columns(connection, f"kept_{table}")
    expressions = {
        column: f"kept.{_quoted(column)}" for column in kept_columns if column in columns
    }
    for column, expression in _KNOWN_OF_EARLIER.get(table, {}).items():
        if column not in kept_columns:
            expressions[column] = expression
    rows = f"kept_{table} as kept"
    pointers = _POINTERS.get(table, {}) if keys_were_counted else {}
    # A key is made of keys of parents: its own column comes last. A row that belongs to nothing,
    # for somebody deleted its parent by hand, stays behind.
    parents = [column for column in pointers if pointers[column] != table]
    for column in (*parents, *(pointers.keys() - parents)):
        parent = pointers[column]
        if parent == table:
            _make_keys(connection, table, expressions, rows)
        rows += f" {'' if column in parents[:1] else 'left '}join keys_of_{parent} as by_{column}"
        rows += f" on by_{column}.counted = kept.{column}"
        expressions[column] = f"by_{column}.from_content"
    listed = ", ".join(
        f"{expression} as {_quoted(column)}" for column, expression in expressions.items()
    )
    statement = f"insert into {table} by name select {listed} from {rows}"
    connection.execute(statement)


_POINTERS = {table.name: table.pointers() for table in (*OF_MODELS, *DERIVED, INGESTS)}


def _make_keys(
    connection: duckdb.DuckDBPyConnection, table: str, expressions: dict[str, str], rows: str
) -> None:
    """The keys from content of a table whose rows were counted, in ``keys_of_<table>``."""
    import numpy as np

    listed = ", ".join(expressions[column] for column in (KEY_COLUMNS[table], *CONTENT[table]))
    statement = f"select {listed} from {rows}"
    keys = [
        (counted, key_of(table, content))
        for counted, *content in connection.execute(statement).fetchall()
    ]
    counted, from_content = np.array(keys, dtype=np.int64).reshape(-1, 2).T.copy()
    connection.register("made_keys", {"counted": counted, "from_content": from_content})
    connection.execute(f"create temporary table keys_of_{table} as from made_keys")
    connection.unregister("made_keys")


def _renew_comments(
    connection: duckdb.DuckDBPyConnection, comments: list[str], staying: set[str]
) -> None:
    """Forget what the columns of tables that stayed were said to mean, and say it anew."""
    for table in staying:
        for column in _columns(connection, table):
            connection.execute(f"comment on column {table}.{_quoted(column)} is null")
    for comment in comments:
        connection.execute(comment)
    hand_down_comments(connection)


def _tables(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Every table and the statement that would make it, in the words of DuckDB."""
    rows = connection.execute(
        "select table_name, sql from duckdb_tables() where not internal and not temporary"
        " and database_name = current_database() and schema_name = 'main'"
    ).fetchall()
    return dict(rows)


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    rows = connection.execute(
        "select column_name from duckdb_columns() where table_name = ? order by column_index",
        [table],
    ).fetchall()
    return [column for (column,) in rows]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(" .")


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
