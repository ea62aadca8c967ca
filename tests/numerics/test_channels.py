"""Which channels a layer is judged by: true output channels, without dead ones, and its inputs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime import InferenceSession

from quantstore.layer import Layer
from quantstore.numerics.input_channels import INPUT_SCHEMES, input_channels
from quantstore.numerics.measure_layer import measure_layer
from quantstore.numerics.quantization import dead_channels, measure_error, round_trip
from quantstore.pipeline.files import demo_paths
from quantstore.schemes import INT8_SCHEMES, SCHEMES, Scheme
from tests.support.graphs import gaussian, layers_of, make_model, node, save
from tests.support.layers import linear_layer

TENSOR, CHANNEL = "int8_tensor_symmetric", "int8_channel_symmetric"
TINY = float(np.finfo(np.float32).tiny)


@pytest.fixture
def layer_of(tmp_path):
    """The one layer of a model with one node."""

    def read(op_type, weights, **attributes) -> Layer:
        model = make_model([node(op_type, ["x", "w"], ["y"], "n", **attributes)], {"w": weights})
        (layer,) = layers_of(save(model, tmp_path / "m.onnx"))
        return layer

    return read


def measured(layer):
    return measure_layer(layer, 0)


def errors_of(measures):
    return {error.scheme: error for error in measures.errors}


def dead_count(measures):
    return measures.layer.figures["dead_channel_count"]


# --- dead channels -------------------------------------------------------------------------------


def with_dead(share=1e-8):
    """Ten channels; the second and the seventh are next to nothing."""
    weights = gaussian(10, 6, 3, 3)
    weights[[1, 6]] *= share
    return weights


@pytest.mark.parametrize("share", [0, 1e-40, 1e-12, 1e-8])
def test_dead_channels_are_counted_and_left_out_of_every_summary(layer_of, share):
    measures = measured(layer_of("Conv", with_dead(share)))
    alone = measured(layer_of("Conv", np.delete(with_dead(share), [1, 6], axis=0)))
    assert (dead_count(measures), dead_count(alone)) == (2, 0)
    for scheme, error in errors_of(measures).items():
        expected = errors_of(alone)[scheme]
        assert error.channels_below_10db == expected.channels_below_10db, scheme
        for figure in ("channel_sqnr_min_db", "channel_sqnr_p10_db", "channel_sqnr_median_db"):
            assert getattr(error, figure) == pytest.approx(getattr(expected, figure)), scheme
    assert measures.bits_needed == alone.bits_needed


def test_their_rows_stay(layer_of):
    measures = measured(layer_of("Conv", with_dead()))
    rows = {columns.scheme: columns for columns in measures.channel_errors}
    assert set(rows) == set(INT8_SCHEMES)
    assert measures.channels.channel.tolist() == list(range(10))
    assert rows[TENSOR].sqnr_db[[1, 6]].tolist() == [0, 0]
    assert measures.channels.channel.size == measures.layer.channel_count == 10


def test_a_channel_of_a_hundred_thousandth_is_alive_and_lost(layer_of):
    measures = measured(layer_of("Conv", with_dead(1e-5)))
    assert dead_count(measures) == 0
    assert errors_of(measures)[TENSOR].channels_below_10db == 2


def test_where_every_channel_is_dead_there_is_no_figure(layer_of):
    measures = measured(layer_of("Conv", np.full((3, 2, 1, 1), 1e-38, np.float32)))
    assert dead_count(measures) == 3
    assert math.isnan(errors_of(measures)[TENSOR].channel_sqnr_p10_db)


def test_the_limit_is_a_millionth_and_the_smallest_normal_scale():
    ends = np.array([1, 1.001e-6, 0.999e-6, 0.0])
    assert dead_channels(-ends, ends).tolist() == [False, False, True, True]
    scales = np.array([127.1 * TINY, 126.9 * TINY])
    assert dead_channels(0 * scales, scales).tolist() == [False, True]


def test_a_channel_without_a_number_is_dead():
    assert dead_channels(np.array([np.nan, -1]), np.array([np.nan, 1])).tolist() == [True, False]


magnitudes = st.lists(
    st.floats(1e-12, 1e3).filter(lambda x: not 0.9e-6 < x < 1.1e-6), min_size=1, max_size=12
)


@given(magnitudes, st.integers(-40, 40))
def test_the_rule_does_not_mind_the_unit_of_the_weights(sizes, exponent):
    ends = np.array(sizes)
    factor = 2.0**exponent
    np.testing.assert_array_equal(
        dead_channels(-ends, ends), dead_channels(-ends * factor, ends * factor)
    )


@given(magnitudes, st.randoms(use_true_random=False))
def test_the_order_of_channels_changes_nothing_but_the_order(sizes, chance):
    ends = np.array(sizes)
    order = list(range(len(sizes)))
    chance.shuffle(order)
    np.testing.assert_array_equal(
        dead_channels(-ends, ends)[order], dead_channels(-ends[order], ends[order])
    )


@pytest.mark.parametrize("path", demo_paths(), ids=lambda path: path.stem)
def test_an_example_model_has_the_figures_that_it_had_over_all_channels(path):
    for layer in layers_of(path):
        measures = measured(layer)
        for columns in measures.channel_errors:
            error = errors_of(measures)[columns.scheme]
            every = columns.sqnr_db[~np.isnan(columns.sqnr_db)]
            assert error.channel_sqnr_min_db == every.min()
            assert error.channel_sqnr_p10_db == pytest.approx(np.quantile(every, 0.1))
            assert error.channel_sqnr_median_db == pytest.approx(np.median(every))
            assert error.channels_below_10db == np.count_nonzero(every < 10)


# --- true channels of a ConvTranspose ------------------------------------------------------------


def spread(*shape):
    """Weights of a ConvTranspose whose input channels differ by a factor of 40."""
    return gaussian(*shape) * np.geomspace(0.05, 2, shape[0], dtype=np.float32).reshape(-1, 1, 1, 1)


def upsampled(x, weights, groups):
    """What onnxruntime makes of it."""
    model = make_model(
        [node("ConvTranspose", ["x", "w"], ["y"], "n", group=groups)], {"w": weights}
    )
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


GROUPS = {"depthwise": ((12, 1, 4, 4), 12), "three": ((6, 2, 2, 2), 3), "one": ((6, 4, 2, 2), 1)}
grouped = pytest.mark.parametrize(("shape", "groups"), GROUPS.values(), ids=GROUPS)


@grouped
def test_every_output_channel_of_a_conv_transpose_has_a_row(layer_of, shape, groups):
    layer = layer_of("ConvTranspose", spread(*shape), group=groups)
    measures = measured(layer)
    assert layer.channel_axis == 1
    assert measures.layer.channel_count == groups * shape[1]
    assert measures.channels.channel.size == groups * shape[1]
    assert {columns.sqnr_db.size for columns in measures.channel_errors} == {groups * shape[1]}


@grouped
def test_a_row_is_what_makes_that_channel_of_the_output(layer_of, shape, groups):
    weights = spread(*shape)
    rows = layer_of("ConvTranspose", weights, group=groups).by_output_channel()
    x = np.random.default_rng(1).normal(size=(1, shape[0], 3, 3)).astype(np.float32)
    for channel in range(len(rows)):
        without = weights.copy()
        group, inside = divmod(channel, shape[1])
        own = slice(group * shape[0] // groups, (group + 1) * shape[0] // groups)
        np.testing.assert_array_equal(rows[channel], weights[own, inside].ravel())
        without[own, inside] = 0
        whole, less = (upsampled(x, array, groups) for array in (weights, without))
        changed = np.flatnonzero((whole != less).any(axis=(0, 2, 3)))
        assert changed.tolist() == [channel]


@grouped
@pytest.mark.parametrize("scheme", [TENSOR, CHANNEL])
def test_the_error_of_a_true_channel_is_that_of_the_stored_tensor(layer_of, shape, groups, scheme):
    """The file keeps one scale per entry of axis 1, for all groups; the error is each group's."""
    weights = spread(*shape)
    stored = np.moveaxis(weights, 1, 0).reshape(shape[1], -1)
    rounded = np.moveaxis(
        round_trip(stored, SCHEMES[scheme]).reshape(shape[1], shape[0], *shape[2:]), 0, 1
    )
    axes = (1, 3, 4)
    by_channel = (groups, shape[0] // groups, *shape[1:])
    energy = np.square(weights.astype(np.float64)).reshape(by_channel).sum(axis=axes)
    noise = np.square(rounded.astype(np.float64) - weights).reshape(by_channel).sum(axis=axes)
    measures = measured(layer_of("ConvTranspose", weights, group=groups))
    (columns,) = (one for one in measures.channel_errors if one.scheme == scheme)
    expected = 10 * np.log10(energy / noise).ravel()
    np.testing.assert_allclose(columns.sqnr_db, expected, atol=1e-3)


@grouped
@pytest.mark.parametrize("scheme", INT8_SCHEMES.values(), ids=INT8_SCHEMES)
def test_quick_and_plain_form_agree_on_shared_scales(layer_of, shape, groups, scheme):
    layer = layer_of("ConvTranspose", spread(*shape), group=groups)
    plain = measure_error(layer.by_output_channel(), scheme, sharing=groups)
    measures = measured(layer)
    (columns,) = (one for one in measures.channel_errors if one.scheme == scheme.name)
    np.testing.assert_allclose(columns.sqnr_db, plain.channel_sqnr_db, atol=1e-3)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_groups_are_as_many_convolutions_side_by_side(groups, outputs, inputs, seed):
    weights = gaussian(groups * inputs, outputs, 2, 2, seed=seed)
    stored = np.moveaxis(weights, 1, 0).reshape(outputs, -1)
    layer = linear_layer(
        stored, op_type="ConvTranspose", op_family="conv_transpose", shape=weights.shape,
        channel_axis=1, group_count=groups,
    )  # fmt: skip
    per_group = [np.moveaxis(part, 1, 0).reshape(outputs, -1) for part in np.split(weights, groups)]
    np.testing.assert_array_equal(layer.by_output_channel(), np.concatenate(per_group))


# --- input channels ------------------------------------------------------------------------------


def two_branches(ratio):
    """A convolution whose second half of inputs has weights so many times as large."""
    weights = gaussian(8, 12, 3, 3)
    weights[:, 6:] *= ratio
    return weights


def input_sqnr(weights, scheme):
    """By the plain definition, for a convolution of one group."""
    outputs, inputs = weights.shape[:2]
    rows = weights.reshape(outputs, -1)
    noise = (round_trip(rows, scheme).astype(np.float64) - rows).reshape(outputs, inputs, -1)
    energy = rows.astype(np.float64).reshape(outputs, inputs, -1)
    with np.errstate(divide="ignore"):
        return 10 * np.log10((energy**2).sum(axis=(0, 2)) / (noise**2).sum(axis=(0, 2)))


@pytest.mark.parametrize("scheme", INPUT_SCHEMES)
@pytest.mark.parametrize("ratio", [1, 40, 3000])
def test_input_channels_by_the_definition(layer_of, ratio, scheme):
    weights = two_branches(ratio)
    expected = input_sqnr(weights, SCHEMES[scheme])
    error = errors_of(measured(layer_of("Conv", weights)))[scheme]
    assert error.input_channels_below_10db == np.count_nonzero(expected < 10)
    assert error.input_channel_sqnr_p10_db == pytest.approx(np.quantile(expected, 0.1), abs=1e-3)


def lost_under(bits):
    scheme = Scheme("", bits, "channel", is_symmetric=True)
    return np.count_nonzero(input_sqnr(two_branches(3000), scheme) < 10)


def test_half_of_the_inputs_may_be_lost_where_every_output_is_fine(layer_of):
    measures = measured(layer_of("Conv", two_branches(3000)))
    error = errors_of(measures)[CHANNEL]
    assert error.channel_sqnr_p10_db > 40
    assert error.input_channels_below_10db == 6
    bits = {one.granularity: one.bits for one in measures.bits_needed}
    expected = next(number for number in range(2, 17) if lost_under(number) <= 3)
    assert bits["channel"] == expected > 10


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_other_schemes_have_no_figure_of_inputs(layer_of, scheme):
    error = errors_of(measured(layer_of("Conv", two_branches(1))))[scheme.name]
    assert (error.input_channels_below_10db is None) == (scheme.name not in INPUT_SCHEMES)


def test_inputs_of_groups_and_of_matrix_products(layer_of):
    assert input_channels(layer_of("Conv", gaussian(8, 3, 3, 3), group=4)).count == 12
    assert input_channels(layer_of("ConvTranspose", gaussian(6, 2, 2, 2), group=3)).count == 6
    assert input_channels(layer_of("MatMul", gaussian(5, 7))).count == 5
    assert input_channels(layer_of("Gemm", gaussian(5, 7), transB=1)).count == 7


def test_a_depthwise_convolution_has_none_beside_its_outputs(layer_of):
    assert input_channels(layer_of("Conv", gaussian(8, 1, 3, 3), group=8)) is None


def test_a_matrix_product_and_the_convolution_that_does_the_same_agree(layer_of):
    weights = two_branches(500)[:, :, 0, 0]
    product = errors_of(measured(layer_of("MatMul", np.ascontiguousarray(weights.T))))
    convolution = errors_of(measured(layer_of("Conv", weights[:, :, None, None])))
    for scheme in INPUT_SCHEMES:
        assert product[scheme] == convolution[scheme]
