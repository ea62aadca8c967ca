"""Integer weights back to float: ``x = scale * (q - zero_point)``, with the file's own figures.

Source: ONNX operator DequantizeLinear
(https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantstore.errors import ModelFileError
from quantstore.graph.attributes import integer
from quantstore.graph.constants import find_constant, only_consumer
from quantstore.records import Array, Floats

_AGAIN = "export the model again"


@dataclass(frozen=True, slots=True)
class Stored:
    """How a file stores integer weights. ``step`` is the scale, the largest of several."""

    scheme: str
    step: float | None


def dequantize(node: ir.Node, inputs: Sequence[Array | None]) -> Array:
    """What a DequantizeLinear node gives, in the type of its scale."""
    codes, scale = (inputs[index] if index < len(inputs) else None for index in (0, 1))
    if codes is None or scale is None:
        raise ModelFileError(f"node {node.name!r} lacks its codes or its scale", _AGAIN)
    zero_point = inputs[2] if len(inputs) > 2 else None
    axis = integer(node, "axis", 1)
    axis = axis + codes.ndim if axis < 0 else axis
    block = integer(node, "block_size", 0)
    return restored(node, codes, scale, zero_point, axis=axis, block=block).astype(scale.dtype)


def stored_by(node: ir.Node, codes: ir.TensorProtocol, scale: Array | None) -> Stored:
    """How the weights are stored that a DequantizeLinear brings back."""
    block = integer(node, "block_size", 0)
    return stored_as(codes.dtype, scale, block=block)


def stored_as(dtype: ir.DataType, scale: Array | None, *, block: int = 0) -> Stored:
    """What to say of codes of this type; ``scale`` None where no single factor brings them back."""
    name = dtype.numpy().name
    if scale is None or scale.size == 0:
        return Stored(name, None)
    sharing = f"block of {block}" if block else "channel" if scale.size > 1 else "tensor"
    return Stored(f"{name} per {sharing}", float(scale.astype(np.float32).max()))


def restored(
    node: ir.Node,
    codes: Array,
    scale: Array,
    zero_point: Array | None,
    *,
    axis: int | None,
    block: int = 0,
) -> Floats:
    """``scale * (codes - zero_point)`` in float32.

    Args:
        axis: of ``codes``, the one that scales and zero points run along where there are several.
        block: how many codes along ``axis`` share a scale; 0 where it is none or all.
    """
    weights = codes.astype(np.float32)
    if zero_point is not None and zero_point.size:
        weights -= _along(zero_point, codes, axis, block, node)
    with np.errstate(over="ignore", invalid="ignore"):
        weights *= _along(scale, codes, axis, block, node)
    return weights


def weight_scale(node: ir.Node) -> ir.Value | None:
    """The constant factor of the inner Mul that rescales the integer product.

    The form is onnxruntime's ``quantize_dynamic``: DynamicQuantizeLinear, ConvInteger or
    MatMulInteger, Cast, Mul(product, Mul(x_scale, w_scale)). Its early releases add the bias of a
    convolution in between, in integers.
    """
    cast = _only_follower(node)
    if cast is not None and cast.op_type == "Add":
        cast = _only_follower(cast)
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
            if factor is not None and find_constant(factor) is not None:
                return factor
    return None


def _only_follower(node: ir.Node) -> ir.Node | None:
    return only_consumer(node.outputs[0]) if node.outputs else None


def _along(values: Array, codes: Array, axis: int | None, block: int, node: ir.Node) -> Floats:
    """Scales or zero points in a shape that broadcasts to that of the codes."""
    values = values.astype(np.float32)
    if values.size == 1:
        return values.reshape(())
    if block and axis is not None and axis < codes.ndim == values.ndim:
        length = codes.shape[axis]
        others = [size for index, size in enumerate(codes.shape) if index != axis]
        if values.shape[axis] == -(-length // block) and others == [
            size for index, size in enumerate(values.shape) if index != axis
        ]:
            return np.take(values, np.arange(length) // block, axis=axis)
    elif values.ndim == codes.ndim > 1:
        # A row or a column for each matrix of a stack, as QLinearMatMul has it.
        if all(
            size in (1, code_size)
            for size, code_size in zip(values.shape, codes.shape, strict=True)
        ):
            return values
    elif axis is not None and axis < codes.ndim and values.shape == (codes.shape[axis],):
        return values.reshape([-1 if position == axis else 1 for position in range(codes.ndim)])
    raise ModelFileError(
        f"node {node.name!r} has {values.size} weight scales or zero points for tensor of"
        f" shape {codes.shape}",
        _AGAIN,
    )
