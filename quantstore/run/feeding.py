"""A model and a source of inputs in; the samples to calibrate on and those to compare on out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantstore.errors import InputsError, RunError
from quantstore.records import Array
from quantstore.run import noise, states, twin
from quantstore.run.choices import NOISE
from quantstore.run.inputs import ModelInput, Samples, read_samples
from quantstore.run.runtime import Feeds, Session
from quantstore.run.workplace import Workplace

# Not those of the probe: a run by hand shall be evidence of its own.
_CALIBRATION_SEED, _TEST_SEED = 21, 22


@dataclass(frozen=True, slots=True)
class ChosenSamples:
    """``calibration``: to find ranges of activations on. ``compared``: the figures are of these."""

    calibration: Samples
    compared: Samples
    notes: tuple[str, ...] = ()


def choose_samples(work: Workplace, model: ir.Model, source: str) -> ChosenSamples:
    """Read, or draw, what the model is run on.

    Raises:
        InputsError: the source cannot be read, or does not fit the model.
        RunError: the model runs on no noise.
    """
    if source == NOISE:
        return _drawn(work, model)
    model_inputs = _model_inputs(model)
    samples = _read(work, source, model_inputs)
    if work.choices.mode == "weights":
        return ChosenSamples(samples, samples, samples.notes)
    if work.choices.calibration_inputs is not None:
        calibration = _read(work, work.choices.calibration_inputs, model_inputs)
        news = tuple(note for note in calibration.notes if note not in samples.notes)
        return ChosenSamples(calibration, samples, samples.notes + news)
    if len(samples) == 1:
        note = "only one sample: it is used for both calibration and comparison"
        return ChosenSamples(samples, samples, (*samples.notes, note))
    calibration = samples.some(range(0, len(samples), 2))
    compared = samples.some(range(1, len(samples), 2))
    note = how_shared(len(calibration), len(compared))
    return ChosenSamples(calibration, compared, (*samples.notes, note))


def read_inputs(work: Workplace, model: ir.Model, source: str) -> Samples:
    """Every sample of a source, to be shared out by the caller.

    Raises:
        InputsError: the source cannot be read, or does not fit the model.
    """
    return _read(work, source, _model_inputs(model))


def how_shared(calibration_count: int, compared_count: int) -> str:
    """Which samples serve for what, where all came from one place."""
    return f"{calibration_count} samples used for calibration, {compared_count} for comparison"


def _read(work: Workplace, source: str, model_inputs: Sequence[ModelInput]) -> Samples:
    if source == NOISE:
        raise InputsError("ranges found on noise do not apply to real inputs")
    return read_samples(
        source, model_inputs, count=work.choices.samples, preprocess=work.choices.preprocess
    )


def _model_inputs(model: ir.Model) -> list[ModelInput]:
    """What the model asks for, with the dimensions that it leaves open."""
    values = [value for value in model.graph.inputs if value.const_value is None]
    likeliest = next(iter(noise.choices(model)))
    return [
        ModelInput(decided.name, _open_shape(value, decided.shape), np.dtype(decided.dtype))
        for value, decided in zip(values, likeliest, strict=True)
    ]


def _open_shape(value: ir.Value, decided: tuple[int, ...]) -> tuple[int | None, ...]:
    """The shape with None where it is open; a number of channels that a layer prescribes is not."""
    sizes: list[int | None] = [
        size if isinstance(size, int) and size > 0 else None for size in value.shape or ()
    ] or [None] * len(decided)
    if len(sizes) == 4:
        for axis in (1, 3):
            if sizes[axis] is None and decided[axis] in (1, 3):
                sizes[axis] = decided[axis]
    return tuple(sizes)


def _drawn(work: Workplace, model: ir.Model) -> ChosenSamples:
    accepted = _accepted(work, model)
    inputs, constants = accepted.inputs, noise.frozen_inputs(model)
    calibration_count, compared_count = noise.sample_counts(
        inputs, noise.compared_elements(list(accepted.outputs.values()))
    )
    fed_back = noise.states(inputs)

    def drawn(count: int, seed: int) -> Samples:
        # Each sample by its own seed: none needs to be kept.
        def feed(index: int) -> dict[str, Array]:
            (sample,) = noise.samples(inputs, 1, seed=seed * 100_003 + index, first=index)
            return {**sample, **constants}

        def kept(index: int) -> dict[str, Array]:
            return {**stream[index], **constants}

        # But states come from the samples before.
        stream: list[Feeds] = []
        if fed_back:
            stream = states.streamed(
                noise.samples(inputs, count, seed=seed), fed_back, accepted.run
            )
        return Samples(f"noise, {_likeness(inputs)}", count, kept if fed_back else feed)

    return ChosenSamples(
        drawn(1 if work.choices.mode == "weights" else calibration_count, _CALIBRATION_SEED),
        drawn(work.choices.samples or compared_count, _TEST_SEED),
    )


def _likeness(inputs: tuple[noise.Input, ...]) -> str:
    """What the noise is like, by the first input that is imitated."""
    likenesses = {"image": "image-like", "sound": "speech-like", "bytes": "text-like"}
    contents = (model_input.content for model_input in inputs)
    return next((likenesses[content] for content in contents if content in likenesses), "white")


@dataclass(frozen=True, slots=True)
class _Accepted:
    """The first choice of shapes that the model runs on; what it gives, and how it is run."""

    inputs: tuple[noise.Input, ...]
    outputs: dict[str, Array]
    run: Callable[[Feeds], dict[str, Array]]


def _accepted(work: Workplace, model: ir.Model) -> _Accepted:
    constants = noise.frozen_inputs(model)
    session = Session(twin.to_proto(model))
    names = tuple(str(value.name) for value in model.graph.outputs)

    def run(sample: Feeds) -> dict[str, Array]:
        return dict(zip(names, session.run({**sample, **constants}, names), strict=True))

    first_refusal: RunError | None = None
    for inputs in noise.choices(model):
        (sample,) = noise.samples(inputs, 1, seed=_TEST_SEED)
        try:
            outputs = run(sample)
        except RunError as error:
            first_refusal = first_refusal or error
        else:
            return _Accepted(inputs, outputs, run)
    raise first_refusal or RunError("the model has no inputs")
