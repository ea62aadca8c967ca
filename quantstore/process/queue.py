"""Work one after another, each in a child that can be cancelled, for a server with many visitors.

A queue outlives a page refresh and is the same in every tab, because it belongs to the server,
not to a session. Its thread touches plain objects only; pages read a snapshot.
"""

import atexit
import dataclasses
import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from quantstore.errors import CancelledError, QuantstoreError, printable

logger = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "failed", "cancelled"]
FINISHED: tuple[State, ...] = ("done", "failed", "cancelled")

UNFORESEEN = "unexpected error: see the terminal that runs the app"


class Cancellable(Protocol):
    """Work under way; :class:`quantstore.process.running.Running` is one."""

    @property
    def progress(self) -> Any:
        """The latest progress; None before the first."""

    def cancel(self) -> None:
        """End it."""

    def wait(self) -> Any:
        """Block until it is over.

        Raises:
            QuantstoreError: why there is no result.
        """


Start = Callable[[], Cancellable]


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work. ``message`` says why it failed; ``description`` says more than its name.

    ``progress`` and ``result`` are what the work gives; None before there is one.
    """

    job_id: int
    name: str
    description: str
    state: State
    progress: Any = None
    result: Any = None
    message: str = ""

    @property
    def share_done(self) -> float:
        """From 0 to 1, as far as the progress tells."""
        return 0.0 if self.progress is None else float(self.progress.share_done)


@dataclass(frozen=True, slots=True)
class _Waiting:
    start: Start
    when_finished: Callable[[], None] | None


class Queue:
    """Work that waits, what runs, and what became of the rest."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: dict[int, Job] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._ids = itertools.count(1)
        self._ended_count = 0
        self._running: tuple[int, Cancellable] | None = None
        self._thread: threading.Thread | None = None
        atexit.register(self.cancel_all)

    def put(
        self,
        start: Start,
        *,
        name: str,
        description: str = "",
        when_finished: Callable[[], None] | None = None,
    ) -> int:
        """Put work at the end of the queue; returns its number.

        Args:
            start: begins the work and returns at once; called when everything before it is over.
            name: what the queue calls it.
            when_finished: called once, whatever happens short of the end of the server; removes
                an upload, for example. Must not raise.
        """
        with self._changed:
            job_id = next(self._ids)
            self._jobs[job_id] = Job(job_id, printable(name), printable(description), "waiting")
            self._waiting[job_id] = _Waiting(start, when_finished)
            if self._thread is None:
                # A daemon: it only supervises, and must not hold up the end of the server.
                self._thread = threading.Thread(target=self._work, name="queue", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return job_id

    @property
    def ended_count(self) -> int:
        """How many jobs ran to their end, well or not, since the server began."""
        with self._changed:
            return self._ended_count

    def refuse(self, name: str, message: str) -> None:
        """Show work that failed before it could be queued."""
        with self._changed:
            job_id = next(self._ids)
            self._jobs[job_id] = Job(job_id, printable(name), "", "failed", message=message)

    def snapshot(self) -> list[Job]:
        """Every job, oldest first, as far as each has come."""
        with self._changed:
            if self._running is not None:
                job_id, running = self._running
                self._set(job_id, progress=running.progress)
            return list(self._jobs.values())

    def cancel(self, job_id: int) -> None:
        """Drop a job that waits, stop one under way; what is over stays as it is."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or job.state in FINISHED:
                return
            self._set(job_id, state="cancelled", message="cancelled")
            if self._running is not None and self._running[0] == job_id:
                self._running[1].cancel()

    def cancel_all(self) -> None:
        """Drop what waits and stop what runs; the queue takes new work all the same."""
        for job in self.snapshot():
            self.cancel(job.job_id)

    def dismiss_finished(self) -> None:
        """Forget the jobs that are over."""
        with self._changed:
            self._jobs = {k: job for k, job in self._jobs.items() if job.state not in FINISHED}

    def _set(self, job_id: int, **changes: Any) -> None:
        job = self._jobs.get(job_id)
        if job is not None:
            self._jobs[job_id] = dataclasses.replace(job, **changes)

    def _is(self, job_id: int, state: State) -> bool:
        return job_id in self._jobs and self._jobs[job_id].state == state

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                job_id = min(self._waiting)
                waiting = self._waiting.pop(job_id)
                is_wanted = self._is(job_id, "waiting")
                if is_wanted:
                    self._set(job_id, state="running")
            try:
                if is_wanted:
                    self._run(job_id, waiting.start)
            except CancelledError:
                self._end(job_id, "cancelled", "cancelled")
            except QuantstoreError as error:
                self._end(job_id, "failed", error.sentence)
            except Exception:
                # A bug, but one job's: without this thread nothing would ever run again.
                logger.exception("The queue failed at job %d", job_id)
                self._end(job_id, "failed", UNFORESEEN)
            finally:
                with self._changed:
                    self._ended_count += is_wanted
                if waiting.when_finished is not None:
                    waiting.when_finished()
                # Whatever it held may go now, not with the next job.
                del waiting

    def _run(self, job_id: int, start: Start) -> None:
        try:
            running = start()
        except OSError as error:
            raise QuantstoreError(f"cannot start: {error.strerror or error}") from error
        with self._changed:
            self._running = (job_id, running)
            # Cancelled, and perhaps dismissed, while its process was starting.
            if not self._is(job_id, "running"):
                running.cancel()
        try:
            result = running.wait()
        finally:
            with self._changed:
                self._set(job_id, progress=running.progress)
                self._running = None
        with self._changed:
            # Also of a job that was cancelled too late: what is stored is stored.
            self._set(job_id, state="done", result=result, message="")

    def _end(self, job_id: int, state: State, message: str) -> None:
        with self._changed:
            if self._is(job_id, "running"):
                self._set(job_id, state=state, message=message)
