"""From the answer of a child that ran a model to the store: what runs and rescues share."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantstore import store
from quantstore.errors import (
    CancelledError,
    MissingStoreError,
    OlderStoreError,
    QuantstoreError,
    RunError,
)
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.process.child import BugInChildError, Cause, Child, EndedError
from quantstore.run.choices import Progress, ReportProgress
from quantstore.run.runtime import CRASHED


@dataclass(frozen=True, slots=True)
class StoredAs:
    """The name under which the store holds a model, and whether it does so only now."""

    model: str
    was_ingested: bool


def stored_as(
    path: Path, store_path: Path, sha256: str, report: ReportProgress, *, fold: bool | None
) -> StoredAs:
    """Find the model of this content in the store; ingest it where it is not there.

    Args:
        fold: whether BatchNormalization is folded into its weights; None where either will do:
            folded before unfolded, and folded where it is ingested.

    Raises:
        QuantstoreError: it cannot be ingested.
    """
    for is_folded in (True, False) if fold is None else (fold,):
        name = _name_of(store_path, sha256, fold=is_folded)
        if name is not None:
            return StoredAs(name, was_ingested=False)
    report(Progress("measuring the weights", 0, 1))
    result = ingest_file(path, store_path, IngestChoices(fold=fold is not False))
    return StoredAs(str(result.model), was_ingested=result.outcome != "already stored")


def answer_of(child: Child, report: ReportProgress, work: str) -> Any:
    """What a child that runs a model answers; it is closed then.

    Args:
        report: is told the progress.
        work: what it does, for example ``the run``.

    Raises:
        QuantstoreError: why there is no answer, in a sentence.
    """
    try:
        answer = child.answer(lambda progress: report(Progress(**progress)))
    except EndedError as error:
        raise _explained(error, work) from error
    except BugInChildError as error:
        raise RunError(f"{work} failed: {error.summary}") from error
    # What it holds is not needed while the weights are measured and the store is written.
    child.close()
    return answer


def _explained(error: EndedError, work: str) -> QuantstoreError:
    """Why a child ended without an answer; ``work``: what it did, for example ``the run``."""
    if error.cause is Cause.CANCELLED:
        return CancelledError("cancelled")
    if error.cause in (Cause.OUT_OF_MEMORY, Cause.KILLED):
        return RunError(f"there is not enough memory for {work}", "try smaller inputs with --size")
    if error.cause is Cause.CRASHED:
        return RunError(f"{CRASHED} ({error.signal_name})")
    return RunError(f"{work} has no result: {error}")


def _name_of(store_path: Path, sha256: str, *, fold: bool) -> str | None:
    """The name under which the store holds the content; None where it does not."""
    with (
        contextlib.suppress(MissingStoreError, OlderStoreError),
        store.reading(store_path) as connection,
    ):
        model = store.model_with_content(connection, sha256, fold)
        return None if model is None else model.model
    return None
