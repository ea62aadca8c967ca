"""A model that somebody chose again: is it the one that is stored? In a process of its own.

Parsing a file may crash the parser, or ask for more memory than there is; the app must not go with
it.
"""

from pathlib import Path
from typing import Any

from quantstore import graph
from quantstore.errors import ModelFileError
from quantstore.pipeline import kept
from quantstore.pipeline.outcome import CRASHED, LARGER_MACHINE, OUT_OF_MEMORY
from quantstore.process import limits
from quantstore.process.child import Cause, Child, EndedError
from quantstore.process.serve import Reply, serve

TIME_LIMIT_SECONDS = 600.0


def content_of(path: Path, *, keep_if: str | None = None, store_path: Path | None = None) -> str:
    """The SHA-256 of a model file and its external data.

    Args:
        keep_if: where the content is this one, it is kept beside the store.

    Raises:
        QuantstoreError: it cannot be read as a model, or not be kept.
    """
    child = Child(__name__, shows_errors=True)
    try:
        child.ask(
            {
                "path": str(path),
                "keep_if": keep_if,
                "store_path": None if store_path is None else str(store_path),
            },
            limits.sharing_memory(wall_seconds=TIME_LIMIT_SECONDS),
        )
        try:
            answer = child.answer()
        except EndedError as error:
            if error.cause in (Cause.OUT_OF_MEMORY, Cause.KILLED):
                raise ModelFileError(OUT_OF_MEMORY, LARGER_MACHINE) from error
            raise ModelFileError(CRASHED) from error
    finally:
        child.close()
    return str(answer["sha256"])


def _answer(request: dict[str, Any], _reply: Reply) -> dict[str, Any]:
    file = graph.open_any(Path(request["path"]))
    if file.sha256 == request["keep_if"]:
        kept.keep(file, Path(request["store_path"]))
    return {"sha256": file.sha256}


if __name__ == "__main__":
    serve(_answer)
