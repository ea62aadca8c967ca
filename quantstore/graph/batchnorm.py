"""Folding a BatchNormalization into the convolution before it, as every int8 runtime does."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quantstore.graph.attributes import integer, number
from quantstore.graph.constants import constant_tensor, only_consumer
from quantstore.graph.tensors import read_array

FOLDABLE = ("Conv", "ConvTranspose")


@dataclass(frozen=True, slots=True)
class Folding:
    """``factor``: what each output channel of the convolution is multiplied by, float64."""

    node: ir.Node
    factor: npt.NDArray[np.float64]


def folding_after(node: ir.Node, output_channels: int, opset: int) -> Folding | None:
    """The BatchNormalization that can be folded into a convolution, None where none is safe.

    Safe means: it alone reads the convolution's output, normalizes per channel in inference mode,
    and its parameters are constant. ``factor = gamma / sqrt(variance + epsilon)``.

    Source: ONNX operator BatchNormalization
    (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html).
    """
    if node.op_type not in FOLDABLE or len(node.outputs) != 1:
        return None
    following = only_consumer(node.outputs[0])
    if (
        following is None
        or following.op_type != "BatchNormalization"
        or following.domain != node.domain
        or following.inputs[0] is not node.outputs[0]
        or len(following.inputs) < 5
        or not _is_inference(following, opset)
    ):
        return None
    gamma, variance = (constant_tensor(following.inputs[index]) for index in (1, 4))
    if gamma is None or variance is None:
        return None
    gamma_values, variance_values = (
        read_array(tensor).astype(np.float64) for tensor in (gamma, variance)
    )
    if gamma_values.shape != (output_channels,) or variance_values.shape != (output_channels,):
        return None
    epsilon = number(following, "epsilon", 1e-5)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = gamma_values / np.sqrt(variance_values + epsilon)
    return Folding(following, factor)


def _is_inference(node: ir.Node, opset: int) -> bool:
    """Whether the node uses stored statistics; older operator sets say so in other ways."""
    if opset < 7:
        return bool(integer(node, "is_test", 0))
    if opset < 9 and not integer(node, "spatial", 1):
        return False
    if opset < 14:
        return len([output for output in node.outputs if output.name]) == 1
    return not integer(node, "training_mode", 0)
