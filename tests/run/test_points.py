"""Where two networks are compared, and which inputs they get where nobody has any."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantstore.errors import RunError
from quantstore.run import noise
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


# --- shapes of inputs that a model leaves open -------------------------------------------------


def first_choice(shape, *nodes, kind=TensorProto.FLOAT, weights=None):
    model = parsed(
        nodes or [node("Relu", ["x"], ["y"])],
        inputs=(("x", shape),),
        kinds={"x": kind},
        weights=weights,
    )
    return next(noise.choices(model))[0]


def test_fixed_dimensions_stay():
    model = parsed([node("Relu", ["x"], ["y"])], inputs=(("x", [2, 3, 5, 7]),))
    assert [inputs[0].shape for inputs in noise.choices(model)] == [(2, 3, 5, 7)]


def test_an_image_has_one_batch_three_channels_and_sides_from_a_list():
    model = parsed([node("Relu", ["x"], ["y"])], inputs=(("x", ["n", "c", "h", "w"]),))
    shapes = [inputs[0].shape for inputs in noise.choices(model)]
    assert shapes == [(1, 3, side, side) for side in noise.IMAGE_SIDES]


def test_channels_may_come_last():
    assert first_choice(["n", "h", "w", 3]).shape == (1, 320, 320, 3)


def test_the_first_convolution_knows_how_many_channels_there_are():
    weights = {"w": gaussian(2, 5, 3, 3), "mean": gaussian(1)}
    nodes = [node("Sub", ["x", "mean"], ["c"]), node("Conv", ["c", "w"], ["y"])]
    assert first_choice(["n", "c", 8, 8], *nodes, weights=weights).shape == (1, 5, 8, 8)


@pytest.mark.parametrize("op_type", ["MatMul", "Gemm"])
def test_a_linear_layer_knows_its_inputs_even_where_the_file_gives_no_shape(op_type):
    weights = {"w": gaussian(6, 2)}
    chosen = first_choice(None, node(op_type, ["x", "w"], ["y"]), weights=weights)
    assert chosen.shape == (1, 6) if op_type == "Gemm" else (64, 6)


def test_an_input_of_which_nothing_is_known_is_refused():
    with pytest.raises(RunError, match="shape of input 'x'"):
        first_choice(None)


def test_a_sequence_has_64_steps():
    assert first_choice(["n", "steps"], kind=TensorProto.INT64).shape == (1, 64)


def test_shapes_are_told_in_words():
    chosen = first_choice(["n", 3, "h", "w"])
    assert noise.shapes_text((chosen,)) == "x 1x3x320x320"


# --- what is fed -------------------------------------------------------------------------------


def sample(name, shape, dtype="float32", *, kind="white", seed=0, limit=noise.INTEGER_LIMIT):
    one = noise.Input(name, shape, np.dtype(dtype), limit)
    return noise.samples((one,), 1, seed=seed, spectrum=kind)[0][name]


def test_white_noise_has_zero_mean_and_unit_variance():
    values = sample("x", (1, 3, 64, 64))
    assert values.dtype == np.float32
    assert values.mean() == pytest.approx(0, abs=0.03)
    assert values.std() == pytest.approx(1, abs=0.03)


def test_the_seed_decides():
    for kind in ("white", "image"):
        first, again = (sample("x", (1, 3, 16, 16), kind=kind) for _ in range(2))
        other = sample("x", (1, 3, 16, 16), kind=kind, seed=1)
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (1, 64, 64, 3)])
def test_image_like_noise_falls_as_one_over_f_and_its_channels_look_alike(shape):
    random = np.random.default_rng(0)
    one = noise.Input("x", shape, np.dtype("float32"))
    images = np.stack([noise._floats(one, random, "image")[0] for _ in range(40)])
    if shape[-1] == 3:
        images = np.moveaxis(images, 3, 1)
    assert images.mean((2, 3)) == pytest.approx(0, abs=1e-6)
    assert images.std((2, 3)) == pytest.approx(1, abs=1e-5)
    power = (np.abs(np.fft.rfft2(images)) ** 2).mean((0, 1))
    # Amplitude 1/f is power 1/f^2: a quarter for twice the frequency.
    for low in (2, 4, 8):
        assert power[low, 0] / power[2 * low, 0] == pytest.approx(4, rel=0.5)
    pairs = np.array([np.corrcoef(image.reshape(3, -1))[0, 1] for image in images])
    assert pairs.mean() == pytest.approx(noise.CHANNEL_CORRELATION, abs=0.03)


def test_integers_are_small_positive_and_inside_the_table_they_look_into():
    values = sample("ids", (1, 64), "int64")
    assert values.min() >= 1
    assert values.max() < 64
    weights = {"table": gaussian(7, 4)}
    nodes = [node("Gather", ["table", "x"], ["y"])]
    chosen = first_choice(["n", "t"], *nodes, kind=TensorProto.INT64, weights=weights)
    assert noise.samples((chosen,), 1, seed=0, spectrum="white")[0]["x"].max() == 6


def test_states_are_zero_and_masks_are_one():
    assert not sample("state", (2, 1, 8)).any()
    assert not sample("h0", (2, 1, 8)).any()
    assert (sample("attention_mask", (1, 8), "int64") == 1).all()
    assert not sample("token_type_ids", (1, 8), "int64").any()


def test_an_integer_that_stands_alone_is_frozen():
    model = parsed(
        [node("Relu", ["x"], ["y"])],
        inputs=(("x", [1]), ("sr", []), ("n", [])),
        kinds={"sr": TensorProto.INT64, "n": TensorProto.INT32},
    )
    assert {name: int(value) for name, value in noise.frozen_inputs(model).items()} == {
        "sr": 16000,
        "n": 1,
    }


def test_bytes_of_a_picture_are_grey_on_average():
    values = sample("x", (1, 3, 32, 32), "uint8")
    assert values.mean() == pytest.approx(128, abs=8)


@pytest.mark.parametrize(
    ("shape", "counts"),
    [((1, 3, 320, 320), (5, 3)), ((1, 1, 8, 8), (48, 24)), ((1, 64), (48, 24))],
)
def test_small_inputs_need_more_samples(shape, counts):
    assert noise.sample_counts((noise.Input("x", shape, np.dtype("float32")),)) == counts
