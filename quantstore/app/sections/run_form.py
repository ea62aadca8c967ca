"""Starting a run from the Drift page: the form."""

from typing import Any

import pandas as pd
import streamlit as st

from quantstore import settings
from quantstore.app.queue import RUNS
from quantstore.app.sections import runs_under_way
from quantstore.app.widgets import inputs_box, model_files, notes, pickers, reach
from quantstore.errors import printable
from quantstore.file_formats import why_not_run_sentence
from quantstore.run.inputs import PRESETS
from quantstore.schemes import INT8_SCHEMES, TARGETS, Target
from quantstore.wording.text import markdown
from quantstore.wording.units import counted
from quantstore.wording.verdicts import MODES

CALIBRATIONS = {
    "minmax": "min and max",
    "percentile": "percentile",
    "entropy": "entropy",
    "mse": "least squared error",
}
AUTO = "auto"
DEFAULT_SAMPLES = 12

FROM_A_TERMINAL = "This app is open to other computers. Start runs from a terminal:"
NOT_AT_HAND = "was uploaded and its file was not kept, or its file has moved."
OR_ANOTHER = "Or run another model:"
KEEP_IN_FLOAT = "Keep in float"

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
    rows = {str(row["model"]): row for row in sources.to_dict("records")}
    reasons = {model: why_not_run_sentence(str(row["file_format"])) for model, row in rows.items()}
    by_model = {model: row for model, row in rows.items() if not reasons[model]}
    if reason := reasons.get(first) or ("" if by_model else next(iter(reasons.values()))):
        st.markdown(markdown(reason))
        if not by_model:
            return
        st.caption(OR_ANOTHER)
        first = ""
    files = {
        model: file
        for model, row in by_model.items()
        if (file := model_files.find(str(row["source"]), str(row["sha256"]))) is not None
    }
    if not files or (first and first not in files):
        missing = first or next(iter(by_model))
        st.markdown(f"**{markdown(missing)}** {NOT_AT_HAND}")
        model_files.choose_again(missing, str(by_model[missing]["sha256"]), key="run_file")
        if not files:
            st.code(command(target), language=None, width="content", wrap_lines=True)
            return
        st.caption(OR_ANOTHER)
    names = list(files)
    inputs_box.upload("run")
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
            inputs_box.pick("run", first=inputs_box.NOISE)
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
                pictures = st.checkbox(
                    "Keep small pictures of a few inputs",
                    value=True,
                    key="run_pictures",
                    help="The page shows the answers on these pictures. They stay in your store and"
                    " are part of its exports. Noise has no pictures.",
                )
                sensitivity = st.checkbox(
                    "Also measure sensitivity (slower)",
                    key="run_sensitivity",
                    help="Output SQNR with only one layer or tensor quantized at a time.",
                )
        exclude = st.multiselect(
            KEEP_IN_FLOAT,
            list(st.session_state.get("run_exclude", ())),
            key="run_exclude",
            accept_new_options=True,
            format_func=printable,
            placeholder="Enter names of layers, nodes or tensors",
        )
        is_sent = st.form_submit_button("Run", type="primary", icon=":material/play_arrow:")
    if not is_sent:
        return
    inputs = inputs_box.chosen("run")
    if inputs.problem:
        st.error(inputs.problem)
        return
    title, arguments = offered[rounding]
    choices: dict[str, Any] = {
        **arguments,
        "calibration": calibration,
        "samples": int(samples),
        "preprocess": preset,
        "pictures": bool(pictures),
        "sensitivity": bool(sensitivity),
        "exclude": tuple(map(str, exclude)),
        "fold": bool(by_model[model]["folded"]),
    }
    start(model, files[model], inputs, choices, title)
    st.rerun()


def start(
    model: str,
    file: model_files.FileAtHand,
    inputs: inputs_box.Inputs,
    choices: dict[str, Any],
    title: str,
) -> None:
    """Put a run into the queue; the Drift page of this session shows what comes of it.

    Args:
        choices: the arguments of ``run.choices.Choices``.
        title: what is rounded, in words.
    """
    without = ""
    if choices.get("exclude"):
        without = f", {counted(len(choices['exclude']), 'name')} in float".replace("\u00a0", " ")
    job_id = RUNS.add(
        file.path,
        settings.store_path(),
        inputs.path,
        choices,
        name=model,
        description=f"{title}, {inputs.title}{without}",
        when_finished=file.until_over(inputs.release),
    )
    runs_under_way.remember(job_id)


def preset_title(name: str) -> str:
    """A way of preprocessing, as a form offers it."""
    return "auto: by the model's kind" if name == AUTO else PRESETS[name].description


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
        st.markdown("Or in a terminal:")
        st.code(command(target), language=None, width="content", wrap_lines=True)
