"""Starting a rescue: the form, and what came of those that this session started."""

from pathlib import Path
from typing import Any

import streamlit as st

from quantstore import settings
from quantstore.app.queue import FINISHED, RUNS
from quantstore.app.sections import run_form
from quantstore.app.sections.run_form import NOISE, OWN_DATA
from quantstore.app.widgets import downloads, pickers
from quantstore.pipeline.files import file_of
from quantstore.rescuing.terms import (
    DEFAULT_BUDGET_SECONDS,
    DEFAULT_KEEP_MACS,
    DEFAULT_REACH_DB,
    REMEDIES,
    RESCUE_TARGETS,
)
from quantstore.run.inputs import PRESETS
from quantstore.schemes import DEFAULT_TARGET, TARGETS, Target
from quantstore.wording.rescues import step_title

WHAT_IT_IS = (
    "A rescue tries remedies one after another to keep the model accurate on a target, and writes"
    " the quantized model. Half of the inputs are used for calibration and a quarter for the"
    " search. The last quarter is used only once, for the final test; its values are shown."
)
PROPOSAL_HINT = (
    "With noise you get a proposal only: no quantized model is written. Give at least 8 inputs of"
    " your own, so that the test uses inputs that the search has not seen."
)
FROM_A_TERMINAL = "This app is open to other computers. Start rescues from a terminal:"
NO_FILE = (
    "The file of this model is not available: uploads are not kept, and files may have moved. Enter"
    " the path of the file in the sidebar, or rescue the model from a terminal:"
)
NO_REMEDY = "Choose at least one remedy."
NOT_RESCUABLE = (
    "This target does not quantize activations with calibrated scales, so a rescue has nothing to"
    " choose. Choose another target below."
)


def command(target: Target) -> str:
    """The same from a terminal."""
    return settings.command(f"rescue MODEL.onnx --inputs images/ --target {target_for(target)}")


def target_for(target: Target) -> str:
    """The name of the target that a rescue is offered for, while this one is looked at."""
    return target.name if target.name in RESCUE_TARGETS else DEFAULT_TARGET.name


def default_output(model: str, target_name: str) -> Path:
    """The folder for the files where none is named: beside the store, one for each target."""
    folder = f"{downloads.file_name(model)}-rescued"
    return settings.store_path().absolute().parent / folder / target_name


def draw(model: str, source: str, target: Target) -> None:
    """The form.

    Args:
        source: where the model was read from, as the store has it.
        target: the one that is chosen at first, if it can be rescued.
    """
    path = file_of(source) if run_form.is_offered() else None
    if path is None:
        st.caption(NO_FILE if run_form.is_offered() else FROM_A_TERMINAL)
        st.code(command(target), language=None, width="content", wrap_lines=True)
        return
    first_target = target_for(target)
    if first_target != target.name:
        st.caption(NOT_RESCUABLE)
    # Another model, or another target in the sidebar, begins with what belongs to it.
    of = f"{model}_{target.name}"
    with st.form("rescue_form", border=False):
        with st.grid(3, min_column_width=220, gap="small"):
            names = sorted(RESCUE_TARGETS, key=lambda name: name != first_target)
            target_name = st.selectbox(
                "Target",
                names,
                format_func=lambda name: pickers.capital(TARGETS[name].title),
                key=f"rescue_target_{of}",
                help="What the hardware does with weights and activations.",
            )
            reach = st.number_input(
                "Goal: output SQNR, dB",
                0.0,
                80.0,
                DEFAULT_REACH_DB,
                1.0,
                format="%g",
                key="rescue_reach",
                help="The search stops at this value. 20 dB is usually harmless, 30 dB is fine.",
            )
            keep = st.number_input(
                "Keep in int8, % of MACs",
                0.0,
                100.0,
                100 * DEFAULT_KEEP_MACS,
                1.0,
                format="%g",
                key="rescue_keep",
                help="Share of the multiply-accumulates (MACs) that must stay in int8. Operations"
                " outside int8 run slower.",
            )
            input_choice = st.selectbox(
                "Inputs", [OWN_DATA, NOISE], key="rescue_kind", help=PROPOSAL_HINT
            )
            folder = st.text_input(
                "Image, image folder, .npz or .npy",
                placeholder="Path on this computer",
                key="rescue_folder",
                help=f"Only used with {OWN_DATA}.",
            )
            preset = st.selectbox(
                "Preprocessing of images",
                [run_form.AUTO, *PRESETS],
                format_func=run_form.preset_title,
                key="rescue_preset",
            )
            budget = st.number_input(
                "Budget, CPU seconds",
                5,
                86_400,
                int(DEFAULT_BUDGET_SECONDS),
                10,
                key="rescue_budget",
                help="CPU time for the search. When it is used up, the best result so far counts.",
            )
            output = st.text_input(
                "Folder for the files",
                placeholder=str(default_output(model, first_target)),
                key=f"rescue_output_{of}",
                help="Leave empty to use the folder shown. It is created if necessary.",
            )
        allowed = st.pills(
            "Remedies",
            list(REMEDIES),
            selection_mode="multi",
            default=list(REMEDIES),
            format_func=lambda name: pickers.capital(step_title(name)),
            key="rescue_allowed",
            help="What the search may do. A Mul adds a node to the model; 16 bits and float take"
            " MACs out of int8.",
        )
        is_sent = st.form_submit_button("Rescue", type="primary", icon=":material/healing:")
    if not is_sent:
        return
    inputs = "noise" if input_choice == NOISE else run_form.path_in(folder)
    problem = run_form.problem_with(inputs) or (None if allowed else NO_REMEDY)
    if problem is not None:
        st.error(problem)
        return
    folder_for_files = run_form.path_in(output)
    choices: dict[str, Any] = {
        "target": target_name,
        "reach_db": float(reach),
        "keep_macs": float(keep) / 100,
        "allow": tuple(name for name in REMEDIES if name in allowed),
        "budget_seconds": float(budget),
        "preprocess": preset,
        "output": str(
            Path(folder_for_files).expanduser()
            if folder_for_files
            else default_output(model, target_name)
        ),
    }
    job_id = RUNS.add_rescue(
        path,
        settings.store_path(),
        inputs,
        choices,
        name=model,
        description=f"rescue, {TARGETS[target_name].title}, {inputs}",
    )
    st.session_state.setdefault("own_rescues", set()).add(job_id)
    st.rerun()


def adopt_results() -> list[str]:
    """The keys of rescues that this session started and that have ended since it last asked."""
    started_jobs: set[int] = st.session_state.get("own_rescues", set())
    rescue_keys = []
    for job in RUNS.snapshot():
        if job.job_id in started_jobs and job.state in FINISHED:
            started_jobs.discard(job.job_id)
            if job.result is not None:
                rescue_keys.append(str(job.result.rescue_id))
    return rescue_keys
