"""The jobs of a queue, and what became of the others: lines that follow it by themselves.

A queue comes in, and a function that draws its jobs; each job is a line of HTML, drawn here alone.
"""

import html
from collections.abc import Callable

import streamlit as st

from quantstore.app.widgets import address
from quantstore.charts.palette import DARK, LIGHT, both
from quantstore.process.queue import FINISHED, Job, Queue

_MARKS = {"waiting": "•", "running": "•", "done": "✓", "failed": "!", "cancelled": "–"}

_MUTED = both(LIGHT.muted, DARK.muted)
_BROKEN = both(LIGHT.bands["broken"].ink, DARK.bands["broken"].ink)
_ACCENT = both(LIGHT.accent, DARK.accent)
_TRACK = both(LIGHT.grid, DARK.grid)


def under_way(
    queue: Queue,
    draw: Callable[[list[Job]], None],
    *,
    key: str,
    poll_seconds: float,
    belongs: Callable[[Job], bool] = lambda _: True,
) -> None:
    """The queue, if it holds anything; polls only while something moves.

    Args:
        draw: draws the jobs, oldest first.
        key: of what the session remembers of the queue, and of its buttons.
        belongs: whether a job is shown here.
    """
    jobs = list(filter(belongs, queue.snapshot()))
    finished_key = f"{key}_finished"
    st.session_state[finished_key] = _finished_ids(jobs)
    if not jobs:
        return

    def follow() -> None:
        jobs = list(filter(belongs, queue.snapshot()))
        finished_ids = _finished_ids(jobs)
        if finished_ids != st.session_state.get(finished_key):
            # A model or a run has arrived, or failed: every page may have something new to show.
            address.rerun()
        draw(jobs)
        if finished_ids:
            st.button(
                "Dismiss finished",
                icon=":material/done_all:",
                type="tertiary",
                on_click=queue.dismiss_finished,
                key=f"dismiss_{key}",
            )

    is_busy = any(job.state not in FINISHED for job in jobs)
    st.fragment(follow, run_every=poll_seconds if is_busy else None)()


def line(
    job: Job, status: str, *, style: str, description: str = "", most_pixels: int | None = None
) -> str:
    """A job as HTML: its mark, its name, how it stands, and a bar while it runs.

    Args:
        status: how it stands, in words.
        style: what its box has beyond what all have.
        description: muted, behind the name.
        most_pixels: how long its bar may become; as long as there is room unless given.
    """
    is_failed = job.state == "failed"
    name = html.escape(job.name)
    heading = f'<div style="font-weight:600">{name}</div>'
    if description:
        heading = (
            f'<div><span style="font-weight:600">{name}</span>'
            f' <span style="color:{_MUTED}">{html.escape(description)}</span></div>'
        )
    bar = _bar(job.share_done, most_pixels) if job.state == "running" else ""
    return (
        f'<div style="display:flex;gap:10px;{style}">'
        f'<span aria-hidden="true" style="color:{_BROKEN if is_failed else _ACCENT};'
        f'font-weight:700;width:8px">{_MARKS[job.state]}</span>'
        f'<div style="flex:1;min-width:0;overflow-wrap:anywhere">{heading}'
        f'<div style="color:{_BROKEN if is_failed else _MUTED}">{html.escape(status)}</div>'
        f"{bar}</div></div>"
    )


def _bar(share: float, most_pixels: int | None) -> str:
    limit = "" if most_pixels is None else f";max-width:{most_pixels}px"
    return (
        f'<div style="height:4px;border-radius:2px;background:{_TRACK};margin-top:4px{limit}">'
        f'<div style="height:4px;border-radius:2px;background:{_ACCENT};'
        f'width:{100 * share:.0f}%"></div></div>'
    )


def _finished_ids(jobs: list[Job]) -> set[int]:
    return {job.job_id for job in jobs if job.state in FINISHED}
