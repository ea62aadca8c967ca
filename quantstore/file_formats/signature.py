"""What a file is, told from its first bytes: which reader it needs, or what we cannot read."""

import re
from pathlib import PurePath

from quantstore.errors import ModelFileError
from quantstore.file_formats import (
    GGUF,
    HAS_NO_GRAPH,
    ONNX,
    RUNS_ONNX_ONLY,
    SAFETENSORS,
    TENSORFLOW_LITE,
    FileFormat,
    has_suffix,
)

# The longest part of a file that is looked at: a Git LFS pointer fits whole.
HEAD_BYTES = 1024

_EXPORT = "export the model to ONNX and ingest that"
_CONVERT = "convert it to ONNX, or export the original model to ONNX"
_UNPACK = "unpack it and ingest the .onnx file inside"
_DOWNLOAD = "download the file itself"

KERAS_FILE = "an HDF5 file, as Keras writes (.h5)"
PYTORCH_FILE = "a PyTorch file (.pt, .pth, .bin)"
# Whoever loads such a file runs the code in it.
_FROM_PYTORCH = "export it with torch.onnx.export, or save its weights as safetensors"

_TFLITE = (4, b"TFL3")
_GGUF = (0, b"GGUF")
# The length of a header, then the header, in JSON.
_SAFETENSORS = (8, b'{"')
_LONGEST_HEADER = 1 << 32
# At an offset these bytes, and what they say.
_MAGIC = (
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer to it",
     "fetch the file with: git lfs pull"),
    (*_GGUF, "a GGUF file", HAS_NO_GRAPH),
    (*_TFLITE, "a TensorFlow Lite model", RUNS_ONNX_ONLY),
    (4, b"ORTM", "an onnxruntime .ort model", "ingest the .onnx file that it was made from"),
    (0, b"\x89HDF\r\n\x1a\n", KERAS_FILE, "export it with tf2onnx"),
    (0, b"\x93NUMPY", "a NumPy array", _EXPORT),
    (0, b"RKNN", "a Rockchip RKNN model", "ingest the .onnx file that it was made from"),
    (0, b"ftrt", "a TensorRT engine", "ingest the .onnx file that it was made from"),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"%PDF", "a PDF document", _DOWNLOAD),
)  # fmt: skip
# Names of members that tell one zip archive from another.
_IN_ZIP = (
    (b"/data.pkl", PYTORCH_FILE, _FROM_PYTORCH),
    (b"/version", PYTORCH_FILE, _FROM_PYTORCH),
    (b"/byteorder", PYTORCH_FILE, _FROM_PYTORCH),
    (b"metadata.json", "a Keras model (.keras)", "export it to ONNX with model.export"),
    (b"config.json", "a Keras model (.keras)", "export it to ONNX with model.export"),
    (b".npy", "a NumPy archive (.npz)", _EXPORT),
)


def format_of(name: str | PurePath, head: bytes) -> FileFormat:
    """The format that a file seems to have; ONNX, which has no signature, where it has no other.

    Args:
        head: its first :data:`HEAD_BYTES`.
    """
    if is_tflite(head):
        return TENSORFLOW_LITE
    if is_gguf(head):
        return GGUF
    return SAFETENSORS if is_safetensors(head) or has_suffix(name, SAFETENSORS.suffixes) else ONNX


def is_tflite(head: bytes) -> bool:
    """Whether a file that begins so is a TensorFlow Lite model."""
    return _begins(head, *_TFLITE)


def is_gguf(head: bytes) -> bool:
    """Whether a file that begins so is a GGUF file."""
    return _begins(head, *_GGUF)


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins so is a safetensors file."""
    header_length = int.from_bytes(head[:8], "little")
    return _begins(head, *_SAFETENSORS) and 0 < header_length < _LONGEST_HEADER


def _begins(head: bytes, offset: int, magic: bytes) -> bool:
    return head[offset : offset + len(magic)] == magic


def refuse_other_formats(head: bytes, expected: FileFormat = ONNX) -> None:
    """Refuse a file that another program's first bytes give away.

    Raises:
        ModelFileError: naming the format, and how to get a model out of it.
    """
    for offset, magic, description, remedy in _MAGIC:
        if _begins(head, offset, magic):
            raise _refusal(description, remedy, expected)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        members = ((description, remedy) for name, description, remedy in _IN_ZIP if name in head)
        raise _refusal(*next(members, ("a zip archive", _UNPACK)), expected)
    # A pickle of protocol 2 to 5; older PyTorch files are several in a row.
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise _refusal(
            "a Python pickle, as older PyTorch files are (.pt, .pth, .bin)", _FROM_PYTORCH
        )
    if is_safetensors(head):
        raise _refusal("a safetensors file", HAS_NO_GRAPH)


def refuse_other_messages(head: bytes) -> None:
    """Refuse messages of protobuf that are no model of ONNX, once parsing has failed.

    Raises:
        ModelFileError: naming the format, and how to get a model out of it.
    """
    # A version, then a message whose length takes up to five bytes, then the first field in it: in
    # a SavedModel a graph, with its facts in front; in Core ML the description of an input.
    if message := _VERSION_AND_MESSAGE.match(head):
        if message["first"] == b"\x12" and message["version"] == b"\x01":
            raise _refusal(
                "a TensorFlow SavedModel (.pb)", "convert its folder to ONNX with tf2onnx"
            )
        if message["first"] == b"\n":
            raise _refusal("a Core ML model (.mlmodel)", "export the original model to ONNX")
    if _GRAPH_NODE.match(head):
        raise _refusal("a TensorFlow graph (.pb)", "convert it to ONNX with tf2onnx")


_LENGTH = rb"[\x80-\xff]{0,4}[\x00-\x7f]"
_VERSION_AND_MESSAGE = re.compile(
    rb"\x08(?P<version>[\x01-\x7f])\x12" + _LENGTH + rb"\n" + _LENGTH + rb"(?P<first>[\n\x12])",
    re.DOTALL,
)
# A node with its name and its operator, as frozen graphs begin.
_GRAPH_NODE = re.compile(
    rb"\n" + _LENGTH + rb"\n" + _LENGTH + rb"[\x20-\x7e]+\x12" + _LENGTH + rb"[A-Z][A-Za-z0-9]+",
    re.DOTALL,
)


def refuse_text(head: bytes) -> None:
    """Refuse text, once parsing has failed: a short text can pass for the start of a message.

    Raises:
        ModelFileError: saying what kind of text it is.
    """
    # A character may be cut in two at the end.
    text = head.decode("utf-8", "ignore")
    if len(text.encode()) < len(head) - 3 or not all(c.isprintable() or c.isspace() for c in text):
        return
    start = text.lstrip("\ufeff").lstrip().lower()
    if start.startswith(("<!doctype html", "<html")):
        raise _refusal(
            "a web page", f"the download returned a web page instead of the file; {_DOWNLOAD}"
        )
    if start.startswith("<?xml") and "<net" in start:
        raise _refusal("an OpenVINO model (.xml)", "ingest the .onnx file that it was made from")
    if start.startswith(("ir_version:", "graph {", "opset_import {")):
        raise _refusal("an ONNX model as text", _CONVERT)
    raise _refusal("a text file", "check that this is the right file")


def _refusal(description: str, remedy: str, expected: FileFormat = ONNX) -> ModelFileError:
    article = "an" if expected == ONNX else "a"
    return ModelFileError(f"not {article} {expected.name} file, but {description}", remedy)
