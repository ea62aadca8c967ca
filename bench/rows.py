"""A bench as a table: one row for each figure beside its peer, printed and written as JSON."""

import dataclasses
import json
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tabulate import tabulate
from timing import Spread

LIBRARIES = ("quantstore", "numpy", "duckdb", "onnx", "onnxruntime", "onnxsim")
HEADERS = (
    *("what", "model", "unit", "quantstore: min / median / max"),
    *("peer", "peer: min / median / max", "ratio", "goal", "met"),
)


@dataclass(frozen=True, slots=True)
class Goal:
    """What a row is to reach: so many times better than its peer, and at most so much itself."""

    ratio: float | None = None
    at_most: float | None = None
    note: str = ""

    def __str__(self) -> str:
        conditions = []
        if self.ratio is not None:
            conditions.append(f"ratio >= {self.ratio:g}")
        if self.at_most is not None:
            conditions.append(f"<= {self.at_most:g}")
        return ", ".join(conditions) + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of ours beside the peer's, in the same unit; less is better.

    ``ours`` and ``theirs`` hold a sentence instead where there is nothing to show.
    """

    what: str
    model: str
    unit: str
    ours: Spread | str
    peer: str = ""
    theirs: Spread | str = ""
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """The peer's median over ours: above 1, ours is better."""
        if isinstance(self.ours, str) or isinstance(self.theirs, str) or not self.ours.median:
            return None
        return self.theirs.median / self.ours.median

    @property
    def is_met(self) -> bool | None:
        """None where there is no goal, or no peer to hold it to; what we cannot do is not met."""
        if self.goal is None:
            return None
        if isinstance(self.ours, str):
            return False
        checks = []
        if self.goal.ratio is not None:
            if self.ratio is None:
                return None
            checks.append(self.ratio >= self.goal.ratio)
        if self.goal.at_most is not None:
            checks.append(self.ours.median <= self.goal.at_most)
        return all(checks)

    def cells(self) -> list[str]:
        """As the table shows it, in the order of ``HEADERS``."""
        return [
            *(self.what, self.model, self.unit, _shown(self.ours), self.peer, _shown(self.theirs)),
            "" if self.ratio is None else f"{self.ratio:.2f}",
            "" if self.goal is None else str(self.goal),
            {None: "", True: "yes", False: "NO"}[self.is_met],
        ]

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"ratio": self.ratio, "is_met": self.is_met}


def table(rows: list[Row]) -> str:
    """Rows under one another, ready for a README."""
    # Numbers stay as they are written.
    return tabulate(
        [row.cells() for row in rows], headers=HEADERS, tablefmt="github", disable_numparse=True
    )


def write(path: Path, rows: list[Row], *, is_quick: bool) -> None:
    """Everything as JSON, single runs included, with the machine it was measured on."""
    path.parent.mkdir(exist_ok=True)
    content = {"machine": machine(), "is_quick": is_quick, "rows": [row.as_dict() for row in rows]}
    path.write_text(json.dumps(content, indent=1))


def machine() -> dict[str, Any]:
    """Where a figure was measured."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_name(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
    }


def _shown(figure: Spread | str) -> str:
    if isinstance(figure, str):
        return figure
    return " / ".join(_number(n) for n in (figure.minimum, figure.median, figure.maximum))


def _number(value: float) -> str:
    """Three digits or so, without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
