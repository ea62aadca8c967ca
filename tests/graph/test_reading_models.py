"""What is read from real models: how many layers of each operator, and their weights."""

import re
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import helper

from quantstore.graph import Unread, open_model, read_or_reason, survey
from tests.support.graphs import as_stored

EXPECTED = {
    "ext-digits-dynamo/model": {"Conv W": 3, "Gemm B": 2},
    "fasterrcnn-structure": {"Conv W": 75, "Gemm B": 4},
    "fns-starry-night-fp16": {"Conv W": 16},
    "maui-model": {"Conv W": 52, "Gemm B": 1},
    "mobilenetv2-12-int8": {"QLinearConv w": 52, "QLinearMatMul b": 1},
    "ppocr-v2-det": {"Conv W": 56, "ConvTranspose W": 2},
    "retinaface-mnet025": {"Conv W": 56},
    "rtmdet-nano": {"Conv W": 123},
    "silero-vad": {"Conv W": 12, "LSTM W": 4, "LSTM R": 4},
    "squeezenet-winml": {"Conv W": 25, "Gemm B": 1},
    "tract-bidi-lstm": {"LSTM W": 2, "LSTM R": 2, "MatMul B": 1, "Gather data": 1},
    "ultraface-rfb320": {"Conv W": 52},
    "vit-pgd_2_3_16": {"Conv W": 1, "MatMul B": 12, "Gemm B": 1},
    "yolov10n-quant": {"ConvInteger w": 83},
}


@pytest.fixture
def opened(shared_models):
    def read(name):
        file = open_model(shared_models / f"{name}.onnx")
        found = survey(file)
        layers = [read_or_reason(file, site) for site in found.sites]
        return layers, found.unread

    return read


LARGEST = pytest.param("fasterrcnn-structure", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [LARGEST if name in LARGEST.values else name for name in EXPECTED])
def test_every_layer_is_read_and_none_is_missed_in_silence(opened, name):
    layers, unread = opened(name)
    assert not unread
    assert not [layer for layer in layers if isinstance(layer, Unread)]
    assert Counter(f"{layer.op_type} {layer.operand}" for layer in layers) == EXPECTED[name]
    identities = {(layer.name, layer.operand) for layer in layers}
    assert len(identities) == len(layers)


def test_a_speech_model_keeps_its_layers_in_branches(opened):
    layers, _ = opened("silero-vad")
    assert all(re.search("/(then|else)_branch/", layer.name) for layer in layers)
    cells = {layer.name for layer in layers if layer.op_type == "LSTM"}
    assert len(cells) == 4
    assert {layer.channel_axis for layer in layers if layer.op_type == "LSTM"} == {1}


def test_the_channels_of_a_bidirectional_lstm_are_those_of_both_directions(opened):
    layers, _ = opened("tract-bidi-lstm")
    for layer in layers:
        if layer.op_type == "LSTM":
            directions, rows, inputs = layer.shape
            assert directions == 2
            assert layer.weights.shape == (directions * rows, inputs)


def test_three_factors_of_rtmdet_are_folded(opened):
    layers, _ = opened("rtmdet-nano")
    assert [layer.name for layer in layers if layer.mul_folded] == [
        "Conv_332",
        "Conv_360",
        "Conv_388",
    ]
    assert max(np.ptp(layer.weights) for layer in layers) == pytest.approx(211.80, abs=0.005)


def test_stored_schemes_are_recorded(opened):
    for name, scheme in (
        ("maui-model", "int8 per tensor"),
        ("mobilenetv2-12-int8", "int8 per channel"),
        ("yolov10n-quant", "uint8 per tensor"),
    ):
        layers, _ = opened(name)
        assert {layer.stored_scheme for layer in layers} == {scheme}
        assert all(layer.already_quantized and layer.stored_step > 0 for layer in layers)


# --- the referee --------------------------------------------------------------------------------


def outputs_of(model, nodes, names):
    """What onnxruntime makes of some nodes of a model, whose inputs are all constant."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="it is the referee")
    graph = helper.make_graph(
        nodes,
        "weights",
        [],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names],
        model.graph.initializer,
    )
    part = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        part.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(list(names), {})


def ancestors(model, names):
    """The nodes that values are made by, in the order of the graph."""
    maker = {output: one for one in model.graph.node for output in one.output}
    found, waiting = {}, list(names)
    while waiting:
        one = maker.get(waiting.pop())
        if one is not None and id(one) not in found:
            found[id(one)] = one
            waiting.extend(one.input)
    return [one for one in model.graph.node if id(one) in found]


def test_weights_behind_dequantizers_are_what_onnxruntime_reads(opened, shared_models):
    layers, _ = opened("maui-model")
    model = onnx.load(shared_models / "maui-model.onnx")
    names = [one.input[1] for one in model.graph.node if one.op_type in ("Conv", "Gemm")]
    expected = outputs_of(model, ancestors(model, names), names)
    for layer, array in zip(layers, expected, strict=True):
        np.testing.assert_array_equal(as_stored(layer), array, err_msg=layer.name)


def test_weights_of_integer_operators_are_what_onnxruntime_dequantizes(opened, shared_models):
    layers, _ = opened("mobilenetv2-12-int8")
    model = onnx.load(shared_models / "mobilenetv2-12-int8.onnx")
    integer = [
        one for one in model.graph.node if one.op_type.startswith("QLinear") and not one.domain
    ]
    nodes = [
        helper.make_node(
            "DequantizeLinear", one.input[3:6], [f"weights{index}"],
            axis=0 if one.op_type == "QLinearConv" else 1,
        )
        for index, one in enumerate(integer)
    ]  # fmt: skip
    expected = outputs_of(model, nodes, [f"weights{index}" for index in range(len(nodes))])
    for layer, array in zip(layers, expected, strict=True):
        np.testing.assert_array_equal(as_stored(layer), array, err_msg=layer.name)


@pytest.mark.parametrize("name", [LARGEST, "vit-pgd_2_3_16", "squeezenet-winml"])
def test_weights_in_float_are_what_onnxruntime_reads(opened, shared_models, name):
    layers, _ = opened(name)
    model = onnx.load(shared_models / f"{name}.onnx")
    weights = {layer.name: layer for layer in layers}
    wanted = {
        one.input[1]: weights[one.name or one.output[0]]
        for one in model.graph.node
        if (one.name or one.output[0]) in weights
    }
    made = ancestors(model, wanted)
    # An initializer cannot be an output: send it through a node.
    same = [helper.make_node("Identity", [value], [f"same{i}"]) for i, value in enumerate(wanted)]
    expected = outputs_of(model, [*made, *same], [f"same{i}" for i in range(len(same))])
    assert len(wanted) > 10
    for layer, array in zip(wanted.values(), expected, strict=True):
        if not layer.batchnorm_folded:
            np.testing.assert_array_equal(as_stored(layer), array, err_msg=layer.name)
