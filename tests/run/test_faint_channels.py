"""Channels with next to no energy: dead where the network does not miss them."""

from pathlib import Path

import numpy as np

from quantstore.graph.findings import of_run
from quantstore.run.faint_channels import faint_channels
from quantstore.schemes import DEFAULT_TARGET
from tests.support.graphs import gaussian, make_model, node
from tests.support.planned import trial_on

FAINT = np.float32(1e-5)


def trial(folder: Path, *, gain=1.0, share=FAINT):
    """Two layers; channel 2 of the first holds a hundred-thousandth, the second may undo that."""
    first, second = gaussian(6, 3, 3, 3), gaussian(4, 6, 1, 1)
    first[2] *= np.float32(share)
    second[:, 2] *= gain
    nodes = [
        node("Conv", ["x", "w", "b"], ["h"], "first", pads=[1] * 4),
        node("Relu", ["h"], ["r"], "relu"),
        node("Conv", ["r", "v"], ["y"], "second"),
    ]
    weights = {"w": first, "b": np.zeros(6, np.float32), "v": second}
    model = make_model(nodes, weights)
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    for size in (1, 3, 8, 8):
        model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = size
    samples = [{"x": gaussian(1, 3, 8, 8, seed=seed)} for seed in range(4)]
    return trial_on(model, ("y",), samples, samples, DEFAULT_TARGET.name, folder)


def figures_of(folder, **choices):
    done = trial(folder, **choices)
    return faint_channels(done.network, done.samples, done.reference)


def test_channels_that_nobody_misses_are_found_and_said(tmp_path):
    figures = figures_of(tmp_path)
    # The second layer has ordinary channels alone.
    assert figures.channels == {"first": (2,)}
    assert figures.are_dead
    (finding,) = of_run(figures)
    assert finding.kind == "faint channels"


def test_a_channel_that_the_next_layer_blows_up_is_alive(tmp_path):
    figures = figures_of(tmp_path, gain=1 / FAINT)
    assert figures.channels == {"first": (2,)}
    assert figures.output_sqnr_db < 20
    assert not figures.are_dead
    assert of_run(figures) == []


def test_ordinary_layers_have_no_candidates(tmp_path):
    assert figures_of(tmp_path, share=1.0) is None


def test_what_is_dead_by_its_weights_alone_is_no_candidate(tmp_path):
    assert figures_of(tmp_path, share=1e-9) is None
