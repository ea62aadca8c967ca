"""What an audit is asked for, and what it answers: choices in, an audit out.

Data alone, which crosses from one process to another as JSON. Nothing here runs a model.
"""

import dataclasses
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from quantstore.errors import InputsError
from quantstore.records import AuditLayerRecord, AuditOutputRecord, AuditRecord, AuditTensorRecord
from quantstore.run.inputs import AUTO, Preprocessing

# Enough to meet the culprits: half of them weights, half of them activations.
DEFAULT_RELEASE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditChoices:
    """How the two files are compared.

    ``samples``: at most so many inputs are used. ``release``: so many roundings are taken out one
    at a time, half of them of weights, half of them of activations.
    """

    samples: int | None = None
    preprocess: str | Preprocessing = AUTO
    release: int = DEFAULT_RELEASE

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise InputsError("at least one input is compared")
        if self.release < 0:
            raise InputsError("the number of roundings to release is 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found; ``record`` carries the rows of its layers, tensors and outputs."""

    float_sha256: str
    int8_sha256: str
    record: AuditRecord

    def to_json(self) -> str:
        """One line, for another process."""
        return json.dumps(dataclasses.asdict(self), default=_plain)

    @classmethod
    def from_json(cls, text: str) -> "Audit":
        """What :meth:`to_json` wrote."""
        content = json.loads(text)
        row: dict[str, Any] = content["record"]
        row["created_at"] = datetime.fromisoformat(row["created_at"])
        row["notes"] = tuple(row["notes"])
        row["layers"] = tuple(AuditLayerRecord(**layer) for layer in row["layers"])
        row["tensors"] = tuple(AuditTensorRecord(**tensor) for tensor in row["tensors"])
        row["outputs"] = tuple(AuditOutputRecord(**output) for output in row["outputs"])
        return cls(
            float_sha256=content["float_sha256"],
            int8_sha256=content["int8_sha256"],
            record=AuditRecord(**row),
        )


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in JSON")
