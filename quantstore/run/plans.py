"""A target and the ranges of a network in, the numbers to feed its emulator out.

Activations take the grid that onnxruntime's ``compute_scale_zp`` would give their range; weights
take the grid of their scheme; a bias becomes int32 in units of both scales.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from quantstore.numerics import quantization
from quantstore.records import Array, Doubles, Floats
from quantstore.run.emulator import ActivationGrid, Plan
from quantstore.run.network import Network
from quantstore.run.placement import SHARES, Placement
from quantstore.run.ranges import Range
from quantstore.schemes import INT8_TENSOR_SYMMETRIC, Activations, Scheme, Target

_INT32 = np.iinfo(np.int32)
# onnxruntime leaves this much room below the largest int32 (``_adjust_weight_scale_for_int32_bias``).
_BIAS_ROOM = 1.0001
# What stands for a grid that is found at run time.
AT_RUN_TIME = ActivationGrid(*(np.zeros(1, np.float32),) * 3)


@dataclass(frozen=True, slots=True)
class Rounding:
    """How a placement's tensors and weights are rounded: a target's, or any other combination."""

    scheme: Scheme | None
    activations: Activations | None

    @classmethod
    def of(cls, target: Target) -> "Rounding":
        """A target's own."""
        return cls(target.scheme, target.activations)


def plan(
    network: Network, placed: Placement, rounding: Rounding, ranges: Mapping[str, Range]
) -> Plan:
    """Every rounding of a placement.

    Args:
        ranges: by the tensor; without one it stays in float.
    """
    grids = _grids(placed, rounding.activations, ranges) if rounding.activations else {}
    constants: dict[str, Array] = {}
    weight_scales: dict[str, Floats] = {}
    input_scales = {
        name: grids[root].scale[0]
        for name, root in placed.grid_of.items()
        if root in grids and grids[root].scale.size == 1 and grids[root].scale[0] > 0
    }
    biases = {bias.weights: bias for bias in placed.biases}
    if rounding.scheme is not None:
        for name in placed.weights:
            bias = biases.get(name)
            least = None
            if bias is not None and rounding.scheme.is_symmetric:
                least = _least_scale(network, bias.name, input_scales.get(bias.input))
            rounded = network.rounded(network.slot_of[name], rounding.scheme, least)
            constants[name] = rounded.values
            weight_scales[name] = rounded.scale.astype(np.float32)
        for name in placed.norms:
            rows = network.float_constants[name].reshape(1, -1)
            grid = quantization.grid_for(rows, INT8_TENSOR_SYMMETRIC)
            constants[name] = _back(rows, grid).reshape(network.float_constants[name].shape)
            weight_scales[name] = grid.scale.ravel()
    if rounding.activations is not None:
        for name in placed.constants:
            array = network.constant(name)
            lowest, highest = Range.of(array).ends
            grid = _grid(np.array([lowest]), np.array([highest]), rounding.activations)[0]
            constants[name] = _rounded(array, grid)
        for bias in placed.biases:
            scale = weight_scales.get(bias.weights)
            if scale is not None and bias.input in input_scales:
                array = network.float_constants[bias.name]
                constants[bias.name] = _int32(array, scale * input_scales[bias.input])
    named = placed.activations
    return Plan({name: grids[placed.grid_of[name]] for name in named if placed.grid_of[name] in grids}, constants)


def _grids(
    placed: Placement, activations: Activations, ranges: Mapping[str, Range]
) -> dict[str, ActivationGrid]:
    """The grid of every tensor that sets one."""
    roots = list(dict.fromkeys(placed.grid_of.values()))
    if activations.is_dynamic:
        return dict.fromkeys(roots, AT_RUN_TIME)
    known = [name for name in roots if name in ranges or name in placed.shares]
    ends = [SHARES if name in placed.shares else ranges[name].ends for name in known]
    if not known:
        return {}
    low, high = np.array(ends, np.float64).T
    return dict(zip(known, _grid(low, high, activations), strict=True))


def _grid(low: Doubles, high: Doubles, activations: Activations) -> list[ActivationGrid]:
    """Grids for ranges, which are widened to include 0."""
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    top = 2 ** (activations.bits - 1) - 1 if activations.is_symmetric else 2**activations.bits - 1
    scale = quantization.exact_scale(low, high, top, activations.is_symmetric)
    if activations.has_power_of_two_scale:
        scale = quantization.power_of_two_at_least(scale)
    zero = quantization.zero_point_of(low, scale, activations.is_symmetric)
    # Two's complement has one code more below zero than above; only a value beyond the range, which
    # calibration has not met, takes it.
    lowest = np.full_like(zero, -top - 1) if activations.is_symmetric else -zero
    highest = np.full_like(zero, top) if activations.is_symmetric else top - zero
    scale = scale.astype(np.float32)
    return [
        ActivationGrid(scale[at : at + 1], lowest[at : at + 1], highest[at : at + 1])
        for at in range(scale.size)
    ]


def _rounded(array: Array, grid: ActivationGrid) -> Floats:
    codes = np.clip(np.rint(array / grid.scale[0]), grid.lowest[0], grid.highest[0])
    # Not ascontiguousarray, which turns a scalar into a vector; numpy turns it into a number.
    return np.asarray(codes * grid.scale[0], np.float32)


def _back(rows: Floats, grid: quantization.Grid) -> Floats:
    return quantization.dequantize(quantization.quantize(rows, grid), grid)


def _least_scale(network: Network, bias: str, input_scale: float | None) -> Doubles | None:
    """The smallest scale of each channel's weights with which the bias fits into int32."""
    if input_scale is None or bias not in network.float_constants:
        return None
    largest = np.abs(network.float_constants[bias].astype(np.float64)).ravel()
    least: Doubles = _BIAS_ROOM * 2 * largest / (float(_INT32.max) - (_INT32.min + 1)) / float(input_scale)
    return least


def _int32(bias: Array, scale: Floats) -> Floats:
    """A bias as int32 codes of a scale for all, or one for each channel."""
    # As onnxruntime does: float32 cannot hold a smaller product.
    scale = np.where(scale > 0, scale, np.float32(1))
    if scale.size not in (1, bias.size):
        # A ConvTranspose in groups: each group has the channels of the stored tensor.
        scale = np.tile(scale, -(-bias.size // scale.size))[: bias.size]
    codes = np.rint(bias.astype(np.float64).ravel() / scale.astype(np.float64))
    codes = np.clip(codes, _INT32.min, _INT32.max)
    return (codes.astype(np.float32) * scale).reshape(bias.shape)
