"""A float model that runs, and the same with weights from our own grid: wherever they are kept."""

import dataclasses

import numpy as np
import onnx.version_converter
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantstore.errors import RunError
from quantstore.numerics.quantization import round_trip
from quantstore.run import twin
from quantstore.run.comparison import sqnr_db
from quantstore.run.runtime import Session, quantizable, raise_opset
from quantstore.schemes import SCHEMES
from tests.support.graphs import (
    as_stored,
    conv_model,
    float_value,
    gaussian,
    layers_of,
    make_model,
    node,
    save,
)
from tests.support.referees import quantize_file

TENSOR = SCHEMES["int8_tensor_symmetric"]
every_scheme = pytest.mark.parametrize(
    "scheme",
    [SCHEMES[name] for name in ("int8_tensor_asymmetric", "int4_channel_symmetric")],
    ids=lambda scheme: scheme.name,
)


@pytest.fixture
def opened(tmp_path):
    """Saves a model and opens it as a float model."""
    return lambda model: twin.open_float(save(model, tmp_path / "net.onnx"))


def outputs(model, **feeds):
    return Session(twin.to_proto(model)).run(feeds)


def fake_quantized(model, scheme, *, fold=True):
    """The same model with every layer's weights on the grid."""
    slots = twin.lift_weights(model, fold=fold).slots
    twin.fill(slots, [on_grid(model, slot, scheme) for slot in slots])
    return slots


def on_grid(model, slot, scheme):
    return twin.rounded_weights(model, slot, scheme).values


def batchnorm(channels, *, seed=1):
    random = np.random.default_rng(seed)
    return {
        "gamma": random.uniform(0.5, 20, channels).astype(np.float32),
        "beta": gaussian(channels),
        "mean": gaussian(channels, seed=3),
        "variance": random.uniform(0.1, 4, channels).astype(np.float32),
    }


# --- weights on our grid -----------------------------------------------------------------------


def test_weights_are_rounded_anew_only_where_the_scheme_or_a_scale_is_another(opened):
    model = opened(conv_model())
    (slot,) = twin.lift_weights(model).slots
    scheme, other = SCHEMES["int8_channel_symmetric"], SCHEMES["int4_channel_symmetric"]
    first = twin.rounded_weights(model, slot, scheme)
    too_small, larger = first.scale / 2, first.scale * 2
    assert twin.rounded_weights(model, slot, scheme, too_small) is first
    raised = twin.rounded_weights(model, slot, scheme, larger)
    np.testing.assert_array_equal(raised.scale, larger)
    codes = raised.values.reshape(len(larger), -1) / larger[:, np.newaxis]
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-5)
    assert not np.array_equal(twin.rounded_weights(model, slot, other).values, first.values)
    np.testing.assert_array_equal(twin.rounded_weights(model, slot, scheme).values, first.values)


@every_scheme
def test_the_weights_that_run_are_the_ones_that_are_measured(opened, tmp_path, scheme):
    model = opened(conv_model())
    (layer,) = layers_of(tmp_path / "net.onnx")
    (slot,) = twin.lift_weights(model).slots
    found = on_grid(model, slot, scheme)
    expected = round_trip(layer.weights, scheme).reshape(layer.shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
@every_scheme
def test_behind_a_batchnorm_the_folded_weights_lie_on_the_grid(opened, tmp_path, scheme, op_type):
    weights = gaussian(4, 3, 3, 3) if op_type == "Conv" else gaussian(4, 2, 3, 3)
    group = 1 if op_type == "Conv" else 2
    norm = batchnorm(4)
    nodes = [
        node(op_type, ["x", "w"], ["h"], group=group),
        node("BatchNormalization", ["h", *norm], ["y"]),
    ]
    model = opened(make_model(nodes, {"w": weights, **norm}))
    (layer,) = layers_of(tmp_path / "net.onnx")
    (slot,) = twin.lift_weights(model).slots
    found = on_grid(model, slot, scheme) * slot.factor
    expected = as_stored(dataclasses.replace(layer, weights=round_trip(layer.weights, scheme)))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


def test_a_batchnorm_left_alone_leaves_the_raw_weights_to_the_grid(opened):
    norm = batchnorm(4)
    nodes = [node("Conv", ["x", "w"], ["h"]), node("BatchNormalization", ["h", *norm], ["y"])]
    weights = gaussian(4, 3, 3, 3)
    model = opened(make_model(nodes, {"w": weights, **norm}))
    (slot,) = twin.lift_weights(model, fold=False).slots
    expected = round_trip(weights.reshape(4, -1), TENSOR).reshape(weights.shape)
    np.testing.assert_array_equal(on_grid(model, slot, TENSOR), expected)


def test_a_channel_that_batchnorm_erases_keeps_its_weights(opened):
    norm = batchnorm(2)
    norm["gamma"][0] = 0
    nodes = [node("Conv", ["x", "w"], ["h"]), node("BatchNormalization", ["h", *norm], ["y"])]
    weights = gaussian(2, 3, 1)
    model = opened(make_model(nodes, {"w": weights, **norm}))
    (slot,) = twin.lift_weights(model).slots
    found = on_grid(model, slot, TENSOR)
    np.testing.assert_array_equal(found[0], weights[0])
    assert np.isfinite(found).all()


def test_weights_in_half_precision_run_in_single_precision_unchanged(opened):
    halves = gaussian(4, 4).astype(np.float16)
    model = make_model([node("MatMul", ["x", "w"], ["y"])], {"w": halves})
    (slot,) = twin.lift_weights(opened(model)).slots
    found = twin.float_weights(slot)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, halves)


# --- wherever weights are kept -----------------------------------------------------------------


def shared():
    nodes = [node("MatMul", ["x", "w"], ["h"], "a"), node("MatMul", ["h", "w"], ["y"], "b")]
    return make_model(nodes, {"w": gaussian(4, 4)})


def in_a_constant():
    value = numpy_helper.from_array(gaussian(4, 4), "w")
    nodes = [
        node("Constant", [], ["w"], value=value),
        node("Identity", ["w"], ["v"]),
        node("MatMul", ["x", "v"], ["y"]),
    ]
    return make_model(nodes, {})


def in_a_branch():
    def branch(name, seed):
        weights = numpy_helper.from_array(gaussian(4, 4, seed=seed), f"w_{name}")
        inside = [node("MatMul", ["x", f"w_{name}"], [f"y_{name}"])]
        return helper.make_graph(inside, name, [], [float_value(f"y_{name}")], [weights])

    choice = node("If", ["flag"], ["y"], then_branch=branch("a", 1), else_branch=branch("b", 2))
    flag = node("Constant", [], ["flag"], value=helper.make_tensor("f", TensorProto.BOOL, [], [1]))
    return make_model([flag, choice], {})


@pytest.mark.parametrize(("make", "layers"), [(shared, 2), (in_a_constant, 1), (in_a_branch, 2)])
def test_every_layer_gets_weights_of_its_own_wherever_the_file_keeps_them(opened, make, layers):
    model = opened(make())
    x = gaussian(3, 4, seed=5)
    (before,) = outputs(model, x=x)
    slots = twin.lift_weights(model).slots
    assert [slot.depth for slot in slots] == list(range(layers))
    np.testing.assert_array_equal(outputs(model, x=x)[0], before)
    twin.fill(slots, [on_grid(model, slot, TENSOR) for slot in slots])
    assert 20 < sqnr_db(before, outputs(model, x=x)[0]) < 60


def test_weights_are_held_once_and_what_nobody_reads_is_no_layer(opened):
    model = opened(
        make_model(
            [
                node("Conv", ["x", "w"], ["h"], "first"),
                node("Conv", ["h", "w"], ["y"], "second"),
                node("Conv", ["h", "v"], ["z"], "dead"),
            ],
            {"w": gaussian(3, 3, 1, 1), "v": gaussian(4, 3, 1, 1)},
        )
    )
    lifted = twin.lift_weights(model)
    assert [slot.site.name for slot in lifted.slots] == ["first", "second"]
    assert set(model.model.graph.initializers) == {slot.value.name for slot in lifted.slots}


def test_a_model_of_our_own_is_read_as_its_file_would_be(opened, tmp_path):
    made = make_model(
        [node("Conv", ["x", "w"], ["h"]), node("Gemm", ["h", "v"], ["y"])],
        {"w": gaussian(3, 3, 1, 1), "v": gaussian(3, 2)},
    )
    from_file = twin.to_proto(opened(made))
    assert twin.to_proto(twin.own_float_model(made, tmp_path / "net.onnx")) == from_file


def test_one_of_two_layers_that_share_weights_can_be_quantized_alone(opened):
    model = opened(shared())
    first, second = twin.lift_weights(model).slots
    twin.fill([first], [on_grid(model, first, TENSOR)])
    x, w = gaussian(3, 4, seed=5), gaussian(4, 4)
    rounded = on_grid(model, first, TENSOR)
    np.testing.assert_allclose(outputs(model, x=x)[0], x @ rounded @ w, rtol=1e-5, atol=1e-6)
    assert second.value.const_value is not first.value.const_value


def test_weights_that_are_inputs_give_the_same_as_weights_that_are_stored(opened):
    x = gaussian(3, 4, seed=5)
    model = opened(shared())
    fake_quantized(model, TENSOR)
    (stored,) = outputs(model, x=x)
    model = opened(shared())
    slots = twin.lift_weights(model).slots
    twin.weights_as_inputs(model, slots)
    weights = {slot.value.name: on_grid(model, slot, TENSOR) for slot in slots}
    (fed,) = outputs(model, x=x, **weights)
    np.testing.assert_allclose(fed, stored, rtol=1e-5, atol=1e-6)


def test_an_initializer_that_an_old_file_lists_as_an_input_is_none(opened):
    model = make_model(
        [node("MatMul", ["x", "w"], ["y"])], {"w": gaussian(4, 4)}, inputs=("x", "w"), ir_version=3
    )
    found = opened(model).model
    assert [value.name for value in found.graph.inputs] == ["x"]
    assert found.ir_version >= 8


def test_an_image_scaler_becomes_plain_arithmetic(opened):
    nodes = [
        node("ImageScaler", ["x"], ["s"], "scaler", scale=0.5, bias=[1.0, 2.0, 3.0]),
        node("Conv", ["s", "w"], ["y"]),
    ]
    identity = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    x = gaussian(1, 3, 2, 2)
    expected = 0.5 * x + np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)
    (found,) = outputs(opened(make_model(nodes, {"w": identity})), x=x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# --- files that compute with integers ----------------------------------------------------------


def small_network(tmp_path):
    """Two convolutions and a linear layer, and what it is calibrated on."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["h1"], "first"),
        node("Relu", ["h1"], ["h2"]),
        node("Conv", ["h2", "w2", "b2"], ["h3"], "second"),
        node("Add", ["h3", "h2"], ["h4"], "residual"),
        node("GlobalAveragePool", ["h4"], ["h5"], "pool"),
        node("Flatten", ["h5"], ["h6"], "flat"),
        node("MatMul", ["h6", "w3"], ["y"], "linear"),
    ]
    weights = {
        "w1": gaussian(4, 3, 1, 1),
        "b1": gaussian(4),
        "w2": gaussian(4, 4, 1, 1),
        "b2": gaussian(4, seed=2),
        "w3": gaussian(4, 5),
    }
    model = make_model(nodes, weights)
    shape = model.graph.input[0].type.tensor_type.shape
    for size in (1, 3, 4, 4):
        shape.dim.add().dim_value = size
    samples = [{"x": gaussian(1, 3, 4, 4, seed=seed)} for seed in range(8)]
    return save(model, tmp_path / "float.onnx"), samples


def quantized_by_onnxruntime(form, source, target, samples):
    quantization = pytest.importorskip("onnxruntime.quantization")
    if form == "dynamic":
        quantization.quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["Conv", "MatMul"],
            weight_type=quantization.QuantType.QUInt8,
        )
        return

    class Reader(quantization.CalibrationDataReader):
        left = iter(samples)

        def get_next(self):
            return next(self.left, None)

    quantization.quantize_static(
        source,
        target,
        Reader(),
        quant_format=getattr(quantization.QuantFormat, form),
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=False,
    )


@pytest.mark.parametrize("form", ["dynamic", "QDQ", "QOperator"])
def test_a_file_of_integers_becomes_the_float_model_of_its_own_weights(tmp_path, form):
    source, samples = small_network(tmp_path)
    target = tmp_path / f"{form}.onnx"
    quantized_by_onnxruntime(form, source, target, samples)
    model = twin.open_float(target)
    assert model.was_quantized
    left = {one.op_type for one in model.model.graph}
    assert not {name for name in left if "Linear" in name or "Integer" in name}, left
    # The rounding of the weights stays, that of the activations goes.
    (known,) = Session(source).run(samples[0])
    (found,) = outputs(model, **samples[0])
    assert 25 < sqnr_db(known, found) < 60
    slots = twin.lift_weights(model).slots
    assert len(slots) == 3
    on_their_grid = "int8_tensor_asymmetric" if form == "dynamic" else "int8_tensor_symmetric"
    for slot in slots:
        weights = twin.float_weights(slot)
        again = on_grid(model, slot, SCHEMES[on_their_grid])
        assert sqnr_db(weights, again) > 100


def test_a_float_file_stays_as_it_is(opened):
    assert not opened(conv_model()).was_quantized


# --- onnxruntime -------------------------------------------------------------------------------


def test_a_refusal_keeps_the_words_of_onnxruntime_on_one_line(opened):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Nonsense", ["h"], ["y"], "no\x1bsense")]
    with pytest.raises(RunError) as caught:
        outputs(opened(make_model(nodes, {"w": gaussian(2, 2)})))
    assert caught.value.sentence.startswith("onnxruntime rejects the model: ")
    assert "Nonsense" in caught.value.sentence
    assert "\x1b" not in caught.value.sentence
    assert "[ONNXRuntimeError]" not in caught.value.sentence


def test_a_missing_input_and_a_wrong_shape_are_named(opened):
    model = opened(make_model([node("MatMul", ["x", "w"], ["y"])], {"w": gaussian(2, 2)}))
    with pytest.raises(RunError, match="input 'x' has no array"):
        outputs(model)
    with pytest.raises(RunError, match="onnxruntime stops: "):
        outputs(model, x=gaussian(3, 5))


def test_per_channel_works_for_an_old_operator_set_because_it_is_raised(tmp_path):
    """DequantizeLinear has no axis before 13, and onnxruntime does not care until it loads it."""
    model = conv_model()
    model.opset_import[0].version = 11
    samples = [{"x": gaussian(1, 3, 8, 8, seed=seed)} for seed in range(2)]
    assert raise_opset(model).opset_import[0].version == 13
    source = quantizable(model, tmp_path)
    target = quantize_file(source, tmp_path / "q.onnx", samples, per_channel=True)
    (known,), (found,) = (Session(path).run(samples[0]) for path in (source, target))
    assert sqnr_db(known, found) > 25


def test_raising_the_operator_set_is_the_converters_work_and_leaves_the_model_alone():
    """The weights are kept from the converter: what comes out is what it makes of the whole."""
    nodes = [node("Conv", ["x", "w"], ["h"]), node("Squeeze", ["h"], ["y"], axes=[0])]
    model = make_model(nodes, {"w": gaussian(16, 3, 5, 5)})
    model.opset_import[0].version = 11
    before = onnx.ModelProto.FromString(model.SerializeToString())
    raised = raise_opset(model)
    assert raised == onnx.version_converter.convert_version(before, 13)
    assert model == before
    model.graph.node[0].op_type = "Nonsense"
    with pytest.raises(RunError, match="cannot be raised from operator set 11 to 13"):
        raise_opset(model)
    assert list(model.graph.initializer) == list(before.graph.initializer)


def test_a_batchnorm_is_folded_before_quantizing_unless_it_is_left_alone(tmp_path):
    norm = batchnorm(4)
    nodes = [node("Conv", ["x", "w"], ["h"]), node("BatchNormalization", ["h", *norm], ["y"])]
    model = make_model(nodes, {"w": gaussian(4, 3, 3, 3), **norm})
    for fold in (True, False):
        path = quantizable(model, tmp_path, fold=fold)
        kinds = {one.op_type for one in twin.open_float(path).model.graph}
        assert ("BatchNormalization" not in kinds) == fold
