"""Which tensors and weights leave int8, the fewest and cheapest that the goal needs.

Each unit's noise at the outputs is measured alone. Noise of units adds up, nearly; so units leave
in the order of noise per MAC that is lost with them, until what is left is small enough. That is a
prediction, and every plan that is taken was run.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from quantstore.errors import RunError
from quantstore.records import Doubles
from quantstore.rescuing.bench import RescueBench
from quantstore.rescuing.draft import Draft
from quantstore.rescuing.judge import db_of, safe_db

# Of all MACs; what a unit counts that costs none, so that two of them can be compared.
_LEAST_PRICE = 0.002
# The prediction aims higher, for it is one.
PREDICTED_MARGIN_DB = 0.3
_LEAST_RAISE_DB, _MOST_RAISES = 0.5, 6


@dataclass(frozen=True, slots=True)
class PlanUnit:
    """What is promoted by itself: one tensor, or the weights of a layer with their bias.

    ``name``: of the tensor or weights in a plan; ``names``: all its parts.
    """

    name: str
    names: tuple[str, ...]
    is_tensor: bool


@dataclass(frozen=True)
class UnitNoise:
    """``ratios``: ``(units, samples, parts)``, noise-to-signal with one unit rounded alone.

    ``is_complete``: every unit was measured.
    """

    units: tuple[PlanUnit, ...]
    ratios: Doubles
    sample_count: int
    is_complete: bool


@dataclass(frozen=True)
class Promotion:
    """A draft with promoted units, in the order in which they were chosen."""

    draft: Draft
    units: tuple[PlanUnit, ...]
    predicted_db: float
    validation_db: float
    safe_db: float
    ratios: Doubles
    is_reached: bool


def plan_units(bench: RescueBench, draft: Draft) -> tuple[PlanUnit, ...]:
    """Everything that a draft rounds, in the order of the network."""
    plan = bench.drafting.plan(draft)
    bias_of = {bias.weights: bias.name for bias in bench.placed.biases}
    units = [PlanUnit(name, (name,), is_tensor=True) for name in plan.grids]
    units += [
        PlanUnit(name, (name, bias_of[name]) if name in bias_of else (name,), is_tensor=False)
        for name in bench.placed.weights
        if name in plan.constants
    ]
    return tuple(units)


def measure(bench: RescueBench, draft: Draft) -> UnitNoise:
    """One switch at a time, on as many validation samples as the time allows."""
    budget = bench.budget.share("sensitivity")
    plan = bench.drafting.plan(draft)
    units = plan_units(bench, draft)
    report = bench.steps("measuring sensitivity")
    measured = []
    for done, unit in enumerate(units, start=1):
        if budget.is_over:
            break
        measured.append(bench.validation.ratios(plan.only(unit.names)))
        report(done, len(units))
    shape = (0, len(bench.validation), len(bench.validation.parts))
    ratios = np.stack(measured) if measured else np.zeros(shape)
    return UnitNoise(
        units[: len(measured)], ratios, len(bench.validation), len(measured) == len(units)
    )


def promote(
    bench: RescueBench,
    draft: Draft,
    sensitivities: UnitNoise,
    goal_db: float,
    keep_macs: float,
    tensor_precision: str,
    *,
    may_promote_weights: bool = True,
    finish: Callable[[Draft], Draft] = lambda draft: draft,
) -> Promotion:
    """Promote units until a run reaches the goal, MACs or time are spent, then give some back.

    Args:
        goal_db: that the validation samples shall reach by ``judge.safe_db``.
        tensor_precision: what a promoted tensor becomes, ``int16`` or ``float``; weights become
            float.
        finish: what a draft with other promoted units needs: biases that were corrected for what
            is rounded no longer.
    """

    def run(units: Sequence[PlanUnit]) -> Promotion:
        promoted = {unit.name: tensor_precision if unit.is_tensor else "float" for unit in units}
        trial = finish(dataclasses.replace(draft, promoted=promoted))
        ratios = bench.validation.ratios(bench.drafting.plan(trial))
        predicted_db, safe = order.predicted_of(units), safe_db(ratios)
        return Promotion(
            trial, tuple(units), predicted_db, db_of(ratios), safe, ratios, safe >= goal_db
        )

    budget = bench.budget.share("search")
    order = _Order(bench, sensitivities, keep_macs, may_promote_weights=may_promote_weights)
    aim_db, best = goal_db + PREDICTED_MARGIN_DB, None
    report = bench.steps("searching")
    for attempt in range(_MOST_RAISES + 1):
        order.extend_to(aim_db)
        promotion = run(order.chosen)
        report(attempt + 1, _MOST_RAISES + 1)
        if best is None or promotion.safe_db > best.safe_db:
            best = promotion
        if promotion.is_reached or order.is_exhausted or budget.is_over:
            break
        aim_db += max(_LEAST_RAISE_DB, goal_db - promotion.safe_db)
    if best is None:
        raise RunError("nothing can be promoted")
    if not best.is_reached:
        return best
    # The shortest beginning of the list that still holds.
    least, most = 0, len(best.units)
    while most - least > 1 and not budget.is_over:
        middle = (least + most) // 2
        shorter = run(best.units[:middle])
        if shorter.is_reached:
            best, most = shorter, middle
        else:
            least = middle
    return best


class _Order:
    """Units in the order in which they are promoted, chosen as far as it was asked for."""

    def __init__(
        self,
        bench: RescueBench,
        sensitivities: UnitNoise,
        keep_macs: float,
        *,
        may_promote_weights: bool,
    ) -> None:
        self._bench, self._keep = bench, keep_macs
        self._units, self._ratios = sensitivities.units, sensitivities.ratios
        self._left = self._ratios.sum(axis=0)
        self._waiting = [
            index for index, unit in enumerate(self._units) if unit.is_tensor or may_promote_weights
        ]
        self._lost: frozenset[str] = frozenset()
        self.chosen: tuple[PlanUnit, ...] = ()
        self.is_exhausted = False

    @property
    def predicted_db(self) -> float:
        """What the sum of what is left says."""
        return db_of(np.maximum(self._left, 1e-30))

    def predicted_of(self, units: Sequence[PlanUnit]) -> float:
        """The same with these units promoted."""
        index_of = {unit.name: index for index, unit in enumerate(self._units)}
        gone = [index_of[unit.name] for unit in units]
        kept = np.delete(self._ratios, gone, axis=0).sum(axis=0)
        return db_of(np.maximum(kept, 1e-30))

    def extend_to(self, aim_db: float) -> None:
        """Choose units until the sum of the others predicts so many dB."""
        while self.predicted_db < aim_db:
            best = self._best()
            if best is None:
                self.is_exhausted = True
                return
            self._waiting.remove(best)
            unit = self._units[best]
            self.chosen = (*self.chosen, unit)
            self._lost |= {unit.name}
            self._left = self._left - self._ratios[best]

    def _best(self) -> int | None:
        """The unit with most noise for its price, among those that the kept MACs allow."""
        macs = self._bench.macs
        part = int(np.median(self._left, axis=0).argmax())
        kept = macs.share_in_int8(self._lost)
        best, best_worth = None, 0.0
        for index in self._waiting:
            share = macs.share_in_int8(self._lost | {self._units[index].name})
            if share < self._keep - 1e-9:
                continue
            noise = float(np.median(self._ratios[index, :, part]))
            worth = noise / (kept - share + _LEAST_PRICE)
            if worth > best_worth:
                best, best_worth = index, worth
        return best
