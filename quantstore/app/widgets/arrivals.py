"""Models that this session added: once they are measured, the page that answers opens by itself.

It opens once, where the person still is on the page where they added it and the browser says that
nothing is being typed. Otherwise a link stands in the sidebar.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import streamlit as st

from quantstore.app.queue import FILES, FINISHED, Job
from quantstore.app.widgets import address, navigation
from quantstore.errors import printable
from quantstore.wording.text import markdown, short_name

_ASSETS = Path(__file__).resolve().parents[1] / "assets"
_arrival = st.components.v2.component(
    "quantstore_arrival",
    html="<i>\n</i>",
    js=(_ASSETS / "arrival.js").read_text(encoding="utf-8"),
)

# Links in the sidebar; more are a list, which Compare and Models have.
MOST_LINKS = 4


@dataclass(slots=True)
class _Batch:
    """Files that were added together: the page where, and the jobs that are not over."""

    page: str
    job_ids: set[int] = field(default_factory=set)
    has_opened: bool = False


def expect(job_ids: Iterable[int]) -> None:
    """Have the model of these jobs opened once they are over; they are this session's own."""
    batch = st.session_state.get("arrivals")
    if batch is None or batch.has_opened or not _unfinished(batch):
        batch = _Batch(address.page())
        st.session_state["arrivals"] = batch
    batch.page = address.page()
    batch.job_ids.update(job_ids)


def follow() -> None:
    """Open what has arrived. Once a run, before the page."""
    batch: _Batch | None = st.session_state.get("arrivals")
    models = [] if batch is None or batch.has_opened or _unfinished(batch) else _models(batch)
    if batch is not None and batch.page != address.page():
        models = []
    name = "" if batch is None or len(models) != 1 else f"{sorted(batch.job_ids)}"
    # Always there: what comes and goes in the sidebar would take the keyboard from a box below it.
    result = _arrival(key="arrival", data={"arrival": name}, on_free_change=lambda: None, height=1)
    if batch is None or not models:
        return
    if len(models) > 1:
        # Which of them survives is the question of Compare.
        batch.has_opened = True
        if batch.page != "compare":
            navigation.go_to("compare")
    elif result.free == name:
        batch.has_opened = True
        address.choose("model", models[0])
        navigation.go_to("model")


def links() -> None:
    """A link to each model that has arrived, as long as the queue shows its job."""
    batch: _Batch | None = st.session_state.get("arrivals")
    if batch is None:
        return
    is_on_it = address.page() == "model"
    for model in _models(batch)[:MOST_LINKS]:
        if is_on_it and address.remembered("model") == model:
            continue
        navigation.link(
            "model",
            f"Open {markdown(short_name(printable(model), 40))}",
            icon="arrow_forward",
            query_params={"model": model},
        )


def _own_jobs(batch: _Batch) -> list[Job]:
    return [job for job in FILES.snapshot() if job.job_id in batch.job_ids]


def _unfinished(batch: _Batch) -> bool:
    return any(job.state not in FINISHED for job in _own_jobs(batch))


def _models(batch: _Batch) -> list[str]:
    """The models that are in the store, each once."""
    return list(
        dict.fromkeys(str(job.result.model) for job in _own_jobs(batch) if job.result is not None)
    )
