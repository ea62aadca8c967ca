"""Ratios of a rescue, held against the values of a verdict."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantstore.rescuing.judge import MOST_DOUBT_DB, db_of, gain_db, safe_db
from quantstore.rescuing.judge import _ratios as ratios_of
from quantstore.run import outputs
from quantstore.run.points import Part


def part(**changes):
    return Part(**({"output": "y", "part": "", "names": ("y",), "point": "y"} | changes))


def tensors(seed, count=5, loss=0.1):
    random = np.random.default_rng(seed)
    expected = [[random.normal(size=(4, 6)) + 3] for _ in range(count)]
    actual = [[sample[0] + loss * random.normal(size=(4, 6))] for sample in expected]
    return expected, actual


@given(
    seed=st.integers(0, 10_000),
    count=st.sampled_from([1, 3, 5]),
    decoded=st.booleans(),
    loss=st.sampled_from([1e-3, 0.1, 3.0]),
)
@settings(max_examples=60, deadline=None)
def test_the_median_ratio_is_the_value_of_a_verdict(seed, count, decoded, loss):
    expected, actual = tensors(seed, count, loss)
    judged = part(is_decoded=decoded)
    (row,) = outputs.judged([judged], ["y"], expected, actual, is_real=True)
    ratios = ratios_of(judged, [0], expected, actual)
    # With an odd number of samples a median of dB is the dB of a median; of two values the worse
    # one is taken sample by sample here, and of the medians there.
    assert db_of(ratios[:, None]) <= row.figure_db + 1e-6
    if count == 1:
        assert db_of(ratios[:, None]) == pytest.approx(row.figure_db)


def test_an_answer_that_is_no_number_has_lost_everything():
    expected, actual = tensors(0)
    actual[0][0][:] = np.nan
    ratios = ratios_of(part(), [0], expected, actual)
    assert ratios[0] == 1e30
    assert np.isfinite(ratios).all()


def test_nothing_lost_is_infinitely_good():
    expected, _ = tensors(0)
    assert db_of(ratios_of(part(), [0], expected, expected)[:, None]) == np.inf


def test_the_worst_output_counts():
    ratios = np.array([[1e-3, 1e-2], [1e-3, 1e-1], [1e-3, 1e-2]])
    assert db_of(ratios) == pytest.approx(20)


def test_a_gain_is_that_of_a_typical_sample_not_of_the_median_sample():
    before = np.array([[1e-1], [1e-2], [1e-3]])
    # Each sample gains 3 dB, whichever is the median one afterwards.
    after = before / 2
    assert gain_db(before, after) == pytest.approx(3.01, abs=0.01)
    assert gain_db(after, before) == pytest.approx(-3.01, abs=0.01)


def test_few_inputs_are_believed_less():
    alike = np.full((4, 1), 1e-2)
    assert safe_db(alike) == pytest.approx(20)
    apart = np.array([[1e-2], [1e-2], [1.2e-2], [0.8e-2]])
    assert 19 < safe_db(apart) < 20
    assert safe_db(np.repeat(apart, 100, axis=0)) > safe_db(apart)
    far_apart = np.array([[1e-4], [1e-2], [1.0]])
    assert safe_db(far_apart) == pytest.approx(20 - MOST_DOUBT_DB)
    assert safe_db(np.array([[1e-2]])) == pytest.approx(20)
