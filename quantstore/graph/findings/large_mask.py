"""Masks of huge numbers in front of a Softmax, which take the whole range of an activation."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from quantstore.graph.bounds import constant_values
from quantstore.graph.constants import find_constant
from quantstore.graph.findings.base import OfModel, Sentences, SurveyedModel, is_standard, short

# exp(-30) is 1e-13. From here on a mask does nothing but take the range away from the scores.
_LARGE = 1e4
_SOFTMAX = ("LogSoftmax", "Softmax")
# What a mask passes on its way, and which of the inputs.
_PASSED = {
    **dict.fromkeys(("Add", "Max", "Min", "Mul", "Sub", "Sum"), slice(None)),
    "Where": slice(1, 3),
    **dict.fromkeys(
        (
            *("Cast", "Div", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape"),
            *("Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
        ),
        slice(0, 1),
    ),
}
_MOST_STEPS = 256


@dataclass(slots=True)
class _Mask:
    """A constant, the nodes on its way to the first Softmax, and every Softmax that it reaches."""

    name: str
    largest: float
    way: list[ir.Node]
    softmaxes: list[ir.Node] = field(default_factory=list)


def _look(model: SurveyedModel) -> Iterator[Sentences]:
    opset = model.file.opset
    masks: dict[int, _Mask] = {}
    sizes: dict[int, float] = {}
    for node in ir.traversal.RecursiveGraphIterator(model.file.model.graph):
        if node.op_type not in _SOFTMAX or not is_standard(node) or not node.inputs:
            continue
        for value, way in _constants_before(node):
            constant = find_constant(value)
            if id(value) not in sizes:
                numbers = constant_values(value, opset)
                sizes[id(value)] = (
                    0.0 if numbers is None else float(numbers[np.argmax(np.abs(numbers))])
                )
            if abs(sizes[id(value)]) < _LARGE:
                continue
            name = value.name or getattr(getattr(constant, "tensor", None), "name", None) or "?"
            mask = masks.setdefault(id(value), _Mask(name, sizes[id(value)], way))
            if node not in mask.softmaxes:
                mask.softmaxes.append(node)
    for mask in masks.values():
        reader, softmax = _named(mask.way[0]), _named(mask.softmaxes[0])
        other_count = len(mask.softmaxes) - 1
        rest_note = f" (and of {other_count:,} more)" if other_count else ""
        step = (
            "No scale can cover it."
            if math.isinf(mask.largest)
            else f"A scale that covers it has a step of {abs(mask.largest) / 255:.1g}, so that the"
            " scores round to 0."
        )
        in_float = (
            f"both {reader} and {softmax} in float"
            if len(mask.way) == 2
            else f"every node from {reader} to {softmax} in float"
        )
        yield Sentences(
            f"Constant {short(mask.name)} reaches {mask.largest:.3g}, and {reader} combines"
            f" it with the scores of {softmax}{rest_note}. {step}",
            f"Use -30 instead, or keep {in_float}.",
        )


def _constants_before(softmax: ir.Node) -> Iterator[tuple[ir.Value, list[ir.Node]]]:
    """Constants that arithmetic alone carries into a Softmax, and the nodes on the way there."""
    waiting, seen = [[softmax]], {id(softmax)}
    while waiting and len(seen) < _MOST_STEPS:
        way = waiting.pop()
        node = way[0]
        passed = slice(0, 1) if node is softmax else _PASSED[node.op_type]
        for value in node.inputs[passed]:
            if value is None:
                continue
            if find_constant(value) is not None:
                yield value, way
                continue
            producer = value.producer()
            if (
                producer is not None
                and id(producer) not in seen
                and is_standard(producer)
                and producer.op_type in _PASSED
            ):
                seen.add(id(producer))
                waiting.append([producer, *way])


def _named(node: ir.Node) -> str:
    return f"{node.op_type} {short(node.name or '?')}"


LARGE_MASK = OfModel(
    name="large mask",
    severity="warning",
    meaning="A constant of 10,000 or more reaches a Softmax, as attention masks do.",
    look=_look,
)
