"""Codes of activations and weights in, what 16-bit sums of their products lose out.

x86 processors with AVX2 or AVX-512 but without VNNI multiply uint8 with int8 by VPMADDUBSW: the
products of two neighbours are added in 16 bits, and a sum that does not fit is clamped. 255 * 127 *
2 is twice what fits. Two uint8 factors are multiplied in another way, which cannot overflow.

Source: https://www.felixcloutier.com/x86/pmaddubsw and onnxruntime,
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#data-type-selection
"""

from dataclasses import dataclass

import numpy as np

from quantstore.numerics import quantization
from quantstore.records import Array, Counts

_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, slots=True)
class Saturation:
    """What clamping does to one layer.

    ``share``: of the sums of two products, those that are clamped. ``sqnr_db``: of the layer's
    output with clamped sums against the output without, infinite where nothing is clamped.
    """

    share: float
    sqnr_db: float


def clamped_product(data: Array, weights: Array) -> Counts:
    """The matrix product of codes, as VPMADDUBSW computes it.

    Args:
        data: ``(rows, K)``, uint8.
        weights: ``(K, columns)``, int8.
    """
    total: Counts = np.clip(_pair_sums(data, weights), _INT16.min, _INT16.max).sum(axis=1)
    return total


def saturation(data: Array, weights: Array, zero_point: int) -> Saturation:
    """What clamping does to ``(data - zero_point) @ weights``; arguments as above.

    The zero point is taken off the sums, not the codes, as integer kernels do.
    """
    sums = _pair_sums(data, weights)
    excess = sums - np.clip(sums, _INT16.min, _INT16.max)
    if not excess.any():
        return Saturation(0.0, np.inf)
    exact = sums.sum(axis=1) - zero_point * weights.astype(np.int64).sum(axis=0)
    signal = np.sum(exact.astype(np.float64) ** 2)
    noise = np.sum(excess.sum(axis=1).astype(np.float64) ** 2)
    return Saturation(
        float(np.count_nonzero(excess) / excess.size),
        float(quantization.sqnr_db(signal, noise)),
    )


def _pair_sums(data: Array, weights: Array) -> Counts:
    """Sums of two neighbouring products each: ``(rows, K / 2 rounded up, columns)``."""
    if data.shape[1] % 2:
        data = np.pad(data, ((0, 0), (0, 1)))
        weights = np.pad(weights, ((0, 1), (0, 0)))
    codes, factors = data.astype(np.int32), weights.astype(np.int32)
    sums: Counts = (
        codes[:, 0::2, None] * factors[None, 0::2] + codes[:, 1::2, None] * factors[None, 1::2]
    )
    return sums
