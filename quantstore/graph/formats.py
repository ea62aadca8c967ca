"""A file of any format whose layers are read in, its graph out."""

from pathlib import Path

from quantstore.file_formats.signature import is_tflite
from quantstore.graph.file import ModelFile, head_of, open_model
from quantstore.graph.tflite import open_tflite


def open_any(path: Path) -> ModelFile:
    """Read the graph of a file, whatever of the formats that are read it has.

    Only an ONNX file can be run: see ``file_formats``.

    Raises:
        ModelFileError: no such file, not readable, of a format that is not read, or more than a
            machine can follow.
        MissingWeightsError: external data that is missing or lies outside the model's folder.
    """
    return open_tflite(path) if is_tflite(head_of(path)) else open_model(path)
