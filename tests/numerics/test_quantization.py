"""What int8 error means here. Read top to bottom, this is the definition."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx.reference import ReferenceEvaluator

from quantstore.numerics.quantization import (
    SMALLEST_SCALE,
    dequantize,
    grid_for,
    measure_error,
    power_of_two_above,
    quantize,
    round_trip,
    sqnr_db,
    summarize_channels,
)
from quantstore.schemes import (
    DEFAULT_SCHEME,
    INT8_CHANNEL_ASYMMETRIC,
    INT8_CHANNEL_SYMMETRIC,
    INT8_SCHEMES,
    INT8_TENSOR_ASYMMETRIC,
    INT8_TENSOR_POWER_OF_TWO,
    INT8_TENSOR_SYMMETRIC,
    SCHEMES,
    Scheme,
)
from tests.support.referees import feeds, onnx_round_trip, onnxruntime_session

every_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)


def every_one_of(schemes):
    return pytest.mark.parametrize("scheme", schemes, ids=[scheme.name for scheme in schemes])


INTEGER_SCHEMES = [scheme for scheme in SCHEMES.values() if scheme.number == "int"]
INTEGER_GRIDS = [scheme for scheme in INTEGER_SCHEMES if scheme.clip == "minmax"]
# What QuantizeLinear can hold in int8 or uint8, one scale per tensor or channel.
ONNX_SCHEMES = [
    scheme
    for scheme in SCHEMES.values()
    if scheme.format == "int8" and scheme.granularity != "block"
]
every_tensor_scheme = pytest.mark.parametrize(
    "scheme", [INT8_TENSOR_SYMMETRIC, INT8_TENSOR_ASYMMETRIC], ids=lambda scheme: scheme.name
)

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=7)


def matrices(elements):
    return arrays(np.float32, SHAPES, elements=elements)


# Quarters of whole numbers: few distinct values, many ties.
quarters = matrices(st.integers(-512, 512).map(lambda number: number / 4))
# Up to 2^126 a level at the edge of the grid is still a float32.
any_finite = matrices(st.floats(-(2.0**126), 2.0**126, width=32, allow_subnormal=True))
any_weights = st.one_of(quarters, any_finite)

AWKWARD = {
    "gaussian": np.random.default_rng(1).normal(size=(8, 27)),
    "ties": np.arange(-127, 127, 0.5).reshape(4, -1),
    "one-sided": np.random.default_rng(2).uniform(3, 9, size=(4, 9)),
    "all negative": np.random.default_rng(3).uniform(-9, -3, size=(4, 9)),
    "constant": np.full((3, 5), 0.1),
    "single weight": np.array([[-2.5]]),
    "all zero": np.zeros((2, 3)),
    "one channel zero": np.array([[0.0, 0.0], [1.0, -3.0]]),
    "denormal": np.array([[1e-45, -1e-44], [1e-40, 3e-39]]),
    # Float32's smallest normal number is 1.2e-38.
    "just above the smallest scale": np.array([[3.6e-36, -1e-37], [1e-36, 2e-38]]),
    "huge": np.array([[1e38, -1e38], [3e37, -2e36]]),
    "wide": np.array([[1e-6, 1e6], [-1e3, 1e-3]]),
}
AWKWARD = {name: weights.astype(np.float32) for name, weights in AWKWARD.items()}
every_awkward_tensor = pytest.mark.parametrize("weights", AWKWARD.values(), ids=AWKWARD)


def with_awkward_examples(test):
    for weights in AWKWARD.values():
        test = example(weights=weights)(test)
    return test


# --- the article's worked example --------------------------------------------------------------


def test_the_worked_example_of_the_article_comes_out_digit_for_digit():
    weights = np.array([[-51.35, 165.52, 0.4, -0.4, 0.5, 1.2]], dtype=np.float32)
    grid = grid_for(weights, INT8_TENSOR_ASYMMETRIC)
    assert grid.scale.item() == np.float32((165.52 + 51.35) / 255)
    assert grid.zero_point.item() == 60
    codes = quantize(weights, grid)
    assert codes.tolist() == [[0, 255, 60, 60, 61, 61]]
    returned = [f"{weight:.2f}" for weight in dequantize(codes, grid)[0] + 0.0]
    assert returned == ["-51.03", "165.84", "0.00", "0.00", "0.85", "0.85"]


# --- schemes -----------------------------------------------------------------------------------


def test_a_symmetric_grid_leaves_out_its_lowest_code():
    assert (INT8_TENSOR_SYMMETRIC.qmin, INT8_TENSOR_SYMMETRIC.qmax) == (-127, 127)
    assert (INT8_TENSOR_ASYMMETRIC.qmin, INT8_TENSOR_ASYMMETRIC.qmax) == (0, 255)


@pytest.mark.parametrize(
    ("name", "per_tensor", "per_channel"),
    [
        ("int8_tensor_symmetric", "int8_tensor_symmetric", "int8_channel_symmetric"),
        ("int8_channel_asymmetric", "int8_tensor_asymmetric", "int8_channel_asymmetric"),
        ("int8_block32_symmetric", "int8_tensor_symmetric", "int8_channel_symmetric"),
        ("int4_channel_symmetric", "int4_tensor_symmetric", "int4_channel_symmetric"),
        ("fp8_e5m2_tensor", "fp8_e5m2_tensor", "fp8_e5m2_channel"),
    ],
)
def test_a_scheme_knows_its_kin_per_tensor_and_per_channel(name, per_tensor, per_channel):
    scheme = SCHEMES[name]
    assert scheme.per_tensor is SCHEMES[per_tensor]
    assert scheme.per_channel is SCHEMES[per_channel]


@every_one_of(list(INT8_SCHEMES.values()))
def test_the_kin_of_a_scheme_differs_in_nothing_but_its_granularity(scheme):
    for kin, granularity in ((scheme.per_tensor, "tensor"), (scheme.per_channel, "channel")):
        assert replace(kin, name=scheme.name, granularity=scheme.granularity) == scheme
        assert kin.granularity == granularity
        assert (kin.is_per_tensor, kin.is_per_channel) == (
            granularity == "tensor",
            granularity == "channel",
        )


def test_a_scheme_without_measured_kin_says_so():
    clipped = SCHEMES["int8_tensor_symmetric_mse"]
    assert clipped.per_tensor is clipped
    with pytest.raises(LookupError, match=r"int8_tensor_symmetric_mse: no scheme .* per channel"):
        _ = clipped.per_channel
    with pytest.raises(LookupError, match="no scheme like it is measured per tensor"):
        _ = SCHEMES["int2_block32_symmetric"].per_tensor


def test_the_schemes_that_scripts_rely_on_and_the_default():
    assert list(INT8_SCHEMES) == [
        "int8_tensor_symmetric",
        "int8_tensor_asymmetric",
        "int8_channel_symmetric",
        "int8_channel_asymmetric",
    ]
    assert list(SCHEMES)[:4] == list(INT8_SCHEMES)
    assert set(SCHEMES) - set(INT8_SCHEMES) >= {
        *("int8_block32_symmetric", "int8_block32_asymmetric"),
        *("int8_tensor_symmetric_mse", "int8_tensor_asymmetric_mse"),
        *("fp8_e4m3_tensor", "fp8_e4m3_channel", "fp8_e5m2_tensor", "fp8_e5m2_channel"),
        *("int4_tensor_symmetric", "int4_tensor_asymmetric"),
        *("int4_tensor_symmetric_mse", "int4_tensor_asymmetric_mse"),
        *("int4_channel_symmetric", "int4_channel_asymmetric"),
        *("int4_block32_symmetric", "int4_block32_asymmetric"),
        *("int2_block32_symmetric", "int2_block32_asymmetric"),
    }
    assert DEFAULT_SCHEME is SCHEMES["int8_tensor_symmetric"]


@every_scheme
def test_a_name_says_what_its_scheme_is(scheme):
    words = [scheme.format, {"block": "block32"}.get(scheme.granularity, scheme.granularity)]
    # A float format is symmetric by nature.
    words += [scheme.symmetry] if scheme.number == "int" else []
    words += ["mse"] if scheme.clip == "mse" else []
    assert scheme.name == "_".join(words)
    assert SCHEMES[scheme.name] is scheme


@pytest.mark.parametrize("bits", [1, 17])
def test_a_scheme_without_a_usable_grid_is_refused(bits):
    with pytest.raises(ValueError, match="2 to 16"):
        Scheme("odd", bits, "tensor", is_symmetric=True)


# --- the referees: onnxruntime and the ONNX reference ------------------------------------------


@given(weights=any_weights)
@with_awkward_examples
def test_codes_and_round_trip_are_onnxruntimes_bit_for_bit(weights):
    for scheme in ONNX_SCHEMES:
        session = onnxruntime_session(
            is_symmetric=scheme.is_symmetric, per_channel=scheme.is_per_channel
        )
        codes, returned = session.run(None, feeds(weights, scheme))
        own = quantize(weights, grid_for(weights, scheme))
        np.testing.assert_array_equal(own, codes, err_msg=scheme.name)
        np.testing.assert_array_equal(round_trip(weights, scheme), returned, err_msg=scheme.name)


@every_one_of(ONNX_SCHEMES)
@every_awkward_tensor
def test_codes_and_round_trip_are_those_of_the_onnx_reference(scheme, weights):
    reference = ReferenceEvaluator(
        onnx_round_trip(is_symmetric=scheme.is_symmetric, per_channel=scheme.is_per_channel)
    )
    codes, returned = reference.run(None, feeds(weights, scheme))
    np.testing.assert_array_equal(quantize(weights, grid_for(weights, scheme)), codes)
    np.testing.assert_array_equal(round_trip(weights, scheme), returned)


@given(weights=any_weights)
@with_awkward_examples
def test_scale_and_zero_point_are_what_onnxruntimes_quantizer_computes(weights):
    quant_utils = pytest.importorskip("onnxruntime.quantization.quant_utils")
    for scheme in ONNX_SCHEMES:
        code = np.int8 if scheme.is_symmetric else np.uint8
        qmin, qmax = np.array(scheme.qmin, dtype=code), np.array(scheme.qmax, dtype=code)
        grid = grid_for(weights, scheme)
        for row, values in enumerate(weights if scheme.is_per_channel else [weights]):
            zero_point, scale = quant_utils.compute_scale_zp(
                values.min(), values.max(), qmin, qmax, symmetric=scheme.is_symmetric
            )
            assert grid.scale[row, 0] == np.float32(scale), scheme.name
            assert grid.zero_point[row, 0] == zero_point, scheme.name


# --- laws --------------------------------------------------------------------------------------

# A law is held to every scheme by the same weights: hypothesis takes longer to draw them than we
# to measure them.


@given(weights=any_weights)
@with_awkward_examples
def test_no_weight_moves_by_more_than_half_a_step(weights):
    for scheme in INTEGER_SCHEMES:
        step = grid_for(weights, scheme).scale.astype(np.float64)
        moved = np.abs(round_trip(weights, scheme).astype(np.float64) - weights)
        # Codes go up to 255, and float32 keeps seven digits of weight / step.
        assert np.all(moved <= step * (0.5 + 255 * 3e-7)), scheme.name


@given(weights=any_weights)
@with_awkward_examples
def test_zero_is_always_a_code(weights):
    zeros = np.zeros_like(weights)
    for scheme in SCHEMES.values():
        grid = grid_for(weights, scheme)
        codes = grid.zero_point
        assert np.all((codes >= grid.qmin) & (codes <= grid.qmax)), scheme.name
        returned = dequantize(quantize(zeros, grid), grid)
        np.testing.assert_array_equal(returned, zeros, err_msg=scheme.name)


@given(weights=any_weights)
@with_awkward_examples
def test_noise_never_exceeds_the_signal(weights):
    for scheme in SCHEMES.values():
        error = measure_error(weights, scheme)
        assert error.sqnr_db >= -1e-4 or not np.any(weights), scheme.name
        assert not np.any(error.channel_sqnr_db < -1e-4), scheme.name


@given(weights=quarters, exponent=st.integers(-20, 20))
def test_a_power_of_two_changes_the_step_and_nothing_else(weights, exponent):
    factor = np.float32(2.0**exponent)
    for scheme in SCHEMES.values():
        original, scaled = measure_error(weights, scheme), measure_error(weights * factor, scheme)
        assert scaled.sqnr_db == original.sqnr_db or not np.any(weights), scheme.name
        np.testing.assert_array_equal(
            scaled.channel_sqnr_db, original.channel_sqnr_db, err_msg=scheme.name
        )
        assert scaled.zeroed_fraction == original.zeroed_fraction, scheme.name
        assert scaled.levels_used == original.levels_used, scheme.name
        assert scaled.max_abs_error == original.max_abs_error * factor, scheme.name


@given(factor=st.floats(1e-20, 1e20))
def test_scaling_a_tensor_does_not_change_its_sqnr(factor):
    weights = np.random.default_rng(4).normal(size=(4, 50))
    for scheme in SCHEMES.values():
        original = measure_error(weights.astype(np.float32), scheme)
        scaled = measure_error((weights * factor).astype(np.float32), scheme)
        assert scaled.sqnr_db == pytest.approx(original.sqnr_db, abs=0.001), scheme.name
        np.testing.assert_allclose(
            scaled.channel_sqnr_db, original.channel_sqnr_db, atol=0.001, err_msg=scheme.name
        )


@given(weights=any_weights, random=st.randoms(use_true_random=False))
def test_permuting_channels_permutes_channel_rows(weights, random):
    order = random.sample(range(len(weights)), len(weights))
    for scheme in SCHEMES.values():
        original, permuted = measure_error(weights, scheme), measure_error(weights[order], scheme)
        np.testing.assert_array_equal(
            permuted.channel_sqnr_db, original.channel_sqnr_db[order], err_msg=scheme.name
        )
        np.testing.assert_array_equal(
            permuted.zeroed_count, original.zeroed_count[order], err_msg=scheme.name
        )
        assert permuted.levels_used == original.levels_used, scheme.name


@given(weights=any_weights)
@with_awkward_examples
def test_a_channels_own_step_never_exceeds_the_tensors(weights):
    for channel, tensor in (
        (INT8_CHANNEL_SYMMETRIC, INT8_TENSOR_SYMMETRIC),
        (INT8_CHANNEL_ASYMMETRIC, INT8_TENSOR_ASYMMETRIC),
    ):
        own, shared = grid_for(weights, channel).scale, grid_for(weights, tensor).scale
        # A step of exactly 1 may also stand for "no usable step at all".
        assert np.all((own <= shared) | (own == 1)), channel.name


@given(
    codes=arrays(np.int64, SHAPES, elements=st.integers(0, 255)),
    exponents=st.lists(st.integers(-60, 60), min_size=7, max_size=7),
    zero_point=st.integers(0, 255),
)
def test_a_tensor_already_on_the_grid_has_no_error_at_all(codes, exponents, zero_point):
    step = 2.0 ** np.array(exponents[: len(codes)])[:, np.newaxis]
    for scheme in INTEGER_GRIDS:
        on_grid = codes_on(scheme, codes, zero_point)
        steps = step[0] if scheme.granularity == "tensor" else step
        weights = (on_grid * steps).astype(np.float32)
        np.testing.assert_array_equal(round_trip(weights, scheme), weights, err_msg=scheme.name)
        error = measure_error(weights, scheme)
        assert (error.mse, error.max_abs_error, error.sqnr_db) == (0, 0, np.inf), scheme.name
        assert error.zeroed_fraction == 0, scheme.name
        summary = summarize_channels(error.channel_sqnr_db)
        assert summary.min_db == summary.p10_db == summary.median_db == np.inf, scheme.name


def codes_on(scheme, codes, zero_point):
    """Codes as weights of step 1: within the grid, and every channel reaches its ends."""
    top = scheme.qmax
    if scheme.is_symmetric:
        return np.column_stack([codes % (2 * top + 1) - top, np.full(len(codes), top)])
    ends = np.tile([0, top], (len(codes), 1))
    return np.column_stack([codes % (top + 1), ends]) - zero_point % (top + 1)


@every_scheme
def test_the_range_is_widened_to_include_zero(scheme):
    one_sided = np.array([[5.0, 6.0, 7.0]], dtype=np.float32)
    widened = np.array([[0.0, 5.0, 6.0, 7.0]], dtype=np.float32)
    assert grid_for(one_sided, scheme).scale == grid_for(widened, scheme).scale
    assert grid_for(-one_sided, scheme).scale == grid_for(-widened, scheme).scale


# --- scales too small to be one ----------------------------------------------------------------


@every_scheme
def test_an_all_zero_tensor_has_a_step_of_one_and_no_error(scheme):
    zeros = np.zeros((2, 3), dtype=np.float32)
    grid = grid_for(zeros, scheme)
    assert np.all(grid.scale == 1)
    assert np.all(grid.zero_point == 0)
    error = measure_error(zeros, scheme)
    assert (error.mse, error.max_abs_error, error.zeroed_fraction) == (0, 0, 0)
    assert np.isinf(error.sqnr_db)
    assert np.all(np.isnan(error.channel_sqnr_db))


@every_scheme
def test_weights_too_small_for_a_normal_scale_are_lost(scheme):
    tiny = np.array([[1e-38, -1e-39, 5e-45]], dtype=np.float32)
    grid = grid_for(tiny, scheme)
    assert (grid.scale.item(), grid.zero_point.item()) == (1, 0)
    error = measure_error(tiny, scheme)
    assert error.sqnr_db == pytest.approx(0)
    assert error.zeroed_fraction == 1
    assert error.max_abs_error == tiny[0, 0]


@every_scheme
def test_the_smallest_normal_scale_is_still_used(scheme):
    span = scheme.qmax * SMALLEST_SCALE
    grid = grid_for(np.array([[0, span]], dtype=np.float32), scheme)
    assert grid.scale.item() == np.float32(SMALLEST_SCALE)


# --- the figures -------------------------------------------------------------------------------


def plain_sqnr_db(weights, returned):
    signal, noise = np.sum(weights**2), np.sum((returned - weights) ** 2)
    return 10 * np.log10(signal / noise) if noise else np.inf


TENSORS = {
    "small": np.random.default_rng(5).normal(size=(6, 9)),
    "offset": np.random.default_rng(6).normal(3, 0.1, size=(6, 9)),
    "many zeros": np.random.default_rng(7).normal(size=(6, 9)) * [0, 1, 0, 0, 1e-3, 1, 0, 0, 1],
    "more than one block": np.random.default_rng(8).standard_t(3, size=(300, 450)),
    "channels longer than a block": np.random.default_rng(9).laplace(size=(2, 70_000)),
}
TENSORS = {name: weights.astype(np.float32) for name, weights in TENSORS.items()}


@every_scheme
@pytest.mark.parametrize("weights", TENSORS.values(), ids=TENSORS)
def test_every_figure_equals_the_plain_expression_in_float64(scheme, weights):
    error = measure_error(weights, scheme)
    x, returned = weights.astype(np.float64), round_trip(weights, scheme).astype(np.float64)
    assert error.mse == pytest.approx(np.mean((returned - x) ** 2), rel=1e-6)
    assert error.max_abs_error == pytest.approx(np.max(np.abs(returned - x)), rel=1e-6)
    assert error.sqnr_db == pytest.approx(plain_sqnr_db(x, returned), abs=1e-5)
    assert error.zeroed_fraction == np.sum((x != 0) & (returned == 0)) / np.sum(x != 0)
    np.testing.assert_allclose(
        error.channel_sqnr_db,
        [plain_sqnr_db(row, back) for row, back in zip(x, returned, strict=True)],
        atol=1e-5,
    )
    np.testing.assert_array_equal(
        error.channel_zeroed_fraction,
        np.sum((x != 0) & (returned == 0), axis=1) / np.maximum(1, np.sum(x != 0, axis=1)),
    )


@every_tensor_scheme
@pytest.mark.parametrize("weights", TENSORS.values(), ids=TENSORS)
def test_levels_used_counts_distinct_codes(scheme, weights):
    codes = quantize(weights, grid_for(weights, scheme))
    assert measure_error(weights, scheme).levels_used == len(np.unique(codes))


@every_one_of([scheme for scheme in SCHEMES.values() if scheme.granularity != "tensor"])
def test_levels_used_is_undefined_where_every_channel_has_a_grid_of_its_own(scheme):
    assert measure_error(TENSORS["small"], scheme).levels_used is None


def test_zeroed_fraction_leaves_out_weights_that_were_zero_already():
    weights = np.array([[127.0, 0.0, 0.0, 0.4, 0.6]], dtype=np.float32)
    assert measure_error(weights, INT8_TENSOR_SYMMETRIC).zeroed_fraction == 1 / 3


@every_scheme
@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_nan_and_infinities_are_left_out_of_every_figure(scheme, missing):
    weights = TENSORS["small"]
    spoilt = np.insert(weights, 4, np.float32(missing), axis=1)
    error, expected = measure_error(spoilt, scheme), measure_error(weights, scheme)
    assert error.weight_count == expected.weight_count == weights.size
    assert error.mse == pytest.approx(expected.mse, rel=1e-12)
    assert error.sqnr_db == pytest.approx(expected.sqnr_db, rel=1e-12)
    assert error.max_abs_error == expected.max_abs_error
    assert error.zeroed_fraction == expected.zeroed_fraction
    assert error.levels_used == expected.levels_used
    np.testing.assert_allclose(error.channel_sqnr_db, expected.channel_sqnr_db, rtol=1e-12)


@every_scheme
def test_a_tensor_of_nan_alone_has_no_error_to_speak_of(scheme):
    error = measure_error(np.full((2, 2), np.nan, dtype=np.float32), scheme)
    assert error.weight_count == 0
    assert np.isnan(error.mse)
    assert np.isnan(error.max_abs_error)
    assert error.zeroed_fraction == 0
    assert np.all(np.isnan(error.channel_sqnr_db))


def test_squares_of_huge_weights_do_not_overflow():
    weights = np.array([[1e30, -3e29, 2e28]], dtype=np.float32)
    assert 30 < measure_error(weights, INT8_TENSOR_SYMMETRIC).sqnr_db < 70


# --- what the numbers mean ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "span"),
    [
        (INT8_TENSOR_ASYMMETRIC, lambda weights: weights.max() - weights.min()),
        (INT8_TENSOR_SYMMETRIC, lambda weights: 2 * np.abs(weights).max()),
    ],
)
def test_tensor_sqnr_follows_from_range_over_rms(scheme, span):
    weights = np.random.default_rng(10).normal(size=(100, 1000)).astype(np.float32)
    rms = np.sqrt(np.mean(weights.astype(np.float64) ** 2))
    expected = 58.9 - 20 * np.log10(span(weights) / rms)
    assert measure_error(weights, scheme).sqnr_db == pytest.approx(expected, abs=0.1)


def test_an_outlier_in_one_channel_only_hurts_the_others_if_they_share_its_scale():
    weights = np.array([[0.01, 0.02], [0.03, 100.0]], dtype=np.float32)
    shared = round_trip(weights, INT8_TENSOR_SYMMETRIC)
    own = round_trip(weights, INT8_CHANNEL_SYMMETRIC)
    assert np.all(shared[0] == 0)
    np.testing.assert_allclose(own[0], weights[0], rtol=0.01)


def test_a_growing_outlier_improves_tensor_sqnr_while_it_erases_every_other_channel():
    weights = np.random.default_rng(11).normal(size=(16, 100)).astype(np.float32)
    largest = np.abs(weights).max()
    summaries, tensor_db = [], []
    for factor in (50, 200):
        weights[0, 0] = factor * largest
        error = measure_error(weights, INT8_TENSOR_SYMMETRIC)
        tensor_db.append(error.sqnr_db)
        summaries.append(summarize_channels(error.channel_sqnr_db))
    assert tensor_db[1] > tensor_db[0] + 3
    assert summaries[1].below_10db == 15
    assert summaries[1].median_db < 1


# --- the summary over channels -----------------------------------------------------------------

decibels = st.floats(-5, 200)
decibels_or_exact = st.one_of(decibels, st.just(np.inf))
decibels_exact_or_zero = st.one_of(decibels_or_exact, st.just(np.nan))


@given(st.lists(decibels, min_size=1))
def test_the_summary_of_finite_channels_is_numpys_linear_quantile(values):
    summary = summarize_channels(np.array(values))
    assert summary.min_db == min(values)
    assert summary.p10_db == pytest.approx(np.quantile(values, 0.1), abs=1e-9)
    assert summary.median_db == pytest.approx(np.median(values), abs=1e-9)
    assert summary.below_10db == sum(value < 10 for value in values)


@given(st.lists(decibels_exact_or_zero), st.integers(0, 5))
def test_all_zero_channels_are_left_out(values, zero_channels):
    kept = np.array([value for value in values if not np.isnan(value)])
    more = np.array([*values, *[np.nan] * zero_channels])
    np.testing.assert_equal(summarize_channels(more), summarize_channels(kept))


@given(st.lists(decibels_or_exact, min_size=1))
def test_an_exact_channel_counts_as_infinitely_good_and_never_as_nan(values):
    summary = summarize_channels(np.array(values))
    assert -5 <= summary.min_db <= summary.p10_db <= summary.median_db
    # Where both neighbours of a quantile are finite, so is the quantile; else it is infinite.
    ordered = sorted(values)
    for quantile, share in ((summary.p10_db, 0.1), (summary.median_db, 0.5)):
        upper = int(np.ceil(share * (len(values) - 1)))
        assert np.isinf(quantile) == np.isinf(ordered[upper])


def test_without_a_channel_that_is_not_zero_there_is_no_summary():
    summary = summarize_channels(np.array([np.nan, np.nan]))
    assert np.isnan([summary.min_db, summary.p10_db, summary.median_db]).all()
    assert summary.below_10db == 0


def test_exactly_10_db_is_not_below_10_db():
    assert summarize_channels(np.array([9.999, 10.0, 10.001])).below_10db == 1


def test_sqnr_is_ten_times_the_logarithm_of_the_energy_ratio():
    np.testing.assert_allclose(sqnr_db([1, 1, 200, 1], [1, 0.01, 2, 0]), [0, 20, 20, np.inf])


def test_weights_at_the_end_of_float32_have_an_error_not_an_overflow():
    largest = np.finfo(np.float32).max
    weights = np.array([[-largest, largest, 0.0, largest / 3]], dtype=np.float32)
    for scheme in SCHEMES.values():
        error = measure_error(weights, scheme)
        assert np.isfinite(error.mse)
        assert error.sqnr_db > (30 if scheme in INT8_SCHEMES.values() else 0)


# --- a scale that is a power of two ------------------------------------------------------------


@given(any_weights)
@with_awkward_examples
def test_every_scale_is_a_power_of_two_and_at_most_twice_what_the_range_needs(weights):
    scale = grid_for(weights, INT8_TENSOR_POWER_OF_TWO).scale.item()
    assert np.frexp(scale)[0] == 0.5
    needed = float(np.abs(weights).max()) / 127
    if needed >= SMALLEST_SCALE:
        assert needed <= scale < 2 * needed


@given(any_weights)
@with_awkward_examples
def test_under_a_power_of_two_no_weight_moves_by_more_than_half_a_step(weights):
    # The step covers the whole range, so that nothing is cut off; dividing by it is exact.
    scale = float(grid_for(weights, INT8_TENSOR_POWER_OF_TWO).scale.item())
    moved = np.abs(round_trip(weights, INT8_TENSOR_POWER_OF_TWO).astype(np.float64) - weights)
    assert np.all(moved <= scale / 2)


@given(matrices(st.floats(-1e6, 1e6, width=32, allow_subnormal=False)))
def test_a_tensor_times_two_comes_back_times_two(weights):
    # Far from where a scale is too small to be one.
    weights = np.where(np.abs(weights) < 1e-3, np.float32(0), weights)
    np.testing.assert_array_equal(
        round_trip(2 * weights, INT8_TENSOR_POWER_OF_TWO),
        2 * round_trip(weights, INT8_TENSOR_POWER_OF_TWO),
    )


@pytest.mark.parametrize(
    ("scale", "power"),
    [(1.0, 1), (0.25, 0.25), (0.2500001, 0.5), (3.0, 4), (4.0, 4), (1 + 2**-40, 2)],
)
def test_scales_are_rounded_up_and_powers_of_two_stay(scale, power):
    assert power_of_two_above(np.array([scale])).tolist() == [power]


def test_only_symmetric_integers_have_a_power_of_two_as_the_scale():
    assert "scale a power of two" in INT8_TENSOR_POWER_OF_TWO.title
    assert "power of two" in INT8_TENSOR_POWER_OF_TWO.description
    assert INT8_TENSOR_POWER_OF_TWO.per_tensor is INT8_TENSOR_POWER_OF_TWO
    with pytest.raises(LookupError):
        _ = INT8_TENSOR_POWER_OF_TWO.per_channel
    with pytest.raises(ValueError, match="symmetric"):
        replace(INT8_TENSOR_POWER_OF_TWO, is_symmetric=False)
