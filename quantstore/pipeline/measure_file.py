"""An open graph in, a model with all its figures out, not stored yet.

Its layers are shared over the cores; beside them a process of its own runs the model on noise (the
probe). No store is open meanwhile.
"""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from quantstore import graph
from quantstore.errors import ModelFileError, NoLayersError, QuantstoreError
from quantstore.layer import Layer
from quantstore.numerics.equalization import p10_after_db
from quantstore.numerics.input_channels import input_channel_count
from quantstore.numerics.measure_layer import measure_layer
from quantstore.numerics.sweep import FULL_PLAN, SweepPlan
from quantstore.pipeline.outcome import (
    LARGER_MACHINE,
    OUT_OF_MEMORY,
    Attempt,
    IngestChoices,
    IngestProgress,
    IngestReporter,
    MeasuredModel,
)
from quantstore.process import pool
from quantstore.process.memory import peak_bytes_with_children
from quantstore.records import EqualizationRecord, FindingRecord, LayerRecords, SimulationRecord
from quantstore.run.probe import Prober, untested
from quantstore.schemes import DEFAULT_SCHEME, INT8_CHANNEL_SYMMETRIC

logger = logging.getLogger(__name__)

# Below so many seconds starting processes costs more than they save.
WORTH_A_PROCESS = 0.1

NO_WEIGHT = "every weight of the model is empty or cannot be read"


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn running out of memory into a sentence about the file."""
    try:
        yield
    except MemoryError as error:
        raise ModelFileError(OUT_OF_MEMORY, LARGER_MACHINE) from error


def content_of(path: Path) -> str:
    """The SHA-256 of a model file and its external data, as the store has it of each model.

    Raises:
        ModelFileError: the file cannot be read as a model.
    """
    with enough_memory():
        return graph.open_any(path).sha256


def measure_file(
    path: Path,
    *,
    fold: bool = True,
    jobs: int | None = None,
    plan: SweepPlan = FULL_PLAN,
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
    return measure(graph.open_any(path), choices, attempt, report)


def measure(
    file: graph.ModelFile,
    choices: IngestChoices,
    attempt: Attempt,
    report: IngestReporter | None,
    prober: Prober | None = None,
) -> MeasuredModel:
    """Every layer of a file that is open, with what the probe finds meanwhile."""
    survey = graph.survey(file)
    sites, left_out = graph.within_limits(survey.sites)
    work = _MeasuringInput(file, sites, choices)
    if prober is not None and choices.probe and not file.file_format.why_not_run:
        # Beside the measuring, which leaves a core idle now and then.
        prober.start(file.path, fold=choices.fold, seconds=choices.probe_seconds)
    tasks = _tasks(work)
    jobs = choices.jobs or pool.cores()
    if _seconds(work.sites) < WORTH_A_PROCESS:
        jobs = 1

    bytes_total = sum(site.weight_bytes for site in work.sites)
    bytes_done = weight_count = layers_done = 0
    measures_by_site: dict[int, LayerRecords] = {}
    of_layers: dict[int, tuple[graph.Finding, ...]] = {}
    unread = list(survey.unread)
    after: dict[tuple[int, int], tuple[float, float]] = {}
    if report is not None:
        report(IngestProgress(0, len(work.sites), 0, bytes_total))
    for result in _results(work, tasks, jobs):
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
        raise NoLayersError(NO_WEIGHT, "export the model again")
    graph.require_unchanged(file)
    logger.info(
        "measured %d layers of %s after %.3f s", len(measures_by_site), file.path, attempt.seconds
    )
    depth_of = {site_index: depth for depth, site_index in enumerate(sorted(measures_by_site))}
    flow = graph.flow_of(file, [work.sites[site_index] for site_index in depth_of])
    probes: tuple[SimulationRecord, ...] = ()
    of_run: tuple[FindingRecord, ...] = ()
    if prober is not None and file.file_format.why_not_run:
        probes = untested(file.file_format.why_not_run)
    elif prober is not None and choices.probe:
        if report is not None:
            total = len(work.sites)
            report(IngestProgress(total, total, bytes_total, bytes_total, is_probing=True))
        probes, of_run = prober.result(), prober.findings
        logger.info("probed %s after %.3f s: %d rows", file.path, attempt.seconds, len(probes))
    return MeasuredModel(
        path=file.path,
        attempt=attempt,
        peak_bytes=peak_bytes_with_children(),
        sha256=file.sha256,
        folded=choices.fold,
        file_bytes=file.file_bytes,
        file_format=file.file_format.name,
        producer=file.producer,
        ir_version=file.ir_version,
        opset=file.opset,
        seconds=attempt.seconds,
        weight_count=weight_count,
        layers=tuple(
            _at_depth(measures_by_site[site_index], depth) for site_index, depth in depth_of.items()
        ),
        equalization=tuple(_equalization(measures_by_site, depth_of, after)),
        graph_points=flow.points,
        graph_edges=flow.edges,
        probes=probes,
        findings=(
            *(
                finding.record()
                for finding in graph.of_model(file, tuple(unread), left_out, fold=choices.fold)
            ),
            *of_run,
            *(
                finding.record(depth)
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
    measures: dict[int, LayerRecords] = field(default_factory=dict)
    findings: dict[int, tuple[graph.Finding, ...]] = field(default_factory=dict)
    unread: tuple[graph.Unread, ...] = ()
    weight_count: int = 0
    pair: tuple[int, int] | None = None
    p10_after_db: tuple[float, float] | None = None


def _results(
    work: _MeasuringInput, tasks: list[_MeasuringTask], jobs: int
) -> Iterator[_MeasuringResult]:
    """What comes of every task, as it is done, over so many processes."""
    try:
        yield from pool.each(_do, work, tasks, jobs)
    except pool.BrokenPoolError as error:
        raise QuantstoreError(
            "a process that measured the file was killed", "free some memory, or try --jobs 1"
        ) from error


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
    measures: dict[int, LayerRecords] = {}
    findings: dict[int, tuple[graph.Finding, ...]] = {}
    unread: list[graph.Unread] = []
    seen: dict[tuple[object, ...], LayerRecords] = {}
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
    site: graph.Site, layer: Layer, measures: LayerRecords, *, fold: bool
) -> tuple[graph.Finding, ...]:
    findings = graph.of_layer(
        site,
        layer,
        channel_min=measures.channels.weight_min,
        channel_max=measures.channels.weight_max,
        nonfinite_count=measures.layer.nonfinite_count,
        fold=fold,
        input_count=input_channel_count(layer),
        lost_inputs=_lost_inputs(measures),
    )
    return tuple(findings)


def _lost_inputs(measures: LayerRecords) -> int:
    """Input channels below 10 dB under int8 per channel, 0 where nobody measured them."""
    scheme = INT8_CHANNEL_SYMMETRIC.name
    error = next((error for error in measures.errors if error.scheme == scheme), None)
    return 0 if error is None else error.input_channels_below_10db or 0


def _at_depth(measures: LayerRecords, depth: int) -> LayerRecords:
    if measures.layer.depth == depth:
        return measures
    return dataclasses.replace(measures, layer=dataclasses.replace(measures.layer, depth=depth))


def _equalization(
    measures_by_site: dict[int, LayerRecords],
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


def _seen_from(layer: Layer, twin: LayerRecords, depth: int) -> LayerRecords:
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
