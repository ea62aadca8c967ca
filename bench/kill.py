"""kill -9 at random moments of an ingest, a remove and a migration, by the hundred.

    python bench/kill.py                    300 kills, seed 1
    python bench/kill.py --kills 50 --seed 7

Each time a child process changes a store and says when something is done; it is killed at a random
moment between its start and the time it would need. Then the store must open at once; what the
child said is done must be there, whole; of anything else there may be no trace, except that one
change may be complete whose word was cut off. What a killed process left must not be in the way of
the same work done again, which every fifth kill tries. Linux and macOS: children are forked from a
process that has loaded everything.
"""

import argparse
import gzip
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from quantstore import store
from quantstore.errors import MissingStoreError, OlderStoreError
from quantstore.numerics.sweep import SweepPlan
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.schemes import INT8_SCHEMES
from quantstore.store import SCHEMA_VERSION
from quantstore.store.rows import load_numpy

ROOT = Path(__file__).resolve().parent.parent
OLD_STORE = ROOT / "tests" / "data" / "store-schema-1.duckdb.gz"
TASKS = ("first ingest", "ingest", "remove", "migration")

# Measured with the four int8 schemes only: the kills shall hit the writing.
CHOICES = IngestChoices(probe=False, jobs=1, plan=SweepPlan(schemes=INT8_SCHEMES, is_full=False))
MODELS = 3
EVERY_SO_MANY_GO_ON = 5

# After a crash the log of a store is replayed; a person must not notice.
AT_ONCE_SECONDS = 5.0

# Rows of each table that belong to a model, by its name.
ROWS = {
    "layers": "layers join models using (model_id)",
    "channels": "channels join layers using (layer_id) join models using (model_id)",
    "errors": "errors join layers using (layer_id) join models using (model_id)",
    "channel_errors": "channel_errors join layers using (layer_id) join models using (model_id)",
    "histograms": "histograms join layers using (layer_id) join models using (model_id)",
    "clipping": "clipping join layers using (layer_id) join models using (model_id)",
    "bits_needed": "bits_needed join layers using (layer_id) join models using (model_id)",
    "equalization": "equalization join layers using (layer_id) join models using (model_id)",
}

Whole = dict[str, dict[str, int]]


@dataclass(slots=True)
class StoreState:
    """What a store holds after a kill."""

    models: Whole = field(default_factory=dict)
    version: int | None = None
    stray_rows: int = 0
    seconds_to_open: float = 0.0
    had_log: bool = False


@dataclass(slots=True)
class Tally:
    """What became of the kills of one kind."""

    kills: int = 0
    too_late: int = 0
    acknowledged: int = 0
    unheard: int = 0
    with_log: int = 0
    leftovers: int = 0
    slowest_open: float = 0.0
    failures: list[str] = field(default_factory=list)


def ask(path: Path) -> StoreState:
    """Everything that can be checked about a store; an absent one holds nothing."""
    state = StoreState(had_log=path.with_name(f"{path.name}.wal").exists())
    started = time.perf_counter()
    try:
        with store.reading(path, wait_seconds=AT_ONCE_SECONDS) as connection:
            state.seconds_to_open = time.perf_counter() - started
            state.version = SCHEMA_VERSION
            names = [name for (name,) in connection.rows("select model from models")]
            state.models = {name: {} for name in names}
            for table, source in ROWS.items():
                counts = connection.rows(f"select model, count(*) from {source} group by model")
                for name, count in counts:
                    state.models[name][table] = count
                state.stray_rows += connection.value(f"select count(*) from {table}") - sum(
                    count for _, count in counts
                )
    except MissingStoreError:
        pass
    except OlderStoreError:
        state.seconds_to_open = time.perf_counter() - started
        state.version = SCHEMA_VERSION - 1
    return state


def in_child(work: Callable[[int], None]) -> tuple[int, int]:
    """Start work in a forked process; returns its id and where it says what it has done."""
    listening, saying = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(listening)
            work(saying)
            os._exit(0)
        except BaseException as error:
            os.write(saying, f"!{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    os.close(saying)
    return pid, listening


def asked_in_child(path: Path) -> StoreState:
    """:func:`ask`, in a process that has not opened the store before."""

    def answer(saying: int) -> None:
        state = ask(path)
        fields = [
            state.models,
            state.version,
            state.stray_rows,
            state.seconds_to_open,
            state.had_log,
        ]
        os.write(saying, json.dumps(fields).encode())

    pid, listening = in_child(answer)
    with os.fdopen(listening) as stream:
        reply = stream.read()
    os.waitpid(pid, 0)
    if not reply.startswith("["):
        raise AssertionError(f"the store does not open: {reply}")
    return StoreState(*json.loads(reply))


def killed(work: Callable[[int], None], seconds: float) -> tuple[list[str], float | None]:
    """Start work, kill it after so long; returns what it said.

    Also the seconds after which it had ended by itself, None where it was killed.
    """
    pid, listening = in_child(work)
    started = time.perf_counter()
    ended_after = None
    while ended_after is None and time.perf_counter() - started < seconds:
        time.sleep(0.001)
        if os.waitpid(pid, os.WNOHANG)[0]:
            ended_after = time.perf_counter() - started
    if ended_after is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with os.fdopen(listening) as stream:
        lines = stream.read().split("\n")
    # The last piece is cut off, or empty.
    return lines[:-1], ended_after


@dataclass(slots=True)
class Bench:
    """Models and stores that every trial begins with, and how long the work takes unharmed."""

    folder: Path
    models: list[Path]
    full: Path = field(init=False)
    half: Path = field(init=False)
    old: Path = field(init=False)
    whole: Whole = field(init=False)
    old_whole: Whole = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.full = self.folder / "full.duckdb"
        self.half = self.folder / "half.duckdb"
        self.old = self.folder / "old.duckdb"
        with gzip.open(OLD_STORE) as packed, self.old.open("wb") as file:
            shutil.copyfileobj(packed, file)
        self._unharmed(lambda _: self._ingest(self.models[:1], self.half, str))
        self.seconds["first ingest"] = self._unharmed(self.work("first ingest", self.full))
        self.seconds["ingest"] = self.seconds["first ingest"]
        self.whole = asked_in_child(self.full).models
        updated = self.prepared("migration", "updated")
        self.seconds["migration"] = self._unharmed(self.work("migration", updated))
        self.old_whole = asked_in_child(updated).models
        emptied = self.prepared("remove", "emptied")
        self.seconds["remove"] = self._unharmed(self.work("remove", emptied))

    def _unharmed(self, work: Callable[[int], None]) -> float:
        started = time.perf_counter()
        pid, listening = in_child(work)
        with os.fdopen(listening) as stream:
            output = stream.read()
        _, status = os.waitpid(pid, 0)
        if status:
            raise AssertionError(f"it fails even if nobody kills it: {output}")
        return time.perf_counter() - started

    def prepared(self, task: str, name: str) -> Path:
        """A fresh folder with the store that a trial of this task begins with, if any."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        path = folder / "store.duckdb"
        if task == "ingest":
            # The first of the models is there already.
            shutil.copy(self.half, path)
        elif task == "remove":
            shutil.copy(self.full, path)
        elif task == "migration":
            shutil.copy(self.old, path)
        return path

    def _ingest(self, models: list[Path], path: Path, say: Callable[[str], object]) -> None:
        for model in models:
            ingest_file(model, path, CHOICES)
            say(model.stem)

    def work(self, task: str, path: Path) -> Callable[[int], None]:
        """What the child does, saying the name of each model that is done."""

        def work(saying: int) -> None:
            def say(name: str) -> None:
                os.write(saying, f"{name}\n".encode())

            if task == "migration":
                store.update(path)
                say("updated")
            elif task == "remove":
                for model in self.models:
                    with store.writing(path) as connection:
                        store.remove_model_named(connection, model.stem)
                    say(model.stem)
            else:
                self._ingest(self.models, path, say)

        return work

    def trial(self, task: str, chance: random.Random, tally: Tally) -> None:
        """One kill, and everything that must hold after it."""
        path = self.prepared(task, "trial")
        moment = chance.uniform(0, self.seconds[task])
        acknowledged, ended_after = killed(self.work(task, path), moment)
        # How long the work takes changes with what else the computer does.
        self.seconds[task] = ended_after or 1.05 * self.seconds[task]
        tally.kills += 1
        tally.too_late += ended_after is not None
        tally.acknowledged += len(acknowledged)
        tally.leftovers += sum(".new-" in p.name or "unfinished" in p.name for p in _beside(path))
        try:
            state = asked_in_child(path)
            tally.with_log += state.had_log
            tally.slowest_open = max(tally.slowest_open, state.seconds_to_open)
            self._check(task, path, acknowledged, state, tally)
            if tally.kills % EVERY_SO_MANY_GO_ON == 0:
                self._go_on(task, path)
        except AssertionError as error:
            tally.failures.append(f"{task}, killed after {moment:.4f} s: {error}")

    def _check(
        self, task: str, path: Path, acknowledged: list[str], state: StoreState, tally: Tally
    ) -> None:
        assert not [line for line in acknowledged if line.startswith("!")], acknowledged
        assert state.stray_rows == 0, f"{state.stray_rows} rows belong to no model"
        if task == "migration":
            is_new = state.version == SCHEMA_VERSION
            assert is_new or not acknowledged, "an update that was acknowledged is undone"
            assert not is_new or state.models == self.old_whole, "an update lost rows"
            tally.unheard += is_new and not acknowledged
            return
        order = [model.stem for model in self.models]
        for name, counts in state.models.items():
            assert counts == self.whole[name], f"{name} is not whole: {counts}"
        if task == "remove":
            gone = [name for name in order if name not in state.models]
            assert gone[: len(acknowledged)] == acknowledged, (
                f"{acknowledged} were removed, {gone} are gone"
            )
            extra = len(gone) - len(acknowledged)
        else:
            stored_before = order[:1] if task == "ingest" else []
            expected = dict.fromkeys([*stored_before, *acknowledged])
            assert expected.keys() <= state.models.keys(), f"lost: {expected.keys() - state.models}"
            extra = len(state.models.keys() - expected.keys())
        assert extra <= 1, f"{extra} changes at once that nobody acknowledged"
        tally.unheard += extra

    def _go_on(self, task: str, path: Path) -> None:
        """The same work again, to the end: nothing that is left is in its way."""
        self._unharmed(self.work(task, path))
        state = asked_in_child(path)
        expected = {"migration": self.old_whole, "remove": {}}.get(task, self.whole)
        assert state.models == expected, "the same work again does not finish it"
        assert state.stray_rows == 0, "stray rows in the end"


def _beside(path: Path) -> list[Path]:
    return list(path.parent.iterdir())


def small_models(folder: Path, count: int) -> list[Path]:
    """Networks of two layers, each with other weights: measured in no time, so that kills hit."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    paths = []
    for number in range(count):
        random_numbers = np.random.default_rng(number)
        weights = [
            random_numbers.normal(size=(16, 8, 3, 3)).astype(np.float32),
            random_numbers.normal(size=(8, 16, 1, 1)).astype(np.float32),
        ]
        nodes = [
            helper.make_node("Conv", ["x", "w0"], ["y"], name="first", pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["y", "w1"], ["z"], name="second"),
        ]
        shape = [1, 8, 8, 8]
        graph = helper.make_graph(
            nodes,
            "small",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(array, f"w{i}") for i, array in enumerate(weights)],
        )
        path = folder / f"small-{number}.onnx"
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
        paths.append(path)
    return paths


def run(kills: int, seed: int) -> dict[str, Tally]:
    """Kill so often, an equal number of each kind; returns what was found."""
    # Every child would load it, and be killed doing so.
    load_numpy()
    chance = random.Random(seed)
    tallies = {task: Tally() for task in TASKS}
    with tempfile.TemporaryDirectory(prefix="quantstore-kill-") as name:
        folder = Path(name)
        bench = Bench(folder, small_models(folder, MODELS))
        for number in range(kills):
            task = TASKS[number % len(TASKS)]
            bench.trial(task, chance, tallies[task])
            if (number + 1) % 50 == 0:
                print(f"{number + 1} of {kills}", file=sys.stderr, flush=True)
    return tallies


def main() -> int:
    """Run, print a table, say what failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tallies = run(arguments.kills, arguments.seed)
    print(
        f"{'kind':<14}{'kills':>7}{'too late':>10}{'done, said':>12}{'done, unheard':>15}"
        f"{'log left':>10}{'scraps':>8}{'slowest open':>14}{'failures':>10}"
    )
    for task, t in tallies.items():
        print(
            f"{task:<14}{t.kills:>7}{t.too_late:>10}{t.acknowledged:>12}{t.unheard:>15}"
            f"{t.with_log:>10}{t.leftovers:>8}{t.slowest_open:>12.3f} s{len(t.failures):>10}"
        )
    failures = [failure for t in tallies.values() for failure in t.failures]
    for failure, count in Counter(failures).items():
        print(f"{count} times: {failure}", file=sys.stderr)
    print(f"{sum(t.kills for t in tallies.values())} kills, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
