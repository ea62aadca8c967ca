"""The DuckDB file: open it, shape it, write a model into it, take one out, ask it.

The only module that knows duckdb. Connections live for milliseconds: DuckDB lets one process
write, or several read, so a connection held open would shut everybody else out.
"""

import dataclasses
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
from duckdb.sqltypes import DuckDBPyType

from quantstore import __version__
from quantstore.errors import (
    DamagedStoreError,
    LockedStoreError,
    MissingStoreError,
    NewerStoreError,
    RejectedQueryError,
    StoreError,
    UnknownModelError,
)
from quantstore.records import (
    ActivationErrorRecord,
    EqualizationRecord,
    FindingRecord,
    LayerMeasures,
    ModelRecord,
    SensitivityRecord,
    SimulationRecord,
)
from quantstore.schemes import SCHEMES

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SCHEMA_VERSION = 1

# DuckDB 1.5 clients must be able to open what this release creates.
STORAGE_VERSION = "v1.5.0"

WAIT_SECONDS = 30.0
# DuckDB never waits for a lock; a short, capped pause keeps the wait fair between processes.
FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.1

# Nothing a store needs comes from the network, and no query may wait for it.
Config = dict[str, str | bool | int | float | list[str]]
CONFIG: Config = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}

# What a statement that somebody typed may use besides. Together with reading only, this keeps it
# from every file, extension, network address and setting.
SANDBOX: Config = CONFIG | {
    "enable_external_access": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    # A large sort would otherwise spill into a file beside the store.
    "temp_directory": "",
    "memory_limit": "1GiB",
    "threads": 2,
}
# Small enough that rows with long lists fit, large enough that the overhead does not show.
BATCH_ROWS = 2048


# Positional (``?``) or named (``$name``) values of a statement.
Parameters = Sequence[object] | Mapping[str, object]


class Connection:
    """An open store, for the length of a ``with`` block."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def rows(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Every row of the answer, as tuples."""
        return self._connection.execute(sql, _bound(parameters)).fetchall()

    def value(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first column of the first row, None where there is no row."""
        # All rows, not fetchone(): an unfinished result would own the connection.
        rows = self.rows(sql, parameters)
        return rows[0][0] if rows else None

    def frame(self, sql: str, parameters: Parameters = ()) -> "pd.DataFrame":
        """The answer as a frame; integers with NULLs keep being integers (``Int64``)."""
        return self._connection.execute(sql, _bound(parameters)).df()

    @contextmanager
    def answering(self, sql: str) -> Iterator["pa.RecordBatchReader"]:
        """The answer to a statement that somebody typed, as a stream; what Arrow lacks is text.

        Raises:
            RejectedQueryError: it is not one statement that reads, or fails, now or while it is
                read. What DuckDB says stands in the message as it is: ``Kind Error: {JSON}``
                inside :func:`sandbox`.
        """
        duck = self._connection
        try:
            relation = _relation(duck, _only_select(duck, sql))
            yield _representable(relation).to_arrow_reader(BATCH_ROWS)
        except duckdb.Error as error:
            # A damaged file shows when the damaged part is read. A statement that merely quotes
            # such a word fails in another way: the sandbox lets it open no file.
            is_about_the_file = isinstance(error, duckdb.FatalException | duckdb.IOException)
            if is_about_the_file or type(error) is duckdb.Error:
                raise
            raise RejectedQueryError(str(error)) from error
        except (OSError, ValueError) as error:
            # What goes wrong while rows are read comes through Arrow.
            if _JSON_MESSAGE.search(str(error)) is None:
                raise
            raise RejectedQueryError(str(error)) from error


def _only_select(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    statements = connection.extract_statements(sql)
    if not statements:
        raise RejectedQueryError(
            "there is no statement to run", "write one SELECT, for example: from model_summary"
        )
    if len(statements) > 1:
        raise RejectedQueryError(
            f"these are {len(statements)} statements", "the console runs one SELECT at a time"
        )
    kind = statements[0].type
    # A PIVOT that must look up its columns first counts as several, whatever it is part of.
    if kind == duckdb.StatementType.MULTI and _READS.match(statements[0].query):
        kind = duckdb.StatementType.SELECT
    if kind not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise RejectedQueryError(
            "this statement does not only read", "the console only reads; one SELECT at a time"
        )
    return statements[0]


_READS = re.compile(r"[\s(]*(pivot|pivot_wider|from|select|with|explain)\b", re.IGNORECASE)


def _relation(
    connection: duckdb.DuckDBPyConnection, statement: duckdb.Statement
) -> duckdb.DuckDBPyRelation:
    try:
        return connection.sql(statement)
    except duckdb.Error as error:
        if _JSON_MESSAGE.search(str(error)) is None:
            # A relation does not say where a mistake is, a plain execution does. It binds first,
            # so it fails in the same way before it reads anything.
            connection.execute(statement)
        raise


def _representable(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """The relation with text for what neither Arrow nor pandas can hold, such as VARIANT or BIT."""
    if all(map(_is_representable, relation.types)):
        return relation
    columns = []
    for number, (name, kind) in enumerate(zip(relation.columns, relation.types, strict=True), 1):
        value = f"#{number}" if _is_representable(kind) else f"cast(#{number} as varchar)"
        quoted = name.replace('"', '""')
        columns.append(f'{value} as "{quoted}"')
    return relation.project(", ".join(columns))


# The words for types that an Arrow table and a frame hold exactly.
_REPRESENTABLE = frozenset(
    [
        *("boolean", "tinyint", "smallint", "integer", "bigint", "hugeint"),
        *("utinyint", "usmallint", "uinteger", "ubigint", "uhugeint"),
        *("float", "double", "decimal", "varchar", "enum", "uuid", "null"),
        *("timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone"),
    ]
)


def _is_representable(kind: DuckDBPyType) -> bool:
    if kind.id in ("list", "array", "struct", "map"):
        parts = [part for _, part in kind.children if isinstance(part, DuckDBPyType)]
        return all(map(_is_representable, parts))
    return kind.id in _REPRESENTABLE


def _bound(parameters: Parameters) -> list[object] | dict[str, object]:
    return dict(parameters) if isinstance(parameters, Mapping) else list(parameters)


@contextmanager
def reading(
    path: Path, wait_seconds: float = WAIT_SECONDS, config: Config = CONFIG
) -> Iterator[Connection]:
    """The store, open for reading.

    Raises:
        StoreError: missing, locked for longer than ``wait_seconds``, damaged, or too new.
    """
    if not _exists(path):
        raise MissingStoreError(f"there is no store at {path}")
    with _connected(path, read_only=True, wait_seconds=wait_seconds, config=config) as connection:
        _require_our_schema(connection, path)
        yield Connection(connection)


@contextmanager
def sandbox(path: Path, timeout_seconds: float) -> Iterator[Connection]:
    """The store, open for one statement that somebody typed, which reaches nothing else.

    DuckDB's limits on time and memory do not hold inside a single function call: whoever uses
    this runs it in a process that the operating system limits, too.

    Raises:
        StoreError: as :func:`reading` does.
    """
    with reading(path, config=SANDBOX) as connection:
        connection.rows(f"set max_execution_time = {max(1, int(timeout_seconds * 1000))}")
        # JSON carries the position of a mistake whole; text cuts a long line.
        connection.rows("set errors_as_json = true")
        connection.rows("set lock_configuration = true")
        yield connection


@contextmanager
def writing(path: Path, wait_seconds: float = WAIT_SECONDS) -> Iterator[Connection]:
    """The store, open for writing in one transaction; created where there is none.

    The transaction commits at the end of the block, and not at all if the block raises.

    Raises:
        StoreError: locked for longer than ``wait_seconds``, damaged, too new, or no place to write.
    """
    with (
        _alone(path, wait_seconds),
        _connected(path, read_only=False, wait_seconds=wait_seconds) as connection,
    ):
        connection.execute("begin")
        try:
            if _is_empty(connection):
                _create_schema(connection)
            else:
                _require_our_schema(connection, path)
            yield Connection(connection)
            connection.execute("commit")
        except BaseException:
            # DuckDB ends the transaction by itself after some failures, and then has none to undo.
            with suppress(duckdb.TransactionException):
                connection.execute("rollback")
            raise


# Threads of one process share the file without waiting, and fail where their changes collide.
_WRITER = threading.Lock()


@contextmanager
def _alone(path: Path, wait_seconds: float) -> Iterator[None]:
    """The only thread of this process that writes."""
    if not _WRITER.acquire(timeout=wait_seconds):
        raise LockedStoreError(f"{path} is in use by another part of this program")
    try:
        yield
    finally:
        _WRITER.release()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        # A name that is too long, a folder that may not be entered.
        raise StoreError(
            f"{path} cannot be opened: {error.strerror}", "name another file with --db"
        ) from error


@contextmanager
def _connected(
    path: Path, *, read_only: bool, wait_seconds: float, config: Config = CONFIG
) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = _connect(path, read_only=read_only, wait_seconds=wait_seconds, config=config)
    try:
        yield connection
    except duckdb.TransactionException as error:
        raise StoreError(f"{path} was not changed: {_first_line(error)}") from error
    except duckdb.FatalException as error:
        raise DamagedStoreError(f"{path} is damaged: {_first_line(error)}") from error
    except duckdb.Error as error:
        if _CORRUPT.search(str(error)):
            raise DamagedStoreError(f"{path} is damaged: {_first_line(error)}") from error
        raise
    finally:
        connection.close()


def _connect(
    path: Path, *, read_only: bool, wait_seconds: float, config: Config
) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + wait_seconds
    pause = FIRST_PAUSE_SECONDS
    config = dict(config)
    if not read_only and not _exists(path):
        config["storage_compatibility_version"] = STORAGE_VERSION
    while True:
        try:
            return duckdb.connect(path, read_only=read_only, config=config)
        except duckdb.Error as error:
            if not _BUSY.search(str(error)):
                raise _explain(error, path) from error
            if time.monotonic() > deadline:
                raise LockedStoreError(_who_holds(error, path)) from error
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


# The second text: another thread of this process has the file open for reading, or for writing.
_BUSY = re.compile(
    r"Could not set lock|being used by another process"
    r"|different configuration than existing|Unique file handle conflict"
)
_HOLDER = re.compile(r"held in (?P<program>.*?) \(PID (?P<pid>\d+)\)")
_CORRUPT = re.compile(r"Corrupt|checksum|Could not read enough bytes", re.IGNORECASE)


def _who_holds(error: duckdb.Error, path: Path) -> str:
    holder = _HOLDER.search(str(error))
    if holder is None:
        return f"{path} is in use by another part of this program"
    program = Path(holder["program"]).name
    return f"{path} is in use by process {holder['pid']} ({program})"


def _explain(error: duckdb.Error, path: Path) -> StoreError:
    text = str(error)
    if "not a valid DuckDB database" in text:
        return DamagedStoreError(f"{path} is not a DuckDB database", "name another file with --db")
    if "Trying to read a database file with version number" in text:
        return NewerStoreError(f"{path} was written by a newer DuckDB")
    if "Cannot open file" in text or "does not exist" in text:
        return StoreError(
            f"{path} cannot be opened: {_first_line(error)}",
            "name a file in a folder that exists and that you may write to, with --db",
        )
    return DamagedStoreError(f"{path} cannot be read: {_first_line(error)}")


def _first_line(error: duckdb.Error) -> str:
    text = str(error).strip()
    in_json = _JSON_MESSAGE.search(text)
    return (in_json["message"] if in_json else text).splitlines()[0]


# What sandbox() asks for; the message ends at its first line or at the closing quote.
_JSON_MESSAGE = re.compile(r'"exception_message":"(?P<message>(?:[^"\\]|\\[^n])*)')


def _is_empty(connection: duckdb.DuckDBPyConnection) -> bool:
    return not connection.execute("from duckdb_tables() where not internal").fetchall()


def _require_our_schema(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
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


def _create_schema(connection: duckdb.DuckDBPyConnection) -> None:
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


def find_model(connection: Connection, model: str) -> int:
    """The key of a model.

    Raises:
        UnknownModelError: where the store does not hold it.
    """
    model_id = connection.value("select model_id from models where model = ?", [model])
    if model_id is None:
        raise UnknownModelError(f"the store holds no model named {model!r}")
    return int(model_id)


def model_with_content(
    connection: Connection, sha256: str, folded: bool
) -> tuple[int, str, int] | None:
    """Key, name and measures_version of the model with this content; None where it is new."""
    found = connection.rows(
        "select model_id, model, measures_version from models where sha256 = ? and folded = ?",
        [sha256, folded],
    )
    return found[0] if found else None


def add_model(
    connection: Connection,
    record: ModelRecord,
    measures: Sequence[LayerMeasures],
    equalization: Sequence[EqualizationRecord] = (),
) -> int:
    """Write a whole model inside the open transaction; returns its key."""
    duck = connection._connection
    model_id = int(connection.value("select nextval('model_ids')"))
    _insert(duck, "models", _columns_of([record]) | {"model_id": [model_id]})
    layer_ids = [
        row[0]
        for row in connection.rows("select nextval('layer_ids') from range(?)", [len(measures)])
    ]
    _insert(
        duck,
        "layers",
        _columns_of([measured.layer for measured in measures])
        | {"layer_id": layer_ids, "model_id": [model_id] * len(measures)},
    )
    with_ids = list(zip(layer_ids, measures, strict=True))
    _insert(duck, "channels", _stacked([(i, m.channels) for i, m in with_ids]))
    _insert(
        duck,
        "channel_errors",
        _stacked([(i, part) for i, m in with_ids for part in m.channel_errors]),
    )
    many: dict[str, list[tuple[int, Any]]] = {
        "errors": [(i, error) for i, m in with_ids for error in m.errors],
        "clipping": [(i, curve) for i, m in with_ids for curve in m.clipping],
        "bits_needed": [(i, bits) for i, m in with_ids for bits in m.bits_needed],
        "histograms": [(i, m.histogram) for i, m in with_ids if m.histogram is not None],
    }
    for table, rows in many.items():
        if rows:
            columns = _columns_of([record for _, record in rows])
            _insert(duck, table, columns | {"layer_id": [i for i, _ in rows]})
    if equalization:
        columns = _columns_of(equalization)
        columns["layer_id"] = [layer_ids[depth] for depth in columns.pop("depth")]
        columns["partner_layer_id"] = [layer_ids[depth] for depth in columns.pop("partner_depth")]
        _insert(duck, "equalization", columns)
    return model_id


def add_findings(connection: Connection, model_id: int, records: Sequence[FindingRecord]) -> None:
    """Write what the graph and the weights of a model give away."""
    if not records:
        return
    ids = dict(connection.rows("select depth, layer_id from layers where model_id = ?", [model_id]))
    columns = _columns_of(records)
    columns["layer_id"] = [None if depth is None else ids[depth] for depth in columns.pop("depth")]
    columns["model_id"] = [model_id] * len(records)
    _insert(connection._connection, "findings", columns)


def add_simulation(
    connection: Connection,
    model_id: int,
    record: SimulationRecord,
    activation_errors: Sequence[ActivationErrorRecord] = (),
) -> int:
    """Write a run of a model, and how far each tensor drifted; returns its key."""
    duck = connection._connection
    simulation_id = int(connection.value("select nextval('simulation_ids')"))
    keys = {"simulation_id": [simulation_id], "model_id": [model_id]}
    _insert(duck, "simulations", _columns_of([record]) | keys)
    if activation_errors:
        own = {"simulation_id": [simulation_id] * len(activation_errors)}
        _insert(duck, "activation_errors", _columns_of(activation_errors) | own)
    return simulation_id


def add_sensitivities(
    connection: Connection, model_id: int, records: Sequence[SensitivityRecord]
) -> None:
    """Write what quantizing one layer at a time does; it replaces what an earlier run found."""
    if not records:
        return
    ids = dict(connection.rows("select depth, layer_id from layers where model_id = ?", [model_id]))
    for kind in {(r.scheme, r.mode, r.kind, r.input_source) for r in records}:
        connection.rows(
            "delete from sensitivities where model_id = ? and scheme = ? and mode = ?"
            " and kind = ? and input_source = ?",
            [model_id, *kind],
        )
    columns = _columns_of(records)
    columns["layer_id"] = [ids[depth] for depth in columns.pop("depth")]
    columns["model_id"] = [model_id] * len(records)
    _insert(connection._connection, "sensitivities", columns)


CHILDREN_OF_LAYERS = (
    "channels",
    "errors",
    "channel_errors",
    "clipping",
    "bits_needed",
    "equalization",
    "histograms",
)


def remove_model(connection: Connection, model_id: int) -> None:
    """Take a model and everything known about it out, inside the open transaction."""
    # The names of tables are our own; only values come from outside.
    for table in CHILDREN_OF_LAYERS:
        connection.rows(
            f"delete from {table} where layer_id in"
            " (select layer_id from layers where model_id = ?)",
            [model_id],
        )
    connection.rows(
        "delete from activation_errors where simulation_id in"
        " (select simulation_id from simulations where model_id = ?)",
        [model_id],
    )
    for table in ("findings", "sensitivities", "simulations", "layers", "models"):
        connection.rows(f"delete from {table} where model_id = ?", [model_id])


def remove_model_named(connection: Connection, model: str) -> bool:
    """Take the model of this name out, if there is one; says whether there was."""
    model_id = connection.value("select model_id from models where model = ?", [model])
    if model_id is not None:
        remove_model(connection, model_id)
    return model_id is not None


def _insert(connection: duckdb.DuckDBPyConnection, table: str, columns: "dict[str, Any]") -> None:
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


def _columns_of(records: Sequence[Any]) -> dict[str, list[Any]]:
    return {
        field.name: [getattr(record, field.name) for record in records]
        for field in dataclasses.fields(records[0])
    }


def _stacked(layers: "Sequence[tuple[int, Any]]") -> "dict[str, Any]":
    """Columns of several layers below one another, with the key of the layer beside each row."""
    stacked: dict[str, Any] = {}
    sizes = [len(columns.channel) for _, columns in layers]
    stacked["layer_id"] = np.repeat(np.array([i for i, _ in layers], dtype=np.int64), sizes)
    for field in dataclasses.fields(layers[0][1]):
        parts = [getattr(columns, field.name) for _, columns in layers]
        if isinstance(parts[0], np.ndarray):
            stacked[field.name] = np.concatenate(parts)
        else:
            stacked[field.name] = np.repeat(np.array(parts, dtype=object), sizes)
    return stacked
