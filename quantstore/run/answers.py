"""What a network answers on each input, in float and rounded, and which answers stay.

The answers of all inputs are compared; those of a few are kept to be looked at: the inputs whose
outputs changed most, and a typical one. One input is read at a time.
"""

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantstore.answers import (
    LONGEST_LABEL,
    MOST_CELLS_ASIDE,
    MOST_CLASSES,
    NO_FORM,
    DetectedBox,
    NetworkAnswer,
    ScoredClass,
    ValueMap,
)
from quantstore.errors import printable
from quantstore.records import AnswerRecord, Array, Doubles
from quantstore.run import outputs, thumbnails
from quantstore.run.boxes import Detections, detections, matched
from quantstore.run.inputs import Samples, Source
from quantstore.run.outputs import JudgedPart
from quantstore.run.points import Points
from quantstore.run.readings import (
    MapValues,
    OutputTensors,
    Reading,
    ReadingContext,
    recognised,
)

# How many inputs are shown whose outputs changed most; one that is typical comes besides.
MOST_CHANGED = 4
_LONGEST_NAMES = 1 << 20

Returned = Sequence[Sequence[Array]]
HandedOut = Sequence[Mapping[str, Array]]


@dataclass(frozen=True, slots=True)
class RunOutputs:
    """What both networks gave, input by input.

    ``expected`` and ``actual``: at the points of comparison, of the float and the rounded network.
    ``handed_expected`` and ``handed_actual``: behind the decoder, by name; empty without one.
    ``handed_in_float``: what the decoder makes of the rounded network in float, as some do run it.
    """

    points: Points
    expected: Returned
    actual: Returned
    handed_expected: HandedOut = ()
    handed_actual: HandedOut = ()
    handed_in_float: HandedOut = ()

    def tensors(self, index: int) -> tuple[OutputTensors, OutputTensors]:
        """Those of one input, of the float and of the rounded network."""
        before, after = (
            dict(zip(self.points.names, runs[index], strict=True))
            for runs in (self.expected, self.actual)
        )
        return (
            OutputTensors(before, self._handed(before, self.handed_expected, index)),
            OutputTensors(after, self._handed(after, self.handed_actual, index)),
        )

    def behind_float_decoder(self, index: int) -> OutputTensors | None:
        """Those of the rounded network with its decoder in float; None without a decoder."""
        if not self.handed_in_float:
            return None
        after = dict(zip(self.points.names, self.actual[index], strict=True))
        return OutputTensors(after, self._handed(after, self.handed_in_float, index))

    def _handed(
        self, heads: Mapping[str, Array], handed: HandedOut, index: int
    ) -> dict[str, Array]:
        """What is behind the decoder, and the outputs that are compared as they are."""
        outputs_of_parts = {part.output for part in self.points.parts}
        plain = {name: tensor for name, tensor in heads.items() if name in outputs_of_parts}
        return {**plain, **(handed[index] if handed else {})}


def answers(
    samples: Samples,
    returned: RunOutputs,
    judged: Sequence[JudgedPart],
    names: Mapping[int, str],
    *,
    with_pictures: bool,
) -> tuple[AnswerRecord, ...]:
    """A row for each input, those first whose outputs changed most.

    Args:
        judged: what each output keeps; the worst of those that decide orders the inputs.
        names: of the classes, by index, where the file says them.
        with_pictures: whether small pictures of the inputs shown are kept.
    """
    batch = len(samples.sources(0))
    inputs = returned if batch == 1 else _split(returned, batch)
    sources = [source for run in range(len(samples)) for source in samples.sources(run)]
    reading = None
    if inputs is None:
        # Nobody knows which part of the outputs belongs to which input of the batch.
        inputs, sources = returned, [samples.sources(run)[0] for run in range(len(samples))]
    else:
        context = _context(samples, returned.points, names)
        reading = recognised(inputs.tensors(0)[0], context)
    figures = _figures(inputs, judged)
    order = sorted(range(len(sources)), key=figures.__getitem__)
    shown = {*range(min(MOST_CHANGED, len(order))), len(order) // 2}
    return tuple(
        _record(
            sources[index],
            AnswerRecord(
                input_name=sources[index].name,
                rank=rank + 1,
                sqnr_db=figures[index],
                form=NO_FORM if reading is None else reading.form,
                is_shown=rank in shown,
            ),
            _change(reading, inputs, index),
            names,
            with_pictures=with_pictures,
        )
        for rank, index in enumerate(order)
    )


def class_names(metadata: Mapping[str, str]) -> dict[int, str]:
    """Names of classes by index, as exporters write them into a file; empty without any.

    Ultralytics writes a dictionary of Python, ``{0: 'person', 1: 'bicycle'}``; others a list.
    """
    text = metadata.get("names", "")
    try:
        content = ast.literal_eval(text) if len(text) <= _LONGEST_NAMES else None
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return {}
    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        return {}
    return {
        label: printable(name)[:LONGEST_LABEL]
        for label, name in content.items()
        # A number written out is no name.
        if isinstance(label, int) and label >= 0 and isinstance(name, str) and name != str(label)
    }


def _split(returned: RunOutputs, batch: int) -> RunOutputs | None:
    """The outputs row by row of the batch; None where one of them has no such rows."""
    tensors = [*returned.expected[0], *(returned.handed_expected or [{}])[0].values()]
    if any(tensor.shape[:1] != (batch,) for tensor in tensors):
        return None

    def rows(runs: Returned) -> Returned:
        return [[tensor[row : row + 1] for tensor in run] for run in runs for row in range(batch)]

    def handed_rows(runs: HandedOut) -> HandedOut:
        return [
            {name: tensor[row : row + 1] for name, tensor in run.items()}
            for run in runs
            for row in range(batch)
        ]

    return RunOutputs(
        returned.points,
        rows(returned.expected),
        rows(returned.actual),
        handed_rows(returned.handed_expected),
        handed_rows(returned.handed_actual),
        handed_rows(returned.handed_in_float),
    )


def _context(samples: Samples, points: Points, names: Mapping[int, str]) -> ReadingContext:
    height, width = samples.picture_size or (0, 0)
    output_of = {name: part.output for part in points.parts for name in part.names}
    output_of |= {end.name: end.output for end in points.ends}
    joined = frozenset(name for join in points.joins for name in join.scores)
    return ReadingContext(points.parts, width, height, names, output_of, joined)


def _figures(inputs: RunOutputs, judged: Sequence[JudgedPart]) -> list[float]:
    """SQNR of each input in dB, at the output that keeps least of those that decide.

    +infinity where nothing changed, or nothing was there to change.
    """
    deciding = [item for item in judged if item.record.decides and not math.isnan(item.figure_db)]
    worst = min(deciding, key=lambda item: item.figure_db, default=None)
    names = inputs.points.names if worst is None else worst.part.names
    indices = [index for index, name in enumerate(inputs.points.names) if name in names]
    figures = [
        outputs.sqnr_db([[y[index] for index in indices]], [[changed[index] for index in indices]])
        for y, changed in zip(inputs.expected, inputs.actual, strict=True)
    ]
    return [math.inf if math.isnan(figure) else figure for figure in figures]


# What becomes of an answer


@dataclass(frozen=True, slots=True)
class _Change:
    """What became of the answer of one input; ``answers``: of the float and the int8 network.

    Fields as in ``AnswerRecord``.
    """

    kept: int | None = None
    kept_by_heads: int | None = None
    lost: int | None = None
    gained: int | None = None
    score_change: float = math.nan
    float_class: int | None = None
    int8_class: int | None = None
    peak_shift: int | None = None
    answers: tuple[NetworkAnswer, NetworkAnswer] | None = None


def _change(reading: Reading | None, inputs: RunOutputs, index: int) -> _Change:
    if reading is None:
        return _Change()
    before, after = inputs.tensors(index)
    if reading.candidates_of is not None:
        first = detections(reading.candidates_of(before))
        change = _changed_boxes(first, detections(reading.candidates_of(after)))
        in_float = inputs.behind_float_decoder(index)
        if in_float is None:
            return change
        kept = matched(first, detections(reading.candidates_of(in_float)))
        return replace(change, kept_by_heads=len(kept))
    if reading.scores_of is not None:
        return _changed_classes(reading.scores_of(before), reading.scores_of(after))
    if reading.map_of is not None:
        return _changed_maps(reading, reading.map_of(before), reading.map_of(after))
    raise ValueError(f"nothing reads an answer of the form {reading.form}")


def _changed_boxes(before: Detections, after: Detections) -> _Change:
    pairs = matched(before, after)
    changes = [after.scores[second] - before.scores[first] for first, second in pairs]
    return _Change(
        kept=len(pairs),
        score_change=float(np.mean(changes)) if changes else math.nan,
        lost=len(before) - len(pairs),
        gained=len(after) - len(pairs),
        answers=(
            _boxes(before, {index for index, _ in pairs}),
            _boxes(after, {index for _, index in pairs}),
        ),
    )


def _boxes(boxes: Detections, staying: set[int]) -> NetworkAnswer:
    rows = zip(boxes.boxes.tolist(), boxes.labels.tolist(), boxes.scores.tolist(), strict=True)
    return NetworkAnswer(
        "boxes",
        boxes=tuple(
            DetectedBox(x_min, y_min, x_max, y_max, label, score, stays=index in staying)
            for index, ((x_min, y_min, x_max, y_max), label, score) in enumerate(rows)
        ),
    )


def _changed_classes(before: tuple[Array, Array], after: tuple[Array, Array]) -> _Change:
    first, second = int(before[0].argmax()), int(after[0].argmax())
    is_kept = first == second
    return _Change(
        kept=int(is_kept),
        lost=int(not is_kept),
        gained=int(not is_kept),
        float_class=first,
        int8_class=second,
        answers=(_classes(*before), _classes(*after)),
    )


def _classes(deciding: Array, shown: Array) -> NetworkAnswer:
    order = np.argsort(-deciding.astype(np.float64), kind="stable")[:MOST_CLASSES]
    return NetworkAnswer(
        "classes",
        classes=tuple(ScoredClass(int(label), float(shown[label])) for label in order),
    )


def _changed_maps(reading: Reading, before: MapValues, after: MapValues) -> _Change:
    kept = lost = gained = None
    first, second = before.decided, after.decided
    has_peak = True
    if first is not None and second is not None:
        kept = int(np.sum(first & second))
        lost, gained = int(np.sum(first)) - kept, int(np.sum(second)) - kept
        # The largest of scores that all mean "nothing here" lies anywhere.
        has_peak = bool(first.any())
    peaks = [np.unravel_index(item.shown.argmax(), item.shown.shape) for item in (before, after)]
    shift = max(abs(int(a) - int(b)) for a, b in zip(*peaks, strict=True))
    full_scale = max(float(before.shown.max()), float(after.shown.max()))
    if reading.form == "scores":
        full_scale = 1.0
    return _Change(
        kept=kept,
        lost=lost,
        gained=gained,
        peak_shift=shift if has_peak else None,
        answers=(
            NetworkAnswer(reading.form, map=_map(before.shown, full_scale)),
            NetworkAnswer(reading.form, map=_map(after.shown, full_scale)),
        ),
    )


def _map(values: Doubles, full_scale: float) -> ValueMap:
    """A map to look at: of more cells than that, the largest of each block."""
    step = -(-max(values.shape) // MOST_CELLS_ASIDE)
    rows, columns = (np.arange(0, size, step) for size in values.shape)
    blocks = np.maximum.reduceat(np.maximum.reduceat(values, rows, axis=0), columns, axis=1)
    scale = 255 / full_scale if full_scale > 0 else 0.0
    codes = np.rint(np.clip(blocks * scale, 0, 255)).astype(np.uint8)
    return ValueMap(len(rows), len(columns), codes.tobytes(), full_scale)


def _record(
    source: Source,
    record: AnswerRecord,
    change: _Change,
    names: Mapping[int, str],
    *,
    with_pictures: bool,
) -> AnswerRecord:
    record = replace(
        record,
        kept=change.kept,
        kept_by_heads=change.kept_by_heads,
        lost=change.lost,
        gained=change.gained,
        score_change=change.score_change,
        float_class=change.float_class,
        int8_class=change.int8_class,
        peak_shift=change.peak_shift,
    )
    if not record.is_shown:
        return record
    if change.answers is not None:
        before, after = (_named(answer, names).to_json() for answer in change.answers)
        record = replace(record, float_answer=before, int8_answer=after)
    if with_pictures and source.pixels is not None:
        record = replace(record, picture=thumbnails.encoded(source.pixels()))
    return record


def _named(answer: NetworkAnswer, names: Mapping[int, str]) -> NetworkAnswer:
    labels = {box.label for box in answer.boxes} | {item.label for item in answer.classes}
    return replace(answer, names={label: names[label] for label in labels if label in names})
