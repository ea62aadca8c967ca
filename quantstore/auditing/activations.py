"""Activations that an int8 file rounds: how well each grid fits what it rounds, and the drift."""

import math
from dataclasses import dataclass

import numpy as np

from quantstore.auditing.bench import AuditBench
from quantstore.numerics.quantization import sqnr_db
from quantstore.records import Array, Doubles
from quantstore.run.calibration import calibrated
from quantstore.run.choices import ReportSteps
from quantstore.run.emulator import rounded
from quantstore.run.ranges import Observed, observe
from quantstore.run.relay import Relay, packed, rounds
from quantstore.run.restore import StoredGrid
from quantstore.schemes import Activations

# What is compared at the same time.
_BLOCK_BYTES = 256 << 20
# Of the samples, so many show where a network drifts.
MOST_DRIFT_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class GridFigures:
    """How a stored grid fits the float tensor that it rounds; NaN where the file stores none.

    ``saturated_share``: of the values that lie beyond the ends of the grid. ``used_share``: of the
    grid that the values reach. ``best_sqnr_db``: with the range of the least squared error.
    """

    seen_low: float
    seen_high: float
    saturated_share: float = math.nan
    used_share: float = math.nan
    sqnr_db: float = math.nan
    best_sqnr_db: float = math.nan


def grid_figures(bench: AuditBench) -> dict[str, GridFigures]:
    """By the name of what is rounded: what it holds in float, and what its grid makes of it."""
    observed = observe(
        bench.network,
        list(bench.grids),
        bench.fed_samples,
        bench.work.folder,
        bench.work.steps("looking at activations"),
        has_histograms=True,
    )
    return {name: _figures_of(observed.get(name), grid) for name, grid in bench.grids.items()}


def _figures_of(observed: Observed | None, grid: StoredGrid) -> GridFigures:
    if observed is None or observed.range is None:
        return GridFigures(math.nan, math.nan)
    low, high = observed.range.ends
    if grid.is_dynamic or observed.histogram is None or not observed.histogram.rows.any():
        return GridFigures(low, high)
    values = observed.histogram.centers
    counts = observed.histogram.rows[0].astype(np.float64)
    half = grid.scale / 2
    is_beyond = (values < grid.low - half) | (values > grid.high + half)
    span = grid.high - grid.low
    used = max(0.0, min(high, grid.high) - max(low, grid.low)) / span if span > 0 else math.nan
    best = calibrated(observed, "mse", _activations(grid))
    levels = grid.highest - grid.lowest
    best_low, best_high = min(best.low, 0.0), max(best.high, 0.0)
    best_scale = (best_high - best_low) / levels or 1.0
    best_zero = np.rint(best_low / best_scale)
    return GridFigures(
        seen_low=low,
        seen_high=high,
        saturated_share=float(counts[is_beyond].sum() / counts.sum()),
        used_share=used,
        sqnr_db=_sqnr_db(values, counts, grid.scale, grid.lowest, grid.highest),
        best_sqnr_db=_sqnr_db(values, counts, best_scale, best_zero, best_zero + levels),
    )


def _activations(grid: StoredGrid) -> Activations:
    """What a range is sought for: as many codes."""
    bits = math.ceil(math.log2(grid.highest - grid.lowest + 1))
    return Activations(bits=max(2, bits))


def _sqnr_db(
    values: Doubles, counts: Doubles, scale: float, lowest: float, highest: float
) -> float:
    codes = np.clip(np.rint(values / scale), lowest, highest)
    energy = float(counts @ values**2)
    error = float(counts @ (codes * scale - values) ** 2)
    return float(sqnr_db(energy, error)) if energy else math.nan


def drift_db(bench: AuditBench) -> dict[str, float]:
    """By the name of what is rounded: what it keeps of its float values, with all that is before.

    SQNR in dB over the first samples together.
    """
    names = list(bench.grids)
    blocks = packed(names, lambda name: 2 * bench.network.bytes_of(name), _BLOCK_BYTES)
    in_float = Relay(bench.network.model, blocks, bench.work.folder, "float")
    in_int8 = Relay(
        bench.emulator.model,
        [[rounded(name) for name in block] for block in blocks],
        bench.work.folder,
        "int8",
    )
    fed = bench.emulator.fed(bench.plan)
    samples = bench.fed_samples
    count = min(len(samples), MOST_DRIFT_SAMPLES)
    report: ReportSteps = bench.work.steps("comparing tensors")
    sums: dict[str, tuple[float, float]] = {}
    done = 0
    for indices in rounds(count, lambda: in_float.most_bytes + in_int8.most_bytes):
        for number, block in enumerate(blocks):
            in_float.open(number)
            in_int8.open(number)
            for index in indices:
                before = in_float.run(index, bench.network.fed(samples[index]))
                after = in_int8.run(index, {**fed, **samples[index]})
                for name in block:
                    _add(sums, name, before[name], after[rounded(name)])
                done += 1
                report(done, len(blocks) * count)
    return {
        name: float(sqnr_db(signal, noise)) if signal else math.nan
        for name, (signal, noise) in sums.items()
    }


def _add(sums: dict[str, tuple[float, float]], name: str, before: Array, after: Array) -> None:
    if before.shape != after.shape:
        return
    usable = np.isfinite(before)
    y = before[usable].astype(np.float64)
    difference = after[usable].astype(np.float64) - y
    signal, noise = sums.get(name, (0.0, 0.0))
    sums[name] = signal + float(y @ y), noise + float(difference @ difference)
