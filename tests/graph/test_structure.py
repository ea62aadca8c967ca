"""Where layers may stand: bodies of If, Loop and Scan, local functions, modules of a program."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, inliner, numpy_helper

from quantstore import queries, store
from quantstore.errors import ModelFileError
from quantstore.graph import find_pairs, find_sites, open_model
from quantstore.graph.functions import CANNOT_BE_FOLLOWED
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from tests.support.graphs import (
    as_stored,
    float_value,
    gaussian,
    layers_of,
    make_model,
    node,
    run,
    save,
)

OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]


def with_functions(model, *functions):
    model.functions.extend(functions)
    if "local" not in {one.domain for one in model.opset_import}:
        model.opset_import.append(helper.make_opsetid("local", 1))
    return model


def function(name, inputs, outputs, nodes, attributes=(), opsets=OPSETS):
    return helper.make_function("local", name, inputs, outputs, nodes, opsets, list(attributes))


def call(name, inputs, outputs, as_name, **attributes):
    return node(name, inputs, outputs, as_name, domain="local", **attributes)


def read(model, path, **options):
    return {layer.name: layer for layer in layers_of(save(model, path / "m.onnx"), **options)}


# --- local functions ----------------------------------------------------------------------------

CONV = function("ConvRelu", ["x", "w"], ["y"], [
    node("Conv", ["x", "w"], ["c"], "Conv_0"),
    node("Relu", ["c"], ["y"], "Relu_1"),
])  # fmt: skip


def test_a_layer_inside_a_function_is_named_after_its_call(tmp_path):
    nodes = [
        call("ConvRelu", ["x", "w1"], ["h"], "first"),
        call("ConvRelu", ["h", "w2"], ["y"], "second"),
    ]
    weights = {"w1": gaussian(3, 3, 1), "w2": gaussian(3, 3, 1, seed=1)}
    model = with_functions(make_model(nodes, weights), CONV)
    layers = read(model, tmp_path)
    assert list(layers) == ["first/Conv_0", "second/Conv_0"]
    for layer, stored in zip(layers.values(), weights.values(), strict=True):
        np.testing.assert_array_equal(as_stored(layer), stored)
    # The authority: onnx's own inliner sees the same convolutions.
    inlined = inliner.inline_local_functions(model)
    assert [one.op_type for one in inlined.graph.node] == ["Conv", "Relu"] * 2


def test_functions_that_call_functions_are_named_from_the_outside_in(tmp_path):
    block = function("Block", ["x", "a", "b"], ["y"], [
        call("ConvRelu", ["x", "a"], ["h"], "left"),
        call("ConvRelu", ["h", "b"], ["y"], "right"),
    ])  # fmt: skip
    nodes = [call("Block", ["x", "w1", "w2"], ["y"], "stage")]
    weights = {"w1": gaussian(3, 3, 1), "w2": gaussian(3, 3, 1, seed=1)}
    layers = read(with_functions(make_model(nodes, weights), CONV, block), tmp_path)
    assert list(layers) == ["stage/left/Conv_0", "stage/right/Conv_0"]


def test_a_call_without_a_name_is_named_after_its_output(tmp_path):
    model = with_functions(
        make_model([call("ConvRelu", ["x", "w"], ["y"], "")], {"w": gaussian(3, 3, 1)}), CONV
    )
    assert list(read(model, tmp_path)) == ["y/Conv_0"]


def test_a_function_may_hold_its_weights_itself(tmp_path):
    weights = gaussian(3, 4)
    held = function("Held", ["x"], ["y"], [
        node("Constant", [], ["w"], "k", value=numpy_helper.from_array(weights, "kept")),
        node("MatMul", ["x", "w"], ["y"], "fc"),
    ])  # fmt: skip
    nodes = [call("Held", ["x"], ["a"], "one"), call("Held", ["x"], ["y"], "two")]
    layers = read(with_functions(make_model(nodes, {}), held), tmp_path)
    assert list(layers) == ["one/fc", "two/fc"]
    # Both read one and the same tensor, so it counts once.
    assert layers["one/fc"].weight_key == layers["two/fc"].weight_key


def test_attributes_reach_the_nodes_of_a_function(tmp_path):
    grouped = function(
        "Grouped", ["x", "w"], ["y"], [node("Conv", ["x", "w"], ["y"], "conv")], ["groups"]
    )
    reference = grouped.node[0].attribute.add(name="group", type=onnx.AttributeProto.INT)
    reference.ref_attr_name = "groups"
    nodes = [call("Grouped", ["x", "w"], ["y"], "call", groups=3)]
    model = with_functions(make_model(nodes, {"w": gaussian(3, 1, 1)}), grouped)
    (layer,) = read(model, tmp_path).values()
    assert (layer.group_count, layer.is_depthwise) == (3, True)


def test_a_normalization_in_another_function_is_folded_all_the_same(tmp_path):
    parameters = ("gamma", "beta", "average", "variance")
    normalize = function("Norm", ["x", *parameters], ["y"], [
        node("BatchNormalization", ["x", *parameters], ["y"], "bn")
    ])  # fmt: skip
    convolve = function("Convolve", ["x", "w"], ["y"], [node("Conv", ["x", "w"], ["y"], "conv")])
    nodes = [
        call("Convolve", ["x", "w"], ["c"], "conv1"),
        call("Norm", ["c", *parameters], ["y"], "bn1"),
    ]
    weights = {"w": gaussian(3, 3, 1)}
    weights |= {name: np.full(3, 4, np.float32) for name in parameters}
    model = with_functions(make_model(nodes, weights), convolve, normalize)
    (layer,) = read(model, tmp_path).values()
    assert layer.batchnorm_folded
    np.testing.assert_allclose(as_stored(layer), 2 * weights["w"], rtol=1e-5)


def test_a_branch_inside_a_function_is_named_as_everywhere(tmp_path):
    def branch(name):
        nodes = [node("Conv", ["x", "w"], [name], f"Conv_{name}")]
        return helper.make_graph(nodes, name, [], [float_value(name)])

    choose = function("Choose", ["x", "w", "which"], ["y"], [
        node("If", ["which"], ["y"], "If_1", then_branch=branch("a"), else_branch=branch("b"))
    ])  # fmt: skip
    model = make_model(
        [call("Choose", ["x", "w", "which"], ["y"], "call")], {"w": gaussian(3, 3, 1)}
    )
    model.graph.input.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
    names = list(read(with_functions(model, choose), tmp_path))
    assert sorted(names) == ["call/If_1/else_branch/Conv_b", "call/If_1/then_branch/Conv_a"]


def test_a_function_may_be_called_inside_a_branch(tmp_path):
    def branch(name):
        nodes = [call("ConvRelu", ["x", "w"], [name], f"call_{name}")]
        return helper.make_graph(nodes, name, [], [float_value(name)])

    nodes = [node("If", ["which"], ["y"], "If", then_branch=branch("a"), else_branch=branch("b"))]
    model = make_model(nodes, {"w": gaussian(3, 3, 1)})
    model.graph.input.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
    names = list(read(with_functions(model, CONV), tmp_path))
    assert sorted(names) == ["If/else_branch/call_b/Conv_0", "If/then_branch/call_a/Conv_0"]


def test_a_function_with_an_operator_set_of_its_own_is_followed(tmp_path):
    older = function("ConvRelu", ["x", "w"], ["y"], CONV.node, opsets=[helper.make_opsetid("", 13)])
    nodes = [call("ConvRelu", ["x", "w"], ["y"], "call")]
    model = with_functions(make_model(nodes, {"w": gaussian(3, 3, 1)}), older)
    assert list(read(model, tmp_path)) == ["call/Conv_0"]


def test_a_call_that_does_not_fit_its_function_is_refused(tmp_path):
    nodes = [call("ConvRelu", ["x", "w", "x"], ["y"], "call")]
    model = with_functions(make_model(nodes, {"w": gaussian(3, 3, 1)}), CONV)
    with pytest.raises(ModelFileError, match=CANNOT_BE_FOLLOWED) as caught:
        open_model(save(model, tmp_path / "m.onnx"))
    assert "\n" not in caught.value.sentence


# --- bodies of loops ----------------------------------------------------------------------------


def test_layers_in_the_body_of_a_loop_and_of_a_scan(tmp_path):
    integer, boolean = (
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (("i", TensorProto.INT64), ("go", TensorProto.BOOL))
    )
    body = helper.make_graph(
        [
            node("MatMul", ["state", "w"], ["next"], "step"),
            node("Identity", ["go"], ["on"], "same"),
        ],
        "body",
        [integer, boolean, float_value("state")],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), float_value("next")],
    )
    scanned = helper.make_graph(
        [node("MatMul", ["row", "v"], ["out"], "row")],
        "scanned",
        [float_value("row")],
        [float_value("out")],
        [numpy_helper.from_array(gaussian(3, 2), "v")],
    )
    nodes = [
        node("Loop", ["times", "", "x"], ["h"], "loop", body=body),
        node("Scan", ["h"], ["y"], "scan", body=scanned, num_scan_inputs=1),
    ]
    layers = read(make_model(nodes, {"w": gaussian(3, 3), "times": np.array(2)}), tmp_path)
    assert list(layers) == ["loop/body/step", "scan/body/row"]


# --- modules ------------------------------------------------------------------------------------

METADATA = {
    "scopes": ({"pkg.torch.onnx.name_scopes": "['', 'stem', 'stem.0', 'conv2d']"}, "stem.0"),
    "namespace": (
        {"namespace": ": Net/stem: torch.nn.Sequential/stem.0: torch.nn.Conv2d/conv2d: aten"},
        "stem.0",
    ),
    "scopes before namespace": (
        {
            "pkg.torch.onnx.name_scopes": "['', 'a', 'conv2d']",
            "namespace": ": Net/b: B/conv2d: aten",
        },
        "a",
    ),
    "of the whole model": ({"pkg.torch.onnx.name_scopes": "['', 'conv2d']"}, None),
    "no list": ({"pkg.torch.onnx.name_scopes": "{1: 2}"}, None),
    "no literal": ({"pkg.torch.onnx.name_scopes": "__import__('os')"}, None),
    "too deep": ({"pkg.torch.onnx.name_scopes": "[" * 9_000}, None),
    "another namespace": ({"namespace": "main"}, None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize(("metadata", "expected"), METADATA.values(), ids=METADATA)
def test_the_module_of_a_layer_is_what_the_exporter_says(tmp_path, metadata, expected):
    conv = node("Conv", ["x", "w"], ["y"], "node_conv2d_17")
    helper.set_model_props(conv, metadata)
    (layer,) = read(make_model([conv], {"w": gaussian(3, 3, 1)}), tmp_path).values()
    assert layer.module_path == expected


@pytest.mark.slow
def test_layers_are_found_by_their_module(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["h"], "node_conv2d_1"),
        node("Conv", ["h", "w"], ["y"], "node_conv2d_2"),
    ]
    for one, module in zip(nodes, ("Stem.0", "head"), strict=True):
        helper.set_model_props(one, {"pkg.torch.onnx.name_scopes": f"['', '{module}', 'conv2d']"})
    path = save(make_model(nodes, {"w": gaussian(3, 3, 1)}), tmp_path / "m.onnx")
    ingest_file(path, tmp_path / "s.duckdb", IngestChoices(probe=False))
    with store.reading(tmp_path / "s.duckdb") as connection:
        layers = queries.worst_layers(connection, "m", "int8_tensor_symmetric")
    found = queries.found_by_name(layers, "stem")
    assert list(found["layer"]) == ["node_conv2d_1"]
    assert list(found["module_path"]) == ["Stem.0"]
    assert len(queries.found_by_name(layers, "CONV2D")) == 2
    assert queries.found_by_name(layers, ".*").empty


# --- a constant Mul after a convolution ---------------------------------------------------------


def multiplied(factor, *, op_type="Conv", shape=(4, 3, 3, 3), groups=1, swap=False, extra=()):
    inputs = ["factor", "c"] if swap else ["c", "factor"]
    nodes = [
        node(op_type, ["x", "w"], ["c"], "conv", group=groups),
        node("Mul", inputs, ["y"], "mul"),
        *extra,
    ]
    return make_model(nodes, {"w": gaussian(*shape), "factor": np.asarray(factor, np.float32)})


FACTORS = {
    "a number": 8.0,
    "a list of one": [8.0],
    "one for each channel": gaussian(4, 1, 1),
    "one for each channel, with a batch": gaussian(1, 4, 1, 1),
    "a negative one": -0.5,
}


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("factor", FACTORS.values(), ids=FACTORS)
def test_a_constant_factor_is_folded_into_the_weights(tmp_path, factor, op_type, swap):
    shape = (4, 3, 3, 3) if op_type == "Conv" else (3, 4, 3, 3)
    model = multiplied(factor, op_type=op_type, shape=shape, swap=swap)
    (layer,) = read(model, tmp_path).values()
    assert (layer.mul_folded, layer.batchnorm_folded) == (True, False)
    x = gaussian(1, 3, 5, 5)
    (expected,) = run(model, x=x)
    alone = make_model([node(op_type, ["x", "w"], ["y"])], {"w": as_stored(layer)})
    np.testing.assert_allclose(run(alone, x=x)[0], expected, rtol=1e-4, atol=1e-5)
    (raw,) = read(model, tmp_path, fold=False).values()
    assert not raw.mul_folded
    np.testing.assert_array_equal(as_stored(raw), gaussian(*shape))


def test_a_factor_for_each_channel_of_grouped_transposed_convolutions(tmp_path):
    model = multiplied(gaussian(6, 1, 1), op_type="ConvTranspose", shape=(6, 2, 2, 2), groups=3)
    (layer,) = read(model, tmp_path).values()
    x = gaussian(1, 6, 4, 4)
    nodes = [node("ConvTranspose", ["x", "w"], ["y"], group=3)]
    alone = make_model(nodes, {"w": as_stored(layer)})
    np.testing.assert_allclose(run(alone, x=x)[0], run(model, x=x)[0], rtol=1e-4, atol=1e-5)


NOT_A_FACTOR = {
    "one for each column": gaussian(4),
    "one for each pixel": gaussian(3, 3),
    "one more dimension": np.ones((1, 1, 1, 1, 1)),
    "nothing": np.ones(0),
    "infinity": np.inf,
}


@pytest.mark.parametrize("factor", NOT_A_FACTOR.values(), ids=NOT_A_FACTOR)
def test_what_is_no_factor_of_a_channel_is_left_alone(tmp_path, factor):
    (layer,) = read(multiplied(factor), tmp_path).values()
    assert not layer.mul_folded


def test_a_factor_is_left_alone_where_another_node_reads_the_output(tmp_path):
    model = multiplied(2.0, extra=[node("Relu", ["c"], ["z"])])
    (layer,) = read(model, tmp_path).values()
    assert not layer.mul_folded


def test_a_product_with_an_activation_is_left_alone(tmp_path):
    nodes = [node("Conv", ["x", "w"], ["c"], "conv"), node("Mul", ["c", "x"], ["y"], "gate")]
    (layer,) = read(make_model(nodes, {"w": gaussian(3, 3, 1)}), tmp_path).values()
    assert not layer.mul_folded


def test_a_factor_and_a_normalization_are_folded_together(tmp_path):
    parameters = ("gamma", "beta", "average", "variance")
    nodes = [
        node("Conv", ["x", "w"], ["c"], "conv"),
        node("BatchNormalization", ["c", *parameters], ["n"], "bn"),
        node("Mul", ["n", "factor"], ["y"], "mul"),
    ]
    constants = {"w": gaussian(3, 3, 1), "factor": np.float32(3)}
    constants |= {name: np.full(3, 4, np.float32) for name in parameters}
    (layer,) = read(make_model(nodes, constants), tmp_path).values()
    assert (layer.batchnorm_folded, layer.mul_folded) == (True, True)
    np.testing.assert_allclose(as_stored(layer), 6 * constants["w"], rtol=1e-5)


@pytest.mark.parametrize("fold", [True, False])
def test_a_folded_factor_stands_between_no_pair_of_layers(tmp_path, fold):
    behind = [node("Relu", ["y"], ["h"]), node("Conv", ["h", "v"], ["z"], "next")]
    model = multiplied(2.0, extra=behind)
    model.graph.initializer.append(numpy_helper.from_array(gaussian(5, 4, 1, 1), "v"))
    model.graph.output[0].name = "z"
    file = open_model(save(model, tmp_path / "m.onnx"))
    assert find_pairs(file, find_sites(file), fold=fold) == ([(0, 1)] if fold else [])


def test_a_layer_of_computed_weights_is_in_no_pair(tmp_path):
    nodes = [
        node("Transpose", ["w"], ["t"], perm=[1, 0, 2]),
        node("Conv", ["x", "t"], ["h"], "first"),
        node("Conv", ["h", "v"], ["y"], "second"),
    ]
    model = make_model(nodes, {"w": gaussian(3, 3, 1), "v": gaussian(3, 3, 1, seed=1)})
    file = open_model(save(model, tmp_path / "m.onnx"))
    assert find_pairs(file, find_sites(file), fold=True) == []
