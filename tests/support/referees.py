"""Outside authorities: QuantizeLinear and back, and the files of onnxruntime's quantizer."""

import contextlib
import logging
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantstore.numerics.quantization import grid_for


@cache
def onnx_round_trip(*, is_symmetric: bool, per_channel: bool) -> onnx.ModelProto:
    """QuantizeLinear, then DequantizeLinear, of an input with a scale and zero point of its own."""
    code = TensorProto.INT8 if is_symmetric else TensorProto.UINT8
    shared = [None] if per_channel else []
    attributes = {"axis": 0} if per_channel else {}
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None]),
        helper.make_tensor_value_info("scale", TensorProto.FLOAT, shared),
        helper.make_tensor_value_info("zero", code, shared),
    ]
    outputs = [
        helper.make_tensor_value_info("q", code, [None, None]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], **attributes),
    ]
    return helper.make_model(
        helper.make_graph(nodes, "round trip", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 19)],
        ir_version=9,
    )


def feeds(weights, scheme):
    grid = grid_for(weights, scheme)
    shape = (-1,) if scheme.is_per_channel else ()
    code = np.int8 if scheme.is_symmetric else np.uint8
    return {
        "x": weights,
        "scale": grid.scale.reshape(shape),
        "zero": grid.zero_point.reshape(shape).astype(code),
    }


@cache
def onnxruntime_session(*, is_symmetric: bool, per_channel: bool):
    onnxruntime = pytest.importorskip("onnxruntime", reason="it is the referee")
    options = onnxruntime.SessionOptions()
    # Left alone, onnxruntime may take the pair of nodes out again.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    model = onnx_round_trip(is_symmetric=is_symmetric, per_channel=per_channel)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


# --- onnxruntime's own quantizer ---------------------------------------------------------------

METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
# What it multiplies in int8; recurrent layers it leaves in float.
MULTIPLYING = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantize_file(
    source,
    target,
    samples,
    *,
    per_channel,
    calibration="minmax",
    is_symmetric=True,
    only_mac_inputs=False,
    ranges_file=None,
    ranges=None,
    nodes_to_exclude=(),
    extra_options=None,
):
    """Full int8 in QuantizeLinear and DequantizeLinear, as ``quantize_static`` writes it.

    Activations become uint8, asymmetric, one scale per tensor; weights int8.

    Args:
        source: what ``runtime.quantizable`` gave.
        target: the file to write, which is returned.
        samples: to find the ranges of activations on.
        only_mac_inputs: rounds what Conv, ConvTranspose, Gemm and MatMul read, and nothing else.
        ranges_file: keeps the ranges, so that a second call need not run the model again.
        ranges: by the tensor, what stands in for the range that it found; needs a ``ranges_file``.
    """
    library = pytest.importorskip("onnxruntime.quantization", reason="it is the referee")
    extra = {"WeightSymmetric": is_symmetric, **(extra_options or {})}
    if only_mac_inputs:
        extra["OpTypesToExcludeOutputQuantization"] = list(MULTIPLYING)
    options = {
        "quant_format": library.QuantFormat.QDQ,
        "per_channel": per_channel,
        "activation_type": library.QuantType.QUInt8,
        "weight_type": library.QuantType.QInt8,
        "calibrate_method": getattr(library.CalibrationMethod, METHODS[calibration]),
        "op_types_to_quantize": list(MULTIPLYING) if only_mac_inputs else None,
        "nodes_to_exclude": list(nodes_to_exclude),
        "calibration_cache_path": ranges_file,
        "extra_options": extra,
    }
    with quiet():
        if ranges:
            if not ranges_file.exists():
                library.quantize_static(source, target, CalibrationReader(samples), **options)
            replace_ranges(ranges_file, ranges)
        library.quantize_static(source, target, CalibrationReader(samples), **options)
    return target


def replace_ranges(path, ranges):
    """Put other ranges into a file of ranges, in place."""
    library = pytest.importorskip("onnxruntime.quantization")
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    kept = library.load_tensors_data(path)
    for name, (low, high) in ranges.items():
        if name in kept.data:
            kept.data[name] = calibrate.TensorData(
                lowest=np.asarray(low, np.float32), highest=np.asarray(high, np.float32)
            )
    library.save_tensors_data(kept, path)


class CalibrationReader:
    """Samples one after another, None at the end: what the quantizer asks for."""

    def __init__(self, samples):
        self._remaining = iter(samples)

    def get_next(self):
        return next(self._remaining, None)


@contextlib.contextmanager
def quiet():
    """The quantizer gives advice on the root logger that is of no use to anybody here."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(level)


def rounded_tensors(path):
    """What a file that the quantizer wrote rounds: by the tensor, its scale and zero point."""
    model = onnx.load(path)
    arrays = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    return {
        node.input[0].removesuffix("_QuantizeLinear_Input"): (
            float(arrays[node.input[1]]),
            int(arrays[node.input[2]]),
        )
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }
