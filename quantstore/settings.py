"""Where the store is and how long to wait for it, for the app and the command line alike."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

ENVIRONMENT_VARIABLE = "QUANTSTORE_DB"
DEFAULT_STORE = "quantstore.duckdb"

# Writers hold the store for milliseconds; a large migration may take some seconds.
DEFAULT_WAIT_SECONDS = 30.0

_wait_seconds = ContextVar("wait_seconds", default=DEFAULT_WAIT_SECONDS)


def store_path() -> Path:
    """The store that ``QUANTSTORE_DB`` names, else ``quantstore.duckdb`` in the working folder."""
    return Path(os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_STORE)


def wait_seconds() -> float:
    """How long to wait for a store that others use, where nobody says otherwise."""
    return _wait_seconds.get()


@contextmanager
def waiting_at_most(seconds: float) -> Iterator[None]:
    """Wait so long in this block, which knows only its own thread."""
    token = _wait_seconds.set(seconds)
    try:
        yield
    finally:
        _wait_seconds.reset(token)
