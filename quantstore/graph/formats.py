"""A file of any format whose layers are read in, its graph out.

Readers of other formats than ONNX are loaded by the first such file: most processes meet none.
"""

from pathlib import Path

from quantstore.file_formats import GGUF, SAFETENSORS, TENSORFLOW_LITE
from quantstore.file_formats.signature import format_of, is_safetensors, refuse_other_formats
from quantstore.graph.file import ModelFile, head_of, open_model


def open_any(path: Path) -> ModelFile:
    """Read the graph of a file, whatever of the formats that are read it has.

    Only an ONNX file can be run: see ``file_formats``.

    Raises:
        ModelFileError: no such file, not readable, of a format that is not read, or more than a
            machine can follow.
        MissingWeightsError: external data that is missing or lies outside the model's folder.
    """
    head = head_of(path)
    file_format = format_of(path, head)
    if file_format == TENSORFLOW_LITE:
        from quantstore.graph.tflite import open_tflite

        return open_tflite(path)
    if file_format == GGUF:
        from quantstore.graph.weights import open_gguf

        return open_gguf(path)
    if file_format == SAFETENSORS:
        from quantstore.graph.weights import open_safetensors

        if not is_safetensors(head):
            # A pointer of Git LFS bears the name of the file that it stands for.
            refuse_other_formats(head, SAFETENSORS)
        return open_safetensors(path)
    return open_model(path)
