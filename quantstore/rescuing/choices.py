"""What a rescue is asked for, and what it answers: choices in, a rescue out.

Data alone, which crosses from one process to another as JSON. Nothing here runs a model.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from quantstore.errors import InputsError
from quantstore.records import (
    RescueDriftRecord,
    RescueFileRecord,
    RescueRecord,
    RescueStepRecord,
    RescueUnitRecord,
)
from quantstore.rescuing.terms import (
    DEFAULT_BUDGET_SECONDS,
    DEFAULT_KEEP_MACS,
    DEFAULT_REACH_DB,
    REMEDIES,
    RESCUE_TARGETS,
)
from quantstore.run.inputs import AUTO, Preprocessing
from quantstore.schemes import TARGETS, Target

_REFUSAL = "it does not round activations with calibrated scales"


@dataclass(frozen=True, slots=True, kw_only=True)
class RescueChoices:
    """What shall be reached, and by which means.

    ``reach_db``: output SQNR of the quantized model. ``keep_macs``: the share of the
    multiply-accumulates that must stay in int8. ``allow``: names of :data:`REMEDIES`.
    ``budget_seconds`` is CPU time. ``samples``: at most so many inputs are used, for calibration,
    validation and test together. ``test_inputs``: where those of the test are read instead.
    ``output``: the folder for the files; without one none is kept.
    """

    target: str
    reach_db: float = DEFAULT_REACH_DB
    keep_macs: float = DEFAULT_KEEP_MACS
    allow: tuple[str, ...] = tuple(REMEDIES)
    budget_seconds: float = DEFAULT_BUDGET_SECONDS
    samples: int | None = None
    preprocess: str | Preprocessing = AUTO
    test_inputs: str | None = None
    output: str | None = None
    fold: bool = True

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise InputsError(
                f"no target is named {self.target!r}", f"choose {', '.join(RESCUE_TARGETS)}"
            )
        if self.target not in RESCUE_TARGETS:
            raise InputsError(
                f"{self.target} cannot be rescued: {_REFUSAL}",
                f"choose {', '.join(RESCUE_TARGETS)}",
            )
        unknown = [name for name in self.allow if name not in REMEDIES]
        if unknown:
            raise InputsError(
                f"no remedy is named {unknown[0]!r}", f"choose among {', '.join(REMEDIES)}"
            )
        if not math.isfinite(self.reach_db):
            raise InputsError("the SQNR to reach must be a finite number of dB")
        if not 0 <= self.keep_macs <= 1:
            raise InputsError("the share of MACs that stays in int8 must be between 0 and 1")
        if not self.budget_seconds > 0:
            raise InputsError("the budget must be more than 0 CPU seconds")

    @property
    def rounded(self) -> Target:
        """What is rounded, and how."""
        return TARGETS[self.target]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescue:
    """What a rescue found, and the files that it wrote.

    ``record`` carries the rows of its steps, units and files.
    """

    sha256: str
    folded: bool
    record: RescueRecord

    def to_json(self) -> str:
        """One line, for another process."""
        return json.dumps(dataclasses.asdict(self), default=_plain)

    @classmethod
    def from_json(cls, text: str) -> "Rescue":
        """What :meth:`to_json` wrote."""
        content = json.loads(text)
        row: dict[str, Any] = content["record"]
        row["created_at"] = datetime.fromisoformat(row["created_at"])
        row["allowed"] = tuple(row["allowed"])
        row["notes"] = tuple(row["notes"])
        row["steps"] = tuple(RescueStepRecord(**step) for step in row["steps"])
        row["units"] = tuple(RescueUnitRecord(**unit) for unit in row["units"])
        row["files"] = tuple(RescueFileRecord(**file) for file in row["files"])
        row["drift"] = tuple(RescueDriftRecord(**tensor) for tensor in row["drift"])
        return cls(sha256=content["sha256"], folded=content["folded"], record=RescueRecord(**row))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in JSON")
