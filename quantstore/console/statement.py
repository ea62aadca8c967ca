"""One statement somebody typed: asked in a child, within limits, by a clock.

DuckDB's own limits do not stop a runaway function call, and some input crashes it. So the
statement runs in a child process (``child``) that reads the store and nothing else, within limits
of the operating system; this side ends it when its time is up.
"""

import io
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantstore import settings
from quantstore.console.answer import Answer, explained, out_of_memory, unique_names
from quantstore.errors import QuantstoreError, RejectedQueryError, StoreError
from quantstore.process import limits
from quantstore.process.child import GRACE_SECONDS, Cause, Child, ChunkReader, EndedError
from quantstore.process.limits import ChildLimits
from quantstore.process.running import Running, TakeProgress

if TYPE_CHECKING:
    import pyarrow as pa

# For the start of Python on a busy computer; waiting for the store comes on top.
START_SECONDS = 30.0
# An answer is held in memory here. Beyond this nobody reads it, and it would hurt everybody.
LARGEST_ANSWER_BYTES = 1 << 30
# Of an answer that is wider nobody sees the end either, and every column costs as much as a table.
MOST_COLUMNS = 10_000
# Three times what DuckDB may use: Python, Arrow and thread stacks reserve address space as well.
ADDRESS_SPACE_BYTES = 3 << 30
# Most answers are there sooner: until then a page waits, instead of drawing that it waits.
PATIENCE_SECONDS = 0.6

CANCELLED = "the query was cancelled"
IS_LARGER_THAN = "the answer is larger than"

# What Python needs to start at all. Everything else a query has no business to see.
_KEPT_VARIABLES = ("PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")


def run(path: Path, sql: str, *, row_limit: int | None, timeout_seconds: float) -> Answer:
    """Ask the store one statement that somebody typed.

    Args:
        row_limit: rows at most; None for all of them.
        timeout_seconds: for the statement alone; waiting for the store's lock comes on top.

    Raises:
        RejectedQueryError: it is no single SELECT, is wrong, took too long or asked too much.
        StoreError: the store cannot be used.
    """
    return start(path, sql, row_limit=row_limit, timeout_seconds=timeout_seconds).wait()


def start(
    path: Path, sql: str, *, row_limit: int | None, timeout_seconds: float
) -> Running[Answer]:
    """Begin what :func:`run` does, and return at once.

    Raises:
        RejectedQueryError: it is no text that could be asked.
    """
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise RejectedQueryError("the query is not valid text", "save it as UTF-8") from error
    wait_seconds = settings.wait_seconds()
    request = {
        "path": str(path.absolute()),
        "sql": sql,
        "row_limit": row_limit,
        "timeout_seconds": timeout_seconds,
        "wait_seconds": wait_seconds,
    }
    child = _child()
    exchange = _Exchange(child, request, wait_seconds + START_SECONDS)
    # Not a daemon: pyarrow and the interpreter's end do not go together. The clock ends it in time.
    return Running(child, exchange.answer, is_daemon=False)


# The process for a statement to come; one that was asked is asked nothing else.
_waiting: list[Child] = []
_waiting_lock = threading.Lock()


def get_ready() -> None:
    """Start the process for the next statement now, in a program that expects one.

    It takes longer to start than most statements take, and waits until :func:`start` uses it or
    this program ends.
    """
    with _waiting_lock:
        if not any(child.is_alive for child in _waiting):
            _waiting.append(_new_child())


def _child() -> Child:
    with _waiting_lock:
        while _waiting:
            child = _waiting.pop()
            if child.is_alive:
                return child
            child.close()
    return _new_child()


def _new_child() -> Child:
    return Child("quantstore.console.child", environment=_environment())


def outcome(running: Running[Answer]) -> Answer | RejectedQueryError:
    """What a statement that is over came to, for a page that shows either.

    Raises:
        StoreError: the store cannot be used.
    """
    try:
        return running.wait()
    except StoreError:
        raise
    except RejectedQueryError as error:
        return error
    except QuantstoreError as error:
        return RejectedQueryError(str(error), error.hint)


class _Exchange:
    """One statement with its child: the rows as they come in, and why it was stopped."""

    def __init__(self, child: Child, request: dict[str, Any], start_seconds: float) -> None:
        self._child = child
        self._request = request
        self._start_seconds = start_seconds
        self._opened_at: float | None = None
        self._refusal: RejectedQueryError | None = None
        self._chunks = ChunkReader()
        self._table: pa.Table | None = None
        self._read_failure: Exception | None = None

    def answer(self, _: TakeProgress) -> Answer:
        """Wait for the child, in the thread that is there for it."""
        # What reads the rows stops where the chunks do.
        reader = threading.Thread(target=self._read, name="rows", daemon=True)
        reader.start()
        share = limits.memory_bytes()
        memory = ADDRESS_SPACE_BYTES if share is None else min(ADDRESS_SPACE_BYTES, share)
        # A long statement can fill the pipe of a child that hangs: from here on there is a clock.
        self._child.allow(self._start_seconds + GRACE_SECONDS)
        self._child.ask(
            self._request,
            ChildLimits(
                wall_seconds=self._start_seconds,
                memory_bytes=memory,
                address_space_bytes=ADDRESS_SPACE_BYTES,
                may_write_files=False,
            ),
        )
        failure: Exception | None = None
        try:
            self._child.answer(self._note_open, self._chunks.take)
        except (QuantstoreError, EndedError) as error:
            failure = error
        finally:
            self._chunks.finish()
            reader.join()
        seconds = 0.0 if self._opened_at is None else time.perf_counter() - self._opened_at
        # What this side refused: the child was ended for it, and has nothing to say.
        if self._refusal is not None:
            raise self._refusal
        if self._read_failure is not None:
            raise self._read_failure
        if failure is not None:
            raise self._explained(failure) from failure
        if self._table is None:
            raise RuntimeError("the console's child gave no rows and no reason")
        table = self._table
        row_limit = self._request["row_limit"]
        was_cut = row_limit is not None and table.num_rows > row_limit
        return Answer(table.slice(0, row_limit), was_cut, seconds)

    def _note_open(self, _: Any) -> None:
        """The store is open: from here on the time counts that the statement was allowed."""
        self._opened_at = time.perf_counter()
        self._child.allow(self._request["timeout_seconds"] + GRACE_SECONDS)

    def _read(self) -> None:
        try:
            self._table = self._whole_table()
        except Exception as error:
            self._read_failure = error
            # Nobody takes the rows any more.
            self._child.cancel()
        finally:
            # Whoever hands over the next chunk must not wait for a reader that is gone.
            self._chunks.finish()

    def _whole_table(self) -> "pa.Table | None":
        """The whole answer; None where it stops before its end, or is refused."""
        import pyarrow as pa

        batches = []
        size = 0
        try:
            with pa.ipc.open_stream(io.BufferedReader(self._chunks)) as reader:
                if len(reader.schema) > MOST_COLUMNS:
                    self._refuse(
                        f"the answer has {len(reader.schema):,} columns", "choose fewer columns"
                    )
                    return None
                for batch in reader:
                    batches.append(batch)
                    size += batch.nbytes
                    if size > LARGEST_ANSWER_BYTES:
                        self._refuse(
                            f"{IS_LARGER_THAN} {LARGEST_ANSWER_BYTES >> 30} GiB",
                            "choose fewer columns, or add a limit",
                        )
                        return None
                names = unique_names(reader.schema.names)
                return pa.Table.from_batches(batches, reader.schema).rename_columns(names)
        except (pa.ArrowInvalid, OSError):
            # Cut off in mid-stream: the child's failure is the reason.
            return None

    def _refuse(self, message: str, hint: str) -> None:
        self._refusal = RejectedQueryError(message, hint)
        self._child.cancel()

    def _too_slow(self) -> RejectedQueryError:
        if self._opened_at is None:
            return RejectedQueryError(
                f"the query did not start within {self._start_seconds:g} seconds",
                "try again in a moment",
            )
        seconds = self._request["timeout_seconds"]
        return RejectedQueryError(
            f"the query was stopped after {seconds:g} second{'' if seconds == 1 else 's'}",
            "reduce what the query reads, or allow more time",
        )

    def _explained(self, failure: Exception) -> Exception:
        if isinstance(failure, RejectedQueryError):
            return explained(failure, self._request["sql"], self._too_slow())
        if not isinstance(failure, EndedError):
            return failure
        if failure.cause is Cause.CANCELLED:
            return RejectedQueryError(CANCELLED)
        if failure.cause in (Cause.TOO_SLOW, Cause.TOO_MUCH_CPU):
            return self._too_slow()
        # Killed, but not by this side: the system kills what takes too much memory.
        if failure.cause in (Cause.OUT_OF_MEMORY, Cause.KILLED):
            return out_of_memory()
        return RejectedQueryError(
            "the query crashed DuckDB", "the store is intact; rewrite the query"
        )


def _environment() -> dict[str, str]:
    return {
        **{name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        # Both reserve address space per core, which the child's limit counts.
        "OPENBLAS_NUM_THREADS": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
    }
