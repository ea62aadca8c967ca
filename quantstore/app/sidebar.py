"""The sidebar: the target, adding models, and what becomes of them."""

from functools import lru_cache
from pathlib import Path

import streamlit as st

from quantstore import queries, settings, store
from quantstore.app.queue import FILES, FINISHED, RUNS, Job
from quantstore.app.sections import runs_under_way
from quantstore.app.uploads import remove_leftovers
from quantstore.app.widgets import (
    address,
    arrivals,
    browser_frame,
    colours,
    jobs,
    model_files,
    pickers,
    reach,
    undo,
    upload_box,
)
from quantstore.errors import LockedStoreError, QuantstoreError
from quantstore.pipeline import kept
from quantstore.pipeline.files import find_files
from quantstore.pipeline.outcome import IngestResult
from quantstore.wording.text import short_name
from quantstore.wording.units import counted, file_size, seconds

PATH_PLACEHOLDER = "Path to a file or folder"
PATHS_ARE_OFF = (
    "This app is open to other computers. To add files on the server, run in its terminal:"
)


def draw(*, has_target: bool) -> bool:
    """Everything below the navigation; returns whether the store holds a model."""
    with st.sidebar:
        browser_frame.draw()
        arrivals.follow()
        colours.watch_theme()
        size = _store_size()
        if has_target and size is not None and size.models:
            pickers.pick_target()
        st.subheader("Add models", anchor=False)
        _sweep()
        upload_box.draw("sidebar", keep=bool(st.session_state.get("keep_uploads")))
        st.caption(upload_box.size_hint())
        if reach.is_this_computer_only():
            model_files.keep_checkbox(key="keep_uploads")
        if reach.is_this_computer_only():
            _path()
        else:
            st.caption(PATHS_ARE_OFF)
            st.code(settings.command("ingest FILE"), language=None, wrap_lines=True)
        jobs.under_way(FILES, _files, key="jobs", poll_seconds=0.4)
        _runs()
        undo.draw()
        if size is not None and size.models:
            contents = f"{counted(size.models, 'model')}, {counted(size.layers, 'layer')}"
            on_disk = file_size(settings.store_path().stat().st_size)
            st.caption(f"{contents}, {on_disk} on disk")
    return size is not None and size.models > 0


@st.cache_resource(show_spinner=False)
def _sweep() -> None:
    """Remove, once for each server, what one that was killed left behind."""
    remove_leftovers()
    remove_leftovers(kept.folder_of(settings.store_path()))
    kept.sweep(settings.store_path())


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
    arrivals.expect(
        FILES.add(
            path, settings.store_path(), name=path.name if exists else str(path), source=source
        )
        for path, exists, source in candidates
    )


def _runs() -> None:
    """What this session runs, on the pages that do not show it themselves."""
    page = address.page()
    if page in ("drift", "rescue", "audit"):
        return
    jobs.under_way(
        RUNS,
        _run_lines,
        key="sidebar_runs",
        poll_seconds=0.5,
        belongs=lambda job: (
            runs_under_way.is_own(job) and (page != "model" or RUNS.work_of(job) != "probe")
        ),
    )


def _run_lines(runs: list[Job]) -> None:
    runs_under_way.lines(runs)
    for job in runs:
        if job.result is not None:
            runs_under_way.link_to_result(job)


def _files(files: list[Job]) -> None:
    """The files under way, which are cancelled together, and what became of the others."""
    running = [job for job in files if job.state not in FINISHED]
    if running:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{len(running)} of {len(files)} files in progress**")
            st.button("Cancel", type="tertiary", on_click=FILES.cancel_all, key="cancel_jobs")
    st.html(f'<div style="font-size:12px">{"".join(_job_line(job) for job in files)}</div>')
    arrivals.links()


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
        linked = "; it can be run from this file now" if result.is_linked else ""
        return f"already stored as {result.model}{linked}{_unkept(result)}"
    renamed = "" if job.name.startswith(result.model) else f" as {result.model}"
    layers = counted(result.layers, "layer")
    return f"done{renamed}: {layers} in {seconds(result.seconds)}{_unkept(result)}"


def _unkept(result: IngestResult) -> str:
    """That the file was to be kept, and is not."""
    return f"; {result.keep_failure}" if result.keep_failure else ""


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
