"""One statement somebody typed: its answer, and whether a limit cut it.

DuckDB's own limits do not stop a runaway function call, and some input crashes it. So the
statement runs in a child process (``console_child``) that reads the store and nothing else, within
limits of the operating system; this side kills it when its time is up.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import quantstore
from quantstore import errors, settings
from quantstore.errors import QuantstoreError, RejectedQueryError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# For the start of Python on a busy computer; waiting for the store comes on top.
START_SECONDS = 30.0
# DuckDB stops most statements by itself, and then says so; what does not listen is killed.
GRACE_SECONDS = 0.5
# An answer is held in memory here. Beyond this nobody reads it, and it would hurt everybody.
LARGEST_ANSWER_BYTES = 1 << 30
# Of an answer that is wider nobody sees the end either, and every column costs as much as a table.
MOST_COLUMNS = 10_000

CANCELLED = "the query was cancelled"

# What Python needs to start at all. Everything else a query has no business to see.
_KEPT_VARIABLES = ("PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")


@dataclass(frozen=True)
class Answer:
    """What a statement came to. ``was_cut`` says that there are more rows than were asked for."""

    table: "pa.Table"
    was_cut: bool
    seconds: float

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """The rows as a frame, see :func:`frame_of`."""
        return frame_of(self.table)


def run(path: Path, sql: str, *, row_limit: int | None, timeout_seconds: float) -> Answer:
    """Ask the store one statement that somebody typed.

    Args:
        row_limit: rows at most; None for all of them.
        timeout_seconds: for the statement alone; waiting for the store's lock comes on top.

    Raises:
        RejectedQueryError: it is no single SELECT, is wrong, took too long or asked too much.
        StoreError: the store cannot be used.
    """
    return start(path, sql, row_limit=row_limit, timeout_seconds=timeout_seconds).result()


def start(path: Path, sql: str, *, row_limit: int | None, timeout_seconds: float) -> "Running":
    """Begin what :func:`run` does, and return at once."""
    return Running(path, sql, row_limit=row_limit, timeout_seconds=timeout_seconds)


class Running:
    """A statement under way. One thread asks for its :meth:`result`, any may :meth:`cancel` it."""

    def __init__(
        self, path: Path, sql: str, *, row_limit: int | None, timeout_seconds: float
    ) -> None:
        self._sql = sql
        self._row_limit = row_limit
        self._timeout_seconds = timeout_seconds
        self._wait_seconds = settings.wait_seconds()
        self._reason_to_stop: RejectedQueryError | None = None
        self._has_opened = threading.Event()
        self._table: pa.Table | None = None
        self._elapsed = 0.0
        self._trouble: Exception | None = None
        self._reader = threading.Thread(target=self._read, name="answer", daemon=True)
        try:
            sql.encode()
        except UnicodeEncodeError as error:
            raise RejectedQueryError(
                "the statement is not valid text", "save it as UTF-8"
            ) from error
        self._process = subprocess.Popen(
            # -P: a file in the working folder must not shadow a module.
            [sys.executable, "-P", "-m", "quantstore.console_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
        )
        self._output = cast("IO[bytes]", self._process.stdout)
        self._complaints = cast("IO[bytes]", self._process.stderr)
        request = {
            "path": str(path.absolute()),
            "sql": sql,
            "row_limit": row_limit,
            "timeout_seconds": timeout_seconds,
            "wait_seconds": self._wait_seconds,
        }
        # A child that died at once explains itself later.
        with contextlib.suppress(BrokenPipeError), cast("IO[bytes]", self._process.stdin) as stdin:
            stdin.write(json.dumps(request).encode())

    def cancel(self) -> None:
        """Stop; :meth:`result` then raises that the query was cancelled."""
        self._stop(RejectedQueryError(CANCELLED))

    def result(self) -> Answer:
        """Wait for the answer. To be called once.

        Raises:
            RejectedQueryError: see :func:`run`; or it was cancelled.
            StoreError: the store cannot be used.
        """
        seconds = self._timeout_seconds
        too_slow = RejectedQueryError(
            f"stopped after {seconds:g} second{'' if seconds == 1 else 's'}",
            "ask for less at once, or allow more time",
        )
        start_seconds = self._wait_seconds + START_SECONDS
        no_start = RejectedQueryError(
            f"the query did not start within {start_seconds:g} seconds", "try again in a moment"
        )
        self._reader.start()
        try:
            # Here is only waiting, so that Ctrl-C finds it at once and never inside pyarrow.
            if not self._has_opened.wait(start_seconds):
                self._stop(no_start)
            self._reader.join(seconds + GRACE_SECONDS)
            if self._reader.is_alive():
                self._stop(too_slow)
                self._reader.join()
            if self._trouble is not None:
                raise self._trouble
            failure = self._failure(too_slow)
        finally:
            self.close()
        if failure is not None:
            raise failure
        if self._table is None:
            raise RuntimeError("the console's child ended without an answer and without a reason")
        was_cut = self._row_limit is not None and self._table.num_rows > self._row_limit
        return Answer(self._table.slice(0, self._row_limit), was_cut, self._elapsed)

    def close(self) -> None:
        """End it, whatever it was doing; an answer that nobody fetched is gone."""
        self._process.kill()
        self._process.wait()
        if self._reader.is_alive():
            self._reader.join()
        self._output.close()
        self._complaints.close()

    def _read(self) -> None:
        """Take in the whole answer, in a thread of its own: waiting for it can be cut short."""
        try:
            # The child says one byte when the store is open.
            is_open = self._output.read(1) != b""
            started = time.perf_counter()
            self._has_opened.set()
            if is_open:
                self._table = self._read_table()
                self._elapsed = time.perf_counter() - started
        except Exception as error:
            # Raised where the answer is waited for.
            self._trouble = error
        finally:
            self._has_opened.set()

    def _read_table(self) -> "pa.Table | None":
        """The whole answer, None where the child stops before its end."""
        import pyarrow as pa

        batches = []
        size = 0
        try:
            with pa.ipc.open_stream(self._output) as reader:
                if len(reader.schema) > MOST_COLUMNS:
                    self._stop(
                        RejectedQueryError(
                            f"the answer has {len(reader.schema):,} columns", "choose fewer columns"
                        )
                    )
                    return None
                for batch in reader:
                    batches.append(batch)
                    size += batch.nbytes
                    if size > LARGEST_ANSWER_BYTES:
                        self._stop(
                            RejectedQueryError(
                                f"the answer is larger than {LARGEST_ANSWER_BYTES >> 30} GiB",
                                "choose fewer columns, or add a limit",
                            )
                        )
                        return None
                names = _unique(reader.schema.names)
                return pa.Table.from_batches(batches, reader.schema).rename_columns(names)
        except (pa.ArrowInvalid, OSError):
            # Cut off in mid-stream: the reason is on the child's standard error.
            return None

    def _failure(self, too_slow: RejectedQueryError) -> QuantstoreError | None:
        complaint = self._complaints.read().decode(errors="replace").strip()
        code = self._process.wait()
        if self._reason_to_stop is not None:
            return self._reason_to_stop
        if code == 0:
            return None
        if complaint.startswith("{"):
            said = json.loads(complaint.splitlines()[-1])
            kind: type[QuantstoreError] = getattr(errors, said["kind"])
            failure = kind(said["message"], said["hint"])
            if not isinstance(failure, RejectedQueryError):
                return failure
            return explained(failure, self._sql, too_slow)
        if code == 1:
            raise RuntimeError(f"the console's child failed:\n{complaint}")
        # Negative: killed by a signal. The child arms its own clocks, in case this side is gone.
        if -code in _CLOCK_SIGNALS:
            return too_slow
        if -code == signal.SIGINT:
            # Ctrl-C reaches every process of a terminal, this one in a moment.
            return RejectedQueryError(CANCELLED)
        if -code == _SIGKILL:
            # Not by this side: the system kills what takes too much memory.
            return out_of_memory()
        return RejectedQueryError(
            "the query crashed DuckDB", "the store is unharmed; put the question in another way"
        )

    def _stop(self, reason: RejectedQueryError) -> None:
        if self._reason_to_stop is None:
            self._reason_to_stop = reason
        self._process.kill()


_SIGKILL = 9
# SIGALRM and SIGXCPU; the module signal lacks them on Windows.
_CLOCK_SIGNALS = (14, 24)
# Some messages quote the whole value they are about.
LONGEST_SENTENCE = 400


def out_of_memory() -> RejectedQueryError:
    """What to say of a statement that wanted more memory than it may have."""
    return RejectedQueryError(
        "the query needs more memory than it may have", "ask for fewer rows or columns at once"
    )


def _environment() -> dict[str, str]:
    package_parent = str(Path(quantstore.__file__).resolve().parent.parent)
    search_path = os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH"))))
    return {
        **{name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        "PYTHONPATH": search_path,
        # Both reserve address space per core, which the child's limit counts.
        "OPENBLAS_NUM_THREADS": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
    }


def _unique(names: list[str]) -> list[str]:
    """The names, each once: ``a``, ``a_1``, ``a_2``."""
    taken = set(names)
    seen: set[str] = set()
    # A statement may ask for a hundred thousand columns: where the count of each name stands.
    numbers: dict[str, int] = {}
    unique = []
    for name in names:
        candidate = name
        if name in seen:
            number = numbers.get(name, 0) + 1
            while (candidate := f"{name}_{number}") in taken:
                number += 1
            numbers[name] = number
            taken.add(candidate)
        seen.add(name)
        unique.append(candidate)
    return unique


def frame_of(table: "pa.Table") -> "pd.DataFrame":
    """Rows as a frame: decimals are numbers, integers with NULLs stay integers (``Int64``)."""
    import pandas as pd

    names = _unique(table.column_names)
    return pd.DataFrame(
        {name: _series(column) for name, column in zip(names, table.columns, strict=True)}
    )


def _series(column: "pa.ChunkedArray") -> "pd.Series[Any]":
    import pandas as pd
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    elif pa.types.is_decimal(kind):
        column = _number(column)
    if pa.types.is_integer(column.type) and column.null_count:
        unsigned = pa.types.is_uint64(column.type)
        dtype = pd.UInt64Dtype() if unsigned else pd.Int64Dtype()
        return cast("pd.Series[Any]", column.to_pandas(types_mapper=lambda _: dtype))
    return cast("pd.Series[Any]", column.to_pandas(maps_as_pydicts="lossy"))


def _number(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Decimals as numbers: sums of integers are decimals to Arrow, and integers to a reader.

    Integers that no integer of a frame holds arrive as text, which has every digit.
    """
    import pyarrow as pa

    if column.type.scale != 0:
        return column.cast(pa.float64())
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column.cast(pa.string())


_DUCKDB_ERROR = re.compile(r"(?:[\w ]+ Error: )?(?P<json>\{.*\})", re.DOTALL)


def explained(
    error: RejectedQueryError, sql: str, too_slow: RejectedQueryError | None = None
) -> RejectedQueryError:
    """DuckDB's error as a sentence with a next step, and the place it points to.

    Args:
        error: as :meth:`quantstore.store.Connection.answering` raises it.
        too_slow: what to say where the statement was interrupted.
    """
    found = _DUCKDB_ERROR.fullmatch(str(error))
    if found is None:
        return error
    said = json.loads(found["json"])
    kind = said["exception_type"]
    if kind == "INTERRUPT" and too_slow is not None:
        return too_slow
    if kind == "Out of Memory" or said["exception_message"].startswith("Arrow Appender"):
        return out_of_memory()
    # What follows the first line is advice, which the hint gives better.
    sentence = (said["exception_message"].strip() or kind).splitlines()[0].rstrip("!. ")
    if len(sentence) > LONGEST_SENTENCE:
        sentence = f"{sentence[:LONGEST_SENTENCE]}…"
    place, detail = _place(sql, said.get("location"))
    return RejectedQueryError(f"{sentence}{place}", _hint(said, sentence), detail)


def _place(sql: str, location: str | None) -> tuple[str, str]:
    """Where DuckDB's ``[offset,length]``, in bytes, is: in words, and as a picture."""
    if location is None:
        return "", ""
    offset, length = json.loads(location)
    source = sql.encode()
    if not 0 <= offset <= len(source):
        return "", ""
    before = source[:offset].decode(errors="replace")
    line_number = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1)
    line = sql.split("\n")[line_number - 1].replace("\t", " ")
    spot = source[offset : offset + length].decode(errors="replace").split("\n")[0]
    label = f"line {line_number}: "
    mark = " " * (len(label) + column) + "^" * max(1, len(spot))
    return f", at line {line_number}, column {column + 1}", f"{label}{line}\n{mark}"


def _hint(said: dict[str, str], sentence: str) -> str:
    candidates = [name for name in said.get("candidates", "").split(",") if name][:3]
    if candidates:
        *others, last = candidates
        return f"did you mean {', '.join(others)} or {last}?" if others else f"did you mean {last}?"
    if said.get("type") == "Table":
        return "list the tables with: show tables"
    if said.get("error_subtype") == "COLUMN_NOT_FOUND":
        return "list the columns of a table with: describe TABLE"
    if said["exception_type"] == "Permission":
        return "the console reads the store and nothing else"
    if "read-only mode" in sentence:
        return "the console only reads; one SELECT at a time"
    if "parameters" in sentence:
        return "write the values into the statement"
    return ""
