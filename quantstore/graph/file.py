"""An ONNX file in, its graph out: read, hash, parse. Weights stay where they are for now."""

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from quantstore.errors import MissingWeightsError, ModelFileError
from quantstore.graph.tensors import data_path, external_tensors

_CHUNK_BYTES = 1 << 20
_AGAIN = "export or download the model again"
_DATA_TYPES = frozenset(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A parsed file. ``sha256`` and ``file_bytes`` include the external data files."""

    path: Path
    sha256: str
    file_bytes: int
    producer: str | None
    ir_version: int | None
    opset: int | None
    model: ir.Model


def open_model(path: Path) -> ModelFile:
    """Read the graph of an ONNX file, without its external weights.

    Raises:
        ModelFileError: no such file, not readable, or no ONNX.
        MissingWeightsError: external data that is missing or lies outside the model's folder.
    """
    content = _read(path)
    digest, file_bytes = hashlib.sha256(), len(content)
    # Beside the parsing: neither needs the other, and each takes about as long.
    hashing = threading.Thread(target=digest.update, args=(content,))
    hashing.start()
    try:
        proto = _parse(content, path)
    finally:
        hashing.join()
    del content
    _require_sound(proto.graph)
    _name_every_node(proto.graph)
    _drop_exotic_types(proto.graph)
    try:
        model = ir.serde.deserialize_model(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError) as error:
        raise ModelFileError(
            f"the graph cannot be read ({_innermost(error)})", "check it with onnx.checker"
        ) from error
    ir.external_data.set_base_dir(model.graph, path.parent)

    data_files: dict[Path, None] = {}
    for tensor in external_tensors(model):
        data_files[data_path(tensor, path.parent)] = None
    for data_file in data_files:
        try:
            with data_file.open("rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    file_bytes += len(chunk)
        except OSError as error:
            raise MissingWeightsError(
                f"external data {data_file.name} cannot be read ({error.strerror})"
            ) from error
    return ModelFile(
        path=path,
        sha256=digest.hexdigest(),
        file_bytes=file_bytes,
        producer=" ".join(filter(None, (proto.producer_name, proto.producer_version))) or None,
        ir_version=proto.ir_version or None,
        opset=model.opset_imports.get("") or model.opset_imports.get("ai.onnx"),
        model=model,
    )


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            wrong = "is a folder" if path.is_dir() else "does not exist"
            raise ModelFileError(wrong, "check the path")
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"cannot be read ({error.strerror})", "check its permissions"
        ) from error
    if not content:
        raise ModelFileError("the file is empty", _AGAIN)
    return content


def _parse(content: bytes, path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelFileError("not an ONNX file, or a truncated one", _AGAIN) from error
    # Protobuf skips what it does not know, so that almost any short text can pass as a message.
    if not proto.HasField("graph") or not proto.graph.node:
        raise ModelFileError("not an ONNX file: it holds no graph", _AGAIN)
    return proto


def _require_sound(graph: onnx.GraphProto) -> None:
    """Refuse what protobuf lets pass and nobody can use: names and types that are none.

    Raises:
        ModelFileError: a name that is not UTF-8, a tensor of a type that ONNX does not have.
    """
    tensors = list(graph.initializer)
    names = [tensor.name for tensor in tensors]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        for attribute in node.attribute:
            names.append(attribute.name)
            if attribute.type == onnx.AttributeProto.TENSOR:
                tensors.append(attribute.t)
            for subgraph in (attribute.g, *attribute.graphs):
                _require_sound(subgraph)
    # The protobuf runtime hands out undecodable text as bytes.
    garbled = next((name for name in names if not isinstance(name, str)), None)
    if garbled is not None:
        raise ModelFileError(f"the graph holds a name that is no text: {garbled!r}", _AGAIN)
    unknown = next((tensor for tensor in tensors if tensor.data_type not in _DATA_TYPES), None)
    if unknown is not None:
        raise ModelFileError(
            f"tensor {unknown.name!r} has the unknown type {unknown.data_type}", _AGAIN
        )


def _name_every_node(graph: onnx.GraphProto) -> None:
    """Name unnamed nodes after their first output, before anything else can invent a name."""
    for node in graph.node:
        if not node.name:
            node.name = next((output for output in node.output if output), node.op_type)
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                _name_every_node(subgraph)


def _drop_exotic_types(graph: onnx.GraphProto) -> None:
    """Forget types such as a classifier's map of scores: onnx-ir refuses what it cannot express.

    Nothing here depends on the types of activations.
    """
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.WhichOneof("value") not in ("tensor_type", None):
            value.ClearField("type")


def _innermost(error: BaseException) -> str:
    # onnx-ir can fail while it describes a failure: what went wrong first is then the context.
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
