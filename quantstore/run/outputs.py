"""What each output of a rounded network keeps: figures and decisions, part by part, and a verdict's
figure from them. Definitions and the table behind the rule: docs/method.md, section 8.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from quantstore.numerics import quantization
from quantstore.numerics.median import median
from quantstore.records import Array, Doubles, OutputRecord
from quantstore.run.points import Part
from quantstore.schemes import LOST_DB

# An output that no longer changes with the input keeps 0 dB of what varies. It is broken, and a
# verdict calls broken what is below 10 dB: a hair less than 10 dB stands between the two.
VARYING_MARGIN_DB = 9.9
# What decibels mean, read backwards: with so many decisions the same, at least so many. Held
# against ``FEWEST_DECISIONS`` of them, and only where they are rare: of two random sets that hold
# most elements most are the same.
DECISIONS_AT_DB = ((0.95, 20.0), (0.9, 15.0), (0.75, 10.0))
FEWEST_DECISIONS = 100
LARGEST_SHARE = 0.1

# Of each sample, some tensors.
Tensors = Sequence[Sequence[Array]]


@dataclass(frozen=True, slots=True)
class JudgedPart:
    """A row of ``simulation_outputs``, and what the part keeps in dB, NaN where nobody knows."""

    part: Part
    record: OutputRecord
    figure_db: float


def judged(
    compared_parts: Sequence[Part],
    names: Sequence[str],
    expected: Tensors,
    actual: Tensors,
    *,
    is_real: bool,
) -> tuple[JudgedPart, ...]:
    """A row for each part.

    Args:
        names: of the tensors in ``expected`` and ``actual``, sample by sample: what the float and
            the rounded network give.
        is_real: whether the samples are what the network was made for. On noise nobody decides
            anything, and outputs vary less than they do on real inputs.
    """
    return tuple(_judged(compared_parts, names, expected, actual, is_real=is_real))


def _judged(
    compared_parts: Sequence[Part],
    names: Sequence[str],
    expected: Tensors,
    actual: Tensors,
    *,
    is_real: bool,
) -> Iterator[JudgedPart]:
    index_of = {name: index for index, name in enumerate(names)}
    for part in compared_parts:
        indices = [index_of[name] for name in part.names if name in index_of]
        y = [[sample[index] for index in indices] for sample in expected]
        changed = [[sample[index] for index in indices] for sample in actual]
        f1, count = decided(part, y, changed) if is_real else (math.nan, 0)
        plain_db, varying_db = sqnr_db(y, changed), varying_sqnr_db(y, changed)
        record = OutputRecord(
            output=part.output,
            part=part.part or None,
            point=part.point,
            sqnr_db=plain_db,
            varying_sqnr_db=varying_db,
            decision_f1=f1,
            decisions=count if is_real and part.decision else None,
            decides=not part.is_state and not math.isnan(plain_db) and _moves(y),
        )
        kept_db = figure_db(part, plain_db, varying_db, is_real=is_real)
        if part.decision == "set" and plain_db != LOST_DB:
            size = sum(tensor.size for sample in y for tensor in sample)
            kept_db = max(kept_db, least_db(f1, count, size))
        yield JudgedPart(part, record, kept_db)


def sqnr_db(expected: Tensors, actual: Tensors) -> float:
    """Median over the samples of the SQNR in dB of these tensors together, NaN where there is none.

    As ``comparison.sqnr_db``, of several tensors as if they were one.
    """
    return _median([_ratio_db(*pair) for pair in zip(*energies(expected, actual), strict=True)])


def varying_sqnr_db(expected: Tensors, actual: Tensors) -> float:
    """The same of what differs from sample to sample: of y minus its mean over the samples.

    NaN with one sample, or with samples of several shapes.
    """
    varying = varying_energies(expected, actual)
    if varying is None:
        return math.nan
    return _median([_ratio_db(*pair) for pair in zip(*varying, strict=True)])


def energies(expected: Tensors, actual: Tensors) -> tuple[Doubles, Doubles]:
    """Of each sample, the energy of its tensors and that of their errors, where they are finite."""
    signals, noises = np.zeros(len(expected)), np.zeros(len(expected))
    for number, (before, after) in enumerate(zip(expected, actual, strict=True)):
        for y, changed in zip(before, after, strict=True):
            usable = np.isfinite(y)
            difference = changed[usable].astype(np.float64) - y[usable]
            signals[number] += np.sum(np.square(y[usable], dtype=np.float64))
            noises[number] += np.sum(difference**2)
    return signals, noises


def varying_energies(expected: Tensors, actual: Tensors) -> tuple[Doubles, Doubles] | None:
    """The same of what differs from sample to sample: less the mean of each element.

    The mean of the errors is taken from them likewise. None with one sample, or with samples of
    several shapes.
    """
    count = len(expected)
    if count < 2:
        return None
    signals, noises = np.zeros(count), np.zeros(count)
    for index in range(len(expected[0])):
        tensors = [sample[index] for sample in expected]
        if any(tensor.shape != tensors[0].shape for tensor in tensors):
            return None
        y = np.stack(tensors).astype(np.float64).reshape(count, -1)
        errors = np.stack([sample[index] for sample in actual]).reshape(count, -1) - y
        usable = np.isfinite(y).all(axis=0)
        y, errors = y[:, usable], errors[:, usable]
        signals += np.square(y - y.mean(axis=0)).sum(axis=1)
        # An infinite error leaves NaN, which is no figure.
        with np.errstate(invalid="ignore"):
            noises += np.square(errors - errors.mean(axis=0)).sum(axis=1)
    return signals, noises


def decided(part: Part, expected: Tensors, actual: Tensors) -> tuple[float, int]:
    """How far the two networks decide alike, NaN where nothing is decided; and how often.

    F1 of the sets of elements beyond the limit, of all samples together; or the share of choices
    that stay.
    """
    if part.decision == "set":
        both = before = after = 0
        for y, changed in _pairs(expected, actual):
            chosen, others = y > part.limit, changed > part.limit
            both += int(np.sum(chosen & others))
            before += int(np.sum(chosen))
            after += int(np.sum(others))
        total = before + after
        return (2 * both / total if total else math.nan), before
    if part.decision == "top1":
        agreed = count = 0
        for y, changed in _pairs(expected, actual):
            first, second = (_choices(tensor, part) for tensor in (y, changed))
            agreed += int(np.sum(first == second))
            count += first.size
        return (agreed / count if count else math.nan), count
    return math.nan, 0


def deciding_sqnr_db(judged: Sequence[JudgedPart]) -> float:
    """The figure that a verdict takes: the worst output that decides; NaN where none does."""
    figures = [item.figure_db for item in judged if item.record.decides]
    return min((figure for figure in figures if not math.isnan(figure)), default=math.nan)


def figure_db(part: Part, plain_db: float, varying_db: float, *, is_real: bool) -> float:
    """What a part keeps in dB, from the SQNR of all of it and of what varies."""
    if math.isnan(varying_db) or math.isnan(plain_db):
        return plain_db
    if part.is_decoded and not part.decision:
        # An error of a box counts against the box, whose size the constants hold.
        least_db = -math.inf if is_real else plain_db
        return max(least_db, varying_db + VARYING_MARGIN_DB)
    return min(plain_db, varying_db + VARYING_MARGIN_DB) if is_real else plain_db


def least_db(f1: float, count: int, size: int) -> float:
    """What an output keeps at least, as ``count`` decisions on ``size`` elements show; -infinity
    where they show nothing.
    """
    if count < FEWEST_DECISIONS or count > LARGEST_SHARE * size:
        return -math.inf
    return next((least for agreed, least in DECISIONS_AT_DB if f1 >= agreed), -math.inf)


def _pairs(expected: Tensors, actual: Tensors) -> Iterator[tuple[Array, Array]]:
    for before, after in zip(expected, actual, strict=True):
        yield from zip(before, after, strict=True)


def _choices(tensor: Array, part: Part) -> Array:
    axis = part.axis % max(tensor.ndim, 1)
    if part.is_flat:
        tensor = tensor.reshape(*tensor.shape[:axis], -1)
    return np.asarray(tensor.argmax(axis=axis))


def _ratio_db(signal: float, noise: float) -> float:
    if not math.isfinite(noise):
        return LOST_DB
    return float(quantization.sqnr_db(signal, noise))


def _median(figures: Sequence[float]) -> float:
    """``LOST_DB`` where one is; samples of zeros alone have nothing to lose."""
    if LOST_DB in figures:
        return LOST_DB
    figures = [figure for figure in figures if figure > -math.inf]
    return median(figures) if figures else math.nan


def _moves(samples: Tensors) -> bool:
    """Whether anything differs from the first sample to the last."""
    return len(samples) == 1 or any(
        not np.array_equal(first, last, equal_nan=True)
        for first, last in zip(samples[0], samples[-1], strict=True)
    )
