"""Which runs the Drift page shows, which model it is about, and what they are called."""

from collections import Counter

import pandas as pd
import streamlit as st

from quantstore.app.sections import runs_under_way
from quantstore.app.widgets import address, pickers
from quantstore.errors import printable
from quantstore.schemes import Target
from quantstore.wording.runs import rounded

MOST_RUNS = 4
# What tells two runs apart, in the order of their name.
PARTS = ("model", "rounded", "input_source")


def about(names: list[str]) -> str:
    """The model that the page was asked to be about; empty where nobody named one.

    Args:
        names: of every model in the store.
    """
    pickers.say_missing("model named", names, "model")
    candidates = (address.asked_for("model"), address.remembered("model"))
    return next((name for name in candidates if name in names), "")


def keep(model: str) -> None:
    """Have the address name the model that the page is about, though no widget here holds it."""
    if model:
        address.link("model", default=model, is_always_written=True)
        address.choose("model", model)


def pick(runs: pd.DataFrame, target: Target, model: str) -> tuple[list[int], str]:
    """The runs on show, part of the address, and the model that the page is about with them.

    Args:
        runs: at least one, as ``queries.drift_runs`` gives them.
        target: the one that the sidebar chose, whose runs come first.
        model: what the page was asked to be about. Its runs come first; whoever picks those of
            other models alone is shown a page about them.
    """
    options = [str(run) for run in runs["simulation_id"]]
    labels = dict(zip(options, _labels(runs), strict=True))
    models = dict(zip(options, runs["model"].map(str), strict=True))
    first = _first_runs(runs, target, model)
    pickers.say_missing("drift run numbered", options, "runs")
    address.link("runs", default=first, options=options, is_always_written=True)
    current = list(st.session_state["runs"])[:MOST_RUNS]
    if _is_another(model) and model not in {models[run] for run in current}:
        current = first
    arrived = [run for run in runs_under_way.adopt_results("run") if run in labels]
    followed = _follow_target(runs, current, target)
    runs_to_show = [*arrived, *(run for run in followed if run not in arrived)][:MOST_RUNS]
    if runs_to_show != list(st.session_state["runs"]):
        address.choose("runs", runs_to_show)
    shown_runs = st.multiselect(
        "Runs",
        options,
        key="runs",
        max_selections=MOST_RUNS,
        format_func=lambda run: labels.get(run, run),
        placeholder=f"Choose up to {MOST_RUNS} runs",
        label_visibility="collapsed",
    )
    if shown_runs and model not in {models[run] for run in shown_runs}:
        model = models[shown_runs[0]]
    st.session_state["drift_model"] = model
    return [int(run) for run in shown_runs], model


def _is_another(model: str) -> bool:
    """Whether the person comes from another model, and not by a link that names its runs."""
    before = st.session_state.get("drift_model")
    return before not in (None, model) and address.asked_for("runs") is None


def _labels(runs: pd.DataFrame) -> list[str]:
    """What a run is called: model, what is rounded, inputs; numbered where that is not enough."""
    names = [
        f"{printable(str(row['model']))}: {rounded(row)}, {printable(str(row['input_source']))}"
        for row in runs.to_dict("records")
    ]
    uses = Counter(names)
    return [
        f"{name}, run {run}" if uses[name] > 1 else name
        for name, run in zip(names, runs["simulation_id"], strict=True)
    ]


def names(chosen: pd.DataFrame) -> dict[int, str]:
    """The runs on show, by what tells them apart."""
    if len(chosen) == 1:
        run_names = _labels(chosen)
    else:
        readable = chosen.assign(
            model=chosen["model"].map(lambda name: printable(str(name))),
            rounded=[rounded(row) for row in chosen.to_dict("records")],
            input_source=chosen["input_source"].map(lambda source: printable(str(source))),
        )
        differing = [part for part in PARTS if readable[part].nunique() > 1]
        short = [", ".join(map(str, row)) for row in readable[differing].to_numpy().tolist()]
        run_names = [
            name if short.count(name) == 1 else f"{name}{', ' if name else ''}run {run}"
            for name, run in zip(short, chosen["simulation_id"], strict=True)
        ]
    return dict(zip(chosen["simulation_id"].tolist(), run_names, strict=True))


def full_names(chosen: pd.DataFrame) -> dict[int, str]:
    """The runs on show, each by its whole name."""
    return dict(zip(chosen["simulation_id"].tolist(), _labels(chosen), strict=True))


def _first_runs(runs: pd.DataFrame, target: Target, model: str) -> list[str]:
    """The latest run of a model for the target of the sidebar.

    Where there is none, its latest runs under the same scheme, else any, one of each kind. Without
    a model those of the one that ran last; of a model that never ran, none.
    """
    own_runs = runs[runs["model"] == (model or runs.iloc[0]["model"])]
    preferred = (
        own_runs[own_runs["target"] == target.name],
        own_runs[own_runs["scheme"] == target.scheme.name],
    )
    first = next((some for some in preferred if not some.empty), own_runs)
    latest = first.drop_duplicates(["target", "scheme", "mode"])
    return [str(run) for run in latest["simulation_id"].head(MOST_RUNS)]


def _follow_target(runs: pd.DataFrame, current: list[str], target: Target) -> list[str]:
    """The same models for another target, once another is chosen; what was not run stays."""
    before = st.session_state.get("drift_target")
    st.session_state["drift_target"] = target.name
    if before in (None, target.name):
        return current
    by_id = {str(row["simulation_id"]): row for row in runs.to_dict("records")}
    run_ids = []
    for run in current:
        row = by_id[run]
        of_target = runs[(runs["model"] == row["model"]) & (runs["target"] == target.name)]
        is_replaced = row["target"] == before and not of_target.empty
        run_ids.append(str(of_target.iloc[0]["simulation_id"]) if is_replaced else run)
    return list(dict.fromkeys(run_ids))
