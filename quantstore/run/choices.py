"""What a run is asked for, and what it answers: choices in, progress on the way, a simulation out.

Data alone, which crosses from one process to another as JSON. Nothing here runs a model.
"""

import base64
import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np

from quantstore.errors import InputsError
from quantstore.records import (
    ActivationErrorRecord,
    AnswerRecord,
    FloatSetRecord,
    OutputRecord,
    SensitivityRecord,
    SimulationRecord,
)
from quantstore.run.inputs import AUTO, Preprocessing
from quantstore.schemes import (
    DEFAULT_SCHEME,
    INT8_SCHEMES,
    SCHEMES,
    TARGETS,
    Activations,
    Target,
    target_of,
)

Mode = Literal["weights", "activations", "both"]
MODES: tuple[Mode, ...] = ("weights", "activations", "both")
Calibration = Literal["minmax", "percentile", "entropy", "mse"]
CALIBRATIONS: tuple[Calibration, ...] = ("minmax", "percentile", "entropy", "mse")
NOISE = "noise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What is run, and how.

    ``samples``: at most so many inputs are used, the calibration's included. ``exclude``: layers,
    nodes or tensors that stay in float. ``calibration_inputs``: where ranges of activations are
    found; by default every other sample is for that, and the figures come from the rest.
    ``drift``: whether tensors inside are compared as well, not the outputs alone. ``target`` stands
    for scheme and mode. ``pictures``: whether small pictures of a few inputs are kept with their
    answers. ``goal_db``: with ``sensitivity``, the fewest units are sought whose return
    to float lifts the outputs to so many dB. ``budget_seconds`` is CPU time.
    """

    scheme: str = DEFAULT_SCHEME.name
    mode: Mode = "both"
    calibration: Calibration = "minmax"
    samples: int | None = None
    exclude: tuple[str, ...] = ()
    preprocess: str | Preprocessing = AUTO
    calibration_inputs: str | None = None
    drift: bool = True
    sensitivity: bool = False
    goal_db: float | None = None
    target: str | None = None
    budget_seconds: float = 60.0
    fold: bool = True
    pictures: bool = True

    def __post_init__(self) -> None:
        if self.target is not None:
            # A frozen class is not finished before this.
            object.__setattr__(self, "scheme", self.rounded.scheme.name)
            object.__setattr__(self, "mode", self.rounded.mode)
            return
        if self.scheme not in SCHEMES:
            raise InputsError(f"no scheme is named {self.scheme!r}", f"choose {', '.join(SCHEMES)}")
        if self.mode != "weights" and self.scheme not in INT8_SCHEMES:
            raise InputsError(
                f"activations are rounded to 8 bits, which does not go with weights in"
                f" {self.scheme}",
                f"choose {', '.join(INT8_SCHEMES)}, a target, or mode weights",
            )

    @property
    def rounded(self) -> Target:
        """What is rounded, and how: the target that was asked for, or scheme and mode as one.

        Raises:
            InputsError: no target has that name.
        """
        if self.target is not None:
            if self.target not in TARGETS:
                raise InputsError(
                    f"no target is named {self.target!r}", f"choose {', '.join(TARGETS)}"
                )
            return TARGETS[self.target]
        activations = None if self.mode == "weights" else Activations()
        return Target(
            name="",
            scheme=SCHEMES[self.scheme],
            activations=activations,
            placement="none" if activations is None else "everywhere",
            description="",
        )

    @property
    def target_name(self) -> str | None:
        """The target that this is, asked for by name or not; None where it is none of them."""
        if self.target is not None:
            return self.target
        return target_of(self.scheme, self.mode)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, ``stage`` in words; ``messages``: everything that is certain already.

    ``budget_left_s``: CPU seconds that the search may still take, None where it has no budget.
    """

    stage: str
    done: int
    total: int
    messages: Sequence[str] = ()
    budget_left_s: float | None = None

    @property
    def share_done(self) -> float:
        """From 0 to 1, within the stage."""
        return min(1.0, self.done / self.total) if self.total else 0.0


ReportProgress = Callable[[Progress], None]
# Within one stage: how many steps are done, of how many.
ReportSteps = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What a run found. ``accuracy``: of the float and the quantized model, given the labels."""

    sha256: str
    folded: bool
    record: SimulationRecord
    activation_errors: tuple[ActivationErrorRecord, ...] = ()
    sensitivities: tuple[SensitivityRecord, ...] = ()
    float_set: tuple[FloatSetRecord, ...] = ()
    accuracy: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One line, for another process."""
        return json.dumps(dataclasses.asdict(self), default=_plain)

    @classmethod
    def from_json(cls, text: str) -> "Simulation":
        """What :meth:`to_json` wrote."""
        content = json.loads(text)
        accuracy = content["accuracy"]
        return cls(
            sha256=content["sha256"],
            folded=content["folded"],
            record=_record(content["record"]),
            activation_errors=tuple(
                ActivationErrorRecord(
                    **{
                        **row,
                        "float_counts": np.array(row["float_counts"], np.int64),
                        "quantized_counts": np.array(row["quantized_counts"], np.int64),
                    }
                )
                for row in content["activation_errors"]
            ),
            sensitivities=tuple(
                SensitivityRecord(**_timed(row)) for row in content["sensitivities"]
            ),
            float_set=tuple(FloatSetRecord(**row) for row in content["float_set"]),
            accuracy=None if accuracy is None else (accuracy[0], accuracy[1]),
            notes=tuple(content["notes"]),
        )


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def _record(row: dict[str, Any]) -> SimulationRecord:
    if row["float_layers"] is not None:
        row["float_layers"] = tuple(row["float_layers"])
    row["outputs"] = tuple(OutputRecord(**output) for output in row["outputs"])
    row["answers"] = tuple(
        AnswerRecord(
            **{
                **answer,
                "picture": answer["picture"] and base64.b64decode(answer["picture"]),
            }
        )
        for answer in row["answers"]
    )
    return SimulationRecord(**_timed(row))


def _timed(row: dict[str, Any]) -> dict[str, Any]:
    with contextlib.suppress(KeyError):
        row["created_at"] = datetime.fromisoformat(row["created_at"])
    return row
