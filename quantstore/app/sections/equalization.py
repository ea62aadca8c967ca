"""The section of the Layer page on equalization: would a neighbour's scale help the weights?"""

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from quantstore.app.widgets import components
from quantstore.errors import printable
from quantstore.schemes import DEFAULT_SCHEME
from quantstore.wording import frames
from quantstore.wording.nodes import operator
from quantstore.wording.remedies import TELLING_GAIN_DB
from quantstore.wording.text import markdown
from quantstore.wording.units import db

# The operators that equalization is computed for, with the operand that holds their weights.
PAIRED = (("Conv", "W"), ("Gemm", "B"))

METHOD = (
    "Two consecutive layers are rescaled channel by channel, so that the float network computes"
    " the same (cross-layer equalization, Nagel et al., 2019)."
)
FORECAST = (
    f"This is a forecast for the weights under {DEFAULT_SCHEME.title}, not for the outputs. Run the"
    " equalized model to confirm it."
)
WHAT_PASSES = (
    "It works through ReLU, LeakyReLU and PReLU, but not through SiLU, HardSwish, Sigmoid or ReLU6."
    " The values between the two layers must not be used anywhere else (no branch, no output)."
    " Pooling and Flatten are not considered."
)
GAINS_DO_NOT_ADD_UP = "Each neighbour is considered separately; the two gains do not add up."

TITLE, NEIGHBOUR = "What equalization could give", "rescaled with"
EXACT_ALREADY = "Nothing to gain: 90 % of channels are exact already."
NO_NEIGHBOUR = (
    "Nothing: this layer has no neighbour to be rescaled with. An operator between them may block"
    " the factor, or the values may be used elsewhere."
)
STORED_AS_INTEGERS = (
    "No forecast: the file stores these weights as integers, and layers must be rescaled before"
    " their weights are rounded."
)


def section(
    neighbours: pd.DataFrame, details: dict[str, Any], open_layer: Callable[[int], None]
) -> None:
    """Draw the section.

    Args:
        neighbours: as ``queries.layer_equalization`` gives them.
        details: as ``queries.layer_details`` gives them.
        open_layer: from a callback, shows the layer of this key.
    """
    st.space("small")
    st.header(TITLE, anchor=False)
    rows = neighbours.to_dict("records")
    if not rows:
        st.markdown(_no_neighbour(details))
        st.caption(f"{METHOD} {WHAT_PASSES}")
        return
    st.markdown(_finding(rows))
    alone = f" {GAINS_DO_NOT_ADD_UP}" if len(rows) > 1 else ""
    st.caption(f"{METHOD} {FORECAST}{alone}")

    def clicked() -> None:
        target = st.session_state["neighbours"].clicked
        if target:
            open_layer(int(target["row"]))

    components.table(
        columns=[
            {"title": NEIGHBOUR, "kind": "name"},
            {"title": "this layer now", "kind": "chip", "wide": True},
            {"title": "this layer after", "kind": "chip"},
            {"title": "neighbour now", "kind": "chip", "wide": True},
            {"title": "neighbour after", "kind": "chip"},
        ],
        rows=[_row(row) for row in rows],
        key="neighbours",
        on_click=clicked,
    )


def _row(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        "key": str(row["partner_layer_id"]),
        "cells": [
            {"text": printable(str(row["partner"])), "small": _side(row)},
            {"band": row["band"], "small": db(row["before_db"])},
            {
                "band": row["band_after"],
                "small": _reached(row["before_db"], row["after_db"]),
            },
            {"band": row["partner_band"], "small": db(row["partner_before_db"])},
            {
                "band": row["partner_band_after"],
                "small": _reached(row["partner_before_db"], row["partner_after_db"]),
            },
        ],
    }


def _no_neighbour(details: dict[str, Any]) -> str:
    if details["already_quantized"]:
        return STORED_AS_INTEGERS
    if (details["op_type"], details["operand"]) not in PAIRED:
        operator_name = operator(str(details["op_type"]), bool(details["is_depthwise"]))
        return not_paired(str(details["operand"]), operator_name)
    return NO_NEIGHBOUR


def not_paired(operand: str, operator_name: str) -> str:
    """That equalization is not computed for this operand, as Markdown."""
    return (
        "No forecast: equalization is computed between Conv and Gemm layers, and this is"
        f" operand {markdown(operand)} of a {markdown(operator_name)}."
    )


def _finding(rows: list[dict[Any, Any]]) -> str:
    """What the better neighbour would give, what that costs the neighbour, and what others give."""
    best, *other_neighbours = rows
    before, after = (
        frames.figure_or_none(best["before_db"]),
        frames.figure_or_none(best["after_db"]),
    )
    if before is None:
        return EXACT_ALREADY
    sentence = _with_best(best, before, after)
    own_before = frames.figure_or_none(best["partner_before_db"])
    own_after = frames.figure_or_none(best["partner_after_db"])
    if own_after is not None and (own_before is None or own_after <= own_before - TELLING_GAIN_DB):
        sentence += f" {_name(best)} itself would fall from {db(own_before)} to {db(own_after)}."
    for neighbour in other_neighbours:
        reached = frames.figure_or_none(neighbour["after_db"])
        outcome = "be exact" if reached is None else f"reach {db(reached)}"
        sentence += f" With {_name(neighbour)}, {_side(neighbour)}, they would {outcome}."
    return sentence


def _with_best(best: dict[Any, Any], before: float, after: float | None) -> str:
    subject = f"escaling with {_name(best)}, {_side(best)}, would"
    if after is None:
        return f"R{subject} make 90 % of channels exact; now they reach {db(before)}."
    gain = after - before
    from_to = f"from {db(before)} to {db(after)}: **{db(gain, signed=True)}**"
    if gain <= -TELLING_GAIN_DB:
        return f"Nothing to gain: r{subject} lower 90 % of channels {from_to}."
    if gain < TELLING_GAIN_DB:
        return f"Hardly anything: r{subject} take 90 % of channels {from_to}."
    band, band_after = best["band"], best["band_after"]
    if band == "fine":
        return f"The layer is fine as it is; r{subject} lift 90 % of channels {from_to}."
    if band_after == "fine":
        return f"R{subject} lift 90 % of channels {from_to}, enough to be fine."
    still = "still " if band_after == band else ""
    called = "rated watch" if band_after == "watch" else band_after
    return f"R{subject} lift 90 % of channels {from_to}. The layer would {still}be {called}."


def _name(row: dict[Any, Any]) -> str:
    return f"**{markdown(str(row['partner']))}**"


def _side(row: dict[Any, Any]) -> str:
    return "the layer before" if row["is_before"] else "the layer after"


def _reached(before: float | None, after: float | None) -> str:
    """``32.0 dB (+20.1 dB)``; from or to exact there is no gain in dB."""
    known_before, known_after = frames.figure_or_none(before), frames.figure_or_none(after)
    if known_before is None or known_after is None:
        return db(known_after)
    return f"{db(known_after)} ({db(known_after - known_before, signed=True)})"
