"""The shape of the file: its version, its tables and views, their comments."""

from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import duckdb

from quantstore import __version__
from quantstore.errors import DamagedStoreError, NewerStoreError
from quantstore.schemes import SCHEMES

SCHEMA_VERSION = 2


def is_empty(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the file holds no table at all."""
    return not connection.execute("from duckdb_tables() where not internal").fetchall()


def require_our_schema(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Raise where the file is no store of ours, or newer than this release."""
    try:
        rows = connection.execute(
            "select value from store_info where key = 'schema_version'"
        ).fetchall()
    except duckdb.CatalogException:
        rows = []
    if not rows or not rows[0][0].isdigit():
        raise DamagedStoreError(
            f"{path} is a DuckDB database, but not a quantstore", "name another file with --db"
        )
    if int(rows[0][0]) > SCHEMA_VERSION:
        raise NewerStoreError(
            f"{path} has schema {rows[0][0]}, quantstore {__version__} knows {SCHEMA_VERSION}"
        )


def create_schema(connection: duckdb.DuckDBPyConnection) -> None:
    """Make every table and view, with their comments, in the open transaction."""
    connection.execute(resources.files("quantstore").joinpath("schema.sql").read_text("utf-8"))
    _hand_down_comments(connection)
    connection.executemany(
        "insert into store_info values (?, ?)",
        [
            ["schema_version", str(SCHEMA_VERSION)],
            ["created_by", f"quantstore {__version__}"],
            ["created_at", datetime.now(UTC).isoformat(timespec="seconds")],
        ],
    )
    connection.executemany(
        "insert into schemes values (?, ?, ?, ?, ?, ?, ?)",
        [
            [s.name, s.format, s.bits, s.granularity, s.is_symmetric, s.clip, s.description]
            for s in SCHEMES.values()
        ],
    )


def _hand_down_comments(connection: duckdb.DuckDBPyConnection) -> None:
    """Give a column without a comment the comment of the table column of the same name."""
    uncommented = connection.execute(
        """
        with columns as (
            select table_name, column_name, comment, view_name is not null as is_view
            from duckdb_columns()
            left join (select view_name from duckdb_views() where not internal)
                on view_name = table_name
            where not internal and schema_name = 'main' and database_name = current_database()
        ),
        meanings as (
            select column_name, first(comment) as meaning
            from columns
            where comment is not null and not is_view
            group by column_name
        )
        select table_name, column_name, is_view, meaning
        from columns
        join meanings using (column_name)
        where comment is null
        """
    ).fetchall()
    for table, column, _, meaning in uncommented:
        quoted = meaning.replace("'", "''")
        connection.execute(f'comment on column "{table}"."{column}" is \'{quoted}\'')
