"""The file of a stored model: where it was read from, the copy beside the store, or chosen again.

A file that is chosen again is known by its content. It lies in a private folder until the session
ends, and its last job.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from quantstore import queries, settings, store
from quantstore.app.uploads import Upload
from quantstore.app.widgets import upload_box
from quantstore.errors import QuantstoreError
from quantstore.pipeline import keep_child, kept
from quantstore.pipeline.files import without_parts
from quantstore.wording.text import markdown
from quantstore.wording.units import file_size

KEEP = "Keep the file so that it can be run later"
CHOOSE_AGAIN = "Choose the file again"
CHOOSE_OR_ENTER = (
    "To run it, choose the file again, together with its external data, or enter its path in the"
    " sidebar."
)
ONE_MODEL = "Choose one model file, with its external data or parts."


@dataclass(frozen=True, slots=True)
class _ChosenFile:
    path: Path
    # Removes the folder with the last who knows of it.
    upload: Upload


@dataclass(frozen=True, slots=True)
class FileAtHand:
    """The file of a model, and the folder that must outlive the session while a job needs it."""

    path: Path
    upload: Upload | None = None

    def until_over(self, release: Callable[[], None] | None = None) -> Callable[[], None]:
        """What a job is given as ``when_finished``: it holds the file, and releases its inputs."""

        def let_go(_held: Upload | None = self.upload) -> None:
            if release is not None:
                release()

        return let_go


def find(source: str, sha256: str) -> FileAtHand | None:
    """The file of a stored model, if there is one that this session may run.

    Args:
        source: what the store says of the model's origin.
        sha256: of the model's content.
    """
    path = kept.file_at_hand(source, sha256, settings.store_path())
    if path is not None:
        return FileAtHand(path)
    chosen: _ChosenFile | None = _chosen_files().get(sha256)
    return None if chosen is None else FileAtHand(chosen.path, chosen.upload)


def choose_again(model: str, sha256: str, *, key: str) -> None:
    """The box where the file of a model is chosen again, and why what was chosen is not it."""
    st.caption(CHOOSE_OR_ENTER)
    round_key = f"{key}_round"
    round_number = st.session_state.setdefault(round_key, 0)
    with st.container(key=f"{key}_box"):
        files = st.file_uploader(
            CHOOSE_AGAIN, accept_multiple_files=True, key=f"{key}_{round_number}"
        )
    keep_checkbox(key=f"{key}_keep")
    problem = st.session_state.pop(f"{key}_problem", "")
    if files:
        with st.spinner("Reading the file"):
            problem = _taken(files, model, sha256, keep=bool(st.session_state[f"{key}_keep"]))
        st.session_state[f"{key}_problem"] = problem
        st.session_state[round_key] = round_number + 1
        st.rerun()
    if problem:
        st.error(problem)


def keep_checkbox(*, key: str) -> bool:
    """Whether an upload stays beside the store, and what there is room for."""
    return st.checkbox(KEEP, key=key, help=_room())


def _room() -> str:
    path = settings.store_path()
    kept_bytes = sum(kept.sizes(path).values())
    try:
        free = f" The disk has {file_size(kept.free_bytes(path))} left."
    except OSError:
        free = ""
    return (
        "A copy next to the store that only your user can read. It is deleted with the"
        f" model. Copies so far: {file_size(kept_bytes)}.{free}"
    )


def _taken(files: Sequence[upload_box.Uploaded], model: str, sha256: str, *, keep: bool) -> str:
    """Take over what was chosen; returns why it is not the file of the model, as Markdown."""
    try:
        upload = Upload(sum(file.size for file in files))
        upload.folder.mkdir()
        names = [upload_box.bare_name(file.name) for file in files]
        models = without_parts(Path(name) for name in names if upload_box.is_model(name))
        if len(models) != 1 or len({*names}) < len(names):
            return ONE_MODEL
        for name, file in zip(names, files, strict=True):
            upload_box.write(file, upload.folder / name)
    except OSError as error:
        return markdown(f"The file cannot be copied: {error.strerror}.")
    path = upload.folder / models[0]
    store_path = settings.store_path()
    try:
        content = keep_child.content_of(
            path, keep_if=sha256 if keep else None, store_path=store_path
        )
    except kept.UnkeptError as error:
        return markdown(error.sentence)
    except QuantstoreError as error:
        return markdown(f"{path.name}: {error.sentence}")
    if content != sha256:
        return _not_this_one(path.name, model, content)
    _chosen_files()[sha256] = _ChosenFile(path, upload)
    return ""


def _not_this_one(file_name: str, model: str, content: str) -> str:
    """That a file is another model, and which."""
    with store.reading(settings.store_path(), settings.patience_seconds()) as con:
        names = [queries.model_of_content(con, content, folded=folded) for folded in (True, False)]
    other = next(filter(None, names), None)
    sentence = f"{file_name} is not the file of {model}: the content differs."
    if other is not None:
        sentence += f" This is the file of {other}."
    return markdown(sentence)


def _chosen_files() -> dict[str, _ChosenFile]:
    chosen: dict[str, _ChosenFile] = st.session_state.setdefault("chosen_files", {})
    return chosen
