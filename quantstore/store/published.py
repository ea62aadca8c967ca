"""A published folder as a store that is only read: views over the Parquet files of all parts.

A folder holds parts, ``part=NAME/``, each with one file per table (publishing.py writes them).
Keys are made from content, so the union of the parts is their merge: where the same model lies in
two parts, the later measurement counts, and of a run one row. The views on top of the tables are
those of schema.sql, unchanged.
"""

import glob
import re
import threading
from pathlib import Path

import duckdb

from quantstore.errors import StoreError
from quantstore.settings import PUBLISHED_VIEWS, published_folder
from quantstore.store.schema import create_schema, describe_store, hand_down_comments, schema_sql
from quantstore.store.tables import DERIVED, INGESTS, OF_MODELS, Table

# A DuckDB file of the views, for any DuckDB client; it names the folder where it was published.
VIEWS_FILE = PUBLISHED_VIEWS
PARTS = "part=*"
PUBLISHED_TABLES = (*OF_MODELS, *DERIVED, INGESTS)

IS_ONLY_READ = "is a published folder, which can only be read"


def require_writable(path: Path) -> None:
    """Raise where the path is a published folder."""
    if (folder := published_folder(path)) is not None:
        raise StoreError(
            f"{folder} {IS_ONLY_READ}",
            f"write to a store with --db STORE, then run: quantstore publish {folder} --db STORE",
        )


def require_plain_name(folder: Path) -> None:
    """Raise where DuckDB would take the name of the folder for a pattern."""
    if glob.has_magic(str(folder)):
        raise StoreError(
            f"{folder} has *, ? or [ in its path", "name a folder without these characters"
        )


_OPEN: dict[Path, duckdb.DuckDBPyConnection] = {}
_OPEN_LOCK = threading.Lock()


def shared_views(
    folder: Path, config: dict[str, str | bool | int | float | list[str]]
) -> duckdb.DuckDBPyConnection:
    """A cursor on the views of a folder, in memory: made once for each process, locked by nobody.

    Parts that are published later show up in the next statement.
    """
    folder = folder.resolve()
    with _OPEN_LOCK:
        if folder not in _OPEN:
            connection = duckdb.connect(":memory:", config=config)
            create_views(connection, folder)
            _OPEN[folder] = connection
        return _OPEN[folder].cursor()


def fenced_views(
    folder: Path, config: dict[str, str | bool | int | float | list[str]]
) -> duckdb.DuckDBPyConnection:
    """The views in a database of their own that reads this folder and reaches nothing else.

    DuckDB would let it write there as well: whoever uses this lets only a SELECT through
    (:func:`quantstore.store.statements.only_select`), in a process that may write no file.
    """
    folder = folder.resolve()
    connection = duckdb.connect(":memory:", config=config | {"enable_external_access": True})
    create_views(connection, folder)
    statement = f"set allowed_directories = [{_literal(str(folder))}]"
    connection.execute(statement)
    connection.execute("set enable_external_access = false")
    return connection


def create_views(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Make a view for every table whose rows are in the parts of a folder, and all other views."""
    require_plain_name(folder)
    tables = {table.name: table for table in PUBLISHED_TABLES}
    columns = _columns()
    connection.execute("begin")
    connection.execute("create schema parts")
    for name in tables:
        files = _literal(f"{folder}/{PARTS}/{name}.parquet")
        statement = (
            f"create view parts.{name} as from read_parquet({files}, union_by_name = true,"
            " hive_partitioning = true, hive_types = {'part': varchar})"
        )
        connection.execute(statement)
    connection.execute(_LOSING)
    for parsed in connection.extract_statements(schema_sql()):
        statement = parsed.query
        created = re.search(r"^create table (\w+)", statement, re.MULTILINE)
        if created is not None and created[1] in tables:
            statement = _view_of(tables[created[1]], columns[created[1]])
        described = re.search(r"^comment on table (\w+)", statement, re.MULTILINE)
        if described is not None and described[1] in tables:
            statement = statement.replace("comment on table", "comment on view", 1)
        connection.execute(statement)
    hand_down_comments(connection)
    describe_store(connection)
    connection.execute("commit")


# What counts less than another row of the same key: the key, and the part that it lies in. The
# probe is a part of the measurement of a model; any other run stands for itself.
_LOSING = """
    create view parts.losing_models as
    select model_id, part
    from parts.models
    qualify row_number() over (
        partition by model_id
        order by measures_version desc, ingested_at desc, published_at desc, part desc
    ) > 1;

    create view parts.losing_layers as
    select layer_id, part
    from parts.layers
    semi join parts.losing_models using (model_id, part);

    create view parts.losing_simulations as
    select simulation_id, part
    from parts.simulations
    where input_source <> 'noise'
    qualify row_number() over (partition by simulation_id order by part desc) > 1
    union all
    select simulation_id, part
    from parts.simulations
    semi join parts.losing_models using (model_id, part)
    where input_source = 'noise';

    create view parts.losing_rescues as
    select rescue_id, part
    from parts.rescues
    qualify row_number() over (partition by rescue_id order by part desc) > 1;

    create view parts.losing_audits as
    select audit_id, part
    from parts.audits
    qualify row_number() over (partition by audit_id order by part desc) > 1;

    create view parts.losing_ingests as
    select ingest_id, part
    from parts.ingests
    qualify row_number() over (partition by ingest_id order by part desc) > 1;
"""

# Of several models of one name the first keeps it, as in an import.
_NAME = """
    case
        when row_number() over (partition by model order by ingested_at, model_id) = 1 then model
        else concat(
            model,
            '-',
            left(sha256, 8),
            case
                when row_number() over (
                    partition by model, sha256 order by ingested_at, model_id
                ) > 1 then '-2'
            end
        )
    end as model
"""


def _view_of(table: Table, columns: list[str]) -> str:
    leading, parent = next(iter(table.pointers().items()))
    listed = ", ".join(
        _NAME if (table.name, column) == ("models", "model") else f'"{column}"'
        for column in columns
    )
    return (
        f"create view {table.name} as select {listed} from parts.{table.name}"
        f" anti join parts.losing_{parent} using ({leading}, part)"
    )


def _columns() -> dict[str, list[str]]:
    """The columns of each table, as schema.sql has them."""
    with duckdb.connect(":memory:") as fresh:
        create_schema(fresh)
        rows = fresh.execute(
            "select table_name, list(column_name order by column_index) from duckdb_columns()"
            " where not internal group by table_name"
        ).fetchall()
    return dict(rows)


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'"
