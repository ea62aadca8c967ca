"""The matrix of verdicts: models by targets."""

import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.app.widgets import address, components, navigation, pickers
from quantstore.errors import printable
from quantstore.schemes import TARGETS, Target
from quantstore.wording.headlines import model_size
from quantstore.wording.units import file_size
from quantstore.wording.verdicts import UNFOLDED, ModelFacts, verdict, verdict_sentence


def verdict_matrix(
    verdicts: pd.DataFrame,
    models: list[str],
    target: Target,
    *,
    corner: str,
    key: str,
    sorts: dict[str, str] | None = None,
) -> None:
    """Models by targets; a head chooses the target, a cell opens the model under it.

    Args:
        verdicts: as ``queries.verdicts`` gives them.
        models: the rows, in order.
        sorts: orders to choose from, by the value that the address has for ``sort``.
    """
    columns = queries.shown_targets(verdicts, target.name)
    by_cell = {(row["model"], row["target"]): row for row in verdicts.to_dict("records")}
    is_single = corner != "model"
    rows = []
    for model in models:
        first = by_cell[(model, target.name)]
        facts = model_size(first)
        cells = []
        for name in columns:
            cell = by_cell[(model, name)]
            model_facts = queries.model_facts(cell)
            verdict_cell = verdict(model_facts)
            cells.append(
                {
                    "band": verdict_cell.band,
                    "text": verdict_cell.text,
                    "more": verdict_cell.addition,
                    "glyph": UNTESTED_GLYPH if model_facts.is_untested else "",
                    "evidence": verdict_cell.evidence,
                    "rescued": "; ".join(
                        filter(None, (verdict_cell.rescued, verdict_cell.audited))
                    ),
                    "tip": _tip(model_facts),
                    "counts": list(queries.layers_by_band(cell).items()),
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
        click = st.session_state[key].clicked
        if not click:
            return
        if sorts and click.get("sort") in sorts:
            address.choose("sort", click["sort"])
        if click.get("target") in TARGETS:
            address.choose("target", click["target"])
        if click.get("model") and not is_single:
            address.choose("model", click["model"])
            navigation.open_next("model")

    components.verdict_matrix(
        corner=corner,
        targets=[
            {"name": name, "title": TARGETS[name].title, "lines": TARGETS[name].title.split(", ")}
            for name in columns
        ],
        rows=rows,
        chosen=target.name,
        key=key,
        on_click=clicked,
        sort=sorts and {"options": list(sorts.items()), "chosen": st.session_state["sort"]},
    )


# Nobody takes it for good news: it stands before the word.
UNTESTED_GLYPH = "?"


def in_matrix(verdicts: pd.DataFrame, target: Target) -> pd.DataFrame:
    """The rows of verdicts that a matrix shows."""
    return verdicts[verdicts["target"].isin(queries.shown_targets(verdicts, target.name))]


def _tip(facts: ModelFacts) -> str:
    """What a cell rests on, in a sentence; a matrix sets it as text."""
    if facts.is_on_its_own_grid:
        stored = (
            "The file already stores integers in this format: rounding them again loses nothing"
        )
        return f"{stored}. {pickers.capital(facts.stored_loss)}."
    sentence = verdict_sentence(facts)
    tip = f"{sentence[0].upper()}{sentence[1:]}."
    if facts.is_already_quantized:
        tip += " Stored as integers: the earlier loss is unknown."
    return tip
