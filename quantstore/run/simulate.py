"""A model in float and rounded, on real inputs: how the outputs drift, where, and by whom.

The one function that the command line and the pages call, through
``quantstore.pipeline.runs``, which adds the store and a process that can be cancelled. Nothing
here knows a store.
"""

import logging
import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from quantstore.errors import InputsError, RunError, hint_for
from quantstore.file_formats import QONNX
from quantstore.graph.findings import of_run
from quantstore.graph.findings.base import DecoderFigures
from quantstore.records import (
    ABSORBED,
    RETURNS_THE_SAME,
    ROUNDS_NOTHING,
    ActivationErrorRecord,
    AnswerRecord,
    Array,
    FloatSetRecord,
    SensitivityRecord,
    SimulationRecord,
)
from quantstore.run import outputs, sensitivity, subject, twin
from quantstore.run.answers import RunOutputs, answers, class_names
from quantstore.run.choices import NOISE, Choices, ReportProgress, Simulation
from quantstore.run.clock import Clock
from quantstore.run.comparison import Reference
from quantstore.run.decisions import Decisions, decisions
from quantstore.run.decoder import Decoder
from quantstore.run.drift import measure_drift
from quantstore.run.emulator import Emulator, FixedEmulator, Plan
from quantstore.run.feeding import ChosenSamples, choose_samples
from quantstore.run.inputs import Samples
from quantstore.run.layers import LayerKey
from quantstore.run.local import with_local_twins
from quantstore.run.lost import first_lost
from quantstore.run.network import Network
from quantstore.run.nodes import every_node, name_of
from quantstore.run.outputs import JudgedPart
from quantstore.run.own_quantizers import has_quantizers
from quantstore.run.placement import Placement, placement
from quantstore.run.plans import Planner, Rounding
from quantstore.run.points import Points
from quantstore.run.probe_figures import EXACT_DB
from quantstore.run.ranges import SENTINEL, observe
from quantstore.run.runtime import Feeds, version
from quantstore.run.sensitivity import Bench, Budget, units_of
from quantstore.run.subject import PreparedModel
from quantstore.run.tail import FloatHeads, Tail, WholeFile
from quantstore.run.workplace import Workplace
from quantstore.schemes import LOST_DB

logger = logging.getLogger(__name__)

_WAS_QUANTIZED = (
    "the file computes with integers, which were converted back to float first;"
    " the earlier loss is unknown"
)

OWN_QUANTIZERS_STAY = (
    "the float network is the one with the quantizers of its file;"
    " SQNR is what the target loses on top of them"
)


def simulate(
    path: Path, inputs: str, choices: Choices | None = None, report: ReportProgress | None = None
) -> Simulation:
    """Run a model in float and rounded and compare the two, tensor by tensor.

    Args:
        inputs: a folder of images, an image, an ``.npz`` or ``.npy`` file, or ``noise``.
        report: told how far it is.

    Raises:
        ModelFileError: the model cannot be read.
        InputsError: the inputs cannot, or do not fit.
        RunError: onnxruntime refuses the model, or the float model returns no numbers.
    """
    with tempfile.TemporaryDirectory(prefix="quantstore-") as folder:
        work = Workplace(choices or Choices(), Path(folder), report or (lambda _: None))
        return _simulated(work, path, inputs)


@dataclass(frozen=True, slots=True)
class _Figures:
    """The figure, NaN where ``failure`` says why there is none, and what the outputs decide.

    ``expected`` and ``actual``: what the float and the rounded network give, sample by sample.
    """

    output_sqnr_db: float
    failure: str | None
    decisions: Decisions
    expected: Sequence[Sequence[Array]] = field(default=(), repr=False)
    actual: Sequence[Sequence[Array]] = field(default=(), repr=False)


def _simulated(work: Workplace, path: Path, inputs: str) -> Simulation:
    """One stage after the other."""
    clock = Clock()
    choices = work.choices
    work.say("reading", 0, 1)
    depth_of = subject.stored_depths(path)
    model = twin.open_float(path)
    sha256 = model.file.sha256
    names = class_names(model.model.metadata_props)
    notes = (_WAS_QUANTIZED,) if model.was_quantized else ()
    if model.file.file_format == QONNX:
        notes = (*notes, OWN_QUANTIZERS_STAY)
    chosen = choose_samples(work, model.model, inputs)
    samples = chosen.compared
    cut_model = subject.cut(model, samples)
    every_name, order = cut_model.every_name, cut_model.order
    # There shall be no second copy of the weights beside the network.
    del model

    work.say("quantizing", 0, 1)
    compared = cut_model.prepared(work.folder, fold=choices.fold)
    del cut_model
    prepared, behind, layer_of = compared.network, compared.behind, compared.layer_of
    target = choices.rounded
    excluded = _excluded(work, prepared, layer_of, depth_of, every_name)
    placed = placement(prepared, target, excluded)
    keep = prepared.outputs if behind is not None else ()
    planner = _planner(work, prepared, placed, chosen.calibration, keep)
    scheme = None if choices.mode == "activations" else target.scheme
    plan = planner.plan(placed, Rounding(scheme, target.activations))
    figures = _figures(work, placed, plan, samples, compared)
    judgement = _Judgement()
    lost_notes: tuple[str, ...] = ()
    if figures.output_sqnr_db == LOST_DB:
        points, both = compared.points, (figures.expected, figures.actual)
        judged = outputs.judged(points.parts, points.names, *both, is_real=inputs != NOISE)
        judgement = _Judgement(judged)
        lost_notes = _lost_notes(figures, prepared, placed, plan, points, samples)
    elif figures.failure is None:
        judgement = _judgement(
            work,
            compared,
            chosen,
            planner,
            figures,
            excluded=excluded,
            names=names,
            is_real=inputs != NOISE,
        )
    deciding_db, tail_db = judgement.deciding_db, judgement.tail_db
    now = datetime.now(UTC).replace(tzinfo=None)
    activation_errors: tuple[ActivationErrorRecord, ...] = ()
    sensitivities = Sensitivities()
    if choices.drift or choices.sensitivity:
        # They switch roundings off, one or all.
        emulator = Emulator(prepared, [placed], [plan.grids])
        if choices.drift:
            grids = planner.grids(placed, target.activations) if target.activations else {}
            activation_errors = measure_drift(
                emulator,
                plan,
                with_local_twins(prepared, placed, plan, grids),
                samples,
                work.folder,
                work.steps("comparing tensors"),
                order=order,
            )
        if choices.sensitivity:
            stored = {
                slot: (key.name, depth_of[key]) for slot, key in layer_of.items() if key in depth_of
            }
            units = units_of(emulator, placed, plan, stored)
            bench = Bench(emulator, plan, samples, units)
            sensitivities = _sensitivities(work, bench, samples, now)
    return Simulation(
        sha256=sha256,
        folded=choices.fold,
        record=SimulationRecord(
            target=choices.target_name,
            scheme=choices.scheme,
            mode=choices.mode,
            calibration=None if choices.mode == "weights" else choices.calibration,
            input_source=samples.description,
            input_shape=samples.shapes,
            compared=compared.points.description,
            sample_count=len(samples),
            calibration_count=0 if choices.mode == "weights" else len(chosen.calibration),
            output_sqnr_db=figures.output_sqnr_db,
            deciding_sqnr_db=deciding_db if math.isnan(tail_db) else min(deciding_db, tail_db),
            tail_sqnr_db=tail_db,
            outputs=tuple(row.record for row in judgement.judged),
            answers=judgement.answers,
            top1_agreement=figures.decisions.top1_agreement,
            float_layers=_in_the_files_words(prepared, placed.left_in_float, layer_of),
            seconds=clock.wall_lap(),
            cpu_seconds=clock.cpu_lap(),
            onnxruntime_version=version(),
            created_at=now,
            failure=figures.failure,
        ),
        activation_errors=activation_errors,
        sensitivities=sensitivities.records,
        float_set=sensitivities.float_set,
        accuracy=figures.decisions.accuracy,
        notes=(
            *notes,
            *chosen.notes,
            *_sentinel_notes(planner),
            *lost_notes,
            *_decoder_notes(judgement.tail),
            *sensitivities.notes,
        ),
    )


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What the outputs keep: part by part, to the end of the file, and as answers."""

    judged: tuple[JudgedPart, ...] = ()
    tail: DecoderFigures | None = None
    answers: tuple[AnswerRecord, ...] = ()

    @property
    def deciding_db(self) -> float:
        return outputs.deciding_sqnr_db(self.judged)

    @property
    def tail_db(self) -> float:
        return math.nan if self.tail is None else self.tail.whole_file_db


def _judgement(
    work: Workplace,
    compared: PreparedModel,
    chosen: ChosenSamples,
    planner: Planner,
    figures: _Figures,
    *,
    excluded: Collection[str],
    names: Mapping[int, str],
    is_real: bool,
) -> _Judgement:
    """What became of the outputs; what the decoder hands out is not kept beyond this.

    Args:
        excluded: names of what stays in float; ``names``: of classes, as the file says them.
        is_real: whether the inputs are somebody's own: on noise nobody answers anything.
    """
    points, choices = compared.points, work.choices
    judged = outputs.judged(
        points.parts, points.names, figures.expected, figures.actual, is_real=is_real
    )
    whole_file = None
    if compared.behind is not None:
        tail = Tail(
            _heads(work, compared.behind, planner, chosen, figures.expected),
            choices.rounded,
            figures.actual,
            is_real=is_real,
            exclude=frozenset(excluded),
            calibration=choices.calibration,
        )
        whole_file = _to_the_end(tail, judged)
    changed: tuple[AnswerRecord, ...] = ()
    if is_real:
        changed = answers(
            chosen.compared,
            _outputs(points, figures, whole_file),
            judged,
            names,
            with_pictures=choices.pictures,
        )
    return _Judgement(judged, None if whole_file is None else whole_file.figures, changed)


def _heads(
    work: Workplace,
    behind: Decoder,
    planner: Planner,
    chosen: ChosenSamples,
    expected: Sequence[Sequence[Array]],
) -> FloatHeads:
    """What a decoder is run on: the heads, and of the samples what it reads besides."""
    kept: list[Sequence[Array]] = [
        observed.kept or ()
        for name in behind.points.names
        if (observed := planner.observed.get(name)) is not None
    ]

    def read(of: Samples) -> list[dict[str, Array]]:
        names = frozenset(behind.reads).difference(behind.points.names)
        if not names:
            return [{} for _ in range(len(of))]
        return [
            {name: array for name, array in of[index].items() if name in names}
            for index in range(len(of))
        ]

    return FloatHeads(
        behind,
        read(chosen.calibration),
        list(zip(*kept, strict=True)),
        read(chosen.compared),
        expected,
        work.folder,
    )


def _to_the_end(judge: Tail, judged: Sequence[JudgedPart]) -> WholeFile | None:
    """What the whole file keeps; None where its decoder does not run by itself."""
    try:
        return judge.whole_file(judged)
    except RunError as error:
        logger.info("decoder: %s", error.sentence)
        return None


def _outputs(points: Points, figures: _Figures, whole_file: WholeFile | None) -> RunOutputs:
    if whole_file is None:
        return RunOutputs(points, figures.expected, figures.actual)
    return RunOutputs(
        points,
        figures.expected,
        figures.actual,
        whole_file.expected,
        whole_file.actual,
        whole_file.in_float,
    )


def _decoder_notes(figures: DecoderFigures | None) -> Iterator[str]:
    if figures is not None:
        yield from (f"{losing.message} {losing.remedy}" for losing in of_run(figures))


def _planner(
    work: Workplace,
    prepared: Network,
    placed: Placement,
    calibration: Samples,
    keep: Sequence[str],
) -> Planner:
    """Ranges of everything that sets a grid, by the method that was asked for.

    Args:
        keep: what the calibration samples give there is kept.
    """
    activations = work.choices.rounded.activations
    by_channel = placed.depthwise
    if activations is None or not activations.is_per_channel_at_depthwise:
        by_channel = frozenset()
    observed = observe(
        prepared,
        [*placed.grid_of.values(), *sorted(by_channel)],
        calibration,
        work.folder,
        work.steps("calibrating"),
        has_histograms=work.choices.calibration != "minmax",
        by_channel=by_channel,
        keep=keep,
    )
    return Planner(prepared, observed, work.choices.calibration)


def _sentinel_notes(planner: Planner) -> Iterator[str]:
    """Which ranges leave out values that stand for infinity."""
    names = [
        name
        for name, seen in planner.observed.items()
        if seen.range is not None and seen.range.sentinel_count
    ]
    if names:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield (
            f"values beyond {SENTINEL:g} in {names[0]!r}{others} stand for infinity: they do not"
            " count in the range"
        )


def _excluded(
    work: Workplace,
    prepared: Network,
    layer_of: Mapping[str, LayerKey],
    stored: Collection[LayerKey],
    every_name: Collection[str],
) -> set[str]:
    """What shall stay in float, by the names that the network has for it.

    Args:
        every_name: of the nodes of the file, those that the network does not have included.

    Raises:
        InputsError: no layer, node or tensor has a name that shall be excluded.
    """
    nodes = {name_of(node): node for node in every_node(prepared.model.graph)}
    tensors = prepared.tensors.keys() | set(prepared.inputs) | prepared.float_constants.keys()
    excluded: set[str] = set()
    for name in work.choices.exclude:
        slots = [slot for slot, key in layer_of.items() if key.name == name]
        for slot in slots:
            site = prepared.slot_of[slot].site
            excluded |= {site.name, *_nodes_of(prepared, slot)}
        if name in nodes or name in tensors or name in every_name:
            excluded.add(name)
        elif not slots and all(key.name != name for key in stored):
            names = [*(key.name for key in stored), *every_name]
            raise InputsError(
                f"no layer, node or tensor is named {name!r}",
                hint_for(name, names, "list the layers with: quantstore layers MODEL"),
            )
    return excluded


def _nodes_of(prepared: Network, slot: str) -> Iterator[str]:
    """What the network calls the nodes that read the weights of a layer."""
    yield from (name_of(node) for node in every_node(prepared.model.graph) if slot in node.input)


def _in_the_files_words(
    prepared: Network, nodes: Sequence[str], layer_of: Mapping[str, LayerKey]
) -> tuple[str, ...]:
    """Names of nodes; those of layers as the file has them, where the two differ."""
    layer_at = {
        name_of(node): layer_of[name].name
        for node in every_node(prepared.model.graph)
        for name in node.input
        if name in layer_of
    }
    return tuple(layer_at.get(name, name) for name in nodes)


# How far the outputs drift


def returns_no_number(model: str, output: str, sample_count: int) -> str:
    """Why there is no figure; ``model`` is the float or the quantized one."""
    return f"the {model} model returns NaN or infinity in {output!r} for {sample_count} samples"


def _figures(
    work: Workplace, placed: Placement, plan: Plan, samples: Samples, compared: PreparedModel
) -> _Figures:
    network, names = compared.network, compared.points.names

    def in_float(sample: Feeds) -> list[Array]:
        return network.session.run(network.fed(sample), network.outputs)

    expected = list(_returned(work, in_float, samples, "running the float model"))
    for name, count in _not_numbers(names, expected):
        raise RunError(
            returns_no_number("float", name, count),
            "check the preprocessing of the inputs",
        )
    reference = Reference(names, expected)
    emulator = FixedEmulator(network, placed, plan.grids)
    quantized = partial(emulator.run, plan)
    actual = list(_returned(work, quantized, samples, "running the quantized model"))
    decided = decisions(samples, expected, actual) if compared.holds_scores else Decisions()
    output_sqnr_db = reference.median_db(actual)
    if output_sqnr_db > EXACT_DB:
        is_empty = not plan.grids and not plan.constants
        unchanged = ABSORBED if has_quantizers(network.tensors) else RETURNS_THE_SAME
        return _Figures(math.nan, ROUNDS_NOTHING if is_empty else unchanged, decided)
    return _Figures(output_sqnr_db, None, decided, expected, actual)


def _lost_notes(
    figures: _Figures,
    network: Network,
    placed: Placement,
    plan: Plan,
    points: Points,
    samples: Samples,
) -> tuple[str, ...]:
    """Which outputs are no numbers any more, and what makes them so."""
    lost = [
        returns_no_number("quantized", name, count)
        for name, count in _not_numbers(points.names, figures.actual)
    ]
    culprit = first_lost(network, placed, plan, (samples[index] for index in range(len(samples))))
    shown = [] if culprit is None else of_run(culprit)
    return (*lost, *(f"{finding.message} {finding.remedy}" for finding in shown))


def _returned(
    work: Workplace, run: Callable[[Feeds], list[Array]], samples: Samples, stage: str
) -> Iterator[list[Array]]:
    for index in range(len(samples)):
        arrays = run(samples[index])
        work.say(stage, index + 1, len(samples))
        yield arrays


def _not_numbers(
    names: Sequence[str], outputs: Sequence[Sequence[Array]]
) -> Iterator[tuple[str, int]]:
    """Outputs that hold NaN or infinity, and in how many samples."""
    for index, name in enumerate(names):
        count = sum(
            sample[index].dtype.kind == "f" and not np.isfinite(sample[index]).all()
            for sample in outputs
        )
        if count:
            yield name, count


# Whose fault it is


@dataclass(frozen=True, slots=True)
class Sensitivities:
    """Rows for the store, and notes where the budget did not suffice."""

    records: tuple[SensitivityRecord, ...] = ()
    float_set: tuple[FloatSetRecord, ...] = ()
    notes: tuple[str, ...] = ()


def _sensitivities(work: Workplace, bench: Bench, samples: Samples, now: datetime) -> Sensitivities:
    budget = Budget(work.choices.budget_seconds)
    measured = sensitivity.measure_sensitivity(bench, budget, work.steps("sensitivity"))
    records = tuple(
        SensitivityRecord(
            depth=figure.unit.depth,
            target=work.choices.target_name,
            scheme=work.choices.scheme,
            mode=work.choices.mode,
            kind=figure.scope,
            input_source=samples.description,
            sample_count=figure.sample_count,
            output_sqnr_db=figure.output_sqnr_db,
            created_at=now,
            unit=figure.unit.name,
            unit_kind=figure.unit.kind,
            node_name=figure.unit.node_name,
        )
        for figure in measured
    )
    planned = len(sensitivity.SCOPES) * len(bench.units)
    notes = []
    if len(measured) < planned:
        notes.append(
            f"sensitivity: {len(measured)} of {planned} runs finished in {budget.seconds:g} s of"
            " CPU time"
        )
    goal_db = work.choices.goal_db
    if goal_db is None or len(measured) < planned:
        return Sensitivities(records, (), tuple(notes))
    # As much again: what was found so far would be of little use without it.
    search = Budget(budget.seconds)
    searched = sensitivity.find_float_set(
        bench, measured, goal_db, search, work.steps("searching for what must stay in float")
    )
    if not searched.is_reached:
        notes.append(
            f"the goal of {goal_db:g} dB was not reached, even with {len(searched.units)}"
            " units in float"
        )
    float_set = tuple(
        FloatSetRecord(
            goal_db=goal_db,
            position=position,
            unit=unit.name,
            unit_kind=unit.kind,
            output_sqnr_db=figure_db,
        )
        for position, (unit, figure_db) in enumerate(
            zip(searched.units, searched.figures_db, strict=True)
        )
    )
    return Sensitivities(records, float_set, tuple(notes))
