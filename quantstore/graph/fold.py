"""The values of constants: stored tensors read, and what the graph makes of them computed.

Shapes and arithmetic are left to onnx's own reference evaluator, one node at a time; what a
DequantizeLinear does is computed here, in the types that a runtime uses. Nothing is computed that
would be much larger than the tensors it is made of.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx import helper

from quantstore.errors import ModelFileError
from quantstore.graph.constants import (
    ELEMENTWISE,
    Constant,
    find_constant,
    is_dequantizer,
    is_qonnx_quantizer,
    same_as,
)
from quantstore.graph.dequantize import dequantize
from quantstore.graph.qonnx import quantized
from quantstore.graph.tensors import read_array
from quantstore.records import Array

# No constant grows beyond this, or beyond twice the tensors it is made of: a file of a few bytes
# can ask for any size.
MOST_ELEMENTS = 1 << 20
MOST_NODES = 1_000
# Products of a MatMul: what a file of a few megabytes could ask for takes minutes.
MOST_PRODUCTS = 1 << 30


class UnfoldableError(Exception):
    """A constant that is not computed, and why."""


def values_of(value: ir.Value | None, opset: int | None) -> Array | None:
    """The values of a constant in its own type and shape; None where it is none, or too large.

    Raises:
        ModelFileError: data that is missing or does not match its declared shape.
    """
    constant = find_constant(value)
    if not isinstance(constant, Constant):
        return None
    try:
        return folded(constant, opset)
    except UnfoldableError:
        return None


def folded(constant: Constant, opset: int | None) -> Array:
    """The values of a constant in its own type and shape.

    Raises:
        ModelFileError: data that is missing or does not match its declared shape.
        UnfoldableError: it takes more steps or grows larger than anything a network needs, or the
            reference evaluator does not compute it.
    """
    if constant.is_stored:
        return read_array(constant.tensor)
    nodes, leaves = _made_of(constant.value)
    stored = {id(leaf.tensor): leaf.tensor.size for leaf in leaves.values()}
    most = max(MOST_ELEMENTS, 2 * sum(stored.values()))
    arrays: dict[int, Array] = {}
    for key, leaf in leaves.items():
        arrays[key] = read_array(leaf.tensor)
    for node in nodes:
        inputs = [None if source is None else arrays[_key(source)] for source in node.inputs]
        outputs = _computed(node, inputs, opset, most)
        for output, array in zip(node.outputs, outputs, strict=False):
            arrays[id(output)] = array
    return arrays[_key(constant.value)]


def _key(value: ir.Value) -> int:
    """Of a value that some nodes pass on unchanged, the first."""
    constant = find_constant(value)
    return id(constant.value) if isinstance(constant, Constant) else id(value)


def _made_of(value: ir.Value) -> tuple[list[ir.Node], dict[int, Constant]]:
    """The nodes to compute, each behind those it reads, and the stored tensors they begin with."""
    nodes: dict[int, ir.Node] = {}
    leaves: dict[int, Constant] = {}
    waiting: list[tuple[ir.Value, bool]] = [(value, False)]
    while waiting:
        current, is_ready = waiting.pop()
        constant = find_constant(current)
        if not isinstance(constant, Constant):
            raise UnfoldableError("it is computed when the network runs")
        if constant.is_stored:
            leaves[id(constant.value)] = constant
            continue
        node = constant.value.producer()
        if node is None or id(node) in nodes:
            continue
        if is_ready:
            nodes[id(node)] = node
            if len(nodes) > MOST_NODES:
                raise UnfoldableError(f"it takes more than {MOST_NODES} nodes to compute")
            continue
        waiting.append((current, True))
        waiting.extend((source, False) for source in node.inputs if source is not None)
    return list(nodes.values()), leaves


def _computed(
    node: ir.Node, inputs: Sequence[Array | None], opset: int | None, most: int
) -> Sequence[Array]:
    if is_dequantizer(node):
        return [dequantize(node, inputs)]
    if same_as(node) is not None or node.op_type == "Identity":
        raise UnfoldableError(f"{node.op_type} is not followed")
    try:
        arrays = [array for array in inputs if array is not None]
        products = _products_of(node.op_type, arrays)
        if products > MOST_PRODUCTS:
            raise UnfoldableError(f"it takes {products:,} products, more than {MOST_PRODUCTS:,}")
        if is_qonnx_quantizer(node):
            with np.errstate(all="ignore"):
                return [quantized(node, inputs)]
        size = _size_of(node.op_type, arrays)
        if size > most:
            raise UnfoldableError(f"it grows to {size:,} values, more than {most:,}")
        return _evaluated(node, inputs, opset)
    except (UnfoldableError, ModelFileError):
        raise
    except Exception as error:
        # The evaluator raises whatever numpy raises on the nonsense a file may hold.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UnfoldableError(f"{node.op_type} cannot be computed: {reason}") from error


def _evaluated(node: ir.Node, inputs: Sequence[Array | None], opset: int | None) -> Sequence[Array]:
    # Imported where a constant needs it, which few models do.
    from onnx.reference import ReferenceEvaluator

    proto = ir.serde.serialize_node(node)
    # Values need no names of their own in a graph, but they do here.
    names = [f"i{index}" if array is not None else "" for index, array in enumerate(inputs)]
    outputs = [f"o{index}" for index in range(len(node.outputs))]
    proto.input[:], proto.output[:], proto.domain = names, outputs, ""
    untyped = helper.make_empty_tensor_value_info
    graph = helper.make_graph(
        [proto], "constant", [untyped(name) for name in names if name], list(map(untyped, outputs))
    )
    evaluator = ReferenceEvaluator(graph, opsets={"": opset or 1})
    feeds = {name: array for name, array in zip(names, inputs, strict=True) if array is not None}
    with np.errstate(all="ignore"):
        return [np.asarray(array) for array in evaluator.run(None, feeds)]


def _size_of(op_type: str, inputs: Sequence[Array]) -> int:
    """How many elements a node gives at most, from its inputs alone."""
    shapes = [array.shape for array in inputs]
    if op_type == "Concat":
        return sum(array.size for array in inputs)
    if op_type == "ConstantOfShape":
        return math.prod(int(size) for size in inputs[0].ravel())
    if op_type == "Expand":
        target_shape = tuple(int(size) for size in inputs[1].ravel())
        return math.prod(np.broadcast_shapes(shapes[0], target_shape))
    if op_type == "Tile":
        return inputs[0].size * math.prod(int(times) for times in inputs[1].ravel())
    if op_type in ("Gather", "GatherND"):
        return inputs[0].size * max(1, inputs[1].size)
    if op_type == "GatherElements":
        return inputs[1].size
    if op_type == "Range":
        start, limit, delta = (float(array) for array in inputs)
        return max(0, math.ceil((limit - start) / delta))
    if op_type == "Pad":
        return _padded_size(inputs)
    if op_type in ("MatMul", "Gemm"):
        return _product_size(op_type, shapes[0], shapes[1])
    if op_type in ELEMENTWISE:
        return math.prod(np.broadcast_shapes(*shapes))
    return max((array.size for array in inputs), default=0)


def _padded_size(inputs: Sequence[Array]) -> int:
    shape = inputs[0].shape
    if len(inputs) < 2:
        raise UnfoldableError("Pad has its sizes in an attribute")
    pads = [int(size) for size in inputs[1].ravel()]
    axes = list(range(len(shape)))
    if len(inputs) > 3 or len(pads) != 2 * len(shape):
        axes = [int(axis) for axis in inputs[-1].ravel()]
    sizes = list(shape)
    for axis, before, behind in zip(axes, pads, pads[len(pads) // 2 :], strict=False):
        sizes[axis] += before + behind
    return math.prod(max(0, size) for size in sizes)


def _product_size(op_type: str, first: tuple[int, ...], second: tuple[int, ...]) -> int:
    if op_type == "Gemm":
        # At most: which axes remain depends on what is transposed.
        return max(first, default=1) * max(second, default=1)
    stack = math.prod(np.broadcast_shapes(first[:-2], second[:-2]))
    rows = first[-2] if len(first) > 1 else 1
    columns = second[-1] if len(second) > 1 else 1
    return stack * rows * columns


def _products_of(op_type: str, inputs: Sequence[Array]) -> int:
    """How many numbers are multiplied at most."""
    if op_type not in ("MatMul", "Gemm"):
        return 0
    first, second = inputs[0].shape, inputs[1].shape
    shared = max(first, default=1) if op_type == "Gemm" else first[-1]
    return shared * _product_size(op_type, first, second)
