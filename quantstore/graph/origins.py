"""What a value is made of: the stored tensors behind it, whatever computes it from them."""

from collections.abc import Iterator

import onnx_ir as ir

from quantstore.graph.constants import (
    ELEMENTWISE,
    SHAPING,
    Constant,
    find_constant,
    is_qonnx_quantizer,
)
from quantstore.graph.operators import STANDARD_DOMAINS
from quantstore.graph.tensors import FLOAT_TYPES, INTEGER_TYPES, dimensions

# Values that are looked at before the search ends.
_MOST_STEPS = 1_000


def tensors_of(value: ir.Value | None) -> list[ir.TensorProtocol]:
    """The stored tensors that a constant is made of, also where nobody knows how."""
    tensors: dict[int, ir.TensorProtocol] = {}
    for current in _behind(value):
        constant = find_constant(current)
        if isinstance(constant, Constant) and constant.is_stored:
            tensors[id(constant.tensor)] = constant.tensor
    return list(tensors.values())


def value_count(value: ir.Value | None) -> int:
    """How many numbers the kernels hold that a constant is made of."""
    return sum(tensor.size for tensor in tensors_of(value) if is_kernel(tensor))


def is_kernel(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor may hold weights: floats of two or more dimensions that say something."""
    return (
        tensor.dtype in FLOAT_TYPES
        and len(dimensions(tensor)) >= 2
        and tensor.size > max(dimensions(tensor), default=0)
    )


def constants_behind(value: ir.Value) -> Iterator[ir.Value]:
    """Constants that reach a value by way of arithmetic and reshaping alone."""
    waiting, seen = [value], {id(value)}
    while waiting and len(seen) < _MOST_STEPS:
        current = waiting.pop()
        if find_constant(current) is not None:
            yield current
            continue
        node = current.producer()
        if node is None or not (
            is_qonnx_quantizer(node)
            or (
                node.domain in STANDARD_DOMAINS
                and node.op_type in ELEMENTWISE | SHAPING | {"Identity"}
            )
        ):
            continue
        for source in node.inputs:
            if source is not None and id(source) not in seen:
                seen.add(id(source))
                waiting.append(source)


def constant_count(graph: ir.Graph) -> int:
    """How many numbers all constants of a graph hold, those of its subgraphs included."""
    tensors: dict[int, ir.TensorProtocol] = {}
    for inner in (graph, *graph.subgraphs()):
        for value in inner.initializers.values():
            if value.const_value is not None:
                tensors[id(value.const_value)] = value.const_value
        for node in inner:
            if node.op_type == "Constant" and node.outputs:
                for tensor in tensors_of(node.outputs[0]):
                    tensors[id(tensor)] = tensor
    numbers = (*FLOAT_TYPES, *INTEGER_TYPES)
    return sum(tensor.size for tensor in tensors.values() if tensor.dtype in numbers)


def _behind(value: ir.Value | None) -> Iterator[ir.Value]:
    waiting = [] if value is None else [value]
    seen = {id(value)}
    while waiting and len(seen) < _MOST_STEPS:
        current = waiting.pop()
        yield current
        constant = find_constant(current)
        if isinstance(constant, Constant) and constant.is_stored:
            continue
        node = current.producer()
        for source in () if node is None else node.inputs:
            if source is not None and id(source) not in seen:
                seen.add(id(source))
                waiting.append(source)
