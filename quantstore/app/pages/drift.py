"""Drift: where in the network does the int8 version drift away from the float model?"""

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from quantstore import queries
from quantstore.app.sections import (
    changed_answers,
    drift_runs,
    run_dialogs,
    run_form,
    runs_under_way,
    ways_on,
)
from quantstore.app.widgets import (
    address,
    colours,
    drawing,
    listing,
    navigation,
    notes,
    pickers,
    stores,
)
from quantstore.charts import drift as charts
from quantstore.charts.common import ready
from quantstore.errors import printable
from quantstore.schemes import Target
from quantstore.store import Connection
from quantstore.wording import drift as wording
from quantstore.wording import frames, sensitivity
from quantstore.wording.targets import stayed_in_float
from quantstore.wording.text import markdown
from quantstore.wording.units import counted, db, weight, with_minus

NO_DRIFT_RUN_YET = "No drift run yet"


def main() -> None:
    """Draw the page."""
    navigation.follow_click()
    target = pickers.target()
    with stores.open_store() as con:
        st.title("Drift")
        headline = st.empty()
        runs = stores.ask(con, queries.drift_runs)
        sources = queries.sources(con)
        model = drift_runs.about(queries.model_names(con))
        if runs.empty:
            drift_runs.keep(model)
            runs_under_way.under_way()
            headline.header(NO_DRIFT_RUN_YET, anchor=False)
            run_form.explain_and_offer(sources, target, model)
            return
        run_dialogs.forget_deleted()
        picked, model = drift_runs.pick(runs, target, model)
        drift_runs.keep(model)
        runs_under_way.under_way()
        is_first_run = bool(model) and model not in set(runs["model"])
        is_asked = bool(st.session_state.pop("run_form_asked", False))
        form = st.container()
        if not picked:
            title = f"No run of {notes.escaped(model)} yet" if is_first_run else "Choose a run"
            headline.header(title, anchor=False)
            _offer_run(form, sources, target, model, is_open=is_first_run or is_asked)
            if not is_first_run:
                st.caption(f"Choose up to {drift_runs.MOST_RUNS} runs to compare them.")
            return
        chosen = runs.set_index("simulation_id").loc[picked].reset_index()
        names = drift_runs.names(chosen)
        tensors = queries.drift(con, picked)
        tensors = tensors.assign(run=tensors["simulation_id"].map(names))
        jumps = wording.steepest_falls(tensors)
        answer = wording.headline(chosen.to_dict("records"), jumps.to_dict("records"))
        headline.header(markdown(answer), anchor=False)
        _offer_run(form, sources, target, model, is_open=is_first_run or is_asked)
        _say_float_layers(chosen, names)
        with st.container(horizontal=True, gap="small"):
            ways_on.rescue(chosen)
            run_dialogs.offer(drift_runs.full_names(chosen))
        _lines(tensors, jumps, chosen)
        _jump_table(jumps, is_several=len(picked) > 1)
        ways_on.run_without_steepest(chosen, jumps, sources)
        changed_answers.section(changed_answers.by_run(con, picked), names, chosen)
        _worst(tensors, is_several=len(picked) > 1)
        _one_tensor(con, tensors, names)
        _sensitivity(con, list(dict.fromkeys(chosen["model"])), sources)
    run_dialogs.draw()


def _offer_run(
    form: DeltaGenerator, sources: pd.DataFrame, target: Target, model: str, *, is_open: bool
) -> None:
    """The form, once the answer stands: it looks for the file of every model."""
    with form, st.expander("Run a model in float and int8", expanded=is_open):
        st.caption(run_form.WHAT_IT_IS)
        run_form.draw(sources, target, first=model)


# Where the error comes in


def _say_float_layers(chosen: pd.DataFrame, names: dict[int, str]) -> None:
    for row in chosen.to_dict("records"):
        sentence = stayed_in_float(frames.names_or_none(row["float_layers"]))
        if sentence:
            run = f"{names[int(row['simulation_id'])]}: " if len(chosen) > 1 else ""
            st.caption(markdown(f"{run}{sentence}."))


def _lines(tensors: pd.DataFrame, jumps: pd.DataFrame, chosen: pd.DataFrame) -> None:
    options = ["Accumulated and local error", "Accumulated error only"]
    # Two lines for each of several runs are a thicket.
    first = options[0] if len(chosen) == 1 else options[1]
    which = pickers.choice("Errors", options, key="errors", first=first, label_is_hidden=True)
    dotted = ""
    if which == options[0]:
        dotted = f" {wording.DOTTED_LINE}"
    st.caption(
        f"{wording.SOLID_LINE}{dotted} {wording.LINES_NOTE} Click the line to see the values of a"
        " tensor."
    )

    def clicked() -> None:
        picked = st.session_state["drift_lines"].selection.get(charts.CLICK, [])
        if picked:
            _show_tensor(int(picked[0]["simulation_id"]), str(picked[0]["tensor"]))

    worst = chosen["output_sqnr_db"].min()
    st.altair_chart(
        ready(charts.lines(tensors, jumps, colours.palette(), with_local=which == options[0])),
        key="drift_lines",
        on_select=clicked,
        # What the pointer is near to is nobody's business but the browser's.
        selection_mode=[charts.CLICK],
        alt=f"SQNR from input to output, {counted(len(chosen), 'run')}; the lowest ends at"
        f" {db(worst)}",
    )


def _show_tensor(run: int, tensor: str) -> None:
    """From a callback: the histograms of this tensor."""
    address.choose("of", str(run))
    address.choose("tensor", tensor)


def _jump_table(jumps: pd.DataFrame, *, is_several: bool) -> None:
    st.space("small")
    st.header(wording.JUMPS, anchor=False)
    if jumps.empty:
        st.caption(wording.GRADUAL)
        return
    without = jumps["layer_id"].isna()
    st.caption(
        f"{wording.WHAT_JUMPS} Click a row to open its layer"
        + (", or the values of a node without weights." if without.any() else ".")
    )
    rows = jumps.to_dict("records")

    def clicked() -> None:
        target = st.session_state["jumps"].clicked
        if not target:
            return
        row = rows[int(target["row"])]
        if pd.isna(row["layer_id"]):
            _show_tensor(int(row["simulation_id"]), str(row["tensor"]))
        else:
            navigation.open_layer(int(row["layer_id"]))

    listing.draw(wording.jump_columns(is_several=is_several), rows, key="jumps", on_click=clicked)


def _worst(tensors: pd.DataFrame, *, is_several: bool) -> None:
    st.space("small")
    st.header(wording.WORST_TENSORS, anchor=False)
    inexact = tensors[tensors["sqnr_db"].notna()]
    if inexact.empty:
        st.caption("Every tensor is exact.")
        return
    st.caption(
        "Lowest accumulated SQNR first. Mean shift is in standard deviations of the float tensor."
        " Click a row to see its values below."
    )
    rows = inexact.sort_values("sqnr_db", kind="stable").head(wording.MOST_WORST).to_dict("records")

    def clicked() -> None:
        target = st.session_state["worst_tensors"].clicked
        if target:
            row = rows[int(target["row"])]
            _show_tensor(int(row["simulation_id"]), str(row["tensor"]))

    listing.draw(
        wording.tensor_columns(is_several=is_several), rows, key="worst_tensors", on_click=clicked
    )


# One tensor


def _one_tensor(con: Connection, tensors: pd.DataFrame, names: dict[int, str]) -> None:
    st.space("small")
    st.header("Values of one tensor, float and quantized", anchor=False)
    runs = [str(run) for run in names]
    with st.container(horizontal=True, gap="small"):
        run = runs[0]
        if len(runs) > 1:
            address.link("of", default=runs[0], options=runs)
            run = st.selectbox(
                "Run",
                runs,
                key="of",
                format_func=lambda option: names[int(option)],
                label_visibility="collapsed",
            )
        run_tensors = tensors[tensors["simulation_id"] == int(run)]
        labels = {
            str(row["tensor"]): f"{row['op_type']} {printable(str(row['node_name']))}:"
            f" {printable(str(row['tensor']))}"
            for row in run_tensors.to_dict("records")
        }
        inexact = run_tensors[run_tensors["sqnr_db"].notna()].sort_values("sqnr_db", kind="stable")
        worst = str((inexact if not inexact.empty else run_tensors).iloc[0]["tensor"])
        address.link("tensor", default=worst, options=list(labels))
        tensor = st.selectbox(
            "Tensor",
            list(labels),
            key="tensor",
            format_func=lambda option: labels.get(option, option),
            label_visibility="collapsed",
        )
    tensor_rows = queries.tensor_values(con, int(run), tensor)
    if tensor_rows.empty:
        st.caption("This run has no values for this tensor.")
        return
    row = tensor_rows.iloc[0]
    st.caption(_tensor_words(row))
    if row["float_counts"] is None or frames.figure_or_none(row["low"]) is None:
        st.caption("The values of this tensor were not stored.")
    elif float(row["low"]) == float(row["high"]):
        st.caption(f"Every value is {weight(float(row['low']))} in both models.")
    else:
        drawing.chart(
            charts.histograms(row, colours.palette()),
            key="tensor_values",
            alt=f"Values of {tensor} in the float and in the quantized model",
        )


def _tensor_words(row: pd.Series) -> str:
    clauses = [f"accumulated SQNR {db(frames.figure_or_none(row['sqnr_db']))}"]
    cosine = frames.figure_or_none(row["cosine"])
    if cosine is not None:
        clauses.append(f"cosine {with_minus(f'{cosine:.4f}')}")
    clauses.append(
        f"mean shift {wording.hundredths(row['mean_shift'], signed=True)} standard deviations"
    )
    clauses.append(f"std: quantized / float {wording.hundredths(row['std_ratio'])}")
    for which in ("float", "quantized"):
        low, high = (frames.figure_or_none(row[f"{which}_{end}"]) for end in ("min", "max"))
        clauses.append(f"{which} {weight(low)} to {weight(high)}")
    return " · ".join(clauses)


# Sensitivity


def _sensitivity(con: Connection, models: list[str], sources: pd.DataFrame) -> None:
    by_model = {model: frame for model in models if len(frame := queries.sensitivities(con, model))}
    if not by_model:
        return
    st.space("small")
    st.header(sensitivity.HEADING, anchor=False)
    model = next(iter(by_model))
    if len(by_model) > 1:
        model = pickers.choice("Model", list(by_model), key="sensitive", label_is_hidden=True)
    frame = by_model[model]
    rows = frame.to_dict("records")
    st.markdown(markdown(sensitivity.agreement(rows)))
    st.caption(markdown(f"{model}, {sensitivity.subject(rows)} Click a row to open its layer."))

    def clicked() -> None:
        target = st.session_state["sensitivity"].clicked
        if target:
            navigation.open_layer(int(target["row"]))

    listing.draw(
        sensitivity.columns(len(rows)),
        rows[: sensitivity.MOST_LAYERS],
        key="sensitivity",
        row_key="layer_id",
        on_click=clicked,
    )
    ways_on.run_without_sensitive(model, frame, sources)


if __name__ == "__main__":
    main()
