"""Folding what follows a convolution into its weights, as every int8 runtime does.

A BatchNormalization, or a Mul by a constant, multiplies each output channel by a factor; if nothing
else reads the convolution's output, its weights can be multiplied instead.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantstore.graph.attributes import integer, number
from quantstore.graph.constants import Constant, find_constant, only_consumer
from quantstore.graph.fold import values_of
from quantstore.graph.operators import STANDARD_DOMAINS
from quantstore.records import Doubles

FOLDABLE = ("Conv", "ConvTranspose")
# A normalization and a factor before and behind it; exporters write no longer chains.
_MOST_FOLDED = 4


@dataclass(frozen=True, slots=True)
class Folding:
    """``factor``: what each output channel of the convolution is multiplied by, float64.

    ``node`` is the last of ``nodes``: what comes out there is what the folded convolution gives.
    """

    nodes: tuple[ir.Node, ...]
    factor: Doubles

    @property
    def node(self) -> ir.Node:
        return self.nodes[-1]

    @property
    def normalization(self) -> ir.Node | None:
        """The BatchNormalization among them."""
        return next((node for node in self.nodes if node.op_type == "BatchNormalization"), None)

    @property
    def has_mul(self) -> bool:
        return any(node.op_type == "Mul" for node in self.nodes)


def folding_after(
    node: ir.Node, output_channels: int, opset: int, *, rank: int | None = None
) -> Folding | None:
    """What can be folded into a convolution, None where nothing can safely.

    Safe means: each node alone reads what is before it, and is either a BatchNormalization that
    normalizes per channel in inference mode with constant parameters, or a Mul by a constant that
    is one number, or one for each channel.

    Args:
        rank: of the convolution's output, the same as that of its weights.
    """
    if node.op_type not in FOLDABLE or len(node.outputs) != 1:
        return None
    nodes: list[ir.Node] = []
    factor = np.ones(output_channels)
    value = node.outputs[0]
    while len(nodes) < _MOST_FOLDED:
        following = only_consumer(value)
        if following is None or following.domain not in STANDARD_DOMAINS:
            break
        node_factor: Doubles | None = None
        if following.op_type == "BatchNormalization" and "BatchNormalization" not in (
            other.op_type for other in nodes
        ):
            node_factor = _normalization_factor(following, value, output_channels, opset)
        elif following.op_type == "Mul" and rank is not None:
            node_factor = _mul_factor(following, value, output_channels, opset, rank)
        if node_factor is None or len(following.outputs) == 0:
            break
        with np.errstate(over="ignore", invalid="ignore"):
            factor = factor * node_factor
        nodes.append(following)
        value = following.outputs[0]
    return Folding(tuple(nodes), factor) if nodes else None


def _normalization_factor(
    node: ir.Node, value: ir.Value, output_channels: int, opset: int
) -> Doubles | None:
    """``gamma / sqrt(variance + epsilon)``.

    Source: ONNX operator BatchNormalization
    (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html).
    """
    if node.inputs[0] is not value or len(node.inputs) < 5 or not _is_inference(node, opset):
        return None
    gamma, variance = (
        _small(node.inputs[index], output_channels, opset, shape=(output_channels,))
        for index in (1, 4)
    )
    if gamma is None or variance is None:
        return None
    epsilon = number(node, "epsilon", 1e-5)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor: Doubles = gamma / np.sqrt(variance + epsilon)
    return factor


def _mul_factor(
    node: ir.Node, value: ir.Value, output_channels: int, opset: int, rank: int
) -> Doubles | None:
    """What a Mul multiplies each channel by; the channels are axis 1 of the output."""
    if len(node.inputs) != 2 or len(node.outputs) != 1:
        return None
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    factor = _small(other, output_channels, opset)
    if factor is None or factor.ndim > rank or not np.isfinite(factor).all():
        return None
    # Aligned at the last axis, as ONNX broadcasts.
    aligned = (1,) * (rank - factor.ndim) + factor.shape
    is_per_channel = aligned[1] == output_channels and math.prod(aligned) == output_channels
    if factor.size != 1 and not is_per_channel:
        return None
    return np.broadcast_to(factor.reshape(-1), (output_channels,))


def _small(
    value: ir.Value | None, most: int, opset: int, *, shape: tuple[int, ...] | None = None
) -> Doubles | None:
    """A constant of a number for each channel at most; larger ones are not even read."""
    constant = find_constant(value)
    if not isinstance(constant, Constant) or constant.tensor.size > max(1, most):
        return None
    parameter = values_of(value, opset)
    if parameter is None or (shape is not None and parameter.shape != shape) or not parameter.size:
        return None
    try:
        return parameter.astype(np.float64)
    except (TypeError, ValueError):
        return None


def _is_inference(node: ir.Node, opset: int) -> bool:
    """Whether the node uses stored statistics; older operator sets say so in other ways."""
    if opset < 7:
        return bool(integer(node, "is_test", 0))
    if opset < 9 and not integer(node, "spatial", 1):
        return False
    if opset < 14:
        return len([output for output in node.outputs if output.name]) == 1
    return not integer(node, "training_mode", 0)
