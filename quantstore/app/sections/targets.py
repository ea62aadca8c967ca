"""The section of the Model page on targets: what hardware would lose, and measuring more of it."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from quantstore import settings
from quantstore.app.queue import FINISHED, RUNS, Job
from quantstore.app.sections import run_form
from quantstore.app.widgets import components, jobs
from quantstore.errors import printable
from quantstore.pipeline.files import file_of
from quantstore.records import NOTHING_ROUNDED
from quantstore.schemes import TARGETS
from quantstore.wording import frames
from quantstore.wording.answers import StoredRescue
from quantstore.wording.rescues import is_written, rescued_db
from quantstore.wording.targets import stayed_in_float
from quantstore.wording.units import counted, db

HEADING = "Targets"
CAPTION = "What different hardware would lose, estimated with noise: SQNR at the worst output."
NOT_MEASURED = "not measured"
MEASURE_OTHERS, MEASURE_AGAIN = "Measure the other targets", "Measure again"
NO_FILE = (
    "The file of this model is not at hand. To measure the other targets, name it in a terminal:"
)
FROM_A_TERMINAL = (
    "This app can be reached from other computers. To measure the other targets, use a terminal:"
)


def section(
    model: str, source: str, figures: pd.DataFrame, rescues: Sequence[StoredRescue]
) -> None:
    """Draw the section.

    Args:
        source: where the model was read from, as the store has it.
        figures: as ``queries.model_targets`` gives them.
        rescues: the latest of each target.
    """
    st.space("small")
    st.header(HEADING, anchor=False)
    st.caption(CAPTION)
    by_target = {str(row["target"]): row for row in figures.to_dict("records")}
    rescued = {rescue.record.target: rescue for rescue in rescues if is_written(rescue.record)}
    columns = [
        {"title": "target", "kind": "name"},
        {"title": "output SQNR", "kind": "chip"},
    ]
    rows = _rows(by_target)
    if rescued:
        columns.append({"title": "rescued, measured", "kind": "chip"})
        for row in rows:
            row["cells"].append(_rescued_cell(rescued.get(row["key"])))
    components.table(
        columns=columns,
        rows=rows,
        key="targets",
    )

    def belongs(job: Job) -> bool:
        return RUNS.is_probe(job) and job.name == printable(model)

    is_under_way = any(job.state not in FINISHED for job in RUNS.snapshot() if belongs(job))
    missing = [name for name in TARGETS if _is_missing(by_target.get(name))]
    if missing and not is_under_way:
        _offer(model, source, missing, is_new=any(name not in by_target for name in missing))
    jobs.under_way(RUNS, run_form.lines, key="targets", poll_seconds=0.5, belongs=belongs)


def _offer(model: str, source: str, missing: list[str], *, is_new: bool) -> None:
    """The button that measures what is missing, or how to do so elsewhere."""
    is_at_hand = run_form.is_offered() and file_of(source) is not None
    if not is_at_hand:
        st.caption(NO_FILE if run_form.is_offered() else FROM_A_TERMINAL)
        command = settings.command("probe FILE --target all")
        st.code(command, language=None, width="content", wrap_lines=True)
        return
    st.button(
        MEASURE_OTHERS if is_new else MEASURE_AGAIN,
        icon=":material/play_arrow:",
        key="measure_targets",
        help=f"Runs the model on noise in the background: {counted(len(missing), 'target')}.",
        on_click=_measure,
        args=(model, missing),
    )


def _measure(model: str, missing: list[str]) -> None:
    RUNS.add_probe(model, settings.store_path(), missing)


def _is_missing(row: dict[Any, Any] | None) -> bool:
    """Whether a target has no figure and may get one."""
    if row is None:
        return True
    has_figure = frames.figure_or_none(row["output_sqnr_db"]) is not None
    return not has_figure and row["failure"] not in NOTHING_ROUNDED


def _rows(by_target: dict[str, dict[Any, Any]]) -> list[dict[str, Any]]:
    rows = []
    last_named: tuple[str, ...] = ()
    for name in TARGETS:
        row = by_target.get(name)
        cells = _cells(name, row)
        float_layers = () if row is None else tuple(frames.names_or_none(row["float_layers"]))
        if float_layers and "note" not in cells[0]:
            # Mostly they are the same under every target: names once are enough.
            is_repeated = float_layers == last_named
            cells[0]["note"] = f"{stayed_in_float(float_layers, is_repeated=is_repeated)}."
            last_named = float_layers
        rows.append({"key": name, "chosen": False, "cells": cells})
    return rows


def _rescued_cell(rescue: StoredRescue | None) -> dict[str, Any] | None:
    if rescue is None:
        return None
    return {"band": rescue.band, "small": db(rescued_db(rescue.record))}


def _cells(name: str, row: dict[Any, Any] | None) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = [
        {"text": name, "small": TARGETS[name].description},
        {"text": NOT_MEASURED},
    ]
    if row is None:
        return cells
    figure_db = frames.figure_or_none(row["output_sqnr_db"])
    if figure_db is None:
        reason = printable(str(row["failure"])).rstrip(".")
        cells[0]["note"] = f"Not measured: {reason}."
        return cells
    cells[1] = {"band": row["band"], "small": db(figure_db)}
    return cells
