"""The app's two queues: files to ingest, and models to run in float and int8, rescue or audit.

Each takes one at a time, in a process that can be cancelled.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from quantstore.process.queue import FINISHED, Cancellable, Job, Queue
from quantstore.wording.units import NO_BREAK_SPACE, file_size

__all__ = ["FILES", "FINISHED", "RUNS", "FileQueue", "Job", "RunQueue", "Work"]

Work = Literal["run", "probe", "rescue", "audit"]
# Starts a run, or a rescue: the file, the store, the inputs, the choices.
StartRun = Callable[[Path, Path, str, Any], Cancellable]


class FileQueue(Queue):
    """Files waiting to be ingested, and what became of the others.

    The progress of a job is ``pipeline.outcome.IngestProgress``, its result
    ``pipeline.outcome.IngestResult``, its description the size of the file.

    Args:
        probe: whether models are run on noise as well.
    """

    def __init__(self, *, probe: bool = True) -> None:
        super().__init__()
        self._probe = probe

    def add(
        self,
        path: Path,
        store_path: Path,
        *,
        name: str,
        source: str,
        fold: bool = True,
        replaces: str | None = None,
        keep: bool = False,
        when_finished: Callable[[], None] | None = None,
    ) -> int:
        """Put a file at the end of the queue.

        Args:
            name: what the queue calls it.
            source: what the store says of its origin.
            fold: whether BatchNormalization is folded into the weights.
            replaces: the model that gets what the file holds now, keeping its name, tags and note.
            keep: whether a copy of the file stays beside the store.
            when_finished: see :meth:`Queue.put`.
        """

        def start() -> Cancellable:
            # Loaded with the first file: no page needs what measures one.
            from quantstore.pipeline import ingest_child
            from quantstore.pipeline.outcome import IngestChoices

            choices = IngestChoices(
                name=replaces,
                replace=replaces is not None,
                fold=fold,
                source=source,
                keep=keep,
                probe=self._probe,
            )
            return ingest_child.start(path, store_path, choices)

        size = file_size(path.stat().st_size if path.is_file() else 0)
        # A queue makes every character visible that is no plain one.
        size = size.replace(NO_BREAK_SPACE, " ")
        return self.put(start, name=name, description=size, when_finished=when_finished)


class RunQueue(Queue):
    """Models waiting to be run, and what became of the others.

    The progress of a job is ``run.choices.Progress``, its description what is rounded, and the
    inputs. Its result is ``pipeline.runs.Done``; where targets are measured,
    ``pipeline.probes.ProbedModel``; of a rescue, ``pipeline.rescues.DoneRescue``; of an audit,
    ``pipeline.audits.DoneAudit``.
    """

    def __init__(self, start: StartRun | None = None, start_rescue: StartRun | None = None) -> None:
        super().__init__()
        self._starts = {"run": start or _start_run, "rescue": start_rescue or _start_rescue}
        self._work_of: dict[int, Work] = {}

    def add(
        self,
        path: Path,
        store_path: Path,
        inputs: str,
        choices: Any,
        *,
        name: str,
        description: str,
        work: Literal["run", "rescue"] = "run",
        when_finished: Callable[[], None] | None = None,
    ) -> int:
        """Put a run, or a rescue, at the end of the queue.

        Args:
            choices: the arguments of ``run.choices.Choices``, or of
                ``rescuing.choices.RescueChoices``.
            name: what the queue calls the model.
            when_finished: see :meth:`Queue.put`.
        """
        return self._put(
            work,
            lambda: self._starts[work](path, store_path, inputs, choices),
            name=name,
            description=description,
            when_finished=when_finished,
        )

    def add_probe(
        self,
        model: str,
        store_path: Path,
        targets: Sequence[str],
        *,
        file: Path | None = None,
        when_finished: Callable[[], None] | None = None,
    ) -> int:
        """Put targets of a stored model, by their names, at the end of the queue.

        Args:
            file: of the model, where it is not where it was.
            when_finished: see :meth:`Queue.put`.
        """

        def start() -> Cancellable:
            from quantstore.pipeline import probes

            return probes.start(model, store_path, targets, file=file)

        number = f"{len(targets)} target{'' if len(targets) == 1 else 's'}"
        return self._put(
            "probe",
            start,
            name=model,
            description=f"{number}, noise",
            when_finished=when_finished,
        )

    def add_audit(
        self,
        float_path: Path,
        int8_path: Path,
        store_path: Path,
        inputs: str,
        choices: Any,
        *,
        name: str,
        description: str,
        when_finished: Callable[[], None] | None = None,
    ) -> int:
        """Put an audit of an int8 file at the end of the queue.

        Args:
            choices: the arguments of ``auditing.choices.AuditChoices``.
            name: what the queue calls the int8 model.
            when_finished: see :meth:`Queue.put`.
        """

        def start() -> Cancellable:
            # Loaded with the first audit.
            from quantstore.pipeline import audits

            asked = audits.AuditChoices(**choices)
            return audits.start(float_path, int8_path, store_path, inputs, asked)

        return self._put(
            "audit", start, name=name, description=description, when_finished=when_finished
        )

    def work_of(self, job: Job) -> Work:
        """What a job does."""
        return self._work_of.get(job.job_id, "run")

    def _put(
        self,
        work: Work,
        start: Callable[[], Cancellable],
        *,
        name: str,
        description: str,
        when_finished: Callable[[], None] | None,
    ) -> int:
        job_id = self.put(start, name=name, description=description, when_finished=when_finished)
        self._work_of[job_id] = work
        return job_id


def _start_run(path: Path, store_path: Path, inputs: str, choices: Any) -> Cancellable:
    # Loaded with the first run: no page needs what runs a model.
    from quantstore.pipeline import runs

    return runs.start(path, store_path, inputs, runs.Choices(**choices))


def _start_rescue(path: Path, store_path: Path, inputs: str, choices: Any) -> Cancellable:
    # Loaded with the first rescue.
    from quantstore.pipeline import rescues

    return rescues.start(path, store_path, inputs, rescues.RescueChoices(**choices))


# One each for the server: every session and every rerun sees the same.
FILES = FileQueue()
RUNS = RunQueue()
