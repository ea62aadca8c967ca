"""A layer rounded under many schemes in one pass: squared error, lost weights, largest error.

The plain definition (``quantization``) walks over all weights once or twice per step. Here they
are taken in pieces that stay in a core's cache, and every scheme is one short run of operations
over each piece:

    t = x / s,  r = round(t),  e = r - t,  sum e^2, times s^2

Long channels are taken as they lie, a row each. Short ones, and blocks of 32, are laid out as
columns of up to 32 consecutive weights of one channel, so that every loop is long; small layers are
then rounded under several schemes at once, because a call costs more than its work. A min-max grid
needs no clipping but in rare ties, which are found by their extremes and done again by the
definition; so are rows and columns whose error is nothing but the rounding of ``t``.
"""

import math
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
from quantstore.schemes import BLOCK_SIZE, FLOAT_FORMATS, INT8_SCHEMES, Format, Scheme

# Weights in a piece: it and two buffers of its size fit into a core's second cache.
PIECE_WEIGHTS = 1 << 16
# Channels of so many weights are taken as they lie, in a layer of so many; where more is asked than
# squares, blocks are laid out anyway, and it takes more to be worth it.
LONG_ROW, SOME_WEIGHTS, MANY_WEIGHTS = 48, 1 << 13, 1 << 17
# Channels that are done by the definition at a time, where few are expected.
MOST_TOGETHER = 16
# So many squares of one row are summed in float32, in a dozen sums side by side.
MOST_COLUMNS = 1 << 13
# So many truths are counted at once, as the bits of one number.
_WORD_BITS = 64
# What takes a call for all channels is done for so many weights at a time.
BATCH_WEIGHTS = 1 << 20

# An error in codes below this share of the highest code may be nothing but float32's own rounding.
_ROUNDING = 2.0**-21

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Rounded:
    """What each scheme costs each channel.

    ``squared_error`` (weight units squared, summed) and ``zeroed_count`` (weights that come back
    as 0, those that were 0 included) are ``(schemes, channels)``; ``largest_error`` in weight
    units is ``(schemes,)``. What one scale for the tensor does is read off the sorted weights
    (``sorted_weights``): its largest error is 0 here, and so are its counts but those of the
    schemes whose errors are kept channel by channel.
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
        self.is_zero = (own_low == 0) & (own_high == 0)
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
    shape = len(schemes), columns.channel_count
    rounded = Rounded(np.zeros(shape), np.zeros(shape, dtype=np.int64), np.zeros(len(schemes)))
    order = sorted(range(len(schemes)), key=lambda index: _computation_key(schemes[index]))
    ways: dict[type[_Sums], list[int]] = {_ColumnSums: order}
    least = SOME_WEIGHTS if squares_only else MANY_WEIGHTS
    if columns.size >= LONG_ROW and columns.weights.size >= least:
        ways = {_RowSums: [], _ColumnSums: []}
        for index in order:
            in_blocks = schemes[index].granularity == "block"
            ways[_ColumnSums if in_blocks else _RowSums].append(index)
    for way, places in ways.items():
        if places:
            sums = way(columns, [schemes[index] for index in places], cuts[places], squares_only)
            sums.add_up()
            rounded.squared_error[places] = sums.squared_error
            rounded.zeroed_count[places] = sums.zeroed_count
            rounded.largest_error[places] = sums.largest_error
    return rounded


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


@dataclass(frozen=True, slots=True)
class _SchemeLayout:
    """What follows from schemes alone; one of each for every scheme, or where some of them lie.

    ``most_error``: no error is larger, in scales: half of the widest step, and what float32 adds to
    it. ``in_doubt``, ``(schemes, 1)``: a squared error up to which it may be float32's rounding.
    """

    numbers: _Numbers
    groups: list[_SchemeGroup]
    is_counted: list[bool]
    most_error: Doubles
    in_doubt: Floats
    may_tie: Bools
    tensor: slice
    channel: slice
    block: slice


@cache
def _layout_of(schemes: tuple[Scheme, ...]) -> _SchemeLayout:
    numbers = _numbers(schemes)
    granularities = [scheme.granularity for scheme in schemes]
    tensor = slice(0, granularities.count("tensor"))
    channel = slice(tensor.stop, len(schemes) - granularities.count("block"))
    return _SchemeLayout(
        numbers=numbers,
        groups=_scheme_groups(schemes),
        is_counted=[not scheme.is_per_tensor or scheme.name in INT8_SCHEMES for scheme in schemes],
        most_error=np.array(
            [_widest_step(scheme) / 2 + scheme.qmax * _ROUNDING for scheme in schemes]
        ),
        in_doubt=((numbers.qmax * _ROUNDING) ** 2).astype(np.float32),
        may_tie=(numbers.is_integer & ~numbers.is_symmetric & ~numbers.is_clipped)[:, 0],
        tensor=tensor,
        channel=channel,
        block=slice(channel.stop, len(schemes)),
    )


class _Sums:
    """The sums while they grow, and the grids of every scheme."""

    def __init__(
        self, columns: Columns, schemes: list[Scheme], cuts: Doubles, squares_only: bool
    ) -> None:
        count, channels = len(schemes), columns.channel_count
        self.squared_error = np.zeros((count, channels))
        self.zeroed_count = np.zeros((count, channels), dtype=np.int64)
        self.largest_error = np.zeros(count)

        self._columns, self._schemes, self._cuts = columns, schemes, cuts
        layout = _layout_of(tuple(schemes))
        self._numbers, self._groups = layout.numbers, layout.groups
        self._in_doubt, self._most_error, self._may_tie = (
            layout.in_doubt,
            layout.most_error,
            layout.may_tie,
        )
        self._squares_only = squares_only
        self._is_counted = [False] * count if squares_only else layout.is_counted
        self._tensor, self._channel, self._block = layout.tensor, layout.channel, layout.block
        self._unshared = slice(self._channel.start, count)
        self._range = columns.low.min(keepdims=True), columns.high.max(keepdims=True)
        tensor_numbers = self._numbers.of(self._tensor)
        self._tensor_scale, self._tensor_zero_point = scales_of(
            *self._range, schemes[self._tensor], cuts[self._tensor]
        )
        self._tensor_inverse = (1 / self._tensor_scale.astype(np.float64)).astype(np.float32)
        self._lowest, self._highest = (
            (codes - self._tensor_zero_point).astype(np.float32)
            for codes in (tensor_numbers.qmin, tensor_numbers.qmax)
        )
        low, high = self._range
        self._may_overflow = bool(high[0] - low[0] > LARGEST_WEIGHT / 8)
        self._tensor_fragile = self._fragile(self._tensor, low, self._tensor_scale)
        self._channel_scale = self._unshared_scale(self._channel, columns.low, columns.high)
        self._channel_fragile = self._fragile(self._channel, columns.low, self._channel_scale)

    def add_up(self) -> None:
        """Round the whole layer under every scheme."""
        raise NotImplementedError

    def _make_room(self, weight_count: int) -> None:
        """The buffers that every piece uses again."""
        self._ratio, self._level = (np.empty(weight_count, dtype=np.float32) for _ in range(2))
        has_floats = not self._numbers.is_integer.all()
        self._room = np.empty(weight_count if has_floats else 0, dtype=np.float32)

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
            # Halfway, or so near that float32 and float64, or a product and a quotient, disagree.
            near = np.float32(0.5) - self._numbers.qmax[rows][tied].astype(np.float32) / (1 << 21)
            fragile[tied] |= np.abs(bottom - np.rint(bottom)) >= near
        return fragile if fragile.any() else None

    def _by_definition(
        self, row: int, values: Floats, low: Doubles, high: Doubles
    ) -> tuple[Doubles, Bools]:
        """What some weights lose under a scheme, as ``quantization`` has it, and which become 0.

        Args:
            low, high: ends of their ranges, one for all or one for each.
        """
        scheme = self._schemes[row]
        scale, zero_point = (
            figures.reshape(low.shape)
            for figures in scales_of(low.ravel(), high.ravel(), [scheme], self._cuts[row : row + 1])
        )
        with np.errstate(over="ignore"):
            ratio = values / scale
            if scheme.number == "int":
                codes = np.clip(np.rint(ratio) + zero_point, scheme.qmin, scheme.qmax)
                returned = (codes - zero_point) * scale
            else:
                returned = float8_rounding(ratio, scheme.number) * scale
        np.clip(returned, -LARGEST_WEIGHT, LARGEST_WEIGHT, out=returned)
        return (returned - values).astype(np.float64), returned == 0


class _RowSums(_Sums):
    """Schemes with a scale per tensor or channel, over long channels as they lie."""

    def add_up(self) -> None:
        columns = self._columns
        # Parts of one length, so that none is short.
        width = -(-columns.size // -(-columns.size // MOST_COLUMNS))
        self._piece_rows = max(1, min(columns.channel_count, PIECE_WEIGHTS // width))
        self._make_room(self._piece_rows * width)
        padded = -(-width // _WORD_BITS) * _WORD_BITS
        self._truth = np.zeros((self._piece_rows, padded), dtype=np.bool_)
        together = max(1, BATCH_WEIGHTS // width)
        for first in range(0, columns.channel_count, together):
            rows = slice(first, min(first + together, columns.channel_count))
            for start in range(0, columns.size, width):
                self._add(rows, columns.weights[rows, start : start + width])
        if not self._squares_only:
            for row in range(self._channel.start, self._channel.stop):
                self.largest_error[row] = self._largest_error(row)

    def _add(self, rows: slice, values: Floats) -> None:
        """Round some channels, or parts of them, under every scheme."""
        shape = len(self._schemes), len(values)
        squares = np.empty(shape, dtype=np.float32)
        packed_width = 0 if self._squares_only else self._truth.shape[1] // _WORD_BITS
        zero_counts = np.zeros((*shape, packed_width), dtype=np.uint8)
        channel_scale = self._channel_scale[:, rows]
        for first in range(0, len(values), self._piece_rows):
            piece = slice(first, first + self._piece_rows)
            self._add_piece(
                values[piece], channel_scale[:, piece], squares[:, piece], zero_counts[:, piece]
            )
        zeroed = zero_counts.sum(axis=2, dtype=np.int64)

        # As for columns: sums of nothing but the rounding of x / s.
        again = squares <= self._in_doubt * values.shape[1]
        if self._tensor_fragile is not None:
            again[self._tensor] |= self._tensor_fragile
        if self._channel_fragile is not None:
            again[self._channel] |= self._channel_fragile[:, rows]
        again &= ~self._columns.is_zero[rows]
        sums = squares.astype(np.float64)
        sums[self._tensor] *= self._tensor_scale.astype(np.float64) ** 2
        sums[self._channel] *= channel_scale.astype(np.float64) ** 2
        for row in np.flatnonzero(again.any(axis=1)).tolist():
            where = again[row]
            lost, is_zero = self._rows_by_definition(row, values[where], rows, where)
            sums[row, where] = np.einsum("ij,ij->i", lost, lost)
            zeroed[row, where] = np.count_nonzero(is_zero, axis=1)
        self.squared_error[:, rows] += sums
        if not self._squares_only:
            self.zeroed_count[:, rows] += zeroed

    def _add_piece(
        self, values: Floats, channel_scale: Floats, squares: Floats, zero_counts: Bytes
    ) -> None:
        """Squares in scales, and zeros, of channels that fit into the cache under every scheme."""
        ratio, level = (
            buffer[: values.size].reshape(values.shape) for buffer in (self._ratio, self._level)
        )
        for row, scheme in enumerate(self._schemes):
            if row >= self._channel.start:
                scale = channel_scale[row - self._channel.start, :, np.newaxis]
                np.divide(values, scale, out=ratio)
            elif self._is_counted[row]:
                np.divide(values, self._tensor_scale[row], out=ratio)
            else:
                # Quicker, and where it puts a tie does not matter to squares.
                np.multiply(values, self._tensor_inverse[row], out=ratio)
            if scheme.number == "int":
                np.rint(ratio, out=level)
            else:
                room = self._room[: values.size].reshape(values.shape)
                float8_rounding(ratio, scheme.number, level, room)
            if scheme.clip == "mse":
                level.clip(self._lowest[row], self._highest[row], out=level)
            if self._is_counted[row]:
                self._count_zeros(level, zero_counts[row])
            np.subtract(level, ratio, out=level)
            np.vecdot(level, level, out=squares[row])

    def _count_zeros(self, level: Floats, counts: Bytes) -> None:
        """How many levels of each row are 0, 64 at a time."""
        rows, width = level.shape
        truth = self._truth[:rows]
        # What fills up the last word stays False.
        np.equal(level, 0, out=truth[:, :width])
        packed = np.packbits(truth.reshape(-1)).view(np.uint64)
        np.bitwise_count(packed.reshape(counts.shape), out=counts)

    def _rows_by_definition(
        self, row: int, values: Floats, rows: slice, where: Bools | Counts
    ) -> tuple[Doubles, Bools]:
        """:meth:`_by_definition` of some of these channels."""
        low, high = self._range
        if self._schemes[row].is_per_channel:
            ends = self._columns.low[rows], self._columns.high[rows]
            low, high = (end[where, np.newaxis] for end in ends)
        return self._by_definition(row, values, low, high)

    def _largest_error(self, row: int) -> float:
        """Of one scheme, from the few channels whose scale allows for it."""
        limits = self._most_error[row] * self._channel_scale[row - self._channel.start]
        order = np.argsort(-limits)
        largest, taken = 0.0, 0
        while taken < len(order) and limits[order[taken]] > largest:
            # One channel says which others matter.
            some = order[taken : taken + (MOST_TOGETHER if taken else 1)]
            taken += len(some)
            values = self._columns.weights[some]
            lost, _ = self._rows_by_definition(row, values, slice(None), some)
            largest = max(largest, float(np.abs(lost).max()))
        return largest


class _ColumnSums(_Sums):
    """Every scheme, over columns of up to 32 weights of a channel."""

    def add_up(self) -> None:
        columns = self._columns
        width = max(1, PIECE_WEIGHTS // columns.height)
        self._width = min(width, columns.channel_count * columns.each)
        # Small layers under several schemes at once, as many as fit into the buffers.
        self._together = max(1, min(len(self._schemes), width // self._width))
        most = columns.height * self._width * self._together
        self._make_room(most)
        self._truth = np.empty(most, dtype=np.bool_)
        for piece in columns.pieces():
            self._add(piece)
        # What fills up the last column of a channel is no weight.
        self.zeroed_count[self._is_counted] -= columns.padding

    def _add(self, piece: _Piece) -> None:
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

        first_unshared = self._unshared.start
        squares = np.empty((count, width), dtype=np.float32)
        zeroed = np.zeros((count, width), dtype=np.uint8)
        largest = np.zeros(scale.shape, dtype=np.float32)
        is_exceeded = self._is_exceeded(scale)
        for group in self._groups:
            for first in range(group.rows.start, group.rows.stop, self._together):
                rows = slice(first, min(first + self._together, group.rows.stop))
                unshared_rows = slice(first - first_unshared, rows.stop - first_unshared)
                step = self._tensor_scale[rows] if group.is_shared else scale[unshared_rows]
                level, ratio = self._round(values, group, rows, step)
                if any(self._is_counted[rows]):
                    truth = self._truth[: level.size].reshape(level.shape)
                    np.equal(level, 0, out=truth)
                    np.add.reduce(truth.view(np.uint8), axis=0, dtype=np.uint8, out=zeroed[rows])
                np.subtract(level, ratio, out=level)
                np.square(level, out=ratio)
                np.add.reduce(ratio, axis=0, out=squares[rows])
                if not group.is_shared and any(is_exceeded[unshared_rows]):
                    np.maximum.reduce(ratio, axis=0, out=largest[unshared_rows])

        # Where the error in codes is no larger than the rounding of x / s, the weights may lie on
        # the grid exactly; the step of a float grid grows with the value, and so does the doubt.
        again = squares <= self._in_doubt * len(values)
        if self._tensor_fragile is not None:
            again[self._tensor] |= self._tensor_fragile
        if self._channel_fragile is not None:
            again[self._channel] |= np.repeat(self._channel_fragile[:, channels], each, axis=1)
        if block_fragile is not None:
            again[self._block] |= block_fragile
        largest = np.sqrt(largest, out=largest)
        largest *= scale
        if again.any():
            again &= (low < 0) | (high > 0)
            for row in np.flatnonzero(again.any(axis=1)).tolist():
                where = again[row]
                low_ends, high_ends = self._ends(row, piece, where, low, high)
                lost, is_zero = self._by_definition(row, values[:, where], low_ends, high_ends)
                squares[row, where] = 0
                owner = np.flatnonzero(where) // each + channels.start
                np.add.at(self.squared_error[row], owner, np.einsum("ij,ij->j", lost, lost))
                zeroed[row, where] = np.count_nonzero(is_zero, axis=0)
                if row >= first_unshared:
                    largest[row - first_unshared, where] = np.abs(lost).max(axis=0)

        shared = slice(0, self._block.start)
        sums = _channel_sums(squares[shared], each)
        sums[self._tensor] *= self._tensor_scale.astype(np.float64) ** 2
        sums[self._channel] *= self._channel_scale[:, channels].astype(np.float64) ** 2
        self.squared_error[shared, channels] += sums
        if len(block_scale):
            wide = squares[self._block] * np.square(block_scale, dtype=np.float64)
            self.squared_error[self._block, channels] += _channel_sums(wide, each)
        if not self._squares_only:
            self.zeroed_count[:, channels] += _channel_counts(zeroed, each)
            self._raise_largest(largest)

    def _is_exceeded(self, scale: Floats) -> list[bool]:
        """Whether an error may exceed the largest so far, under each unshared scheme.

        Args:
            scale: of those schemes, ``(schemes, n)``.
        """
        if self._squares_only or not len(scale):
            return [False] * len(scale)
        limits = self._most_error[self._unshared] * scale.max(axis=1)
        exceeded: list[bool] = (limits > self.largest_error[self._unshared]).tolist()
        return exceeded

    def _raise_largest(self, errors: Floats) -> None:
        """Errors of the unshared schemes, ``(schemes, n)``."""
        largest = self.largest_error[self._unshared]
        np.maximum(largest, errors.max(axis=1), out=largest)

    def _ends(
        self, row: int, piece: _Piece, where: Bools, low: Floats, high: Floats
    ) -> tuple[Doubles, Doubles]:
        """Ends of the ranges that set the scales of some columns, of which these are their own."""
        scheme = self._schemes[row]
        if scheme.is_per_tensor:
            return self._range
        if scheme.is_per_channel:
            ends = self._columns.low[piece.channels], self._columns.high[piece.channels]
            first, last = (np.repeat(end, piece.each)[where] for end in ends)
            return first, last
        return (
            np.minimum(low[where], 0).astype(np.float64),
            np.maximum(high[where], 0).astype(np.float64),
        )

    def _round(
        self, values: Floats, group: _SchemeGroup, rows: slice, scale: Floats
    ) -> tuple[Floats, Floats]:
        """``round(x / s)`` and ``x / s`` for some schemes, ``(height, schemes, columns)``."""
        height, width = values.shape
        shape = (height, rows.stop - rows.start, width)
        size = math.prod(shape)
        ratio, level = self._ratio[:size].reshape(shape), self._level[:size].reshape(shape)
        np.divide(values[:, np.newaxis], scale, out=ratio)
        if group.number == "int":
            np.rint(ratio, out=level)
        else:
            float8_rounding(ratio, group.number, level, self._room[:size].reshape(shape))
        if group.is_clipped:
            level.clip(self._lowest[rows], self._highest[rows], out=level)
        return level, ratio


def _widest_step(scheme: Scheme) -> float:
    """The largest distance between two levels, in scales."""
    if scheme.number == "int":
        return 1.0
    largest, mantissa_bits, _ = FLOAT_FORMATS[scheme.number]
    return math.ldexp(1.0, math.frexp(largest)[1] - 1 - mantissa_bits)


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
