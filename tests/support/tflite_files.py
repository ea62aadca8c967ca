"""Small TensorFlow Lite files, written with the builder of the format itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.support.graphs import gaussian

tflite = pytest.importorskip("tflite", reason="the extra tflite is not installed")
flatbuffers = pytest.importorskip("flatbuffers", reason="the extra tflite is not installed")

NAMES = {
    "float32": "FLOAT32",
    "float16": "FLOAT16",
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "int32": "INT32",
}


@dataclass(frozen=True, kw_only=True)
class T:
    """A tensor: ``values`` of a constant, else its shape; the others may say what is not so."""

    name: str
    values: np.ndarray | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    data: bytes | None = None
    scale: Sequence[float] = ()
    zero_point: Sequence[int] = ()
    axis: int = 0
    is_sparse: bool = False

    @property
    def content(self) -> bytes | None:
        if self.data is not None or self.values is None:
            return self.data
        return np.ascontiguousarray(self.values).tobytes()

    @property
    def declared_shape(self) -> tuple[int, ...]:
        return self.shape if self.shape is not None else self.values.shape

    @property
    def declared_type(self) -> str:
        if self.dtype is not None:
            return self.dtype
        return "FLOAT32" if self.values is None else NAMES[self.values.dtype.name]


@dataclass(frozen=True, kw_only=True)
class Op:
    """An operator: names of tensors, an empty one for an input that is left out."""

    code: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    options: str = ""
    settings: Mapping[str, int] = field(default_factory=dict)
    custom: str = ""


@dataclass(frozen=True, kw_only=True)
class Graph:
    tensors: Sequence[T]
    operators: Sequence[Op]
    inputs: Sequence[str]
    outputs: Sequence[str]
    name: str = "main"


def written(*graphs: Graph, description: str = "written by a test.") -> bytes:
    """The file of these subgraphs."""
    return _Writer().file(graphs, description)


def saved(path: Path, *graphs: Graph) -> Path:
    path.write_bytes(written(*graphs))
    return path


class _Writer:
    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(1024)
        self._buffers: list[bytes] = [b""]
        self._buffer_of: dict[tuple[str, str], int] = {}
        self._graph_name = ""
        self._codes: list[tuple[str, str]] = []

    def file(self, graphs: Sequence[Graph], description: str) -> bytes:
        b = self._builder
        subgraphs = self._offsets([self._graph(graph) for graph in graphs])
        codes = self._offsets([self._code(*code) for code in self._codes])
        buffers = self._offsets([self._buffer(content) for content in self._buffers])
        text = b.CreateString(description)
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, 3)
        tflite.ModelAddOperatorCodes(b, codes)
        tflite.ModelAddSubgraphs(b, subgraphs)
        tflite.ModelAddDescription(b, text)
        tflite.ModelAddBuffers(b, buffers)
        b.Finish(tflite.ModelEnd(b), file_identifier=b"TFL3")
        return bytes(b.Output())

    def _graph(self, graph: Graph) -> int:
        b = self._builder
        self._graph_name = graph.name
        places = {tensor.name: index for index, tensor in enumerate(graph.tensors)} | {"": -1}
        tensors = self._offsets([self._tensor(tensor) for tensor in graph.tensors])
        operators = self._offsets([self._operator(op, places) for op in graph.operators])
        inputs, outputs = (
            b.CreateNumpyVector(np.array([places[name] for name in names], np.int32))
            for names in (graph.inputs, graph.outputs)
        )
        name = b.CreateString(graph.name)
        tflite.SubGraphStart(b)
        tflite.SubGraphAddTensors(b, tensors)
        tflite.SubGraphAddInputs(b, inputs)
        tflite.SubGraphAddOutputs(b, outputs)
        tflite.SubGraphAddOperators(b, operators)
        tflite.SubGraphAddName(b, name)
        return tflite.SubGraphEnd(b)

    def _tensor(self, tensor: T) -> int:
        b = self._builder
        name = b.CreateString(tensor.name)
        shape = b.CreateNumpyVector(np.array(tensor.declared_shape, np.int32))
        quantization = self._quantization(tensor) if len(tensor.scale) else None
        sparsity = self._sparsity() if tensor.is_sparse else None
        buffer = 0
        if tensor.content is not None:
            key = self._graph_name, tensor.name
            if key not in self._buffer_of:
                self._buffer_of[key] = len(self._buffers)
                self._buffers.append(tensor.content)
            buffer = self._buffer_of[key]
        tflite.TensorStart(b)
        tflite.TensorAddShape(b, shape)
        tflite.TensorAddType(b, getattr(tflite.TensorType, tensor.declared_type))
        tflite.TensorAddBuffer(b, buffer)
        tflite.TensorAddName(b, name)
        if quantization is not None:
            tflite.TensorAddQuantization(b, quantization)
        if sparsity is not None:
            tflite.TensorAddSparsity(b, sparsity)
        return tflite.TensorEnd(b)

    def _quantization(self, tensor: T) -> int:
        b = self._builder
        zero_points = tensor.zero_point or [0] * len(tensor.scale)
        scale = b.CreateNumpyVector(np.array(tensor.scale, np.float32))
        zero_point = b.CreateNumpyVector(np.array(zero_points, np.int64))
        tflite.QuantizationParametersStart(b)
        tflite.QuantizationParametersAddScale(b, scale)
        tflite.QuantizationParametersAddZeroPoint(b, zero_point)
        tflite.QuantizationParametersAddQuantizedDimension(b, tensor.axis)
        return tflite.QuantizationParametersEnd(b)

    def _sparsity(self) -> int:
        tflite.SparsityParametersStart(self._builder)
        return tflite.SparsityParametersEnd(self._builder)

    def _operator(self, op: Op, places: Mapping[str, int]) -> int:
        b = self._builder
        options = self._options(op) if op.options else None
        inputs, outputs = (
            b.CreateNumpyVector(np.array([places[name] for name in names], np.int32))
            for names in (op.inputs, op.outputs)
        )
        code = (op.code, op.custom)
        if code not in self._codes:
            self._codes.append(code)
        tflite.OperatorStart(b)
        tflite.OperatorAddOpcodeIndex(b, self._codes.index(code))
        tflite.OperatorAddInputs(b, inputs)
        tflite.OperatorAddOutputs(b, outputs)
        if options is not None:
            tflite.OperatorAddBuiltinOptionsType(b, getattr(tflite.BuiltinOptions, op.options))
            tflite.OperatorAddBuiltinOptions(b, options)
        return tflite.OperatorEnd(b)

    def _options(self, op: Op) -> int:
        b = self._builder
        getattr(tflite, f"{op.options}Start")(b)
        for name, value in op.settings.items():
            getattr(tflite, f"{op.options}Add{name}")(b, value)
        return getattr(tflite, f"{op.options}End")(b)

    def _code(self, code: str, custom: str) -> int:
        b = self._builder
        number = getattr(tflite.BuiltinOperator, code)
        name = b.CreateString(custom) if custom else None
        tflite.OperatorCodeStart(b)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(b, min(number, 127))
        tflite.OperatorCodeAddBuiltinCode(b, number)
        tflite.OperatorCodeAddVersion(b, 1)
        if name is not None:
            tflite.OperatorCodeAddCustomCode(b, name)
        return tflite.OperatorCodeEnd(b)

    def _buffer(self, content: bytes) -> int:
        b = self._builder
        data = b.CreateByteVector(content) if content else None
        tflite.BufferStart(b)
        if data is not None:
            tflite.BufferAddData(b, data)
        return tflite.BufferEnd(b)

    def _offsets(self, offsets: Sequence[int]) -> int:
        b = self._builder
        b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            b.PrependUOffsetTRelative(offset)
        return b.EndVector()


# Networks.


def quantized(weights: np.ndarray, axis: int, *, bits: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Codes and scales, one for each channel along an axis, as the format prescribes them."""
    others = tuple(index for index in range(weights.ndim) if index != axis)
    scale = np.abs(weights).max(axis=others, keepdims=True) / (2 ** (bits - 1) - 1)
    return np.rint(weights / scale).astype(np.int8), scale.astype(np.float32).ravel()


CONV = {"Padding": 1, "StrideW": 1, "StrideH": 1, "DilationWFactor": 1, "DilationHFactor": 1}


def one_layer(
    code: str,
    weights: T,
    *,
    data: tuple[int, ...],
    result: tuple[int, ...],
    options: str = "",
    settings: Mapping[str, int] | None = None,
    bias: np.ndarray | None = None,
    before: Sequence[T] = (),
    order: Callable[[str, str], Sequence[str]] = lambda x, w: (x, w),
) -> Graph:
    """A network of one operator; ``order`` says where its data and weights go."""
    tensors = [T(name="x", shape=data), weights, *before, T(name="y", shape=result)]
    inputs = [*order("x", weights.name)]
    if bias is not None:
        tensors.append(T(name="bias", values=bias))
        inputs.append("bias")
    return Graph(
        tensors=tensors,
        operators=[
            Op(code=code, inputs=inputs, outputs=["y"], options=options, settings=settings or {})
        ],
        inputs=["x"],
        outputs=["y"],
    )


# A float network, and the int8 file that a converter makes of it.

_SHAPES = {"x": (1, 8, 8, 3), "h": (1, 6, 6, 8), "g": (1, 4, 4, 8), "flat": (1, 128), "y": (1, 5)}


def weights_of_pair() -> dict[str, np.ndarray]:
    """Weights and biases: a convolution, a depthwise one, a matrix."""
    return {
        "w_h": gaussian(8, 3, 3, 3) / 5,
        "b_h": gaussian(8, seed=1) / 10,
        "w_g": gaussian(1, 3, 3, 8, seed=2) / 3,
        "b_g": gaussian(8, seed=3) / 10,
        "w_y": gaussian(5, 128, seed=4) / 11,
        "b_y": gaussian(5, seed=5) / 10,
    }


def _network_of_pair(tensors: Sequence[T], *, is_int8: bool) -> Graph:
    end = "_int8" if is_int8 else ""
    relu = CONV | {"FusedActivationFunction": 1}
    quantizing = [Op(code="QUANTIZE", inputs=["x"], outputs=["x_int8"])] if is_int8 else []
    restoring = [Op(code="DEQUANTIZE", inputs=["y_int8"], outputs=["y"])] if is_int8 else []
    layers = [
        Op(code="CONV_2D", inputs=[f"x{end}", "w_h", "b_h"], outputs=[f"h{end}"],
           options="Conv2DOptions", settings=relu),
        Op(code="DEPTHWISE_CONV_2D", inputs=[f"h{end}", "w_g", "b_g"], outputs=[f"g{end}"],
           options="DepthwiseConv2DOptions", settings=relu | {"DepthMultiplier": 1}),
        Op(code="RESHAPE", inputs=[f"g{end}", "shape"], outputs=[f"flat{end}"]),
        Op(code="FULLY_CONNECTED", inputs=[f"flat{end}", "w_y", "b_y"], outputs=[f"y{end}"],
           options="FullyConnectedOptions"),
    ]  # fmt: skip
    return Graph(
        tensors=[*tensors, T(name="shape", values=np.array([1, 128], np.int32))],
        operators=[*quantizing, *layers, *restoring],
        inputs=["x"],
        outputs=["y"],
    )


def float_of_pair() -> Graph:
    tensors = [T(name=name, shape=shape) for name, shape in _SHAPES.items()]
    constants = [T(name=name, values=array) for name, array in weights_of_pair().items()]
    return _network_of_pair([*tensors, *constants], is_int8=False)


def int8_of_pair(
    ranges: Mapping[str, tuple[float, float]], scale_of: Mapping[str, float] | None = None
) -> Graph:
    """The same in int8.

    Args:
        ranges: lowest and highest value of each tensor, that its grid reaches.
        scale_of: of a tensor of weights, how many times too large its scale is.
    """
    grids = {}
    for name in _SHAPES:
        low, high = (min(ranges[name][0], 0.0), max(ranges[name][1], 0.0))
        scale = (high - low) / 255
        grids[name] = (scale, int(np.rint(-128 - low / scale)))
    # What a reshaped tensor holds lies on the same grid.
    grids["flat"] = grids["g"]
    tensors = [T(name=name, shape=_SHAPES[name]) for name in ("x", "y")]
    tensors += [
        T(name=f"{name}_int8", shape=shape, dtype="INT8", scale=[grids[name][0]],
          zero_point=[grids[name][1]])
        for name, shape in _SHAPES.items()
    ]  # fmt: skip
    weights = weights_of_pair()
    for name, source, axis in (("h", "x", 0), ("g", "h", 3), ("y", "flat", None)):
        w = weights[f"w_{name}"]
        axes = tuple(index for index in range(w.ndim) if index != axis)
        step = np.abs(w).max(axis=axes, keepdims=True) / 127
        step = step * (scale_of or {}).get(f"w_{name}", 1.0)
        codes = np.clip(np.rint(w / step), -127, 127).astype(np.int8)
        of_bias = step.ravel() * grids[source][0]
        bias = np.rint(weights[f"b_{name}"] / of_bias).astype(np.int32)
        tensors += [
            T(name=f"w_{name}", values=codes, scale=step.ravel(), axis=axis or 0),
            T(name=f"b_{name}", values=bias, scale=of_bias),
        ]
    return _network_of_pair(tensors, is_int8=True)
