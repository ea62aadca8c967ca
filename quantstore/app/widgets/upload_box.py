"""Where files are dropped or chosen: what is uploaded becomes jobs of the queue of files.

Every upload lies in a private folder of its own until its last model is over.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from threading import Lock
from typing import IO, Protocol, cast

import streamlit as st

from quantstore import settings
from quantstore.app.queue import FILES
from quantstore.app.uploads import Upload
from quantstore.app.widgets import arrivals, reach
from quantstore.file_formats import SUFFIXES, any_of
from quantstore.pipeline.files import is_model_file, without_parts

_COPY_BYTES = 1 << 20

LABEL = "Upload model files"
DATA_FILES_TOO = (
    "External data files and parts of a model: select them together with the model file."
)
NO_MODEL_IN_UPLOAD = (
    f"the upload has no {any_of(SUFFIXES)} file; select the model together with its data files"
)
IS_AN_ARCHIVE = "archives are not supported; unpack the archive and upload the model file"
TWO_OF_A_NAME = (
    "the upload has two models of this name, and data files; upload each model with its own data"
)
TWO_DATA_FILES = "the upload has two data files of this name; upload each model with its own data"
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".bz2")


class Uploaded(Protocol):
    """A file as Streamlit hands it over."""

    name: str
    size: int


def draw(name: str, *, keep: bool = False) -> None:
    """The box, emptied after each upload.

    Args:
        name: of the box; the stylesheet and the browser find it as ``NAME_upload``.
        keep: whether copies of the models stay beside the store.
    """
    rounds = st.session_state.setdefault("upload_rounds", {})
    round_number = rounds.setdefault(name, 0)
    with st.container(key=f"{name}_upload"):
        files = st.file_uploader(
            LABEL,
            accept_multiple_files=True,
            label_visibility="collapsed",
            key=f"{name}_upload_{round_number}",
        )
    if files:
        queue_uploads(files, keep=keep)
        # A new key empties the widget and frees its memory.
        rounds[name] = round_number + 1
        st.rerun()


def size_hint() -> str:
    """How large a file may be, and what to do with a larger one."""
    larger = ""
    if reach.is_this_computer_only():
        larger = f"{for_larger_files(st.get_option('server.maxUploadSize'))} "
    return f"{larger}{DATA_FILES_TOO}"


def for_larger_files(most_megabytes: int) -> str:
    """What to do with a file that is larger than an upload may be."""
    return f"Larger than {most_megabytes} MB? Enter a path below."


def queue_uploads(files: Sequence[Uploaded], *, keep: bool = False) -> None:
    """Copy an upload into a folder of its own, so that models lie beside their data files."""
    names = ", ".join(file.name for file in files)
    try:
        upload = Upload(sum(file.size for file in files))
    except OSError as error:
        FILES.refuse(names, f"cannot be copied: {error.strerror}; {_otherwise()}")
        return
    try:
        models = copied(files, upload.folder)
    except OSError as error:
        upload.remove()
        FILES.refuse(names, f"cannot be copied: {error.strerror}; {_otherwise()}")
        return
    if not models:
        upload.remove()
        return
    # Removed when its last model is ingested, failed or was cancelled.
    remaining = _Countdown(len(models), upload.remove)
    arrivals.expect(
        FILES.add(
            model,
            settings.store_path(),
            name=model.name,
            source=f"upload {model.name}",
            keep=keep,
            when_finished=remaining.one_less,
        )
        for model in models
    )


def copied(files: Iterable[Uploaded], folder: Path) -> list[Path]:
    """Write an upload into a new folder; returns the models in it, what cannot be one is refused.

    Two models of one name lie apart; the store then tells them by their content.
    """
    folder.mkdir()
    models: list[Path] = []
    # A browser sends a bare name; anything more would be an attempt to leave the folder.
    named = [(bare_name(file.name) or "upload.onnx", file) for file in files]
    counts = Counter(name for name, _ in named)
    has_data = any(not is_model(name) for name in counts)
    refused_names: set[str] = set()
    for name, file in named:
        reason = _reason_against(name, has_copies=counts[name] > 1, has_data=has_data)
        if reason:
            if name not in refused_names:
                FILES.refuse(name, reason)
            refused_names.add(name)
            continue
        target = folder / name
        if target.exists():
            # Its folder does not name it: a file called model.onnx is named after its folder.
            target = folder.parent / f"{folder.name}-{len(models)}" / folder.name / name
            target.parent.mkdir(parents=True)
        write(file, target)
        if is_model(name):
            models.append(target)
    if not models and not refused_names:
        FILES.refuse(", ".join(counts), NO_MODEL_IN_UPLOAD)
    return without_parts(models)


def bare_name(name: str) -> str:
    """The name of an uploaded file without any folder; empty where it has none."""
    return PurePath(name.replace("\\", "/")).name


def is_model(name: str) -> bool:
    """Whether a file of this name is a model."""
    return is_model_file(name)


def write(file: Uploaded, target: Path) -> None:
    """Copy an uploaded file to where it belongs.

    Raises:
        OSError: it cannot be written there.
    """
    with target.open("wb") as stream:
        shutil.copyfileobj(cast("IO[bytes]", file), stream, _COPY_BYTES)


def _reason_against(name: str, *, has_copies: bool, has_data: bool) -> str:
    """Why a file of an upload is not taken; empty where it is."""
    if PurePath(name).suffix.lower() in _ARCHIVES:
        return IS_AN_ARCHIVE
    if not has_copies:
        return ""
    if not is_model(name):
        return TWO_DATA_FILES
    # Nothing tells which of them the data belongs to.
    return TWO_OF_A_NAME if has_data else ""


def _otherwise() -> str:
    """How to add what cannot be uploaded."""
    if reach.is_this_computer_only():
        return "enter the path instead"
    return f"run on the server: {settings.command('ingest FILE')}"


class _Countdown:
    """Calls an action when the last of several jobs is over."""

    def __init__(self, count: int, action: Callable[[], None]) -> None:
        self._count = count
        self._action = action
        self._lock = Lock()

    def one_less(self) -> None:
        with self._lock:
            self._count -= 1
            is_last = self._count == 0
        if is_last:
            self._action()
