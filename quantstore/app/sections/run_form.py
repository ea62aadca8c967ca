"""Starting a run from the Drift page: the form, and the runs under way."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from quantstore import settings
from quantstore.app.queue import FINISHED, RUNS, Job
from quantstore.app.widgets import jobs, notes, pickers, reach
from quantstore.errors import printable
from quantstore.pipeline.files import file_of
from quantstore.run.inputs import PRESETS
from quantstore.schemes import INT8_SCHEMES, TARGETS, Target
from quantstore.wording.rescues import before_and_after, rescued_db
from quantstore.wording.text import markdown
from quantstore.wording.units import NO_BREAK_SPACE
from quantstore.wording.verdicts import MODES

CALIBRATIONS = {
    "minmax": "min and max",
    "percentile": "percentile",
    "entropy": "entropy",
    "mse": "least squared error",
}
AUTO = "auto"
NOISE = "Noise"
OWN_DATA = "My own data"
DEFAULT_SAMPLES = 12
# Of what a rescue says while it goes on.
MOST_MESSAGES = 4

FROM_A_TERMINAL = "This app is open to other computers. Start runs from a terminal:"
NO_FILES = (
    "No model file is available: uploads are not kept, and files may have moved. Enter the path of"
    " a file in the sidebar, or run the model from a terminal:"
)
NOT_AT_HAND = "is not available. Enter its path in the sidebar, or choose another model."
NO_INPUTS = "Enter the path of an image, an image folder, an .npz or an .npy file."

WHAT_IT_IS = (
    "A drift run feeds the same inputs to the float model and its int8 version and compares every"
    " intermediate tensor. It shows where errors arise and how they accumulate. The error that a"
    " node makes itself (local) is separate from the error that it inherits (accumulated)."
)


def is_offered() -> bool:
    """Whether a run may be started from a page: only where nobody but this computer can ask."""
    return reach.is_this_computer_only()


def command(target: Target) -> str:
    """The same from a terminal."""
    return settings.command(f"simulate MODEL.onnx --inputs images/ --target {target.name}")


def roundings(target: Target) -> dict[str, tuple[str, dict[str, str]]]:
    """What a run may round, by key: its title, and the arguments of ``run.choices.Choices``.

    Every target, the one that is looked at first; behind them what no target is: weights alone,
    schemes with a zero point, and activations alone, to which the scheme of the weights is nothing.
    """
    names = sorted(TARGETS, key=lambda name: name != target.name)
    found = {name: (pickers.capital(TARGETS[name].title), {"target": name}) for name in names}
    targets = {(each.scheme, each.mode) for each in TARGETS.values() if each.is_of_its_scheme}
    for scheme in INT8_SCHEMES.values():
        for mode in ("both", "weights"):
            if (scheme, mode) not in targets:
                title = pickers.capital(f"{scheme.title}, {MODES[mode]}")
                found[f"{scheme.name} {mode}"] = title, {"scheme": scheme.name, "mode": mode}
    scheme_name = target.layer_scheme.name
    alone = {
        "scheme": scheme_name if scheme_name in INT8_SCHEMES else next(iter(INT8_SCHEMES)),
        "mode": "activations",
    }
    return found | {"activations": (pickers.capital(MODES["activations"]), alone)}


def draw(sources: pd.DataFrame, target: Target, *, first: str) -> None:
    """The form.

    Args:
        sources: as ``queries.sources`` gives them.
        target: the one that is chosen at first.
        first: the model that is chosen at first, if its file is there; empty for any.
    """
    if not is_offered():
        st.caption(FROM_A_TERMINAL)
        st.code(command(target), language=None, width="content", wrap_lines=True)
        return
    files = {
        str(row["model"]): path
        for row in sources.to_dict("records")
        if (path := file_of(str(row["source"]))) is not None
    }
    if not files:
        st.caption(NO_FILES)
        st.code(command(target), language=None, width="content", wrap_lines=True)
        return
    names = list(files)
    if first and first not in files:
        st.caption(f"The file of {markdown(first)} {NOT_AT_HAND}")
    with st.form("run_form", border=False):
        offered = roundings(target)
        with st.grid(3, min_column_width=220, gap="small"):
            model = st.selectbox(
                "Model",
                names,
                index=names.index(first) if first in files else 0,
                format_func=printable,
                key="run_model",
                help="Only models whose file is still in its place.",
            )
            rounding = st.selectbox(
                "Target",
                list(offered),
                format_func=lambda key: offered[key][0],
                key="run_target",
                help="What the hardware does with weights and activations. Below the targets:"
                " schemes that no target uses, and activations alone, which tells whether they"
                " hurt.",
            )
            calibration = st.selectbox(
                "Activation calibration",
                list(CALIBRATIONS),
                format_func=CALIBRATIONS.__getitem__,
                key="run_calibration",
                help="How the ranges of activations are found. Not used by targets that keep"
                " activations in float or find their ranges at run time.",
            )
            input_choice = st.selectbox("Inputs", [NOISE, OWN_DATA], key="run_kind")
            folder = st.text_input(
                "Image, image folder, .npz or .npy",
                placeholder="Path on this computer",
                key="run_folder",
                help=f"Only used with {OWN_DATA}.",
            )
            preset = st.selectbox(
                "Preprocessing of images",
                [AUTO, *PRESETS],
                format_func=preset_title,
                key="run_preset",
            )
            samples = st.number_input(
                "Maximum samples", 2, 1000, DEFAULT_SAMPLES, key="run_samples"
            )
            with st.container(vertical_alignment="bottom", height="stretch"):
                sensitivity = st.checkbox(
                    "Also measure sensitivity (slower)",
                    key="run_sensitivity",
                    help="Output SQNR with only one layer or tensor quantized at a time.",
                )
        is_sent = st.form_submit_button("Run", type="primary", icon=":material/play_arrow:")
    if not is_sent:
        return
    inputs = "noise" if input_choice == NOISE else path_in(folder)
    problem = problem_with(inputs)
    if problem is not None:
        st.error(problem)
        return
    title, arguments = offered[rounding]
    choices: dict[str, Any] = {
        **arguments,
        "calibration": calibration,
        "samples": int(samples),
        "preprocess": preset,
        "sensitivity": bool(sensitivity),
    }
    job_id = RUNS.add(
        files[model],
        settings.store_path(),
        inputs,
        choices,
        name=model,
        description=f"{title}, {inputs}",
    )
    st.session_state.setdefault("own_jobs", set()).add(job_id)
    st.rerun()


def preset_title(name: str) -> str:
    """A way of preprocessing, as a form offers it."""
    return "auto: by the model's kind" if name == AUTO else PRESETS[name].description


def path_in(text: str) -> str:
    """What somebody typed or pasted into a field for a path."""
    return text.strip().strip("\"'")


def problem_with(inputs: str) -> str | None:
    """Why nothing can be run on these inputs, as Markdown; None where they exist."""
    if not inputs:
        return NO_INPUTS
    try:
        exists = inputs == "noise" or Path(inputs).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        exists = False
    return None if exists else f"There is nothing at {markdown(inputs)}. Check the path."


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
        if job.state == "running" and job.progress is not None:
            _certain(job.progress.messages if RUNS.is_rescue(job) else ())


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
    if job.state == "done" and RUNS.is_rescue(job):
        record = job.result.rescue.record
        if record.failure is not None:
            return f"no rescue: {printable(record.failure)}"
        return f"done: output SQNR {before_and_after(record.before_db, rescued_db(record))}"
    if job.state == "done":
        return "; ".join(["done", *(printable(note) for note in job.result.notes)])
    return job.state


def explain_and_offer(sources: pd.DataFrame, target: Target, first: str) -> None:
    """The page before there is a run: what it would show, and the form."""
    st.markdown(WHAT_IT_IS)
    notes.note(
        "Both models run on this computer, in a separate process. Noise needs no data and shows"
        " roughly where the loss arises. Your own inputs show the actual loss."
    )
    st.space("small")
    draw(sources, target, first=first)
    if is_offered():
        st.markdown("or in a terminal")
        st.code(command(target), language=None, width="content", wrap_lines=True)
