"""The grid that a range of activations gets: scale, and the codes around its zero point.

Source: ONNX QuantizeLinear (https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html); onnxruntime
``quant_utils.compute_scale_zp`` for scale and zero point.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantstore.numerics import quantization
from quantstore.records import Array, Doubles, Floats
from quantstore.schemes import Activations


@dataclass(frozen=True, slots=True)
class ActivationGrid:
    """The codes of one tensor: ``lowest`` and ``highest`` are counted from the zero point.

    Arrays of one number, or of one per channel, shaped to be broadcast against the tensor. A scale
    of 0: the range is that of the tensor itself, each time anew, with codes from 0 to 255.
    """

    scale: Floats
    lowest: Floats
    highest: Floats

    @property
    def is_dynamic(self) -> bool:
        """Whether the grid is found at run time."""
        return self.scale.size == 1 and float(self.scale[0]) == 0


# What stands for a grid that is found at run time.
AT_RUN_TIME = ActivationGrid(*(np.zeros(1, np.float32),) * 3)


def grid_of(low: float, high: float, activations: Activations) -> ActivationGrid:
    """The grid of one range."""
    return grids_of(np.array([low]), np.array([high]), activations)[0]


def grids_of(low: Doubles, high: Doubles, activations: Activations) -> list[ActivationGrid]:
    """Grids for ranges, which are widened to include 0."""
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    top = 2 ** (activations.bits - 1) - 1 if activations.is_symmetric else 2**activations.bits - 1
    scale = quantization.exact_scale(low, high, top, activations.is_symmetric)
    if activations.has_power_of_two_scale:
        scale = quantization.power_of_two_above(scale)
    zero = quantization.zero_point_of(low, scale, activations.is_symmetric)
    # Two's complement has one code more below zero than above; only a value beyond the range, which
    # calibration has not met, takes it.
    lowest = np.full_like(zero, -top - 1) if activations.is_symmetric else -zero
    highest = np.full_like(zero, top) if activations.is_symmetric else top - zero
    stored = scale.astype(np.float32)
    return [
        ActivationGrid(stored[at : at + 1], lowest[at : at + 1], highest[at : at + 1])
        for at in range(scale.size)
    ]


def rounded(array: Array, grid: ActivationGrid) -> Floats:
    """An array as it comes back from a grid of one scale."""
    codes = np.clip(np.rint(array / grid.scale[0]), grid.lowest[0], grid.highest[0])
    # Not ascontiguousarray, which turns a scalar into a vector; numpy turns it into a number.
    return np.asarray(codes * grid.scale[0], np.float32)


def of_channels(grids: Sequence[ActivationGrid], trailing_axes: int) -> ActivationGrid:
    """One grid for each channel, with so many axes behind that of the channels."""
    shape = (-1, *(1,) * trailing_axes)
    scale, lowest, highest = (
        np.concatenate([getattr(grid, part) for grid in grids]).reshape(shape)
        for part in ("scale", "lowest", "highest")
    )
    return ActivationGrid(scale, lowest, highest)
