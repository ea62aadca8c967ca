"""Room beside a file or folder in which its successor grows until it takes over by a rename."""

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# No copy takes that long; what is older was left by a process that was killed.
STALE_SECONDS = 24 * 3600.0


@contextmanager
def room_beside(target: Path) -> Iterator[Path]:
    """An empty folder next to ``target``, on the same disk; what is left in it is removed.

    Raises:
        OSError: there is no place for it.
    """
    prefix = f".{target.name}.quantstore-"
    _remove_leftovers(target.parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(parent: Path, prefix: str) -> None:
    # As mkdtemp makes names, so that nothing of anybody else is meant.
    temporary_name = re.compile(re.escape(prefix) + r"[a-z0-9_]{8}")
    with suppress(OSError):
        for entry in parent.iterdir():
            is_old = time.time() - entry.lstat().st_mtime > STALE_SECONDS
            # A symbolic link is not followed: rmtree refuses it.
            if is_old and temporary_name.fullmatch(entry.name):
                shutil.rmtree(entry, ignore_errors=True)
