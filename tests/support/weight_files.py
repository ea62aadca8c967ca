"""Files of weights without a graph, written by the packages of their formats, or by hand."""

import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

from tests.support.graphs import gaussian


def save_tensors(path, tensors):
    """A safetensors file of numpy arrays, as its package writes it."""
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)
    return path


def write_safetensors(path, header, content=b"", length=None):
    """A safetensors file with any header, however wrong: a mapping, or bytes as they are.

    Args:
        length: that the file claims its header to have.
    """
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + text + content)
    return path


def save_parts(folder, tensors, *, stem="model", count=2):
    """A model in several safetensors files, and the index that names them; returns the index."""
    names = list(tensors)
    weight_map = {}
    for number in range(count):
        part = f"{stem}-{number + 1:05}-of-{count:05}.safetensors"
        chosen = names[number::count]
        save_tensors(folder / part, {name: tensors[name] for name in chosen})
        weight_map |= dict.fromkeys(chosen, part)
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def normalization(module, channels, seed=9):
    """The members of a BatchNormalization, as PyTorch names them."""
    scale = np.abs(gaussian(channels, seed=seed)) + np.float32(0.5)
    return {
        f"{module}.weight": scale,
        f"{module}.bias": gaussian(channels, seed=seed + 1),
        f"{module}.running_mean": gaussian(channels, seed=seed + 2),
        f"{module}.running_var": np.abs(gaussian(channels, seed=seed + 3)) + np.float32(0.1),
        f"{module}.num_batches_tracked": np.array(7, np.int64),
    }


def save_gguf(path, tensors, facts=(), **splitting):
    """A GGUF file, as its package writes it.

    Args:
        tensors: arrays by name; a pair of an array and the name of a type is quantized to it.
        facts: pairs of the name of a method of the writer and what it is given.
        splitting: how the writer makes several files of it: ``split_max_tensors`` and others.
    """
    writer = gguf.GGUFWriter(path, "llama", **splitting)
    for method, *arguments in facts:
        getattr(writer, method)(*arguments)
    for name, array in tensors.items():
        if isinstance(array, tuple):
            weights, type_name = array
            kind = gguf.GGMLQuantizationType[type_name]
            writer.add_tensor(name, gguf.quantize(weights, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def save_gguf_parts(folder, tensors, *, stem="net", **splitting):
    """A model in GGUF files of two tensors each, as its package splits it; returns them."""
    save_gguf(folder / f"{stem}.gguf", tensors, split_max_tensors=2, **splitting)
    return sorted(folder.glob(f"{stem}-*.gguf"))
