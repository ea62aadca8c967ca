"""The errors of many schemes at once: the same figures as ``quantization``, several times faster.

The plain definition walks over the weights once or twice per step. Here they are laid out once as
columns of 32 consecutive weights of one output channel, in pieces that stay in a core's cache, and
every scheme is one short run of operations over each piece:

    t = x / s,  r = round(t),  e = r - t,  sum e^2 per column, times s^2

A column never crosses a channel, so that one layout serves scales per tensor, per channel and per
block of 32. A min-max grid needs no clipping but in rare ties, which are found by their extremes
and done again by the definition; so are columns whose error is nothing but the rounding of ``t``.

What a single scale for a whole tensor costs follows from its sorted weights and running sums: the
weights that fall to level c form one run [i, j), and their squared error is
S2 - 2 c S1 + (j - i) c^2. That makes a hundred clipping thresholds cheap.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantstore.quantization import (
    LARGEST_WEIGHT,
    SMALLEST_SCALE,
    ChannelSummary,
    Doubles,
    Floats,
    RoundTripError,
    float8_rounding,
    scale_and_zero_point,
    sqnr_db,
    summarize_channels,
    summarize_rows,
)
from quantstore.schemes import BLOCK_SIZE, SCHEMES, Granularity, Scheme

# Weights in a piece: it and two buffers of its size fit into a core's second cache.
PIECE_WEIGHTS = 1 << 16

# Beyond so many weights running sums are kept in strides, and codes in use are looked for only
# where codes change.
MANY_WEIGHTS = 1 << 16
# Up to so many it is quicker to try every grid on every weight.
FEW_WEIGHTS = 1 << 11
SUM_STRIDE = 16

# Below the smallest normal float32 a sum of squares has lost digits.
SMALLEST_SQUARE = float(np.finfo(np.float32).tiny)

# Clipping thresholds as shares of the largest absolute weight.
THRESHOLDS: Doubles = np.geomspace(0.01, 1.0, 100)
# The channels' view of clipping needs a pass over all weights for each threshold.
CHANNEL_THRESHOLDS: Doubles = np.geomspace(0.02, 1.0, 14)
CLIPPING_BITS = (8, 4)

# A layer is fine from here on (provisional, like the bands).
FINE_DB = 30.0
DB_PER_BIT = 20 * math.log10(2)
FEWEST_BITS, MOST_BITS = 2, 16

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ClippingCurve:
    """SQNR in dB against the clipping threshold, a share of the largest absolute weight.

    ``measure`` is ``tensor``, ``channel_p10`` or ``channel_median``.
    """

    bits: int
    measure: str
    thresholds: Doubles
    sqnr_db: Doubles
    best_threshold: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """Everything rounding does to one layer.

    ``bits_needed`` maps a granularity to the fewest bits (2 to 16, symmetric) with which nine in
    ten channels reach 30 dB; None where 16 are not enough.
    """

    errors: dict[str, RoundTripError]
    summaries: dict[str, ChannelSummary]
    clipping: tuple[ClippingCurve, ...]
    bits_needed: dict[Granularity, int | None]


@dataclass(frozen=True, slots=True)
class _Columns:
    """A layer as columns of consecutive weights of one channel, short ones filled up with zeros.

    ``values`` is ``(size, columns)``; channel c owns ``each`` columns from ``c * each`` on. ``low``
    and ``high`` are the extremes of each column, ``is_zero`` counts its zeros, padding included.
    """

    values: Floats
    each: int
    low: Floats
    high: Floats
    is_zero: npt.NDArray[np.uint8]

    @property
    def count(self) -> int:
        return len(self.low)

    def of_channels(self, per_channel: Floats) -> Floats:
        """One figure per channel, repeated for each of its columns."""
        return np.repeat(per_channel, self.each)

    def channel_sums(self, per_column: npt.NDArray[np.generic]) -> Doubles:
        sums: Doubles = per_column.reshape(-1, self.each).sum(axis=1, dtype=np.float64)
        return sums

    def pieces(self) -> Iterator[slice]:
        width = max(1, PIECE_WEIGHTS // max(1, self.values.shape[0]))
        for start in range(0, self.count, width):
            yield slice(start, min(start + width, self.count))


@dataclass(frozen=True, slots=True)
class _Steps:
    """The scale of each column (one for all where the tensor shares it), and the zero point."""

    scale: Floats
    zero_point: Floats
    scheme: Scheme

    def of(self, piece: slice | Bools) -> "_Steps":
        if self.scale.size == 1:
            return self
        return _Steps(self.scale[piece], self.zero_point[piece], self.scheme)


def sweep(weights: Floats, ordered: Floats, energy: Doubles) -> Sweep:
    """Measure one layer under every scheme, with clipping curves and bits needed.

    Args:
        weights: ``(channels, weights per channel)``; NaN and infinities are left out.
        ordered: all finite weights, ascending.
        energy: ``(channels,)``, sum of squared weights of each channel.
    """
    finite = np.isfinite(weights)
    weight_count = int(ordered.size)
    # Zeros add nothing to any sum, and zero is a code of every grid.
    clean = weights if weight_count == weights.size else np.where(finite, weights, np.float32(0))
    columns = _lay_out(clean)
    ranges = _ranges(columns)
    padding = columns.values.size - clean.size
    zeros = columns.channel_sums(columns.is_zero)
    nonzero = clean.shape[1] + padding // max(1, clean.shape[0]) - zeros

    curves, best = _tensor_clipping(ordered, float(energy.sum()))
    errors: dict[str, RoundTripError] = {}
    steps = {
        name: _steps(scheme, columns, ranges, best.get((scheme.bits, scheme.is_symmetric)))
        for name, scheme in SCHEMES.items()
    }
    measured = _measure(columns, list(steps.values()))
    for (name, scheme), (squared, zeroed, largest) in zip(SCHEMES.items(), measured, strict=True):
        zeroed_count = columns.channel_sums(zeroed) - zeros
        # No weight moves further than to zero, and a channel of zeros has lost exactly its energy;
        # the sums above know that to seven digits only.
        squared_error = np.minimum(columns.channel_sums(squared), energy)
        errors[name] = RoundTripError(
            energy=energy,
            squared_error=np.where(zeroed_count == nonzero, energy, squared_error),
            nonzero_count=nonzero.astype(np.int64),
            zeroed_count=zeroed_count.astype(np.int64),
            weight_count=weight_count,
            max_abs_error=float(largest.max(initial=0)) if weight_count else np.nan,
            levels_used=_levels_used(ordered, steps[name])
            if scheme.granularity == "tensor"
            else None,
        )

    summaries = summarize_schemes(errors)
    p10 = {
        granularity: summaries[f"int8_{name}_symmetric"].p10_db
        for granularity, name in _BIT_SCHEMES.items()
    }
    if not p10["tensor"] >= FINE_DB and weight_count:
        curves += _channel_clipping(columns, ordered, energy)
    bits_needed = {
        granularity: _bits_needed(columns, granularity, ranges, energy, p10[granularity])
        for granularity in _BIT_SCHEMES
    }
    return Sweep(errors, summaries, tuple(curves), bits_needed)


def summarize_schemes(errors: dict[str, RoundTripError]) -> dict[str, ChannelSummary]:
    """The channels' SQNR under each scheme, summarized."""
    energy = next(iter(errors.values())).energy
    squared = np.stack([error.squared_error for error in errors.values()])
    summaries = summarize_rows(_channel_sqnr(energy, squared))
    return dict(zip(errors, summaries, strict=True))


_BIT_SCHEMES: dict[Granularity, str] = {
    "tensor": "tensor",
    "channel": "channel",
    "block": f"block{BLOCK_SIZE}",
}


def _lay_out(weights: Floats) -> _Columns:
    """Transpose once: afterwards a scale per column is a plain row, and every loop is long."""
    channels, size = weights.shape
    height = min(BLOCK_SIZE, size)
    each = -(-size // height)
    values = np.zeros((height, channels * each), dtype=np.float32)
    target = values.reshape(height, channels, each)
    whole = size // height
    target[:, :, :whole] = (
        weights[:, : whole * height].reshape(channels, whole, height).transpose(2, 0, 1)
    )
    if whole < each:
        rest = weights[:, whole * height :]
        target[: rest.shape[1], :, whole] = rest.T
    is_zero = np.add.reduce((values == 0).view(np.uint8), axis=0, dtype=np.uint8)
    return _Columns(values, each, values.min(axis=0), values.max(axis=0), is_zero)


_Ranges = dict[Granularity, tuple[Doubles, Doubles]]


def _ranges(columns: _Columns) -> _Ranges:
    """Lowest and highest weight, widened to include 0, of whoever shares a scale."""
    low = np.minimum(columns.low, 0).astype(np.float64)
    high = np.maximum(columns.high, 0).astype(np.float64)
    return {
        "tensor": (low.min(keepdims=True), high.max(keepdims=True)),
        "channel": (
            low.reshape(-1, columns.each).min(axis=1),
            high.reshape(-1, columns.each).max(axis=1),
        ),
        "block": (low, high),
    }


def _steps(scheme: Scheme, columns: _Columns, ranges: _Ranges, threshold: float | None) -> _Steps:
    """The grid of every column, by the rules of ``quantization.grid_for``."""
    low, high = ranges[scheme.granularity]
    if scheme.clip == "mse" and threshold is not None:
        low, high = np.maximum(low, -threshold), np.minimum(high, threshold)
    scale, zero_point = scale_and_zero_point(low, high, scheme)
    if scheme.granularity == "channel":
        scale, zero_point = columns.of_channels(scale), columns.of_channels(zero_point)
    return _Steps(scale, zero_point, scheme)


def _measure(
    columns: _Columns, steps: list[_Steps]
) -> list[tuple[Doubles, npt.NDArray[np.uint8], Doubles]]:
    """Squared error, weights that become 0 and largest error of each column, for each scheme."""
    height, count = columns.values.shape
    squared = np.empty((len(steps), count), dtype=np.float32)
    zeroed = np.empty((len(steps), count), dtype=np.uint8)
    largest = np.empty((len(steps), count), dtype=np.float32)
    width = min(count, max(1, PIECE_WEIGHTS // max(1, height)))
    buffers = _Buffers(height, width)
    for piece in columns.pieces():
        values = columns.values[:, piece]
        wide = buffers.of(piece.stop - piece.start)
        for number, step in enumerate(steps):
            own = step.of(piece)
            error = _code_error(values, own, wide, zeroed[number, piece])
            np.einsum("ij,ij->j", error, error, out=squared[number, piece])
            # The largest |e| without a pass for the absolute values.
            np.maximum.reduce(error, axis=0, out=largest[number, piece])
            np.maximum(
                largest[number, piece],
                -np.minimum.reduce(error, axis=0),
                out=largest[number, piece],
            )
    found = []
    for number, step in enumerate(steps):
        scale = step.scale.astype(np.float64)
        in_codes = largest[number]
        squares = squared[number] * scale**2
        reach = in_codes * scale
        again = _done_again(columns, step, in_codes)
        if again.any():
            squares[again], reach[again], zeroed[number, again] = _by_definition(
                columns.values[:, again], step.of(again)
            )
        found.append((squares, zeroed[number], reach))
    return found


class _Buffers:
    """Room for one piece: two arrays of floats (one also seen as integers), one of truths."""

    def __init__(self, height: int, width: int) -> None:
        self.ratio = np.empty((height, width), dtype=np.float32)
        self.level = np.empty((height, width), dtype=np.float32)
        self.truth = np.empty((height, width), dtype=np.bool_)

    def of(self, width: int) -> "_Buffers":
        """Views of the first columns; contiguous rows matter less than one allocation."""
        if width == self.ratio.shape[1]:
            return self
        part = object.__new__(_Buffers)
        height = self.ratio.shape[0]
        size = height * width
        part.ratio = self.ratio.reshape(-1)[:size].reshape(height, width)
        part.level = self.level.reshape(-1)[:size].reshape(height, width)
        part.truth = self.truth.reshape(-1)[:size].reshape(height, width)
        return part


def _code_error(
    values: Floats, steps: _Steps, buffers: _Buffers, zeroed: npt.NDArray[np.uint8] | None
) -> Floats:
    """``round(x / s) - x / s`` in the buffer for levels; counts the zeros of each column."""
    scheme = steps.scheme
    ratio, level = buffers.ratio, buffers.level
    scale = steps.scale if steps.scale.size > 1 else steps.scale[0]
    np.divide(values, scale, out=ratio)
    if scheme.number == "int":
        np.rint(ratio, out=level)
        if scheme.clip == "mse":
            zero_point = steps.zero_point[0]
            np.clip(level, scheme.qmin - zero_point, scheme.qmax - zero_point, out=level)
    else:
        float8_rounding(ratio, scheme.number, out=level)
    if zeroed is not None:
        np.equal(level, 0, out=buffers.truth)
        np.add.reduce(buffers.truth.view(np.uint8), axis=0, dtype=np.uint8, out=zeroed)
    np.subtract(level, ratio, out=level)
    return level


def _done_again(columns: _Columns, steps: _Steps, in_codes: Floats) -> Bools:
    """Columns for which the short form does not hold.

    Where the error in codes is no larger than the rounding of x / s, the weights may lie on the
    grid exactly. Where both ends of an asymmetric range lie half between two codes, one of them
    must be clipped. At the end of float32 a level may overflow.
    """
    scheme = steps.scheme
    has_weights = (columns.low < 0) | (columns.high > 0)
    again: Bools = has_weights & (in_codes <= scheme.qmax * 2.0**-21)
    if scheme.number != "int":
        # The step of a float grid grows with the value; only exact columns are in doubt.
        return again
    if not scheme.is_symmetric and scheme.clip == "minmax":
        with np.errstate(over="ignore"):
            lowest = np.rint(columns.low / steps.scale) + steps.zero_point
            highest = np.rint(columns.high / steps.scale) + steps.zero_point
        again |= (lowest < scheme.qmin) | (highest > scheme.qmax)
    span = steps.scale.astype(np.float64) * (scheme.qmax - scheme.qmin)
    return again | (span > LARGEST_WEIGHT / 2)


def _by_definition(values: Floats, steps: _Steps) -> tuple[Doubles, Doubles, npt.NDArray[np.uint8]]:
    """Squared error, largest error and zeros of columns, as ``quantization`` defines them."""
    scheme = steps.scheme
    with np.errstate(over="ignore"):
        ratio = values / steps.scale
        if scheme.number == "int":
            codes = np.clip(np.rint(ratio) + steps.zero_point, scheme.qmin, scheme.qmax)
            returned = (codes - steps.zero_point) * steps.scale
        else:
            returned = float8_rounding(ratio, scheme.number) * steps.scale
    np.clip(returned, -LARGEST_WEIGHT, LARGEST_WEIGHT, out=returned)
    zeros = np.count_nonzero(returned == 0, axis=0).astype(np.uint8)
    error = (returned - values).astype(np.float64)
    return np.einsum("ij,ij->j", error, error), np.abs(error).max(axis=0), zeros


def _levels_used(ordered: Floats, steps: _Steps) -> int:
    """Distinct codes in use under one scale: changes of code along the sorted weights."""
    if ordered.size == 0:
        return 0
    scheme = steps.scheme
    if scheme.number == "int" and ordered.size > MANY_WEIGHTS:
        zero_point = float(steps.zero_point[0])
        between = np.arange(scheme.qmin, scheme.qmax) + 0.5 - zero_point
        # Weights near a boundary are few; the definition decides on them.
        edges = np.searchsorted(ordered, (between * float(steps.scale[0])).astype(np.float32))
        around = np.unique(np.clip(edges[:, None] + np.arange(-2, 3), 0, ordered.size - 1))
        sample = ordered[np.union1d(around, [0, ordered.size - 1])]
    else:
        sample = ordered
    ratio = sample / steps.scale[0]
    if scheme.number == "int":
        levels = np.clip(np.rint(ratio) + steps.zero_point[0], scheme.qmin, scheme.qmax)
    else:
        levels = float8_rounding(ratio, scheme.number)
    return 1 + int(np.count_nonzero(levels[1:] != levels[:-1]))


class _RunningSums:
    """Sums of sorted weights and of their squares up to any position, in float64.

    Of many weights every 16th sum is kept, and what lies between is added when it is asked for:
    all of them would cost more to allocate than everything else here takes.
    """

    def __init__(self, ordered: Floats) -> None:
        self.ordered = ordered
        self.stride = 1 if ordered.size <= MANY_WEIGHTS else SUM_STRIDE
        first, second = [np.zeros(1)], [np.zeros(1)]
        for start in range(0, ordered.size, PIECE_WEIGHTS):
            wide = ordered[start : start + PIECE_WEIGHTS].astype(np.float64)
            starts = np.arange(0, wide.size, self.stride)
            first.append(np.add.reduceat(wide, starts))
            np.square(wide, out=wide)
            second.append(np.add.reduceat(wide, starts))
        self.first = np.cumsum(np.concatenate(first))
        self.second = np.cumsum(np.concatenate(second))

    def up_to(self, index: npt.NDArray[np.int64]) -> tuple[Doubles, Doubles]:
        """Sum of the weights, and of their squares, below each position."""
        if self.stride == 1:
            return self.first[index], self.second[index]
        block = index // SUM_STRIDE
        places = (block * SUM_STRIDE)[..., np.newaxis] + np.arange(SUM_STRIDE)
        rest = self.ordered[np.minimum(places, self.ordered.size - 1)].astype(np.float64)
        rest[places >= index[..., np.newaxis]] = 0
        return (
            self.first[block] + rest.sum(axis=-1),
            self.second[block] + np.einsum("...i,...i->...", rest, rest),
        )

    def squared_error(self, scales: Doubles, lowest: Doubles, steps: int) -> Doubles:
        """Squared error of grids; arguments as for :class:`_GridErrors`."""
        codes = lowest[:, None] + np.arange(steps + 1)
        between = ((codes[:, :-1] + 0.5) * scales[:, None]).astype(np.float32)
        inner = np.searchsorted(self.ordered, between)
        ends = np.empty((len(scales), steps + 2), dtype=np.int64)
        ends[:, 0], ends[:, 1:-1], ends[:, -1] = 0, inner, self.ordered.size
        first, second = self.up_to(ends)
        level = codes * scales[:, None]
        runs = np.diff(ends, axis=1)
        squares = np.diff(second, axis=1) - 2 * level * np.diff(first, axis=1) + runs * level**2
        # Runs of equal weights cancel to a negative nothing.
        total: Doubles = np.maximum(squares, 0).sum(axis=1)
        return total


def _tensor_clipping(
    ordered: Floats, energy: float
) -> tuple[list[ClippingCurve], dict[tuple[int, bool], float]]:
    """SQNR of the whole tensor against the clipping threshold, and the best thresholds.

    Returns:
        The curves of the symmetric grids, and for (bits, is_symmetric) the threshold in weight
        units where the squared error is least.
    """
    abs_max = _abs_max(ordered)
    if abs_max == 0:
        return [], {}
    low, high = min(0.0, float(ordered[0])), max(0.0, float(ordered[-1]))
    cuts = THRESHOLDS * abs_max
    squared_error = _GridErrors(ordered)
    curves, best = [], {}
    for bits in CLIPPING_BITS:
        top = (1 << (bits - 1)) - 1
        squares = squared_error(_as_stored(cuts / top), np.full(len(cuts), -top), 2 * top)
        place = int(np.argmin(squares))
        best[bits, True] = float(cuts[place])
        curve = sqnr_db(energy, squares)
        curves.append(_curve(bits, "tensor", THRESHOLDS, curve, place))

        most = (1 << bits) - 1
        lows, highs = np.maximum(low, -cuts), np.minimum(high, cuts)
        exact = (highs - lows) / most
        scales = _as_stored(exact)
        # A range clipped on both sides ends half between two codes: only the scale that the grid
        # itself divides by says which.
        lowest = np.rint(lows / np.where(exact < SMALLEST_SCALE, 1, exact))
        best[bits, False] = float(cuts[_least(squared_error, scales, lowest, most)])
    return curves, best


def _least(squared_error: "_GridErrors", scales: Doubles, lowest: Doubles, steps: int) -> int:
    """The threshold with the least squared error.

    Among many weights the error hardly ripples: the neighbourhood of the best of every fourth
    threshold is searched, which is the best of all but where two valleys are almost as deep.
    """
    places = np.arange(len(scales))
    if squared_error.ordered.size > FEW_WEIGHTS:
        coarse = np.append(places[::4], places[-1])
        around = int(coarse[np.argmin(squared_error(scales[coarse], lowest[coarse], steps))])
        places = places[max(0, around - 3) : around + 4]
    return int(places[np.argmin(squared_error(scales[places], lowest[places], steps))])


class _GridErrors:
    """The squared error of a tensor on many grids: directly for few weights, else by sums."""

    def __init__(self, ordered: Floats) -> None:
        self.ordered = ordered
        self.sums = _RunningSums(ordered) if ordered.size > FEW_WEIGHTS else None

    def __call__(self, scales: Doubles, lowest: Doubles, steps: int) -> Doubles:
        """Squared error of each grid.

        Args:
            scales: distance between neighbouring levels, one per grid.
            lowest: the lowest level of each grid, in scales; a whole number.
            steps: how many scales the highest level lies above the lowest.
        """
        if self.sums is not None:
            return self.sums.squared_error(scales, lowest, steps)
        column = scales[:, np.newaxis]
        ratio = self.ordered / column.astype(np.float32)
        levels = np.clip(np.rint(ratio), lowest[:, None], lowest[:, None] + steps)
        error = (levels - ratio).astype(np.float64) * column
        total: Doubles = np.einsum("ij,ij->i", error, error)
        return total


def _channel_clipping(columns: _Columns, ordered: Floats, energy: Doubles) -> list[ClippingCurve]:
    """What clipping the shared int8 range does to the channels: p10 and median of their SQNR."""
    abs_max = _abs_max(ordered)
    if abs_max == 0:
        return []
    p10, median = np.empty(len(CHANNEL_THRESHOLDS)), np.empty(len(CHANNEL_THRESHOLDS))
    scheme = SCHEMES["int8_tensor_symmetric_mse"]
    steps = [
        _Steps(
            _as_stored(np.array([cut * abs_max / scheme.qmax])).astype(np.float32),
            np.zeros(1, dtype=np.float32),
            scheme,
        )
        for cut in CHANNEL_THRESHOLDS
    ]
    for place, squared in enumerate(_squared_errors(columns, steps)):
        summary = summarize_channels(_channel_sqnr(energy, columns.channel_sums(squared)))
        p10[place], median[place] = summary.p10_db, summary.median_db
    return [
        _curve(8, name, CHANNEL_THRESHOLDS, values, int(np.argmax(values)))
        for name, values in (("channel_p10", p10), ("channel_median", median))
    ]


def _squared_errors(columns: _Columns, steps: list[_Steps]) -> list[Doubles]:
    """The squared error of each column alone, for what needs nothing else."""
    height, count = columns.values.shape
    squared = np.empty((len(steps), count), dtype=np.float32)
    buffers = _Buffers(height, min(count, max(1, PIECE_WEIGHTS // max(1, height))))
    for piece in columns.pieces():
        values = columns.values[:, piece]
        wide = buffers.of(piece.stop - piece.start)
        for number, step in enumerate(steps):
            error = _code_error(values, step.of(piece), wide, None)
            np.einsum("ij,ij->j", error, error, out=squared[number, piece])
    found = []
    has_weights = (columns.low < 0) | (columns.high > 0)
    for squares, step in zip(squared, steps, strict=True):
        wide_squares = squares * step.scale.astype(np.float64) ** 2
        # Either exact, or so far below one step that float32 has no room for the square.
        again = has_weights & (squares < SMALLEST_SQUARE)
        if again.any():
            wide_squares[again] = _by_definition(columns.values[:, again], step.of(again))[0]
        found.append(wide_squares)
    return found


def _bits_needed(
    columns: _Columns,
    granularity: Granularity,
    ranges: _Ranges,
    energy: Doubles,
    p10_at_8_bits: float,
) -> int | None:
    """The fewest bits with which nine in ten channels reach 30 dB; None where 16 are not enough.

    A bit is worth 6.02 dB, so the answer lies next to a guess; the search widens from there.
    """

    def is_enough(bits: int) -> bool:
        if bits == 8:
            return not p10_at_8_bits < FINE_DB
        scheme = Scheme("trial", bits, granularity, is_symmetric=True)
        steps = _steps(scheme, columns, ranges, None)
        (squared,) = _squared_errors(columns, [steps])
        summary = summarize_channels(_channel_sqnr(energy, columns.channel_sums(squared)))
        return not summary.p10_db < FINE_DB

    if not math.isfinite(p10_at_8_bits):
        guess = FEWEST_BITS
    else:
        guess = 8 + math.ceil((FINE_DB - p10_at_8_bits) / DB_PER_BIT)
    enough, too_few = MOST_BITS + 1, FEWEST_BITS - 1
    trial, reach = min(max(guess, FEWEST_BITS), MOST_BITS), 1
    while enough - too_few > 1:
        if is_enough(trial):
            enough = trial
            trial = max(trial - reach, too_few + 1)
        else:
            too_few = trial
            trial = min(trial + reach, enough - 1)
        # A neighbour at first, then bisection of what is left.
        reach = max(1, (enough - too_few) // 2)
    return enough if enough <= MOST_BITS else None


def _channel_sqnr(energy: Doubles, squared_error: Doubles) -> Doubles:
    return np.where(energy > 0, sqnr_db(energy, squared_error), np.nan)


def _curve(
    bits: int, measure: str, thresholds: Doubles, values: Doubles, best: int
) -> ClippingCurve:
    return ClippingCurve(bits, measure, thresholds, values, float(thresholds[best]))


def _as_stored(scales: Doubles) -> Doubles:
    """Scales as float32 holds them; below its smallest normal number they become 1."""
    stored: Doubles = np.where(scales < SMALLEST_SCALE, 1, scales).astype(np.float32).astype(float)
    return stored


def _abs_max(ordered: Floats) -> float:
    return float(max(-ordered[0], ordered[-1])) if ordered.size else 0.0
