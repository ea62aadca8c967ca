"""Ingesting a file for the app, in a process of its own.

A process can be cancelled, and a crash inside a parser takes down nothing else; nor does a file
that asks for more memory than there is. :func:`start` begins one; the module, run as a program, is
what it runs.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantstore import settings
from quantstore.errors import CancelledError, QuantstoreError
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import (
    CRASHED,
    LARGER_MACHINE,
    OUT_OF_MEMORY,
    IngestChoices,
    IngestProgress,
    IngestResult,
)
from quantstore.process import limits, logs
from quantstore.process.child import SINGLE_THREADED, Cause, Child, EndedError
from quantstore.process.running import Running
from quantstore.process.serve import Reply, serve

# Generous: a gigabyte of weights takes a minute. The command line waits for ever.
TIME_LIMIT_SECONDS = 3600.0


class StoppedIngestError(QuantstoreError):
    """The process that ingested a file ended, or was ended, before it was done."""


def start(path: Path, store_path: Path, choices: IngestChoices) -> Running[IngestResult]:
    """Begin to ingest a file and return at once; the model is in the store when it is over.

    Args:
        choices: of these, ``source``, ``name``, ``replace``, ``fold``, ``keep``, ``probe``
            and ``probe_seconds`` count.

    Returns:
        Its progress is :class:`quantstore.pipeline.outcome.IngestProgress`; waiting raises
        QuantstoreError where the file cannot be ingested.
    """
    # What the child complains of goes to the server's own standard error.
    child = Child(__name__, shows_errors=True, extra_environment=SINGLE_THREADED)
    request = {
        "path": str(path),
        "store_path": str(store_path),
        "choices": {
            field: getattr(choices, field)
            for field in ("source", "name", "replace", "fold", "keep", "probe", "probe_seconds")
        },
    }

    def work(report: Callable[[Any], None]) -> IngestResult:
        child.ask(request, limits.sharing_memory(wall_seconds=TIME_LIMIT_SECONDS))
        try:
            answer = child.answer(lambda progress: report(IngestProgress(**progress)))
        except EndedError as error:
            raise _explained(error) from error
        return IngestResult(**answer)

    return Running(child, work)


def _explained(error: EndedError) -> QuantstoreError:
    if error.cause is Cause.CANCELLED:
        return CancelledError("cancelled")
    if error.cause in (Cause.TOO_SLOW, Cause.TOO_MUCH_CPU):
        hours = TIME_LIMIT_SECONDS / 3600
        return StoppedIngestError(
            f"not done after {hours:.3g} hours",
            f"ingest the file with: {settings.command('ingest FILE')}",
        )
    if error.cause in (Cause.OUT_OF_MEMORY, Cause.KILLED):
        return StoppedIngestError(OUT_OF_MEMORY, LARGER_MACHINE)
    return StoppedIngestError(CRASHED)


def _answer(request: dict[str, Any], reply: Reply) -> dict[str, Any]:
    def report(progress: IngestProgress) -> None:
        reply.progress(dataclasses.asdict(progress))

    with logs.logging_to(logs.handed_down()):
        result = ingest_file(
            Path(request["path"]),
            Path(request["store_path"]),
            IngestChoices(**request["choices"]),
            report,
        )
    return dataclasses.asdict(result)


if __name__ == "__main__":
    serve(_answer)
