"""What every stage of a run has at hand: the choices, a folder for its files, and whom to tell."""

from dataclasses import dataclass
from pathlib import Path

from quantstore.run.choices import Choices, Progress, ReportProgress, ReportSteps


@dataclass(frozen=True, slots=True)
class Workplace:
    """One run's own; nobody else writes into ``folder``."""

    choices: Choices
    folder: Path
    report: ReportProgress

    def say(self, stage: str, done: int, total: int) -> None:
        """Tell how far a stage is."""
        self.report(Progress(stage, done, total))

    def steps(self, stage: str) -> ReportSteps:
        """The same for whoever does not know which stage it is."""
        return lambda done, total: self.say(stage, done, total)
