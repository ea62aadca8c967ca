"""How well the weights that read each input channel survive: one layer in, SQNR per input channel.

Scales belong to output channels, so that the weights of one input channel can all be rounded away
while every output channel looks fine: a convolution behind a Concat whose branches differ in size
by a factor of a thousand has weights that differ as much the other way. What is lost is then
everything that one of the branches had to say.
"""

from collections.abc import Callable

import numpy as np

from quantstore.layer import Layer
from quantstore.numerics.quantization import (
    LARGEST_WEIGHT,
    LOST_CHANNEL_DB,
    blocks_of,
    dead_channels,
    dequantize,
    exact_scale,
    grid_for,
    quantize,
    shared_ends,
    sqnr_db,
    summarize_channels,
)
from quantstore.records import Doubles, Floats
from quantstore.schemes import INT8_CHANNEL_SYMMETRIC, INT8_TENSOR_SYMMETRIC, Scheme

# Those that integer kernels take, for which every input channel is measured.
INPUT_SCHEMES = (INT8_TENSOR_SYMMETRIC.name, INT8_CHANNEL_SYMMETRIC.name)

# Weights that are rounded together: they and two buffers of their size fit into a core's cache.
_PIECE_WEIGHTS = 1 << 16
# Largest weights whose squares, and those of their rounding errors, float32 has room for.
_COMMON_LARGEST = (2.0**-20, 2.0**20)
# A layer loses inputs where more than one in so many are lost. Networks that keep their accuracy in
# int8 have layers where one in five is: weights that training shrank to nothing much.
FEW_LOST = 4
_LOST_RATIO = 10 ** (LOST_CHANNEL_DB / 10)


class InputChannels:
    """The weights of one layer, looked at from its inputs.

    Args:
        weights: ``(output channels, weights per channel)``, finite; a row holds the same number of
            weights for each input channel of its group, side by side.
        groups: of output channels, in order, each of which reads input channels of its own.
        inputs: how many input channels a group reads.
        sharing: how many output channels share a scale (see ``quantization.shared_ends``).
    """

    def __init__(self, weights: Floats, *, groups: int, inputs: int, sharing: int = 1) -> None:
        self._weights, self._groups, self._inputs = weights, groups, inputs
        low = weights.min(axis=1, initial=0).astype(np.float64)
        high = weights.max(axis=1, initial=0).astype(np.float64)
        self._range = float(low.min(initial=0)), float(high.max(initial=0))
        self._low, self._high = shared_ends(low, high, sharing)
        # Squares of what is relative to the largest weight neither overflow nor vanish; those of
        # weights as networks have them do not anyway.
        largest = max(-self._range[0], self._range[1]) or 1.0
        self._unit = 1.0 if _COMMON_LARGEST[0] <= largest <= _COMMON_LARGEST[1] else largest
        by_group = weights.reshape(groups, weights.shape[0] // groups, -1)
        per_input = (groups * inputs, -1)
        self._is_dead = dead_channels(
            by_group.min(axis=1).reshape(per_input).min(axis=1),
            by_group.max(axis=1).reshape(per_input).max(axis=1),
        )
        self._energy = self._sums(lambda rows, _, out: np.copyto(out, rows))
        self._alive_energy = self._energy[~self._is_dead]
        self._weights_of_each = weights.size // (groups * inputs)

    @property
    def count(self) -> int:
        """How many input channels there are."""
        return self._groups * self._inputs

    def sqnr_db(self, scheme: Scheme) -> Doubles:
        """SQNR of the weights that read each input channel, in dB; NaN for a dead one.

        Args:
            scheme: symmetric integers, unclipped.
        """

        def lose(rows: Floats, first: int, out: Floats) -> None:
            self._restore(rows, first, scheme, out)
            np.subtract(out, rows, out=out)

        noise = self._sums(lose)
        return np.where(self._is_dead, np.nan, sqnr_db(self._energy, noise))

    def survive(self, scheme: Scheme) -> bool:
        """Whether three in four input channels reach 10 dB, those that are dead left out."""
        energy = self._alive_energy
        if not energy.size:
            return True
        # Half a step everywhere is the most that can be lost: quick, and mostly enough. A block's
        # scale is at most its channel's.
        half = self._scales(scheme) / (2 * self._unit)
        noise = float(np.square(half).max()) * self._weights_of_each
        if np.count_nonzero(energy < _LOST_RATIO * noise) * FEW_LOST <= energy.size:
            return True
        lost = summarize_channels(self.sqnr_db(scheme)).below_10db
        return lost * FEW_LOST <= energy.size

    def _scales(self, scheme: Scheme) -> Doubles:
        if scheme.is_per_tensor:
            low, high = (np.array([end]) for end in self._range)
        else:
            low, high = self._low, self._high
        return exact_scale(low, high, scheme.qmax, is_symmetric=True)

    def _restore(self, rows: Floats, first: int, scheme: Scheme, out: Floats) -> None:
        """Some rows, from the first on, as they come back from the grid."""
        if scheme.granularity == "block":
            blocks = blocks_of(rows)
            grid = grid_for(blocks, scheme)
            restored = dequantize(quantize(blocks, grid), grid)
            out[...] = restored.reshape(len(rows), -1)[:, : rows.shape[1]]
            return
        scale = self._scales(scheme).astype(np.float32)[:, np.newaxis]
        if not scheme.is_per_tensor:
            scale = scale[first : first + len(rows)]
        np.divide(rows, scale, out=out)
        np.rint(out, out=out)
        out *= scale
        if self._range[1] - self._range[0] > LARGEST_WEIGHT / 4:
            np.clip(out, -LARGEST_WEIGHT, LARGEST_WEIGHT, out=out)

    def _sums(self, write: Callable[[Floats, int, Floats], None]) -> Doubles:
        """Sums of squares over all weights of each input channel, relative to the unit.

        Args:
            write: what is to be squared, of some rows that begin at a place, into an array.
        """
        rows, columns = self._weights.shape
        in_group = rows // self._groups
        step = min(in_group, max(1, _PIECE_WEIGHTS // max(1, columns)))
        sums = np.zeros((self._groups, columns))
        room = np.empty((step, columns), dtype=np.float32)
        for group in range(self._groups):
            end = (group + 1) * in_group
            for first in range(group * in_group, end, step):
                some = self._weights[first : min(first + step, end)]
                relative = room[: len(some)]
                write(some, first, relative)
                if self._unit != 1:
                    relative /= np.float32(self._unit)
                sums[group] += np.einsum("ij,ij->j", relative, relative)
        per_input: Doubles = sums.reshape(self.count, -1).sum(axis=1)
        return per_input


def input_channels(layer: Layer) -> InputChannels | None:
    """The input channels of a layer; None where it has none that its weights tell apart.

    Convolutions, transposed ones and matrix products have them. In a depthwise convolution they
    are the output channels, and a layer of one output says nothing that its channel does not.
    """
    groups, inputs = _groups_and_inputs(layer)
    if not inputs:
        return None
    weights = layer.by_output_channel()
    finite = np.isfinite(weights)
    clean = weights if finite.all() else np.where(finite, weights, np.float32(0))
    return InputChannels(clean, groups=groups, inputs=inputs, sharing=layer.scale_sharing)


def input_channel_count(layer: Layer) -> int:
    """How many input channels a layer has; 0 where :func:`input_channels` gives None."""
    groups, inputs = _groups_and_inputs(layer)
    return groups * inputs


def _groups_and_inputs(layer: Layer) -> tuple[int, int]:
    """Groups, and input channels of each; no inputs where they are not told apart."""
    groups, sharing = layer.group_count, layer.scale_sharing
    rows, columns = layer.weights.shape[0] * sharing, layer.weights.shape[1] // sharing
    if layer.op_family == "conv" and layer.channel_axis == 0:
        inputs = layer.shape[1]
    elif layer.op_family == "conv_transpose" and layer.channel_axis == 1:
        inputs = layer.shape[0] // groups
    elif layer.op_family == "linear" and len(layer.shape) == 2 and layer.channel_axis is not None:
        groups, inputs = 1, columns
    else:
        return groups, 0
    is_told_apart = rows > 1 and inputs > 1 and columns % inputs == 0 and rows % groups == 0
    return groups, inputs if is_told_apart else 0
