"""Work under way in a child, while whoever wants it does something else, or looks in now and then.

One thread waits for the child; any other asks for the progress, cancels, or waits for the result.
"""

import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

Result = TypeVar("Result")
TakeProgress = Callable[[Any], None]


class Endable(Protocol):
    """A child, or what keeps one."""

    def cancel(self) -> None:
        """End it, from any thread; whoever waits for its answer is told."""

    def close(self) -> None:
        """End it and everything it started, and wait for its end."""


class Running(Generic[Result]):
    """An answer that somebody waits for.

    Args:
        child: ends when the work is over.
        work: waits for the child in a thread of its own and makes its answer the result; is given a
            function that takes the progress.
        is_daemon: whether the interpreter may end before the work does.
    """

    def __init__(
        self, child: Endable, work: Callable[[TakeProgress], Result], *, is_daemon: bool = True
    ) -> None:
        self._child = child
        self._work = work
        self._changed = threading.Condition()
        self._progress: Any = None
        self._result: Result
        self._failure: BaseException | None = None
        self._is_over = False
        self._started = time.monotonic()
        self._thread = threading.Thread(
            # With what the command line was told: how long to wait, where to log.
            target=contextvars.copy_context().run,
            args=[self._do],
            name="running",
            daemon=is_daemon,
        )
        try:
            self._thread.start()
        except BaseException:
            child.close()
            raise

    @property
    def progress(self) -> Any:
        """The latest progress; None before the first."""
        with self._changed:
            return self._progress

    @property
    def seconds(self) -> float:
        """How long ago it began."""
        return time.monotonic() - self._started

    def is_over(self, patience_seconds: float = 0.0) -> bool:
        """Whether :meth:`wait` would return at once, at the latest within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_over, patience_seconds)

    def cancel(self) -> None:
        """End it, unless it is over; :meth:`wait` then says that it was cancelled."""
        self._child.cancel()

    def close(self) -> None:
        """End it and wait for its end; nothing of it stays behind."""
        self._child.cancel()
        self._thread.join()

    def wait(self, report: TakeProgress | None = None) -> Result:
        """The result, when it is there; raises what the work raised.

        Args:
            report: is told each new progress, in this thread.
        """
        last: Any = None
        try:
            with self._changed:
                while not self._is_over:
                    # Woken now and then, so that Ctrl+C gets through.
                    self._changed.wait(0.5)
                    if report is not None and self._progress not in (None, last):
                        last = self._progress
                        report(last)
        except BaseException:
            self.cancel()
            # A daemon may be writing the store, and whoever interrupts does not wait for that.
            if not self._thread.daemon:
                self._thread.join()
            raise
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._result

    def _do(self) -> None:
        try:
            self._result = self._work(self._take_progress)
        except BaseException as error:
            # Raised again by wait(), in the thread of whoever asked.
            self._failure = error
        finally:
            try:
                self._child.close()
            finally:
                with self._changed:
                    self._is_over = True
                    self._changed.notify_all()

    def _take_progress(self, progress: Any) -> None:
        with self._changed:
            self._progress = progress
            self._changed.notify_all()
