"""A model and targets in, their figures in the store: the probe of what is stored already.

What the command line, the pages and Python call. A file that the store does not hold is ingested
first. The model is run in a child process, which can be cancelled.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantstore import queries, settings, store
from quantstore.errors import (
    MissingStoreError,
    ModelFileError,
    OlderStoreError,
    QuantstoreError,
    RunError,
    UnknownModelError,
    UnknownTargetError,
    hint_for,
)
from quantstore.file_formats import why_not_run
from quantstore.graph.findings import FINDING_KINDS, OfRun
from quantstore.pipeline import stored_files
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.process.running import Running
from quantstore.records import NOTHING_ROUNDED, FindingRecord, SimulationRecord
from quantstore.run.choices import Progress, ReportProgress
from quantstore.run.plan import PLAN, Probed
from quantstore.run.probe import NOISE, SECONDS, Prober
from quantstore.schemes import ALL_TARGETS, DEFAULT_TARGET, TARGETS, Target
from quantstore.wording.targets import missing_figures

__all__ = ["SECONDS", "ProbedModel", "Progress", "probe_model", "start", "targets_named"]

READING, MEASURING_WEIGHTS, MEASURING = (
    "reading the file",
    "measuring the weights",
    "measuring targets",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedModel:
    """What became of a probe, now in the store.

    ``records``: one for each target that was asked for, in that order; ``failure`` says why a
    figure is missing. ``kept_db``: by target, the earlier figure that stays where a new one is
    missing.
    """

    model: str
    records: tuple[SimulationRecord, ...]
    kept_db: dict[str, float] = field(default_factory=dict)
    was_ingested: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every target has its figure, except where there is nothing to round."""
        return all(
            record.failure is None or record.failure in NOTHING_ROUNDED for record in self.records
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for each figure that is missing."""
        return missing_figures(self.records, self.kept_db)


def targets_named(names: Iterable[str] | str | None) -> tuple[Target, ...]:
    """Targets by their names, each once; ``all`` is every one, None those that ingest measures.

    Raises:
        UnknownTargetError: there is no target of this name; it lists those that there are.
    """
    if names is None:
        return tuple(target for target in TARGETS.values() if target.is_default)
    listed = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    for name in listed:
        if name != ALL_TARGETS and name not in TARGETS:
            there_are = f"there are {', '.join((*TARGETS, ALL_TARGETS))}"
            raise UnknownTargetError(
                f"there is no target {name!r}", hint_for(name, TARGETS, there_are)
            )
    if not listed:
        raise UnknownTargetError(
            "no target was given", f"there are {', '.join((*TARGETS, ALL_TARGETS))}"
        )
    return tuple(TARGETS[name] for name in (TARGETS if ALL_TARGETS in listed else listed))


def start(
    model: str | Path,
    store_path: Path,
    targets: Iterable[str] | str | None = None,
    seconds: float = SECONDS,
    *,
    file: Path | None = None,
) -> Running[ProbedModel]:
    """Begin to measure targets and return at once.

    Args:
        model: the name of a stored model, or a file; a Path is always a file.
        targets: see :func:`targets_named`.
        seconds: of CPU time for all of them. A file that the store does not hold gets what ingest
            measures on top, within the same time.
        file: of a stored model, where it is not where it was.

    Returns:
        Its progress is :class:`Progress`. Its thread reads the file and writes the store;
        cancelled, it stores no figure, unless they were being written already.

    Raises:
        UnknownTargetError: there is no such target.
        QuantstoreError: no time to measure anything in.
    """
    store.require_writable(store_path)
    chosen = targets_named(targets)
    if not seconds > 0:
        raise QuantstoreError(
            "a probe needs more than 0 seconds", f"{SECONDS:g} seconds are enough for most models"
        )
    prober = Prober()

    def work(report: Callable[[Any], None]) -> ProbedModel:
        return _probed(model, store_path, chosen, seconds, prober, report, file)

    return Running(prober, work)


def probe_model(
    model: str | Path,
    store_path: Path,
    targets: Iterable[str] | str | None = None,
    *,
    seconds: float = SECONDS,
    report: ReportProgress | None = None,
) -> ProbedModel:
    """Measure targets, store their figures, and return when it is over; see :func:`start`.

    Raises:
        QuantstoreError: the model is neither stored nor a file, its file is gone or holds something
            else than was measured, or the store cannot be used.
    """
    return start(model, store_path, targets, seconds).wait(report)


@dataclass(frozen=True, slots=True)
class _Content:
    """A file that holds what the store says of a model; ``stamp`` tells whether it is touched."""

    path: Path
    sha256: str
    folded: bool
    stamp: tuple[int, int]


def _probed(
    model: str | Path,
    store_path: Path,
    targets: Sequence[Target],
    seconds: float,
    prober: Prober,
    report: Callable[[Any], None],
    file: Path | None,
) -> ProbedModel:
    report(Progress(READING, 0, 1))
    content, was_ingested = _located(model, store_path, report, file)
    _require_runnable(content, store_path)
    asked = [Probed.of(target) for target in targets]
    if was_ingested:
        # In place of the probe that its ingest would have run.
        asked += [probed for probed in PLAN if probed not in asked]
    report(Progress(MEASURING, 0, len(asked)))
    prober.start(content.path, fold=content.folded, seconds=seconds, asked=asked)
    records = prober.result(lambda done: report(Progress(MEASURING, done, len(asked))))
    if _stamp(content.path) != content.stamp:
        raise ModelFileError(f"{content.path.name}: changed while it was run", "try again")
    kept_db = {}
    measured = {record.target for record in records if record.failure is None}
    with store.writing(store_path, may_create=False) as connection:
        stored_model = store.model_with_content(connection, content.sha256, content.folded)
        if stored_model is None:
            raise UnknownModelError(f"{content.path.name}: its model was removed meanwhile")
        for record in records:
            earlier_db = store.replace_probe(connection, stored_model.model_id, record)
            if earlier_db is not None and record.target is not None:
                kept_db[record.target] = earlier_db
        if measured:
            _store_findings(
                connection,
                stored_model.model_id,
                prober.findings,
                is_of_default=DEFAULT_TARGET.name in measured,
            )
    return ProbedModel(
        model=stored_model.model,
        records=records[: len(targets)],
        kept_db=kept_db,
        was_ingested=was_ingested,
    )


def _require_runnable(content: _Content, store_path: Path) -> None:
    """Refuse a model of a format that is not run; its targets say so already.

    Raises:
        RunError: with the reason.
    """
    with store.reading(store_path) as connection:
        format_name = queries.file_format_of(connection, content.sha256)
    if reason := why_not_run(format_name):
        raise RunError(f"{content.path.name} is a {format_name} file", reason)


def _store_findings(
    connection: store.Connection,
    model_id: int,
    findings: Sequence[FindingRecord],
    *,
    is_of_default: bool,
) -> None:
    """Findings of a run in place of earlier ones.

    They are of the default target where it was measured. What other targets show besides does not
    replace that: it is stored where the model has no finding of the kind.
    """
    kinds = [entry.name for entry in FINDING_KINDS if isinstance(entry, OfRun)]
    if not is_of_default:
        ((was_measured,),) = connection.rows(
            """
            select count(*) > 0 from simulations
            where model_id = ? and target = ? and input_source = ? and failure is null
            """,
            [model_id, DEFAULT_TARGET.name, NOISE],
        )
        if was_measured:
            stored = connection.rows(
                "select distinct kind from findings where model_id = ?", [model_id]
            )
            kinds = [kind for kind in kinds if (kind,) not in stored]
    store.replace_findings(
        connection, model_id, kinds, [finding for finding in findings if finding.kind in kinds]
    )


def _located(
    model: str | Path, store_path: Path, report: Callable[[Any], None], file: Path | None
) -> tuple[_Content, bool]:
    """The file of a model, and whether it had to be ingested."""
    origin = stored_files.origin_of(model, store_path) if isinstance(model, str) else None
    if origin is not None:
        return _content_of_stored(origin, store_path, file), False
    path = stored_files.named_path(model, store_path)
    stamp, sha256 = _stamp(path), stored_files.content(path)
    for folded in (True, False):
        if _is_stored(store_path, sha256, folded):
            return _Content(path, sha256, folded, stamp), False
    report(Progress(MEASURING_WEIGHTS, 0, 1))
    choices = IngestChoices(probe=False)
    with stored_files.naming(path):
        result = ingest_file(path, store_path, choices)
    is_new = result.outcome != "already stored"
    return _Content(path, sha256, choices.fold, stamp), is_new


def _content_of_stored(origin: queries.Origin, store_path: Path, file: Path | None) -> _Content:
    again = settings.command("ingest FILE --name NAME --replace", store_path)
    path = stored_files.file_of(
        origin,
        store_path,
        file,
        if_gone=f"name the file: {settings.command('probe FILE', store_path)}",
        if_changed=f"measure it again: {again}",
    )
    return _Content(path, origin.sha256, origin.folded, _stamp(path))


def _is_stored(store_path: Path, sha256: str, folded: bool) -> bool:
    with (
        contextlib.suppress(MissingStoreError, OlderStoreError),
        store.reading(store_path) as connection,
    ):
        return store.model_with_content(connection, sha256, folded) is not None
    return False


def _stamp(path: Path) -> tuple[int, int]:
    """When a file was written and its size; zeros where it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return 0, 0
    return status.st_mtime_ns, status.st_size
