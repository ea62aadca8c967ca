"""An ONNX file in, its graph out: read, hash, parse. Weights stay where they are for now."""

import hashlib
import math
import os
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from quantstore.errors import MissingWeightsError, ModelFileError
from quantstore.file_formats import ONNX, QONNX, TENSORFLOW_LITE, FileFormat
from quantstore.file_formats.signature import (
    HEAD_BYTES,
    refuse_other_formats,
    refuse_other_messages,
    refuse_text,
)
from quantstore.graph.checker import complaint_of
from quantstore.graph.constants import is_qonnx_quantizer
from quantstore.graph.functions import unfold
from quantstore.graph.large_tensors import LargeTensor, attach, parse_apart
from quantstore.graph.limits import require_bounded, require_room, subgraphs
from quantstore.graph.sparse import make_dense
from quantstore.graph.tensors import data_path, dimensions, external_tensors

_CHUNK_BYTES = 1 << 20
_AGAIN = "export or download the model again"
NO_ONNX_FILE = "not an ONNX file, or a truncated one"
NAME_IS_NO_TEXT = "the graph contains a name that is not valid text"
_DATA_TYPES = frozenset(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}
# A protobuf message cannot be longer, nor a flatbuffer.
_MOST_BYTES = (1 << 31) - 1
_SMALLER = {
    ONNX.name: "save the model with its weights as external data",
    TENSORFLOW_LITE.name: "ingest the network as an ONNX file with external data",
}
# Versions count from 1; the store keeps them in 32 bits.
_MOST_VERSION = (1 << 31) - 1
# Files that only look like files: reading one can wait for ever, or never end.
_SYSTEM_FOLDERS = (Path("/proc"), Path("/sys"))


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of external weights as it was when it was hashed."""

    path: Path
    length: int
    stamp: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A parsed file. ``sha256`` and ``file_bytes`` include the external data files.

    ``complaint`` is what onnx.checker objects to, empty where it accepts the model.
    A format that cannot be run says why: only of an ONNX file ``model`` is the network itself.
    """

    path: Path
    sha256: str
    file_bytes: int
    producer: str | None
    ir_version: int | None
    opset: int | None
    model: ir.Model
    data_files: tuple[DataFile, ...] = ()
    complaint: str = ""
    file_format: FileFormat = ONNX


def open_model(path: Path, *, is_judged: bool = True) -> ModelFile:
    """Read the graph of an ONNX file, without its external weights.

    Args:
        is_judged: whether onnx.checker is asked what it objects to.

    Raises:
        ModelFileError: no such file, not readable, no ONNX, or more than a machine can follow.
        MissingWeightsError: external data that is missing or lies outside the model's folder.
    """
    content = read_content(path)
    digest, file_bytes = hashlib.sha256(), len(content)
    # Beside everything else: neither needs the other.
    hashing = threading.Thread(target=digest.update, args=(content,))
    hashing.start()
    try:
        proto, apart = _parse(content)
        _require_sound(proto)
        require_bounded(proto, {name: large.length for name, large in apart.items()})
        complaint = complaint_of(proto) if is_judged else ""
        model = _read(proto)
        attach(model, apart)
    finally:
        hashing.join()
    del content

    data_files: dict[Path, DataFile] = {}
    for tensor in external_tensors(model):
        tensor.base_dir = path.parent
        data_file = data_path(tensor, path.parent)
        if data_file not in data_files:
            data_files[data_file] = hash_external(data_file, digest)
            file_bytes += data_files[data_file].length
        require_room(tensor.name, math.prod(dimensions(tensor)), data_files[data_file].length)
    unfold(model)
    return ModelFile(
        path=path,
        sha256=digest.hexdigest(),
        file_bytes=file_bytes,
        producer=" ".join(map(_text, filter(None, (proto.producer_name, proto.producer_version))))
        or None,
        ir_version=_version(proto.ir_version),
        opset=_version(model.opset_imports.get("") or model.opset_imports.get("ai.onnx")),
        model=model,
        data_files=tuple(data_files.values()),
        complaint=complaint,
        file_format=_format_of(model),
    )


def own_model(proto: onnx.ModelProto, path: Path) -> ModelFile:
    """A model that this process made, as :func:`open_model` reads one from a file.

    Nobody needs to be protected from it, and nobody asks for its hash: ``sha256`` is empty.

    Args:
        path: of the model; its external weights lie beside it.
    """
    model = _read(proto)
    for tensor in external_tensors(model):
        tensor.base_dir = path.parent
    return ModelFile(
        path=path,
        sha256="",
        file_bytes=0,
        producer=None,
        ir_version=_version(proto.ir_version),
        opset=_version(model.opset_imports.get("") or model.opset_imports.get("ai.onnx")),
        model=model,
    )


def external_names(path: Path) -> list[str]:
    """The names of external data in an ONNX file, each once; they may lead anywhere.

    Raises:
        ModelFileError: no such file, not readable, no ONNX, or more than a machine can follow.
    """
    proto, apart = _parse(read_content(path))
    _require_sound(proto)
    require_bounded(proto, {name: large.length for name, large in apart.items()})
    return list(dict.fromkeys(str(tensor.location) for tensor in external_tensors(_read(proto))))


def require_unchanged(file: ModelFile) -> None:
    """Refuse a model whose external weights are not those that were hashed.

    Raises:
        MissingWeightsError: a file was replaced, shortened or written to in the meantime.
    """
    for data_file in file.data_files:
        try:
            stamp = _stamp(data_file.path.stat())
        except OSError:
            stamp = ()
        if stamp != data_file.stamp:
            raise _changed(data_file.path)


def head_of(path: Path) -> bytes:
    """The first bytes of a file; none of one that cannot be read: whoever opens it says so."""
    try:
        with _opened(path) as stream:
            return stream.read(HEAD_BYTES)
    except (OSError, ValueError, ModelFileError):
        return b""


def read_content(path: Path, *, file_format: FileFormat = ONNX) -> bytes:
    """A whole file that is expected to have a format.

    Raises:
        ModelFileError: it cannot be read, is too large, or has another format.
    """
    with _refusing_unreadable(path), _opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(HEAD_BYTES)
        if file_format == ONNX:
            refuse_other_formats(head)
        if size > _MOST_BYTES:
            raise ModelFileError(
                f"{file_format.name} files cannot be larger than 2 GiB",
                _SMALLER.get(file_format.name, _AGAIN),
            )
        # As much as there was at first: a file that grows for ever must come to an end.
        stream.seek(0)
        content = stream.read(max(size, len(head)))
    if not content:
        raise ModelFileError("the file is empty", _AGAIN)
    if len(content) < size:
        raise ModelFileError(BECAME_SHORTER, "try again")
    return content


def hash_file(path: Path, digest: "hashlib._Hash") -> DataFile:
    """A model file of any length, its content added to the digest.

    Raises:
        ModelFileError: it cannot be read.
    """
    with _refusing_unreadable(path), _opened(path) as stream:
        status = os.fstat(stream.fileno())
        if not status.st_size:
            raise ModelFileError("the file is empty", _AGAIN)
        if not _is_hashed(stream, status.st_size, digest):
            raise ModelFileError(BECAME_SHORTER, "try again")
    return DataFile(path, status.st_size, _stamp(status))


BECAME_SHORTER = "the file became shorter while it was read"


def _is_hashed(stream: BinaryIO, length: int, digest: "hashlib._Hash") -> bool:
    """Add so many bytes to the digest; says whether there were as many."""
    while length and (chunk := stream.read(min(length, _CHUNK_BYTES))):
        digest.update(chunk)
        length -= len(chunk)
    return not length


@contextmanager
def _refusing_unreadable(path: Path) -> Iterator[None]:
    try:
        if path.is_dir():
            raise ModelFileError("is a folder", "check the path")
        yield
    except FileNotFoundError as error:
        raise ModelFileError("does not exist", "check the path") from error
    except OSError as error:
        raise ModelFileError(
            f"cannot be read ({error.strerror})", "check its permissions"
        ) from error
    except ValueError as error:
        raise ModelFileError(f"cannot be read ({error})", "check the path") from error
    except MemoryError as error:
        raise ModelFileError("does not fit into memory", "free some memory") from error


def _opened(path: Path) -> BinaryIO:
    """A plain file, open; without waiting for a writer, should it have become a pipe.

    Raises:
        ModelFileError: it is no plain file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    stream = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        stream.close()
        raise ModelFileError("is not a regular file", "copy the model into a regular file")
    return stream


# Windows would translate line ends.
_BINARY = getattr(os, "O_BINARY", 0)


def hash_external(path: Path, digest: "hashlib._Hash") -> DataFile:
    """A file of external weights, its content added to the digest.

    Raises:
        MissingWeightsError: it cannot be read.
    """
    if any(path.is_relative_to(folder) for folder in _SYSTEM_FOLDERS):
        raise MissingWeightsError(
            f"external data {path} is a system file, not a file of weights",
            "export the model again",
        )
    try:
        with _opened(path) as stream:
            before = os.fstat(stream.fileno())
            is_whole = _is_hashed(stream, before.st_size, digest)
    except OSError as error:
        raise MissingWeightsError(
            f"external data {path.name} cannot be read ({error.strerror})"
        ) from error
    except ModelFileError as error:
        raise MissingWeightsError(f"external data {path.name} {error}", error.hint) from error
    if not is_whole:
        raise _changed(path)
    return DataFile(path, before.st_size, _stamp(before))


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _changed(path: Path) -> MissingWeightsError:
    return MissingWeightsError(f"external data {path.name} changed while it was read", "try again")


def _parse(content: bytes) -> tuple[onnx.ModelProto, dict[str, LargeTensor]]:
    """The message of a file, and what was left in its content."""
    head = content[:HEAD_BYTES]
    try:
        proto, apart = parse_apart(content)
    except DecodeError as error:
        refuse_text(head)
        refuse_other_messages(head)
        raise ModelFileError(NO_ONNX_FILE, _AGAIN) from error
    except MemoryError as error:
        raise ModelFileError("does not fit into memory", "free some memory") from error
    # Protobuf skips what it does not know, so that almost any short text can pass as a message.
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.initializer):
        refuse_text(head)
        refuse_other_messages(head)
    if not proto.HasField("graph") or not proto.graph.node:
        raise ModelFileError("not an ONNX file: it contains no graph", _AGAIN)
    return proto, apart


def _read(proto: onnx.ModelProto) -> ir.Model:
    """The graph in onnx-ir's terms; the message is changed in place."""
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        _name_every_node(nodes)
    _rename_repeated_outputs(proto.graph.node, _declared(proto.graph))
    for function in proto.functions:
        _rename_repeated_outputs(function.node, set(function.input))
    for scope in (proto.graph, *proto.functions):
        _drop_exotic_types(scope)
    make_dense(proto)
    return _deserialized(proto)


def _deserialized(proto: onnx.ModelProto) -> ir.Model:
    try:
        return ir.serde.deserialize_model(proto)
    except MemoryError as error:
        raise ModelFileError("does not fit into memory", "free some memory") from error
    except Exception as error:
        # onnx-ir checks little and fails in as many ways as a file can be wrong: whatever it
        # stumbles over, the file is what is wrong.
        raise ModelFileError(
            f"the graph cannot be read ({_innermost(error)})", "check it with onnx.checker"
        ) from error


def _format_of(model: ir.Model) -> FileFormat:
    """ONNX, unless it holds operators that only QONNX runs."""
    return QONNX if any(map(is_qonnx_quantizer, model.graph.all_nodes())) else ONNX


def _version(number: int | None) -> int | None:
    return number if number is not None and 0 < number <= _MOST_VERSION else None


def _text(name: str | bytes) -> str:
    """The protobuf runtime hands out text that is no UTF-8 as bytes."""
    return name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")


def _require_sound(model: onnx.ModelProto) -> None:
    """Refuse what protobuf lets pass and nobody can use: names and types that are none.

    Raises:
        ModelFileError: a name that is not UTF-8, a tensor of a type that ONNX does not have.
    """
    _require_sound_graph(model.graph)
    for function in model.functions:
        _require_text([function.name, function.domain, function.overload])
        _require_text([*function.input, *function.output])
        _require_sound_nodes(function.node)


def _require_sound_graph(graph: onnx.GraphProto) -> None:
    _require_text([value.name for value in (*graph.input, *graph.output)])
    for tensor in graph.initializer:
        _require_sound_tensor(tensor)
    for sparse in graph.sparse_initializer:
        _require_sound_tensor(sparse.values)
    _require_sound_nodes(graph.node)


def _require_sound_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        _require_text([node.name, node.op_type, node.domain, node.overload])
        _require_text([*node.input, *node.output])
        for attribute in node.attribute:
            _require_text([attribute.name, attribute.ref_attr_name])
            if attribute.type == onnx.AttributeProto.TENSOR and not attribute.ref_attr_name:
                _require_sound_tensor(attribute.t)
            for subgraph in subgraphs(attribute):
                _require_sound_graph(subgraph)


def _require_sound_tensor(tensor: onnx.TensorProto) -> None:
    _require_text([tensor.name])
    if tensor.data_type not in _DATA_TYPES:
        raise ModelFileError(
            f"tensor {tensor.name!r} has the unknown type {tensor.data_type}", _AGAIN
        )


def _require_text(names: list[str]) -> None:
    garbled = next((name for name in names if not isinstance(name, str)), None)
    if garbled is not None:
        raise ModelFileError(f"{NAME_IS_NO_TEXT}: {garbled[:80]!r}", _AGAIN)


def _name_every_node(nodes: Iterable[onnx.NodeProto]) -> None:
    """Name unnamed nodes after their first output, before anything else can invent a name."""
    for node in nodes:
        if not node.name:
            node.name = next((output for output in node.output if output), node.op_type)
        for attribute in node.attribute:
            for subgraph in subgraphs(attribute):
                _name_every_node(subgraph.node)


def _rename_repeated_outputs(nodes: Iterable[onnx.NodeProto], declared: set[str]) -> None:
    """Tell outputs of the same name apart, which onnx-ir refuses: the first keeps it."""
    repeats: Counter[str] = Counter()
    for node in nodes:
        for index, name in enumerate(node.output):
            candidate = name
            while candidate and candidate in declared:
                repeats[name] += 1
                candidate = f"{name}#{repeats[name] + 1}"
            if candidate != name:
                node.output[index] = candidate
            declared.add(candidate)
        for attribute in node.attribute:
            for subgraph in subgraphs(attribute):
                _rename_repeated_outputs(subgraph.node, _declared(subgraph))


def _declared(graph: onnx.GraphProto) -> set[str]:
    return {value.name for value in (*graph.input, *graph.initializer)}


def _drop_exotic_types(scope: onnx.GraphProto | onnx.FunctionProto) -> None:
    """Forget types such as a classifier's map of scores: onnx-ir refuses what it cannot express.

    Nothing here depends on the types of activations.
    """
    values = list(scope.value_info)
    if isinstance(scope, onnx.GraphProto):
        values += [*scope.input, *scope.output]
    for value in values:
        if value.type.WhichOneof("value") not in ("tensor_type", None):
            value.ClearField("type")


def _innermost(error: BaseException) -> str:
    # onnx-ir can fail while it describes a failure: what went wrong first is then the context.
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
