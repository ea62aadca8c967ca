"""What a distribution is here: quartiles, whiskers, outliers, moments and a histogram."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from quantstore.numerics.distribution import HISTOGRAM_BINS, describe

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=9)
# Multiples of 1/4 up to 64: ties, repeated values, and sums that float64 holds exactly.
quarters = arrays(
    np.float32, SHAPES, elements=st.integers(-256, 256).map(lambda number: number / 4)
)
any_finite = arrays(np.float32, SHAPES, elements=st.floats(-(2.0**100), 2.0**100, width=32))
any_weights = st.one_of(quarters, any_finite)

GAUSSIAN = np.random.default_rng(1).normal(size=(16, 75)).astype(np.float32)
HEAVY_TAILED = np.random.default_rng(2).standard_t(2, size=(40, 2000)).astype(np.float32)
OFFSET = np.random.default_rng(3).normal(1000, 0.01, size=(8, 100)).astype(np.float32)
CHANNELS_UNLIKE = (GAUSSIAN * np.logspace(-4, 4, 16)[:, np.newaxis] + 5).astype(np.float32)
TENSORS = {
    "gaussian": GAUSSIAN,
    "heavy-tailed": HEAVY_TAILED,
    "mean far from zero": OFFSET,
    "channels unlike one another": CHANNELS_UNLIKE,
    "longer than a block": HEAVY_TAILED.reshape(1, -1),
}
every_tensor = pytest.mark.parametrize("weights", TENSORS.values(), ids=TENSORS)


def box_plot(values):
    """Tukey's box plot, word for word, of values in float64."""
    q1, q3 = np.quantile(values, [0.25, 0.75])
    reach = 1.5 * (q3 - q1)
    inside = [value for value in values if q1 - reach <= value <= q3 + reach]
    return min(inside), max(inside), len(values) - len(inside)


# --- order statistics --------------------------------------------------------------------------


@given(any_weights)
def test_quartiles_are_numpys_linear_quantiles(weights):
    wide = weights.astype(np.float64)
    described = describe(weights)
    for share, name in (
        (0, "minimum"),
        (0.25, "q1"),
        (0.5, "median"),
        (0.75, "q3"),
        (1, "maximum"),
    ):
        np.testing.assert_allclose(
            getattr(described.channels, name), np.quantile(wide, share, axis=1), rtol=1e-12
        )
        np.testing.assert_allclose(
            getattr(described.tensor, name), [np.quantile(wide, share)], rtol=1e-12
        )


@given(quarters)
def test_whiskers_are_the_most_extreme_weights_inside_tukeys_fences(weights):
    described = describe(weights)
    for quartiles, rows in (
        (described.channels, weights.astype(np.float64)),
        (described.tensor, weights.astype(np.float64).reshape(1, -1)),
    ):
        expected = [box_plot(row) for row in rows]
        drawn = zip(
            quartiles.whisker_low, quartiles.whisker_high, quartiles.outlier_count, strict=True
        )
        assert list(drawn) == expected


def test_a_weight_on_the_fence_is_no_outlier():
    # Quartiles 1 and 3, so the fences lie at -2 and 6.
    described = describe(np.array([[-2, 1, 2, 3, 6]], dtype=np.float32))
    assert described.tensor.outlier_count.tolist() == [0]
    described = describe(np.array([[-2.25, 1, 2, 3, 6.25]], dtype=np.float32))
    assert described.tensor.outlier_count.tolist() == [2]
    assert described.tensor.whisker_low.tolist() == [1]
    assert described.tensor.whisker_high.tolist() == [3]


def test_a_channels_outliers_lie_outside_its_own_fences_and_the_tensors_outside_the_tensors():
    weights = np.array([[0, 1, 2, 3, 4], [0.1, 0.1, 0.1, 0.1, 3], [0, 1, 2, 3, 4]])
    described = describe(weights.astype(np.float32))
    assert described.channels.outlier_count.tolist() == [0, 1, 0]
    assert described.tensor.outlier_count.tolist() == [0]


def test_one_in_140_weights_of_a_gaussian_is_an_outlier():
    weights = np.random.default_rng(4).normal(size=(100, 10_000)).astype(np.float32)
    assert describe(weights).tensor.outlier_count[0] / weights.size == pytest.approx(
        0.007, abs=3e-4
    )


def test_range_and_largest_magnitude():
    described = describe(np.array([[-51.5, 165.25], [0.5, -0.5]], dtype=np.float32))
    assert described.range == 216.75
    assert described.abs_max == 165.25
    assert described.channels.range.tolist() == [216.75, 1.0]


def test_the_range_of_huge_weights_does_not_overflow():
    assert describe(np.array([[3e38, -3e38]], dtype=np.float32)).range == pytest.approx(6e38)


# --- moments -----------------------------------------------------------------------------------


@every_tensor
def test_mean_and_std_are_numpys_in_float64(weights):
    described, wide = describe(weights), weights.astype(np.float64)
    assert described.moments.mean == pytest.approx(wide.mean(), rel=1e-12)
    assert described.moments.std == pytest.approx(wide.std(), rel=1e-12)
    np.testing.assert_allclose(described.channel_mean, wide.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(described.channel_std, wide.std(axis=1), rtol=1e-12)


@every_tensor
def test_kurtosis_is_scipys(weights):
    stats = pytest.importorskip("scipy.stats", reason="it comes with scikit-learn")
    expected = stats.kurtosis(weights.astype(np.float64), axis=None, fisher=False)
    assert describe(weights).moments.kurtosis == pytest.approx(expected, rel=1e-9)


def test_the_kurtosis_of_a_gaussian_is_three():
    weights = np.random.default_rng(5).normal(7, 2, size=(100, 10_000)).astype(np.float32)
    assert describe(weights).moments.kurtosis == pytest.approx(3, abs=0.02)


@given(st.floats(-(2.0**100), 2.0**100, width=32), SHAPES)
def test_a_constant_tensor_has_no_spread_and_no_kurtosis(value, shape):
    moments = describe(np.full(shape, value, dtype=np.float32)).moments
    assert moments.mean == value
    assert moments.std == 0
    assert np.isnan(moments.kurtosis)


# --- histogram ---------------------------------------------------------------------------------


@every_tensor
def test_histogram_counts_are_numpys(weights):
    histogram = describe(weights).histogram
    counts, edges = np.histogram(weights.astype(np.float64), HISTOGRAM_BINS)
    assert (histogram.low, histogram.high) == (edges[0], edges[-1])
    np.testing.assert_array_equal(histogram.counts, counts)


@given(any_weights)
def test_every_weight_is_in_one_bin(weights):
    histogram = describe(weights).histogram
    assert histogram.counts.sum() == weights.size
    assert len(histogram.counts) == (1 if histogram.low == histogram.high else 2048)


def test_neighbouring_float32_values_still_make_a_histogram():
    low = np.float32(1000)
    histogram = describe(np.array([[low, np.nextafter(low, np.float32(2000))]])).histogram
    assert histogram.counts[[0, -1]].tolist() == [1, 1]


@pytest.mark.parametrize("value", [0.0, -0.1, 1e30])
def test_a_constant_tensor_has_a_single_bin(value):
    histogram = describe(np.full((2, 3), value, dtype=np.float32)).histogram
    assert histogram.low == histogram.high == np.float32(value)
    assert histogram.counts.tolist() == [6]


# --- channels beside one another ---------------------------------------------------------------


def with_ranges(*ranges):
    return np.array([[0, extent] for extent in ranges], dtype=np.float32)


def test_an_outlier_channel_has_a_range_above_the_fence_of_channel_ranges():
    # Quartiles 2 and 4, so the upper fence lies at 7.
    assert describe(with_ranges(1, 2, 3, 4, 7)).outlier_channel_count == 0
    assert describe(with_ranges(1, 2, 3, 4, 7.5)).outlier_channel_count == 1
    assert describe(with_ranges(0.01, 100, 100, 100, 100)).outlier_channel_count == 0


def test_channel_range_ratio_is_the_largest_range_over_the_median_one():
    assert describe(with_ranges(1, 2, 50)).channel_range_ratio == 25
    assert describe(with_ranges(1, 3, 5, 8)).channel_range_ratio == 2


def test_the_ratio_is_undefined_where_the_median_range_is_zero():
    assert np.isnan(describe(with_ranges(0, 0, 5)).channel_range_ratio)
    assert np.isnan(describe(np.ones((4, 1), dtype=np.float32)).channel_range_ratio)


# --- NaN and infinities ------------------------------------------------------------------------


def same(left, right):
    """Whether two descriptions agree to rounding, field by field."""
    for field in dataclasses.fields(left):
        mine, other = getattr(left, field.name), getattr(right, field.name)
        if dataclasses.is_dataclass(mine):
            same(mine, other)
        elif field.name not in ("weight_count", "nonfinite_count"):
            np.testing.assert_allclose(mine, other, rtol=1e-12, err_msg=field.name)


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
@every_tensor
def test_nan_and_infinities_are_counted_and_left_out(weights, missing):
    spoilt = np.insert(weights, [0, 7, 7], np.float32(missing), axis=1)
    described = describe(spoilt)
    assert described.weight_count == spoilt.size
    assert described.nonfinite_count == 3 * len(weights)
    same(described, describe(weights))


def test_a_channel_may_miss_more_weights_than_another():
    described = describe(np.array([[1, np.nan, 3], [np.inf, np.nan, 5]], dtype=np.float32))
    assert described.channel_mean.tolist() == [2, 5]
    assert described.channels.median.tolist() == [2, 5]
    assert described.channels.range.tolist() == [2, 0]
    assert described.tensor.median.tolist() == [3]
    assert described.moments.mean == 3


def test_a_channel_of_nan_alone_has_no_figures_and_does_not_disturb_the_others():
    described = describe(np.array([[np.nan, np.nan], [1, 3], [2, 6]], dtype=np.float32))
    for figure in ("minimum", "whisker_low", "q1", "median", "q3", "whisker_high", "maximum"):
        np.testing.assert_array_equal(
            np.isnan(getattr(described.channels, figure)), [True, False, False]
        )
    assert described.channels.outlier_count.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(described.channel_mean, [np.nan, 2, 4])
    assert described.channel_range_ratio == pytest.approx(4 / 3)


def test_a_tensor_of_nan_alone_has_no_histogram():
    described = describe(np.full((2, 2), np.nan, dtype=np.float32))
    assert described.nonfinite_count == 4
    assert described.histogram is None
    assert np.isnan([described.range, described.abs_max, described.moments.mean]).all()


def test_zeros_of_either_sign_are_counted():
    described = describe(np.array([[0.0, -0.0, 1e-45, np.nan]], dtype=np.float32))
    assert described.zero_count == 2
