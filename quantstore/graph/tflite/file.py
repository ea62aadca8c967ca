"""A TensorFlow Lite file in, a model file out whose layers are read as those of an ONNX file."""

import hashlib
from pathlib import Path

import onnx_ir as ir

from quantstore.file_formats import TENSORFLOW_LITE
from quantstore.graph.file import ModelFile, read_content
from quantstore.graph.tflite.schema import Schema
from quantstore.graph.tflite.translation import translated


def open_tflite(path: Path) -> ModelFile:
    """Read the graph of a TensorFlow Lite file; weights are read when they are asked for.

    Raises:
        ModelFileError: it cannot be read, holds what no file can hold, or the extra is missing.
    """
    content = read_content(path, file_format=TENSORFLOW_LITE)
    schema = Schema(content)
    return ModelFile(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        file_bytes=len(content),
        producer=schema.description,
        ir_version=None,
        opset=None,
        model=ir.Model(translated(schema), ir_version=10),
        file_format=TENSORFLOW_LITE,
    )
