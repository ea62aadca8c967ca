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
        moments: ``(inputs, inputs)``, the mean of ``x x^T`` over inputs of the layer.
        grid: of integers, with one scale or one for each output channel.

    Returns:
        The nearest codes where ``moments`` cannot be inverted. The largest weight of a channel
        keeps its code, for the grid was laid to reach it.
    """
    scale = np.broadcast_to(grid.scale.astype(np.float64), (len(weights), 1))
    upper = _upper_factor(moments)
    remaining = weights.astype(np.float64)
    nearest = np.clip(np.rint(remaining / scale), grid.qmin, grid.qmax)
    if upper is None:
        return nearest.astype(np.float32)
    is_end = np.abs(nearest) >= grid.qmax
    codes = np.empty_like(remaining)
    for start in range(0, remaining.shape[1], _BLOCK):
        stop = min(start + _BLOCK, remaining.shape[1])
        errors = np.empty((len(weights), stop - start))
        for column in range(start, stop):
            code = np.clip(np.rint(remaining[:, column] / scale[:, 0]), grid.qmin, grid.qmax)
            codes[:, column] = np.where(is_end[:, column], nearest[:, column], code)
            error = remaining[:, column] - codes[:, column] * scale[:, 0]
            errors[:, column - start] = error / upper[column, column]
            remaining[:, column:stop] -= np.outer(
                errors[:, column - start], upper[column, column:stop]
            )
        remaining[:, stop:] -= errors @ upper[start:stop, stop:]
    return codes.astype(np.float32)


def _upper_factor(moments: Doubles) -> Doubles | None:
    """``U`` with ``U^T U = H^-1``, H damped; None where there is none."""
    damped = moments.astype(np.float64).copy()
    diagonal = np.diag_indices(len(damped))
    # An input that is always zero takes no part; a bare zero would leave H singular.
    damped[diagonal] += DAMPING * float(np.mean(damped[diagonal])) + 1e-8
    try:
        upper: Doubles = np.linalg.cholesky(np.linalg.inv(damped)).T
    except np.linalg.LinAlgError:
        return None
    return upper if np.isfinite(upper).all() else None
