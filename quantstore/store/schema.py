"""The shape of the file: its version, its tables and views, their comments."""

import re
import shlex
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import duckdb

from quantstore.errors import DamagedStoreError, MissingStoreError, NewerStoreError, OlderStoreError
from quantstore.numerics.measures import MEASURES, lacking
from quantstore.schemes import INT8_SCHEMES, SCHEMES, TARGETS
from quantstore.store.tables import DERIVED, OF_MODELS
from quantstore.version import __version__

SCHEMA_VERSION = 8

# DuckDB 1.5 clients must be able to open what this release creates.
STORAGE_VERSION = "v1.5.0"


def is_empty(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the file holds no table at all."""
    return not connection.execute("from duckdb_tables() where not internal").fetchall()


def schema_version(connection: duckdb.DuckDBPyConnection) -> int | None:
    """The version of the schema; None where the file is no store of ours."""
    try:
        rows = connection.execute(
            "select value from store_info where key = 'schema_version'"
        ).fetchall()
    except (duckdb.CatalogException, duckdb.BinderException):
        # No such table, or another with other columns.
        return None
    return int(rows[0][0]) if rows and str(rows[0][0]).isdecimal() else None


def require_our_schema(
    connection: duckdb.DuckDBPyConnection, path: Path, *, may_be_older: bool = False
) -> None:
    """Raise where the file is no store of ours, or not of this release."""
    version = schema_version(connection)
    # Only then: DuckDB takes longer to list its tables than to answer from one.
    if version is None and is_empty(connection):
        # A first ingest that was killed, or a store of which nothing was ever committed.
        raise MissingStoreError(f"{path} is an empty database, not a quantstore")
    if version is None:
        raise DamagedStoreError(
            f"{path} is a DuckDB database, but not a quantstore", "name another file with --db"
        )
    if version > SCHEMA_VERSION:
        raise NewerStoreError(
            f"{path} has schema {version}, quantstore {__version__} knows {SCHEMA_VERSION}"
        )
    if version < SCHEMA_VERSION and not may_be_older:
        raise OlderStoreError(
            f"{path} was written by an earlier release (schema {version}, now {SCHEMA_VERSION})",
            _hint_to_update(path),
        )
    if not may_be_older and (names := lacking_measures(connection)):
        raise OlderStoreError(
            f"{path} was written by an earlier release, which did not measure {', '.join(names)}",
            _hint_to_update(path),
        )
    if not may_be_older and lacks_tables(connection):
        raise OlderStoreError(
            f"{path} was written by an earlier release, whose stores have fewer tables",
            _hint_to_update(path),
        )


def _hint_to_update(path: Path) -> str:
    return f"update it, keeping a copy, with: quantstore migrate --db {shlex.quote(str(path))}"


def schema_sql() -> str:
    """The statements that make every table and view, with their comments."""
    sql = resources.files("quantstore.store").joinpath("schema.sql").read_text("utf-8")
    return _REGISTRY_LINE.sub(lambda line: _registry_sql(line["purpose"]), sql)


# A line of schema.sql in whose stead stands something of every measure of a layer, or of every int8
# scheme.
_REGISTRY_LINE = re.compile(
    r"^ *-- (?:numerics/measures|schemes)\.py: (?P<purpose>.+); schema\.py fills it in\.$",
    re.MULTILINE,
)


def _registry_sql(purpose: str) -> str:
    match purpose:
        case "a column for each measure":
            return ",\n".join(
                f"    {measure.column} {measure.type}{'' if measure.may_be_null else ' not null'}"
                for measure in MEASURES.values()
            )
        case "a comment for each measure":
            return "\n".join(
                f"comment on column layers.{measure.column} is {_literal(measure.meaning)};"
                for measure in MEASURES.values()
            )
        case "each measure that stands beside errors":
            return "\n".join(
                f"    layers.{measure.column},"
                for measure in MEASURES.values()
                if measure.beside_errors
            )
        case "columns of each int8 scheme":
            return ",\n".join(
                f"    {name}_sqnr_db float,\n    {name}_zeroed_count bigint"
                for name in INT8_SCHEMES
            )
        case "comments on these columns":
            return "\n".join(
                f"comment on column stored_channels.{name}_sqnr_db is"
                f" 'SQNR of the channel under {name}, in dB; NULL where it is exact.';\n"
                f"comment on column stored_channels.{name}_zeroed_count is"
                f" 'Weights of nonzero_count that come back as 0 under {name};"
                " NULL where it was not measured.';"
                for name in INT8_SCHEMES
            )
        case "the rows of each int8 scheme":
            return "\nunion all\n".join(map(_channel_errors_sql, INT8_SCHEMES)) + ";"
        case _:
            raise ValueError(f"schema.sql asks for {purpose}")


def _channel_errors_sql(scheme: str) -> str:
    return f"""select
    layer_id,
    '{scheme}' as scheme,
    channel,
    round({scheme}_sqnr_db::double, 3) as sqnr_db,
    coalesce({scheme}_zeroed_count / nullif(nonzero_count, 0), 0) as zeroed_fraction
from stored_channels
where {scheme}_zeroed_count is not null"""


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'"


def create_schema(connection: duckdb.DuckDBPyConnection) -> None:
    """Make every table and view, with their comments, in the open transaction."""
    connection.execute(schema_sql())
    hand_down_comments(connection)
    describe_store(connection)


def describe_store(connection: duckdb.DuckDBPyConnection) -> None:
    """Fill the tables that say what this store and this release are."""
    connection.executemany(
        "insert into store_info values (?, ?)",
        [
            *map(list, store_facts().items()),
            ["created_by", f"quantstore {__version__}"],
            ["created_at", now()],
        ],
    )
    fill_registries(connection)


def store_facts() -> dict[str, str]:
    """The rows of ``store_info`` by which a store is one of this schema."""
    return {"schema_version": str(SCHEMA_VERSION)}


def now() -> str:
    """The time as ``store_info`` keeps it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def fill_registries(connection: duckdb.DuckDBPyConnection) -> None:
    """Describe the schemes and targets of this release, and no others."""
    for table, rows in _registries().items():
        listed = ", ".join("?" * len(rows[0]))
        connection.execute(f"delete from {table}")
        connection.executemany(f"insert into {table} values ({listed})", rows)


def lacks_registered(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether a scheme or target of this release is missing, or described in another way."""
    return any(
        not set(connection.execute(f"from {table}").fetchall()) >= set(rows)
        for table, rows in _registries().items()
    )


def _registries() -> dict[str, list[tuple[object, ...]]]:
    """The tables that describe what this release knows, with their rows."""
    return {
        "schemes": [
            (s.name, s.format, s.bits, s.granularity, s.is_symmetric, s.clip, s.description)
            for s in SCHEMES.values()
        ],
        "targets": [
            (
                target.name,
                target.scheme.name,
                target.activations.title if target.activations else None,
                target.placement_title,
                target.description,
            )
            for target in TARGETS.values()
        ],
    }


def lacking_measures(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The measures of this release that the table ``layers`` has no column for."""
    try:
        # Quicker than asking DuckDB what columns it knows.
        cursor = connection.execute("from main.layers limit 0")
    except duckdb.CatalogException:
        # Without that table more is amiss than a measure.
        return []
    return lacking([name for name, *_ in cursor.description or ()])


def lacks_tables(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether tables are missing that were added since the store was made.

    Without ``layers`` it is damaged, which is another matter.
    """
    try:
        connection.execute("from main.layers limit 0")
    except duckdb.CatalogException:
        return False
    listed = ", ".join(f"main.{table.name}" for table in (*OF_MODELS, *DERIVED))
    try:
        # Quicker than asking DuckDB what tables it knows.
        connection.execute(f"select 1 from {listed} limit 0")
    except duckdb.CatalogException:
        return True
    return False


def hand_down_comments(connection: duckdb.DuckDBPyConnection) -> None:
    """Give a column without a comment the comment of the table column of the same name.

    Where several have one, the table that comes first in schema.sql introduces the word.
    """
    tables = re.findall(r"^create table (\w+)", schema_sql(), re.MULTILINE)
    uncommented = connection.execute(
        """
        with columns as (
            select
                table_name,
                column_name,
                comment,
                list_position($tables, table_name) as place
            from duckdb_columns()
            where not internal and schema_name = 'main' and database_name = current_database()
        ),
        meanings as (
            select column_name, first(comment order by place) as meaning
            from columns
            where comment is not null and place > 0
            group by column_name
        )
        select table_name, column_name, meaning
        from columns
        join meanings using (column_name)
        where comment is null
        """,
        {"tables": tables},
    ).fetchall()
    for table, column, meaning in uncommented:
        quoted = _literal(meaning)
        connection.execute(f'comment on column "{table}"."{column}" is {quoted}')
