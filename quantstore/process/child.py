"""The side that asks: one child process, its limits, its answers, and its end.

A child runs a module of ours (``python -m``) that calls :func:`quantstore.process.serve.serve`;
the messages between the two are described there. Whatever becomes of the child (it hangs, crashes,
is killed, takes too much, prints rubbish), whoever waits for an answer gets one: the result, a
failure in a sentence, or :class:`EndedError` with the cause.
"""

import contextlib
import dataclasses
import io
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import IO, Any, cast

from quantstore import errors
from quantstore.errors import QuantstoreError
from quantstore.process import instructions
from quantstore.process.limits import ChildLimits
from quantstore.process.serve import MOST_CHUNK_BYTES, OUT_OF_MEMORY

logger = logging.getLogger(__name__)

# A child stops itself in time where the system has alarms; only then is it killed from this side.
GRACE_SECONDS = 0.5
# Three years: no clock of the system takes infinity.
MOST_WALL_SECONDS = 1e8
# The longest result, of a run with every tensor of a large network, has about 20 MB.
MOST_LINE_BYTES = 1 << 28
# What a library prints before the child takes its output away is a few lines.
MOST_RUBBISH_BYTES = 1 << 20

# As ``python -m`` does, without looking for cycles meanwhile: all that is loaded stays.
_LOAD = """\
import gc, runpy, sys
gc.disable()
runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
"""

# The module signal lacks them on Windows.
_SIGKILL, _SIGALRM, _SIGXCPU = 9, 14, 24

# Sums are short here: waking a thread for one takes longer than adding it up. And pools of threads
# reserve memory, which the limits count.
SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Cause(Enum):
    """Why a child ended, or was ended, without an answer."""

    CANCELLED = "cancelled"
    TOO_SLOW = "it exceeded its time limit"
    TOO_MUCH_CPU = "it exceeded its CPU time limit"
    OUT_OF_MEMORY = "it exceeded its memory limit"
    KILLED = "it was killed, probably because memory ran out"
    CRASHED = "it crashed"
    UNINTELLIGIBLE = "it sent an invalid message"
    SILENT = "it ended without a reason"


class EndedError(Exception):
    """A child ended, or was ended, without an answer; whoever asked says so in its own words."""

    def __init__(self, cause: Cause, signal_name: str = "") -> None:
        super().__init__(f"{cause.value} ({signal_name})" if signal_name else cause.value)
        self.cause = cause
        self.signal_name = signal_name


class BugInChildError(RuntimeError):
    """A child failed in a way that nobody foresaw; the text is its traceback."""

    def __init__(self, summary: str, traceback: str) -> None:
        super().__init__(traceback)
        self.summary = summary


class Child:
    """A process of ours. One thread asks it and waits; any thread may cancel or end it.

    Args:
        module: what it runs, ``quantstore.something``.
        environment: all of its variables, besides where to find this package; by default those of
            this process.
        extra_environment: variables on top.
        has_scratch: whether it gets a folder of its own for temporary files, which goes with it: a
            process that is killed removes nothing.
        shows_errors: whether its standard error is this process's own; else it is thrown away.
    """

    def __init__(
        self,
        module: str,
        *,
        environment: Mapping[str, str] | None = None,
        extra_environment: Mapping[str, str] | None = None,
        has_scratch: bool = False,
        shows_errors: bool = False,
    ) -> None:
        self._lock = threading.Lock()
        self._cause: Cause | None = None
        self._clock: threading.Timer | None = None
        self._deadline: float | None = None
        self._is_reaped = False
        self._scratch = _scratch_folder() if has_scratch else None
        self._process = subprocess.Popen(
            # -P: a file in the working folder must not shadow a module.
            [sys.executable, "-P", "-c", _LOAD, module],
            # It stays open as long as this process lives: the child ends when it closes.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if shows_errors and sys.stderr is not None else subprocess.DEVNULL,
            env={
                **(_own_environment() if environment is None else environment),
                "PYTHONPATH": _search_path(),
                **(extra_environment or {}),
                **({} if self._scratch is None else {"TMPDIR": self._scratch.name}),
            },
            # Ctrl+C is for this process alone; and a group can be killed with all its members.
            start_new_session=True,
            # The same on Windows, which knows no sessions.
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._messages = cast("IO[bytes]", self._process.stdout)

    @property
    def pid(self) -> int:
        """The process, which is also the group of those it starts."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether another request can be sent."""
        return self._cause is None and not self._is_reaped and not _has_ended(self._process)

    def ask(self, request: Any, limits: ChildLimits) -> None:
        """Send a request, any JSON value, and return at once; its clock runs from now on."""
        deadline = None
        # Of this request; one that nobody waits for any more has none.
        self._deadline = None
        if limits.wall_seconds is not None:
            wall_seconds = min(limits.wall_seconds, MOST_WALL_SECONDS)
            deadline = time.time() + wall_seconds
            self._deadline = time.monotonic() + wall_seconds
        message = {
            "limits": dataclasses.asdict(dataclasses.replace(limits, wall_seconds=None)),
            "deadline": deadline,
            "request": request,
        }
        # A child that is dead already is noticed when the answer is asked for.
        with contextlib.suppress(OSError, ValueError):
            self._requests.write(json.dumps(message).encode() + b"\n")
            self._requests.flush()

    def allow(self, seconds: float | None) -> None:
        """Start the clock of this side anew, for a request under way; None for no end."""
        with self._lock:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None
            if seconds is not None and self._cause is None:
                seconds = min(seconds, MOST_WALL_SECONDS)
                clock = threading.Timer(seconds, lambda: self._end(Cause.TOO_SLOW, clock))
                clock.daemon = True
                self._clock = clock
                clock.start()

    def answer(
        self,
        on_progress: Callable[[Any], None] | None = None,
        on_chunk: Callable[[bytes], None] | None = None,
    ) -> Any:
        """Wait for what comes of the request.

        Returns:
            The result, a JSON value.

        Raises:
            QuantstoreError: the failure that the child reported.
            EndedError: it ended, or was cancelled, before it was done.
            BugInChildError: it failed in a way that nobody foresaw.
        """
        if self._deadline is not None:
            self.allow(max(0.0, self._deadline - time.monotonic()) + GRACE_SECONDS)
        try:
            while (message := self._next_message()) is not None:
                if "progress" in message:
                    if on_progress is not None:
                        on_progress(message["progress"])
                elif "chunk" in message:
                    content = self._messages.read(message["chunk"])
                    if on_chunk is not None:
                        on_chunk(content)
                elif "result" in message:
                    return message["result"]
                elif "failure" in message:
                    raise _restored(message["failure"])
                else:
                    raise BugInChildError(**message["bug"])
        finally:
            self.allow(None)
        raise self._reason_of_end()

    def cancel(self) -> None:
        """End it; whoever waits for the answer is told that it was cancelled."""
        self._end(Cause.CANCELLED)

    def close(self) -> None:
        """End it and everything it started, whatever it is doing; to be called by who waits."""
        self.allow(None)
        self._end(Cause.CANCELLED)
        self._reap()
        for stream in (self._requests, self._messages):
            with contextlib.suppress(OSError):
                stream.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _end(self, cause: Cause, clock: threading.Timer | None = None) -> None:
        with self._lock:
            # A clock that was just about to strike when it was stopped must not end what came next.
            if self._is_reaped or (clock is not None and clock is not self._clock):
                return
            if self._cause is None:
                self._cause = cause
            _kill_group(self._process)

    def _reap(self) -> int:
        """Wait for its end; what it started ends with it."""
        if not self._is_reaped:
            _wait_for_end(self._process)
        with self._lock:
            if not self._is_reaped:
                # Before its number is given back: another process might get it.
                _kill_group(self._process)
                self._is_reaped = True
        return self._process.wait()

    def _reason_of_end(self) -> EndedError:
        # Its output is closed. A child that goes on without would do so for ever.
        was_ended_here = self._cause is not None
        if not was_ended_here and not self._is_reaped and not _ends_soon(self._process):
            self._end(Cause.SILENT)
        code = self._reap()
        if was_ended_here and self._cause is not None:
            return EndedError(self._cause)
        if code >= 0 or (self._cause is Cause.SILENT and -code == _SIGKILL):
            return EndedError(Cause.SILENT)
        cause = {
            _SIGALRM: Cause.TOO_SLOW,
            _SIGXCPU: Cause.TOO_MUCH_CPU,
            _SIGKILL: Cause.KILLED,
        }.get(-code, Cause.CRASHED)
        return EndedError(cause, _signal_name(-code))

    def _next_message(self) -> dict[str, Any] | None:
        """The next message; None at the end. What is no message is passed over."""
        rubbish_bytes = 0
        while True:
            try:
                line = self._messages.readline(MOST_RUBBISH_BYTES + 1)
                if line.startswith(b'{"') and not line.endswith(b"\n"):
                    # A message that is long, and not rubbish without an end.
                    line += self._messages.readline(MOST_LINE_BYTES)
            except (OSError, ValueError):
                # Closed by close().
                return None
            if not line:
                return None
            message = _parsed(line)
            if message is not None:
                return message
            # Cut off by the end of the process, or printed by a library before it began.
            logger.debug("process %d says what is no message: %r", self.pid, line[:200])
            rubbish_bytes += len(line)
            if rubbish_bytes > MOST_RUBBISH_BYTES:
                self._end(Cause.UNINTELLIGIBLE)
                return None


class ChunkReader(io.RawIOBase):
    """The chunks of an answer as a stream to read from, in another thread than the one that waits.

    ``take`` is for :meth:`Child.answer`; ``finish`` ends the stream.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._content = memoryview(b"")
        self._is_finished = False

    def take(self, content: bytes) -> None:
        """Hand over a chunk once the one before is read."""
        with self._changed:
            self._changed.wait_for(lambda: not self._content or self._is_finished)
            self._content = memoryview(content)
            self._changed.notify_all()

    def finish(self) -> None:
        """No chunk will follow, or nobody reads any more."""
        with self._changed:
            self._is_finished = True
            self._changed.notify_all()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._content) or self._is_finished)
            count = min(len(buffer), len(self._content))
            buffer[:count] = self._content[:count]
            self._content = self._content[count:]
            self._changed.notify_all()
        return count


def _scratch_folder() -> "tempfile.TemporaryDirectory[str] | None":
    """None where there is no room: the child finds that out by itself, and says so."""
    with contextlib.suppress(OSError):
        # Removed when the interpreter ends, too: whoever interrupts does not wait for close().
        return tempfile.TemporaryDirectory(prefix="quantstore-", ignore_cleanup_errors=True)
    return None


def _own_environment() -> dict[str, str]:
    """That of this process; numpy, which may have loaded here already, can still be told there."""
    environment = dict(os.environ)
    instructions.prefer_fast_sorting(environment)
    return environment


def _search_path() -> str:
    """Where the child finds this package, wherever it was started from."""
    package_parent = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH"))))


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or len(message) != 1:
        return None
    ((key, value),) = message.items()
    is_known = (
        key in ("progress", "result")
        or (key == "chunk" and type(value) is int and 0 <= value <= MOST_CHUNK_BYTES)
        or (key in _TEXTS and _are_texts(value, _TEXTS[key]))
    )
    return message if is_known else None


_TEXTS = {"failure": {"kind", "message", "hint"}, "bug": {"summary", "traceback"}}


def _are_texts(value: object, keys: set[str]) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == keys
        and all(isinstance(text, str) for text in value.values())
    )


def _restored(failure: dict[str, str]) -> Exception:
    if failure["kind"] == OUT_OF_MEMORY:
        return EndedError(Cause.OUT_OF_MEMORY)
    kind = getattr(errors, failure["kind"], None)
    if not (isinstance(kind, type) and issubclass(kind, QuantstoreError)):
        kind = QuantstoreError
    return kind(failure["message"], failure["hint"])


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    if hasattr(os, "killpg"):
        # macOS refuses to signal a group in which every process has ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Whether it is over; where possible without giving its number back."""
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _wait_for_end(process: "subprocess.Popen[bytes]") -> None:
    """Wait; where possible (not on macOS before Python 3.13) without giving its number back."""
    if hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()


def _ends_soon(process: "subprocess.Popen[bytes]") -> bool:
    deadline = time.monotonic() + GRACE_SECONDS
    while not (has_ended := _has_ended(process)) and time.monotonic() < deadline:
        time.sleep(0.005)
    return has_ended


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
