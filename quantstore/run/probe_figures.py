"""The probe itself: a file in, one figure after another out. Weights alone come first.

Meant for a process of its own (``probe_child``), because a runtime can crash, hang or want all the
memory there is. Definitions and sources: docs/method.md, section 8.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from quantstore.errors import RunError
from quantstore.records import Array
from quantstore.run import noise, points, twin
from quantstore.run.comparison import Reference
from quantstore.run.plan import PLAN
from quantstore.run.runtime import Feeds, Session, quantizable, quantize_file
from quantstore.schemes import SCHEMES

# One seed for each use, so that nothing is tested on what it was calibrated on.
WEIGHTS_SEED, CALIBRATION_SEED, TEST_SEED = 0, 11, 12
# Rounding to 8 bits cannot come near; what lies above is float32's own noise: nothing was rounded.
EXACT_DB = 100.0
# Fixing the shapes around them makes onnxruntime fail, or crash.
BRANCHING = ("If", "Loop", "Scan")


@dataclass(frozen=True, slots=True)
class Facts:
    """What holds for all figures of a model: its inputs, and where it is compared, in words."""

    input_shape: str
    compared: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure, or in ``failure`` why there is none; ``output_sqnr_db`` is NaN then."""

    scheme: str
    mode: str
    calibration: str | None
    sample_count: int
    output_sqnr_db: float
    seconds: float
    failure: str | None


def figures(path: Path, *, fold: bool = True) -> Iterator[Facts | Figure]:
    """Run the float model beside its quantized twins on noise.

    Args:
        fold: whether BatchNormalization is folded into the weights before they are quantized.

    Yields:
        The facts, then each figure as soon as it is there.

    Raises:
        QuantstoreError: the model cannot be run at all.
    """
    started = time.perf_counter()
    model = twin.open_float(path)
    for name, value in noise.frozen_inputs(model.model).items():
        twin.freeze_input(model.model, name, value)
    compared = points.cut(model.model)
    if not compared.names:
        raise RunError("no output of floating-point numbers depends on the inputs")
    choices = list(noise.choices(model.model))
    whole = twin.to_proto(model)
    slots = twin.lift_weights(model, fold=fold)
    twin.weights_as_inputs(model, slots)
    session = Session(twin.to_proto(model))
    floats = {_name(slot): twin.float_weights(slot) for slot in slots}
    inputs = accepted_inputs(session, choices, floats)
    facts = Facts(noise.shapes_text(inputs), compared.description)
    yield facts

    _, count = noise.sample_counts(inputs)
    samples = noise.samples(inputs, count, seed=WEIGHTS_SEED, spectrum="white")
    reference = Reference(compared.names, [session.run({**floats, **sample}) for sample in samples])
    del floats
    for scheme in _schemes("weights"):
        output_sqnr_db, failure = np.nan, None
        try:
            rounded = {
                _name(slot): twin.quantized_weights(model, slot, SCHEMES[scheme]) for slot in slots
            }
            output_sqnr_db = reference.median_db(
                session.run({**rounded, **sample}) for sample in samples
            )
            if output_sqnr_db > EXACT_DB:
                failure = _on_grid(was_quantized=model.was_quantized)
        except RunError as error:
            failure = error.sentence
        now = time.perf_counter()
        yield _figure(scheme, "weights", count, output_sqnr_db, failure, now - started)
        started = now
    del session, reference, model, slots
    yield from _both(whole, inputs, compared.names, fold=fold)


def _both(
    whole: onnx.ModelProto, inputs: tuple[noise.Input, ...], names: tuple[str, ...], *, fold: bool
) -> Iterator[Figure]:
    """Weights and activations, by onnxruntime's own quantizer."""
    started = time.perf_counter()
    calibration_count, count = noise.sample_counts(inputs)
    spectrum = noise.spectrum_for(inputs)
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        try:
            fix_shapes(whole, inputs)
            source = quantizable(whole, room, fold=fold)
            session = Session(source)
            samples = noise.samples(inputs, count, seed=TEST_SEED, spectrum=spectrum)
            reference = Reference(names, [session.run(sample, names) for sample in samples])
            del session
        except RunError as error:
            for scheme in _schemes("both"):
                yield _figure(
                    scheme, "both", count, np.nan, error.sentence, time.perf_counter() - started
                )
            return
        calibration = noise.samples(
            inputs, calibration_count, seed=CALIBRATION_SEED, spectrum=spectrum
        )
        for scheme in _schemes("both"):
            output_sqnr_db, failure = np.nan, None
            try:
                target = quantize_file(
                    source,
                    room / "quantized.onnx",
                    calibration,
                    per_channel=SCHEMES[scheme].is_per_channel,
                    cache=room / "ranges.json",
                )
                output_sqnr_db = _compared(Session(target), samples, names, reference)
                if output_sqnr_db > EXACT_DB:
                    failure = "onnxruntime's quantizer leaves this model as it is"
            except RunError as error:
                failure = error.sentence
            now = time.perf_counter()
            yield _figure(scheme, "both", count, output_sqnr_db, failure, now - started)
            started = now


def _compared(
    session: Session, samples: list[Feeds], names: tuple[str, ...], reference: Reference
) -> float:
    return reference.median_db(session.run(sample, names) for sample in samples)


def _figure(
    scheme: str,
    mode: str,
    sample_count: int,
    output_sqnr_db: float,
    failure: str | None,
    seconds: float,
) -> Figure:
    return Figure(
        scheme=scheme,
        mode=mode,
        calibration="minmax" if mode == "both" else None,
        sample_count=sample_count,
        output_sqnr_db=output_sqnr_db if failure is None else np.nan,
        seconds=seconds,
        failure=failure,
    )


INTEGERS_ON_GRID = (
    "the stored integers lie on this grid already; what their rounding lost is unknown"
)
WEIGHTS_ON_GRID = "the weights lie on this grid already: rounding them changes nothing"


def _on_grid(*, was_quantized: bool) -> str:
    return INTEGERS_ON_GRID if was_quantized else WEIGHTS_ON_GRID


def _schemes(mode: str) -> list[str]:
    return [scheme for scheme, planned in PLAN if planned == mode]


def _name(slot: twin.Slot) -> str:
    return str(slot.value.name)


def accepted_inputs(
    session: Session, choices: list[tuple[noise.Input, ...]], floats: dict[str, Array]
) -> tuple[noise.Input, ...]:
    """The first choice of shapes that the model runs on.

    Raises:
        RunError: it runs on none; what it says of the first.
    """
    first: RunError | None = None
    for inputs in choices:
        (sample,) = noise.samples(inputs, 1, seed=WEIGHTS_SEED, spectrum="white")
        try:
            session.run({**floats, **sample})
        except RunError as error:
            first = first or error
        else:
            return inputs
    raise first or RunError("the model has no inputs")


def fix_shapes(whole: onnx.ModelProto, inputs: tuple[noise.Input, ...]) -> None:
    """Write the chosen shapes into the model, so that what is computed from them folds away."""
    if any(node.op_type in BRANCHING for node in whole.graph.node):
        return
    shapes = {model_input.name: model_input.shape for model_input in inputs}
    for value in whole.graph.input:
        shape = value.type.tensor_type.shape
        del shape.dim[:]
        for size in shapes[value.name]:
            shape.dim.add().dim_value = size
