"""The section of the Model page on runs: what the probe found, and runs on inputs of one's own."""

from typing import Any

import pandas as pd
import streamlit as st

from quantstore.app.widgets import address, components, navigation
from quantstore.errors import printable
from quantstore.schemes import SCHEMES, Scheme
from quantstore.wording import frames
from quantstore.wording.text import listed, markdown
from quantstore.wording.units import counted, db, seconds, share
from quantstore.wording.verdicts import MODES

# What the probe quantizes, in the order of its columns.
PROBED_MODES = ("weights", "both")
# From here on the activations add more noise than the weights do.
HALF_OF_THE_NOISE_DB = 3.0

NOT_RUN = (
    "The model was not run: the verdict rests on its weights alone. A probe needs no data: measure"
    " the targets below."
)
PROBE_FAILED = "The probe failed, so only the weights were judged:"


def section(runs: pd.DataFrame, scheme: Scheme) -> None:
    """Draw the section.

    Args:
        runs: as ``queries.model_runs`` gives them.
    """
    st.space("small")
    st.header("Test runs", anchor=False)
    probes = runs[runs["input_source"] == "noise"]
    runs_on_inputs = runs[runs["input_source"] != "noise"]
    measured = probes[probes["output_sqnr_db"].notna()]
    failed = probes[probes["failure"].notna()]
    if measured.empty:
        st.markdown(_not_probed(failed))
    else:
        st.caption(_conditions(measured))
        _probe_table(measured, scheme)
        _say_failures(failed, measured)
    if not runs_on_inputs.empty:
        _other_runs(runs_on_inputs)
    with st.container(horizontal=True, gap="small"):
        drift_link(runs, key="to_drift")
        _link("reality", "How far weights can be trusted: Predicted vs. measured", "to_reality")


def activations_to_blame(runs: pd.DataFrame, scheme: Scheme) -> str | None:
    """A sentence where the probe survives on quantized weights and not in full int8, else None.

    Args:
        runs: as ``queries.model_runs`` gives them.
    """
    probes = runs[(runs["input_source"] == "noise") & (runs["scheme"] == scheme.name)]
    by_mode = {row["mode"]: row for row in probes.to_dict("records")}
    if not {"weights", "both"} <= by_mode.keys():
        return None
    weights, both = by_mode["weights"], by_mode["both"]
    if weights["band"] not in ("fine", "watch") or both["band"] not in ("broken", "at risk"):
        return None
    if not weights["output_sqnr_db"] - both["output_sqnr_db"] > HALF_OF_THE_NOISE_DB:
        return None
    verb = "break it" if both["band"] == "broken" else "put it at risk"
    return (
        f"It is the activations that {verb}, not the weights: with quantized weights alone the"
        f" noise probe leaves {db(weights['output_sqnr_db'])} at the outputs, in full int8"
        f" {db(both['output_sqnr_db'])}."
    )


def drift_link(runs: pd.DataFrame, *, key: str) -> None:
    """A button that opens the drift runs of the model, or the form for its first one."""
    if runs["has_drift"].any():
        label = "Error layer by layer: Drift"
    else:
        label = "Run it on your own inputs, layer by layer: Drift"
    _link("drift", label, key)


def _link(page: str, label: str, key: str) -> None:
    st.button(
        label,
        type="tertiary",
        icon=":material/arrow_forward:",
        key=key,
        on_click=navigation.open_next,
        args=(page,),
    )


def _not_probed(failed: pd.DataFrame) -> str:
    if failed.empty:
        return NOT_RUN
    # The reasons of several schemes are mostly one.
    reasons = list(dict.fromkeys(printable(str(reason)) for reason in failed["failure"]))
    return f"{PROBE_FAILED} {'; '.join(markdown(reason.rstrip('.')) for reason in reasons)}."


def _conditions(measured: pd.DataFrame) -> str:
    first = measured.iloc[0]
    shapes = list(
        dict.fromkeys(str(input_shape) for input_shape in measured["input_shape"].dropna())
    )
    samples = sorted({int(number) for number in measured["sample_count"]})
    clauses = ["SQNR at the worst output, median over samples of the same noise"]
    if shapes:
        clauses.append(markdown("; ".join(shapes)))
    least_to_most = " to ".join(str(number) for number in dict.fromkeys((samples[0], samples[-1])))
    clauses.append(f"{least_to_most} sample{'' if samples[-1] == 1 else 's'}")
    clauses.append(f"{seconds(float(measured['seconds'].sum()))} in all")
    clauses.append(f"onnxruntime {markdown(str(first['onnxruntime_version']))}")
    return " · ".join(clauses) + "."


def _probe_table(measured: pd.DataFrame, scheme: Scheme) -> None:
    by_cell = {(row["scheme"], row["mode"]): row for row in measured.to_dict("records")}
    names = [name for name in SCHEMES if any((name, mode) in by_cell for mode in MODES)]
    modes = [m for m in (*PROBED_MODES, "activations") if any((n, m) in by_cell for n in names)]
    columns: list[dict[str, Any]] = [{"title": "noise probe under", "kind": "name"}]
    columns += [{"title": f"{MODES[mode]}, at the outputs", "kind": "chip"} for mode in modes]
    columns += [
        {"title": "compared", "kind": "pair", "wide": True},
        {"title": "seconds", "kind": "pair", "number": True, "wide": True},
    ]
    rows = []
    for name in names:
        scheme_runs = [by_cell[(name, mode)] for mode in modes if (name, mode) in by_cell]
        cells: list[dict[str, Any] | None] = [{"text": SCHEMES[name].title}]
        for mode in modes:
            row = by_cell.get((name, mode))
            cells.append(
                None if row is None else {"band": row["band"], "small": db(row["output_sqnr_db"])}
            )
        places = dict.fromkeys(
            printable(str(row["compared"] or "the outputs")) for row in scheme_runs
        )
        cells.append({"text": listed(list(places))})
        cells.append({"text": seconds(sum(float(row["seconds"]) for row in scheme_runs))})
        rows.append({"key": name, "chosen": name == scheme.name, "cells": cells})
    components.table(columns=columns, rows=rows, key="probe_table")


def _say_failures(failed: pd.DataFrame, measured: pd.DataFrame) -> None:
    measured_cells = set(zip(measured["scheme"], measured["mode"], strict=True))
    cells_by_reason: dict[str, list[str]] = {}
    for row in failed.to_dict("records"):
        if (row["scheme"], row["mode"]) not in measured_cells and row["scheme"] in SCHEMES:
            cell = f"{SCHEMES[row['scheme']].title}, {MODES[row['mode']]}"
            cells_by_reason.setdefault(printable(str(row["failure"])), []).append(cell)
    for reason, cells in cells_by_reason.items():
        st.caption(f"Could not be measured: {'; '.join(cells)}: {markdown(reason.rstrip('.'))}.")


def _other_runs(runs_on_inputs: pd.DataFrame) -> None:
    st.space("small")
    with_drift = set(runs_on_inputs.loc[runs_on_inputs["has_drift"], "simulation_id"].tolist())

    def clicked() -> None:
        target = st.session_state["own_runs"].clicked
        if target and int(target["row"]) in with_drift:
            address.choose("runs", [str(target["row"])])
            navigation.open_next("drift")

    rows = []
    for row in runs_on_inputs.to_dict("records"):
        if row["scheme"] not in SCHEMES:
            continue
        top1 = frames.figure_or_none(row["top1_agreement"])
        figure: dict[str, Any] | None = None
        if frames.figure_or_none(row["output_sqnr_db"]) is not None:
            figure = {"band": row["band"], "small": db(row["output_sqnr_db"])}
        failure = row["failure"]
        rows.append(
            {
                "key": int(row["simulation_id"]),
                "chosen": False,
                "cells": [
                    {
                        "text": printable(str(row["input_source"])),
                        "small": printable(str(failure))
                        if isinstance(failure, str)
                        else counted(int(row["sample_count"]), "sample"),
                    },
                    {"text": SCHEMES[row["scheme"]].title, "small": MODES[row["mode"]]},
                    figure,
                    {"text": "–" if top1 is None else share(top1)},
                    {"text": "yes" if row["has_drift"] else "no"},
                ],
            }
        )
    if rows:
        components.table(
            columns=[
                {"title": "run on your inputs", "kind": "name"},
                {"title": "scheme, and what was quantized", "kind": "pair"},
                {"title": "at the outputs", "kind": "chip"},
                {"title": "top-1 agrees", "kind": "pair", "number": True, "wide": True},
                {"title": "layer by layer", "kind": "pair", "number": True, "wide": True},
            ],
            rows=rows,
            key="own_runs",
            on_click=clicked,
        )
