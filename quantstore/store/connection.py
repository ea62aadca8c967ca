"""Open the store, for reading or writing, for milliseconds."""

import glob
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from quantstore import settings
from quantstore.errors import (
    DamagedStoreError,
    LockedStoreError,
    MissingStoreError,
    NewerStoreError,
    RejectedQueryError,
    StoreError,
)
from quantstore.settings import published_folder
from quantstore.store.gate import COURTESY_SECONDS, gate_of, turnstile
from quantstore.store.migrations import migrate
from quantstore.store.published import (
    fenced_views,
    require_writable,
    shared_views,
    translating,
)
from quantstore.store.rows import load_numpy
from quantstore.store.schema import (
    SCHEMA_VERSION,
    STORAGE_VERSION,
    create_schema,
    fill_registries,
    is_empty,
    lacking_measures,
    lacks_registered,
    lacks_tables,
    require_our_schema,
    schema_version,
)
from quantstore.store.statements import JSON_MESSAGE, only_select, relation, representable
from quantstore.store.totals import renew_totals

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

logger = logging.getLogger(__name__)

# DuckDB never waits for a lock; a short, capped pause keeps the wait fair between processes.
FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.1


# Nothing a store needs comes from the network, and no query may wait for it.
ConnectionSettings = dict[str, str | bool | int | float | list[str]]


CONFIG: ConnectionSettings = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}


# What a statement that somebody typed may use besides. Together with reading only, this keeps it
# from every file, extension, network address and setting.
SANDBOX: ConnectionSettings = CONFIG | {
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

    def records(self, sql: str, parameters: Parameters = ()) -> list[dict[str, Any]]:
        """Every row of the answer, as a dict by column; a NULL is None."""
        rows = self.rows(sql, parameters)
        columns = [column[0] for column in self._connection.description]
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def frame(self, sql: str, parameters: Parameters = ()) -> "pd.DataFrame":
        """The answer as a frame; integers with NULLs keep being integers (``Int64``)."""
        return self._connection.execute(sql, _bound(parameters)).df()

    @contextmanager
    def answering(self, sql: str, parameters: Parameters = ()) -> Iterator["pa.RecordBatchReader"]:
        """The answer to a statement that somebody typed, as a stream; what Arrow lacks is text.

        Raises:
            RejectedQueryError: it is not one statement that reads, or fails, now or while it is
                read. What DuckDB says stands in the message as it is: ``Kind Error: {JSON}``
                inside :func:`sandbox`.
        """
        duck = self._connection
        try:
            answer = relation(duck, only_select(duck, sql), _bound(parameters))
            yield representable(answer).to_arrow_reader(BATCH_ROWS)
        except duckdb.Error as error:
            # A damaged file shows when the damaged part is read. A statement that merely quotes
            # such a word fails in another way: the sandbox lets it open no file.
            is_about_the_file = isinstance(error, duckdb.FatalException | duckdb.IOException)
            is_about_another = _ANOTHER_FILE.search(str(error)) is not None
            if (is_about_the_file or type(error) is duckdb.Error) and not is_about_another:
                raise
            raise RejectedQueryError(str(error)) from error
        except (OSError, ValueError) as error:
            # What goes wrong while rows are read comes through Arrow.
            if JSON_MESSAGE.search(str(error)) is None:
                raise
            raise RejectedQueryError(str(error)) from error


# A statement that is trusted reads other files, too, and they may be missing.
_ANOTHER_FILE = re.compile(r"No files found that match|Cannot open file|requires the extension")


def _bound(parameters: Parameters) -> list[object] | dict[str, object]:
    return dict(parameters) if isinstance(parameters, Mapping) else list(parameters)


NO_STORE = "there is no store at"


def missing_store(path: Path) -> MissingStoreError:
    """What to raise where nothing lies at the path."""
    return MissingStoreError(f"{NO_STORE} {path}")


@contextmanager
def reading(
    path: Path, wait_seconds: float | None = None, config: ConnectionSettings = CONFIG
) -> Iterator[Connection]:
    """The store, open for reading.

    Args:
        wait_seconds: how long to wait for others; by default what the command line was told.

    Raises:
        StoreError: missing, locked for longer than that, damaged, too old or too new.
    """
    if not _exists(path):
        raise missing_store(path)
    with together(path, wait_seconds, config) as connection:
        # Its parts say what they are, and the views over them are those of this release.
        if published_folder(path) is None:
            require_our_schema(connection, path)
        yield Connection(connection)


@contextmanager
def together(
    path: Path, wait_seconds: float | None = None, config: ConnectionSettings = CONFIG
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The file, open for reading beside others; its shape is for the caller to check."""
    if (folder := published_folder(path)) is not None:
        # Nobody locks a part: there is nothing to wait for.
        is_fenced = config.get("enable_external_access") is False
        views = (fenced_views if is_fenced else shared_views)(folder, dict(config))
        with closing(views), translating(folder.resolve()):
            yield views
        return
    deadline = _deadline(wait_seconds)
    with gate_of(path).shared(deadline) as is_in:
        if not is_in:
            raise _busy_here(path)
        connection = _connect(path, read_only=True, deadline=deadline, config=config)
        with _translating(path, connection):
            yield connection


@contextmanager
def sandbox(
    path: Path, timeout_seconds: float, wait_seconds: float | None = None
) -> Iterator[Connection]:
    """The store, open for one statement that somebody typed, which reaches nothing else.

    DuckDB's limits on time and memory do not hold inside a single function call: whoever uses
    this runs it in a process that the operating system limits, too.

    Raises:
        StoreError: as :func:`reading` does.
    """
    with reading(path, wait_seconds, config=SANDBOX) as connection:
        connection.rows(f"set max_execution_time = {max(1, int(timeout_seconds * 1000))}")
        # JSON carries the position of a mistake whole; text cuts a long line.
        connection.rows("set errors_as_json = true")
        connection.rows("set lock_configuration = true")
        yield connection


@contextmanager
def writing(
    path: Path, wait_seconds: float | None = None, *, may_create: bool = True
) -> Iterator[Connection]:
    """The store, open for writing in one transaction; brought up to date where it is older.

    The transaction commits at the end of the block, and not at all if the block raises.

    Args:
        wait_seconds: how long to wait for others; by default what the command line was told.
        may_create: whether to make a store where there is none.

    Raises:
        StoreError: locked for longer than that, damaged, too new, no place to write; or missing,
            if none may be created.
    """
    if not _exists(path):
        if not may_create:
            raise missing_store(path)
        _create(path)
    # Loading what inserts rows takes longer than inserting them: not while others wait.
    load_numpy()
    with alone(path, wait_seconds) as connection:
        _bring_up_to_date(connection, path)
        with _transaction(connection):
            yield Connection(connection)


@contextmanager
def alone(path: Path, wait_seconds: float | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """The file, open for writing with nobody else in it; its shape is for the caller to check."""
    require_writable(path)
    deadline = _deadline(wait_seconds)
    with gate_of(path).alone(deadline) as is_in:
        if not is_in:
            raise _busy_here(path)
        connection = _connect(path, read_only=False, deadline=deadline, config=CONFIG)
        with _translating(path, connection):
            yield connection


def update(path: Path, wait_seconds: float | None = None) -> Path | None:
    """Bring an older store to this release's schema.

    Returns:
        The copy of the store as it was, beside it; None where there was nothing to do.

    Raises:
        StoreError: as :func:`writing` does; the store is then as it was.
    """
    if not _exists(path):
        raise missing_store(path)
    with alone(path, wait_seconds) as connection:
        return _bring_up_to_date(connection, path)


def _bring_up_to_date(connection: duckdb.DuckDBPyConnection, path: Path) -> Path | None:
    version = schema_version(connection)
    is_complete = not lacking_measures(connection) and not lacks_tables(connection)
    if version == SCHEMA_VERSION and is_complete:
        # A scheme or target that was added since needs no other shape of the file.
        if lacks_registered(connection):
            with _transaction(connection):
                fill_registries(connection)
                renew_totals(connection)
        return None
    if version is None and is_empty(connection):
        with _transaction(connection):
            create_schema(connection)
        return None
    require_our_schema(connection, path, may_be_older=True)
    return migrate(connection, path, int(version or 0))


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.execute("begin")
    try:
        yield
        connection.execute("commit")
    except BaseException:
        # DuckDB ends the transaction by itself after some failures, and then has none to undo.
        with suppress(duckdb.Error):
            connection.execute("rollback")
        raise


def _create(path: Path) -> None:
    """Put an empty store in place, whole or not at all; another one that came first stays."""
    unfinished = path.with_name(f"{path.name}.new-{secrets.token_hex(4)}")
    config = CONFIG | {"storage_compatibility_version": STORAGE_VERSION}
    try:
        try:
            connection = duckdb.connect(unfinished, config=dict(config))
        except duckdb.Error as error:
            raise _explain(error, path) from error
        with _translating(path, connection), _transaction(connection):
            create_schema(connection)
        _put_in_place(unfinished, path)
    finally:
        _forget_unfinished(path, unfinished)


def _put_in_place(unfinished: Path, path: Path) -> None:
    with suppress(FileExistsError):
        try:
            # Unlike a renamed file, a link never takes the place of another.
            os.link(unfinished, path)
        except FileExistsError:
            raise
        except OSError:
            # A file system without links.
            if not _exists(path):
                unfinished.rename(path)


# A store is made in a fraction of a second; what is older was left by a process that was killed.
UNFINISHED_SECONDS = 600.0


def _forget_unfinished(path: Path, unfinished: Path) -> None:
    pattern = f"{glob.escape(path.name)}.new-*"
    with suppress(OSError):
        for leftover in path.parent.glob(pattern):
            is_ours = leftover.name in (unfinished.name, f"{unfinished.name}.wal")
            if is_ours or time.time() - leftover.stat().st_mtime > UNFINISHED_SECONDS:
                leftover.unlink(missing_ok=True)


# When the file and its log were last written, and what they are: device, inode, bytes, nanoseconds.
# Of a published folder, the parts that are read.
StoreStamp = tuple[tuple[int, int, int, int] | str | None, ...]


def stamp(path: Path) -> StoreStamp:
    """What differs after every change of the store, told without opening it."""
    if (folder := published_folder(path)) is not None:
        # A part that comes or goes changes the folder; its file of views stays as it is.
        return (_stamp_of(folder),)
    return tuple(map(_stamp_of, (path, path.with_name(f"{path.name}.wal"))))


def stamp_read(connection: Connection, path: Path) -> StoreStamp:
    """What differs after every change of what the open connection reads.

    Nobody writes to a store while it is open. To a folder others may have published since.
    """
    if published_folder(path) is None:
        return stamp(path)
    return tuple(connection.value("select getvariable('parts')"))


def _stamp_of(file: Path) -> tuple[int, int, int, int] | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        # A name that is too long, a folder that may not be entered.
        raise StoreError(
            f"{path} cannot be opened: {error.strerror}", "name another file with --db"
        ) from error


def _deadline(wait_seconds: float | None) -> float:
    return time.monotonic() + (settings.wait_seconds() if wait_seconds is None else wait_seconds)


@contextmanager
def _translating(path: Path, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Close the connection at the end, and say in a sentence what was wrong with the file."""
    opened = time.monotonic()
    try:
        try:
            yield
        finally:
            connection.close()
            logger.debug("closed %s, which was open for %.3f s", path, time.monotonic() - opened)
    except duckdb.TransactionException as error:
        reason = _first_line(error)
        raise StoreError(f"{path} was not changed: {reason}", _hint_about_room(error)) from error
    except duckdb.Error as error:
        damage = _damage(error, path)
        if damage is not None:
            raise damage from error
        if isinstance(error, duckdb.IOException):
            reason = _first_line(error)
            raise StoreError(f"{path} cannot be used: {reason}", _hint_about_room(error)) from error
        raise


def _connect(
    path: Path, *, read_only: bool, deadline: float, config: ConnectionSettings
) -> duckdb.DuckDBPyConnection:
    """Open the file as soon as nobody else is in the way.

    Whoever waits keeps others back, for a while at a time: then come those who wait for the same
    process as itself, which may keep the file for longer than anybody waits.
    """
    started = time.monotonic()
    while True:
        with turnstile(path, deadline, is_writer=not read_only):
            connection = _connect_in_turn(path, read_only, deadline, config)
        if connection is not None:
            break
        time.sleep(LONGEST_PAUSE_SECONDS)
    # DuckDB draws one in an interactive Python, over whatever the caller prints.
    connection.execute("set enable_progress_bar = false")
    purpose = "reading" if read_only else "writing"
    logger.debug("opened %s for %s after %.3f s", path, purpose, time.monotonic() - started)
    return connection


def _connect_in_turn(
    path: Path, read_only: bool, deadline: float, config: ConnectionSettings
) -> duckdb.DuckDBPyConnection | None:
    """The open file; None where somebody else has it for longer than a turn."""
    turn_ends = time.monotonic() + COURTESY_SECONDS
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return duckdb.connect(path, read_only=read_only, config=dict(config))
        except duckdb.Error as error:
            if not _BUSY.search(str(error)):
                raise _explain(error, path) from error
            who = _who_holds(error, path)
            if time.monotonic() > deadline:
                raise LockedStoreError(who) from error
        if pause == FIRST_PAUSE_SECONDS:
            logger.info("waiting: %s", who)
        if time.monotonic() > turn_ends:
            return None
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


# The second line: another thread of this process has the file open in another way.
_BUSY = re.compile(
    r"Could not set lock|being used by another process"
    r"|different configuration than existing|Unique file handle conflict"
)

IN_USE_HERE = "is in use by another part of this program"
IN_USE_BY_PROCESS = "is in use by process"

_HOLDER = re.compile(r"held in (?P<program>.*?) \(PID (?P<pid>\d+)\)")


def _who_holds(error: duckdb.Error, path: Path) -> str:
    holder = _HOLDER.search(str(error))
    if holder is None:
        return f"{path} {IN_USE_HERE}"
    program = Path(holder["program"]).name
    return f"{path} {IN_USE_BY_PROCESS} {holder['pid']} ({program})"


def _busy_here(path: Path) -> LockedStoreError:
    return LockedStoreError(f"{path} {IN_USE_HERE}")


IS_EMPTY = "is an empty file, not a store"
IS_NO_DATABASE = "is not a DuckDB database"


def _explain(error: duckdb.Error, path: Path) -> StoreError:
    text = str(error)
    # DuckDB recognizes files of SQLite, and has no extension here to read them.
    if "not a valid DuckDB database" in text or "sqlite_scanner" in text:
        if path.exists() and path.stat().st_size == 0:
            return DamagedStoreError(f"{path} {IS_EMPTY}", "delete it, or name another with --db")
        return DamagedStoreError(f"{path} {IS_NO_DATABASE}", "name another file with --db")
    if "Trying to read a database file with version number" in text:
        return NewerStoreError(f"{path} was written by a newer DuckDB")
    damage = _damage(error, path)
    if damage is not None:
        return damage
    reason = _CANNOT_OPEN.search(text)
    if reason is not None or "does not exist" in text:
        return StoreError(
            f"{path} cannot be opened: {reason['reason'] if reason else _first_line(error)}",
            "name a file that you may read and write, in a folder that you may write to, with --db",
        )
    return StoreError(f"{path} cannot be used: {_first_line(error)}", _hint_about_room(error))


_CANNOT_OPEN = re.compile(r"Cannot open file \".*?\": (?P<reason>.+)")


IS_CORRUPT = "its contents do not match their checksums"
IS_TOO_SHORT = "it is shorter than it should be"

# What DuckDB says of a file that lost its shape, and what that means.
_DAMAGES = {
    "replaying WAL|WAL file": "its log {path}.wal cannot be read",
    "checksum|Corrupt": IS_CORRUPT,
    "Could not read enough bytes": IS_TOO_SHORT,
}


def _damage(error: duckdb.Error, path: Path) -> DamagedStoreError | None:
    text = str(error)
    for pattern, meaning in _DAMAGES.items():
        if re.search(pattern, text, re.IGNORECASE):
            logger.info("damaged: %s", _first_line(error))
            return DamagedStoreError(f"{path} is damaged: {meaning.format(path=path)}")
    if isinstance(error, duckdb.FatalException):
        return DamagedStoreError(f"{path} is damaged: {_first_line(error)}")
    return None


def _hint_about_room(error: duckdb.Error) -> str:
    is_full = re.search(r"No space left|File too large|Disk quota", str(error))
    return "free some space on that disk, and try again" if is_full else "try again in a moment"


def _first_line(error: duckdb.Error) -> str:
    text = str(error).strip()
    in_json = JSON_MESSAGE.search(text)
    return (in_json["message"] if in_json else text).splitlines()[0]
