"""One file in, a model in the store: skip what is stored, measure (``worker``), write.

The store is locked only while something is written, in one transaction: a model is wholly there or
absent. What became of each file is a row of ``ingests``, written with the model where there is one.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from quantstore import graph, store
from quantstore.errors import (
    LockedStoreError,
    MissingStoreError,
    OlderStoreError,
    QuantstoreError,
    StoreError,
)
from quantstore.numerics.measure_layer import MEASURES_VERSION, is_current
from quantstore.pipeline import kept
from quantstore.pipeline.files import file_of, name_of
from quantstore.pipeline.measure_file import enough_memory
from quantstore.pipeline.outcome import (
    Attempt,
    Examined,
    IngestChoices,
    IngestOutcome,
    IngestReporter,
    IngestResult,
    MeasuredModel,
    Refusal,
    StoredContent,
    now,
)
from quantstore.pipeline.remote import ModelPath, RemoteModel, at_hand, is_url
from quantstore.pipeline.worker import examine, opened
from quantstore.process.memory import peak_bytes_with_children
from quantstore.records import ModelRecord, ModelRecords
from quantstore.run.probe import Prober
from quantstore.store.labelling import name_is_taken
from quantstore.version import __version__

logger = logging.getLogger(__name__)


def ingest_file(
    path: ModelPath,
    store_path: Path,
    choices: IngestChoices | None = None,
    report: IngestReporter | None = None,
    prober: Prober | None = None,
) -> IngestResult:
    """Measure one file and store it, unless its content is stored already.

    Args:
        prober: the process that runs the model; by default a new one, which ends with this call.

    Raises:
        QuantstoreError: the file cannot be read, or the store cannot be used.
    """
    choices = choices or IngestChoices()
    # Before anything is measured for it.
    store.require_writable(store_path)
    attempt = Attempt.begin(path, choices.source)

    def is_stored(sha256: str) -> bool:
        return not choices.replace and sha256 in stored_names(store_path, choices, [sha256])

    with contextlib.ExitStack() as stack:
        stack.enter_context(_recording_failure(path, attempt, store_path, choices))
        stack.enter_context(enough_memory())
        prober = prober or stack.enter_context(Prober())
        file = opened(stack.enter_context(at_hand(path)), attempt)
        result = None
        while result is None:
            examined = examine(file, choices, attempt, is_stored, prober, report)
            (result,) = written([(path, examined)], store_path, choices)
    if result.outcome == "replaced":
        kept.sweep(store_path)
    return _kept(result, file, store_path) if choices.keep else result


def _kept(result: IngestResult, file: graph.ModelFile, store_path: Path) -> IngestResult:
    """The result, once a copy of the file lies beside the store, or why none does."""
    try:
        kept.keep(file, store_path)
    except kept.UnkeptError as error:
        return dataclasses.replace(result, keep_failure=error.sentence)
    return result


@contextmanager
def _recording_failure(
    path: ModelPath, attempt: Attempt, store_path: Path, choices: IngestChoices
) -> Iterator[None]:
    """Write a row for a file that fails in the block; a store that cannot be used gets none."""
    try:
        yield
    except StoreError:
        raise
    except QuantstoreError as error:
        refusal = Refusal(
            attempt=attempt, peak_bytes=peak_bytes_with_children(), sentence=error.sentence
        )
        written([(path, refusal)], store_path, choices)
        raise


def written(
    batch: Sequence[tuple[ModelPath, Examined]], store_path: Path, choices: IngestChoices
) -> list[IngestResult | None]:
    """Write what became of files in one transaction: all of it or nothing.

    Where nothing was measured, a store that may only be read stays as it is, and none is created.

    Args:
        batch: files as they were given, and what was found in them.

    Returns:
        A result per file; None where the store does not hold the content any more.

    Raises:
        StoreError: the store cannot be used.
        QuantstoreError: a model cannot be stored under its name.
    """
    unmeasured = [examined for _, examined in batch if not isinstance(examined, MeasuredModel)]
    is_needed = len(unmeasured) < len(batch)
    try:
        with store.writing(store_path, may_create=is_needed) as connection:
            results = _write(connection, batch, choices)
    except LockedStoreError:
        raise
    except StoreError as error:
        if is_needed:
            raise
        logger.info("no row in ingests: %s", error.sentence)
        contents = [file.sha256 for file in unmeasured if isinstance(file, StoredContent)]
        names = stored_names(store_path, choices, contents)
        results = [_unwritten(examined, names) for examined in unmeasured]
    return [
        None if result is None else dataclasses.replace(result, path=str(path))
        for (path, _), result in zip(batch, results, strict=True)
    ]


def _write(
    connection: store.Connection,
    batch: Sequence[tuple[ModelPath, Examined]],
    choices: IngestChoices,
) -> list[IngestResult | None]:
    results: list[IngestResult | None] = []
    prepared: list[ModelRecords] = []
    for path, examined in batch:
        if isinstance(examined, Refusal):
            _add_ingest(connection, examined, "failed", message=examined.sentence)
            results.append(_unwritten(examined, {}))
        elif isinstance(examined, StoredContent):
            results.append(_skip(connection, examined, choices, _source(path, choices)))
        else:
            contents = {whole.model.sha256 for whole in prepared}
            if contents and (choices.replace or examined.sha256 in contents):
                # What becomes of it depends on one before it.
                store.write_models(connection, prepared)
                prepared.clear()
            names = {whole.model.model for whole in prepared}
            source = _source(path, choices)
            result, whole = _prepare(connection, examined, choices, source, names)
            results.append(result)
            if whole is not None:
                prepared.append(whole)
    store.write_models(connection, prepared)
    return results


def _source(path: ModelPath, choices: IngestChoices) -> str:
    """What the store says of a model's origin."""
    return choices.source or str(path if isinstance(path, RemoteModel) else path.resolve())


def _skip(
    connection: store.Connection, examined: StoredContent, choices: IngestChoices, source: str
) -> IngestResult | None:
    """Write that a file need not be measured; None where the store has lost its content."""
    stored_model = store.model_with_content(connection, examined.sha256, choices.fold)
    if stored_model is None or not _is_current(stored_model, choices):
        return None
    logger.info("already stored as %s: %s", stored_model.model, examined.path)
    _add_ingest(connection, examined, "already stored", model=stored_model.model)
    return IngestResult(
        path=str(examined.path),
        outcome="already stored",
        model=stored_model.model,
        is_linked=_link(connection, stored_model.model, source),
    )


def _unwritten(examined: StoredContent | Refusal, names: dict[str, str]) -> IngestResult | None:
    """The result of a file of which nothing is written."""
    if isinstance(examined, Refusal):
        attempt = examined.attempt
        logger.info("failed after %.3f s: %s: %s", attempt.seconds, attempt.path, examined.sentence)
        return IngestResult(path=attempt.path, outcome="failed", error=examined.sentence)
    model = names.get(examined.sha256)
    if model is None:
        return None
    return IngestResult(path=str(examined.path), outcome="already stored", model=model)


def _add_ingest(
    connection: store.Connection,
    examined: Examined,
    outcome: IngestOutcome,
    *,
    model: str | None = None,
    message: str = "",
) -> None:
    record = examined.attempt.ended(
        outcome, model=model, message=message, peak_bytes=examined.peak_bytes
    )
    store.add_ingest(connection, record)


def _link(connection: store.Connection, model: str, source: str) -> bool:
    """Have a model that has no file any more come from this one; says whether it does now."""
    if file_of(source) is None:
        return False
    (origin,) = connection.rows("select source from models where model = ?", [model])
    if is_url(origin[0]) or file_of(origin[0]) is not None:
        return False
    store.set_source(connection, model, source)
    return True


def _prepare(
    connection: store.Connection,
    measured: MeasuredModel,
    choices: IngestChoices,
    source: str,
    names: set[str],
) -> tuple[IngestResult, ModelRecords | None]:
    """What becomes of a model, and what is to be written of it; what it replaces goes at once.

    Args:
        names: of models that are about to be written.
    """
    requested_name = choices.name or name_of(measured.path)
    same_content = store.model_with_content(connection, measured.sha256, measured.folded)
    former, replaced = None, same_content is not None
    # What people wrote on a model outlives its figures; what they ran stays with the content.
    labels, runs_removed = store.Labels(), 0
    if same_content is not None:
        former = same_content.model
        if not choices.replace and _is_current(same_content, choices):
            # Another process stored it while we measured.
            _add_ingest(connection, measured, "already stored", model=former)
            skipped = IngestResult(path=str(measured.path), outcome="already stored", model=former)
            return skipped, None
        labels = store.labels(connection, former)
        requested_name = choices.name or former
    if choices.replace and requested_name != former:
        labels = store.labels(connection, requested_name).joined(labels)
        runs_removed = store.own_runs(connection, requested_name)
        replaced = store.remove_model_named(connection, requested_name) or replaced
    record = ModelRecord(
        model=_free_name(
            connection,
            requested_name,
            measured.sha256,
            names,
            former=former,
            is_chosen=bool(choices.name),
        ),
        sha256=measured.sha256,
        folded=measured.folded,
        source=source,
        file_bytes=measured.file_bytes,
        file_format=measured.file_format,
        producer=measured.producer,
        ir_version=measured.ir_version,
        opset=measured.opset,
        ingested_at=now(),
        ingest_seconds=measured.seconds,
        layer_count=len(measured.layers),
        weight_count=measured.weight_count,
        quantstore_version=__version__,
        measures_version=MEASURES_VERSION,
        tags=labels.tags,
        note=labels.note,
    )
    outcome: IngestOutcome = "replaced" if replaced else "stored"
    whole = ModelRecords(
        model=record,
        layers=measured.layers,
        equalization=measured.equalization,
        graph_points=measured.graph_points,
        graph_edges=measured.graph_edges,
        probes=measured.probes,
        findings=measured.findings,
        ingest=measured.attempt.ended(outcome, model=record.model, peak_bytes=measured.peak_bytes),
    )
    logger.info("%s %s after %.3f s", outcome, record.model, measured.attempt.seconds)
    result = IngestResult(
        path=str(measured.path),
        outcome=outcome,
        model=record.model,
        layers=record.layer_count,
        seconds=measured.seconds,
        runs_removed=runs_removed,
    )
    return result, whole


def stored_names(
    store_path: Path, choices: IngestChoices, contents: Sequence[str] | None = None
) -> dict[str, str]:
    """The models that hold contents as they would be measured today, by their SHA-256.

    Args:
        contents: those in question, by default all.
    """
    try:
        with store.reading(store_path) as connection:
            stored_models = store.models_with_content(connection, choices.fold, contents)
    except MissingStoreError:
        return {}
    except OlderStoreError:
        # What comes now will write to it anyway.
        store.update(store_path)
        return stored_names(store_path, choices, contents)
    return {
        sha256: stored_model.model
        for sha256, stored_model in stored_models.items()
        if _is_current(stored_model, choices)
    }


def _is_current(stored_model: store.StoredModel, choices: IngestChoices) -> bool:
    return is_current(stored_model.measures_version, stored_model.schemes, choices.plan)


def _free_name(
    connection: store.Connection,
    requested_name: str,
    sha256: str,
    names: set[str],
    *,
    former: str | None,
    is_chosen: bool,
) -> str:
    """A name that no other model has; ``former`` is the one that gives way to this one."""
    taken = names | {row[0] for row in connection.rows("select model from models")} - {former}
    if is_chosen and requested_name in taken:
        raise QuantstoreError(
            name_is_taken(requested_name),
            "choose another name or add --replace",
        )
    return store.free_name(taken, requested_name, sha256)
