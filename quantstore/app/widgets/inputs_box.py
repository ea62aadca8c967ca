"""Inputs for a run: noise, files that are uploaded, or a path on this computer.

Files that are chosen switch the inputs to them. They lie in a private folder until the job is over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import streamlit as st

from quantstore.app.uploads import Upload
from quantstore.app.widgets import upload_box
from quantstore.run.inputs import IMAGE_SUFFIXES
from quantstore.wording.text import markdown
from quantstore.wording.units import counted

NOISE = "Noise"
UPLOADED = "Uploaded files"
OWN_DATA = "Path on this computer"
UPLOAD_LABEL = "Upload images, or one .npz or .npy file"

NO_INPUTS = (
    "Upload inputs, or enter the path of an image, an image folder, an .npz or an .npy file."
)
ONE_KIND = "Upload images only, or one .npz or .npy file."
FOLDER = "upload"
_ARRAYS = (".npz", ".npy")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run is fed: a path or ``noise``; ``problem``, as Markdown, where there is none.

    ``title`` names them for people; ``release`` is called when the job is over.
    """

    path: str = ""
    title: str = ""
    problem: str = ""
    release: Callable[[], None] | None = None


def upload(key: str) -> None:
    """The box for inputs. Outside a form, so that choosing files switches to them at once.

    Args:
        key: of the form: ``KEY_files``; the choice of inputs is ``KEY_kind``.
    """

    def switch() -> None:
        if st.session_state[f"{key}_files"]:
            st.session_state[f"{key}_kind"] = UPLOADED
        elif st.session_state.get(f"{key}_kind") == UPLOADED:
            st.session_state[f"{key}_kind"] = OWN_DATA

    suffixes = [suffix.removeprefix(".") for suffix in (*sorted(IMAGE_SUFFIXES), *_ARRAYS)]
    with st.container(key=f"{key}_upload"):
        st.file_uploader(
            UPLOAD_LABEL,
            type=suffixes,
            accept_multiple_files=True,
            key=f"{key}_files",
            on_change=switch,
        )


def pick(key: str, *, first: str, hint: str | None = None) -> None:
    """The choice of inputs and the path, inside a form.

    Args:
        first: what is chosen at first.
        hint: about the choice.
    """
    options = [first, *(kind for kind in (NOISE, UPLOADED, OWN_DATA) if kind != first)]
    st.selectbox("Inputs", options, key=f"{key}_kind", help=hint)
    st.text_input(
        "Image, image folder, .npz or .npy",
        placeholder="Path on this computer",
        key=f"{key}_folder",
        help=f"Only used with {OWN_DATA}.",
    )


def chosen(key: str) -> Inputs:
    """What was chosen when the form was sent; uploaded files are copied for the job."""
    kind = st.session_state[f"{key}_kind"]
    if kind == NOISE:
        return Inputs("noise", "noise")
    if kind == UPLOADED:
        return _copied(st.session_state.get(f"{key}_files") or [])
    text = path_in(str(st.session_state[f"{key}_folder"]))
    problem = _problem_with(text)
    return Inputs(text, text, problem or "")


def path_in(text: str) -> str:
    """What somebody typed or pasted into a field for a path."""
    return text.strip().strip("\"'")


def _copied(files: Sequence[object]) -> Inputs:
    uploaded = cast("Sequence[upload_box.Uploaded]", files)
    if not uploaded:
        return Inputs(problem=NO_INPUTS)
    names = [upload_box.bare_name(file.name) for file in uploaded]
    suffixes = [Path(name).suffix.lower() for name in names]
    arrays = sum(suffix in _ARRAYS for suffix in suffixes)
    is_sound = arrays == 0 or len(names) == 1
    if not is_sound or not all(s in _ARRAYS or s in IMAGE_SUFFIXES for s in suffixes):
        return Inputs(problem=ONE_KIND)
    try:
        room = Upload(sum(file.size for file in uploaded), name=FOLDER)
        room.folder.mkdir()
        for number, (name, file) in enumerate(zip(names, uploaded, strict=True)):
            # Two pictures may have one name: they came from different folders.
            target = room.folder / name
            if target.exists():
                target = room.folder / f"{number}-{name}"
            upload_box.write(file, target)
    except OSError as error:
        return Inputs(problem=markdown(f"The files cannot be copied: {error.strerror}."))
    if arrays:
        return Inputs(str(room.folder / names[0]), names[0], release=room.remove)
    title = f"{counted(len(names), 'uploaded image')}"
    return Inputs(str(room.folder), title.replace("\u00a0", " "), release=room.remove)


def _problem_with(path: str) -> str | None:
    """Why nothing can be run on what lies at this path, as Markdown; None where it exists."""
    if not path:
        return NO_INPUTS
    try:
        exists = Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        exists = False
    return None if exists else f"{markdown(path)} does not exist. Check the path."
