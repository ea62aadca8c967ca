"""A layer rounded under many schemes in one pass: squared error, lost weights, largest error.

The plain definition (``quantization``) walks over all weights once or twice per step. Here they
are taken in pieces that stay in a core's cache, laid out as columns of 32 consecutive weights of
one output channel, and every scheme is one short run of operations over each piece:

    t = x / s,  r = round(t),  e = r - t,  sum e^2 per column, times s^2

A column never crosses a channel, so that one layout serves scales per tensor, per channel and per
block of 32. Small layers are rounded under several schemes at once, because a call then costs more
than its work. A min-max grid needs no clipping but in rare ties, which are found by their extremes
and done again by the definition; so are columns whose error is nothing but the rounding of ``t``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby

import numpy as np
import numpy.typing as npt

from quantstore.numerics.quantization import (
    LARGEST_WEIGHT,
    dead_channels,
    exact_scale,
    float8_rounding,
    scale_and_zero_point,
    shared_ends,
)
from quantstore.records import Counts, Doubles, Floats
from quantstore.schemes import BLOCK_SIZE, Format, Scheme

# Weights in a piece: it and two buffers of its size fit into a core's second cache.
PIECE_WEIGHTS = 1 << 16

# An error in codes below this share of the highest code may be nothing but float32's own rounding.
_ROUNDING = 2.0**-21

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Rounded:
    """What each scheme costs each channel.

    ``squared_error`` (weight units squared, summed) and ``zeroed_count`` (weights that come back
    as 0, those that were 0 included) are ``(schemes, channels)``; ``largest_error`` in weight
    units is ``(schemes,)``.
    """

    squared_error: Doubles
    zeroed_count: Counts
    largest_error: Doubles


@dataclass(frozen=True, slots=True)
class _Piece:
    """Columns of some channels, or of a part of one: ``(height, columns)``, channel by channel."""

    channels: slice
    each: int
    values: Floats


class Columns:
    """A layer as columns of up to 32 consecutive weights of one channel.

    The last column of a channel is filled up with zeros, which cost nothing under any scheme.

    Args:
        weights: ``(channels, weights per channel)``, finite.
        sharing: how many channels share a scale per channel (see ``quantization.shared_ends``).
    """

    def __init__(self, weights: Floats, sharing: int = 1) -> None:
        self.weights = weights
        self.channel_count, self.size = weights.shape
        self.height = min(BLOCK_SIZE, self.size)
        self.each = -(-self.size // self.height)
        self.padding = self.each * self.height - self.size
        # Ends of the channels' ranges, widened to include 0; the shared ones set the scales.
        own_low = weights.min(axis=1, initial=0).astype(np.float64)
        own_high = weights.max(axis=1, initial=0).astype(np.float64)
        self.is_dead = dead_channels(own_low, own_high)
        self.low, self.high = shared_ends(own_low, own_high, sharing)
        self._width = max(1, PIECE_WEIGHTS // self.height)
        self._room = np.empty(
            self.height * min(self._width, self.channel_count * self.each), dtype=np.float32
        )
        self._is_laid_out = False

    def pieces(self) -> Iterator[_Piece]:
        """One after the other in the same memory."""
        if self.channel_count * self.each <= self._width:
            everything = slice(0, self.channel_count)
            if self._is_laid_out:
                values = self._room.reshape(self.height, -1)
            else:
                values = self._lay_out(everything, slice(0, self.each))
                self._is_laid_out = True
            yield _Piece(everything, self.each, values)
            return
        together = max(1, self._width // self.each)
        step = min(self.each, self._width)
        for first in range(0, self.channel_count, together):
            channels = slice(first, min(first + together, self.channel_count))
            for start in range(0, self.each, step):
                blocks = slice(start, min(start + step, self.each))
                width = blocks.stop - blocks.start
                yield _Piece(channels, width, self._lay_out(channels, blocks))

    def _lay_out(self, channels: slice, blocks: slice) -> Floats:
        """Transpose: afterwards a scale per column is a plain row, and every loop is long."""
        height, each = self.height, blocks.stop - blocks.start
        rows = self.weights[channels, blocks.start * height : blocks.stop * height]
        values = self._room[: height * len(rows) * each].reshape(height, len(rows), each)
        whole = rows.shape[1] // height
        values[:, :, :whole] = (
            rows[:, : whole * height].reshape(len(rows), whole, height).transpose(2, 0, 1)
        )
        if whole < each:
            remainder = rows[:, whole * height :]
            values[: remainder.shape[1], :, whole] = remainder.T
            values[remainder.shape[1] :, :, whole] = 0
        return values.reshape(height, -1)


def round_columns(
    columns: Columns,
    schemes: Sequence[Scheme],
    thresholds: Doubles | None = None,
    *,
    squares_only: bool = False,
) -> Rounded:
    """Round a layer under every scheme.

    Args:
        thresholds: where each clipped scheme cuts the range, in weight units; ignored for others.
        squares_only: leave the other two figures out, which is quicker; they are 0 then.
    """
    cuts = np.full(len(schemes), np.inf) if thresholds is None else thresholds
    order = sorted(range(len(schemes)), key=lambda index: _computation_key(schemes[index]))
    sums = _Sums(columns, [schemes[index] for index in order], cuts[order], squares_only)
    for piece in columns.pieces():
        sums.add(piece)
    sorted_back = np.argsort(order)
    return Rounded(
        sums.squared_error[sorted_back],
        sums.zeroed_count[sorted_back],
        sums.largest_error[sorted_back],
    )


def scales_of(
    low: Doubles, high: Doubles, schemes: Sequence[Scheme], cuts: Doubles
) -> tuple[Floats, Floats]:
    """Scale and zero point of several schemes: ranges ``(n,)`` in, ``(schemes, n)`` out.

    Args:
        cuts: where clipped schemes cut the range, in weight units, ``(schemes,)``.
    """
    numbers = _numbers(tuple(schemes))
    lows, highs = low[np.newaxis], high[np.newaxis]
    if numbers.is_clipped.any():
        limit = np.where(numbers.is_clipped, cuts[:, np.newaxis], np.inf)
        lows, highs = np.maximum(lows, -limit), np.minimum(highs, limit)
    return scale_and_zero_point(lows, highs, numbers.qmax, numbers.is_symmetric)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The fields of schemes as columns ``(schemes, 1)``."""

    qmin: Doubles
    qmax: Doubles
    is_symmetric: Bools
    is_clipped: Bools
    is_integer: Bools

    def of(self, rows: slice) -> "_Numbers":
        return _Numbers(
            self.qmin[rows],
            self.qmax[rows],
            self.is_symmetric[rows],
            self.is_clipped[rows],
            self.is_integer[rows],
        )


@cache
def _numbers(schemes: tuple[Scheme, ...]) -> _Numbers:
    def column(values: list[int] | list[bool]) -> Doubles:
        return np.array(values, dtype=np.float64).reshape(-1, 1)

    return _Numbers(
        qmin=column([scheme.qmin for scheme in schemes]),
        qmax=column([scheme.qmax for scheme in schemes]),
        is_symmetric=column([scheme.is_symmetric for scheme in schemes]) > 0,
        is_clipped=column([scheme.clip == "mse" for scheme in schemes]) > 0,
        is_integer=column([scheme.number == "int" for scheme in schemes]) > 0,
    )


_GRANULARITIES = ("tensor", "channel", "block")


def _computation_key(scheme: Scheme) -> tuple[int, str, str]:
    """What is computed alike stands together."""
    return _GRANULARITIES.index(scheme.granularity), scheme.number, scheme.clip


@dataclass(frozen=True, slots=True)
class _SchemeGroup:
    """Neighbouring rows whose schemes are computed alike."""

    rows: slice
    number: Format
    is_clipped: bool
    is_shared: bool  # One scale for the tensor.


class _Sums:
    """The sums while they grow, and the buffers that every piece uses again."""

    def __init__(
        self, columns: Columns, schemes: list[Scheme], cuts: Doubles, squares_only: bool
    ) -> None:
        count, channels = len(schemes), columns.channel_count
        self.squared_error = np.zeros((count, channels))
        self.zeroed_count = np.zeros((count, channels), dtype=np.int64)
        self.largest_error = np.zeros(count)

        self._columns, self._schemes, self._cuts = columns, schemes, cuts
        self._numbers = _numbers(tuple(schemes))
        self._in_doubt = ((self._numbers.qmax * _ROUNDING) ** 2).astype(np.float32)
        self._squares_only = squares_only
        self._groups = _scheme_groups(tuple(schemes))
        granularities = [scheme.granularity for scheme in schemes]
        self._tensor = slice(0, granularities.count("tensor"))
        self._channel = slice(self._tensor.stop, count - granularities.count("block"))
        self._block = slice(self._channel.stop, count)
        self._unshared = slice(self._channel.start, count)
        self._range = columns.low.min(keepdims=True), columns.high.max(keepdims=True)
        tensor_numbers = self._numbers.of(self._tensor)
        self._tensor_scale, self._tensor_zero_point = scales_of(
            *self._range, schemes[self._tensor], cuts[self._tensor]
        )
        self._lowest, self._highest = (
            (codes - self._tensor_zero_point).astype(np.float32)
            for codes in (tensor_numbers.qmin, tensor_numbers.qmax)
        )
        low, high = self._range
        self._may_overflow = bool(high[0] - low[0] > LARGEST_WEIGHT / 8)
        numbers = self._numbers
        may_tie = numbers.is_integer & ~numbers.is_symmetric & ~numbers.is_clipped
        self._may_tie = may_tie[:, 0]
        self._tensor_fragile = self._fragile(self._tensor, low, self._tensor_scale)
        self._channel_scale = self._unshared_scale(self._channel, columns.low, columns.high)
        self._channel_fragile = self._fragile(self._channel, columns.low, self._channel_scale)

        width = max(1, PIECE_WEIGHTS // columns.height)
        self._width = min(width, channels * columns.each)
        # Small layers under several schemes at once, as many as fit into the buffers.
        self._together = max(1, min(count, width // self._width))
        most = columns.height * self._width * self._together
        self._ratio, self._level = (np.empty(most, dtype=np.float32) for _ in range(2))
        self._truth = np.empty(most, dtype=np.bool_)
        has_floats = not self._numbers.is_integer.all()
        self._room = np.empty(most if has_floats else 0, dtype=np.float32)

    def _unshared_scale(self, rows: slice, low: Doubles, high: Doubles) -> Floats:
        """Scales ``(rows, n)`` of schemes without clipping."""
        numbers = self._numbers.of(rows)
        return exact_scale(low, high, numbers.qmax, numbers.is_symmetric).astype(np.float32)

    def _fragile(self, rows: slice, low: Doubles, scale: Floats) -> Bools | None:
        """Where the short form may not hold ``(rows, n)``; None for nowhere.

        Where both ends of an asymmetric range lie half between two codes, one of them must be
        clipped. At the end of float32 a level may overflow.
        """
        fragile = np.zeros(scale.shape, dtype=np.bool_)
        if self._may_overflow:
            fragile[...] = self._numbers.is_integer[rows]
        tied = self._may_tie[rows]
        if tied.any():
            with np.errstate(over="ignore"):
                bottom = low.astype(np.float32) / scale[tied]
            # Halfway, or so near that float32 and float64 may disagree.
            near = np.float32(0.5) - self._numbers.qmax[rows][tied].astype(np.float32) / (1 << 22)
            fragile[tied] |= np.abs(bottom - np.rint(bottom)) >= near
        return fragile if fragile.any() else None

    def add(self, piece: _Piece) -> None:
        """Round one piece under every scheme."""
        values, channels, each = piece.values, piece.channels, piece.each
        count, width = len(self._schemes), values.shape[1]
        low, high = values.min(axis=0), values.max(axis=0)
        # Of schemes whose columns have scales of their own.
        scale = np.empty((count - self._unshared.start, width), dtype=np.float32)
        channel_rows = slice(0, self._channel.stop - self._unshared.start)
        scale[channel_rows] = np.repeat(self._channel_scale[:, channels], each, axis=1)
        block_scale, block_fragile = scale[channel_rows.stop :], None
        if len(block_scale):
            bottom, top = (
                np.minimum(low, 0).astype(np.float64),
                np.maximum(high, 0).astype(np.float64),
            )
            block_scale[...] = self._unshared_scale(self._block, bottom, top)
            block_fragile = self._fragile(self._block, bottom, block_scale)

        squares = np.empty((count, width), dtype=np.float32)
        largest = np.empty((count, width), dtype=np.float32)
        zeroed = np.empty((count, width), dtype=np.uint8)
        for group in self._groups:
            for first in range(group.rows.start, group.rows.stop, self._together):
                rows = slice(first, min(first + self._together, group.rows.stop))
                step = (
                    self._tensor_scale[rows]
                    if group.is_shared
                    else scale[first - self._unshared.start : rows.stop - self._unshared.start]
                )
                self._round(values, group, rows, step, squares, largest, zeroed)

        # Where the error in codes is no larger than the rounding of x / s, the weights may lie on
        # the grid exactly; the step of a float grid grows with the value, and so does the doubt.
        again = (squares if self._squares_only else largest) <= self._in_doubt
        if self._tensor_fragile is not None:
            again[self._tensor] |= self._tensor_fragile
        if self._channel_fragile is not None:
            again[self._channel] |= np.repeat(self._channel_fragile[:, channels], each, axis=1)
        if block_fragile is not None:
            again[self._block] |= block_fragile
        reach = None
        if not self._squares_only:
            reach = np.sqrt(largest, out=largest)
            reach[self._tensor] *= self._tensor_scale
            reach[self._unshared] *= scale
        if again.any():
            again &= (low < 0) | (high > 0)
            for row in np.flatnonzero(again.any(axis=1)).tolist():
                where = again[row]
                exact_figures = self._by_definition(row, values[:, where], piece, where)
                squares[row, where] = 0
                owner = np.flatnonzero(where) // each + channels.start
                np.add.at(self.squared_error[row], owner, exact_figures[0])
                if reach is not None:
                    reach[row, where], zeroed[row, where] = exact_figures[1], exact_figures[2]

        shared = slice(0, self._block.start)
        sums = _channel_sums(squares[shared], each)
        sums[self._tensor] *= self._tensor_scale.astype(np.float64) ** 2
        sums[self._channel] *= self._channel_scale[:, channels].astype(np.float64) ** 2
        self.squared_error[shared, channels] += sums
        if len(block_scale):
            wide = squares[self._block] * np.square(block_scale, dtype=np.float64)
            self.squared_error[self._block, channels] += _channel_sums(wide, each)
        if reach is not None:
            np.maximum(self.largest_error, reach.max(axis=1), out=self.largest_error)
            self.zeroed_count[:, channels] += _channel_counts(zeroed, each)

    def _by_definition(
        self, row: int, values: Floats, piece: _Piece, where: Bools
    ) -> tuple[Doubles, Doubles, Bytes]:
        """Squared error, largest error and zeros of some columns, as ``quantization`` has them.

        Args:
            values: those columns of the piece that ``where`` marks.
        """
        scheme = self._schemes[row]
        if scheme.is_per_tensor:
            low, high = self._range
        elif scheme.is_per_channel:
            ends = self._columns.low[piece.channels], self._columns.high[piece.channels]
            low, high = (np.repeat(end, piece.each)[where] for end in ends)
        else:
            low = np.minimum(values.min(axis=0), 0).astype(np.float64)
            high = np.maximum(values.max(axis=0), 0).astype(np.float64)
        scale, zero_point = (
            figures[0] for figures in scales_of(low, high, [scheme], self._cuts[row : row + 1])
        )
        with np.errstate(over="ignore"):
            ratio = values / scale
            if scheme.number == "int":
                codes = np.clip(np.rint(ratio) + zero_point, scheme.qmin, scheme.qmax)
                returned = (codes - zero_point) * scale
            else:
                returned = float8_rounding(ratio, scheme.number) * scale
        np.clip(returned, -LARGEST_WEIGHT, LARGEST_WEIGHT, out=returned)
        zeros = np.count_nonzero(returned == 0, axis=0).astype(np.uint8)
        error = (returned - values).astype(np.float64)
        return np.einsum("ij,ij->j", error, error), np.abs(error).max(axis=0), zeros

    def _round(
        self,
        values: Floats,
        group: _SchemeGroup,
        rows: slice,
        scale: Floats,
        squares: Floats,
        largest: Floats,
        zeroed: Bytes,
    ) -> None:
        """``e = round(x / s) - x / s`` for some schemes; its squares and extremes per column."""
        height, width = values.shape
        together = rows.stop - rows.start
        shape = (height, together, width)
        size = height * together * width
        ratio, level = self._ratio[:size].reshape(shape), self._level[:size].reshape(shape)
        np.divide(values[:, np.newaxis], scale, out=ratio)
        if group.number == "int":
            np.rint(ratio, out=level)
        else:
            float8_rounding(ratio, group.number, level, self._room[:size].reshape(shape))
        if group.is_clipped:
            np.clip(level, self._lowest[rows], self._highest[rows], out=level)
        if not self._squares_only:
            truth = self._truth[:size].reshape(shape)
            np.equal(level, 0, out=truth)
            np.add.reduce(truth.view(np.uint8), axis=0, dtype=np.uint8, out=zeroed[rows])
        np.subtract(level, ratio, out=level)
        np.square(level, out=ratio)
        np.add.reduce(ratio, axis=0, out=squares[rows])
        if not self._squares_only:
            np.maximum.reduce(ratio, axis=0, out=largest[rows])


@cache
def _scheme_groups(schemes: tuple[Scheme, ...]) -> list[_SchemeGroup]:
    groups, start = [], 0
    for (granularity, _, clip), group in groupby(schemes, key=_computation_key):
        alike = list(group)
        rows = slice(start, start + len(alike))
        is_shared = _GRANULARITIES[granularity] == "tensor"
        groups.append(_SchemeGroup(rows, alike[0].number, clip == "mse", is_shared))
        start = rows.stop
    return groups


# Summing along a short last axis costs more than adding every n-th column.
_FEW_COLUMNS = 8


def _channel_sums(per_column: Floats | Doubles, each: int) -> Doubles:
    """Sums over each channel's columns, ``(schemes, columns)`` in, ``(schemes, channels)`` out."""
    if each > _FEW_COLUMNS:
        rows, width = per_column.shape
        by_channel = per_column.reshape(rows, width // each, each)
        sums: Doubles = np.einsum("sce->sc", by_channel, dtype=np.float64)
        return sums
    total = per_column[:, ::each].astype(np.float64)
    for offset in range(1, each):
        total += per_column[:, offset::each]
    return total


def _channel_counts(per_column: Bytes, each: int) -> Counts:
    """As :func:`_channel_sums`, of counts up to 32."""
    if each > _FEW_COLUMNS:
        rows, width = per_column.shape
        by_channel = per_column.reshape(rows, width // each, each)
        counts: Counts = np.einsum("sce->sc", by_channel, dtype=np.int64)
        return counts
    total = per_column[:, ::each].astype(np.uint16)
    for offset in range(1, each):
        total += per_column[:, offset::each]
    return total.astype(np.int64)
