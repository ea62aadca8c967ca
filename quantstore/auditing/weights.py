"""Weights of a float layer and of its int8 version in, what the file makes of them out."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from quantstore.graph.grid import step_of
from quantstore.numerics.quantization import dead_channels, round_trip, sqnr_db, summarize_channels
from quantstore.records import Doubles, Floats
from quantstore.schemes import SCHEMES, Scheme

WeightRounding = Literal["plain", "clipped", "changed"]
# Of a step: float32 scales and products leave so much.
_SLACK = 0.02
# So many weights beyond half a step are a method at work, fewer are the seams of a conversion.
_LEAST_CHANGED = 0.001
# Factors change no more after these.
_TURNS = 8


@dataclass(frozen=True, slots=True)
class WeightFigures:
    """SQNR in dB against the float weights, NaN where there is nothing to compare with.

    ``scale_ratio``: the file's scale over that of plain rounding, the median over the channels.
    """

    stored_sqnr_db: float
    stored_p10_db: float
    plain_p10_db: float
    per_channel_p10_db: float
    scale_ratio: float
    rounding: WeightRounding | None


def weight_figures(weights: Floats, stored: Floats, stored_scheme: str | None) -> WeightFigures:
    """Hold stored weights against those they were made from.

    Args:
        weights: effective float weights, ``(channels, weights per channel)``.
        stored: what the file's codes stand for, in the same shape.
        stored_scheme: as :class:`quantstore.layer.Layer` has it; None where they are no integers.
    """
    usable = np.isfinite(weights) & np.isfinite(stored)
    before = np.where(usable, weights, np.float32(0))
    after = np.where(usable, stored, np.float32(0))
    error = after.astype(np.float64) - before
    energy = np.square(before, dtype=np.float64).sum()
    scheme = _scheme_of(stored_scheme)
    per_channel = None if scheme is None else SCHEMES.get(f"int{scheme.bits}_channel_symmetric")
    rounding, ratio = _rounding_of(
        before,
        after,
        scheme,
        is_stored=stored_scheme is not None,
        # Each block of a channel has a grid of its own.
        is_in_blocks="per block" in (stored_scheme or ""),
    )
    return WeightFigures(
        stored_sqnr_db=float(sqnr_db(energy, np.square(error).sum())) if energy else math.nan,
        stored_p10_db=_p10_db(before, after),
        plain_p10_db=math.nan if scheme is None else _p10_db(before, round_trip(before, scheme)),
        per_channel_p10_db=(
            math.nan if per_channel is None else _p10_db(before, round_trip(before, per_channel))
        ),
        scale_ratio=ratio,
        rounding=rounding,
    )


@dataclass(frozen=True, slots=True)
class Rescaling:
    """Factors of the rows (output channels) and columns (input channels) of a matrix of weights.

    ``scales_outputs``: whether the bias is multiplied by ``rows`` as well. It is not where these
    undo what stands in front of a depthwise convolution.
    """

    rows: Doubles
    columns: Doubles
    scales_outputs: bool = True

    def applied(self, weights: Floats) -> Floats:
        """The weights, each multiplied by its two factors."""
        columns = np.repeat(self.columns, weights.shape[1] // self.columns.size)
        scaled = weights * self.rows[:, np.newaxis] * columns
        return np.asarray(scaled, np.float32)


def rescaling(weights: Floats, stored: Floats, input_count: int) -> Rescaling:
    """The factors with which float weights come nearest to stored ones, by least squares.

    Equalization and smooth quantization multiply the channels between two layers by factors that
    cancel. One side of the factors is found for a given other side, in turns, which never makes the
    error larger (alternating least squares).

    Args:
        weights: ``(output channels, weights per channel)``, of the float file.
        stored: the same of the int8 file.
        input_count: input channels; a channel's weights lie side by side.
    """
    shape = (weights.shape[0], input_count, -1)
    before = np.nan_to_num(weights.astype(np.float64)).reshape(shape)
    after = np.nan_to_num(stored.astype(np.float64)).reshape(shape)
    products = np.einsum("oik,oik->oi", before, after)
    energies = np.einsum("oik,oik->oi", before, before)
    rows, columns = np.ones(shape[0]), np.ones(input_count)
    for _ in range(_TURNS):
        rows = _ratio_of(products @ columns, energies @ columns**2)
        columns = _ratio_of(rows @ products, rows**2 @ energies)
    return Rescaling(rows, columns)


def _ratio_of(products: Doubles, energies: Doubles) -> Doubles:
    """1 where there is nothing to go by."""
    is_known = energies > 0
    return np.where(is_known, products / np.where(is_known, energies, 1), 1.0)


def relative_error(weights: Floats, stored: Floats) -> float:
    """``|W' - W| / |W|``; infinite where all weights are zero and the others are not."""
    before = np.nan_to_num(weights.astype(np.float64))
    difference = np.nan_to_num(stored.astype(np.float64)) - before
    energy, error = float(np.vdot(before, before)), float(np.vdot(difference, difference))
    if energy == 0:
        return 0.0 if error == 0 else math.inf
    return math.sqrt(error / energy)


def _scheme_of(stored_scheme: str | None) -> Scheme | None:
    """Plain rounding of the same kind: as many bits, as many scales, signed or not."""
    if stored_scheme is None:
        return None
    for bits in (8, 4, 2):
        if f"int{bits} " in stored_scheme:
            granularity = "channel" if "per channel" in stored_scheme else "tensor"
            if "per block" in stored_scheme:
                return None
            symmetry = "asymmetric" if f"uint{bits} " in stored_scheme else "symmetric"
            return SCHEMES.get(f"int{bits}_{granularity}_{symmetry}")
    return None


def _p10_db(before: Floats, after: Floats) -> float:
    energy = np.square(before, dtype=np.float64).sum(axis=1)
    noise = np.square(after.astype(np.float64) - before).sum(axis=1)
    db = np.where(energy > 0, sqnr_db(energy, noise), np.nan)
    is_dead = dead_channels(
        before.min(axis=1, initial=0).astype(np.float64),
        before.max(axis=1, initial=0).astype(np.float64),
    )
    return summarize_channels(db, is_dead).p10_db


def _rounding_of(
    before: Floats,
    after: Floats,
    scheme: Scheme | None,
    *,
    is_stored: bool,
    is_in_blocks: bool,
) -> tuple[WeightRounding | None, float]:
    """Whether each code is the nearest one, and how the scale compares to that of plain rounding.

    A weight further than half a step from its code was moved on purpose (bias correction,
    compensated rounding, training), unless its code is the last one of the grid.
    """
    if not is_stored or is_in_blocks:
        return None, math.nan
    is_shared = scheme is not None and scheme.is_per_tensor
    rows = [(before.ravel(), after.ravel())] if is_shared else list(zip(before, after, strict=True))
    moved = beyond = count = 0
    ratios: list[float] = []
    for weights, stored in rows:
        grid = step_of(stored)
        if grid is None:
            continue
        step, _ = grid
        distance = np.abs(stored.astype(np.float64) - weights)
        is_far = distance > step * (0.5 + _SLACK)
        is_end = (stored == stored.max()) & (weights > stored) | (stored == stored.min()) & (
            weights < stored
        )
        moved += int(np.sum(is_far & ~is_end))
        beyond += int(np.sum(is_far & is_end))
        count += weights.size
        ratios += _ratio(weights.astype(np.float64), step, scheme)
    if not count:
        return None, math.nan
    ratio = float(np.median(ratios)) if ratios else math.nan
    if moved > _LEAST_CHANGED * count:
        return "changed", ratio
    return ("clipped" if beyond else "plain"), ratio


def _ratio(weights: Doubles, step: float, scheme: Scheme | None) -> list[float]:
    if scheme is None:
        return []
    low, high = min(weights.min(), 0.0), max(weights.max(), 0.0)
    top = 2 ** (scheme.bits - 1) - 1
    plain = max(-low, high) / top if scheme.is_symmetric else (high - low) / (2**scheme.bits - 1)
    return [step / plain] if plain > 0 else []
