"""The probe's child process: requests as JSON lines in, figures as JSON lines out.

A request is ``{"path": ..., "fold": ..., "deadline": ...}``; the answer is any number of
``{"facts": {...}}`` and ``{"figure": {...}}``, perhaps a ``{"failure": "..."}`` for what is
missing, and ``{"done": true}``. The process ends when its standard input does, because then its
parent is gone.
"""

import contextlib
import dataclasses
import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from quantstore.errors import QuantstoreError, printable

# A model may use this share of the computer's memory.
MEMORY_SHARE = 0.75
# Libraries alone reserve about one.
LEAST_ADDRESS_SPACE_BYTES = 4 << 30


def main() -> int:
    """Answer requests until there are no more."""
    # Whatever a library prints must not end up among the answers.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _limit_memory()
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    while True:
        request = json.loads(requests.get())
        _set_alarm(request["deadline"] - time.time())
        _answer(output, Path(request["path"]), fold=request["fold"])
        _set_alarm(0)
        _say(output, {"done": True})


def _listen(requests: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def _answer(output: IO[str], path: Path, *, fold: bool) -> None:
    try:
        from quantstore.run.figures import Facts, figures
        from quantstore.run.runtime import version

        _say(output, {"facts": {"onnxruntime_version": version()}})
        for found in figures(path, fold=fold):
            kind = "facts" if isinstance(found, Facts) else "figure"
            _say(output, {kind: dataclasses.asdict(found)})
    except QuantstoreError as error:
        _say(output, {"failure": error.sentence})
    except MemoryError:
        _say(output, {"failure": "the model needs more memory than it may have"})
    except Exception as error:
        # A bug of ours, or of a library. The probe must not cost anybody the rest of an ingest.
        first_line = (str(error).strip() or "no message").splitlines()[0]
        sentence = printable(f"the probe failed: {type(error).__name__}: {first_line}"[:400])
        _say(output, {"failure": sentence})


def _say(output: IO[str], message: dict[str, Any]) -> None:
    print(json.dumps(message), file=output, flush=True)


def _set_alarm(seconds: float) -> None:
    """End the process then, whatever it is doing; 0 for never."""
    if hasattr(signal, "setitimer"):
        if seconds < 0:
            os.kill(os.getpid(), signal.SIGALRM)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:
        # Windows: the parent's clock must do.
        return
    with contextlib.suppress(ValueError, OSError):
        # macOS refuses it.
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        wanted = max(LEAST_ADDRESS_SPACE_BYTES, int(MEMORY_SHARE * physical))
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or wanted < hard:
            resource.setrlimit(resource.RLIMIT_AS, (wanted, wanted))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
