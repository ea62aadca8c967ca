"""Open the store, for reading or writing, for milliseconds."""

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from quantstore.errors import (
    DamagedStoreError,
    LockedStoreError,
    MissingStoreError,
    NewerStoreError,
    RejectedQueryError,
    StoreError,
)
from quantstore.store.schema import create_schema, is_empty, require_our_schema
from quantstore.store.statements import JSON_MESSAGE, only_select, relation, representable

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

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
            answer = relation(duck, only_select(duck, sql))
            yield representable(answer).to_arrow_reader(BATCH_ROWS)
        except duckdb.Error as error:
            # A damaged file shows when the damaged part is read. A statement that merely quotes
            # such a word fails in another way: the sandbox lets it open no file.
            is_about_the_file = isinstance(error, duckdb.FatalException | duckdb.IOException)
            if is_about_the_file or type(error) is duckdb.Error:
                raise
            raise RejectedQueryError(str(error)) from error
        except (OSError, ValueError) as error:
            # What goes wrong while rows are read comes through Arrow.
            if JSON_MESSAGE.search(str(error)) is None:
                raise
            raise RejectedQueryError(str(error)) from error


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
        require_our_schema(connection, path)
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
            if is_empty(connection):
                create_schema(connection)
            else:
                require_our_schema(connection, path)
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
    in_json = JSON_MESSAGE.search(text)
    return (in_json["message"] if in_json else text).splitlines()[0]
