"""The layers of a model, worst first: what breaks each, and what would rescue it. Plain text."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quantstore.errors import printable
from quantstore.schemes import BLOCK_SIZE, Scheme
from quantstore.wording.causes import causes
from quantstore.wording.columns import NOTHING, Cell, Column, Row, band_at, decibels, spark
from quantstore.wording.frames import figure_or_none, layer_facts, reached_with
from quantstore.wording.nodes import operator
from quantstore.wording.remedies import MOST_BITS, REMEDIES, what_helps
from quantstore.wording.units import count, db, shape, share
from quantstore.wording.verdicts import NINE_IN_TEN

if TYPE_CHECKING:
    import pandas as pd

HEADING, RESCUES = "Worst layers first", "What would rescue it"
LAYER_AND_CAUSE, LAYER_AND_REMEDY = "layer and causes", "layer and best remedy"
RESCUE_NOTE = (
    "The SQNR that 90 % of channels would reach with each remedy, and the gain. Clipped: the range"
    " is cut at the threshold with the least squared error. Equalized: the layer is rescaled with"
    " the better of its neighbours. Bits: the fewest with which 90 % of channels reach 30 dB."
    " Weights only."
)
EMBEDDINGS = "Embeddings"
EMBEDDINGS_NOTE = (
    "Tables whose rows are looked up, not multiplied. Many runtimes leave them in float or give"
    " every row its own scale. The verdict counts them as layers; the list above omits them."
)
# Where the histogram of a layer's channels ends.
SPARK_DB = 50


def cause_columns(scheme: Scheme, limits: Mapping[str, float]) -> list[Column]:
    """What breaks a layer; rows as ``queries.worst_layers`` gives them, with a ``label``.

    Args:
        limits: the lower limit of each band in dB, best band first.
    """
    columns = [
        Column(
            title=LAYER_AND_CAUSE,
            style="name",
            cell=lambda row: Cell(
                text=printable(str(row["label"])),
                small="; ".join(causes(layer_facts(row), scheme)),
            ),
        ),
        Column(
            title="operator, weight shape",
            is_wide=True,
            cell=lambda row: Cell(
                text=operator(row["op_type"], row["is_depthwise"]), small=shape(row["shape"])
            ),
        ),
        Column(
            title=f"channels by SQNR, 0 to {SPARK_DB} dB",
            style="spark",
            is_wide=True,
            cell=lambda row: Cell(spark=spark(row["spark"], limits, SPARK_DB)),
        ),
        _BAND,
        Column(
            title="channels below 10 dB",
            is_number=True,
            cell=lambda row: Cell(
                text=count(row["channels_below_10db"]), small=f"of {count(row['channel_count'])}"
            ),
        ),
        Column(
            title="weights zeroed",
            is_number=True,
            is_wide=True,
            cell=lambda row: Cell(text=share(row["zeroed_fraction"])),
        ),
    ]
    if not scheme.is_per_channel:
        columns.append(
            Column(
                title="p10 per channel",
                is_number=True,
                cell=lambda row: decibels(row["per_channel_p10_db"]),
            )
        )
    return columns


_BAND = Column(
    title="band, p10",
    style="chip",
    help=NINE_IN_TEN,
    cell=lambda row: band_at(row["band"], row["channel_sqnr_p10_db"]),
)


def stored_remedies(layers: "pd.DataFrame", scheme: Scheme) -> dict[str, str]:
    """Those of ``REMEDIES`` that the store knows of some layer under this scheme."""
    return {
        column: name
        for column, name in REMEDIES.items()
        if layers[column].notna().any()
        and not (scheme.is_per_channel and column == "per_channel_p10_db")
    }


def remedy_columns(remedies: Mapping[str, str]) -> list[Column]:
    """What would rescue a layer; rows are those of :func:`cause_columns`.

    Args:
        remedies: as :func:`stored_remedies` gives them.
    """

    def helped(row: Row) -> str:
        now = figure_or_none(row["channel_sqnr_p10_db"])
        return what_helps(str(row["band"]), now, reached_with(row, remedies))

    return [
        Column(
            title=LAYER_AND_REMEDY,
            style="name",
            cell=lambda row: Cell(text=printable(str(row["label"])), small=helped(row)),
        ),
        _BAND,
        *(_reached_column(column, name) for column, name in remedies.items()),
        *(
            _bits_column(granularity, title)
            for granularity, title in (
                ("tensor", "bits per tensor"),
                ("channel", "bits per channel"),
                ("block", f"bits in blocks of {BLOCK_SIZE}"),
            )
        ),
    ]


def _reached_column(column: str, name: str) -> Column:
    def reached(row: Row) -> Cell:
        now = figure_or_none(row["channel_sqnr_p10_db"])
        value = reached_with(row, {column: name})[name]
        if value is None:
            return Cell(text=NOTHING)
        if now is None or not math.isfinite(value):
            return Cell(text=db(value))
        return Cell(text=db(value), small=db(value - now, signed=True))

    return Column(title=f"p10 {name}", is_number=True, cell=reached)


def _bits_column(granularity: str, title: str) -> Column:
    return Column(
        title=title,
        is_number=True,
        is_wide=True,
        cell=lambda row: Cell(text=bits(row[f"bits_{granularity}"])),
    )


def bits(value: Any) -> str:
    """The bits a layer needs, out of a frame, where a negative number says that none suffice."""
    number = figure_or_none(value)
    if number is None:
        return NOTHING
    return f"> {MOST_BITS}" if number < 0 else str(int(number))
