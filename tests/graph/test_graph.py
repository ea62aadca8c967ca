"""What a layer is: which input of which node, which axis, which weights, and what is refused."""

import json

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantstore.errors import (
    MissingWeightsError,
    ModelFileError,
    NoLayersError,
    QuantstoreError,
)
from quantstore.graph import find_sites, open_model, walk
from quantstore.graph.file import NAME_IS_NO_TEXT, NO_ONNX_FILE
from quantstore.graph.tensors import IS_OUTSIDE, does_not_hold, ends_before
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.measure_file import measure_file
from tests.support.graphs import (
    as_stored,
    conv_model,
    float_value,
    gaussian,
    layers_of,
    make_model,
    move_outside,
    node,
    point_outside,
    run,
    save,
)


@pytest.fixture
def read(tmp_path):
    """Reads the layers of a model through a file of its own."""

    def read_model(model, *, fold=True):
        return layers_of(save(model, tmp_path / "test.onnx"), fold=fold)

    return read_model


@pytest.fixture
def read_one(read):
    def read_only_layer(model, *, fold=True):
        (layer,) = read(model, fold=fold)
        return layer

    return read_only_layer


def refusal(path, kind=ModelFileError):
    """The sentence with which a file is refused."""
    with pytest.raises(kind) as caught:
        layers_of(path)
    sentence = caught.value.sentence
    assert "\n" not in sentence
    assert len(sentence) < 300
    return sentence


# --- operators: which input, which axis --------------------------------------------------------


def test_conv_counts_channels_along_axis_0(read_one):
    weights = gaussian(4, 3, 5, 5)
    layer = read_one(conv_model(weights))
    assert (layer.name, layer.operand, layer.op_type, layer.op_family) == (
        "conv",
        "W",
        "Conv",
        "conv",
    )
    assert (layer.shape, layer.channel_axis) == ((4, 3, 5, 5), 0)
    assert (layer.weight_name, layer.weight_dtype) == ("w", "float32")
    np.testing.assert_array_equal(layer.weights, weights.reshape(4, -1))
    assert not layer.is_depthwise
    assert not layer.already_quantized
    assert layer.stored_scheme is None
    assert layer.stored_step is None


@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 3, 2, 2, 2)])
def test_convolutions_have_any_number_of_dimensions(read_one, shape):
    weights = gaussian(*shape)
    np.testing.assert_array_equal(read_one(conv_model(weights)).weights, weights.reshape(4, -1))


@pytest.mark.parametrize(
    ("shape", "groups", "is_depthwise"),
    [
        ((6, 1, 3, 3), 6, True),
        ((12, 1, 3, 3), 6, True),  # two outputs for each input channel
        ((6, 2, 3, 3), 3, False),
        ((6, 1, 3, 3), 1, False),  # a single input channel altogether
    ],
)
def test_depthwise_means_that_each_group_reads_one_channel(read_one, shape, groups, is_depthwise):
    layer = read_one(conv_model(gaussian(*shape), group=groups))
    assert layer.group_count == groups
    assert layer.is_depthwise is is_depthwise


@pytest.mark.parametrize("groups", [1, 2])
def test_conv_transpose_counts_channels_along_axis_1_for_all_groups(read_one, groups):
    weights = gaussian(4, 3, 2, 2)
    model = make_model(
        [node("ConvTranspose", ["x", "w"], ["y"], "up", group=groups)], {"w": weights}
    )
    layer = read_one(model)
    assert (layer.operand, layer.op_family) == ("W", "conv_transpose")
    assert (layer.channel_axis, layer.group_count) == (1, groups)
    np.testing.assert_array_equal(layer.weights, weights.swapaxes(0, 1).reshape(3, -1))
    assert not layer.is_depthwise


LINEAR = {
    "Gemm B": ("Gemm", ["x", "w"], {}, "B", 1),
    "Gemm B transposed": ("Gemm", ["x", "w"], {"transB": 1}, "B", 0),
    "Gemm A": ("Gemm", ["w", "x"], {}, "A", 0),
    "Gemm A transposed": ("Gemm", ["w", "x"], {"transA": 1}, "A", 1),
    "MatMul B": ("MatMul", ["x", "w"], {}, "B", 1),
    "MatMul A": ("MatMul", ["w", "x"], {}, "A", 0),
}


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "operand", "axis"), LINEAR.values(), ids=LINEAR
)
def test_the_channels_of_a_linear_layer_are_the_outputs_of_the_product(
    read_one, op_type, inputs, attributes, operand, axis
):
    weights = gaussian(3, 5)
    model = make_model([node(op_type, inputs, ["y"], "fc", **attributes)], {"w": weights})
    layer = read_one(model)
    assert (layer.operand, layer.op_family) == (operand, "linear")
    assert (layer.channel_axis, layer.group_count) == (axis, 1)
    np.testing.assert_array_equal(layer.weights, weights if axis == 0 else weights.T)


def test_a_stack_of_matrices_keeps_its_channels_in_the_last_axis_of_b(read_one):
    weights = gaussian(2, 3, 5)
    layer = read_one(make_model([node("MatMul", ["x", "w"], ["y"], "fc")], {"w": weights}))
    assert (layer.shape, layer.channel_axis) == ((2, 3, 5), 2)
    np.testing.assert_array_equal(layer.weights, np.moveaxis(weights, 2, 0).reshape(5, -1))


def test_a_stack_of_matrices_keeps_its_channels_in_the_second_to_last_axis_of_a(read_one):
    weights = gaussian(2, 3, 5)
    layer = read_one(make_model([node("MatMul", ["w", "x"], ["y"], "fc")], {"w": weights}))
    assert layer.channel_axis == 1
    np.testing.assert_array_equal(layer.weights, weights.swapaxes(0, 1).reshape(3, -1))


@pytest.mark.parametrize("inputs", [["x", "w"], ["w", "x"]])
def test_a_vector_is_a_single_channel(read_one, inputs):
    weights = gaussian(7)
    layer = read_one(make_model([node("MatMul", inputs, ["y"], "dot")], {"w": weights}))
    assert (layer.shape, layer.channel_axis) == ((7,), None)
    np.testing.assert_array_equal(layer.weights, weights.reshape(1, 7))


def test_of_two_constant_operands_b_is_the_layer(read_one):
    weights = {"a": gaussian(2, 3), "b": gaussian(3, 4)}
    layer = read_one(make_model([node("MatMul", ["a", "b"], ["y"], "fc")], weights))
    assert (layer.operand, layer.weight_name) == ("B", "b")


def test_products_of_activations_biases_and_constants_of_other_operators_are_no_layers(read):
    model = make_model(
        [
            node("Conv", ["x", "w", "bias"], ["c"], "conv"),
            node("MatMul", ["c", "c"], ["attention"], "attention"),
            node("Add", ["attention", "offset"], ["y"], "add"),
        ],
        {"w": gaussian(3, 3, 1, 1), "bias": gaussian(3), "offset": gaussian(3, 1, 1)},
    )
    assert [layer.name for layer in read(model)] == ["conv"]


def test_an_operator_of_another_domain_is_not_taken_for_onnxs_own(read):
    foreign = node("Conv", ["x", "w"], ["h"], "foreign", domain="com.example")
    model = make_model([foreign, node("Conv", ["h", "w"], ["y"], "own")], {"w": gaussian(3, 3, 1)})
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    assert [layer.name for layer in read(model)] == ["own"]


def test_the_default_domain_has_two_spellings(read):
    convolution = node("Conv", ["x", "w"], ["y"], "conv", domain="ai.onnx")
    assert len(read(make_model([convolution], {"w": gaussian(3, 3, 1)}))) == 1


def test_an_empty_weight_is_no_layer(read):
    model = make_model(
        [node("MatMul", ["x", "none"], ["h"], "empty"), node("MatMul", ["h", "w"], ["y"], "fc")],
        {"none": np.zeros((3, 0), np.float32), "w": gaussian(3, 2)},
    )
    assert [layer.name for layer in read(model)] == ["fc"]


# --- where the values lie and what they are ----------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (np.float16, "float16"),
        (ml_dtypes.bfloat16, "bfloat16"),
        (np.float64, "float64"),
    ],
)
def test_other_float_types_are_read_as_float32(read_one, dtype, name):
    weights = np.array([[[1 / 3]], [[-2.5]], [[1e-4]]]).astype(dtype)
    layer = read_one(conv_model(weights))
    assert layer.weight_dtype == name
    assert layer.weights.dtype == np.float32
    np.testing.assert_array_equal(layer.weights, weights.astype(np.float32).reshape(3, 1))


def test_a_double_beyond_float32_becomes_infinite(read_one):
    layer = read_one(conv_model(np.array([[[1e300]], [[-1e300]]])))
    assert layer.weights.tolist() == [[np.inf], [-np.inf]]


def test_values_may_be_stored_as_numbers_instead_of_bytes(read_one):
    weights = gaussian(4, 3, 1)
    model = conv_model(weights)
    tensor = helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.ravel().tolist())
    model.graph.initializer[0].CopyFrom(tensor)
    np.testing.assert_array_equal(read_one(model).weights, weights.reshape(4, 3))


def test_an_initializer_may_also_be_listed_among_the_inputs(read_one):
    # Before IR version 4 it had to be.
    weights = gaussian(4, 3, 1)
    model = make_model(
        [node("Conv", ["x", "w"], ["y"], "conv")], {"w": weights}, inputs=("x", "w"), ir_version=3
    )
    np.testing.assert_array_equal(read_one(model).weights, weights.reshape(4, 3))


def test_a_constant_node_holds_weights_as_well_as_an_initializer(read_one):
    weights = gaussian(4, 3, 1)
    constant = node("Constant", [], ["w"], "k", value=numpy_helper.from_array(weights, "stored"))
    layer = read_one(make_model([constant, node("Conv", ["x", "w"], ["y"], "conv")], {}))
    assert layer.weight_name == "stored"
    np.testing.assert_array_equal(layer.weights, weights.reshape(4, 3))


def test_weights_are_found_through_identity(read_one):
    weights = gaussian(4, 3, 1)
    nodes = [
        node("Identity", ["w"], ["w1"], "first"),
        node("Identity", ["w1"], ["w2"], "second"),
        node("Conv", ["x", "w2"], ["y"], "conv"),
    ]
    layer = read_one(make_model(nodes, {"w": weights}))
    assert layer.weight_name == "w"
    np.testing.assert_array_equal(layer.weights, weights.reshape(4, 3))


def test_computed_weights_are_no_layer(tmp_path):
    nodes = [node("GlobalMaxPool", ["w"], ["w1"]), node("Conv", ["x", "w1"], ["y"], "conv")]
    path = save(make_model(nodes, {"w": gaussian(4, 3, 1)}), tmp_path / "computed.onnx")
    assert "Conv fed by GlobalMaxPool" in refusal(path, NoLayersError)


# --- names -------------------------------------------------------------------------------------


def chain(*names):
    """Convolutions after one another, each with weights of its own."""
    values = ["x", *(f"h{index}" for index in range(1, len(names))), "y"]
    nodes = [
        node("Conv", [values[index], f"w{index}"], [values[index + 1]], name)
        for index, name in enumerate(names)
    ]
    weights = {f"w{index}": gaussian(3, 3, 1, seed=index) for index in range(len(names))}
    return make_model(nodes, weights)


def test_layers_come_in_the_order_of_the_graph(read):
    assert [layer.name for layer in read(chain("b", "a", "c"))] == ["b", "a", "c"]


def test_a_node_without_a_name_is_named_after_its_first_output(read):
    assert [layer.name for layer in read(chain("first", "", ""))] == ["first", "h2", "y"]


def test_a_repeated_name_is_numbered(read):
    names = [layer.name for layer in read(chain("a", "a", "b", "a"))]
    assert names == ["a", "a#2", "b", "a#3"]


def test_a_number_never_takes_the_name_another_node_has(read):
    names = [layer.name for layer in read(chain("a", "a#2", "a", "a"))]
    assert len(set(names)) == 4
    assert names[:2] == ["a", "a#2"]


def branches(then_weights, else_weights, outer):
    """An If whose branches each hold a convolution; one reads its weights from outside."""
    then_graph = helper.make_graph(
        [node("Conv", ["x", "inner"], ["t"], "Conv_3")],
        "then",
        [],
        [float_value("t")],
        [numpy_helper.from_array(then_weights, "inner")],
    )
    constant = node("Constant", [], ["k"], "k", value=numpy_helper.from_array(else_weights))
    else_graph = helper.make_graph(
        [
            constant,
            node("Conv", ["x", "k"], ["e1"], ""),
            node("Conv", ["e1", "outer"], ["e"], "shared"),
        ],
        "else",
        [],
        [float_value("e")],
    )
    choice = node(
        "If", ["condition"], ["h"], "If_12", then_branch=then_graph, else_branch=else_graph
    )
    model = make_model([choice, node("Conv", ["h", "outer"], ["y"], "tail")], {"outer": outer})
    model.graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    return model


def test_a_layer_in_a_subgraph_is_named_outer_attribute_inner(read):
    weights = [gaussian(3, 3, 1, seed=seed) for seed in range(3)]
    layers = {layer.name: layer.weights for layer in read(branches(*weights))}
    expected = {
        "If_12/then_branch/Conv_3": weights[0],
        "If_12/else_branch/e1": weights[1],
        "If_12/else_branch/shared": weights[2],
        "tail": weights[2],
    }
    assert sorted(layers) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(layers[name], array.reshape(3, 3))


# --- shared weights ----------------------------------------------------------------------------


def shared_weights():
    nodes = [
        node("Conv", ["x", "w"], ["h"], "left"),
        node("Conv", ["h", "w"], ["i"], "right", group=3),
        node("Conv", ["i", "v"], ["y"], "own"),
    ]
    return make_model(nodes, {"w": gaussian(3, 1, 1), "v": gaussian(2, 3, 1)})


def test_an_initializer_of_two_nodes_is_listed_for_each_and_counted_once(tmp_path):
    measured = measure_file(save(shared_weights(), tmp_path / "shared.onnx"))
    left, right, own = (measures.layer for measures in measured.layers)
    assert [layer.layer for layer in (left, right, own)] == ["left", "right", "own"]
    assert [layer.depth for layer in (left, right, own)] == [0, 1, 2]
    assert [layer.weight_count for layer in (left, right, own)] == [3, 3, 6]
    assert measured.weight_count == 9
    assert left.figures["std"] == right.figures["std"] != own.figures["std"]


def test_nodes_that_share_weights_keep_their_own_groups(tmp_path):
    measured = measure_file(save(shared_weights(), tmp_path / "shared.onnx"))
    left, right, _ = (measures.layer for measures in measured.layers)
    assert (left.group_count, left.is_depthwise) == (1, False)
    assert (right.group_count, right.is_depthwise) == (3, True)


def test_shared_weights_behind_different_normalizations_are_different_layers(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["c"], "normalized"),
        node("BatchNormalization", ["c", *NORMALIZATION], ["h"], "bn"),
        node("Conv", ["h", "w"], ["y"], "raw"),
    ]
    model = make_model(nodes, {"w": gaussian(3, 3, 1), **normalization(3)})
    measured = measure_file(save(model, tmp_path / "shared.onnx"))
    normalized, raw = (measures.layer for measures in measured.layers)
    assert (normalized.batchnorm_folded, raw.batchnorm_folded) == (True, False)
    assert normalized.figures["weight_max"] != raw.figures["weight_max"]
    assert measured.weight_count == 9


# --- BatchNormalization ------------------------------------------------------------------------

NORMALIZATION = ("gamma", "beta", "average", "variance")


def normalization(channels, seed=0):
    random = np.random.default_rng(seed)
    return {
        "gamma": random.normal(size=channels).astype(np.float32),
        "beta": random.normal(size=channels).astype(np.float32),
        "average": random.normal(size=channels).astype(np.float32),
        "variance": random.uniform(0.01, 4, size=channels).astype(np.float32),
    }


def normalized_model(
    weights, channels, op_type="Conv", *, groups=1, epsilon=1e-3, opset=17, **attributes
):
    """A convolution with a bias, followed by a BatchNormalization."""
    nodes = [
        node(op_type, ["x", "w", "bias"], ["c"], "conv", group=groups),
        node(
            "BatchNormalization", ["c", *NORMALIZATION], ["y"], "bn", epsilon=epsilon, **attributes
        ),
    ]
    arrays = {"w": weights, "bias": gaussian(channels), **normalization(channels)}
    return make_model(nodes, arrays, opset=opset)


def with_folded_weights(model, layer):
    """The convolution alone, with the layer's effective weights and the bias that belongs to it."""
    arrays = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    epsilon = model.graph.node[1].attribute[0].f
    factor = arrays["gamma"] / np.sqrt(arrays["variance"] + epsilon)
    bias = arrays["beta"] + (arrays["bias"] - arrays["average"]) * factor
    convolution = onnx.NodeProto()
    convolution.CopyFrom(model.graph.node[0])
    convolution.output[0] = "y"
    return make_model([convolution], {"w": as_stored(layer), "bias": bias.astype(np.float32)})


FOLDED = {
    "Conv": ("Conv", (4, 3, 3, 3), 1, 4, 3),
    "Conv in one dimension": ("Conv", (4, 3, 3), 1, 4, 3),
    "Conv in groups": ("Conv", (6, 2, 3, 3), 3, 6, 6),
    "depthwise Conv": ("Conv", (6, 1, 3, 3), 6, 6, 6),
    "ConvTranspose": ("ConvTranspose", (3, 4, 2, 2), 1, 4, 3),
    "ConvTranspose in groups": ("ConvTranspose", (6, 2, 2, 2), 3, 6, 6),
    "depthwise ConvTranspose": ("ConvTranspose", (6, 1, 2, 2), 6, 6, 6),
}


@pytest.mark.parametrize(
    ("op_type", "shape", "groups", "output_channels", "input_channels"),
    FOLDED.values(),
    ids=FOLDED,
)
def test_a_folded_convolution_computes_what_both_nodes_computed(
    read_one, op_type, shape, groups, output_channels, input_channels
):
    model = normalized_model(gaussian(*shape), output_channels, op_type, groups=groups)
    layer = read_one(model)
    assert layer.batchnorm_folded
    x = gaussian(2, input_channels, *[6] * (len(shape) - 2), seed=1)
    (expected,) = run(model, x=x)
    (actual,) = run(with_folded_weights(model, layer), x=x)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_folded_weights_are_computed_in_float64_and_rounded_once(read_one):
    weights = gaussian(4, 3, 3, 3)
    model = normalized_model(weights, 4)
    arrays = {name: array.astype(np.float64) for name, array in normalization(4).items()}
    # The file holds epsilon as a float32.
    factor = arrays["gamma"] / np.sqrt(arrays["variance"] + np.float64(np.float32(1e-3)))
    expected = (weights.reshape(4, -1).astype(np.float64) * factor[:, np.newaxis]).astype(
        np.float32
    )
    np.testing.assert_array_equal(read_one(model).weights, expected)


def test_without_folding_the_weights_stay_as_they_are_stored(read_one):
    weights = gaussian(4, 3, 3, 3)
    layer = read_one(normalized_model(weights, 4), fold=False)
    assert not layer.batchnorm_folded
    np.testing.assert_array_equal(layer.weights, weights.reshape(4, -1))


def second_consumer(model):
    model.graph.node.append(node("Relu", ["c"], ["z"]))
    model.graph.output.append(float_value("z"))


def graph_output(model):
    model.graph.output.append(float_value("c"))


def training_mode(model):
    model.graph.node[1].attribute.append(helper.make_attribute("training_mode", 1))


def computed_parameter(model):
    model.graph.node.insert(0, node("Abs", ["x"], ["computed"]))
    model.graph.node[2].input[4] = "computed"


def output_read_as_a_parameter(model):
    model.graph.node[1].input[:] = ["x", "gamma", "c", "average", "variance"]


def parameters_of_another_size(model):
    for index, (name, array) in enumerate(normalization(1).items()):
        model.graph.initializer[2 + index].CopyFrom(numpy_helper.from_array(array, name))


def consumer_in_a_branch(model):
    branch = helper.make_graph([node("Relu", ["c"], ["b"])], "branch", [], [float_value("b")])
    other = helper.make_graph([node("Relu", ["x"], ["b"])], "branch", [], [float_value("b")])
    model.graph.node.append(
        node("If", ["condition"], ["z"], "if", then_branch=branch, else_branch=other)
    )
    model.graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    model.graph.output.append(float_value("z"))


@pytest.mark.parametrize(
    "spoil",
    [
        second_consumer,
        graph_output,
        training_mode,
        computed_parameter,
        output_read_as_a_parameter,
        parameters_of_another_size,
        consumer_in_a_branch,
    ],
)
def test_a_normalization_that_cannot_be_folded_safely_is_left_alone(read_one, spoil):
    weights = gaussian(4, 3, 3, 3)
    model = normalized_model(weights, 4)
    spoil(model)
    layer = read_one(model)
    assert not layer.batchnorm_folded
    np.testing.assert_array_equal(layer.weights, weights.reshape(4, -1))


@pytest.mark.parametrize(
    ("opset", "attributes", "outputs", "is_folded"),
    [
        (6, {"is_test": 1}, 1, True),
        (6, {}, 5, False),
        (7, {"spatial": 0}, 1, False),
        (9, {}, 1, True),
        (9, {}, 5, False),  # running statistics come out: training
        (14, {"training_mode": 0}, 1, True),
        (15, {"training_mode": 1}, 3, False),
    ],
)
def test_every_operator_set_says_inference_in_its_own_way(
    read_one, opset, attributes, outputs, is_folded
):
    model = normalized_model(gaussian(4, 3, 3, 3), 4, opset=opset, **attributes)
    model.graph.node[1].output.extend(f"running{index}" for index in range(outputs - 1))
    assert read_one(model).batchnorm_folded is is_folded


def test_normalization_parameters_may_come_through_identity(read_one):
    model = normalized_model(gaussian(4, 3, 3, 3), 4)
    folded = read_one(model).weights
    model.graph.node.insert(0, node("Identity", ["gamma"], ["same"]))
    model.graph.node[2].input[1] = "same"
    np.testing.assert_array_equal(read_one(model).weights, folded)


# --- weights stored as integers ----------------------------------------------------------------


def dynamically_quantized(model, folder, **options):
    """The model as onnxruntime's own quantizer stores it."""
    quantization = pytest.importorskip("onnxruntime.quantization", reason="it is the referee")
    before, after = save(model, folder / "float.onnx"), folder / "dynamic.onnx"
    types = {"int8": quantization.QuantType.QInt8, "uint8": quantization.QuantType.QUInt8}
    options["weight_type"] = types[options["weight_type"]]
    quantization.quantize_dynamic(before, after, **options)
    return after


@pytest.mark.parametrize("weight_type", ["int8", "uint8"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_integers_of_onnxruntimes_dynamic_quantizer_come_back_as_weights(
    tmp_path, weight_type, per_channel
):
    conv_weights, fc_weights = gaussian(4, 3, 3, 3) + 1, gaussian(5, 7) - 1
    nodes = [
        node("Conv", ["x", "w"], ["h"], "conv"),
        node("MatMul", ["h", "v"], ["y"], "fc"),
    ]
    model = make_model(nodes, {"w": conv_weights, "v": fc_weights})
    conv, fc = layers_of(
        dynamically_quantized(model, tmp_path, weight_type=weight_type, per_channel=per_channel)
    )
    assert (conv.name, conv.op_type, conv.op_family) == ("conv_quant", "ConvInteger", "conv")
    assert (fc.name, fc.op_type, fc.op_family) == ("fc_quant", "MatMulInteger", "linear")
    for layer, original in ((conv, conv_weights), (fc, fc_weights)):
        assert layer.already_quantized
        assert layer.weight_dtype == weight_type
        assert layer.stored_scheme.startswith(weight_type)
        moved = np.abs(as_stored(layer) - original)
        assert 0 < moved.max() <= layer.stored_step / 2 * 1.001


def dynamic_form(integer, *, scale, zero_point):
    """DynamicQuantizeLinear, an integer product, Cast, and the Mul that rescales it, by hand."""
    op_type, codes = integer
    zero_inputs = ["x_zero"] if zero_point is None else ["x_zero", "w_zero"]
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["x_codes", "x_scale", "x_zero"]),
        node(op_type, ["x_codes", "w", *zero_inputs], ["product"], "integer"),
        node("Cast", ["product"], ["cast"], to=TensorProto.FLOAT),
        node("Mul", ["x_scale", "w_scale"], ["scale"]),
        node("Mul", ["cast", "scale"], ["y"]),
    ]
    weights = {"w": codes, "w_scale": np.array(scale, dtype=np.float32)}
    if zero_point is not None:
        weights["w_zero"] = np.array(zero_point, dtype=codes.dtype)
    return make_model(nodes, weights)


def test_convolution_integers_are_scale_times_code_minus_zero_point(read_one):
    codes = np.array([0, 100, 255, 7], dtype=np.uint8).reshape(2, 2, 1, 1)
    layer = read_one(dynamic_form(("ConvInteger", codes), scale=0.5, zero_point=100))
    assert layer.weights.tolist() == [[-50, 0], [77.5, -46.5]]
    assert (layer.operand, layer.channel_axis) == ("w", 0)
    assert (layer.stored_scheme, layer.stored_step) == ("uint8 per tensor", 0.5)


def test_each_column_of_a_matrix_of_integers_may_have_a_scale_of_its_own(read_one):
    codes = np.array([[1, -2, 3], [-4, 5, -6]], dtype=np.int8)
    layer = read_one(
        dynamic_form(("MatMulInteger", codes), scale=[1, 0.5, 0.25], zero_point=[0, 1, -2])
    )
    assert layer.weights.tolist() == [[1, -4], [-1.5, 2], [1.25, -1]]
    assert (layer.operand, layer.channel_axis) == ("B", 1)
    assert (layer.stored_scheme, layer.stored_step) == ("int8 per channel", 1)


def test_each_kernel_of_integers_may_have_a_scale_of_its_own(read_one):
    codes = np.array([[1, 2], [3, 4]], dtype=np.int8).reshape(2, 2, 1)
    layer = read_one(dynamic_form(("ConvInteger", codes), scale=[1, 10], zero_point=None))
    assert layer.weights.tolist() == [[1, 2], [30, 40]]


def test_integers_without_a_zero_point_have_zero_point_0(read_one):
    codes = np.array([[1, 2]], dtype=np.uint8)
    layer = read_one(dynamic_form(("MatMulInteger", codes), scale=2.0, zero_point=None))
    assert layer.weights.tolist() == [[2], [4]]


def test_integers_whose_scale_cannot_be_found_are_no_layer(tmp_path):
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["x_codes", "x_scale", "x_zero"]),
        node("MatMulInteger", ["x_codes", "w", "x_zero"], ["y"], "integer"),
    ]
    path = save(make_model(nodes, {"w": np.ones((2, 2), np.uint8)}), tmp_path / "bare.onnx")
    assert "MatMulInteger" in refusal(path, NoLayersError)


def test_a_number_of_scales_that_fits_no_axis_is_refused(tmp_path):
    codes = np.ones((3, 2), dtype=np.int8)
    model = dynamic_form(("MatMulInteger", codes), scale=[1, 2, 3], zero_point=None)
    sentence = refusal(save(model, tmp_path / "scales.onnx"))
    assert "'integer' has 3 weight scales" in sentence


# --- external data -----------------------------------------------------------------------------


def two_layers():
    nodes = [node("Conv", ["x", "w"], ["h"], "conv"), node("MatMul", ["h", "v"], ["y"], "fc")]
    return make_model(nodes, {"w": gaussian(4, 3, 3, 3), "v": gaussian(5, 7)})


def tensor(model, name):
    return next(found for found in model.graph.initializer if found.name == name)


def all_in_one_file(model, folder):
    move_outside(tensor(model, "w"), folder / "weights.bin", offset=0)
    move_outside(tensor(model, "v"), folder / "weights.bin", offset=4096)


def several_files(model, folder):
    move_outside(tensor(model, "w"), folder / "w.bin", offset=12)
    move_outside(tensor(model, "v"), folder / "data" / "v.bin", location="data/v.bin")


def part_inline(model, folder):
    move_outside(tensor(model, "v"), folder / "v.bin", offset=7)


def without_offset_and_length(model, folder):
    (folder / "v.bin").write_bytes(tensor(model, "v").raw_data)
    point_outside(tensor(model, "v"), "v.bin")


@pytest.mark.parametrize(
    "move", [all_in_one_file, several_files, part_inline, without_offset_and_length]
)
def test_external_data_reads_like_inline_data(read, tmp_path, move):
    inline = read(two_layers())
    model = two_layers()
    move(model, tmp_path)
    external = read(model)
    assert [layer.name for layer in external] == [layer.name for layer in inline]
    for mine, expected in zip(external, inline, strict=True):
        np.testing.assert_array_equal(mine.weights, expected.weights)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_external_data_may_have_any_float_type(read_one, tmp_path, dtype):
    weights = gaussian(4, 3, 1).astype(dtype)
    model = conv_model(weights)
    move_outside(tensor(model, "w"), tmp_path / "w.bin", offset=6)
    np.testing.assert_array_equal(read_one(model).weights, weights.astype(np.float32).reshape(4, 3))


def test_the_weights_of_a_constant_node_may_be_external(read_one, tmp_path):
    weights = gaussian(4, 3, 1)
    stored = numpy_helper.from_array(weights, "stored")
    move_outside(stored, tmp_path / "w.bin")
    constant = node("Constant", [], ["w"], "k", value=stored)
    layer = read_one(make_model([constant, node("Conv", ["x", "w"], ["y"], "conv")], {}))
    np.testing.assert_array_equal(layer.weights, weights.reshape(4, 3))


def test_content_and_size_include_the_external_files(tmp_path):
    model = two_layers()
    several_files(model, tmp_path)
    path = save(model, tmp_path / "model.onnx")
    before = open_model(path)
    files = [path, tmp_path / "w.bin", tmp_path / "data" / "v.bin"]
    assert before.file_bytes == sum(file.stat().st_size for file in files)
    with files[2].open("r+b") as stream:
        stream.write(b"\x01")
    assert open_model(path).sha256 != before.sha256


def external_model(folder, location="w.bin", **where):
    model = conv_model(gaussian(4, 3, 1))  # 48 bytes of weights
    point_outside(tensor(model, "w"), str(location), **where)
    return save(model, folder / "model.onnx")


def test_a_missing_data_file_is_named(tmp_path):
    assert "w.bin is missing" in refusal(external_model(tmp_path), MissingWeightsError)


@pytest.mark.parametrize(
    ("where", "complaint"),
    [
        ({"offset": 0, "length": 48}, ends_before("w.bin", "w")),
        ({}, ends_before("w.bin", "w")),
        ({"offset": 4096, "length": 48}, ends_before("w.bin", "w")),
        ({"offset": 0, "length": 40}, "tensor 'w' declares 40 bytes"),
        ({"offset": 0, "length": 4800}, "tensor 'w' declares 4800 bytes"),
    ],
    ids=["short file", "short file, no length", "beyond the file", "short", "long"],
)
def test_data_that_is_not_where_it_should_be_is_refused(tmp_path, where, complaint):
    (tmp_path / "w.bin").write_bytes(bytes(47))
    assert complaint in refusal(external_model(tmp_path, **where), MissingWeightsError)


def test_a_negative_offset_is_refused(tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(48))
    sentence = refusal(external_model(tmp_path, offset=-8, length=48))
    assert "offset must be non-negative, got -8 for tensor 'w'" in sentence


def test_an_absolute_location_is_refused(tmp_path):
    outside = tmp_path / "outside.bin"
    outside.write_bytes(bytes(48))
    sentence = refusal(external_model(tmp_path / "inside", outside), MissingWeightsError)
    assert f"outside.bin' of tensor 'w' {IS_OUTSIDE}" in sentence


def test_a_location_above_the_folder_is_refused(tmp_path):
    (tmp_path / "outside.bin").write_bytes(bytes(48))
    sentence = refusal(external_model(tmp_path / "inside", "../outside.bin"), MissingWeightsError)
    assert f"'../outside.bin' of tensor 'w' {IS_OUTSIDE}" in sentence


def test_a_symbolic_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "outside.bin").write_bytes(bytes(48))
    path = external_model(tmp_path / "inside")
    (tmp_path / "inside" / "w.bin").symlink_to(tmp_path / "outside.bin")
    assert IS_OUTSIDE in refusal(path, MissingWeightsError)


def test_a_symbolic_link_inside_the_folder_is_followed(tmp_path):
    (tmp_path / "blob").write_bytes(gaussian(4, 3, 1).tobytes())
    (tmp_path / "w.bin").symlink_to("blob")
    (layer,) = layers_of(external_model(tmp_path))
    np.testing.assert_array_equal(layer.weights, gaussian(4, 3, 1).reshape(4, 3))


def test_a_folder_in_place_of_the_data_file_is_refused(tmp_path):
    (tmp_path / "w.bin").mkdir()
    assert "w.bin" in refusal(external_model(tmp_path), MissingWeightsError)


@pytest.mark.parametrize("location", ["", "bad\0name", "x" * 5000], ids=["empty", "NUL", "long"])
def test_an_impossible_location_is_refused_in_one_sentence(tmp_path, location):
    path = external_model(tmp_path, location)
    with pytest.raises(QuantstoreError) as caught:
        layers_of(path)
    assert caught.value.sentence.isprintable()


# --- files that are no models ------------------------------------------------------------------


def test_a_file_that_does_not_exist(tmp_path):
    assert refusal(tmp_path / "nothing.onnx").startswith("does not exist")


def test_a_folder(tmp_path):
    assert refusal(tmp_path).startswith("is a folder")


def test_an_empty_file(tmp_path):
    (tmp_path / "empty.onnx").touch()
    assert refusal(tmp_path / "empty.onnx").startswith("the file is empty")


@pytest.mark.parametrize(
    "text",
    [
        "Not a model.\n",
        "<!DOCTYPE html><html></html>",
        "a",
        "version https://git-lfs\n",
        "{}",
        "\0",
    ],
)
def test_a_text_file_called_onnx(tmp_path, text):
    (tmp_path / "text.onnx").write_text(text)
    assert refusal(tmp_path / "text.onnx").startswith("not an ONNX file")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_download(tmp_path, kept):
    content = demo_paths()[0].read_bytes()
    (tmp_path / "half.onnx").write_bytes(content[: int(kept * len(content))])
    assert NO_ONNX_FILE in refusal(tmp_path / "half.onnx")


def test_a_model_without_a_layer_says_what_it_holds_instead(tmp_path):
    path = save(make_model([node("Relu", ["x"], ["y"])], {}), tmp_path / "relu.onnx")
    sentence = refusal(path, NoLayersError)
    assert f"{walk.NO_LAYER} (met 1 Relu)" in sentence


def test_a_shape_that_does_not_match_the_data_is_refused(tmp_path):
    model = conv_model(gaussian(4, 3, 1))
    model.graph.initializer[0].dims[:] = [4, 4, 1]
    sentence = refusal(save(model, tmp_path / "dims.onnx"))
    assert sentence.startswith(does_not_hold("w", (4, 4, 1)))


@pytest.mark.parametrize(
    ("op_type", "shape", "attributes", "complaint"),
    [
        ("Conv", (4, 3), {}, walk.wrong_weights("a convolution", (4, 3))),
        ("Conv", (4, 3, 1), {"group": 3}, walk.wrong_groups(3, (4, 3, 1))),
        ("Conv", (4, 3, 1), {"group": 0}, walk.wrong_groups(0, (4, 3, 1))),
        ("ConvTranspose", (4, 3, 1), {"group": 3}, walk.wrong_groups(3, (4, 3, 1))),
        ("Gemm", (4, 3, 1), {}, walk.wrong_weights("a Gemm", (4, 3, 1))),
    ],
)
def test_a_shape_that_the_operator_does_not_allow_is_refused(
    tmp_path, op_type, shape, attributes, complaint
):
    model = make_model(
        [node(op_type, ["x", "w"], ["y"], "odd", **attributes)], {"w": gaussian(*shape)}
    )
    sentence = refusal(save(model, tmp_path / "odd.onnx"))
    assert sentence.startswith("layer 'odd' ")
    assert complaint in sentence


@pytest.mark.parametrize("attribute", [{"group": 2.0}, {"group": "2"}])
def test_an_attribute_of_the_wrong_type_is_refused(tmp_path, attribute):
    path = save(conv_model(**attribute), tmp_path / "odd.onnx")
    assert refusal(path).startswith("attribute 'group' of node 'conv' has type ")


def test_a_name_that_is_no_text_is_refused(tmp_path):
    content = conv_model().SerializeToString()
    (tmp_path / "odd.onnx").write_bytes(content.replace(b"conv", b"\xff\xfe\xfd\xfc"))
    assert f"{NAME_IS_NO_TEXT}: b'\\xff\\xfe\\xfd\\xfc'" in refusal(tmp_path / "odd.onnx")


def test_a_tensor_of_an_unknown_type_is_refused(tmp_path):
    model = conv_model()
    model.graph.initializer[0].data_type = 99
    sentence = refusal(save(model, tmp_path / "odd.onnx"))
    assert sentence.startswith("tensor 'w' has the unknown type 99")


def test_values_that_do_not_fit_the_declared_type_are_refused(tmp_path):
    model = conv_model(gaussian(1, 2, 1))
    stored = model.graph.initializer[0]
    stored.ClearField("raw_data")
    stored.int32_data.extend([1, 2])
    assert refusal(save(model, tmp_path / "odd.onnx")).startswith("tensor 'w' does not hold")


def test_a_constant_without_a_value_is_refused(tmp_path):
    constant = node("Constant", [], ["w"], "k")
    constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    model = make_model([constant, node("Conv", ["x", "w"], ["y"], "conv")], {})
    assert "unknown type 0" in refusal(save(model, tmp_path / "odd.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_file_is_read_or_refused_but_never_a_traceback(tmp_path, seed):
    random = np.random.default_rng(seed)
    models = [
        normalized_model(gaussian(4, 3, 3, 3), 4),
        branches(*(gaussian(3, 3, 1, seed=number) for number in range(3))),
        dynamic_form(("ConvInteger", np.ones((2, 2, 1), np.uint8)), scale=1, zero_point=1),
    ]
    content = models[seed].SerializeToString()
    path = tmp_path / "damaged.onnx"
    sentences = []
    for _ in range(300):
        damaged = bytearray(content)
        for position in random.integers(len(damaged), size=2):
            damaged[position] = random.integers(256)
        path.write_bytes(damaged)
        try:
            measure_file(path)
        except QuantstoreError as error:
            sentences.append(error.sentence)
    assert len(sentences) > 100
    assert all(sentence.isprintable() for sentence in sentences)


# --- what the file says about itself -----------------------------------------------------------


def test_producer_and_versions_are_read(tmp_path):
    model = conv_model()
    model.producer_name, model.producer_version = "pytorch", "2.9"
    file = open_model(save(model, tmp_path / "model.onnx"))
    assert (file.producer, file.ir_version, file.opset) == ("pytorch 2.9", 8, 17)


def test_a_file_that_does_not_name_its_producer_has_none(tmp_path):
    assert open_model(save(conv_model(), tmp_path / "model.onnx")).producer is None


def test_sites_know_how_many_bytes_of_weights_wait(tmp_path):
    (site,) = find_sites(open_model(save(conv_model(), tmp_path / "model.onnx")))
    assert site.weight_bytes == 4 * 3 * 3 * 3 * 4


# --- the settings of a node --------------------------------------------------------------------


def attributes_of(read_one, change=None, **attributes):
    model = conv_model(**attributes)
    if change is not None:
        change(model.graph.node[0])
    return read_one(model).attributes


def test_settings_of_a_node_are_one_line_of_json_sorted_by_name(read_one):
    found = attributes_of(read_one, strides=[2, 2], group=1, auto_pad="SAME_UPPER", odd=0.1)
    assert found == '{"auto_pad":"SAME_UPPER","group":1,"odd":0.1,"strides":[2,2]}'


def test_a_node_that_leaves_everything_to_its_defaults_has_none(read_one):
    assert attributes_of(read_one) is None


def test_a_float_that_json_has_no_number_for_is_text(read_one):
    found = attributes_of(read_one, odd=[float("nan"), float("-inf"), 1e-3])
    assert found == '{"odd":["NaN","-Infinity",0.001]}'


def hold_bytes(node):
    node.attribute[0].s = b"\xff\xfe"


def refer_to_a_call(node):
    node.attribute[0].ClearField("s")
    node.attribute[0].ref_attr_name = "outer"


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ("not UTF-8", hold_bytes),
        ("of a function's call", refer_to_a_call),
        ("x" * 101, None),
        (list(range(33)), None),
        (["a", "x" * 101], None),
        (numpy_helper.from_array(gaussian(2)), None),
        (make_model([node("Relu", ["x"], ["z"])], {}).graph, None),
    ],
    ids=["bytes", "reference", "text", "list", "texts", "tensor", "graph"],
)
def test_what_is_no_setting_is_left_out(read_one, value, change):
    assert attributes_of(read_one, change, odd=value) is None
    assert attributes_of(read_one, change, odd=value, zoom=3) == '{"zoom":3}'


def test_a_file_with_settings_without_end_is_cut_at_a_whole_one(read_one):
    found = attributes_of(read_one, **{f"setting_{number:04}": number for number in range(5000)})
    assert len(found) <= 2_000
    assert json.loads(found) == {f"setting_{n:04}": n for n in range(len(json.loads(found)))}


def test_names_of_settings_may_be_anything(read_one):
    name = 'a"b\n<script>\u4e2d'
    assert json.loads(attributes_of(read_one, **{name: 1})) == {name: 1}
