"""Channels with next to no energy: dead where the network does not miss them."""

from pathlib import Path

import numpy as np
import pytest

from quantstore.run.plans import Rounding
from quantstore.run.silent_channels import MISSED_BELOW_DB, faint_channels, overflowing_biases
from quantstore.schemes import DEFAULT_TARGET
from tests.support.graphs import gaussian, make_model, node
from tests.support.planned import trial_on

FAINT = np.float32(1e-5)


def trial(folder: Path, *, gain=1.0, bias=0.0):
    """Two layers; channel 2 of the first holds a hundred-thousandth, the second may undo that."""
    first, second = gaussian(6, 3, 3, 3), gaussian(4, 6, 1, 1)
    first[2] *= FAINT
    second[:, 2] *= gain
    nodes = [
        node("Conv", ["x", "w", "b"], ["h"], "first", pads=[1] * 4),
        node("Relu", ["h"], ["r"], "relu"),
        node("Conv", ["r", "v"], ["y"], "second"),
    ]
    weights = {"w": first, "b": np.full(6, bias, np.float32), "v": second}
    model = make_model(nodes, weights)
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    for size in (1, 3, 8, 8):
        model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = size
    samples = [{"x": gaussian(1, 3, 8, 8, seed=seed)} for seed in range(4)]
    return trial_on(model, ("y",), samples, samples, DEFAULT_TARGET.name, folder)


def test_a_channel_that_nobody_misses_is_dead(tmp_path):
    done = trial(tmp_path)
    (faint,) = faint_channels(done.network, done.samples, done.reference)
    assert (faint.layer, faint.channels) == ("first", (2,))
    assert faint.output_sqnr_db > MISSED_BELOW_DB
    assert faint.is_dead


def test_a_channel_that_the_next_layer_blows_up_is_alive(tmp_path):
    done = trial(tmp_path, gain=1 / FAINT)
    (faint,) = faint_channels(done.network, done.samples, done.reference)
    assert faint.output_sqnr_db < 20
    assert not faint.is_dead


def test_ordinary_layers_have_no_candidates(tmp_path):
    done = trial(tmp_path)
    names = [faint.layer for faint in faint_channels(done.network, done.samples, done.reference)]
    assert "second" not in names


@pytest.mark.parametrize(("bias", "count"), [(0.5, 0), (5.0, 0), (3e4, 1)])
def test_biases_are_counted_at_the_scales_that_the_ranges_gave(tmp_path, bias, count):
    done = trial(tmp_path, bias=bias)
    found = overflowing_biases(done.network, done.placed, done.planner, Rounding.of(DEFAULT_TARGET))
    assert sum(layer.count for layer in found) == count
