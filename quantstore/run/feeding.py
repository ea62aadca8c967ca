"""A model and a source of inputs in; the samples to calibrate on and those to compare on out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantstore.errors import InputsError, RunError
from quantstore.records import Array
from quantstore.run import noise, twin
from quantstore.run.choices import NOISE
from quantstore.run.inputs import ModelInput, Samples, read_samples
from quantstore.run.runtime import Session
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
        note = "there is one sample: ranges and figures come from the same"
        return ChosenSamples(samples, samples, (*samples.notes, note))
    calibration = samples.some(range(0, len(samples), 2))
    compared = samples.some(range(1, len(samples), 2))
    note = how_shared(len(calibration), len(compared))
    return ChosenSamples(calibration, compared, (*samples.notes, note))


def how_shared(calibration_count: int, compared_count: int) -> str:
    """Which samples serve for what, where all came from one place."""
    return (
        f"{calibration_count} samples to find ranges on, the other {compared_count} to compare on"
    )


def _read(work: Workplace, source: str, model_inputs: Sequence[ModelInput]) -> Samples:
    if source == NOISE:
        raise InputsError("ranges found on noise say nothing about real inputs")
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
    inputs = _accepted(work, model)
    constants = noise.frozen_inputs(model)
    spectrum = noise.spectrum_for(inputs)
    calibration_count, compared_count = noise.sample_counts(inputs)

    def drawn(count: int, seed: int) -> Samples:
        # Each sample by its own seed: none needs to be kept.
        def feed(index: int) -> dict[str, Array]:
            (sample,) = noise.samples(inputs, 1, seed=seed * 100_003 + index, spectrum=spectrum)
            return {**sample, **constants}

        return Samples("noise, image-like" if spectrum == "image" else "noise, white", count, feed)

    return ChosenSamples(
        drawn(1 if work.choices.mode == "weights" else calibration_count, _CALIBRATION_SEED),
        drawn(work.choices.samples or compared_count, _TEST_SEED),
    )


def _accepted(work: Workplace, model: ir.Model) -> tuple[noise.Input, ...]:
    """The first choice of shapes that the model runs on."""
    constants = noise.frozen_inputs(model)
    session = Session(twin.to_proto(model))
    first_refusal: RunError | None = None
    for inputs in noise.choices(model):
        spectrum = noise.spectrum_for(inputs)
        (sample,) = noise.samples(inputs, 1, seed=_TEST_SEED, spectrum=spectrum)
        try:
            session.run({**sample, **constants})
        except RunError as error:
            first_refusal = first_refusal or error
        else:
            return inputs
    raise first_refusal or RunError("the model has no inputs")
