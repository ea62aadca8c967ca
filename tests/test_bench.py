"""The bench's own parts: models it generates, contenders in turns, memory, goals."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path.insert(0, str(BENCH))
import memory  # noqa: E402
import models  # noqa: E402
import probe  # noqa: E402
import published  # noqa: E402
import rows  # noqa: E402
import same_figures  # noqa: E402
import timing  # noqa: E402


@pytest.mark.parametrize(
    ("old", "new", "in_db", "phrase"),
    [
        ([1.0, np.nan, np.inf], [1.0, np.nan, np.inf], False, ""),
        ([10.0, 40.0], [10.5, 40.0], True, "0.5 dB"),
        ([10.0, 0.0], [8.0, 0.0], False, "0.2 of the value"),
        ([10.0, 20.0], [10.0], False, "2 numbers became 1"),
        ([10.0, 20.0], [np.inf, np.nan], True, "2 of 2 became infinite, absent or finite"),
    ],
)
def test_stores_differ_by_their_largest_difference(old, new, in_db, phrase):
    arrays = (np.array(numbers) for numbers in (old, new))
    assert same_figures.largest_difference(*arrays, in_db=in_db) == phrase


def test_lists_of_a_column_count_number_by_number():
    np.testing.assert_array_equal(same_figures.flat(([1.0, None], 2.0)), [1, np.nan, 2])


def test_mobilenetv2_like_has_the_layers_and_weights_of_mobilenetv2(tmp_path):
    path = tmp_path / "model.onnx"
    weight_count = models.mobilenetv2_like(path)
    onnx.checker.check_model(path, full_check=True)
    ops = [node.op_type for node in onnx.load(path).graph.node]
    assert (ops.count("Conv"), ops.count("Gemm"), ops.count("Clip")) == (52, 1, 35)
    assert weight_count == 3_469_760


@pytest.mark.parametrize("op_type", ["MatMul", "Gemm"])
def test_external_like_keeps_its_weights_beside_a_valid_model(tmp_path, op_type):
    path = tmp_path / "model.onnx"
    assert models.external_like(path, 3, 64, 32, op_type) == 3 * 64 * 32
    assert path.stat().st_size < 2_000
    assert path.with_suffix(".data").stat().st_size == 3 * 64 * 32 * 4
    onnx.checker.check_model(path, full_check=True)


def test_a_band_is_too_good_where_the_real_value_misses_it_by_more_than_a_decibel():
    found = pd.DataFrame({"probe": [20.2, 20.2, 9.0, 31.0], "real": [18.9, 19.1, 12.0, 30.5]})
    right, flatters = probe.banded(found)
    assert right.tolist() == [False, False, False, True]
    assert flatters.tolist() == [True, False, False, False]
    right, flatters = probe.banded(found, margin=1.0)
    assert right.tolist() == [True, True, False, True]
    assert not flatters.any()


def test_each_sample_is_compared_once_and_never_calibrated_on_at_the_same_time():
    samples = [{"x": index} for index in range(10)]
    compared = []
    for part in range(probe.PARTS):
        calibration, test = probe._fold(samples, part)
        assert not [sample for sample in test if sample in calibration]
        assert len(calibration) + len(test) == 10
        compared += test
    assert sorted(sample["x"] for sample in compared) == list(range(10))


def test_contenders_run_in_turns_and_the_order_turns_round():
    order = []

    def contender(name):
        def run():
            order.append(name)
            return timing.Run(seconds=1, cpu_seconds=1, command_seconds=1)

        return run

    found = timing.in_turns({"a": contender("a"), "b": contender("b")}, rounds=2)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert [len(runs) for runs in found.values()] == [2, 2]


def test_a_peer_that_is_not_installed_is_reported():
    def needs_nothing_that_exists():
        import no_such_package  # noqa: F401

    assert timing._answer(needs_nothing_that_exists, []) == {
        "unavailable": "not installed (no_such_package)"
    }


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_peak_memory_counts_the_children_of_a_process():
    child = "import time; block = bytearray(80_000_000); time.sleep(0.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    peak = memory.peak_memory([sys.executable, "-c", parent])
    assert 80e6 < peak.tree_pss < 130e6


def test_a_goal_is_met_by_the_medians():
    def row(ours, theirs, goal):
        return rows.Row(
            what="w", model="m", unit="s", ours=ours, peer="p", theirs=theirs, goal=goal
        )

    fast, slow = timing.Spread((1.0, 1.1, 9.0)), timing.Spread((2.0, 2.2, 2.4))
    assert row(fast, slow, rows.Goal(2.0)).is_met is True
    assert row(fast, slow, rows.Goal(2.0, at_most=1.0)).is_met is False
    assert row(fast, "not installed (x)", rows.Goal(2.0)).is_met is None
    assert row("failed: x", slow, rows.Goal(2.0)).is_met is False


def looked(monkeypatch, *counts):
    """A reader of the bench of published folders that sees these, one after the other."""
    whole = {"model-0001": {"layers": 3}, "model-0002": {"layers": 5}}
    reader = published.Reader(Path(), whole, through_views=False)
    for seen in counts:
        monkeypatch.setattr(reader, "_count", lambda seen=seen: seen)
        reader.look()
    return reader


def test_a_reader_counts_what_is_whole(monkeypatch):
    # Copies of the same measured model have equally many rows.
    seen = {"model-0001": {"layers": 3}, "model-0006": {"layers": 5}}
    reader = looked(monkeypatch, {}, seen, seen)
    assert (reader.looks, reader.seen) == (3, set(seen))


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (({"model-0001": {"layers": 3}}, {}), "1 models are gone, such as model-0001"),
        (({"model-0001": {"layers": 2}},), "model-0001 is not whole"),
        (({"model-0001": {"layers": 6}},), "model-0001 is not whole"),
        (({"model-0001": {}},), "model-0001 is not whole"),
    ],
)
def test_a_reader_fails_where_a_model_goes_away_or_is_not_whole(monkeypatch, counts, words):
    with pytest.raises(AssertionError, match=words):
        looked(monkeypatch, *counts)


@pytest.mark.parametrize("rows", [[("x", "layers", 3)] * 2, [(None, "layers", 1)]])
def test_a_model_that_is_there_twice_and_rows_of_no_model_are_failures(rows):
    with pytest.raises(AssertionError):
        published.count_rows(lambda _: rows)
