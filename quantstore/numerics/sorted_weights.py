"""What one scale for a whole tensor does, read off the sorted weights without touching them all.

The weights that fall to level c form one run [i, j) of the sorted weights, and their squared error
is S2 - 2 c S1 + (j - i) c^2 with S1 and S2 the sums of x and x^2 over the run. Searching the
boundaries between levels costs less than a pass over the weights, which makes a hundred clipping
thresholds cheap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from quantstore.numerics.quantization import SMALLEST_SCALE, float8_rounding, float8_values, sqnr_db
from quantstore.records import Counts, Doubles, Floats
from quantstore.schemes import Format, Scheme

# Clipping thresholds as shares of the largest absolute weight.
THRESHOLDS: Doubles = np.geomspace(0.01, 1.0, 100)
CLIPPING_BITS = (8, 4)

# Up to so many weights it is quicker to try every grid on every weight.
FEW_WEIGHTS = 1 << 11
# Beyond so many weights running sums are kept in strides.
MANY_WEIGHTS = 1 << 16
SUM_STRIDE = 8
_PIECE_WEIGHTS = 1 << 16


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


def curve(
    bits: int, measure: str, thresholds: Doubles, values: Doubles, best: int
) -> ClippingCurve:
    """A curve with its optimum at position ``best``."""
    return ClippingCurve(bits, measure, thresholds, values, float(thresholds[best]))


def abs_max(ordered: Floats) -> float:
    """The largest absolute weight of sorted weights; 0 where there is none."""
    return float(max(-ordered[0], ordered[-1])) if ordered.size else 0.0


def as_stored(scales: Doubles) -> Doubles:
    """Scales as float32 holds them; below its smallest normal number they become 1."""
    stored: Doubles = np.where(scales < SMALLEST_SCALE, 1, scales).astype(np.float32).astype(float)
    return stored


# --- levels in use -----------------------------------------------------------------------------


def levels_used(
    ordered: Floats, schemes: Sequence[Scheme], scale: Floats, zero_point: Floats
) -> Counts:
    """How many codes of each scheme at least one weight falls to.

    Args:
        ordered: all finite weights, ascending.
        schemes: with one scale for the tensor.
        scale, zero_point: of each scheme, ``(schemes,)``.
    """
    if ordered.size == 0 or not schemes:
        return np.zeros(len(schemes), dtype=np.int64)
    ladders = _ladders(tuple(schemes))
    counts_up_to = np.empty(ladders.row.size, dtype=np.int64)
    for number, span in ladders.slices.items():
        row = ladders.row[span]
        # Integer levels are counted from zero; a float format's zero point is 0.
        shift = zero_point[row]
        level, between = ladders.level[span] - shift, ladders.between[span] - shift
        counts_up_to[span] = np.searchsorted(
            ordered, _first_above(level, between, scale[row], number)
        )
    before = np.empty_like(counts_up_to)
    before[1:] = counts_up_to[:-1]
    before[ladders.starts] = 0
    last = np.append(ladders.starts[1:], counts_up_to.size) - 1
    used: Counts = np.add.reduceat((counts_up_to > before).astype(np.int64), ladders.starts)
    used += counts_up_to[last] < ordered.size
    return used


@dataclass(frozen=True, slots=True)
class _Ladders:
    """Every level but the highest of several schemes, one after the other.

    ``between`` lies halfway to the next level; ``row`` is the scheme's place, ``starts`` where it
    begins, ``slices`` where the schemes of one number format lie.
    """

    level: Doubles
    between: Doubles
    row: Counts
    starts: Counts
    slices: Mapping[Format, slice]


@cache
def _ladders(schemes: tuple[Scheme, ...]) -> _Ladders:
    levels, between, starts = [], [], []
    slices: dict[Format, slice] = {}
    start = 0
    for scheme in schemes:
        values = (
            np.arange(scheme.qmin, scheme.qmax + 1.0)
            if scheme.number == "int"
            else float8_values(scheme.number)
        )
        levels.append(values[:-1])
        between.append((values[:-1] + values[1:]) / 2)
        starts.append(start)
        first = slices[scheme.number].start if scheme.number in slices else start
        start += len(values) - 1
        slices[scheme.number] = slice(first, start)
    row = np.repeat(np.arange(len(schemes)), [len(part) for part in levels])
    return _Ladders(np.concatenate(levels), np.concatenate(between), row, np.array(starts), slices)


def _first_above(level: Doubles, between: Doubles, scale: Floats, number: Format) -> Floats:
    """The smallest float32 weight that falls above each level, by the definition of rounding.

    Dividing rounds, so that it lies within two float32 numbers of halfway to the next level.
    """
    with np.errstate(over="ignore"):
        candidate = (between * scale).astype(np.float32)
        for _ in range(2):
            candidate = np.nextafter(candidate, np.float32(-np.inf))
        smallest_above = np.full_like(candidate, np.inf)
        for _ in range(5):
            ratio = candidate / scale
            rounded = np.rint(ratio) if number == "int" else float8_rounding(ratio, number)
            np.minimum(smallest_above, candidate, out=smallest_above, where=rounded > level)
            candidate = np.nextafter(candidate, np.float32(np.inf))
    return smallest_above


# --- clipping ----------------------------------------------------------------------------------


def clipping_curves(
    ordered: Floats, energy: float
) -> tuple[list[ClippingCurve], dict[tuple[int, bool], float]]:
    """SQNR of the whole tensor against the clipping threshold, and the best thresholds.

    Args:
        ordered: all finite weights, ascending.
        energy: the sum of their squares.

    Returns:
        The curves of the symmetric grids, and for (bits, is_symmetric) the threshold in weight
        units where the squared error is least.
    """
    largest = abs_max(ordered)
    if largest == 0:
        return [], {}
    low, high = min(0.0, float(ordered[0])), max(0.0, float(ordered[-1]))
    cuts = THRESHOLDS * largest
    squared_error = _GridErrors(ordered)
    curves, best = [], {}
    for bits in CLIPPING_BITS:
        top = (1 << (bits - 1)) - 1
        squares = squared_error(as_stored(cuts / top), np.full(len(cuts), -top), 2 * top)
        best_index = int(np.argmin(squares))
        best[bits, True] = float(cuts[best_index])
        curves.append(curve(bits, "tensor", THRESHOLDS, sqnr_db(energy, squares), best_index))

        most = (1 << bits) - 1
        lows, highs = np.maximum(low, -cuts), np.minimum(high, cuts)
        exact = (highs - lows) / most
        scales = as_stored(exact)
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
        column, bottom = (values[:, np.newaxis].astype(np.float32) for values in (scales, lowest))
        ratio = self.ordered / column
        level = np.rint(ratio)
        np.clip(level, bottom, bottom + np.float32(steps), out=level)
        level -= ratio
        in_codes = np.einsum("ij,ij->i", level, level).astype(np.float64)
        faint = in_codes < np.finfo(np.float32).tiny
        if faint.any():
            # So far below one step that float32 has no room for the square.
            wide = level[faint].astype(np.float64)
            in_codes[faint] = np.einsum("ij,ij->i", wide, wide)
        total: Doubles = in_codes * scales**2
        return total


class _RunningSums:
    """Sums of sorted weights up to any position, in float64, and the errors that follow from them.

    Of many weights every 8th sum is kept, and what lies between is added when it is asked for:
    all of them would cost more to allocate than everything else here takes.
    """

    def __init__(self, ordered: Floats) -> None:
        self.ordered = ordered
        self.stride = 1 if ordered.size <= MANY_WEIGHTS else SUM_STRIDE
        first = [np.zeros(1)]
        self.energy = 0.0
        for start in range(0, ordered.size, _PIECE_WEIGHTS):
            wide = ordered[start : start + _PIECE_WEIGHTS].astype(np.float64)
            first.append(self._strided(wide))
            self.energy += float(np.einsum("i,i->", wide, wide))
        self.first = np.cumsum(np.concatenate(first))

    def _strided(self, values: Doubles) -> Doubles:
        if self.stride == 1:
            return values
        return np.add.reduceat(values, np.arange(0, values.size, self.stride))

    def up_to(self, index: Counts) -> Doubles:
        """Sum of the weights below each position."""
        if self.stride == 1:
            return self.first[index]
        block = index // SUM_STRIDE
        places = (block * SUM_STRIDE)[..., np.newaxis] + np.arange(SUM_STRIDE)
        partial_block = self.ordered[np.minimum(places, self.ordered.size - 1)].astype(np.float64)
        partial_block[places >= index[..., np.newaxis]] = 0
        sums: Doubles = self.first[block] + partial_block.sum(axis=-1)
        return sums

    def squared_error(self, scales: Doubles, lowest: Doubles, steps: int) -> Doubles:
        """Squared error of grids; arguments as for :class:`_GridErrors`.

        With e_k the first weight above the k-th boundary, F the running sums and levels c_k that
        are one scale s apart, summing over the runs by parts leaves

            sum x^2 - 2 (c_last F(n) - s sum F(e_k)) + c_last^2 n - sum (c_k^2 - c_(k-1)^2) e_k
        """
        count = self.ordered.size
        middle = lowest[:, np.newaxis] + (np.arange(steps) + 0.5)
        ends = np.searchsorted(self.ordered, (middle * scales[:, np.newaxis]).astype(np.float32))
        highest = (lowest + steps) * scales
        products = highest * float(self.up_to(np.array([count]))[0])
        products -= scales * self.up_to(ends).sum(axis=1)
        # c_k^2 - c_(k-1)^2 is twice the middle, in scales squared.
        moved = 2 * scales**2 * np.einsum("ij,ij->i", middle, ends.astype(np.float64))
        # What is exact cancels to a negative nothing.
        total: Doubles = np.maximum(self.energy - 2 * products + highest**2 * count - moved, 0)
        # Levels far beyond all weights, as a degenerate scale has, would cancel everything.
        total[scales > 2 * abs_max(self.ordered)] = self.energy
        return total
