"""Concats that feed an output and join scores with values of any size."""

from collections.abc import Iterator

import onnx_ir as ir

from quantstore.graph.findings.base import OfModel, Sentences, SurveyedModel, is_standard, short

_BOUNDED = ("Sigmoid", "HardSigmoid", "Softmax")
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
        scores: list[ir.Node] = []
        others: list[ir.Node] = []
        for source in _joined(concat):
            (scores if source.op_type in _BOUNDED else others).append(source)
        if scores and others:
            yield Sentences(
                f"Output {short(output.name or '?')} joins scores from 0 to 1"
                f" ({scores[0].op_type} {short(scores[0].name or '?')}) with values that no"
                f" function bounds ({others[0].op_type} {short(others[0].name or '?')}). One"
                " activation scale must serve both: if box coordinates reach 640, a step is 2.5 and"
                " every score rounds to 0.",
                "Export the two as separate outputs, or leave the Concat and what follows it out of"
                " quantization.",
            )


def _mover(value: ir.Value | None) -> ir.Node | None:
    """The node that computes a value, behind those that only move it."""
    for _ in range(_MOST_STEPS):
        node = value.producer() if value is not None else None
        if node is None or not is_standard(node) or node.op_type not in _MOVING or not node.inputs:
            return node
        value = node.inputs[0]
    return None


def _joined(concat: ir.Node) -> Iterator[ir.Node]:
    """The nodes whose results a Concat joins, Concats before it included."""
    waiting, seen = [concat], {id(concat)}
    while waiting and len(seen) < _MOST_STEPS:
        for value in waiting.pop().inputs:
            node = _mover(value)
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            if node.op_type == "Concat" and is_standard(node):
                waiting.append(node)
            elif node.op_type != "Constant":
                yield node


MIXED_OUTPUT = OfModel(
    name="mixed output",
    severity="warning",
    meaning=(
        "A Concat in front of an output joins a Sigmoid, HardSigmoid or Softmax with an unbounded"
        " branch."
    ),
    look=_look,
)
