"""What onnx.checker says of a model, without its weights and without shape inference."""

import math
from collections.abc import Iterable

import onnx
from onnx import checker

# What the checker sees of a tensor beyond this size is its name and type alone.
_SMALL_BYTES = 1024
# The checker accepts them with a warning on standard output. In a domain that it does not know it
# leaves them alone.
_EXPERIMENTAL = frozenset(
    (
        *("ATen", "Affine", "ConstantFill", "Crop", "DynamicSlice", "GRUUnit", "GivenTensorFill"),
        *("ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh"),
    )
)
_EXPERIMENTAL_DOMAIN = "ai.onnx.experimental"
# Every string of the graph is in there: beyond this size the checker would take seconds.
_MOST_BYTES = 64 << 20


def complaint_of(model: onnx.ModelProto) -> str:
    """What the checker objects to, in its own words, empty where it accepts the model.

    It reads a copy of the graph in which every large tensor is empty: with the weights a model of
    more than 2 GB could not be checked at all.
    """
    try:
        content = _skeleton(model).SerializeToString()
        if len(content) > _MOST_BYTES:
            return ""
        checker.check_model(content)
    except (checker.ValidationError, ValueError, RuntimeError) as error:
        return _sentence(str(error))
    except Exception as error:
        # A message that cannot be written again, or an exception of C++ without a Python one.
        return _sentence(f"{type(error).__name__}: {error}")
    return ""


def _sentence(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines()]
    # The lines below say where; they repeat the whole node.
    return " ".join(line for line in lines[:3] if line)[:300].rstrip(". ") or "it gives no reason"


def _skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    small = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name not in ("graph", "functions", "training_info", "metadata_props"):
            _copy(small, field, value)
    _copy_graph(model.graph, small.graph)
    for function in model.functions:
        copy = small.functions.add()
        for field, value in function.ListFields():
            if field.name != "node":
                _copy(copy, field, value)
        _copy_nodes(function.node, copy)
        copy.opset_import.add(domain=_EXPERIMENTAL_DOMAIN, version=1)
    if len(small.opset_import) > 0:
        small.opset_import.add(domain=_EXPERIMENTAL_DOMAIN, version=1)
    return small


def _copy(target: object, field: object, value: object) -> None:
    """A field of a message into another message of its kind."""
    name = field.name  # type: ignore[attr-defined]
    if isinstance(value, str | bytes | int | float):
        setattr(target, name, value)
    elif hasattr(value, "CopyFrom"):
        getattr(target, name).CopyFrom(value)
    else:
        getattr(target, name).extend(value)


def _copy_graph(graph: onnx.GraphProto, small: onnx.GraphProto) -> None:
    for field, value in graph.ListFields():
        if field.name not in ("node", "initializer", "value_info"):
            _copy(small, field, value)
    for tensor in graph.initializer:
        _copy_tensor(tensor, small.initializer.add())
    _copy_nodes(graph.node, small)


def _copy_nodes(
    nodes: Iterable[onnx.NodeProto], scope: onnx.GraphProto | onnx.FunctionProto
) -> None:
    for node in nodes:
        small = scope.node.add()
        if node.ByteSize() <= _SMALL_BYTES and not any(map(_may_point_outside, node.attribute)):
            small.CopyFrom(node)
            _set_apart(small)
            continue
        for field, value in node.ListFields():
            if field.name != "attribute":
                _copy(small, field, value)
        for attribute in node.attribute:
            copy = small.attribute.add()
            for field, value in attribute.ListFields():
                if field.name not in ("t", "g", "tensors", "graphs"):
                    _copy(copy, field, value)
            if attribute.HasField("t"):
                _copy_tensor(attribute.t, copy.t)
            for tensor in attribute.tensors:
                _copy_tensor(tensor, copy.tensors.add())
            if attribute.HasField("g"):
                _copy_graph(attribute.g, copy.g)
            for graph in attribute.graphs:
                _copy_graph(graph, copy.graphs.add())
        _set_apart(small)


def _may_point_outside(attribute: onnx.AttributeProto) -> bool:
    """Whether data in other files hangs on it, which the checker would look for in its own folder.

    Graphs count: what lies in them is copied node by node.
    """
    tensors = (attribute.t, *attribute.tensors)
    has_graph = attribute.HasField("g") or len(attribute.graphs) > 0
    return has_graph or any(tensor.external_data for tensor in tensors)


def _set_apart(node: onnx.NodeProto) -> None:
    if node.op_type in _EXPERIMENTAL and node.domain in ("", "ai.onnx"):
        node.domain = _EXPERIMENTAL_DOMAIN


def _copy_tensor(tensor: onnx.TensorProto, small: onnx.TensorProto) -> None:
    # Protobuf writes a message to say how long it is, so that few are asked.
    is_small = math.prod(tensor.dims) <= _SMALL_BYTES and tensor.ByteSize() <= _SMALL_BYTES
    if is_small and not tensor.external_data:
        small.CopyFrom(tensor)
        return
    small.name = tensor.name
    small.data_type = tensor.data_type
    small.dims.append(0)
