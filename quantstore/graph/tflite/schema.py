"""The content of a TensorFlow Lite file in, its operators and tensors out, as plain values.

The library follows every offset of the file wherever it leads: what it stumbles over is refused
here, and nothing is as long as it claims to be before it was compared with the file.
"""

import importlib
import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from quantstore.errors import ModelFileError
from quantstore.file_formats import TENSORFLOW_LITE
from quantstore.graph.limits import MOST_NAME_CHARACTERS, MOST_NODES
from quantstore.records import Array

MISSING_EXTRA = "a TensorFlow Lite model, and the package that reads its format is not installed"
DAMAGED = "a damaged TensorFlow Lite file"
_AGAIN = "convert or download the model again"

CUSTOM = "CUSTOM"
# TensorFlow Lite itself runs up to 8 dimensions.
_MOST_DIMENSIONS = 8
# Inputs and outputs of all operators together: ten for each of as many as there may be.
_MOST_USES = 10 * MOST_NODES
_OPTIONAL = -1
# An offset of a buffer below it means that the buffer lies where its vector does.
_LEAST_OFFSET = 2


@dataclass(frozen=True, slots=True)
class LiteScales:
    """``weight = scale * (code - zero_point)``; several scales run along ``axis``."""

    scale: Array
    zero_point: Array
    axis: int


@dataclass(frozen=True, slots=True)
class LiteTensor:
    """A tensor of one subgraph. ``dtype`` is a name of the schema, such as ``INT8``.

    ``data``: the bytes of a constant, None where the values come from the network. ``key`` is equal
    for tensors that share a buffer. ``is_sparse``: ``data`` holds the values that are not zero.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview | None = field(repr=False)
    key: int
    quantization: LiteScales | None
    is_sparse: bool


@dataclass(frozen=True, slots=True)
class LiteOperator:
    """``code`` is a name of the schema, such as ``CONV_2D``; ``custom`` the name of a custom one.

    ``inputs`` and ``outputs`` are positions of tensors, None for an input that is left out.
    ``options``: the table of its settings, None where it has none.
    """

    code: str
    custom: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    options: Any = field(repr=False)

    def setting(self, name: str, default: int = 0) -> int:
        """A number among the settings, as the schema calls it; ``default`` without any."""
        with refusing_damage():
            return default if self.options is None else int(getattr(self.options, name)())


# What reading at a wrong offset ends in; a union that holds nothing is None (AttributeError).
_UNREADABLE = (
    *(struct.error, IndexError, ValueError, TypeError),
    *(OverflowError, AssertionError, AttributeError),
)


@contextmanager
def refusing_damage() -> Iterator[None]:
    """Turn what the library stumbles over in a damaged file into a sentence.

    Raises:
        ModelFileError: the file is what is wrong.
    """
    try:
        yield
    except _UNREADABLE as e:
        # flatbuffers checks no offset: it fails in as many ways as one can be wrong.
        raise ModelFileError(f"{DAMAGED} ({type(e).__name__}: {str(e)[:100]})", _AGAIN) from e


def library() -> ModuleType:
    """The classes of the schema.

    Raises:
        ModelFileError: they are not installed.
    """
    try:
        return importlib.import_module("tflite")
    except ModuleNotFoundError as error:
        raise ModelFileError(MISSING_EXTRA, TENSORFLOW_LITE.install) from error


class Schema:
    """What a file holds; every method refuses a damaged one."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._tensors: dict[tuple[int, int], LiteTensor] = {}
        self._characters = self._uses = 0
        tflite = library()
        with refusing_damage():
            self._model = tflite.Model.GetRootAs(content, 0)
            self._graphs = [
                self._model.Subgraphs(index)
                for index in range(self._counted(self._model.SubgraphsLength(), "subgraphs"))
            ]
        if not self._graphs:
            raise ModelFileError(f"{DAMAGED}: it holds no graph", _AGAIN)

    @property
    def description(self) -> str | None:
        """What the converter says of itself."""
        with refusing_damage():
            return self._text(self._model.Description()).strip().rstrip(".") or None

    @property
    def graph_count(self) -> int:
        """How many subgraphs there are; the first is the network, control flow runs the others."""
        return len(self._graphs)

    def graph_name(self, graph: int) -> str:
        """What a subgraph is called; empty where it has no name."""
        with refusing_damage():
            return self._text(self._graphs[graph].Name())

    def ends(self, graph: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The positions of the tensors that a subgraph reads and gives."""
        with refusing_damage():
            table = self._graphs[graph]
            count = table.TensorsLength()
            inputs, outputs = (
                _integers(vector) for vector in (table.InputsAsNumpy(), table.OutputsAsNumpy())
            )
            return _existing(inputs, count), _existing(outputs, count)

    def operators(self, graph: int) -> Iterator[LiteOperator]:
        """The operators of a subgraph, in the order in which they run."""
        with refusing_damage():
            table = self._graphs[graph]
            count = self._counted(table.OperatorsLength(), "operators")
            tensor_count = table.TensorsLength()
        for index in range(count):
            with refusing_damage():
                operator = self._operator(table.Operators(index), tensor_count)
            yield operator

    def tensor(self, graph: int, index: int) -> LiteTensor:
        """A tensor of a subgraph, read once."""
        key = (graph, index)
        if key not in self._tensors:
            with refusing_damage():
                self._tensors[key] = self._tensor(self._graphs[graph].Tensors(index), key)
        return self._tensors[key]

    def _operator(self, table: Any, tensor_count: int) -> LiteOperator:
        inputs = _integers(table.InputsAsNumpy())
        outputs = _integers(table.OutputsAsNumpy())
        self._uses += len(inputs) + len(outputs)
        if self._uses > _MOST_USES:
            raise ModelFileError(f"its operators read more than {_MOST_USES:,} tensors", _AGAIN)
        operator_code = self._model.OperatorCodes(table.OpcodeIndex())
        # Older files have the code in a field of one byte, newer ones in both.
        number = max(operator_code.BuiltinCode(), operator_code.DeprecatedBuiltinCode())
        code = _names("BuiltinOperator").get(number, f"operator {number}")
        return LiteOperator(
            code=code,
            custom=self._text(operator_code.CustomCode()) if code == CUSTOM else "",
            inputs=tuple(
                None if index == _OPTIONAL else _existing((index,), tensor_count)[0]
                for index in inputs
            ),
            outputs=_existing(outputs, tensor_count),
            options=_options(table, code),
        )

    def _tensor(self, table: Any, key: tuple[int, int]) -> LiteTensor:
        name = self._text(table.Name()) or f"tensor {key[1]}"
        shape = _integers(table.ShapeAsNumpy())
        dtype = _names("TensorType").get(table.Type(), f"type {table.Type()}")
        if len(shape) > _MOST_DIMENSIONS:
            raise ModelFileError(
                f"tensor {name!r} declares {len(shape)} dimensions, more than {_MOST_DIMENSIONS}",
                _AGAIN,
            )
        buffer = table.Buffer()
        return LiteTensor(
            name=name,
            dtype=dtype,
            shape=shape,
            data=None if table.IsVariable() else self._data(buffer, name),
            key=buffer,
            quantization=self._quantization(table.Quantization()),
            is_sparse=table.Sparsity() is not None,
        )

    def _data(self, buffer: int, name: str) -> memoryview | None:
        """The bytes of a constant; an empty buffer is none."""
        table = self._model.Buffers(buffer)
        # What is too large for a flatbuffer lies behind it in the same file.
        if table.Offset() >= _LEAST_OFFSET:
            start, length = table.Offset(), table.Size()
            if start + length > len(self._content):
                raise ModelFileError(
                    f"tensor {name!r} lies beyond the end of the file", "download the model again"
                )
            return memoryview(self._content)[start : start + length] if length else None
        if table.DataIsNone() or not table.DataLength():
            return None
        return memoryview(table.DataAsNumpy()).cast("B")

    def _quantization(self, table: Any) -> LiteScales | None:
        # Details hold what only a custom kernel understands.
        if table is None or table.ScaleIsNone() or table.DetailsType():
            return None
        scale = np.array(table.ScaleAsNumpy(), np.float32)
        has_zero_point = not table.ZeroPointIsNone()
        zero_point = np.array(table.ZeroPointAsNumpy() if has_zero_point else 0, np.int64)
        if not scale.size:
            return None
        return LiteScales(scale, np.atleast_1d(zero_point), int(table.QuantizedDimension()))

    def _text(self, name: bytes | None) -> str:
        text = (name or b"").decode("utf-8", "backslashreplace")
        self._characters += len(text)
        if self._characters > MOST_NAME_CHARACTERS:
            raise ModelFileError("its tensor names are too long", _AGAIN)
        return text

    def _counted(self, count: int, things: str) -> int:
        if count > MOST_NODES:
            raise ModelFileError(f"it has more than {MOST_NODES:,} {things}", _AGAIN)
        return count


def require_data(tensor: LiteTensor, bits: int) -> None:
    """Refuse a constant whose bytes do not hold what its shape declares.

    Raises:
        ModelFileError: there are more or fewer.
    """
    negative = [size for size in tensor.shape if size < 0]
    length = -(-math.prod(tensor.shape) * bits // 8)
    if negative or tensor.data is None or length != len(tensor.data):
        raise ModelFileError(
            f"tensor {tensor.name!r} does not hold the {list(tensor.shape)} values it declares",
            _AGAIN,
        )


@cache
def _names(enumeration: str) -> dict[int, str]:
    """The names of a schema's numbers."""
    values = vars(getattr(library(), enumeration))
    return {number: name for name, number in values.items() if isinstance(number, int)}


# The table of settings of each operator whose settings say how its weights are read.
_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "CONV_3D": "Conv3DOptions",
    "CONV_3D_TRANSPOSE": "Conv3DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "GATHER": "GatherOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
}


def _options(table: Any, code: str) -> Any:
    """The settings of an operator whose settings matter here."""
    table_name = _OPTIONS.get(code)
    union = table.BuiltinOptions()
    if table_name is None or union is None:
        return None
    if _names("BuiltinOptions").get(table.BuiltinOptionsType()) != table_name:
        return None
    options = getattr(library(), table_name)()
    options.Init(union.Bytes, union.Pos)
    return options


def _integers(values: Any) -> tuple[int, ...]:
    """A vector of the file; one that is left out reads as the number 0."""
    return () if isinstance(values, int) else tuple(values.tolist())


def _existing(indices: Sequence[int], count: int) -> tuple[int, ...]:
    for index in indices:
        if not 0 <= index < count:
            raise ModelFileError(f"{DAMAGED}: it has no tensor {index}", _AGAIN)
    return tuple(indices)
