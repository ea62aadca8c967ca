"""Who may open the store next: writers take turns, and readers never shut a writer out for good.

DuckDB locks the file and lets one process write, or several read. It never waits, and inside one
process it refuses to read and write side by side. So the threads of a process pass a gate first,
and processes a turnstile. Both only put people in order; what protects the file is DuckDB's lock.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:
    # Windows: no turnstile, only the polling of whoever opens the file.
    fcntl = None  # type: ignore[assignment]

# How long a reader steps back for a writer: those that read already have left by then, even on a
# busy computer. More would let one reader that keeps the store open, for which the writer waits,
# shut out all the others.
COURTESY_SECONDS = 3.0

PAUSE_SECONDS = 0.01


class Gate:
    """One for each file and process: several threads read, or one writes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers: Counter[int] = Counter()
        self._is_writing = False
        self._writers_waiting = 0

    @contextmanager
    def shared(self, deadline: float) -> Iterator[bool]:
        """Among the readers for the length of the block; False where a writer has not left.

        Args:
            deadline: on the clock of :func:`time.monotonic`.
        """
        thread = threading.get_ident()
        with self._changed:
            # A thread that reads already would wait for the writer that waits for it.
            if thread not in self._readers:
                courtesy = min(COURTESY_SECONDS, _seconds_left(deadline))
                self._changed.wait_for(lambda: not self._is_a_writers_turn(), courtesy)
            is_in = self._changed.wait_for(lambda: not self._is_writing, _seconds_left(deadline))
            if is_in:
                self._readers[thread] += 1
        try:
            yield is_in
        finally:
            if is_in:
                with self._changed:
                    self._readers -= Counter([thread])
                    self._changed.notify_all()

    @contextmanager
    def alone(self, deadline: float) -> Iterator[bool]:
        """The only one for the length of the block; False where others have not left."""
        with self._changed:
            self._writers_waiting += 1
            try:
                is_in = self._changed.wait_for(
                    lambda: not self._is_writing and not self._readers, _seconds_left(deadline)
                )
                self._is_writing = self._is_writing or is_in
            finally:
                self._writers_waiting -= 1
                self._changed.notify_all()
        try:
            yield is_in
        finally:
            if is_in:
                with self._changed:
                    self._is_writing = False
                    self._changed.notify_all()

    def _is_a_writers_turn(self) -> bool:
        return self._is_writing or self._writers_waiting > 0


_GATES: dict[Path, Gate] = {}
_GATES_LOCK = threading.Lock()


def gate_of(path: Path) -> Gate:
    """The gate of a file, whatever the name it is called by."""
    with _GATES_LOCK:
        return _GATES.setdefault(path.resolve(), Gate())


@contextmanager
def turnstile(path: Path, deadline: float, *, is_writer: bool) -> Iterator[None]:
    """In turn with other processes for the length of the block, or once the wait is over.

    To be held while the file is being opened: by one writer, which thus finds a gap between
    readers, or by several readers, which thus come between two writers. It is a lock on the
    folder: nothing is left beside the store, and closing a file handle on the store itself would
    drop DuckDB's lock.
    """
    if fcntl is None:
        yield
        return
    lock_mode = fcntl.LOCK_EX if is_writer else fcntl.LOCK_SH
    if not is_writer:
        deadline = min(deadline, time.monotonic() + COURTESY_SECONDS)
    with ExitStack() as stack:
        # Where the folder may not be read, or knows no locks, there is no turnstile.
        with suppress(OSError):
            folder = os.open(path.resolve().parent, os.O_RDONLY)
            stack.callback(os.close, folder)
            while not _is_locked(folder, lock_mode) and _seconds_left(deadline) > 0:
                time.sleep(PAUSE_SECONDS)
        yield


def _is_locked(folder: int, lock_mode: int) -> bool:
    try:
        fcntl.flock(folder, lock_mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _seconds_left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
