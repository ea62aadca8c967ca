"""Which tensors a target rounds, rule by rule: the same as onnxruntime's quantizer does."""

import numpy as np
import onnx
import pytest
from onnx import helper

from quantstore.run.emulator import Plan
from quantstore.run.placement import Bias
from quantstore.schemes import TARGETS
from tests.support.graphs import float_value, gaussian, make_model, node
from tests.support.referees import quantize_file, rounded_tensors
from tests.support.trials import trial_of_model

EVERYWHERE, CHANNEL, FUSED = TARGETS_BY_QUANTIZER = [
    TARGETS[name] for name in ("int8_tensor", "int8_channel", "int8_channel_fused")
]
IMAGE = (1, 4, 8, 8)


def conv(source, result, name="conv", weights="w"):
    return node("Conv", [source, weights], [result], name, pads=[1, 1, 1, 1])


def model_of(nodes, weights, *, outputs=("y",), **shapes):
    """A network of these nodes; by default it reads ``x``, an image of four channels."""
    shapes = shapes or {"x": IMAGE}
    model = make_model(nodes, weights, inputs=tuple(shapes), outputs=outputs)
    for value in model.graph.input:
        value.CopyFrom(float_value(value.name, list(shapes[value.name])))
    return model, shapes


def trial_of(made, folder, exclude=()):
    model, shapes = made

    def feed(index):
        return {name: gaussian(*shape, seed=index) for name, shape in shapes.items()}

    return trial_of_model(model, folder, feed=feed, exclude=exclude)


W = {"w": gaussian(4, 4, 3, 3)}
ints = np.int64


def relu_of_its_own():
    return model_of([conv("x", "h"), node("Relu", ["h"], ["y"], "relu")], W)


def relu_beside_another_reader():
    nodes = [
        conv("x", "h"),
        node("Relu", ["h"], ["r"], "relu"),
        node("Add", ["h", "r"], ["y"], "sum"),
    ]
    return model_of(nodes, W)


def clip():
    nodes = [conv("x", "h"), node("Clip", ["h", "low", "high"], ["y"], "clip")]
    return model_of(nodes, {**W, "low": np.float32(0), "high": np.float32(6)})


def sigmoid_and_product():
    nodes = [
        conv("x", "h"),
        node("Sigmoid", ["h"], ["s"], "sigmoid"),
        node("Mul", ["h", "s"], ["y"], "product"),
    ]
    return model_of(nodes, W)


def concat():
    nodes = [
        conv("x", "a"),
        conv("x", "b", "second", "v"),
        node("Concat", ["a", "b"], ["y"], "join", axis=1),
    ]
    return model_of(nodes, {**W, "v": gaussian(2, 4, 3, 3)})


def chain_of_moves():
    nodes = [
        conv("x", "h"),
        node("MaxPool", ["h"], ["m"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", ["m"], ["t"], "nhwc", perm=[0, 2, 3, 1]),
        node("Reshape", ["t", "shape"], ["f"], "flat"),
        node("Slice", ["f", "starts", "ends", "axes"], ["c"], "slice"),
        node("Squeeze", ["c", "front"], ["s"], "squeeze"),
        node("MatMul", ["s", "v"], ["p"], "linear"),
        node("Unsqueeze", ["p", "front"], ["y"], "unsqueeze"),
    ]
    weights = {
        **W,
        "shape": np.array([1, 16, 4], ints),
        "front": np.array([0], ints),
        "starts": np.array([0], ints),
        "ends": np.array([8], ints),
        "axes": np.array([1], ints),
        "v": gaussian(4, 3),
    }
    return model_of(nodes, weights)


def reshape_in_front():
    """Nothing before it is rounded, so that it is none that only moves."""
    nodes = [
        node("Tanh", ["x"], ["h"], "tanh"),
        node("Reshape", ["h", "shape"], ["f"], "flat"),
        node("MatMul", ["f", "v"], ["y"], "linear"),
    ]
    return model_of(nodes, {"shape": np.array([8, 32], ints), "v": gaussian(32, 3)})


def resize():
    nodes = [
        conv("x", "h"),
        node("Resize", ["h", "", "scales"], ["r"], "resize", mode="linear"),
        conv("r", "y", "second"),
    ]
    return model_of(nodes, {**W, "scales": np.float32([1, 1, 2, 2])})


def average_pool():
    nodes = [
        conv("x", "h"),
        node("AveragePool", ["h"], ["y"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    return model_of(nodes, W)


def global_pool():
    return model_of([conv("x", "h"), node("GlobalAveragePool", ["h"], ["y"], "pool")], W)


def softmax():
    nodes = [
        node("MatMul", ["x", "w"], ["h"], "scores"),
        node("Softmax", ["h"], ["s"], "softmax"),
        node("MatMul", ["s", "v"], ["y"], "mix"),
    ]
    return model_of(nodes, {"w": gaussian(6, 5), "v": gaussian(5, 3)}, x=(4, 6))


def add_of_a_constant():
    nodes = [
        conv("x", "h"),
        node("Add", ["h", "c"], ["a"], "shift"),
        node("Mul", ["a", "d"], ["y"], "stretch"),
    ]
    # As large as the tensor: an optimizer would fold what there is one of for each channel.
    return model_of(nodes, {**W, "c": gaussian(1, 4, 8, 8), "d": gaussian(1, 4, 8, 8, seed=1)})


def sub_is_left_alone():
    nodes = [
        conv("x", "h"),
        node("Sub", ["h", "c"], ["s"], "difference"),
        node("Tanh", ["s"], ["y"], "tanh"),
    ]
    return model_of(nodes, {**W, "c": gaussian(1, 4, 8, 8)})


def layer_norm():
    nodes = [
        node("MatMul", ["x", "w"], ["h"], "linear"),
        node("LayerNormalization", ["h", "gamma", "beta"], ["n"], "norm"),
        node("MatMul", ["n", "v"], ["y"], "second"),
    ]
    weights = {"w": gaussian(6, 8), "gamma": gaussian(8), "beta": gaussian(8, seed=1)}
    return model_of(nodes, {**weights, "v": gaussian(8, 3)}, x=(2, 4, 6))


def instance_norm():
    nodes = [
        conv("x", "h"),
        node("InstanceNormalization", ["h", "gamma", "beta"], ["y"], "norm"),
    ]
    return model_of(nodes, {**W, "gamma": gaussian(4), "beta": gaussian(4, seed=1)})


def pad_with_zeros():
    nodes = [
        conv("x", "h"),
        node("Pad", ["h", "pads"], ["p"], "pad"),
        node("Sigmoid", ["p"], ["y"], "sigmoid"),
    ]
    return model_of(nodes, {**W, "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], ints)})


def pad_with_a_number():
    nodes = [
        conv("x", "h"),
        node("Pad", ["h", "pads", "filling"], ["p"], "pad"),
        conv("p", "y", "second"),
    ]
    weights = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], ints), "filling": np.float32(3)}
    return model_of(nodes, {**W, **weights})


def pad_by_reflection():
    nodes = [
        conv("x", "h"),
        node("Pad", ["h", "pads"], ["p"], "pad", mode="reflect"),
        conv("p", "y", "second"),
    ]
    return model_of(nodes, {**W, "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], ints)})


def split():
    nodes = [
        conv("x", "h"),
        node("Split", ["h", "sizes"], ["a", "b"], "split", axis=1),
        node("Mul", ["a", "b"], ["y"], "gate"),
    ]
    return model_of(nodes, {**W, "sizes": np.array([2, 2], ints)})


def where():
    nodes = [
        conv("x", "a"),
        conv("x", "b", "second", "v"),
        node("Greater", ["x", "zero"], ["flag"], "test"),
        node("Where", ["flag", "a", "b"], ["y"], "choice"),
    ]
    weights = {"v": gaussian(4, 4, 3, 3, seed=1), "zero": np.zeros(IMAGE, np.float32)}
    return model_of(nodes, {**W, **weights})


def where_of_what_is_not_rounded():
    nodes = [
        conv("x", "a"),
        node("Tanh", ["x"], ["b"], "tanh"),
        node("Greater", ["x", "zero"], ["flag"], "test"),
        node("Where", ["flag", "a", "b"], ["y"], "choice"),
    ]
    return model_of(nodes, {**W, "zero": np.zeros(IMAGE, np.float32)})


def product_of_two_inputs():
    nodes = [
        node("MatMul", ["x", "z"], ["a"], "attention"),
        node("MatMul", ["a", "w"], ["y"], "linear"),
    ]
    return model_of(nodes, {"w": gaussian(3, 4)}, x=(2, 4, 6), z=(2, 6, 3))


def gemm_with_bias():
    nodes = [node("Gemm", ["x", "w", "b"], ["y"], "linear")]
    return model_of(nodes, {"w": gaussian(6, 5), "b": gaussian(5)}, x=(4, 6))


def transposed_convolution():
    nodes = [node("ConvTranspose", ["x", "w", "b"], ["y"], "up", strides=[2, 2])]
    return model_of(nodes, {"w": gaussian(4, 3, 2, 2), "b": gaussian(3)})


# By the graph: what is rounded where everything is, and where only what is multiplied is.
RULES = {
    relu_of_its_own: ({"x", "y"}, {"x"}),
    relu_beside_another_reader: ({"x", "h", "r", "y"}, {"x"}),
    clip: ({"x", "y"}, {"x"}),
    sigmoid_and_product: ({"x", "h", "s", "y"}, {"x"}),
    concat: ({"x", "a", "b", "y"}, {"x"}),
    chain_of_moves: ({"x", "h", "m", "t", "f", "c", "s", "p", "y"}, {"x", "s"}),
    reshape_in_front: ({"f", "y"}, {"f"}),
    resize: ({"x", "h", "r", "y"}, {"x", "r"}),
    average_pool: ({"x", "h", "y"}, {"x"}),
    global_pool: ({"x", "h", "y"}, {"x"}),
    softmax: ({"x", "h", "s", "y"}, {"x", "s"}),
    add_of_a_constant: ({"x", "h", "a", "y"}, {"x"}),
    sub_is_left_alone: ({"x", "h"}, {"x"}),
    layer_norm: ({"x", "h", "n", "y"}, {"x", "n"}),
    instance_norm: ({"x", "h", "y"}, {"x"}),
    pad_with_zeros: ({"x", "h", "p", "y"}, {"x"}),
    pad_with_a_number: ({"x", "h", "p", "y"}, {"x", "p"}),
    pad_by_reflection: ({"x", "h", "p", "y"}, {"x", "p"}),
    split: ({"x", "h", "a", "b", "y"}, {"x"}),
    where: ({"x", "a", "b", "y"}, {"x"}),
    where_of_what_is_not_rounded: ({"x", "a"}, {"x"}),
    product_of_two_inputs: ({"x", "z", "a", "y"}, {"x", "z", "a"}),
    gemm_with_bias: ({"x", "y"}, {"x"}),
    transposed_convolution: ({"x", "y"}, {"x"}),
}
every_rule = pytest.mark.parametrize("make", RULES, ids=lambda make: make.__name__)


@every_rule
@pytest.mark.parametrize("target", [EVERYWHERE, FUSED], ids=lambda target: target.name)
def test_what_is_rounded_is_what_onnxruntimes_quantizer_rounds(make, target, tmp_path):
    trial = trial_of(make(), tmp_path)
    placed = trial.placed(target)
    assert set(placed.grid_of) == RULES[make][target is FUSED]
    figure = trial.figure(target)
    assert figure == pytest.approx(trial.refereed(target), abs=0.5)
    theirs = rounded_tensors(tmp_path / f"{target.name}.onnx")
    assert set(theirs) == set(placed.grid_of)
    grids = trial.planner(placed).grids(placed, target.activations)
    for name, root in placed.grid_of.items():
        scale, zero = theirs[name]
        assert grids[root].scale[0] == pytest.approx(scale, rel=1e-5), name
        assert -grids[root].lowest[0] == zero, name


def layer(op_type, weights, shape, **attributes):
    """One layer, with a bias where there is one."""
    names = [name for name in ("w", "b") if name in weights]
    return model_of([node(op_type, ["x", *names], ["y"], "layer", **attributes)], weights, x=shape)


def behind_a_convolution(*nodes, **weights):
    return model_of([conv("x", "h"), *nodes], {**W, **weights})


BATCHNORM = {
    "gamma": gaussian(4),
    "beta": gaussian(4, seed=1),
    "mean": gaussian(4, seed=2),
    "variance": np.float32([1, 2, 3, 4]),
}
# Layers of every shape, and operators in company.
AGREEING = {
    "weights first": lambda: model_of(
        [node("MatMul", ["w", "x"], ["y"], "layer")], {"w": gaussian(5, 6)}, x=(6, 4)
    ),
    "a batch of weights": lambda: layer("MatMul", {"w": gaussian(3, 6, 5)}, (3, 4, 6)),
    "weights transposed": lambda: layer(
        "Gemm", {"w": gaussian(5, 6), "b": gaussian(5)}, (4, 6), transB=1
    ),
    "data transposed": lambda: layer("Gemm", {"w": gaussian(5, 6)}, (5, 4), transA=1),
    "one dimension": lambda: layer("Conv", {"w": gaussian(5, 6, 3), "b": gaussian(5)}, (1, 6, 9)),
    "three dimensions": lambda: layer(
        "Conv", {"w": gaussian(5, 2, 3, 3, 3), "b": gaussian(5)}, (1, 2, 5, 5, 5)
    ),
    "transposed in groups": lambda: layer(
        "ConvTranspose", {"w": gaussian(4, 3, 2, 2)}, (1, 4, 5, 5), group=2
    ),
    "weights that are computed": lambda: model_of(
        [conv("x", "h"), node("Tanh", ["z"], ["k"], "t"), node("Conv", ["h", "k"], ["y"], "dyn")],
        W,
        x=IMAGE,
        z=(2, 4, 3, 3),
    ),
    "a bias of two layers": lambda: model_of(
        [node("Conv", ["x", "w", "b"], ["h"], "a"), node("Conv", ["h", "v", "b"], ["y"], "c")],
        {"w": gaussian(4, 4, 1, 1), "v": 0.01 * gaussian(4, 4, 1, 1, seed=3), "b": gaussian(4)},
    ),
    "TopK": lambda: model_of(
        [node("MatMul", ["x", "w"], ["h"], "layer"), node("TopK", ["h", "k"], ["y", "i"], "top")],
        {"w": gaussian(6, 5), "k": np.array([3], ints)},
        x=(4, 6),
    ),
    "LeakyRelu": lambda: behind_a_convolution(node("LeakyRelu", ["h"], ["y"], "leaky")),
    "PRelu": lambda: behind_a_convolution(
        node("PRelu", ["h", "slope"], ["y"], "prelu"), slope=gaussian(4, 1, 1)
    ),
    "HardSigmoid": lambda: behind_a_convolution(
        node("HardSigmoid", ["h"], ["s"], "hard"), node("Mul", ["h", "s"], ["y"], "gate")
    ),
    "CumSum": lambda: behind_a_convolution(
        node("CumSum", ["h", "axis"], ["y"], "sum"), axis=np.array(1, ints)
    ),
    "Gather": lambda: behind_a_convolution(
        node("Gather", ["h", "i"], ["y"], "gather", axis=1), i=np.array([0, 2], ints)
    ),
    "Clip below 0": lambda: behind_a_convolution(
        node("Clip", ["h", "low", "high"], ["y"], "clip"), low=np.float32(-1), high=np.float32(2)
    ),
    "Relu and Clip": lambda: behind_a_convolution(
        node("Relu", ["h"], ["r"], "relu"),
        node("Clip", ["r", "", "high"], ["y"], "clip"),
        high=np.float32(2),
    ),
    "Relu of an input": lambda: model_of([node("Relu", ["x"], ["r"], "relu"), conv("r", "y")], W),
    "MaxPool of an input": lambda: model_of(
        [node("MaxPool", ["x"], ["m"], "pool", kernel_shape=[2, 2]), conv("m", "y")], W
    ),
    "nearest": lambda: behind_a_convolution(
        node("Resize", ["h", "", "scales"], ["y"], "resize", mode="nearest"),
        scales=np.float32([1, 1, 2, 2]),
    ),
    "an input joined": lambda: behind_a_convolution(
        node("Concat", ["h", "x"], ["c"], "join", axis=1), node("Relu", ["c"], ["y"], "relu")
    ),
    "a BatchNormalization alone": lambda: model_of(
        [
            node("Relu", ["x"], ["r"], "relu"),
            node("BatchNormalization", ["r", *BATCHNORM], ["n"], "norm"),
            conv("n", "y"),
        ],
        {**W, **BATCHNORM},
    ),
    "scalars": lambda: behind_a_convolution(
        node("Mul", ["h", "c"], ["m"], "stretch"),
        node("Add", ["m", "d"], ["y"], "shift"),
        c=np.array(0.5, np.float32),
        d=np.float32([-3]),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AGREEING)
@pytest.mark.parametrize("target", TARGETS_BY_QUANTIZER, ids=lambda target: target.name)
def test_layers_of_every_shape_are_rounded_as_the_quantizer_does(name, target, tmp_path):
    trial = trial_of(AGREEING[name](), tmp_path)
    assert trial.figure(target) == pytest.approx(trial.refereed(target), abs=0.5)
    theirs = rounded_tensors(tmp_path / f"{target.name}.onnx")
    assert set(theirs) == set(trial.placed(target).grid_of)


def scaled_bias():
    weights = {"w": gaussian(5, 6), "b": gaussian(5)}
    return layer("Gemm", weights, (4, 6), transB=1, alpha=0.5, beta=2.0)


def relu_of_an_output():
    return model_of([conv("x", "h"), node("Relu", ["h"], ["y"], "relu")], W, outputs=("h", "y"))


@pytest.mark.parametrize("make", [scaled_bias, relu_of_an_output])
def test_what_the_quantizer_loses_is_not_lost(make, tmp_path):
    """It forgets the factor of a bias, and that somebody wants what a Relu reads."""
    trial = trial_of(make(), tmp_path)
    assert trial.figure(EVERYWHERE) > trial.refereed(EVERYWHERE) + 10
    assert trial.figure(EVERYWHERE) > 30


@pytest.mark.parametrize(
    ("op_type", "weights", "bias", "shape"),
    [
        ("ConvTranspose", (4, 3, 2, 2), (6,), (1, 4, 5, 5)),
        ("Gemm", (6, 5), (1,), (4, 6)),
        ("Gemm", (6, 5), (4, 5), (4, 6)),
    ],
    ids=["in groups", "of one number", "of two dimensions"],
)
def test_a_bias_that_the_quantizer_stops_at_is_rounded(op_type, weights, bias, shape, tmp_path):
    attributes = {"group": 2} if op_type == "ConvTranspose" else {}
    arrays = {"w": gaussian(*weights), "b": gaussian(*bias)}
    trial = trial_of(layer(op_type, arrays, shape, **attributes), tmp_path)
    with pytest.raises((ValueError, IndexError)):
        trial.refereed(CHANNEL)
    assert 30 < trial.figure(CHANNEL) < 60
    plan = trial.plan_of(CHANNEL)
    largest_step = plan.grids["x"].scale[0] * np.abs(arrays["w"]).max() / 127
    np.testing.assert_allclose(plan.constants["b"], arrays["b"], atol=largest_step / 2)


def activations(make, folder):
    return set(trial_of(make(), folder).placed(EVERYWHERE).activations)


def test_what_only_moves_values_of_a_grid_is_not_rounded_again(tmp_path):
    assert activations(chain_of_moves, tmp_path) == {"x", "h", "p"}
    assert activations(split, tmp_path) == {"x", "h", "y"}
    assert activations(pad_with_zeros, tmp_path) == {"x", "h", "y"}


def test_what_lies_between_values_of_a_grid_is_rounded_to_it_again(tmp_path):
    assert activations(resize, tmp_path) == {"x", "h", "r", "y"}
    placed = trial_of(average_pool(), tmp_path).placed(EVERYWHERE)
    assert placed.grid_of["y"] == "h"
    assert set(placed.activations) == {"x", "h", "y"}


def test_shares_lie_between_0_and_1_whatever_the_samples_were(tmp_path):
    trial = trial_of(softmax(), tmp_path)
    assert trial.placed(EVERYWHERE).shares == {"s"}
    grid = trial.plan_of(EVERYWHERE).grids["s"]
    assert (grid.scale[0], grid.lowest[0]) == (np.float32(1 / 255), 0)


def test_constants_that_are_added_are_rounded_as_activations_are(tmp_path):
    trial = trial_of(add_of_a_constant(), tmp_path)
    assert set(trial.placed(EVERYWHERE).constants) == {"c", "d"}
    assert set(trial.plan_of(EVERYWHERE).constants) >= {"c", "d"}
    assert trial.placed(FUSED).constants == ()


def test_the_scale_of_a_normalization_is_rounded_like_weights_and_its_bias_like_one(tmp_path):
    for make in (layer_norm, instance_norm):
        (tmp_path / make.__name__).mkdir()
        trial = trial_of(make(), tmp_path / make.__name__)
        placed = trial.placed(EVERYWHERE)
        assert placed.norms == ("gamma",)
        assert placed.biases == (Bias("beta", "h", "gamma"),)
        rounded = trial.plan_of(EVERYWHERE).constants["gamma"]
        step = np.abs(trial.network.constant("gamma")).max() / 127
        np.testing.assert_allclose(rounded / step, np.rint(rounded / step), atol=1e-3)
        assert trial.placed(FUSED).norms == ()


def embedding():
    nodes = [
        node("Gather", ["table", "tokens"], ["e"], "lookup"),
        node("MatMul", ["e", "w"], ["y"], "linear"),
    ]
    model = make_model(nodes, {"table": gaussian(9, 6), "w": gaussian(6, 3)}, inputs=("tokens",))
    tokens = helper.make_tensor_value_info("tokens", onnx.TensorProto.INT64, [1, 5])
    model.graph.input[0].CopyFrom(tokens)
    return model


def test_rows_of_an_embedding_lie_on_its_grid(tmp_path):
    def feed(index):
        return {"tokens": np.random.default_rng(index).integers(0, 9, (1, 5))}

    trial = trial_of_model(embedding(), tmp_path, feed=feed)
    placed = trial.placed(EVERYWHERE)
    assert set(placed.activations) == {"y"}
    assert set(placed.grid_of) == {"e", "y"}
    assert trial.figure(EVERYWHERE) == pytest.approx(trial.refereed(EVERYWHERE), abs=0.5)
    # A lookup in a table multiplies nothing.
    assert set(trial.placed(FUSED).activations) == {"e"}
    assert trial.figure(FUSED) == pytest.approx(trial.refereed(FUSED), abs=0.5)


# --- what is excluded --------------------------------------------------------------------------


def three_layers():
    nodes = [
        conv("x", "a", "first", "w"),
        conv("a", "b", "second", "v"),
        conv("b", "y", "third", "u"),
    ]
    weights = {"w": gaussian(4, 4, 3, 3), "v": gaussian(4, 4, 1, 1), "u": gaussian(4, 4, 3, 3)}
    nodes[1] = node("Conv", ["a", "v"], ["b"], "second")
    return model_of(nodes, weights)


@pytest.mark.parametrize("target", [EVERYWHERE, FUSED], ids=lambda target: target.name)
def test_a_node_that_is_excluded_rounds_nothing_of_its_own(target, tmp_path):
    trial = trial_of(three_layers(), tmp_path, exclude=("second",))
    placed = trial.placed(target)
    refereed = trial.refereed(target, nodes_to_exclude=["second"])
    assert trial.figure(target) == pytest.approx(refereed, abs=0.5)
    assert set(rounded_tensors(tmp_path / f"{target.name}.onnx")) == set(placed.grid_of)
    assert len(placed.weights) == 2
    assert placed.left_in_float == ()


def test_a_tensor_that_is_excluded_is_not_rounded_though_all_around_it_is(tmp_path):
    placed = trial_of(three_layers(), tmp_path, exclude=("a",)).placed(EVERYWHERE)
    assert set(placed.grid_of) == {"x", "b", "y"}
    assert len(placed.weights) == 3
    assert placed.left_in_float == ()


def test_everything_excluded_is_the_float_network(tmp_path):
    trial = trial_of(three_layers(), tmp_path, exclude=("first", "second", "third"))
    assert trial.plan_of(EVERYWHERE) == Plan()


# --- other targets -----------------------------------------------------------------------------


def test_linear_inputs_are_those_of_products_alone(tmp_path):
    nodes = [
        conv("x", "h"),
        node("GlobalAveragePool", ["h"], ["p"], "pool"),
        node("Flatten", ["p"], ["f"], "flat"),
        node("Gemm", ["f", "v"], ["y"], "linear"),
    ]
    placed = trial_of(model_of(nodes, {**W, "v": gaussian(4, 3)}), tmp_path).placed(
        TARGETS["int8_dynamic"]
    )
    assert set(placed.activations) == {"f"}
    assert len(placed.weights) == 1
    # Convolutions are not its business.
    assert placed.left_in_float == ()


def test_inputs_of_depthwise_convolutions_alone_have_a_grid_for_each_channel(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["a"], "depthwise", group=4),
        node("Conv", ["a", "v"], ["b"], "pointwise"),
        node("Conv", ["a", "u"], ["c"], "also depthwise", group=4),
        node("Conv", ["b", "t"], ["d"], "depthwise again", group=4),
        node("Add", ["c", "d"], ["y"], "sum"),
    ]
    weights = {
        "w": gaussian(4, 1, 3, 3),
        "v": gaussian(4, 4, 1, 1),
        "u": gaussian(4, 1, 1, 1),
        "t": gaussian(4, 1, 1, 1, seed=1),
    }
    trial = trial_of(model_of(nodes, weights), tmp_path)
    target = TARGETS["int8_channel_depthwise"]
    assert trial.placed(target).depthwise == {"x", "b"}
    grids = trial.plan_of(target).grids
    assert {name: grid.scale.size for name, grid in grids.items()} == {"x": 4, "a": 1, "b": 4}


def test_the_quantizers_ranges_can_be_replaced(tmp_path):
    """The referee of this file and others."""
    trial = trial_of(gemm_with_bias(), tmp_path)
    target = quantize_file(
        tmp_path / "float.onnx",
        tmp_path / "q.onnx",
        trial.calibration,
        per_channel=False,
        ranges_file=tmp_path / "ranges.json",
        ranges={"x": (0.0, 255.0)},
    )
    assert rounded_tensors(target)["x"] == (1.0, 0)
