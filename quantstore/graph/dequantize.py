"""Integer weights back to float: ``x = scale * (q - zero_point)``, with the file's own figures."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quantstore.errors import ModelFileError
from quantstore.graph.constants import constant_tensor, only_consumer
from quantstore.graph.operators import Operand
from quantstore.graph.tensors import INTEGER_TYPES, read_array


@dataclass(frozen=True, slots=True)
class Stored:
    """How a file stores integer weights. ``step`` is the scale, the largest of several."""

    scheme: str
    step: float


def dequantized(
    node: ir.Node, operand: Operand, tensor: ir.TensorProtocol, axis: int | None
) -> tuple[npt.NDArray[np.float32], Stored] | None:
    """The weights of a dynamically quantized node, None where their scale cannot be found.

    The form is onnxruntime's ``quantize_dynamic``: DynamicQuantizeLinear, ConvInteger or
    MatMulInteger, Cast, Mul(product, Mul(x_scale, w_scale)). The zero point is an input of the
    integer node; the scale hides in the inner Mul.
    """
    if tensor.dtype not in INTEGER_TYPES:
        return None
    scale_tensor = weight_scale(node)
    if scale_tensor is None:
        return None
    codes = read_array(tensor)
    scale = read_array(scale_tensor).astype(np.float32)
    zero_point = np.zeros(1, dtype=np.float32)
    if operand.zero_point is not None and operand.zero_point < len(node.inputs):
        given = node.inputs[operand.zero_point]
        if given is not None:
            zero_tensor = constant_tensor(given)
            if zero_tensor is None:
                return None
            zero_point = read_array(zero_tensor).astype(np.float32)
    per_channel = scale.size > 1 or zero_point.size > 1
    stored = Stored(
        scheme=f"{tensor.dtype.name.lower()} per {'channel' if per_channel else 'tensor'}",
        step=float(scale.max()),
    )
    weights = (codes.astype(np.float32) - _along(zero_point, axis, codes, node)) * _along(
        scale, axis, codes, node
    )
    return weights.astype(np.float32), stored


def weight_scale(node: ir.Node) -> ir.TensorProtocol | None:
    """The constant factor of the inner Mul that rescales the integer product."""
    cast = _only_follower(node)
    if cast is None or cast.op_type != "Cast":
        return None
    rescale = _only_follower(cast)
    if rescale is None or rescale.op_type != "Mul":
        return None
    for value in rescale.inputs:
        if value is None or value is cast.outputs[0]:
            continue
        product = value.producer()
        if product is None or product.op_type != "Mul":
            continue
        for factor in product.inputs:
            tensor = constant_tensor(factor)
            if tensor is not None:
                return tensor
    return None


def _only_follower(node: ir.Node) -> ir.Node | None:
    return only_consumer(node.outputs[0]) if node.outputs else None


def _along(
    values: npt.NDArray[np.float32], axis: int | None, codes: npt.NDArray[np.generic], node: ir.Node
) -> npt.NDArray[np.float32]:
    """Values shaped so that they broadcast along the channel axis of the codes."""
    if values.size == 1:
        return values.reshape(())
    if axis is None or values.size != codes.shape[axis]:
        raise ModelFileError(
            f"node {node.name!r} has {values.size} weight scales or zero points for tensor of"
            f" shape {codes.shape}",
            "export the model again",
        )
    return values.reshape([-1 if position == axis else 1 for position in range(codes.ndim)])
