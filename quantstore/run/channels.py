"""Along which axis a tensor has channels, and how well each of them comes through a rounding.

The large channels of a tensor carry its SQNR; what a network loses first is in the small ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quantstore.numerics.quantization import sqnr_db, summarize_channels
from quantstore.records import Array, Doubles
from quantstore.run.network import Network

_FIRST = (
    *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize"),
    *("BatchNormalization", "InstanceNormalization", "GroupNormalization"),
)
_LAST = ("MatMul", "Gemm", "LSTM", "GRU", "RNN", "LayerNormalization", "Attention")
# Operators whose result has the channels of what they read, wherever these are.
_KEEPING = (
    *("Add", "Sub", "Mul", "Div", "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "Erf"),
    *("HardSigmoid", "HardSwish", "Gelu", "Concat", "Pad", "Softmax", "Identity", "Sqrt", "Exp"),
    *("Pow", "Neg", "Abs", "Elu", "Selu", "Softplus", "Cast", "Slice"),
)


@dataclass(frozen=True, slots=True)
class ChannelFigures:
    """SQNR over the channels of a tensor that are not all zero; NaN and 0 where it has none."""

    p10_db: float
    below_10db: int
    count: int


@dataclass(slots=True)
class ChannelSums:
    """Energy of each channel, and of its error, over all samples; None before the first."""

    energy: Doubles | None = None
    squared_error: Doubles | None = None

    def add(self, x: Array, y: Array, axis: int | None) -> None:
        """Take in one sample's tensors, of one shape; without an axis there are no channels."""
        if axis is None or x.ndim <= axis:
            return
        others = tuple(index for index in range(x.ndim) if index != axis)
        with np.errstate(all="ignore"):
            error = np.subtract(y, x, dtype=np.float64)
            energy = np.sum(np.square(x, dtype=np.float64), axis=others)
            squared_error = np.sum(np.square(error, out=error), axis=others)
        if self.energy is None or self.squared_error is None:
            self.energy, self.squared_error = energy, squared_error
        elif self.energy.shape == energy.shape:
            self.energy += energy
            self.squared_error += squared_error

    def summary(self) -> ChannelFigures:
        """What the channels come to."""
        if self.energy is None or self.squared_error is None:
            return ChannelFigures(np.nan, 0, 0)
        usable = np.isfinite(self.energy) & np.isfinite(self.squared_error)
        energy, squared_error = self.energy[usable], self.squared_error[usable]
        each = np.where(energy > 0, sqnr_db(energy, squared_error), np.nan)
        summary = summarize_channels(each)
        return ChannelFigures(summary.p10_db, summary.below_10db, int(np.sum(energy > 0)))


def channel_axes(network: Network) -> Mapping[str, int]:
    """The channel axis of every tensor that has attribute: of the layer that made it, or before it.

    A convolution puts its channels second, a product or a recurrent layer last; what follows
    element by element keeps them there, and a Transpose takes them along.
    """
    axis_of: dict[str, int] = {}
    for node in network.model.graph.node:
        before = [name for name in node.input if name in axis_of]
        for name in node.output:
            facts = network.tensors.get(name)
            rank = None if facts is None or facts.shape is None else len(facts.shape)
            if rank is None or rank < 2 or facts is None or not facts.is_float:
                continue
            if node.op_type in _FIRST:
                axis_of[name] = 1
            elif node.op_type in _LAST:
                axis_of[name] = rank - 1
            elif node.op_type in _KEEPING and before and axis_of[before[0]] < rank:
                axis_of[name] = axis_of[before[0]]
            elif node.op_type == "Transpose" and before:
                order = next(
                    (
                        list(attribute.ints)
                        for attribute in node.attribute
                        if attribute.name == "perm"
                    ),
                    None,
                )
                order = order or list(range(rank))[::-1]
                axis_of[name] = order.index(axis_of[before[0]])
    return axis_of
