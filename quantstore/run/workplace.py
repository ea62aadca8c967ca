"""What every stage of a run has at hand: the choices, a folder for its files, and whom to tell."""

from dataclasses import dataclass, field
from pathlib import Path

from quantstore.run.choices import Choices, Progress, ReportProgress, ReportSteps


@dataclass(frozen=True, slots=True)
class Workplace:
    """One run's own; nobody else writes into ``folder``."""

    choices: Choices
    folder: Path
    report: ReportProgress
    messages: list[str] = field(default_factory=list)

    def say(self, stage: str, done: int, total: int, message: str | None = None) -> None:
        """Tell how far a stage is, and what is certain from now on."""
        if message is not None:
            self.messages.append(message)
        self.report(Progress(stage, done, total, tuple(self.messages)))

    def steps(self, stage: str) -> ReportSteps:
        """The same for whoever does not know which stage it is."""
        return lambda done, total: self.say(stage, done, total)
