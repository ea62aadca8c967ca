"""Files with the quantizers of QONNX: what they make of constants, and what is said of the rest.

The authority is QONNX: its table of rounding modes and its examples, and its package, where it is
installed.
"""

from itertools import product

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from quantstore import graph, store
from quantstore.errors import ModelFileError
from quantstore.graph.findings.own_quantizers import OWN_QUANTIZERS
from quantstore.graph.qonnx import quantized
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.measure_file import measure_file
from tests.support.graphs import gaussian, make_model, node, save

DOMAIN = "qonnx.custom_op.general"


def scalar(number):
    return np.array(number, np.float32)


def quant(array, scale, zero_point, bits, **attributes):
    """What a Quant node makes of an array."""
    made = ir.Node(DOMAIN, "Quant", [], [ir.convenience.convert_attribute(k, v) for k, v in
                                         attributes.items()])  # fmt: skip
    parameters = [np.asarray(value, np.float32) for value in (scale, zero_point, bits)]
    return quantized(made, [np.asarray(array, np.float32), *parameters])


# The definition

# https://github.com/fastmachinelearning/qonnx/blob/main/docs/qonnx-custom-ops/intquant_op.md
NUMBERS = (5.5, 2.5, 1.6, 1.1, 1.0, -1.0, -1.1, -1.6, -2.5, -5.5)
ROUNDED = {
    "UP": (6, 3, 2, 2, 1, -1, -2, -2, -3, -6),
    "DOWN": (5, 2, 1, 1, 1, -1, -1, -1, -2, -5),
    "CEIL": (6, 3, 2, 2, 1, -1, -1, -1, -2, -5),
    "FLOOR": (5, 2, 1, 1, 1, -1, -2, -2, -3, -6),
    "HALF_UP": (6, 3, 2, 1, 1, -1, -1, -2, -3, -6),
    "HALF_DOWN": (5, 2, 2, 1, 1, -1, -1, -2, -2, -5),
    "HALF_EVEN": (6, 2, 2, 1, 1, -1, -1, -2, -2, -6),
    "ROUND": (6, 2, 2, 1, 1, -1, -1, -2, -2, -6),
    "round": (6, 2, 2, 1, 1, -1, -1, -2, -2, -6),
}


@pytest.mark.parametrize("mode", ROUNDED)
def test_every_rounding_mode_is_the_one_of_the_table(mode):
    result = quant(NUMBERS, 1, 0, 8, signed=1, narrow=0, rounding_mode=mode)
    np.testing.assert_array_equal(result, ROUNDED[mode])


@pytest.mark.parametrize(
    ("signed", "narrow", "low", "high"),
    [(1, 1, -127, 127), (1, 0, -128, 127), (0, 1, 0, 254), (0, 0, 0, 255)],
)
def test_codes_end_where_the_examples_of_the_definition_do(signed, narrow, low, high):
    result = quant([-1000, 1000], 1, 0, 8, signed=signed, narrow=narrow)
    np.testing.assert_array_equal(result, [low, high])


def test_one_bit_with_a_sign_is_bipolar():
    np.testing.assert_array_equal(
        quant([-2, -0.1, 0, 3], 0.5, 0, 1, signed=1), [-0.5, -0.5, 0.5, 0.5]
    )


def test_a_zero_point_shifts_the_codes():
    result = quant([-1.0, 0.0, 0.26, 9.0], 0.25, 3, 4, signed=0, narrow=0)
    np.testing.assert_array_equal(result, [-0.75, 0.0, 0.25, 3.0])


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20),
    st.sampled_from((0.125, 0.3, 2.0)),
    st.integers(2, 8),
    st.booleans(),
    st.booleans(),
)
def test_what_is_quantized_lies_on_the_grid_and_stays_there(numbers, scale, bits, signed, narrow):
    settings = {"signed": int(signed), "narrow": int(narrow)}
    once = quant(numbers, scale, 0, bits, **settings)
    codes = np.rint(once / np.float32(scale))
    assert np.unique(codes).size <= 2**bits
    np.testing.assert_allclose(once, codes * np.float32(scale), rtol=1e-6)
    np.testing.assert_array_equal(quant(once, scale, 0, bits, **settings), once)


def test_the_package_of_qonnx_agrees_on_floats():
    module = pytest.importorskip(
        "qonnx.custom_op.general.floatquant", reason="qonnx is not installed"
    )
    array, scale = np.exp(4 * gaussian(40, 50)), np.float32(0.7)
    all_parameters = [(4, 3, 7, 448), (5, 2, 15, 57344), (3, 0, 3, 16), (2, 3, 1, 7.5)]
    for mode, parameters in product(ROUNDED, all_parameters):
        floats = [scalar(number) for number in parameters]
        made = ir.Node(DOMAIN, "FloatQuant", [], [ir.AttrString("rounding_mode", mode)])
        expected = module.float_quant(
            array, scale, *floats[:3], max_val=floats[3], rounding_mode=mode
        )
        # It multiplies in double precision.
        np.testing.assert_allclose(quantized(made, [array, scale, *floats]), expected, rtol=1e-7)


def test_the_package_of_qonnx_agrees_to_the_bit():
    module = pytest.importorskip(
        "qonnx.custom_op.general.intquant", reason="qonnx is not installed"
    )
    array, scale = gaussian(6, 5), np.float32(0.07)
    for mode, bits, signed, narrow in product(ROUNDED, (1, 3, 8), (0, 1), (0, 1)):
        expected = module.int_quant(array, scale, scalar(2), scalar(bits), signed, narrow, mode)
        result = quant(array, scale, 2, bits, signed=signed, narrow=narrow, rounding_mode=mode)
        np.testing.assert_array_equal(result, expected)


# Weights of layers


def network(weights, *parameters, op_type="Quant", domain=DOMAIN, between=(), **attributes):
    """A matrix product whose weights pass through a quantizer, and perhaps through other nodes."""
    constants = {"w": weights} | {
        f"p{number}": np.asarray(value, np.float32) for number, value in enumerate(parameters)
    }
    last = "q" if not between else between[-1].output[0]
    nodes = [
        node(op_type, [*constants], ["q"], "quantizer", domain=domain, **attributes),
        *between,
        node("MatMul", ["x", last], ["y"], "layer"),
    ]
    model = make_model(nodes, constants)
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


@pytest.fixture
def only_layer(tmp_path):
    def run(model):
        file = graph.open_any(save(model, tmp_path / "m.onnx"))
        survey = graph.survey(file)
        assert survey.unread == ()
        (site,) = survey.sites
        return graph.read_or_reason(file, site)

    return run


@pytest.mark.parametrize("domain", [DOMAIN, "onnx.brevitas"])
@pytest.mark.parametrize("op_type", ["Quant", "IntQuant"])
def test_a_quantizer_on_weights_marks_the_layer_as_lying_on_its_grid(only_layer, domain, op_type):
    w, scale = gaussian(8, 5), 0.2
    model = network(w, scale, 0, 4, op_type=op_type, domain=domain, signed=1, narrow=1)
    layer = only_layer(model)
    assert layer.already_quantized
    assert layer.stored_scheme == "float on an int4 grid per tensor"
    assert layer.stored_step == pytest.approx(scale)
    expected = np.rint(np.clip(w / np.float32(scale), -7, 7)) * np.float32(scale)
    np.testing.assert_allclose(layer.weights, expected.T, rtol=1e-6)


def test_each_channel_may_have_a_scale_of_its_own(only_layer):
    scale = np.linspace(0.1, 0.5, 5).reshape(1, 5)
    layer = only_layer(network(gaussian(8, 5), scale, np.zeros((1, 5)), 3, signed=0, narrow=0))
    assert layer.stored_scheme == "float on a uint3 grid per channel"
    assert layer.stored_step == pytest.approx(0.5)


def test_a_bipolar_quantizer_leaves_two_values(only_layer):
    layer = only_layer(network(gaussian(8, 5), 0.25, op_type="BipolarQuant"))
    assert layer.stored_scheme == "float on a bipolar grid per tensor"
    assert set(np.unique(layer.weights)) == {-0.25, 0.25}


@pytest.mark.parametrize(
    ("parameters", "attributes", "expected", "bits"),
    [
        # Scale, zero point, bits before and behind: 4 fewer bits divide codes by 16.
        ((1, 0, 8, 4), {"rounding_mode": "FLOOR"}, np.floor, 4),
        # A scale for what comes out, too; codes are clamped.
        ((1, 0, 8, 16, 4), {"rounding_mode": "ROUND", "signed": 1, "narrow": 0}, np.round, 4),
    ],
)
def test_truncation_drops_bits(only_layer, parameters, attributes, expected, bits):
    codes = np.arange(-96, 96, 16, dtype=np.float32).reshape(3, 4) + 9
    layer = only_layer(network(codes, *parameters, op_type="Trunc", **attributes))
    factor = 16 if len(parameters) == 5 else 1
    np.testing.assert_array_equal(layer.weights, (expected(codes / 16) * factor).T)
    assert layer.stored_scheme == f"float on an int{bits} grid per tensor"
    assert layer.stored_step == factor


def test_floats_of_eight_bits_mark_the_layer_too(only_layer):
    w = gaussian(8, 5)
    layer = only_layer(network(w, 1, 4, 3, 7, 448, op_type="FloatQuant", saturation=1))
    assert (layer.stored_scheme, layer.stored_step) == ("float8 e4m3 per tensor", None)
    np.testing.assert_array_equal(layer.weights, w.astype(ml_dtypes.float8_e4m3fn).T)


def test_a_transposed_quantizer_keeps_its_grid_and_arithmetic_moves_it(only_layer):
    turned = node("Transpose", ["q"], ["t"], "turn", perm=[1, 0])
    layer = only_layer(network(gaussian(8, 5), 0.2, 0, 4, between=[turned]))
    assert layer.stored_scheme == "float on an int4 grid per tensor"
    doubled = node("Add", ["q", "q"], ["t"], "twice")
    layer = only_layer(network(gaussian(8, 5), 0.2, 0, 4, between=[doubled]))
    assert layer.stored_step == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("parameters", "attributes"),
    [
        ((0.2, 0, -3), {}),
        ((0.2, 0, 1e30), {}),
        ((0.2, 0, np.nan), {}),
        ((0.2, 0, [2, 3]), {}),
        ((np.ones((5, 8, 5)), 0, 4), {}),
        ((np.ones((9, 9)), 0, 4), {}),
        ((0.2, 0, 4), {"rounding_mode": "SIDEWAYS"}),
        ((0.2,), {}),
        ((), {}),
    ],
)
def test_settings_that_no_quantizer_has_leave_the_layer_unread_and_said(
    tmp_path, parameters, attributes
):
    other = node("MatMul", ["y", "v"], ["z"], "second")
    model = network(gaussian(8, 5), *parameters, **attributes)
    model.graph.node.append(other)
    model.graph.initializer.append(ir.to_proto(ir.tensor(gaussian(5, 3), name="v")))
    measured = measure_file(save(model, tmp_path / "m.onnx"))
    assert [layer.layer.layer for layer in measured.layers] == ["second"]
    assert "unread" in {finding.kind for finding in measured.findings}


def test_a_scale_that_is_no_number_gives_none_and_that_is_said(tmp_path):
    measured = measure_file(save(network(gaussian(8, 5), np.nan, 0, 4), tmp_path / "m.onnx"))
    assert measured.layers[0].layer.nonfinite_count == 40


# Activations


def quantized_activations():
    model = network(gaussian(8, 5), 0.2, 0, 4)
    model.graph.node.append(
        node("Quant", ["y", "p0", "p1", "p2"], ["a"], "activation", domain=DOMAIN)
    )
    model.graph.node.append(node("MatMul", ["a", "v"], ["z"], "second"))
    model.graph.initializer.append(ir.to_proto(ir.tensor(gaussian(5, 3), name="v")))
    model.graph.output[0].name = "z"
    return model


def test_quantizers_of_activations_are_counted_and_said(tmp_path):
    path = save(quantized_activations(), tmp_path / "m.onnx")
    measured = measure_file(path)
    (finding,) = [each for each in measured.findings if each.kind == OWN_QUANTIZERS.name]
    assert "1 activation " in finding.message
    assert any('"Quant": 1' in edge.operators for edge in measured.graph_edges)


@pytest.mark.slow
def test_a_file_is_stored_as_qonnx_with_its_targets_measured(tmp_path, prober):
    path = tmp_path / "s.duckdb"
    ingest_file(save(quantized_activations(), tmp_path / "m.onnx"), path, prober=prober)
    with store.reading(path) as con:
        assert con.rows("select file_format from models") == [("QONNX",)]
        assert con.rows("select distinct failure from simulations") == [(None,)]
        assert con.rows("select count(*) from verdicts where verdict = 'untested'") < con.rows(
            "select count(*) from targets"
        )


def test_a_quantizer_of_another_domain_is_another_operator(tmp_path):
    with pytest.raises(ModelFileError, match="fed by Quant"):
        measure_file(save(network(gaussian(8, 5), 0.2, 0, 4, domain="mine"), tmp_path / "m.onnx"))
