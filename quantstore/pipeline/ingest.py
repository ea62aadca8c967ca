"""Files in, models in the store: skip what is stored, measure (``measure_file``), write.

Several files go to fresh processes. The store is locked only while a finished model is written, in
one transaction: a model is wholly there or absent. What became of each file is a row of
``ingests``, written with the model where there is one.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

from quantstore import graph, settings, store
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
from quantstore.pipeline.measure_file import enough_memory, measure
from quantstore.pipeline.outcome import (
    CRASHED,
    Attempt,
    IngestChoices,
    IngestOutcome,
    IngestReporter,
    IngestResult,
    MeasuredModel,
    now,
)
from quantstore.process import logs, pool
from quantstore.process.memory import peak_bytes_with_children
from quantstore.records import IngestRecord, ModelRecord, ModelRecords
from quantstore.run.probe import Prober
from quantstore.store.labelling import name_is_taken
from quantstore.version import __version__

logger = logging.getLogger(__name__)


def ingest_file(
    path: Path,
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
    attempt = Attempt.begin(path, choices.source)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_recording_failure(attempt, store_path))
        stack.enter_context(enough_memory())
        prober = prober or stack.enter_context(Prober())
        file = _opened(path, attempt)
        measured = _measured_unless_stored(file, store_path, choices, attempt, report, prober)
        result = (
            measured
            if isinstance(measured, IngestResult)
            else _write(measured, store_path, choices)
        )
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


def _opened(path: Path, attempt: Attempt) -> graph.ModelFile:
    file = graph.open_any(path)
    logger.info("read %s in %.3f s: sha256 %s", path, attempt.seconds, file.sha256)
    return file


def _measured_unless_stored(
    file: graph.ModelFile,
    store_path: Path,
    choices: IngestChoices,
    attempt: Attempt,
    report: IngestReporter | None,
    prober: Prober,
) -> MeasuredModel | IngestResult:
    path = file.path
    stored_name = None if choices.replace else _stored_name(store_path, file.sha256, choices)
    if stored_name is None:
        return measure(file, choices, attempt, report, prober)
    logger.info("already stored as %s: %s", stored_name, path)
    _record(
        store_path,
        attempt.ended("already stored", model=stored_name, peak_bytes=peak_bytes_with_children()),
    )
    is_linked = _link(store_path, stored_name, choices.source or str(path.resolve()))
    return IngestResult(
        path=str(path), outcome="already stored", model=stored_name, is_linked=is_linked
    )


def _link(store_path: Path, model: str, source: str) -> bool:
    """Have a model that has no file any more come from this one; says whether it does now."""
    if file_of(source) is None:
        return False
    with store.reading(store_path) as connection:
        (origin,) = connection.rows("select source from models where model = ?", [model]) or [("",)]
    if file_of(origin[0]) is not None:
        return False
    try:
        with store.writing(store_path, may_create=False) as connection:
            store.set_source(connection, model, source)
    except LockedStoreError:
        raise
    except StoreError as error:
        # A store that may only be read changes nothing of what it says of the file.
        logger.info("%s is not linked to %s: %s", model, source, error.sentence)
        return False
    return True


@contextmanager
def _recording_failure(attempt: Attempt, store_path: Path) -> Iterator[None]:
    """Write a row for a file that fails in the block; a store that cannot be used gets none."""
    try:
        yield
    except StoreError:
        raise
    except QuantstoreError as error:
        logger.info("failed after %.3f s: %s: %s", attempt.seconds, attempt.path, error.sentence)
        peak_bytes = peak_bytes_with_children()
        _record(store_path, attempt.ended("failed", message=error.sentence, peak_bytes=peak_bytes))
        raise


def _record(store_path: Path, record: IngestRecord) -> None:
    """Write a row of ``ingests`` by itself; where there is no store, a failure does not make one.

    Nor does a store that may only be read change what became of the file.

    Raises:
        LockedStoreError: others use the store for longer than anybody waits.
    """
    try:
        with store.writing(store_path, may_create=False) as connection:
            store.add_ingest(connection, record)
    except LockedStoreError:
        raise
    except StoreError as error:
        logger.info("no row in ingests for %s: %s", record.path, error.sentence)


def ingest_many(
    paths: Iterable[Path],
    store_path: Path,
    choices: IngestChoices | None = None,
    jobs: int | None = None,
) -> Iterator[IngestResult]:
    """Ingest files, several at a time; what fails is reported and the rest goes on.

    Args:
        jobs: processes that measure, by default one per core.

    Yields:
        One result per file, as they finish.

    Raises:
        StoreError: the store cannot be used, so that no file can succeed.
    """
    choices = choices or IngestChoices()
    waiting = list(dict.fromkeys(paths))
    jobs = jobs or pool.cores()
    files = min(jobs, len(waiting))
    # The cores that are left over when every file has one share the work on each.
    choices = dataclasses.replace(choices, jobs=jobs // max(1, files))
    if files <= 1:
        with Prober() as prober:
            for path in waiting:
                ingest = partial(ingest_file, path, store_path, choices, prober=prober)
                yield _caught(path, ingest)
        return
    while waiting:
        waiting = yield from _ingest_in_pool(waiting, store_path, choices, files)
        files = 1


def _write(measured: MeasuredModel, store_path: Path, choices: IngestChoices) -> IngestResult:
    with store.writing(store_path) as connection:
        requested_name = choices.name or name_of(measured.path)
        same_content = store.model_with_content(connection, measured.sha256, measured.folded)
        former_id, former, replaced = None, None, same_content is not None
        # What people wrote on a model outlives its figures; what they ran stays with the content.
        labels, runs_removed = store.Labels(), 0
        if same_content is not None:
            former_id, former = same_content.model_id, same_content.model
            if not choices.replace and _is_current(same_content, choices):
                # Another process stored it while we measured.
                ended = measured.attempt.ended(
                    "already stored", model=former, peak_bytes=measured.peak_bytes
                )
                store.add_ingest(connection, ended)
                return IngestResult(path=str(measured.path), outcome="already stored", model=former)
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
                former=former,
                is_chosen=bool(choices.name),
            ),
            sha256=measured.sha256,
            folded=measured.folded,
            source=choices.source or str(measured.path.resolve()),
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
            ingest=measured.attempt.ended(
                outcome, model=record.model, peak_bytes=measured.peak_bytes
            ),
            instead_of=former_id,
        )
        store.write_models(connection, [whole])
    logger.info("%s %s after %.3f s", outcome, record.model, measured.attempt.seconds)
    return IngestResult(
        path=str(measured.path),
        outcome=outcome,
        model=record.model,
        layers=record.layer_count,
        seconds=measured.seconds,
        runs_removed=runs_removed,
    )


def _stored_name(store_path: Path, sha256: str, choices: IngestChoices) -> str | None:
    """The name under which this content is stored with today's measurements."""
    try:
        with store.reading(store_path) as connection:
            stored_model = store.model_with_content(connection, sha256, choices.fold)
    except MissingStoreError:
        return None
    except OlderStoreError:
        # What comes now will write to it anyway.
        store.update(store_path)
        return _stored_name(store_path, sha256, choices)
    if stored_model is None or not _is_current(stored_model, choices):
        return None
    return stored_model.model


def _is_current(stored_model: store.StoredModel, choices: IngestChoices) -> bool:
    return is_current(stored_model.measures_version, stored_model.schemes, choices.plan)


def _free_name(
    connection: store.Connection,
    requested_name: str,
    sha256: str,
    *,
    former: str | None,
    is_chosen: bool,
) -> str:
    """A name that no other model has; ``former`` is the one that gives way to this one."""
    taken = {row[0] for row in connection.rows("select model from models")} - {former}
    if is_chosen and requested_name in taken:
        raise QuantstoreError(
            name_is_taken(requested_name),
            "choose another name or add --replace",
        )
    return store.free_name(taken, requested_name, sha256)


def _caught(path: Path, work: Callable[[], IngestResult]) -> IngestResult:
    """The result, or the failure of this one file as a result; a useless store stops everything."""
    try:
        return work()
    except QuantstoreError as error:
        if error.exit_code == 3:
            raise
        return IngestResult(path=str(path), outcome="failed", error=error.sentence)


def _measure_unless_stored(
    path: Path, store_path: Path, choices: IngestChoices
) -> MeasuredModel | IngestResult:
    """What a worker process does; small enough to travel back through a pipe."""
    attempt = Attempt.begin(path, choices.source)
    with _recording_failure(attempt, store_path), enough_memory():
        file = _opened(path, attempt)
        return _measured_unless_stored(file, store_path, choices, attempt, None, _own_prober())


# What a worker process was told, for as long as it lives.
_worker_settings = contextlib.ExitStack()


def _begin_worker(wait_seconds: float, where: logs.Logging) -> None:
    _worker_settings.enter_context(settings.waiting_at_most(wait_seconds))
    _worker_settings.enter_context(logs.logging_to(where))


@cache
def _own_prober() -> Prober:
    """One for each worker process, and for all its files; it ends with the worker."""
    return Prober()


def _ingest_in_pool(
    paths: list[Path], store_path: Path, choices: IngestChoices, jobs: int
) -> Generator[IngestResult, None, list[Path]]:
    """Measure in worker processes, write here. Returns the files that a crash left undone."""
    crashed: list[Path] = []
    begun = Attempt.begin(paths[0])
    # A forked copy of a process with threads (numpy, duckdb) may hang; a fresh one cannot.
    with ProcessPoolExecutor(
        jobs,
        mp_context=get_context("spawn"),
        initializer=_begin_worker,
        initargs=(settings.wait_seconds(), logs.current()),
    ) as executor:
        with pool.without_main():
            futures: dict[Future[MeasuredModel | IngestResult], Path] = {
                executor.submit(_measure_unless_stored, path, store_path, choices): path
                for path in paths
            }
        try:
            for future in as_completed(futures):
                path = futures[future]
                if isinstance(future.exception(), BrokenProcessPool):
                    crashed.append(path)
                    continue
                yield _caught(path, partial(_finish, future, store_path, choices))
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
    if jobs == 1 and crashed:
        # Alone in its process, so this file is the one that crashed it.
        attempt = dataclasses.replace(begun, path=choices.source or str(crashed[0]))
        _record(store_path, attempt.ended("failed", message=CRASHED))
        yield IngestResult(path=str(crashed[0]), outcome="failed", error=CRASHED)
        return crashed[1:]
    return crashed


def _finish(
    future: "Future[MeasuredModel | IngestResult]", store_path: Path, choices: IngestChoices
) -> IngestResult:
    measured = future.result()
    if isinstance(measured, IngestResult):
        return measured
    with _recording_failure(measured.attempt, store_path):
        return _write(measured, store_path, choices)
