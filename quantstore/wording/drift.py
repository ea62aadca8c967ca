"""Where along a network the quantized model leaves the float one, in words. Plain text.

Runs are rows of ``queries.drift_runs``, tensors those of ``queries.drift``.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from quantstore.errors import printable
from quantstore.wording.columns import NOTHING, Cell, Column, Row, band_at, decibels
from quantstore.wording.frames import figure_or_none
from quantstore.wording.runs import rounded
from quantstore.wording.text import short_name
from quantstore.wording.units import bits, db, weight, with_minus

if TYPE_CHECKING:
    import pandas as pd

# Falls of a tensor's SQNR are counted from here, where the bars of every page hang from: what
# happens above it is no loss that anybody could notice.
FALLS_FROM_DB = 40.0
# A smaller fall is the ripple of every network.
TELLING_FALL_DB = 1.0
# What a person reads of a list before it is only length.
MOST_JUMPS, MOST_WORST = 6, 8
# A node's name in a headline.
NODE_NAME = 60

NO_JUMP = f"No single step costs {db(TELLING_FALL_DB)} or more"
NO_VALUE = "No loss at the outputs, or the outputs could not be compared"
JUMPS = "Where the error jumps"
WHAT_JUMPS = (
    "The nodes at which the accumulated SQNR drops below all earlier values, largest drop first."
)
GRADUAL = f"{NO_JUMP}; the error builds up gradually."
SOLID_LINE = "Solid line: accumulated error, with the whole model quantized."
DOTTED_LINE = "Dotted line: local error, with only this node quantized."
LINES_NOTE = "At 0 dB the error is as large as the signal. Numbers mark the largest drops."
WORST_TENSORS = "Worst tensors"


def steepest_falls(tensors: "pd.DataFrame") -> "pd.DataFrame":
    """The steepest falls, numbered as the chart and the table number them."""
    falls = tensors[tensors["drop_db"] >= TELLING_FALL_DB]
    runs = max(1, tensors["simulation_id"].nunique())
    each = max(2, MOST_JUMPS // runs)
    steepest = (
        falls.sort_values("drop_db", ascending=False, kind="stable")
        .groupby("simulation_id", sort=False)
        .head(each)
        .head(MOST_JUMPS + 2)
    )
    return steepest.assign(number=range(1, len(steepest) + 1))


def headline(runs: Sequence[Row], falls: Sequence[Row]) -> str:
    """``At risk: output SQNR of rtmdet-nano is 10.4 dB. Largest drop: Conv_6, 30.8 → 22.0 dB.``

    Args:
        falls: as :func:`steepest_falls` gives them.
    """
    compared = [run for run in runs if figure_or_none(run["output_sqnr_db"]) is not None]
    if not compared:
        return NO_VALUE
    worst = min(compared, key=lambda run: float(run["output_sqnr_db"]))
    which = "" if len(runs) == 1 else f" ({rounded(worst)})"
    band = str(worst["band"])
    sentence = (
        f"{band[0].upper()}{band[1:]}: the output SQNR of"
        f" {printable(str(worst['model']))}{which} is {db(float(worst['output_sqnr_db']))}."
    )
    run_falls = [fall for fall in falls if fall["simulation_id"] == worst["simulation_id"]]
    if not run_falls:
        return f"{sentence} {NO_JUMP}."
    steepest = max(run_falls, key=lambda fall: float(fall["drop_db"]))
    name = printable(short_name(str(steepest["node_name"]), NODE_NAME))
    return f"{sentence} Largest drop: {name}, {before_and_after(steepest)}."


def before_and_after(fall: Row) -> str:
    """``30.8 dB → 22.0 dB``: the least SQNR before a node, and its own."""
    before = float(fall["lowest_before_db"])
    prefix = "≥ " if before >= FALLS_FROM_DB else ""
    return f"{prefix}{db(before)} → {db(before - float(fall['drop_db']))}"


def jump_columns(*, is_several: bool) -> list[Column]:
    """What falls at which node; rows as :func:`steepest_falls` gives them.

    Args:
        is_several: whether the rows are of several runs, whose names then stand in ``run``.
    """
    return [
        Column(
            title="node",
            style="name",
            cell=lambda row: Cell(
                text=f"{row['number']}. {printable(str(row['node_name']))}",
                small=_of_run(row, str(row["op_type"]), is_several),
            ),
        ),
        Column(
            title="accumulated",
            cell=lambda row: Cell(
                text=before_and_after(row), small=db(-float(row["drop_db"]), signed=True)
            ),
        ),
        _BY_ITSELF,
        Column(
            title="weights, p10",
            style="chip",
            cell=_if_layer(lambda row: band_at(row["band"], row["channel_sqnr_p10_db"]), None),
        ),
        Column(
            title="weight range, channel spread",
            is_number=True,
            is_wide=True,
            cell=_if_layer(_range_and_spread, Cell(text="no weights")),
        ),
    ]


def _of_run(row: Row, text: str, is_several: bool) -> str:
    return f"{text} · {row['run']}" if is_several else text


def _if_layer(cell: Callable[[Row], Cell], otherwise: Cell | None) -> Callable[[Row], Cell | None]:
    return lambda row: otherwise if figure_or_none(row["layer_id"]) is None else cell(row)


def _range_and_spread(row: Row) -> Cell:
    ratio = figure_or_none(row["channel_range_ratio"])
    return Cell(
        text=weight(figure_or_none(row["weight_range"])),
        small="" if ratio is None or ratio <= 0 else bits(math.log2(ratio)),
    )


_BY_ITSELF = Column(
    title="local",
    is_number=True,
    cell=lambda row: decibels(row["local_db"]) if row["has_local"] else Cell(text=NOTHING),
)


def tensor_columns(*, is_several: bool) -> list[Column]:
    """The tensors of the lowest SQNR, and how their values moved."""
    return [
        Column(
            title="tensor and its node",
            style="name",
            cell=lambda row: Cell(
                text=printable(str(row["tensor"])),
                small=_of_run(
                    row, f"{row['op_type']} {printable(str(row['node_name']))}", is_several
                ),
            ),
        ),
        Column(title="accumulated", is_number=True, cell=lambda row: decibels(row["sqnr_db"])),
        _BY_ITSELF,
        Column(
            title="mean shift",
            is_number=True,
            is_wide=True,
            cell=lambda row: Cell(text=hundredths(row["mean_shift"], signed=True)),
        ),
        Column(
            title="std: quantized / float",
            is_number=True,
            is_wide=True,
            cell=lambda row: Cell(text=hundredths(row["std_ratio"])),
        ),
        Column(
            title="depth",
            is_number=True,
            is_wide=True,
            cell=lambda row: Cell(text=f"{100 * float(row['place']):.0f} %"),
        ),
    ]


def hundredths(value: Any, *, signed: bool = False) -> str:
    """``−0.12``: a value out of a frame to two decimals."""
    figure = figure_or_none(value)
    if figure is None:
        return NOTHING
    if round(figure, 2) == 0:
        return "0.00"
    return with_minus(f"{figure:+.2f}" if signed else f"{figure:.2f}")
