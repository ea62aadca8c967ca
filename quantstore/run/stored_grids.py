"""The grids that a file stores for its activations: put back, let go, and held against a tensor.

``restore`` says where they are. What they do besides rounding is to limit: a Relu that a quantizer
dropped lives on in the ends of a grid.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from quantstore.numerics.quantization import sqnr_db
from quantstore.records import Array, Doubles
from quantstore.run import twin
from quantstore.run.calibration import calibrated
from quantstore.run.grids import AT_RUN_TIME, ActivationGrid
from quantstore.run.network import Network
from quantstore.run.ranges import Observed
from quantstore.run.restore import StoredGrid, new_constant
from quantstore.run.runtime import LOWEST_QDQ_OPSET, raise_opset
from quantstore.schemes import Activations

RELU6 = 6.0
# Fixing the shapes around them makes onnxruntime fail, or crash.
BRANCHING = ("If", "Loop", "Scan")
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What limits a tensor of the float graph that the int8 file leaves to the ends of a grid."""

    low: float = -math.inf
    high: float = math.inf

    def joined(self, other: "Bounds") -> "Bounds":
        return Bounds(max(self.low, other.low), min(self.high, other.high))


def open_rounding(path: Path) -> twin.FloatModel:
    """Read an integer file as floats, in an operator set in which an emulator can round.

    Raises:
        QuantstoreError: the file cannot be read, or its operator set not be raised.
    """
    model = twin.open_float(path)
    if (model.file.opset or LOWEST_QDQ_OPSET) >= LOWEST_QDQ_OPSET:
        return model
    raised = ir.from_proto(raise_opset(twin.to_proto(model)))
    makers = {str(output.name): node for node in raised.graph for output in node.outputs}
    grids = []
    for grid in model.grids:
        clip = makers.get(str(grid.clip.outputs[0].name))
        if clip is not None:
            moved = dataclasses.replace(grid, clip=clip)
            source = moved.nodes[0].inputs[0]
            grids.append(dataclasses.replace(moved, source=source or grid.source))
    file = dataclasses.replace(model.file, model=raised, opset=LOWEST_QDQ_OPSET)
    return twin.FloatModel(file, model.was_quantized, tuple(grids))


def kept_bounds(grid: StoredGrid) -> Bounds:
    """What the ends of a grid do besides rounding, where no float file tells.

    Codes that begin at zero may stand for a Relu that was dropped; an end within half a step of 6
    as well for a Relu6. Any other end is where the grid happens to end.
    """
    if grid.lowest != 0:
        return Bounds()
    is_relu6 = abs(grid.high - RELU6) <= grid.scale / 2
    return Bounds(0.0, RELU6 if is_relu6 else math.inf)


def set_bounds(model: ir.Model, grid: StoredGrid, bounds: Bounds) -> None:
    """Limit what is not rounded to these instead of the ends of its grid, in place."""
    positions = (1, 2) if grid.channels is None else (1, 1)
    for reader, index, end in (
        (grid.nodes[0], positions[0], bounds.low),
        (grid.nodes[-1], positions[1], bounds.high),
    ):
        name = f"quantstore_limit_{len(model.graph.initializers)}"
        limit = np.array(np.clip(end, -_FLOAT32_MAX, _FLOAT32_MAX), np.float32)
        reader.replace_input_with(index, new_constant(model.graph, name, limit))


def end_at(
    model: ir.Model, values: Sequence[ir.Value], codes: Mapping[str, ir.DataType] | None = None
) -> None:
    """Make these values the outputs of a model, in position, and drop what is behind them.

    Args:
        codes: by the name of a value that holds no floats, what it holds.
    """
    model.graph.outputs.clear()
    for value in values:
        code_type = None if codes is None else codes.get(str(value.name))
        if code_type is not None:
            value.type = ir.TensorType(code_type)
        elif value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
        value.shape = None
        model.graph.outputs.append(value)
    passes.RemoveUnusedNodesPass()(model)


def fix_input_shapes(model: ir.Model, feed: Mapping[str, Array]) -> None:
    """Write the shapes that are fed into a model, so that the sizes of its tensors are known."""
    if any(node.op_type in BRANCHING for node in model.graph):
        return
    for value in model.graph.inputs:
        array = feed.get(str(value.name))
        if array is not None:
            value.shape = ir.Shape(array.shape)


def in_network(grids: Iterable[StoredGrid], network: Network) -> dict[str, StoredGrid]:
    """By the name of what is rounded, the grids of tensors that a network computes."""
    by_name = {str(grid.clip.outputs[0].name): grid for grid in grids}
    return {name: grid for name, grid in by_name.items() if name in network.tensors}


def plan_of(grids: Mapping[str, StoredGrid]) -> dict[str, ActivationGrid]:
    """The same as an emulator wants them."""
    return {name: _activation_grid(grid) for name, grid in grids.items()}


def _activation_grid(grid: StoredGrid) -> ActivationGrid:
    if grid.is_dynamic:
        return AT_RUN_TIME
    if grid.channels is not None:
        return ActivationGrid(grid.channels.scale, grid.channels.lowest, grid.channels.highest)
    return ActivationGrid(
        *(np.array([part], np.float32) for part in (grid.scale, grid.lowest, grid.highest))
    )


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


def figures_of(observed: Observed | None, grid: StoredGrid) -> GridFigures:
    """How a stored grid fits a tensor, as far as it was observed."""
    if observed is None or observed.range is None:
        return GridFigures(math.nan, math.nan)
    low, high = observed.range.ends
    has_one_grid = not grid.is_dynamic and grid.channels is None
    if not has_one_grid or observed.histogram is None or not observed.histogram.rows.any():
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
