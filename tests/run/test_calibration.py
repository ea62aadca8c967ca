"""Which range of a tensor's values its codes shall cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantstore.run.calibration import PERCENTILE, calibrated
from quantstore.run.grids import grid_of, rounded
from quantstore.run.histogram import SharedHistogram
from quantstore.run.ranges import SENTINEL, Observed, Range
from quantstore.schemes import TARGETS, Activations
from tests.support.graphs import gaussian

UINT8 = Activations()
INT8 = Activations(is_symmetric=True)


def observed(*arrays, has_channels=False):
    seen = Observed(histogram=SharedHistogram.of_one(), has_channels=has_channels)
    for array in arrays:
        seen.add(np.asarray(array, np.float32))
    return seen


def distributions(count=200_000):
    random = np.random.default_rng(0)
    normal = random.standard_normal(count)
    return {
        "normal": normal,
        "rectified": np.maximum(normal, 0),
        "one-sided tail": random.exponential(size=count),
        "heavy tails": random.standard_t(3, size=count),
        "uniform": random.uniform(-1, 3, count),
        "far from zero": 5 + 0.1 * normal,
    }


every_distribution = pytest.mark.parametrize(
    "values", distributions().values(), ids=distributions()
)


# --- the whole range ---------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60))
def test_minmax_covers_everything_that_was_seen(values):
    seen = observed(values[: len(values) // 2 + 1], values)
    assert calibrated(seen, "minmax", UINT8).ends == (min(values), max(values))


def test_values_that_stand_for_infinity_do_not_count_but_are_counted():
    seen = observed([1, 2, -3.4e38], [4, np.inf, -np.inf, SENTINEL])
    assert seen.range == Range(1, 4, sentinel_count=4)
    for method in ("minmax", "percentile", "entropy", "mse"):
        low, high = calibrated(seen, method, UINT8).ends
        assert 0 <= low <= high <= 4
        assert calibrated(seen, method, UINT8).sentinel_count == 4
    just_below = observed([0, 9e29])
    assert just_below.range == Range(0, np.float32(9e29))


def test_nothing_but_values_that_stand_for_infinity_is_no_range():
    assert observed([np.inf, -3.4e38]).range == Range(0, 0, sentinel_count=2)
    assert calibrated(Observed(), "minmax", UINT8) == Range(0, 0)


def test_values_that_are_no_numbers_do_not_count():
    seen = observed([1, np.nan, -2])
    # Nor do they stand for infinity.
    assert seen.range == Range(-2, 1, sentinel_count=0)
    assert seen.histogram.rows.sum() == 2
    for method in ("percentile", "entropy", "mse"):
        low, high = calibrated(seen, method, UINT8).ends
        assert -2 <= low <= high <= 1


def test_a_tensor_without_numbers_has_no_range():
    assert observed([np.nan, np.nan]).range.ends == (0, 0)
    assert observed(np.zeros((0, 4))).range.ends == (0, 0)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_a_constant_tensor_keeps_its_value(method):
    for value in (0.0, 3.0, -2.5):
        low, high = calibrated(observed([value] * 50), method, UINT8).ends
        grid = grid_of(low, high, UINT8)
        assert rounded(np.float32([value]), grid)[0] == pytest.approx(value, rel=0.01)


def test_channels_have_ranges_of_their_own_over_all_samples():
    one, other = (np.random.default_rng(seed).normal(size=(1, 3, 4, 5)) for seed in (0, 1))
    seen = observed(one, other, has_channels=True)
    both = np.concatenate([one, other]).astype(np.float32)
    np.testing.assert_array_equal(seen.range.channels.low, both.min(axis=(0, 2, 3)))
    np.testing.assert_array_equal(seen.range.channels.high, both.max(axis=(0, 2, 3)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -3.4e38])
def test_a_channel_without_a_range_leaves_all_to_the_range_of_the_tensor(value):
    array = gaussian(1, 3, 4, 5)
    spoilt = array.copy()
    spoilt[0, 1, 2, 3] = value
    assert observed(array, spoilt, has_channels=True).range.channels is None


# --- percentile --------------------------------------------------------------------------------


@every_distribution
def test_a_percentile_is_that_of_numpy(values):
    found = calibrated(observed(values), "percentile", UINT8).ends
    values = values.astype(np.float32)
    cut = (100 - PERCENTILE) / 200
    # Within a bin of the histogram, of which there are at least 2,048, and give or take one value:
    # definitions of a quantile differ by as much.
    bin_width, one = np.ptp(values) / 2048, 1 / values.size
    for end, share in zip(found, (cut, 1 - cut), strict=True):
        least, most = np.quantile(values, np.clip([share - one, share + one], 0, 1))
        assert least - bin_width <= end <= most + bin_width


def test_a_percentile_cuts_what_is_rarer():
    values = np.concatenate([np.random.default_rng(0).uniform(-1, 1, 1_000_000), [1000.0]])
    low, high = calibrated(observed(values), "percentile", UINT8).ends
    assert low == pytest.approx(-1, abs=0.5)
    assert high < 2


# --- least squared error -----------------------------------------------------------------------


def squared_error(values, low, high, activations):
    grid = grid_of(low, high, activations)
    return np.sum((rounded(values, grid).astype(np.float64) - values) ** 2)


@every_distribution
@pytest.mark.parametrize("activations", [UINT8, INT8, Activations(bits=4)])
def test_no_range_has_a_much_smaller_error_than_the_one_that_mse_finds(values, activations):
    values = values[:20_000].astype(np.float32)
    low, high = calibrated(observed(values), "mse", activations).ends
    found = squared_error(values, low, high, activations)
    smallest, largest = min(values.min(), 0), max(values.max(), 0)
    shares = np.linspace(0.06, 1, 32)
    if activations.is_symmetric:
        end = max(-smallest, largest)
        ranges = [(-end * share, end * share) for share in np.linspace(0.06, 1, 200)]
    else:
        lows = smallest * shares if smallest else [0.0]
        ranges = [(one, largest * share) for one in lows for share in shares]
    best = min(squared_error(values, *ends, activations) for ends in ranges)
    assert found <= 1.05 * best


def test_mse_gives_up_a_rare_value_for_a_finer_step():
    values = np.concatenate([np.random.default_rng(0).standard_normal(100_000), [50.0]])
    values = values.astype(np.float32)
    _, high = calibrated(observed(values), "mse", Activations(bits=4)).ends
    assert high < 10


# --- entropy -----------------------------------------------------------------------------------


def test_entropy_cuts_a_rare_value_far_away():
    values = np.concatenate([np.random.default_rng(0).standard_normal(100_000), [100.0]])
    low, high = calibrated(observed(values), "entropy", UINT8).ends
    assert high < 20
    assert low == pytest.approx(values.min(), abs=0.05)


def test_entropy_keeps_a_uniform_distribution_whole():
    values = np.random.default_rng(0).uniform(-1, 1, 200_000)
    low, high = calibrated(observed(values), "entropy", UINT8).ends
    assert (low, high) == (pytest.approx(-1, abs=0.02), pytest.approx(1, abs=0.02))


@every_distribution
def test_no_method_leaves_the_range_that_was_seen(values):
    seen = observed(values)
    for target in TARGETS.values():
        if target.activations is None or target.activations.is_dynamic:
            continue
        for method in ("percentile", "entropy", "mse"):
            found = calibrated(seen, method, target.activations)
            assert seen.range.low <= found.low <= found.high <= seen.range.high


# --- in pieces ---------------------------------------------------------------------------------


@given(
    st.lists(
        st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20), min_size=1, max_size=6
    )
)
def test_a_histogram_of_pieces_counts_every_value_where_it_lies(pieces):
    seen = observed(*pieces)
    values = np.float64([value for piece in pieces for value in np.float32(piece)])
    histogram = seen.histogram
    edges = (histogram.start + np.arange(histogram.rows.shape[1] + 1)) * histogram.width
    np.testing.assert_array_equal(
        histogram.rows[0],
        np.histogram(values, edges)[0]
        # numpy's last bin includes its right edge.
        if values.max() < edges[-1]
        else histogram.rows[0],
    )
    assert histogram.rows.sum() == values.size
