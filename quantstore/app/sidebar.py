"""The sidebar: the target, adding models, and what becomes of them."""

import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePath
from threading import Lock

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from quantstore import queries, settings, store
from quantstore.app.queue import FILES, FINISHED, Job
from quantstore.app.uploads import Upload, remove_leftovers
from quantstore.app.widgets import browser_frame, colours, jobs, pickers, reach
from quantstore.errors import LockedStoreError, QuantstoreError
from quantstore.pipeline.files import find_files
from quantstore.wording.text import short_name
from quantstore.wording.units import counted, file_size, seconds

_COPY_BYTES = 1 << 20

PATH_PLACEHOLDER = "Path to a file or folder"
DATA_FILES_TOO = "Upload external data files together with the model."
PATHS_ARE_OFF = (
    "This app can be reached from other computers. Add files on the server from its terminal:"
)
NO_MODEL_IN_UPLOAD = "no .onnx file in the upload; upload the model together with its data files"


def draw(*, has_target: bool) -> None:
    """Everything below the navigation."""
    with st.sidebar:
        browser_frame.draw()
        colours.watch_theme()
        size = _store_size()
        if has_target and size is not None and size.models:
            pickers.pick_target()
        st.subheader("Add models", anchor=False)
        _sweep()
        _upload()
        if reach.is_this_computer_only():
            _path()
        else:
            st.caption(PATHS_ARE_OFF)
            st.code(settings.command("ingest FILE"), language=None, wrap_lines=True)
        jobs.under_way(FILES, _files, key="jobs", poll_seconds=0.4)
        if size is not None and size.models:
            contents = f"{counted(size.models, 'model')}, {counted(size.layers, 'layer')}"
            on_disk = file_size(settings.store_path().stat().st_size)
            st.caption(f"{contents}, {on_disk} on disk")


@st.cache_resource(show_spinner=False)
def _sweep() -> None:
    """Remove, once for each server, what one that was killed left behind."""
    remove_leftovers()


def _upload() -> None:
    round_number = st.session_state.setdefault("upload_round", 0)
    files = st.file_uploader(
        "Upload ONNX files",
        accept_multiple_files=True,
        label_visibility="collapsed",
        key=f"upload_{round_number}",
    )
    larger = ""
    if reach.is_this_computer_only():
        larger = f"{for_larger_files(st.get_option('server.maxUploadSize'))} "
    st.caption(f"{larger}{DATA_FILES_TOO}")
    if files:
        _queue_uploads(files)
        # A new key empties the widget and frees its memory.
        st.session_state["upload_round"] = round_number + 1
        st.rerun()


def for_larger_files(most_megabytes: int) -> str:
    """What to do with a file that is larger than an upload may be."""
    return f"Up to {most_megabytes} MB per file; for larger models, enter a path below."


def _otherwise() -> str:
    """How to add what cannot be uploaded."""
    if reach.is_this_computer_only():
        return "enter the path instead"
    return f"run on the server: {settings.command('ingest FILE')}"


def _queue_uploads(files: list[UploadedFile]) -> None:
    """Copy an upload into a folder of its own, so that models lie beside their data files."""
    names = ", ".join(file.name for file in files)
    try:
        upload = Upload(sum(file.size for file in files))
    except OSError as error:
        FILES.refuse(names, f"cannot be copied: {error.strerror}; {_otherwise()}")
        return
    try:
        models = _copied(files, upload.folder)
    except OSError as error:
        upload.remove()
        FILES.refuse(names, f"cannot be copied: {error.strerror}; {_otherwise()}")
        return
    if not models:
        upload.remove()
        FILES.refuse(names, NO_MODEL_IN_UPLOAD)
        return
    # Removed when its last model is ingested, failed or was cancelled.
    remaining = _Countdown(len(models), upload.remove)
    for model in models:
        FILES.add(
            model,
            settings.store_path(),
            name=model.name,
            source=f"upload {model.name}",
            when_finished=remaining.one_less,
        )


def _copied(files: list[UploadedFile], folder: Path) -> list[Path]:
    """Write an upload into a new folder; returns the models in it."""
    folder.mkdir()
    models: list[Path] = []
    for file in files:
        # A browser sends a bare name; anything more would be an attempt to leave the folder.
        target = folder / (PurePath(file.name.replace("\\", "/")).name or "upload.onnx")
        if target.is_file():
            FILES.refuse(file.name, "the upload has two files of this name; upload them separately")
            continue
        with target.open("wb") as stream:
            shutil.copyfileobj(file, stream, _COPY_BYTES)
        if target.suffix.lower() == ".onnx":
            models.append(target)
    return models


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


def _path() -> None:
    with (
        st.form("add_path", border=False, clear_on_submit=True),
        st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall"),
    ):
        text = st.text_input(
            "Path to a file or folder on this computer",
            placeholder=PATH_PLACEHOLDER,
            label_visibility="collapsed",
        )
        is_sent = st.form_submit_button("Add")
    # A file manager copies a path in quotes.
    text = text.strip().strip("\"'")
    if is_sent and text:
        _queue_path(text)
        st.rerun()


def _queue_path(text: str) -> None:
    try:
        files, failures = find_files([text])
        candidates = [(path, path.exists(), str(path.resolve())) for path in files]
    except (OSError, RuntimeError, ValueError):
        # Too long a name, the home of somebody unknown, a character that no path may have.
        FILES.refuse(short_name(text, 80), "this is not a valid path; check it")
        return
    for failure in failures:
        FILES.refuse(short_name(failure.path, 80), failure.error or "")
    for path, exists, source in candidates:
        name = path.name if exists else str(path)
        FILES.add(path, settings.store_path(), name=name, source=source)


def _files(files: list[Job]) -> None:
    """The files under way, which are cancelled together, and what became of the others."""
    running = [job for job in files if job.state not in FINISHED]
    if running:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{len(running)} of {len(files)} under way**")
            st.button("Cancel", type="tertiary", on_click=FILES.cancel_all, key="cancel_jobs")
    st.html(f'<div style="font-size:12px">{"".join(_job_line(job) for job in files)}</div>')


def _job_line(job: Job) -> str:
    return jobs.line(job, _status(job), style="margin-bottom:10px")


def _status(job: Job) -> str:
    if job.state == "waiting":
        return f"waiting, {job.description}"
    if job.state == "running":
        progress = job.progress
        if progress is None:
            return f"opening, {job.description}"
        if progress.is_probing:
            return "testing with noise inputs (int8 vs. float)"
        done, total = file_size(progress.bytes_done), file_size(progress.bytes_total)
        return (
            f"reading: layer {progress.layers_done} of {progress.layers_total}, {done} of {total}"
        )
    if job.state == "failed":
        return f"failed: {job.message}"
    if job.state == "cancelled":
        return "cancelled"
    result = job.result
    if result.outcome == "already stored":
        return f"already stored as {result.model}"
    renamed = "" if job.name.startswith(result.model) else f" as {result.model}"
    return f"done{renamed}: {counted(result.layers, 'layer')} in {seconds(result.seconds)}"


def _store_size() -> queries.StoreSize | None:
    """What the store holds; None where it cannot be asked."""
    path = settings.store_path()
    st.session_state["store_is_locked"] = False
    if not path.exists():
        return None
    try:
        return _size_at(path, store.stamp(path))
    except QuantstoreError as error:
        # The page itself says what is wrong with the store, and need not wait for it once more.
        st.session_state["store_is_locked"] = isinstance(error, LockedStoreError)
        return None


# Every run of every page asks this, and seldom has it changed.
@lru_cache(maxsize=1)
def _size_at(path: Path, stamp: store.StoreStamp) -> queries.StoreSize:
    """What the store held when it had this stamp, or holds since."""
    with store.reading(path, settings.patience_seconds()) as con:
        return queries.store_size(con)
