"""A statement under way in a thread of its own, so that whoever asked need not wait for it.

A page holds the question, looks in from time to time, and may cancel it.
"""

import time
from pathlib import Path
from threading import Thread

from quantstore import console
from quantstore.console import Answer
from quantstore.errors import QuantstoreError, RejectedQueryError, StoreError

# Most answers are there sooner: until then a page waits, instead of drawing that it waits.
PATIENCE_SECONDS = 0.6

Outcome = Answer | RejectedQueryError


class Question:
    """One statement: over at last, in time, cancelled or refused.

    Raises:
        RejectedQueryError: it is no text that could be asked.
    """

    def __init__(
        self, path: Path, sql: str, *, row_limit: int | None, timeout_seconds: float
    ) -> None:
        self.sql = sql
        self._started = time.monotonic()
        self._answer: Answer | None = None
        self._failure: Exception | None = None
        self._running = console.start(
            path, sql, row_limit=row_limit, timeout_seconds=timeout_seconds
        )
        # Not a daemon: DuckDB and the interpreter's end do not go together.
        self._thread = Thread(target=self._wait, name="question")
        self._thread.start()

    @property
    def seconds(self) -> float:
        """How long ago it was asked."""
        return time.monotonic() - self._started

    def is_over(self, patience_seconds: float = 0.0) -> bool:
        """Whether it came to an end, at the latest within so many seconds."""
        self._thread.join(patience_seconds)
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """End it: the outcome then says that it was cancelled, unless it is there already."""
        self._running.cancel()

    def outcome(self) -> Outcome:
        """What it came to; to be asked once it is over.

        Raises:
            StoreError: the store cannot be used.
        """
        if self._answer is not None:
            return self._answer
        if isinstance(self._failure, RejectedQueryError):
            return self._failure
        if isinstance(self._failure, QuantstoreError) and not isinstance(self._failure, StoreError):
            return RejectedQueryError(str(self._failure), self._failure.hint)
        if self._failure is None:
            raise RuntimeError("the question is not over yet")
        raise self._failure

    def _wait(self) -> None:
        try:
            self._answer = self._running.result()
        except Exception as error:
            # Whoever asks for the outcome gets it.
            self._failure = error
