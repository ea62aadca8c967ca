"""The quantizers of QONNX: what they make of an array, and the grid that it lies on then.

Quant and IntQuant, BipolarQuant and Trunc, as FINN, hls4ml and Brevitas write them. Everything is
computed in the type of the array, as QONNX does.

Source: https://github.com/fastmachinelearning/qonnx/tree/main/docs/qonnx-custom-ops.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from quantstore.graph.attributes import integer, text
from quantstore.graph.dequantize import Stored
from quantstore.records import Array

BIPOLAR, TRUNC = "BipolarQuant", "Trunc"
_MOST_BITS = 64

_ROUNDINGS: Mapping[str, Callable[[Array], Array]] = {
    "ROUND": np.round,
    "HALF_EVEN": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda array: np.sign(array) * np.ceil(np.abs(array)),
    "DOWN": np.trunc,
    "HALF_UP": lambda array: np.sign(array) * np.floor(np.abs(array) + 0.5),
    "HALF_DOWN": lambda array: np.sign(array) * np.ceil(np.abs(array) - 0.5),
}


def quantized(node: ir.Node, inputs: Sequence[Array | None]) -> Array:
    """What a quantizer makes of an array.

    Raises:
        ValueError: it has inputs or settings that no such quantizer has.
    """
    array, scale, *others = _present(inputs)
    _require_fitting(array, scale)
    if node.op_type == BIPOLAR:
        return np.where(array >= 0, 1, -1).astype(array.dtype) * scale
    zero_point, *settings = others
    _require_fitting(array, zero_point)
    if node.op_type == TRUNC:
        return _truncated(node, array, scale, zero_point, settings)
    bits = _bits(settings[0])
    codes = array / scale + zero_point
    if bits == 1 and integer(node, "signed", 1):
        codes = np.where(codes >= 0, 1, -1).astype(array.dtype)
    else:
        codes = _rounding(node, "ROUND")(_clamped(node, codes, bits, narrow=1))
    return np.asarray((codes - zero_point) * scale, array.dtype)


def stored_by(node: ir.Node, inputs: Sequence[Array | None]) -> Stored:
    """The grid that an array lies on behind a quantizer.

    Raises:
        ValueError: it has inputs that no such quantizer has.
    """
    _, scale, *others = _present(inputs)
    if node.op_type == BIPOLAR:
        grid = "a bipolar grid"
    else:
        is_signed = integer(node, "signed", 1)
        grid = f"{'an ' if is_signed else 'a u'}int{math.ceil(_bits(others[-1]))} grid"
    # The second version of Trunc has a scale of its own for what comes out.
    result_scale = others[2] if len(others) == 4 else scale
    sharing = "channel" if result_scale.size > 1 else "tensor"
    return Stored(
        f"float on {grid} per {sharing}", float(np.abs(result_scale.astype(np.float32)).max())
    )


def _truncated(
    node: ir.Node, array: Array, scale: Array, zero_point: Array, settings: Sequence[Array]
) -> Array:
    """Both versions of Trunc; the second has a scale for what comes out, and clamps."""
    codes = np.round(array / scale + zero_point)
    rounding = _rounding(node, "FLOOR")
    if len(settings) == 2:
        bits_in, bits_out = map(_bits, settings)
        codes = rounding(codes / 2.0 ** (bits_in - bits_out))
        return np.asarray((codes - zero_point) * scale, array.dtype)
    _, scale_out, bits_out_array = settings
    _require_fitting(array, scale_out)
    # A power of two.
    ratio = 2 ** np.round(np.log2(scale_out / scale))
    codes = rounding(_clamped(node, codes / ratio, _bits(bits_out_array), narrow=0))
    return np.asarray((codes - zero_point / ratio) * scale_out, array.dtype)


def _clamped(node: ir.Node, codes: Array, bits: float, *, narrow: int) -> Array:
    """Codes within the range of so many bits, before they are rounded.

    Args:
        narrow: what the attribute is where it is left out.
    """
    is_narrow = bool(integer(node, "narrow", narrow))
    if integer(node, "signed", 1):
        low, high = -(2.0 ** (bits - 1)) + is_narrow, 2.0 ** (bits - 1) - 1
    else:
        low, high = 0.0, 2.0**bits - 1 - is_narrow
    return np.clip(codes, codes.dtype.type(low), codes.dtype.type(high))


def _rounding(node: ir.Node, default: str) -> Callable[[Array], Array]:
    name = text(node, "rounding_mode", default).upper()
    rounding = _ROUNDINGS.get(name)
    if rounding is None:
        raise ValueError(f"it has the unknown rounding mode {name[:40]}")
    return rounding


def _present(inputs: Sequence[Array | None]) -> list[Array]:
    arrays = [array for array in inputs if array is not None]
    if len(arrays) < 2 or len(arrays) != len(inputs) or not all(array.size for array in arrays[1:]):
        raise ValueError("it lacks its scale or its bit width")
    return arrays


def _require_fitting(array: Array, parameter: Array) -> None:
    if np.broadcast_shapes(array.shape, parameter.shape) != array.shape:
        raise ValueError(f"its scale of shape {parameter.shape} does not fit {array.shape}")


def _bits(array: Array) -> float:
    bits = float(array.ravel()[0]) if array.size == 1 else math.nan
    if not 1 <= bits <= _MOST_BITS:
        raise ValueError(f"it has a bit width of {bits:g}")
    return bits
