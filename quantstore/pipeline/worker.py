"""What a worker does with one file, on this machine or another: read, measure, probe.

It knows no store. What it hands back travels as rows, or as the reason why there are none.
"""

import logging
import re
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from quantstore import graph
from quantstore.errors import QuantstoreError, printable
from quantstore.pipeline.measure_file import enough_memory, measure
from quantstore.pipeline.outcome import (
    Attempt,
    Examined,
    IngestChoices,
    IngestReporter,
    MeasuredModel,
    Refusal,
    StoredContent,
)
from quantstore.pipeline.remote import ModelPath, at_hand
from quantstore.process.memory import peak_bytes_with_children
from quantstore.run.probe import Prober
from quantstore.version import __version__

logger = logging.getLogger(__name__)

_SHA256 = re.compile(r"[0-9a-f]{64}")


def opened(path: Path, attempt: Attempt) -> graph.ModelFile:
    """The graph of a file.

    Raises:
        ModelFileError: it cannot be read as a model.
    """
    file = graph.open_any(path)
    logger.info("read %s in %.3f s: sha256 %s", path, attempt.seconds, file.sha256)
    return file


def examine(
    file: graph.ModelFile,
    choices: IngestChoices,
    attempt: Attempt,
    is_stored: Callable[[str], bool],
    prober: Prober,
    report: IngestReporter | None = None,
) -> MeasuredModel | StoredContent:
    """Measure a file that is open, unless its content is stored.

    Args:
        is_stored: tells of a SHA-256 whether the store holds this content as it would be measured
            today.

    Raises:
        QuantstoreError: the file cannot be measured.
    """
    if is_stored(file.sha256):
        return StoredContent(
            path=file.path,
            attempt=attempt,
            peak_bytes=peak_bytes_with_children(),
            sha256=file.sha256,
        )
    return measure(file, choices, attempt, report, prober)


def packed(contents: Iterable[str]) -> bytes:
    """Contents as short as they can travel, 32 bytes each."""
    # A store that somebody else wrote may hold any text.
    return b"".join(bytes.fromhex(sha256) for sha256 in contents if _SHA256.fullmatch(sha256))


def work_on(path: ModelPath, choices: IngestChoices, stored: bytes, release: str) -> Examined:
    """What an executor is given, once for every file.

    Args:
        stored: the :func:`packed` contents of the store, which need not be measured.
        release: of quantstore, where the results are written: their tables are the same only there.

    Returns:
        Whatever is wrong with the file is a value. What is raised is about the worker.
    """
    attempt = Attempt.begin(path, choices.source)
    try:
        with enough_memory(), at_hand(path) as file_path:
            _require_release(release)
            file = opened(file_path, attempt)
            # 32 bytes that fit somewhere between two others do not occur.
            return examine(
                file,
                choices,
                attempt,
                lambda sha256: bytes.fromhex(sha256) in stored,
                _prober_of_thread(),
            )
    except QuantstoreError as error:
        return Refusal(
            attempt=attempt, peak_bytes=peak_bytes_with_children(), sentence=error.sentence
        )
    except Exception as error:
        # A bug, but one file's: thousands of others wait for this worker. Whoever writes logs it.
        summary = printable(f"{type(error).__name__}: {error}")
        return Refusal(
            attempt=attempt,
            peak_bytes=peak_bytes_with_children(),
            sentence=QuantstoreError(f"unexpected error: {summary}", "report this bug").sentence,
            traceback=traceback.format_exc(),
        )


def _require_release(release: str) -> None:
    if release != __version__:
        raise QuantstoreError(
            f"the worker runs quantstore {__version__}, and the store is written by {release}",
            f"install quantstore {release} on every worker",
        )


_thread = threading.local()


def _prober_of_thread() -> Prober:
    """One for each thread of a worker, and for all its files; it ends with the worker."""
    prober: Prober | None = getattr(_thread, "prober", None)
    if prober is None:
        prober = _thread.prober = Prober()
    return prober
