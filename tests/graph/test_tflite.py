"""TensorFlow Lite files: which layers they hold, and what their weights are.

Read top to bottom, this is what ``quantstore ingest model.tflite`` promises. LiteRT, where it is
installed, is the referee: it runs the file, ONNX Runtime the layer as it was read.
"""

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from quantstore import graph
from quantstore.errors import NoLayersError
from quantstore.pipeline.files import find_files, name_of
from quantstore.pipeline.measure_file import measure_file
from tests.support.graphs import as_stored, gaussian, make_model, node, save
from tests.support.refusals import refusal
from tests.support.tflite_files import (
    CONV,
    Graph,
    Op,
    T,
    one_layer,
    quantized,
    saved,
    tflite,
    written,
)


@pytest.fixture
def read(tmp_path):
    """The layers of a file, and what it holds besides."""

    def run(*graphs):
        file = graph.open_any(saved(tmp_path / "m.tflite", *graphs))
        survey = graph.survey(file)
        return [graph.read_or_reason(file, site) for site in survey.sites], survey.unread

    return run


@pytest.fixture
def only_layer(read):
    def run(*graphs):
        (layer,), unread = read(*graphs)
        assert unread == ()
        return layer

    return run


# Which operators are layers


def conv(code="CONV_2D", weights=None, **options):
    weights = gaussian(4, 3, 3, 2) if weights is None else weights
    settings = CONV | options
    return one_layer(
        code,
        T(name="w", values=weights),
        data=(1, 6, 6, 2),
        result=(1, 4, 4, 4),
        options="Conv2DOptions",
        settings=settings,
        bias=gaussian(4, seed=1),
    )


def depthwise(multiplier=2):
    return one_layer(
        "DEPTHWISE_CONV_2D",
        T(name="w", values=gaussian(1, 3, 3, 2 * multiplier)),
        data=(1, 6, 6, 2),
        result=(1, 4, 4, 2 * multiplier),
        options="DepthwiseConv2DOptions",
        settings=CONV | {"DepthMultiplier": multiplier},
        bias=gaussian(2 * multiplier, seed=1),
    )


def transposed():
    shape = T(name="shape", values=np.array([1, 8, 8, 3], np.int32))
    return one_layer(
        "TRANSPOSE_CONV",
        T(name="w", values=gaussian(3, 3, 3, 2)),
        before=[shape],
        data=(1, 6, 6, 2),
        result=(1, 8, 8, 3),
        options="TransposeConvOptions",
        settings={"Padding": 1, "StrideW": 1, "StrideH": 1},
        order=lambda x, w: ("shape", w, x),
    )


def fully_connected():
    return one_layer(
        "FULLY_CONNECTED",
        T(name="w", values=gaussian(5, 8)),
        data=(3, 8),
        result=(3, 5),
        options="FullyConnectedOptions",
        bias=gaussian(5, seed=1),
    )


def product(**settings):
    w = gaussian(5, 8) if settings.get("AdjY") else gaussian(8, 5)
    return one_layer(
        "BATCH_MATMUL",
        T(name="w", values=w),
        data=(3, 8),
        result=(3, 5),
        options="BatchMatMulOptions",
        settings=settings,
    )


def lookup(code):
    is_gather = code == "GATHER"
    tensors = [
        T(name="x", shape=(4,), dtype="INT32"),
        T(name="w", values=gaussian(10, 6)),
        T(name="y", shape=(4, 6)),
    ]
    inputs = ["w", "x"] if is_gather else ["x", "w"]
    options = "GatherOptions" if is_gather else ""
    operator = Op(code=code, inputs=inputs, outputs=["y"], options=options)
    return Graph(tensors=tensors, operators=[operator], inputs=["x"], outputs=["y"])


@pytest.mark.parametrize(
    ("network", "op_type", "family", "shape", "axes", "groups"),
    [
        (conv(), "Conv", "conv", (4, 2, 3, 3), (0, 3, 1, 2), 1),
        (depthwise(), "Conv", "conv", (4, 1, 3, 3), (3, 0, 1, 2), 2),
        (transposed(), "ConvTranspose", "conv_transpose", (2, 3, 3, 3), (3, 0, 1, 2), 1),
        (fully_connected(), "Gemm", "linear", (5, 8), (0, 1), 1),
        (product(), "MatMul", "linear", (8, 5), (0, 1), 1),
        (product(AdjY=1), "MatMul", "linear", (8, 5), (1, 0), 1),
        (lookup("GATHER"), "Gather", "embedding", (10, 6), (0, 1), 1),
        (lookup("EMBEDDING_LOOKUP"), "Gather", "embedding", (10, 6), (0, 1), 1),
    ],
    ids=lambda value: value.operators[0].code if isinstance(value, Graph) else "",
)
def test_an_operator_is_a_layer_with_the_weights_of_its_onnx_counterpart(
    only_layer, network, op_type, family, shape, axes, groups
):
    layer = only_layer(network)
    (stored,) = [tensor.values for tensor in network.tensors if tensor.name == "w"]
    assert (layer.name, layer.op_type, layer.op_family) == ("y", op_type, family)
    assert (layer.shape, layer.group_count, layer.weight_name) == (shape, groups, "w")
    in_onnx = np.moveaxis(stored.transpose(axes), layer.channel_axis, 0)
    np.testing.assert_array_equal(layer.weights, in_onnx.reshape(in_onnx.shape[0], -1))
    assert not layer.already_quantized
    assert layer.is_depthwise == (groups > 1)


def run_in_litert(network, x, tmp_path):
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
    path = saved(tmp_path / "run.tflite", network)
    interpreter = litert.Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def run_in_onnx(layer, bias, x):
    """The layer alone in ONNX Runtime, its weights as they were read."""
    attributes = {} if "Conv" not in layer.op_type else {"group": layer.group_count}
    if layer.op_type == "Gemm":
        attributes["transB"] = 1
    constants = {"w": as_stored(layer)}
    if bias is not None:
        constants["bias"] = bias
    model = make_model(
        [node(layer.op_type, ["x", *constants], ["y"], "n", **attributes)], constants
    )
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, x.shape))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(
    "network",
    [
        conv(),
        depthwise(),
        depthwise(1),
        transposed(),
        fully_connected(),
        product(),
        product(AdjY=1),
    ],
    ids=lambda network: network.operators[0].code,
)
def test_a_layer_computes_in_onnx_what_the_operator_computes_in_litert(
    only_layer, network, tmp_path
):
    shape = network.tensors[0].declared_shape
    x = gaussian(*shape, seed=7)
    expected = run_in_litert(network, x, tmp_path)
    bias = next((tensor.values for tensor in network.tensors if tensor.name == "bias"), None)
    is_image = len(shape) == 4
    got = run_in_onnx(only_layer(network), bias, x.transpose(0, 3, 1, 2) if is_image else x)
    np.testing.assert_allclose(
        got.transpose(0, 2, 3, 1) if is_image else got, expected, rtol=1e-4, atol=1e-5
    )


def test_a_convolution_in_groups_says_how_many(only_layer):
    layer = only_layer(conv(weights=gaussian(4, 3, 3, 1)))
    assert (layer.group_count, layer.shape) == (2, (4, 1, 3, 3))


def gates(kind="float32"):
    """An LSTM with 4 units that reads 3 values: its weights, gate by gate."""
    names = ("i", "f", "c", "o")
    tensors = []
    for place, width in (("input", 3), ("state", 4)):
        for number, gate in enumerate(names):
            w = gaussian(4, width, seed=number + 10 * width)
            if kind == "int8":
                codes, scale = quantized(w.reshape(1, -1), 0)
                tensors.append(
                    T(name=f"{place}_{gate}", values=codes.reshape(w.shape), scale=scale)
                )
            else:
                tensors.append(T(name=f"{place}_{gate}", values=w))
    return tensors


def lstm(tensors):
    inputs = ["x", *(tensor.name for tensor in tensors)]
    return Graph(
        tensors=[T(name="x", shape=(1, 2, 3)), *tensors, T(name="y", shape=(1, 2, 4))],
        operators=[Op(code="UNIDIRECTIONAL_SEQUENCE_LSTM", inputs=inputs, outputs=["y"])],
        inputs=["x"],
        outputs=["y"],
    )


def test_the_gates_of_an_lstm_are_joined_in_the_order_of_onnx(read):
    tensors = gates()
    (of_input, of_state), _ = read(lstm(tensors))
    assert (of_input.operand, of_state.operand) == ("W", "R")
    assert (of_input.shape, of_state.shape) == ((1, 16, 3), (1, 16, 4))
    values = {tensor.name: tensor.values for tensor in tensors}
    in_order = [values[f"input_{gate}"] for gate in "iofc"]
    np.testing.assert_array_equal(of_input.weights, np.concatenate(in_order))


def test_each_gate_of_an_lstm_has_a_scale_of_its_own(read):
    in_float, _ = read(lstm(gates()))
    in_int8, _ = read(lstm(gates("int8")))
    for before, after in zip(in_float, in_int8, strict=True):
        assert after.stored_scheme == "int8 per channel"
        np.testing.assert_allclose(after.weights, before.weights, atol=after.stored_step * 0.51)


def test_weights_that_the_network_computes_are_no_layer(read):
    network = Graph(
        tensors=[
            T(name="x", shape=(3, 8)),
            T(name="v", shape=(8, 5)),
            T(name="h", shape=(3, 5)),
            T(name="w", values=gaussian(2, 5)),
            T(name="y", shape=(3, 2)),
        ],
        operators=[
            Op(code="BATCH_MATMUL", inputs=["x", "v"], outputs=["h"]),
            Op(code="FULLY_CONNECTED", inputs=["h", "w", ""], outputs=["y"]),
        ],
        inputs=["x", "v"],
        outputs=["y"],
    )
    (layer,), unread = read(network)
    assert (layer.name, unread) == ("y", ())


# What the stored values are worth


@pytest.mark.parametrize("code", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_codes_with_a_scale_for_each_channel_come_back_as_weights(only_layer, code):
    network = {
        "CONV_2D": conv(), "DEPTHWISE_CONV_2D": depthwise(), "FULLY_CONNECTED": fully_connected()
    }[code]  # fmt: skip
    w = network.tensors[1].values
    axis = 3 if code == "DEPTHWISE_CONV_2D" else 0
    codes, scale = quantized(w, axis)
    stored = T(name="w", values=codes, scale=scale, axis=axis)
    layer = only_layer(with_weights(network, stored))
    in_float = only_layer(network)
    assert (layer.stored_scheme, layer.weight_dtype) == ("int8 per channel", "int8")
    assert layer.already_quantized
    assert layer.stored_step == pytest.approx(scale.max())
    half_steps = scale[:, np.newaxis] / 2
    assert np.all(np.abs(layer.weights - in_float.weights) <= half_steps * 1.001)
    np.testing.assert_array_equal(
        np.rint(layer.weights / scale[:, np.newaxis]).astype(np.int8).min(), codes.min()
    )


def with_weights(network, weights, *operators, more=()):
    tensors = [weights if tensor.name == "w" else tensor for tensor in network.tensors]
    return Graph(
        tensors=[*tensors, *more],
        operators=[*operators, *network.operators],
        inputs=network.inputs,
        outputs=network.outputs,
    )


def test_codes_of_eight_bits_without_sign_have_a_zero_point(only_layer):
    codes = np.arange(40, dtype=np.uint8).reshape(5, 8)
    stored = T(name="w", values=codes, scale=[0.5], zero_point=[20])
    layer = only_layer(with_weights(fully_connected(), stored))
    assert layer.stored_scheme == "uint8 per tensor"
    np.testing.assert_array_equal(layer.weights, (codes.astype(np.float32) - 20) / 2)


def test_two_codes_of_four_bits_lie_in_a_byte_the_first_in_the_low_bits(only_layer):
    codes = (np.arange(40) % 15 - 7).astype(np.int8).reshape(5, 8)
    low, high = codes.reshape(-1, 2).T & 15
    packed = (low | high << 4).astype(np.uint8).tobytes()
    stored = T(name="w", shape=(5, 8), dtype="INT4", data=packed, scale=[0.25] * 5)
    layer = only_layer(with_weights(fully_connected(), stored))
    assert (layer.stored_scheme, layer.weight_dtype) == ("int4 per channel", "int4")
    np.testing.assert_array_equal(layer.weights, codes / np.float32(4))


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_weights_that_an_operator_dequantizes_are_read_as_they_are_stored(only_layer, kind):
    w = gaussian(5, 8)
    codes, scale = quantized(w, 0)
    stored = (
        T(name="half", values=w.astype(np.float16))
        if kind == "float16"
        else T(name="half", values=codes, scale=scale)
    )
    restoring = Op(code="DEQUANTIZE", inputs=["half"], outputs=["w"])
    network = with_weights(fully_connected(), T(name="w", shape=(5, 8)), restoring, more=[stored])
    layer = only_layer(network)
    assert (layer.weight_name, layer.weight_dtype) == ("half", kind)
    assert layer.already_quantized == (kind == "int8")
    np.testing.assert_allclose(layer.weights, w, atol=0.02)


def test_whole_numbers_without_a_scale_are_no_weights_and_said(read):
    stored = T(name="w", values=np.ones((5, 8), np.int8))
    with pytest.raises(NoLayersError, match="holds int8"):
        read(with_weights(fully_connected(), stored))


def test_a_sparse_tensor_is_said(read):
    (reason,), _ = read(
        with_weights(fully_connected(), T(name="w", shape=(5, 8), data=bytes(8), is_sparse=True))
    )
    assert isinstance(reason, graph.Unread)
    assert "sparse" in reason.reason


def test_an_operator_whose_weights_are_not_read_is_said(read):
    network = fully_connected()
    svdf = Op(code="SVDF", inputs=["y", "features"], outputs=["z"])
    custom = Op(code="CUSTOM", custom="Mine", inputs=["z", "table"], outputs=["end"])
    more = [
        T(name="features", values=gaussian(4, 5)),
        T(name="z", shape=(3, 4)),
        T(name="table", values=gaussian(4, 4)),
        T(name="end", shape=(3, 4)),
    ]
    layers, unread = read(
        Graph(
            tensors=[*network.tensors, *more],
            operators=[*network.operators, svdf, custom],
            inputs=["x"],
            outputs=["end"],
        )
    )
    assert len(layers) == 1
    assert {operand.op_type: operand.weight_count for operand in unread} == {"SVDF": 20, "Mine": 16}


def test_constants_of_ordinary_arithmetic_are_not_taken_for_weights(read):
    network = fully_connected()
    adding = Op(code="ADD", inputs=["y", "c"], outputs=["z"])
    more = [T(name="c", values=gaussian(3, 5)), T(name="z", shape=(3, 5))]
    _, unread = read(
        Graph(
            tensors=[*network.tensors, *more],
            operators=[*network.operators, adding],
            inputs=["x"],
            outputs=["z"],
        )
    )
    assert unread == ()


# Names, other subgraphs, and what lies between layers


def test_a_layer_with_an_activation_built_in_keeps_the_name_of_its_output(tmp_path):
    file = graph.open_any(saved(tmp_path / "m.tflite", conv(FusedActivationFunction=1)))
    (site,) = graph.find_sites(file)
    assert site.name == "y"
    (edge,) = [edge for edge in graph.flow_of(file, [site]).edges if edge.source_point == 1]
    assert edge.operators == '{"Relu": 1}'


def chain(between="", **settings):
    """Two convolutions, the first with a built-in activation, an operator between them."""
    first, second = gaussian(4, 1, 1, 2), gaussian(3, 1, 1, 4, seed=2)
    middle = "h" if not between else "g"
    operators = [
        Op(code="CONV_2D", inputs=["x", "w"], outputs=["h"], options="Conv2DOptions",
           settings=CONV | settings),
        *([Op(code=between, inputs=["h"], outputs=["g"])] if between else []),
        Op(code="CONV_2D", inputs=[middle, "v"], outputs=["y"], options="Conv2DOptions",
           settings=CONV),
    ]  # fmt: skip
    return Graph(
        tensors=[
            T(name="x", shape=(1, 4, 4, 2)),
            T(name="w", values=first),
            T(name="h", shape=(1, 4, 4, 4)),
            T(name="g", shape=(1, 4, 4, 4)),
            T(name="v", values=second),
            T(name="y", shape=(1, 4, 4, 3)),
        ],
        operators=operators,
        inputs=["x"],
        outputs=["y"],
    )


@pytest.mark.parametrize(
    ("network", "is_pair"),
    [
        (chain(), True),
        (chain(FusedActivationFunction=1), True),
        (chain(FusedActivationFunction=3), False),
        (chain("LEAKY_RELU"), True),
        (chain("HARD_SWISH"), False),
        (chain("AVERAGE_POOL_2D"), False),
    ],
)
def test_layers_trade_scale_across_what_does_not_mind_a_factor(tmp_path, network, is_pair):
    file = graph.open_any(saved(tmp_path / "m.tflite", network))
    sites = graph.find_sites(file)
    assert graph.find_pairs(file, sites, fold=True) == ([(0, 1)] if is_pair else [])


def test_the_layers_of_other_subgraphs_are_named_after_them(read):
    body = fully_connected()
    layers, _ = read(conv(), Graph(**vars(body) | {"name": "body"}))
    assert [layer.name for layer in layers] == ["y", "body/y"]


def test_a_tensor_of_several_operators_is_a_layer_of_each_and_counted_once(tmp_path):
    network = Graph(
        tensors=[T(name="x", shape=(3, 8)), T(name="w", values=gaussian(8, 8)),
                 T(name="h", shape=(3, 8)), T(name="y", shape=(3, 8))],
        operators=[Op(code="FULLY_CONNECTED", inputs=["x", "w", ""], outputs=["h"]),
                   Op(code="FULLY_CONNECTED", inputs=["h", "w", ""], outputs=["y"])],
        inputs=["x"], outputs=["y"],
    )  # fmt: skip
    measured = measure_file(saved(tmp_path / "m.tflite", network))
    assert (len(measured.layers), measured.weight_count) == (2, 64)


# Beside the same network in ONNX


def test_a_network_in_both_formats_has_the_same_layers(tmp_path):
    w = gaussian(4, 3, 3, 2)
    in_onnx = make_model(
        [node("Conv", ["x", "w"], ["y"], "y")], {"w": np.ascontiguousarray(w.transpose(0, 3, 1, 2))}
    )
    (before,) = measure_file(save(in_onnx, tmp_path / "m.onnx")).layers
    (after,) = measure_file(saved(tmp_path / "m.tflite", conv())).layers
    assert after.errors == before.errors
    np.testing.assert_array_equal(after.channels.weight_max, before.channels.weight_max)


def test_a_real_network_in_both_formats_agrees_layer_by_layer(shared_pairs):
    layers = {}
    for name in ("basic-pitch-nmp.onnx", "basic-pitch-nmp.tflite"):
        file = graph.open_any(shared_pairs / name)
        sites = graph.find_sites(file)
        read = [graph.read_layer(file, site) for site in sites]
        layers[file.path.suffix] = {layer.name: layer for layer in read}
        flow = graph.flow_of(file, sites)
        layers[f"{file.path.suffix} flow"] = (len(flow.points), len(flow.edges))
    assert layers[".onnx"].keys() == layers[".tflite"].keys()
    assert len(layers[".onnx"]) == 32
    for name, layer in layers[".onnx"].items():
        np.testing.assert_array_equal(layers[".tflite"][name].weights, layer.weights)
    assert layers[".onnx flow"] == layers[".tflite flow"]


# The file


def test_its_description_is_the_producer(tmp_path):
    assert graph.open_any(saved(tmp_path / "m.tflite", conv())).producer == "written by a test"


def test_a_folder_is_searched_for_both_formats(tmp_path):
    path = saved(tmp_path / "model.tflite", conv())
    assert find_files([str(tmp_path)]) == ([path], [])
    assert name_of(path) == tmp_path.name


# Damaged and malicious files


@pytest.fixture
def refused(tmp_path):
    def run(content):
        path = tmp_path / "m.tflite"
        path.write_bytes(content)
        return refusal(path)

    return run


@pytest.mark.parametrize("shape", [(5, 9), (2**31 - 1, 2**31 - 1), (-5, -8), (5, 0)])
def test_dimensions_that_do_not_match_the_data(refused, shape):
    stored = T(name="w", values=gaussian(5, 8), shape=shape)
    assert "does not hold" in refused(written(with_weights(fully_connected(), stored)))


def test_more_dimensions_than_any_tensor_has(refused):
    stored = T(name="w", values=gaussian(1), shape=(1,) * 100_000)
    assert "dimensions" in refused(written(with_weights(fully_connected(), stored)))


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (T(name="w", values=np.ones((5, 8), np.int8), scale=[1.0] * 5, axis=7), "along axis 7"),
        (T(name="w", values=np.ones((5, 8), np.int8), scale=[1.0] * 5, axis=-1), "along axis -1"),
        (T(name="w", values=np.ones((5, 8), np.int8), scale=[1.0] * 4), "4 weight scales"),
        (
            T(name="w", values=np.ones((5, 8), np.int8), scale=[1.0] * 5, zero_point=[0] * 3),
            "5 scales and 3 zero points",
        ),
    ],
)
def test_scales_that_do_not_fit_their_tensor(refused, stored, said):
    assert said in refused(written(with_weights(fully_connected(), stored)))


def test_weights_that_no_convolution_has(refused):
    assert "(5, 8)" in refused(written(conv(weights=gaussian(5, 8))))


def test_a_tensor_that_is_not_there(refused):
    content = written(fully_connected())
    operands = np.array([0, 1, 3], np.int32).tobytes()
    assert content.count(operands) == 1
    broken = np.array([0, 99, 3], np.int32).tobytes()
    assert "no tensor 99" in refused(content.replace(operands, broken))


def test_an_operator_that_reads_its_own_result_is_no_circle(read):
    network = fully_connected()
    again = Op(code="ADD", inputs=["z", "z"], outputs=["z"])
    looped = Graph(
        tensors=[*network.tensors, T(name="z", shape=(3, 5))],
        operators=[again, *network.operators],
        inputs=["x"],
        outputs=["y"],
    )
    layers, _ = read(looped)
    assert len(layers) == 1


def test_a_million_operators_that_are_one(refused):
    """A vector of offsets may name one table as often as it likes."""
    network = fully_connected()
    many = Graph(tensors=network.tensors, operators=network.operators, inputs=["x"], outputs=["y"])
    content = bytearray(written(many))
    content += bytes(4 - len(content) % 4)
    table = tflite.Model.GetRootAs(content, 0).Subgraphs(0)
    field = table._tab.Pos + table._tab.Offset(10)
    operator = table.Operators(0)._tab.Pos
    start = len(content)
    content[field : field + 4] = (start - field).to_bytes(4, "little")
    count = 300_000
    content += count.to_bytes(4, "little")
    positions = np.arange(count, dtype=np.int64) * 4 + start + 4
    content += ((operator - positions) % 2**32).astype("<u4").tobytes()
    assert "200,000 operators" in refused(bytes(content))


def test_a_buffer_behind_the_end_of_the_file(refused):
    content = bytearray(written(fully_connected()))
    tensor = tflite.Model.GetRootAs(content, 0).Subgraphs(0).Tensors(1)
    buffer = tflite.Model.GetRootAs(content, 0).Buffers(tensor.Buffer())
    length = buffer._tab.Pos + buffer._tab.Offset(4)
    length += int.from_bytes(content[length : length + 4], "little")
    content[length : length + 4] = (2**31).to_bytes(4, "little")
    refused(bytes(content))
