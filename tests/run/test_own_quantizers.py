"""Networks with quantizers of QONNX run, and give what QONNX says that they give.

The referees are the definition of QONNX in numpy, ml_dtypes for floats of eight bits, and the
package qonnx with the networks that it brings along, where it is installed.
"""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from quantstore.errors import RunError
from quantstore.records import ABSORBED, NOTHING_ROUNDED
from quantstore.run import twin
from quantstore.run.choices import Choices
from quantstore.run.probe import Prober
from quantstore.run.probe_figures import WEIGHTS_ON_GRID
from quantstore.run.runtime import Session
from quantstore.run.simulate import OWN_QUANTIZERS_STAY, simulate
from quantstore.schemes import TARGETS
from tests.support.graphs import float_value, gaussian, make_model, node, save
from tests.support.trials import trial_of_model

DOMAIN = "qonnx.custom_op.general"
SHAPE = (2, 4, 3, 3)


def constants_of(parameters):
    return {f"p{index}": np.asarray(array, np.float32) for index, array in enumerate(parameters)}


def quantizer_alone(*parameters, op_type="Quant", opset=17, domain=DOMAIN, **attributes):
    """A network that is one quantizer, of ``x``."""
    constants = constants_of(parameters)
    made = node(op_type, ["x", *constants], ["y"], "quantizer", domain=domain, **attributes)
    model = make_model([made], constants, opset=opset)
    model.graph.input[0].CopyFrom(float_value("x", list(SHAPE)))
    return model


@pytest.fixture
def run(tmp_path):
    """What onnxruntime makes of an array, in a network that was opened to be run."""

    def of_model(model, array):
        opened = twin.open_float(save(model, tmp_path / "net.onnx"))
        (result,) = Session(twin.to_proto(opened)).run({opened.model.graph.inputs[0].name: array})
        return result

    return of_model


def numbers():
    """Values on both sides of every code, halves among them."""
    return np.concatenate([gaussian(60) * 3, np.arange(-6, 6)]).astype(np.float32).reshape(SHAPE)


ROUNDINGS = {
    "ROUND": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "DOWN": np.trunc,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),
}


def by_definition(x, scale, zero_point, bits, *, signed=1, narrow=0, mode="ROUND"):
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    scale, zero_point = np.asarray(scale, np.float32), np.asarray(zero_point, np.float32)
    codes = np.clip(x / scale + zero_point, np.float32(low), np.float32(high))
    return (ROUNDINGS[mode](codes) - zero_point) * scale


@pytest.mark.parametrize("mode", ROUNDINGS)
@pytest.mark.parametrize(
    ("scale", "zero_point", "bits", "signed", "narrow"),
    [
        (0.5, 0, 3, 1, 1),
        (0.1, 3, 4, 0, 0),
        (np.linspace(0.1, 0.4, 4).reshape(1, 4, 1, 1), 0, 8, 1, 0),
    ],
)
def test_quantizers_of_activations_give_what_the_definition_says(
    run, mode, scale, zero_point, bits, signed, narrow
):
    settings = {"signed": signed, "narrow": narrow}
    model = quantizer_alone(scale, zero_point, bits, rounding_mode=mode, **settings)
    expected = by_definition(numbers(), scale, zero_point, bits, mode=mode, **settings)
    np.testing.assert_array_equal(run(model, numbers()), expected)


def test_bipolar_quantizers_give_one_of_two_values(run):
    array = numbers()
    for model in (
        quantizer_alone(0.25, op_type="BipolarQuant", domain="onnx.brevitas"),
        quantizer_alone(0.25, 0, 1, signed=1, narrow=0),
    ):
        np.testing.assert_array_equal(run(model, array), np.where(array >= 0, 0.25, -0.25))


def test_truncation_drops_bits_of_activations(run):
    array = np.round(numbers() * 20)
    first = quantizer_alone(1, 0, 8, 4, op_type="Trunc", rounding_mode="FLOOR")
    np.testing.assert_array_equal(run(first, array), np.floor(array / 16))
    second = quantizer_alone(1, 0, 8, 16, 4, op_type="Trunc", rounding_mode="ROUND", signed=1)
    expected = np.round(np.clip(array / 16, -8, 7)) * 16
    np.testing.assert_array_equal(run(second, array), expected)


@pytest.mark.parametrize(
    ("parameters", "dtype"),
    [((4, 3, 7, 448), ml_dtypes.float8_e4m3fn), ((5, 2, 15, 57344), ml_dtypes.float8_e5m2)],
)
def test_floats_of_eight_bits_are_those_of_ml_dtypes(run, parameters, dtype):
    array = (np.exp(3 * numbers()) * np.sign(gaussian(*SHAPE))).astype(np.float32)
    array[0, 0, 0] = [0, 2**-9, 1e-5]
    largest = np.float32(parameters[-1])
    model = quantizer_alone(
        2, *parameters, op_type="FloatQuant", has_inf=0, has_nan=0, saturation=1
    )
    expected = np.clip(array / 2, -largest, largest).astype(dtype).astype(np.float32) * 2
    np.testing.assert_array_equal(run(model, array), expected)


def test_a_file_of_an_old_operator_set_that_does_not_name_the_domain_runs(run):
    model = quantizer_alone(0.5, 0, 3, opset=9, signed=1, narrow=0)
    del model.opset_import[1:]
    expected = by_definition(numbers(), 0.5, 0, 3)
    np.testing.assert_array_equal(run(model, numbers()), expected)


def test_a_quantizer_in_a_branch_runs(run):
    inner = helper.make_graph(
        [node("Quant", ["x", "p0", "p1", "p2"], ["b"], "q", domain=DOMAIN, signed=1, narrow=0)],
        "then",
        [],
        [float_value("b")],
    )
    other = helper.make_graph([node("Neg", ["x"], ["c"], "n")], "else", [], [float_value("c")])
    choice = node("If", ["flag"], ["y"], "if", then_branch=inner, else_branch=other)
    model = make_model([choice], {**constants_of((0.5, 0, 3)), "flag": np.array(True)})
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    np.testing.assert_array_equal(run(model, numbers()), by_definition(numbers(), 0.5, 0, 3))


def test_a_quantizer_that_cannot_be_run_is_named_with_the_reason(tmp_path):
    computed = quantizer_alone(0.5, 0, 3)
    computed.graph.node.insert(0, node("ReduceMax", ["x"], ["s"], "largest"))
    computed.graph.node[1].input[1] = "s"
    endless = quantizer_alone(1, 4, 3, 7, 448, op_type="FloatQuant", saturation=0)
    for model, reason in (
        (computed, "computed when the network runs"),
        (quantizer_alone(0.5, 0, 99), "bit width of 99"),
        (quantizer_alone(0.5, 0, 4, rounding_mode="SIDEWAYS"), "rounding mode SIDEWAYS"),
        (quantizer_alone(0.5), "lacks its scale or its bit width"),
        (endless, "does not saturate"),
    ):
        with pytest.raises(RunError, match=reason) as failure:
            twin.open_float(save(model, tmp_path / "net.onnx"))
        assert "'quantizer'" in failure.value.sentence


# What a target rounds


def network():
    """Two convolutions with quantized weights, each with a quantizer of four bits behind it."""
    settings = {"domain": DOMAIN, "signed": 1, "narrow": 1}
    nodes = [
        node("Quant", ["w", "p0", "p1", "p2"], ["wq"], "weights", **settings),
        node("Conv", ["x", "wq"], ["h"], "first"),
        node("Quant", ["h", "p3", "p1", "p2"], ["a"], "between", **settings),
        node("Conv", ["a", "v"], ["y"], "second"),
    ]
    constants = constants_of((0.2, 0, 4, 0.5)) | {
        "w": gaussian(4, 4, 1, 1),
        "v": gaussian(3, 4, 1, 1),
    }
    model = make_model(nodes, constants)
    model.graph.input[0].CopyFrom(float_value("x", list(SHAPE)))
    return model


def test_nothing_within_a_quantizer_is_rounded(tmp_path):
    """What goes in and what comes out is: a target does not know that it lies on a grid."""
    model = twin.to_proto(twin.open_float(save(network(), tmp_path / "net.onnx")))
    trial = trial_of_model(model, tmp_path, feed=lambda seed: {"x": gaussian(*SHAPE, seed=seed)})
    placed = trial.placed(TARGETS["int8_tensor"])
    assert set(placed.grid_of) == {"x", "h", "a", "y"}
    assert placed.constants == ()


def test_what_reads_a_quantizer_of_scale_one_is_rounded_all_the_same(tmp_path):
    """onnxruntime drops a product with one."""
    for number, quantizer in enumerate(
        (
            quantizer_alone(1, op_type="BipolarQuant"),
            quantizer_alone(1, 0, 4, signed=1, narrow=1),
            quantizer_alone(1, 2, 4, signed=0, narrow=0),
            quantizer_alone(1, 4, 3, 7, 448, op_type="FloatQuant", saturation=1),
        )
    ):
        folder = tmp_path / str(number)
        quantizer.graph.node.append(node("Conv", ["y", "w"], ["z"], "layer"))
        quantizer.graph.initializer.append(numpy_helper.from_array(gaussian(3, 4, 1, 1), "w"))
        quantizer.graph.output[0].name = "z"
        model = twin.to_proto(twin.open_float(save(quantizer, folder / "net.onnx")))
        trial = trial_of_model(model, folder, feed=lambda seed: {"x": gaussian(*SHAPE, seed=seed)})
        assert set(trial.placed(TARGETS["int8_tensor"]).grid_of) == {"y", "z"}


@pytest.mark.slow
def test_the_probe_measures_targets_on_top_of_the_quantizers(tmp_path, prober: Prober):
    prober.start(save(network(), tmp_path / "net.onnx"))
    records = prober.result()
    assert {record.failure for record in records} == {None}
    assert all(10 < record.output_sqnr_db < 80 for record in records if record.target)


def test_a_run_compares_the_tensors_of_the_file_and_says_what_is_the_reference(tmp_path):
    np.save(tmp_path / "x.npy", np.stack([gaussian(*SHAPE[1:], seed=seed) for seed in range(4)]))
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    made = simulate(
        save(model, tmp_path / "net.onnx"), str(tmp_path / "x.npy"), Choices(target="int8_tensor")
    )
    assert OWN_QUANTIZERS_STAY in made.notes
    compared = {record.tensor: record.node_name for record in made.activation_errors}
    assert compared == {"h": "first", "a": "between", "y": "second"}


@pytest.mark.parametrize(
    ("op_type", "why_none"), [("BipolarQuant", WEIGHTS_ON_GRID), ("Quant", None)]
)
def test_weights_come_back_as_they_were_where_their_grid_fits(tmp_path, prober, op_type, why_none):
    """127 is a multiple of the largest code of a bipolar grid, and of none of four bits."""
    model = network()
    first, *_, last = model.graph.node
    last.input[1] = "wq"
    first.op_type = op_type
    del first.input[2 if op_type == "BipolarQuant" else 4 :]
    prober.start(save(model, tmp_path / "net.onnx"))
    (record,) = (each for each in prober.result() if each.target == "int8_weights")
    assert record.failure == why_none
    assert np.isnan(record.output_sqnr_db) == (why_none is not None)


def test_what_the_quantizers_absorb_is_told_as_such(tmp_path, prober):
    """Signs stay: sums of three weights are never close to zero, and int8 moves them by little."""
    nodes = [
        node("BipolarQuant", ["x", "p0"], ["a"], "before", domain=DOMAIN),
        node("Conv", ["a", "w"], ["h"], "layer"),
        node("BipolarQuant", ["h", "p0"], ["y"], "behind", domain=DOMAIN),
    ]
    weights = np.array([1, 0.9, 0.8], np.float32).reshape(1, 3, 1, 1)
    model = make_model(nodes, constants_of([1]) | {"w": weights})
    model.graph.input[0].CopyFrom(float_value("x", [1, 3, 8, 8]))
    path = save(model, tmp_path / "net.onnx")
    prober.start(path)
    assert {record.failure for record in prober.result()} == {ABSORBED}
    np.save(tmp_path / "x.npy", gaussian(4, 3, 8, 8))
    made = simulate(path, str(tmp_path / "x.npy"), Choices(target="int8_tensor"))
    assert made.record.failure == ABSORBED
    assert made.record.failure in NOTHING_ROUNDED


# The package qonnx


@pytest.mark.parametrize(
    "name",
    [
        "bsd300x3-espcn/subpixel/quant_model.onnx",
        "bsd300x3-espcn/nn_resize/quant_model.onnx",
        "floatquant_exec/qonnx_act_weight_fp8.onnx",
        "eltwise_chanlast_testcase.onnx",
    ],
)
def test_networks_of_the_package_qonnx_give_what_it_gives(run, name):
    package = pytest.importorskip("qonnx", reason="qonnx is not installed")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.util.cleanup import cleanup_model

    model = onnx.load(Path(package.__file__).parent / "data" / "onnx" / name)
    constants = {tensor.name for tensor in model.graph.initializer}
    (fed,) = (value for value in model.graph.input if value.name not in constants)
    shape = [size.dim_value for size in fed.type.tensor_type.shape.dim]
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    for domain in ("onnx.brevitas", "qonnx.custom_op.general"):
        if domain not in {used.domain for used in model.opset_import}:
            model.opset_import.append(helper.make_opsetid(domain, 1))
    whole = cleanup_model(ModelWrapper(model))
    (expected,) = execute_onnx(whole, {whole.graph.input[0].name: array}).values()
    # A sum in another order may end on the other side of a half, one code away.
    difference = np.square(run(model, array) - expected).sum() / np.square(expected).sum()
    assert difference < 1e-6
