"""Activations that an int8 file rounds: how well each grid fits what it rounds, and the drift."""

import math

import numpy as np

from quantstore.auditing.bench import AuditBench
from quantstore.numerics.quantization import sqnr_db
from quantstore.records import Array
from quantstore.run.choices import ReportSteps
from quantstore.run.emulator import rounded
from quantstore.run.ranges import observe
from quantstore.run.relay import Relay, packed, rounds
from quantstore.run.stored_grids import GridFigures, figures_of

# What is compared at the same time.
_BLOCK_BYTES = 256 << 20
# Of the samples, so many show where a network drifts.
MOST_DRIFT_SAMPLES = 4


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
    return {name: figures_of(observed.get(name), grid) for name, grid in bench.grids.items()}


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
