"""A safetensors file in, its layers out, each by itself; or the parts that an index names.

The library says what a file holds and refuses what no such file can be; values are read here, one
tensor at a time: it knows no floats of eight bits in numpy, and would map the file into memory.
"""

import hashlib
import importlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import onnx_ir as ir

from quantstore.errors import MissingWeightsError, ModelFileError
from quantstore.file_formats import INDEX_SUFFIX, SAFETENSORS, has_suffix, part_name
from quantstore.graph.file import DataFile, ModelFile, hash_external, hash_file, read_content
from quantstore.graph.limits import MOST_NODES
from quantstore.graph.tensors import FLOAT_TYPES
from quantstore.graph.weights.assembly import LooseGraph
from quantstore.graph.weights.folding import folded_into
from quantstore.graph.weights.names import (
    Convolution,
    Embedding,
    LooseLayer,
    Matrix,
    Recurrent,
    is_normalization,
    layers_in,
    member,
    normalizations_in,
)
from quantstore.graph.weights.parts import A_PART, part_beside

MISSING_EXTRA = "a safetensors file, and the package that reads its format is not installed"
DAMAGED = "a damaged safetensors file"
BAD_INDEX = "does not say which tensor is in which file"
_AGAIN = "download or save the model again"
# An index of a thousand layers has a megabyte.
_LONGEST_INDEX = 64 << 20
# What precedes the header: its length.
_LENGTH_BYTES = 8

_TYPES = {
    "F64": ir.DataType.DOUBLE,
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "F8_E4M3": ir.DataType.FLOAT8E4M3FN,
    "F8_E5M2": ir.DataType.FLOAT8E5M2,
    "F8_E4M3FNUZ": ir.DataType.FLOAT8E4M3FNUZ,
    "F8_E5M2FNUZ": ir.DataType.FLOAT8E5M2FNUZ,
    "F8_E8M0": ir.DataType.FLOAT8E8M0,
    "F4": ir.DataType.FLOAT4E2M1,
    "I64": ir.DataType.INT64,
    "I32": ir.DataType.INT32,
    "I16": ir.DataType.INT16,
    "I8": ir.DataType.INT8,
    "U64": ir.DataType.UINT64,
    "U32": ir.DataType.UINT32,
    "U16": ir.DataType.UINT16,
    "U8": ir.DataType.UINT8,
    "BOOL": ir.DataType.BOOL,
    "C64": ir.DataType.COMPLEX64,
}
# Codes that a scale beside them turns into weights.
_CODES = (
    ir.DataType.INT8,
    ir.DataType.FLOAT8E4M3FN,
    ir.DataType.FLOAT8E5M2,
)
# Members of a module that are part of what its weight says.
_COMPANIONS = frozenset(
    ("bias", "running_mean", "running_var", "weight_scale", "weight_scale_inv", "weight_zero_point")
)


@dataclass(frozen=True, slots=True)
class _Location:
    """Where a tensor lies: bytes from ``offset`` on of a file."""

    path: Path
    offset: int
    dtype: ir.DataType
    shape: tuple[int, ...]


def open_safetensors(path: Path) -> ModelFile:
    """Read which layers a file holds, or the files that an index names; weights stay there.

    Raises:
        ModelFileError: it cannot be read, is damaged or one part of several, or the extra is
            missing.
        MissingWeightsError: a part is missing, or lies outside the folder of the index.
    """
    digest = hashlib.sha256()
    if has_suffix(path, (INDEX_SUFFIX,)):
        content = read_content(path, file_format=SAFETENSORS)
        digest.update(content)
        files, locations = _indexed_files(path, _weight_map(content), digest)
        file_bytes = len(content)
    else:
        if part := part_name(path):
            raise ModelFileError(A_PART, f"ingest {part.stem}{INDEX_SUFFIX}, which names all")
        files = [hash_file(path, digest)]
        locations = _locations(path.resolve())
        file_bytes = 0
    return ModelFile(
        path=path,
        sha256=digest.hexdigest(),
        file_bytes=file_bytes + sum(file.length for file in files),
        producer=None,
        ir_version=None,
        opset=None,
        model=ir.Model(_StateDict(locations).graph(), ir_version=10),
        data_files=tuple(files),
        file_format=SAFETENSORS,
    )


# Which tensors there are


def index_names(path: Path) -> list[str]:
    """The files that an index names, each once; they may lead anywhere.

    Raises:
        ModelFileError: it cannot be read, or is no index.
    """
    weight_map = _weight_map(read_content(path, file_format=SAFETENSORS))
    return list(dict.fromkeys(weight_map.values()))


def _weight_map(content: bytes) -> Mapping[str, str]:
    """The file of each tensor, as an index has it."""
    if len(content) > _LONGEST_INDEX:
        raise ModelFileError(f"an index cannot have more than {_LONGEST_INDEX >> 20} MiB", _AGAIN)
    try:
        index = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{BAD_INDEX}: it is no JSON", _AGAIN) from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(
        isinstance(file_name, str) for file_name in weight_map.values()
    ):
        raise ModelFileError(BAD_INDEX, _AGAIN)
    _require_few(len(weight_map))
    return weight_map


def _indexed_files(
    index: Path, weight_map: Mapping[str, str], digest: "hashlib._Hash"
) -> tuple[list[DataFile], dict[str, _Location]]:
    """The files of an index, hashed in the order of first use, and where its tensors lie."""
    files: list[DataFile] = []
    locations_of: dict[str, dict[str, _Location]] = {}
    for file_name in dict.fromkeys(weight_map.values()):
        part = part_beside(index, file_name)
        files.append(hash_external(part, digest))
        locations_of[file_name] = _locations(part.resolve())
    locations = {}
    for name, file_name in weight_map.items():
        location = locations_of[file_name].get(name)
        if location is None:
            raise MissingWeightsError(
                f"{file_name} has no tensor {name!r}, which {index.name} expects there", _AGAIN
            )
        locations[name] = location
    return files, locations


def _locations(path: Path) -> dict[str, _Location]:
    """Where the tensors of a file lie: one behind another, in the order of the library."""
    library = _library()
    locations: dict[str, _Location] = {}
    try:
        with library.safe_open(path, framework="numpy") as file, path.open("rb") as stream:
            offset = _LENGTH_BYTES + int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            names = file.offset_keys()
            _require_few(len(names))
            for name in names:
                header = file.get_slice(name)
                code, shape = str(header.get_dtype()), tuple(map(int, header.get_shape()))
                dtype = _TYPES.get(code)
                if dtype is None:
                    raise ModelFileError(f"tensor {name!r} has the type {code}", CONVERT_TYPE)
                locations[name] = _Location(path, offset, dtype, shape)
                offset += math.prod(shape) * dtype.bitwidth // 8
            size = path.stat().st_size
    except library.SafetensorError as error:
        raise ModelFileError(f"{DAMAGED} ({str(error)[:200]})", _AGAIN) from error
    except OSError as error:
        raise ModelFileError(f"cannot be read ({error.strerror or error})", _AGAIN) from error
    if offset != size:
        raise ModelFileError(f"{DAMAGED}: its tensors end at byte {offset}, not {size}", _AGAIN)
    return locations


CONVERT_TYPE = "which is not read; save the model with another type, such as bfloat16"


def _require_few(count: int) -> None:
    if count > MOST_NODES:
        raise ModelFileError(f"it has more than {MOST_NODES:,} tensors", "split the model")


def _library() -> ModuleType:
    try:
        return importlib.import_module("safetensors")
    except ModuleNotFoundError as error:
        raise ModelFileError(MISSING_EXTRA, SAFETENSORS.install) from error


# Which layers they are


class _StateDict:
    """The layers among tensors, and what no rule knows."""

    def __init__(self, locations: Mapping[str, _Location]) -> None:
        self._locations = locations
        self._shapes = {name: location.shape for name, location in locations.items()}
        self._graph = LooseGraph()
        self._used: set[str] = set()

    def graph(self) -> ir.Graph:
        """A node for each layer, each lone normalization and each tensor of unknown purpose."""
        layers = list(layers_in(self._shapes))
        normalizations = {
            module: math.prod(self._shapes[member(module, "running_var")])
            for module in normalizations_in(self._shapes)
        }
        convolutions = [layer for layer in layers if isinstance(layer, Convolution)]
        folded = folded_into(convolutions, normalizations)
        for layer in layers:
            self._add(layer, folded)
        assigned = {module for _, module in folded.values()}
        for module in normalizations:
            if module not in assigned:
                self._graph.lone_normalization(module)
        for name in self._unknown():
            self._graph.tensor(self._graph.constant(self._tensor(name)))
        return self._graph.graph()

    def _add(self, layer: LooseLayer, folded: Mapping[str, tuple[Convolution, str]]) -> None:
        match layer:
            case Convolution(module=module):
                convolution, normalization = folded.get(module, (layer, None))
                self._graph.convolution(
                    module,
                    self._weights(convolution.tensor),
                    groups=convolution.groups,
                    is_transposed=convolution.is_transposed,
                    normalization=self._normalization(normalization),
                )
            case Matrix(module=module, tensor=tensor, is_turned=is_turned):
                self._graph.linear(module, self._weights(tensor), is_turned=is_turned)
            case Embedding(module=module, tensor=tensor):
                self._graph.embedding(module, self._weights(tensor))
            case Recurrent(module=module, op_type=op_type, of_input=of_input, of_state=of_state):
                both = (self._weights(tensor, directions=1) for tensor in (of_input, of_state))
                self._graph.recurrent(module, op_type, *both)

    def _normalization(
        self, module: str | None
    ) -> tuple[ir.TensorProtocol | None, ir.TensorProtocol] | None:
        if module is None:
            return None
        gamma = member(module, "weight")
        variance = self._tensor(member(module, "running_var"))
        return (self._tensor(gamma) if gamma in self._locations else None), variance

    def _weights(self, name: str, *, directions: int = 0) -> ir.Value:
        """The weights of a layer, dequantized where a scale stands beside codes."""
        self._used.add(name)
        location = self._locations[name]
        shape = (1,) * directions + location.shape
        weights = self._tensor(name, shape)
        scale, zero_point = (self._companion(name, end) for end in ("scale", "zero_point"))
        if location.dtype not in _CODES or scale is None:
            return self._graph.constant(weights)
        return self._graph.dequantized(weights, scale, zero_point)

    def _companion(self, name: str, end: str) -> ir.TensorProtocol | None:
        """What stands beside codes, one number or one for each row; None where nothing fits."""
        companion = self._locations.get(f"{name}_{end}")
        if companion is None or not name.endswith("weight"):
            return None
        count, rows = math.prod(companion.shape), self._locations[name].shape[0]
        if count == 1:
            return self._tensor(f"{name}_{end}", ())
        is_per_row = companion.shape in ((rows,), (rows,) + (1,) * (len(companion.shape) - 1))
        return self._tensor(f"{name}_{end}", (rows,)) if is_per_row else None

    def _unknown(self) -> Iterator[str]:
        """Tensors that may be weights, as far as anybody can tell from their shape."""
        for name, location in self._locations.items():
            module, _, leaf = name.rpartition(".")
            is_matrix = len(location.shape) >= 2 and location.dtype in FLOAT_TYPES
            if (
                is_matrix
                and name not in self._used
                and leaf not in _COMPANIONS
                and not is_normalization(module, self._shapes)
            ):
                yield name

    def _tensor(self, name: str, shape: tuple[int, ...] | None = None) -> ir.ExternalTensor:
        location = self._locations[name]
        shape = location.shape if shape is None else shape
        return ir.ExternalTensor(
            location.path.name,
            location.offset,
            -(-math.prod(shape) * location.dtype.bitwidth // 8),
            location.dtype,
            shape=ir.Shape(shape),
            name=name,
            base_dir=location.path.parent,
        )
