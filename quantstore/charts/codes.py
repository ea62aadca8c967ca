"""Which codes a layer's weights fall into, read off its stored histogram.

The histogram has 2,048 bins, so a code of an 8-bit grid that the tensor shares is 8 to 16 bins
wide. A bin counts for the code that its centre rounds to: good for pictures and for sentences that
say "about"; exact counts are columns of the store.
"""

import numpy as np
import pandas as pd

from quantstore.numerics.quantization import Grid, grid_for, quantize
from quantstore.records import Floats
from quantstore.schemes import Scheme

# Beyond three interquartile ranges Tukey calls a value far out; the bulk is what lies within.
BULK_IQRS = 3.0


def shared_grid(weight_min: float, weight_max: float, scheme: Scheme) -> Grid:
    """The grid that a per-tensor scheme lays over a layer with these extreme weights."""
    if scheme.is_per_channel:
        raise ValueError(f"{scheme.name} has a grid per channel")
    return grid_for(np.array([[weight_min, weight_max]], dtype=np.float32), scheme)


def step_of(grid: Grid) -> float:
    """Weight units between neighbouring codes of a shared grid."""
    return float(grid.scale[0, 0])


def zero_code(grid: Grid) -> int:
    """The code that stands for 0 in a shared grid."""
    return int(grid.zero_point[0, 0])


def codes_of(weights: Floats, grid: Grid) -> Floats:
    """The codes of some weights under a shared grid, in their own shape."""
    return quantize(weights.reshape(1, -1), grid).reshape(weights.shape)


def weights_per_code(histogram: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """One row per code in use, ascending: ``code`` and ``weights``, their number.

    Args:
        histogram: ``bin_low``, ``bin_high`` and ``weights``, as ``queries.layer_histogram`` gives.
    """
    centres = ((histogram["bin_low"] + histogram["bin_high"]) / 2).to_numpy(dtype=np.float32)
    filled = pd.DataFrame(
        {"code": codes_of(centres, grid).astype(np.int64), "weights": histogram["weights"]}
    )
    per_code = filled[filled["weights"] > 0].groupby("code")["weights"].sum()
    return per_code.reset_index()


def codes_holding(per_code: pd.DataFrame, share: float) -> int:
    """The fewest codes that together hold at least this share of the weights."""
    counts = np.sort(per_code["weights"].to_numpy())[::-1]
    if counts.size == 0:
        return 0
    return int(np.searchsorted(np.cumsum(counts), share * counts.sum()) + 1)


def bulk_of(q1: float, q3: float, weight_min: float, weight_max: float) -> tuple[float, float]:
    """The range that holds the bulk of the weights; all of it where half of them are equal."""
    reach = BULK_IQRS * (q3 - q1)
    if reach <= 0:
        return weight_min, weight_max
    return max(weight_min, q1 - reach), min(weight_max, q3 + reach)


def codes_between(low: float, high: float, grid: Grid) -> int:
    """How many codes lie from one weight to another, both counted."""
    first, last = codes_of(np.array([low, high], dtype=np.float32), grid)
    return int(last - first) + 1
