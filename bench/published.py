"""A published folder of thousands of models: two writers, readers all the time, compactions.

    python bench/published.py [--models 2000] [--rounds 5]

Two processes copy measured models into stores of their own and publish after every batch. Readers
look at the folder meanwhile, one through quantstore, one as any DuckDB client through the file of
views: of each model that they see, every row must be there, nothing twice, and nothing that was
there before may be gone. A compaction is killed (kill -9) in the middle, then two run at once. In
the end the folder must hold what one store holds into which both are merged, table by table; and
what pages ask is timed on that store, on the folder as it was published, and compacted. Prints a
table; ends with 1 where a check fails.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import duckdb
import rows
from pages import SPREADS, copy_models, measure_bases
from tabulate import tabulate

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "published.json"

sys.path.insert(0, str(ROOT))
from quantstore import queries, store  # noqa: E402
from quantstore.schemes import TARGETS  # noqa: E402
from quantstore.store.parts import PUBLISHED_TABLES, listing  # noqa: E402
from quantstore.store.published import VIEWS_FILE  # noqa: E402

SCHEME, TARGET = "int8_channel_symmetric", "int8_channel"

# Rows of the tables that a model has most of, by its name.
ROWS_OF_MODELS = """
    with layer_rows as (
        select layer_id, 'stored_channels' as name from stored_channels
        union all select layer_id, 'stored_errors' from stored_errors
        union all select layer_id, 'stored_clipping' from stored_clipping
        union all select layer_id, 'histograms' from histograms
    ),
    model_rows as (
        select model_id, name, sum(count)::bigint as count
        from (select layer_id, name, count(*) as count from layer_rows group by all)
        left join layers using (layer_id)
        group by all
        union all
        select model_id, 'layers', count(*) from layers group by all
        union all
        select model_id, 'layer_totals', count(*) from layer_totals group by all
        union all
        select model_id, 'simulations', count(*) from simulations group by all
        union all
        select model_id, 'activation_errors', count(*)
        from activation_errors left join simulations using (simulation_id) group by all
    )
    select model, name, count from models full join model_rows using (model_id)
"""


Counts = dict[str, dict[str, int]]


def count_rows(ask: Callable[[str], list[tuple[Any, ...]]]) -> Counts:
    """The rows of every model in every table, by its name; raises where one is there twice."""
    counts: Counts = {}
    for model, table, count in ask(ROWS_OF_MODELS):
        of_model = counts.setdefault(model, {})
        if model is None or table in of_model:
            raise AssertionError(f"{model}: rows without a model, or a model twice ({table})")
        of_model[table] = count
    return counts


@dataclass
class Reader:
    """Looks at the folder again and again, and remembers what it saw."""

    folder: Path
    whole: Counts
    through_views: bool
    looks: int = 0
    seen: set[str] = field(default_factory=set)
    slowest_seconds: float = 0.0

    def look(self) -> None:
        """Count every row of every model; raises where something is not as it must be."""
        started = time.perf_counter()
        counts = self._count()
        self.slowest_seconds = max(self.slowest_seconds, time.perf_counter() - started)
        self.looks += 1
        if gone := self.seen - counts.keys():
            raise AssertionError(f"{len(gone)} models are gone, such as {min(gone)}")
        self.seen |= counts.keys()
        for model, of_model in counts.items():
            if of_model != self.whole[model_like(model)]:
                raise AssertionError(f"{model} is not whole: {of_model}")

    def _count(self) -> Counts:
        if not self.through_views:
            with store.reading(self.folder) as connection:
                return count_rows(connection.rows)
        # As any client does it, that knows nothing of parts.
        with duckdb.connect(self.folder / VIEWS_FILE, read_only=True) as client:
            client.execute("set enable_progress_bar = false")
            return count_rows(lambda sql: client.execute(sql).fetchall())


def model_like(model: str) -> str:
    """A model with equally many rows: the first copy of the same, or itself."""
    kind, number = model.split("-")
    return model if kind == "base" else f"model-{1 + (int(number) - 1) % len(SPREADS):04}"


def read_on(reader: Reader, stop: Event, answers: Any) -> None:
    """The life of a reader: look until it is told to stop, or sees what must not be."""
    wrong = ""
    try:
        is_last = False
        while not is_last:
            # Others work here as well.
            is_last = stop.wait(1.0)
            reader.look()
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    answers.put((reader.looks, len(reader.seen), reader.slowest_seconds, wrong))


@contextmanager
def readers(folder: Path, whole: Counts, moment: str) -> Iterator[None]:
    """Two readers at work meanwhile; raises where one of them saw what must not be."""
    stop: Event = multiprocessing.Event()
    answers: Any = multiprocessing.Queue()
    processes = [
        multiprocessing.Process(target=read_on, args=(Reader(folder, whole, views), stop, answers))
        for views in (False, True)
    ]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        stop.set()
        results = [answers.get() for _ in processes]
        for process in processes:
            process.join()
    for looks, models, slowest, wrong in results:
        print(f"{moment}: {looks} looks at up to {models:,} models, {slowest:.1f} s at most")
        if wrong:
            raise AssertionError(f"a reader {moment}: {wrong}")


def write_and_publish(
    path: Path, folder: Path, numbers: range, options: argparse.Namespace, answers: Any
) -> None:
    """A writer: copies models into its own store, and publishes after every batch."""
    with store.reading(path) as connection:
        bases = keys_of(connection)
    spent = []
    for first in range(numbers.start, numbers.stop, options.batch):
        batch = range(first, min(first + options.batch, numbers.stop))
        with store.writing(path) as connection:
            copy_models(connection, bases, batch, options.models)
        started = time.process_time()
        store.publish(path, folder)
        spent.append(time.process_time() - started)
    answers.put(spent)


def keys_of(connection: store.Connection) -> list[int]:
    """The measured models, in the order in which they are copied."""
    sql = "select model_id from models where model like 'base-%' order by model_id"
    return [key for (key,) in connection.rows(sql)]


def compact(folder: Path, answers: Any = None) -> None:
    """A process that compacts, and says how much CPU time it took."""
    started = time.process_time()
    store.compact_folder(folder)
    if answers is not None:
        answers.put(time.process_time() - started)


def kill_a_compaction(folder: Path) -> None:
    """Kill -9 while the merged part is being written: the folder holds what it held."""
    before = {part.name for part in listing(folder).live}
    process = multiprocessing.Process(target=compact, args=(folder,))
    process.start()
    begun: list[Path] = []
    # The table of channels, the largest, is the fourth.
    while process.is_alive() and len(begun) < 4:
        begun = list(folder.glob(".part.quantstore-*/part/*.parquet"))
        time.sleep(0.001)
    if not process.is_alive() or process.pid is None:
        raise AssertionError("the compaction was over before it could be killed")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    left = sum(file.stat().st_size for file in folder.glob(".part.quantstore-*/part/*"))
    print(f"killed a compaction of {len(before)} parts that had written {left / 1e6:,.0f} MB")
    if not before <= {part.name for part in listing(folder).live}:
        raise AssertionError("a compaction that was killed took parts away")


def digests(path: Path) -> dict[str, tuple[int, int]]:
    """The number of rows of every table, and a digest of them that no order changes."""
    by_table = {}
    with store.reading(path) as connection:
        for table in PUBLISHED_TABLES:
            columns = connection.value(
                "select string_agg(column_name, ', ' order by column_name) from duckdb_columns()"
                " where schema_name = 'main' and table_name = ?",
                [table.name],
            )
            ((count, digest),) = connection.rows(
                f"select count(*), coalesce(bit_xor(hash({columns})), 0) from {table.name}"
            )
            by_table[table.name] = (count, digest)
    return by_table


Question = Callable[[store.Connection], object]


def questions(model: str, layer_id: int, run: int, pair: tuple[str, str]) -> dict[str, Question]:
    """What pages ask: the functions that they call."""
    target = TARGETS[TARGET]
    return {
        "Compare: every model, ranked": lambda con: queries.ranked(queries.verdicts(con)),
        "Compare: traits for the filters": lambda con: queries.model_traits(
            con, target, queries.verdicts(con)
        ),
        "Compare: layers of five models": lambda con: queries.layer_profiles(
            con, [f"model-{number:04}" for number in range(1, 6)], SCHEME
        ),
        "Model: layers, worst first": lambda con: queries.worst_layers(con, model, SCHEME),
        "Model: network": lambda con: queries.model_network(con, model),
        "Model: findings, runs": lambda con: (
            queries.model_findings(con, model),
            queries.model_runs(con, model),
            queries.sensitivities(con, model),
        ),
        "Layer: details, schemes, channels": lambda con: (
            queries.layer_details(con, layer_id),
            queries.layer_schemes(con, layer_id),
            queries.layer_channel_facts(con, layer_id, SCHEME),
            queries.layer_channel_rows(con, layer_id, SCHEME),
        ),
        "Layer: histogram, clipping": lambda con: (
            queries.layer_histogram(con, layer_id),
            queries.layer_clipping(con, layer_id),
        ),
        "Drift: a run": lambda con: queries.drift(con, [run]),
        "Estimates: every model": lambda con: queries.reality(
            con, SCHEME, "weights", is_real=False
        ),
        "Revisions: two models": lambda con: queries.revision_changes(con, *pair, SCHEME),
        "SQL: schema": queries.schema,
        "Models: a page of them": lambda con: queries.shelf(con, limit=20),
        "Search": lambda con: queries.search(con, "blocks.12"),
        "open and close": lambda con: None,
    }


def timed(paths: dict[str, Path], rounds: int) -> dict[str, dict[str, tuple[float, float]]]:
    """Milliseconds of CPU and of the clock, medians, of every question at every place, in turns."""
    some = next(iter(paths.values()))
    with store.reading(some) as connection:
        names = queries.model_names(connection)
        model = names[len(names) // 2]
        layer_id, run = connection.rows(
            "select layer_id, simulation_id from layers join models using (model_id)"
            " join simulations using (model_id) join activation_errors using (simulation_id)"
            " where model = ? order by layers.depth, simulation_id limit 1",
            [model],
        )[0]
    asked = questions(model, layer_id, run, (names[0], names[1]))
    spent: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for turn in range(rounds + 1):
        for what, question in asked.items():
            for place in list(paths) if turn % 2 else reversed(paths):
                cpu, clock = time.process_time(), time.perf_counter()
                with store.reading(paths[place]) as connection:
                    question(connection)
                passed = (time.process_time() - cpu, time.perf_counter() - clock)
                # The first round opens files and imports what a question needs.
                if turn:
                    spent.setdefault(what, {}).setdefault(place, []).append(passed)
    return {
        what: {
            place: tuple(1000 * statistics.median(column) for column in zip(*times, strict=True))
            for place, times in by_place.items()
        }
        for what, by_place in spent.items()
    }


def main() -> int:
    """Publish, look, compact, compare, time; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=2000, help="models that are published")
    parser.add_argument("--rounds", type=int, default=5, help="how often each question is timed")
    parser.add_argument("--batch", type=int, default=50, help="models that are published at a time")
    parser.add_argument(
        "--bases", type=Path, help="a store of the measured models; kept where there is none"
    )
    options = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory(prefix="quantstore-bench-") as temporary:
        bases = options.bases or Path(temporary) / "bases.duckdb"
        if not bases.exists():
            measure_bases(bases, bases.parent)
        try:
            report(Path(temporary), bases, options)
        except AssertionError as error:
            print(f"WRONG: {error}")
            return 1
    return 0


def report(folder: Path, bases: Path, options: argparse.Namespace) -> None:
    """Everything in a folder of its own; raises where a check fails."""
    paths = [folder / "anna.duckdb", folder / "ben.duckdb"]
    shared, merged, first = folder / "shared", folder / "merged.duckdb", folder / "first.duckdb"
    for path in (*paths, first):
        shutil.copy(bases, path)
    with store.writing(first) as connection:
        copy_models(connection, keys_of(connection), range(len(SPREADS)), options.models)
        whole = count_rows(connection.rows)
    store.publish(paths[0], shared)
    half = options.models // 2
    shares = [range(half), range(half, options.models)]
    with readers(shared, whole, "while two writers publish"):
        publish_all(paths, shared, shares, options)
    as_published = folder / "as published"
    as_published.mkdir()
    held = listing(shared)
    for part in (*held.live, *held.replaced):
        if not part.replaces:
            shutil.copytree(part.path, as_published / part.name, copy_function=os.link)
    shutil.copy(shared / VIEWS_FILE, as_published)
    with readers(shared, whole, "while two compactions run at once"):
        compact_twice(shared)
    time.sleep(SETTLED_SECONDS)
    with readers(shared, whole, "while merged parts are removed"):
        summary = store.compact_folder(shared, SETTLED_SECONDS)
    print(f"removed {summary.removed} merged parts, {summary.waiting} still there")
    if not summary.removed:
        raise AssertionError("no part was removed")
    shutil.copy(paths[0], merged)
    store.merge(merged, paths[1])
    places = {"store": merged, "as published": as_published, "compacted": shared}
    expected, *others = map(digests, places.values())
    for of_place in others:
        if differing := [table for table in expected if of_place[table] != expected[table]]:
            raise AssertionError(f"not as in the store: {', '.join(differing)}")
    print(f"{sum(count for count, _ in expected.values()):,} rows are the same in all places")
    show(places, timed(places, options.rounds))


# Whoever listed the folder before the last compaction was over has finished by then.
SETTLED_SECONDS = 5.0


def publish_all(
    paths: list[Path], shared: Path, shares: list[range], options: argparse.Namespace
) -> None:
    """Both writers at once; half-way a compaction is killed, and another one is not."""
    answers: Any = multiprocessing.Queue()
    writers = [
        multiprocessing.Process(
            target=write_and_publish, args=(path, shared, share, options, answers)
        )
        for path, share in zip(paths, shares, strict=True)
    ]
    for writer in writers:
        writer.start()
    batches = sum(-(-len(share) // options.batch) for share in shares)
    while len(listing(shared).live) < batches / 2 and all(writer.is_alive() for writer in writers):
        time.sleep(0.1)
    kill_a_compaction(shared)
    before = len(listing(shared).live)
    compact(shared)
    print(f"a compaction while others write: {before} parts, then {len(listing(shared).live)}")
    spent = [seconds for _ in writers for seconds in answers.get()]
    for writer in writers:
        writer.join()
    milliseconds = 1000 * statistics.median(spent)
    print(f"{len(spent)} batches of {options.batch} models, {milliseconds:,.0f} ms of CPU each")


def compact_twice(shared: Path) -> None:
    """Two compactions at the same time."""
    answers: Any = multiprocessing.Queue()
    before = listing(shared).live
    both = [multiprocessing.Process(target=compact, args=(shared, answers)) for _ in range(2)]
    for process in both:
        process.start()
    spent = [answers.get() for _ in both]
    for process in both:
        process.join()
    after = listing(shared).live
    print(f"{len(before)} parts, then {len(after)}; {max(spent):.1f} s of CPU at most")


def show(places: dict[str, Path], times: dict[str, dict[str, tuple[float, float]]]) -> None:
    """The table: milliseconds of CPU time, medians."""
    heads = []
    for place, path in places.items():
        is_store = path.is_file()
        files = [path] if is_store else list(path.rglob("*.parquet"))
        size = sum(file.stat().st_size for file in files) / 1e9
        parts = "" if is_store else f", {len(listing(path).live)} parts"
        heads.append(f"{place}{parts}, {size:.2f} GB")
    lines = [
        [what, *(f"{by_place[place][0]:,.0f}" for place in places)]
        for what, by_place in times.items()
    ]
    print(tabulate(lines, ["ms of CPU time, median", *heads], tablefmt="github"))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": rows.machine(), "milliseconds": times}, indent=1))


if __name__ == "__main__":
    raise SystemExit(main())
