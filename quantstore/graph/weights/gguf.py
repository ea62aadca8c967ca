"""A GGUF file in, its layers out, each by itself; what lies in blocks of codes is dequantized.

The package ``gguf`` knows how large a block of each type is and what its codes stand for.
"""

import hashlib
import importlib
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir

from quantstore.errors import ModelFileError
from quantstore.file_formats import GGUF
from quantstore.graph.dequantize import Stored
from quantstore.graph.file import ModelFile, hash_file
from quantstore.graph.fold import UnfoldableError
from quantstore.graph.stored import mark
from quantstore.graph.tensors import FLOAT_TYPES, read_array
from quantstore.graph.weights.assembly import LooseGraph
from quantstore.graph.weights.gguf_header import DAMAGED, Entry, Header, read_header

MISSING_EXTRA = "a GGUF file, and the package that reads its format is not installed"
SEVERAL_FILES = "is one part of a model in several files"
NOT_DEQUANTIZED = "the package gguf does not dequantize"
_AGAIN = "download or convert the model again"

_TYPES = {
    "F64": ir.DataType.DOUBLE,
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "I8": ir.DataType.INT8,
    "I16": ir.DataType.INT16,
    "I32": ir.DataType.INT32,
    "I64": ir.DataType.INT64,
}
_EMBEDDINGS = ("token_embd", "position_embd", "token_types", "per_layer_token_embd")
# The experts of a mixture lie one behind another in one tensor.
_EXPERTS = "_exps"


@dataclass(frozen=True, slots=True)
class _CodeBlock:
    """How a type stores its weights: so many in so many bytes."""

    type_name: str
    weight_count: int
    byte_count: int

    def bytes_of(self, shape: tuple[int, ...]) -> int | None:
        """How long a tensor is; None where its rows do not consist of blocks."""
        if not shape or shape[-1] % self.weight_count:
            return None
        return math.prod(shape) // self.weight_count * self.byte_count


def open_gguf(path: Path) -> ModelFile:
    """Read which layers a file holds; weights stay there until they are asked for.

    Raises:
        ModelFileError: it cannot be read, is damaged or one part of several, or the extra is
            missing.
    """
    library = _library()
    digest = hashlib.sha256()
    whole = hash_file(path, digest)
    try:
        with path.open("rb") as stream:
            header = read_header(stream, whole.length)
    except OSError as error:
        raise ModelFileError(f"cannot be read ({error.strerror})", _AGAIN) from error
    part_count = header.facts.get("split.count", 1)
    if isinstance(part_count, int) and part_count > 1:
        raise ModelFileError(SEVERAL_FILES, "merge them with: llama-gguf-split --merge")
    blocks = _blocks(library, header)
    _require_places(header, blocks, whole.length)
    return ModelFile(
        path=path,
        sha256=digest.hexdigest(),
        file_bytes=whole.length,
        producer=None,
        ir_version=None,
        opset=None,
        model=ir.Model(_graph(path.resolve(), header, blocks, library), ir_version=10),
        data_files=(whole,),
        file_format=GGUF,
    )


def _library() -> ModuleType:
    try:
        return importlib.import_module("gguf")
    except ModuleNotFoundError as error:
        raise ModelFileError(MISSING_EXTRA, GGUF.install) from error


def _blocks(library: ModuleType, header: Header) -> dict[int, _CodeBlock]:
    """The types of a file, by their numbers."""
    blocks = {}
    for number in {entry.type_number for entry in header.entries}:
        try:
            ggml_type = library.GGMLQuantizationType(number)
        except ValueError as error:
            raise ModelFileError(
                f"its tensors have the type {number}, which the installed package gguf does not"
                " know",
                "update it with: pip install --upgrade gguf",
            ) from error
        blocks[number] = _CodeBlock(ggml_type.name, *library.GGML_QUANT_SIZES[ggml_type])
    return blocks


def _require_places(header: Header, blocks: dict[int, _CodeBlock], size: int) -> None:
    """Refuse tensors that do not lie side by side in the file.

    Raises:
        ModelFileError: naming the first.
    """
    spans = []
    for entry in header.entries:
        length = blocks[entry.type_number].bytes_of(entry.shape)
        if length is None:
            raise _wrong(entry, f"declares impossible dimensions {list(entry.shape)}")
        if entry.offset + length > size:
            raise _wrong(entry, "lies beyond the end of the file")
        spans.append((entry.offset, entry.offset + length, entry))
    for (_, end, _), (start, _, entry) in pairwise(sorted(spans, key=lambda span: span[:2])):
        if start < end:
            raise _wrong(entry, "overlaps another one")


def _wrong(entry: Entry, what: str) -> ModelFileError:
    return ModelFileError(f"{DAMAGED}: tensor {entry.name[:80]!r} {what}", _AGAIN)


def _graph(
    path: Path, header: Header, blocks: dict[int, _CodeBlock], library: ModuleType
) -> ir.Graph:
    graph = LooseGraph()
    for entry in header.entries:
        name, dot, leaf = entry.name.rpartition(".")
        shape = _matrix_shape(entry)
        if len(shape) < 2 or 0 in shape:
            continue
        tensor = _tensor(path, entry, shape, blocks[entry.type_number], library)
        value = graph.constant(tensor)
        if leaf != "weight" or not dot:
            if tensor.dtype in FLOAT_TYPES:
                graph.tensor(value)
        elif len(shape) == 2 and name.rpartition(".")[2] in _EMBEDDINGS:
            graph.embedding(name, value)
        elif len(shape) == 2:
            graph.linear(name, value)
        else:
            groups = shape[0] if shape[1] == 1 else 1
            graph.convolution(name, value, groups=groups, is_transposed=False, normalization=None)
    return graph.graph()


def _matrix_shape(entry: Entry) -> tuple[int, ...]:
    """The shape of a tensor, the experts of a mixture one below another."""
    if len(entry.shape) == 3 and entry.name.rpartition(".")[0].endswith(_EXPERTS):
        return (entry.shape[0] * entry.shape[1], entry.shape[2])
    return entry.shape


def _tensor(
    path: Path, entry: Entry, shape: tuple[int, ...], block: _CodeBlock, library: ModuleType
) -> ir.TensorProtocol:
    dtype = _TYPES.get(block.type_name)
    length = block.bytes_of(shape) or 0
    if dtype is not None:
        return _stored(path, entry.name, entry.offset, length, dtype, shape)

    def values() -> ir.Tensor[Any]:
        raw = read_array(
            _stored(path, entry.name, entry.offset, length, ir.DataType.UINT8, (length,))
        )
        rows = raw.reshape(-1, length // (math.prod(shape) // shape[-1]))
        return ir.Tensor(
            _dequantized(library, block.type_name, rows).reshape(shape), name=entry.name
        )

    tensor = ir.LazyTensor(values, ir.DataType.FLOAT, ir.Shape(shape), name=entry.name)
    name = block.type_name.lower()
    mark(tensor, Stored(f"{name} per block of {block.weight_count}", None), dtype_name=name)
    return tensor


def _stored(
    path: Path, name: str, offset: int, length: int, dtype: ir.DataType, shape: tuple[int, ...]
) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        path.name, offset, length, dtype, shape=ir.Shape(shape), name=name, base_dir=path.parent
    )


def _dequantized(library: ModuleType, type_name: str, rows: Any) -> Any:
    """What blocks stand for, in float32.

    Raises:
        UnfoldableError: the library does not know.
    """
    ggml_type = library.GGMLQuantizationType[type_name]
    try:
        with np.errstate(all="ignore"):
            return np.asarray(library.dequantize(rows, ggml_type), np.float32)
    except NotImplementedError as error:
        raise UnfoldableError(f"{NOT_DEQUANTIZED} {type_name}") from error
