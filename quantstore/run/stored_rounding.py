"""What the activations of an integer file lose as it is stored: the file against its own weights.

Without the float file that it was made from, the loss of its weights is unknown. What its grids of
activations cost is not: the same weights run with rounded and with float activations.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from quantstore.graph.findings.base import SaturatedTensor, StoredRoundingFigures
from quantstore.run import outputs, points, stored_grids
from quantstore.run.emulator import Emulator, Plan
from quantstore.run.inputs import Samples
from quantstore.run.network import taken_apart
from quantstore.run.placement import Placement
from quantstore.run.ranges import observe
from quantstore.run.restore import StoredGrid
from quantstore.run.runtime import Feeds

# Rarer values beyond a grid are outliers that a calibration gave up on purpose.
_LEAST_SATURATED = 0.001
# A tensor loses by its range what another range would keep.
_LEAST_LOST_DB = 3.0


def stored_rounding(path: Path, feeds: Sequence[Feeds]) -> StoredRoundingFigures | None:
    """Run an integer file with rounded and with float activations.

    Args:
        feeds: what it is run on, sample by sample.

    Returns:
        None where the file stores no grid for an activation, or nothing that can be compared
        depends on its inputs.

    Raises:
        QuantstoreError: the file cannot be read, or onnxruntime refuses it or stops.
    """
    model = stored_grids.open_rounding(path)
    if not any(not grid.is_dynamic for grid in model.grids):
        return None
    for grid in model.grids:
        if not grid.is_dynamic:
            stored_grids.set_bounds(model.model, grid, stored_grids.kept_bounds(grid))
    rounded_as = {grid.source: grid.clip.outputs[0] for grid in model.grids}
    by_name = {str(value.name): value for value in rounded_as}
    compared = points.cut(model.model, keeps_decoder=True)
    if not compared.names:
        return None
    values = {str(value.name): value for value in model.model.graph.outputs}
    ends = [_as_rounded(values[name], by_name, rounded_as) for name in compared.names]
    stored_grids.end_at(model.model, list(dict.fromkeys(ends)))
    stored_grids.fix_input_shapes(model.model, feeds[0])
    names = tuple(str(value.name) for value in ends)
    network = taken_apart(model, tuple(dict.fromkeys(names)), fold=False, needs_layers=False)
    grids = stored_grids.in_network(model.grids, network)
    plan = Plan(stored_grids.plan_of(grids))
    emulator = Emulator(network, [Placement(activations=tuple(grids))], [plan.grids])
    order = [network.outputs.index(name) for name in names]
    expected, actual = (
        [[arrays[index] for index in order] for arrays in emulator.run(tried, feeds)]
        for tried in (Plan(), plan)
    )
    judged = outputs.judged(compared.parts, compared.names, expected, actual, is_real=False)
    with tempfile.TemporaryDirectory(prefix="quantstore-") as folder:
        samples = Samples("", len(feeds), lambda index: dict(feeds[index]))
        observed = observe(network, list(grids), samples, Path(folder), has_histograms=True)
    return StoredRoundingFigures(
        output_sqnr_db=outputs.deciding_sqnr_db(judged),
        saturated=tuple(
            _worst_first(
                SaturatedTensor(
                    name=_name_of(grid),
                    low=grid.low,
                    high=grid.high,
                    share=figures.saturated_share,
                    sqnr_db=figures.sqnr_db,
                )
                for name, grid in grids.items()
                if (figures := stored_grids.figures_of(observed.get(name), grid)).saturated_share
                > _LEAST_SATURATED
                and figures.best_sqnr_db - figures.sqnr_db > _LEAST_LOST_DB
            )
        ),
    )


def _as_rounded(
    value: ir.Value, by_name: Mapping[str, ir.Value], rounded_as: Mapping[ir.Value, ir.Value]
) -> ir.Value:
    """A point behind its rounding, where the file rounds it: the error counts as well."""
    source = by_name.get(str(value.name))
    return value if source is None else rounded_as[source]


def _name_of(grid: StoredGrid) -> str:
    """What is rounded, and what the file calls the result."""
    return f"{grid.source.name} ({grid.file_tensor})"


def _worst_first(tensors: Iterable[SaturatedTensor]) -> list[SaturatedTensor]:
    return sorted(tensors, key=lambda tensor: tensor.sqnr_db)
