"""A GGUF file in, its layers out, each by itself; what lies in blocks of codes is dequantized.

The package ``gguf`` knows how large a block of each type is and what its codes stand for.
"""

import hashlib
import importlib
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir

from quantstore.errors import MissingWeightsError, ModelFileError
from quantstore.file_formats import GGUF, part_name
from quantstore.graph.dequantize import Stored
from quantstore.graph.file import DataFile, ModelFile, hash_external, hash_file
from quantstore.graph.fold import UnfoldableError
from quantstore.graph.limits import MOST_NODES
from quantstore.graph.stored import mark
from quantstore.graph.tensors import FLOAT_TYPES, read_array
from quantstore.graph.weights.assembly import LooseGraph
from quantstore.graph.weights.gguf_header import DAMAGED, Entry, Header, read_header
from quantstore.graph.weights.parts import A_PART, part_beside

MISSING_EXTRA = "a GGUF file, and the package that reads its format is not installed"
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


@dataclass(frozen=True, slots=True)
class _PartFile:
    """One file of a model, of which there may be several."""

    path: Path
    file: DataFile
    header: Header
    blocks: dict[int, _CodeBlock]


def open_gguf(path: Path) -> ModelFile:
    """Read which layers a file holds, or the files that its name says there are.

    Weights stay there until they are asked for.

    Raises:
        ModelFileError: it cannot be read, is damaged or not the first part of several, or the
            extra is missing.
        MissingWeightsError: another part is missing, or lies in another folder.
    """
    library = _library()
    digest = hashlib.sha256()
    first = _opened(path, hash_file(path, digest), library)
    part_files = [first]
    for name in _other_parts(path, first.header):
        part_path = part_beside(path, name)
        try:
            part = _opened(part_path, hash_external(part_path, digest), library)
            _require_place(part.header, first.header, len(part_files))
        except MissingWeightsError:
            raise
        except ModelFileError as error:
            raise ModelFileError(f"part {name}: {error}", error.hint) from error
        part_files.append(part)
    _require_whole(part_files)
    return ModelFile(
        path=path,
        sha256=digest.hexdigest(),
        file_bytes=sum(part.file.length for part in part_files),
        producer=None,
        ir_version=None,
        opset=None,
        model=ir.Model(_graph(part_files, library), ir_version=10),
        data_files=tuple(part.file for part in part_files),
        file_format=GGUF,
    )


def other_part_names(path: Path) -> list[str]:
    """The files that a model consists of besides its first.

    Raises:
        ModelFileError: it cannot be read, is damaged or not the first part of several.
    """
    return _other_parts(path, _header(path))


def _opened(path: Path, file: DataFile, library: ModuleType) -> _PartFile:
    header = _header(path)
    blocks = _blocks(library, header)
    _require_places(header, blocks, file.length)
    return _PartFile(path.resolve(), file, header, blocks)


def _header(path: Path) -> Header:
    try:
        with path.open("rb") as stream:
            return read_header(stream, os.fstat(stream.fileno()).st_size)
    except OSError as error:
        raise ModelFileError(f"cannot be read ({error.strerror})", _AGAIN) from error


def _other_parts(path: Path, header: Header) -> list[str]:
    """The names of the other parts, as llama.cpp gives them: it finds them by these, too."""
    count, number = header.part_count, header.part_number
    if count == 1:
        return []
    part = part_name(path)
    if part is None or (part.number, part.count) != (number, count):
        raise ModelFileError(
            f"{A_PART}, part {number} of {count}, but not named so",
            f"rename it to NAME-{number:05}-of-{count:05}.gguf, and the others likewise",
        )
    if number != 1:
        raise ModelFileError(A_PART, f"ingest {part.of(1)}, which stands for all")
    return [part.of(other) for other in range(2, count + 1)]


def _require_place(header: Header, first: Header, index: int) -> None:
    """Refuse a file that is another part, or one of another model, than its name says."""
    expected = (index + 1, first.part_count, first.total_count)
    if (header.part_number, header.part_count, header.total_count) != expected:
        raise ModelFileError(
            f"it says that it is part {header.part_number} of {header.part_count}, of a model with"
            f" {header.total_count:,} tensors, instead of part {expected[0]} of {expected[1]}, of"
            f" one with {expected[2]:,}",
            _AGAIN,
        )


def _require_whole(part_files: Sequence[_PartFile]) -> None:
    """Refuse parts that are not one model.

    Raises:
        ModelFileError: tensors are missing, too many, or there twice.
    """
    names = Counter(entry.name for part in part_files for entry in part.header.entries)
    name, most = max(names.items(), key=lambda named: named[1], default=("", 0))
    if most > 1:
        raise ModelFileError(f"{DAMAGED}: tensor {name[:80]!r} is in two of its parts", _AGAIN)
    total = part_files[0].header.total_count
    if len(part_files) > 1 and len(names) != total:
        raise ModelFileError(
            f"{DAMAGED}: its parts have {len(names):,} tensors instead of {total:,}", _AGAIN
        )
    if len(names) > MOST_NODES:
        raise ModelFileError(f"it has more than {MOST_NODES:,} tensors", "split the model")


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


def _graph(part_files: Sequence[_PartFile], library: ModuleType) -> ir.Graph:
    graph = LooseGraph()
    for part, entry in ((one, entry) for one in part_files for entry in one.header.entries):
        name, dot, leaf = entry.name.rpartition(".")
        shape = _matrix_shape(entry)
        if len(shape) < 2 or 0 in shape:
            continue
        tensor = _tensor(part.path, entry, shape, part.blocks[entry.type_number], library)
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
