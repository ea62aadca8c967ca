"""What int8 does to an array: scale, codes, round trip and error, as plain as possible.

Everything here takes weights as a matrix ``(channels, weights per channel)``, float32, one row per
output channel, and knows neither files nor tables. NaN and infinities are left out of every figure.

Sources: ONNX operators QuantizeLinear and DequantizeLinear
(https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html); onnxruntime ``quant_utils.py``,
``compute_scale_zp``, for the scale.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from quantstore.layer import DEAD_SHARE
from quantstore.records import Counts, Doubles, Floats
from quantstore.schemes import BLOCK_SIZE, FLOAT_FORMATS, Format, Scheme

# Below the smallest normal float32 a scale has lost bits; the weights are then as good as zero.
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)

# The highest code of int8, symmetric.
_INT8_MAX = 127

LARGEST_WEIGHT = float(np.finfo(np.float32).max)

# Beyond so many numbers in a row BLAS starts threads, and a sum depends on how many.
_MOST_IN_ONE_THREAD = 1 << 13

Number = TypeVar("Number", np.float32, np.float64)

# A channel below this SQNR is counted as lost. Provisional, like the bands.
LOST_CHANNEL_DB = 10.0


@dataclass(frozen=True, slots=True)
class Grid:
    """The codes a scheme gives to one tensor: ``x' = scale * (q - zero_point)``.

    ``scale`` (weight units per code, strictly positive float32) and ``zero_point`` (a code) have
    the shape ``(1, 1)`` where the tensor shares one, else ``(rows, 1)``. Integer codes run from
    ``qmin`` to ``qmax``; the codes of a float format are its values.
    """

    scale: Floats
    zero_point: Floats
    qmin: int
    qmax: int
    number: Format = "int"


@dataclass(frozen=True, slots=True)
class RoundTripError:
    """What a round trip through a grid costs, per channel and for the whole tensor.

    Per channel: ``energy`` and ``squared_error`` (weight units squared, summed), ``nonzero_count``
    and ``zeroed_count``. ``levels_used`` is the number of distinct codes in use, None where every
    channel has a grid of its own.
    """

    energy: Doubles
    squared_error: Doubles
    nonzero_count: Counts
    zeroed_count: Counts
    weight_count: int
    max_abs_error: float
    levels_used: int | None

    @property
    def mse(self) -> float:
        """Mean squared error in weight units squared; NaN where there is no finite weight."""
        return float(self.squared_error.sum() / self.weight_count) if self.weight_count else np.nan

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise of the whole tensor in dB; infinite without an error."""
        return float(sqnr_db(self.energy.sum(), self.squared_error.sum()))

    @property
    def zeroed_fraction(self) -> float:
        """Share of the non-zero weights that come back as 0; 0 where there is none."""
        return float(self.zeroed_count.sum() / max(1, self.nonzero_count.sum()))

    @property
    def channel_sqnr_db(self) -> Doubles:
        """SQNR of each channel in dB: infinite without an error, NaN for an all-zero channel."""
        ratio = sqnr_db(self.energy, self.squared_error)
        return np.where(self.energy > 0, ratio, np.nan)

    @property
    def channel_zeroed_fraction(self) -> Doubles:
        """Share of each channel's non-zero weights that come back as 0."""
        return self.zeroed_count / np.maximum(1, self.nonzero_count)


@dataclass(frozen=True, slots=True)
class ChannelSummary:
    """SQNR over the channels that are not dead, in dB; NaN where there is no such channel."""

    min_db: float
    p10_db: float
    median_db: float
    below_10db: int


def grid_for(
    weights: Floats, scheme: Scheme, threshold: float | None = None, sharing: int = 1
) -> Grid:
    """The grid a scheme lays over these weights.

    The range is widened to include 0, so that zero is always a code. The scale is computed in
    float64 and stored as float32; the zero point follows from the float64 scale. A scale below
    float32's smallest normal becomes 1 with zero point 0, so that an all-zero tensor is exact.
    Where the scheme wants a power of two, the scale is the smallest that reaches the range's ends.

    Args:
        weights: ``(rows, weights per row)``; NaN and infinities do not count. A row is an output
            channel; for a scheme in blocks it is a block (see :func:`blocks_of`).
        threshold: weights beyond it in either direction are cut off, in weight units.
        sharing: how many rows share a scale per channel (see :func:`shared_ends`).
    """
    axis = None if scheme.is_per_tensor else 1
    finite = np.isfinite(weights)
    # Without a mask numpy is several times as fast.
    where = True if finite.all() else finite
    low = np.min(weights, axis=axis, keepdims=True, initial=0, where=where).astype(np.float64)
    high = np.max(weights, axis=axis, keepdims=True, initial=0, where=where).astype(np.float64)
    if scheme.is_per_channel:
        low, high = shared_ends(low, high, sharing)
    if threshold is not None:
        low, high = np.maximum(low, -threshold), np.minimum(high, threshold)
    if scheme.has_power_of_two_scale:
        needed = exact_scale(low, high, scheme.qmax, scheme.is_symmetric)
        scale = power_of_two_above(needed).astype(np.float32)
        zero_point = np.zeros_like(scale)
    else:
        scale, zero_point = scale_and_zero_point(low, high, scheme.qmax, scheme.is_symmetric)
    return Grid(scale, zero_point, scheme.qmin, scheme.qmax, scheme.number)


def shared_ends(low: Doubles, high: Doubles, sharing: int) -> tuple[Doubles, Doubles]:
    """Ends of the ranges that set the scales, where several channels share one.

    Args:
        low, high: ends of each channel's own range, channels first.
        sharing: how many channels share a scale: the first of every ``n / sharing``, and so on, as
            the groups of a ConvTranspose do.
    """
    if sharing == 1:
        return low, high
    folded = (sharing, len(low) // sharing, *low.shape[1:])
    tiles = (sharing, *(1 for _ in low.shape[1:]))
    return (
        np.tile(low.reshape(folded).min(axis=0), tiles),
        np.tile(high.reshape(folded).max(axis=0), tiles),
    )


def dead_channels(low: Doubles, high: Doubles) -> npt.NDArray[np.bool_]:
    """Which channels carry nothing, whatever rounds them.

    Their largest weight is below a millionth of the layer's, or would have a scale in int8 that
    float32 no longer holds in full.

    Args:
        low, high: smallest and largest weight of each channel; NaN where none is finite.
    """
    abs_max = np.fmax(np.abs(low), np.abs(high))
    abs_max = np.where(np.isnan(abs_max), 0, abs_max)
    largest = abs_max.max(initial=0)
    dead: npt.NDArray[np.bool_] = (abs_max < DEAD_SHARE * largest) | (
        abs_max / _INT8_MAX < SMALLEST_SCALE
    )
    return dead


def scale_and_zero_point(
    low: Doubles, high: Doubles, qmax: npt.ArrayLike, is_symmetric: npt.ArrayLike
) -> tuple[Floats, Floats]:
    """The step between neighbouring codes, and the code that means zero, for each range.

    Args:
        low, high: ends of the ranges in weight units, ``low <= 0 <= high``, in any shape.
        qmax, is_symmetric: of the scheme, or of several schemes as columns ``(schemes, 1)``.
    """
    scale = exact_scale(low, high, qmax, is_symmetric)
    return scale.astype(np.float32), zero_point_of(low, scale, is_symmetric)


def exact_scale(
    low: Doubles, high: Doubles, qmax: npt.ArrayLike, is_symmetric: npt.ArrayLike
) -> Doubles:
    """The scale before it is stored as float32; arguments as in :func:`scale_and_zero_point`."""
    scale: Doubles = np.divide(np.where(is_symmetric, np.maximum(-low, high), high - low), qmax)
    scale[scale < SMALLEST_SCALE] = 1
    return scale


def power_of_two_above(scale: Doubles) -> Doubles:
    """The smallest power of two that is not below each scale; a power of two is its own.

    Args:
        scale: in float64, positive, in any shape; rounded to float32 before, a scale right above a
            power of two would come out as that power, and the largest weight would be cut off.
    """
    # scale = fraction * 2^exponent with the fraction from 0.5 to below 1, exactly.
    fraction, exponent = np.frexp(scale)
    power: Doubles = np.ldexp(1.0, np.where(fraction == 0.5, exponent - 1, exponent))
    return power


def zero_point_of(low: Doubles, scale: Doubles, is_symmetric: npt.ArrayLike) -> Floats:
    """The code that means zero; 0 where the scale is degenerate, as ``low`` is then far below 1."""
    return np.where(is_symmetric, 0, -np.rint(low / scale)).astype(np.float32)


def float8_rounding(
    values: Floats, number: Format, out: Floats | None = None, room: Floats | None = None
) -> Floats:
    """Values rounded to the nearest 8-bit float, ties to even; none may exceed the format's range.

    The distance between neighbours doubles with every power of two and stops shrinking at the
    smallest normal number. Adding and subtracting 1.5 * 2^23 times that distance rounds to it,
    because float32 then has no room for more.

    Source: OCP 8-bit Floating Point Specification (OFP8), 2023; ONNX FLOAT8E4M3FN, FLOAT8E5M2.
    """
    _, mantissa_bits, smallest_exponent = FLOAT_FORMATS[number]
    power = np.empty_like(values) if room is None else room
    np.bitwise_and(values.view(np.uint32), np.uint32(0x7F800000), out=power.view(np.uint32))
    # With both ends numpy is twice as fast as with one.
    power.clip(np.float32(2.0**smallest_exponent), np.float32(np.inf), out=power)
    power *= np.float32(1.5 * 2.0 ** (23 - mantissa_bits))
    rounded = np.add(values, power, out=out)
    rounded -= power
    return rounded


def blocks_of(weights: Floats) -> Floats:
    """Each channel cut into rows of 32 consecutive weights, the last one filled up with NaN.

    Args:
        weights: ``(channels, weights per channel)``.

    Returns:
        ``(channels * blocks per channel, 32)``.
    """
    missing = -weights.shape[1] % BLOCK_SIZE
    padded = np.pad(weights, ((0, 0), (0, missing)), constant_values=np.nan)
    return padded.reshape(-1, BLOCK_SIZE)


@cache
def float8_values(number: Format) -> Doubles:
    """All finite values of an 8-bit float format, ascending, zero once.

    Source: as for :func:`float8_rounding`.
    """
    largest, mantissa_bits, smallest_exponent = FLOAT_FORMATS[number]
    steps = 1 << mantissa_bits
    fractions = np.arange(steps) / steps
    exponents = np.arange(smallest_exponent, math.frexp(largest)[1])
    subnormal = fractions * 2.0**smallest_exponent
    normal = ((1 + fractions) * 2.0 ** exponents[:, np.newaxis].astype(np.float64)).ravel()
    positive = np.concatenate([subnormal[1:], normal[normal <= largest]])
    return np.concatenate([-positive[::-1], [0.0], positive])


def quantize(weights: Floats, grid: Grid) -> Floats:
    """Codes ``q = clip(rint(x / scale) + zero_point, qmin, qmax)``, as whole float32 numbers.

    Ties go to the even code before the zero point is added, as ``np.rint`` and ONNX both do.
    """
    if grid.number != "int":
        return float8_rounding(weights / grid.scale, grid.number)
    codes: Floats = np.rint(weights / grid.scale) + grid.zero_point
    return np.clip(codes, grid.qmin, grid.qmax)


def dequantize(codes: Floats, grid: Grid) -> Floats:
    """Weights ``x' = scale * (q - zero_point)`` in float32, within what float32 can hold."""
    with np.errstate(over="ignore"):
        returned: Floats = (codes - grid.zero_point) * grid.scale
    if float(grid.scale.max(initial=0)) * (grid.qmax - grid.qmin) > LARGEST_WEIGHT / 2:
        # Half a step beyond the largest float32 lies infinity, which would be no error at all.
        np.clip(returned, -LARGEST_WEIGHT, LARGEST_WEIGHT, out=returned)
    return returned


def round_trip(
    weights: Floats, scheme: Scheme, threshold: float | None = None, sharing: int = 1
) -> Floats:
    """The weights as they come back from the scheme's grid, in the shape they came in.

    Args:
        weights: ``(channels, weights per channel)``.
        threshold: where a clipped scheme cuts the range, in weight units.
        sharing: how many channels share a scale per channel (see :func:`shared_ends`).
    """
    rows = blocks_of(weights) if scheme.granularity == "block" else weights
    grid = grid_for(rows, scheme, threshold, sharing)
    returned = dequantize(quantize(rows, grid), grid)
    return returned.reshape(weights.shape[0], -1)[:, : weights.shape[1]]


def measure_error(
    weights: Floats, scheme: Scheme, threshold: float | None = None, sharing: int = 1
) -> RoundTripError:
    """Everything one scheme does to one tensor, straight from the formulas.

    ``sweep.sweep`` gives the same figures for all schemes at once, and faster.

    Args:
        weights: ``(channels, weights per channel)``.
        threshold: where a clipped scheme cuts the range, in weight units.
        sharing: how many channels share a scale per channel (see :func:`shared_ends`).
    """
    finite = np.isfinite(weights)
    # Zeros add nothing to any sum below; only the counts have to know.
    original = np.where(finite, weights, np.float32(0))
    returned = round_trip(original, scheme, threshold, sharing)
    nonzero = original != 0
    error = returned.astype(np.float64) - original
    levels_used = None
    if scheme.is_per_tensor:
        grid = grid_for(original, scheme, threshold)
        levels_used = int(np.unique(quantize(original, grid)[finite]).size)
    return RoundTripError(
        energy=np.sum(original.astype(np.float64) ** 2, axis=1),
        squared_error=np.sum(error**2, axis=1),
        nonzero_count=np.count_nonzero(nonzero, axis=1),
        zeroed_count=np.count_nonzero(nonzero & (returned == 0), axis=1),
        weight_count=int(np.count_nonzero(finite)),
        max_abs_error=float(np.abs(error).max(initial=0)) if finite.any() else np.nan,
        levels_used=levels_used,
    )


def summarize_channels(
    channel_sqnr_db: Doubles, is_dead: npt.NDArray[np.bool_] | None = None
) -> ChannelSummary:
    """The distribution of SQNR over channels, lowest first, because one number per tensor lies.

    Args:
        channel_sqnr_db: one value per channel in dB; NaN marks an all-zero channel, which is
            left out; +infinity a channel that comes back exactly.
        is_dead: of each channel; dead ones are left out as well.
    """
    return summarize_rows(channel_sqnr_db[np.newaxis, :], is_dead)[0]


def summarize_rows(
    channel_sqnr_db: Doubles, is_dead: npt.NDArray[np.bool_] | None = None
) -> list[ChannelSummary]:
    """:func:`summarize_channels` of many schemes at once.

    Args:
        channel_sqnr_db: ``(schemes, channels)`` in dB; a channel is NaN in all rows or in none.
        is_dead: of each channel.
    """
    counts = ~np.isnan(channel_sqnr_db[0])
    if is_dead is not None:
        counts &= ~is_dead
    rows = np.sort(channel_sqnr_db[:, counts], axis=1)
    if rows.shape[1] == 0:
        nothing = ChannelSummary(min_db=np.nan, p10_db=np.nan, median_db=np.nan, below_10db=0)
        return [nothing] * len(rows)
    lost = np.count_nonzero(rows < LOST_CHANNEL_DB, axis=1)
    return [
        ChannelSummary(*figures)
        for figures in zip(
            rows[:, 0].tolist(),
            _quantiles(rows, 0.1),
            _quantiles(rows, 0.5),
            lost.tolist(),
            strict=True,
        )
    ]


def row_dots(first: npt.NDArray[Number], second: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """The sum of products along each row, ``(rows, n)`` twice in, ``(rows,)`` out."""
    dots: npt.NDArray[Number] = (
        np.vecdot(first, second)
        if first.shape[1] <= _MOST_IN_ONE_THREAD
        else np.einsum("ij,ij->i", first, second)
    )
    return dots


def sqnr_db(energy: npt.ArrayLike, squared_error: npt.ArrayLike) -> Doubles:
    """``10 log10(energy / squared_error)`` in dB; +infinity where the error is exactly 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Doubles = np.divide(energy, squared_error, dtype=np.float64)
        return np.where(np.equal(squared_error, 0), np.inf, 10 * np.log10(ratio))


def _quantiles(rows: Doubles, share: float) -> list[float]:
    """Linear interpolation in sorted rows (numpy's default), for values that may be +infinity."""
    position = share * (rows.shape[1] - 1)
    index = int(position)
    low, high = rows[:, index], rows[:, min(index + 1, rows.shape[1] - 1)]
    weight = position - index
    if np.isfinite(low).all() and np.isfinite(high).all():
        finite: list[float] = (low + weight * (high - low)).tolist()
        return finite
    # inf - inf and 0 * inf are NaN, so equal neighbours and exact positions must not get there.
    is_plain = (low == high) | (weight == 0)
    gap = np.subtract(high, low, where=~is_plain, out=np.zeros_like(low))
    quantiles: list[float] = (low + weight * gap).tolist()
    return [
        value if not plain else bottom
        for value, plain, bottom in zip(quantiles, is_plain.tolist(), low.tolist(), strict=True)
    ]
