"""Float weights that lie on a grid: an array in, what it could be stored as out.

Training for quantization leaves weights that were divided by a step, rounded, clipped and
multiplied again, all in float. They are integers in all but type.
"""

import math

import numpy as np

from quantstore.graph.dequantize import Stored
from quantstore.records import Doubles, Floats

_MOST_LEVELS = 1 << 8
# How far a value may lie from a level, as a share of the largest: float32 divides, multiplies and
# stores it with a few of these.
_FLOAT32_STEP = 2.0**-20


def stored_on_grid(weights: Floats, axis: int | None) -> Stored | None:
    """The grid that all weights lie on, of the tensor or of each channel; None for none.

    Every weight is a multiple of one step, zero among them, with at most 2^8 levels from the lowest
    to the highest. Of several steps the largest is meant.

    Args:
        axis: of ``weights``, the one that counts channels.
    """
    if not np.isfinite(weights).all():
        return None
    grid = step_of(weights)
    if grid is not None:
        step, levels = grid
        return Stored(f"float on an int{_bits(levels)} grid per tensor", step)
    if axis is None:
        return None
    steps, most_levels = 0.0, 1
    for channel in np.moveaxis(weights, axis, 0):
        if not channel.any():
            continue
        grid = step_of(channel)
        if grid is None:
            return None
        steps, most_levels = max(steps, grid[0]), max(most_levels, grid[1])
    return Stored(f"float on an int{_bits(most_levels)} grid per channel", steps)


def _bits(levels: int) -> int:
    return max(2, math.ceil(math.log2(levels)))


def step_of(values: Floats) -> tuple[float, int] | None:
    """Step and levels of a tensor or a channel; None where it has no grid, or nothing but zeros."""
    levels: Doubles = np.unique(np.append(values.ravel(), np.float32(0))).astype(np.float64)
    if not 1 < levels.size <= _MOST_LEVELS:
        return None
    largest = float(np.abs(levels).max())
    span = float(levels[-1] - levels[0])
    gap = float(np.diff(levels).min())
    # The smallest gap is a step, or several.
    for steps_in_gap in range(1, int((_MOST_LEVELS - 1) * gap / span + 0.5) + 1):
        step = gap / steps_in_gap
        codes = np.rint(levels / step)
        if np.abs(levels / step - codes).max() > 0.1:
            continue
        # The gap is known to fewer digits than the largest value.
        step = float((levels @ codes) / (codes @ codes))
        if np.abs(levels - codes * step).max() <= _FLOAT32_STEP * largest:
            count = int(codes[-1] - codes[0]) + 1
            return (step, count) if count <= _MOST_LEVELS else None
    return None
