"""Is the file that a model was read from still what was measured?

Times and sizes tell at once that most files are; only a file that was written, moved or replaced
since is read again, and once. Of a model with external data the file of the graph is watched.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from quantstore.errors import QuantstoreError
from quantstore.numerics.measure_layer import is_current
from quantstore.pipeline.measure_file import content_of
from quantstore.queries import Origin

FileState = Literal[
    "same", "changed", "perhaps changed", "unreadable", "gone", "no file", "out of reach"
]

# Of files that are read again in one go: about a second's work.
READ_AGAIN_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Freshness:
    """What became of a file. ``message`` says why it cannot be read; ``sha256`` is of today.

    ``is_outdated``: an older release measured it, in another way than this one would.
    """

    file_state: FileState
    message: str = ""
    sha256: str | None = None
    is_outdated: bool = False

    @property
    def is_changed(self) -> bool:
        """Whether the file was read again and holds something else than was measured."""
        return self.file_state in ("changed", "unreadable")

    @property
    def may_have_changed(self) -> bool:
        """Whether only reading the file again would tell."""
        return self.file_state == "perhaps changed"

    @property
    def can_be_refreshed(self) -> bool:
        """Whether measuring the file again would change what is stored."""
        return self.file_state in ("changed", "perhaps changed") or (
            self.is_outdated and self.file_state == "same"
        )

    @property
    def is_in_order(self) -> bool:
        """Whether there is nothing to say: unchanged, or never a file that could change."""
        return self.file_state in ("same", "no file", "out of reach") and not self.is_outdated

    @property
    def needs_care(self) -> bool:
        """Whether somebody should look at it."""
        return self.is_changed or self.may_have_changed or self.is_outdated


OUT_OF_REACH = Freshness("out of reach")


@dataclass(frozen=True, slots=True)
class _FileStamp:
    """What a folder says of a file; as long as it says the same, nobody has written the file."""

    device: int
    inode: int
    written_ns: int
    moved_ns: int
    size: int


# What files held when they were read here, and their stamps right before.
_read: dict[Path, tuple[_FileStamp, str]] = {}


def all_fresh(
    origins: Iterable[Origin],
    budget_bytes: int = READ_AGAIN_BYTES,
    *,
    may_look: bool = True,
) -> dict[str, Freshness]:
    """What became of each model's file, by the model's name.

    Args:
        budget_bytes: of files to be read again, the smallest first; those beyond it are ``perhaps
            changed``.
        may_look: whether files may be looked into at all. A path in a store may come from anybody,
            and whoever reaches an app from elsewhere must not learn what lies on this disk.
    """
    by_model: dict[str, Freshness] = {}
    unread: list[tuple[int, Origin, _FileStamp]] = []
    for origin in origins:
        glance = _at_a_glance(origin) if may_look else OUT_OF_REACH
        if isinstance(glance, _FileStamp):
            # External data is read along with the graph, and counted in the stored size only.
            unread.append((max(glance.size, origin.file_bytes), origin, glance))
            glance = Freshness("perhaps changed")
        by_model[origin.model] = _dated(glance, origin)
    for size, origin, stamp in sorted(unread, key=lambda candidate: candidate[0]):
        if not _is_read(origin, stamp):
            budget_bytes -= size
        if budget_bytes < 0:
            break
        by_model[origin.model] = _dated(_compared(origin, stamp), origin)
    return by_model


def freshness(origin: Origin, *, may_look: bool = True) -> Freshness:
    """What became of one model's file, read again whatever its size if it may have changed."""
    glance = _at_a_glance(origin) if may_look else OUT_OF_REACH
    return _dated(_compared(origin, glance) if isinstance(glance, _FileStamp) else glance, origin)


def _dated(state: Freshness, origin: Origin) -> Freshness:
    return dataclasses.replace(
        state, is_outdated=not is_current(origin.measures_version, origin.schemes)
    )


def _at_a_glance(origin: Origin) -> Freshness | _FileStamp:
    """The state, or the stamp of a file that must be read to know it."""
    path = Path(origin.source)
    # An upload and an example are told by a word, which is no place on a disk.
    if not path.is_absolute():
        return Freshness("no file")
    try:
        status = path.stat()
    except (OSError, ValueError):
        return Freshness("gone")
    # What is moved or copied to this place may have been written long before.
    touched_at = datetime.fromtimestamp(max(status.st_mtime, status.st_ctime), UTC)
    is_as_old = touched_at.replace(tzinfo=None) <= origin.ingested_at
    # External data is counted in the stored size, so a smaller file may be the same.
    if is_as_old and status.st_size <= origin.file_bytes:
        return Freshness("same")
    return _FileStamp(
        device=status.st_dev,
        inode=status.st_ino,
        written_ns=status.st_mtime_ns,
        moved_ns=status.st_ctime_ns,
        size=status.st_size,
    )


def _is_read(origin: Origin, stamp: _FileStamp) -> bool:
    """Whether the content is known from an earlier reading."""
    return _read.get(Path(origin.source), (None, ""))[0] == stamp


def _compared(origin: Origin, stamp: _FileStamp) -> Freshness:
    """The state by the content, which is read unless it is known."""
    path = Path(origin.source)
    if not _is_read(origin, stamp):
        try:
            _read[path] = (stamp, content_of(path))
        except QuantstoreError as error:
            return Freshness("unreadable", error.sentence)
    sha256 = _read[path][1]
    return Freshness("same" if sha256 == origin.sha256 else "changed", sha256=sha256)
