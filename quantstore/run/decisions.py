"""Scores of a model in float and rounded in; how often they decide alike, and rightly, out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantstore.records import Array, Counts
from quantstore.run.inputs import Samples


@dataclass(frozen=True, slots=True)
class Decisions:
    """``top1_agreement``: share of rows whose largest score stays the same, NaN without scores.

    ``accuracy``: of the float and the quantized model, where the right classes are known.
    """

    top1_agreement: float = math.nan
    accuracy: tuple[float, float] | None = None


def decisions(
    samples: Samples, expected: Sequence[Sequence[Array]], actual: Sequence[Sequence[Array]]
) -> Decisions:
    """Compare what two models decide by the largest score.

    Args:
        expected: the outputs of the float model, sample by sample; ``actual``: of the
            rounded one.
    """
    batch = _batch(samples)
    before, after = largest_scores(expected, batch), largest_scores(actual, batch)
    if before is None or after is None:
        return Decisions()
    agreement = float(np.mean(before == after))
    labels = samples.labels
    if labels is None or len(labels) != len(before):
        return Decisions(agreement)
    return Decisions(agreement, (float(np.mean(before == labels)), float(np.mean(after == labels))))


def largest_scores(outputs: Sequence[Sequence[Array]], batch: int) -> Counts | None:
    """Indices of the largest scores, row by row; None where the output is no vector of scores."""
    rows = []
    for returned in outputs:
        if len(returned) != 1 or returned[0].dtype.kind != "f":
            return None
        scores = returned[0]
        if scores.shape[-1:] in ((), (1,)):
            return None
        scores = scores[np.newaxis] if scores.ndim == 1 else scores
        if scores.ndim != 2 or scores.shape[0] != batch:
            return None
        rows.append(scores.argmax(axis=1))
    return np.concatenate(rows) if rows else None


def _batch(samples: Samples) -> int:
    """How many rows of scores belong to a run: the first axis of its largest input."""
    largest = max(samples[0].values(), key=lambda array: array.size)
    return int(largest.shape[0]) if largest.ndim > 1 else 1
