"""What is asked of an ingest, how far it is, and what became of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from quantstore.numerics.sweep import FULL_PLAN, SweepPlan
from quantstore.records import (
    EqualizationRecord,
    FindingRecord,
    GraphEdgeRecord,
    GraphPointRecord,
    IngestRecord,
    LayerRecords,
    SimulationRecord,
)
from quantstore.run.probe import SECONDS
from quantstore.version import __version__

IngestOutcome = Literal["stored", "replaced", "already stored", "failed"]


# What is said where a process died of the file, and where it wanted more than it may have.
CRASHED = "the ONNX parser crashed on this file; validate it with onnx.checker"
OUT_OF_MEMORY = "there is not enough memory to measure the file"
LARGER_MACHINE = "free some memory, or ingest the file on a larger machine"


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """How far one file is: layers and bytes of weights, done and in all.

    ``is_probing``: every layer is measured, and the probe has not finished yet.
    """

    layers_done: int
    layers_total: int
    bytes_done: int
    bytes_total: int
    is_probing: bool = False

    @property
    def share_done(self) -> float:
        """From 0 to 1, by bytes of weights: layers differ too much in size."""
        return self.bytes_done / self.bytes_total if self.bytes_total else 0.0


IngestReporter = Callable[[IngestProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredModel:
    """A model with everything known about it, not yet in the store."""

    path: Path
    attempt: "Attempt"
    peak_bytes: int | None
    sha256: str
    folded: bool
    file_bytes: int
    file_format: str
    producer: str | None
    ir_version: int | None
    opset: int | None
    seconds: float
    weight_count: int
    layers: tuple[LayerRecords, ...]
    equalization: tuple[EqualizationRecord, ...]
    findings: tuple[FindingRecord, ...]
    graph_points: tuple[GraphPointRecord, ...] = ()
    graph_edges: tuple[GraphEdgeRecord, ...] = ()
    probes: tuple[SimulationRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A file that somebody tries to ingest: what it is called and when that began.

    ``clock`` is :func:`time.perf_counter` at the beginning. An attempt that travels to another
    process, or to another machine with clocks of its own, goes on there as old as it was.
    """

    path: str
    started_at: datetime
    clock: float

    @classmethod
    def begin(cls, path: object, source: str | None = None) -> "Attempt":
        """It begins now; ``source`` is what the store says of its origin, by default its path."""
        return cls(path=source or str(path), started_at=now(), clock=time.perf_counter())

    def __reduce__(self) -> "tuple[Callable[[str, float], Attempt], tuple[str, float]]":
        return _begun_earlier, (self.path, self.seconds)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self.clock

    def ended(
        self,
        outcome: IngestOutcome,
        *,
        model: str | None = None,
        message: str = "",
        peak_bytes: int | None = None,
    ) -> IngestRecord:
        """What became of it, as of now."""
        return IngestRecord(
            path=self.path,
            model=model,
            outcome=outcome,
            message=message,
            started_at=self.started_at,
            finished_at=now(),
            seconds=self.seconds,
            peak_bytes=peak_bytes,
            quantstore_version=__version__,
        )


def _begun_earlier(path: str, seconds: float) -> Attempt:
    started_at = now() - timedelta(seconds=seconds)
    return Attempt(path=path, started_at=started_at, clock=time.perf_counter() - seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredContent:
    """A file whose content need not be measured, because the store holds it."""

    path: Path
    attempt: Attempt
    peak_bytes: int | None
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A file that cannot be measured, and why, in one sentence.

    ``traceback`` is empty unless the reason is a bug.
    """

    attempt: Attempt
    peak_bytes: int | None
    sentence: str
    traceback: str = ""


# What a file turned out to be, before anything of it is written.
Examined = MeasuredModel | StoredContent | Refusal


def now() -> datetime:
    """This moment in UTC, as the store holds it."""
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestResult:
    """What became of one path. ``error`` is one sentence where the outcome is ``failed``.

    ``runs_removed``: what people ran on other content that had the name, and what went with it.
    ``is_linked``: whether a model that was stored without a file has this one from now on.
    ``keep_failure``: one sentence where the file was to be kept beside the store and is not.
    """

    path: str
    outcome: IngestOutcome
    model: str | None = None
    layers: int | None = None
    seconds: float | None = None
    error: str | None = None
    runs_removed: int = 0
    is_linked: bool = False
    keep_failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestChoices:
    """How to ingest. ``name`` is for a single file; ``source`` is what the store says of it.

    ``jobs`` is how many processes share the work on one file, by default one per core. ``plan``
    says what to measure; less than everything is for those who time it. ``probe`` says whether the
    model is run on noise as well, for at most ``probe_seconds`` of CPU time. ``keep`` says whether
    a copy of the file stays beside the store, so that the model can be run later.
    """

    name: str | None = None
    replace: bool = False
    fold: bool = True
    source: str | None = None
    jobs: int | None = None
    plan: SweepPlan = FULL_PLAN
    probe: bool = True
    probe_seconds: float = SECONDS
    keep: bool = False
