"""The parts of a published folder: which of them count, and what each says of itself.

A part is a folder ``part_id=NAME/`` with one Parquet file per table and a manifest. It appears
whole, by one rename, and never changes. A part that a compaction wrote names the parts that it
replaces: they count no longer, from the moment at which it is there, and may be removed much later.
So whoever lists the folder once has a complete state of it, whatever happens meanwhile.
"""

import errno
import json
import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from quantstore.errors import StoreError
from quantstore.store.schema import SCHEMA_VERSION
from quantstore.store.tables import DERIVED, INGESTS, OF_MODELS, parquet_name

PUBLISHED_TABLES = (*OF_MODELS, *DERIVED, INGESTS)
# What was ever published of a model: of a state that a later one has replaced, the digest stays.
DIGESTS = "digests"
FILES = frozenset(parquet_name(name) for name in (*(t.name for t in PUBLISHED_TABLES), DIGESTS))

MANIFEST = "part.json"
# DuckDB reads such a name as a column, which no table may have.
PREFIX = "part_id="
FORMAT = "quantstore part"
_LARGEST_MANIFEST_BYTES = 16 << 20
_PART_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{32}}")

NO_PART = "is no part that quantstore wrote"
IS_A_LINK = "is a symbolic link"
NOT_REGULAR = "is not a regular file"
LACKS = "lacks"
OF_ANOTHER_RELEASE = "was published by another release"


@dataclass(frozen=True, slots=True)
class PublishedPart:
    """A part, and the names of those whose content it holds as well."""

    path: Path
    replaces: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.path.name

    def file(self, table: str) -> Path:
        """The file that holds a table."""
        return self.path / parquet_name(table)

    def file_bytes(self) -> int:
        """The size of all files."""
        return sum((self.path / name).stat().st_size for name in FILES)


@dataclass(frozen=True, slots=True)
class FolderListing:
    """A folder as it was at one moment: the parts that count, and those that others replaced."""

    live: tuple[PublishedPart, ...]
    replaced: tuple[PublishedPart, ...]


# Parts never change: each is looked at once in a process.
_SEEN: dict[Path, PublishedPart] = {}
# A part disappears a day after it stopped counting; a folder listed right before is listed again.
_MOST_LISTINGS = 5


def listing(folder: Path) -> FolderListing:
    """What the folder holds now.

    Raises:
        StoreError: it holds a part that cannot be read, or one of another release.
    """
    for _ in range(_MOST_LISTINGS):
        try:
            return _listing(folder)
        except FileNotFoundError:
            continue
    raise StoreError(
        f"{folder} cannot be read: its parts disappear while it is read",
        "try again when nothing removes files from it",
    )


def _listing(folder: Path) -> FolderListing:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.startswith(PREFIX))
        all_parts = [_SEEN.get(folder / name) or _look_at(folder / name) for name in names]
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be read: {error.strerror}", "name a folder that you may read"
        ) from error
    replaced = frozenset[str]().union(*(part.replaces for part in all_parts))
    return FolderListing(
        tuple(part for part in all_parts if part.name not in replaced),
        tuple(part for part in all_parts if part.name in replaced),
    )


def _look_at(path: Path) -> PublishedPart:
    """A part that this process has not met; raises where it is none, or is incomplete."""
    if path.is_symlink():
        raise StoreError(f"{path} {IS_A_LINK}", "replace it by the part itself, or remove it")
    manifest = _read_manifest(path)
    if manifest is None or not _PART_NAME.fullmatch(path.name):
        raise StoreError(f"{path} {NO_PART}", "move it out of the folder")
    if manifest.get("schema_version") != SCHEMA_VERSION:
        version = manifest.get("schema_version")
        raise StoreError(
            f"{path} {OF_ANOTHER_RELEASE} (schema {version!r:.20}, this one has {SCHEMA_VERSION})",
            "use the release that published the folder, or publish into a new folder",
        )
    replaces = manifest.get("replaces")
    if not isinstance(replaces, list) or not all(map(_is_part_name, replaces)):
        raise StoreError(f"{path} {NO_PART}", "move it out of the folder")
    with os.scandir(path) as entries:
        regular = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    for name in sorted(FILES):
        if not regular.get(name):
            wrong = f"{path / name} {NOT_REGULAR}" if name in regular else f"{path} {LACKS} {name}"
            raise StoreError(wrong, "restore the part, or move it out of the folder")
    _SEEN[path] = PublishedPart(path, frozenset(replaces))
    return _SEEN[path]


def _is_part_name(name: object) -> bool:
    return isinstance(name, str) and _PART_NAME.fullmatch(name) is not None


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """What a part says of itself; None where there is nothing of the kind."""
    try:
        with (path / MANIFEST).open("rb") as stream:
            manifest = json.loads(stream.read(_LARGEST_MANIFEST_BYTES))
    except (NotADirectoryError, ValueError, RecursionError):
        return None
    except FileNotFoundError:
        # Either removed a moment ago, or never complete.
        if path.exists():
            return None
        raise
    is_ours = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    return manifest if is_ours else None


def put_in_place(
    fresh: Path, folder: Path, content: str, replaces: frozenset[str]
) -> PublishedPart:
    """Name a finished part by what it holds and replaces, and let everybody see it.

    Another part of that name holds the same: then it stays, and ``fresh`` is left where it is.

    Args:
        fresh: a folder with all files of the part, on the same disk as ``folder``.
        content: a digest of the content, the same for the same content.
    """
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "content": content,
        "replaces": sorted(replaces),
    }
    text = json.dumps(manifest, indent=1) + "\n"
    (fresh / MANIFEST).write_text(text, encoding="utf-8")
    # A part that others make way for must be on the disk before its name is.
    for file in fresh.iterdir():
        _flush(file)
    path = folder / f"{PREFIX}{sha256(text.encode()).hexdigest()[:32]}"
    try:
        fresh.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    return PublishedPart(path, replaces)


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
