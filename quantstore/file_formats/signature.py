"""What a file is, told from its first bytes: which reader it needs, or what we cannot read."""

from quantstore.errors import ModelFileError
from quantstore.file_formats import HAS_NO_GRAPH, RUNS_ONNX_ONLY

# The longest part of a file that is looked at: a Git LFS pointer fits whole.
HEAD_BYTES = 1024

_EXPORT = "export the model to ONNX and ingest that"
_CONVERT = "convert it to ONNX, or export the original model to ONNX"
_UNPACK = "unpack it and ingest the .onnx file inside"
_DOWNLOAD = "download the file itself"

KERAS_FILE = "an HDF5 file, as Keras writes (.h5)"

_TFLITE = (4, b"TFL3")
# At an offset these bytes, and what they say.
_MAGIC = (
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer to it",
     "fetch the file with: git lfs pull"),
    (0, b"GGUF", "a GGUF file", HAS_NO_GRAPH),
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
    (b"/data.pkl", "a PyTorch file (.pt, .pth)", "export it with torch.onnx.export"),
    (b"/version", "a PyTorch file (.pt, .pth)", "export it with torch.onnx.export"),
    (b"/byteorder", "a PyTorch file (.pt, .pth)", "export it with torch.onnx.export"),
    (b"metadata.json", "a Keras model (.keras)", "export it to ONNX with model.export"),
    (b"config.json", "a Keras model (.keras)", "export it to ONNX with model.export"),
    (b".npy", "a NumPy archive (.npz)", _EXPORT),
)


def is_tflite(head: bytes) -> bool:
    """Whether a file that begins so is a TensorFlow Lite model."""
    offset, magic = _TFLITE
    return head[offset : offset + len(magic)] == magic


def refuse_other_formats(head: bytes) -> None:
    """Refuse a file that another program's first bytes give away.

    Raises:
        ModelFileError: naming the format, and how to get a model out of it.
    """
    for offset, magic, description, remedy in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            raise _refusal(description, remedy)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        members = ((description, remedy) for name, description, remedy in _IN_ZIP if name in head)
        raise _refusal(*next(members, ("a zip archive", _UNPACK)))
    # A pickle of protocol 2 to 5; older PyTorch files are several in a row.
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise _refusal(
            "a Python pickle, as older PyTorch files are (.pt, .pth)",
            "export it with torch.onnx.export",
        )
    # The length of a header, then the header, in JSON.
    if head[8:10] == b'{"' and 0 < int.from_bytes(head[:8], "little") < 1 << 32:
        raise _refusal("a safetensors file", HAS_NO_GRAPH)


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


def _refusal(description: str, remedy: str) -> ModelFileError:
    return ModelFileError(f"not an ONNX file, but {description}", remedy)
