"""An audit as tables and captions: its layers, grids of activations and outputs. Plain text.

Rows are those of ``queries.audit_layers``, ``queries.audit_tensors`` and ``queries.audit_outputs``.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantstore.errors import printable
from quantstore.wording.audits import PAIRING_CHECK, way_titles, ways
from quantstore.wording.columns import NOTHING, Cell, Column, Interval, Row, Span, band_at
from quantstore.wording.frames import figure_or_none
from quantstore.wording.units import db, share, times, weight
from quantstore.wording.verdicts import NINE_IN_TEN

if TYPE_CHECKING:
    from quantstore.records import AuditRecord

HEADING = "Audit"
WAYS, LAYERS, TENSORS, OUTPUTS = (
    "What int8 costs at the outputs",
    "Layers: stored weights against float weights",
    "Activation grids against the values seen",
    "By output",
)
LITERT_WAYS_NOTE = (
    "SQNR of the worst deciding output against the float file. Longer bars are better."
)
WAYS_NOTE = (
    f"{LITERT_WAYS_NOTE} The last bar is the int8 file without any rounding, which must be close"
    " to the float file."
)
LAYERS_NOTE = (
    "Largest gain first, then the worst weights. Gain: output SQNR gained with float weights in"
    " this layer; only the worst layers are tried. Values: 90 % of channels reach this SQNR."
)
TENSORS_NOTE = (
    "Largest gain first, then the largest loss. Gain: output SQNR gained with this tensor in"
    " float. Picture: the grid of the file (grey bar) and the range of the values on these inputs"
    " (line)."
)
NO_GRIDS = "The int8 file rounds no activations."
NO_PARTNER = "no float layer"
# The gain of what alone made the file lose anything.
WHOLE_LOSS = "whole loss"
MATCHED_BY = {
    "value": "paired by value",
    "name": "paired by name",
    "order": "paired by shape and order",
}
ROUNDINGS = {"plain": "nearest code", "clipped": "clipped", "changed": "changed"}
ROUNDING_HELP = (
    "Nearest code: every weight is rounded to its nearest code. Clipped: large weights lie beyond"
    " the grid. Changed: weights were moved, for example by bias correction or training."
)
SCALE_HELP = "Scale in the file over the scale of plain min-max rounding, median over the channels"


def ways_note(record: "AuditRecord") -> str:
    """How to read the values at the outputs; LiteRT runs no file without its rounding."""
    return WAYS_NOTE if record.was_taken_apart else LITERT_WAYS_NOTE


def _decibels(value: object) -> Cell:
    """An SQNR, or nothing where it was not measured."""
    figure = figure_or_none(value)
    return Cell(text=NOTHING if figure is None else db(figure))


def _gain(row: Row) -> Cell:
    gain = figure_or_none(row["released_gain_db"])
    if gain is not None and math.isinf(gain):
        return Cell(text=WHOLE_LOSS)
    return Cell(text=NOTHING if gain is None else db(gain, signed=True))


def _layer(row: Row) -> Cell:
    details = [printable(str(row["op_type"]))] if isinstance(row["op_type"], str) else []
    details.append(MATCHED_BY.get(str(row["matched_by"]), NO_PARTNER))
    if isinstance(row["stored_scheme"], str):
        details.append(printable(row["stored_scheme"]))
    name, float_name = row["layer"], row["float_layer"]
    if isinstance(float_name, str) and float_name != name:
        details.append(f"float: {printable(float_name)}")
    return Cell(
        text=printable(name) if isinstance(name, str) else NOTHING, small="; ".join(details)
    )


def _stored(row: Row) -> Cell:
    if not isinstance(row["band"], str):
        return Cell(text=NOTHING)
    return band_at(row["band"], row["stored_p10_db"])


def _plain(column: str) -> Column:
    titles = {"plain_p10_db": "plain rounding", "per_channel_p10_db": "per channel"}
    return Column(
        title=titles[column],
        is_number=True,
        help=f"{NINE_IN_TEN}, with plain min-max rounding"
        f" {'of the same kind' if column == 'plain_p10_db' else 'with a scale per channel'}",
        cell=lambda row: _decibels(row[column]),
    )


def _scale(row: Row) -> Cell:
    ratio = figure_or_none(row["scale_ratio"])
    return Cell(text=NOTHING if ratio is None else times(ratio))


LAYER_COLUMNS = (
    Column(title="layer", style="name", cell=_layer),
    Column(title="gain", is_number=True, cell=_gain),
    Column(title="stored", style="chip", cell=_stored, help=NINE_IN_TEN),
    _plain("plain_p10_db"),
    _plain("per_channel_p10_db"),
    Column(title="scale", is_number=True, is_wide=True, cell=_scale, help=SCALE_HELP),
    Column(
        title="rounding",
        is_wide=True,
        help=ROUNDING_HELP,
        cell=lambda row: Cell(text=ROUNDINGS.get(str(row["rounding"]), NOTHING)),
    ),
)


def _tensor(row: Row) -> Cell:
    name = str(row["tensor"])
    partner = row["float_tensor"]
    small = "" if isinstance(partner, str) else "no float tensor"
    return Cell(text=printable(name), small=small)


def _ends(row: Row, low: str, high: str) -> Span | None:
    ends = figure_or_none(row[low]), figure_or_none(row[high])
    return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])


def _range(row: Row) -> Cell:
    """The grid and the range seen, in figures, above a picture of both."""
    grid, seen = _ends(row, "grid_low", "grid_high"), _ends(row, "seen_low", "seen_high")
    said_grid = "grid found at run time" if grid is None else f"grid {_from_to(grid)}"
    said_seen = "range unknown" if seen is None else f"seen {_from_to(seen)}"
    interval = None
    if grid is not None or seen is not None:
        interval = Interval(grid, seen, f"{said_grid}, {said_seen}")
    return Cell(text=said_grid, small=said_seen, interval=interval)


def _from_to(span: Span) -> str:
    return f"{weight(span[0])} to {weight(span[1])}"


def _shares(row: Row) -> Cell:
    used = figure_or_none(row["used_share"])
    saturated = figure_or_none(row["saturated_share"])
    return Cell(
        text=NOTHING if saturated is None else share(saturated, digits=1),
        small="" if used is None else f"{share(used)} of grid used",
    )


def _on_grid(row: Row) -> Cell:
    best = figure_or_none(row["best_sqnr_db"])
    cell = _decibels(row["sqnr_db"])
    return Cell(text=cell.text, small="" if best is None else f"best range {db(best)}")


TENSOR_COLUMNS = (
    Column(title="tensor", style="name", cell=_tensor),
    Column(title="gain", is_number=True, cell=_gain),
    Column(title="grid and values seen", style="interval", cell=_range),
    Column(
        title="saturated",
        is_number=True,
        help="Share of the values beyond the ends of the grid",
        cell=_shares,
    ),
    Column(
        title="SQNR on the grid",
        is_number=True,
        is_wide=True,
        help="SQNR of the rounded float tensor; below: with as many codes over the best range",
        cell=_on_grid,
    ),
    Column(
        title="drift",
        is_number=True,
        is_wide=True,
        help="SQNR of the tensor in the int8 file, with everything before it",
        cell=lambda row: _decibels(row["drift_db"]),
    ),
)


def output_columns(record: "AuditRecord") -> Sequence[Column]:
    """The outputs, each in the ways that were measured."""

    def name(row: Row) -> Cell:
        part = f", {printable(row['part'])}" if isinstance(row["part"], str) else ""
        where = [printable(str(row["point"]))] if row["point"] else []
        return Cell(
            text=f"{printable(str(row['output']))}{part}",
            small="; ".join([*where, *([] if row["decides"] else ["does not decide"])]),
        )

    short_ways = SHORT_WAYS if record.was_taken_apart else SHORT_LITERT_WAYS

    def way(column: str) -> Column:
        was_run = not math.isnan(getattr(record, column))
        return Column(
            title=short_ways[column],
            is_number=True,
            is_wide=column in ("exact_db", PAIRING_CHECK),
            help=way_titles(record)[column],
            # What is missing in a way that was run lost nothing: in audits of older releases.
            cell=lambda row: Cell(text=db(figure_or_none(row[column])) if was_run else NOTHING),
        )

    return (Column(title="output", style="name", cell=name), *map(way, ways(record)))


SHORT_WAYS = {
    "grid_db": "float arithmetic",
    "integer_db": "integer kernels",
    "exact_db": "exact sums",
    "weights_db": "weights only",
    "activations_db": "activations only",
    PAIRING_CHECK: "no rounding",
}
SHORT_LITERT_WAYS = {"grid_db": "reference kernels", "integer_db": "this computer"}
