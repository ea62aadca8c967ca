"""Where a tensor has its channels, and how each of them comes through a rounding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quantstore.run.channels import ChannelSums, channel_axes
from quantstore.run.network import prepare
from tests.support.graphs import float_value, gaussian, make_model, node


def axes_of(nodes, weights, shape, folder, *, outputs=("y",)):
    model = make_model(nodes, weights, outputs=outputs)
    model.graph.input[0].CopyFrom(float_value("x", shape))
    return dict(channel_axes(prepare(model, outputs, folder, fold=True)))


CONV = node("Conv", ["x", "w"], ["h"], "conv")
W = {"w": gaussian(4, 3, 3, 3)}
IMAGE = [1, 3, 8, 8]


def test_a_convolution_and_a_pool_have_channels_second(tmp_path):
    nodes = [CONV, node("MaxPool", ["h"], ["y"], "pool", kernel_shape=[2, 2])]
    assert axes_of(nodes, W, IMAGE, tmp_path) == {"h": 1, "y": 1}


def test_a_product_has_channels_last(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["h"], "layer"), node("Relu", ["h"], ["y"], "relu")]
    assert axes_of(nodes, {"w": gaussian(6, 5)}, [2, 7, 6], tmp_path) == {"h": 2, "y": 2}


def test_a_recurrent_layer_has_channels_last(tmp_path):
    nodes = [node("RNN", ["x", "w", "r"], ["y"], "layer", hidden_size=4)]
    weights = {"w": gaussian(1, 4, 5), "r": gaussian(1, 4, 4)}
    assert axes_of(nodes, weights, [3, 1, 5], tmp_path) == {"y": 3}


def test_what_works_element_by_element_keeps_them(tmp_path):
    nodes = [
        CONV,
        node("Sigmoid", ["h"], ["s"], "sigmoid"),
        node("Mul", ["h", "s"], ["m"], "product"),
        node("Concat", ["m", "s"], ["y"], "join", axis=1),
    ]
    assert axes_of(nodes, W, IMAGE, tmp_path) == {"h": 1, "s": 1, "m": 1, "y": 1}


@pytest.mark.parametrize(("order", "axis"), [([0, 2, 3, 1], 3), ([1, 0, 2, 3], 0), (None, 2)])
def test_a_transpose_takes_them_along(order, axis, tmp_path):
    attributes = {} if order is None else {"perm": order}
    nodes = [
        CONV,
        node("Transpose", ["h"], ["t"], "turn", **attributes),
        node("Tanh", ["t"], ["y"], "tanh"),
    ]
    assert axes_of(nodes, W, IMAGE, tmp_path) == {"h": 1, "t": axis, "y": axis}


def test_behind_a_reshape_nobody_knows(tmp_path):
    nodes = [
        CONV,
        node("Reshape", ["h", "shape"], ["r"], "flat"),
        node("Tanh", ["r"], ["y"], "tanh"),
    ]
    weights = {**W, "shape": np.array([2, -1], np.int64)}
    assert axes_of(nodes, weights, IMAGE, tmp_path) == {"h": 1}


def test_an_input_has_none_and_what_is_made_of_it_alone(tmp_path):
    nodes = [node("Tanh", ["x"], ["t"], "tanh"), node("Conv", ["t", "w"], ["y"], "conv")]
    assert axes_of(nodes, W, IMAGE, tmp_path) == {"y": 1}


# --- the sums ----------------------------------------------------------------------------------


def channels_of(x, y, axis):
    x, y = (np.moveaxis(np.float64(one), axis, 0).reshape(x.shape[axis], -1) for one in (x, y))
    return [
        10 * np.log10((a**2).sum() / ((b - a) ** 2).sum())
        for a, b in zip(x, y, strict=True)
        if a.any()
    ]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_figures_are_those_of_every_channel_over_all_samples(axis):
    random = np.random.default_rng(0)
    x = random.normal(size=(5, 3, 12, 4)).astype(np.float32)
    noise = random.normal(size=x.shape) * 10 ** random.uniform(-3, 0, x.shape[axis + 1]).reshape(
        [-1 if at == axis + 1 else 1 for at in range(4)]
    )
    y = (x + noise).astype(np.float32)
    sums = ChannelSums()
    for one, other in zip(x, y, strict=True):
        sums.add(one, other, axis)
    found = sums.summary()
    each = channels_of(x, y, axis + 1)
    assert found.p10_db == pytest.approx(np.quantile(each, 0.1), abs=1e-6)
    assert found.below_10db == sum(one < 10 for one in each)
    assert found.count == x.shape[axis + 1]


def test_a_channel_of_zeros_is_none_and_one_that_comes_through_whole_is():
    x = np.float32([[0, 0], [3, 4], [1, 0]])
    y = np.float32([[1, 1], [3, 4], [0, 0]])
    sums = ChannelSums()
    sums.add(x, y, 0)
    found = sums.summary()
    assert (found.count, found.below_10db) == (2, 1)


def test_without_an_axis_there_are_no_channels():
    sums = ChannelSums()
    sums.add(np.ones(3), np.ones(3), None)
    sums.add(np.float32(1), np.float32(1), 0)
    found = sums.summary()
    assert (found.count, found.below_10db) == (0, 0)
    assert np.isnan(found.p10_db)


def test_channels_that_are_no_numbers_are_left_out():
    x = np.float32([[1, 2], [3, 4]])
    y = np.float32([[np.nan, 2], [3, 4.1]])
    sums = ChannelSums()
    sums.add(x, y, 0)
    found = sums.summary()
    assert found.count == 1
    assert found.p10_db == pytest.approx(10 * np.log10(25 / 0.01), abs=0.01)


@given(arrays.arrays(np.float32, (4, 3, 5), elements=st.floats(-100, 100, width=32)))
def test_samples_one_by_one_are_samples_at_once(x):
    y = np.rint(x)
    together, apart = ChannelSums(), ChannelSums()
    together.add(np.concatenate(x, axis=1), np.concatenate(y, axis=1), 0)
    for one, other in zip(x, y, strict=True):
        apart.add(one, other, 0)
    np.testing.assert_allclose(together.energy, apart.energy)
    np.testing.assert_allclose(together.squared_error, apart.squared_error)
