"""What the numbers are on real networks: the article's outcome, checked by onnxruntime."""

import re

import numpy as np
import pytest
from graphs import layers_of
from onnx import TensorProto, helper, numpy_helper

from quantstore import store
from quantstore.errors import MissingWeightsError
from quantstore.ingest import ingest_file, measure_file
from quantstore.quantization import measure_error
from quantstore.schemes import INT8_SCHEMES

DEFAULT = "int8_tensor_symmetric"


@pytest.fixture(scope="module")
def ask(shared_models, tmp_path_factory):
    """Asks a store that holds the article's pair."""
    path = tmp_path_factory.mktemp("real") / "real.duckdb"
    for name in ("rtmdet-nano", "yolov10n-quant"):
        ingest_file(shared_models / f"{name}.onnx", path)

    def rows(sql, *parameters):
        with store.reading(path) as connection:
            return connection.rows(sql, parameters)

    return rows


def summary(ask, model):
    sql = """
        select layer_count, max_weight_range, channel_spread_p90_bits, layers_already_quantized
        from model_summary where model = ?
    """
    return ask(sql, model)[0]


def verdict(ask, model):
    sql = """
        select verdict, layers_broken, layers_at_risk, layers_watch, layers_fine,
            channels_below_10db, channel_count
        from verdicts where model = ? and scheme = ?
    """
    return ask(sql, model, DEFAULT)[0]


# --- the article's pair ------------------------------------------------------------------------


def test_rtmdet_has_ranges_up_to_around_200(ask):
    layers, largest_range, spread_bits, already_quantized = summary(ask, "rtmdet-nano")
    assert layers == 123
    assert largest_range == pytest.approx(211.80, abs=0.005)
    assert spread_bits == pytest.approx(5.0, abs=0.05)
    assert already_quantized == 0


def test_yolov10_has_ranges_up_to_around_20(ask):
    layers, largest_range, spread_bits, already_quantized = summary(ask, "yolov10n-quant")
    assert largest_range == pytest.approx(19.94, abs=0.005)
    assert spread_bits == pytest.approx(2.1, abs=0.05)
    assert already_quantized == layers


def test_the_widest_layer_of_yolov10_is_dequantized_with_its_zero_point(ask):
    ((layer, low, high),) = ask("""
        select layer, weight_min, weight_max from model_layers
        where model = 'yolov10n-quant' order by weight_range desc limit 1
    """)
    assert layer.endswith("/one2one_cv3.0.1.1/conv/Conv_quant")
    assert (low, high) == (pytest.approx(-11.965, abs=5e-4), pytest.approx(7.976, abs=5e-4))


def test_rtmdet_breaks(ask):
    assert verdict(ask, "rtmdet-nano") == ("breaks", 24, 44, 31, 24, 707, 8991)


def test_yolov10_does_not_break(ask):
    assert verdict(ask, "yolov10n-quant")[:6] == ("at risk", 0, 1, 45, 37, 0)


def test_range_over_std_does_not_tell_the_two_apart(ask):
    medians = dict(ask("select model, median_range_over_std from model_summary"))
    assert medians["rtmdet-nano"] == pytest.approx(18.2, abs=0.05)
    assert medians["yolov10n-quant"] == pytest.approx(17.5, abs=0.05)


def test_tensor_sqnr_calls_the_widest_layer_of_rtmdet_healthy(ask):
    ((sqnr_db,),) = ask(
        """
        select sqnr_db from layer_errors
        where model = 'rtmdet-nano' and scheme = ? order by weight_range desc limit 1
        """,
        DEFAULT,
    )
    assert sqnr_db == pytest.approx(40.9, abs=0.05)


# --- the other files ---------------------------------------------------------------------------


def largest_range(measured):
    return max(measures.layer.weight_range for measures in measured.layers)


def test_retinaface(shared_models):
    measured = measure_file(shared_models / "retinaface-mnet025.onnx")
    assert len(measured.layers) == 56
    assert largest_range(measured) == pytest.approx(116.60, abs=0.005)


def test_ultraface_and_ppocr_have_their_normalization_folded(shared_models):
    # Of ppocr's 49, one follows an Add of the bias instead of the convolution itself.
    for name, folded in (("ultraface-rfb320", 35), ("ppocr-v2-det", 48)):
        layers = layers_of(shared_models / f"{name}.onnx")
        assert sum(layer.batchnorm_folded for layer in layers) == folded
        assert not any(
            raw.batchnorm_folded for raw in layers_of(shared_models / f"{name}.onnx", fold=False)
        )


def test_float16_weights_of_nodes_without_names(shared_models):
    layers = layers_of(shared_models / "fns-starry-night-fp16.onnx")
    assert len(layers) == 16
    assert {layer.weight_dtype for layer in layers} == {"float16"}
    assert len({layer.name for layer in layers}) == 16


def test_weights_inside_branches(shared_models):
    layers = layers_of(shared_models / "silero-vad.onnx")
    assert layers
    assert all(re.search("/(then|else)_branch/", layer.name) for layer in layers)


def test_matrices_of_a_transformer(shared_models):
    layers = layers_of(shared_models / "vit-pgd_2_3_16.onnx")
    assert {layer.op_type for layer in layers} == {"Conv", "Gemm", "MatMul"}


def test_weights_partly_in_another_file(shared_models):
    measured = measure_file(shared_models / "ext-digits-dynamo" / "model.onnx")
    assert measured.layers
    folder = shared_models / "ext-digits-dynamo"
    assert measured.file_bytes == sum(file.stat().st_size for file in folder.glob("model.onnx*"))


def test_a_model_whose_data_file_is_missing_is_refused(shared_models):
    with pytest.raises(MissingWeightsError) as caught:
        measure_file(shared_models / "nanodet-dynamo-missing-data.onnx")
    assert "nanodet.onnx.data is missing" in caught.value.sentence


# --- the referee -------------------------------------------------------------------------------


def all_layers_at_once(layers, scheme):
    """One graph that sends every layer's weights through onnxruntime's own round trip."""
    quant_utils = pytest.importorskip("onnxruntime.quantization.quant_utils")
    code = np.int8 if scheme.is_symmetric else np.uint8
    qmin, qmax = np.array(scheme.qmin, dtype=code), np.array(scheme.qmax, dtype=code)
    nodes, tensors, outputs = [], [], []
    for number, layer in enumerate(layers):
        groups = layer.weights if scheme.per_channel else [layer.weights]
        found = [
            quant_utils.compute_scale_zp(
                group.min(), group.max(), qmin, qmax, symmetric=scheme.is_symmetric
            )
            for group in groups
        ]
        shape = (-1,) if scheme.per_channel else ()
        tensors += [
            numpy_helper.from_array(layer.weights, f"x{number}"),
            numpy_helper.from_array(
                np.array([scale for _, scale in found], np.float32).reshape(shape), f"s{number}"
            ),
            numpy_helper.from_array(
                np.array([zero for zero, _ in found], code).reshape(shape), f"z{number}"
            ),
        ]
        grid, axis = [f"s{number}", f"z{number}"], {"axis": 0} if scheme.per_channel else {}
        nodes += [
            helper.make_node("QuantizeLinear", [f"x{number}", *grid], [f"q{number}"], **axis),
            helper.make_node("DequantizeLinear", [f"q{number}", *grid], [f"y{number}"], **axis),
        ]
        outputs.append(helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, None))
    return helper.make_model(
        helper.make_graph(nodes, "every layer", [], outputs, tensors),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


@pytest.mark.parametrize("scheme", INT8_SCHEMES.values(), ids=INT8_SCHEMES)
@pytest.mark.parametrize("name", ["rtmdet-nano", "yolov10n-quant"])
def test_every_layers_error_is_what_onnxruntime_makes_of_it(shared_models, name, scheme):
    onnxruntime = pytest.importorskip("onnxruntime", reason="it is the referee")
    layers = layers_of(shared_models / f"{name}.onnx")
    options = onnxruntime.SessionOptions()
    # Left alone, onnxruntime computes constants ahead and takes pairs of nodes out again.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = all_layers_at_once(layers, scheme).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    judged = 0
    for layer, returned in zip(layers, session.run(None, {}), strict=True):
        x = layer.weights.astype(np.float64)
        squared = (returned.astype(np.float64) - x) ** 2
        ours = measure_error(layer.weights, scheme)
        if ours.sqnr_db >= 100:
            continue
        judged += 1
        assert ours.mse == pytest.approx(squared.mean(), rel=1e-4), layer.name
        expected_db = 10 * np.log10(np.sum(x**2) / squared.sum())
        assert ours.sqnr_db == pytest.approx(expected_db, abs=1e-3), layer.name
        assert ours.max_abs_error == pytest.approx(np.sqrt(squared.max()), rel=1e-4), layer.name
        zeroed = np.count_nonzero((x != 0) & (returned == 0)) / np.count_nonzero(x)
        assert ours.zeroed_fraction == zeroed, layer.name
        with np.errstate(divide="ignore", invalid="ignore"):
            channel_db = 10 * np.log10(np.sum(x**2, axis=1) / squared.sum(axis=1))
        below_100 = channel_db < 100
        np.testing.assert_allclose(
            ours.channel_sqnr_db[below_100], channel_db[below_100], atol=1e-3, err_msg=layer.name
        )
    # What the file stores as uint8 per tensor lies on that grid already, up to float32 rounding.
    is_on_grid = name == "yolov10n-quant" and scheme.name == "int8_tensor_asymmetric"
    assert judged == 0 if is_on_grid else judged > 0.9 * len(layers)
