"""The errors of many schemes at once: the same figures as ``quantization``, several times faster.

Two ways lead there. What one scale does to a whole tensor is read off its sorted weights
(``sorted_weights``); what a scheme does to each channel takes a pass over the weights, many schemes
at a time (``rounding``). This module puts both together: errors, clipping curves, bits needed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from quantstore.numerics.input_channels import InputChannels
from quantstore.numerics.quantization import (
    ChannelSummary,
    RoundTripError,
    sqnr_db,
    summarize_rows,
)
from quantstore.numerics.rounding import SOME_WEIGHTS, Columns, round_columns, scales_of
from quantstore.numerics.sorted_weights import (
    ClippingCurve,
    abs_max,
    clipping_curves,
    curve,
    shares_up_to_one,
    tensor_errors,
)
from quantstore.records import Counts, Doubles, Floats
from quantstore.schemes import (
    INT8_TENSOR_SYMMETRIC,
    SCHEMES,
    Granularity,
    Scheme,
)

# The channels' view of clipping needs a pass over all weights for each threshold.
CHANNEL_THRESHOLDS: Doubles = shares_up_to_one("0.02", 14)

# A layer is fine from here on (provisional, like the bands).
FINE_DB = 30.0
DB_PER_BIT = 20 * math.log10(2)
FEWEST_BITS, MOST_BITS = 2, 16
# Squares of evenly spread noise, summed over n weights, are off by 3.9 / sqrt(n) dB (one standard
# deviation): chance does not carry them further than eight times as far. A prediction that is less
# sure than half a bit is not worth making.
NOISE_MARGIN_DB, MOST_MARGIN_DB, _UNKNOWN_DB = 33.0, 3.0, 1000.0
# So far a sum of squares in float32 may be off.
SUMMED_SHARE = 2.0**-18


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What to measure: which schemes, and whether curves and bits needed (``is_full``) as well."""

    schemes: Mapping[str, Scheme]
    is_full: bool


FULL_PLAN = SweepPlan(SCHEMES, is_full=True)


@dataclass(frozen=True)
class Sweep:
    """Everything rounding does to one layer.

    Per scheme, ``(schemes,)`` in the order of ``names``: ``mse`` (weight units squared),
    ``max_abs_error`` (weight units), ``sqnr_db``, ``zeroed_fraction`` and ``zeroed_count``, the
    weights that were not 0 and came back as 0. Per scheme and channel, ``(schemes, channels)``:
    ``squared_error`` (weight units squared, summed), ``channel_sqnr_db`` and, of all but tensor
    schemes beyond int8, ``channel_zeroed_count``. Per channel: ``energy`` and ``nonzero_count``.

    ``bits_needed`` maps a granularity to the fewest bits (2 to 16, symmetric) with which nine in
    ten channels reach 30 dB, and three in four input channels 10 dB; None where 16 are not enough.
    """

    names: tuple[str, ...]
    weight_count: int
    energy: Doubles
    nonzero_count: Counts
    squared_error: Doubles
    zeroed_count: Counts
    channel_zeroed_count: Counts
    max_abs_error: Doubles
    levels_used: Mapping[str, int]
    summaries: Mapping[str, ChannelSummary]
    channel_sqnr_db: Doubles
    clipping: tuple[ClippingCurve, ...]
    bits_needed: Mapping[Granularity, int | None]

    @cached_property
    def mse(self) -> Doubles:
        """NaN where there is no finite weight."""
        total: Doubles = self.squared_error.sum(axis=1)
        mean: Doubles = (
            total / self.weight_count if self.weight_count else np.full_like(total, np.nan)
        )
        return mean

    @cached_property
    def sqnr_db(self) -> Doubles:
        """Of the whole tensor; infinite without an error."""
        return sqnr_db(self.energy.sum(), self.squared_error.sum(axis=1))

    @cached_property
    def zeroed_fraction(self) -> Doubles:
        """Share of the non-zero weights that come back as 0; 0 where there is none."""
        fraction: Doubles = self.zeroed_count / max(1, int(self.nonzero_count.sum()))
        return fraction

    @property
    def errors(self) -> dict[str, RoundTripError]:
        """The same figures in the form that the plain definition gives them.

        Where zeros are not counted channel by channel, ``zeroed_count`` holds their sum alone.
        """
        return {
            name: RoundTripError(
                energy=self.energy,
                squared_error=self.squared_error[row],
                nonzero_count=self.nonzero_count,
                zeroed_count=self.channel_zeroed_count[row]
                if self.channel_zeroed_count[row].sum() == self.zeroed_count[row]
                else self.zeroed_count[row : row + 1],
                weight_count=self.weight_count,
                max_abs_error=float(self.max_abs_error[row]),
                levels_used=self.levels_used.get(name),
            )
            for row, name in enumerate(self.names)
        }


def sweep(
    weights: Floats,
    ordered: Floats,
    energy: Doubles,
    plan: SweepPlan = FULL_PLAN,
    *,
    sharing: int = 1,
    inputs: InputChannels | None = None,
) -> Sweep:
    """Measure one layer under every scheme, with clipping curves and bits needed.

    Args:
        weights: ``(channels, weights per channel)``; NaN and infinities are left out.
        ordered: all finite weights, ascending.
        energy: ``(channels,)``, sum of squared weights of each channel.
        sharing: how many channels share a scale per channel (see ``quantization.shared_ends``).
        inputs: the same weights by input channel, where the layer has such.
    """
    weight_count = int(ordered.size)
    # Zeros add nothing to any sum, and zero is a code of every grid.
    clean = (
        weights
        if weight_count == weights.size
        else np.where(np.isfinite(weights), weights, np.float32(0))
    )
    columns = Columns(clean, sharing)
    nonzero = np.full(columns.channel_count, columns.size)
    if clean is not weights or np.searchsorted(ordered, 0) < np.searchsorted(ordered, 0, "right"):
        nonzero = np.count_nonzero(clean, axis=1)
    names, schemes = tuple(plan.schemes), list(plan.schemes.values())

    needs_search = plan.is_full or any(scheme.clip == "mse" for scheme in schemes)
    curves, best = clipping_curves(ordered, float(energy.sum())) if needs_search else ([], {})
    cuts = np.array([best.get((scheme.bits, scheme.is_symmetric), np.inf) for scheme in schemes])
    rounded = round_columns(columns, schemes, cuts)
    # Weights that were 0, or not finite, are none that were lost.
    channel_zeroed = np.maximum(rounded.zeroed_count - (columns.size - nonzero), 0)
    zeroed, largest_error = channel_zeroed.sum(axis=1), rounded.largest_error
    of_tensor, levels_used = _of_tensor(columns, ordered, schemes, cuts)
    for index, (largest, count) in of_tensor.items():
        largest_error[index], zeroed[index] = largest, count - (weight_count - int(nonzero.sum()))
    # No weight moves further than to zero, and a channel of zeros has lost exactly its energy; the
    # sums above know that to six digits only.
    squared_error = np.where(
        rounded.squared_error > energy * (1 - SUMMED_SHARE), energy, rounded.squared_error
    )
    channel_sqnr = _channel_sqnr(energy, squared_error)
    summaries = dict(zip(names, summarize_rows(channel_sqnr, columns.is_dead), strict=True))

    bits_needed: dict[Granularity, int | None] = {}
    if plan.is_full:
        if summaries[INT8_TENSOR_SYMMETRIC.name].p10_db < FINE_DB:
            curves += _channel_clipping(columns, ordered, energy)
        bits_needed = _bits_needed(columns, energy, plan.schemes, summaries, channel_sqnr)
        if inputs is not None:
            bits_needed = {
                granularity: _enough_for_inputs(inputs, granularity, bits)
                for granularity, bits in bits_needed.items()
            }
    return Sweep(
        names=names,
        weight_count=weight_count,
        energy=energy,
        nonzero_count=nonzero,
        squared_error=squared_error,
        zeroed_count=zeroed,
        channel_zeroed_count=channel_zeroed,
        max_abs_error=largest_error if weight_count else np.full(len(names), np.nan),
        levels_used=levels_used,
        summaries=summaries,
        channel_sqnr_db=channel_sqnr,
        clipping=tuple(curves),
        bits_needed=bits_needed,
    )


def channel_p10_db(
    columns: Columns,
    energy: Doubles,
    schemes: Sequence[Scheme],
    is_dead: npt.NDArray[np.bool_] | None = None,
) -> list[float]:
    """SQNR in dB that nine in ten channels reach under each scheme, and nothing else.

    Args:
        is_dead: of each channel, where others are dead than these weights say.
    """
    squares = round_columns(columns, schemes, squares_only=True).squared_error
    dead = columns.is_dead if is_dead is None else is_dead
    return [summary.p10_db for summary in summarize_rows(_channel_sqnr(energy, squares), dead)]


def _enough_for_inputs(
    inputs: InputChannels, granularity: Granularity, bits: int | None
) -> int | None:
    """As many bits as leave three in four input channels above 10 dB, too."""
    while bits is not None and not inputs.survive(Scheme("", bits, granularity, is_symmetric=True)):
        bits = bits + 1 if bits < MOST_BITS else None
    return bits


def _of_tensor(
    columns: Columns, ordered: Floats, schemes: list[Scheme], cuts: Doubles
) -> tuple[dict[int, tuple[float, int]], dict[str, int]]:
    """Of each tensor scheme, by its place, the largest error and how many weights become 0.

    And, by its name, how many levels are used.
    """
    indices = [index for index, scheme in enumerate(schemes) if scheme.is_per_tensor]
    indices.sort(key=lambda index: schemes[index].number)
    if not indices:
        return {}, {}
    tensor_schemes = [schemes[index] for index in indices]
    low, high = columns.low.min(keepdims=True), columns.high.max(keepdims=True)
    scale, zero_point = scales_of(low, high, tensor_schemes, cuts[indices])
    errors = tensor_errors(ordered, tensor_schemes, scale[:, 0], zero_point[:, 0])
    figures = zip(errors.largest_error.tolist(), errors.zeroed_count.tolist(), strict=True)
    names = (scheme.name for scheme in tensor_schemes)
    return (
        dict(zip(indices, figures, strict=True)),
        dict(zip(names, errors.levels_used.tolist(), strict=True)),
    )


def _channel_clipping(columns: Columns, ordered: Floats, energy: Doubles) -> list[ClippingCurve]:
    """What clipping the shared int8 range does to the channels: p10 and median of their SQNR."""
    largest = abs_max(ordered)
    if largest == 0:
        return []
    scheme = SCHEMES["int8_tensor_symmetric_mse"]
    rounded = round_columns(
        columns,
        [scheme] * len(CHANNEL_THRESHOLDS),
        CHANNEL_THRESHOLDS * largest,
        squares_only=True,
    )
    summaries = summarize_rows(_channel_sqnr(energy, rounded.squared_error), columns.is_dead)
    return [
        curve(8, name, CHANNEL_THRESHOLDS, values, int(np.argmax(values)))
        for name, values in (
            ("channel_p10", np.array([summary.p10_db for summary in summaries])),
            ("channel_median", np.array([summary.median_db for summary in summaries])),
        )
    ]


def _bits_needed(
    columns: Columns,
    energy: Doubles,
    schemes: Mapping[str, Scheme],
    summaries: Mapping[str, ChannelSummary],
    channel_sqnr: Doubles,
) -> dict[Granularity, int | None]:
    """The fewest bits with which nine in ten channels reach 30 dB; None where 16 are not enough.

    A bit is worth 6.02 dB, so the answer lies next to a guess from 8 bits. Each round tries what
    every granularity still needs, in one pass, unless it can be told without trying.

    Args:
        channel_sqnr: in dB, of every scheme and channel.
    """
    p10_by_bits: dict[Granularity, dict[int, float]] = {"tensor": {}, "channel": {}, "block": {}}
    measured: dict[Granularity, dict[int, Doubles]] = {"tensor": {}, "channel": {}, "block": {}}
    for (name, scheme), of_channels in zip(schemes.items(), channel_sqnr, strict=True):
        if scheme.number == "int" and scheme.is_symmetric and scheme.clip == "minmax":
            p10_by_bits[scheme.granularity][scheme.bits] = summaries[name].p10_db
            measured[scheme.granularity][scheme.bits] = of_channels
    searches = {granularity: _BitSearch(p10_db) for granularity, p10_db in p10_by_bits.items()}
    margin_db = NOISE_MARGIN_DB / math.sqrt(columns.size)
    # A pass over a small layer takes no longer than predicting what it would find.
    is_predictable = (
        columns.weights.size >= SOME_WEIGHTS
        and margin_db < MOST_MARGIN_DB
        and are_distinct(columns.weights)
    )
    while not all(search.is_over for search in searches.values()):
        trials = []
        for granularity, search in searches.items():
            for bits in search.trials():
                least_db, most_db = -math.inf, math.inf
                if is_predictable:
                    least_db, most_db = predicted_p10_db(
                        measured[granularity], bits, margin_db, columns.is_dead
                    )
                if least_db >= FINE_DB or most_db < FINE_DB:
                    search.learn(bits, least_db)
                else:
                    trials.append((search, Scheme("trial", bits, granularity, is_symmetric=True)))
        p10 = channel_p10_db(columns, energy, [scheme for _, scheme in trials]) if trials else ()
        for (search, scheme), p10_db in zip(trials, p10, strict=True):
            search.learn(scheme.bits, p10_db)
    return {granularity: search.answer for granularity, search in searches.items()}


def predicted_p10_db(
    measured: Mapping[int, Doubles], bits: int, margin_db: float, is_dead: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    """What nine in ten channels reach at least, and what at most, in dB.

    Rounding noise is spread evenly over a step, so that it shrinks with the square of the step. How
    far that is off between 8 and 4 bits, which are measured, is how far it may be off elsewhere.

    Args:
        measured: SQNR of each channel in dB, by the number of bits.
        margin_db: how far chance may carry the noise of so many weights.
    """
    with np.errstate(invalid="ignore"):
        off = margin_db + np.abs(measured[4] - measured[8] - _finer_db(8, 4))
    # A channel that comes back exactly says nothing about noise.
    is_exact = np.isinf(measured[4]) | np.isinf(measured[8])
    predicted = np.where(is_exact, FINE_DB, measured[8] + _finer_db(8, bits))
    off[is_exact] = _UNKNOWN_DB
    least, most = summarize_rows(np.stack([predicted - off, predicted + off]), is_dead)
    return least.p10_db, most.p10_db


def _finer_db(bits: int, other_bits: int) -> float:
    """How much less noise a symmetric grid has with other bits, in dB."""
    step, other_step = (1 / ((1 << (number - 1)) - 1) for number in (bits, other_bits))
    return 20 * math.log10(step / other_step)


def are_distinct(weights: Floats) -> bool:
    """Whether weights are as good as continuous: on a grid, noise is not what chance makes it."""
    some = weights[:: max(1, len(weights) // 2)]
    return all(2 * np.unique(row).size > row.size for row in some)


class _BitSearch:
    """Bisection that starts at a guess: ``too_few`` bits, and bits that are ``enough``."""

    def __init__(self, p10_db: Mapping[int, float]) -> None:
        self.too_few, self.enough = FEWEST_BITS - 1, MOST_BITS + 1
        for bits in sorted(p10_db, reverse=True):
            self.learn(bits, p10_db[bits])
        guess = FEWEST_BITS
        if math.isfinite(p10_db[8]):
            guess = 8 + math.ceil((FINE_DB - p10_db[8]) / DB_PER_BIT)
        # Both sides of the guess at once, which mostly settles it.
        self._next = [guess, guess - 1]

    def learn(self, bits: int, p10_db: float) -> None:
        # NaN, where every channel is zero, is no reason for more bits.
        if not self.too_few < bits < self.enough:
            return
        if p10_db < FINE_DB:
            self.too_few = bits
        else:
            self.enough = bits

    def trials(self) -> list[int]:
        """The numbers of bits to try next; none where the answer is known."""
        if self.is_over:
            return []
        open_ = [bits for bits in self._next if self.too_few < bits < self.enough]
        self._next = []
        return open_ or [(self.too_few + self.enough) // 2]

    @property
    def is_over(self) -> bool:
        return self.enough - self.too_few <= 1

    @property
    def answer(self) -> int | None:
        return self.enough if self.enough <= MOST_BITS else None


def _channel_sqnr(energy: Doubles, squared_error: Doubles) -> Doubles:
    return np.where(energy > 0, sqnr_db(energy, squared_error), np.nan)
