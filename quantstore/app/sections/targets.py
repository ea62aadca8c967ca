"""The section of the Model page on targets: what hardware would lose, and measuring more of it."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from quantstore import settings
from quantstore.app.queue import FINISHED, RUNS, Job
from quantstore.app.sections import run_form, runs_under_way
from quantstore.app.widgets import jobs, listing, model_files
from quantstore.errors import printable
from quantstore.queries import Origin
from quantstore.records import NOTHING_ROUNDED
from quantstore.schemes import TARGETS
from quantstore.wording import frames
from quantstore.wording import targets as wording
from quantstore.wording.answers import StoredRescue
from quantstore.wording.text import markdown
from quantstore.wording.units import counted

MEASURE_OTHERS, MEASURE_AGAIN = "Measure the other targets", "Measure again"
NO_FILE = (
    "To measure the other targets, the file of this model is needed. It was uploaded and not kept,"
    " or it has moved."
)
FROM_A_TERMINAL = (
    "This app is open to other computers. To measure the other targets, run in a terminal:"
)


def section(origin: Origin, figures: pd.DataFrame, rescues: Sequence[StoredRescue]) -> None:
    """Draw the section.

    Args:
        origin: of the model, as the store has it.
        figures: as ``queries.model_targets`` gives them.
        rescues: the latest of each target.
    """
    st.space("small")
    st.header(wording.HEADING, anchor=False)
    st.caption(wording.CAPTION)
    by_target = {str(row["target"]): row for row in figures.to_dict("records")}
    rows = wording.target_rows(figures.to_dict("records"), rescues)
    listing.draw(wording.target_columns(rows), rows, key="targets", row_key="target")

    def belongs(job: Job) -> bool:
        return RUNS.work_of(job) == "probe" and job.name == printable(origin.model)

    missing = [name for name in TARGETS if _is_missing(by_target.get(name))]
    if missing and not is_under_way(origin.model):
        _offer(origin, missing, is_new=any(name not in by_target for name in missing))
    jobs.under_way(RUNS, runs_under_way.lines, key="targets", poll_seconds=0.5, belongs=belongs)


def is_under_way(model: str) -> bool:
    """Whether targets of a model are being measured, or wait for it."""
    return any(
        job.state not in FINISHED
        for job in RUNS.snapshot()
        if RUNS.work_of(job) == "probe" and job.name == printable(model)
    )


def cut_off(figures: pd.DataFrame) -> list[str]:
    """The targets that were tried and have no value, by their names.

    Args:
        figures: as ``queries.model_targets`` gives them.
    """
    return [str(row["target"]) for row in figures.to_dict("records") if _is_missing(row)]


def _offer(origin: Origin, missing: list[str], *, is_new: bool) -> None:
    """The button that measures what is missing, or how to do so elsewhere, or why not at all."""
    if origin.why_not_run:
        st.caption(markdown(origin.why_not_run))
        return
    if not run_form.is_offered():
        st.caption(FROM_A_TERMINAL)
        command = settings.command("probe FILE --target all")
        st.code(command, language=None, width="content", wrap_lines=True)
        return
    if model_files.find(origin.source, origin.sha256) is None:
        st.markdown(NO_FILE)
        model_files.choose_again(origin.model, origin.sha256, key="probe_file")
        return
    st.button(
        MEASURE_OTHERS if is_new else MEASURE_AGAIN,
        icon=":material/play_arrow:",
        key="measure_targets",
        help=f"Runs the model on noise in the background: {counted(len(missing), 'target')}.",
        on_click=measure,
        args=(origin, missing),
    )


def measure(origin: Origin, names: Sequence[str]) -> None:
    """Queue targets of a model; nothing where its file is not at hand."""
    file = model_files.find(origin.source, origin.sha256)
    if file is None:
        return
    job_id = RUNS.add_probe(
        origin.model,
        settings.store_path(),
        list(names),
        file=file.path,
        when_finished=file.until_over(),
    )
    runs_under_way.remember(job_id)


def _is_missing(row: dict[Any, Any] | None) -> bool:
    """Whether a target has no figure and may get one."""
    if row is None:
        return True
    has_figure = frames.figure_or_none(row["output_sqnr_db"]) is not None
    return not has_figure and row["failure"] not in NOTHING_ROUNDED
