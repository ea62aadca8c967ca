"""A simulation in a process of its own: one request in, JSON lines out.

The request is ``{"path": ..., "inputs": ..., "choices": {...}}``; the answer is any number of
``{"progress": {...}}`` and, last, ``{"result": ..., "peak_bytes": ...}`` or ``{"failure": {...}}``.
A process can be cancelled, and a runtime that crashes takes down nothing else. It ends when its
standard input does, because then its parent is gone.
"""

import dataclasses
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from quantstore.errors import QuantstoreError, RunError
from quantstore.memory import peak_bytes

# Nobody reads faster.
_PAUSE_SECONDS = 0.1


def main() -> int:
    """Answer the request on standard input."""
    # Whatever a library prints must not end up among the answers.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _answer(output, request)
    except QuantstoreError as error:
        _say(output, {"failure": failure(error)})
    except MemoryError:
        _say(output, {"failure": failure(out_of_memory())})
    return 0


def failure(error: QuantstoreError) -> dict[str, str]:
    """A failure for the process that asked."""
    return {"kind": type(error).__name__, "message": str(error), "hint": error.hint}


def out_of_memory() -> RunError:
    """The sentence for a run that wants more memory than there is."""
    return RunError("the run needs more memory than there is", "try smaller inputs with --size")


def request(path: Path, inputs: str, choices: Any) -> str:
    """The line that :func:`main` reads."""
    content = {"path": str(path), "inputs": inputs, "choices": dataclasses.asdict(choices)}
    return json.dumps(content) + "\n"


def _answer(output: IO[str], request: dict[str, Any]) -> None:
    from quantstore.run.choices import Choices, Progress
    from quantstore.run.inputs import Preprocessing
    from quantstore.run.simulate import simulate

    chosen = request["choices"]
    how = chosen["preprocess"]
    if isinstance(how, dict):
        how |= {name: tuple(how[name]) for name in ("mean", "std", "size") if how[name]}
        chosen["preprocess"] = Preprocessing(**how)
    chosen["exclude"] = tuple(chosen["exclude"])
    said: tuple[str, float] = ("", 0.0)

    def report(progress: Progress) -> None:
        nonlocal said
        now = time.monotonic()
        if progress.stage != said[0] or now - said[1] >= _PAUSE_SECONDS:
            said = progress.stage, now
            _say(output, {"progress": dataclasses.asdict(progress)})

    found = simulate(Path(request["path"]), request["inputs"], Choices(**chosen), report)
    _say(output, {"result": found.to_json(), "peak_bytes": peak_bytes()})


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _say(output: IO[str], message: dict[str, Any]) -> None:
    print(json.dumps(message), file=output, flush=True)


if __name__ == "__main__":
    code = main()
    # Without the interpreter's tidying up, which waits for the thread that listens.
    os._exit(code)
