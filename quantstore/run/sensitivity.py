"""Which tensors and weights cost how much, and the fewest whose return to float would be enough.

One switch at a time: round it alone, and everything but it, and look at the outputs. All of it runs
in one session, whose switches are inputs: loading a model costs more than running it.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from quantstore.errors import RunError
from quantstore.run.choices import ReportSteps
from quantstore.run.comparison import Reference
from quantstore.run.emulator import Emulator, Plan
from quantstore.run.inputs import Samples
from quantstore.run.nodes import name_of, producers
from quantstore.run.placement import Placement
from quantstore.run.runtime import Feeds

Scope = Literal["alone", "all but"]
SCOPES: tuple[Scope, ...] = ("alone", "all but")
UnitKind = Literal["weights", "tensor"]
# Enough for a ranking; fewer where the budget does not allow for so many.
MOST_SAMPLES = 16
# Candidates that are tried at each step of a search, and what makes one worth its place.
_PROMISING, _HARMFUL, _WORTH_IT = 4, 2, 0.05


@dataclass(frozen=True, slots=True)
class Unit:
    """What can be rounded or left in float by itself: the weights of a layer, or one tensor.

    ``name``: of the layer or tensor; ``depth``: the layer's in the store, None where it is none;
    ``node_name``: what computes the tensor, None for weights. ``names``: its parts in a plan.
    """

    name: str
    kind: UnitKind
    names: tuple[str, ...]
    depth: int | None = None
    node_name: str | None = None


@dataclass(frozen=True, slots=True)
class UnitSensitivity:
    """The SQNR at the outputs with one unit rounded alone, or all but this one."""

    unit: Unit
    scope: Scope
    output_sqnr_db: float
    sample_count: int


@dataclass(frozen=True, slots=True)
class FloatSet:
    """The fewest units found whose return to float lifts the outputs to a goal.

    ``units`` in the order in which they were found, ``figures_db`` the SQNR at the outputs with
    each and those before it in float, measured on all samples. ``is_reached``: whether the last of
    them is at the goal.
    """

    goal_db: float
    units: tuple[Unit, ...]
    figures_db: tuple[float, ...]
    is_reached: bool


def units_of(
    emulator: Emulator, placed: Placement, plan: Plan, layer_of: Mapping[str, tuple[str, int]]
) -> tuple[Unit, ...]:
    """Everything that a plan rounds, a bias together with the weights it is added to.

    Args:
        layer_of: name and depth of the layer in the file, by the name of its weights in the plan.
    """
    network = emulator.network
    bias_of = {bias.weights: bias.name for bias in placed.biases if bias.name in plan.constants}
    units = []
    taken = set(bias_of.values())
    for name in plan.constants:
        if name in taken:
            continue
        names_in_plan = (name, bias_of[name]) if name in bias_of else (name,)
        slot = network.slot_of.get(name)
        if slot is None:
            units.append(Unit(name, "tensor", names_in_plan))
            continue
        layer, depth = layer_of.get(name, (slot.site.name, None))
        units.append(Unit(layer, "weights", names_in_plan, depth))
    made_by = producers(network.model)
    for name in plan.grids:
        node = made_by.get(name)
        units.append(
            Unit(name, "tensor", (name,), node_name=None if node is None else name_of(node))
        )
    return tuple(units)


class Bench:
    """A plan under trial: its figure with some units in float, or rounded alone."""

    def __init__(
        self, emulator: Emulator, plan: Plan, samples: Samples, units: Sequence[Unit]
    ) -> None:
        self._emulator, self.plan, self._samples, self.units = emulator, plan, samples, units
        self._references: dict[tuple[int, ...], tuple[list[Feeds], Reference]] = {}

    def without(self, units: Iterable[Unit], indices: Sequence[int]) -> float:
        """SQNR at the outputs in dB with these units in float; ``LOST_DB`` where one is none."""
        names = [name for unit in units for name in unit.names]
        return self._figure(self.plan.without(names), indices)

    def only(self, unit: Unit, indices: Sequence[int]) -> float:
        """The same with this unit rounded alone."""
        return self._figure(self.plan.only(unit.names), indices)

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self._samples)

    def spread(self, count: int) -> tuple[int, ...]:
        """So many samples, at even distances."""
        every = len(self._samples)
        chosen = min(max(count, 1), every)
        return tuple(index * every // chosen for index in range(chosen))

    def _figure(self, plan: Plan, indices: Sequence[int]) -> float:
        samples, reference = self._reference(tuple(indices))
        try:
            return reference.median_db(self._emulator.run(plan, samples))
        except RunError:
            # Not a number: the row has no figure.
            return math.nan

    def _reference(self, indices: tuple[int, ...]) -> tuple[list[Feeds], Reference]:
        if indices not in self._references:
            samples: list[Feeds] = [self._samples[index] for index in indices]
            expected = list(self._emulator.run(Plan(), samples))
            self._references[indices] = samples, Reference(self._emulator.outputs, expected)
        return self._references[indices]


class Budget:
    """CPU seconds of this process, so that a busy computer gives the same rows as an idle one."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start = time.process_time()

    @property
    def spent(self) -> float:
        return time.process_time() - self._start

    @property
    def is_over(self) -> bool:
        return self.spent > self.seconds


def measure_sensitivity(
    bench: Bench, budget: Budget, report: ReportSteps | None = None
) -> tuple[UnitSensitivity, ...]:
    """Round each unit alone, then all but each, as far as the budget allows.

    Returns:
        Two per unit; fewer where the budget ran out. All rows see the same samples.
    """
    total = len(SCOPES) * len(bench.units)
    before = budget.spent
    bench.without((), bench.spread(1))
    # The first run is the slowest; the plan is a careful one.
    per_run = max((budget.spent - before) / 2, 1e-6)
    indices = bench.spread(min(MOST_SAMPLES, int(budget.seconds / (per_run * max(total, 1)))))
    figures: list[UnitSensitivity] = []
    for scope in SCOPES:
        for unit in bench.units:
            if budget.is_over:
                return tuple(figures)
            figure = (
                bench.only(unit, indices) if scope == "alone" else bench.without([unit], indices)
            )
            figures.append(UnitSensitivity(unit, scope, figure, len(indices)))
            if report is not None:
                report(len(figures), total)
    return tuple(figures)


def find_float_set(
    bench: Bench,
    sensitivities: Sequence[UnitSensitivity],
    goal_db: float,
    budget: Budget,
    report: ReportSteps | None = None,
) -> FloatSet:
    """The fewest units whose return to float lifts the outputs to a goal, found greedily.

    At each step the unit joins that takes most noise away, of the few that promised most when they
    were last tried, and of those that do most harm alone. Two units that each ruin the outputs gain
    nothing one by one: where no unit takes away a twentieth of the noise, the one that does most
    harm alone joins. In the end every unit without which the goal still holds is given back to
    int8. Every figure that is returned was measured with all samples.
    """
    every = bench.spread(len(bench))
    few = bench.spread(max((measured.sample_count for measured in sensitivities), default=1))
    alone = {
        measured.unit: _noise(measured.output_sqnr_db)
        for measured in sensitivities
        if measured.scope == "alone"
    }
    waiting = list(bench.units)
    before = _noise(bench.without((), few))
    gains = {
        measured.unit: before - _noise(measured.output_sqnr_db)
        for measured in sensitivities
        if measured.scope == "all but"
    }
    chosen: list[Unit] = []
    while waiting and not budget.is_over and bench.without(chosen, every) < goal_db:
        candidates = dict.fromkeys(
            sorted(waiting, key=lambda unit: -gains.get(unit, 0.0))[:_PROMISING]
            + sorted(waiting, key=lambda unit: -alone.get(unit, 0.0))[:_HARMFUL]
        )
        tried = {unit: _noise(bench.without([*chosen, unit], few)) for unit in candidates}
        gains |= {unit: before - noise for unit, noise in tried.items()}
        best = min(tried, key=lambda unit: (tried[unit], -alone.get(unit, 0.0)))
        if tried[best] > (1 - _WORTH_IT) * before:
            best = max(tried, key=lambda unit: (alone.get(unit, 0.0), -tried[unit]))
        before = tried[best]
        chosen.append(best)
        waiting.remove(best)
        if report is not None:
            report(len(chosen), len(bench.units))
    is_reached = bench.without(chosen, every) >= goal_db
    for unit in chosen[:-1] if is_reached else ():
        rest = [other for other in chosen if other is not unit]
        if bench.without(rest, every) >= goal_db:
            chosen = rest
    figures = tuple(bench.without(chosen[: count + 1], every) for count in range(len(chosen)))
    return FloatSet(goal_db, tuple(chosen), figures, is_reached)


def _noise(figure_db: float) -> float:
    """Noise over signal; without a figure all is noise."""
    return math.inf if math.isnan(figure_db) else 10 ** (-figure_db / 10)
