"""The console's child process: one statement in, an Arrow stream out, nothing else within reach.

The request is ``{"path", "sql", "row_limit", "timeout_seconds", "wait_seconds"}``. Progress
``{"is_open": true}`` says that the store is open and the statement's own time begins; the rows are
chunks of the reply, and the result is None.
"""

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # pyarrow loads it where there is one, and streams as well without: a small statement is
    # answered in three quarters of the time.
    sys.modules["numpy"] = None  # type: ignore[assignment]

import pyarrow as pa

from quantstore import store
from quantstore.process import limits
from quantstore.process.limits import ChildLimits
from quantstore.process.serve import Reply, serve

# The parent kills sooner. Only a child that lost its parent gets this far.
SPARE_SECONDS = 5


def answer(request: dict[str, Any], reply: Reply) -> None:
    """Ask the store, write the rows, and end this process."""
    timeout_seconds, row_limit = request["timeout_seconds"], request["row_limit"]
    with store.sandbox(
        Path(request["path"]), timeout_seconds, request["wait_seconds"]
    ) as connection:
        _limit_time(timeout_seconds + SPARE_SECONDS)
        reply.progress({"is_open": True})
        # One row beyond the limit tells the parent that there are more.
        missing = sys.maxsize if row_limit is None else row_limit + 1
        stream = reply.chunks()
        with (
            connection.answering(request["sql"]) as reader,
            pa.ipc.new_stream(stream, reader.schema) as writer,
        ):
            for batch in reader:
                writer.write_batch(batch.slice(0, missing))
                missing -= batch.num_rows
                if missing <= 0:
                    break
        stream.flush()
        # Closing DuckDB would wait for a statement that nobody needs any more, or abort.
        reply.end_with(None)


def _limit_time(seconds: float) -> None:
    threads = int(str(store.SANDBOX["threads"])) + 1
    limits.put_on(ChildLimits(wall_seconds=seconds, cpu_seconds=threads * seconds))


if __name__ == "__main__":
    serve(answer)
