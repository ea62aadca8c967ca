"""The side that answers: a child reads requests, one at a time, and says what comes of each.

Standard input carries requests, a JSON line each: ``{"limits": {...}, "deadline": ...,
"request": ...}``. Standard output carries messages, a JSON line each: any number of
``{"progress": ...}`` and ``{"chunk": N}`` (N bytes follow), then one ``{"result": ...}``,
``{"failure": {...}}`` or ``{"bug": {...}}``. A child ends when its standard input does, because
then its parent is gone.
"""

import gc
import io
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from quantstore.errors import QuantstoreError, printable
from quantstore.process import limits
from quantstore.process.limits import ChildLimits

OUT_OF_MEMORY = "MemoryError"
MOST_CHUNK_BYTES = 1 << 24
# Between two reports of one stage: nobody reads faster.
PAUSE_SECONDS = 0.1


class Reply:
    """What a child says of one request."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._stage: str | None = None
        self._last_time = 0.0

    def progress(self, content: Any) -> None:
        """Say how far the work is; any JSON value."""
        self.write(_line({"progress": content}))

    def stage_progress(self, stage: str, content: Any) -> None:
        """The same where steps come fast: of one stage, no more often than somebody reads."""
        now = time.monotonic()
        if stage != self._stage or now - self._last_time >= PAUSE_SECONDS:
            self._stage, self._last_time = stage, now
            self.progress(content)

    def chunks(self) -> "io.BufferedWriter":
        """A stream of bytes to the parent, for what is no JSON; flush it before the result."""
        return io.BufferedWriter(_Chunks(self), 1 << 20)

    def end_with(self, result: Any) -> NoReturn:
        """Give the result and end this process at once, without any tidying up."""
        self.write(_line({"result": result}))
        os._exit(0)

    def write(self, content: bytes | memoryview) -> None:
        """Write bytes that are whole messages."""
        try:
            self._output.write(content)
            self._output.flush()
        except BrokenPipeError:
            # Nobody listens any more.
            os._exit(1)


class _Chunks(io.RawIOBase):
    """Bytes as messages of the protocol."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        # What is left over comes again: that is the contract of a raw stream.
        view = memoryview(content).cast("B")[:MOST_CHUNK_BYTES]
        self._reply.write(b'{"chunk": %d}\n' % view.nbytes)
        self._reply.write(view)
        return view.nbytes


AnswerRequest = Callable[[Any, Reply], Any]


def serve(answer: AnswerRequest) -> NoReturn:
    """Answer requests until the parent closes standard input.

    Args:
        answer: gets a request and says how far it is; what it returns, a JSON value, is the result.
            A :class:`QuantstoreError` is a failure that the parent raises again.
    """
    # The parent has switched it off while this process loads.
    gc.enable()
    # Whatever a library prints must not end up among the messages; and what it printed so far ends
    # here, or it would be part of the first one.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    output.write(b"\n")
    output.flush()
    # A process that is forked closes its standard input, and would wait for ever for the thread
    # that reads from it here. What is started here must not read requests either.
    incoming = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=[incoming, requests], daemon=True).start()
    reply = Reply(output)
    while True:
        line = _line_for(answer, json.loads(requests.get()), reply)
        limits.take_off_clocks()
        reply.write(line)


def _line_for(answer: AnswerRequest, request: dict[str, Any], reply: Reply) -> bytes:
    """The message that ends a request."""
    try:
        limits.put_on(ChildLimits(**request["limits"]))
        if request["deadline"] is not None:
            limits.put_on(ChildLimits(wall_seconds=request["deadline"] - time.time()))
        return _line({"result": answer(request["request"], reply)})
    except QuantstoreError as error:
        return _line(
            {"failure": {"kind": type(error).__name__, "message": str(error), "hint": error.hint}}
        )
    except MemoryError:
        return _line({"failure": {"kind": OUT_OF_MEMORY, "message": "", "hint": ""}})
    except Exception as error:
        # The parent shows it where somebody looks for it.
        first_line = (str(error).strip() or "no message").splitlines()[0]
        summary = printable(f"{type(error).__name__}: {first_line}")
        return _line({"bug": {"summary": summary, "traceback": traceback.format_exc()}})


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _listen(incoming: BinaryIO, requests: "queue.SimpleQueue[bytes]") -> None:
    for line in incoming:
        requests.put(line)
    os._exit(1)
