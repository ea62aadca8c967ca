"""What int8 does to the answers of a run, in words: rows of ``simulation_answers`` in."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from quantstore.answers import NetworkAnswer
from quantstore.errors import printable
from quantstore.wording.text import listed
from quantstore.wording.units import count, counted, db

if TYPE_CHECKING:
    from quantstore.records import AnswerRecord

# A smaller change of a score is that of one step of its grid, or of a few.
TELLING_SCORE_CHANGE = 0.05
# Of the ways in which a class changes, a sentence names the most frequent.
MOST_CHANGES = 2
ABOVE_LIMIT = " above 0.3"

HAS_NO_FORM = (
    "The outputs of this model cannot be shown as an answer: they have no decoded"
    " boxes, class scores or maps."
)


NETWORKS = ("float", "int8")
BOX_NOTE = (
    f"Detections with a score{ABOVE_LIMIT}. Solid line: in both networks. Dashed line,"
    " “lost”: int8 no longer detects it. Dotted line, “new”: only int8 detects it. Two detections"
    " are the same if their class is and their boxes overlap by half (IoU ≥ 0.5)."
)
CLASS_NOTE = "The five largest scores."
MAP_NOTE = "The brighter a cell, the larger its value, on the same scale on both sides."
_NOTES = {"boxes": BOX_NOTE, "classes": CLASS_NOTE}
FED_NOISE = (
    "This run used noise, which has no right answer. Run the model on your own"
    " inputs to see its answers in float and in int8."
)
NOT_KEPT = (
    "This run has no answers: the outputs are the same in float and int8, or the"
    " run is from an earlier release. Run the model again to see them."
)


def why_none(sources: Sequence[str]) -> str:
    """Why there are no answers of these runs, by what they were fed."""
    return FED_NOISE if all(source.startswith("noise") for source in sources) else NOT_KEPT


def note_on(shown: "Sequence[AnswerRecord]", input_count: int) -> str:
    """What the pictures show, and of which inputs."""
    which = "The inputs whose outputs changed most, and a typical one."
    if len(shown) == input_count:
        which = "All inputs, largest change first." if input_count > 1 else ""
    return f"{_NOTES.get(shown[0].form, MAP_NOTE)} {which}".strip()


def not_readable(row: "AnswerRecord") -> str:
    """Where the store holds a text that is no answer."""
    return f"The answers on {printable(row.input_name)} cannot be read. Run the model again."


def changes(rows: "Sequence[AnswerRecord]") -> str:
    """What becomes of the answers of a run, in one or two sentences; empty without rows."""
    if not rows:
        return ""
    form = rows[0].form
    if form == "boxes":
        return _boxes(rows)
    if form == "classes":
        return _classes(rows)
    if form == "scores":
        return _scores(rows)
    if form == "energy":
        return (
            f"The outputs have no boxes or classes. In the last map, the peak {_peak_moves(rows)}."
        )
    return HAS_NO_FORM


def change_of(row: "AnswerRecord") -> str:
    """What becomes of the answer on one input; empty where it has no form."""
    if row.form == "boxes":
        return _stay(row.kept, row.lost, row.gained, "detection") or "nothing detected in either"
    if row.form == "classes":
        return "same top class" if row.kept else "another top class"
    texts = []
    if row.form == "scores":
        texts.append(
            _stay(row.kept, row.lost, row.gained, "score", ABOVE_LIMIT)
            or f"no score{ABOVE_LIMIT} in either"
        )
    if row.peak_shift is not None:
        texts.append(f"peak {_moves(row.peak_shift)}")
    return ", ".join(texts)


def place_of(row: "AnswerRecord", input_count: int) -> str:
    """How much the outputs of an input changed, beside the others: ``changed most, 9.5 dB``."""
    figure = "exact" if not math.isfinite(row.sqnr_db) else f"SQNR {db(row.sqnr_db)}"
    if row.rank == 1:
        return f"changed most, {figure}"
    if row.rank == input_count // 2 + 1:
        return f"typical, {figure}"
    return f"{_ordinal(row.rank)} of {input_count} by change, {figure}"


def described(row: "AnswerRecord", answer: NetworkAnswer, network: str) -> str:
    """What a picture shows, for people who cannot see it.

    Args:
        network: ``float`` or ``int8``.
    """
    subject = f"{network} on {printable(row.input_name)}"
    if answer.form == "boxes":
        if not answer.boxes:
            return f"{subject}: nothing detected"
        fate = "lost in int8" if network == "float" else "new in int8"
        names = Counter(answer.name_of(box.label) for box in answer.boxes)
        others = sum(not box.stays for box in answer.boxes)
        listing = listed([f"{number} × {name}" for name, number in names.most_common(4)])
        tail = f"; {others} {fate}" if others else ""
        return f"{subject}: {counted(len(answer.boxes), 'detection')}, {listing}{tail}"
    if answer.map is not None:
        values = answer.map.values
        peak = max(range(len(values)), key=values.__getitem__)
        row_index, column = divmod(peak, answer.map.columns)
        largest = values[peak] / 255 * answer.map.full_scale
        return (
            f"{subject}: map of {answer.map.rows} by {answer.map.columns} cells, largest value"
            f" {largest:.3g} in row {row_index + 1}, column {column + 1}"
        )
    return f"{subject}: {listed([answer.name_of(item.label) for item in answer.classes])}"


def _boxes(rows: "Sequence[AnswerRecord]") -> str:
    kept, lost, gained = _sums(rows)
    where = f"on {counted(len(rows), 'input')}"
    if not kept + lost + gained:
        return f"Neither float nor int8 detects anything {where}."
    sentence = f"{_stay(kept, lost, gained, 'detection')} ({where})."
    # Of few that are left, scores say nothing.
    if kept > lost:
        change = sum(row.score_change * row.kept for row in rows if row.kept) / kept
        if abs(change) >= TELLING_SCORE_CHANGE:
            verb = "rise" if change > 0 else "fall"
            sentence += f" Scores of those that stay {verb} by {abs(change):.2f} on average."
    in_float = sum(row.kept_by_heads or 0 for row in rows)
    if in_float > kept:
        sentence += (
            f" With the decoder in float, {count(in_float)} of {count(kept + lost)} stay: keep it"
            " out of int8."
        )
    return sentence


def _classes(rows: "Sequence[AnswerRecord]") -> str:
    names = _names(rows)
    changed = Counter(
        (row.float_class, row.int8_class) for row in rows if row.float_class != row.int8_class
    )
    if not changed:
        return f"The top class stays on {_all(len(rows))}."
    number = changed.total()
    shown = [
        f"from {_class(before, names)} to {_class(after, names)} on {count(times)}"
        for (before, after), times in changed.most_common(MOST_CHANGES)
    ]
    return (
        f"The top class changes on {count(number)} of {counted(len(rows), 'input')}:"
        f" {listed(shown) if len(changed) <= MOST_CHANGES else ', '.join([*shown, '…'])}."
    )


def _scores(rows: "Sequence[AnswerRecord]") -> str:
    kept, lost, gained = _sums(rows)
    where = f"on {counted(len(rows), 'input')}"
    if not kept + lost + gained:
        return f"The map has no score{ABOVE_LIMIT}, neither in float nor in int8, {where}."
    sentence = f"{_stay(kept, lost, gained, 'score', ABOVE_LIMIT)} ({where})."
    if any(row.peak_shift is not None for row in rows):
        sentence += f" The peak of the score map {_peak_moves(rows)}."
    return sentence


def _stay(
    kept: int | None, lost: int | None, gained: int | None, noun: str, which: str = ""
) -> str:
    """``7 of 9 detections stay; 2 lost, 1 new``; empty where there are none at all."""
    kept, lost, gained = kept or 0, lost or 0, gained or 0
    if not kept + lost:
        return f"{counted(gained, f'new {noun}')}{which}, none in float" if gained else ""
    changed = [f"{count(lost)} lost"] if lost else []
    changed += [f"{count(gained)} new"] if gained else []
    verb = "stays" if kept + lost == 1 else "stay"
    sentence = f"{count(kept)} of {counted(kept + lost, noun)}{which} {verb}"
    return f"{sentence}; {', '.join(changed)}" if changed else sentence


def _peak_moves(rows: "Sequence[AnswerRecord]") -> str:
    shifts = [row.peak_shift for row in rows if row.peak_shift is not None]
    text = _moves(round(statistics.median(shifts)))
    return f"{text} at the median" if len(shifts) > 1 else text


def _moves(cells: int) -> str:
    return f"moves by {counted(cells, 'cell')}" if cells else "stays in its cell"


def _sums(rows: "Sequence[AnswerRecord]") -> tuple[int, int, int]:
    return (
        sum(row.kept or 0 for row in rows),
        sum(row.lost or 0 for row in rows),
        sum(row.gained or 0 for row in rows),
    )


def _names(rows: "Sequence[AnswerRecord]") -> dict[int, str]:
    """Names of the classes that occur in the answers that are kept."""
    names: dict[int, str] = {}
    for row in rows:
        for text in (row.float_answer, row.int8_answer):
            answer = readable(text)
            names |= dict(answer.names) if answer is not None else {}
    return names


def readable(text: str | None) -> NetworkAnswer | None:
    """An answer as the store has it; None where there is none, or none that can be read."""
    try:
        return None if text is None else NetworkAnswer.from_json(text)
    except ValueError:
        return None


def _class(label: int | None, names: Mapping[int, str]) -> str:
    if label is None:
        return "none"
    return printable(names[label]) if label in names else str(label)


def _all(number: int) -> str:
    return "the only input" if number == 1 else f"all {counted(number, 'input')}"


def _ordinal(rank: int) -> str:
    ending = (
        "th" if rank % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    )
    return f"{rank}{ending}"
