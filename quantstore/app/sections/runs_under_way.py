"""Runs, rescues and audits under way: their lines, and what came of those of this session."""

import html
from collections.abc import Sequence

import streamlit as st

from quantstore.app.queue import FINISHED, RUNS, Job, Work
from quantstore.app.widgets import jobs, navigation, notes
from quantstore.errors import printable
from quantstore.wording import audits
from quantstore.wording.rescues import before_and_after, rescued_db
from quantstore.wording.units import NO_BREAK_SPACE

# Of what a rescue says while it goes on.
MOST_MESSAGES = 4


def remember(job_id: int) -> None:
    """Note a job as this session's own: its page shows what comes of it."""
    st.session_state.setdefault("own_jobs", set()).add(job_id)
    st.session_state.setdefault("started_jobs", set()).add(job_id)


def is_own(job: Job) -> bool:
    """Whether this session started a job."""
    return job.job_id in st.session_state.get("started_jobs", ())


def adopt_results(work: Work) -> list[str]:
    """The keys of what this session started and what has ended since it last asked.

    Args:
        work: of simulations for ``run``, of rescues for ``rescue``, of audits for ``audit``.
    """
    started_jobs: set[int] = st.session_state.get("own_jobs", set())
    keys = []
    for job in RUNS.snapshot():
        if job.job_id in started_jobs and job.state in FINISHED and RUNS.work_of(job) == work:
            started_jobs.discard(job.job_id)
            if job.result is not None:
                keys.append(str(getattr(job.result, _KEYS[work])))
    return keys


# What the result of a job calls the key of what it stored.
_KEYS = {"run": "simulation_id", "rescue": "rescue_id", "audit": "audit_id"}


def under_way() -> None:
    """The queue of runs."""
    jobs.under_way(RUNS, lines, key="runs", poll_seconds=0.5)


def lines(runs: list[Job]) -> None:
    """The runs under way, each of which can be cancelled, and what became of the others."""
    for job in runs:
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            st.html(_job_line(job), width="stretch")
            if job.state not in FINISHED:
                st.button(
                    "Cancel",
                    type="tertiary",
                    key=f"cancel_run_{job.job_id}",
                    on_click=RUNS.cancel,
                    args=(job.job_id,),
                )
        if job.state == "running" and job.progress is not None:
            _certain(job.progress.messages if RUNS.work_of(job) == "rescue" else ())


def _certain(messages: Sequence[str]) -> None:
    """What a rescue knows already, while it goes on."""
    if messages:
        lines = (html.escape(printable(message)) for message in messages[-MOST_MESSAGES:])
        notes.note(f'<div style="padding-left:18px">{"<br>".join(lines)}</div>')


def _job_line(job: Job) -> str:
    return jobs.line(
        job,
        _status(job),
        style="font-size:13px",
        description=job.description,
        most_pixels=420,
    )


def _status(job: Job) -> str:
    if job.state == "running":
        progress = job.progress
        if progress is None:
            return "starting"
        of = f" {progress.done:,} of {progress.total:,}" if progress.total else ""
        return f"{printable(progress.stage)}{of}".replace(
            " of ", f"{NO_BREAK_SPACE}of{NO_BREAK_SPACE}"
        )
    if job.state == "failed":
        return f"failed: {job.message}"
    if job.state == "done" and RUNS.work_of(job) == "rescue":
        record = job.result.rescue.record
        if record.failure is not None:
            return f"no rescue: {printable(record.failure)}"
        return f"done: output SQNR {before_and_after(record.before_db, rescued_db(record))}"
    if job.state == "done" and RUNS.work_of(job) == "audit":
        record = job.result.audit.record
        return f"done: {audits.result_of(record.grid_db, record.sample_count)}"
    if job.state == "done":
        return "; ".join(["done", *(printable(note) for note in job.result.notes)])
    return job.state


def link_to_result(job: Job) -> None:
    """A link to the page that shows what came of a job."""
    work, result = RUNS.work_of(job), job.result
    if work == "audit":
        query_of_audit = {"model": str(result.int8_model), "audit": str(result.audit_id)}
        navigation.link(
            "audit", "Open the audit", icon="arrow_forward", query_params=query_of_audit
        )
        return
    query: dict[str, str | list[str]] = {"model": str(result.model)}
    if work == "run":
        query["runs"] = [str(result.simulation_id)]
        navigation.link("drift", "Open the run", icon="arrow_forward", query_params=query)
    elif work == "rescue":
        query["rescue"] = str(result.rescue_id)
        navigation.link("rescue", "Open the rescue", icon="arrow_forward", query_params=query)
    else:
        navigation.link("model", "Open the model", icon="arrow_forward", query_params=query)
