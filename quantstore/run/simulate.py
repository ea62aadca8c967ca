"""A model beside its quantized twin on real inputs: how the outputs drift, where, and by whom.

The one function that the command line and the pages call, through
``quantstore.pipeline.runs``, which adds the store and a process that can be cancelled. Nothing
here knows a store.
"""

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from quantstore import graph
from quantstore.errors import RunError
from quantstore.records import ActivationErrorRecord, Array, SensitivityRecord, SimulationRecord
from quantstore.run import noise, points, sensitivity, twin
from quantstore.run.choices import Choices, ReportProgress, Simulation
from quantstore.run.comparison import Reference
from quantstore.run.decisions import Decisions, decisions
from quantstore.run.drift import measure_drift
from quantstore.run.feeding import choose_samples
from quantstore.run.inputs import Samples
from quantstore.run.pairing import (
    RoundedActivations,
    RoundedWeights,
    export,
    give_memory_back,
    round_activations,
    round_weights,
    switchboard,
)
from quantstore.run.probe_figures import BRANCHING, EXACT_DB
from quantstore.run.runtime import Session, version
from quantstore.run.surgery import TwinPair
from quantstore.run.workplace import Workplace

_WAS_QUANTIZED = (
    "the file computes with integers: they were turned back into floats first, what their rounding"
    " lost is unknown"
)


def simulate(
    path: Path, inputs: str, choices: Choices | None = None, report: ReportProgress | None = None
) -> Simulation:
    """Run a model beside its quantized twin and compare them, tensor by tensor.

    Args:
        inputs: a folder of images, an image, an ``.npz`` or ``.npy`` file, or ``noise``.
        report: told how far it is.

    Raises:
        ModelFileError: the model cannot be read.
        InputsError: the inputs cannot, or do not fit.
        RunError: onnxruntime refuses the model or its twin, or the float model returns no numbers.
    """
    with tempfile.TemporaryDirectory(prefix="quantstore-") as folder:
        work = Workplace(choices or Choices(), Path(folder), report or (lambda _: None))
        return _simulated(work, path, inputs)


@dataclass(frozen=True, slots=True)
class _Compared:
    """The tensors that are compared, and where they are, in words."""

    names: tuple[str, ...]
    description: str
    holds_scores: bool


@dataclass(frozen=True, slots=True)
class _Figures:
    """The figure, NaN where ``failure`` says why there is none, and what the outputs decide."""

    output_sqnr_db: float
    failure: str | None
    decisions: Decisions


def _simulated(work: Workplace, path: Path, inputs: str) -> Simulation:
    """One stage after the other."""
    started = time.perf_counter()
    choices = work.choices
    work.say("reading", 0, 1)
    depth_of = _stored_depths(path)
    model = twin.open_float(path)
    sha256 = model.file.sha256
    notes = (_WAS_QUANTIZED,) if model.was_quantized else ()
    chosen = choose_samples(work, model.model, inputs)
    samples = chosen.compared
    compared = _prepared(model.model, samples)
    order = [str(output.name) for node in model.model.graph for output in node.outputs]

    work.say("quantizing", 0, 1)
    rounded: RoundedWeights | RoundedActivations
    if choices.mode == "weights":
        rounded = round_weights(work, model)
    else:
        exported = export(model)
        # The quantizer makes several copies of the weights; there shall be none beside them.
        del model
        rounded = round_activations(work, exported, chosen.calibration, depth_of)
    figures = _figures(work, rounded.pair, samples, compared)
    activation_errors: tuple[ActivationErrorRecord, ...] = ()
    if choices.drift:
        give_memory_back()
        activation_errors = measure_drift(
            rounded.pair, samples, work.folder, work.steps("comparing tensors"), order=order
        )
    now = datetime.now(UTC).replace(tzinfo=None)
    sensitivities: tuple[SensitivityRecord, ...] = ()
    shortfall: tuple[str, ...] = ()
    if choices.sensitivity:
        work.say("sensitivity", 0, 1)
        board = switchboard(work, rounded, depth_of)
        sensitivities, shortfall = _sensitivities(work, board, samples, compared.names, now)
    return Simulation(
        sha256=sha256,
        folded=choices.fold,
        record=SimulationRecord(
            scheme=choices.scheme,
            mode=choices.mode,
            calibration=None if choices.mode == "weights" else choices.calibration,
            input_source=samples.description,
            input_shape=samples.shapes,
            compared=compared.description,
            sample_count=len(samples),
            output_sqnr_db=figures.output_sqnr_db,
            top1_agreement=figures.decisions.top1_agreement,
            seconds=time.perf_counter() - started,
            onnxruntime_version=version(),
            created_at=now,
            failure=figures.failure,
        ),
        activation_errors=activation_errors,
        sensitivities=sensitivities,
        accuracy=figures.decisions.accuracy,
        notes=(*notes, *chosen.notes, *shortfall),
    )


def _stored_depths(path: Path) -> dict[str, int]:
    """The depth of every layer by its name, as the store counts."""
    file = graph.open_model(path)
    depths: dict[str, int] = {}
    for site in graph.find_sites(file):
        if graph.read_layer(file, site) is not None:
            depths[site.name] = len(depths)
    return depths


# What is compared


NO_FLOAT_OUTPUT_DEPENDS = "no output of floating-point numbers depends on the inputs"


def _prepared(model: ir.Model, samples: Samples) -> _Compared:
    """Cut the model where it is compared and fix what the samples fix, in place."""
    _freeze_scalars(model, samples)
    has_one_output = len(model.graph.outputs) == 1
    cut = points.cut(model)
    if not cut.names:
        raise RunError(NO_FLOAT_OUTPUT_DEPENDS)
    _fix_shapes(model, samples)
    # What is left before a selection are no scores of classes, though it may look alike.
    holds_scores = has_one_output and "the last tensors" not in cut.description
    return _Compared(cut.names, cut.description, holds_scores)


def _freeze_scalars(model: ir.Model, samples: Samples) -> None:
    """Whole numbers that choose a branch become constants, so that the branch is quantized."""
    first, last = samples[0], samples[len(samples) - 1]
    for name in noise.frozen_inputs(model):
        if np.array_equal(first[name], last[name]):
            twin.freeze_input(model, name, first[name])


def _fix_shapes(model: ir.Model, samples: Samples) -> None:
    """Write the shapes that are fed into the model, so that what hangs on them is constant."""
    if any(node.op_type in BRANCHING for node in model.graph):
        return
    feed = samples[0]
    for value in model.graph.inputs:
        if value.name in feed:
            value.shape = ir.Shape(feed[value.name].shape)


# How far the outputs drift


RETURNS_THE_SAME = (
    "the quantized model returns what the float one does: its weights lie on this grid already"
)


def returns_no_number(model: str, output: str, sample_count: int) -> str:
    """Why there is no figure; ``model`` is the float or the quantized one."""
    return f"the {model} model returns NaN or infinity in {output!r} for {sample_count} samples"


def _figures(work: Workplace, pair: TwinPair, samples: Samples, compared: _Compared) -> _Figures:
    names = compared.names
    expected = _returned(work, pair.float_model, samples, names, "running the float model")
    for name, count in _not_numbers(names, expected):
        raise RunError(
            returns_no_number("float", name, count),
            "check the preprocessing of the inputs",
        )
    reference = Reference(names, expected)
    actual = _returned(work, pair.quantized, samples, names, "running the quantized model")
    decided = decisions(samples, expected, actual) if compared.holds_scores else Decisions()
    for name, count in _not_numbers(names, actual):
        sentence = returns_no_number("quantized", name, count)
        return _Figures(math.nan, sentence, decided)
    output_sqnr_db = reference.median_db(actual)
    if output_sqnr_db > EXACT_DB:
        return _Figures(math.nan, RETURNS_THE_SAME, decided)
    return _Figures(output_sqnr_db, None, decided)


def _returned(
    work: Workplace, model: Any, samples: Samples, names: Sequence[str], stage: str
) -> list[list[Array]]:
    session = Session(work.saved(model, "run"))
    outputs = []
    for index in range(len(samples)):
        outputs.append(session.run(samples[index], names))
        work.say(stage, index + 1, len(samples))
    return outputs


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


def _sensitivities(
    work: Workplace,
    board: sensitivity.Switchboard,
    samples: Samples,
    names: Sequence[str],
    now: datetime,
) -> tuple[tuple[SensitivityRecord, ...], tuple[str, ...]]:
    """The rows, and a note where the budget did not suffice for all."""
    budget = work.choices.budget_seconds
    measured = sensitivity.measure_sensitivity(
        board, samples, names, budget, work.steps("sensitivity")
    )
    records = tuple(
        SensitivityRecord(
            depth=layer.depth,
            scheme=work.choices.scheme,
            mode=work.choices.mode,
            kind=layer.scope,
            input_source=samples.description,
            sample_count=layer.sample_count,
            output_sqnr_db=layer.output_sqnr_db,
            created_at=now,
        )
        for layer in measured
    )
    planned = len(sensitivity.SCOPES) * len(board.depths)
    if len(measured) == planned:
        return records, ()
    note = f"sensitivity: the budget of {budget:g} s sufficed for {len(measured)} of {planned} runs"
    return records, (note,)
