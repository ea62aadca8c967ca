"""Weights of a few bits each, in blocks that share a scale, in layouts that one operator has.

Source: onnxruntime's operators MatMulNBits and GatherBlockQuantized
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quantstore.errors import ModelFileError
from quantstore.graph.attributes import integer
from quantstore.graph.dequantize import Stored, restored
from quantstore.records import Array, Floats

_BITS = (2, 4, 8)


def read_matrix(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Floats, Stored]:
    """The weights of a MatMulNBits as ``(N, K)``, an output channel in each row.

    Args:
        inputs: codes, scales, zero points, the block of each input (of models made by GPTQ).

    Raises:
        ModelFileError: sizes that do not belong together.
    """
    codes, scales, zero_points, block_of_input = (*inputs, None, None, None, None)[:4]
    bits, block = integer(node, "bits", 4), integer(node, "block_size", 0)
    rows, columns = integer(node, "N", 0), integer(node, "K", 0)
    if codes is None or scales is None or bits not in _BITS or block < 1 or min(rows, columns) < 1:
        raise _unfit(node)
    blocks = -(-columns // block)
    if codes.dtype != np.uint8 or codes.size * 8 != rows * blocks * block * bits:
        raise _unfit(node)
    if scales.size != rows * blocks:
        raise _unfit(node)
    scale = scales.astype(np.float32).reshape(rows, blocks)
    if zero_points is None or not zero_points.size:
        zero = np.full((rows, blocks), 1 << (bits - 1), dtype=np.float32)
    elif zero_points.dtype == np.uint8:
        row_bytes = -(-blocks * bits // 8)
        if zero_points.size != rows * row_bytes:
            raise _unfit(node)
        zero = _numbers(zero_points.reshape(rows, row_bytes), bits)[:, :blocks].astype(np.float32)
    elif zero_points.size == rows * blocks:
        zero = zero_points.astype(np.float32).reshape(rows, blocks)
    else:
        raise _unfit(node)

    if block_of_input is None or not block_of_input.size:
        chosen = np.arange(columns) // block
    else:
        chosen = block_of_input.ravel()[:columns]
        is_whole = np.issubdtype(chosen.dtype, np.integer)
        if chosen.size != columns or not is_whole or chosen.min() < 0 or chosen.max() >= blocks:
            raise _unfit(node)
    weights = _numbers(codes.reshape(rows, -1), bits)[:, :columns].astype(np.float32)
    weights -= zero[:, chosen]
    with np.errstate(over="ignore", invalid="ignore"):
        weights *= scale[:, chosen]
    return weights, Stored(f"uint{bits} per block of {block}", float(scale.max()))


def read_table(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Floats, Stored]:
    """The table of a GatherBlockQuantized, a row for each thing that is looked up.

    Args:
        inputs: codes, scales, zero points.

    Raises:
        ModelFileError: sizes that do not belong together.
    """
    codes, scales, zero_points = (*inputs, None, None, None)[:3]
    bits, block = integer(node, "bits", 4), integer(node, "block_size", 128)
    if codes is None or scales is None or bits not in _BITS or block < 1:
        raise _unfit(node)
    if not codes.size or not scales.size:
        raise _unfit(node)
    axis = integer(node, "quantize_axis", 1)
    axis = axis + codes.ndim if axis < 0 else axis
    if codes.dtype == np.uint8:
        # Several codes in a byte, along the last axis.
        codes = _numbers(codes, bits)
        if zero_points is None:
            zero_points = np.full(1, 1 << (bits - 1), dtype=np.uint8)
        elif axis < scales.ndim:
            zero_points = _numbers(zero_points, bits)[..., : scales.shape[-1]]
        name = f"uint{bits}"
    else:
        name = codes.dtype.name
    weights = restored(node, codes, scales, zero_points, axis=axis, block=block)
    return weights, Stored(f"{name} per block of {block}", float(scales.astype(np.float32).max()))


READERS = {"MatMulNBits": read_matrix, "GatherBlockQuantized": read_table}


def _numbers(packed: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """The numbers of a few bits each that lie in the bytes of the last axis, low bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    apart = (packed[..., np.newaxis] >> shifts) & np.uint8((1 << bits) - 1)
    return apart.reshape(*packed.shape[:-1], -1)


def _unfit(node: ir.Node) -> ModelFileError:
    return ModelFileError(
        f"node {node.name!r} has codes, scales and zero points that do not belong together",
        "export the model again",
    )
