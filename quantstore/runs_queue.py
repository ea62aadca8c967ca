"""The app's queue of models to run beside their quantized twins: one at a time, each cancellable.

Like the queue of files it belongs to the server, not to a session, so that it outlives a page
refresh and is the same in every tab. ``simulation.start`` runs a model in a process of its own and
writes the store; here only waits who is next.
"""

import atexit
import dataclasses
import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from quantstore.errors import QuantstoreError, printable

logger = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "failed", "cancelled"]
FINISHED: tuple[State, ...] = ("done", "failed", "cancelled")


class Running(Protocol):
    """A run under way, as ``simulation.start`` returns it."""

    @property
    def progress(self) -> Any:
        """The latest stage with ``stage``, ``done`` and ``total``; None before the first."""

    def cancel(self) -> None:
        """Kill it; nothing is stored."""

    def wait(self) -> Any:
        """Block until it is over; the result has ``model``, ``simulation_id`` and ``notes``.

        Raises:
            QuantstoreError: why there is none.
        """


# Starts a run: the file, the store, the inputs, the choices.
Start = Callable[[Path, Path, str, Any], Running]


@dataclass(frozen=True, slots=True)
class Job:
    """One run. ``message`` says what became of it; ``simulation_id`` is its key in the store."""

    job_id: int
    name: str
    what: str
    state: State
    stage: str = ""
    done: int = 0
    total: int = 0
    model: str | None = None
    simulation_id: int | None = None
    message: str = ""
    notes: tuple[str, ...] = ()

    @property
    def share_done(self) -> float:
        """From 0 to 1, within the stage."""
        return min(1.0, self.done / self.total) if self.total else 0.0


@dataclass(frozen=True, slots=True)
class _Task:
    path: Path
    store_path: Path
    inputs: str
    choices: Any


def _start(path: Path, store_path: Path, inputs: str, choices: Any) -> Running:
    # Loaded with the first run: no page needs what runs a model.
    from quantstore import simulation

    running: Running = simulation.start(path, store_path, inputs, simulation.Choices(**choices))
    return running


class RunsQueue:
    """Models waiting to be run, and what became of the others."""

    def __init__(self, start: Start = _start) -> None:
        self._start = start
        self._lock = threading.Condition()
        self._jobs: dict[int, Job] = {}
        self._tasks: dict[int, _Task] = {}
        self._ids = itertools.count(1)
        self._running: tuple[int, Running] | None = None
        self._thread: threading.Thread | None = None
        atexit.register(self.cancel_all)

    def add(
        self, path: Path, store_path: Path, inputs: str, choices: Any, *, name: str, what: str
    ) -> int:
        """Put a run at the end of the queue.

        Args:
            name: what the queue calls the model.
            what: the scheme, the mode and the inputs, in words.
        """
        with self._lock:
            job_id = next(self._ids)
            self._jobs[job_id] = Job(job_id, printable(name), printable(what), "waiting")
            self._tasks[job_id] = _Task(path, store_path, inputs, choices)
            if self._thread is None:
                # A daemon: it only supervises, and must not hold up the end of the server.
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
            self._lock.notify_all()
            return job_id

    def snapshot(self) -> list[Job]:
        """Every run, oldest first, as far as each has come."""
        with self._lock:
            if self._running is not None:
                job_id, running = self._running
                progress = running.progress
                if progress is not None:
                    self._set(
                        job_id,
                        stage=str(progress.stage),
                        done=int(progress.done),
                        total=int(progress.total),
                    )
            return list(self._jobs.values())

    def cancel(self, job_id: int) -> None:
        """Drop a run that waits, stop one under way."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.state in FINISHED:
                return
            self._set(job_id, state="cancelled")
            if self._running is not None and self._running[0] == job_id:
                self._running[1].cancel()

    def cancel_all(self) -> None:
        """Stop everything; the server ends."""
        for job in self.snapshot():
            self.cancel(job.job_id)

    def dismiss_finished(self) -> None:
        """Forget the runs that are over."""
        with self._lock:
            self._jobs = {k: job for k, job in self._jobs.items() if job.state not in FINISHED}

    def _set(self, job_id: int, **changes: Any) -> None:
        job = self._jobs.get(job_id)
        if job is not None:
            self._jobs[job_id] = dataclasses.replace(job, **changes)

    def _is(self, job_id: int, state: State) -> bool:
        return job_id in self._jobs and self._jobs[job_id].state == state

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._tasks:
                    self._lock.wait()
                job_id = min(self._tasks)
                task = self._tasks.pop(job_id)
                if not self._is(job_id, "waiting"):
                    continue
                self._set(job_id, state="running", stage="starting")
            try:
                self._run(job_id, task)
            except QuantstoreError as error:
                self._fail(job_id, error.sentence)
            except Exception:
                # A bug, but one run's: without this thread nothing would ever run again.
                logger.exception("The queue failed at %s", task.path)
                self._fail(job_id, "something went wrong; the terminal that runs the app says what")

    def _run(self, job_id: int, task: _Task) -> None:
        running = self._start(task.path, task.store_path, task.inputs, task.choices)
        with self._lock:
            self._running = (job_id, running)
            # Cancelled while its process was starting.
            if not self._is(job_id, "running"):
                running.cancel()
        try:
            done = running.wait()
        finally:
            with self._lock:
                self._running = None
        with self._lock:
            # Also one that was cancelled too late: what is stored is stored.
            self._set(
                job_id,
                state="done",
                model=str(done.model),
                simulation_id=int(done.simulation_id),
                notes=tuple(done.notes),
            )

    def _fail(self, job_id: int, message: str) -> None:
        with self._lock:
            if self._is(job_id, "running"):
                self._set(job_id, state="failed", message=message)


# One for the server: every session and every rerun sees the same.
RUNS = RunsQueue()
