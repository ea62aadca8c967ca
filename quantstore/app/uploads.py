"""Private folders for what somebody uploads, removed whatever happens.

A folder is open to this user only, holds a file ``lock`` that stays locked while it is in use, and
goes with its last model, with the object that stands for it, or with the server. What a killed
server left behind is found by its lock, which nobody holds any more.
"""

import contextlib
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

PREFIX = "quantstore-upload-"
# One upload, or several that wait for each other. They pass through memory on their way here.
LARGEST_BYTES = 2_000_000_000

_LOCK = "lock"
# Where no file can be locked: no ingest takes that long.
_STALE_SECONDS = 24 * 3600

_live_bytes = 0
_live = threading.Lock()


class Upload:
    """A private folder for the files of one upload.

    Args:
        size_bytes: of the files.
        name: of the folder in it that is for them.
        parent: where it is made, by default the folder for temporary files.

    Raises:
        OSError: there is no room for it; ``strerror`` says so in words.
    """

    def __init__(self, size_bytes: int, *, name: str = "model", parent: Path | None = None) -> None:
        _take(size_bytes)
        try:
            private_folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            lock = _lock(private_folder)
        except OSError:
            _take(-size_bytes)
            raise
        # A file called model.onnx is named after its folder.
        self.folder = private_folder / name
        self._remove = weakref.finalize(self, _remove, private_folder, lock, size_bytes)

    def remove(self) -> None:
        """Remove the folder; twice does no harm."""
        self._remove()


def _remove(folder: Path, lock: int | None, size_bytes: int) -> None:
    _take(-size_bytes)
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)


def _take(size_bytes: int) -> None:
    """Count bytes of uploads in, or out where negative."""
    global _live_bytes
    with _live:
        if size_bytes > 0 and _live_bytes + size_bytes > LARGEST_BYTES:
            raise OSError(
                0, f"uploads under way may hold {LARGEST_BYTES // 1_000_000_000} GB together"
            )
        _live_bytes += size_bytes


def remove_leftovers(parent: Path | None = None) -> list[Path]:
    """Remove what servers that are gone left behind; returns the folders.

    Args:
        parent: where they made it, by default the folder for temporary files.
    """
    removed = []
    for folder in _leftovers(parent or Path(tempfile.gettempdir())):
        shutil.rmtree(folder, ignore_errors=True)
        removed.append(folder)
    return removed


def _leftovers(parent: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            # Others may put a link of this name into the common folder.
            is_candidate = entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False)
            if is_candidate and _is_ours(entry) and _is_abandoned(Path(entry.path)):
                yield Path(entry.path)


def _is_ours(entry: "os.DirEntry[str]") -> bool:
    return not hasattr(os, "getuid") or entry.stat(follow_symlinks=False).st_uid == os.getuid()


def _is_abandoned(folder: Path) -> bool:
    """Whether no process holds the lock of the folder."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        # Not locked yet: somebody is just making it. Or it was left before that, long ago.
        return time.time() - folder.stat().st_mtime > _STALE_SECONDS
    try:
        return _try_lock(descriptor, folder)
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int | None:
    """Lock the folder for as long as the descriptor is open; None where no file can be locked."""
    if not _can_lock():
        # Windows, which neither renames nor removes a file that is open.
        return None
    making = folder / f"{_LOCK}.new"
    descriptor = os.open(making, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    _try_lock(descriptor, folder)
    # Locked before it has the name that others look for.
    making.rename(folder / _LOCK)
    return descriptor


def _try_lock(descriptor: int, folder: Path) -> bool:
    """Take the lock, if nobody has it; says whether."""
    if not _can_lock():
        return time.time() - folder.stat().st_mtime > _STALE_SECONDS
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _can_lock() -> bool:
    try:
        import fcntl  # noqa: F401
    except ImportError:
        return False
    return True
