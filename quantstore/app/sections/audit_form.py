"""Starting an audit: the form."""

import streamlit as st

from quantstore import queries, settings
from quantstore.app.queue import RUNS
from quantstore.app.sections import run_form, runs_under_way
from quantstore.app.widgets import inputs_box, model_files, notes
from quantstore.auditing.choices import DEFAULT_RELEASE
from quantstore.errors import printable
from quantstore.queries import Origin
from quantstore.run.inputs import PRESETS
from quantstore.store import Connection
from quantstore.wording.text import markdown

FROM_A_TERMINAL = "This app is open to other computers. Start audits from a terminal:"
NO_INT8 = (
    "The store has no int8 model. Add the int8 file in the sidebar: upload it, or enter its path."
)
NO_FLOAT = (
    "The store has no float model. Add the float file in the sidebar: upload it, or enter its path."
)
NOT_LISTED = "A file that is not listed: upload it in the sidebar, or enter its path there."
PROPOSED = "Float models with the most similar layers come first."
ON_NOISE_HINT = (
    "Noise needs no data and shows roughly what int8 costs. Your own inputs show the actual cost."
)


def command(float_name: str = "FLOAT.onnx", int8_name: str = "INT8.onnx") -> str:
    """The same from a terminal."""
    return settings.command(f"audit {float_name} {int8_name} --inputs images/")


def draw(con: Connection, model: str, partner: str = "") -> None:
    """The form.

    Args:
        model: the one on its side at first, float or int8.
        partner: the one on the other side at first, if it is of the other kind; empty for the one
            whose layers fit best.
    """
    if not run_form.is_offered():
        st.caption(FROM_A_TERMINAL)
        st.code(command(), language=None, width="content", wrap_lines=True)
        return
    integers = queries.integer_models(con)
    names = queries.model_names(con)
    if not integers or len(integers) == len(names):
        st.markdown(NO_FLOAT if integers else NO_INT8)
        return
    int8, floats = _sides(con, model, partner, integers)
    chosen = {"float": floats, "int8": int8}
    with st.grid(2, min_column_width=260, gap="small"):
        int8_model = _pick("INT8", chosen["int8"], key=f"audit_int8_{model}_{partner}")
        if int8_model != chosen["int8"][0]:
            chosen["float"] = queries.audit_partners(con, int8_model)
        float_model = _pick(
            "FLOAT",
            chosen["float"],
            key=f"audit_float_{int8_model}_{partner}",
            hint=PROPOSED,
        )
    st.caption(NOT_LISTED)
    origins = {origin.model: origin for origin in queries.origins(con, [int8_model, float_model])}
    files = [_file(origins[name]) for name in (float_model, int8_model)]
    if None in files:
        return
    float_file, int8_file = files
    inputs_box.upload("audit")
    with st.form("audit_form", border=False):
        with st.grid(3, min_column_width=220, gap="small"):
            inputs_box.pick("audit", first=inputs_box.NOISE, hint=ON_NOISE_HINT)
            preset = st.selectbox(
                "Preprocessing of images",
                [run_form.AUTO, *PRESETS],
                format_func=run_form.preset_title,
                key="audit_preset",
            )
            samples = st.number_input(
                "Maximum samples", 1, 1000, run_form.DEFAULT_SAMPLES, key="audit_samples"
            )
            release = st.number_input(
                "Roundings to undo",
                0,
                1000,
                DEFAULT_RELEASE,
                key="audit_release",
                help="Undo this many roundings one at a time, the worst first, half of them of"
                " weights. Each takes one more run.",
            )
        is_sent = st.form_submit_button("Audit", type="primary", icon=":material/fact_check:")
    if not is_sent or float_file is None or int8_file is None:
        return
    inputs = inputs_box.chosen("audit")
    if inputs.problem:
        st.error(inputs.problem)
        return
    release_inputs = float_file.until_over(inputs.release)
    job_id = RUNS.add_audit(
        float_file.path,
        int8_file.path,
        settings.store_path(),
        inputs.path,
        {"samples": int(samples), "release": int(release), "preprocess": preset},
        name=int8_model,
        description=f"audit against {printable(float_model)}, {inputs.title}",
        when_finished=int8_file.until_over(release_inputs),
    )
    runs_under_way.remember(job_id)
    st.rerun()


def _sides(
    con: Connection, model: str, partner: str, integers: set[str]
) -> tuple[list[str], list[str]]:
    """Int8 models and float models, of each those that are proposed first."""
    partners = queries.audit_partners(con, model)
    if partner in partners:
        partners = [partner, *(name for name in partners if name != partner)]
    if model not in integers:
        return partners, [
            model,
            *(n for n in queries.audit_partners(con, partners[0]) if n != model),
        ]
    others = sorted(integers - {model}, key=str.lower)
    return [model, *others], partners


def _pick(label: str, names: list[str], *, key: str, hint: str | None = None) -> str:
    return st.selectbox(label, names, format_func=printable, key=key, help=hint)


def _file(origin: Origin) -> model_files.FileAtHand | None:
    """The file of a model; without it, the box where it is chosen again."""
    file = model_files.find(origin.source, origin.sha256)
    if file is None:
        st.markdown(f"**{markdown(origin.model)}** {run_form.NOT_AT_HAND}")
        model_files.choose_again(
            origin.model, origin.sha256, key=f"audit_file_{origin.sha256[:12]}"
        )
    return file


def explain_and_offer(con: Connection, model: str, partner: str = "") -> None:
    """The page before there is an audit: what it would show, and the form."""
    notes.note(
        "Both files run on this computer, in a separate process. They may come from any tool:"
        " onnxruntime, NNCF, Vitis, ModelOpt or your vendor's."
    )
    st.space("small")
    draw(con, model, partner)
    if run_form.is_offered():
        st.markdown("Or in a terminal:")
        st.code(command(), language=None, width="content", wrap_lines=True)
