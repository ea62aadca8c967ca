"""QuantizeLinear and back: the model that referees of our codes run, and what to feed it."""

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

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
