"""Stored tensors in, numpy arrays out: one at a time, wherever the file keeps them.

External data is read by offset and length into memory of our own: a mapped file would count as
resident, and one that is truncated under the map would kill the process.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quantstore.errors import MissingWeightsError, ModelFileError

FLOAT_TYPES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.DOUBLE,
)
INTEGER_TYPES = (ir.DataType.INT8, ir.DataType.UINT8)


def read_array(tensor: ir.TensorProtocol) -> npt.NDArray[Any]:
    """The values of a stored tensor, in its own type and shape.

    Raises:
        MissingWeightsError: external data that is missing, short or out of bounds.
        ModelFileError: data that does not match the declared shape.
    """
    if isinstance(tensor, ir.ExternalTensor):
        return _read_external(tensor)
    try:
        return tensor.numpy()
    except (ValueError, TypeError, OverflowError, AssertionError) as error:
        raise ModelFileError(
            f"tensor {tensor.name!r} does not hold the {dimensions(tensor)} values it declares",
            "export or download the model again",
        ) from error


def data_path(tensor: ir.ExternalTensor, folder: Path) -> Path:
    """The file a tensor's data lies in, which must be a plain file inside the model's folder.

    Raises:
        MissingWeightsError: where it is missing, or leaves the folder by an absolute path, by
            ``..`` or by a symbolic link.
    """
    location = str(tensor.location)
    try:
        path = (folder / location).resolve()
        is_inside = path.is_relative_to(folder.resolve())
        is_there = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise MissingWeightsError(
            f"external data {location[:100]!r} of tensor {tensor.name!r} has an impossible path",
            "export the model again",
        ) from error
    if not is_inside:
        raise MissingWeightsError(
            f"external data {location!r} of tensor {tensor.name!r} lies outside the model's folder",
            "move it beside the model; quantstore reads nothing else",
        )
    if not is_there:
        raise MissingWeightsError(
            f"external data {location} is missing", "add it together with the model"
        )
    return path


def external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Every tensor whose data lies in another file, in the order of the graph."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR:
                    tensor = attribute.as_tensor()
                    if isinstance(tensor, ir.ExternalTensor):
                        yield tensor


def _read_external(tensor: ir.ExternalTensor) -> npt.NDArray[Any]:
    path = data_path(tensor, Path(tensor.base_dir))
    dtype = tensor.dtype.numpy()
    shape = dimensions(tensor)
    expected = math.prod(shape) * dtype.itemsize
    offset = tensor.offset or 0
    length = expected if tensor.length is None else tensor.length
    if length != expected:
        raise MissingWeightsError(
            f"tensor {tensor.name!r} declares {length} bytes of external data, its shape needs"
            f" {expected}",
            "export the model again",
        )
    try:
        available = path.stat().st_size
        if offset < 0 or offset + length > available:
            raise MissingWeightsError(
                f"external data {path.name} ends before tensor {tensor.name!r} does"
                f" (needs byte {offset + length}, has {available})",
                "copy the file again, it is incomplete",
            )
        with path.open("rb") as stream:
            stream.seek(offset)
            content = stream.read(length)
    except OSError as error:
        raise MissingWeightsError(
            f"external data {path.name} cannot be read ({error.strerror})"
        ) from error
    if len(content) != length:
        raise MissingWeightsError(
            f"external data {path.name} changed while it was read", "try again"
        )
    return np.frombuffer(content, dtype).reshape(shape)


def dimensions(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The shape of a stored tensor; unlike an activation's it is always known."""
    return tuple(tensor.shape.numpy())
