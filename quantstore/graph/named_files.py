"""A model file in, the names of the other files that it consists of out, whether they are there.

Readers of other formats than ONNX are loaded by the first such file.
"""

from pathlib import Path

from quantstore.file_formats import INDEX_SUFFIX, SAFETENSORS, has_suffix
from quantstore.file_formats.signature import is_gguf, is_tflite
from quantstore.graph.file import external_names, head_of


def named_files(path: Path) -> list[str]:
    """What a model needs beside its file, each name once, as the file has it: it may lead anywhere.

    Raises:
        ModelFileError: the file cannot be read.
    """
    if has_suffix(path, (INDEX_SUFFIX,)):
        from quantstore.graph.weights import index_names

        return index_names(path)
    head = head_of(path)
    if is_gguf(head):
        from quantstore.graph.weights import other_part_names

        return other_part_names(path)
    if is_tflite(head) or has_suffix(path, SAFETENSORS.suffixes):
        return []
    return external_names(path)
