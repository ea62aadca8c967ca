"""Weights rounded one input at a time, each error made good by the weights that are still to come.

A layer computes ``W x``. With the second moments ``H = E[x x^T]`` of its inputs, rounding column k
costs ``e^2 / (H^-1)_kk`` if the columns behind it take up the error in the best way:
``W[:, k+1:] -= e U[k, k+1:] / U[k, k]`` with ``U`` the upper Cholesky factor of ``H^-1``.

Source: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers", ICLR 2023, section 3 (https://arxiv.org/abs/2210.17323).
"""

import numpy as np

from quantstore.numerics.quantization import Grid
from quantstore.records import Doubles, Floats

# Of the mean of H's diagonal, added to it: the paper's number, so that it can be inverted.
DAMPING = 0.01
# Columns whose errors are carried on within, before all columns behind are told.
_BLOCK = 64


def compensated_codes(weights: Floats, moments: Doubles, grid: Grid) -> Floats:
    """Codes of a symmetric grid for the weights of a layer, as whole float32 numbers.

    Args:
        weights: ``(output channels, inputs)``.
        moments: ``(groups, inputs, inputs)``, the mean of ``x x^T`` over inputs of the layer. Each
            group has its share of the output channels, one after the other.
        grid: of integers, with one scale or one for each output channel.

    Returns:
        The nearest codes where ``moments`` cannot be inverted. The largest weight of a channel
        keeps its code, for the grid was laid to reach it.
    """
    shape = (len(moments), len(weights) // len(moments), weights.shape[1])
    scale = np.broadcast_to(grid.scale.astype(np.float64), (len(weights), 1))
    scale = scale.reshape(*shape[:2], 1)
    remaining = weights.astype(np.float64).reshape(shape)
    nearest = np.clip(np.rint(remaining / scale), grid.qmin, grid.qmax)
    upper = _upper_factors(moments)
    if upper is None:
        return nearest.reshape(weights.shape).astype(np.float32)
    is_end = np.abs(nearest) >= grid.qmax
    codes = np.empty(shape)
    for start in range(0, shape[2], _BLOCK):
        stop = min(start + _BLOCK, shape[2])
        errors = np.empty((*shape[:2], stop - start))
        for column in range(start, stop):
            now = remaining[:, :, column]
            code = np.clip(np.rint(now / scale[:, :, 0]), grid.qmin, grid.qmax)
            code = np.where(is_end[:, :, column], nearest[:, :, column], code)
            codes[:, :, column] = code
            error = (now - code * scale[:, :, 0]) / upper[:, column, column, None]
            errors[:, :, column - start] = error
            remaining[:, :, column:stop] -= error[:, :, None] * upper[:, None, column, column:stop]
        remaining[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return codes.reshape(weights.shape).astype(np.float32)


def _upper_factors(moments: Doubles) -> Doubles | None:
    """``U`` with ``U^T U = H^-1`` for each group, H damped; None where one has none."""
    damped = moments.astype(np.float64).copy()
    diagonal = np.einsum("gii->gi", damped)
    # An input that is always zero takes no part; a bare zero would leave H singular.
    diagonal += DAMPING * diagonal.mean(axis=1, keepdims=True) + 1e-8
    try:
        lower = np.linalg.cholesky(np.linalg.inv(damped))
    except np.linalg.LinAlgError:
        return None
    upper: Doubles = np.swapaxes(lower, 1, 2)
    return upper if np.isfinite(upper).all() else None
