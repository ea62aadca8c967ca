"""Many files into one store: workers measure (``worker``), this process alone writes.

Workers are processes of this machine, or whatever an executor offers. Whatever is finished is
written in one transaction, because opening the store costs more than the rows of a small model.
"""

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    wait,
)
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

from quantstore import store
from quantstore.errors import QuantstoreError, StoreError, printable
from quantstore.pipeline.ingest import ingest_file, stored_names, written
from quantstore.pipeline.outcome import (
    CRASHED,
    Attempt,
    Examined,
    IngestChoices,
    IngestResult,
    MeasuredModel,
    Refusal,
    StoredContent,
)
from quantstore.pipeline.remote import ModelPath
from quantstore.pipeline.worker import packed, work_on
from quantstore.process import logs, pool
from quantstore.run.probe import Prober
from quantstore.version import __version__

logger = logging.getLogger(__name__)

# Files that an executor has at a time: enough for a hundred workers, and what they find fits into
# memory (a megabyte for most models).
MOST_UNDER_WAY = 128
# The same for each process of this machine: one that crashes takes those of all others along.
UNDER_WAY_PER_PROCESS = 8
# What is finished waits so long for more.
GATHERING_SECONDS = 0.3
# To measure so many models takes several times as long as to compact a store of a thousand.
MANY_MODELS = 100
# Readers wait while a batch is written: for a second at most.
MOST_PER_BATCH = 16

Submit = Callable[..., "Future[Examined]"]


def ingest_many(
    paths: Iterable[ModelPath],
    store_path: Path,
    choices: IngestChoices | None = None,
    jobs: int | None = None,
    executor: Executor | None = None,
) -> Iterator[IngestResult]:
    """Ingest files as :func:`ingest_batches` does; yields one result per file."""
    return chain.from_iterable(ingest_batches(paths, store_path, choices, jobs, executor))


def ingest_batches(
    paths: Iterable[ModelPath],
    store_path: Path,
    choices: IngestChoices | None = None,
    jobs: int | None = None,
    executor: Executor | None = None,
) -> Iterator[list[IngestResult]]:
    """Ingest files, several at a time; what fails is reported and the rest goes on.

    Args:
        jobs: processes that measure, by default one per core; not for an executor.
        executor: measures instead of processes of this machine, each file in one process. Its
            workers find files under the same paths, and need no store.

    Yields:
        Results, one per file, of the files that were written together, once they are stored.

    Raises:
        StoreError: the store cannot be used, so that no file can succeed.
        QuantstoreError: the executor takes no more files; what was finished is stored.
    """
    choices = choices or IngestChoices()
    paths = list(dict.fromkeys(paths))
    jobs = jobs or pool.cores()
    processes = min(jobs, len(paths))
    if executor is None and processes <= 1:
        choices = dataclasses.replace(choices, jobs=jobs)
        with Prober() as prober:
            for path in paths:
                yield [_ingested_here(path, store_path, choices, prober)]
        return
    # The cores that are left over when every file has one share the work on each.
    choices = dataclasses.replace(choices, jobs=1 if executor else jobs // processes)
    fleet = _Fleet(paths, store_path, choices)
    at_most = MOST_UNDER_WAY if executor else UNDER_WAY_PER_PROCESS * processes
    while fleet.waiting:
        while fleet.waiting:
            with _submitting_to(executor, processes) as submit:
                yield from fleet.batches(submit, at_most)
            if fleet.is_broken:
                # It takes nothing any more: processes of this machine do the rest.
                executor = None
        # Any of those that were under way may have ended a worker: alone, each shows it.
        fleet.waiting, fleet.lost = fleet.lost, deque()
        processes = at_most = 1


def compact_after(results: Iterable[IngestResult], store_path: Path) -> store.CopySummary | None:
    """Return the space that is free after many models were written; None where nothing is done."""
    written_count = sum(result.outcome in ("stored", "replaced") for result in results)
    if written_count < MANY_MODELS:
        return None
    return store.compact_if_sparse(store_path)


def _ingested_here(
    path: ModelPath, store_path: Path, choices: IngestChoices, prober: Prober
) -> IngestResult:
    """The result, or the failure of this one file as a result; a useless store stops everything."""
    try:
        return ingest_file(path, store_path, choices, prober=prober)
    except StoreError:
        raise
    except QuantstoreError as error:
        return IngestResult(path=str(path), outcome="failed", error=error.sentence)


class _Fleet:
    """Files on their way through executors into the store.

    ``waiting`` are not submitted yet. ``lost`` ended without an answer while others were under way.
    ``is_broken``: the last executor takes nothing any more.
    """

    def __init__(
        self, paths: Iterable[ModelPath], store_path: Path, choices: IngestChoices
    ) -> None:
        self.waiting = deque(paths)
        self.lost: deque[ModelPath] = deque()
        self.is_broken = False
        self._store_path = store_path
        self._choices = choices
        # They travel along, so that no worker measures what the store holds.
        store.require_writable(store_path)
        self._stored = set() if choices.replace else set(stored_names(store_path, choices))

    def batches(self, submit: Submit, at_most: int) -> Iterator[list[IngestResult]]:
        """What becomes of the files that wait, until none does or the executor takes no more.

        Args:
            at_most: files under way at a time, so that results do not pile up before the writer; a
                file that is alone and ends its worker has failed.

        Raises:
            QuantstoreError: the executor takes no more files, and is not broken.
        """
        running: dict[Future[Examined], tuple[ModelPath, Attempt]] = {}
        refused: Exception | None = None
        try:
            while running or (self.waiting and refused is None):
                stored = packed(self._stored)
                while self.waiting and refused is None and len(running) < at_most:
                    path = self.waiting[0]
                    try:
                        future = submit(work_on, _whole(path), self._choices, stored, __version__)
                    except Exception as error:
                        # Whatever an engine raises. What is under way may still come.
                        refused = error
                        break
                    running[future] = self.waiting.popleft(), Attempt.begin(path)
                batch = [(*running.pop(future), future) for future in _finished(running)]
                yield self._stored_batch(
                    [
                        (path, examined)
                        for path, attempt, future in batch
                        if (examined := self._examined(path, attempt, future, at_most == 1))
                    ]
                )
        finally:
            for future in running:
                future.cancel()
        self.is_broken = isinstance(refused, BrokenExecutor)
        if refused is not None and not self.is_broken:
            raise QuantstoreError(
                f"the executor takes no more files ({_summary(refused)})",
                "ingest again when it works: what is stored is skipped",
            ) from refused

    def _examined(
        self, path: ModelPath, attempt: Attempt, future: "Future[Examined]", is_alone: bool
    ) -> Examined | None:
        """What a worker found; None where the file comes again because the worker died."""
        try:
            examined = future.result()
        except Exception as error:
            # The engine's, which has tried again what it tries again: a worker returns failures.
            logger.info("no result of %s: %s", path, _summary(error))
            if not is_alone:
                self.lost.append(path)
                return None
            return Refusal(attempt=attempt, peak_bytes=None, sentence=_loss(error).sentence)
        if isinstance(examined, Refusal) and examined.traceback:
            logger.error("a bug: %s\n%s", path, examined.traceback)
        # A worker has the whole path, which may be another than the one that was given.
        attempt = dataclasses.replace(examined.attempt, path=attempt.path)
        return dataclasses.replace(examined, attempt=attempt)

    def _stored_batch(self, batch: list[tuple[ModelPath, Examined]]) -> list[IngestResult]:
        results = []
        for (path, examined), result in zip(batch, self._written(batch), strict=True):
            if isinstance(examined, MeasuredModel):
                self._stored.add(examined.sha256)
            if isinstance(examined, StoredContent) and result is None:
                # Somebody removed the model after the file was submitted.
                self._stored.discard(examined.sha256)
                self.waiting.append(path)
            if result is not None:
                results.append(result)
        return results

    def _written(self, batch: list[tuple[ModelPath, Examined]]) -> list[IngestResult | None]:
        """The results of a batch: one that cannot be written takes no other with it."""
        try:
            return written(batch, self._store_path, self._choices)
        except StoreError:
            raise
        except QuantstoreError as error:
            if len(batch) == 1:
                ((path, examined),) = batch
                refusal = Refusal(
                    attempt=examined.attempt,
                    peak_bytes=examined.peak_bytes,
                    sentence=error.sentence,
                )
                return written([(path, refusal)], self._store_path, self._choices)
        except Exception:
            if len(batch) == 1:
                raise
        return [result for single in batch for result in self._written([single])]


def _whole(path: ModelPath) -> ModelPath:
    """As a worker finds it, which has a working folder of its own."""
    return path.absolute() if isinstance(path, Path) else path


def _finished(
    running: "dict[Future[Examined], tuple[ModelPath, Attempt]]",
) -> "list[Future[Examined]]":
    """At least one that is done, and those that are done soon after it, in their order."""
    done = wait(running, timeout=0).done
    if len(done) < MOST_PER_BATCH:
        done = wait(running, return_when=FIRST_COMPLETED).done
        done = wait(running, GATHERING_SECONDS, return_when=ALL_COMPLETED).done
    return [future for future in running if future in done][:MOST_PER_BATCH]


def _loss(error: Exception) -> QuantstoreError:
    if isinstance(error, BrokenExecutor):
        return QuantstoreError(CRASHED)
    return QuantstoreError(
        f"the worker that measured the file ended without a result ({_summary(error)})",
        "see the log of the workers, or ingest this file on its own",
    )


def _summary(error: Exception) -> str:
    # Engines go on with advice of their own.
    first_sentence = (str(error).strip() or "no message").splitlines()[0].split(". ")[0]
    return printable(f"{type(error).__name__}: {first_sentence}")


@contextmanager
def _submitting_to(executor: Executor | None, processes: int) -> Iterator[Submit]:
    """Where files are submitted to: the executor, else new processes of this machine."""
    if executor is not None:
        yield executor.submit
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(
        processes,
        # A forked copy of a process with threads (numpy, duckdb) may hang; a fresh one cannot.
        mp_context=get_context("spawn"),
        initializer=_begin_process,
        initargs=(logs.current(),),
    ) as own_executor:

        def submit(work: Callable[..., Examined], *arguments: object) -> "Future[Examined]":
            with pool.without_main():
                return own_executor.submit(work, *arguments)

        try:
            yield submit
        finally:
            own_executor.shutdown(wait=True, cancel_futures=True)


# What a process was told, for as long as it lives.
_process_settings = ExitStack()


def _begin_process(where: logs.Logging) -> None:
    _process_settings.enter_context(logs.logging_to(where))
