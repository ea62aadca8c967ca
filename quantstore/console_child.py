"""The console's child process: one statement in, an Arrow stream out, nothing else within reach.

Standard input carries the request as JSON. Standard output carries one byte once the store is
open, then the rows. A failure is one line of JSON on standard error and exit code 1.
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import BinaryIO

if __name__ == "__main__":
    # pyarrow loads it where there is one, and streams as well without: a small statement is
    # answered in three quarters of the time.
    sys.modules["numpy"] = None  # type: ignore[assignment]

import pyarrow as pa

from quantstore import store
from quantstore.console import out_of_memory
from quantstore.errors import QuantstoreError

# Three times what DuckDB may use: Python, Arrow and thread stacks reserve address space as well.
ADDRESS_SPACE_BYTES = 3 << 30
# The parent kills sooner. Only a child that lost its parent gets this far.
SPARE_SECONDS = 5


def main() -> int:
    """Answer the request on standard input; returns the exit code."""
    # Ctrl-C ends it at once: Python's own handler would wait for DuckDB to come back.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Not where it was started to ignore it, in the background of a script.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    request = json.load(sys.stdin.buffer)
    # Whatever a library prints must not end up among the rows.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _limit_memory_and_files()
    try:
        _answer(output, **request)
    except BrokenPipeError:
        # Nobody listens any more.
        return 0
    except MemoryError:
        failure: QuantstoreError = out_of_memory()
    except QuantstoreError as error:
        failure = error
    else:
        return 0
    # The parent reads the failure when the rows have ended.
    output.close()
    said = {"kind": type(failure).__name__, "message": str(failure), "hint": failure.hint}
    print(json.dumps(said), file=sys.stderr, flush=True)
    return 1


def _answer(
    output: BinaryIO,
    path: str,
    sql: str,
    row_limit: int | None,
    timeout_seconds: float,
    wait_seconds: float,
) -> None:
    with store.sandbox(Path(path), timeout_seconds, wait_seconds) as connection:
        _limit_time(timeout_seconds + SPARE_SECONDS)
        output.write(b"\n")
        output.flush()
        # One row beyond the limit tells the parent that there are more.
        missing = sys.maxsize if row_limit is None else row_limit + 1
        with (
            connection.answering(sql) as reader,
            pa.ipc.new_stream(output, reader.schema) as writer,
        ):
            for batch in reader:
                writer.write_batch(batch.slice(0, missing))
                missing -= batch.num_rows
                if missing <= 0:
                    break
        output.flush()
        # Closing DuckDB would wait for a statement that nobody needs any more, or abort.
        os._exit(0)


def _limit_memory_and_files() -> None:
    try:
        import resource
    except ImportError:
        # Windows: DuckDB's own limits and the parent's clock must do.
        return
    for limit, value in (
        (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        if hard == resource.RLIM_INFINITY or value < hard:
            # macOS refuses some of them.
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(limit, (value, value))


def _limit_time(seconds: float) -> None:
    try:
        import resource
    except ImportError:
        return
    # Neither asks the program whether it listens.
    signal.setitimer(signal.ITIMER_REAL, seconds)
    threads = int(str(store.SANDBOX["threads"])) + 1
    cpu_seconds = int(time.process_time() + threads * seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))


if __name__ == "__main__":
    code = main()
    # Without the interpreter's tidying up, which waits for DuckDB's threads.
    sys.stderr.flush()
    os._exit(code)
