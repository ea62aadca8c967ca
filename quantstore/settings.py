"""Where the store is and how long to wait for it, for the app and the command line alike."""

import math
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from quantstore.errors import QuantstoreError

ENVIRONMENT_VARIABLE = "QUANTSTORE_DB"
# By this the command that starts the app tells every thread and process of the app.
WAIT_VARIABLE = "QUANTSTORE_WAIT"
DEFAULT_STORE = "quantstore.duckdb"
# By this file a folder is known as a published one.
PUBLISHED_VIEWS = "published.duckdb"

# Writers hold the store for milliseconds; a large migration may take some seconds.
DEFAULT_WAIT_SECONDS = 30.0
MOST_PATIENCE_SECONDS = 10.0

_wait_seconds: ContextVar[float | None] = ContextVar("wait_seconds", default=None)


def store_path() -> Path:
    """The store that ``QUANTSTORE_DB`` names, else ``quantstore.duckdb`` in the working folder."""
    return Path(os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_STORE)


def published_folder(path: Path) -> Path | None:
    """The folder that a path names, by itself or by its file of views; None for any other path."""
    folder = path.parent if path.name == PUBLISHED_VIEWS else path
    try:
        return folder if (folder / PUBLISHED_VIEWS).is_file() else None
    except OSError:
        # A name that no system accepts, too long for example.
        return None


def command(arguments: str, path: Path | None = None) -> str:
    """A command for a shell that acts on one store: ``quantstore --db FILE compact``.

    The store is left out where a bare command would act on it.

    Args:
        arguments: what follows the name of the program.
        path: the store of a reader in this terminal. By default the store of this process, for a
            reader in another one: ``QUANTSTORE_DB`` need not say the same there.
    """
    usual = Path(DEFAULT_STORE) if path is None else store_path()
    path = path or store_path()
    if path.absolute() == usual.absolute():
        return f"quantstore {arguments}"
    return f"quantstore --db {shlex.quote(str(path))} {arguments}"


def wait_seconds() -> float:
    """How long to wait for a store that others use, where nobody says otherwise."""
    chosen_seconds = _wait_seconds.get()
    if chosen_seconds is not None:
        return chosen_seconds
    environment_value = os.environ.get(WAIT_VARIABLE, DEFAULT_WAIT_SECONDS)
    try:
        seconds = float(environment_value)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise QuantstoreError(
            f"{WAIT_VARIABLE} must be a number of seconds, not {environment_value!r}", "unset it"
        )
    return seconds


def patience_seconds() -> float:
    """How long a page waits: a person at a page has less patience than a script."""
    return min(MOST_PATIENCE_SECONDS, wait_seconds())


@contextmanager
def waiting_at_most(seconds: float) -> Iterator[None]:
    """Wait so long in this block, which knows only its own thread."""
    token = _wait_seconds.set(seconds)
    try:
        yield
    finally:
        _wait_seconds.reset(token)
