"""Spearman's rank correlation, held against scipy's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantstore.numerics.correlation import Correlation, ranks, spearman

# Few different values, so that many are equal.
pairs = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=4, max_size=40)


@pytest.fixture(scope="module")
def stats():
    """Loaded by whoever asks it: that takes a second."""
    return pytest.importorskip("scipy.stats", reason="it is the referee")


@given(pairs)
def test_it_is_the_correlation_that_scipy_computes_ties_included(stats, pairs):
    x, y = (list(map(float, side)) for side in zip(*pairs, strict=True))
    found = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found == Correlation(None, len(x))
    else:
        assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert found.n == len(x)


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=40))
def test_ranks_are_those_of_scipy_infinities_included(stats, values):
    np.testing.assert_array_equal(ranks(np.array(values)), stats.rankdata(values))


def test_equal_values_share_the_mean_of_their_ranks():
    assert ranks(np.array([5.0, 1.0, 5.0, 9.0])).tolist() == [2.5, 1, 2.5, 4]


def test_fewer_than_four_pairs_tell_nothing():
    assert spearman([1, 2, 3], [3, 2, 1]) == Correlation(None, 3)
    assert spearman([], []) == Correlation(None, 0)


def test_a_perfect_order_has_no_interval():
    assert spearman([1, 2, 3, 4], [40, 30, 20, 10]) == Correlation(-1.0, 4)


def test_the_interval_narrows_with_the_number_of_pairs():
    rng = np.random.default_rng(1)
    widths = []
    for n in (8, 30, 300):
        x = rng.normal(size=n)
        found = spearman(x, x + rng.normal(size=n))
        assert -1 < found.low < found.rho < found.high < 1
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)


def test_the_interval_holds_the_truth_in_about_95_of_100_draws():
    rng = np.random.default_rng(2)
    rho = 0.6
    # Spearman's own value for a bivariate Gaussian of this correlation.
    truth = 6 / math.pi * math.asin(rho / 2)
    inside = 0
    for _ in range(400):
        x = rng.normal(size=25)
        found = spearman(x, rho * x + math.sqrt(1 - rho**2) * rng.normal(size=25))
        inside += found.low <= truth <= found.high
    assert 0.9 <= inside / 400 <= 0.99


def test_lists_of_different_lengths_are_a_bug():
    with pytest.raises(ValueError, match="one length"):
        spearman([1, 2, 3, 4], [1, 2, 3])
