"""Sparse tensors made dense, because onnx-ir does not know them.

They are rare, and small in practice; limits.py refuses those that would grow beyond measure before
anything here allocates memory for one.
"""

import numpy as np
import onnx
from onnx import numpy_helper

from quantstore.errors import ModelFileError
from quantstore.graph.limits import subgraphs

_AGAIN = "export the model again"


def make_dense(model: onnx.ModelProto) -> None:
    """Turn every sparse initializer and sparse Constant of a model into a dense one, in place.

    Raises:
        ModelFileError: indices that lie outside the tensor, or do not match its values.
    """
    _make_graph_dense(model.graph)
    for function in model.functions:
        for node in function.node:
            _make_node_dense(node)


def _make_graph_dense(graph: onnx.GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse))
    del graph.sparse_initializer[:]
    for node in graph.node:
        _make_node_dense(node)


def _make_node_dense(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.SPARSE_TENSOR and not attribute.ref_attr_name:
            if node.op_type == "Constant":
                attribute.t.CopyFrom(_dense(attribute.sparse_tensor))
                attribute.name = "value"
            attribute.type = onnx.AttributeProto.TENSOR
            attribute.ClearField("sparse_tensor")
        for graph in subgraphs(attribute):
            _make_graph_dense(graph)


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    name, shape = sparse.values.name, tuple(sparse.dims)
    try:
        values = numpy_helper.to_array(sparse.values).ravel()
        indices = numpy_helper.to_array(sparse.indices).astype(np.int64)
        dense = np.zeros(shape, dtype=values.dtype)
        if indices.ndim == 2:
            # One row of coordinates for each value, instead of one position in the flat tensor.
            dense[tuple(indices.T)] = values
        else:
            dense.reshape(-1)[indices] = values
        return numpy_helper.from_array(dense, name)
    except (ValueError, IndexError, TypeError, OverflowError, OSError) as error:
        raise ModelFileError(f"sparse tensor {name!r} cannot be read ({error})", _AGAIN) from error
