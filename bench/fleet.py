"""200 small models through a Dask cluster of two workers, one of which is killed on the way.

    python bench/fleet.py [--models 200]

Among the models are a copy and a broken file. Everything must settle, and nothing be stored twice;
a second run must store nothing; the processes of `ingest --jobs` must write the same store, table
by table. It prints what a model costs its worker and the writer, in CPU time, and how many workers
one writer feeds. The exit code is 1 if a promise is broken.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from quantstore import store  # noqa: E402
from quantstore.pipeline import fleet  # noqa: E402
from quantstore.pipeline.cluster import dask_executor  # noqa: E402
from quantstore.pipeline.outcome import IngestChoices, IngestResult  # noqa: E402

WORKERS = 2
# The probe has a process of its own; what it costs is no matter of fleets.
CHOICES = IngestChoices(probe=False)

# Keys, clocks, and what depends on which of two copies came first.
DIFFERS = (
    *("model", "source", "path", "message", "ingested_at", "ingest_seconds", "created_at"),
    *("seconds", "cpu_seconds", "started_at", "finished_at", "peak_bytes"),
)


class TimedExecutor(Executor):
    """Another executor, and the CPU seconds that its workers spend on each file."""

    def __init__(self, executor: Executor) -> None:
        self.seconds: list[float] = []
        self._executor = executor

    def submit(self, work: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        answer: Future[Any] = Future()

        def take(timed_answer: "Future[Any]") -> None:
            if timed_answer.cancelled():
                answer.cancel()
                answer.set_running_or_notify_cancel()
            elif (error := timed_answer.exception()) is not None:
                answer.set_exception(error)
            else:
                result, seconds = timed_answer.result()
                self.seconds.append(seconds)
                answer.set_result(result)

        self._executor.submit(timed, work, *arguments).add_done_callback(take)
        return answer


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a worker does, and its CPU seconds."""
    start = time.process_time()
    return work(*arguments), time.process_time() - start


def write_zoo(folder: Path, count: int) -> list[Path]:
    """So many files: different networks, a copy of the first and one that is broken."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(count - 2):
        sizes = [3, *rng.integers(8, 48, size=rng.integers(2, 6)).tolist()]
        nodes, weights = [], []
        for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
            kernel = rng.standard_normal((outputs, inputs, 3, 3)).astype(np.float32)
            weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
            nodes.append(
                helper.make_node("Conv", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"], f"c{layer}")
            )
        shapes = [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in ("x0", f"x{len(nodes)}")
        ]
        graph = helper.make_graph(nodes, "net", shapes[:1], shapes[1:], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        files.append(folder / f"net{number:04d}.onnx")
        onnx.save(model, files[-1])
    files.insert(count // 2, Path(shutil.copy(files[0], folder / "copy.onnx")))
    files.insert(count // 3, folder / "broken.onnx")
    files[count // 3].write_bytes(b"This is no model.")
    return files


def counting(batches: list[int]) -> Callable[..., Any]:
    """What writes a batch, and notes how large it is."""
    write = fleet.written

    def written(batch: Any, *arguments: Any) -> Any:
        batches.append(len(batch))
        return write(batch, *arguments)

    return written


class Promises:
    """What must hold; says so, and counts what does not."""

    broken = 0

    def hold(self, sentence: str, is_held: bool) -> None:
        """Print a promise, and whether it is held."""
        print(f"  {'ok    ' if is_held else 'BROKEN'} {sentence}", flush=True)
        self.broken += not is_held


def outcomes(results: Iterable[IngestResult]) -> Counter[str]:
    """How many files came out how."""
    return Counter(result.outcome for result in results)


def tables_of(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every table with the content of its model in place of keys, in an order of its own."""
    tables = {}
    with store.reading(path) as connection:
        columns: dict[str, list[str]] = {}
        for table, column in connection.rows(
            "select table_name, column_name from duckdb_columns()"
            " where table_name in (select table_name from duckdb_tables()) order by column_index"
        ):
            columns.setdefault(table, []).append(column)
        for table, names in sorted(columns.items()):
            chosen = [f"{table}.{name}" for name in names if not is_left_out(name)]
            joins = ""
            if table == "models":
                chosen.insert(0, "sha256")
            elif "layer_id" in names and table not in ("layers", "findings", "graph_points"):
                chosen[:0] = ["models.sha256", "layers.depth"]
                joins = " join layers using (layer_id) join models on models.model_id ="
                joins += " layers.model_id"
            elif "model_id" in names:
                chosen.insert(0, "models.sha256")
                joins = " join models using (model_id)"
            if chosen and table != "store_info":
                statement = f"select {', '.join(chosen)} from {table}{joins} order by all"
                tables[table] = connection.rows(statement)
    return tables


def is_left_out(column: str) -> bool:
    """Whether a column differs between two stores of the same files."""
    return column in DIFFERS or column.endswith("_id")


def main() -> int:
    """Run it all; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=200)
    count = parser.parse_args().models
    promises = Promises()
    expected = Counter({"stored": count - 2, "already stored": 1, "failed": 1})
    again = Counter({"already stored": count - 1, "failed": 1})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = write_zoo(folder, count)

        with dask_executor(workers=WORKERS) as dask:
            executor = TimedExecutor(dask)
            pids = list(dask._client.run(os.getpid).values())  # type: ignore[attr-defined]
            start, results = time.perf_counter(), []
            for result in fleet.ingest_many(
                files, folder / "dask.duckdb", CHOICES, executor=executor
            ):
                results.append(result)
                if len(results) == count // 2:
                    os.kill(pids[0], signal.SIGKILL)
            seconds = time.perf_counter() - start
            print(f"Dask, {WORKERS} workers, one killed: {count} files in {seconds:.1f} s")
            promises.hold(f"everything settles: {dict(outcomes(results))}", len(results) == count)
            promises.hold("nothing is stored twice", outcomes(results) == expected)
            worker_seconds = sum(executor.seconds) / len(executor.seconds)
            second = list(fleet.ingest_many(files, folder / "dask.duckdb", CHOICES, executor=dask))
            promises.hold(
                f"a second run stores nothing: {dict(outcomes(second))}", outcomes(second) == again
            )

        batches: list[int] = []
        fleet.written = counting(batches)
        start, cpu = time.perf_counter(), time.process_time()
        results = list(fleet.ingest_many(files, folder / "pool.duckdb", CHOICES, jobs=WORKERS))
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - start
        print(f"{WORKERS} processes of this machine: {count} files in {seconds:.1f} s")
        promises.hold(
            f"everything settles: {dict(outcomes(results))}", outcomes(results) == expected
        )
        by_cluster, by_pool = (tables_of(folder / f"{name}.duckdb") for name in ("dask", "pool"))
        # The second run of the cluster is not in the other store.
        by_cluster.pop("ingests"), by_pool.pop("ingests")
        unequal = [table for table, rows in by_cluster.items() if rows != by_pool[table]]
        row_count = sum(map(len, by_pool.values()))
        promises.hold(
            f"{len(by_pool)} tables with {row_count:,} rows are equal"
            + (f", but not {', '.join(unequal)}" if unequal else ""),
            not unequal,
        )
        writer_seconds = cpu / count
        print(
            f"CPU per model: worker {1000 * worker_seconds:.0f} ms,"
            f" writer {1000 * writer_seconds:.0f} ms"
        )
        print(f"one transaction stores {sum(batches) / len(batches):.1f} models")
        print(f"one writer feeds {worker_seconds / writer_seconds:.0f} workers of such models")
        for probed in (1.0, 5.0):
            print(f"and {probed / writer_seconds:.0f} of models that take {probed:g} s of CPU time")
    return 1 if promises.broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
