"""Constants that are weights, as far as anybody can tell, and that no rule reads.

Three kinds: an operator of a domain, or by a name, that nobody here knows; a kernel that is
computed from constants and from the network's input; an operand of a known operator in a form that
is not read (``walk`` says which).
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from quantstore.graph.constants import find_constant, is_qonnx_quantizer
from quantstore.graph.operators import (
    LOOSE,
    MICROSOFT,
    STANDARD_DOMAINS,
    TFLITE,
    UNREAD,
    UNREAD_OF_TFLITE,
    WITHOUT_WEIGHTS,
    Operator,
    is_known_operator,
    operator_of,
)
from quantstore.graph.origins import constants_behind, is_kernel, tensors_of

NOT_READ_YET = "an operator that is not read yet"
PURPOSE_UNKNOWN = "whose name and shape do not say what it is"


@dataclass(frozen=True, slots=True)
class Unread:
    """A weight operand that is constant, and that quantstore cannot read nevertheless.

    ``weight_count`` is how many values it is made of.
    """

    name: str
    operand: str
    op_type: str
    reason: str
    weight_count: int = 0


def out_of_reach(nodes: Iterable[tuple[str, ir.Node]], read: Collection[int]) -> Iterator[Unread]:
    """Constants of two or more dimensions that some node reads in a way that no rule knows.

    Args:
        nodes: all of them, with their names.
        read: the stored tensors, by ``id``, that layers are made of.
    """
    seen = set(read)
    for name, node in nodes:
        operator = operator_of(node)
        for operand, reason, value in _unknown_uses(node, operator):
            weight_count = 0
            for tensor in tensors_of(value):
                if id(tensor) not in seen and is_kernel(tensor):
                    seen.add(id(tensor))
                    weight_count += tensor.size
            if weight_count:
                yield Unread(name, operand, node.op_type, reason, weight_count)


def _unknown_uses(node: ir.Node, operator: Operator | None) -> Iterator[tuple[str, str, ir.Value]]:
    """What a node reads that may be weights: which operand, why it is not read, and the value."""
    if operator is None:
        reason = _why_unknown(node)
        if reason:
            for index, value in enumerate(node.inputs):
                if find_constant(value) is not None and value is not None:
                    yield f"input {index}", reason, value
    elif operator.family in ("conv", "conv_transpose", "recurrent") or node.op_type == "Gemm":
        for operand in operator.operands:
            value = node.inputs[operand.index] if operand.index < len(node.inputs) else None
            # The other operand of a Gemm is mostly its data.
            if value is None or operand.name == "A" or find_constant(value) is not None:
                continue
            for source in constants_behind(value):
                yield operand.name, "is computed when the network runs", source


def _why_unknown(node: ir.Node) -> str:
    """Why nobody can tell what a node does with its inputs; empty for operators that are known."""
    if node.domain in STANDARD_DOMAINS:
        return "" if is_known_operator(node.op_type) else "of an operator that ONNX does not have"
    if node.domain == MICROSOFT and node.op_type in UNREAD | WITHOUT_WEIGHTS:
        return ""
    if is_qonnx_quantizer(node):
        return ""
    if node.domain == LOOSE:
        return PURPOSE_UNKNOWN
    if node.domain == TFLITE:
        return f"of {NOT_READ_YET}" if node.op_type in UNREAD_OF_TFLITE else ""
    return f"of an operator of domain {node.domain}, which is not read"
