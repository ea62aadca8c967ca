"""Float files and int8 files made from them by onnxruntime, for the tests of audits."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantstore.run import twin
from quantstore.run.runtime import quantizable
from tests.support.graphs import gaussian, make_model, node, save
from tests.support.referees import CalibrationReader, quantize_file, quiet

SIDE = 16


def small_network():
    """Convolutions, a depthwise one, a residual, a Relu6 and two matrix products."""
    weights = {
        "stem.w": gaussian(8, 3, 3, 3) / 5,
        "stem.b": gaussian(8, seed=1) / 5,
        "depthwise.w": gaussian(8, 1, 3, 3, seed=2) / 3,
        "depthwise.b": gaussian(8, seed=3) / 5,
        "point.w": gaussian(8, 8, 1, 1, seed=4) / 3,
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
        "hidden.w": gaussian(8, 12, seed=5) / 3,
        "hidden.b": gaussian(12, seed=6) / 5,
        "head.w": gaussian(12, 5, seed=7) / 3,
    }
    nodes = [
        node("Conv", ["x", "stem.w", "stem.b"], ["stem"], "stem", pads=[1] * 4),
        node("Relu", ["stem"], ["stem_relu"], "stem_relu"),
        node(
            "Conv",
            ["stem_relu", "depthwise.w", "depthwise.b"],
            ["depthwise"],
            "depthwise",
            group=8,
            pads=[1] * 4,
        ),
        node("Clip", ["depthwise", "low", "high"], ["relu6"], "relu6"),
        node("Conv", ["relu6", "point.w"], ["point"], "point"),
        node("Add", ["point", "stem_relu"], ["residual"], "residual"),
        node("GlobalAveragePool", ["residual"], ["pooled"], "pool"),
        node("Flatten", ["pooled"], ["flat"], "flatten"),
        node("Gemm", ["flat", "hidden.w", "hidden.b"], ["hidden"], "hidden"),
        node("Relu", ["hidden"], ["hidden_relu"], "hidden_relu"),
        node("MatMul", ["hidden_relu", "head.w"], ["y"], "head"),
    ]
    model = make_model(nodes, weights)
    shape = model.graph.input[0].type.tensor_type.shape
    for size in (1, 3, SIDE, SIDE):
        shape.dim.add().dim_value = size
    return model


def samples_of(count=8, seed=5):
    """Inputs of :func:`small_network`."""
    random = np.random.default_rng(seed)
    return [{"x": random.normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)} for _ in range(count)]


def inputs_file(folder: Path, count=4) -> Path:
    """The same as a file that commands read."""
    stacked = np.concatenate([sample["x"] for sample in samples_of(count, seed=6)])
    path = folder / "inputs.npz"
    np.savez(path, x=stacked)
    return path


def quantized(float_path: Path, target: Path, form: str, **options) -> Path:
    """The int8 file of a float file, in one of onnxruntime's forms: qdq, qoperator or dynamic."""
    library = pytest.importorskip("onnxruntime.quantization", reason="it is the referee")
    prepared = quantizable(
        twin.to_proto(twin.open_float(float_path)), target.parent, name=f"pre-{target.name}"
    )
    if form == "dynamic":
        with quiet():
            library.quantize_dynamic(prepared, target)
        return target
    if form == "qdq":
        return quantize_file(prepared, target, samples_of(), **{"per_channel": True} | options)
    with quiet():
        library.quantize_static(
            prepared,
            target,
            CalibrationReader(samples_of()),
            quant_format=library.QuantFormat.QOperator,
            activation_type=library.QuantType.QUInt8,
            weight_type=library.QuantType.QInt8,
            **{"per_channel": True} | options,
        )
    return target


def initializer(model: onnx.ModelProto, name: str) -> np.ndarray:
    """The values of an initializer."""
    return numpy_helper.to_array(next(one for one in model.graph.initializer if one.name == name))


def set_initializer(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    """Other values for it, in place."""
    tensor = next(one for one in model.graph.initializer if one.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, every node, tensor and weight under a name that says nothing."""
    names: dict[str, str] = {
        value.name: value.name for value in (*model.graph.input, *model.graph.output)
    }

    def new(name: str) -> str:
        if not name:
            return name
        return names.setdefault(name, f"n{len(names)}")

    for number, item in enumerate(model.graph.node):
        item.name = f"op{number}"
        for values in (item.input, item.output):
            values[:] = [new(name) for name in values]
    for tensor in model.graph.initializer:
        tensor.name = new(tensor.name)
    del model.graph.value_info[:]
    return model


def saved_network(folder: Path) -> Path:
    """:func:`small_network` as a file."""
    return save(small_network(), folder / "net.onnx")
