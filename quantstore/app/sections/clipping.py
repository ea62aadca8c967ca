"""The section of the Layer page on clipping: does a smaller range for the whole tensor help?"""

from typing import Any

import pandas as pd
import streamlit as st

from quantstore.app.widgets import colours, drawing
from quantstore.charts import clipping as charts
from quantstore.wording import frames
from quantstore.wording.remedies import TELLING_GAIN_DB
from quantstore.wording.units import count, db, share

# What one decimal does not show is no fall.
LEAST_FALL_DB = 0.05

TITLE = "Does clipping help?"
CLIPPING_DOES_NOT_HELP = "Clipping does not help: the best threshold is the largest weight itself."


def section(curves: pd.DataFrame, channel_count: int) -> None:
    """Draw the section; a layer without a curve has none.

    Args:
        curves: as ``queries.layer_clipping`` gives them.
    """
    if channel_count == 1:
        # Its only channel is the whole tensor.
        curves = curves[curves["measure"] == "tensor"]
    if curves["sqnr_db"].isna().all():
        return
    lines = charts.lines_of(curves)
    finding = _finding(lines)
    tried = ""
    if charts.NINE_IN_TEN in lines:
        number = count(len(lines[charts.NINE_IN_TEN]))
        tried = f" Channel lines were computed at {number} thresholds."
    st.space("small")
    st.header(TITLE, anchor=False)
    st.markdown(finding)
    st.caption(
        "Symmetric, one scale for the whole tensor. Weights beyond the threshold are clipped to it."
        f" Dots mark the best threshold of each line.{tried}"
    )
    drawing.chart(
        charts.clipping_lines(curves, colours.palette()),
        key="clipping",
        alt=f"SQNR against the clipping threshold. {finding}",
    )


def _finding(lines: dict[str, pd.DataFrame]) -> str:
    if charts.NINE_IN_TEN in lines:
        return _for_channels(lines[charts.NINE_IN_TEN], lines[charts.WHOLE_TENSOR])
    if all(_is_unclipped(_best(curve), curve) for curve in lines.values()):
        return CLIPPING_DOES_NOT_HELP
    return " ".join(_for_tensor(name, curve) for name, curve in lines.items())


def _for_channels(curve: pd.DataFrame, tensor: pd.DataFrame) -> str:
    best, whole = _best(curve), _unclipped(curve)
    if _is_unclipped(best, curve):
        return CLIPPING_DOES_NOT_HELP
    reached = f"{_threshold_text(best, curve)}, {db(best['sqnr_db'])}"
    if _is_hardly_more(best, whole):
        sentence = (
            f"Clipping hardly helps. Best for 90 % of channels: {reached} instead of"
            f" {db(whole['sqnr_db'])}"
        )
    else:
        sentence = f"Best for 90 % of channels: {reached}"
    tensor_db = charts.sqnr_at(tensor, best["threshold"])
    before = frames.figure_or_none(_unclipped(tensor)["sqnr_db"])
    if tensor_db is None:
        return f"{sentence}."
    is_worse = before is None or tensor_db < before - LEAST_FALL_DB
    verb = "falls to" if is_worse else "reaches"
    return f"{sentence}. At that threshold the whole tensor {verb} {db(tensor_db)}."


def _for_tensor(name: str, curve: pd.DataFrame) -> str:
    best, whole = _best(curve), _unclipped(curve)
    width = name.removeprefix(f"{charts.WHOLE_TENSOR}, ")
    if _is_unclipped(best, curve):
        return f"Clipping does not help {width}: the best threshold is the largest weight itself."
    verb = "hardly helps" if _is_hardly_more(best, whole) else "helps"
    return (
        f"Clipping {verb} {width}: best at {_threshold_text(best, curve)}, {db(best['sqnr_db'])}"
        f" instead of {db(whole['sqnr_db'])}."
    )


def _best(curve: pd.DataFrame) -> dict[Any, Any]:
    return curve[curve["is_best"]].to_dict("records")[0]


def _unclipped(curve: pd.DataFrame) -> dict[Any, Any]:
    return curve.to_dict("records")[-1]


def _is_unclipped(best: dict[Any, Any], curve: pd.DataFrame) -> bool:
    return bool(best["threshold"] >= curve["threshold"].max())


def _is_hardly_more(best: dict[Any, Any], whole: dict[Any, Any]) -> bool:
    before, after = frames.figure_or_none(whole["sqnr_db"]), frames.figure_or_none(best["sqnr_db"])
    return before is not None and after is not None and after - before < TELLING_GAIN_DB


def _threshold_text(best: dict[Any, Any], curve: pd.DataFrame) -> str:
    """``5 % of the largest weight``; the lowest threshold tried may not be the best there is."""
    lower = " or less" if best["threshold"] <= curve["threshold"].min() else ""
    return f"{share(best['threshold'])} of the largest weight{lower}"
