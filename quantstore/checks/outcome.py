"""What becomes of a limit: a check, with what is beyond the limit and what the file gives away."""

import math
from dataclasses import dataclass
from typing import Literal

from quantstore.wording import units

CheckOutcome = Literal["pass", "fail", "not measured"]

# The name of the check of what the file gives away.
FINDINGS = "findings"
# Findings of this severity fail a model: figures are missing or mean nothing.
FAILING_SEVERITIES = ("problem", "error")
# Those that are told at all; the others are good to know.
TOLD_SEVERITIES = (*FAILING_SEVERITIES, "warning")


@dataclass(frozen=True, slots=True)
class CheckedFinding:
    """What the file gives away, with its remedy; ``layers`` are the names of the first ones."""

    kind: str
    severity: str
    message: str
    remedy: str
    layers: tuple[str, ...] = ()
    layer_count: int = 0

    @property
    def fails(self) -> bool:
        return self.severity in FAILING_SEVERITIES


@dataclass(frozen=True, slots=True)
class Offender:
    """A layer or tensor beyond a limit. ``value`` is in the unit of its check, so is ``baseline``.

    ``baseline`` is infinite where the weights of the baseline's layer come back exactly, and None
    where nothing is compared.
    """

    layer: str
    operand: str
    value: float
    baseline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What became of one limit.

    ``check`` is the limit by the name of its option. ``value`` is what was found and ``limit`` what
    is allowed, both in ``unit``; None where there is no such number, infinite where nothing is
    lost. ``offenders`` come worst first. ``notes`` say what somebody should know besides.
    ``target`` is None where layers are judged, which know schemes only; ``audit`` is the float
    model where an audit is judged, else None.
    """

    model: str
    scheme: str
    target: str | None = None
    audit: str | None = None
    check: str
    outcome: CheckOutcome
    message: str
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    offenders: tuple[Offender, ...] = ()
    notes: tuple[str, ...] = ()
    findings: tuple[CheckedFinding, ...] = ()

    @property
    def under(self) -> str:
        """What it is judged by: the audit, the target, else the scheme; empty for findings."""
        if self.audit is not None:
            return f"audit against {self.audit}"
        return "" if self.check == FINDINGS else self.target or self.scheme

    @property
    def is_held(self) -> bool:
        """Whether the check passes; what was not measured does not."""
        return self.outcome == "pass"


def db(value: float) -> str:
    """``9.9 dB``, in ASCII for logs; never a limit that the figure misses."""
    return f"{units.tenths(value):.1f} dB" if math.isfinite(value) else "exact"
