"""In which forms a file may store the weights of a layer, and what becomes of them.

The authority is onnx's own reference evaluator, or onnxruntime where it runs the form.
"""

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from quantstore.errors import ModelFileError, NoLayersError
from quantstore.graph import Unread, find_sites, fold, open_model, read_or_reason, survey
from quantstore.graph.grid import stored_on_grid
from quantstore.graph.walk import CANNOT_BE_COMPUTED
from quantstore.pipeline.measure_file import measure_file
from tests.support.graphs import (
    as_stored,
    computed,
    conv_model,
    gaussian,
    layers_of,
    make_model,
    move_outside,
    node,
    run,
    save,
)

W = gaussian(3, 5)


@pytest.fixture
def read_one(tmp_path):
    def read(model, **options):
        (layer,) = layers_of(save(model, tmp_path / "test.onnx"), **options)
        return layer

    return read


# --- through nodes that compute with constants --------------------------------------------------


def ints(*values):
    return np.array(values, dtype=np.int64)


THROUGH = {
    "Identity": ([node("Identity", ["w"], ["v"])], {"w": W}),
    "Cast": ([node("Cast", ["w"], ["v"], to=TensorProto.FLOAT)], {"w": W.astype(np.float16)}),
    "Transpose": ([node("Transpose", ["w"], ["v"])], {"w": W.T.copy()}),
    "Reshape": ([node("Reshape", ["w", "to"], ["v"])], {"w": W.ravel(), "to": ints(3, -1)}),
    "Squeeze": ([node("Squeeze", ["w", "axes"], ["v"])], {"w": W[None], "axes": ints(0)}),
    "Unsqueeze and Squeeze": (
        [node("Unsqueeze", ["w", "axes"], ["u"]), node("Squeeze", ["u", "axes"], ["v"])],
        {"w": W, "axes": ints(1)},
    ),
    "Flatten": ([node("Flatten", ["w"], ["v"])], {"w": W.reshape(3, 5, 1)}),
    "Slice": (
        [node("Slice", ["w", "from", "to"], ["v"])],
        {"w": gaussian(6, 5), "from": ints(1), "to": ints(4)},
    ),
    "Split": (
        [node("Split", ["w", "sizes"], ["u", "v"])],
        {"w": gaussian(4, 5), "sizes": ints(1, 3)},
    ),
    "Concat": ([node("Concat", ["a", "w"], ["v"], axis=0)], {"w": W[1:], "a": W[:1]}),
    "Gather": ([node("Gather", ["w", "rows"], ["v"])], {"w": W, "rows": ints(2, 0, 1)}),
    "Expand": ([node("Expand", ["w", "to"], ["v"])], {"w": W[:1], "to": ints(3, 5)}),
    "arithmetic": (
        [
            node("Add", ["w", "a"], ["s"]),
            node("Mul", ["s", "b"], ["t"]),
            node("Div", ["t", "a"], ["u"]),
            node("Sub", ["u", "b"], ["v"]),
        ],
        {"w": W, "a": gaussian(3, 1), "b": gaussian(5)},
    ),
    "weight normalization": (
        [
            node("ReduceL2", ["w"], ["norm"], axes=[1], keepdims=1),
            node("Div", ["w", "norm"], ["unit"]),
            node("Mul", ["unit", "g"], ["v"]),
        ],
        {"w": W, "g": gaussian(3, 1)},
    ),
    "integers scaled by arithmetic": (
        [
            node("Cast", ["w"], ["c"], to=TensorProto.FLOAT),
            node("Sub", ["c", "zero"], ["d"]),
            node("Mul", ["d", "scale"], ["v"]),
        ],
        {
            "w": np.arange(15, dtype=np.int8).reshape(3, 5),
            "zero": np.float32(3),
            "scale": np.float32(0.5),
        },
    ),
}


def product(nodes, constants, opset=17):
    return make_model([*nodes, node("MatMul", ["x", "v"], ["y"], "fc")], constants, opset=opset)


@pytest.mark.parametrize(("nodes", "constants"), THROUGH.values(), ids=THROUGH)
def test_weights_are_found_through_nodes_that_compute_with_constants(read_one, nodes, constants):
    model = product(nodes, constants)
    layer = read_one(model)
    (expected,) = computed(model, "v")
    assert (layer.shape, layer.channel_axis) == ((3, 5), 1)
    assert (layer.weight_name, layer.weight_dtype) == ("w", constants["w"].dtype.name)
    np.testing.assert_array_equal(as_stored(layer), expected)


def test_integers_scaled_by_arithmetic_are_quantized_already(read_one):
    layer = read_one(product(*THROUGH["integers scaled by arithmetic"]))
    assert (layer.already_quantized, layer.stored_scheme, layer.stored_step) == (True, "int8", None)


def test_what_is_computed_may_lie_in_another_file(read_one, tmp_path):
    model = product(*THROUGH["Transpose"])
    before = read_one(model).weights
    move_outside(model.graph.initializer[0], tmp_path / "w.bin", offset=4)
    np.testing.assert_array_equal(read_one(model).weights, before)


def test_a_constant_that_grows_beyond_its_file_is_left_out_and_said(tmp_path):
    nodes = [
        node("Expand", ["small", "to"], ["v"], "blown"),
        node("MatMul", ["x", "v"], ["h"], "big"),
    ]
    nodes.append(node("MatMul", ["h", "w"], ["y"], "fc"))
    model = make_model(nodes, {"small": W[:1], "to": ints(1 << 20, 5), "w": W})
    file = open_model(save(model, tmp_path / "m.onnx"))
    big, fc = (read_or_reason(file, site) for site in find_sites(file))
    assert isinstance(big, Unread)
    assert big.reason == f"{CANNOT_BE_COMPUTED}: it grows to 5,242,880 values, more than 1,048,576"
    assert fc.name == "fc"


def test_a_constant_that_doubles_with_each_node_is_left_out_at_once(tmp_path):
    nodes = [node("Concat", [f"v{i}", f"v{i}"], [f"v{i + 1}"], axis=0) for i in range(40)]
    nodes.append(node("MatMul", ["x", "v40"], ["y"], "big"))
    file = open_model(save(make_model(nodes, {"v0": W}), tmp_path / "m.onnx"))
    (big,) = (read_or_reason(file, site) for site in find_sites(file))
    assert "it grows to" in big.reason


@pytest.mark.slow
def test_a_chain_of_any_length_is_followed_but_not_computed_without_end(tmp_path):
    for op_type, is_read in (("Identity", True), ("Neg", False)):
        count = 5 * fold.MOST_NODES
        nodes = [node(op_type, [f"v{i}"], [f"v{i + 1}"]) for i in range(count)]
        nodes.append(node("MatMul", ["x", f"v{count}"], ["y"], "fc"))
        file = open_model(save(make_model(nodes, {"v0": W}), tmp_path / "m.onnx"))
        (found,) = (read_or_reason(file, site) for site in find_sites(file))
        assert isinstance(found, Unread) is not is_read


def test_what_the_evaluator_cannot_compute_is_left_out_and_said(tmp_path):
    model = product([node("Reshape", ["w", "to"], ["v"], "odd")], {"w": W, "to": ints(4, 4)})
    file = open_model(save(model, tmp_path / "m.onnx"))
    (found,) = (read_or_reason(file, site) for site in find_sites(file))
    assert found.reason.startswith(f"{CANNOT_BE_COMPUTED}: Reshape cannot be computed: ")


CIRCLES = {
    "arithmetic": [node("Add", ["w", "v"], ["a"]), node("Neg", ["a"], ["v"])],
    "Identity": [node("Identity", ["v"], ["a"]), node("Identity", ["a"], ["v"])],
    "DequantizeLinear": [
        node("Identity", ["b"], ["a"]),
        node("Identity", ["a"], ["b"]),
        node("DequantizeLinear", ["a", "w"], ["v"]),
    ],
}


@pytest.mark.parametrize("nodes", CIRCLES.values(), ids=CIRCLES)
def test_a_value_that_is_made_of_itself_is_no_constant(tmp_path, nodes):
    model = product(nodes, {"w": W})
    with pytest.raises(ModelFileError):
        layers_of(save(model, tmp_path / "m.onnx"))


def test_a_weight_made_by_an_operator_we_do_not_follow_is_said(tmp_path):
    nodes = [node("GlobalMaxPool", ["w"], ["v"]), node("MatMul", ["x", "v"], ["h"], "made")]
    nodes.append(node("MatMul", ["h", "w"], ["y"], "fc"))
    found = survey(open_model(save(make_model(nodes, {"w": W}), tmp_path / "m.onnx")))
    assert [site.name for site in found.sites] == ["fc"]
    assert found.unread == (Unread("made", "B", "MatMul", "fed by GlobalMaxPool", W.size),)


def test_whole_numbers_are_no_weights_and_said(tmp_path):
    nodes = [node("MatMul", ["x", "n"], ["h"], "whole"), node("MatMul", ["h", "w"], ["y"], "fc")]
    constants = {"n": np.ones((3, 3), np.int64), "w": W}
    found = survey(open_model(save(make_model(nodes, constants), tmp_path / "m.onnx")))
    assert found.unread == (Unread("whole", "B", "MatMul", "holds int64"),)


# --- Constant nodes and sparse tensors ----------------------------------------------------------


def test_a_constant_node_may_hold_a_list_of_floats(read_one):
    model = product([node("Constant", [], ["v"], "k", value_floats=[1.0, 2.5])], {})
    assert read_one(model).weights.tolist() == [[1.0, 2.5]]


def test_a_constant_node_may_hold_one_float(read_one):
    nodes = [
        node("Constant", [], ["two"], "k", value_float=2.0),
        node("Constant", [], ["to"], "t", value_ints=[3, 5]),
        node("Mul", ["w", "two"], ["u"]),
        node("Reshape", ["u", "to"], ["v"]),
    ]
    np.testing.assert_array_equal(as_stored(read_one(product(nodes, {"w": W.ravel()}))), 2 * W)


SPARSE = np.zeros((3, 5), np.float32)
SPARSE[0, 1], SPARSE[2, 4] = 2, -3


def sparse_tensor(name, indices):
    values = numpy_helper.from_array(np.array([2, -3], np.float32), name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(indices, "i"), [3, 5])


@pytest.mark.parametrize("indices", [ints(1, 14), np.array([[0, 1], [2, 4]])], ids=["flat", "rows"])
def test_a_sparse_tensor_reads_like_a_dense_one(read_one, indices):
    in_graph = product([], {})
    in_graph.graph.sparse_initializer.append(sparse_tensor("v", indices))
    in_node = product(
        [node("Constant", [], ["v"], "k", sparse_value=sparse_tensor("v", indices))], {}
    )
    for model in (in_graph, in_node):
        layer = read_one(model)
        np.testing.assert_array_equal(as_stored(layer), SPARSE)
        assert layer.weight_name == "v"


@pytest.mark.parametrize("indices", [ints(1, 15), ints(1), np.array([[0, 1], [3, 4]])])
def test_a_sparse_tensor_with_impossible_indices_is_refused(tmp_path, indices):
    model = product([], {})
    sparse = sparse_tensor("v", ints(1, 14))
    sparse.indices.CopyFrom(numpy_helper.from_array(indices, "i"))
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(ModelFileError, match="sparse tensor 'v' cannot be read"):
        layers_of(save(model, tmp_path / "m.onnx"))


# --- types --------------------------------------------------------------------------------------

FLOAT8 = (
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e4m3fnuz,
    ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e5m2fnuz,
)


@pytest.mark.parametrize("dtype", FLOAT8, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("is_outside", [False, True])
def test_floats_of_eight_bits_are_read_as_float32(read_one, tmp_path, dtype, is_outside):
    weights = gaussian(4, 3, 1).astype(dtype)
    model = conv_model(weights)
    if is_outside:
        move_outside(model.graph.initializer[0], tmp_path / "w.bin", offset=3)
    layer = read_one(model)
    assert layer.weight_dtype == np.dtype(dtype).name
    assert not layer.already_quantized
    np.testing.assert_array_equal(layer.weights, weights.astype(np.float32).reshape(4, 3))


CODES = {
    "int8": np.int8,
    "uint8": np.uint8,
    "int4": ml_dtypes.int4,
    "uint4": ml_dtypes.uint4,
    "int16": np.int16,
}


def codes_of(name, shape=(4, 3, 3, 3)):
    low, high = {"int4": (-8, 8), "uint4": (0, 16), "uint8": (0, 256)}.get(name, (-128, 128))
    random = np.random.default_rng(len(name))
    return random.integers(low, high, size=shape).astype(CODES[name])


# --- QDQ: a DequantizeLinear in front of the weights --------------------------------------------


def qdq_model(codes, scale, zero=None, *, before=(), after=(), domain="", **attributes):
    """A convolution that reads its weights through a DequantizeLinear."""
    constants = {"w": codes, "ws": np.asarray(scale)}
    inputs = ["w1" if before else "w", "ws", "wz"]
    if zero is None:
        inputs.pop()
    else:
        constants["wz"] = np.asarray(zero)
    nodes = [
        *before,
        node(
            "DequantizeLinear", inputs, ["d" if after else "v"], "dq", domain=domain, **attributes
        ),
        *after,
        node("Conv", ["x", "v"], ["y"], "conv"),
    ]
    return make_model(nodes, constants, opset=21, ir_version=10)


def check_against_reference(layer, model):
    (expected,) = computed(model, "v")
    np.testing.assert_array_equal(as_stored(layer), expected.astype(np.float32))


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("is_outside", [False, True])
@pytest.mark.parametrize("has_zero", [False, True])
def test_codes_of_any_width_come_back_as_weights(read_one, tmp_path, name, is_outside, has_zero):
    codes = codes_of(name)
    zero = np.array(3).astype(codes.dtype) if has_zero else None
    model = qdq_model(codes, np.float32(0.125), zero)
    inside = model
    if is_outside:
        model = onnx.ModelProto.FromString(model.SerializeToString())
        move_outside(model.graph.initializer[0], tmp_path / "w.bin", offset=5)
    layer = read_one(model)
    assert layer.already_quantized
    assert (layer.weight_name, layer.weight_dtype) == ("w", name)
    assert (layer.stored_scheme, layer.stored_step) == (f"{name} per tensor", 0.125)
    assert (layer.operand, layer.channel_axis, layer.shape) == ("W", 0, (4, 3, 3, 3))
    check_against_reference(layer, inside)


def test_an_odd_number_of_half_bytes_in_another_file_is_read(read_one, tmp_path):
    model = qdq_model(codes_of("int4", (3, 1, 3)), np.float32(0.5))
    inside = onnx.ModelProto.FromString(model.SerializeToString())
    move_outside(model.graph.initializer[0], tmp_path / "w.bin")
    assert (tmp_path / "w.bin").stat().st_size == 5
    check_against_reference(read_one(model), inside)


SCALES = np.abs(gaussian(4)) + 0.1


@pytest.mark.parametrize("axis", [0, -4])
def test_each_channel_may_have_a_scale_of_its_own(read_one, axis):
    zeros = np.arange(4, dtype=np.int8)
    model = qdq_model(codes_of("int8"), SCALES, zeros, axis=axis)
    layer = read_one(model)
    assert layer.stored_scheme == "int8 per channel"
    assert layer.stored_step == pytest.approx(float(SCALES.max()))
    check_against_reference(layer, model)


@pytest.mark.parametrize(("length", "block"), [(6, 2), (7, 3)])
def test_blocks_may_share_a_scale(read_one, length, block):
    codes = codes_of("int4", (length, 5))
    blocks = -(-length // block)
    scales = np.abs(gaussian(blocks, 5)) + 0.1
    zeros = np.ones((blocks, 5)).astype(ml_dtypes.int4)
    nodes = [
        node("DequantizeLinear", ["w", "ws", "wz"], ["v"], "dq", axis=0, block_size=block),
        node("MatMul", ["x", "v"], ["y"], "fc"),
    ]
    model = make_model(nodes, {"w": codes, "ws": scales, "wz": zeros}, opset=21, ir_version=10)
    layer = read_one(model)
    assert layer.stored_scheme == f"int4 per block of {block}"
    (expected,) = run(
        make_model(
            nodes[:1], {"w": codes, "ws": scales, "wz": zeros}, inputs=(), outputs=("v",), opset=21,
            ir_version=10,
        )
    )  # fmt: skip
    np.testing.assert_array_equal(as_stored(layer), expected)


def test_onnxruntimes_own_domain_has_the_operator_too(read_one):
    codes = codes_of("int8")
    model = qdq_model(codes, np.float32(0.5), domain="com.microsoft")
    np.testing.assert_array_equal(as_stored(read_one(model)), codes * np.float32(0.5))


def test_floats_of_eight_bits_may_have_a_scale(read_one):
    codes = gaussian(4, 3, 1).astype(ml_dtypes.float8_e4m3fn)
    model = qdq_model(codes, np.float32(0.125))
    layer = read_one(model)
    assert (layer.already_quantized, layer.stored_scheme) == (True, "float8_e4m3fn per tensor")
    check_against_reference(layer, model)


def test_a_scale_of_sixteen_bits_gives_weights_of_sixteen_bits(read_one):
    model = qdq_model(codes_of("int8"), np.float16(0.1))
    check_against_reference(read_one(model), model)


def test_codes_scale_and_zero_point_may_come_through_other_nodes(read_one):
    before = [
        node("Identity", ["w"], ["w1"]),
        node("Identity", ["ws0"], ["ws1"]),
        node("Constant", [], ["two"], "two", value_float=2.0),
        node("Div", ["ws1", "two"], ["ws"]),
        node("Cast", ["wz0"], ["wz"], to=TensorProto.INT8),
    ]
    model = qdq_model(codes_of("int8"), np.float32(0), np.int8(0), before=before)
    del model.graph.initializer[1:]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "ws0"))
    model.graph.initializer.append(numpy_helper.from_array(np.int32(3), "wz0"))
    layer = read_one(model)
    assert layer.stored_step == 0.25
    check_against_reference(layer, model)


def test_dequantized_weights_may_be_transposed(read_one):
    nodes = [
        node("DequantizeLinear", ["w", "ws"], ["d"], "dq", axis=0),
        node("Transpose", ["d"], ["v"]),
    ]
    constants = {"w": codes_of("int8", (5, 3)), "ws": np.abs(gaussian(5)) + 0.1}
    model = product(nodes, constants, opset=21)
    layer = read_one(model)
    assert (layer.stored_scheme, layer.shape, layer.channel_axis) == ("int8 per channel", (3, 5), 1)
    check_against_reference(layer, model)


def test_weights_that_the_graph_itself_quantizes_are_read_in_float(read_one):
    # As a training tool leaves them: the file holds floats, and nothing is lost yet.
    nodes = [
        node("QuantizeLinear", ["w", "s"], ["q"], "q"),
        node("DequantizeLinear", ["q", "s"], ["v"], "dq"),
    ]
    layer = read_one(product(nodes, {"w": W, "s": np.float32(0.5)}))
    assert not layer.already_quantized
    np.testing.assert_array_equal(as_stored(layer), W)


def test_a_dequantized_convolution_is_not_folded(read_one):
    nodes = [
        node("DequantizeLinear", ["w", "ws"], ["v"], "dq"),
        node("Conv", ["x", "v"], ["c"], "conv"),
        node("Mul", ["c", "two"], ["y"], "mul"),
    ]
    codes = codes_of("int8")
    model = make_model(nodes, {"w": codes, "ws": np.float32(0.5), "two": np.float32(2)})
    layer = read_one(model)
    assert not layer.mul_folded
    np.testing.assert_array_equal(as_stored(layer), codes * np.float32(0.5))


def test_scales_that_fit_no_axis_are_refused(tmp_path):
    model = qdq_model(codes_of("int8"), SCALES[:3], axis=0)
    with pytest.raises(ModelFileError, match="'dq' has 3 weight scales"):
        layers_of(save(model, tmp_path / "m.onnx"))


def test_a_static_quantizer_of_onnxruntime_is_read_in_both_of_its_forms(tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization", reason="it is the referee")
    conv, fc = gaussian(4, 3, 3, 3), gaussian(4, 6)
    nodes = [
        node("Conv", ["x", "w"], ["c"], "conv"),
        node("GlobalAveragePool", ["c"], ["p"], "pool"),
        node("Flatten", ["p"], ["f"], "flatten"),
        node("MatMul", ["f", "v"], ["y"], "fc"),
    ]
    model = make_model(nodes, {"w": conv, "v": fc})
    shape = model.graph.input[0].type.tensor_type.shape
    for size in (1, 3, 8, 8):
        shape.dim.add().dim_value = size
    before = save(model, tmp_path / "float.onnx")

    class Samples(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = [{"x": gaussian(1, 3, 8, 8, seed=seed)} for seed in range(2)]

        def get_next(self):
            return self.left.pop() if self.left else None

    for form in (quantization.QuantFormat.QDQ, quantization.QuantFormat.QOperator):
        for per_channel in (False, True):
            after = tmp_path / f"{form.name}.onnx"
            quantization.quantize_static(
                before, after, Samples(), quant_format=form, per_channel=per_channel,
                weight_type=quantization.QuantType.QInt8,
            )  # fmt: skip
            layers = layers_of(after)
            assert len(layers) == 2
            for layer, original in zip(layers, (conv, fc), strict=True):
                assert layer.already_quantized
                assert layer.stored_scheme.startswith("int8 per ")
                moved = np.abs(as_stored(layer) - original)
                assert 0 < moved.max() <= layer.stored_step / 2 * 1.001


# --- one tensor, several layers -----------------------------------------------------------------


def weight_counts(model, path):
    measured = measure_file(save(model, path))
    return measured.weight_count, [measures.layer.weight_count for measures in measured.layers]


def test_a_table_that_is_also_a_matrix_counts_once(tmp_path):
    nodes = [
        node("Gather", ["w", "x"], ["h"], "embed"),
        node("Transpose", ["w"], ["t"]),
        node("MatMul", ["h", "t"], ["y"], "head"),
    ]
    model = make_model(nodes, {"w": gaussian(7, 5)})
    assert weight_counts(model, tmp_path / "m.onnx") == (35, [35, 35])


def test_slices_of_one_tensor_add_up_to_it(tmp_path):
    nodes = [node("Split", ["w"], ["q", "k", "v"], axis=1, num_outputs=3)]
    nodes += [node("MatMul", ["x", name], [f"y{name}"], name) for name in "qkv"]
    model = make_model(nodes, {"w": gaussian(4, 12)}, opset=18, outputs=("yq", "yk", "yv"))
    assert weight_counts(model, tmp_path / "m.onnx") == (48, [16, 16, 16])


def test_nothing_at_all_is_refused_with_what_was_met(tmp_path):
    model = product([node("GlobalMaxPool", ["w"], ["v"])], {"w": W})
    with pytest.raises(NoLayersError, match="met 1 MatMul fed by GlobalMaxPool"):
        layers_of(save(model, tmp_path / "m.onnx"))


# --- weights that come out on a grid, and those that nobody reads --------------------------------


def rounded_weights(weights, step, *, levels=127):
    """What a training for quantization leaves in a file: Div, Round, Clip, Mul."""
    nodes = [
        node("Div", ["w", "s"], ["d"]),
        node("Round", ["d"], ["r"]),
        node("Clip", ["r", "low", "high"], ["c"]),
        node("Mul", ["c", "s"], ["q"]),
        node("Conv", ["x", "q"], ["y"], "conv"),
    ]
    ends = {"low": np.float32(-levels), "high": np.float32(levels)}
    return make_model(nodes, {"w": weights, "s": step} | ends)


def step_of(weights, levels=127):
    """One for each channel."""
    return (np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / levels).astype(np.float32)


@pytest.mark.parametrize(("levels", "bits"), [(127, 8), (7, 4), (1, 2)])
def test_weights_that_the_graph_rounds_are_quantized_already(tmp_path, levels, bits):
    weights = gaussian(8, 3, 3, 3)
    step = step_of(weights, levels)
    path = save(rounded_weights(weights, step, levels=levels), tmp_path / "m.onnx")
    (layer,) = layers_of(path)
    assert layer.already_quantized
    assert layer.stored_scheme == f"float on an int{bits} grid per channel"
    assert layer.stored_step == pytest.approx(step.max(), rel=1e-5)
    expected = np.clip(np.rint(weights / step), -levels, levels) * step
    np.testing.assert_array_equal(as_stored(layer), expected)


def test_one_step_for_all_is_a_grid_of_the_tensor(tmp_path):
    path = save(rounded_weights(gaussian(8, 3, 3, 3), np.float32(0.03)), tmp_path / "m.onnx")
    (layer,) = layers_of(path)
    assert layer.stored_scheme == "float on an int8 grid per tensor"
    assert layer.stored_step == pytest.approx(0.03, rel=1e-5)


def test_what_is_rounded_to_more_levels_lies_on_no_grid(tmp_path):
    weights = gaussian(8, 3, 3, 3)
    model = rounded_weights(weights, step_of(weights, 2000), levels=2000)
    (layer,) = layers_of(save(model, tmp_path / "m.onnx"))
    assert not layer.already_quantized


def test_weights_that_nothing_rounds_are_float_whatever_they_hold(tmp_path):
    weights = np.rint(gaussian(8, 3, 3, 3) * 3)
    nodes = [node("Mul", ["w", "s"], ["v"]), node("Conv", ["x", "v"], ["y"], "conv")]
    model = make_model(nodes, {"w": weights, "s": np.float32(0.1)})
    (layer,) = layers_of(save(model, tmp_path / "m.onnx"))
    assert not layer.already_quantized


@settings(deadline=None)
@given(st.floats(1e-6, 1e6), st.lists(st.integers(-127, 127), min_size=2, max_size=40).filter(any))
def test_multiples_of_a_step_lie_on_a_grid(step, codes):
    weights = np.array(codes, np.float32).reshape(1, -1) * np.float32(step)
    stored = stored_on_grid(weights, 0)
    largest_step = step * np.gcd.reduce(np.array(codes))
    assert stored is not None
    assert stored.step == pytest.approx(largest_step, rel=1e-4)


@given(st.integers(0, 999))
def test_what_is_drawn_at_random_lies_on_none(seed):
    assert stored_on_grid(gaussian(4, 30, seed=seed), 0) is None


FOLDED = {
    "Floor": ([node("Floor", ["w"], ["v"])], np.floor),
    "Ceil": ([node("Ceil", ["w"], ["v"])], np.ceil),
    "Sign": ([node("Sign", ["w"], ["v"])], np.sign),
    "Where": (
        [node("Greater", ["w", "zero"], ["b"]), node("Where", ["b", "w", "zero"], ["v"])],
        lambda w: np.where(w > 0, w, 0),
    ),
    "MatMul": (
        [node("MatMul", ["w", "r"], ["p"], "inner"), node("Add", ["p", "w"], ["v"])],
        lambda w: w @ R + w,
    ),
    "Gemm": ([node("Gemm", ["r", "w"], ["v"], "inner", transB=1)], lambda w: R @ w.T),
    "Pad": ([node("Pad", ["w", "pads"], ["v"])], lambda w: np.pad(w, ((0, 1), (2, 0)))),
    "Trilu": ([node("Trilu", ["w"], ["v"], upper=0)], np.tril),
    "Softmax": (
        [node("Softmax", ["w"], ["v"], axis=0)],
        lambda w: np.exp(w) / np.exp(w).sum(axis=0),
    ),
}
R = gaussian(4, 4, seed=5)


@pytest.mark.parametrize(("nodes", "expected"), FOLDED.values(), ids=FOLDED)
def test_what_the_reference_evaluator_knows_is_computed_ahead(tmp_path, nodes, expected):
    weights = gaussian(4, 4)
    constants = {"w": weights, "r": R, "zero": np.float32(0), "pads": np.array([0, 2, 1, 0])}
    model = make_model([*nodes, node("MatMul", ["x", "v"], ["y"], "fc")], constants)
    (layer,) = layers_of(save(model, tmp_path / "m.onnx"))
    np.testing.assert_allclose(as_stored(layer), expected(weights), rtol=1e-5, atol=1e-6)


def test_a_product_that_takes_too_long_is_said(tmp_path):
    side = 1 << 11
    nodes = [
        node("MatMul", ["big", "big"], ["v"], "inner"),
        node("MatMul", ["x", "v"], ["h"], "outer"),
        node("MatMul", ["h", "w"], ["y"], "fc"),
    ]
    constants = {"big": np.ones((side, side), np.float32), "w": gaussian(side, 2)}
    file = open_model(save(make_model(nodes, constants), tmp_path / "m.onnx"))
    site = next(site for site in find_sites(file) if site.name == "outer")
    reason = read_or_reason(file, site)
    assert isinstance(reason, Unread)
    assert f"{side**3:,} products" in reason.reason


def unread_in(model, tmp_path):
    return survey(open_model(save(model, tmp_path / "m.onnx"))).unread


def test_a_kernel_of_an_unknown_domain_is_named(tmp_path):
    kernel = gaussian(4, 4, 3, 3)
    model = make_model(
        [
            node("Conv", ["x", "w"], ["h"], "conv"),
            node("DeformConv2", ["h", "k", "b"], ["y"], "deform", domain="vendor"),
        ],
        {"w": gaussian(4, 3, 3, 3), "k": kernel, "b": gaussian(4)},
    )
    (unread,) = unread_in(model, tmp_path)
    assert (unread.name, unread.operand) == ("deform", "input 1")
    assert unread.weight_count == kernel.size
    assert "vendor" in unread.reason


def test_a_kernel_that_is_computed_at_run_time_is_named(tmp_path):
    kernel = gaussian(4, 3, 3, 3)
    model = make_model(
        [
            node("Mul", ["k", "style"], ["modulated"], "modulate"),
            node("Conv", ["x", "modulated"], ["h"], "dynamic"),
            node("Conv", ["h", "w"], ["y"], "conv"),
        ],
        {"w": gaussian(4, 4, 3, 3), "k": kernel},
        inputs=("x", "style"),
    )
    (unread,) = unread_in(model, tmp_path)
    assert (unread.name, unread.operand, unread.weight_count) == ("dynamic", "W", kernel.size)


def test_an_operator_that_onnx_does_not_have_is_named(tmp_path):
    nodes = [node("Conv", ["x", "w"], ["h"], "conv"), node("Convolve", ["h", "k"], ["y"], "odd")]
    model = make_model(nodes, {"w": gaussian(4, 3, 3, 3), "k": gaussian(4, 4)})
    (unread,) = unread_in(model, tmp_path)
    assert (unread.name, unread.weight_count) == ("odd", 16)


def test_tables_masks_and_shifts_are_no_weights(tmp_path):
    table = gaussian(8, 4)
    nodes = [
        node("Conv", ["x", "w"], ["a"], "conv"),
        node("Add", ["a", "shift"], ["b"]),
        node("RotaryEmbedding", ["b", "p", "t", "t"], ["c"], "rope", domain="com.microsoft"),
        node("Own", ["c", "column"], ["y"], "own", domain="vendor"),
    ]
    constants = {"w": gaussian(4, 3, 3, 3), "shift": gaussian(1, 4, 5, 5), "t": table}
    constants |= {"p": np.zeros((1, 1), np.int64), "column": gaussian(1, 4, 1, 1)}
    assert unread_in(make_model(nodes, constants), tmp_path) == ()


def test_what_a_layer_reads_as_well_is_no_loss(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["h"], "conv"),
        node("Own", ["h", "w"], ["y"], "own", domain="vendor"),
    ]
    assert unread_in(make_model(nodes, {"w": gaussian(4, 3, 3, 3)}), tmp_path) == ()
