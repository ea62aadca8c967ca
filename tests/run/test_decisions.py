"""How often two networks decide alike: sets of scores above a limit, or the largest of a row."""

import math

import numpy as np
import pytest

from quantstore.run.outputs import decided
from quantstore.run.points import SCORE_LIMIT, Part

LOGIT = math.log(SCORE_LIMIT / (1 - SCORE_LIMIT))


def decisions(y, changed, decision, **more):
    part = Part("y", "", ("y",), "before it", decision=decision, **more)
    return decided(part, [[np.asarray(y)]], [[np.asarray(changed)]])


def test_a_sigmoid_is_above_the_limit_where_what_it_reads_is():
    assert 1 / (1 + math.exp(-LOGIT)) == pytest.approx(SCORE_LIMIT)


def test_scores_above_the_limit_are_compared_as_sets():
    # Three in float, two of them still there and one more.
    f1, count = decisions([1, 1, 1, -5, -5], [1, 1, -5, 1, -5], "set", limit=LOGIT)
    assert (f1, count) == (pytest.approx(2 * 2 / (3 + 3)), 3)


def test_where_no_score_is_above_the_limit_nothing_is_decided():
    f1, count = decisions([-5, -5], [-5, -5], "set", limit=LOGIT)
    assert math.isnan(f1)
    assert count == 0


def test_all_scores_gone_is_zero():
    assert decisions([1, -5], [-5, -5], "set", limit=LOGIT) == (0, 1)


def test_behind_a_softmax_the_largest_along_its_axis_is_the_decision():
    y, changed = [[[1, 5], [4, 2]]], [[[1, 5], [4, 9]]]
    assert decisions(y, changed, "top1", axis=-1) == (0.5, 2)
    assert decisions(y, changed, "top1", axis=1) == (0.5, 2)


def test_before_operator_set_13_a_softmax_takes_all_axes_from_its_own_on():
    y = np.zeros((2, 3, 2, 2))
    y[0, 1, 1, 1] = y[1, 2, 0, 0] = 1
    changed = y.copy()
    changed[1, 0, 0, 1] = 2
    assert decisions(y, changed, "top1", axis=1, is_flat=True) == (0.5, 2)


def test_decisions_of_all_samples_and_tensors_count_together():
    part = Part("y", "", ("a", "b"), "before it", decision="set", limit=0)
    y = [[np.ones(2), np.ones(1)], [np.ones(2), np.ones(1)]]
    changed = [[np.ones(2), -np.ones(1)], [np.ones(2), np.ones(1)]]
    assert decided(part, y, changed) == (pytest.approx(2 * 5 / (6 + 5)), 6)


def test_a_plain_output_decides_nothing_by_itself():
    f1, count = decisions([1, 2], [1, 2], "")
    assert math.isnan(f1)
    assert count == 0
