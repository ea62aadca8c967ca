"""The matrix of verdicts: models by schemes."""

import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.app.widgets import address, components, navigation
from quantstore.charts.palette import BANDS
from quantstore.errors import printable
from quantstore.schemes import INT8_SCHEMES, Scheme
from quantstore.wording.units import counted, db, file_size, weights
from quantstore.wording.verdicts import MODES, UNFOLDED, ModelFacts, verdict, verdict_sentence


def verdict_matrix(
    verdicts: pd.DataFrame,
    models: list[str],
    scheme: Scheme,
    *,
    corner: str,
    key: str,
    sorts: dict[str, str] | None = None,
) -> None:
    """Models by schemes; a head chooses the scheme, a cell opens the model under it.

    Args:
        verdicts: as ``queries.verdicts`` gives them.
        models: the rows, in order.
        sorts: orders to choose from, by the value that the address has for ``sort``.
    """
    by_cell = {(row["model"], row["scheme"]): row for row in verdicts.to_dict("records")}
    is_single = corner != "model"
    rows = []
    for model in models:
        first = by_cell[(model, scheme.name)]
        facts = [
            counted(int(first["layer_count"]), "layer").replace("\u00a0", " "),
            f"{weights(int(first['weight_count']))} weights",
        ]
        if first["layers_already_quantized"]:
            facts.append("stored as integers")
        cells = []
        for name in INT8_SCHEMES:
            cell = by_cell[(model, name)]
            model_facts = queries.model_facts(cell)
            verdict_cell = verdict(model_facts)
            counts = [(band, int(cell[f"layers_{band.replace(' ', '_')}"])) for band in BANDS]
            cells.append(
                {
                    "band": verdict_cell.band,
                    "text": verdict_cell.text,
                    "more": verdict_cell.addition,
                    "where": verdict_cell.where,
                    "evidence": verdict_cell.evidence,
                    "tip": _tip(model_facts),
                    "counts": counts,
                }
            )
        rows.append(
            {
                "model": None if is_single else model,
                "name": model,
                "title": facts[0] if is_single else printable(model),
                "facts": [*facts[1:], file_size(int(first["file_bytes"]))] if is_single else facts,
                # The page of the model says so itself.
                "caveat": "" if is_single or first["folded"] else UNFOLDED,
                "cells": cells,
            }
        )

    def clicked() -> None:
        target = st.session_state[key].clicked
        if not target:
            return
        if sorts and target.get("sort") in sorts:
            address.choose("sort", target["sort"])
        if target.get("scheme") in INT8_SCHEMES:
            address.choose("scheme", target["scheme"])
        if target.get("model") and not is_single:
            address.choose("model", target["model"])
            navigation.open_next("model")

    components.verdict_matrix(
        corner=corner,
        schemes=[
            {
                "name": int8_scheme.name,
                "title": int8_scheme.title,
                "lines": [f"per {int8_scheme.granularity}", int8_scheme.symmetry],
            }
            for int8_scheme in INT8_SCHEMES.values()
        ],
        rows=rows,
        chosen=scheme.name,
        key=key,
        on_click=clicked,
        sort=sorts and {"options": list(sorts.items()), "chosen": st.session_state["sort"]},
    )


def _tip(facts: ModelFacts) -> str:
    """What a cell rests on, in a sentence; a matrix sets it as text."""
    if facts.is_untested:
        sentence = verdict_sentence(facts)
        return f"{sentence[0].upper()}{sentence[1:]}."
    if facts.is_on_its_own_grid:
        return "The file holds integers of this very grid: rounding them again loses nothing."
    if not facts.is_probed:
        failed = (
            f" The probe failed: {printable(facts.probe_failure)}" if facts.probe_failure else ""
        )
        return f"Judged by its weights alone; it was not run.{failed}"
    tip = (
        f"Noise probe, {MODES[facts.mode or 'weights']}: {db(facts.output_sqnr_db)} at the outputs."
    )
    if facts.is_already_quantized:
        tip += " Stored as integers: the first loss is unknown."
    return tip
