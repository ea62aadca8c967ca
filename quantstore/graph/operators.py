"""The operators quantstore measures: which input holds the weights, and which axis counts channels.

One row per operator, :data:`OPERATORS`, from which the tables of docs/reading.md are written.
Axes follow what ONNX quantizes per channel: the output channels of the tensor as the node reads it.
Operands bear the names of the operator's schema (https://onnx.ai/onnx/operators/ and, for the
domain com.microsoft,
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import onnx_ir as ir
from onnx import defs

from quantstore.graph.attributes import integer, text

# The default domain of ONNX has two spellings. The other is what onnxruntime's optimizer and
# quantizer write.
STANDARD_DOMAINS = ("", "ai.onnx")
MICROSOFT = "com.microsoft"
# Operators of TensorFlow Lite that keep their names; see graph/tflite.
TFLITE = "tflite"
# What a file without a graph holds besides layers; see graph/weights.
LOOSE = "weights"
NORMALIZATION, TENSOR = "BatchNormalization", "Tensor"
# Quantizers, as FINN, hls4ml and Brevitas write them; see graph/qonnx.py.
QONNX_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas")
QONNX_QUANTIZERS = frozenset(("Quant", "IntQuant", "BipolarQuant", "Trunc", "FloatQuant"))


_AxisFinder = Callable[[ir.Node, int], int | None]


@dataclass(frozen=True, slots=True)
class ChannelAxis:
    """The axis of output channels, from the node and the rank of the weights.

    ``find`` gives None where all weights are a single channel; ``description`` is for the
    documents.
    """

    description: str
    find: _AxisFinder

    def __call__(self, node: ir.Node, rank: int) -> int | None:
        return self.find(node, rank)


@dataclass(frozen=True, slots=True)
class Operand:
    """An input that may hold weights.

    ``scale`` and ``zero_point`` are the inputs that say what its integers mean; without ``scale``
    it holds floats, or reaches its scale in another way. ``joined_axis`` is an axis that counts
    channels too, in front of the channel axis: the directions of a recurrent layer.
    """

    name: str
    index: int
    channel_axis: ChannelAxis
    scale: int | None = None
    zero_point: int | None = None
    joined_axis: int | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator with weights. The first of ``operands`` that is constant is the one measured.

    ``measures_all``: every constant operand is a layer of its own instead. ``scale_follows``: the
    operands are integers, and a Mul behind the node brings their scale. ``is_packed``: the weights
    lie in blocks of a few bits each, in a layout that only this operator has.
    """

    op_type: str
    family: str
    operands: tuple[Operand, ...]
    domain: str = ""
    measures_all: bool = False
    scale_follows: bool = False
    is_packed: bool = False


def _described(description: str) -> Callable[[_AxisFinder], ChannelAxis]:
    return lambda find: ChannelAxis(description, find)


def _axis(number: int, remark: str = "") -> ChannelAxis:
    return ChannelAxis(f"{number}{remark}", lambda node, rank: number if rank > number else None)


@_described("1, with transB 0")
def _gemm_b(node: ir.Node, rank: int) -> int | None:
    return 0 if integer(node, "transB", 0) else 1


@_described("0, with transA 1")
def _gemm_a(node: ir.Node, rank: int) -> int | None:
    return 1 if integer(node, "transA", 0) else 0


@_described("the last")
def _last_axis(node: ir.Node, rank: int) -> int | None:
    # A vector gives one number for each row of the other operand: a single output channel.
    return rank - 1 if rank >= 2 else None


@_described("the last but one")
def _second_to_last_axis(node: ir.Node, rank: int) -> int | None:
    return rank - 2 if rank >= 2 else None


@_described("the last, with transB the last but one")
def _matmul_b(node: ir.Node, rank: int) -> int | None:
    find = _second_to_last_axis if integer(node, "transB", 0) else _last_axis
    return find(node, rank)


@_described("the last but one, with transA the last")
def _matmul_a(node: ir.Node, rank: int) -> int | None:
    find = _last_axis if integer(node, "transA", 0) else _second_to_last_axis
    return find(node, rank)


@_described("the axis that is gathered from")
def _gathered(node: ir.Node, rank: int) -> int | None:
    axis = integer(node, "axis", 0)
    return axis % rank if -rank <= axis < rank else None


def _einsum(index: int) -> ChannelAxis:
    return ChannelAxis(
        "the last letter that output and operand share with no other operand",
        lambda node, rank: einsum_axis(text(node, "equation", ""), index, rank),
    )


def einsum_axis(equation: str, index: int, rank: int) -> int | None:
    """The output channels of one operand of an Einsum, None where it has none.

    A letter that the operand shares with the output and with no other operand numbers outputs that
    its weights alone decide. Of several the last counts, as the columns do in a matrix product. In
    ``bij,jk->bik`` the second operand has its channels along ``k``, axis 1.

    Source: ONNX operator Einsum (https://onnx.ai/onnx/operators/onnx__Einsum.html).
    """
    terms, arrow, output = equation.replace(" ", "").partition("->")
    operands = terms.split(",")
    if index >= len(operands):
        return None
    letters = operands[index]
    other_letters = "".join(operands[:index] + operands[index + 1 :])
    if not arrow:
        # By convention the output then has the letters that occur once.
        output = "".join(letter for letter in letters if terms.count(letter) == 1)
    head, dots, tail = letters.partition("...")
    # What the dots stand for has no letters, so count from the nearer end.
    axis_of = {letter: axis for axis, letter in enumerate(head)}
    axis_of |= {letter: rank - len(tail) + axis for axis, letter in enumerate(tail) if dots}
    channel_axes = [
        axis
        for letter, axis in axis_of.items()
        if letter in output and letter not in other_letters and letters.count(letter) == 1
    ]
    return max((axis for axis in channel_axes if 0 <= axis < rank), default=None)


def _linear(
    axis: ChannelAxis, other: ChannelAxis, *, scales: tuple[int, int, int, int] | None = None
) -> tuple[Operand, ...]:
    """Operands B and A, one behind the other; ``scales``: B's scale, zero point, A's both."""
    if scales is None:
        return (Operand("B", 1, axis), Operand("A", 0, other))
    return (
        Operand("B", 1, axis, scale=scales[0], zero_point=scales[1]),
        Operand("A", 0, other, scale=scales[2], zero_point=scales[3]),
    )


_CONV = (Operand("W", 1, _axis(0)),)
_MATMUL = _linear(_last_axis, _second_to_last_axis)
_EINSUM = tuple(Operand("Inputs", index, _einsum(index)) for index in (1, 0, 2, 3))
# Of each direction the channels are the rows: gates after one another.
_RECURRENT = (
    Operand("W", 1, _axis(1), joined_axis=0),
    Operand("R", 2, _axis(1), joined_axis=0),
)

_ATTENTION = (Operand("weights", 1, _last_axis),)
_QLINEAR_CONV = (Operand("w", 3, _axis(0), scale=4, zero_point=5),)

OPERATORS = {
    (operator.domain, operator.op_type): operator
    for operator in (
        Operator("Conv", "conv", _CONV),
        Operator("DeformConv", "conv", _CONV),
        Operator(
            "ConvTranspose",
            "conv_transpose",
            (Operand("W", 1, _axis(1, ", for all groups together, as QDQ has it")),),
        ),
        Operator("Gemm", "linear", _linear(_gemm_b, _gemm_a)),
        Operator("MatMul", "linear", _MATMUL),
        Operator("Einsum", "linear", _EINSUM),
        Operator("LSTM", "recurrent", _RECURRENT, measures_all=True),
        Operator("GRU", "recurrent", _RECURRENT, measures_all=True),
        Operator("RNN", "recurrent", _RECURRENT, measures_all=True),
        Operator("Gather", "embedding", (Operand("data", 0, _gathered),)),
        # Integers of ONNX's own operator set.
        Operator(
            "ConvInteger", "conv", (Operand("w", 1, _axis(0), zero_point=3),), scale_follows=True
        ),
        Operator(
            "MatMulInteger",
            "linear",
            (
                Operand("B", 1, _last_axis, zero_point=3),
                Operand("A", 0, _second_to_last_axis, zero_point=2),
            ),
            scale_follows=True,
        ),
        Operator("QLinearConv", "conv", _QLINEAR_CONV),
        Operator(
            "QLinearMatMul",
            "linear",
            (
                Operand("b", 3, _last_axis, scale=4, zero_point=5),
                Operand("a", 0, _second_to_last_axis, scale=1, zero_point=2),
            ),
        ),
        # What onnxruntime's optimizer fuses.
        Operator("FusedConv", "conv", _CONV, MICROSOFT),
        Operator("NhwcConv", "conv", _CONV, MICROSOFT),
        Operator("NhwcFusedConv", "conv", _CONV, MICROSOFT),
        Operator("FusedGemm", "linear", _linear(_gemm_b, _gemm_a), MICROSOFT),
        Operator("FusedMatMul", "linear", _linear(_matmul_b, _matmul_a), MICROSOFT),
        Operator("TransposeMatMul", "linear", _linear(_matmul_b, _matmul_a), MICROSOFT),
        Operator("GemmFastGelu", "linear", (Operand("W", 1, _last_axis),), MICROSOFT),
        Operator("Attention", "attention", _ATTENTION, MICROSOFT),
        Operator("PackedAttention", "attention", _ATTENTION, MICROSOFT),
        Operator("DecoderMaskedSelfAttention", "attention", _ATTENTION, MICROSOFT),
        Operator(
            "EmbedLayerNormalization",
            "embedding",
            (
                Operand("word_embedding", 2, _axis(0)),
                Operand("position_embedding", 3, _axis(0)),
                Operand("segment_embedding", 4, _axis(0)),
            ),
            MICROSOFT,
            measures_all=True,
        ),
        # What onnxruntime's quantizer writes.
        Operator("QLinearConv", "conv", _QLINEAR_CONV, MICROSOFT),
        Operator(
            "QGemm",
            "linear",
            (
                Operand("B", 3, _gemm_b, scale=4, zero_point=5),
                Operand("A", 0, _gemm_a, scale=1, zero_point=2),
            ),
            MICROSOFT,
        ),
        Operator(
            "QAttention",
            "attention",
            (Operand("weight", 1, _last_axis, scale=4, zero_point=7),),
            MICROSOFT,
        ),
        Operator(
            "DynamicQuantizeMatMul",
            "linear",
            (Operand("B", 1, _last_axis, scale=2, zero_point=3),),
            MICROSOFT,
        ),
        Operator(
            "MatMulIntegerToFloat",
            "linear",
            _linear(_last_axis, _second_to_last_axis, scales=(3, 5, 2, 4)),
            MICROSOFT,
        ),
        Operator(
            "DynamicQuantizeLSTM",
            "recurrent",
            (
                # Transposed beside LSTM: inputs come before channels.
                Operand("W", 1, _axis(2), scale=8, zero_point=9, joined_axis=0),
                Operand("R", 2, _axis(2), scale=10, zero_point=11, joined_axis=0),
            ),
            MICROSOFT,
            measures_all=True,
        ),
        Operator(
            "QEmbedLayerNormalization",
            "embedding",
            (
                Operand("word_embedding_quant", 2, _axis(0), scale=8, zero_point=13),
                Operand("position_embedding_quant", 3, _axis(0), scale=9, zero_point=14),
                Operand("segment_embedding", 4, _axis(0), scale=10, zero_point=15),
            ),
            MICROSOFT,
            measures_all=True,
        ),
        Operator(
            "GatherBlockQuantized",
            "embedding",
            (Operand("data", 0, _axis(0), scale=2, zero_point=3),),
            MICROSOFT,
            is_packed=True,
        ),
        Operator(
            "MatMulNBits",
            "linear",
            (
                Operand(
                    "B", 1, _axis(0, " of the weights, restored to (N, K)"), scale=2, zero_point=3
                ),
            ),
            MICROSOFT,
            is_packed=True,
        ),
    )
}

# Operators of the domain com.microsoft that hold weights, in layouts that quantstore does not read.
UNREAD = frozenset(
    (
        *("GemmFloat8", "LongformerAttention", "MatMulBlockQuantizedFp4Weight", "MatMulBnb4"),
        *("MatMulBlockQuantizedFp8Weight", "MatMulFpQ4", "MatMulNBitsMlp", "MatMulNBitsQkv"),
        *("MatMulNBitsQLoRA", "MoE", "QMoE", "QOrderedAttention", "QOrderedMatMul"),
        *("SparseToDenseMatMul", "WordConvEmbedding"),
    )
)


# Others of that domain whose constants of two dimensions are tables of sines, masks or biases.
WITHOUT_WEIGHTS = frozenset(
    (
        *("DecoderMaskedMultiHeadAttention", "GroupQueryAttention", "MultiHeadAttention"),
        *("PackedMultiHeadAttention", "RotaryEmbedding", "SparseAttention"),
    )
)


# Operators of TensorFlow Lite that may have weights, and that are not read.
UNREAD_OF_TFLITE = frozenset(
    (
        *("BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN", "EMBEDDING_LOOKUP_SPARSE"),
        *("LSTM", "RNN", "STABLEHLO_CONVOLUTION", "STABLEHLO_DOT_GENERAL", "SVDF"),
        # Those whose weights take a form that is not read.
        *("BATCH_MATMUL", "CONV_2D", "CONV_3D", "CONV_3D_TRANSPOSE", "DEPTHWISE_CONV_2D"),
        *("FULLY_CONNECTED", "TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
        "UNIDIRECTIONAL_SEQUENCE_RNN",
    )
)


@cache
def is_known_operator(op_type: str) -> bool:
    """Whether ONNX's own operator set has, or ever had, an operator of this name."""
    return bool(defs.has(op_type))


def operator_of(node: ir.Node) -> Operator | None:
    """The table row of a node, None where the node holds no weights we know of."""
    domain = "" if node.domain in STANDARD_DOMAINS else node.domain
    return OPERATORS.get((domain, node.op_type))
