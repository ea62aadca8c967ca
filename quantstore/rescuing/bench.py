"""A network on the bench: what every step of a rescue measures with, and how long it may take."""

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
from quantstore.run.sensitivity import Budget

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


class RescueBudget(Budget):
    """CPU seconds for all steps, which share them."""

    @property
    def remaining(self) -> float:
        """What is left, less what the files will need."""
        files = self.seconds * SHARES["files"] / sum(SHARES.values())
        return max(0.0, self.seconds - files - self.spent)

    def share(self, step: str) -> Budget:
        """For a step: its share, and what steps before it left over."""
        order = list(SHARES)
        until = sum(SHARES[name] for name in order[: order.index(step) + 1])
        return Budget(max(self.seconds * until / sum(SHARES.values()) - self.spent, 0.0))


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
    budget: RescueBudget
    steps: Callable[[str], ReportSteps]
    is_real: bool

    def db(self, draft: Draft) -> float:
        """Of the validation samples, in dB."""
        return self.validation.db(self.drafting.plan(draft))

    def int8_share(self, draft: Draft) -> float:
        """Share of the MACs that stay in int8."""
        return self.macs.share_in_int8(frozenset(draft.promoted))
