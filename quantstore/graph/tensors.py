"""Stored tensors in, numpy arrays out: one at a time, wherever the file keeps them.

External data is read by offset and length into memory of our own: a mapped file would count as
resident, and one that is truncated under the map would kill the process.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from quantstore.errors import MissingWeightsError, ModelFileError
from quantstore.records import Array

IS_OUTSIDE = "lies outside the model's folder"


def ends_before(file_name: str, tensor_name: str | None) -> str:
    """What is wrong with external data that was cut short."""
    return f"external data {file_name} ends before tensor {tensor_name!r} does"


def does_not_hold(tensor_name: str | None, shape: tuple[int, ...]) -> str:
    """What is wrong with a tensor whose data do not fit its shape."""
    return f"tensor {tensor_name!r} does not hold the {shape} values it declares"


FLOAT_TYPES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.DOUBLE,
    ir.DataType.FLOAT8E4M3FN,
    ir.DataType.FLOAT8E4M3FNUZ,
    ir.DataType.FLOAT8E5M2,
    ir.DataType.FLOAT8E5M2FNUZ,
    ir.DataType.FLOAT4E2M1,
)
# Codes, which mean nothing without a scale.
INTEGER_TYPES = (
    ir.DataType.INT8,
    ir.DataType.UINT8,
    ir.DataType.INT4,
    ir.DataType.UINT4,
    ir.DataType.INT2,
    ir.DataType.UINT2,
    ir.DataType.INT16,
    ir.DataType.UINT16,
)


def read_array(tensor: ir.TensorProtocol) -> Array:
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
            does_not_hold(tensor.name, dimensions(tensor)),
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
            f"external data {location!r} of tensor {tensor.name!r} {IS_OUTSIDE}",
            "move the file into the folder of the model; quantstore does not read other folders",
        )
    if not is_there:
        raise MissingWeightsError(
            f"external data {location} is missing", "add this file together with the model"
        )
    return path


def external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Every tensor whose data lies in another file, in the order of the graph."""
    inside_functions = (
        graph for function in model.functions.values() for graph in function.subgraphs()
    )
    for graph in (*model.graphs(), *model.functions.values(), *inside_functions):
        if isinstance(graph, ir.Graph):
            for value in graph.initializers.values():
                if isinstance(value.const_value, ir.ExternalTensor):
                    yield value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if isinstance(attribute.value, ir.ExternalTensor):
                    yield attribute.value


def _read_external(tensor: ir.ExternalTensor) -> Array:
    path = data_path(tensor, Path(tensor.base_dir))
    dtype = tensor.dtype.numpy()
    shape = dimensions(tensor)
    # Numbers of less than a byte lie side by side in it.
    expected = -(-math.prod(shape) * tensor.dtype.bitwidth // 8)
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
                f"{ends_before(path.name, tensor.name)}"
                f" (needs byte {offset + length}, has {available})",
                "copy the file again; it is incomplete",
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
    if tensor.dtype.bitwidth < 8:
        return _apart(content, tensor.dtype, shape)
    return np.frombuffer(content, dtype).reshape(shape)


def _apart(content: bytes, dtype: ir.DataType, shape: tuple[int, ...]) -> Array:
    """Numbers that lie several in a byte, low bits first."""
    bits = dtype.bitwidth
    if 8 % bits:
        raise ModelFileError(f"numbers of {bits} bits are not read from other files")
    packed = np.frombuffer(content, np.uint8)[:, np.newaxis]
    codes = (packed >> np.arange(0, 8, bits, dtype=np.uint8)) & np.uint8((1 << bits) - 1)
    codes = codes.reshape(-1)[: math.prod(shape)].reshape(shape)
    if dtype in (ir.DataType.INT4, ir.DataType.INT2):
        sign = 1 << (bits - 1)
        return ((codes ^ sign).astype(np.int8) - sign).astype(dtype.numpy())
    if dtype == ir.DataType.FLOAT4E2M1:
        # These bits are no number but its code.
        return codes.view(dtype.numpy())
    return codes.astype(dtype.numpy())


def is_float(array: Array) -> bool:
    """Whether an array has one of the types that hold weights as they are."""
    try:
        return ir.DataType.from_numpy(array.dtype) in FLOAT_TYPES
    except TypeError:
        return False


def dimensions(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The shape of a stored tensor; unlike an activation's it is always known."""
    return tuple(tensor.shape.numpy())
