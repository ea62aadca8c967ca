"""A network on the bench: what every step of a rescue measures with, and how long it may take."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quantstore.rescuing.draft import Draft, Drafting
from quantstore.rescuing.judge import Judge
from quantstore.rescuing.macs import Macs
from quantstore.rescuing.scaling import Scalable
from quantstore.run.choices import ReportSteps
from quantstore.run.inputs import Samples
from quantstore.run.network import Network
from quantstore.run.placement import Placement

# Of a budget, what each step may take; a step that is left out leaves its share to the others.
SHARES = {
    "calibration": 10,
    "ranges": 10,
    "equalize": 10,
    "rounding": 20,
    "sensitivity": 45,
    "search": 15,
    "files": 10,
}


class BudgetClock:
    """CPU seconds of this process: a busy computer cuts no step short that an idle one finishes."""

    def __init__(self, budget_seconds: float) -> None:
        self.budget_seconds = budget_seconds
        self._start = time.process_time()

    @property
    def spent(self) -> float:
        """CPU seconds since the beginning."""
        return time.process_time() - self._start

    @property
    def remaining(self) -> float:
        """CPU seconds of the budget that are left, less those that the files will need."""
        files = self.budget_seconds * SHARES["files"] / sum(SHARES.values())
        return max(0.0, self.budget_seconds - files - self.spent)

    def share(self, step: str) -> "StepClock":
        """For a step: its share, and what steps before it left over."""
        order = list(SHARES)
        before = sum(SHARES[name] for name in order[: order.index(step) + 1])
        until = self.budget_seconds * before / sum(SHARES.values())
        return StepClock(self, max(until - self.spent, 0.0))


class StepClock:
    """What one step may take."""

    def __init__(self, clock: BudgetClock, seconds: float) -> None:
        self._clock, self.seconds = clock, seconds
        self._start = clock.spent

    @property
    def spent(self) -> float:
        """CPU seconds since the step began."""
        return self._clock.spent - self._start

    @property
    def is_over(self) -> bool:
        """Whether the share is spent."""
        return self.spent > self.seconds


@dataclass(frozen=True)
class RescueBench:
    """A network, what is fed to it, and who judges what comes out.

    ``validation`` decides, ``test`` decides nothing.
    """

    network: Network
    placed: Placement
    drafting: Drafting
    scalable: tuple[Scalable, ...]
    macs: Macs
    calibration: Samples
    validation: Judge
    test: Judge
    folder: Path
    clock: BudgetClock
    steps: Callable[[str], ReportSteps]
    is_real: bool

    def db(self, draft: Draft) -> float:
        """Of the validation samples, in dB."""
        return self.validation.db(self.drafting.plan(draft))

    def int8_share(self, draft: Draft) -> float:
        """Share of the MACs that stay in int8."""
        return self.macs.share_in_int8(frozenset(draft.promoted))
