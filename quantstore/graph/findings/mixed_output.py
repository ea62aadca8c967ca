"""Concats that feed an output and join scores with values of another size."""

import math
from collections.abc import Iterator

import onnx_ir as ir

from quantstore.graph.bounds import largest_of
from quantstore.graph.findings.base import OfModel, Sentences, SurveyedModel, is_standard, short

# Scores end here; a little more for what is made of several.
_LARGEST_SCORE = 1.5
# Of 256 levels a score has this many left where its neighbour is so much larger.
_FEWEST_LEVELS = 8
_LEVELS = 256
# What only moves values: their range stays.
_MOVING = frozenset(
    [
        "Transpose",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Slice",
        "Split",
        "Gather",
        "Cast",
        "Dropout",
    ]
)
_MOST_STEPS = 64


def _look(model: SurveyedModel) -> Iterator[Sentences]:
    seen: set[int] = set()
    for output in model.file.model.graph.outputs:
        concat = _mover(output)
        if concat is None or concat.op_type != "Concat" or id(concat) in seen:
            continue
        seen.add(id(concat))
        branches = [
            (source, largest_of(value, model.file.opset)) for source, value in _joined(concat)
        ]
        bounds = [bound for _, bound in branches if bound is not None]
        smallest = min(bounds, default=math.inf)
        if smallest > _LARGEST_SCORE:
            continue
        score = next(source for source, bound in branches if bound == smallest)
        others = [
            (source, bound)
            for source, bound in branches
            if bound is None or bound * _FEWEST_LEVELS > smallest * _LEVELS
        ]
        if others:
            other, bound = others[0]
            reach = "without a bound" if bound is None else f"up to {bound:,.6g}"
            yield Sentences(
                f"Output {short(output.name or '?')} joins scores up to {smallest:.3g}"
                f" ({_named(score)}) with values {reach} ({_named(other)}). Both share one"
                " activation scale: if box coordinates reach 640, the step is 2.5 and every score"
                " rounds to 0.",
                "Export the two as separate outputs, or exclude the Concat and the nodes after"
                " it from quantization.",
            )


def _named(node: ir.Node) -> str:
    return f"{node.op_type} {short(node.name or '?')}"


def _mover(value: ir.Value | None) -> ir.Node | None:
    """The node that computes a value, behind those that only move it."""
    for _ in range(_MOST_STEPS):
        node = value.producer() if value is not None else None
        if node is None or not is_standard(node) or node.op_type not in _MOVING or not node.inputs:
            return node
        value = node.inputs[0]
    return None


def _joined(concat: ir.Node) -> Iterator[tuple[ir.Node, ir.Value]]:
    """The nodes whose results a Concat joins, Concats before it included, with what it reads."""
    waiting, seen = [concat], {id(concat)}
    while waiting and len(seen) < _MOST_STEPS:
        for value in waiting.pop().inputs:
            node = _mover(value)
            if value is None or node is None or id(node) in seen:
                continue
            seen.add(id(node))
            if node.op_type == "Concat" and is_standard(node):
                waiting.append(node)
            elif node.op_type != "Constant":
                yield node, value


MIXED_OUTPUT = OfModel(
    name="mixed output",
    severity="warning",
    meaning=(
        "A Concat before an output joins scores of at most 1 (Sigmoid, Softmax,"
        " products, roots and powers of them, a Clip) with a branch that is 32 times"
        " as large or has no bound."
    ),
    look=_look,
)
