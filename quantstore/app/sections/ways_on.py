"""What to do next, where the question arises: buttons that start a job and lead to its result."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.app.sections import run_form, targets
from quantstore.app.widgets import address, inputs_box, model_files, navigation, pickers
from quantstore.errors import printable
from quantstore.queries import Origin
from quantstore.rescuing.terms import RESCUE_TARGETS
from quantstore.run.choices import NOISE
from quantstore.schemes import TARGETS, Target
from quantstore.store import Connection
from quantstore.wording.text import listed, short_name
from quantstore.wording.units import counted
from quantstore.wording.verdicts import ModelFacts

FINISH_TEST, RESCUE = "Finish test", "Rescue"
RUN_AGAIN = "Run again with"
UNDER_WAY = "Test under way. The verdict appears here."
# How many layers a run leaves in float at first: what costs most, not everything that costs.
WORST_LAYERS = 3


def finish_test(origins: Sequence[Origin], target: Target, *, key: str) -> None:
    """The button that measures a target of models that it was not measured for.

    Nothing is drawn where no file is at hand, or none of a format that is run.
    """
    if not run_form.is_offered() or target.name not in TARGETS:
        return
    if any(targets.is_under_way(origin.model) for origin in origins):
        st.caption(UNDER_WAY)
        return
    runnable = [
        origin
        for origin in origins
        if not origin.why_not_run and model_files.find(origin.source, origin.sha256) is not None
    ]
    if not runnable:
        return
    of = "" if len(origins) == 1 else f" of {counted(len(runnable), 'model')}"

    def start() -> None:
        for origin in runnable:
            targets.measure(origin, [target.name])

    st.button(
        f"{FINISH_TEST}{of}",
        icon=":material/play_arrow:",
        key=key,
        on_click=start,
        help=f"Runs the model on noise in the background, for {target.title}.",
    )


def measure_again(origin: Origin, figures: pd.DataFrame) -> None:
    """The button that measures targets again whose test was cut off.

    Args:
        figures: as ``queries.model_targets`` gives them.
    """
    names = targets.cut_off(figures)
    if not names or not run_form.is_offered() or targets.is_under_way(origin.model):
        return
    if origin.why_not_run:
        return
    if model_files.find(origin.source, origin.sha256) is None:
        return
    st.button(
        f"{targets.MEASURE_AGAIN}: {counted(len(names), 'target')}",
        icon=":material/play_arrow:",
        key="measure_cut_off",
        on_click=targets.measure,
        args=(origin, names),
        help="Runs the model on noise in the background. The result appears below under Targets.",
    )


def from_matrix(con: Connection, facts: Sequence[ModelFacts], target: Target) -> None:
    """What to do about models that are untested, and about the worst that is in trouble.

    Args:
        facts: of the models on show, under the target, in the order of the rows.
    """
    untested = [each.model for each in facts if each.is_untested]
    if untested:
        finish_test(queries.origins(con, untested), target, key="finish_tests")
    worse = [each for each in facts if each.verdict in ("broken", "at risk")]
    can_run = {
        origin.model
        for origin in queries.origins(con, [each.model for each in worse])
        if not origin.why_not_run
    }
    in_trouble = [each for each in worse if each.model in can_run]
    if in_trouble:
        worst = min(in_trouble, key=_severity)
        st.button(
            f"{RESCUE} {printable(short_name(worst.model, 40))}",
            icon=":material/healing:",
            key="rescue_worst",
            on_click=_open_rescue,
            args=(worst.model, target.name),
            help="The worst model of this page.",
        )


def _severity(facts: ModelFacts) -> tuple[bool, float]:
    sqnr_db = facts.output_sqnr_db
    return facts.verdict != "broken", float("inf") if sqnr_db is None else sqnr_db


def rescue(chosen: pd.DataFrame) -> None:
    """The button that opens the rescue of the worst run on show, where it is broken or at risk.

    Args:
        chosen: rows of ``queries.drift_runs``.
    """
    in_trouble = chosen[chosen["band"].isin(["broken", "at risk"])]
    if in_trouble.empty:
        return
    worst = in_trouble.sort_values("output_sqnr_db", kind="stable").iloc[0]
    st.button(
        RESCUE if len(chosen) == 1 else f"{RESCUE} {printable(str(worst['model']))}",
        icon=":material/healing:",
        key="rescue_run",
        on_click=_open_rescue,
        args=(str(worst["model"]), str(worst["target"])),
    )


def _open_rescue(model: str, target: str) -> None:
    address.choose("model", model)
    if target in RESCUE_TARGETS:
        address.choose("target", target)
    navigation.open_next("rescue")


def run_without_steepest(chosen: pd.DataFrame, jumps: pd.DataFrame, sources: pd.DataFrame) -> None:
    """The button that runs the worst run on show again, without the nodes that it falls at."""
    if jumps.empty:
        return
    worst = chosen.sort_values("output_sqnr_db", kind="stable").iloc[0].to_dict()
    falls = jumps[jumps["simulation_id"] == worst["simulation_id"]]
    names = [str(name) for name in falls["node_name"].dropna()[:WORST_LAYERS]]
    _run_without(worst, list(dict.fromkeys(names)), sources, key="without_steepest")


def run_without_sensitive(model: str, frame: pd.DataFrame, sources: pd.DataFrame) -> None:
    """The button that runs the model again without the layers that cost most by themselves.

    Args:
        frame: as ``queries.sensitivities`` gives it, worst first.
    """
    row = frame.iloc[0].to_dict() | {"model": model}
    names = [str(name) for name in frame["layer"][:WORST_LAYERS]]
    _run_without(row, list(dict.fromkeys(names)), sources, key="without_sensitive")


def _run_without(
    row: Mapping[Any, Any], names: list[str], sources: pd.DataFrame, *, key: str
) -> None:
    if not names or not run_form.is_offered():
        return
    names_listed = listed([printable(name) for name in names])
    kept = short_name(names_listed, 30) if len(names) == 1 else f"the first {len(names)}"
    st.button(
        f"{RUN_AGAIN} {kept} in float",
        icon=":material/play_arrow:",
        key=key,
        help=f"Runs the model again and keeps {names_listed} in float.",
        on_click=_start_without,
        args=(dict(row), names, sources),
    )


def _start_without(row: dict[Any, Any], names: list[str], sources: pd.DataFrame) -> None:
    """Start the run where its inputs are at hand, which noise always is; else fill in the form."""
    model = str(row["model"])
    of_model = sources[sources["model"] == model].to_dict("records")
    file = None
    if of_model:
        file = model_files.find(str(of_model[0]["source"]), str(of_model[0]["sha256"]))
    target = row["target"] if row["target"] in TARGETS else None
    arguments = {"target": target} if target else {"scheme": row["scheme"], "mode": row["mode"]}
    if file is not None and str(row["input_source"]).startswith(NOISE):
        title = TARGETS[target].title if target else str(row["scheme"])
        choices = {
            **arguments,
            "samples": run_form.DEFAULT_SAMPLES,
            "exclude": tuple(names),
            "fold": bool(of_model[0]["folded"]),
        }
        inputs = inputs_box.Inputs(NOISE, NOISE)
        run_form.start(model, file, inputs, choices, pickers.capital(title))
        return
    st.session_state["run_exclude"] = names
    st.session_state["run_form_asked"] = True
    if file is not None:
        st.session_state["run_model"] = model
    if target:
        st.session_state["run_target"] = target
    st.session_state["run_kind"] = inputs_box.OWN_DATA
