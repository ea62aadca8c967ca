"""The operators quantstore measures: which input holds the weights, and which axis counts channels.

One row per operator. Axes follow what ONNX quantizes per channel: the output channels of the
tensor as it is stored (https://onnx.ai/onnx/operators/ for the operands' names and layouts).
"""

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from quantstore.graph.attributes import integer

# The axis of output channels, from the node and the rank of the stored tensor; None where the
# whole tensor is a single channel.
ChannelAxis = Callable[[ir.Node, int], int | None]


@dataclass(frozen=True, slots=True)
class Operand:
    """An input that may hold weights. ``zero_point`` is the input with the integers' zero point."""

    name: str
    index: int
    channel_axis: ChannelAxis
    zero_point: int | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator with weights. The first of ``operands`` that is constant is the one measured."""

    op_type: str
    family: str
    operands: tuple[Operand, ...]
    is_integer: bool = False


def _axis(number: int) -> ChannelAxis:
    return lambda node, rank: number if rank > number else None


def _gemm_b(node: ir.Node, rank: int) -> int | None:
    return 0 if integer(node, "transB", 0) else 1


def _gemm_a(node: ir.Node, rank: int) -> int | None:
    return 1 if integer(node, "transA", 0) else 0


def _last_axis(node: ir.Node, rank: int) -> int | None:
    # A vector gives one number for each row of the other operand: a single output channel.
    return rank - 1 if rank >= 2 else None


def _second_to_last_axis(node: ir.Node, rank: int) -> int | None:
    return rank - 2 if rank >= 2 else None


OPERATORS = {
    operator.op_type: operator
    for operator in (
        Operator("Conv", "conv", (Operand("W", 1, _axis(0)),)),
        Operator("ConvTranspose", "conv_transpose", (Operand("W", 1, _axis(1)),)),
        Operator("Gemm", "linear", (Operand("B", 1, _gemm_b), Operand("A", 0, _gemm_a))),
        Operator(
            "MatMul", "linear", (Operand("B", 1, _last_axis), Operand("A", 0, _second_to_last_axis))
        ),
        Operator("ConvInteger", "conv", (Operand("w", 1, _axis(0), zero_point=3),), True),
        Operator(
            "MatMulInteger",
            "linear",
            (
                Operand("B", 1, _last_axis, zero_point=3),
                Operand("A", 0, _second_to_last_axis, zero_point=2),
            ),
            True,
        ),
    )
}

# The default domain of ONNX has two spellings.
STANDARD_DOMAINS = ("", "ai.onnx")


def operator_of(node: ir.Node) -> Operator | None:
    """The table row of a node, None where the node holds no weights we know of."""
    return OPERATORS.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
