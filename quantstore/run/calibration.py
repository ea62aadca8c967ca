"""A tensor's values over the calibration samples in, the range that its codes shall cover out.

``minmax`` loses nothing at the ends; the others give up rare values for a finer step between the
frequent ones. All but ``minmax`` read a histogram with at least 2,048 bins over the tensor's range.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from quantstore.records import Doubles
from quantstore.run.choices import Calibration
from quantstore.run.grids import grid_of
from quantstore.run.histogram import SharedHistogram
from quantstore.run.ranges import Observed, Range
from quantstore.schemes import Activations

# Share of the values that keeps its place, in percent: what onnxruntime and TensorRT take.
PERCENTILE = 99.999
# Levels on one side of zero, and the bins that they are chosen among. S. Migacz, "8-bit Inference
# with TensorRT", GTC 2017.
_ENTROPY_LEVELS = 128
_ENTROPY_BINS = 2048
# Instead of none in a bin, where a divergence asks for one: onnxruntime's number, and MXNet's.
_EMPTY_COUNT = 1e-4
# Shares of a range that are tried as its end, coarse and then close around the best.
_COARSE = np.arange(1.0, 0.05, -0.05)
_FINE = np.arange(-0.04, 0.045, 0.01)

_Cost = Callable[[float, float], float]


def calibrated(observed: Observed, method: Calibration, activations: Activations) -> Range:
    """The range that a method chooses for a tensor.

    Args:
        activations: the grid it is for, which decides what an error costs (``mse``).
    """
    whole = observed.range
    if whole is None:
        return Range(0.0, 0.0)
    histogram = observed.histogram
    if method == "minmax" or histogram is None or not histogram.rows.any():
        return whole
    if method == "percentile":
        low, high = _percentiles(histogram)
    elif method == "entropy":
        threshold = _entropy_threshold(histogram)
        low, high = -threshold, threshold
    else:
        low, high = _least_error(histogram, whole, activations)
    return Range(max(low, whole.low), min(high, whole.high), whole.sentinel_count)


def _percentiles(histogram: SharedHistogram) -> tuple[float, float]:
    """The values between which :data:`PERCENTILE` of all lie, half of the rest on either side."""
    counts = histogram.rows[0]
    edges = (histogram.start + np.arange(counts.size + 1)) * histogram.width
    below = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    cut = (100 - PERCENTILE) / 200
    low, high = np.interp([cut, 1 - cut], below, edges)
    return float(low), float(high)


def _entropy_threshold(histogram: SharedHistogram) -> float:
    """Where to cut magnitudes so that the codes tell least less than the values did (KL)."""
    magnitudes = np.abs(histogram.centers)
    largest = float(magnitudes.max())
    if largest == 0:
        return 0.0
    counts, edges = np.histogram(
        magnitudes, bins=_ENTROPY_BINS, range=(0, largest), weights=histogram.rows[0]
    )
    # Zeros, which a Relu writes by the million, say nothing about where to cut.
    counts[0] = counts[1]
    best, threshold = np.inf, largest
    for kept in range(_ENTROPY_LEVELS, _ENTROPY_BINS + 1, 8):
        divergence = _divergence(counts, kept)
        if divergence < best:
            best, threshold = divergence, float(edges[kept])
    return threshold


def _divergence(counts: Doubles, kept: int) -> float:
    """Kullback-Leibler divergence of the first ``kept`` bins from the same in 128 levels."""
    reference = counts[:kept].astype(np.float64).copy()
    is_used = reference > 0
    level = np.arange(kept) * _ENTROPY_LEVELS // kept
    total = np.bincount(level, weights=reference, minlength=_ENTROPY_LEVELS)
    used = np.bincount(level, weights=is_used, minlength=_ENTROPY_LEVELS)
    coded = np.where(is_used, (total / np.maximum(used, 1))[level], 0)
    # What is cut off lands on the last code; the codes do not know that it was more.
    reference[-1] += counts[kept:].sum()
    if not coded.any():
        return np.inf
    coded[(reference > 0) & (coded == 0)] = _EMPTY_COUNT
    p, q = reference / reference.sum(), coded / coded.sum()
    both = p > 0
    return float(np.sum(p[both] * np.log(p[both] / q[both])))


def _least_error(
    histogram: SharedHistogram, whole: Range, activations: Activations
) -> tuple[float, float]:
    """The ends at which the squared error of rounding and clipping is least."""
    values, counts = histogram.centers, histogram.rows[0].astype(np.float64)
    used = counts > 0
    values, counts = values[used], counts[used]

    def cost(low: float, high: float) -> float:
        return _squared_error(values, counts, low, high, activations)

    low, high = min(whole.low, 0.0), max(whole.high, 0.0)
    if activations.is_symmetric:
        largest = max(-low, high)
        share = _best_share(lambda part: cost(-largest * part, largest * part))
        return -largest * share, largest * share
    low_share = high_share = 1.0
    # One end after the other, twice: the ends hardly influence each other.
    for _ in range(2):
        high_share = _best_share(partial(_cost_of_high, cost, low * low_share, high))
        low_share = _best_share(partial(_cost_of_low, cost, low, high * high_share))
    return low * low_share, high * high_share


def _cost_of_high(cost: _Cost, low: float, high: float, share: float) -> float:
    return cost(low, high * share)


def _cost_of_low(cost: _Cost, low: float, high: float, share: float) -> float:
    return cost(low * share, high)


def _best_share(cost: Callable[[float], float]) -> float:
    coarse = min(_COARSE.tolist(), key=cost)
    return float(min((coarse + part for part in _FINE.tolist() if coarse + part <= 1), key=cost))


def _squared_error(
    values: Doubles, counts: Doubles, low: float, high: float, activations: Activations
) -> float:
    grid = grid_of(low, high, activations)
    scale = float(grid.scale[0])
    codes = np.clip(np.rint(values / scale), float(grid.lowest[0]), float(grid.highest[0]))
    return float(counts @ (codes * scale - values) ** 2)
