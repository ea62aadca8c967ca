"""Uploaded models that somebody wants to run later: copies beside the store, for this user alone.

A store ``quantstore.duckdb`` has them in ``quantstore.duckdb.models``, one folder for each content,
named by its SHA-256, with the external data. A copy goes with its model.
"""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from quantstore import store
from quantstore.errors import QuantstoreError, StoreError
from quantstore.graph.file import ModelFile
from quantstore.pipeline.files import file_of, is_model_file, without_parts

SUFFIX = ".models"
_CONTENT = re.compile(r"[0-9a-f]{64}")
# Where a copy grows.
_UNFINISHED = ".unfinished-"
_STALE_SECONDS = 24 * 3600


class UnkeptError(QuantstoreError):
    """A model could not be kept; it is stored all the same."""

    hint = "free some disk space, or add the model by its path"


def folder_of(store_path: Path) -> Path:
    """Where the models of a store are kept."""
    return store_path.with_name(store_path.name + SUFFIX)


def file_at_hand(source: str, sha256: str, store_path: Path) -> Path | None:
    """The file of a stored model: where it was read from, else the copy; None without either.

    Args:
        source: what the store says of the model's origin.
        sha256: of the model's content.
    """
    return file_of(source) or kept_file(store_path, sha256)


def kept_file(store_path: Path, sha256: str) -> Path | None:
    """The copy of the model with this content; None where there is none."""
    if not _CONTENT.fullmatch(sha256):
        return None
    with contextlib.suppress(OSError):
        # Data lies beside it, and may be called anything but this.
        paths = without_parts(sorted((folder_of(store_path) / sha256).iterdir()))
        return next((path for path in paths if is_model_file(path) and path.is_file()), None)
    return None


def keep(file: ModelFile, store_path: Path) -> Path:
    """Copy a model and its external data beside the store; returns the copy.

    The folder is made for this user alone. The copy appears whole or not at all.

    Raises:
        UnkeptError: it cannot be written.
    """
    existing = kept_file(store_path, file.sha256)
    if existing is not None:
        return existing
    folder = folder_of(store_path)
    origin = file.path.absolute().parent
    unfinished = folder / f"{_UNFINISHED}{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        for path in (file.path.absolute(), *(data.path.absolute() for data in file.data_files)):
            # External data never lies outside the model's folder: it would not have been read.
            target = unfinished / path.relative_to(origin)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        unfinished.rename(folder / file.sha256)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise UnkeptError(
            f"{file.path.name} could not be kept: {error.strerror or error}"
        ) from error
    return folder / file.sha256 / file.path.name


def remove(store_path: Path, sha256: str) -> None:
    """Delete the copy of the model with this content, if there is one."""
    if _CONTENT.fullmatch(sha256):
        shutil.rmtree(folder_of(store_path) / sha256, ignore_errors=True)
        _remove_if_empty(folder_of(store_path))


def sizes(store_path: Path) -> dict[str, int]:
    """How many bytes each copy takes, by the SHA-256 of its content."""
    return {
        folder.name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        for folder in _copies(store_path)
    }


def free_bytes(store_path: Path) -> int:
    """What the disk of the store has left."""
    return shutil.disk_usage(store_path.absolute().parent).free


def unowned(store_path: Path) -> list[str]:
    """The contents of copies whose model the store does not hold any more.

    A store that cannot be read says nothing: there are none then.
    """
    copies = _copies(store_path)
    if not copies:
        return []
    try:
        with store.reading(store_path) as connection:
            stored = {row[0] for row in connection.rows("select sha256 from models")}
    except StoreError:
        return []
    return [folder.name for folder in copies if folder.name not in stored]


def sweep(store_path: Path) -> list[str]:
    """Delete copies whose model the store does not hold any more; returns their contents."""
    _remove_unfinished(folder_of(store_path))
    contents = unowned(store_path)
    for sha256 in contents:
        remove(store_path, sha256)
    return contents


def put_aside(store_path: Path, contents: Iterable[str], folder: Path) -> None:
    """Move copies into a folder on the same disk, from where :func:`put_back` takes them."""
    for sha256 in contents:
        with contextlib.suppress(FileNotFoundError):
            (folder_of(store_path) / sha256).rename(folder / sha256)


def put_back(store_path: Path, folder: Path) -> None:
    """Move copies back that :func:`put_aside` moved; those that are here again stay."""
    for copy in folder.iterdir():
        target = folder_of(store_path) / copy.name
        if _CONTENT.fullmatch(copy.name) and not target.exists():
            copy.rename(target)


def _copies(store_path: Path) -> list[Path]:
    try:
        entries = list(folder_of(store_path).iterdir())
    except OSError:
        return []
    # A link may lead anywhere; it is none of ours.
    return [
        entry
        for entry in entries
        if _CONTENT.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink()
    ]


def _remove_unfinished(folder: Path) -> None:
    """Remove what a process that was killed left half copied; no copy takes that long."""
    with contextlib.suppress(OSError):
        for entry in folder.glob(f"{_UNFINISHED}*"):
            if time.time() - entry.lstat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(entry, ignore_errors=True)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
