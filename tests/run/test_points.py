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


def parts_of(*nodes, **more):
    return cut(parsed([node("MatMul", ["x", "w"], ["scores"]), *nodes], **more)).parts


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


def test_a_softmax_that_is_spelled_out_is_one():
    nodes = [
        node("ReduceMax", ["scores"], ["largest"], axes=[1], keepdims=1),
        node("Sub", ["scores", "largest"], ["less"]),
        node("Exp", ["less"], ["raised"]),
        node("ReduceSum", ["raised", "axes"], ["total"], keepdims=1),
        node("Div", ["raised", "total"], ["y"]),
    ]
    weights = WEIGHTS | {"axes": np.array([1])}
    found = parts_of(*nodes, weights=weights)
    assert [(part.names, part.decision, part.axis) for part in found] == [(("scores",), "top1", 1)]


def test_a_mean_of_one_element_hides_no_sigmoid():
    nodes = [
        node("Unsqueeze", ["scores", "axes"], ["u"]),
        node("Sigmoid", ["u"], ["p"]),
        node("ReduceMean", ["p"], ["y"], axes=[2]),
    ]
    weights = WEIGHTS | {"axes": np.array([2])}
    assert points_of(*nodes, weights=weights)[0] == ("u",)


def test_products_of_bounded_values_are_bounded():
    nodes = [
        node("Sigmoid", ["scores"], ["p"]),
        node("MatMul", ["x", "v"], ["objects"]),
        node("Sigmoid", ["objects"], ["q"]),
        node("Mul", ["p", "q"], ["product"]),
        node("Sqrt", ["product"], ["y"]),
    ]
    (part,) = parts_of(*nodes, weights=WEIGHTS | {"v": gaussian(4, 1)})
    assert part.names == ("scores", "objects")
    assert part.decision == "set"


def test_constants_behind_a_head_are_stepped_over_but_not_those_behind_other_layers():
    decoding = [node("Mul", ["h", "bias"], ["m"]), node("Add", ["m", "bias"], ["y"])]
    reshaped = node("Transpose", ["scores"], ["h"])
    (part,) = parts_of(reshaped, *decoding)
    assert (part.names, part.is_decoded) == (("h",), True)
    (part,) = parts_of(node("Relu", ["scores"], ["h"]), *decoding)
    assert (part.names, part.is_decoded) == (("y",), False)


def test_corners_from_the_middle_and_the_size_come_from_one_head():
    nodes = [
        node("Mul", ["scores", "bias"], ["scaled"]),
        node("Div", ["scaled", "bias"], ["half"]),
        node("Sub", ["scaled", "half"], ["low"]),
        node("Add", ["scaled", "half"], ["high"]),
        node("Concat", ["low", "high"], ["y"], axis=1),
    ]
    assert points_of(*nodes)[0] == ("scores",)


def test_what_a_concat_joins_is_kept_apart_by_kind():
    nodes = [
        node("MatMul", ["x", "v"], ["offsets"]),
        node("Mul", ["offsets", "bias"], ["boxes"]),
        node("Sigmoid", ["scores"], ["p"]),
        node("Concat", ["boxes", "p"], ["y"], axis=1),
    ]
    boxes, classes = parts_of(*nodes, weights=WEIGHTS | {"v": gaussian(4, 4)})
    assert (boxes.output, boxes.part, boxes.names) == ("y", "values", ("offsets",))
    assert (classes.output, classes.part, classes.names) == ("y", "Sigmoid", ("scores",))
    assert classes.point == "scores, before Sigmoid"


def test_a_state_that_is_fed_back_is_known_by_the_input_of_its_shape():
    nodes = [node("Relu", ["scores"], ["y"]), node("Add", ["state", "scores"], ["next"])]
    found = parts_of(*nodes, inputs=(("x", [1, 4]), ("state", [1, 4])), outputs=("y", "next"))
    assert [part.is_state for part in found] == [False, False]
    model = parsed(
        [node("MatMul", ["x", "w"], ["scores"]), *nodes],
        inputs=(("x", [1, 4]), ("state", [2, 1, 4])),
        outputs=("y", "next"),
    )
    model.graph.outputs[1].shape = ir.Shape([2, 1, 4])
    assert [part.is_state for part in cut(model).parts] == [False, True]


def test_the_decoder_is_kept_where_it_is_asked_for_and_ends_before_a_selection():
    weights = WEIGHTS | {"k": np.array([2])}
    nodes = [
        node("Sigmoid", ["scores"], ["p"]),
        node("MatMul", ["x", "v"], ["offsets"]),
        node("Add", ["offsets", "bias"], ["boxes"]),
        node("TopK", ["p", "k"], ["best", "where"], axis=1),
        node("GatherElements", ["boxes", "where"], ["picked"], axis=1),
        node("Concat", ["picked", "best"], ["y"], "join", axis=1),
    ]
    model = parsed(
        [node("MatMul", ["x", "w"], ["scores"]), *nodes], weights=weights | {"v": gaussian(4, 4)}
    )
    found = cut(model, keeps_decoder=True)
    assert [end.name for end in found.ends] == ["boxes", "p"]
    assert [value.name for value in model.graph.outputs] == [*found.names, "boxes", "p"]
    assert "TopK" not in {one.op_type for one in model.graph}
    (join,) = found.joins
    assert (join.node, join.scores, join.values) == ("join", ("p",), ("boxes",))


def test_many_sums_that_meet_are_looked_through_in_no_time():
    sums = [node("Add", [f"s{depth}", f"s{depth}"], [f"s{depth + 1}"]) for depth in range(200)]
    nodes = [node("Relu", ["scores"], ["s0"]), *sums, node("Identity", ["s200"], ["y"])]
    assert points_of(*nodes)[0] == ("y",)


def test_outputs_that_no_input_reaches_are_no_points():
    found = cut(parsed([node("Relu", ["w"], ["y"])]))
    assert (found.names, found.description) == ((), "nothing")


def test_a_selection_among_lengths_is_none():
    """As PyTorch sorts the sequences of a recurrent layer: rounding changes no length."""
    nodes = [
        node("Cast", ["lengths"], ["counts"], to=TensorProto.INT64),
        node("Shape", ["counts"], ["how_many"]),
        node("TopK", ["counts", "how_many"], ["sorted", "order"]),
        node("Gather", ["scores", "order"], ["y"], axis=0),
    ]
    inputs = (("x", [1, 4]), ("lengths", [1]))
    found = points_of(*nodes, inputs=inputs, kinds={"lengths": TensorProto.INT32})
    assert found == (("y",), "the outputs")


def test_a_selection_among_floats_made_of_lengths_stays_one():
    nodes = [
        node("Cast", ["lengths"], ["counts"], to=TensorProto.FLOAT),
        node("Shape", ["counts"], ["how_many"]),
        node("TopK", ["counts", "how_many"], ["sorted", "order"]),
        node("Gather", ["scores", "order"], ["y"], axis=0),
    ]
    inputs = (("x", [1, 4]), ("lengths", [1]))
    names, words = points_of(*nodes, inputs=inputs, kinds={"lengths": TensorProto.INT32})
    assert set(names) == {"counts", "scores"}
    assert words == "the last tensors before TopK"


def test_a_table_that_indices_pick_from_is_compared():
    nodes = [node("Gather", ["w", "ids"], ["rows"]), node("MatMul", ["rows", "w"], ["y"])]
    found = cut(parsed(nodes, inputs=(("ids", [3]),), kinds={"ids": TensorProto.INT64}))
    assert found.names == ("y",)
