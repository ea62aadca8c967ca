"""What the nodes behind an input say about it: dimensions, rows of a table, the scale of pixels.

Graph values in, small facts out; nothing is changed, nothing is run.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantstore.graph.attributes import integer, number
from quantstore.graph.constants import constant_tensor, only_consumer
from quantstore.graph.fold import values_of
from quantstore.graph.tensors import dimensions
from quantstore.numerics.median import median
from quantstore.records import Doubles

# An input that lies behind these still has the layout of what comes next.
_ELEMENTWISE = ("Cast", "Sub", "Add", "Mul", "Div", "Identity", "Pad", "Clip", "QuantizeLinear")
# Behind these it still has the values.
_PASSING = (
    *("Cast", "Identity", "Pad", "Clip", "Transpose", "Split", "Squeeze", "Unsqueeze"),
    *("QuantizeLinear", "DequantizeLinear"),
)
_ROUNDING = ("Round", "Floor", "Ceil")
_FARTHEST = 8


@dataclass(frozen=True, slots=True)
class Prescribed:
    """``dimensions`` that a layer wants, None where it has no say, and which operator it is."""

    dimensions: list[int | None]
    op_type: str


@dataclass(frozen=True, slots=True)
class Normalized:
    """The model takes ``mean`` from its input and divides by ``deviation``, per channel or for all.

    ``is_learned``: a BatchNormalization does, so that both are those of the training data.
    """

    mean: Doubles
    deviation: Doubles
    is_learned: bool


def prescribed(value: ir.Value) -> Prescribed | None:
    """What the first layer behind an input wants, None where none is near."""
    for _ in range(_FARTHEST):
        for use in value.uses():
            prescription = _prescribed_by(use.node, use.idx)
            if prescription is not None:
                return prescription
        following = [use.node for use in value.uses() if use.node.op_type in _ELEMENTWISE]
        if not following:
            return None
        value = following[0].outputs[0]
    return None


def table_rows(value: ir.Value) -> int | None:
    """How many rows the smallest table has that integers look into; None where there is none."""
    row_counts: list[int] = []
    for use in value.uses():
        node = use.node
        if node.op_type == "Cast":
            rows = table_rows(node.outputs[0])
            if rows is not None:
                row_counts.append(rows)
        if node.op_type == "Gather" and use.idx == 1:
            tensor = constant_tensor(node.inputs[0])
            if tensor is not None and dimensions(tensor):
                row_counts.append(dimensions(tensor)[integer(node, "axis", 0)])
    return min(row_counts, default=None)


def normalized(value: ir.Value, channels: int, opset: int | None) -> Normalized | None:
    """What constants at an input do to its values, None where they do nothing."""
    gain, offset = np.ones(1), np.zeros(1)
    for node, source in _followed(value):
        if node.op_type == "BatchNormalization":
            mean, variance = (_per_channel(node, index, channels, opset) for index in (3, 4))
            if mean is None or variance is None:
                break
            deviation = np.sqrt(np.maximum(variance + number(node, "epsilon", 1e-5), 0))
            return _solved(gain / deviation, (offset - mean) / deviation, is_learned=True)
        if node.op_type in _PASSING:
            continue
        if node.op_type in _ROUNDING:
            # The constants before are the scale of a grid, not of the input.
            return None
        index = 1 if node.inputs[0] is source else 0
        constant = _per_channel(node, index, channels, opset)
        if constant is None:
            break
        if node.op_type == "Add":
            offset = offset + constant
        elif node.op_type == "Mul":
            gain, offset = gain * constant, offset * constant
        elif node.op_type == "Sub" and index == 1:
            offset = offset - constant
        elif node.op_type == "Div" and index == 1 and constant.all():
            gain, offset = gain / constant, offset / constant
        else:
            break
    if (gain == 1).all() and not offset.any():
        return None
    return _solved(gain, offset, is_learned=False)


def bias_ratio(value: ir.Value, opset: int | None) -> float | None:
    """Median over the channels of the first convolution of ``|bias| / norm of the filter``.

    A BatchNormalization behind it counts as folded. A large ratio says how large the values are
    that the convolution was trained for. None where the input meets no such convolution first.
    """
    conv = next((node for node, _ in _followed(value) if node.op_type == "Conv"), None)
    if conv is None:
        return None
    weights = values_of(conv.inputs[1], opset)
    if weights is None:
        return None
    count = len(weights)
    bias = _per_channel(conv, 2, count, opset) if len(conv.inputs) > 2 else np.zeros(1)
    norm = np.linalg.norm(weights.reshape(count, -1).astype(np.float64), axis=1)
    following = only_consumer(conv.outputs[0])
    if bias is not None and following is not None and following.op_type == "BatchNormalization":
        gamma, beta, mean, variance = (
            _per_channel(following, index, count, opset) for index in (1, 2, 3, 4)
        )
        if gamma is None or beta is None or mean is None or variance is None:
            return None
        factor = gamma / np.sqrt(np.maximum(variance, 0) + number(following, "epsilon", 1e-5))
        norm, bias = norm * np.abs(factor), beta + (bias - mean) * factor
    if bias is None:
        return None
    bias, alive = np.broadcast_to(np.abs(bias), norm.shape), norm > 0
    return median(bias[alive] / norm[alive]) if alive.any() else None


def _followed(value: ir.Value) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Nodes that an input passes one after another, with the value that each reads."""
    for _ in range(_FARTHEST):
        uses = [use.node for use in value.uses() if use.node.op_type not in ("Shape", "Size")]
        if len(uses) != 1:
            return
        (node,) = uses
        yield node, value
        if node.op_type not in (*_ELEMENTWISE, *_PASSING, "BatchNormalization"):
            return
        value = node.outputs[0]


def _per_channel(node: ir.Node, index: int, channels: int, opset: int | None) -> Doubles | None:
    """A constant operand as one number, or one for each channel; None where it is neither."""
    if index >= len(node.inputs):
        return None
    array = values_of(node.inputs[index], opset)
    if array is None or array.size not in (1, channels) or not np.isfinite(array).all():
        return None
    return array.astype(np.float64).ravel()


def _solved(gain: Doubles, offset: Doubles, *, is_learned: bool) -> Normalized | None:
    """From what is multiplied and added, where the result has zero mean and unit variance."""
    if not gain.all():
        return None
    return Normalized(-offset / gain, np.abs(1 / gain), is_learned)


def _prescribed_by(node: ir.Node, index: int) -> Prescribed | None:
    if index != 0 or len(node.inputs) < 2:
        return None
    tensor = constant_tensor(node.inputs[1])
    if tensor is None:
        return None
    shape = dimensions(tensor)
    wished: list[int | None] | None = None
    if node.op_type == "Conv" and len(shape) > 2:
        wished = [None, shape[1] * integer(node, "group", 1), *[None] * (len(shape) - 2)]
    elif node.op_type == "ConvTranspose" and len(shape) > 2:
        wished = [None, shape[0], *[None] * (len(shape) - 2)]
    elif node.op_type == "Gemm" and len(shape) == 2:
        wished = [None, shape[1] if integer(node, "transB", 0) else shape[0]]
    elif node.op_type == "MatMul" and len(shape) >= 2:
        wished = [None, shape[-2]]
    return None if wished is None else Prescribed(wished, node.op_type)
