"""A rescue as tables and captions: its steps, what left int8, what it was made with. Plain text.

Rows are those of ``queries.rescue_steps`` and ``queries.rescue_units``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantstore.errors import printable
from quantstore.wording.columns import NOTHING, Cell, Column, Row, band_at, decibels
from quantstore.wording.frames import figure_or_none
from quantstore.wording.rescues import DROPPED, KEPT, is_written, result_sentences, step_title
from quantstore.wording.units import counted, db, seconds, share, weights

if TYPE_CHECKING:
    from quantstore.records import RescueRecord

STEPS, UNITS = "Step by step", "What runs outside int8"
ALL_IN_INT8 = "All multiply-accumulates stay in int8: nothing had to be given up."
NO_FILES = "This rescue wrote no files."


def bands_of(row: Row, record: "RescueRecord") -> tuple[str | None, str | None]:
    """The band before, and after: of the file itself, where there is one.

    Args:
        row: of ``queries.rescues``, which the record is made of.
    """
    before, after = row["before_band"], row["file_band" if is_written(record) else "after_band"]
    return (
        before if isinstance(before, str) else None,
        after if isinstance(after, str) else None,
    )


def answer_lines(record: "RescueRecord", bands: tuple[str | None, str | None]) -> tuple[str, ...]:
    """What came of a rescue: before and after come first, they are the answer."""
    sentences = result_sentences(record, *bands)
    return sentences if record.failure is not None else (*sentences[-2:], *sentences[:-2])


def inputs_sentence(record: "RescueRecord") -> str:
    """Which inputs served for what, what the file has that the model has not, and the time."""
    additions = []
    if record.added_nodes:
        additions.append(f"{counted(record.added_nodes, 'Mul')} added")
    if record.weights_unsigned:
        additions.append("weights stored as uint8")
    added = f"{', '.join(additions)}. " if additions else ""
    return (
        f"Inputs: {printable(record.input_source)}; {record.calibration_count} for calibration,"
        f" {record.validation_count} for the search, {record.test_count} for the test."
        f" {added}{seconds(record.seconds)}, onnxruntime {printable(record.onnxruntime_version)}."
    )


def steps_note(record: "RescueRecord") -> str:
    """How to read the steps."""
    return (
        "One row per step, from the top. Coloured steps were kept, grey steps dropped. Values are"
        " measured on unseen inputs, which had no influence on the search. Dashed line: the goal,"
        f" {db(record.reach_db)}."
    )


def units_note(unit_count: int) -> str:
    """How to read what left int8."""
    return (
        f"{unit_count:,} in total, most noise per MAC first. Sensitivity: output SQNR with only"
        " this tensor or these weights in int8."
    )


def _share_of_macs(row: Row) -> Cell:
    macs = figure_or_none(row["int8_macs"])
    return Cell(text=NOTHING if macs is None else share(macs, digits=1))


def _predicted(row: Row) -> Cell:
    predicted = figure_or_none(row["predicted_db"])
    return Cell(text=NOTHING if predicted is None else db(predicted))


def _duration(row: Row) -> Cell:
    duration = figure_or_none(row["seconds"])
    return Cell(text=NOTHING if duration is None else seconds(duration))


STEP_COLUMNS = (
    Column(
        title="step",
        style="name",
        cell=lambda row: Cell(
            text=step_title(str(row["remedy"]), is_first=row["step"] == 0),
            small=printable(str(row["detail"])),
        ),
    ),
    Column(
        title="unseen inputs", style="chip", cell=lambda row: band_at(row["band"], row["test_db"])
    ),
    Column(title="search inputs", is_number=True, cell=lambda row: decibels(row["validation_db"])),
    Column(title="predicted", is_number=True, is_wide=True, cell=_predicted),
    Column(title="MACs in int8", is_number=True, is_wide=True, cell=_share_of_macs),
    Column(title="CPU time", is_number=True, is_wide=True, cell=_duration),
    Column(title="result", cell=lambda row: Cell(text=KEPT if row["kept"] else DROPPED)),
)


def _unit(row: Row) -> Cell:
    details = [str(row["kind"])]
    if isinstance(row["layer"], str):
        details.append(f"{row['op_type']} {printable(row['layer'])}")
    return Cell(text=f"{row['number']}. {printable(str(row['unit']))}", small=", ".join(details))


def _sensitivity(row: Row) -> Cell:
    sensitivity = figure_or_none(row["sensitivity_db"])
    return Cell(text=NOTHING if sensitivity is None else db(sensitivity))


def _macs(row: Row) -> Cell:
    macs = figure_or_none(row["macs"])
    return Cell(text=NOTHING if macs is None else weights(int(macs)))


def numbered(units: Sequence[Row]) -> list[Row]:
    """Units as :data:`UNIT_COLUMNS` reads them."""
    return [{**unit, "number": number} for number, unit in enumerate(units, 1)]


UNIT_COLUMNS = (
    Column(title="tensor or weights", style="name", cell=_unit),
    Column(title="now", cell=lambda row: Cell(text=str(row["precision"]))),
    Column(title="sensitivity", is_number=True, cell=_sensitivity),
    Column(title="MACs", is_number=True, cell=_macs),
    Column(
        title="cause",
        cell=lambda row: Cell(
            text=printable(row["cause"]) if isinstance(row["cause"], str) else ""
        ),
    ),
)
