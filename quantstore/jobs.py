"""The app's queue of files to ingest: one at a time, each in a process that can be killed.

The queue outlives a page refresh and is the same in every tab, because it belongs to the server,
not to a session. Its thread touches plain objects only; pages read a snapshot.
"""

import atexit
import contextlib
import dataclasses
import itertools
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import quantstore
from quantstore import settings
from quantstore.errors import printable

logger = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "failed", "cancelled"]
# Generous: a gigabyte of weights takes a minute. The command line waits for ever.
TIME_LIMIT_SECONDS = 3600.0

FINISHED: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Job:
    """One file on its way into the store. ``message`` says what became of it."""

    job_id: int
    name: str
    file_bytes: int
    state: State
    layers_done: int = 0
    layers_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    is_probing: bool = False
    model: str | None = None
    layers: int | None = None
    seconds: float | None = None
    was_stored: bool = False
    message: str = ""

    @property
    def share_done(self) -> float:
        """From 0 to 1, by bytes of weights: layers differ too much in size."""
        return self.bytes_done / self.bytes_total if self.bytes_total else 0.0


@dataclass(slots=True)
class _Task:
    path: Path
    store_path: Path
    source: str
    options: tuple[str, ...]
    when_finished: Callable[[], None] | None


class Queue:
    """Files waiting to be ingested, and what became of the others.

    ``probe``: whether models are run on noise as well.
    """

    def __init__(self, *, probe: bool = True) -> None:
        self._options = () if probe else ("--no-probe",)
        self._lock = threading.Condition()
        self._jobs: dict[int, Job] = {}
        self._tasks: dict[int, _Task] = {}
        self._ids = itertools.count(1)
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        atexit.register(self.cancel)

    def add(
        self,
        path: Path,
        store_path: Path,
        *,
        name: str,
        source: str,
        fold: bool = True,
        replaces: str | None = None,
        when_finished: Callable[[], None] | None = None,
    ) -> int:
        """Put a file at the end of the queue.

        Args:
            name: what the queue calls it.
            source: what the store says of its origin.
            fold: whether BatchNormalization is folded into the weights.
            replaces: the model that gets what the file holds now, keeping its name, tags and note.
            when_finished: called once, whatever happens short of the end of the server; removes
                an upload, for example. Must not raise.
        """
        with self._lock:
            job_id = next(self._ids)
            size = path.stat().st_size if path.is_file() else 0
            self._jobs[job_id] = Job(job_id, printable(name), size, "waiting")
            options = [*self._options]
            if not fold:
                options.append("--no-fold")
            if replaces is not None:
                options.append(f"--replace={replaces}")
            self._tasks[job_id] = _Task(path, store_path, source, tuple(options), when_finished)
            if self._thread is None:
                # A daemon: it only supervises, and must not hold up the end of the server.
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
            self._lock.notify_all()
            return job_id

    def refuse(self, name: str, message: str) -> None:
        """Show a file that failed before it could be queued."""
        with self._lock:
            job_id = next(self._ids)
            self._jobs[job_id] = Job(job_id, printable(name), 0, "failed", message=message)

    def snapshot(self) -> list[Job]:
        """Every job, oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def cancel(self) -> None:
        """Drop what waits and stop what runs; a model that is not committed never was."""
        with self._lock:
            for job in self._jobs.values():
                if job.state in ("waiting", "running"):
                    self._set(job.job_id, state="cancelled", message="cancelled")
            if self._process is not None:
                self._process.kill()

    def dismiss_finished(self) -> None:
        """Forget the jobs that are over."""
        with self._lock:
            self._jobs = {k: job for k, job in self._jobs.items() if job.state not in FINISHED}

    def _set(self, job_id: int, **changes: object) -> None:
        job = self._jobs.get(job_id)
        if job is not None:
            self._jobs[job_id] = dataclasses.replace(job, **changes)  # type: ignore[arg-type]

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._tasks:
                    self._lock.wait()
                job_id = min(self._tasks)
                task = self._tasks.pop(job_id)
                is_wanted = job_id in self._jobs and self._jobs[job_id].state == "waiting"
                if is_wanted:
                    self._set(job_id, state="running")
            try:
                if is_wanted:
                    self._run(job_id, task)
            except OSError as error:
                with self._lock:
                    self._set(job_id, state="failed", message=f"cannot start: {error.strerror}")
            except Exception:
                # A bug, but one file's: without this thread nothing would ever be ingested again.
                logger.exception("The queue failed at %s", task.path)
                with self._lock:
                    self._set(
                        job_id,
                        state="failed",
                        message="something went wrong; the terminal that runs the app says what",
                    )
            finally:
                if task.when_finished is not None:
                    task.when_finished()

    def _run(self, job_id: int, task: _Task) -> None:
        package_parent = str(Path(quantstore.__file__).resolve().parent.parent)
        search_path = os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH"))))
        # -P: a file in the working folder must not shadow a module.
        command = [sys.executable, "-P", "-m", "quantstore.worker"]
        # What the child complains of goes to the server's own standard error.
        with subprocess.Popen(
            [*command, str(task.store_path), str(task.path), task.source, *task.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": search_path, "PYTHONIOENCODING": "utf-8"},
        ) as process:
            with self._lock:
                self._process = process
                # Cancelled, and perhaps dismissed, while the process was starting.
                if not self._is_running(job_id):
                    process.kill()
            alarm = threading.Timer(TIME_LIMIT_SECONDS, self._time_out, [job_id, process])
            alarm.daemon = True
            alarm.start()
            try:
                for line in process.stdout or ():
                    # What is no JSON was cut off as the process ended, or printed by a library.
                    with contextlib.suppress(json.JSONDecodeError), self._lock:
                        self._hear(job_id, json.loads(line))
            finally:
                alarm.cancel()
        with self._lock:
            self._process = None
            if self._is_running(job_id):
                self._set(
                    job_id,
                    state="failed",
                    message="the file crashed its reader; check it with onnx.checker",
                )

    def _time_out(self, job_id: int, process: subprocess.Popen[str]) -> None:
        with self._lock:
            if self._is_running(job_id):
                hours = TIME_LIMIT_SECONDS / 3600
                self._set(
                    job_id,
                    state="failed",
                    message=f"not done after {hours:.3g} hours; ingest it with:"
                    f" {settings.command('ingest FILE')}",
                )
        process.kill()

    def _is_running(self, job_id: int) -> bool:
        return job_id in self._jobs and self._jobs[job_id].state == "running"

    def _hear(self, job_id: int, message: dict[str, dict[str, object]]) -> None:
        if "result" in message:
            # Also of a job that was cancelled too late: what is stored is stored.
            if self._is_running(job_id) or message["result"]["outcome"] != "failed":
                self._finish(job_id, message["result"])
        elif self._is_running(job_id):
            self._set(job_id, **message["progress"])

    def _finish(self, job_id: int, result: dict[str, object]) -> None:
        if result["outcome"] == "failed":
            self._set(job_id, state="failed", message=result["error"])
            return
        self._set(
            job_id,
            state="done",
            model=result["model"],
            layers=result["layers"],
            seconds=result["seconds"],
            was_stored=result["outcome"] == "already stored",
        )


# One for the server: every session and every rerun sees the same.
QUEUE = Queue()
