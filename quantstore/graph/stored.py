"""What a tensor of floats is stored as in its file, where a reader dequantizes it."""

import onnx_ir as ir

from quantstore.graph.dequantize import Stored

_STORED, _DTYPE_NAME = "quantstore.stored", "quantstore.dtype"


def mark(tensor: ir.TensorProtocol, stored: Stored, *, dtype_name: str) -> None:
    """Say of a tensor that its values lie on a grid.

    Args:
        dtype_name: the type of its codes, such as ``q4_k``.
    """
    tensor.meta[_STORED] = stored
    tensor.meta[_DTYPE_NAME] = dtype_name


def stored_of(tensor: ir.TensorProtocol) -> Stored | None:
    """How a tensor is stored that was marked; None of any other."""
    stored = tensor.meta.get(_STORED)
    return stored if isinstance(stored, Stored) else None


def dtype_name(tensor: ir.TensorProtocol) -> str:
    """The type of a tensor, as its file has it."""
    return str(tensor.meta.get(_DTYPE_NAME) or tensor.dtype.numpy().name)
