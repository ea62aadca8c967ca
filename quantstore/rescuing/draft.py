"""A plan in the making: what was decided so far in, the numbers to feed the emulator out.

A rescaled channel needs no other graph. Dividing it, rounding it with one scale and multiplying it
again is rounding it with a scale of its own; the emulator is fed that, and the written file has the
factors in its weights. So one session runs every draft.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from quantstore.numerics import quantization
from quantstore.numerics.quantization import Grid
from quantstore.records import Array, Doubles, Floats
from quantstore.rescuing.rows import Rows, rows_of
from quantstore.rescuing.scaling import Factors, Scaling
from quantstore.run import grids, twin
from quantstore.run.calibration import calibrated
from quantstore.run.choices import Calibration
from quantstore.run.emulator import Plan
from quantstore.run.grids import ActivationGrid
from quantstore.run.histogram import SharedHistogram
from quantstore.run.network import Network
from quantstore.run.placement import SHARES, Placement
from quantstore.run.plans import (
    Planner,
    Rounding,
    bias_grid,
    least_scale,
    rounded_bias,
    weight_grid,
)
from quantstore.run.ranges import Observed, Range
from quantstore.schemes import Activations, Scheme, Target

# What a promoted activation gets instead of 8 bits.
WIDE_BITS = 16
# Its range reaches so many times further than the calibration samples did. Two bits are not missed,
# and what other inputs hold beyond is not clipped.
WIDE_HEADROOM = 4.0


@dataclass(frozen=True, slots=True)
class Draft:
    """What was decided so far.

    ``headroom``: ranges of activations are so many times wider than calibration found them.
    ``scalings``: by the tensor. ``codes``: by the name of weights their codes, as rows, where they
    are not the nearest ones; they belong to these scalings. ``corrections``: by the name of a bias
    what is added to it, in the units of the network as it is. ``promoted``: by the name of a tensor
    or of weights ``int16`` or ``float``.
    """

    calibration: Calibration = "minmax"
    headroom: float = 1.0
    scalings: Mapping[str, Scaling] = field(default_factory=dict)
    codes: Mapping[str, Floats] = field(default_factory=dict)
    corrections: Mapping[str, Doubles] = field(default_factory=dict)
    promoted: Mapping[str, str] = field(default_factory=dict)

    @property
    def mul_count(self) -> int:
        """How many Muls the written file needs."""
        return sum(not scaling.is_folded for scaling in self.scalings.values())


@dataclass(frozen=True, slots=True)
class FileGrids:
    """Grids as the written file has them: one scale per tensor, behind the rescaling.

    ``constants`` as the file stores them: rescaled, and rounded where ``constant_grids`` says how.
    """

    tensors: Mapping[str, ActivationGrid]
    constants: Mapping[str, Array]
    constant_grids: Mapping[str, ActivationGrid]


class Drafting:
    """Makes plans of drafts for one network and target."""

    def __init__(
        self,
        network: Network,
        placed: Placement,
        target: Target,
        observed: Mapping[str, Observed],
        values: Mapping[str, Floats],
        branches: Mapping[str, str] | None = None,
    ) -> None:
        """Take what the calibration samples showed.

        Args:
            observed: as for ``plans.Planner``; with ranges by channel for what can be rescaled.
            values: of what can be rescaled, some of the values, ``(count, channels)``.
            branches: of ``branches.with_branches``. Either the tensor is rounded, for all that
                read it, or the branch, once it is rescaled.
        """
        if target.activations is None:
            raise ValueError("a target with float activations has nothing to rescue")
        self.network, self.placed, self.target = network, placed, target
        self._activations: Activations = target.activations
        self._scheme: Scheme = target.scheme
        self._observed, self._values = observed, values
        self._branches = branches or {}
        self._bases: dict[Calibration, Plan] = {}
        self._roots: dict[Calibration, dict[str, ActivationGrid]] = {}
        self._nearest: dict[tuple[str, bytes], tuple[Array, ActivationGrid]] = {}
        self._bias_of = {bias.weights: bias for bias in placed.biases}
        self._rows: dict[str, Rows | None] = {}

    def plan(self, draft: Draft) -> Plan:
        """Every rounding of a draft, in the units of the network as it is."""
        in_file = self.in_file(draft)
        factors = Factors.of(self.network, draft.scalings)
        tensors = {
            name: _spread(grid, factors.of_tensors.get(name), self.trailing_axes(name))
            for name, grid in in_file.tensors.items()
        }
        constants = {}
        for name in (*in_file.constant_grids, *draft.corrections):
            array = factors.unscaled(name, in_file.constants[name])
            constants[name] = factors.unscaled_bias(name, array)
        return Plan(tensors, constants, in_file.constant_grids)

    def in_file(self, draft: Draft) -> FileGrids:
        """The same as the written file has it."""
        base = self._base(draft.calibration)
        factors = Factors.of(self.network, draft.scalings)
        tensors = dict(base.grids)
        for name in factors.of_tensors:
            if name in tensors:
                tensors[name] = self._scaled_grid(name, factors.of_tensors[name], draft)
        roots = self._roots[draft.calibration]
        if draft.headroom != 1.0:
            tensors, roots = (
                {name: self._widened(name, grid, draft.headroom) for name, grid in some.items()}
                for some in (tensors, roots)
            )
        input_grids = {
            name: tensors.get(name, roots.get(root)) for name, root in self.placed.grid_of.items()
        }
        for branch, source in self._branches.items():
            if branch in draft.scalings:
                tensors.pop(source, None)
            else:
                tensors.pop(branch, None)
                input_grids[branch] = input_grids[source]
        for name, precision in draft.promoted.items():
            if name not in tensors:
                continue
            input_grids |= dict.fromkeys((name, *self._branches_of(name)), None)
            if precision == "float":
                del tensors[name]
            else:
                tensors[name] = self._wide_grid(name, factors.of_tensors.get(name))
        constants: dict[str, Array] = {}
        constant_grids: dict[str, ActivationGrid] = {}
        for name in (*self.placed.constants, *self.placed.norms):
            if name in base.constants and name not in draft.promoted:
                constants[name] = base.constants[name]
                constant_grids[name] = base.constant_grids[name]
        for name in self.placed.weights:
            scaled = factors.scaled(name, self.network.constants[name])
            bias = self._bias_of.get(name)
            bias_array = None
            input_grid = None
            if bias is not None:
                bias_array = factors.scaled_bias(bias.name, self.bias(bias.name, draft))
                constants[bias.name] = bias_array
                input_grid = input_grids.get(bias.input)
            if name in draft.promoted:
                constants[name] = scaled
                continue
            least = None
            if input_grid is not None and bias_array is not None and self._scheme.is_symmetric:
                least = _least_scale(bias_array, input_grid.scale)
            is_moved = scaled is not self.network.constants[name]
            rounded = self._rounded(
                name, scaled if is_moved else None, least, draft.codes.get(name)
            )
            constants[name], constant_grids[name] = rounded
            if bias is not None and input_grid is not None and bias_array is not None:
                product = rounded[1].scale * input_grid.scale.ravel()
                grid = bias_grid(bias_array, product.astype(np.float32))
                if grid.scale.size in (1, bias_array.size):
                    constants[bias.name] = rounded_bias(bias_array, grid.scale)
                    constant_grids[bias.name] = grid
        return FileGrids(tensors, constants, constant_grids)

    def _widened(self, name: str, grid: ActivationGrid, headroom: float) -> ActivationGrid:
        """A grid with the same codes for a wider range; shares reach from 0 to 1 and no further."""
        if self.placed.grid_of.get(name, name) in self.placed.shares:
            return grid
        scale = (grid.scale * np.float32(headroom)).astype(np.float32)
        return dataclasses.replace(grid, scale=scale)

    def _branches_of(self, name: str) -> Iterator[str]:
        yield from (branch for branch, source in self._branches.items() if source == name)

    def grid_of_rows(self, name: str, in_file: FileGrids) -> Grid | None:
        """The grid of weights as rows, as a file stores them.

        None where they are no plain matrix, or on no symmetric grid of integers.
        """
        grid = in_file.constant_grids.get(name)
        if grid is None or self._rows_of(name) is None or not _is_plain(self._scheme):
            return None
        top = self._scheme.qmax
        zeros = np.zeros((grid.scale.size, 1), np.float32)
        return Grid(grid.scale.reshape(-1, 1), zeros, -top, top, "int")

    def range_of(self, name: str, draft: Draft) -> tuple[float, float]:
        """The ends of the range that the codes of a tensor cover, as the file has it."""
        grid = self.in_file(dataclasses.replace(draft, promoted={})).tensors.get(name)
        if grid is None:
            return np.nan, np.nan
        scale = float(grid.scale.ravel()[0])
        return float(grid.lowest.ravel()[0]) * scale, float(grid.highest.ravel()[0]) * scale

    def channel_ends(self, name: str) -> tuple[Doubles, Doubles] | None:
        """Smallest and largest value of each channel over the calibration samples."""
        seen = self._observed.get(name)
        channels = None if seen is None or seen.range is None else seen.range.channels
        return None if channels is None else (channels.low, channels.high)

    def bias(self, name: str, draft: Draft) -> Array:
        """A bias with its correction."""
        bias = self.network.float_constants[name]
        if name not in draft.corrections:
            return bias
        return np.asarray(bias + draft.corrections[name].reshape(bias.shape), np.float32)

    def has_sentinels(self, name: str) -> bool:
        """Whether values that stand for infinity were left out of the range of a tensor."""
        seen = self._observed.get(self.placed.grid_of.get(name, name))
        return seen is not None and seen.range is not None and seen.range.sentinel_count > 0

    def largest(self, name: str) -> float | None:
        """The largest magnitude of a tensor; None where it was not observed."""
        seen = self._observed.get(name)
        if seen is None or seen.range is None:
            return None
        return max(abs(seen.range.low), abs(seen.range.high))

    def trailing_axes(self, name: str) -> int:
        """How many axes a tensor has behind that of its channels."""
        seen = self._observed.get(name)
        channels = None if seen is None or seen.range is None else seen.range.channels
        return 0 if channels is None else channels.trailing_axes

    def _base(self, calibration: Calibration) -> Plan:
        """What the target does by default with ranges by this method."""
        if calibration not in self._bases:
            planner = Planner(self.network, self._observed, calibration)
            rounding = Rounding(None, self._activations)
            tensors = planner.plan(self.placed, rounding)
            whole = dataclasses.replace(self.placed, weights=(), biases=())
            constants = planner.plan(whole, Rounding(self._scheme, self._activations))
            self._bases[calibration] = Plan(
                tensors.grids, constants.constants, constants.constant_grids
            )
            self._roots[calibration] = planner.grids(self.placed, self._activations)
        return self._bases[calibration]

    def _scaled_grid(self, name: str, factors: Doubles, draft: Draft) -> ActivationGrid:
        """The grid of a rescaled tensor: one scale for all its channels."""
        activations = dataclasses.replace(self._activations, is_per_channel_at_depthwise=False)
        low, high = self._scaled_ends(name, factors)
        histogram = None
        if draft.calibration != "minmax" and name in self._values:
            values = np.ravel(self._values[name] / factors).astype(np.float64)
            histogram = SharedHistogram.of_one()
            histogram.widen(min(low, float(values.min())), max(high, float(values.max())))
            histogram.add(0, values)
        seen = Observed(Range(low, high), histogram)
        return grids.grid_of(*calibrated(seen, draft.calibration, activations).ends, activations)

    def _scaled_ends(self, name: str, factors: Doubles) -> tuple[float, float]:
        ends = self.channel_ends(name)
        if ends is None:
            raise ValueError(f"the channels of {name!r} were not observed")
        return float((ends[0] / factors).min()), float((ends[1] / factors).max())

    def _wide_grid(self, name: str, factors: Doubles | None) -> ActivationGrid:
        """The 16-bit grid of a promoted tensor, with room for what calibration has not met."""
        activations = dataclasses.replace(self._activations, bits=WIDE_BITS)
        root = self.placed.grid_of[name]
        seen = self._observed.get(root)
        if root in self.placed.shares or seen is None or seen.range is None:
            return grids.grid_of(*SHARES, activations)
        low, high = seen.range.ends if factors is None else self._scaled_ends(name, factors)
        return grids.grid_of(WIDE_HEADROOM * low, WIDE_HEADROOM * high, activations)

    def _rows_of(self, name: str) -> Rows | None:
        if name not in self._rows:
            self._rows[name] = rows_of(self.network, name)
        return self._rows[name]

    def _rounded(
        self, name: str, scaled: Array | None, least: Doubles | None, codes: Floats | None
    ) -> tuple[Array, ActivationGrid]:
        """Weights on the grid of the scheme; ``scaled`` where they are not those of the network."""
        if scaled is None and codes is None:
            key = (name, b"" if least is None else least.tobytes())
            if key not in self._nearest:
                slot = self.network.slot_of[name]
                rounded = self.network.rounded(slot, self._scheme, least)
                self._nearest[key] = (
                    rounded.values,
                    weight_grid(rounded.scale, self._scheme.qmax),
                )
            return self._nearest[key]
        rows = self._rows_of(name)
        if rows is None:
            raise ValueError(f"{name} is no plain matrix")
        held = rows.holding(self.network.constants[name] if scaled is None else scaled)
        grid = quantization.grid_for(held.matrix, self._scheme)
        if least is not None:
            grid = twin.raised(grid, least)
        chosen = quantization.quantize(held.matrix, grid) if codes is None else codes
        values = held.back(quantization.dequantize(chosen, grid))
        return values, weight_grid(grid.scale.astype(np.float64).ravel(), self._scheme.qmax)


def candidate_grids(
    draft_tensors: Iterator[tuple[str, int, int]],
) -> dict[str, ActivationGrid]:
    """Grids that say which tensors may get a scale per channel: for ``Emulator``.

    Args:
        draft_tensors: name, channels, and axes behind that of the channels.
    """
    hints = {}
    for name, channel_count, trailing_axes in draft_tensors:
        shape = (channel_count, *(1,) * trailing_axes)
        hints[name] = ActivationGrid(*(np.ones(shape, np.float32),) * 3)
    return hints


def _spread(grid: ActivationGrid, factors: Doubles | None, trailing_axes: int) -> ActivationGrid:
    """A grid of a rescaled tensor in the units of the tensor as it is."""
    if factors is None:
        return grid
    shape = (-1, *(1,) * trailing_axes)
    scale = (float(grid.scale.ravel()[0]) * factors).astype(np.float32).reshape(shape)
    return ActivationGrid(
        scale,
        np.full_like(scale, grid.lowest.ravel()[0]),
        np.full_like(scale, grid.highest.ravel()[0]),
    )


def _least_scale(bias: Array, input_scale: Floats) -> Doubles:
    """As ``plans.least_scale``, where the input may have a scale for each channel."""
    if input_scale.size == 1:
        return least_scale(bias, float(input_scale.ravel()[0]))
    least: Doubles = least_scale(bias, 1.0) / input_scale.ravel().astype(np.float64)
    return least


def _is_plain(scheme: Scheme) -> bool:
    return scheme.number == "int" and scheme.is_symmetric and scheme.granularity != "block"
