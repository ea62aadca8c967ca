"""Spearman's rank correlation: how far one figure orders things as another does."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantstore.records import Doubles

# Fewer pairs order themselves by chance: three do so in one of three draws.
LEAST_PAIRS = 4
# Two-sided 95 % of a normal distribution.
NORMAL_95 = 1.96
# The variance of Fisher's z of a rank correlation is 1.06 / (n - 3).
# E. C. Fieller, H. O. Hartley, E. S. Pearson, Tests for rank correlation coefficients, 1957.
FIELLER_VARIANCE = 1.06


@dataclass(frozen=True, slots=True)
class Correlation:
    """``rho`` from -1 to 1 over ``n`` pairs; None where there are too few, or all are equal.

    ``low`` and ``high`` bound it with 95 % confidence, roughly; None at a perfect order.
    """

    rho: float | None
    n: int
    low: float | None = None
    high: float | None = None


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> Correlation:
    """The correlation of the ranks of two equally long lists, equal values sharing their mean rank.

    Args:
        x, y: without NaN; infinities are values like others.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.shape != ys.shape or xs.ndim != 1:
        raise ValueError(f"{xs.shape} and {ys.shape}: two lists of one length are needed")
    n = len(xs)
    if n < LEAST_PAIRS:
        return Correlation(None, n)
    a, b = _centred(ranks(xs)), _centred(ranks(ys))
    norm = math.sqrt(float(a @ a) * float(b @ b))
    if norm == 0:
        return Correlation(None, n)
    rho = min(1.0, max(-1.0, float(a @ b) / norm))
    if abs(rho) > 1 - 1e-12:
        return Correlation(rho, n)
    half = NORMAL_95 * math.sqrt(FIELLER_VARIANCE / (n - 3))
    middle = math.atanh(rho)
    return Correlation(rho, n, math.tanh(middle - half), math.tanh(middle + half))


def ranks(values: Doubles) -> Doubles:
    """Ranks from 1; equal values share the mean of theirs."""
    _, value_index, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle = last - (counts - 1) / 2
    return np.asarray(middle[value_index], dtype=np.float64)


def _centred(values: Doubles) -> Doubles:
    centred: Doubles = values - values.mean()
    return centred
