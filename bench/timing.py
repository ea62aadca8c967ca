"""Fair clocks: one timed run per child process, contenders in turns, minimum, median and maximum.

A child imports everything it needs, then times its work alone and prints one line of JSON; its
parent times the whole command. The parent imports no library, so that it is small and does not
warm anything up. Only the standard library here.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Takes the arguments of the command line, imports and generates what is needed, returns the work.
Prepare = Callable[..., Callable[[], object]]


class UnavailableError(Exception):
    """A contender cannot run here; the message is what the table says instead of figures."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a child.

    ``seconds`` and ``cpu_seconds`` are those of the work alone (wall clock, and all threads of the
    process together), ``command_seconds`` those of the process from start to end. Where the child
    does not time itself, the work is the whole command, with all the processes that it starts.
    """

    seconds: float
    cpu_seconds: float
    command_seconds: float
    late_imports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """What repeated runs gave."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def minimum(self) -> float:
        return min(self.values)

    @property
    def maximum(self) -> float:
        return max(self.values)


Contender = Callable[[], Run]
# The runs of a contender, or why there are none.
Outcome = list[Run] | str


def in_turns(
    contenders: Mapping[str, Contender], rounds: int, *, warm_up: bool = True
) -> dict[str, Outcome]:
    """Run every contender once per round; the order turns round each time.

    Args:
        rounds: how many count.
        warm_up: whether one more round goes first, which fills the disk cache and is not counted.
    """
    outcomes: dict[str, Outcome] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds + warm_up):
        for name in names if turn % 2 else reversed(names):
            runs = outcomes[name]
            if isinstance(runs, str):
                continue
            try:
                run = contenders[name]()
            except UnavailableError as error:
                outcomes[name] = str(error)
                continue
            if turn or not warm_up:
                runs.append(run)
    return outcomes


def run_child(command: Sequence[object]) -> Run:
    """Run a program that calls :func:`serve`.

    Raises:
        UnavailableError: it lacks a package, or its work failed.
    """
    whole, printed = _run(command)
    answer = json.loads(printed.splitlines()[-1])
    if "unavailable" in answer:
        raise UnavailableError(answer["unavailable"])
    return Run(
        seconds=answer["seconds"],
        cpu_seconds=answer["cpu_seconds"],
        command_seconds=whole,
        late_imports=tuple(answer["late_imports"]),
    )


def run_command(
    command: Sequence[object],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Run:
    """Run a program that knows nothing of us; all there is to time is the whole."""
    cpu_before = _cpu_of_children()
    whole, _ = _run(command, environment, folder)
    return Run(seconds=whole, cpu_seconds=_cpu_of_children() - cpu_before, command_seconds=whole)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(
    command: Sequence[object],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=folder,
    )
    whole = time.perf_counter() - started
    if done.returncode:
        raise UnavailableError(f"failed: {_last_line(done.stderr)}")
    return whole, done.stdout


def serve(prepares: Iterable[Prepare], arguments: Sequence[str]) -> None:
    """The life of a child: import and prepare, time the work, print the answer.

    Args:
        prepares: what may be asked for, by the names of the functions.
        arguments: the name, then the arguments of that function.
    """
    named = {prepare.__name__.replace("_", "-"): prepare for prepare in prepares}
    if not arguments or arguments[0] not in named:
        raise SystemExit(f"usage: {sys.argv[0]} {{{','.join(named)}}} ARGUMENT...")
    print(json.dumps(_answer(named[arguments[0]], arguments[1:])))


def _answer(prepare: Prepare, arguments: Sequence[str]) -> dict[str, Any]:
    try:
        work = prepare(*arguments)
    except ModuleNotFoundError as error:
        return {"unavailable": f"not installed ({error.name})"}
    except ImportError as error:
        return {"unavailable": f"not installed in a version that has it: {error}"}
    loaded_modules = set(sys.modules)
    started, started_cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    late = {name.partition(".")[0] for name in set(sys.modules) - loaded_modules}
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "late_imports": sorted(late)}


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
