"""Candidates of a detector in, its detections out; and which of them two networks share.

Coordinates are shares of the input's width and height; boxes are rows of left, top, right, bottom.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from quantstore.answers import MOST_BOXES
from quantstore.records import Array, Counts, Doubles
from quantstore.run.points import SCORE_LIMIT

# Two boxes of one class that share more than this, as intersection over union, are the same thing.
SAME_IOU = 0.5
# Scores are sorted out before boxes are compared in pairs.
_MOST_COMPARED = 1000
# What tells decoded boxes from raw values of a head: they have a size, lie on the picture, and
# are all over it.
_LEAST_PROPER, _LEAST_INSIDE, _LEAST_SPREAD, _LARGEST_SIDE = 0.95, 0.9, 0.08, 3.0
# A few boxes lie like this by chance.
FEWEST_ANCHORS = 16

BoxReader = Callable[[Array], Doubles]


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a detector says of every anchor: ``boxes`` (n, 4), ``scores`` (n, classes)."""

    boxes: Doubles
    scores: Doubles


@dataclass(frozen=True, slots=True)
class Detections:
    """What is left of them: ``boxes`` (n, 4), ``labels`` and ``scores`` (n), best first."""

    boxes: Doubles
    labels: Counts
    scores: Doubles

    def __len__(self) -> int:
        return len(self.scores)


def box_reader(values: Array, width: int, height: int) -> BoxReader | None:
    """How four values of each anchor are a box; None where they are no decoded boxes.

    Two corners, or center and size; in shares of the picture or in its pixels. Distances and
    offsets to anchors, whose place the file does not tell, are none of these.

    Args:
        values: ``(anchors, 4)``, of the float network on one input.
    """
    if len(values) < FEWEST_ANCHORS or not np.isfinite(values).all():
        return None
    for size in ((1, 1), (width, height)):
        scale = np.array([*size, *size], np.float64)
        for to_corners in (_as_they_are, _from_centers):
            if _are_boxes(to_corners(values / scale)):
                return partial(_read, scale, to_corners)
    return None


def detections(candidates: Candidates) -> Detections:
    """The best class of each anchor above ``SCORE_LIMIT``, without repetitions of a class.

    Source: greedy non-maximum suppression, class by class, as detectors are used.
    """
    labels, scores = candidates.scores.argmax(axis=1), candidates.scores.max(axis=1)
    chosen = np.flatnonzero(scores > SCORE_LIMIT)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")][:_MOST_COMPARED]
    boxes = candidates.boxes[chosen]
    usable = np.isfinite(boxes).all(axis=1)
    chosen, boxes = chosen[usable], boxes[usable]
    labels, scores = labels[chosen], scores[chosen]
    waiting = np.arange(len(chosen))
    kept: list[int] = []
    while waiting.size and len(kept) < MOST_BOXES:
        first, others = waiting[0], waiting[1:]
        kept.append(int(first))
        repeats = (labels[others] == labels[first]) & (
            overlaps(boxes[first : first + 1], boxes[others])[0] > SAME_IOU
        )
        waiting = others[~repeats]
    return Detections(boxes[kept], labels[kept].astype(np.int64), scores[kept])


def matched(first: Detections, second: Detections) -> list[tuple[int, int]]:
    """Which detections of two networks are the same thing: pairs of indices, each index once.

    Of one class, and with an intersection over union of :data:`SAME_IOU` or more; the best scored
    of the first chooses first.
    """
    shares = overlaps(first.boxes, second.boxes)
    shares[first.labels[:, np.newaxis] != second.labels] = 0
    pairs = []
    for index in range(len(first)):
        if not len(second):
            break
        best = int(shares[index].argmax())
        if shares[index, best] >= SAME_IOU:
            pairs.append((index, best))
            shares[:, best] = 0
    return pairs


def overlaps(first: Doubles, second: Doubles) -> Doubles:
    """Intersection over union of every box with every other: ``(n, 4), (m, 4) -> (n, m)``."""
    corners = np.maximum(first[:, np.newaxis, :2], second[:, :2])
    ends = np.minimum(first[:, np.newaxis, 2:], second[:, 2:])
    shared = np.clip(ends - corners, 0, None).prod(axis=2)
    joined = _areas(first)[:, np.newaxis] + _areas(second) - shared
    shares: Doubles = np.divide(shared, joined, out=np.zeros_like(shared), where=joined > 0)
    return shares


def _read(scale: Doubles, to_corners: BoxReader, raw: Array) -> Doubles:
    return to_corners(raw / scale)


def _as_they_are(values: Array) -> Doubles:
    return np.asarray(values, np.float64)


def _areas(boxes: Doubles) -> Doubles:
    return np.asarray(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1))


def _from_centers(values: Array) -> Doubles:
    centers, halves = values[:, :2].astype(np.float64), values[:, 2:].astype(np.float64) / 2
    return np.concatenate([centers - halves, centers + halves], axis=1)


def _are_boxes(corners: Doubles) -> bool:
    sides = corners[:, 2:] - corners[:, :2]
    centers = (corners[:, :2] + corners[:, 2:]) / 2
    is_proper = ((sides > 0) & (sides < _LARGEST_SIDE)).all(axis=1)
    is_inside = ((centers >= 0) & (centers <= 1)).all(axis=1)
    return bool(
        is_proper.mean() >= _LEAST_PROPER
        and is_inside.mean() >= _LEAST_INSIDE
        and centers.std(axis=0).min() >= _LEAST_SPREAD
    )
