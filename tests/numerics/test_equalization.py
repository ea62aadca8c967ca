"""What equalization could give: which layers may trade scale, by how much, and what it predicts."""

import dataclasses
import math

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from quantstore.graph import find_sites, open_model, read_layer
from quantstore.graph.pairs import find_pairs
from quantstore.numerics.equalization import (
    PairGain,
    by_input_channel,
    equalize,
    p10_after_db,
    p10_db,
    pair_scale,
    scaled_first,
    scaled_second,
)
from quantstore.pipeline.files import demo_paths
from quantstore.schemes import INT8_CHANNEL_SYMMETRIC, INT8_TENSOR_SYMMETRIC
from tests.support.graphs import as_stored, float_value, gaussian, make_model, node, run, save
from tests.support.layers import linear_layer


def pairs_in(path, *, fold=True):
    """The pairs of a file, as names."""
    file = open_model(path)
    sites = find_sites(file)
    return [
        (sites[first].name, sites[second].name)
        for first, second in find_pairs(file, sites, fold=fold)
    ]


def paired_layers(path, *, fold=True):
    """The pairs of a file, as layers."""
    file = open_model(path)
    sites = find_sites(file)
    return [
        tuple(read_layer(file, sites[position], fold=fold) for position in pair)
        for pair in find_pairs(file, sites, fold=fold)
    ]


@pytest.fixture
def pairs(tmp_path):
    def find(model, *, fold=True):
        return pairs_in(save(model, tmp_path / "test.onnx"), fold=fold)

    return find


def spread(*shape, seed=0, bits=5, axis=0):
    """Gaussian weights whose channels along an axis differ in range by up to ``2^(2 bits)``."""
    factors = np.exp2(np.random.default_rng([seed, axis]).uniform(-bits, bits, shape[axis]))
    along = [-1 if position == axis else 1 for position in range(len(shape))]
    return (gaussian(*shape, seed=seed) * factors.reshape(along)).astype(np.float32)


FIRST, SECOND = {"w1": spread(6, 3, 3, 3)}, {"w2": gaussian(4, 6, 1, 1)}


def chain(*between, weights=None, second=None, outputs=("y",), opset=17):
    """Convolution ``first``, these nodes from ``h`` to ``g``, convolution ``second``."""
    nodes = [
        node("Conv", ["x", "w1"], ["h"], "first"),
        *between,
        second or node("Conv", ["g" if between else "h", "w2"], ["y"], "second"),
    ]
    return make_model(nodes, FIRST | SECOND | (weights or {}), outputs=outputs, opset=opset)


PAIR = [("first", "second")]

# --- which layers pair -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "between",
    [
        [],
        [node("Relu", ["h"], ["g"])],
        [node("LeakyRelu", ["h"], ["g"], alpha=0.1)],
        [node("PRelu", ["h", "slope"], ["g"])],
        [node("Identity", ["h"], ["i"]), node("Relu", ["i"], ["g"])],
        [node("Relu", ["h"], ["i"]), node("Dropout", ["i"], ["g"])],
    ],
    ids=["nothing", "Relu", "LeakyRelu", "PRelu", "Identity, Relu", "Relu, Dropout"],
)
def test_a_factor_passes_these(pairs, between):
    slopes = {"slope": np.abs(gaussian(6, 1, 1))}
    assert pairs(chain(*between, weights=slopes)) == PAIR


@pytest.mark.parametrize(
    "between",
    [
        [node("Sigmoid", ["h"], ["i"]), node("Mul", ["h", "i"], ["g"])],
        [node("Sigmoid", ["h"], ["g"])],
        [node("HardSwish", ["h"], ["g"])],
        [node("Clip", ["h", "zero", "six"], ["g"])],
        [node("Tanh", ["h"], ["g"])],
        [node("MaxPool", ["h"], ["g"], kernel_shape=[2, 2])],
        [node("Add", ["h", "six"], ["g"])],
        [node("Relu", ["h"], ["g"], domain="somewhere.else")],
    ],
    ids=["SiLU", "Sigmoid", "HardSwish", "Clip at 6", "Tanh", "MaxPool", "Add", "other domain"],
)
def test_a_factor_does_not_pass_these(pairs, between):
    limits = {"zero": np.float32(0).reshape(()), "six": np.float32(6).reshape(())}
    assert pairs(chain(*between, weights=limits)) == []


@pytest.mark.parametrize("shared", ["h", "g"])
def test_a_second_reader_of_either_value_would_see_the_factor(pairs, shared):
    model = chain(node("Relu", ["h"], ["g"]), outputs=("y", "z"))
    model.graph.node.append(node("Neg", [shared], ["z"]))
    assert pairs(model) == []


@pytest.mark.parametrize("returned", ["h", "g"])
def test_so_would_whoever_gets_the_value_as_an_output(pairs, returned):
    assert pairs(chain(node("Relu", ["h"], ["g"]), outputs=("y", returned))) == []


def test_so_would_a_branch_that_reads_it_from_outside(pairs):
    def branch(name):
        nodes = [node("Neg", ["h"], [name])]
        return helper.make_graph(nodes, name, [], [float_value(name)])

    branches = node("If", ["c"], ["z"], then_branch=branch("then"), else_branch=branch("otherwise"))
    model = chain(node("Relu", ["h"], ["g"]), outputs=("y", "z"))
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    model.graph.node.append(branches)
    assert pairs(model) == []


def test_layers_inside_one_branch_pair_and_do_not_reach_out_of_it(pairs):
    def branch(name):
        nodes = [
            node("Conv", ["h", "w2"], [f"{name}1"], f"{name}-a"),
            node("Relu", [f"{name}1"], [f"{name}2"]),
            node("Conv", [f"{name}2", "w3"], [f"{name}3"], f"{name}-b"),
        ]
        return helper.make_graph(nodes, name, [], [float_value(f"{name}3")])

    def model(then, otherwise):
        nodes = [
            node("Conv", ["x", "w1"], ["h"], "first"),
            node("If", ["c"], ["y"], "if", then_branch=then, else_branch=otherwise),
        ]
        made = make_model(nodes, FIRST | SECOND | {"w3": gaussian(2, 4, 1, 1)})
        made.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
        return made

    constant = node("Constant", [], ["k"], value=numpy_helper.from_array(gaussian(1), "k"))
    other = helper.make_graph([constant], "otherwise", [], [float_value("k")])
    assert pairs(model(branch("t"), other)) == [("if/then_branch/t-a", "if/then_branch/t-b")]
    # The same weights in both branches: a factor for one would change the other.
    assert pairs(model(branch("t"), branch("e"))) == []


def test_weights_with_a_second_reader_stay_as_they_are(pairs):
    model = chain(node("Relu", ["h"], ["g"]), outputs=("y", "z"))
    model.graph.node.append(node("Conv", ["x", "w1"], ["z"], "twin"))
    assert pairs(model) == []


def test_also_where_they_are_shared_through_identity(pairs):
    model = chain(node("Relu", ["h"], ["g"]), outputs=("y", "z"))
    model.graph.node.insert(0, node("Identity", ["w1"], ["w1b"]))
    model.graph.node.append(node("Conv", ["x", "w1b"], ["z"], "twin"))
    assert pairs(model) == []


def test_weights_of_their_own_may_come_through_identity(pairs):
    model = chain(node("Relu", ["h"], ["g"]))
    model.graph.node.insert(0, node("Identity", ["w1"], ["w1b"]))
    model.graph.node[1].input[1] = "w1b"
    assert pairs(model) == PAIR


def test_a_bias_must_be_constant_because_it_is_divided_too(pairs):
    model = chain(node("Relu", ["h"], ["g"]), weights={"b": gaussian(6)})
    model.graph.node[0].input.append("b")
    assert pairs(model) == PAIR
    model.graph.node[0].input[2] = "c"
    model.graph.input.append(float_value("c"))
    assert pairs(model) == []


def test_the_second_reads_the_value_as_its_data(pairs):
    weights = {"w1": gaussian(6, 3), "w2": gaussian(6, 6)}
    first = node("Gemm", ["x", "w1"], ["h"], "first", transB=1)
    as_data, as_bias = (
        node("Gemm", inputs, ["y"], "second") for inputs in (["h", "w2"], ["z", "w2", "h"])
    )
    assert pairs(make_model([first, as_data], weights)) == PAIR
    assert pairs(make_model([first, as_bias], weights, inputs=("x", "z"))) == []


def test_a_gemm_with_its_weights_in_front_has_its_channels_in_the_rows(pairs):
    first = node("Gemm", ["w1", "x"], ["h"], "first")
    second = node("Gemm", ["h", "w2"], ["y"], "second")
    assert pairs(make_model([first, second], {"w1": gaussian(6, 3), "w2": gaussian(6, 4)})) == []


def test_channels_have_to_match(pairs):
    assert pairs(chain(weights={"w2": gaussian(4, 5, 1, 1)})) == []


@pytest.mark.parametrize("kind", ["MatMul", "ConvTranspose"])
def test_other_layers_do_not_pair(pairs, kind):
    assert pairs(chain(second=node(kind, ["h", "w2"], ["y"], "second"))) == []


NORM = {name: np.abs(gaussian(6, seed=seed)) for seed, name in enumerate(("g", "b", "m", "v"))}


def with_batchnorm():
    batchnorm = node("BatchNormalization", ["h", "g", "b", "m", "v"], ["n"], "bn")
    relu = node("Relu", ["n"], ["r"])
    second = node("Conv", ["r", "w2"], ["y"], "second")
    return chain(batchnorm, relu, second=second, weights=NORM)


def test_a_batchnorm_belongs_to_the_first_where_it_is_folded(pairs):
    assert pairs(with_batchnorm(), fold=True) == PAIR


def test_and_ends_the_search_where_it_is_not(pairs):
    assert pairs(with_batchnorm(), fold=False) == []


def test_a_batchnorm_behind_the_activation_ends_it_too(pairs):
    relu = node("Relu", ["h"], ["n"])
    batchnorm = node("BatchNormalization", ["n", "g", "b", "m", "v"], ["r"], "bn")
    second = node("Conv", ["r", "w2"], ["y"], "second")
    assert pairs(chain(relu, batchnorm, second=second, weights=NORM)) == []


@pytest.mark.parametrize("missing", ["b", "m"])
def test_a_computed_shift_or_mean_cannot_be_divided(pairs, missing):
    model = with_batchnorm()
    (kept,) = [tensor for tensor in model.graph.initializer if tensor.name == missing]
    model.graph.initializer.remove(kept)
    model.graph.input.append(float_value(missing))
    assert pairs(model) == []


def gemms(*, trans_b=0, trans_a=0):
    first, second = spread(6, 3), gaussian(4, 6)
    nodes = [
        node("Gemm", ["x", "w1", "c"], ["h"], "first", transB=trans_b, alpha=0.5, beta=2.0),
        node("Relu", ["h"], ["g"]),
        node("Gemm", ["g", "w2"], ["y"], "second", transB=trans_b, transA=trans_a),
    ]
    weights = {"w1": first, "w2": second, "c": gaussian(6)}
    if not trans_b:
        weights |= {"w1": first.T.copy(), "w2": second.T.copy()}
    return make_model(nodes, weights)


@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemms_pair_however_their_weights_lie(pairs, trans_b):
    assert pairs(gemms(trans_b=trans_b)) == PAIR


def test_transposed_data_has_its_channels_elsewhere(pairs):
    assert pairs(gemms(trans_a=1)) == []


@pytest.mark.parametrize("which", ["first", "activation", "vector"])
def test_a_malformed_node_is_no_pair(pairs, which):
    model = chain(node("Relu", ["h"], ["g"]))
    if which == "first":
        del model.graph.node[0].output[:]
    elif which == "activation":
        del model.graph.node[1].output[:]
    else:
        model = make_model(
            [node("Gemm", ["x", "w1"], ["h"]), node("Gemm", ["h", "w2"], ["y"])],
            {"w1": gaussian(4), "w2": gaussian(4, 4)},
        )
    assert pairs(model) == []


def test_a_layer_in_the_middle_is_in_two_pairs(pairs):
    model = chain(node("Relu", ["h"], ["g"]), weights={"w3": gaussian(2, 4, 1, 1)})
    model.graph.node[-1].output[0] = "k"
    model.graph.node.append(node("Conv", ["k", "w3"], ["y"], "third"))
    assert pairs(model) == [("first", "second"), ("second", "third")]


# --- what the factors are, and that the network computes the same ------------------------------


def conv_pair(*, group, inputs, outputs, activation, kernel=3):
    """A convolution of 6 channels, an activation, a convolution of some groups."""
    weights = {
        "w1": spread(6, 3, 3, 3),
        "b1": gaussian(6),
        "w2": spread(outputs, inputs, kernel, kernel, seed=1, axis=1 if group == 1 else 0),
        "b2": gaussian(outputs),
        "slope": gaussian(6, 1, 1),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["h"], "first"),
        node(*activation),
        node("Conv", ["g", "w2", "b2"], ["y"], "second", group=group, pads=[1, 1, 1, 1]),
    ]
    return make_model(nodes, weights)


RELU = ("Relu", ["h"], ["g"])
LEAKY = ("LeakyRelu", ["h"], ["g"])
PRELU = ("PRelu", ["h", "slope"], ["g"])

NETWORKS = {
    "convolution": conv_pair(group=1, inputs=6, outputs=4, activation=RELU),
    "depthwise": conv_pair(group=6, inputs=1, outputs=6, activation=RELU),
    "depthwise, two kernels each": conv_pair(group=6, inputs=1, outputs=12, activation=RELU),
    "three groups": conv_pair(group=3, inputs=2, outputs=9, activation=RELU),
    "LeakyRelu": conv_pair(group=1, inputs=6, outputs=4, activation=LEAKY),
    "PRelu": conv_pair(group=6, inputs=1, outputs=6, activation=PRELU),
    "pointwise": conv_pair(group=1, inputs=6, outputs=8, activation=RELU, kernel=1),
    "Gemm": gemms(trans_b=0),
    "Gemm, transB": gemms(trans_b=1),
}
every_network = pytest.mark.parametrize("model", NETWORKS.values(), ids=NETWORKS)


def equalized(model, layers):
    """The model with a pair's weights, and the first one's bias, scaled as predicted."""
    first, second = layers
    scale = pair_scale(first, second)
    values = {
        tensor.name: numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer
    }
    for layer, weights in (
        (first, scaled_first(first, scale)),
        (second, scaled_second(second, scale)),
    ):
        values[layer.weight_name] = as_stored(dataclasses.replace(layer, weights=weights))
    (producer,) = [each for each in model.graph.node if first.weight_name in each.input]
    for bias in producer.input[2:3]:
        values[bias] = (values[bias] / scale).astype(np.float32)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.initializer[:]
    changed.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in values.items()
    )
    return changed


def signal_to_difference_db(expected, found):
    wide = expected.astype(np.float64)
    return 10 * np.log10(np.sum(wide**2) / max(np.sum((found - wide) ** 2), 1e-300))


@every_network
def test_the_network_computes_the_same(model, tmp_path):
    (layers,) = paired_layers(save(model, tmp_path / "test.onnx"))
    rank = len(layers[0].shape)
    x = gaussian(*((5, 3) if rank == 2 else (2, 3, 8, 8)), seed=7)
    (expected,) = run(model, x=x)
    (found,) = run(equalized(model, layers), x=x)
    assert np.abs(np.log2(pair_scale(*layers))).max() > 1
    # float32 rounding alone leaves some 130 dB.
    assert signal_to_difference_db(expected, found) > 110


@every_network
def test_both_sides_of_a_channel_get_the_geometric_mean_of_their_ranges(model, tmp_path):
    ((first, second),) = paired_layers(save(model, tmp_path / "test.onnx"))
    scale = pair_scale(first, second)
    before = ranges(first, second)
    after = ranges(
        dataclasses.replace(first, weights=scaled_first(first, scale)),
        dataclasses.replace(second, weights=scaled_second(second, scale)),
    )
    wanted = np.sqrt(before[0] * before[1])
    np.testing.assert_allclose(after[0], wanted, rtol=1e-6)
    np.testing.assert_allclose(after[1], wanted, rtol=1e-6)
    np.testing.assert_allclose(scale, np.sqrt(before[0] / before[1]))


def ranges(first, second):
    """Largest magnitude of each channel between two layers, slowly, from the stored layout."""
    weights = as_stored(second)
    if second.op_type == "Gemm":
        channels = weights if second.channel_axis == 1 else weights.T
    else:
        # Kernels of group g read the channels g * inputs and following.
        per_group, inputs = weights.shape[0] // second.group_count, weights.shape[1]
        channels = [
            weights[group * per_group : (group + 1) * per_group, channel]
            for group in range(second.group_count)
            for channel in range(inputs)
        ]
    return (
        np.abs(first.weights).max(axis=1).astype(np.float64),
        np.array([np.abs(channel).max() for channel in channels], dtype=np.float64),
    )


def test_the_figures_by_hand():
    first, second = (
        linear_layer([[8.0, -2.0], [0.5, 0.25]]),
        linear_layer([[2.0, 0.5], [1.0, -0.125]]),
    )
    scale = pair_scale(first, second)
    np.testing.assert_array_equal(scale, [2, 1])
    np.testing.assert_array_equal(scaled_first(first, scale), [[4, -1], [0.5, 0.25]])
    np.testing.assert_array_equal(scaled_second(second, scale), [[4, 0.5], [2, -0.125]])


def test_a_channel_that_is_dead_on_either_side_is_left_alone():
    first = linear_layer([[0.0, 0.0], [3.0, 1.0], [8.0, 4.0]])
    second = linear_layer([[1.0, 0.0, 2.0]])
    scale = pair_scale(first, second)
    np.testing.assert_array_equal(scale, [1, 1, 2])
    np.testing.assert_array_equal(scaled_second(second, scale), [[1, 0, 4]])


def test_nan_and_infinite_weights_do_not_count():
    first = linear_layer([[4.0, np.nan], [np.inf, 1.0]])
    np.testing.assert_array_equal(pair_scale(first, linear_layer([[1.0, 1.0]])), [2, 1])
    gain = equalize(first, linear_layer([[1.0, 1.0]]))
    assert all(not math.isnan(figure) for figure in dataclasses.astuple(gain))


def test_the_smallest_and_the_largest_float_may_meet():
    tiny, huge = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    first = linear_layer([[tiny], [huge]])
    second = linear_layer([[huge, tiny]])
    scale = pair_scale(first, second)
    middle = np.sqrt(np.float64(tiny) * np.float64(huge))
    np.testing.assert_allclose(scaled_first(first, scale), [[middle], [middle]])
    np.testing.assert_allclose(scaled_second(second, scale), [[middle, middle]])


@pytest.mark.parametrize(
    "changes",
    [{"op_type": "MatMul"}, {"operand": "A"}, {"already_quantized": True}],
    ids=["MatMul", "operand A", "stored as integers"],
)
def test_what_is_no_pair_has_no_gain(changes):
    layer = linear_layer([[1.0, 2.0], [3.0, 4.0]])
    assert equalize(layer, dataclasses.replace(layer, **changes)) is None
    assert equalize(dataclasses.replace(layer, **changes), layer) is None


def test_nor_has_a_pair_whose_channels_do_not_match():
    assert equalize(linear_layer([[1.0, 2.0]]), linear_layer([[1.0, 2.0]])) is None


def test_columns_are_seen_by_input_channel_without_a_copy(tmp_path):
    ((_, second),) = paired_layers(save(NETWORKS["three groups"], tmp_path / "test.onnx"))
    seen = by_input_channel(second)
    assert seen.shape == (3, 3, 2, 9)
    assert np.shares_memory(seen, second.weights)
    np.testing.assert_array_equal(seen[1, 2, 1], as_stored(second)[5, 1].ravel())


# --- what it predicts --------------------------------------------------------------------------

exponents = st.lists(st.integers(-6, 6), min_size=6, max_size=6)


@given(exponents)
def test_the_result_does_not_depend_on_how_a_pair_shares_its_scale(drawn):
    factors = np.exp2(np.array(drawn, dtype=np.float32))
    first, second = gaussian(6, 20), gaussian(10, 6)
    shared = equalize(linear_layer(first), linear_layer(second))
    moved = equalize(linear_layer(first * factors[:, np.newaxis]), linear_layer(second / factors))
    assert moved.after_first_db == pytest.approx(shared.after_first_db, abs=1e-3)
    assert moved.after_second_db == pytest.approx(shared.after_second_db, abs=1e-3)


@given(exponents)
def test_equalizing_twice_changes_nothing_more(drawn):
    factors = np.exp2(np.array(drawn, dtype=np.float32))
    first, second = (
        linear_layer(gaussian(6, 20) * factors[:, np.newaxis]),
        linear_layer(gaussian(10, 6)),
    )
    scale = pair_scale(first, second)
    again = pair_scale(
        linear_layer(scaled_first(first, scale)),
        linear_layer(scaled_second(second, scale)),
    )
    np.testing.assert_allclose(again, 1, rtol=1e-6)


def test_a_gain_is_the_round_trip_of_the_scaled_weights():
    first = linear_layer(spread(6, 20))
    second = linear_layer(gaussian(10, 6))
    scale = pair_scale(first, second)
    assert equalize(first, second) == PairGain(
        before_first_db=p10_db(first.weights, INT8_TENSOR_SYMMETRIC),
        after_first_db=p10_db(scaled_first(first, scale), INT8_TENSOR_SYMMETRIC),
        before_second_db=p10_db(second.weights, INT8_TENSOR_SYMMETRIC),
        after_second_db=p10_db(scaled_second(second, scale), INT8_TENSOR_SYMMETRIC),
    )


def test_a_scale_per_channel_has_nothing_to_gain_on_the_output_side():
    first = linear_layer(spread(6, 20))
    second = linear_layer(gaussian(10, 6))
    gain = equalize(first, second, INT8_CHANNEL_SYMMETRIC)
    assert gain.after_first_db == pytest.approx(gain.before_first_db, abs=0.01)


def test_what_one_layer_gains_the_other_may_lose():
    gain = equalize(linear_layer(spread(32, 64, bits=4)), linear_layer(gaussian(16, 32)))
    assert gain.after_first_db > gain.before_first_db + 10
    assert gain.after_second_db < gain.before_second_db


def test_layers_are_left_as_they_were():
    first = linear_layer(spread(6, 20))
    second = linear_layer(gaussian(10, 6))
    copies = first.weights.copy(), second.weights.copy()
    p10_after_db(first, second)
    np.testing.assert_array_equal(first.weights, copies[0])
    np.testing.assert_array_equal(second.weights, copies[1])


# --- the example that was broken on purpose ----------------------------------------------------


def gains_of(name):
    (path,) = [path for path in demo_paths() if path.stem == name]
    return {
        (first.name, second.name): equalize(first, second) for first, second in paired_layers(path)
    }


def test_the_rescaled_example_gets_back_what_it_had():
    """Each rescaled pair comes out as in the network before it was rescaled."""
    sound, rescaled = gains_of("digits-separable"), gains_of("digits-rescaled")
    assert sound.keys() == rescaled.keys()
    broken = {
        pair: gain for pair, gain in rescaled.items() if pair[1].endswith("depthwise/conv/Conv")
    }
    assert len(broken) == 4
    for pair, gain in broken.items():
        assert max(gain.before_first_db, gain.before_second_db) < 10
        assert gain.after_first_db == pytest.approx(sound[pair].after_first_db, abs=0.01)
        assert gain.after_second_db == pytest.approx(sound[pair].after_second_db, abs=0.01)
        assert gain.after_first_db > sound[pair].before_first_db
        assert gain.after_second_db > sound[pair].before_second_db


def test_an_example_pairs_the_same_whether_its_batchnorm_is_folded_in_the_file_or_here():
    (unfolded,) = [path for path in demo_paths() if path.stem == "digits-separable-unfolded"]
    assert len(gains_of("digits-separable")) == len(pairs_in(unfolded)) == 8
    assert pairs_in(unfolded, fold=False) == []


# --- real networks -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("retinaface-mnet025", 28),
        ("ultraface-rfb320", 35),
        # HardSwish stands between most of its layers.
        ("ppocr-v2-det", 12),
        # SiLU everywhere.
        ("rtmdet-nano", 0),
        # Stored as integers.
        ("yolov10n-quant", 0),
    ],
)
def test_how_many_pairs_a_real_network_has(shared_models, name, expected):
    assert len(pairs_in(shared_models / f"{name}.onnx")) == expected


def test_retinaface_computes_the_same_with_any_of_its_pairs_equalized(shared_models):
    path = shared_models / "retinaface-mnet025.onnx"
    model = onnx.load(path)
    (value,) = model.graph.input
    image = gaussian(*(axis.dim_value for axis in value.type.tensor_type.shape.dim))
    expected = run(model, **{value.name: image})
    layers = paired_layers(path)
    for pair in (layers[0], layers[1], layers[-3], layers[-1]):
        found = run(equalized(model, pair), **{value.name: image})
        for before, after in zip(expected, found, strict=True):
            assert signal_to_difference_db(before, after) > 90


def test_retinaface_has_no_layer_at_risk_left_among_its_pairs(shared_models):
    before, best = {}, {}
    for first, second in paired_layers(shared_models / "retinaface-mnet025.onnx"):
        gain = equalize(first, second)
        before |= {first.name: gain.before_first_db, second.name: gain.before_second_db}
        for name, after in (
            (first.name, gain.after_first_db),
            (second.name, gain.after_second_db),
        ):
            best[name] = max(after, best.get(name, -math.inf))
    assert sum(db < 20 for db in before.values()) == 3
    assert min(best.values()) > 30
