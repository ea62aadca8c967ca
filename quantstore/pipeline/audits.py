"""An audit from start to store: run in a child, written when it is whole.

What the command line, Python and the page call. Models that the store does not hold are ingested,
so that the audit stands beside what is known of both files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantstore import store
from quantstore.auditing import audit_child
from quantstore.auditing.choices import Audit, AuditChoices
from quantstore.pipeline import stored_files
from quantstore.pipeline.results import answer_of, stored_as
from quantstore.process import limits
from quantstore.process.child import SINGLE_THREADED, Child
from quantstore.process.running import Running
from quantstore.run.choices import Progress, ReportProgress

__all__ = ["Audit", "AuditChoices", "DoneAudit", "Progress", "Running", "file_of", "run", "start"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoneAudit:
    """What became of an audit, now in the store."""

    float_model: str
    int8_model: str
    audit_id: int
    audit: Audit
    ingested: tuple[str, ...]
    peak_bytes: int | None


def start(
    float_path: Path,
    int8_path: Path,
    store_path: Path,
    inputs: str,
    choices: AuditChoices | None = None,
) -> Running[DoneAudit]:
    """Begin an audit and return at once.

    Args:
        inputs: a folder of images, an image, an ``.npz`` or ``.npy`` file, or ``noise``.

    Returns:
        Its progress is :class:`Progress`. Cancelled, it stores nothing, unless it was being written
        already.
    """
    store.require_writable(store_path)
    child = Child(audit_child.__name__, has_scratch=True, extra_environment=SINGLE_THREADED)

    def work(report: Callable[[Any], None]) -> DoneAudit:
        asked = audit_child.request(
            float_path.absolute(), int8_path.absolute(), inputs, choices or AuditChoices()
        )
        child.ask(asked, limits.sharing_memory())
        answer = answer_of(child, report, "the audit")
        audit = Audit.from_json(answer["audit"])
        # An audit compares weights as they fit best, whatever the store was told to fold.
        float_stored = stored_as(float_path, store_path, audit.float_sha256, report, fold=None)
        int8_stored = stored_as(int8_path, store_path, audit.int8_sha256, report, fold=None)
        with store.writing(store_path) as connection:
            audit_id = store.add_audit(
                connection,
                store.find_model(connection, int8_stored.model),
                store.find_model(connection, float_stored.model),
                float_path.name,
                audit.record,
            )
        return DoneAudit(
            float_model=float_stored.model,
            int8_model=int8_stored.model,
            audit_id=audit_id,
            audit=audit,
            ingested=tuple(
                stored.model for stored in (float_stored, int8_stored) if stored.was_ingested
            ),
            peak_bytes=answer["peak_bytes"],
        )

    return Running(child, work)


def run(
    float_path: Path,
    int8_path: Path,
    store_path: Path,
    inputs: str,
    choices: AuditChoices | None = None,
    report: ReportProgress | None = None,
) -> DoneAudit:
    """Audit, store, and return when it is over.

    Raises:
        QuantstoreError: it failed, in a sentence; nothing is stored then.
    """
    return start(float_path, int8_path, store_path, inputs, choices).wait(report)


def file_of(named: str, store_path: Path) -> Path:
    """The file that somebody named: its path, or the name of a stored model.

    Raises:
        QuantstoreError: there is neither a file nor a stored model of that name, or its file is
            gone or holds something else now.
    """
    origin = stored_files.origin_of(named, store_path)
    if origin is None:
        return stored_files.named_path(named, store_path)
    return stored_files.file_of(
        origin,
        store_path,
        if_gone="name the file instead of the model",
        if_changed="name the file that was measured instead of the model",
    )
