"""Rows of the outputs of a run."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRecord:
    """A row of ``simulation_outputs``: one output of a run, or a part of it."""

    output: str
    part: str | None = None
    point: str | None = None
    sqnr_db: float = math.nan
    varying_sqnr_db: float = math.nan
    decision_f1: float = math.nan
    decisions: int | None = None
    decides: bool = True
