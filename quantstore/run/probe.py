"""The probe, seen from outside: a path in, rows of ``simulations`` out, whatever happens.

The figures come from a child process (``probe_child``), which says each as soon as it has it. This
side kills it when its time is up and keeps what was said. Every figure that is missing then becomes
a row that says why.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

import quantstore
from quantstore.records import SimulationRecord

# Schemes and modes that are probed, in this order.
PLAN = tuple(
    (scheme, mode)
    for mode, schemes in (
        (
            "weights",
            (
                "int8_tensor_symmetric",
                "int8_tensor_asymmetric",
                "int8_channel_symmetric",
                "int4_channel_symmetric",
            ),
        ),
        ("both", ("int8_tensor_symmetric", "int8_channel_symmetric")),
    )
    for scheme in schemes
)
SECONDS = 20.0
# A child stops itself in time where the system has alarms; only then is it killed from here.
GRACE_SECONDS = 0.5
NOISE = "noise"
_UNKNOWN_VERSION = "not installed"
_SIGALRM, _SIGKILL = 14, 9


def probe(
    path: Path, *, fold: bool = True, seconds: float = SECONDS
) -> tuple[SimulationRecord, ...]:
    """Run a model beside its quantized twins on noise.

    Args:
        fold: whether BatchNormalization is folded into the weights before they are quantized.
        seconds: for everything, the start of Python included.

    Returns:
        A row for each scheme and mode of :data:`PLAN`; ``failure`` says why one has no figure.
    """
    with Prober() as prober:
        prober.start(path, fold=fold, seconds=seconds)
        return prober.result()


class Prober:
    """A process that probes one model after another, or a new one where the last was killed.

    :meth:`start` returns at once, :meth:`result` waits; one model at a time. No thread runs in
    between, so that this process may fork.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._seconds = SECONDS
        self._deadline = 0.0

    def __enter__(self) -> "Prober":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, path: Path, *, fold: bool = True, seconds: float = SECONDS) -> None:
        """Begin with a model; what went before is over, its result asked for or not."""
        if self._deadline:
            self.close()
        self._seconds = seconds
        self._deadline = time.time() + seconds
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._deadline = time.time() + seconds
            self._process = _child()
        request = {"path": str(path.absolute()), "fold": fold, "deadline": self._deadline}
        # A child that is dead already is noticed when the result is asked for.
        with contextlib.suppress(OSError):
            stdin = cast("IO[bytes]", self._process.stdin)
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()

    def result(self) -> tuple[SimulationRecord, ...]:
        """Wait for the rows of the model that was started."""
        if self._process is None:
            raise RuntimeError("nothing was started")
        process = self._process
        said: list[dict[str, Any]] = []
        is_done = was_late = False

        def stop() -> None:
            nonlocal was_late
            was_late = True
            _kill(process)

        timer = threading.Timer(max(0.0, self._deadline - time.time()) + GRACE_SECONDS, stop)
        timer.start()
        try:
            for line in cast("IO[bytes]", process.stdout):
                # What is no JSON was cut off by the end of the process, or printed by a library.
                with contextlib.suppress(json.JSONDecodeError):
                    message = json.loads(line)
                    is_done = "done" in message
                    if is_done:
                        break
                    said.append(message)
        finally:
            timer.cancel()
        self._deadline = 0.0
        reason = None
        if not is_done:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
            _kill(process)
            code = process.wait()
            reason = _reason(code, was_late=was_late, seconds=self._seconds)
            self.close()
        return tuple(_records(said, reason))

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._deadline = 0.0
        if self._process is None:
            return
        _kill(self._process)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                cast("IO[bytes]", stream).close()
        self._process = None


def _child() -> subprocess.Popen[bytes]:
    package_parent = str(Path(quantstore.__file__).resolve().parent.parent)
    search_path = os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        # -P: a file in the working folder must not shadow a module.
        [sys.executable, "-P", "-m", "quantstore.run.probe_child"],
        # It stays open as long as this process lives: the child ends when it closes.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # What libraries complain of there, they also say in exceptions.
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "PYTHONPATH": search_path,
            # Pools of threads reserve address space, which the child's limit counts.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
        # Ctrl+C is for this process alone; and a group can be killed with all its members.
        start_new_session=True,
    )


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _reason(code: int, *, was_late: bool, seconds: float) -> str:
    """Why a child ended before it was done."""
    if was_late or -code == _SIGALRM:
        return f"stopped after {seconds:g} s"
    if -code == _SIGKILL:
        return "the probe was killed, probably for want of memory"
    if code < 0:
        return f"onnxruntime crashed on this model ({_signal_name(-code)})"
    return "the probe ended without saying why"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _records(said: list[dict[str, Any]], reason: str | None) -> Iterator[SimulationRecord]:
    """A row for everything in the plan: what was said, and why the rest was not."""
    facts: dict[str, Any] = {}
    figures: dict[tuple[str, str], dict[str, Any]] = {}
    for message in said:
        facts |= message.get("facts", {})
        if "figure" in message:
            figures[message["figure"]["scheme"], message["figure"]["mode"]] = message["figure"]
        if "failure" in message:
            reason = message["failure"]
    now = datetime.now(UTC).replace(tzinfo=None)
    for scheme, mode in PLAN:
        figure = figures.get((scheme, mode)) or {
            "scheme": scheme,
            "mode": mode,
            "calibration": "minmax" if mode == "both" else None,
            "sample_count": 0,
            "output_sqnr_db": float("nan"),
            "seconds": 0.0,
            "failure": reason or "the probe ended without saying why",
        }
        yield SimulationRecord(
            **figure,
            input_source=NOISE,
            input_shape=facts.get("input_shape"),
            compared=facts.get("compared"),
            # Noise has no right answer.
            top1_agreement=float("nan"),
            onnxruntime_version=facts.get("onnxruntime_version", _UNKNOWN_VERSION),
            created_at=now,
        )
