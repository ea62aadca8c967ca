"""Starting a run from the Drift page: the form, and the runs under way."""

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from quantstore import settings
from quantstore.app.queue import FINISHED, RUNS, Job
from quantstore.app.widgets import jobs, notes, reach
from quantstore.errors import printable
from quantstore.pipeline.files import file_of
from quantstore.run.inputs import PRESETS
from quantstore.schemes import INT8_SCHEMES, SCHEMES, Scheme
from quantstore.wording.text import markdown
from quantstore.wording.units import NO_BREAK_SPACE
from quantstore.wording.verdicts import MODES

CALIBRATIONS = {
    "minmax": "min and max",
    "percentile": "percentile",
    "entropy": "entropy",
}
AUTO = "auto"
NOISE = "Noise"
FOLDER = "A folder or file of mine"
DEFAULT_SAMPLES = 12

WHAT_IT_IS = (
    "A drift run feeds the float model and its int8 version the same inputs and compares every"
    " intermediate tensor: where the error comes in, how it accumulates, and which layer it comes"
    " from. The error that a layer makes by itself is kept apart from what it inherits."
)


def is_offered() -> bool:
    """Whether a run may be started from a page: only where nobody but this computer can ask."""
    return reach.is_this_computer_only()


def command() -> str:
    """The same from a terminal."""
    return settings.command("simulate MODEL.onnx --inputs images/ --mode both")


def draw(sources: pd.DataFrame, scheme: Scheme, *, first: str) -> None:
    """The form.

    Args:
        sources: as ``queries.sources`` gives them.
        first: the model that is chosen at first, if its file is there; empty for any.
    """
    if not is_offered():
        st.caption(
            "This app listens beyond this computer, so runs are started from its terminal only:"
        )
        st.code(command(), language=None, width="content", wrap_lines=True)
        return
    files = {
        str(row["model"]): path
        for row in sources.to_dict("records")
        if (path := file_of(str(row["source"]))) is not None
    }
    if not files:
        st.caption(
            "None of the files that the models were read from is there any more (uploads are not"
            " kept). Give the path in the sidebar, or run it from a terminal:"
        )
        st.code(command(), language=None, width="content", wrap_lines=True)
        return
    names = list(files)
    if first and first not in files:
        st.caption(
            f"The file of {markdown(first)} is not there any more: give its path in the sidebar to"
            " run it, or choose another model."
        )
    with st.form("run_form", border=False):
        offered_schemes = list(dict.fromkeys((*INT8_SCHEMES, scheme.name)))
        with st.grid(3, min_column_width=220, gap="small"):
            model = st.selectbox(
                "Model",
                names,
                index=names.index(first) if first in files else 0,
                format_func=printable,
                key="run_model",
                help="Only models whose file is still where it was.",
            )
            scheme_name = st.selectbox(
                "Scheme of the weights",
                offered_schemes,
                index=offered_schemes.index(scheme.name),
                format_func=lambda name: SCHEMES[name].title,
                key="run_scheme",
            )
            mode = st.selectbox(
                "Quantize",
                ["both", "weights", "activations"],
                format_func=MODES.__getitem__,
                key="run_mode",
                help="int8 hardware mostly quantizes both; the others tell which of them hurts.",
            )
            input_choice = st.selectbox("Inputs", [NOISE, FOLDER], key="run_kind")
            folder = st.text_input(
                "Folder of images, image, .npz or .npy",
                placeholder="a path on this computer",
                key="run_folder",
                help="Only read where the inputs are not noise.",
            )
            preset = st.selectbox(
                "Preprocessing of images",
                [AUTO, *PRESETS],
                format_func=lambda name: (
                    "auto: by the model's kind" if name == AUTO else PRESETS[name].description
                ),
                key="run_preset",
            )
            calibration = st.selectbox(
                "Activation calibration",
                list(CALIBRATIONS),
                format_func=CALIBRATIONS.__getitem__,
                key="run_calibration",
            )
            samples = st.number_input(
                "Maximum samples", 2, 1000, DEFAULT_SAMPLES, key="run_samples"
            )
            with st.container(vertical_alignment="bottom", height="stretch"):
                sensitivity = st.checkbox(
                    "Also measure sensitivity (slower)",
                    key="run_sensitivity",
                    help="Quantizes the weights of each layer, and each tensor, by itself.",
                )
        is_sent = st.form_submit_button("Run", type="primary", icon=":material/play_arrow:")
    if not is_sent:
        return
    inputs = "noise" if input_choice == NOISE else folder.strip().strip("\"'")
    problem = _problem(inputs)
    if problem is not None:
        st.error(problem)
        return
    choices: dict[str, Any] = {
        "scheme": scheme_name,
        "mode": mode,
        "calibration": calibration,
        "samples": int(samples),
        "preprocess": preset,
        "sensitivity": bool(sensitivity),
    }
    summary = f"{SCHEMES[scheme_name].title}, {MODES[mode]}, {inputs}"
    job_id = RUNS.add(
        files[model], settings.store_path(), inputs, choices, name=model, description=summary
    )
    st.session_state.setdefault("own_jobs", set()).add(job_id)
    st.rerun()


def _problem(inputs: str) -> str | None:
    if not inputs:
        return "Which inputs? Give the path of a folder of images, of an image, .npz or .npy."
    try:
        exists = inputs == "noise" or Path(inputs).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        exists = False
    return None if exists else f"There is nothing at {markdown(inputs)}; check the path."


# The runs under way


def adopt_results() -> list[str]:
    """The keys of runs that this session started and that have ended since it last asked."""
    started_jobs: set[int] = st.session_state.get("own_jobs", set())
    run_keys = []
    for job in RUNS.snapshot():
        if job.job_id in started_jobs and job.state in FINISHED:
            started_jobs.discard(job.job_id)
            if job.result is not None:
                run_keys.append(str(job.result.simulation_id))
    return run_keys


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
    if job.state == "done":
        return "; ".join(["done", *(printable(note) for note in job.result.notes)])
    return job.state


def explain_and_offer(sources: pd.DataFrame, scheme: Scheme, first: str) -> None:
    """The page before there is a run: what it would show, and the form."""
    st.markdown(WHAT_IT_IS)
    notes.note(
        "Both models run on this computer, in a process of their own. Noise needs no data and"
        " shows the shape of the loss; inputs of your own show the loss itself."
    )
    st.space("small")
    draw(sources, scheme, first=first)
    if is_offered():
        st.markdown("or in a terminal")
        st.code(command(), language=None, width="content", wrap_lines=True)
