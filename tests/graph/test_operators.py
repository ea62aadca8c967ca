"""Which operators have weights: each row of the table, its operand and its channels.

Whether the channels are right is asked of onnxruntime: whoever changes one channel of the weights
changes one slice of the output, and no other.
"""

from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quantstore.graph import open_model, survey
from quantstore.graph.operators import OPERATORS, UNREAD, einsum_axis
from tests.support.graphs import as_stored, gaussian, layers_of, make_model, node, run, save

MICROSOFT = "com.microsoft"


@dataclass
class Case:
    """A node, its constants, and what the layer it holds must be."""

    op_type: str
    inputs: list
    constants: dict
    operand: str
    axis: int | None
    family: str
    x: tuple = ()
    domain: str = ""
    attributes: dict = field(default_factory=dict)
    weights: str = "w"
    opset: int = 17

    def model(self, **changed):
        one = node(self.op_type, self.inputs, ["y"], "it", domain=self.domain, **self.attributes)
        return make_model([one], self.constants | changed, opset=self.opset)


W = gaussian(3, 5)
RELU = {"activation": "Relu"}

FLOAT = {
    "Conv": Case("Conv", ["x", "w"], {"w": gaussian(4, 3, 3, 3)}, "W", 0, "conv", (1, 3, 5, 5)),
    "Conv in groups": Case(
        "Conv",
        ["x", "w"],
        {"w": gaussian(4, 2, 3)},
        "W",
        0,
        "conv",
        (1, 4, 5),
        attributes={"group": 2},
    ),
    "ConvTranspose": Case(
        "ConvTranspose",
        ["x", "w"],
        {"w": gaussian(3, 4, 2, 2)},
        "W",
        1,
        "conv_transpose",
        (1, 3, 5, 5),
    ),
    "Gemm B": Case("Gemm", ["x", "w"], {"w": W}, "B", 1, "linear", (2, 3)),
    "Gemm B transposed": Case(
        "Gemm", ["x", "w"], {"w": W}, "B", 0, "linear", (2, 5), attributes={"transB": 1}
    ),
    "Gemm A": Case("Gemm", ["w", "x"], {"w": W}, "A", 0, "linear", (5, 2)),
    "Gemm A transposed": Case(
        "Gemm", ["w", "x"], {"w": W}, "A", 1, "linear", (3, 2), attributes={"transA": 1}
    ),
    "MatMul B": Case("MatMul", ["x", "w"], {"w": W}, "B", 1, "linear", (2, 3)),
    "MatMul A": Case("MatMul", ["w", "x"], {"w": W}, "A", 0, "linear", (5, 2)),
    "MatMul of a stack": Case(
        "MatMul", ["x", "w"], {"w": gaussian(2, 3, 5)}, "B", 2, "linear", (2, 4, 3)
    ),
    "Einsum": Case(
        "Einsum",
        ["x", "w"],
        {"w": W},
        "Inputs",
        1,
        "linear",
        (2, 4, 3),
        attributes={"equation": "bij,jk->bik"},
    ),
    "Einsum, constant in front": Case(
        "Einsum",
        ["w", "x"],
        {"w": W},
        "Inputs",
        0,
        "linear",
        (2, 5, 4),
        attributes={"equation": "oi,bij->boj"},
    ),
    "DeformConv": Case(
        "DeformConv", ["x", "w", "offset"], {"w": gaussian(4, 3, 3, 3)}, "W", 0, "conv", opset=19
    ),
    "Gather": Case("Gather", ["w", "x"], {"w": W}, "data", 0, "embedding"),
    "FusedConv": Case(
        "FusedConv",
        ["x", "w"],
        {"w": gaussian(4, 3, 3, 3)},
        "W",
        0,
        "conv",
        (1, 3, 5, 5),
        MICROSOFT,
        {"activation": "Relu"},
    ),
    "FusedGemm": Case(
        "FusedGemm", ["x", "w"], {"w": W}, "B", 0, "linear", (2, 5), MICROSOFT, {"transB": 1} | RELU
    ),
    "FusedMatMul": Case("FusedMatMul", ["x", "w"], {"w": W}, "B", 1, "linear", (2, 3), MICROSOFT),
    "FusedMatMul transposed": Case(
        "FusedMatMul",
        ["x", "w"],
        {"w": gaussian(2, 5, 3)},
        "B",
        1,
        "linear",
        (2, 4, 3),
        MICROSOFT,
        {"transB": 1},
    ),
    "FusedMatMul A transposed": Case(
        "FusedMatMul", ["w", "x"], {"w": W}, "A", 1, "linear", (3, 2), MICROSOFT, {"transA": 1}
    ),
    "TransposeMatMul": Case(
        "TransposeMatMul", ["x", "w"], {"w": W}, "B", 0, "linear", (2, 5), MICROSOFT, {"transB": 1}
    ),
    "NhwcConv": Case(
        "NhwcConv", ["x", "w"], {"w": gaussian(4, 3, 3, 3)}, "W", 0, "conv", (1, 5, 5, 3), MICROSOFT
    ),
    "NhwcFusedConv": Case(
        "NhwcFusedConv",
        ["x", "w"],
        {"w": gaussian(4, 3, 3, 3)},
        "W",
        0,
        "conv",
        (1, 5, 5, 3),
        MICROSOFT,
        {"activation": "Relu"},
    ),
    "GemmFastGelu": Case("GemmFastGelu", ["x", "w"], {"w": W}, "W", 1, "linear", (), MICROSOFT),
    "DecoderMaskedSelfAttention": Case(
        "DecoderMaskedSelfAttention",
        ["x", "w", "bias"],
        {"w": gaussian(4, 12), "bias": gaussian(12)},
        "weights",
        1,
        "attention",
        (),
        MICROSOFT,
        {"num_heads": 2},
    ),
    "Attention": Case(
        "Attention",
        ["x", "w", "bias"],
        {"w": gaussian(4, 12), "bias": gaussian(12)},
        "weights",
        1,
        "attention",
        (1, 3, 4),
        MICROSOFT,
        {"num_heads": 2},
    ),
    "PackedAttention": Case(
        "PackedAttention",
        ["x", "w", "bias"],
        {"w": gaussian(4, 12), "bias": gaussian(12)},
        "weights",
        1,
        "attention",
        (),
        MICROSOFT,
        {"num_heads": 2},
    ),
}


@pytest.mark.parametrize("case", FLOAT.values(), ids=FLOAT)
def test_an_operator_has_its_weights_in_this_operand_along_this_axis(tmp_path, case):
    (layer,) = layers_of(save(case.model(), tmp_path / "m.onnx"))
    expected = case.constants[case.weights]
    assert (layer.name, layer.op_type, layer.op_family) == ("it", case.op_type, case.family)
    assert (layer.operand, layer.channel_axis, layer.shape) == (
        case.operand,
        case.axis,
        expected.shape,
    )
    assert not layer.already_quantized
    np.testing.assert_array_equal(as_stored(layer), expected)


# Attention mixes its channels, and packed attention runs on a GPU only.
RUNNABLE = {name: case for name, case in FLOAT.items() if case.x and case.op_type != "Attention"}


@pytest.mark.parametrize("case", RUNNABLE.values(), ids=RUNNABLE)
def test_a_channel_of_the_weights_is_a_slice_of_the_output(tmp_path, case):
    (layer,) = layers_of(save(case.model(), tmp_path / "m.onnx"))
    x = np.abs(gaussian(*case.x)) + 0.5
    stored = np.abs(case.constants[case.weights]) + 0.5
    try:
        (before,) = run(case.model(w=stored), x=x)
    except Exception as error:
        if "NOT_IMPLEMENTED" not in str(error):
            raise
        pytest.skip("onnxruntime has no kernel for this operator on this machine")
    groups = case.attributes.get("group", 1)
    for channel in (0, stored.shape[layer.channel_axis] - 1):
        changed = stored.copy()
        np.moveaxis(changed, layer.channel_axis, 0)[channel] *= 2
        (after,) = run(case.model(w=changed), x=x)
        where = np.argwhere(before != after)
        single = [axis for axis in range(where.shape[1]) if len(set(where[:, axis])) == 1]
        assert groups == 1 or len(single) >= 1
        assert any(where[0, axis] == channel for axis in single), (channel, single)
        assert len(where) == before.size // stored.shape[layer.channel_axis]


# --- operators with several layers in one node --------------------------------------------------


@pytest.mark.parametrize(("op_type", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_a_recurrent_node_has_two_layers_with_channels_direction_by_direction(
    tmp_path, op_type, gates, directions
):
    w, r = gaussian(directions, gates * 2, 3), gaussian(directions, gates * 2, 2)
    direction = "bidirectional" if directions == 2 else "forward"
    one = node(op_type, ["x", "w", "r"], ["y"], "cell", hidden_size=2, direction=direction)
    layers = layers_of(save(make_model([one], {"w": w, "r": r}), tmp_path / "m.onnx"))
    assert [(layer.name, layer.operand) for layer in layers] == [("cell", "W"), ("cell", "R")]
    for layer, stored in zip(layers, (w, r), strict=True):
        assert (layer.op_family, layer.channel_axis) == ("recurrent", 1)
        assert layer.shape == stored.shape
        np.testing.assert_array_equal(layer.weights, stored.reshape(directions * gates * 2, -1))


def test_a_recurrent_node_may_have_one_constant_operand_only(tmp_path):
    one = node("LSTM", ["x", "w", "r"], ["y"], "cell", hidden_size=2)
    model = make_model([one], {"r": gaussian(1, 8, 2)}, inputs=("x", "w"))
    (layer,) = layers_of(save(model, tmp_path / "m.onnx"))
    assert layer.operand == "R"


def test_the_tables_of_an_embedding_are_layers_of_one_node(tmp_path):
    names = ("word", "position", "segment")
    tables = {name: gaussian(rows, 4) for name, rows in zip(names, (9, 6, 2), strict=True)}
    inputs = ["ids", "segments", *names, "gamma", "beta"]
    one = node("EmbedLayerNormalization", inputs, ["y", "mask"], "embed", domain=MICROSOFT)
    constants = tables | {"gamma": gaussian(4), "beta": gaussian(4)}
    model = make_model([one], constants, inputs=("ids", "segments"))
    layers = layers_of(save(model, tmp_path / "m.onnx"))
    assert [layer.operand for layer in layers] == [f"{name}_embedding" for name in names]
    for layer, stored in zip(layers, tables.values(), strict=True):
        assert (layer.op_family, layer.channel_axis) == ("embedding", 0)
        np.testing.assert_array_equal(layer.weights, stored)


def test_the_projections_of_multi_head_attention_are_the_products_before_it(tmp_path):
    names = ("query", "key", "value")
    nodes = [node("MatMul", ["x", f"w_{name}"], [name], name) for name in names]
    nodes.append(
        node("MultiHeadAttention", [*names], ["y"], "attention", domain=MICROSOFT, num_heads=2)
    )
    constants = {f"w_{name}": gaussian(4, 4, seed=seed) for seed, name in enumerate(names)}
    layers = layers_of(save(make_model(nodes, constants), tmp_path / "m.onnx"))
    assert [layer.name for layer in layers] == list(names)


# --- Gather: tables and plumbing ----------------------------------------------------------------


PLUMBING = {
    "of a shape": (["shape", "index"], {"index": np.array(0)}),
    "of integers": (["table", "x"], {"table": np.arange(6).reshape(2, 3)}),
    "of a vector": (["table", "x"], {"table": gaussian(7)}),
    "at a constant index": (["table", "index"], {"table": W, "index": np.array([0, 1])}),
}


@pytest.mark.parametrize(("inputs", "constants"), PLUMBING.values(), ids=PLUMBING)
def test_a_gather_that_looks_nothing_up_is_no_embedding(tmp_path, inputs, constants):
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", inputs, ["g"], "gather"),
        node("MatMul", ["x", "w"], ["y"], "fc"),
    ]
    model = make_model(nodes, constants | {"w": W})
    assert [layer.name for layer in layers_of(save(model, tmp_path / "m.onnx"))] == ["fc"]


# --- Einsum -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equation", "index", "rank", "axis"),
    [
        ("bij,jk->bik", 1, 2, 1),
        ("bij , jk -> bik", 1, 2, 1),
        ("kj,bij->bik", 0, 2, 0),
        ("abc,cde->abde", 1, 3, 2),  # heads and their width: the last axis, as in a matrix product
        ("bhid,bhjd->bhij", 1, 4, 2),
        ("ij,jk", 1, 2, 1),  # the output is understood
        ("...ij,jk->...ik", 1, 2, 1),
        ("bi,...ij->b...j", 1, 4, 3),
        ("i,i->", 1, 1, None),  # a dot product has no output channel
        ("bi,bi->b", 1, 2, None),
        ("ii,i->i", 0, 2, None),
        ("ij,jk->ik", 2, 2, None),  # there is no such operand
        ("", 1, 2, None),
        ("ij,jk->ik", 1, 1, None),  # the tensor has fewer axes than letters
    ],
)
def test_the_channels_of_an_einsum_are_the_letters_only_the_weights_bring(
    equation, index, rank, axis
):
    assert einsum_axis(equation, index, rank) == axis


# --- integers with a scale among the inputs -----------------------------------------------------

CODES = np.random.default_rng(7).integers(-128, 128, size=(3, 5)).astype(np.int8)
KERNELS = np.random.default_rng(8).integers(-128, 128, size=(4, 3, 3, 3)).astype(np.int8)
SCALE, ZERO = np.float32(0.02), np.int8(3)
SCALES, ZEROS = np.abs(gaussian(5)) + 0.01, np.arange(-2, 3).astype(np.int8)
ROW_SCALES, ROW_ZEROS = SCALES[:3], ZEROS[:3]
ONE = {"xs": np.float32(1), "xz": np.uint8(0), "ys": np.float32(1), "yz": np.uint8(0)}


def quantized(op_type, inputs, codes, scale, zero, operand, axis, family, domain="", **attributes):
    constants = ONE | {"w": codes, "ws": np.asarray(scale), "wz": np.asarray(zero)}
    return Case(op_type, inputs, constants, operand, axis, family, (), domain, attributes)


QLINEAR_CONV = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
QLINEAR_A = ["w", "ws", "wz", "x", "xs", "xz", "ys", "yz"]
CELL = np.random.default_rng(9).integers(-128, 128, size=(2, 3, 8)).astype(np.int8)

INTEGER = {
    "QLinearConv": quantized("QLinearConv", QLINEAR_CONV, KERNELS, SCALE, ZERO, "w", 0, "conv"),
    "QLinearConv per channel": quantized(
        "QLinearConv", QLINEAR_CONV, KERNELS, SCALES[:4], ZEROS[:4], "w", 0, "conv"
    ),
    "QLinearConv of onnxruntime": quantized(
        "QLinearConv", QLINEAR_CONV, KERNELS, SCALES[:4], ZEROS[:4], "w", 0, "conv", MICROSOFT
    ),
    "QLinearMatMul b": quantized(
        "QLinearMatMul", QLINEAR_CONV, CODES, SCALES, ZEROS, "b", 1, "linear"
    ),
    "QLinearMatMul a": quantized(
        "QLinearMatMul", QLINEAR_A, CODES, ROW_SCALES, ROW_ZEROS, "a", 0, "linear"
    ),
    "QGemm B": quantized(
        "QGemm",
        ["x", "xs", "xz", "w", "ws", "wz"],
        CODES,
        SCALES,
        ZEROS,
        "B",
        1,
        "linear",
        MICROSOFT,
    ),
    "QGemm B transposed": quantized(
        "QGemm",
        ["x", "xs", "xz", "w", "ws", "wz"],
        CODES,
        ROW_SCALES,
        ROW_ZEROS,
        "B",
        0,
        "linear",
        MICROSOFT,
        transB=1,
    ),
    "QGemm A": quantized(
        "QGemm", ["w", "ws", "wz", "x", "xs", "xz"], CODES, SCALE, ZERO, "A", 0, "linear", MICROSOFT
    ),
    "QAttention": quantized(
        "QAttention",
        ["x", "w", "bias", "xs", "ws", "mask", "xz", "wz"],
        CODES,
        SCALES,
        ZEROS,
        "weight",
        1,
        "attention",
        MICROSOFT,
        num_heads=1,
    ),
    "DynamicQuantizeMatMul": quantized(
        "DynamicQuantizeMatMul",
        ["x", "w", "ws", "wz"],
        CODES,
        SCALES,
        ZEROS,
        "B",
        1,
        "linear",
        MICROSOFT,
    ),
    "MatMulIntegerToFloat B": quantized(
        "MatMulIntegerToFloat",
        ["x", "w", "xs", "ws", "xz", "wz"],
        CODES,
        SCALES,
        ZEROS,
        "B",
        1,
        "linear",
        MICROSOFT,
    ),
    "MatMulIntegerToFloat A": quantized(
        "MatMulIntegerToFloat",
        ["w", "x", "ws", "xs", "wz", "xz"],
        CODES,
        SCALE,
        ZERO,
        "A",
        0,
        "linear",
        MICROSOFT,
    ),
}


@pytest.mark.parametrize("case", INTEGER.values(), ids=INTEGER)
def test_integers_are_restored_with_the_scale_and_zero_point_among_the_inputs(tmp_path, case):
    (layer,) = layers_of(save(case.model(), tmp_path / "m.onnx"))
    assert (layer.op_type, layer.op_family) == (case.op_type, case.family)
    assert (layer.operand, layer.channel_axis) == (case.operand, case.axis)
    assert layer.already_quantized
    scale = case.constants["ws"]
    sharing = "channel" if scale.size > 1 else "tensor"
    assert layer.stored_scheme == f"int8 per {sharing}"
    assert layer.stored_step == pytest.approx(float(scale.max()))
    dequantize = node("DequantizeLinear", ["w", "ws", "wz"], ["y"], axis=case.axis)
    # The authority: onnxruntime's own DequantizeLinear along the same axis.
    (expected,) = run(make_model([dequantize], case.constants, inputs=()))
    np.testing.assert_array_equal(as_stored(layer), expected)


def test_integers_without_a_zero_point_among_the_inputs_have_zero_point_0(tmp_path):
    one = node("DynamicQuantizeMatMul", ["x", "w", "ws"], ["y"], "fc", domain=MICROSOFT)
    model = make_model([one], {"w": CODES, "ws": SCALES})
    (layer,) = layers_of(save(model, tmp_path / "m.onnx"))
    np.testing.assert_array_equal(as_stored(layer), CODES * SCALES)


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_dynamically_quantized_lstm_has_transposed_weights(tmp_path, per_channel):
    inputs = ["x", "w", "r", "", "", "", "", "", "ws", "wz", "rs", "rz"]
    recurrent = CELL[:, :2]
    scales = np.abs(gaussian(2, 8)) + 0.1 if per_channel else np.array([0.5, 0.25], np.float32)
    zeros = np.zeros(scales.shape, np.int8) + np.array([1, 2], np.int8).reshape(
        (2, 1) if per_channel else 2
    )
    constants = {"w": CELL, "r": recurrent, "ws": scales, "wz": zeros, "rs": scales, "rz": zeros}
    one = node(
        "DynamicQuantizeLSTM", inputs, ["y"], "cell", domain=MICROSOFT, hidden_size=2,
        direction="bidirectional",
    )  # fmt: skip
    layers = layers_of(save(make_model([one], constants), tmp_path / "m.onnx"))
    assert [layer.operand for layer in layers] == ["W", "R"]
    shape = (2, 1, 8) if per_channel else (2, 1, 1)
    for layer, codes in zip(layers, (CELL, recurrent), strict=True):
        floats = codes.astype(np.float32)
        expected = (floats - zeros.reshape(shape[:2] + shape[2:])) * scales.reshape(shape)
        assert layer.channel_axis == 2
        np.testing.assert_array_equal(
            layer.weights, expected.swapaxes(1, 2).reshape(16, codes.shape[1])
        )


# --- a few bits each ----------------------------------------------------------------------------


def packed_model(bits, block, columns, *, zero_points, rows=6, seed=0):
    """A MatMulNBits node whose output, for an identity matrix, is its weights."""
    random = np.random.default_rng([seed, bits, block])
    blocks = -(-columns // block)
    constants = {
        "w": random.integers(256, size=(rows, blocks, block * bits // 8)).astype(np.uint8),
        "ws": (np.abs(random.normal(size=rows * blocks)) + 0.01).astype(np.float32),
    }
    if zero_points == "packed":
        size = rows * -(-blocks * bits // 8)
        constants["wz"] = random.integers(256, size=size).astype(np.uint8)
    elif zero_points == "float":
        constants["wz"] = random.normal(size=(rows, blocks)).astype(np.float32)
    one = node(
        "MatMulNBits", ["x", "w", "ws", "wz"][: len(constants) + 1], ["y"], "fc", domain=MICROSOFT,
        bits=bits, block_size=block, K=columns, N=rows,
    )  # fmt: skip
    return make_model([one], constants, opset=21)


@pytest.mark.parametrize("zero_points", ["none", "packed", "float"])
@pytest.mark.parametrize("columns", [64, 80])
@pytest.mark.parametrize(("bits", "block"), [(4, 16), (4, 32), (8, 32), (2, 16)])
def test_blocks_of_a_few_bits_are_what_onnxruntime_multiplies_with(
    tmp_path, bits, block, columns, zero_points
):
    model = packed_model(bits, block, columns, zero_points=zero_points)
    (layer,) = layers_of(save(model, tmp_path / "m.onnx"))
    assert (layer.operand, layer.op_family, layer.channel_axis) == ("B", "linear", 0)
    assert layer.shape == (6, columns)
    assert layer.already_quantized
    assert layer.stored_scheme == f"uint{bits} per block of {block}"
    try:
        (expected,) = run(model, x=np.eye(columns, dtype=np.float32))
    except Exception as error:
        pytest.skip(f"onnxruntime does not run it: {str(error)[:200]}")
    np.testing.assert_allclose(layer.weights, expected.T, rtol=1e-5, atol=1e-5)


def test_blocks_may_be_given_input_by_input(tmp_path):
    model = packed_model(4, 16, 32, zero_points="none")
    (plain,) = layers_of(save(model, tmp_path / "plain.onnx"))
    one = model.graph.node[0]
    one.input.extend(["", "order"])
    order = helper.make_tensor("order", TensorProto.INT32, [32], [1] * 16 + [0] * 16)
    model.graph.initializer.append(order)
    (ordered,) = layers_of(save(model, tmp_path / "ordered.onnx"))
    scale = np.frombuffer(model.graph.initializer[1].raw_data, np.float32).reshape(6, 2)
    swapped = scale[:, [1, 0]].repeat(16, axis=1) / scale.repeat(16, axis=1)
    np.testing.assert_allclose(ordered.weights, plain.weights * swapped, rtol=1e-6)


@pytest.mark.parametrize("has_zeros", [False, True])
@pytest.mark.parametrize(
    ("stored", "bits"), [("uint8", 4), ("uint8", 8), ("uint4", 4), ("int4", 4)]
)
def test_a_table_of_a_few_bits_is_what_onnxruntime_looks_up(tmp_path, stored, bits, has_zeros):
    rows, columns, block = 7, 64, 16
    random = np.random.default_rng([bits, len(stored)])
    low, high = {"int4": (-8, 8), "uint4": (0, 16), "uint8": (0, 256)}[stored]
    dtype = {"int4": ml_dtypes.int4, "uint4": ml_dtypes.uint4, "uint8": np.uint8}[stored]
    packing = 8 // bits if stored == "uint8" else 1
    constants = {
        "w": random.integers(low, high, size=(rows, columns // packing)).astype(dtype),
        "ws": (np.abs(random.normal(size=(rows, columns // block))) + 0.01).astype(np.float32),
    }
    if has_zeros:
        size = (rows, columns // block // packing)
        constants["wz"] = random.integers(low, high, size=size).astype(dtype)
    attributes = {"block_size": block, "bits": bits, "gather_axis": 0, "quantize_axis": 1}
    inputs = ["w", "x", "ws", "wz"][: len(constants) + 1]
    one = node("GatherBlockQuantized", inputs, ["y"], "embed", domain=MICROSOFT, **attributes)
    model = make_model([one], constants, opset=21, ir_version=10)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    (layer,) = layers_of(save(model, tmp_path / "m.onnx"))
    assert (layer.operand, layer.op_family, layer.channel_axis) == ("data", "embedding", 0)
    assert (
        layer.stored_scheme
        == f"{'uint' if stored == 'uint8' else stored[:-1]}{bits} per block of 16"
    )
    (expected,) = run(model, x=np.arange(rows))
    np.testing.assert_allclose(layer.weights, expected, rtol=1e-6, atol=1e-6)


def test_the_tables_of_a_quantized_embedding_have_a_scale_each(tmp_path):
    tables = {"word": CODES, "position": CODES[:2], "segment": CODES[:1]}
    inputs = ["ids", "segments", *tables, "gamma", "beta", ""]
    inputs += [*(f"s_{name}" for name in tables), "sg", "sb", *(f"z_{name}" for name in tables)]
    constants = dict(tables)
    for number, name in enumerate(tables):
        constants[f"s_{name}"] = np.float32(0.5 + number)
        constants[f"z_{name}"] = np.int8(number)
    one = node("QEmbedLayerNormalization", inputs, ["y", "m"], "embed", domain=MICROSOFT)
    model = make_model([one], constants, inputs=("ids", "segments", "gamma", "beta", "sg", "sb"))
    layers = layers_of(save(model, tmp_path / "m.onnx"))
    names = ["word_embedding_quant", "position_embedding_quant", "segment_embedding"]
    assert [layer.operand for layer in layers] == names
    for number, (layer, codes) in enumerate(zip(layers, tables.values(), strict=True)):
        np.testing.assert_array_equal(
            layer.weights, (codes.astype(np.float32) - number) * (0.5 + number)
        )


@pytest.mark.parametrize("op_type", sorted(UNREAD))
def test_an_operator_whose_weights_are_not_read_is_said(tmp_path, op_type):
    nodes = [
        node(op_type, ["x", "w"], ["h"], "unknown", domain=MICROSOFT),
        node("MatMul", ["h", "w"], ["y"], "fc"),
    ]
    found = survey(open_model(save(make_model(nodes, {"w": W}), tmp_path / "m.onnx")))
    assert [site.name for site in found.sites] == ["fc"]
    assert [one.op_type for one in found.unread] == [op_type]


# --- the table as a whole -----------------------------------------------------------------------

USUAL_TEST = "test_an_operator_has_its_weights_in_this_operand_along_this_axis"
RESTORED = "test_integers_are_restored_with_the_scale_and_zero_point_among_the_inputs"
RECURRENT = "test_a_recurrent_node_has_two_layers_with_channels_direction_by_direction"

# Of each operator the test that says most of it, which docs/reading.md names.
TESTS = {
    **{(case.domain, case.op_type): USUAL_TEST for case in FLOAT.values()},
    **{(case.domain, case.op_type): RESTORED for case in INTEGER.values()},
    ("", "Einsum"): "test_the_channels_of_an_einsum_are_the_letters_only_the_weights_bring",
    ("", "Gather"): "test_a_gather_that_looks_nothing_up_is_no_embedding",
    **{("", op_type): RECURRENT for op_type in ("LSTM", "GRU", "RNN")},
    ("", "ConvInteger"): "test_convolution_integers_are_scale_times_code_minus_zero_point",
    ("", "MatMulInteger"): "test_each_column_of_a_matrix_of_integers_may_have_a_scale_of_its_own",
    (
        MICROSOFT,
        "EmbedLayerNormalization",
    ): "test_the_tables_of_an_embedding_are_layers_of_one_node",
    (MICROSOFT, "QEmbedLayerNormalization"): (
        "test_the_tables_of_a_quantized_embedding_have_a_scale_each"
    ),
    (MICROSOFT, "DynamicQuantizeLSTM"): (
        "test_a_dynamically_quantized_lstm_has_transposed_weights"
    ),
    (MICROSOFT, "MatMulNBits"): "test_blocks_of_a_few_bits_are_what_onnxruntime_multiplies_with",
    (MICROSOFT, "GatherBlockQuantized"): "test_a_table_of_a_few_bits_is_what_onnxruntime_looks_up",
}


def test_every_row_of_the_table_is_tested():
    assert set(TESTS) == set(OPERATORS)


@pytest.mark.parametrize("key", OPERATORS, ids="{0[1]} {0[0]}".format)
def test_operands_bear_the_names_of_the_schema(key):
    domain, op_type = key
    if domain:
        native = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
        if not hasattr(native, "get_all_operator_schema"):
            pytest.skip("this build of onnxruntime does not tell its schemas")
        (schema,) = (
            schema
            for schema in native.get_all_operator_schema()
            if (schema.domain, schema.name) == key
        )
    else:
        schema = onnx.defs.get_schema(op_type)
    for operand in OPERATORS[key].operands:
        # The last name of a variadic operator stands for all that follow.
        assert schema.inputs[min(operand.index, len(schema.inputs) - 1)].name == operand.name
        if operand.scale is not None:
            assert "scale" in schema.inputs[operand.scale].name.lower()
        if operand.zero_point is not None:
            assert "zero_point" in schema.inputs[operand.zero_point].name.lower()
