"""Starting a rescue: the form."""

from pathlib import Path
from typing import Any

import streamlit as st

from quantstore import settings
from quantstore.app.queue import RUNS
from quantstore.app.sections import run_form, runs_under_way
from quantstore.app.widgets import downloads, inputs_box, model_files, pickers
from quantstore.queries import Origin
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
from quantstore.wording.text import markdown

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
NO_FILE = "This model was uploaded and its file was not kept, or its file has moved."
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


def draw(origin: Origin, target: Target) -> None:
    """The form.

    Args:
        origin: of the model, as the store has it.
        target: the one that is chosen at first, if it can be rescued.
    """
    model = origin.model
    if origin.why_not_run:
        st.markdown(markdown(origin.why_not_run))
        return
    if not run_form.is_offered():
        st.caption(FROM_A_TERMINAL)
        st.code(command(target), language=None, width="content", wrap_lines=True)
        return
    file = model_files.find(origin.source, origin.sha256)
    if file is None:
        st.markdown(NO_FILE)
        model_files.choose_again(model, origin.sha256, key="rescue_file")
        st.code(command(target), language=None, width="content", wrap_lines=True)
        return
    first_target = target_for(target)
    if first_target != target.name:
        st.caption(NOT_RESCUABLE)
    # Another model, or another target in the sidebar, begins with what belongs to it.
    of = f"{model}_{target.name}"
    inputs_box.upload("rescue")
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
            inputs_box.pick("rescue", first=inputs_box.OWN_DATA, hint=PROPOSAL_HINT)
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
    if not allowed:
        st.error(NO_REMEDY)
        return
    inputs = inputs_box.chosen("rescue")
    if inputs.problem:
        st.error(inputs.problem)
        return
    folder_for_files = inputs_box.path_in(output)
    choices: dict[str, Any] = {
        "target": target_name,
        "reach_db": float(reach),
        "keep_macs": float(keep) / 100,
        "allow": tuple(name for name in REMEDIES if name in allowed),
        "budget_seconds": float(budget),
        "preprocess": preset,
        "fold": origin.folded,
        "output": str(
            Path(folder_for_files).expanduser()
            if folder_for_files
            else default_output(model, target_name)
        ),
    }
    job_id = RUNS.add(
        file.path,
        settings.store_path(),
        inputs.path,
        choices,
        name=model,
        description=f"rescue, {TARGETS[target_name].title}, {inputs.title}",
        work="rescue",
        when_finished=file.until_over(inputs.release),
    )
    runs_under_way.remember(job_id)
    st.rerun()
