"""The bytes of an ONNX file in, its message without large weights out, and where those lie.

Protobuf copies every weight of a file before anybody asks for one. Here the large initializers are
left out of what it parses, and read from the bytes of the file when a layer is.

Whatever is unusual about an encoding stays in the message, so that protobuf alone says what is
wrong with a file. https://protobuf.dev/programming-guides/encoding
"""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

# Smaller ones cost nothing worth mentioning; nor do those of a file in which looking for them takes
# longer than copying them.
LARGE_BYTES, LARGE_FILE_BYTES = 1 << 16, 1 << 24
# Numbers of files, in the byte order of files.
_TYPES: dict[int, np.dtype[Any]] = {
    onnx.TensorProto.FLOAT: np.dtype("<f4"),
    onnx.TensorProto.FLOAT16: np.dtype("<f2"),
    onnx.TensorProto.DOUBLE: np.dtype("<f8"),
    onnx.TensorProto.INT8: np.dtype("i1"),
    onnx.TensorProto.UINT8: np.dtype("u1"),
}
# Field numbers of onnx.proto.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
# Dimensions, type, name and comment: a tensor that has anything else stays in the message.
_PLAIN_FIELDS = {1, 2, 8, 12}
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10


class _UnusualError(Exception):
    """Not encoded as protobuf's own writers do."""


@dataclass(frozen=True, slots=True)
class LargeTensor:
    """Where the numbers of an initializer lie in the bytes of a file."""

    content: bytes
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


def parse_apart(content: bytes) -> tuple[onnx.ModelProto, dict[str, LargeTensor]]:
    """A model without the numbers of its large initializers, and these by name.

    Raises:
        DecodeError: the content is no message.
    """
    try:
        small, by_index = _without_large(content)
    except _UnusualError:
        small, by_index = content, {}
    model = onnx.load_model_from_string(small)
    tensors = model.graph.initializer
    apart = {}
    for index, large in by_index.items():
        tensor = tensors[index]
        dtype = _TYPES.get(tensor.data_type)
        fits = dtype is not None and math.prod(tensor.dims) * dtype.itemsize == large.length
        if fits and min(tensor.dims, default=1) > 0:
            apart[tensor.name] = large
        else:
            tensor.raw_data = content[large.start : large.stop]
    if len({tensor.name for tensor in tensors}) < len(tensors) and apart:
        # Names that are not unique say nothing about which tensor is meant.
        return onnx.load_model_from_string(content), {}
    return model, apart


def attach(model: ir.Model, apart: Mapping[str, LargeTensor]) -> None:
    """Give the initializers of a graph their numbers back; each is copied when it is read."""
    for name, large in apart.items():
        value = model.graph.initializers[name]
        tensor = value.const_value
        if tensor is not None:
            value.const_value = ir.LazyTensor(
                partial(_read, large, tensor),
                tensor.dtype,
                ir.Shape(tensor.shape.numpy()),
                name=name,
                doc_string=tensor.doc_string,
            )


def _read(large: LargeTensor, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    dtype = _TYPES[tensor.dtype.value]
    numbers = np.empty(large.length // dtype.itemsize, dtype=dtype)
    # In a file they lie at any address; numpy is quick where it is a multiple of their size.
    numbers.view(np.uint8)[:] = np.frombuffer(
        large.content, dtype=np.uint8, count=large.length, offset=large.start
    )
    shape = tuple(tensor.shape.numpy())
    return ir.Tensor(numbers.reshape(shape), dtype=tensor.dtype, name=tensor.name)


def _without_large(content: bytes) -> tuple[bytes, dict[int, LargeTensor]]:
    """The message without the numbers of large initializers, which are told by their index."""
    if len(content) < LARGE_FILE_BYTES or sys.byteorder != "little":
        return content, {}
    graphs = [field for field in _fields(content, 0, len(content)) if field.number == _GRAPH]
    if len(graphs) != 1 or graphs[0].wire_type != _BYTES:
        # Protobuf would merge several.
        raise _UnusualError
    (graph,) = graphs
    kept, copied, index = [], graph.start, 0
    by_index: dict[int, LargeTensor] = {}
    for field in _fields(content, graph.start, graph.stop):
        if field.number != _INITIALIZER:
            continue
        if field.wire_type != _BYTES:
            raise _UnusualError
        if field.stop - field.start > LARGE_BYTES:
            raw_data = _raw_data(content, field)
            if raw_data is not None:
                head = content[field.start : raw_data.begin]
                tail = content[raw_data.stop : field.stop]
                kept += [
                    content[copied : field.begin],
                    _tag(_INITIALIZER),
                    _varint(len(head) + len(tail)),
                ]
                kept += [head, tail]
                copied = field.stop
                by_index[index] = LargeTensor(content, raw_data.start, raw_data.stop)
        index += 1
    if not by_index:
        return content, {}
    kept.append(content[copied : graph.stop])
    small_graph = b"".join(kept)
    model = [content[: graph.begin], _tag(_GRAPH), _varint(len(small_graph)), small_graph]
    return b"".join([*model, content[graph.stop :]]), by_index


class _Field(NamedTuple):
    """A field of a message: it begins at its tag, its content lies from start to stop."""

    number: int
    wire_type: int
    begin: int
    start: int
    stop: int


def _raw_data(content: bytes, tensor: _Field) -> _Field | None:
    """The numbers of a tensor; None where they are few, or where it has others, too."""
    raw_data = None
    for field in _fields(content, tensor.start, tensor.stop):
        if field.number == _RAW_DATA and raw_data is None and field.wire_type == _BYTES:
            raw_data = field
        elif field.number not in _PLAIN_FIELDS:
            return None
    return raw_data if raw_data and raw_data.stop - raw_data.start >= LARGE_BYTES else None


def _fields(content: bytes, start: int, stop: int) -> Iterator[_Field]:
    """The fields of the message that lies from start to stop.

    Raises:
        _UnusualError: it is cut off, or no message.
    """
    while start < stop:
        begin = start
        tag, start = _read_varint(content, start, stop)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            _, end = _read_varint(content, start, stop)
        elif wire_type == _BYTES:
            length, start = _read_varint(content, start, stop)
            end = start + length
        elif wire_type in (_FIXED_32, _FIXED_64):
            end = start + (4 if wire_type == _FIXED_32 else 8)
        else:
            raise _UnusualError
        if end > stop or not number:
            raise _UnusualError
        yield _Field(number, wire_type, begin, start, end)
        start = end


def _read_varint(content: bytes, start: int, stop: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    number = 0
    for position in range(start, min(start + _MOST_VARINT_BYTES, stop)):
        byte = content[position]
        number |= (byte & 0x7F) << (7 * (position - start))
        if byte < 0x80:
            return number, position + 1
    raise _UnusualError


def _tag(number: int) -> bytes:
    return _varint(number << 3 | _BYTES)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*encoded, number))
