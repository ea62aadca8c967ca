"""A model that somebody named in, its file out: by its name in the store, or by its path."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from quantstore import queries, store
from quantstore.errors import (
    MissingStoreError,
    ModelFileError,
    OlderStoreError,
    QuantstoreError,
    StoreError,
    UnknownModelError,
    hint_for,
)
from quantstore.pipeline import kept
from quantstore.pipeline.measure_file import content_of
from quantstore.pipeline.remote import is_url
from quantstore.store.models import NO_MODEL_NAMED


def origin_of(name: str, store_path: Path) -> queries.Origin | None:
    """Where a stored model comes from; None where the store holds none of this name."""
    try:
        with store.reading(store_path) as connection:
            return next(iter(queries.origins(connection, [name])), None)
    except MissingStoreError:
        return None
    except OlderStoreError:
        # The figures will be written to it anyway.
        store.update(store_path)
        return origin_of(name, store_path)


def file_of(
    origin: queries.Origin,
    store_path: Path,
    file: Path | None = None,
    *,
    if_gone: str,
    if_changed: str,
) -> Path:
    """The file of a stored model, whose content is what was measured.

    Args:
        file: the file, where it is not where it was.
        if_gone: what to do where nobody knows where it is.
        if_changed: what to do where it holds something else now.

    Raises:
        ModelFileError: it is not there, cannot be read, or holds something else.
    """
    path = file or kept.file_at_hand(origin.source, origin.sha256, store_path)
    if path is None:
        happened = (
            "has been moved or deleted"
            if Path(origin.source).is_absolute()
            else "is not on this computer"
            if is_url(origin.source)
            else "was not kept after the upload"
        )
        raise ModelFileError(f"the file of {origin.model!r} {happened}: {origin.source}", if_gone)
    if content(path) != origin.sha256:
        raise ModelFileError(
            f"{path} differs from the file that was measured as {origin.model!r}", if_changed
        )
    return path


def content(path: Path) -> str:
    """The SHA-256 of a model.

    Raises:
        QuantstoreError: what is wrong with the file; it begins with the name.
    """
    with naming(path):
        return content_of(path)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let what is wrong with a file begin with its path."""
    try:
        yield
    except StoreError:
        raise
    except QuantstoreError as error:
        error.args = (f"{path}: {error}",)
        raise


def named_path(named: str | Path, store_path: Path) -> Path:
    """The file that somebody named by its path.

    Raises:
        UnknownModelError: there is no such file.
    """
    path = _expanded(Path(named))
    if isinstance(named, str) and not _exists(path):
        raise UnknownModelError(
            f"{NO_MODEL_NAMED} {named!r}, and there is no such file",
            hint_for(named, _stored_names(store_path), UnknownModelError.hint),
        )
    return path


def _stored_names(store_path: Path) -> list[str]:
    with contextlib.suppress(MissingStoreError), store.reading(store_path) as connection:
        return queries.model_names(connection)
    return []


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        # An unknown user's home: a file of that very name, or none.
        return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        # A name that is too long, a character that no path may hold.
        return False
