"""Is the file that a model was read from still what was measured?

Times and sizes tell at once that most files are; only a file that was written since is read again.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal

from quantstore.errors import QuantstoreError
from quantstore.ingestion import content_of
from quantstore.measure import MEASURES_VERSION
from quantstore.queries import Origin

Kind = Literal[
    "same", "changed", "perhaps changed", "unreadable", "gone", "no file", "out of reach"
]

# Of files that are read again in one go: about a second's work.
READ_AGAIN_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Freshness:
    """What became of a file. ``message`` says why it cannot be read; ``sha256`` is of today.

    ``is_outdated``: an older release measured it, in another way than this one would.
    """

    kind: Kind
    message: str = ""
    sha256: str | None = None
    is_outdated: bool = False

    @property
    def is_changed(self) -> bool:
        """Whether the file holds something else than was measured, as far as that is known."""
        return self.kind in ("changed", "perhaps changed", "unreadable")

    @property
    def can_be_refreshed(self) -> bool:
        """Whether measuring the file again would change what is stored."""
        return self.kind in ("changed", "perhaps changed") or (
            self.is_outdated and self.kind == "same"
        )

    @property
    def is_in_order(self) -> bool:
        """Whether there is nothing to say: unchanged, or never a file that could change."""
        return self.kind in ("same", "no file", "out of reach") and not self.is_outdated

    @property
    def needs_care(self) -> bool:
        """Whether somebody should look at it."""
        return self.is_changed or self.is_outdated


OUT_OF_REACH = Freshness("out of reach")


def all_fresh(
    origins: Iterable[Origin],
    budget_bytes: int = READ_AGAIN_BYTES,
    *,
    may_look: bool = True,
) -> dict[str, Freshness]:
    """What became of each model's file, by the model's name.

    Args:
        budget_bytes: of files that were written since; beyond it they are ``perhaps changed``.
        may_look: whether files may be looked into at all. A path in a store may come from anybody,
            and whoever reaches an app from elsewhere must not learn what lies on this disk.
    """
    found: dict[str, Freshness] = {}
    for origin in origins:
        state, spent = _freshness(origin, budget_bytes) if may_look else (OUT_OF_REACH, 0)
        budget_bytes -= spent
        found[origin.model] = _dated(state, origin)
    return found


def freshness(origin: Origin, *, may_look: bool = True) -> Freshness:
    """What became of one model's file, read again whatever its size if it was written since."""
    return _dated(_freshness(origin, None)[0] if may_look else OUT_OF_REACH, origin)


def _dated(state: Freshness, origin: Origin) -> Freshness:
    return dataclasses.replace(state, is_outdated=origin.measures_version < MEASURES_VERSION)


def _freshness(origin: Origin, budget_bytes: int | None) -> tuple[Freshness, int]:
    """The state, and how many bytes were read to know it."""
    path = Path(origin.source)
    # An upload and an example are told by a word, which is no place on a disk.
    if not path.is_absolute():
        return Freshness("no file"), 0
    try:
        status = path.stat()
    except (OSError, ValueError):
        return Freshness("gone"), 0
    written_at = datetime.fromtimestamp(status.st_mtime, UTC).replace(tzinfo=None)
    # External data is counted in the stored size, so a smaller file may be the same.
    if written_at <= origin.ingested_at and status.st_size <= origin.file_bytes:
        return Freshness("same"), 0
    if budget_bytes is not None and status.st_size > budget_bytes:
        return Freshness("perhaps changed"), 0
    try:
        sha256 = _content(path, status.st_mtime_ns, status.st_size)
    except QuantstoreError as error:
        return Freshness("unreadable", error.sentence), status.st_size
    kind: Kind = "same" if sha256 == origin.sha256 else "changed"
    return Freshness(kind, sha256=sha256), status.st_size


@lru_cache(maxsize=4096)
def _content(path: Path, _mtime_ns: int, _size: int) -> str:
    """The same file is not read twice, as long as nobody writes it."""
    return content_of(path)
