"""What one scale for a whole tensor does, read off the sorted weights without touching them all.

The weights that fall to level c form one run [i, j) of the sorted weights, and their squared error
is S2 - 2 c S1 + (j - i) c^2 with S1 and S2 the sums of x and x^2 over the run. Searching the
boundaries between levels costs less than a pass over the weights, which makes a hundred clipping
thresholds cheap. Where clipping costs so much more than rounding that it does not matter how the
weights lie between two levels, not even the boundaries are needed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache

import numpy as np

from quantstore.numerics.quantization import (
    LARGEST_WEIGHT,
    SMALLEST_SCALE,
    float8_rounding,
    float8_values,
    sqnr_db,
)
from quantstore.records import Counts, Doubles, Floats
from quantstore.schemes import Format, Scheme


def shares_up_to_one(lowest: str, count: int) -> Doubles:
    """``np.geomspace(lowest, 1, count)``, the same to the last bit on every processor.

    What numpy makes of powers depends on the vector instructions that it finds, and one bit decides
    between two codes where a range that is clipped on both sides ends half between them.

    Args:
        lowest: a decimal number.
    """
    with localcontext(prec=40):
        exponents = np.linspace(float(Decimal(lowest).log10()), 0, count).tolist()
        shares = np.array([float(10 ** Decimal(exponent)) for exponent in exponents])
    shares[0] = float(lowest)
    return shares


# Clipping thresholds as shares of the largest absolute weight.
THRESHOLDS: Doubles = shares_up_to_one("0.01", 100)
CLIPPING_BITS = (8, 4)

# Up to so many weights it is quicker to try every grid on every weight.
FEW_WEIGHTS = 1 << 11
# Beyond so many weights running sums are kept in strides.
MANY_WEIGHTS = 1 << 16
SUM_STRIDE, SQUARE_STRIDE = 8, 64
# An estimated squared error is at most this share off: 0.005 dB.
_ESTIMATE_SHARE = 10**0.0005 - 1
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


@dataclass(frozen=True, slots=True)
class TensorErrors:
    """What schemes with one scale for the tensor do to its weights, ``(schemes,)`` each.

    ``levels_used``: codes that at least one weight falls to. ``largest_error`` in weight units.
    ``zeroed_count``: weights that come back as 0, those that were 0 included.
    """

    levels_used: Counts
    largest_error: Doubles
    zeroed_count: Counts


def tensor_errors(
    ordered: Floats, schemes: Sequence[Scheme], scale: Floats, zero_point: Floats
) -> TensorErrors:
    """What needs no weight but those at the ends of each run that falls to one level.

    Args:
        ordered: all finite weights, ascending.
        schemes: with one scale for the tensor, those of one number format side by side.
        scale, zero_point: of each scheme, ``(schemes,)``.
    """
    count = len(schemes)
    if ordered.size == 0 or not schemes:
        nothing = np.zeros(count, dtype=np.int64)
        return TensorErrors(nothing, np.full(count, np.nan), nothing)
    ladders = _ladders(tuple(schemes))
    ends = np.empty(ladders.row.size, dtype=np.int64)
    # Integer levels are counted from zero; a float format's zero point is 0.
    shift = zero_point[ladders.row]
    level, between = ladders.level - shift, ladders.between - shift
    steps = scale[ladders.row]
    for number, span in ladders.slices.items():
        limits = _first_above(level[span], between[span], steps[span], number)
        ends[span] = np.searchsorted(ordered, limits)
    # What lies above the highest level falls to it.
    last = np.append(ladders.starts[1:], ends.size) - 1
    ends[last] = ordered.size
    starts = np.empty_like(ends)
    starts[1:] = ends[:-1]
    starts[ladders.starts] = 0
    is_used = ends > starts
    with np.errstate(over="ignore"):
        returned = level.astype(np.float32) * steps
    np.clip(returned, -LARGEST_WEIGHT, LARGEST_WEIGHT, out=returned)
    # Weights at both ends of float32 lie further apart than it reaches.
    with np.errstate(over="ignore"):
        errors = np.maximum(
            np.abs((returned - ordered[np.minimum(starts, ordered.size - 1)]).astype(np.float64)),
            np.abs((returned - ordered[np.maximum(ends - 1, 0)]).astype(np.float64)),
        )
    return TensorErrors(
        np.add.reduceat(is_used.astype(np.int64), ladders.starts),
        np.maximum.reduceat(np.where(is_used, errors, 0), ladders.starts),
        np.add.reduceat(np.where(returned == 0, ends - starts, 0), ladders.starts),
    )


@dataclass(frozen=True, slots=True)
class _Ladders:
    """Every level of several schemes, one after the other.

    ``between`` lies halfway to the next level, infinite behind the highest; ``row`` is the scheme's
    place, ``starts`` where it begins, ``slices`` where the schemes of one number format lie.
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
        levels.append(values)
        between.append(np.append((values[:-1] + values[1:]) / 2, np.inf))
        starts.append(start)
        first = slices[scheme.number].start if scheme.number in slices else start
        start += len(values)
        slices[scheme.number] = slice(first, start)
    row = np.repeat(np.arange(len(schemes)), [len(part) for part in levels])
    return _Ladders(np.concatenate(levels), np.concatenate(between), row, np.array(starts), slices)


def _first_above(level: Doubles, between: Doubles, scale: Floats, number: Format) -> Floats:
    """The smallest float32 weight that falls above each level, by the definition of rounding.

    Dividing rounds, so that it lies within two float32 numbers of halfway to the next level.
    """
    with np.errstate(over="ignore", invalid="ignore"):
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
        squares = _symmetric_errors(squared_error, cuts, top)
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
        # A grid ends no further than half a step beyond the threshold.
        least = squared_error.sums.beyond(cuts + scales * 0.500001)[0]
        best_place = _least(squared_error, scales, lowest, most, least, best_index)
        best[bits, False] = float(cuts[best_place])
    return curves, best


def _symmetric_errors(squared_error: "_GridErrors", cuts: Doubles, top: int) -> Doubles:
    """Squared error of symmetric grids that end at ``cuts``, to 0.005 dB; the least one exactly.

    What is clipped loses its distance from the end. A weight in between loses at most s^2 / 4, and
    s^2 / 12 on average where weights lie evenly between levels: where even the former hardly shows
    beside what is clipped, the latter will do.
    """
    scales, lowest = as_stored(cuts / top), np.full(len(cuts), -top)
    clipped, within = squared_error.sums.beyond(scales * top)
    rounded = within * scales**2 / 12
    squares: Doubles = clipped + rounded
    is_exact = 2 * rounded > _ESTIMATE_SHARE * squares
    is_exact |= cuts / top < SMALLEST_SCALE
    is_exact[-1] = True
    squares[is_exact] = squared_error(scales[is_exact], lowest[is_exact], 2 * top)
    # None that is estimated may be less than the least, nor be taken for it.
    in_doubt = ~is_exact & (clipped <= squares[is_exact].min())
    if in_doubt.any():
        squares[in_doubt] = squared_error(scales[in_doubt], lowest[in_doubt], 2 * top)
    return squares


def _least(
    squared_error: "_GridErrors",
    scales: Doubles,
    lowest: Doubles,
    steps: int,
    at_least: Doubles,
    candidate: int,
) -> int:
    """The threshold with the least squared error.

    Among many weights the error hardly ripples: the neighbourhood of the best of every fourth
    threshold is searched, which is the best of all but where two valleys are almost as deep.

    Args:
        at_least: of each threshold, what it costs in any case.
        candidate: a threshold that is probably good: what costs more in any case is not tried.
    """

    def best_of(places: Counts) -> int:
        return int(places[np.argmin(squared_error(scales[places], lowest[places], steps))])

    nearby = np.array([candidate])
    allowed = squared_error(scales[nearby], lowest[nearby], steps)[0]
    places = np.arange(len(scales))
    is_tried = at_least <= allowed
    is_tried[candidate] = True
    if squared_error.ordered.size <= FEW_WEIGHTS:
        return best_of(places[is_tried])
    is_coarse = (places % 4 == 0) | (places == candidate) | (places == places[-1])
    around = best_of(places[is_tried & is_coarse])
    return best_of(places[max(0, around - 3) : around + 4])


class _GridErrors:
    """The squared error of a tensor on many grids: directly for few weights, else by sums."""

    def __init__(self, ordered: Floats) -> None:
        self.ordered = ordered
        self.sums = _RunningSums(ordered)

    def __call__(self, scales: Doubles, lowest: Doubles, steps: int) -> Doubles:
        """Squared error of each grid.

        Args:
            scales: distance between neighbouring levels, one per grid.
            lowest: the lowest level of each grid, in scales; a whole number.
            steps: how many scales the highest level lies above the lowest.
        """
        if self.ordered.size > FEW_WEIGHTS:
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
    """Sums of sorted weights and their squares up to any position, in float64, and what follows.

    Of many weights every 8th sum is kept, and what lies between is added when it is asked for:
    all of them would cost more to allocate than everything else here takes. Of the squares, which
    few ask for, it is every 64th.
    """

    def __init__(self, ordered: Floats) -> None:
        self.ordered = ordered
        is_small = ordered.size <= MANY_WEIGHTS
        self.strides = {1: 1 if is_small else SUM_STRIDE, 2: 1 if is_small else SQUARE_STRIDE}
        first, second = [np.zeros(1)], [np.zeros(1)]
        for start in range(0, ordered.size, _PIECE_WEIGHTS):
            wide = ordered[start : start + _PIECE_WEIGHTS].astype(np.float64)
            first += _summed(wide, 1, self.strides[1])
            second += _summed(wide, 2, self.strides[2])
        self.sums = {1: np.cumsum(np.concatenate(first)), 2: np.cumsum(np.concatenate(second))}
        self.energy = float(self.sums[2][-1])

    def up_to(self, index: Counts, power: int = 1) -> Doubles:
        """Sum of the weights below each position, or of their squares."""
        running, stride = self.sums[power], self.strides[power]
        if stride == 1:
            return running[index]
        block = index // stride
        places = (block * stride)[..., np.newaxis] + np.arange(stride)
        partial_block = self.ordered[np.minimum(places, self.ordered.size - 1)].astype(np.float64)
        partial_block[places >= index[..., np.newaxis]] = 0
        sums: Doubles = running[block] + (partial_block**power).sum(axis=-1)
        return sums

    def beyond(self, limits: Doubles) -> tuple[Doubles, Counts]:
        """What clipping at each limit costs, squared and summed, and how many weights stay within.

        A weight x beyond the limit t loses (|x| - t)^2.
        """
        # Next to a limit it does not matter on which side of it float32 puts a weight.
        with np.errstate(over="ignore"):
            edges = limits.astype(np.float32)
        lower = np.searchsorted(self.ordered, -edges)
        upper = np.searchsorted(self.ordered, edges, "right")
        end = np.array([self.ordered.size])
        total = [self.up_to(end, power) - self.up_to(upper, power) for power in (1, 2)]
        magnitudes = total[0] - self.up_to(lower)
        squares = total[1] + self.up_to(lower, 2)
        within = upper - lower
        lost = squares - 2 * limits * magnitudes + limits**2 * (end - within)
        return np.maximum(lost, 0), within

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


def _summed(values: Doubles, power: int, stride: int) -> Iterator[Doubles]:
    """Sums of values, or of their squares, over each stride; the last one may be shorter."""
    if stride == 1:
        yield values**power
        return
    whole = values.size // stride * stride
    for part in (values[:whole].reshape(-1, stride), values[np.newaxis, whole:]):
        if part.size:
            yield np.einsum("ij->i", part) if power == 1 else np.einsum("ij,ij->i", part, part)
