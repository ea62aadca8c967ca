"""Rows of what a model shows besides figures."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRecord:
    """A row of ``findings``; the layer is named by its depth, None where it concerns the model."""

    depth: int | None
    kind: str
    severity: str
    message: str
    remedy: str
