"""The quantizers of QONNX: what they make of a tensor, and the grid that it lies on then.

Quant and IntQuant, BipolarQuant, Trunc and FloatQuant, as FINN, hls4ml and Brevitas write them.
Their definition is written once, for numpy and for nodes of ONNX alike: see :func:`arithmetic`.

Source: https://github.com/fastmachinelearning/qonnx/tree/main/docs/qonnx-custom-ops, and of
FloatQuant https://github.com/fastmachinelearning/qonnx/blob/main/src/qonnx/custom_op/general/floatquant.py.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
import onnx_ir as ir

from quantstore.graph.attributes import integer, text
from quantstore.graph.dequantize import Stored
from quantstore.records import Array

BIPOLAR, TRUNC, FLOAT = "BipolarQuant", "Trunc", "FloatQuant"
# Inputs of each, what is quantized among them; the second version of Trunc has one more.
_INPUT_COUNTS = {BIPOLAR: (2,), TRUNC: (5, 6), FLOAT: (6,)}
_OF_QUANT = (4,)
_MOST_BITS = 64
# Of floats: those of double precision have no more.
_MOST_EXPONENT_BITS, _MOST_MANTISSA_BITS = 11, 52

Tensor = TypeVar("Tensor")


class Apply(Protocol[Tensor]):
    """Apply an operator of ONNX, by its name, to tensors and constants."""

    def __call__(self, op_type: str, *operands: Tensor | Array) -> Tensor: ...


def arithmetic(
    node: ir.Node, tensor: Tensor, parameters: Sequence[Array], apply: Apply[Tensor]
) -> Tensor:
    """The definition of a quantizer, in elementwise operators of ONNX.

    Args:
        parameters: what the node reads besides, in its order.

    Raises:
        ValueError: it has parameters or settings that no such quantizer has.
    """
    counts = _INPUT_COUNTS.get(node.op_type, _OF_QUANT)
    if 1 + len(parameters) not in counts or not all(array.size for array in parameters):
        raise ValueError("it lacks its scale or its bit width")
    scale, *others = parameters
    if node.op_type == BIPOLAR:
        return _with(apply, "Mul", _signs(tensor, scale, apply), scale)
    if node.op_type == FLOAT:
        return _floats(node, tensor, scale, others, apply)
    zero_point, *settings = others
    codes = _with(apply, "Add", _with(apply, "Div", tensor, scale), zero_point)
    if node.op_type == TRUNC:
        codes, scale, zero_point = _truncated(node, codes, scale, zero_point, settings, apply)
    else:
        bits = _bits(settings[0])
        if bits == 1 and integer(node, "signed", 1):
            codes = _signs(codes, scale, apply)
        else:
            clamped = _clamped(codes, _range(node, bits, narrow=1), scale, apply)
            codes = _rounding(node, "ROUND")(clamped, scale, apply)
    return _with(apply, "Mul", _with(apply, "Sub", codes, zero_point), scale)


def _with(apply: Apply[Tensor], op_type: str, tensor: Tensor, parameter: Array) -> Tensor:
    """A sum or a product with a parameter, left out where it changes nothing.

    onnxruntime would remove it, and the name of what comes out with it.
    """
    neutral = 0 if op_type in ("Add", "Sub") else 1
    return tensor if (parameter == neutral).all() else apply(op_type, tensor, parameter)


def quantized(node: ir.Node, inputs: Sequence[Array | None]) -> Array:
    """What a quantizer makes of an array, in the type of the array.

    Raises:
        ValueError: it has inputs or settings that no such quantizer has.
    """
    arrays = [array for array in inputs if array is not None]
    if not arrays or len(arrays) != len(inputs):
        raise ValueError("it lacks its scale or its bit width")
    array, *parameters = arrays
    for index in shaped(node):
        if index < len(arrays):
            require_fitting(arrays[index].shape, array.shape)
    return np.asarray(arithmetic(node, array, parameters, _computed), array.dtype)


def shaped(node: ir.Node) -> tuple[int, ...]:
    """Inputs that may have a number for each channel: scales and zero points."""
    return {BIPOLAR: (1,), TRUNC: (1, 2), FLOAT: (1,)}.get(node.op_type, (1, 2))


def require_fitting(shape: tuple[int, ...], of_tensor: tuple[int, ...]) -> None:
    """Refuse parameters that would change the shape of what they are for.

    Raises:
        ValueError: saying so.
    """
    if np.broadcast_shapes(of_tensor, shape) != of_tensor:
        raise ValueError(f"its scale of shape {shape} does not fit {of_tensor}")


def stored_by(node: ir.Node, inputs: Sequence[Array | None]) -> Stored:
    """The grid that an array lies on behind a quantizer, which has computed it before."""
    _, scale, *others = [array for array in inputs if array is not None]
    # The second version of Trunc has a scale of its own for what comes out.
    result_scale = others[2] if node.op_type == TRUNC and len(others) == 4 else scale
    sharing = "channel" if result_scale.size > 1 else "tensor"
    if node.op_type == FLOAT:
        exponent_bits, mantissa_bits = (int(array.ravel()[0]) for array in others[:2])
        bits = 1 + exponent_bits + mantissa_bits
        return Stored(f"float{bits} e{exponent_bits}m{mantissa_bits} per {sharing}", None)
    if node.op_type == BIPOLAR:
        grid = "a bipolar grid"
    else:
        is_signed = integer(node, "signed", 1)
        grid = f"{'an ' if is_signed else 'a u'}int{math.ceil(_bits(others[-1]))} grid"
    return Stored(
        f"float on {grid} per {sharing}", float(np.abs(result_scale.astype(np.float32)).max())
    )


_OPERATORS: Mapping[str, Callable[..., Array]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Ceil": np.ceil,
    "Div": np.divide,
    "Floor": np.floor,
    "GreaterOrEqual": np.greater_equal,
    "Log": np.log,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Pow": np.power,
    "Round": np.round,
    "Sign": np.sign,
    "Sub": np.subtract,
    "Where": np.where,
}


def _computed(op_type: str, *operands: Array) -> Array:
    return _OPERATORS[op_type](*operands)


def _like(scale: Array, number: float) -> Array:
    """A number as an array of the type that is computed in."""
    return np.asarray(number, scale.dtype)


def _signs(tensor: Tensor, scale: Array, apply: Apply[Tensor]) -> Tensor:
    is_positive = apply("GreaterOrEqual", tensor, _like(scale, 0))
    return apply("Where", is_positive, _like(scale, 1), _like(scale, -1))


def _truncated(
    node: ir.Node,
    codes: Tensor,
    scale: Array,
    zero_point: Array,
    settings: Sequence[Array],
    apply: Apply[Tensor],
) -> tuple[Tensor, Array, Array]:
    """Codes with fewer bits, and the scale and zero point that they have then.

    The second version has a scale for what comes out, and clamps.
    """
    codes = apply("Round", codes)
    rounding = _rounding(node, "FLOOR")
    if len(settings) == 2:
        bits_in, bits_out = map(_bits, settings)
        shift = _like(scale, 2.0 ** (bits_in - bits_out))
        return rounding(_with(apply, "Div", codes, shift), scale, apply), scale, zero_point
    _, scale_out, bits_out_array = settings
    # A power of two.
    ratio = np.asarray(2 ** np.round(np.log2(scale_out / scale)), scale.dtype)
    shorter = _with(apply, "Div", codes, ratio)
    clamped = _clamped(shorter, _range(node, _bits(bits_out_array), narrow=0), scale, apply)
    return rounding(clamped, scale, apply), scale_out, zero_point / ratio


def _floats(
    node: ir.Node, tensor: Tensor, scale: Array, settings: Sequence[Array], apply: Apply[Tensor]
) -> Tensor:
    """Rounded to floats of few bits: to a step that grows with the magnitude."""
    exponent_bits, mantissa_bits, bias, largest = (
        float(array.ravel()[0]) if array.size == 1 else math.nan for array in settings
    )
    if not (
        1 <= exponent_bits <= _MOST_EXPONENT_BITS
        and 0 <= mantissa_bits <= _MOST_MANTISSA_BITS
        and math.isfinite(bias)
        and largest > 0
    ):
        raise ValueError(
            f"it has floats with {exponent_bits:g} bits for the exponent and {mantissa_bits:g} for"
            " the mantissa"
        )
    if not integer(node, "saturation", 1):
        raise ValueError("it does not saturate")
    with np.errstate(over="ignore"):
        largest_magnitude = (2 - 2.0**-mantissa_bits) * np.float64(2) ** (
            2**exponent_bits - 1 - bias
        )
    most = _like(scale, min(largest_magnitude, largest))
    scaled = _with(apply, "Div", tensor, scale)
    magnitude = apply("Add", apply("Abs", scaled), np.asarray(np.finfo(scale.dtype).tiny))
    exponent = apply("Floor", apply("Div", apply("Log", magnitude), _like(scale, math.log(2))))
    least = _like(scale, 1 - bias - mantissa_bits)
    exponent = apply("Max", apply("Sub", exponent, _like(scale, mantissa_bits)), least)
    step = apply("Pow", _like(scale, 2), exponent)
    codes = _rounding(node, "ROUND")(apply("Div", scaled, step), scale, apply)
    limited = apply("Max", apply("Min", apply("Mul", codes, step), most), -most)
    return _with(apply, "Mul", limited, scale)


def _range(node: ir.Node, bits: float, *, narrow: int) -> tuple[float, float]:
    """The ends of codes of so many bits.

    Args:
        narrow: what the attribute is where it is left out.
    """
    is_narrow = bool(integer(node, "narrow", narrow))
    if integer(node, "signed", 1):
        return -(2.0 ** (bits - 1)) + is_narrow, 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1 - is_narrow


def _clamped(
    codes: Tensor, ends: tuple[float, float], scale: Array, apply: Apply[Tensor]
) -> Tensor:
    low, high = (_like(scale, end) for end in ends)
    return apply("Max", apply("Min", codes, high), low)


def _rounding(node: ir.Node, default: str) -> Callable[[Tensor, Array, Apply[Tensor]], Tensor]:
    name = text(node, "rounding_mode", default).upper()
    steps = _ROUNDINGS.get(name)
    if steps is None:
        raise ValueError(f"it has the unknown rounding mode {name[:40]}")
    of_all, of_magnitude, shift = steps

    def round_to_codes(codes: Tensor, scale: Array, apply: Apply[Tensor]) -> Tensor:
        if of_all:
            return apply(of_all, codes)
        magnitude = apply("Abs", codes)
        if shift:
            magnitude = apply("Add", magnitude, _like(scale, shift))
        return apply("Mul", apply("Sign", codes), apply(of_magnitude, magnitude))

    return round_to_codes


# By the mode: the operator that does it; or the one that rounds magnitudes, and what they are
# moved by before.
_ROUNDINGS: Mapping[str, tuple[str, str, float]] = {
    "ROUND": ("Round", "", 0),
    "HALF_EVEN": ("Round", "", 0),
    "CEIL": ("Ceil", "", 0),
    "FLOOR": ("Floor", "", 0),
    "UP": ("", "Ceil", 0),
    "DOWN": ("", "Floor", 0),
    "HALF_UP": ("", "Floor", 0.5),
    "HALF_DOWN": ("", "Ceil", -0.5),
}


def _bits(array: Array) -> float:
    bits = float(array.ravel()[0]) if array.size == 1 else math.nan
    if not 1 <= bits <= _MOST_BITS:
        raise ValueError(f"it has a bit width of {bits:g}")
    return bits
