"""A published folder with fewer, larger parts: small ones merged while others read and write.

The merged part names those that it replaces and appears by one rename: from then on whoever lists
the folder reads it in their stead. Whoever listed the folder before still reads the former parts;
they are removed by a compaction of a later day.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quantstore.store.beside import STALE_SECONDS, room_beside
from quantstore.store.connection import CONFIG
from quantstore.store.parts import (
    DIGESTS,
    MANIFEST,
    PUBLISHED_TABLES,
    FolderListing,
    PublishedPart,
    listing,
)
from quantstore.store.published import counting_rows, declared_columns, translating, views_of
from quantstore.store.publishing import ROOM, renew_views, write_part, writing_into

logger = logging.getLogger(__name__)

# Written in a second or two: not worth a part of its own.
SMALL_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class FolderSummary:
    """What the compaction of a published folder did.

    ``merged`` parts became one. The parts that count were so large before and are so large after.
    ``removed`` parts of former compactions are gone, ``waiting`` ones are still there.
    """

    merged: int
    bytes_before: int
    bytes_after: int
    removed: int
    waiting: int


def compact_folder(folder: Path, keep_seconds: float = STALE_SECONDS) -> FolderSummary:
    """Merge the small parts of a published folder into one, and remove what was merged long ago.

    Nothing is lost and nothing waits: readers and writers go on, several compactions may run at
    once, and one that is killed leaves the folder as it was.

    Args:
        keep_seconds: how long a part stays that others replaced, for those who still read it.

    Raises:
        StoreError: a part cannot be read.
        QuantstoreError: the folder cannot be written.
    """
    folder = folder.resolve()
    with writing_into(folder), translating(folder):
        before = listing(folder)
        bytes_before = _file_bytes(before.live)
        chosen = _small(before.live)
        if chosen:
            _merge(folder, chosen, before)
        removed = _remove_replaced(folder, keep_seconds)
        renew_views(folder)
    after = listing(folder)
    return FolderSummary(
        merged=len(chosen),
        bytes_before=bytes_before,
        bytes_after=_file_bytes(after.live),
        removed=removed,
        waiting=len(after.replaced),
    )


def _small(members: Iterable[PublishedPart]) -> list[PublishedPart]:
    """The parts to merge: a large one that exceeds all smaller ones together stays as it is.

    So a row is written again only when what it lies in doubles, and the number of parts grows with
    the logarithm of what they hold.
    """
    sizes = {part: part.file_bytes() for part in members}
    ascending = sorted(sizes, key=lambda part: (sizes[part], part.name))
    chosen = smaller = 0
    for count, part in enumerate(ascending, 1):
        if sizes[part] <= max(smaller, SMALL_BYTES):
            chosen = count
        smaller += sizes[part]
    return ascending[:chosen] if chosen > 1 else []


def _merge(folder: Path, members: list[PublishedPart], held: FolderListing) -> PublishedPart:
    """Write the rows of the parts that count among them as one part, which replaces them."""
    with (
        room_beside(folder / ROOM) as scratch,
        views_of(members, CONFIG | {"temp_directory": str(scratch)}) as connection,
    ):
        columns = declared_columns(connection)
        sources = {
            table.name: f"select {', '.join(columns[table.name])} from {counting_rows(table)}"
            for table in PUBLISHED_TABLES
        }
        # Also of what counts no longer: whoever still has it in a store must not bring it back.
        sources[DIGESTS] = f"select distinct {', '.join(columns[DIGESTS])} from parts.{DIGESTS}"
        return write_part(connection, folder, sources, _replaced_by(members, held))


def _replaced_by(members: Iterable[PublishedPart], held: FolderListing) -> frozenset[str]:
    """These parts, and those that they replaced and that are still there."""
    present = {part.name for part in held.replaced}
    return frozenset(name for part in members for name in (part.name, *(part.replaces & present)))


def _remove_replaced(folder: Path, keep_seconds: float) -> int:
    """Remove the parts that stopped counting so long ago; returns how many."""
    held = listing(folder)
    removed = 0
    with room_beside(folder / ROOM) as room:
        # The clock of the disk: that of this machine may be another.
        now = room.stat().st_mtime
        for part in held.replaced:
            try:
                replaced_at = min(
                    (other.path / MANIFEST).stat().st_mtime
                    for other in (*held.live, *held.replaced)
                    if part.name in other.replaces
                )
                if now - replaced_at < keep_seconds:
                    continue
                part.path.rename(room / part.name)
            except FileNotFoundError:
                # Another compaction is about it.
                continue
            except OSError as error:
                logger.warning("%s stays: %s", part.path, error.strerror)
                continue
            removed += 1
    return removed


def _file_bytes(members: Iterable[PublishedPart]) -> int:
    return sum(part.file_bytes() for part in members)
