"""What is said of targets: what they lose, what stayed in float, which values are missing."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from quantstore.errors import printable
from quantstore.records import SimulationRecord
from quantstore.schemes import TARGETS
from quantstore.wording import failures
from quantstore.wording.columns import Cell, Column, Row, band_at
from quantstore.wording.frames import figure_or_none, names_or_none
from quantstore.wording.rescues import is_written, rescued_db
from quantstore.wording.text import listed, short_name
from quantstore.wording.units import NO_BREAK_SPACE, counted, db

if TYPE_CHECKING:
    from quantstore.wording.answers import StoredRescue

HEADING = "Targets"
CAPTION = "SQNR at the worst output on different hardware, estimated with noise."
NOT_MEASURED = "not measured"

# More names than these are only length.
MOST_NAMES = 3
LONGEST_NAME = 40


def stayed_in_float(names: Sequence[str], *, is_repeated: bool = False) -> str:
    """Which layers a target left in float, as plain text; empty where it left none.

    Args:
        is_repeated: whether these very layers were named before.
    """
    if not names:
        return ""
    if is_repeated:
        return f"The same {counted(len(names), 'layer')} stayed in float"
    shown = [short_name(printable(name), LONGEST_NAME) for name in names[:MOST_NAMES]]
    if len(names) > len(shown):
        shown.append(f"{len(names) - len(shown):,} more")
    return f"{counted(len(names), 'layer')} stayed in float: {listed(shown)}"


def missing_figures(
    records: Sequence[SimulationRecord], kept_db: Mapping[str, float]
) -> tuple[str, ...]:
    """A line for each target without a figure, as plain text: why, and which earlier one stays.

    Args:
        kept_db: the earlier figures that stay, by target.
    """
    return tuple(
        f"{record.target}: {failures.reason(record.failure)}"
        + (
            f"; the earlier value of {db(kept_db[record.target])} is kept".replace(
                NO_BREAK_SPACE, " "
            )
            if record.target in kept_db
            else ""
        )
        for record in records
        if record.target is not None and record.failure is not None
    )


def target_rows(
    values: Sequence[Row], rescues: Sequence["StoredRescue"], names: Sequence[str] = tuple(TARGETS)
) -> list[Row]:
    """A row for each target, for :func:`target_columns`.

    Args:
        values: as ``queries.model_targets`` gives them.
        rescues: the latest of each target.
        names: the targets to show.
    """
    by_target = {str(row["target"]): row for row in values}
    rescued = {rescue.record.target: rescue for rescue in rescues if is_written(rescue.record)}
    rows: list[Row] = []
    last_named: tuple[str, ...] = ()
    for name in names:
        row = by_target.get(name)
        note = "" if row is None else _missing_because(row)
        float_layers = () if row is None else tuple(names_or_none(row["float_layers"]))
        if float_layers and not note:
            # Mostly they are the same under every target: names once are enough.
            note = f"{stayed_in_float(float_layers, is_repeated=float_layers == last_named)}."
            last_named = float_layers
        rows.append({"target": name, "value": row, "note": note, "rescue": rescued.get(name)})
    return rows


def _missing_because(row: Row) -> str:
    if figure_or_none(row["output_sqnr_db"]) is not None:
        return ""
    return f"Not measured: {failures.reason(str(row['failure']))}."


def target_columns(rows: Sequence[Row]) -> list[Column]:
    """The targets, what each loses and, where some were rescued, what was reached.

    Args:
        rows: as :func:`target_rows` gives them.
    """
    columns = [
        Column(
            title="target",
            style="name",
            cell=lambda row: Cell(
                text=row["target"], small=TARGETS[row["target"]].description, note=row["note"]
            ),
        ),
        Column(title="output SQNR", style="chip", cell=_value),
    ]
    if any(row["rescue"] for row in rows):
        columns.append(Column(title="rescued, measured", style="chip", cell=_rescued))
    return columns


def _value(row: Row) -> Cell:
    value = row["value"]
    if value is None or figure_or_none(value["output_sqnr_db"]) is None:
        return Cell(text=NOT_MEASURED)
    return band_at(value["band"], value["output_sqnr_db"])


def _rescued(row: Row) -> Cell | None:
    rescue = row["rescue"]
    return None if rescue is None else Cell(band=rescue.band, small=db(rescued_db(rescue.record)))
