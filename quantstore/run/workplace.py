"""What every stage of a run has at hand: the choices, a folder for its files, and whom to tell."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantstore.run.choices import Choices, Progress, ReportProgress, ReportSteps
from quantstore.run.surgery import kept_outside


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

    def outside(self, model: Any, name: str) -> Any:
        """The model with its weights in a file, in place: the memory is for running it."""
        return kept_outside(model, self.folder, name)

    def saved(self, model: Any, name: str) -> Path:
        """Where a session finds the model, whose weights are kept outside as well."""
        self.outside(model, name)
        return self.folder / f"{name}.onnx"
