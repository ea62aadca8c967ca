"""How fast and how large the store is: insert, open, bytes of a model, before and after compaction.

Measures a generated model once and writes it again and again under other names. The peer of the
insert is the same rows as ready-made Arrow tables, appended by DuckDB to tables of the same columns
without any key: what is left is the price of our records. Every figure is the minimum, the median
and the maximum of several runs. ``python bench/store.py --help`` names the options.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import rows
from models import mobile_like
from pyarrow import parquet
from timing import Spread

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "store.json"

sys.path.insert(0, str(ROOT))
from quantstore import records, store  # noqa: E402
from quantstore.numerics.measure_layer import MEASURES_VERSION  # noqa: E402
from quantstore.pipeline.measure_file import measure_file  # noqa: E402
from quantstore.pipeline.outcome import MeasuredModel  # noqa: E402
from quantstore.store.tables import OF_MODELS  # noqa: E402


def main() -> None:
    """Measure, print the table, write it as JSON."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="quantstore-bench-") as folder:
        figures = measure(Path(folder), options.models, options.rounds)
    print(f"{options.models} models of {figures.pop('rows of a model'):,} rows")
    print(f"{'':52} {'min':>12}{'median':>12}{'max':>12}")
    for label, spread in figures.items():
        print(f"{label:52} {spread.minimum:12,.1f}{spread.median:12,.1f}{spread.maximum:12,.1f}")
    RESULTS.parent.mkdir(exist_ok=True)
    values = {label: spread.values for label, spread in figures.items()}
    RESULTS.write_text(json.dumps({"machine": rows.machine(), "figures": values}, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=100, help="models in the store")
    parser.add_argument("--rounds", type=int, default=7, help="how often the store is opened")
    options = parser.parse_args()
    if options.models < 2:
        parser.error("half of the models are removed: at least 2")
    return options


def measure(folder: Path, model_count: int, rounds: int) -> dict[str, Spread]:
    """Every figure by what it is of, and how many rows a model has."""
    file, path = folder / "model.onnx", folder / "store.duckdb"
    mobile_like(file)
    measured = measure_file(file)
    seconds = [
        _timed(lambda number=number: add(path, measured, number)) for number in range(model_count)
    ]
    size_per_model = path.stat().st_size / model_count
    tables = rows_of_a_model(path)
    row_count = sum(table.num_rows for table in tables.values())
    figures = {
        "rows of a model": row_count,
        "insert, thousand rows a second": _speed(row_count, seconds),
        "  plain Arrow insert of the same rows, thousand a second": _speed(
            row_count, append(folder / "plain.duckdb", tables, model_count)
        ),
        "insert of a model with opening and closing, ms": _milliseconds(seconds),
        "bytes of a model in the file, kB": Spread((size_per_model / 1000,)),
        "open, ask for one model and close, ms": _milliseconds(
            [_timed(lambda: ask(path)) for _ in range(rounds)]
        ),
    }
    export = folder / "export"
    figures["export all as Parquet, ms"] = _milliseconds(
        [_timed(lambda: store.export(path, export)) for _ in range(3)]
    )
    into = [folder / f"into-{number}.duckdb" for number in range(3)]
    figures["import all of it, ms"] = _milliseconds(
        [_timed(lambda target=target: store.merge(target, export)) for target in into]
    )
    with store.writing(path) as connection:
        for number in range(model_count // 2):
            store.remove_model_named(connection, f"model {number}")
    copies = [_compacted(path, folder / f"copy-{number}.duckdb") for number in range(3)]
    for number, moment in enumerate(("before compaction", "after compaction")):
        held = Spread(tuple(copy[number] / 1e6 for copy in copies))
        figures[f"half of the models removed, {moment}, MB"] = held
    figures["compaction, ms"] = _milliseconds([copy[2] for copy in copies])
    return figures


def add(path: Path, measured: MeasuredModel, number: int) -> None:
    """Store the measured model once more, under another name and content."""
    record = records.ModelRecord(
        model=f"model {number}",
        sha256=f"{number:064x}",
        folded=measured.folded,
        source=str(measured.path),
        file_bytes=measured.file_bytes,
        file_format=measured.file_format,
        producer=measured.producer,
        ir_version=measured.ir_version,
        opset=measured.opset,
        ingested_at=datetime(2026, 1, 1),
        ingest_seconds=measured.seconds,
        layer_count=len(measured.layers),
        weight_count=measured.weight_count,
        quantstore_version="bench",
        measures_version=MEASURES_VERSION,
    )
    with store.writing(path) as connection:
        store.add_model(connection, record, measured.layers, measured.equalization)


def rows_of_a_model(path: Path) -> dict[str, pa.Table]:
    """The rows that one model has in each table, as Arrow has them."""
    with tempfile.TemporaryDirectory(prefix="quantstore-bench-") as folder:
        store.export(path, Path(folder) / "one", ["model 0"])
        return {
            table.name: parquet.read_table(Path(folder) / "one" / f"{table.name}.parquet")
            for table in OF_MODELS
        }


def append(path: Path, tables: dict[str, pa.Table], times: int) -> list[float]:
    """Append Arrow tables to a file as often as told: the seconds of each time."""
    version = {"storage_compatibility_version": store.STORAGE_VERSION}
    with duckdb.connect(path, config=version) as duck:
        for name, table in tables.items():
            duck.register("rows", table)
            duck.execute(f"create table {name} as from rows limit 0")

    def once() -> None:
        with duckdb.connect(path, config=version) as duck:
            duck.execute("begin")
            for name, table in tables.items():
                duck.register("rows", table)
                duck.execute(f"insert into {name} from rows")
            duck.execute("commit")

    return [_timed(once) for _ in range(times)]


def ask(path: Path) -> None:
    """What a page does at least: open the store, ask for a model, close it."""
    with store.reading(path) as connection:
        store.find_model(connection, "model 1")


def _compacted(path: Path, copy: Path) -> tuple[int, int, float]:
    """Bytes before and after, and seconds, of a compaction; the store itself stays as it is."""
    # Nobody has it open: then a file may be copied behind DuckDB's back.
    copy.write_bytes(path.read_bytes())
    started = time.perf_counter()
    summary = store.compact(copy)
    return (*dataclasses.astuple(summary), time.perf_counter() - started)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _speed(row_count: int, seconds: list[float]) -> Spread:
    return Spread(tuple(row_count / duration / 1000 for duration in seconds))


def _milliseconds(seconds: list[float]) -> Spread:
    return Spread(tuple(1000 * duration for duration in seconds))


if __name__ == "__main__":
    main()
