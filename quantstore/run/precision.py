"""A model in half precision in, the same in single precision out, in place.

int8 hardware does not care in which float a network was stored, onnxruntime's CPU kernels do: many
operators have none for half precision. Every half is a single, so that nothing is lost.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from quantstore.graph.tensors import read_array

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
# Attributes that name a type by its number in ONNX.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


def in_single_precision(model: ir.Model) -> bool:
    """Turn every half precision float of a model into a single; whether there was one."""
    count = 0
    for value in _values(model):
        if value.dtype in _HALVES:
            value.dtype = ir.DataType.FLOAT
            count += 1
        if value.const_value is not None and value.const_value.dtype in _HALVES:
            value.const_value = _single(value.const_value)
            count += 1
    for node in model.graph.all_nodes():
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR:
                tensor = attribute.as_tensor()
                if tensor.dtype in _HALVES:
                    node.attributes[name] = ir.AttrTensor(name, _single(tensor))
                    count += 1
            elif (
                name in _TYPE_ATTRIBUTES
                and attribute.type == ir.AttributeType.INT
                and attribute.as_int() in _HALVES
            ):
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
                count += 1
    return count > 0


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
        for node in graph:
            yield from node.outputs


def _single(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor(np.asarray(read_array(tensor), np.float32), name=tensor.name)
