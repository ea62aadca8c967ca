"""What each layer costs when it alone is quantized: rows of ``queries.sensitivities`` in words."""

import math
from collections.abc import Sequence

from quantstore.errors import printable
from quantstore.numerics.correlation import spearman
from quantstore.wording.columns import Cell, Column, Row, band_at, decibels
from quantstore.wording.frames import figure_or_none
from quantstore.wording.nodes import operator
from quantstore.wording.runs import rounded
from quantstore.wording.units import counted, with_minus

HEADING = "Sensitivity"
MOST_LAYERS = 8


def agreement(rows: Sequence[Row]) -> str:
    """How far the ranking by outputs and that by weights agree."""
    rank_correlation = spearman(
        *(
            [_or_most(row[column]) for row in rows]
            for column in ("output_sqnr_db", "channel_sqnr_p10_db")
        )
    )
    if rank_correlation.rho is None:
        return "Too few layers to compare this ranking with the ranking by weights."
    rho = rank_correlation.rho
    verb = "agrees with" if rho >= 0.8 else "partly agrees with" if rho >= 0.4 else "differs from"
    return (
        f"The ranking by output SQNR {verb} the ranking by weights (p10): Spearman"
        f" {with_minus(f'{rho:.2f}')} over {counted(rank_correlation.n, 'layer')}."
    )


def _or_most(value: object) -> float:
    figure = figure_or_none(value)
    return math.inf if figure is None else figure


def subject(rows: Sequence[Row]) -> str:
    """What was quantized alone, on which inputs, and what the values are."""
    first = rows[0]
    # Release 0.1.0 took what a layer reads and makes with it.
    quantized = {"weights": "weights", "both": "weights, inputs and outputs"}.get(
        first["mode"], "inputs and outputs"
    )
    if first["unit_kind"] == "weights":
        quantized = "weights"
    return (
        f"{rounded(first)}, on {printable(str(first['input_source']))}. Only the {quantized} of"
        " this layer are quantized. Lowest output SQNR first."
    )


def columns(layer_count: int) -> list[Column]:
    """The layers in order of sensitivity, and what their weights say.

    Args:
        layer_count: how many layers are ranked.
    """
    return [
        Column(
            title="quantized alone",
            style="name",
            cell=lambda row: Cell(
                text=f"{row['rank']}. {printable(str(row['layer']))}",
                small=operator(str(row["op_type"]), bool(row["is_depthwise"])),
            ),
        ),
        Column(
            title="output SQNR",
            is_number=True,
            cell=lambda row: decibels(row["output_sqnr_db"]),
        ),
        Column(
            title="weights, p10",
            style="chip",
            cell=lambda row: band_at(row["band"], row["channel_sqnr_p10_db"]),
        ),
        Column(
            title="rank by weights",
            is_number=True,
            cell=lambda row: Cell(text=f"{row['weight_rank']}", small=f"of {layer_count}"),
        ),
    ]
