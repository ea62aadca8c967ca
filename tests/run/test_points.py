"""Where two networks are compared."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantstore.run.points import cut
from tests.support.graphs import gaussian, node

WEIGHTS = {"w": gaussian(4, 4), "bias": gaussian(4)}


def parsed(nodes, *, weights=None, inputs=(("x", [1, 4]),), outputs=("y",), kinds=None):
    """A model in onnx-ir. Shapes of inputs are given; ``kinds`` are types that are not float."""
    kinds = kinds or {}
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name, shape in inputs
        ],
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None)
            for name in outputs
        ],
        [numpy_helper.from_array(array, name) for name, array in (weights or WEIGHTS).items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opset, ir_version=8))


def points_of(*nodes, **more):
    found = cut(parsed([node("MatMul", ["x", "w"], ["scores"]), *nodes], **more))
    return found.names, found.description


# --- where outputs are compared ----------------------------------------------------------------


def test_plain_outputs_are_compared_as_they_are():
    assert points_of(node("Relu", ["scores"], ["y"])) == (("y",), "the outputs")


@pytest.mark.parametrize("squashing", ["Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid"])
def test_a_final_squashing_is_stepped_over(squashing):
    found = points_of(node(squashing, ["scores"], ["y"]))
    assert found == (("scores",), f"before the final {squashing}")


def test_a_final_argmax_is_stepped_over():
    kinds = {"y": TensorProto.INT64}
    names, words = points_of(node("ArgMax", ["scores"], ["y"], axis=1), kinds=kinds)
    assert names == ("scores",)
    assert words == "the last tensors before ArgMax"


def test_what_only_moves_values_hides_no_softmax():
    weights = WEIGHTS | {"shape": np.array([2, 2])}
    nodes = [
        node("Softmax", ["scores"], ["p"]),
        node("Reshape", ["p", "shape"], ["q"]),
        node("Transpose", ["q"], ["y"]),
    ]
    assert points_of(*nodes, weights=weights)[0] == ("scores",)


def test_moves_without_anything_behind_them_stay():
    nodes = [node("Relu", ["scores"], ["r"]), node("Transpose", ["r"], ["y"])]
    assert points_of(*nodes)[0] == ("y",)


def test_both_halves_of_a_joined_output_are_compared():
    nodes = [
        node("Relu", ["scores"], ["boxes"]),
        node("Sigmoid", ["scores"], ["p"]),
        node("Concat", ["boxes", "p"], ["y"], axis=1),
    ]
    assert points_of(*nodes) == (("boxes", "scores"), "before the final Sigmoid")


def test_the_last_bias_of_a_plain_output_stays():
    assert points_of(node("Add", ["scores", "bias"], ["y"]))[0] == ("y",)


def test_several_outputs_are_each_compared_where_they_can_be():
    nodes = [node("Softmax", ["scores"], ["y"]), node("Relu", ["scores"], ["z"])]
    found = points_of(*nodes, outputs=("y", "z"))
    assert found == (("scores", "z"), "the outputs and before the final Softmax")


def test_behind_a_selection_nothing_is_compared_but_what_feeds_it():
    weights = WEIGHTS | {"k": np.array([2])}
    nodes = [
        node("Relu", ["scores"], ["r"]),
        node("TopK", ["r", "k"], ["best", "where"], axis=1),
        node("GatherElements", ["scores", "where"], ["chosen"], axis=1),
        node("Add", ["best", "chosen"], ["y"]),
    ]
    found = points_of(*nodes, weights=weights)
    assert found == (("r", "scores"), "the last tensors before TopK")


def test_before_a_selection_the_decoding_of_boxes_is_stepped_over():
    weights = WEIGHTS | {"k": np.array([2])}
    nodes = [
        node("Sigmoid", ["scores"], ["p"]),
        node("Mul", ["p", "bias"], ["scaled"]),
        node("Add", ["scaled", "bias"], ["decoded"]),
        node("TopK", ["decoded", "k"], ["y", "where"], axis=1),
    ]
    names, words = points_of(*nodes, weights=weights)
    assert names == ("scores",)
    assert words == "the last tensors before TopK (before Sigmoid, before boxes are decoded)"


def test_a_choice_by_shape_is_no_selection():
    nodes = [
        node("Shape", ["scores"], ["shape"]),
        node("NonZero", ["shape"], ["all"]),
        node("ReduceMax", ["all"], ["axis"], keepdims=0),
        node("Gather", ["scores", "axis"], ["y"], axis=1),
    ]
    assert points_of(*nodes) == (("y",), "the outputs")


def test_both_branches_of_a_choice_end_before_they_squash():
    def branch(name):
        output = helper.make_tensor_value_info(f"p_{name}", TensorProto.FLOAT, None)
        nodes = [
            node("Relu", ["scores"], [f"h_{name}"]),
            node("Sigmoid", [f"h_{name}"], [f"p_{name}"]),
        ]
        return helper.make_graph(nodes, name, [], [output])

    choice = node("If", ["flag"], ["y"], then_branch=branch("a"), else_branch=branch("b"))
    model = parsed(
        [node("MatMul", ["x", "w"], ["scores"]), choice],
        inputs=(("x", [1, 4]), ("flag", [])),
        kinds={"flag": TensorProto.BOOL},
    )
    assert cut(model).description == "before the final Sigmoid"
    (chooser,) = (one for one in model.graph if one.op_type == "If")
    ends = [chooser.attributes[f"{name}_branch"].as_graph().outputs[0] for name in ("then", "else")]
    assert [end.producer().op_type for end in ends] == ["Relu", "Relu"]


def test_outputs_that_no_input_reaches_are_no_points():
    found = cut(parsed([node("Relu", ["w"], ["y"])]))
    assert (found.names, found.description) == ((), "nothing")
