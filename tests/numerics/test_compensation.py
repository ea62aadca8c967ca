"""Rounding whose errors compensate each other, held against rounding to the nearest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantstore.numerics.compensation import compensated_codes
from quantstore.numerics.quantization import grid_for, quantize
from quantstore.schemes import SCHEMES

CHANNEL = SCHEMES["int8_channel_symmetric"]


def layer(seed, rows=6, columns=12, groups=1, correlation=0.95):
    """Weights, and inputs whose columns are alike."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=(groups * rows, columns)).astype(np.float32)
    common = random.normal(size=(groups, 400, 1))
    own = random.normal(size=(groups, 400, columns))
    inputs = correlation * common + np.sqrt(1 - correlation**2) * own
    return weights, inputs


def moments_of(inputs):
    return np.swapaxes(inputs, 1, 2) @ inputs / inputs.shape[1]


def output_error(weights, codes, grid, inputs):
    """Mean square error at the outputs of the layer, over all groups."""
    groups = len(inputs)
    difference = (codes * grid.scale - weights).reshape(groups, -1, weights.shape[1])
    return float(np.mean((inputs @ np.swapaxes(difference, 1, 2)) ** 2))


@pytest.mark.parametrize("groups", [1, 3])
def test_outputs_lose_less_than_by_rounding_to_the_nearest(groups):
    """No law: what one input takes up may cost the next ones more, in one of 200 layers here."""
    shares = []
    for seed in range(40):
        weights, inputs = layer(seed, groups=groups)
        grid = grid_for(weights, CHANNEL)
        codes = compensated_codes(weights, moments_of(inputs), grid)
        nearest = quantize(weights, grid)
        before = output_error(weights, nearest, grid, inputs)
        shares.append(output_error(weights, codes, grid, inputs) / before)
    assert np.median(shares) < 0.5
    assert np.quantile(shares, 0.9) < 1


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_codes_are_codes_of_the_grid_and_the_largest_keep_theirs(seed):
    weights, inputs = layer(seed)
    grid = grid_for(weights, CHANNEL)
    codes = compensated_codes(weights, moments_of(inputs), grid)
    assert codes.dtype == np.float32
    assert np.array_equal(codes, np.rint(codes))
    assert np.abs(codes).max() == 127
    at = np.abs(weights).argmax(axis=1)
    rows = np.arange(len(weights))
    assert np.array_equal(codes[rows, at], quantize(weights, grid)[rows, at])


def test_where_inputs_know_nothing_of_one_another_the_nearest_codes_are_best():
    weights, _ = layer(1)
    grid = grid_for(weights, CHANNEL)
    moments = np.eye(weights.shape[1])[None]
    assert np.array_equal(compensated_codes(weights, moments, grid), quantize(weights, grid))


def test_groups_are_independent_layers():
    weights, inputs = layer(2, groups=3)
    grid = grid_for(weights, CHANNEL)
    together = compensated_codes(weights, moments_of(inputs), grid)
    for group in range(3):
        own = slice(6 * group, 6 * group + 6)
        alone = compensated_codes(
            weights[own], moments_of(inputs[group : group + 1]), grid_for(weights[own], CHANNEL)
        )
        assert np.array_equal(together[own], alone)


def test_more_columns_than_a_block_are_compensated_across_blocks():
    weights, inputs = layer(3, rows=4, columns=150)
    grid = grid_for(weights, CHANNEL)
    codes = compensated_codes(weights, moments_of(inputs), grid)
    nearest = output_error(weights, quantize(weights, grid), grid, inputs)
    assert output_error(weights, codes, grid, inputs) < 0.2 * nearest


@pytest.mark.parametrize("moments", [np.full((1, 12, 12), np.nan), np.zeros((1, 12, 12))])
def test_inputs_that_say_nothing_leave_the_nearest_codes(moments):
    weights, _ = layer(4)
    grid = grid_for(weights, CHANNEL)
    assert np.array_equal(compensated_codes(weights, moments, grid), quantize(weights, grid))
