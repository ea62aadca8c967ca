"""Commands that put models into the store: ingest, demo."""

import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantstore import settings
from quantstore.cli.output import OK, SOME_FAILED, Talk, counted, print_lines, say
from quantstore.cli.root import commands, everywhere, probe_seconds_option
from quantstore.errors import QuantstoreError, printable
from quantstore.process.memory import collect_rarely
from quantstore.wording import units

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from quantstore.pipeline.outcome import IngestChoices, IngestProgress, IngestResult
    from quantstore.pipeline.remote import ModelPath
    from quantstore.process.child import Child

# By name: to import it takes as long as that process takes to start.
PROBE_CHILD = "quantstore.run.probe_child"


@commands.command(position=10)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--name", metavar="NAME", help="Store the model under this name; for one file only.")
@click.option("--replace", is_flag=True, help="Measure models again that are already stored.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Measure N files at the same time. [default: one per core]",
)
@click.option(
    "--no-fold", is_flag=True, help="Measure raw weights: leave BatchNormalization unfolded."
)
@click.option(
    "--no-probe",
    is_flag=True,
    help="Do not run the model on noise. The model stays untested unless its weights prove a loss.",
)
@probe_seconds_option
@click.option(
    "--executor",
    type=click.Choice(["dask"]),
    help="Measure on the workers of a Dask cluster. [default: on this machine]",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Scheduler of the cluster. [default: start one on this machine, with --jobs workers]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result of each file as JSON.")
@everywhere
def ingest(
    db: Path,
    paths: tuple[str, ...],
    name: str | None,
    replace: bool,
    jobs: int | None,
    no_fold: bool,
    no_probe: bool,
    probe_seconds: float | None,
    executor: str | None,
    scheduler: str | None,
    as_json: bool,
) -> int:
    """Measure model files and store the results.

    PATH is an ONNX, TensorFlow Lite, safetensors or GGUF file, a folder (searched for such files
    at every depth), a pattern in quotes, or a URL of any of these. Files whose content is already
    stored are skipped. If a file fails, the others are still measured, and the exit code is 1.

    \b
    Examples:
      quantstore ingest rtmdet-s.onnx
      quantstore ingest models/ --jobs 4
      quantstore ingest "runs/*/best.onnx" --json | jq '.[] | select(.error)'
      quantstore ingest model.onnx --name rtmdet-s-epoch300 --replace
      quantstore ingest s3://zoo/detectors --executor dask --scheduler tcp://10.0.0.5:8786
    """
    may_probe = not no_probe and executor is None
    child = click.get_current_context().with_resource(early_child(paths if may_probe else ()))
    from quantstore.pipeline.outcome import IngestChoices
    from quantstore.pipeline.remote import find_models

    files, failures = find_models(paths)
    if name is not None and len(files) + len(failures) != 1:
        raise click.UsageError(f"--name is for one file, and these are {len(files)}")
    if no_probe and probe_seconds is not None:
        raise click.UsageError("--probe-seconds and --no-probe exclude each other")
    if scheduler is not None and executor is None:
        raise click.UsageError("--scheduler needs --executor dask")
    if scheduler is not None and jobs is not None:
        raise click.UsageError("--jobs is for this machine: the scheduler has its own workers")
    choices = IngestChoices(name=name, replace=replace, fold=not no_fold, probe=not no_probe)
    if probe_seconds is not None:
        choices = dataclasses.replace(choices, probe_seconds=probe_seconds)
    with _executor_for(files, executor, scheduler, jobs) as workers:
        results = [*failures, *_ingested(files, db, choices, jobs, failures, workers, child)]
    if as_json:
        print_lines([dataclasses.asdict(result) for result in results])
    return SOME_FAILED if any(result.outcome == "failed" for result in results) else OK


@commands.command(position=190)
@everywhere
def demo(db: Path) -> int:
    """Load the example models that come with quantstore.

    They are four small networks that read handwritten digits. digits-separable survives int8.
    digits-rescaled computes the same function, but its weights do not survive int8.

    \b
    Examples:
      quantstore demo
      quantstore --db /tmp/try.duckdb demo
    """
    code = load_demo(db)
    say("what next:")
    for following in (
        "compare digits-separable digits-rescaled",
        "layers digits-rescaled --limit 5",
        "app",
    ):
        say(f"  {settings.command(following, db)}")
    return code


@contextmanager
def early_child(paths: tuple[str, ...]) -> "Iterator[Child | None]":
    """The process that runs a network, where one file is sure to want it.

    It loads its libraries while this process loads its own, which takes each about as long. What
    is loaded for one file is not searched for cycles in between.
    """
    if len(paths) != 1 or not (paths[0].endswith(".onnx") and Path(paths[0]).is_file()):
        yield None
        return
    # Of several files, what is left of one would wait beside the next.
    collect_rarely()
    from quantstore.process.child import SINGLE_THREADED, Child

    child = Child(PROBE_CHILD, has_scratch=True, extra_environment=SINGLE_THREADED)
    try:
        yield child
    finally:
        child.close()


@contextmanager
def _executor_for(
    files: "Sequence[ModelPath]", executor: str | None, scheduler: str | None, jobs: int | None
) -> "Iterator[Executor | None]":
    if executor is None or not files:
        yield None
        return
    from quantstore.pipeline.cluster import dask_executor

    with dask_executor(scheduler, jobs) as workers:
        yield workers


def _ingested(
    files: "Sequence[ModelPath]",
    db: Path,
    choices: "IngestChoices",
    jobs: int | None,
    failures: "Iterable[IngestResult]" = (),
    executor: "Executor | None" = None,
    child: "Child | None" = None,
) -> "list[IngestResult]":
    """Ingest and say what became of each file, those that failed before included."""
    from quantstore.pipeline.fleet import compact_after, ingest_batches

    results = []
    with Talk() as talk:
        for failure in failures:
            talk.say(_sentence(failure, db, choices.name))
        finished = (
            _ingest_alone(files[0], db, choices, talk, child)
            if len(files) == 1 and executor is None
            else ingest_batches(files, db, choices, jobs, executor)
        )
        for batch in finished:
            verdicts = verdict_lines(batch, db)
            for result in batch:
                talk.say(_sentence(result, db, choices.name))
                for line, verdict in verdicts.get(str(result.model), ()):
                    talk.say(line, verdict)
            results += batch
            talk.progress(len(results), len(files), "files")
    if len(files) > 1:
        say(_summary([*failures, *results], talk.seconds))
    if compacted := compact_after(results, db):
        sizes = (compacted.bytes_before, compacted.bytes_after)
        before, after = (units.file_size(size).replace(units.NO_BREAK_SPACE, " ") for size in sizes)
        say(f"compacted {db}: {before} before, {after} after")
    return results


def _ingest_alone(
    path: "ModelPath", db: Path, choices: "IngestChoices", talk: "Talk", child: "Child | None"
) -> "Iterator[list[IngestResult]]":
    """One file, with progress by bytes of weights: layers differ too much in size."""
    from quantstore.errors import StoreError
    from quantstore.pipeline.ingest import ingest_file
    from quantstore.pipeline.outcome import IngestResult
    from quantstore.run.probe import Prober

    def report(progress: "IngestProgress") -> None:
        activity = printable(path.name)
        if progress.is_probing:
            activity += ", testing with noise inputs"
        talk.progress(progress.bytes_done, progress.bytes_total, activity)

    try:
        with Prober(child) as prober:
            result = ingest_file(path, db, choices, report, prober)
        yield [result]
    except StoreError:
        raise
    except QuantstoreError as error:
        yield [IngestResult(path=str(path), outcome="failed", error=error.sentence)]


def verdict_lines(batch: "Sequence[IngestResult]", db: Path) -> dict[str, list[tuple[str, str]]]:
    """For each model of a batch that is new in the store: a line for each target, and its verdict.

    Targets are those that are measured on ingest.
    """
    from quantstore import queries, store
    from quantstore.schemes import TARGETS
    from quantstore.wording.verdicts import verdict_sentence

    lines: dict[str, list[tuple[str, str]]] = {
        str(result.model): [] for result in batch if result.outcome in ("stored", "replaced")
    }
    if lines:
        with store.reading(db) as connection:
            verdicts = queries.verdict_facts(connection, list(lines))
        for facts in verdicts:
            if TARGETS[facts.target].is_default:
                sentence = f"  {facts.target}: {verdict_sentence(facts)}"
                lines[facts.model].append((sentence, facts.verdict))
    return lines


FOR_THE_OTHER_NAME = "to rename it"


def _sentence(result: "IngestResult", db: Path, name: str | None) -> str:
    """What became of a file for which somebody may have chosen a name."""
    if result.outcome == "failed":
        return f"error: {result.path}: {result.error}"
    if result.outcome == "already stored":
        sentence = f"already stored as {result.model}: {result.path}"
        if name in (None, result.model):
            return sentence
        rename = settings.command(shlex.join(["rename", str(result.model), str(name)]), db)
        return f"{sentence}; {FOR_THE_OTHER_NAME}: {rename}"
    layers = counted(result.layers or 0, "layer")
    took = units.seconds(result.seconds or 0).replace(units.NO_BREAK_SPACE, " ")
    gone = ""
    if result.runs_removed:
        runs = counted(result.runs_removed, "run")
        gone = f"; removed {runs} of its earlier content"
    return f"{result.outcome} {result.model}: {layers} in {took}{gone}"


def _summary(results: "list[IngestResult]", seconds: float) -> str:
    outcomes = [result.outcome for result in results]
    counts = [f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(outcomes)]
    return f"{len(results)} files in {seconds:.1f} s: {', '.join(counts)}"


def load_demo(db: Path) -> int:
    """Ingest the example models; returns the exit code."""
    from quantstore.pipeline.files import demo_paths
    from quantstore.pipeline.outcome import IngestChoices

    results = _ingested(demo_paths(), db, IngestChoices(), jobs=1)
    return SOME_FAILED if any(result.outcome == "failed" for result in results) else OK
