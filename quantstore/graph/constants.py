"""Which values of a graph are constant, and in which stored tensor they begin.

A weight need not be an initializer: exporters leave Identity, Cast, Transpose and whole sums of
constants between the tensor in the file and the node that uses it. This module follows them back;
fold.py computes what they give.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantstore.graph.operators import (
    MICROSOFT,
    QONNX_DOMAINS,
    QONNX_QUANTIZERS,
    STANDARD_DOMAINS,
)
from quantstore.records import Array

# What can be computed ahead: no state, no randomness, and work that is known before it is done.
SHAPING = frozenset(
    (
        *("Cast", "CastLike", "Concat", "ConstantOfShape", "DepthToSpace", "Expand", "EyeLike"),
        *("Flatten", "Gather", "GatherElements", "GatherND", "Pad", "Range", "Reshape"),
        *("ReverseSequence", "ScatterElements", "ScatterND", "Shape", "Size", "Slice"),
        *("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze"),
    )
)
# Each element by itself, with what stands at its place in the other inputs.
ELEMENTWISE = frozenset(
    (
        *("Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift"),
        *("BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil", "Celu", "Clip", "Cos"),
        *("Cosh", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Greater", "GreaterOrEqual"),
        *("HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual"),
        *("Log", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow"),
        *("Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
        *("Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu"),
        *("Where", "Xor"),
    )
)
ARITHMETIC = ELEMENTWISE | frozenset(
    (
        *("ArgMax", "ArgMin", "CumSum", "Gemm", "Hardmax", "LogSoftmax", "LpNormalization"),
        *("MatMul", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
        *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Softmax"),
    )
)
# What lies behind them may lie on a grid; so may what is cast to integers.
_ROUNDING = frozenset(("Ceil", "Floor", "Round", "Sign"))
FOLDABLE_OPERATORS = SHAPING | ARITHMETIC
# Their first input is the one that becomes the output.
_SAME_VALUES = ("Identity", "Dropout")

# Nodes of Identity between QuantizeLinear and DequantizeLinear.
_MOST_BETWEEN = 10
_KEY = "quantstore.constant"


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that is known before the network runs.

    ``value`` is what is read, behind any Identity; ``tensor`` is the stored tensor that it is made
    of, the largest of several. ``is_stored``: the value is that tensor. ``dequantizer`` is the
    DequantizeLinear that the tensor passes through, if any, and ``quantizer`` the quantizer of
    QONNX on whose grid the value lies. ``is_rounded``: something on the way
    rounds to whole numbers.
    """

    value: ir.Value
    tensor: ir.TensorProtocol
    is_stored: bool
    dequantizer: ir.Node | None = None
    quantizer: ir.Node | None = None
    is_rounded: bool = False


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value that is constant too, but made in a way quantstore does not follow."""

    op_type: str


def find_constant(value: ir.Value | None) -> Constant | Opaque | None:
    """What is known of a value; None where it is computed from the network's inputs.

    Knows initializers (also those that an old IR version lists among the graph's inputs) and every
    form of Constant node. The answer is kept with the value: a graph is followed back once.
    """
    if value is None:
        return None
    if _KEY not in value.meta:
        _settle(value)
    origin = value.meta[_KEY]
    return origin if isinstance(origin, Constant | Opaque) else None


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The stored tensor that a value is, None where it is computed, even if from constants."""
    constant = find_constant(value)
    return constant.tensor if isinstance(constant, Constant) and constant.is_stored else None


def computed(array: Array, name: str | None) -> Constant:
    """A constant of its own, which outlives the nodes that it was computed by."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor)
    value.meta[_KEY] = Constant(value, tensor, is_stored=True)
    return Constant(value, tensor, is_stored=True)


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The node that alone reads a value; None where there are more, or the graph returns it."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses)).node


def is_dequantizer(node: ir.Node) -> bool:
    """Whether a node turns codes into numbers; onnxruntime's own domain has the operator too."""
    return node.op_type == "DequantizeLinear" and node.domain in (*STANDARD_DOMAINS, MICROSOFT)


def is_qonnx_quantizer(node: ir.Node) -> bool:
    """Whether a node rounds floats to a grid, and gives floats, as QONNX has it."""
    return node.op_type in QONNX_QUANTIZERS and node.domain in QONNX_DOMAINS


def is_quantizer(node: ir.Node) -> bool:
    """Whether a node turns numbers into codes."""
    return node.op_type == "QuantizeLinear" and node.domain in (*STANDARD_DOMAINS, MICROSOFT)


def same_as(node: ir.Node) -> ir.Value | None:
    """The input that a node passes on unchanged, None where it does something to it.

    Weights that the file keeps in float and rounds itself, by QuantizeLinear and DequantizeLinear,
    are what they were before: nothing is lost yet.
    """
    if not node.inputs:
        return None
    if node.op_type in _SAME_VALUES and node.domain in STANDARD_DOMAINS:
        return node.inputs[0]
    codes = node.inputs[0] if is_dequantizer(node) else None
    for _ in range(_MOST_BETWEEN):
        producer = None if codes is None else codes.producer()
        if producer is None or not producer.inputs:
            return None
        if is_quantizer(producer):
            return producer.inputs[0]
        if producer.op_type != "Identity":
            return None
        codes = producer.inputs[0]
    return None


def _settle(value: ir.Value) -> None:
    """Find out about a value and everything it is made of; deep graphs need no deep stack."""
    waiting = [value]
    while waiting:
        current = waiting[-1]
        if current.meta.get(_KEY) not in (None, "open"):
            waiting.pop()
            continue
        sources = list(_sources(current))
        open_sources = [source for source in sources if _KEY not in source.meta]
        if open_sources:
            # A value that is met again before it is settled is made of itself: no constant.
            current.meta[_KEY] = "open"
            waiting.extend(open_sources)
            continue
        waiting.pop()
        current.meta[_KEY] = _described(current) or "computed"


def _sources(value: ir.Value) -> Iterator[ir.Value]:
    node = value.producer()
    if value.const_value is not None or node is None:
        return
    passed_on = same_as(node)
    if passed_on is not None:
        yield passed_on
        return
    yield from (source for source in node.inputs if source is not None)


def _described(value: ir.Value) -> Constant | Opaque | None:
    if value.const_value is not None:
        return Constant(value, value.const_value, is_stored=True)
    node = value.producer()
    if node is None:
        return None
    if node.op_type == "Constant" and node.domain in STANDARD_DOMAINS:
        tensor = _tensor_of(node)
        return None if tensor is None else Constant(value, tensor, is_stored=True)
    passed_on = same_as(node)
    if passed_on is not None:
        original = passed_on.meta[_KEY]
        return original if isinstance(original, Constant | Opaque) else None
    if not node.inputs:
        return None
    sources = [source.meta[_KEY] for source in node.inputs if source is not None]
    if not sources or not all(isinstance(source, Constant | Opaque) for source in sources):
        return None
    if any(isinstance(source, Opaque) for source in sources) or not _is_foldable(node):
        return Opaque(node.op_type)
    # What is scaled or reshaped comes first; of terms and factors the largest is meant.
    is_quantized = is_qonnx_quantizer(node)
    is_first = is_dequantizer(node) or is_quantized or node.op_type in SHAPING - {"Concat"}
    origin = sources[0] if is_first else max(sources, key=lambda source: source.tensor.size)
    return Constant(
        value,
        origin.tensor,
        is_stored=False,
        dequantizer=node if is_dequantizer(node) else origin.dequantizer,
        # Arithmetic behind it would move the grid.
        quantizer=node if is_quantized else origin.quantizer if node.op_type in SHAPING else None,
        is_rounded=_rounds(node) or any(source.is_rounded for source in sources),
    )


def _rounds(node: ir.Node) -> bool:
    """Whether a node gives whole numbers, whatever it is given."""
    if node.op_type == "Cast":
        target = node.attributes.get("to")
        return target is not None and ir.DataType(target.as_int()).is_integer()
    return node.op_type in _ROUNDING or is_qonnx_quantizer(node)


def _is_foldable(node: ir.Node) -> bool:
    if is_dequantizer(node) or is_qonnx_quantizer(node):
        return True
    return node.op_type in FOLDABLE_OPERATORS and node.domain in STANDARD_DOMAINS


def _tensor_of(node: ir.Node) -> ir.TensorProtocol | None:
    """What a Constant node holds, in whichever attribute."""
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            continue
        if name == "value" and attribute.type == ir.AttributeType.TENSOR:
            # as_tensor() checks the protocol method by method, slower than all else here.
            tensor: ir.TensorProtocol = attribute.value
            return tensor
        if name in ("value_float", "value_floats"):
            return ir.Tensor(np.array(attribute.value, dtype=np.float32), name=node.outputs[0].name)
        if name in ("value_int", "value_ints"):
            return ir.Tensor(np.array(attribute.value, dtype=np.int64), name=node.outputs[0].name)
    return None
