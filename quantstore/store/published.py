"""A published folder as a store that is only read: views over the Parquet files of all parts.

Keys are made from content, so the union of the parts (parts.py) is their merge: where the same
model lies in two parts, the later measurement counts, and of a run one row. The views on top of the
tables are those of schema.sql, unchanged.
"""

import glob
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from quantstore.errors import RejectedQueryError, StoreError, printable
from quantstore.numerics.measures import MEASURES
from quantstore.settings import PUBLISHED_VIEWS, published_folder
from quantstore.store.parts import DIGESTS, FILES, PUBLISHED_TABLES, PublishedPart, listing
from quantstore.store.schema import describe_store, hand_down_comments, schema_sql
from quantstore.store.statements import JSON_MESSAGE
from quantstore.store.tables import Table

# A DuckDB file of the views, for any other DuckDB client. We only ever write it.
VIEWS_FILE = PUBLISHED_VIEWS
# A column of parts alone: when a writer published the model.
PUBLISHED_AT = "published_at"

IS_ONLY_READ = "is a published folder, which can only be read"
HOLDS_NO_PART = "holds no part that can be read"
CANNOT_BE_READ = "cannot be read"
HAS_OTHER_COLUMNS = "has other columns than this release writes"

MORE_THAN = "more than"
# Of a part. Pages hold a row of every model in memory.
MOST_MODELS = 1_000_000

_MEASURED = frozenset(measure.column for measure in MEASURES.values())

ViewsConfig = dict[str, str | bool | int | float | list[str]]


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


# The views of a process: which folder they read, each cursor says.
_OPEN: dict[str, duckdb.DuckDBPyConnection] = {}
_OPEN_LOCK = threading.Lock()


def shared_views(folder: Path, config: ViewsConfig) -> duckdb.DuckDBPyConnection:
    """A cursor on the views, in memory: made once for each process, locked by nobody.

    It reads the parts that count now, for as long as it is open.
    """
    folder = folder.resolve()
    live = live_parts(folder)
    with _OPEN_LOCK:
        if (views := _OPEN.get(repr(config))) is None:
            _OPEN[repr(config)] = views = views_of(live, config)
        cursor = views.cursor()
    try:
        choose_parts(cursor, live)
    except BaseException:
        cursor.close()
        raise
    return cursor


def fenced_views(folder: Path, config: ViewsConfig) -> duckdb.DuckDBPyConnection:
    """The views in a database of their own that reads this folder and reaches nothing else.

    DuckDB would let it write there as well: whoever uses this lets only a SELECT through
    (:func:`quantstore.store.statements.only_select`), in a process that may write no file.
    """
    folder = folder.resolve()
    connection = views_of(live_parts(folder), config | {"enable_external_access": True})
    statement = f"set allowed_directories = [{_literal(str(folder))}]"
    connection.execute(statement)
    connection.execute("set enable_external_access = false")
    return connection


def live_parts(folder: Path) -> tuple[PublishedPart, ...]:
    """The parts that count now: their union is what the folder holds.

    Raises:
        StoreError: there is none, or one that cannot be read.
    """
    require_plain_name(folder)
    live = listing(folder).live
    if not live:
        raise StoreError(f"{folder} {HOLDS_NO_PART}", "publish into a new folder")
    return live


def views_of(live: Sequence[PublishedPart], config: ViewsConfig) -> duckdb.DuckDBPyConnection:
    """The views in a database of their own, over these parts."""
    connection = duckdb.connect(":memory:", config=config)
    try:
        connection.execute("set enable_progress_bar = false")
        declare_tables(connection)
        choose_parts(connection, live)
        create_views(connection, "getvariable('parts')")
    except BaseException:
        connection.close()
        raise
    return connection


def choose_parts(connection: duckdb.DuckDBPyConnection, live: Sequence[PublishedPart]) -> None:
    """Say which parts the views read on this connection, and on no other cursor."""
    _require_shape(connection, live)
    connection.execute("set variable parts = ?", [[str(part.path) for part in live]])


# Files never change: each is looked at once in a process.
_OF_OUR_SHAPE: set[Path] = set()


def _require_shape(connection: duckdb.DuckDBPyConnection, live: Sequence[PublishedPart]) -> None:
    """Raise where DuckDB would take a file for what it is not.

    It compares every file with the first of a table, column by column. Those of layers may lack
    measures, so that it is told to read NULL for whatever is missing: these are looked at here.
    """
    first, *_ = live
    files = {part.file("layers") for part in live}
    files.update(first.file(Path(name).stem) for name in FILES)
    fresh = sorted(files - _OF_OUR_SHAPE)
    if not fresh:
        return
    declared = declared_columns(connection)
    with translating(first.path.parent):
        rows = connection.execute(
            "select file_name, name, duckdb_type from parquet_schema(?)", [list(map(str, fresh))]
        ).fetchall()
        counts = connection.execute(
            "select file_name, num_rows from parquet_file_metadata(?)",
            [[str(part.file("models")) for part in live]],
        ).fetchall()
    for file, count in counts:
        if count > MOST_MODELS:
            raise StoreError(
                f"{file} holds {count:,} models, {MORE_THAN} {MOST_MODELS:,}",
                "move the part out of the folder",
            )
    present: dict[Path, dict[str, str]] = {file: {} for file in fresh}
    for file, column, data_type in rows:
        # Behind the columns come what lists in them hold.
        present[Path(file)].setdefault(column, data_type)
    for file, columns in present.items():
        for column, data_type in declared[file.stem].items():
            stored = columns.get(column)
            if stored is None and file.stem == "layers" and column in _MEASURED:
                continue
            if stored != data_type:
                wrong = "no such column" if stored is None else stored
                raise StoreError(
                    f"{file} {HAS_OTHER_COLUMNS}: {column} is {data_type}, here {wrong}",
                    "restore the part, or move it out of the folder",
                )
    _OF_OUR_SHAPE.update(fresh)


@contextmanager
def translating(folder: Path) -> Iterator[None]:
    """Say in a sentence what is wrong with the files of a folder."""
    try:
        yield
    except (duckdb.Error, RejectedQueryError) as error:
        reason = _reason(error)
        if _ABOUT_WRITING.search(reason):
            raise
        a_file = (
            rf"[Ff]ile \\?[\"']({re.escape(str(folder))}[/\\]part_id=[0-9a-f]+[/\\]\w+\.parquet)"
        )
        named = re.search(a_file, reason)
        if named is not None:
            message = reason.replace(named[1], Path(named[1]).name)
            raise StoreError(
                f"{named[1]} {CANNOT_BE_READ}: {message}",
                "restore the part, or move it out of the folder",
            ) from error
        is_unreadable = isinstance(error, _UNREADABLE) or type(error) is duckdb.Error
        if is_unreadable or _UNREADABLE_IN_JSON.match(str(error)):
            raise StoreError(
                f"{folder} {CANNOT_BE_READ}: {reason}",
                "move the part that was added last out of the folder, and try again",
            ) from error
        raise


# What DuckDB raises where a file does not hold what its footer promises.
_UNREADABLE = (
    *(duckdb.IOException, duckdb.InvalidInputException, duckdb.OutOfMemoryException),
    *(duckdb.ConversionException, duckdb.SerializationException, duckdb.OutOfRangeException),
)


# The same of a statement that somebody typed, which may be wrong in many other ways.
_UNREADABLE_IN_JSON = re.compile(r'.*"exception_type":"(Invalid|IO|Serialization)"')

# What a compaction cannot write says nothing about what it reads.
_ABOUT_WRITING = re.compile(r"could not write|No space left|Disk quota|File too large", re.I)


def _reason(error: Exception) -> str:
    text = str(error)
    in_json = JSON_MESSAGE.search(text)
    # Of a damaged file it may quote any byte.
    return printable((in_json["message"] if in_json else text).strip().splitlines()[0])


def declare_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the tables of a part, empty, in the schema ``declared``: so must its files look."""
    names = {table.name for table in PUBLISHED_TABLES}
    connection.execute("create schema declared")
    for parsed in connection.extract_statements(schema_sql()):
        created = _CREATED_TABLE.search(parsed.query)
        if created is not None and created[1] in names:
            statement = _CREATED_TABLE.sub(r"create table declared.\1", parsed.query, count=1)
            connection.execute(statement)
    connection.execute("alter table declared.models add column published_at timestamp")
    connection.execute("create table declared.digests (model_id bigint, digest varchar)")


_CREATED_TABLE = re.compile(r"^create table (\w+)", re.MULTILINE)


def create_views(connection: duckdb.DuckDBPyConnection, folders: str) -> None:
    """Make a view for every table whose rows are in the parts of a folder, and all other views.

    Args:
        folders: an expression of SQL for the list of the parts.
    """
    tables = {table.name: table for table in PUBLISHED_TABLES}
    connection.execute("begin")
    connection.execute("create schema parts")
    list_parts(connection, folders)
    for name in (*tables, DIGESTS):
        statement = f"create view parts.{name} as {_rows_of(name)}"
        connection.execute(statement)
    connection.execute(_LOSING)
    declared = declared_columns(connection)
    for parsed in connection.extract_statements(schema_sql()):
        statement = parsed.query
        created = _CREATED_TABLE.search(statement)
        if created is not None and created[1] in tables:
            statement = _view_of(tables[created[1]], declared[created[1]])
        described = re.search(r"^comment on table (\w+)", statement, re.MULTILINE)
        if described is not None and described[1] in tables:
            statement = statement.replace("comment on table", "comment on view", 1)
        connection.execute(statement)
    hand_down_comments(connection)
    describe_store(connection)
    connection.execute("commit")


def list_parts(connection: duckdb.DuckDBPyConnection, folders: str) -> None:
    """Say which parts the views read: a list of their folders, as an expression of SQL."""
    statement = (
        f"create or replace macro parts.files(name) as list_transform({folders}, lambda part:"
        " concat(part, '/', name, '.parquet'))"
    )
    connection.execute(statement)


def _rows_of(table: str) -> str:
    """All rows of a table, in all parts, with the part that each lies in."""
    options = "hive_partitioning = true, hive_types = {'part_id': varchar}"
    if table != "layers":
        return f"from read_parquet(parts.files('{table}'), {options})"
    # A part of an earlier release lacks a measure, and perhaps all parts do.
    return (
        f"from read_parquet(parts.files('{table}'), union_by_name = true, {options})"
        " union all by name from declared.layers"
    )


# What counts less than another row of the same key: the key, and the part that it lies in. The
# probe is a part of the measurement of a model; any other run stands for itself.
_LOSING = """
    create view parts.losing_models as
    select model_id, part_id
    from parts.models
    qualify row_number() over (
        partition by model_id
        order by measures_version desc, ingested_at desc, published_at desc, part_id desc
    ) > 1;

    create view parts.losing_layers as
    select layer_id, part_id
    from parts.layers
    semi join parts.losing_models using (model_id, part_id);

    create view parts.losing_simulations as
    select simulation_id, part_id
    from parts.simulations
    where input_source <> 'noise'
    qualify row_number() over (partition by simulation_id order by part_id desc) > 1
    union all
    select simulation_id, part_id
    from parts.simulations
    semi join parts.losing_models using (model_id, part_id)
    where input_source = 'noise';

    create view parts.losing_rescues as
    select rescue_id, part_id
    from parts.rescues
    qualify row_number() over (partition by rescue_id order by part_id desc) > 1;

    create view parts.losing_audits as
    select audit_id, part_id
    from parts.audits
    qualify row_number() over (partition by audit_id order by part_id desc) > 1;

    create view parts.losing_ingests as
    select ingest_id, part_id
    from parts.ingests
    qualify row_number() over (partition by ingest_id order by part_id desc) > 1;
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


def _view_of(table: Table, columns: Iterable[str]) -> str:
    listed = ", ".join(
        _NAME if (table.name, column) == ("models", "model") else f'"{column}"'
        for column in columns
        if column != PUBLISHED_AT
    )
    return f"create view {table.name} as select {listed} from {counting_rows(table)}"


def counting_rows(table: Table) -> str:
    """What to select from for the rows of a table that count, as they are stored."""
    leading, parent = next(iter(table.pointers().items()))
    return f"parts.{table.name} anti join parts.losing_{parent} using ({leading}, part_id)"


def declared_columns(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    """The columns of each file of a part, and their types."""
    rows = connection.execute(
        "select table_name, column_name, data_type from duckdb_columns()"
        " where schema_name = 'declared' order by table_name, column_index"
    ).fetchall()
    columns: dict[str, dict[str, str]] = {}
    for table, column, data_type in rows:
        columns.setdefault(table, {})[column] = data_type
    return columns


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'"
