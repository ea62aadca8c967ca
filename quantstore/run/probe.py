"""The probe, seen from outside: a path in, rows of ``simulations`` out, whatever happens.

The figures come from a child process (``probe_child``), which gives each as soon as it has it. When
its time is up it ends, and what it gave is kept. Every figure that is missing then becomes a row
that says why. Its time is CPU time, so that a busy computer gives the same figures as an idle one.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quantstore.errors import CancelledError, QuantstoreError
from quantstore.process import limits
from quantstore.process.child import SINGLE_THREADED, BugInChildError, Cause, Child, EndedError
from quantstore.records import FindingRecord, OutputRecord, SimulationRecord
from quantstore.run import probe_child
from quantstore.run.plan import PLAN, Probed
from quantstore.run.runtime import CRASHED, NEEDS_MORE_MEMORY

# CPU seconds of the child, for everything. A wall limit stands behind it, for what waits for ever.
SECONDS = 60.0
WALL_PER_CPU_SECOND = 5
NOISE = "noise"
_UNKNOWN_VERSION = "not installed"
_LONGEST_REASON = 400
_SILENT = "the probe ended without a reason"


def probe(
    path: Path,
    *,
    fold: bool = True,
    seconds: float = SECONDS,
    asked: Sequence[Probed] = PLAN,
) -> tuple[SimulationRecord, ...]:
    """Run a model in float and rounded, on noise.

    Args:
        fold: whether BatchNormalization is folded into the weights before they are quantized.
        seconds: of CPU time for everything, the start of Python included.
        asked: the figures, the most important first.

    Returns:
        A row for each figure; ``failure`` says why one is missing.
    """
    with Prober() as prober:
        prober.start(path, fold=fold, seconds=seconds, asked=asked)
        return prober.result()


def untested(reason: str, asked: Sequence[Probed] = PLAN) -> tuple[SimulationRecord, ...]:
    """The rows of a model that cannot be run; ``failure`` is the reason in each."""
    return tuple(_records(asked, [], reason))


class Prober:
    """A process that probes one model after another, or a new one where the last was killed.

    :meth:`start` returns at once, :meth:`result` waits; one model at a time. No thread runs in
    between, so that this process may fork. Any thread may :meth:`cancel`.

    Args:
        child: runs ``probe_child`` already, for the first model.
    """

    def __init__(self, child: Child | None = None) -> None:
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._child = child
        self._is_asked = False
        self._seconds = SECONDS
        self._asked: Sequence[Probed] = PLAN
        # What the last result showed besides.
        self.findings: tuple[FindingRecord, ...] = ()

    def __enter__(self) -> "Prober":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(
        self,
        path: Path,
        *,
        fold: bool = True,
        seconds: float = SECONDS,
        asked: Sequence[Probed] = PLAN,
    ) -> None:
        """Begin with a model; what went before is over, its result asked for or not.

        Raises:
            CancelledError: it was cancelled before.
        """
        if self._is_asked or (self._child is not None and not self._child.is_alive):
            self.close()
        with self._lock:
            if self._is_cancelled:
                raise CancelledError("cancelled")
            if self._child is None:
                self._child = Child(
                    probe_child.__name__, has_scratch=True, extra_environment=SINGLE_THREADED
                )
        self._seconds, self._asked = seconds, asked
        self._is_asked = True
        request = {
            "path": str(path.absolute()),
            "fold": fold,
            "asked": [probed.names for probed in asked],
        }
        allowed = limits.sharing_memory(
            cpu_seconds=seconds, wall_seconds=WALL_PER_CPU_SECOND * seconds
        )
        self._child.ask(request, allowed)

    def result(self, report: Callable[[int], None] | None = None) -> tuple[SimulationRecord, ...]:
        """Wait for the rows of the model that was started.

        Args:
            report: is told how many figures there are, whenever there is another.

        Raises:
            CancelledError: somebody cancelled it.
        """
        if self._child is None:
            raise RuntimeError("the probe was not started")
        messages: list[dict[str, Any]] = []
        reason = None

        def take(message: dict[str, Any]) -> None:
            messages.append(message)
            if report is not None and "figure" in message:
                report(sum("figure" in earlier for earlier in messages))

        try:
            self._child.answer(take)
        except QuantstoreError as error:
            reason = error.sentence
        except BugInChildError as error:
            # A bug of ours, or of a library. The probe must not cost anybody the rest of an ingest.
            reason = f"the probe failed: {error.summary}"[:_LONGEST_REASON]
        except EndedError as error:
            if self._is_cancelled:
                raise CancelledError("cancelled") from error
            reason = self._reason(error)
            if error.cause is not Cause.OUT_OF_MEMORY:
                self.close()
        self._is_asked = False
        self.findings = tuple(
            FindingRecord(**message["finding"]) for message in messages if "finding" in message
        )
        return tuple(_records(self._asked, messages, reason))

    def cancel(self) -> None:
        """End it for good; whoever waits for a result, or starts anew, is told."""
        with self._lock:
            self._is_cancelled = True
            child = self._child
        if child is not None:
            child.cancel()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._is_asked = False
        if self._child is not None:
            self._child.close()
            self._child = None

    def _reason(self, error: EndedError) -> str:
        """Why a child ended before it was done."""
        if error.cause is Cause.TOO_MUCH_CPU:
            return f"stopped after {self._seconds:g} s of CPU time"
        if error.cause is Cause.TOO_SLOW:
            return f"stopped after waiting {WALL_PER_CPU_SECOND * self._seconds:g} s"
        if error.cause is Cause.CRASHED:
            return f"{CRASHED} ({error.signal_name})"
        if error.cause is Cause.OUT_OF_MEMORY:
            return NEEDS_MORE_MEMORY
        if error.cause is Cause.KILLED:
            return "the probe was killed, probably because memory ran out"
        return _SILENT


def _records(
    asked: Sequence[Probed], messages: list[dict[str, Any]], reason: str | None
) -> Iterator[SimulationRecord]:
    """A row for everything that was asked for: the figures, and why the rest is missing."""
    facts: dict[str, Any] = {}
    figures: dict[tuple[str, str | None], dict[str, Any]] = {}
    for message in messages:
        facts |= message.get("facts", {})
        if "figure" in message:
            figure = message["figure"]
            figure["float_layers"] = tuple(figure["float_layers"])
            figure["outputs"] = tuple(OutputRecord(**row) for row in figure["outputs"])
            figures[figure["scheme"], figure["target"]] = figure
    now = datetime.now(UTC).replace(tzinfo=None)
    for probed in asked:
        scheme, target = probed.names
        figure = figures.get(probed.names) or {
            "scheme": scheme,
            "target": target,
            "mode": probed.mode,
            "calibration": "minmax" if probed.mode == "both" else None,
            "sample_count": 0,
            "calibration_count": 0,
            "output_sqnr_db": float("nan"),
            "float_layers": (),
            "seconds": 0.0,
            "cpu_seconds": float("nan"),
            "failure": reason or _SILENT,
        }
        yield SimulationRecord(
            **figure,
            input_source=NOISE,
            input_shape=facts.get("input_shape"),
            compared=facts.get("compared"),
            provisional=facts.get("provisional"),
            # Noise has no right answer.
            top1_agreement=float("nan"),
            onnxruntime_version=facts.get("onnxruntime_version", _UNKNOWN_VERSION),
            created_at=now,
        )
