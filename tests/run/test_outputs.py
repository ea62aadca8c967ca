"""What each output keeps, which of them decide, and what the decoder behind the heads costs."""

import math

import numpy as np
import pytest

from quantstore.run import probe
from quantstore.run.choices import Choices, Simulation
from quantstore.run.outputs import (
    FEWEST_DECISIONS,
    VARYING_MARGIN_DB,
    deciding_sqnr_db,
    figure_db,
    judged,
    least_db,
    sqnr_db,
    varying_sqnr_db,
)
from quantstore.run.plan import Probed
from quantstore.run.points import Part
from quantstore.run.probe_figures import Figure, figures
from quantstore.run.simulate import simulate
from quantstore.schemes import DEFAULT_TARGET, TARGETS
from tests.support.graphs import float_value, gaussian, make_model, node, save

AT_RISK_DB = 20
SIDE = 32
CELLS = (SIDE // 4) ** 2


def filters(*shape, gain=1.4, seed=0):
    return gaussian(*shape, seed=seed) * np.float32(gain / math.sqrt(np.prod(shape[1:])))


def saved(nodes, weights, path, *, outputs=("y",), opset=17):
    model = make_model(nodes, weights, outputs=outputs, opset=opset)
    model.graph.input[0].CopyFrom(float_value("x", [1, 3, SIDE, SIDE]))
    return save(model, path)


def backbone():
    nodes = [
        node("Conv", ["x", "w0"], ["a"], "stem", strides=[2, 2], pads=[1] * 4),
        node("Relu", ["a"], ["b"], "relu0"),
        node("Conv", ["b", "w1"], ["c"], "body", strides=[2, 2], pads=[1] * 4),
        node("Relu", ["c"], ["f"], "relu1"),
    ]
    return nodes, {"w0": filters(12, 3, 3, 3), "w1": filters(16, 12, 3, 3)}


def boxes_in_pixels():
    """A head of four coordinates and the constants that turn them into pixels from 0 to 600."""
    nodes = [
        node("Conv", ["f", "wb"], ["offsets"], "box_head"),
        node("Reshape", ["offsets", "four"], ["rows"], "box_rows"),
        node("Mul", ["rows", "stride"], ["scaled"], "box_scale"),
        node("Add", ["scaled", "middle"], ["pixels"], "box_move"),
    ]
    weights = {
        "wb": filters(4, 16, 1, 1),
        "four": np.array([1, 4, CELLS]),
        "stride": np.array(120, np.float32),
        "middle": np.array(300, np.float32),
    }
    return nodes, weights


def scores(name, classes, bias=0.0):
    nodes = [
        node("Conv", ["f", f"w_{name}", f"b_{name}"], [f"{name}_map"], f"{name}_head"),
        node("Reshape", [f"{name}_map", f"{name}_shape"], [f"{name}_rows"], f"{name}_reshape"),
        node("Sigmoid", [f"{name}_rows"], [name], f"{name}_sigmoid"),
    ]
    weights = {
        f"w_{name}": filters(classes, 16, 1, 1, gain=2, seed=len(name)),
        f"b_{name}": np.full(classes, bias, np.float32),
        f"{name}_shape": np.array([1, classes, CELLS]),
    }
    return nodes, weights


def detector(path, *, has_objectness=False, joins=True):
    """Boxes in pixels and scores from 0 to 1, joined by one Concat into the output."""
    parts = [backbone(), boxes_in_pixels(), scores("class", 10, -1.0)]
    score = "class"
    if has_objectness:
        product = node("Mul", ["class", "object"], ["score"], "product")
        parts += [scores("object", 1), ([product], {})]
        score = "score"
    nodes = [each for some, _ in parts for each in some]
    weights = {name: array for _, some in parts for name, array in some.items()}
    if not joins:
        nodes += [node("Identity", ["pixels"], ["y"]), node("Identity", [score], ["z"])]
        return saved(nodes, weights, path, outputs=("y", "z"))
    nodes.append(node("Concat", ["pixels", score], ["y"], "join", axis=1))
    return saved(nodes, weights, path)


def uneven(channels, seed=1):
    """Depthwise filters whose gains differ a thousandfold, and what undoes it."""
    random = np.random.default_rng(seed)
    gains = np.exp2(random.uniform(-9, 1, (channels, 1, 1, 1))).astype(np.float32)
    depthwise = filters(channels, 1, 3, 3) * gains
    depthwise[3] *= 20
    return depthwise, 1 / np.abs(depthwise).max((1, 2, 3)).reshape(1, channels, 1, 1)


def anchored_regression(path):
    """Anchors up to 600 are added to offsets of less than one."""
    nodes = [
        node("Conv", ["x", "w0"], ["a"], "stem", pads=[1] * 4),
        node("Relu", ["a"], ["b"], "relu0"),
        node("Conv", ["b", "wh"], ["offset"], "head"),
        node("Add", ["offset", "anchors"], ["y"], "anchoring"),
    ]
    weights = {
        "w0": filters(16, 3, 3, 3),
        "wh": filters(4, 16, 1, 1, gain=0.1),
        "anchors": np.tile(np.linspace(10, 600, SIDE, dtype=np.float32), (1, 4, SIDE, 1)),
    }
    return saved(nodes, weights, path)


def two_good_heads_and_a_lost_one(path):
    depthwise, undone = uneven(16)
    nodes = [
        node("Conv", ["x", "w0"], ["a"], "stem", pads=[1] * 4),
        node("Relu", ["a"], ["f"], "relu0"),
        node("Conv", ["f", "wb"], ["boxes"], "box_head"),
        node("Conv", ["f", "wl"], ["landmarks"], "landmark_head"),
        node("Conv", ["f", "wd"], ["d"], "depthwise", pads=[1] * 4, group=16),
        node("Conv", ["d", "wc"], ["s"], "class_head"),
        node("Sigmoid", ["s"], ["scores"], "sigmoid"),
    ]
    weights = {
        "w0": filters(16, 3, 3, 3),
        "wb": filters(4, 16, 1, 1),
        "wl": filters(10, 16, 1, 1),
        "wd": depthwise,
        "wc": filters(6, 16, 1, 1) * undone,
    }
    return saved(nodes, weights, path, outputs=("boxes", "landmarks", "scores"))


def probed(path, target=DEFAULT_TARGET):
    """The figure of a target, and the findings made on the way."""
    _, *rest = figures(path, [Probed.of(target)])
    (figure,) = [each for each in rest if isinstance(each, Figure)]
    return figure, [each for each in rest if getattr(each, "kind", "") == "decoder"]


# --- what an output keeps ----------------------------------------------------------------------


def test_tensors_of_a_part_count_as_one():
    y = [[np.array([3.0, 4.0]), np.array([5.0])]]
    changed = [[np.array([3.0, 4.0]), np.array([5.5])]]
    assert sqnr_db(y, changed) == pytest.approx(10 * math.log10(50 / 0.25))


def test_what_varies_is_what_differs_from_the_mean_over_the_samples():
    y = [[np.array([100.0, 1.0])], [np.array([100.0, -1.0])]]
    changed = [[np.array([101.0, 1.1])], [np.array([101.0, -1.1])]]
    # The first element never moves, and neither does its error.
    assert varying_sqnr_db(y, changed) == pytest.approx(20)
    assert sqnr_db(y, changed) == pytest.approx(10 * math.log10(10001 / 1.01))


def test_one_sample_says_nothing_of_what_varies():
    one = [[np.ones(3)]]
    assert math.isnan(varying_sqnr_db(one, one))


def test_on_real_inputs_an_output_that_no_longer_varies_is_broken():
    plain = Part("y", "", ("y",), "the output")
    assert figure_db(plain, 50, 0, is_real=True) < 10
    assert figure_db(plain, 50, -14, is_real=True) == -14 + VARYING_MARGIN_DB
    assert figure_db(plain, 30, 25, is_real=True) == 30
    # Noise images are alike; how little outputs vary there says nothing of real ones.
    assert figure_db(plain, 30, 2, is_real=False) == 30
    assert figure_db(plain, 30, math.nan, is_real=True) == 30


def test_a_box_is_held_against_its_size_which_constants_hold():
    box = Part("y", "", ("h",), "h, before constants are applied", is_decoded=True)
    assert figure_db(box, 19.5, 16, is_real=True) == 16 + VARYING_MARGIN_DB
    assert figure_db(box, 8, -14, is_real=True) == -14 + VARYING_MARGIN_DB


@pytest.mark.parametrize(
    ("f1", "count", "size", "least"),
    [
        (0.97, 500, 100_000, 20),
        (0.92, 500, 100_000, 15),
        (0.76, 500, 100_000, 10),
        (0.6, 500, 100_000, -math.inf),
        (0.97, FEWEST_DECISIONS - 1, 100_000, -math.inf),
        (0.97, 500, 1_000, -math.inf),
    ],
    ids=["19 in 20", "9 in 10", "3 in 4", "fewer", "too few to tell", "nearly all"],
)
def test_many_rare_decisions_that_stay_are_evidence_of_their_own(f1, count, size, least):
    assert least_db(f1, count, size) == least


def test_the_worst_output_decides_but_for_states_and_what_never_moves():
    parts = [
        Part("good", "", ("a",), "the output"),
        Part("bad", "", ("b",), "the output"),
        Part("state", "", ("c",), "the output", is_state=True),
        Part("still", "", ("d",), "the output"),
    ]
    y = [gaussian(4, 8, seed=seed) for seed in (1, 2)]
    expected = [[*sample[:3], np.ones(8, np.float32)] for sample in y]
    noisy = (0.001, 0.1, 10, 10)
    actual = [
        [tensor * np.float32(1 + share) for tensor, share in zip(sample, noisy, strict=True)]
        for sample in expected
    ]
    rows = judged(parts, "abcd", expected, actual, is_real=True)
    assert [each.record.decides for each in rows] == [True, True, False, False]
    assert deciding_sqnr_db(rows) == pytest.approx(20, abs=0.01)


# --- four detectors whose loss one figure hides ------------------------------------------------


@pytest.mark.parametrize("has_objectness", [False, True], ids=["class", "objectness x class"])
def test_scores_joined_with_pixels_are_lost_though_the_heads_are_fine(tmp_path, has_objectness):
    figure, findings = probed(detector(tmp_path / "d.onnx", has_objectness=has_objectness))
    assert figure.output_sqnr_db > 30
    assert figure.tail_sqnr_db < 10
    assert figure.deciding_sqnr_db == figure.tail_sqnr_db
    assert [(row.output, row.part) for row in figure.outputs] == [("y", "values"), ("y", "Sigmoid")]
    (finding,) = findings
    assert "--exclude join)" in finding.remedy


def test_separate_outputs_lose_nothing_in_the_decoder(tmp_path):
    figure, findings = probed(detector(tmp_path / "d.onnx", joins=False))
    assert figure.deciding_sqnr_db > 30
    assert figure.tail_sqnr_db > 30
    assert not findings


def test_a_target_that_leaves_the_join_in_float_keeps_the_scores(tmp_path):
    figure, _ = probed(detector(tmp_path / "d.onnx"), TARGETS["int8_channel_fused"])
    assert figure.deciding_sqnr_db > 30


def test_a_constant_at_the_output_does_not_carry_a_regression(tmp_path):
    figure, findings = probed(anchored_regression(tmp_path / "r.onnx"))
    assert figure.outputs[0].point == "offset, before constants are applied"
    assert figure.output_sqnr_db > 25
    assert figure.deciding_sqnr_db < 10
    (finding,) = findings
    assert "--exclude anchoring)" in finding.remedy


def test_one_lost_output_of_three_is_what_a_verdict_rests_on(tmp_path):
    figure, _ = probed(two_good_heads_and_a_lost_one(tmp_path / "t.onnx"))
    assert figure.output_sqnr_db > 25
    by_output = {row.output: row.sqnr_db for row in figure.outputs}
    assert figure.deciding_sqnr_db == pytest.approx(by_output["scores"])
    assert figure.deciding_sqnr_db < AT_RISK_DB


# --- on the way to the store -------------------------------------------------------------------


@pytest.mark.slow
def test_the_probe_brings_the_rows_back_from_its_process(tmp_path):
    asked = [Probed.of(DEFAULT_TARGET)]
    path = detector(tmp_path / "d.onnx")
    (record,) = probe.probe(path, asked=asked)
    assert record.failure is None
    assert [row.part for row in record.outputs] == ["values", "Sigmoid"]
    assert record.tail_sqnr_db == record.deciding_sqnr_db < 10


def test_a_run_counts_decisions_and_names_what_to_leave_out(tmp_path):
    path = detector(tmp_path / "d.onnx")
    np.savez(tmp_path / "x.npz", x=gaussian(8, 3, SIDE, SIDE))
    choices = Choices(target="int8_channel", drift=False)
    found = simulate(path, str(tmp_path / "x.npz"), choices)
    again = Simulation.from_json(found.to_json())
    assert again.to_json() == found.to_json()
    values, classes = again.record.outputs
    assert values.decisions is None
    assert classes.decisions > 100
    assert classes.decision_f1 > 0.9
    assert again.record.tail_sqnr_db < 10
    (note,) = [each for each in found.notes if "--exclude join" in each]
    assert "0% of the scores" in note


def test_what_the_remedy_names_can_be_excluded(tmp_path):
    path = detector(tmp_path / "d.onnx")
    np.savez(tmp_path / "x.npz", x=gaussian(8, 3, SIDE, SIDE))
    choices = Choices(target="int8_channel", drift=False, exclude=("join",))
    found = simulate(path, str(tmp_path / "x.npz"), choices)
    assert found.record.deciding_sqnr_db > 25
    assert not any("--exclude" in note for note in found.notes)
