"""What the numbers are on real networks: the article's outcome, checked by onnxruntime."""

import math
import os
import re
from dataclasses import dataclass
from functools import cache, cached_property

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from quantstore import store
from quantstore.errors import MissingWeightsError
from quantstore.layer import Layer
from quantstore.pipeline.ingest import written
from quantstore.pipeline.measure_file import measure_file
from quantstore.pipeline.outcome import IngestChoices, MeasuredModel
from quantstore.schemes import BLOCK_SIZE, INT8_SCHEMES, SCHEMES
from tests.support.graphs import layers_of

pytestmark = pytest.mark.slow

DEFAULT = "int8_tensor_symmetric"

# Every model of the folder, by its path without .onnx, and how many layers it has.
LAYER_COUNTS = {
    "ext-digits-dynamo/model": 5,
    "fasterrcnn-structure": 79,
    "fns-starry-night-fp16": 16,
    "maui-model": 53,
    "mobilenetv2-12-int8": 53,
    "ppocr-v2-det": 58,
    "retinaface-mnet025": 56,
    "rtmdet-nano": 123,
    "silero-vad": 20,
    "squeezenet-winml": 26,
    "tract-bidi-lstm": 6,
    "ultraface-rfb320": 52,
    "vit-pgd_2_3_16": 14,
    "yolov10n-quant": 83,
}

# Those that quantstore does not read, and why not.
REFUSED = {
    "nanodet-dynamo-missing-data": (MissingWeightsError, "nanodet.onnx.data is missing"),
}


LARGEST = "fasterrcnn-structure"


@dataclass(frozen=True)
class Model:
    """A model as it is measured, and the weights of its layers for the referees."""

    name: str
    measured: MeasuredModel
    layers: list[Layer]

    @cached_property
    def known(self):
        """What every comparison of a layer needs to know of it, in the order of the layers."""
        return [Known(layer.by_output_channel()) for layer in self.layers]


class Known:
    """A layer's weights, the energy and the number of non-zero ones of each channel, dead ones."""

    def __init__(self, weights):
        self.weights = weights
        self.energy = sums_of_squares(weights)
        self.nonzero = np.count_nonzero(weights, axis=1)
        largest = np.abs(weights).max(axis=1).astype(np.float64)
        smallest_scale = np.finfo(np.float32).tiny
        self.is_dead = (largest < 1e-6 * largest.max()) | (largest / 127 < smallest_scale)


@cache
def measured(path):
    """Each model is measured once, whoever asks for it; only the largest by several processes."""
    return measure_file(path, jobs=None if path.stem == LARGEST else 1)


# Convolutions to be folded, integers, branches and recurrence, halves, a transformer.
QUICK = ("rtmdet-nano", "yolov10n-quant", "silero-vad", "fns-starry-night-fp16", "vit-pgd_2_3_16")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in LAYER_COUNTS
    ],
)
def model(request, shared_models):
    """Every model that quantstore reads; pytest runs all tests of one before the next."""
    path = shared_models / f"{request.param}.onnx"
    return Model(request.param, measured(path), layers_of(path))


@pytest.fixture
def small_model(model):
    """Every model but the one whose 19 million weights are random numbers."""
    if model.name == LARGEST:
        pytest.skip("synthetic weights, and many of them: int8 is enough")
    return model


@pytest.fixture(scope="module")
def ask(shared_models, tmp_path_factory):
    """Asks a store that holds the article's pair."""
    path = tmp_path_factory.mktemp("real") / "real.duckdb"
    for name in ("rtmdet-nano", "yolov10n-quant"):
        # What the weights say; what comes out of the networks is told in test_probe.py.
        file = shared_models / f"{name}.onnx"
        written([(file, measured(file))], path, IngestChoices(probe=False))

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
        from verdicts where model = ? and target = 'int8_tensor'
    """
    return ask(sql, model)[0]


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
    assert verdict(ask, "rtmdet-nano") == ("broken", 24, 44, 31, 24, 682, 8991)


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


def test_every_file_of_the_folder_is_listed_here(shared_models):
    found = [path.relative_to(shared_models) for path in shared_models.rglob("*.onnx")]
    assert {path.with_suffix("").as_posix() for path in found} == {*LAYER_COUNTS, *REFUSED}


def test_every_layer_is_measured(model):
    layers = model.measured.layers
    assert len(layers) == LAYER_COUNTS[model.name]
    assert [measures.layer.depth for measures in layers] == list(range(len(layers)))
    assert all(len(measures.errors) == len(SCHEMES) for measures in layers)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_measured_is_refused_with_the_reason(shared_models, name):
    failure, reason = REFUSED[name]
    with pytest.raises(failure) as caught:
        measure_file(shared_models / f"{name}.onnx")
    assert reason in caught.value.sentence


@pytest.mark.slow
def test_retinaface_has_ranges_up_to_around_120(shared_models):
    layers = measured(shared_models / "retinaface-mnet025.onnx").layers
    largest = max(measures.layer.figures["weight_range"] for measures in layers)
    assert largest == pytest.approx(116.60, abs=0.005)


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
    folder = shared_models / "ext-digits-dynamo"
    file_bytes = sum(file.stat().st_size for file in folder.glob("model.onnx*"))
    assert measured(folder / "model.onnx").file_bytes == file_bytes


# --- the referees ------------------------------------------------------------------------------

INT4_AND_BLOCKS = [
    scheme
    for name, scheme in SCHEMES.items()
    if name not in INT8_SCHEMES and scheme.format in ("int8", "int4") and scheme.clip == "minmax"
]
FLOAT8 = [scheme for scheme in SCHEMES.values() if scheme.number != "int"]

# Beyond this the error is float32's own rounding, and two right answers differ in it.
EXACT_DB = 100


@cache
def round_trip_session(scheme):
    """onnxruntime's QuantizeLinear and DequantizeLinear, for weights and grids of any size."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="it is the referee")
    sign = "" if scheme.is_symmetric else "U"
    code = getattr(TensorProto, f"{sign}INT{scheme.bits}")
    byte = getattr(TensorProto, f"{sign}INT8")
    shared, attributes = {
        "tensor": ([], {}),
        "channel": ([None], {"axis": 0}),
        "block": ([None, None], {"axis": 1, "block_size": BLOCK_SIZE}),
    }[scheme.granularity]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None]),
        helper.make_tensor_value_info("scale", TensorProto.FLOAT, shared),
        helper.make_tensor_value_info("zero", byte, shared),
    ]
    outputs = [
        helper.make_tensor_value_info("codes", byte, [None, None]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None]),
    ]
    nodes = [
        # numpy has no 4-bit numbers: they are bytes on their way in and out.
        helper.make_node("Cast", ["zero"], ["z"], to=code),
        helper.make_node("QuantizeLinear", ["x", "scale", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "scale", "z"], ["y"], **attributes),
        helper.make_node("Cast", ["q"], ["codes"], to=byte),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, scheme.name, inputs, outputs),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    options = onnxruntime.SessionOptions()
    # Left alone, onnxruntime may take the pair of nodes out again.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def range_of(weights, scheme):
    """Ends of the range of those who share a scale: a number, one per channel or one per block."""
    if scheme.granularity == "block":
        starts = np.arange(0, weights.shape[1], BLOCK_SIZE)
        return tuple(ends.reduceat(weights, starts, axis=1) for ends in (np.minimum, np.maximum))
    axis = 1 if scheme.is_per_channel else None
    return weights.min(axis=axis), weights.max(axis=axis)


# Every so many ranges of a layer are asked of onnxruntime's quantizer, which takes them one by one;
# with QUANTSTORE_EVERY_CHANNEL=1 all of them are.
RANGES_STRIDE = 1 if os.environ.get("QUANTSTORE_EVERY_CHANNEL") else 16


def grid_of_onnxruntime(low, high, scheme):
    """Scale and zero point as docs/method.md has them, which onnxruntime's own quantizer confirms.

    For a scale per channel it is asked about the first and the last, those whose range is the
    narrowest and the widest, and every 16th; test_quantization.py compares the formula with it on
    weights of every kind.
    """
    quant_utils = pytest.importorskip("onnxruntime.quantization.quant_utils")
    code = np.int8 if scheme.is_symmetric else np.uint8
    qmin, qmax = np.array(scheme.qmin, code), np.array(scheme.qmax, code)
    scales, zeros = grid_of_the_method(low, high, scheme)
    lows, highs, span = np.ravel(low), np.ravel(high), np.ravel(high - low)
    asked = {*range(0, span.size, RANGES_STRIDE), span.size - 1, span.argmin(), span.argmax()}
    for place in asked:
        zero, scale = quant_utils.compute_scale_zp(
            lows[place], highs[place], qmin, qmax, symmetric=scheme.is_symmetric
        )
        own = np.ravel(scales)[place], np.ravel(zeros)[place]
        assert own == (np.float32(scale), zero), f"{scheme.name}: channel {place}"
    return scales, zeros


def grid_of_the_method(low, high, scheme):
    """Scale and zero point as docs/method.md has them, section 3."""
    low = np.asarray(np.minimum(low, 0), np.float64)
    high = np.asarray(np.maximum(high, 0), np.float64)
    span = np.maximum(-low, high) if scheme.is_symmetric else high - low
    exact = np.where(span / scheme.qmax < np.finfo(np.float32).tiny, 1, span / scheme.qmax)
    zero = np.zeros_like(low) if scheme.is_symmetric else -np.rint(low / exact)
    return exact.astype(np.float32), zero.astype(np.int8 if scheme.is_symmetric else np.uint8)


def sums_of_squares(rows):
    """One per row, in float64."""
    return np.einsum("ij,ij->i", rows, rows, dtype=np.float64)


def db(energy, squared_error):
    """Infinite without an error, NaN without energy."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 10 * np.log10(np.divide(energy, squared_error))


def assert_same_db(stored, expected, note):
    """Within 0.001 dB below 100 dB, and beyond that in both."""
    with np.errstate(invalid="ignore"):
        is_near = np.abs(stored - expected) <= 1e-3
    is_exact = (expected >= EXACT_DB) & (stored > EXACT_DB - 1e-3)
    same = np.where(
        expected < EXACT_DB, is_near, is_exact | (np.isnan(expected) & np.isnan(stored))
    )
    assert same.all(), f"{note}: {stored[~same]} instead of {expected[~same]} dB"


def assert_stored_errors(measures, known, scheme, returned, codes=None):
    """Every stored figure of one layer and scheme, against the weights a referee returns.

    Returns:
        Whether the tensor's SQNR lies below 100 dB, so that it was compared.
    """
    note = f"{measures.layer.layer}: {scheme.name}"
    stored = next(error for error in measures.errors if error.scheme == scheme.name)
    # Exact to float32's last digit: the two are close, or one is 0.
    error = returned - known.weights
    squared_error = sums_of_squares(error)
    # Zero is a code of every grid: what was zero still is.
    zeroed = known.nonzero - np.count_nonzero(returned, axis=1)

    tensor_db = db(known.energy.sum(), squared_error.sum())
    is_judged = bool(tensor_db < EXACT_DB)
    if is_judged:
        mse = squared_error.sum() / error.size
        assert math.isclose(stored.mse, mse, rel_tol=1e-4), f"{note}: {stored.mse}, not {mse}"
        largest = max(error.max(), -error.min())
        assert math.isclose(stored.max_abs_error, largest, rel_tol=1e-4), note
    assert stored.zeroed_fraction == zeroed.sum() / max(1, known.nonzero.sum()), note
    if codes is not None and scheme.granularity == "tensor":
        used = np.bincount(codes.view(np.uint8).ravel(), minlength=256)
        assert stored.levels_used == np.count_nonzero(used), note

    channel_db = db(known.energy, squared_error)
    judged = channel_db[~np.isnan(channel_db) & ~known.is_dead]
    own, expected = [stored.sqnr_db], [tensor_db]
    if judged.size:
        # Channels without an error are infinite, and np.quantile makes NaN of two such neighbours.
        expected += [*np.quantile(np.minimum(judged, 1e9), [0, 0.1, 0.5])]
        own += [
            stored.channel_sqnr_min_db,
            stored.channel_sqnr_p10_db,
            stored.channel_sqnr_median_db,
        ]
    assert_same_db(np.array(own), np.array(expected), note)
    below = [np.count_nonzero(judged < limit) for limit in (10 - 1e-3, 10 + 1e-3)]
    assert below[0] <= stored.channels_below_10db <= below[1], note
    for columns in measures.channel_errors:
        if columns.scheme == scheme.name:
            assert_same_db(columns.sqnr_db, channel_db, note)
            assert np.array_equal(columns.zeroed_count, zeroed), note
            assert np.array_equal(measures.channels.nonzero_count, known.nonzero), note
    return is_judged


def judge_by_onnxruntime(model, schemes, grid_of):
    """How many layers were compared under each scheme, by name; the rest came back exactly."""
    judged = dict.fromkeys((scheme.name for scheme in schemes), 0)
    for measures, known in zip(model.measured.layers, model.known, strict=True):
        for scheme in schemes:
            scale, zero = grid_of(*range_of(known.weights, scheme), scheme)
            feeds = {"x": known.weights, "scale": np.asarray(scale), "zero": np.asarray(zero)}
            codes, returned = round_trip_session(scheme).run(None, feeds)
            judged[scheme.name] += assert_stored_errors(measures, known, scheme, returned, codes)
    return judged


@pytest.mark.slow
def test_int8_errors_are_what_onnxruntime_makes_of_every_layer(model):
    judged = judge_by_onnxruntime(model, INT8_SCHEMES.values(), grid_of_onnxruntime)
    if model.name == "yolov10n-quant":
        # It stores uint8 per tensor, which lies on that grid already, up to float32 rounding.
        assert judged["int8_tensor_asymmetric"] == 0
    assert_most_were_compared(model, judged)


def assert_most_were_compared(model, judged):
    """What a file stores as integers lies on the very same grid under some of the schemes."""
    least = max if model.layers[0].already_quantized else min
    assert least(judged.values()) > 0.9 * len(model.layers), judged


def test_int4_and_block_errors_are_what_onnxruntime_makes_of_every_layer(small_model):
    judged = judge_by_onnxruntime(small_model, INT4_AND_BLOCKS, grid_of_the_method)
    assert_most_were_compared(small_model, judged)


FLOAT8_TYPES = {"fp8_e4m3": ml_dtypes.float8_e4m3fn, "fp8_e5m2": ml_dtypes.float8_e5m2}


def test_float8_errors_are_what_ml_dtypes_makes_of_every_layer(small_model):
    for measures, known in zip(small_model.measured.layers, small_model.known, strict=True):
        weights = known.weights
        for scheme in FLOAT8:
            dtype = FLOAT8_TYPES[scheme.number]
            axis = 1 if scheme.is_per_channel else None
            largest = np.abs(weights).max(axis=axis, keepdims=True).astype(np.float64)
            exact = largest / float(ml_dtypes.finfo(dtype).max)
            scale = np.where(largest > 0, exact, 1).astype(np.float32)
            returned = (weights / scale).astype(dtype).astype(np.float32) * scale
            assert_stored_errors(measures, known, scheme, returned)
