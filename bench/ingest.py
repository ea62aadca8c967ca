"""How fast quantstore is, beside what else there is; how it grows; what memory it takes.

``make bench`` runs everything, ``python bench/ingest.py [--quick] [SECTION...]`` a part:

- speed: a whole ingest against the peers of ``peers.py``, work alone and whole command
- growth: nanoseconds per weight and scheme, from 1 M to 500 M weights and from 1 to 200 schemes
- memory: peak memory, up to a model of 2.7 GB
- start: what a command costs that does next to nothing
- release: ingests as a user types them, probe included, beside release 0.1.0

This file says what is measured and what each figure is to reach. It prints one table and writes
``results/SECTION.json``.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from memory import Peak, peak_memory
from release import versions
from rows import Goal, Row, machine, table, write
from timing import Contender, Outcome, Run, Spread, UnavailableError, in_turns
from timing import run_child as child
from timing import run_command as command

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent.parent / "shared" / "models"
DIGITS = HERE.parent / "quantstore" / "demo_models" / "digits-plain.onnx"
# A folder of what people have, without what takes a minute alone.
FOLDER_BYTES = 5e6
RESULTS = HERE / "results"
# The installed command: what it finds does not depend on the working directory.
QUANTSTORE = Path(sys.executable).with_name("quantstore")
RTMDET = MODELS / "rtmdet-nano.onnx"

PLAIN, ORT, ONNXSIM, SHA = (
    "plain numpy loop, 4 schemes",
    "onnxruntime quantize + weight error, 1 scheme",
    "onnxsim estimate, 1 scheme",
    "sha256 of the file",
)
PEERS = {
    PLAIN: "plain-loop",
    ORT: "onnxruntime-debug",
    ONNXSIM: "onnxsim-estimate",
    SHA: "sha256",
}
FULL, FOUR, WHOLE = "whole ingest, everything", "whole ingest, 4 int8 schemes", "quantstore ingest"

# Goals, in process: of what a peer takes, we take at most the inverse.
FULL_GOALS = {PLAIN: Goal(1), ORT: Goal(1.7), ONNXSIM: Goal(1 / 0.8), SHA: Goal(1 / 12)}
FOUR_GOAL = Goal(2.5)
RTMDET_GOAL_SECONDS = 0.45
CPU_SECONDS, WAITED = "CPU s of all processes", "s whole command"
# Goals of whole commands, in parts of what release 0.1.0 takes.
RELEASE_GOALS = {"rtmdet-nano": 0.35, "digits-plain": 0.6, "folder": 0.45}
SCHEME_GOAL_NS = 2.5
THRESHOLDS_GOAL_PERCENT = 10
HELP_GOAL_SECONDS = 0.15
MEMORY_GOAL_MB, MEMORY_PER_TENSOR, MEMORY_BASE_MB = 1200, 5, 300

# The layer on which schemes are counted: 2.4 M weights, the largest convolution of ResNet-50.
ROWS, COLUMNS = 1024, 2304
MEGA = 1e6


def main() -> None:
    """Measure what the command line asks for, print the table, write the JSON."""
    sections = {
        "speed": speed,
        "growth": growth,
        "memory": memory,
        "start": start,
        "release": release,
    }
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(sections))
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no large model")
    asked = parser.parse_args()
    unknown = set(asked.sections) - set(sections)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(sections)}")
    everything: list[Row] = []
    for name in asked.sections or sections:
        started = time.perf_counter()
        rows = []
        for row in sections[name](asked.quick):
            _say(" | ".join(cell for cell in row.cells() if cell))
            rows.append(row)
        write(RESULTS / f"{name}.json", rows, is_quick=asked.quick)
        _say(f"{name}: {time.perf_counter() - started:.0f} s")
        everything += rows
    print(", ".join(f"{key} {value}" for key, value in machine().items()), end="\n\n")
    print(table(everything))
    print("\nratio: the peer's median over quantstore's; above 1, quantstore is the better one")


def speed(is_quick: bool) -> Iterator[Row]:
    """Every peer on every model, in turns with us."""
    rounds = 2 if is_quick else 5
    for generator in ("resnet50-like", "mobilenetv2-like"):
        with generated(generator) as (path, _):
            yield from _speed_of(path, rounds)
    if RTMDET.exists():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / RTMDET.name
            path.write_bytes(RTMDET.read_bytes())
            yield from _speed_of(path, rounds)
    else:
        yield Row(what=FULL, model=RTMDET.stem, unit="s in process", ours=f"no file {RTMDET}")


def _speed_of(path: Path, rounds: int) -> Iterator[Row]:
    contenders: dict[str, Contender] = {
        FOUR: partial(child, ours("four", path)),
        FULL: partial(child, ours("full", path)),
        WHOLE: partial(ingest, path),
        **{peer: partial(child, theirs(name, path)) for peer, name in PEERS.items()},
    }
    outcomes = in_turns(contenders, rounds)
    inner = partial(spread, outcomes, of=lambda run: run.seconds)
    outer = partial(spread, outcomes, of=lambda run: run.command_seconds)
    labels = {"model": path.stem, "unit": "s in process"}
    yield Row(
        what=FOUR, **labels, ours=inner(FOUR), peer=PLAIN, theirs=inner(PLAIN), goal=FOUR_GOAL
    )
    for peer in PEERS:
        goal = FULL_GOALS.get(peer)
        yield Row(what=FULL, **labels, ours=inner(FULL), peer=peer, theirs=inner(peer), goal=goal)
    if path.stem == RTMDET.stem:
        yield Row(what=FULL, **labels, ours=inner(FULL), goal=Goal(at_most=RTMDET_GOAL_SECONDS))
    labels["unit"] = "s whole command"
    for peer in PEERS:
        yield Row(what=WHOLE, **labels, ours=outer(WHOLE), peer=peer, theirs=outer(peer))


def growth(is_quick: bool) -> Iterator[Row]:
    """Nanoseconds per weight and scheme: more weights, more schemes, more thresholds."""
    # Layers, rows, columns, rounds.
    sizes = [(1, 1024, 1024, 5), (4, ROWS, COLUMNS, 5), (42, ROWS, COLUMNS, 3)]
    sizes += [(212, ROWS, COLUMNS, 2)]
    for layers, rows, columns, rounds in sizes[:2] if is_quick else sizes:
        shape = (layers, rows, columns)
        with generated("external-like", *shape) as (path, weight_count):
            yield from _growth_with_weights(path, weight_count, 2 if is_quick else rounds)
    rounds = 3 if is_quick else 5
    yield from _growth_with_schemes(rounds)
    yield from _growth_with_thresholds(rounds)


def _growth_with_weights(path: Path, weight_count: int, rounds: int) -> Iterator[Row]:
    contenders: dict[str, Contender] = {
        FOUR: partial(child, ours("four", path)),
        FULL: partial(child, ours("full", path)),
        PLAIN: partial(child, theirs("plain-loop", path)),
    }
    # A file of more than a few hundred MB has only just been written: it is in the disk cache.
    outcomes = in_turns(contenders, rounds, warm_up=weight_count < 50 * MEGA)
    for contender in (FOUR, FULL):
        yield Row(
            what=contender,
            model=f"generated, {weight_count / MEGA:.0f} M weights",
            unit="ns per weight",
            ours=spread(outcomes, contender, of=lambda run: run.seconds * 1e9 / weight_count),
            peer=PLAIN,
            theirs=spread(outcomes, PLAIN, of=lambda run: run.seconds * 1e9 / weight_count),
        )


def _growth_with_schemes(rounds: int) -> Iterator[Row]:
    """One layer under more and more min-max schemes: what the next one costs."""
    weight_count = ROWS * COLUMNS
    layer = f"one layer, {weight_count / MEGA:.1f} M weights"
    widths = {"2 to 8 bits": 8, "2 to 16 bits": 16}
    our_counts, their_counts = (1, 50, 100, 200), (1, 4, 8)
    contenders: dict[str, Contender] = {
        f"{width} {count}": partial(child, ours("schemes", count, most_bits, ROWS, COLUMNS))
        for width, most_bits in widths.items()
        for count in our_counts
    }
    contenders |= {
        f"plain {count}": partial(child, theirs("plain-layer", count, ROWS, COLUMNS))
        for count in their_counts
    }
    outcomes = in_turns(contenders, rounds)
    for width in widths:
        for count in our_counts:
            each = weight_count * count / 1e9
            yield Row(
                what=f"{count} min-max schemes of {width}, layer's statistics included",
                model=layer,
                unit="ns per weight and scheme",
                ours=spread(
                    outcomes, f"{width} {count}", of=lambda run, each=each: run.seconds / each
                ),
            )
    for unit, of in (
        ("ns per weight and core", lambda run: run.cpu_seconds),
        ("ns per weight", lambda run: run.seconds),
    ):
        for width in widths:
            yield Row(
                what=f"one more min-max scheme of {width}",
                model=layer,
                unit=unit,
                ours=_slope(outcomes, width, our_counts, weight_count, of),
                peer="one more scheme in the plain numpy loop",
                theirs=_slope(outcomes, "plain", their_counts, weight_count, of),
                goal=Goal(at_most=SCHEME_GOAL_NS) if unit.endswith("core") else None,
            )


def _slope(
    outcomes: Mapping[str, Outcome],
    prefix: str,
    counts: tuple[int, ...],
    weight_count: int,
    of: Callable[[Run], float],
) -> Spread | str:
    """Nanoseconds per weight that one more scheme adds, by a line through each round."""
    rounds = []
    for count in counts:
        runs = outcomes[f"{prefix} {count}"]
        if isinstance(runs, str):
            return runs
        rounds.append([of(run) * 1e9 / weight_count for run in runs])
    return Spread(
        tuple(
            statistics.linear_regression(counts, figures).slope
            for figures in zip(*rounds, strict=True)
        )
    )


def _growth_with_thresholds(rounds: int) -> Iterator[Row]:
    """All that is measured of a layer, with a hundred clipping thresholds and with two hundred."""
    models = {
        "generated, 9 M weights": ("external-like", 4, ROWS, COLUMNS),
        "mobilenetv2-like": ("mobilenetv2-like",),
    }
    for model, (generator, *shape) in models.items():
        with generated(generator, *shape) as (path, _):
            outcomes = in_turns(
                {
                    str(count): partial(child, ours("thresholds", count, path))
                    for count in (100, 200)
                },
                2 * rounds,
            )
        hundred, two_hundred = outcomes["100"], outcomes["200"]
        if isinstance(hundred, str) or isinstance(two_hundred, str):
            extra_time: Spread | str = hundred if isinstance(hundred, str) else str(two_hundred)
        else:
            pairs = zip(hundred, two_hundred, strict=True)
            extra_time = Spread(
                tuple(100 * (twice.cpu_seconds / once.cpu_seconds - 1) for once, twice in pairs)
            )
        yield Row(
            what="a hundred more clipping thresholds",
            model=model,
            unit="% more CPU time",
            ours=extra_time,
            goal=Goal(at_most=THRESHOLDS_GOAL_PERCENT),
        )


def memory(is_quick: bool) -> Iterator[Row]:
    """The peak of the whole command, beside a loop that loads the model."""
    large = ("external-like", 64, 4096, 2560)
    small_ns: Spread | str = ""
    models = [("resnet50-like",), ("external-like", 10, 4096, 2560)]
    if not is_quick:
        models += [("external-like", 24, 4096, 2560, "Gemm"), large]
    for generator, *shape in models:
        with generated(generator, *shape) as (path, weight_count):
            megabytes = sum(file.stat().st_size for file in path.parent.iterdir()) / MEGA
            model = generator if not shape else f"generated, {shape[0]} {[*shape, 'MatMul'][3]}"
            model += f", {megabytes:,.0f} MB"
            is_large = (generator, *shape) == large
            yield from _memory_of(path, model, is_large, shape, 1 if is_large else 2)
            if is_large or not shape:
                # Not while somebody watches: the watching costs time.
                outcomes = in_turns({WHOLE: partial(ingest, path)}, 2 if is_large else 5)
                ns = spread(outcomes, WHOLE, of=lambda run: run.seconds * 1e9 / weight_count)
                yield Row(
                    what=WHOLE,
                    model=model,
                    unit="ns per weight",
                    ours=ns,
                    peer="the same on 102 MB" if is_large else "",
                    theirs=small_ns if is_large else "",
                    goal=Goal(1) if is_large else None,
                )
                small_ns = ns


def _memory_of(
    path: Path, model: str, is_large: bool, shape: list[object], rounds: int
) -> Iterator[Row]:
    goal = None
    if is_large:
        tensor_mb = int(str(shape[1])) * int(str(shape[2])) * 4 / MEGA
        goal = Goal(
            at_most=round(min(MEMORY_GOAL_MB, MEMORY_PER_TENSOR * tensor_mb + MEMORY_BASE_MB)),
            note=f"5 times the largest tensor of {tensor_mb:.0f} MB, and 300",
        )
    peaks: dict[str, list[Peak] | str] = {WHOLE: [], PLAIN: []}
    for _ in range(rounds):
        for contender, measured_peaks in peaks.items():
            if isinstance(measured_peaks, str):
                continue
            store = Path(tempfile.mkdtemp(dir=path.parent)) / "bench.duckdb"
            line = theirs("plain-loop", path) if contender == PLAIN else ingest_command(path, store)
            try:
                measured_peaks.append(peak_memory(line))
            except UnavailableError as error:
                peaks[contender] = str(error)
    for unit, of in (
        ("MB at the peak, PSS of all processes", lambda peak: peak.tree_pss / MEGA),
        ("MB at the peak, RSS of the first process", lambda peak: peak.root_rss / MEGA),
    ):
        figures = {
            contender: measured_peaks
            if isinstance(measured_peaks, str)
            else Spread(tuple(map(of, measured_peaks)))
            for contender, measured_peaks in peaks.items()
        }
        yield Row(
            what=WHOLE,
            model=model,
            unit=unit,
            ours=figures[WHOLE],
            peer=PLAIN,
            theirs=figures[PLAIN],
            goal=goal,
        )


def start(is_quick: bool) -> Iterator[Row]:
    """Commands that do next to nothing, beside an interpreter that does nothing at all."""
    with generated("mobilenetv2-like") as (path, _):
        store = path.parent / "bench.duckdb"
        command(ingest_command(path, store))
        query = f"import duckdb; duckdb.connect({str(store)!r}, read_only=True).sql('from models')"
        lines: dict[str, list[object]] = {
            "quantstore --help": [QUANTSTORE, "--help"],
            "quantstore models": [QUANTSTORE, "models", "--db", store],
            "python -c pass": [sys.executable, "-c", "pass"],
            "python -c 'import duckdb', one query": [sys.executable, "-c", query],
        }
        contenders: dict[str, Contender] = {
            name: partial(command, line) for name, line in lines.items()
        }
        outcomes = in_turns(contenders, 5 if is_quick else 15)
    ours_, theirs_ = list(lines)[:2], list(lines)[2:]
    goals = (Goal(at_most=HELP_GOAL_SECONDS), None)
    for command_line, peer, goal in zip(ours_, theirs_, goals, strict=True):
        yield Row(
            what=command_line,
            model="",
            unit="s whole command",
            ours=spread(outcomes, command_line, of=lambda run: run.seconds),
            peer=peer,
            theirs=spread(outcomes, peer, of=lambda run: run.seconds),
            goal=goal,
        )


def release(is_quick: bool) -> Iterator[Row]:
    """What ``quantstore ingest`` takes beside release 0.1.0.

    CPU seconds of a file. Of a folder the seconds that a person waits: its worker processes are
    ended, and what they and their probes used is told to nobody.
    """
    rounds = 2 if is_quick else 5
    with tempfile.TemporaryDirectory() as folder, versions() as both:
        for label, file, each in ((DIGITS.stem, DIGITS, rounds), (RTMDET.stem, RTMDET, rounds)):
            if file.exists():
                yield _beside_release(
                    label, file, both, each, Path(folder), RELEASE_GOALS[label], CPU_SECONDS
                )
            else:
                yield Row(what=WHOLE, model=label, unit="CPU s", ours=f"no file {file}")
        # It has no weights beside it: a refusal takes no time worth measuring.
        small = [
            file
            for file in sorted(MODELS.glob("*.onnx"))
            if file.stat().st_size < FOLDER_BYTES and "missing-data" not in file.name
        ]
        models = Path(folder) / "models"
        models.mkdir()
        for file in small:
            (models / file.name).write_bytes(file.read_bytes())
        if small and not is_quick:
            label = f"a folder of {len(small)} models"
            goal = RELEASE_GOALS["folder"]
            yield _beside_release(label, models, both, 3, Path(folder), goal, WAITED)


def _beside_release(
    label: str,
    source: Path,
    both: Mapping[str, tuple[Path, dict[str, str]]],
    rounds: int,
    scratch: Path,
    goal: float,
    unit: str,
) -> Row:
    def run(package_folder: Path, environment: dict[str, str]) -> Run:
        store = Path(tempfile.mkdtemp(dir=scratch)) / "bench.duckdb"
        line = [sys.executable, "-m", "quantstore", "ingest", source, "--db", store]
        return command(line, environment, package_folder)

    outcomes = in_turns({name: partial(run, *where) for name, where in both.items()}, rounds)
    taken = partial(
        spread,
        outcomes,
        of=lambda run: run.cpu_seconds if unit == CPU_SECONDS else run.command_seconds,
    )
    return Row(
        what=f"{WHOLE}, with the probe",
        model=label,
        unit=unit,
        ours=taken("this"),
        peer="release 0.1.0",
        theirs=taken("0.1.0"),
        goal=Goal(1 / goal),
    )


@contextmanager
def generated(generator: str, *arguments: object) -> Iterator[tuple[Path, int]]:
    """A model of ``models.py`` in a folder of its own, with its weight count; gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{generator}.onnx"
        _say(f"generating {' '.join(map(str, (generator, *arguments)))}")
        line = [sys.executable, HERE / "models.py", generator, path, *arguments]
        done = subprocess.run([*map(str, line)], stdout=subprocess.PIPE, text=True, check=True)
        yield path, int(done.stdout)


def ours(name: str, *arguments: object) -> list[object]:
    """The command line of one of our own children."""
    return [sys.executable, HERE / "ours.py", name, *arguments]


def theirs(name: str, *arguments: object) -> list[object]:
    """The command line of a peer."""
    return [sys.executable, HERE / "peers.py", name, *arguments]


def ingest_command(path: Path, store: Path) -> list[object]:
    """The command line that a user would type."""
    # No peer runs the model, so neither does this.
    return [QUANTSTORE, "ingest", path, "--db", store, "--replace", "--no-probe"]


def ingest(path: Path) -> Run:
    """Run the command on an empty store, as ``ours.py`` does."""
    return command(ingest_command(path, Path(tempfile.mkdtemp(dir=path.parent)) / "bench.duckdb"))


def spread(
    outcomes: Mapping[str, Outcome], name: str, *, of: Callable[[Run], float]
) -> Spread | str:
    """One figure of every run, or why there are none."""
    runs = outcomes[name]
    return runs if isinstance(runs, str) else Spread(tuple(of(run) for run in runs))


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
