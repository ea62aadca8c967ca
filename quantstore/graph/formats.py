"""A file of any format whose layers are read in, its graph out."""

from pathlib import Path

from quantstore.file_formats import SAFETENSORS, has_suffix
from quantstore.file_formats.signature import (
    is_gguf,
    is_safetensors,
    is_tflite,
    refuse_other_formats,
)
from quantstore.graph.file import ModelFile, head_of, open_model
from quantstore.graph.tflite import open_tflite
from quantstore.graph.weights import open_gguf, open_safetensors


def open_any(path: Path) -> ModelFile:
    """Read the graph of a file, whatever of the formats that are read it has.

    Only an ONNX file can be run: see ``file_formats``.

    Raises:
        ModelFileError: no such file, not readable, of a format that is not read, or more than a
            machine can follow.
        MissingWeightsError: external data that is missing or lies outside the model's folder.
    """
    head = head_of(path)
    if is_tflite(head):
        return open_tflite(path)
    if is_gguf(head):
        return open_gguf(path)
    if is_safetensors(head) or has_suffix(path, SAFETENSORS.suffixes):
        if not is_safetensors(head):
            # A pointer of Git LFS bears the name of the file that it stands for.
            refuse_other_formats(head, SAFETENSORS)
        return open_safetensors(path)
    return open_model(path)
