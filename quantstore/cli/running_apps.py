"""Which apps run on this computer, for which store: files that each keeps while it runs.

They lie in a folder of this user alone. An app that was killed leaves its file behind, which goes
when somebody looks for an app. A file counts only where the server answers.
"""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

HEALTH_SECONDS = 1.0


@contextmanager
def registered(store_path: Path, port: int) -> Iterator[None]:
    """Keep a file that says so while the app runs; an app that cannot write it runs without."""
    file = _folder() / f"{port}.json"
    record = {"port": port, "store": str(store_path.absolute()), "process": os.getpid()}
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(json.dumps(record), encoding="utf-8")
    except OSError as error:
        logger.info("%s: cannot be written: %s", file, error)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def port_of(store_path: Path, port: int | None = None) -> int | None:
    """Where an app for the store runs, on this port if one is named; None where none does."""
    for file, running in _apps():
        if not _is_alive(running.process):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        elif (
            port in (None, running.port)
            and _is_same_file(running.store, store_path)
            and is_healthy(running.port)
        ):
            return running.port
    return None


def is_healthy(port: int) -> bool:
    """Whether a server of Streamlit answers on a port of this computer."""
    # Few commands ask, and it loads slowly.
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HEALTH_SECONDS)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/_stcore/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


def _folder() -> Path:
    """Where programs of this user keep their state.

    https://specifications.freedesktop.org/basedir-spec/latest/
    """
    if sys.platform == "win32":
        state = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "quantstore" / "apps"


@dataclass(frozen=True, slots=True)
class _RunningApp:
    port: int
    store: Path
    process: int


def _apps() -> Iterator[tuple[Path, _RunningApp]]:
    """The files and what they say, as far as they can be read."""
    for file in sorted(_folder().glob("*.json")):
        try:
            record = json.loads(file.read_text("utf-8"))
            yield (
                file,
                _RunningApp(int(record["port"]), Path(record["store"]), int(record["process"])),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.info("%s: cannot be read: %s", file, error)


def _is_same_file(path: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.samefile(other)
    return False


def _is_alive(process: int) -> bool:
    if sys.platform == "win32":
        # A signal would end it there; the server must answer anyway.
        return True
    try:
        os.kill(process, 0)
    except OSError:
        # There is none, or it is somebody else's.
        return False
    return True
