"""How the outputs of a network are read as an answer: one small function for each kind of head.

Shapes decide, then ranges of values; names only where both leave it open. What a head means is
decided on the float network and holds for the rounded one. Where boxes need anchors or strides that
the file does not tell, nobody makes them up: a map of scores is the answer.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from quantstore.answers import AnswerForm
from quantstore.records import Array, Doubles
from quantstore.run.boxes import FEWEST_ANCHORS, BoxReader, Candidates, box_reader
from quantstore.run.points import SCORE_LIMIT, Part

# Of the four distances of a box, each may be a distribution over so many bins.
_BOX_CHANNELS = frozenset((4, 4 * 8, 4 * 16, 4 * 17))
_SCORE_NAMES = re.compile(r"scor|conf|cls|class|logit|prob|heatmap|\bhm\b", re.I)
_BOX_NAMES = re.compile(r"box|loc|reg|dist|\bwh\b|off", re.I)
_POINT_NAMES = re.compile(r"landm|keyp|kpt|point", re.I)
# A vector that is compared with other vectors names no classes.
_VECTOR_NAMES = re.compile(r"embed|feat|descriptor", re.I)
# Rows of a Softmax, in float or on an 8-bit grid.
_SUM_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class OutputTensors:
    """What a network gives on one input, by the names of tensors.

    ``heads``: where outputs are compared. ``handed``: what is handed out, as far as that can be
    compared: behind the decoder. Neither has a batch of more than one.
    """

    heads: Mapping[str, Array]
    handed: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class ReadingContext:
    """What helps to read them: the size of the picture, parts of the outputs, names of classes.

    Without a picture ``width`` and ``height`` are 0.
    """

    output_parts: Sequence[Part] = ()
    width: int = 0
    height: int = 0
    names: Mapping[int, str] = field(default_factory=dict)
    # The output that a tensor belongs to.
    output_of: Mapping[str, str] = field(default_factory=dict)
    # Scores that are handed out together with boxes; others of the same size only choose them.
    joined_scores: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class MapValues:
    """``shown``: one map ``(rows, columns)``. ``decided``: elements that a limit decides on."""

    shown: Doubles
    decided: Array | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """How the outputs are read. One of the three functions is there, as ``form`` says.

    ``scores_of``: of a classifier, the values whose largest decides, and those that are shown.
    """

    form: AnswerForm
    candidates_of: Callable[[OutputTensors], Candidates] | None = None
    scores_of: Callable[[OutputTensors], tuple[Array, Array]] | None = None
    map_of: Callable[[OutputTensors], MapValues] | None = None


Recogniser = Callable[[OutputTensors, ReadingContext], Reading | None]


def recognised(tensors: OutputTensors, context: ReadingContext) -> Reading | None:
    """How to read these outputs of a float network; None where they have no form to show."""
    for recogniser in RECOGNISERS:
        reading = recogniser(tensors, context)
        if reading is not None:
            return reading
    return None


# Detections


def boxes_beside_scores(tensors: OutputTensors, context: ReadingContext) -> Reading | None:
    """Decoded boxes in one tensor, ``[1, n, 4]``, scores in another, ``[1, n, classes]``."""
    if not context.width:
        return None
    tables = _tables(tensors.handed)
    for name, table in tables.items():
        if _POINT_NAMES.search(name) or 4 not in table.shape:
            continue
        is_last = table.shape[1] != 4
        anchors = _upright(table, is_last)
        reader = box_reader(anchors, context.width, context.height)
        if reader is None:
            continue
        beside = [
            (other, scores)
            for other, scores in tables.items()
            if other != name and len(anchors) in scores.shape and not _POINT_NAMES.search(other)
        ]
        if not beside:
            continue
        chosen, scores = min(
            beside, key=lambda item: _unlikeliness(item[0], item[1], len(anchors), context)
        )
        to_scores = _scores_reader(_anchors_first(scores, len(anchors)))
        return Reading("boxes", _pair_reader(name, is_last, reader, chosen, to_scores))
    return None


def _pair_reader(
    boxes_name: str,
    is_last: bool,
    reader: BoxReader,
    scores_name: str,
    to_scores: Callable[[Array], Doubles],
) -> Callable[[OutputTensors], Candidates]:
    def candidates_of(tensors: OutputTensors) -> Candidates:
        boxes = _upright(_table(tensors.handed[boxes_name]), is_last)
        scores = _anchors_first(_table(tensors.handed[scores_name]), len(boxes))
        return Candidates(reader(boxes), to_scores(scores))

    return candidates_of


def boxes_and_scores_in_one(tensors: OutputTensors, context: ReadingContext) -> Reading | None:
    """One tensor of boxes and scores: ``[1, 4 + classes, n]`` or ``[1, n, 5 + classes]``.

    With coefficients of masks behind them where another output holds the prototypes. Anchors last
    is the habit of heads without a score of their own for "an object", anchors first that of heads
    with it; the names of the classes, where the file has them, count them and decide.
    """
    if not context.width:
        return None
    for name, table in _tables(tensors.handed).items():
        is_last = table.shape[1] > table.shape[0]
        anchors = _upright(table, is_last)
        width = anchors.shape[1] - _mask_count(tensors.handed, name, anchors.shape[1] - 5)
        if width < 5:
            continue
        reader = box_reader(anchors[:, :4], context.width, context.height)
        if reader is None:
            continue
        has_object_score = not is_last and width > 5
        if context.names:
            has_object_score = width == 5 + len(context.names)
        to_scores = _scores_reader(anchors[:, 4:width])
        return Reading(
            "boxes", _joint_reader(name, is_last, reader, width, to_scores, has_object_score)
        )
    return None


def _joint_reader(
    name: str,
    is_last: bool,
    reader: BoxReader,
    width: int,
    to_scores: Callable[[Array], Doubles],
    has_object_score: bool,
) -> Callable[[OutputTensors], Candidates]:
    def candidates_of(tensors: OutputTensors) -> Candidates:
        anchors = _upright(_table(tensors.handed[name]), is_last)
        scores = to_scores(anchors[:, 4:width])
        if has_object_score:
            scores = scores[:, :1] * scores[:, 1:]
        return Candidates(reader(anchors[:, :4]), scores)

    return candidates_of


def finished_boxes(tensors: OutputTensors, context: ReadingContext) -> Reading | None:
    """``[1, n, 6]``: two corners, a score from 0 to 1 and the index of a class."""
    if not context.width:
        return None
    for name, table in _tables(tensors.handed).items():
        if table.shape[1] != 6:
            continue
        scores, labels = table[:, 4], table[:, 5]
        is_score = bool((scores >= 0).all() and (scores <= 1).all())
        if not is_score or (labels < 0).any() or (labels != np.rint(labels)).any():
            continue
        scored = table[scores > 0]
        reader = box_reader(scored[:, :4], context.width, context.height)
        if reader is not None:
            return Reading("boxes", _finished_reader(name, reader))
    return None


def _finished_reader(name: str, reader: BoxReader) -> Callable[[OutputTensors], Candidates]:
    def candidates_of(tensors: OutputTensors) -> Candidates:
        table = _table(tensors.handed[name])
        # What rounding makes of an index is the index of another class.
        labels = np.clip(np.rint(table[:, 5]), 0, None).astype(np.int64)
        scores = np.zeros((len(table), int(labels.max(initial=0)) + 1))
        scores[np.arange(len(table)), labels] = table[:, 4]
        return Candidates(reader(table[:, :4]), scores)

    return candidates_of


# Classes


def class_scores(tensors: OutputTensors, context: ReadingContext) -> Reading | None:
    """A vector of scores, ``[1, classes]``, and nothing besides; behind a Softmax or not."""
    if len(tensors.heads) != 1:
        return None
    ((name, head),) = tensors.heads.items()
    output = context.output_of.get(name, name)
    if head.size < 2 or max(head.shape) != head.size or _VECTOR_NAMES.search(output):
        return None

    def scores_of(returned: OutputTensors) -> tuple[Array, Array]:
        scores = returned.heads[name].ravel()
        shown = next(
            (item for item in returned.handed.values() if item.size == scores.size), scores
        )
        return scores, shown.ravel()

    return Reading("classes", scores_of=scores_of)


# Maps


def decided_maps(tensors: OutputTensors, context: ReadingContext) -> Reading | None:
    """Maps of scores before a Sigmoid, ``[1, classes, height, width]``, one for each level."""
    for part in context.output_parts:
        maps = [tensors.heads[name] for name in part.names if name in tensors.heads]
        if part.decision == "set" and maps and all(_is_map(item) for item in maps):
            return Reading("scores", map_of=_levels_reader(part.names, part.limit, _sigmoid))
    return None


def levels_of_scores(tensors: OutputTensors, context: ReadingContext) -> Reading | None:
    """Maps of scores, ``[1, classes, h, w]``, beside maps of boxes, ``[1, 4, h, w]``, by level."""
    levels: dict[tuple[int, int], list[str]] = {}
    for name, tensor in tensors.heads.items():
        if _is_map(tensor):
            levels.setdefault((tensor.shape[2], tensor.shape[3]), []).append(name)
    names = []
    for level in levels.values():
        boxes = [name for name in level if _is_box_map(name, tensors, context)]
        others = [name for name in level if name not in boxes and not _POINT_NAMES.search(name)]
        if boxes and others:
            names.append(
                max(
                    others,
                    key=lambda name: (
                        bool(_SCORE_NAMES.search(context.output_of.get(name, name))),
                        tensors.heads[name].shape[1],
                    ),
                )
            )
    if not names:
        return None
    values = np.concatenate([tensors.heads[name].ravel() for name in names])
    is_squashed = bool(values.min() >= 0 and values.max() <= 1)
    limit = SCORE_LIMIT if is_squashed else float(np.log(SCORE_LIMIT / (1 - SCORE_LIMIT)))
    squash = _unchanged if is_squashed else _sigmoid
    return Reading("scores", map_of=_levels_reader(names, limit, squash))


def _is_box_map(name: str, tensors: OutputTensors, context: ReadingContext) -> bool:
    is_of_boxes = tensors.heads[name].shape[1] in _BOX_CHANNELS
    return is_of_boxes and not _SCORE_NAMES.search(context.output_of.get(name, name))


def _levels_reader(
    names: Sequence[str], limit: float, squash: Callable[[Array], Doubles]
) -> Callable[[OutputTensors], MapValues]:
    def map_of(tensors: OutputTensors) -> MapValues:
        maps = [tensors.heads[name] for name in names]
        finest = max(maps, key=lambda item: item.shape[2] * item.shape[3])
        rows, columns = finest.shape[2:]
        largest = np.full((rows, columns), -np.inf)
        for item in maps:
            level = item[0].max(axis=0)
            down = np.arange(rows) * level.shape[0] // rows
            across = np.arange(columns) * level.shape[1] // columns
            largest = np.maximum(largest, level[np.ix_(down, across)])
        decided = np.concatenate([(item > limit).ravel() for item in maps])
        return MapValues(squash(largest), decided)

    return map_of


def last_map(tensors: OutputTensors, _: ReadingContext) -> Reading | None:
    """The last tensor with rows and columns: the root mean square over its channels."""
    names = [name for name, tensor in tensors.heads.items() if _is_map(tensor)]
    if not names:
        return None
    name = names[-1]
    shape = tensors.heads[name].shape
    # Channels last where that alone leaves a square.
    axis = 2 if shape[1] == shape[2] != shape[3] else 0

    def map_of(returned: OutputTensors) -> MapValues:
        channels = returned.heads[name][0].astype(np.float64)
        return MapValues(np.sqrt(np.square(channels).mean(axis=axis)))

    return Reading("energy", map_of=map_of)


# The first that fits. A head that none of them reads becomes one more function here.
RECOGNISERS: tuple[Recogniser, ...] = (
    boxes_beside_scores,
    finished_boxes,
    boxes_and_scores_in_one,
    class_scores,
    decided_maps,
    levels_of_scores,
    last_map,
)


# What they share


def _tables(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The tensors that are tables: anchors by values."""
    tables = {name: _table(tensor) for name, tensor in tensors.items()}
    return {
        name: table
        for name, table in tables.items()
        if table.ndim == 2 and max(table.shape) >= FEWEST_ANCHORS
    }


def _table(tensor: Array) -> Array:
    """Without the axes of one element; a vector is a table of one column."""
    flat = tensor.reshape([size for size in tensor.shape if size > 1])
    return flat[:, np.newaxis] if flat.ndim == 1 else flat


def _upright(table: Array, is_last: bool) -> Array:
    """Anchors along the first axis, which are along the last where ``is_last``."""
    return table.T if is_last else table


def _anchors_first(scores: Array, anchors: int) -> Array:
    return scores if len(scores) == anchors else scores.T


def _unlikeliness(
    name: str, scores: Array, anchors: int, context: ReadingContext
) -> tuple[bool | int, ...]:
    """The lower, the likelier a tensor holds the scores of boxes."""
    output = context.output_of.get(name, name)
    decides = any(part.output == output and part.decision for part in context.output_parts)
    rows = _anchors_first(scores, anchors)
    is_share = bool(rows.min() >= 0 and rows.max() <= 1)
    return (
        name not in context.joined_scores,
        not (is_share and _is_softmax(rows)),
        not is_share,
        not decides,
        not _SCORE_NAMES.search(output),
        -rows.shape[1],
    )


def _scores_reader(rows: Array) -> Callable[[Array], Doubles]:
    """How scores of anchors ``(n, classes)`` become shares, without that of the background."""
    is_share = bool(rows.min() >= 0 and rows.max() <= 1)
    # Two raw values are "a face" and "no face"; more of them are classes by themselves.
    squash = _unchanged if is_share else _softmax if rows.shape[1] == 2 else _sigmoid
    background = _background(squash(rows))

    def to_scores(raw: Array) -> Doubles:
        scores = squash(raw)
        if background is not None:
            scores[:, background] = 0
        return scores

    return to_scores


def _background(scores: Doubles) -> int | None:
    """The class that most anchors are of, where each anchor is of one class."""
    if not _is_softmax(scores):
        return None
    means = scores.mean(axis=0)
    return int(means.argmax()) if means.max() > 0.5 else None


def _is_softmax(rows: Array) -> bool:
    return rows.shape[1] > 1 and bool(np.abs(rows.sum(axis=1) - 1).max() < _SUM_TOLERANCE)


def _mask_count(tensors: Mapping[str, Array], name: str, most: int) -> int:
    """How many prototypes of masks another output holds, 0 where there are more than ``most``."""
    counts = [
        tensor.shape[1] for other, tensor in tensors.items() if other != name and _is_map(tensor)
    ]
    return max((count for count in counts if count <= most), default=0)


def _is_map(tensor: Array) -> bool:
    return tensor.ndim == 4 and tensor.dtype.kind == "f" and min(tensor.shape[2:]) > 1


def _unchanged(values: Array) -> Doubles:
    return values.astype(np.float64)


def _sigmoid(values: Array) -> Doubles:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-values.astype(np.float64))))


def _softmax(values: Array) -> Doubles:
    powers = np.exp(values.astype(np.float64) - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
