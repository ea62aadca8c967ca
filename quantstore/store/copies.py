"""The store copied by DuckDB itself: a backup beside it, or a smaller self in its place.

The file is never read behind DuckDB's back: closing such a handle drops the lock that keeps other
processes out, and what is committed may still stand in the file's write-ahead log.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from quantstore.errors import QuantstoreError, StoreError
from quantstore.store.beside import room_beside
from quantstore.store.connection import StoreStamp, alone, missing_store, reading, stamp
from quantstore.store.published import require_writable
from quantstore.store.schema import STORAGE_VERSION, require_our_schema

logger = logging.getLogger(__name__)

# Of a file that grows by small writes up to a quarter is free: DuckDB merges their rows elsewhere.
MOST_FREE_SHARE = 1 / 8
# Less is not worth the work.
LEAST_FREE_BYTES = 64 << 20

# Whoever opened the former file right before it was replaced asks for its lock within
# microseconds. The lock is kept for this long, so that they find it taken, and open again by name.
_OPENING_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class CopySummary:
    """Size of the store before, write-ahead log included, and of its copy."""

    bytes_before: int
    bytes_after: int


def backup(path: Path, target: Path, *, replace: bool = False) -> CopySummary:
    """Copy the store to ``target``; a copy that fails leaves nothing behind.

    Raises:
        StoreError: the store cannot be read.
        QuantstoreError: ``target`` exists and ``replace`` is not set, is the store itself, or
            cannot be written.
    """
    require_writable(path)
    _require_target(path, target, replace=replace)
    before = _file_bytes(path)
    with _successor(target) as fresh, reading(path) as connection:
        _copy(connection._connection, fresh)
        # A log that somebody left beside a former backup belongs to that one only.
        _log_of(target).unlink(missing_ok=True)
        fresh.replace(target)
    return CopySummary(before, _file_bytes(target))


def compact(path: Path, wait_seconds: float | None = None) -> CopySummary:
    """Write the store anew without the room that removed models left.

    Others read while it is copied, and wait while the copy takes its place, which takes
    milliseconds. It is copied once more, with nobody else in it, where somebody wrote in between.

    Raises:
        StoreError: the store is missing, locked, damaged or too new, or the folder has no room for
            a second copy. The store is then as it was.
    """
    if not path.exists():
        raise missing_store(path)
    # A symbolic link stays one.
    path = path.resolve()
    before = _file_bytes(path)
    with _successor(path) as fresh:
        with alone(path, wait_seconds) as connection:
            require_our_schema(connection, path)
            connection.execute("checkpoint")
        with reading(path, wait_seconds) as copied:
            state = stamp(path)
            _copy(copied._connection, fresh)
        _take_over(path, fresh, state, wait_seconds)
    return CopySummary(before, _file_bytes(path))


def compact_if_sparse(path: Path) -> CopySummary | None:
    """Compact a store an eighth of which is free; None where it is not, or cannot be done now."""
    with reading(path) as connection:
        free_bytes = int(
            connection.value("select free_blocks * block_size from pragma_database_size()")
        )
    if free_bytes < max(LEAST_FREE_BYTES, path.stat().st_size * MOST_FREE_SHARE):
        return None
    try:
        return compact(path, wait_seconds=0)
    except StoreError as error:
        # Somebody has it open, or the disk is full. The store takes more room than it needs, and
        # works as before.
        logger.info("not compacted: %s", error)
        return None


def _take_over(path: Path, fresh: Path, state: StoreStamp, wait_seconds: float | None) -> None:
    """Put a copy of the store in its place; of the state that it has by now, if it has changed."""
    with alone(path, wait_seconds) as connection:
        if stamp(path) != state:
            # The log goes into the file and away, so that none lies beside the one that takes over.
            connection.execute("checkpoint")
            fresh.unlink()
            _copy(connection, fresh)
        fresh.chmod(path.stat().st_mode & 0o7777)
        # Who opens the new file writes a log of the same name, which is not ours to remove when we
        # close the old one.
        connection.execute("pragma disable_checkpoint_on_shutdown")
        fresh.replace(path)
        time.sleep(_OPENING_SECONDS)


def _require_target(path: Path, target: Path, *, replace: bool) -> None:
    if not path.exists():
        raise missing_store(path)
    if target.is_dir():
        raise QuantstoreError(f"{target} is a folder", "name a file")
    if target.exists() and target.samefile(path):
        raise QuantstoreError(f"{target} is the store itself", "name another file")
    if target.exists() and not replace:
        raise QuantstoreError(f"{target} exists already", "name another file or add --replace")


@contextmanager
def _successor(target: Path) -> Iterator[Path]:
    """A file to be, on the same disk as ``target``; removed unless it took over."""
    try:
        with room_beside(target) as room:
            yield room / target.name
    except OSError as error:
        raise StoreError(
            f"{target} cannot be written: {error.strerror or error}",
            "name a file in a folder that exists and that you may write to",
        ) from error


def _copy(connection: duckdb.DuckDBPyConnection, fresh: Path) -> None:
    """Copy the open database into a new file, everything in it, and see that it is all there."""
    ((name,),) = connection.execute("select current_database()").fetchall()
    original, copy = _quoted(name), _quoted(f"copy of {name}")
    try:
        connection.execute(
            f"attach ? as {copy} (read_write, storage_version '{STORAGE_VERSION}')", [str(fresh)]
        )
        connection.execute(f"copy from database {original} to {copy}")
        counts = [_row_counts(connection, database) for database in (name, f"copy of {name}")]
        connection.execute(f"detach {copy}")
    except (duckdb.IOException, duckdb.TransactionException) as error:
        message = str(error).strip().splitlines()[0]
        raise StoreError(
            f"the copy could not be written: {message}",
            "free some space on the disk, or name a folder that you may write to",
        ) from error
    if counts[0] != counts[1]:
        raise StoreError(
            "the copy is incomplete", "keep the store as it is, and report this as a bug"
        )


def _row_counts(connection: duckdb.DuckDBPyConnection, database: str) -> dict[str, int]:
    tables = connection.execute(
        "select table_name from duckdb_tables() where database_name = ? and schema_name = 'main'"
        " and not internal order by table_name",
        [database],
    ).fetchall()
    counts = {}
    for (table,) in tables:
        quoted = f"{_quoted(database)}.main.{_quoted(table)}"
        ((counts[table],),) = connection.execute(f"select count(*) from {quoted}").fetchall()
    return counts


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _file_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, _log_of(path)) if file.exists())


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")
