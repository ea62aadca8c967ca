"""The fast form of every figure, held to the plain one in ``quantization``."""

import os
import subprocess
import sys
from fractions import Fraction
from functools import cache

import ml_dtypes
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from quantstore.numerics.distribution import describe, sorted_weights
from quantstore.numerics.quantization import (
    float8_rounding,
    grid_for,
    measure_error,
    round_trip,
    sqnr_db,
    summarize_channels,
)
from quantstore.numerics.sorted_weights import (
    FEW_WEIGHTS,
    MANY_WEIGHTS,
    THRESHOLDS,
    clipping_curves,
)
from quantstore.numerics.sweep import (
    CHANNEL_THRESHOLDS,
    FINE_DB,
    NOISE_MARGIN_DB,
    are_distinct,
    predicted_p10_db,
    sweep,
)
from quantstore.pipeline.files import demo_paths
from quantstore.schemes import BLOCK_SIZE, INT8_SCHEMES, SCHEMES, Scheme
from tests.support.graphs import layers_of
from tests.support.referees import feeds, onnxruntime_session

MINMAX = [scheme for scheme in SCHEMES.values() if scheme.clip == "minmax"]
CLIPPED = [scheme for scheme in SCHEMES.values() if scheme.clip == "mse"]

# What evaluating x' - x in another order may change in float32, as a share of x.
FLOAT32_STEP = 2.0**-22
LARGEST = float(np.finfo(np.float32).max)
TINY = float(np.finfo(np.float32).tiny)


def swept(weights):
    ordered = sorted_weights(weights)
    return sweep(weights, ordered, describe(weights, ordered).channel_energy)


def plain_errors(weights, schemes, cuts=None):
    """Energy and squared error of each channel on each grid, by the reference and nothing besides.

    Most of what ``measure_error`` finds out of a hundred thresholds nobody asks for.

    Returns:
        ``(channels,)``, and ``(schemes, channels)``.
    """
    original = np.where(np.isfinite(weights), weights, np.float32(0))
    wide = original.astype(np.float64)
    squares = [
        np.sum((round_trip(original, scheme, cut) - wide) ** 2, axis=1)
        for scheme, cut in zip(schemes, cuts or [None] * len(schemes), strict=True)
    ]
    return np.sum(wide**2, axis=1), np.array(squares)


def plain_summaries(weights, schemes, cuts=None):
    """What the channels' SQNR comes to on each grid, by the reference."""
    energy, squares = plain_errors(weights, schemes, cuts)
    rows = np.where(energy > 0, sqnr_db(energy, squares), np.nan)
    return [summarize_channels(row, dead_in(weights)) for row in rows]


def dead_in(weights):
    """Channels that carry nothing, one after the other."""
    largest = [abs_max_of(row) for row in weights]
    return np.array([one < 1e-6 * max(largest) or one / 127 < TINY for one in largest])


def abs_max_of(weights):
    return float(np.abs(weights[np.isfinite(weights)]).max(initial=0))


# --- what is compared --------------------------------------------------------------------------


def assert_same_error(found, expected, weights, note):
    """Squared errors agree to 1e-4; nearer to exactness, to what float32 knows of ``x' - x``."""
    np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-9, err_msg=note)
    # The errors themselves differ by no more than a float32's last bits, so do their lengths.
    allowed = 4e-5 * np.sqrt(expected.squared_error) + FLOAT32_STEP * np.sqrt(expected.energy)
    distance = np.abs(np.sqrt(found.squared_error) - np.sqrt(expected.squared_error))
    assert np.all(distance <= allowed), note
    exact = (found.squared_error == 0, expected.squared_error == 0)
    assert np.array_equal(*exact), note
    assert np.array_equal(found.nonzero_count, expected.nonzero_count), note
    assert found.zeroed_count.sum() == expected.zeroed_count.sum(), note
    if note in INT8_SCHEMES:
        assert np.array_equal(found.zeroed_count, expected.zeroed_count), note
    assert found.weight_count == expected.weight_count, note
    assert found.levels_used == expected.levels_used, note
    assert found.max_abs_error == pytest.approx(
        expected.max_abs_error, rel=1e-4, abs=FLOAT32_STEP * abs_max_of(weights), nan_ok=True
    ), note


def is_same_error(found, expected, weights):
    try:
        assert_same_error(found, expected, weights, "")
    except AssertionError:
        return False
    return True


def assert_same_db(found, expected, tolerance, note):
    """SQNR agrees; what is as good as exact need only be so in both."""
    known = np.isfinite(expected) & (np.asarray(expected) < 80)
    np.testing.assert_allclose(
        np.asarray(found)[known], np.asarray(expected)[known], atol=tolerance, err_msg=note
    )
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected), err_msg=note)
    assert np.all(np.asarray(found)[np.asarray(expected) >= 80] > 79), note


def check_errors(weights, found):
    errors = found.errors
    for scheme in MINMAX:
        expected = measure_error(weights, scheme)
        assert_same_error(errors[scheme.name], expected, weights, scheme.name)
    for name, summary in found.summaries.items():
        expected = summarize_channels(errors[name].channel_sqnr_db, dead_in(weights))
        assert repr(summary) == repr(expected), name


def curves_of(found, measure):
    return {curve.bits: curve for curve in found.clipping if curve.measure == measure}


def check_clipping(weights, found):
    """Best thresholds by trying all of them, and every point of every curve."""
    abs_max = abs_max_of(weights)
    curves = curves_of(found, "tensor")
    if abs_max == 0:
        assert found.clipping == ()
        for scheme in CLIPPED:
            expected = measure_error(weights, scheme)
            assert_same_error(found.errors[scheme.name], expected, weights, scheme.name)
        return
    assert sorted(curves) == [4, 8]
    cuts = [float(cut) for cut in THRESHOLDS * abs_max]
    for scheme in CLIPPED:
        energy, tried = plain_errors(weights, [scheme] * len(cuts), cuts)
        squares = tried.sum(axis=1)
        own = found.errors[scheme.name]
        noise = FLOAT32_STEP * np.sqrt(own.energy.sum())
        # 1e-4 of the squared error is half of that of its root.
        sought = squares
        if not scheme.is_symmetric and weights.size > FEW_WEIGHTS:
            # Sought among every fourth threshold first: only what lies next to their best is sure.
            sought = np.append(squares[::4], squares[-1])
        limit = (np.sqrt(sought.min()) * (1 + 5e-5) + noise) ** 2
        if abs_max > LARGEST / 4:
            # The definition brings levels beyond the largest float32 back to it, the sums do not.
            limit = np.inf
        assert own.squared_error.sum() <= limit, f"{scheme.name}: not the least error"
        near = np.flatnonzero(squares <= limit)
        near = near[np.argsort(squares[near])]
        if scheme.is_symmetric:
            curve = curves[scheme.bits]
            assert np.array_equal(curve.thresholds, THRESHOLDS)
            # The figures are those at the threshold that is kept.
            near = np.flatnonzero(curve.best_threshold == THRESHOLDS)[:1]
            assert_same_db(curve.sqnr_db, sqnr_db(energy.sum(), squares), 0.01, scheme.name)
        assert any(
            is_same_error(own, measure_error(weights, scheme, cuts[place]), weights)
            for place in near
        ), scheme.name


def check_channel_clipping(weights, found):
    p10 = found.summaries["int8_tensor_symmetric"].p10_db
    curves = {curve.measure: curve for curve in found.clipping if curve.measure != "tensor"}
    if not p10 < FINE_DB:
        assert curves == {}
        return
    assert sorted(curves) == ["channel_median", "channel_p10"]
    scheme = SCHEMES["int8_tensor_symmetric_mse"]
    cuts = [float(cut) for cut in CHANNEL_THRESHOLDS * abs_max_of(weights)]
    summaries = plain_summaries(weights, [scheme] * len(cuts), cuts)
    for measure, expected in (
        ("channel_p10", [summary.p10_db for summary in summaries]),
        ("channel_median", [summary.median_db for summary in summaries]),
    ):
        curve = curves[measure]
        assert curve.bits == 8
        np.testing.assert_array_equal(curve.thresholds, CHANNEL_THRESHOLDS)
        assert_same_db(curve.sqnr_db, expected, 0.01, measure)
        assert curve.best_threshold == CHANNEL_THRESHOLDS[np.argmax(curve.sqnr_db)]


def p10_by_bits(weights, granularity):
    """p10 of the channels' SQNR under 2 to 16 bits, by the reference."""
    numbers = range(2, 17)
    schemes = [Scheme("trial", bits, granularity, is_symmetric=True) for bits in numbers]
    found = plain_summaries(weights, schemes)
    return {bits: summary.p10_db for bits, summary in zip(numbers, found, strict=True)}


def check_bits_needed(weights, found):
    """Enough, and one bit less is not; the fewest of all wherever more bits never hurt."""
    assert list(found.bits_needed) == ["tensor", "channel", "block"]
    for granularity, bits in found.bits_needed.items():
        p10 = p10_by_bits(weights, granularity)
        note = f"{granularity}: {bits} bits, {p10}"
        # 1e-4 of a squared error is 0.0005 dB.
        enough = [number for number, value in p10.items() if not value < FINE_DB - 0.001]
        surely = [number for number, value in p10.items() if not value < FINE_DB + 0.001]
        if bits is None:
            assert 16 not in surely, note
        else:
            assert bits in enough, note
            assert bits - 1 not in surely, note
        if enough == surely == list(range(17 - len(enough), 17)):
            assert bits == min(enough, default=None), note


def check_everything(weights):
    found = swept(weights)
    assert list(found.errors) == list(SCHEMES)
    assert list(found.summaries) == list(SCHEMES)
    check_errors(weights, found)
    check_clipping(weights, found)
    check_channel_clipping(weights, found)
    check_bits_needed(weights, found)


# --- by hypothesis -----------------------------------------------------------------------------

SIDES = st.sampled_from([1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 100, 257])


def normal(rng, shape):
    return rng.normal(size=shape)


KINDS = {
    "normal": normal,
    "heavy-tailed": lambda rng, shape: rng.standard_t(2, size=shape),
    "one-sided": lambda rng, shape: rng.uniform(3, 9, size=shape),
    "negative": lambda rng, shape: -rng.exponential(size=shape),
    "many zeros": lambda rng, shape: rng.normal(size=shape) * (rng.random(shape) < 0.3),
    "ties": lambda rng, shape: rng.integers(-255, 256, size=shape) / 2,
    "ties off centre": lambda rng, shape: rng.integers(-100, 411, size=shape) / 2,
    "few values": lambda rng, shape: rng.integers(-3, 4, size=shape) / 3,
    "channels of very different scale": lambda rng, shape: (
        rng.normal(size=shape) * 10.0 ** rng.integers(-12, 12, size=(shape[0], 1))
    ),
    "columns of very different scale": lambda rng, shape: (
        rng.normal(size=shape) * 10.0 ** rng.integers(-12, 12, size=(1, shape[1]))
    ),
    "every exponent": lambda rng, shape: (
        rng.normal(size=shape) * 2.0 ** rng.integers(-140, 125, size=shape)
    ),
    "denormal": lambda rng, shape: rng.normal(size=shape) * TINY,
    "around the smallest scale": lambda rng, shape: rng.normal(size=shape) * TINY * 100,
    "huge": lambda rng, shape: rng.uniform(-LARGEST, LARGEST, size=shape),
    "not finite": lambda rng, shape: rng.choice(
        [1.0, -0.3, 0.77, 0.0, np.nan, np.inf, -np.inf], size=shape
    ),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@settings(max_examples=settings.default.max_examples // 8, phases=[Phase.generate])
@given(height=SIDES, width=SIDES, seed=st.integers(0, 2**32))
def test_the_errors_of_random_layers_are_those_of_the_reference(make, height, width, seed):
    weights = make(np.random.default_rng(seed), (height, width)).astype(np.float32)
    found = swept(weights)
    check_errors(weights, found)
    check_channel_clipping(weights, found)


@pytest.mark.slow
@given(
    weights=arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements=st.floats(width=32, allow_subnormal=True),
    )
)
def test_the_errors_of_any_float32_are_those_of_the_reference(weights):
    check_errors(weights, swept(weights))


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@settings(max_examples=settings.default.max_examples // 25, phases=[Phase.generate])
@given(height=SIDES, width=SIDES.filter(lambda side: side < 100), seed=st.integers(0, 2**32))
def test_clipping_and_bits_needed_are_what_trying_everything_finds(make, height, width, seed):
    weights = make(np.random.default_rng(seed), (height, width)).astype(np.float32)
    found = swept(weights)
    check_clipping(weights, found)
    check_bits_needed(weights, found)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@settings(max_examples=2, phases=[Phase.generate])
@given(
    size=st.sampled_from([FEW_WEIGHTS, FEW_WEIGHTS + 1, MANY_WEIGHTS + 11]),
    seed=st.integers(0, 2**32),
)
def test_a_clipping_curve_that_is_partly_estimated_is_the_plain_one(make, size, seed):
    weights = make(np.random.default_rng(seed), (1, size)).astype(np.float32)
    ordered = sorted_weights(weights)
    abs_max = abs_max_of(weights)
    if abs_max > LARGEST / 4 or abs_max < 1000 * TINY:
        # There the definition itself is what the ends of float32 make of it.
        return
    energy = float(np.sum(ordered.astype(np.float64) ** 2))
    curves, best = clipping_curves(ordered, energy)
    cuts = [float(cut) for cut in THRESHOLDS * abs_max]
    for curve in curves:
        scheme = Scheme("trial", curve.bits, "tensor", is_symmetric=True, clip="mse")
        squares = plain_errors(weights, [scheme] * len(cuts), cuts)[1].sum(axis=1)
        # 0.005 dB, and what float32 itself leaves open.
        assert_same_db(curve.sqnr_db, sqnr_db(energy, squares), 0.006, f"{curve.bits} bits")
        place = int(np.flatnonzero(curve.best_threshold == THRESHOLDS)[0])
        noise = FLOAT32_STEP * np.sqrt(energy)
        assert np.sqrt(squares[place]) <= np.sqrt(squares.min()) * (1 + 5e-5) + noise
        assert best[curve.bits, True] == pytest.approx(cuts[place])


# --- by hand -----------------------------------------------------------------------------------


def random(seed):
    return np.random.default_rng(seed)


LITERAL = {
    "a single weight": np.array([[-2.5]]),
    "a single zero": np.array([[0.0]]),
    "one channel": random(1).normal(size=(1, 65)),
    "one weight per channel": random(2).normal(size=(65, 1)),
    "constant": np.full((3, 33), 0.1),
    "constant and negative": np.full((3, 33), -0.1),
    "all zero": np.zeros((2, 40)),
    "some channels zero": random(3).normal(size=(6, 40)) * [[0], [1], [0], [1], [0], [1]],
    "minus zero": np.array([[-0.0, 0.0, 1.0, -1.0]]),
    "nothing finite": np.full((2, 3), np.nan),
    "nothing finite in one channel": np.array([[np.nan, np.inf], [1.0, -2.0]]),
    "infinite": np.insert(random(4).normal(size=(4, 40)), [3, 33], [np.inf, -np.inf], axis=1),
    "ties": np.arange(-127, 127.5, 0.5).reshape(1, -1),
    "ties at both ends": np.arange(-127.5, 128, 0.5).reshape(1, -1),
    "ties of 4 bits": np.arange(-7.5, 8, 0.5).reshape(1, -1),
    "ties of 2 bits": np.array([[-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]]),
    "on the grid": np.arange(-127, 128.0).reshape(3, 85),
    "on the grid of every channel": np.array([[-127, 3], [127, 2]]) * [[0.5], [2.0**-20]],
    "on the grid of a step that is no power of two": np.arange(-127, 128).reshape(1, -1)
    * float(np.float32(0.1)),
    "denormal": np.array([[1e-45, -1e-44], [1e-40, 3e-39]]),
    "denormal beside normal": np.array([[1e-45, -1e-44], [1.0, 3e-39]]),
    "the largest there are": np.array([[-LARGEST, LARGEST, 0.0, LARGEST / 3]]),
    "the largest alone": np.array([[LARGEST, 0.0, LARGEST / 3, 1.0]]),
    "large, some of it": random(5).uniform(-1, 1, size=(4, 70)) * [[LARGEST], [1], [1e30], [1e19]],
    "an outlier": np.where(np.arange(4096) == 77, 100, random(6).normal(size=4096)).reshape(64, 64),
    "16 bits are not enough": np.array([[1.0] * 32, [1e-5] * 32, [5e-6, 2e-6] * 16]),
    "a layer of 2,049 weights": random(7).standard_t(3, size=(3, 683)),
    "few values of many weights": random(8).integers(-7, 8, size=(50, 100)) * 0.03,
    "few and odd values of many weights": random(9).choice([-1, -0.37, 0.02, 0.61], size=(50, 100)),
    # 3 bits hold them exactly, 5 bits well, 4 bits do not.
    "numbers of 3 bits": random(10).integers(-3, 4, size=(30, 100)) / 3,
}
LITERAL = {name: weights.astype(np.float32) for name, weights in LITERAL.items()}


@pytest.mark.slow
@pytest.mark.parametrize("weights", LITERAL.values(), ids=LITERAL)
def test_literal_layers(weights):
    check_everything(weights)


MANY = {
    "normal": lambda: random(11).normal(size=(70, 1000)),
    "heavy-tailed": lambda: random(12).standard_t(1.5, size=(300, 301)),
    "one-sided": lambda: random(13).gamma(2, size=(700, 99)),
    "constant": lambda: np.full((3, 30_000), 0.1),
    "on the grid": lambda: random(14).integers(-127, 128, size=(66, 1000)) / 64,
    "few and odd values": lambda: random(15).choice([-1, -0.37, 0.02, 0.61], size=(70, 1000)),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", MANY.values(), ids=MANY)
def test_more_weights_than_running_sums_keep_one_by_one(make):
    weights = make().astype(np.float32)
    found = swept(weights)
    check_errors(weights, found)
    check_clipping(weights, found)


def test_what_lies_on_the_grid_is_exact():
    weights = LITERAL["on the grid"]
    found = swept(weights)
    for name in ("int8_tensor_symmetric", "int8_tensor_symmetric_mse"):
        assert found.errors[name].mse == found.errors[name].max_abs_error == 0
        assert found.errors[name].sqnr_db == np.inf


# --- bits needed -------------------------------------------------------------------------------


def test_two_bits_are_enough_where_two_bits_are_exact():
    weights = random(16).choice([-0.5, 0.0, 0.5], size=(20, 90)).astype(np.float32)
    assert swept(weights).bits_needed == {"tensor": 2, "channel": 2, "block": 2}
    nothing = np.zeros((3, 4), dtype=np.float32)
    assert swept(nothing).bits_needed == {"tensor": 2, "channel": 2, "block": 2}


def test_there_may_be_no_number_of_bits_that_is_enough():
    found = swept(LITERAL["16 bits are not enough"])
    assert found.bits_needed["tensor"] is None
    assert found.bits_needed["channel"] is not None


@settings(max_examples=settings.default.max_examples // 5, phases=[Phase.generate])
@given(spread=st.floats(0, 5), seed=st.integers(0, 2**32))
def test_bits_needed_of_layers_as_networks_have_them(spread, seed):
    rng = random(seed)
    weights = rng.normal(size=(40, 72)) * np.exp(spread * rng.normal(size=(40, 1)))
    weights = weights.astype(np.float32)
    check_bits_needed(weights, swept(weights))


GRIDS = {
    f"on a grid of {bits} bits": lambda rng, shape, codes=2 ** (bits - 1): rng.integers(
        1 - codes, codes, size=shape
    )
    for bits in (5, 6, 7)
}
# Long enough that bits are told without trying, where chance allows.
LONG_ROWS = (24, 700)


@pytest.mark.parametrize(
    ("thresholds", "lowest"),
    [(THRESHOLDS, Fraction(1, 100)), (CHANNEL_THRESHOLDS, Fraction(1, 50))],
)
def test_thresholds_lie_in_equal_ratios(thresholds, lowest):
    """In whole numbers, which are the same on every processor."""
    assert thresholds[0] == float(lowest)
    assert thresholds[-1] == 1
    steps = len(thresholds) - 1
    for step, threshold in enumerate(thresholds.tolist()):
        # The n-th power of a share is a power of the lowest.
        share = Fraction(threshold) ** steps / lowest ** (steps - step)
        assert abs(share - 1) < steps * Fraction(1, 2**50)


@pytest.mark.slow
@pytest.mark.parametrize("features", ["", "X86_V4", "X86_V4 X86_V3"])
def test_thresholds_are_the_same_whatever_the_processor(features):
    code = "from quantstore.numerics import sorted_weights as s; print(s.THRESHOLDS.tolist())"
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{THRESHOLDS.tolist()}\n"


@pytest.mark.parametrize("make", (KINDS | GRIDS).values(), ids=KINDS | GRIDS)
def test_bits_that_are_told_without_trying_are_those_that_trying_finds(make):
    weights = make(random(5), LONG_ROWS).astype(np.float32)
    check_bits_needed(weights, swept(weights))


@pytest.mark.parametrize("kind", ["normal", "heavy-tailed", "one-sided", "negative"])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
def test_what_channels_reach_lies_within_what_is_predicted(kind, granularity):
    weights = KINDS[kind](random(6), LONG_ROWS).astype(np.float32)
    found = swept(weights)
    measured = {
        bits: found.channel_sqnr_db[found.names.index(name)]
        for bits in (8, 4)
        for name, scheme in SCHEMES.items()
        if (scheme.bits, scheme.granularity, scheme.clip) == (bits, granularity, "minmax")
        and scheme.is_symmetric
        and scheme.number == "int"
    }
    margin_db = NOISE_MARGIN_DB / np.sqrt(weights.shape[1])
    for bits, reached_db in p10_by_bits(weights, granularity).items():
        least_db, most_db = predicted_p10_db(measured, bits, margin_db, dead_in(weights))
        # Below 20 dB a step is no longer small beside the weights, and none is predicted there.
        if reached_db > FINE_DB - 10:
            assert least_db <= reached_db <= most_db


def test_few_values_are_not_predicted_from():
    assert are_distinct(random(7).normal(size=LONG_ROWS).astype(np.float32))
    for make in GRIDS.values():
        assert not are_distinct(make(random(7), LONG_ROWS).astype(np.float32))


# --- 8-bit floats ------------------------------------------------------------------------------

CASTS = {
    "fp8_e4m3": (ml_dtypes.float8_e4m3fn, 448.0),
    "fp8_e5m2": (ml_dtypes.float8_e5m2, 57344.0),
}
every_float8 = pytest.mark.parametrize("number", CASTS)


@cache
def values_of(number):
    """All finite values of the format, ascending."""
    values = np.arange(256, dtype=np.uint8).view(CASTS[number][0]).astype(np.float32)
    return np.unique(values[np.isfinite(values)])


@every_float8
def test_float8_rounding_is_the_cast_on_random_numbers(number):
    dtype, largest = CASTS[number]
    rng = random(17)
    numbers = np.concatenate(
        [
            rng.uniform(-largest, largest, 20_000),
            rng.normal(size=20_000),
            rng.normal(size=20_000) * 2.0 ** rng.integers(-30, 5, 20_000),
            rng.uniform(-1, 1, 20_000) * np.abs(values_of(number)[values_of(number) > 0]).min() * 9,
            [0.0, 1e-45, -1e-45, TINY, largest, -largest],
        ]
    ).astype(np.float32)
    np.testing.assert_array_equal(
        float8_rounding(numbers, number), numbers.astype(dtype).astype(np.float32)
    )


@every_float8
def test_float8_rounding_sends_ties_to_even_as_the_cast_does(number):
    values = values_of(number)
    between = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    for numbers in (
        values,
        between,
        np.nextafter(between, np.float32(np.inf)),
        np.nextafter(between, np.float32(-np.inf)),
    ):
        np.testing.assert_array_equal(
            float8_rounding(numbers, number), numbers.astype(CASTS[number][0]).astype(np.float32)
        )


@every_float8
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_the_scale_of_a_float8_maps_the_largest_weight_to_the_largest_value(number, granularity):
    dtype, largest = CASTS[number]
    weights = random(18).normal(size=(4, 50)).astype(np.float32)
    scheme = SCHEMES[f"{number}_{granularity}"]
    axis = 1 if granularity == "channel" else None
    scale = (np.abs(weights).max(axis=axis, keepdims=True) / np.float64(largest)).astype(np.float32)
    np.testing.assert_array_equal(grid_for(weights, scheme).scale, scale)
    returned = (weights / scale).astype(dtype).astype(np.float32) * scale
    np.testing.assert_array_equal(round_trip(weights, scheme), returned)
    error = swept(weights).errors[scheme.name]
    np.testing.assert_allclose(
        error.squared_error,
        np.sum((returned.astype(np.float64) - weights) ** 2, axis=1),
        rtol=1e-4,
    )


# --- blocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 31, 32, 33, 64, 90])
def test_blocks_of_four_bits_done_by_hand(size):
    weights = random(19).normal(size=(3, size)).astype(np.float32)
    symmetric, asymmetric = np.zeros_like(weights), np.zeros_like(weights)
    for channel in range(3):
        for start in range(0, size, 32):
            block = weights[channel, start : start + 32]
            scale = np.float32(float(np.abs(block).max()) / 7)
            symmetric[channel, start : start + 32] = np.clip(np.rint(block / scale), -7, 7) * scale
            low, high = min(0.0, float(block.min())), max(0.0, float(block.max()))
            zero = -np.rint(low / ((high - low) / 15))
            scale = np.float32((high - low) / 15)
            codes = np.clip(np.rint(block / scale) + zero, 0, 15)
            asymmetric[channel, start : start + 32] = (codes - zero).astype(np.float32) * scale
    found = swept(weights)
    assert BLOCK_SIZE == 32
    for name, by_hand in (
        ("int4_block32_symmetric", symmetric),
        ("int4_block32_asymmetric", asymmetric),
    ):
        np.testing.assert_array_equal(round_trip(weights, SCHEMES[name]), by_hand)
        squares = np.sum((by_hand.astype(np.float64) - weights) ** 2, axis=1)
        np.testing.assert_allclose(
            found.errors[name].squared_error,
            squares,
            rtol=1e-4,
            atol=1e-12,
        )


# --- the referee -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_the_swept_error_of_int8_is_what_onnxruntime_makes_of_it(is_symmetric, granularity):
    pytest.importorskip("onnxruntime", reason="it is the referee")
    scheme = next(
        scheme
        for scheme in MINMAX
        if (scheme.format, scheme.granularity, scheme.is_symmetric)
        == ("int8", granularity, is_symmetric)
    )
    weights = random(20).standard_t(4, size=(40, 90)).astype(np.float32)
    session = onnxruntime_session(is_symmetric=is_symmetric, per_channel=scheme.is_per_channel)
    _, returned = session.run(None, feeds(weights, scheme))
    distance = returned.astype(np.float64) - weights
    error = swept(weights).errors[scheme.name]
    np.testing.assert_allclose(error.squared_error, np.sum(distance**2, axis=1), rtol=1e-4)
    assert error.max_abs_error == pytest.approx(np.abs(distance).max(), rel=1e-4)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path, id=path.stem, marks=() if "separable" not in path.stem else pytest.mark.slow
        )
        for path in demo_paths()
    ],
)
def test_every_layer_of_the_demo_models(path):
    for layer in layers_of(path):
        found = swept(layer.weights)
        errors = found.errors
        for scheme in MINMAX:
            own, expected = errors[scheme.name], measure_error(layer.weights, scheme)
            assert_same_error(own, expected, layer.weights, f"{layer.name}: {scheme.name}")
            judged = expected.channel_sqnr_db < 100
            np.testing.assert_allclose(
                own.squared_error[judged], expected.squared_error[judged], rtol=1e-4
            )
        if layer.weights.size <= 2 * FEW_WEIGHTS:  # trying everything takes its time
            check_clipping(layer.weights, found)
        check_channel_clipping(layer.weights, found)
        check_bits_needed(layer.weights, found)


def test_a_channel_that_is_rounded_to_zero_has_lost_exactly_its_energy():
    # Layers are ranked by these figures, and many tie at 0 dB: a last digit would break the tie.
    random = np.random.default_rng(0)
    weights = (random.standard_normal((40, 27)) * 1e-3).astype(np.float32)
    weights[0] = random.standard_normal(27) * 100
    energy = np.sum(weights.astype(np.float64) ** 2, axis=1)
    error = sweep(weights, np.sort(weights.reshape(-1)), energy).errors["int8_tensor_symmetric"]
    assert error.channel_sqnr_db[1:].tolist() == [0.0] * 39
