"""A target and the ranges of a network in, the numbers to feed its emulator out.

Activations take the grid of their range, weights that of their scheme; a bias becomes int32 in
units of both scales, as onnxruntime's quantizer has it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from quantstore.numerics import quantization
from quantstore.records import Array, Doubles, Floats
from quantstore.run import grids
from quantstore.run.calibration import calibrated
from quantstore.run.choices import Calibration
from quantstore.run.emulator import Plan
from quantstore.run.grids import AT_RUN_TIME, ActivationGrid
from quantstore.run.network import Network
from quantstore.run.placement import SHARES, Placement
from quantstore.run.ranges import Observed, Range
from quantstore.schemes import INT8_TENSOR_SYMMETRIC, Activations, Scheme, Target

_INT32 = np.iinfo(np.int32)
# onnxruntime (``_adjust_weight_scale_for_int32_bias``) leaves this much room in int32.
_BIAS_ROOM = 1.0001


@dataclass(frozen=True, slots=True)
class Rounding:
    """What a placement's weights and activations become; None where they stay in float."""

    scheme: Scheme | None
    activations: Activations | None

    @classmethod
    def of(cls, target: Target) -> "Rounding":
        """A target's own."""
        return cls(target.scheme, target.activations)


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes plans for one network; ``observed``: what the calibration samples showed."""

    network: Network
    observed: Mapping[str, Observed]
    calibration: Calibration = "minmax"

    def grids(self, placed: Placement, activations: Activations) -> dict[str, ActivationGrid]:
        """The grid of every tensor that sets one, and of those that have one for each channel.

        A tensor whose range is not ranged has none: it stays in float.
        """
        roots = list(dict.fromkeys(placed.grid_of.values()))
        if activations.is_dynamic:
            return dict.fromkeys(roots, AT_RUN_TIME)
        ranged = [name for name in roots if name in self.observed or name in placed.shares]
        if not ranged:
            return {}
        ends = [
            SHARES
            if name in placed.shares
            else calibrated(self.observed[name], self.calibration, activations).ends
            for name in ranged
        ]
        low, high = np.array(ends, np.float64).T
        return dict(zip(ranged, grids.grids_of(low, high, activations), strict=True))

    def activations(self, placed: Placement, activations: Activations) -> dict[str, ActivationGrid]:
        """The grids of a plan: by the tensor that a rounding must follow."""
        roots = self.grids(placed, activations)
        tensor_grids = {
            name: roots[placed.grid_of[name]]
            for name in placed.activations
            if placed.grid_of[name] in roots
        }
        if activations.is_per_channel_at_depthwise:
            tensor_grids |= self._of_channels(placed, activations)
        return tensor_grids

    def plan(self, placed: Placement, rounding: Rounding) -> Plan:
        """Every rounding of a placement."""
        constants: dict[str, Array] = {}
        constant_grids: dict[str, ActivationGrid] = {}
        tensors: dict[str, ActivationGrid] = {}
        input_scales: dict[str, np.float32] = {}
        if rounding.activations is not None:
            tensors = self.activations(placed, rounding.activations)
            roots = self.grids(placed, rounding.activations)
            input_scales = {
                name: roots[root].scale[0]
                for name, root in placed.grid_of.items()
                if root in roots and not roots[root].is_dynamic
            }
        if rounding.scheme is not None:
            for name, rounded in self._weights(placed, rounding.scheme, input_scales):
                constants[name], constant_grids[name] = rounded
        if rounding.activations is not None and rounding.scheme is not None:
            for name in placed.constants:
                array = self.network.constant(name)
                whole = Range.of(array)
                if whole.sentinel_count:
                    # A mask or padding of -3.4e38 is on no grid: it stays as it is.
                    continue
                grid = grids.grid_of(*whole.ends, rounding.activations)
                constants[name], constant_grids[name] = grids.rounded(array, grid), grid
            for bias in placed.biases:
                weights = constant_grids.get(bias.weights)
                if weights is not None and bias.input in input_scales:
                    array = self.network.float_constants[bias.name]
                    grid = bias_grid(array, weights.scale * input_scales[bias.input])
                    constants[bias.name] = rounded_bias(array, grid.scale)
                    constant_grids[bias.name] = grid
        return Plan(tensors, constants, constant_grids)

    def _weights(
        self, placed: Placement, scheme: Scheme, input_scales: Mapping[str, np.float32]
    ) -> Iterator[tuple[str, tuple[Array, ActivationGrid]]]:
        """Weights of layers and scales of normalizations, rounded, with their own grids."""
        biases = {bias.weights: bias for bias in placed.biases}
        for name in placed.weights:
            least, bias = None, biases.get(name)
            if bias is not None and bias.input in input_scales and scheme.is_symmetric:
                values = self.network.float_constants[bias.name]
                least = least_scale(values, float(input_scales[bias.input]))
            rounded = self.network.rounded(self.network.slot_of[name], scheme, least)
            yield name, (rounded.values, weight_grid(rounded.scale, scheme.qmax))
        for name in placed.norms:
            array = self.network.float_constants[name]
            grid = quantization.grid_for(array.reshape(1, -1), INT8_TENSOR_SYMMETRIC)
            codes = quantization.quantize(array.reshape(1, -1), grid)
            values = quantization.dequantize(codes, grid).reshape(array.shape)
            yield name, (values, weight_grid(grid.scale.ravel(), grid.qmax))

    def _of_channels(
        self, placed: Placement, activations: Activations
    ) -> dict[str, ActivationGrid]:
        """A grid for each channel of the inputs of depthwise convolutions."""
        channel_grids = {}
        for name in placed.depthwise:
            whole = self.observed[name].range if name in self.observed else None
            channels = None if whole is None else whole.channels
            if channels is not None:
                each = grids.grids_of(channels.low, channels.high, activations)
                channel_grids[name] = grids.of_channels(each, channels.trailing_axes)
        return channel_grids


def least_scale(bias: Array, input_scale: float) -> Doubles:
    """The smallest scale of each channel's weights with which the bias fits into int32."""
    largest = np.abs(bias.astype(np.float64)).ravel()
    codes = float(_INT32.max) - (float(_INT32.min) + 1)
    least: Doubles = _BIAS_ROOM * 2 * largest / codes / input_scale
    return least


def weight_grid(scale: Array, top: int) -> ActivationGrid:
    """The grid of weights: as many codes below zero as above."""
    ends = np.array([-top, top], np.float32)
    return ActivationGrid(scale.astype(np.float32), ends[:1], ends[1:])


def bias_grid(bias: Array, scale: Floats) -> ActivationGrid:
    """The int32 grid of a bias: a scale for all, or one for each value."""
    # As onnxruntime does: float32 cannot hold a smaller product.
    scale = np.where(scale > 0, scale, np.float32(1))
    if scale.size not in (1, bias.size):
        # A ConvTranspose in groups: each group has the channels of the stored tensor.
        scale = np.tile(scale, -(-bias.size // scale.size))[: bias.size]
    ends = np.array([_INT32.min, _INT32.max], np.float32)
    return ActivationGrid(scale, ends[:1], ends[1:])


def bias_codes(bias: Array, scale: Floats) -> Doubles:
    """The int32 codes of a bias, as whole numbers in a row; ``scale``: of its grid."""
    codes = np.rint(bias.astype(np.float64).ravel() / scale.astype(np.float64))
    return np.clip(codes, _INT32.min, _INT32.max)


def rounded_bias(bias: Array, scale: Floats) -> Floats:
    """A bias as it comes back from its codes."""
    return (bias_codes(bias, scale).astype(np.float32) * scale).reshape(bias.shape)
