"""What the program does, step by step: for whoever looks for the reason of something.

Nothing is said unless somebody asks (``--verbose``, ``--log-file``). Every line starts with the
time in UTC, the level, the module and the process, so that several processes may share a file.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quantstore.errors import printable

PACKAGE_LOGGER = logging.getLogger("quantstore")


@dataclass(frozen=True, slots=True)
class Logging:
    """Where to log: to standard error, to the end of a file, to both or to neither."""

    to_stderr: bool = False
    file: Path | None = None


NOWHERE = Logging()
# For processes that the app starts, and that nobody but it talks to.
FILE_VARIABLE = "QUANTSTORE_LOG_FILE"
STDERR_VARIABLE = "QUANTSTORE_LOG_STDERR"
_current = ContextVar("logging", default=NOWHERE)


def current() -> Logging:
    """How this thread was told to log; for a process that it starts."""
    return _current.get()


def hand_down() -> None:
    """Let every process that this one starts log where this thread does, if it asks for it."""
    where = current()
    if where.file is not None:
        os.environ[FILE_VARIABLE] = str(where.file)
    if where.to_stderr:
        os.environ[STDERR_VARIABLE] = "1"


def handed_down() -> Logging:
    """Where the process that started this one wants it to log."""
    file = os.environ.get(FILE_VARIABLE)
    return Logging(STDERR_VARIABLE in os.environ, Path(file) if file else None)


@contextmanager
def logging_to(where: Logging) -> Iterator[None]:
    """Log there in this block, besides what a block around it asked for.

    Raises:
        OSError: the file cannot be written.
    """
    with ExitStack() as stack:
        for handler in _handlers(where):
            handler.setFormatter(_Lines())
            stack.callback(handler.close)
            PACKAGE_LOGGER.addHandler(handler)
            stack.callback(PACKAGE_LOGGER.removeHandler, handler)
        level = PACKAGE_LOGGER.level
        stack.callback(PACKAGE_LOGGER.setLevel, level)
        PACKAGE_LOGGER.setLevel(logging.DEBUG)
        outer = _current.get()
        token = _current.set(Logging(where.to_stderr or outer.to_stderr, where.file or outer.file))
        stack.callback(_current.reset, token)
        yield


def _handlers(where: Logging) -> Iterator[logging.Handler]:
    if where.to_stderr:
        yield logging.StreamHandler(sys.stderr)
    if where.file is not None:
        # The name of a layer or of a file may hold what no encoding can write.
        yield logging.FileHandler(where.file, encoding="utf-8", errors="backslashreplace")


class _Lines(logging.Formatter):
    """One event on one line, except for a traceback; names from files cannot fake a line."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        start = f"{time} {record.levelname} {record.name} {record.process}"
        text = f"{start} {printable(record.getMessage())}"
        if record.exc_info:
            lines = self.formatException(record.exc_info).splitlines()
            text += "".join(f"\n    {printable(line)}" for line in lines)
        return text
