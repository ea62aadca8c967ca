"""How large a value can become, as far as the graph alone tells: bounded functions and constants.

A Sigmoid ends at 1, so does the product of two, its root and its power; times a constant of 640 it
ends at 640. What a convolution or an input of the network gives has no bound.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from quantstore.graph.constants import Constant, find_constant, same_as
from quantstore.graph.fold import values_of
from quantstore.graph.operators import STANDARD_DOMAINS
from quantstore.records import Doubles

_ENDS_AT_1 = frozenset(
    (
        *("And", "Cos", "Equal", "Erf", "Greater", "GreaterOrEqual", "HardSigmoid", "Hardmax"),
        *("Less", "LessOrEqual", "Not", "Or", "Sigmoid", "Sign", "Sin", "Softmax", "Softsign"),
        *("Tanh", "Xor"),
    )
)
# They give what their first input holds, or what lies between its values.
_STAYS = frozenset(
    (
        *("Abs", "AveragePool", "Cast", "Dropout", "Expand", "Flatten", "Gather"),
        *("GatherElements", "GatherND", "GlobalAveragePool", "GlobalMaxPool", "Identity"),
        *("LeakyRelu", "MaxPool", "Neg", "ReduceMax", "ReduceMean", "ReduceMin", "Relu"),
        *("Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    )
)
_LARGEST_OF_ALL = frozenset(("Concat", "Max", "Mean", "Min", "Where"))
# The bound of their first input counts, and the numbers of the second, which must be constant.
_BY_CONSTANT = frozenset(("Div", "Pow"))
_COMBINES = frozenset(("Add", "Mul", "Sqrt", "Sub", "Sum")) | _LARGEST_OF_ALL | _BY_CONSTANT
_MOST_LEVELS = 64
_MOST_VALUES = 1 << 22


def largest_of(value: ir.Value | None, opset: int | None) -> float | None:
    """The largest magnitude that a value can have; None where the graph sets no bound."""
    return _largest(value, opset, {}, 0)


def constant_values(value: ir.Value | None, opset: int | None) -> Doubles | None:
    """The numbers of a constant in float64; None where it is none, too large or holds no numbers.

    NaN does not count.
    """
    constant = find_constant(value)
    if not isinstance(constant, Constant) or constant.tensor.size > _MOST_VALUES:
        return None
    array = values_of(value, opset)
    if array is None or not array.size:
        return None
    try:
        numbers = array.astype(np.float64).ravel()
    except (TypeError, ValueError):
        return None
    numbers = numbers[~np.isnan(numbers)]
    return numbers if numbers.size else None


def _largest(
    value: ir.Value | None, opset: int | None, settled: dict[int, float | None], level: int
) -> float | None:
    if value is None or level > _MOST_LEVELS:
        return None
    if id(value) not in settled:
        # A value that is made of itself has no bound.
        settled[id(value)] = None
        settled[id(value)] = _computed(value, opset, settled, level)
    return settled[id(value)]


def _computed(
    value: ir.Value, opset: int | None, settled: dict[int, float | None], level: int
) -> float | None:
    if find_constant(value) is not None:
        numbers = constant_values(value, opset)
        return None if numbers is None else float(np.abs(numbers).max())
    node = value.producer()
    if node is None:
        return None
    passed_on = same_as(node)
    if passed_on is not None:
        return _largest(passed_on, opset, settled, level + 1)
    if node.domain not in STANDARD_DOMAINS or not node.inputs:
        return None
    if node.op_type in _ENDS_AT_1:
        return 1.0
    if node.op_type == "Clip":
        return _clipped(node, opset)
    if node.op_type in _STAYS:
        return _largest(node.inputs[0], opset, settled, level + 1)
    if node.op_type not in _COMBINES:
        return None
    # The condition of a Where is no part of what it gives.
    sources = node.inputs[1:] if node.op_type == "Where" else node.inputs
    bounds: list[float] = []
    for source in sources[:1] if node.op_type in _BY_CONSTANT else sources:
        bound = _largest(source, opset, settled, level + 1)
        if bound is None:
            # What else it is made of does not matter, and may be the whole network.
            return None
        bounds.append(bound)
    return _combined(node, bounds, opset)


def _clipped(node: ir.Node, opset: int | None) -> float | None:
    ends: list[float] = []
    for index, name in ((1, "min"), (2, "max")):
        attribute = node.attributes.get(name)
        if attribute is not None:
            ends.append(float(attribute.as_float()))
            continue
        numbers = constant_values(node.inputs[index] if index < len(node.inputs) else None, opset)
        if numbers is None:
            return None
        ends.append(float(numbers[0]))
    largest = max(map(abs, ends))
    return largest if largest < 1e30 else None


def _combined(node: ir.Node, bounds: Sequence[float], opset: int | None) -> float | None:
    """What a node of ``_COMBINES`` makes of the bounds of its operands."""
    if node.op_type in _BY_CONSTANT:
        first, second = bounds[0], constant_values(node.inputs[1], opset)
        if second is None:
            return None
        if node.op_type == "Div":
            smallest = float(np.abs(second).min())
            return first / smallest if smallest > 0 else None
        if second.min() < 0:
            return None
        return max(math.pow(first, float(second.max())), math.pow(first, float(second.min())))
    if node.op_type == "Mul":
        return math.prod(bounds)
    if node.op_type in _LARGEST_OF_ALL:
        return max(bounds)
    return math.sqrt(bounds[0]) if node.op_type == "Sqrt" else sum(bounds)
