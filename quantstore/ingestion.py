"""The pipeline in one sentence: open the graph, measure layer by layer, then write everything.

Beside the measuring, a process of its own runs the model on noise (the probe); what it finds, or
why it finds nothing, is stored with the rest. Numbers are computed with no connection open; the
store is locked only while the finished model is written, in one transaction: a model is wholly
there or absent. What became of each file is a row of ``ingests``, written with the model where
there is one.
"""

import contextlib
import dataclasses
import glob
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from importlib import resources
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from quantstore import graph, settings, store
from quantstore.errors import (
    LockedStoreError,
    MissingStoreError,
    ModelFileError,
    NoLayersError,
    OlderStoreError,
    QuantstoreError,
    StoreError,
)
from quantstore.layer import Layer
from quantstore.numerics.equalization import p10_after_db
from quantstore.numerics.measure import MEASURES_VERSION, is_current, measure_layer
from quantstore.numerics.sweep import FULL_PLAN, Plan
from quantstore.process import logs, pool
from quantstore.process.memory import peak_bytes_with_children
from quantstore.records import (
    EqualizationRecord,
    FindingRecord,
    IngestRecord,
    LayerMeasures,
    ModelRecord,
    SimulationRecord,
)
from quantstore.run.probe import SECONDS, Prober
from quantstore.schemes import DEFAULT_SCHEME
from quantstore.version import __version__

logger = logging.getLogger(__name__)

# Below so many seconds starting processes costs more than they save.
WORTH_A_PROCESS = 0.1

IngestOutcome = Literal["stored", "replaced", "already stored", "failed"]


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """How far one file is: layers and bytes of weights, done and in all.

    ``is_probing``: every layer is measured, and the probe has not finished yet.
    """

    layers_done: int
    layers_total: int
    bytes_done: int
    bytes_total: int
    is_probing: bool = False

    @property
    def share_done(self) -> float:
        """From 0 to 1, by bytes of weights: layers differ too much in size."""
        return self.bytes_done / self.bytes_total if self.bytes_total else 0.0


IngestReporter = Callable[[IngestProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredModel:
    """A model with everything known about it, not yet in the store."""

    path: Path
    attempt: "Attempt"
    peak_bytes: int | None
    sha256: str
    folded: bool
    file_bytes: int
    producer: str | None
    ir_version: int | None
    opset: int | None
    seconds: float
    weight_count: int
    layers: tuple[LayerMeasures, ...]
    equalization: tuple[EqualizationRecord, ...]
    findings: tuple[FindingRecord, ...]
    probes: tuple[SimulationRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A file that somebody tries to ingest: what it is called and when that began.

    ``clock`` is :func:`time.perf_counter` at the beginning; every process of a machine agrees on it
    where several work on the same files.
    """

    path: str
    started_at: datetime
    clock: float

    @classmethod
    def begin(cls, path: Path, source: str | None = None) -> "Attempt":
        """It begins now; ``source`` is what the store says of its origin, by default its path."""
        return cls(path=source or str(path), started_at=_now(), clock=time.perf_counter())

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self.clock

    def ended(
        self,
        outcome: IngestOutcome,
        *,
        model: str | None = None,
        message: str = "",
        peak_bytes: int | None = None,
    ) -> IngestRecord:
        """What became of it, as of now."""
        return IngestRecord(
            path=self.path,
            model=model,
            outcome=outcome,
            message=message,
            started_at=self.started_at,
            finished_at=_now(),
            seconds=self.seconds,
            peak_bytes=peak_bytes,
            quantstore_version=__version__,
        )


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestResult:
    """What became of one path. ``error`` is one sentence where the outcome is ``failed``.

    ``runs_removed``: what people ran on other content that had the name, and what went with it.
    """

    path: str
    outcome: IngestOutcome
    model: str | None = None
    layers: int | None = None
    seconds: float | None = None
    error: str | None = None
    runs_removed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestChoices:
    """How to ingest. ``name`` is for a single file; ``source`` is what the store says of it.

    ``jobs`` is how many processes share the work on one file, by default one per core. ``plan``
    says what to measure; less than everything is for those who time it. ``probe`` says whether the
    model is run on noise as well, for at most ``probe_seconds``.
    """

    name: str | None = None
    replace: bool = False
    fold: bool = True
    source: str | None = None
    jobs: int | None = None
    plan: Plan = FULL_PLAN
    probe: bool = True
    probe_seconds: float = SECONDS


def ingest_file(
    path: Path,
    store_path: Path,
    choices: IngestChoices | None = None,
    report: IngestReporter | None = None,
    prober: Prober | None = None,
) -> IngestResult:
    """Measure one file and store it, unless its content is stored already.

    Args:
        prober: the process that runs the model; by default a new one, which ends with this call.

    Raises:
        QuantstoreError: the file cannot be read, or the store cannot be used.
    """
    choices = choices or IngestChoices()
    attempt = Attempt.begin(path, choices.source)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_recording_failure(attempt, store_path))
        stack.enter_context(_enough_memory())
        prober = prober or stack.enter_context(Prober())
        measured = _measured_unless_stored(path, store_path, choices, attempt, report, prober)
        return (
            measured
            if isinstance(measured, IngestResult)
            else _write(measured, store_path, choices)
        )


def _measured_unless_stored(
    path: Path,
    store_path: Path,
    choices: IngestChoices,
    attempt: Attempt,
    report: IngestReporter | None,
    prober: Prober,
) -> MeasuredModel | IngestResult:
    file = graph.open_model(path)
    logger.info("read %s in %.3f s: sha256 %s", path, attempt.seconds, file.sha256)
    stored_name = None if choices.replace else _stored_name(store_path, file.sha256, choices)
    if stored_name is None:
        return _measure(file, choices, attempt, report, prober)
    logger.info("already stored as %s: %s", stored_name, path)
    _record(
        store_path,
        attempt.ended("already stored", model=stored_name, peak_bytes=peak_bytes_with_children()),
    )
    return IngestResult(path=str(path), outcome="already stored", model=stored_name)


@contextmanager
def _recording_failure(attempt: Attempt, store_path: Path) -> Iterator[None]:
    """Write a row for a file that fails in the block; a store that cannot be used gets none."""
    try:
        yield
    except StoreError:
        raise
    except QuantstoreError as error:
        logger.info("failed after %.3f s: %s: %s", attempt.seconds, attempt.path, error.sentence)
        peak_bytes = peak_bytes_with_children()
        _record(store_path, attempt.ended("failed", message=error.sentence, peak_bytes=peak_bytes))
        raise


def _record(store_path: Path, record: IngestRecord) -> None:
    """Write a row of ``ingests`` by itself; where there is no store, a failure does not make one.

    Nor does a store that may only be read change what became of the file.

    Raises:
        LockedStoreError: others use the store for longer than anybody waits.
    """
    try:
        with store.writing(store_path, may_create=False) as connection:
            store.add_ingest(connection, record)
    except LockedStoreError:
        raise
    except StoreError as error:
        logger.info("no row in ingests for %s: %s", record.path, error.sentence)


@contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise ModelFileError(
            "it needs more memory than there is", "free some, or ingest it on a larger machine"
        ) from error


def ingest_many(
    paths: Iterable[Path],
    store_path: Path,
    choices: IngestChoices | None = None,
    jobs: int | None = None,
) -> Iterator[IngestResult]:
    """Ingest files, several at a time; what fails is reported and the rest goes on.

    Args:
        jobs: processes that measure, by default one per core.

    Yields:
        One result per file, as they finish.

    Raises:
        StoreError: the store cannot be used, so that no file can succeed.
    """
    choices = choices or IngestChoices()
    waiting = list(dict.fromkeys(paths))
    jobs = jobs or pool.cores()
    files = min(jobs, len(waiting))
    # The cores that are left over when every file has one share the work on each.
    choices = dataclasses.replace(choices, jobs=jobs // max(1, files))
    if files <= 1:
        with Prober() as prober:
            for path in waiting:
                ingest = partial(ingest_file, path, store_path, choices, prober=prober)
                yield _caught(path, ingest)
        return
    while waiting:
        waiting = yield from _ingest_in_pool(waiting, store_path, choices, files)
        files = 1


def content_of(path: Path) -> str:
    """The SHA-256 of a model file and its external data, as the store has it of each model.

    Raises:
        ModelFileError: the file cannot be read as a model.
    """
    with _enough_memory():
        return graph.open_model(path).sha256


def demo_paths() -> list[Path]:
    """The example models that ship with the package."""
    folder = Path(str(resources.files("quantstore").joinpath("demo_models")))
    return sorted(folder.glob("*.onnx"))


def find_files(patterns: Iterable[str]) -> tuple[list[Path], list[IngestResult]]:
    """The ONNX files that paths, folders (searched recursively) and globs stand for.

    Returns:
        The files, each once, and a failed result for every pattern that stands for none.
    """
    files: dict[Path, None] = {}
    failures: list[IngestResult] = []
    for pattern in patterns:
        try:
            matches, missing = _matches(pattern)
        except (OSError, RuntimeError, ValueError) as error:
            # A name that is too long, an unknown user's home, a character no path may hold.
            matches, missing = [], f"no such path ({getattr(error, 'strerror', None) or error})"
        if not matches:
            sentence = ModelFileError(missing, "check the path").sentence
            failures.append(IngestResult(path=pattern, outcome="failed", error=sentence))
        files |= dict.fromkeys(matches)
    return list(files), failures


def _matches(pattern: str) -> tuple[list[Path], str]:
    """The files a pattern stands for, and what is missing where there are none."""
    if "\0" in pattern:
        raise ValueError("it holds a null character")
    path = Path(pattern).expanduser()
    if path.is_dir():
        model_files = sorted(p for p in path.rglob("*") if p.suffix.lower() == ".onnx")
        return model_files, "the folder holds no .onnx file"
    if path.exists() or not glob.has_magic(pattern):
        return [path], ""
    return [Path(p) for p in sorted(glob.glob(str(path), recursive=True))], "no file matches"


def measure_file(
    path: Path,
    *,
    fold: bool = True,
    jobs: int | None = None,
    plan: Plan = FULL_PLAN,
    report: IngestReporter | None = None,
) -> MeasuredModel:
    """Measure every layer of a file, without any store; the model is not run.

    Args:
        jobs: processes that share the work, by default one per core; the figures are the same.

    Raises:
        ModelFileError: the file cannot be read, or holds no layer.
    """
    attempt = Attempt.begin(path)
    choices = IngestChoices(fold=fold, jobs=jobs, plan=plan, probe=False)
    return _measure(graph.open_model(path), choices, attempt, report)


def _measure(
    file: graph.ModelFile,
    choices: IngestChoices,
    attempt: Attempt,
    report: IngestReporter | None,
    prober: Prober | None = None,
) -> MeasuredModel:
    survey = graph.survey(file)
    sites, left_out = graph.within_limits(survey.sites)
    work = _MeasuringInput(file, sites, choices)
    if prober is not None and choices.probe:
        # Beside the measuring, which leaves a core idle now and then.
        prober.start(file.path, fold=choices.fold, seconds=choices.probe_seconds)
    tasks = _tasks(work)
    jobs = choices.jobs or pool.cores()
    if _seconds(work.sites) < WORTH_A_PROCESS:
        jobs = 1

    bytes_total = sum(site.weight_bytes for site in work.sites)
    bytes_done = weight_count = layers_done = 0
    measures_by_site: dict[int, LayerMeasures] = {}
    of_layers: dict[int, tuple[graph.Finding, ...]] = {}
    unread = list(survey.unread)
    after: dict[tuple[int, int], tuple[float, float]] = {}
    if report is not None:
        report(IngestProgress(0, len(work.sites), 0, bytes_total))
    for result in pool.each(_do, work, tasks, jobs):
        measures_by_site |= result.measures
        of_layers |= result.findings
        unread += result.unread
        weight_count += result.weight_count
        if result.pair is not None and result.p10_after_db is not None:
            after[result.pair] = result.p10_after_db
        layers_done += len(result.site_indices)
        bytes_done += sum(work.sites[site_index].weight_bytes for site_index in result.site_indices)
        if report is not None and result.site_indices:
            report(IngestProgress(layers_done, len(work.sites), bytes_done, bytes_total))
    if not measures_by_site:
        raise NoLayersError(
            "every weight of the model is empty or out of reach", "export the model again"
        )
    graph.require_unchanged(file)
    logger.info(
        "measured %d layers of %s after %.3f s", len(measures_by_site), file.path, attempt.seconds
    )
    depth_of = {site_index: depth for depth, site_index in enumerate(sorted(measures_by_site))}
    probes: tuple[SimulationRecord, ...] = ()
    if prober is not None and choices.probe:
        if report is not None:
            total = len(work.sites)
            report(IngestProgress(total, total, bytes_total, bytes_total, is_probing=True))
        probes = prober.result()
        logger.info("probed %s after %.3f s: %d rows", file.path, attempt.seconds, len(probes))
    return MeasuredModel(
        path=file.path,
        attempt=attempt,
        peak_bytes=peak_bytes_with_children(),
        sha256=file.sha256,
        folded=choices.fold,
        file_bytes=file.file_bytes,
        producer=file.producer,
        ir_version=file.ir_version,
        opset=file.opset,
        seconds=attempt.seconds,
        weight_count=weight_count,
        layers=tuple(
            _at_depth(measures_by_site[site_index], depth) for site_index, depth in depth_of.items()
        ),
        equalization=tuple(_equalization(measures_by_site, depth_of, after)),
        probes=probes,
        findings=(
            *(
                _finding_record(finding, None)
                for finding in graph.of_model(file, tuple(unread), left_out, fold=choices.fold)
            ),
            *(
                _finding_record(finding, depth)
                for site_index, depth in depth_of.items()
                for finding in of_layers.get(site_index, ())
            ),
        ),
    )


@dataclass(frozen=True, slots=True)
class _MeasuringInput:
    """What every process needs to measure any layer of a file."""

    file: graph.ModelFile
    sites: tuple[graph.Site, ...]
    choices: IngestChoices


@dataclass(frozen=True, slots=True)
class _MeasuringTask:
    """Sites that read one and the same tensor, or a pair of neighbours to equalize."""

    site_indices: tuple[int, ...]
    is_pair: bool
    weight_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _MeasuringResult:
    """What became of a task; a pair's ``site_indices`` count as layers in its other task."""

    site_indices: tuple[int, ...] = ()
    measures: dict[int, LayerMeasures] = field(default_factory=dict)
    findings: dict[int, tuple[graph.Finding, ...]] = field(default_factory=dict)
    unread: tuple[graph.Unread, ...] = ()
    weight_count: int = 0
    pair: tuple[int, int] | None = None
    p10_after_db: tuple[float, float] | None = None


def _tasks(work: _MeasuringInput) -> list[_MeasuringTask]:
    """Everything there is to do, the most work first."""
    sites = work.sites
    of_tensor: dict[int, list[int]] = {}
    for site_index, site in enumerate(sites):
        of_tensor.setdefault(id(site.tensor), []).append(site_index)
    tasks = [
        _MeasuringTask(
            tuple(site_indices), is_pair=False, weight_bytes=sites[site_indices[0]].weight_bytes
        )
        for site_indices in of_tensor.values()
    ]
    if work.choices.plan.is_full:
        for pair in graph.find_pairs(work.file, list(sites), fold=work.choices.fold):
            # A pair takes a tenth of the time of its layers.
            cost = sum(sites[site_index].weight_bytes for site_index in pair) // 10
            tasks.append(_MeasuringTask(tuple(pair), is_pair=True, weight_bytes=cost))
    return sorted(tasks, key=lambda task: -task.weight_bytes)


def _seconds(sites: tuple[graph.Site, ...]) -> float:
    """About how long a model takes in one process, from measurements on one machine."""
    return 0.004 * len(sites) + 20e-9 * sum(site.weight_bytes for site in sites)


def _do(work: _MeasuringInput, task: _MeasuringTask) -> _MeasuringResult:
    fold = work.choices.fold
    if task.is_pair:
        first, second = (
            graph.read_layer(work.file, work.sites[site_index], fold=fold)
            for site_index in task.site_indices
        )
        after = p10_after_db(first, second) if first is not None and second is not None else None
        return _MeasuringResult(
            pair=(task.site_indices[0], task.site_indices[1]), p10_after_db=after
        )
    measures: dict[int, LayerMeasures] = {}
    findings: dict[int, tuple[graph.Finding, ...]] = {}
    unread: list[graph.Unread] = []
    seen: dict[tuple[object, ...], LayerMeasures] = {}
    weight_count = 0
    for site_index in task.site_indices:
        layer = graph.read_or_reason(work.file, work.sites[site_index], fold=fold)
        if isinstance(layer, graph.Unread):
            unread.append(layer)
            continue
        twin = seen.get(layer.weight_key)
        if twin is None:
            # Slices of one tensor add up; the whole of it, read in two ways, counts once.
            together = min(weight_count + layer.weights.size, work.sites[site_index].tensor.size)
            weight_count = max(weight_count, layer.weights.size, together)
            measures[site_index] = measure_layer(layer, site_index, work.choices.plan)
            seen[layer.weight_key] = measures[site_index]
        else:
            measures[site_index] = _seen_from(layer, twin, site_index)
        layer_findings = _findings_of(
            work.sites[site_index], layer, measures[site_index], fold=fold
        )
        if layer_findings:
            findings[site_index] = layer_findings
    return _MeasuringResult(
        site_indices=task.site_indices,
        measures=measures,
        findings=findings,
        unread=tuple(unread),
        weight_count=weight_count,
    )


def _findings_of(
    site: graph.Site, layer: Layer, measures: LayerMeasures, *, fold: bool
) -> tuple[graph.Finding, ...]:
    findings = graph.of_layer(
        site,
        layer,
        channel_min=measures.channels.weight_min,
        channel_max=measures.channels.weight_max,
        nonfinite_count=measures.layer.nonfinite_count,
        fold=fold,
    )
    return tuple(findings)


def _finding_record(finding: graph.Finding, depth: int | None) -> FindingRecord:
    return FindingRecord(
        depth=depth,
        kind=finding.kind,
        severity=finding.severity,
        message=finding.message,
        remedy=finding.remedy,
    )


def _at_depth(measures: LayerMeasures, depth: int) -> LayerMeasures:
    if measures.layer.depth == depth:
        return measures
    return dataclasses.replace(measures, layer=dataclasses.replace(measures.layer, depth=depth))


def _equalization(
    measures_by_site: dict[int, LayerMeasures],
    depth_of: dict[int, int],
    after: dict[tuple[int, int], tuple[float, float]],
) -> Iterator[EqualizationRecord]:
    """What equalizing each pair of neighbours could give, both ways, in the order of the graph."""
    scheme = DEFAULT_SCHEME.name
    for pair, after_db in sorted(after.items()):
        for site_index, partner_index, p10_db in zip(pair, reversed(pair), after_db, strict=True):
            before = next(
                error for error in measures_by_site[site_index].errors if error.scheme == scheme
            )
            yield EqualizationRecord(
                depth=depth_of[site_index],
                partner_depth=depth_of[partner_index],
                scheme=scheme,
                channel_sqnr_p10_before_db=before.channel_sqnr_p10_db,
                channel_sqnr_p10_after_db=p10_db,
            )


def _seen_from(layer: Layer, twin: LayerMeasures, depth: int) -> LayerMeasures:
    """The same figures for another node that reads the same effective weights."""
    record = dataclasses.replace(
        twin.layer,
        depth=depth,
        layer=layer.name,
        module_path=layer.module_path,
        operand=layer.operand,
        op_type=layer.op_type,
        group_count=layer.group_count,
        is_depthwise=layer.is_depthwise,
        attributes=layer.attributes,
    )
    return dataclasses.replace(twin, layer=record)


def _write(measured: MeasuredModel, store_path: Path, choices: IngestChoices) -> IngestResult:
    with store.writing(store_path) as connection:
        requested_name = choices.name or _name_of(measured.path)
        same_content = store.model_with_content(connection, measured.sha256, measured.folded)
        former_id, former, replaced = None, None, same_content is not None
        # What people wrote on a model outlives its figures; what they ran stays with the content.
        labels, runs_removed = store.Labels(), 0
        if same_content is not None:
            former_id, former = same_content.model_id, same_content.model
            if not choices.replace and _is_current(same_content, choices):
                # Another process stored it while we measured.
                ended = measured.attempt.ended(
                    "already stored", model=former, peak_bytes=measured.peak_bytes
                )
                store.add_ingest(connection, ended)
                return IngestResult(path=str(measured.path), outcome="already stored", model=former)
            labels = store.labels(connection, former)
            requested_name = choices.name or former
        if choices.replace and requested_name != former:
            labels = store.labels(connection, requested_name).joined(labels)
            runs_removed = store.own_runs(connection, requested_name)
            replaced = store.remove_model_named(connection, requested_name) or replaced
        record = ModelRecord(
            model=_free_name(
                connection,
                requested_name,
                measured.sha256,
                former=former,
                is_chosen=bool(choices.name),
            ),
            sha256=measured.sha256,
            folded=measured.folded,
            source=choices.source or str(measured.path.resolve()),
            file_bytes=measured.file_bytes,
            producer=measured.producer,
            ir_version=measured.ir_version,
            opset=measured.opset,
            ingested_at=_now(),
            ingest_seconds=measured.seconds,
            layer_count=len(measured.layers),
            weight_count=measured.weight_count,
            quantstore_version=__version__,
            measures_version=MEASURES_VERSION,
            tags=labels.tags,
            note=labels.note,
        )
        model_id = store.add_model(
            connection, record, measured.layers, measured.equalization, instead_of=former_id
        )
        for simulation in measured.probes:
            store.add_simulation(connection, model_id, simulation)
        store.add_findings(connection, model_id, measured.findings)
        outcome: IngestOutcome = "replaced" if replaced else "stored"
        ended = measured.attempt.ended(outcome, model=record.model, peak_bytes=measured.peak_bytes)
        store.add_ingest(connection, ended)
    logger.info("%s %s after %.3f s", outcome, record.model, measured.attempt.seconds)
    return IngestResult(
        path=str(measured.path),
        outcome=outcome,
        model=record.model,
        layers=record.layer_count,
        seconds=measured.seconds,
        runs_removed=runs_removed,
    )


def _stored_name(store_path: Path, sha256: str, choices: IngestChoices) -> str | None:
    """The name under which this content is stored with today's measurements."""
    try:
        with store.reading(store_path) as connection:
            stored_model = store.model_with_content(connection, sha256, choices.fold)
    except MissingStoreError:
        return None
    except OlderStoreError:
        # What comes now will write to it anyway.
        store.update(store_path)
        return _stored_name(store_path, sha256, choices)
    if stored_model is None or not _is_current(stored_model, choices):
        return None
    return stored_model.model


def _is_current(stored_model: store.StoredModel, choices: IngestChoices) -> bool:
    return is_current(stored_model.measures_version, stored_model.schemes, choices.plan)


def _name_of(path: Path) -> str:
    """A model is named after its file; ``model.onnx`` says nothing, its folder does."""
    if path.name.lower() == "model.onnx":
        return path.resolve().parent.name or path.stem
    return path.stem


def _free_name(
    connection: store.Connection,
    requested_name: str,
    sha256: str,
    *,
    former: str | None,
    is_chosen: bool,
) -> str:
    """A name that no other model has; ``former`` is the one that gives way to this one."""
    taken = {row[0] for row in connection.rows("select model from models")} - {former}
    if is_chosen and requested_name in taken:
        raise QuantstoreError(
            f"another model is named {requested_name!r} already",
            "choose another name or add --replace",
        )
    return store.free_name(taken, requested_name, sha256)


def _caught(path: Path, work: Callable[[], IngestResult]) -> IngestResult:
    """The result, or the failure of this one file as a result; a useless store stops everything."""
    try:
        return work()
    except QuantstoreError as error:
        if error.exit_code == 3:
            raise
        return IngestResult(path=str(path), outcome="failed", error=error.sentence)


def _measure_unless_stored(
    path: Path, store_path: Path, choices: IngestChoices
) -> MeasuredModel | IngestResult:
    """What a worker process does; small enough to travel back through a pipe."""
    attempt = Attempt.begin(path, choices.source)
    with _recording_failure(attempt, store_path), _enough_memory():
        return _measured_unless_stored(path, store_path, choices, attempt, None, _own_prober())


# What a worker process was told, for as long as it lives.
_worker_settings = contextlib.ExitStack()


def _begin_worker(wait_seconds: float, where: logs.Logging) -> None:
    _worker_settings.enter_context(settings.waiting_at_most(wait_seconds))
    _worker_settings.enter_context(logs.logging_to(where))


@cache
def _own_prober() -> Prober:
    """One for each worker process, and for all its files; it ends with the worker."""
    return Prober()


def _ingest_in_pool(
    paths: list[Path], store_path: Path, choices: IngestChoices, jobs: int
) -> Generator[IngestResult, None, list[Path]]:
    """Measure in worker processes, write here. Returns the files that a crash left undone."""
    crashed: list[Path] = []
    begun = Attempt.begin(paths[0])
    # A forked copy of a process with threads (numpy, duckdb) may hang; a fresh one cannot.
    with ProcessPoolExecutor(
        jobs,
        mp_context=get_context("spawn"),
        initializer=_begin_worker,
        initargs=(settings.wait_seconds(), logs.current()),
    ) as executor:
        with pool.without_main():
            futures: dict[Future[MeasuredModel | IngestResult], Path] = {
                executor.submit(_measure_unless_stored, path, store_path, choices): path
                for path in paths
            }
        try:
            for future in as_completed(futures):
                path = futures[future]
                if isinstance(future.exception(), BrokenProcessPool):
                    crashed.append(path)
                    continue
                yield _caught(path, partial(_finish, future, store_path, choices))
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
    if jobs == 1 and crashed:
        # Alone in its process, so this file is the one that crashed it.
        error = "the file crashed its reader; check it with onnx.checker"
        attempt = dataclasses.replace(begun, path=choices.source or str(crashed[0]))
        _record(store_path, attempt.ended("failed", message=error))
        yield IngestResult(path=str(crashed[0]), outcome="failed", error=error)
        return crashed[1:]
    return crashed


def _finish(
    future: "Future[MeasuredModel | IngestResult]", store_path: Path, choices: IngestChoices
) -> IngestResult:
    measured = future.result()
    if isinstance(measured, IngestResult):
        return measured
    with _recording_failure(measured.attempt, store_path):
        return _write(measured, store_path, choices)
