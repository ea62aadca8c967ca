"""The measures of a layer: what is known of its weights in one number each.

A measure is one entry of ``MEASURES`` and nothing else. From there it becomes a column of the table
``layers`` with its comment, a figure of the record, a column of the views, and, where charts offer
it, an axis and a line of their pickers. Stores that were there before get the column when they are
next written to, and their models are measured anew when they are ingested again.

A figure that takes a pass over the weights is added to the ``Distribution`` first. An entry that
changes its meaning wants a new ``MEASURES_VERSION``; one that is only added does not.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    # Whoever asks only for names and comments, such as the store, has no need of arrays.
    from quantstore.numerics.distribution import Distribution

Axis = Literal["log", "linear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartOffer:
    """How charts offer a measure: the words of a picker, and an axis cut into bins.

    The title says the unit. ``short_title`` stands beside a dot, before the value. Negative values
    need a linear axis. ``explanation`` stands below a chart, in full sentences.
    """

    label: str
    title: str
    short_title: str
    axis: Axis
    bins_per_decade: int = 10
    bin_width: float = 1.0
    explanation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMeasure:
    """One column of ``layers``.

    Its ``meaning`` is the comment on the column: it says the unit, and when there is no figure.
    ``of`` computes it; NaN and infinities become NULL. One that is added may be NULL, because
    models that were there before lack it until they are measured anew. Those ``beside_errors`` are
    columns of the view ``layer_errors``, too.
    """

    column: str
    type: Literal["double", "integer", "bigint"]
    meaning: str
    of: "Callable[[Distribution], float]"
    may_be_null: bool = True
    beside_errors: bool = True
    chart: ChartOffer | None = None


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


_EVERY_MEASURE = (
    LayerMeasure(
        column="weight_min",
        type="double",
        meaning="Smallest weight.",
        of=lambda weights: float(weights.tensor.minimum[0]),
    ),
    LayerMeasure(
        column="weight_max",
        type="double",
        meaning="Largest weight.",
        of=lambda weights: float(weights.tensor.maximum[0]),
    ),
    LayerMeasure(
        column="weight_range",
        type="double",
        meaning="weight_max - weight_min, in weight units.",
        of=lambda weights: weights.range,
        chart=ChartOffer(
            label="Weight range",
            title="weight range of a layer, max − min, in weight units",
            short_title="range",
            axis="log",
        ),
    ),
    LayerMeasure(
        column="abs_max",
        type="double",
        meaning="Largest absolute weight.",
        of=lambda weights: weights.abs_max,
    ),
    LayerMeasure(
        column="mean",
        type="double",
        meaning="Mean weight.",
        of=lambda weights: weights.moments.mean,
        beside_errors=False,
    ),
    LayerMeasure(
        column="std",
        type="double",
        meaning="Standard deviation of the population, in weight units.",
        of=lambda weights: weights.moments.std,
    ),
    LayerMeasure(
        column="range_over_std",
        type="double",
        meaning="weight_range / std; NULL where std is 0.",
        of=lambda weights: _ratio(weights.range, weights.moments.std),
    ),
    LayerMeasure(
        column="q1",
        type="double",
        meaning="First quartile, linear interpolation.",
        of=lambda weights: float(weights.tensor.q1[0]),
        beside_errors=False,
    ),
    LayerMeasure(
        column="median",
        type="double",
        meaning="Median, linear interpolation.",
        of=lambda weights: float(weights.tensor.median[0]),
        beside_errors=False,
    ),
    LayerMeasure(
        column="q3",
        type="double",
        meaning="Third quartile, linear interpolation.",
        of=lambda weights: float(weights.tensor.q3[0]),
        beside_errors=False,
    ),
    LayerMeasure(
        column="kurtosis",
        type="double",
        meaning=(
            "Fourth standardized moment; 3 for a Gaussian, more with heavy tails; NULL where std"
            " is 0."
        ),
        of=lambda weights: weights.moments.kurtosis,
    ),
    LayerMeasure(
        column="zero_fraction",
        type="double",
        meaning="Share of the weights that are exactly 0, from 0 to 1.",
        of=lambda weights: _ratio(weights.zero_count, weights.finite_count),
        beside_errors=False,
    ),
    LayerMeasure(
        column="outlier_count",
        type="bigint",
        meaning=(
            "Weights beyond Tukey's fences: 1.5 interquartile ranges beyond the quartiles of the"
            " tensor (in layers) or of the channel (in channels)."
        ),
        of=lambda weights: weights.outlier_count,
        may_be_null=False,
    ),
    LayerMeasure(
        column="outlier_fraction",
        type="double",
        meaning="outlier_count / finite weights, from 0 to 1.",
        of=lambda weights: _ratio(weights.outlier_count, weights.finite_count),
    ),
    LayerMeasure(
        column="outlier_channel_count",
        type="integer",
        meaning=(
            "Channels whose range is above Tukey's upper fence of the layer's channel ranges."
        ),
        of=lambda weights: weights.outlier_channel_count,
        may_be_null=False,
    ),
    LayerMeasure(
        column="dead_channel_count",
        type="integer",
        meaning=(
            "Dead output channels: their largest weight is below a millionth of the"
            " layer's largest, or their int8 scale is below the smallest normal float32"
            " number. Summaries over channels in errors leave them out; channel_errors"
            " lists them. NULL if an earlier release measured the model."
        ),
        of=lambda weights: weights.dead_channel_count,
    ),
    LayerMeasure(
        column="channel_range_ratio",
        type="double",
        meaning="Largest channel range / median channel range; NULL where the median is 0.",
        of=lambda weights: weights.channel_range_ratio,
    ),
)


# In the order of the columns.
MEASURES = {measure.column: measure for measure in _EVERY_MEASURE}


def figures_of(weights: "Distribution") -> dict[str, float]:
    """Every measure of a layer, by its column."""
    return {column: measure.of(weights) for column, measure in MEASURES.items()}


def lacking(columns: Collection[str]) -> list[str]:
    """The measures that a table with these columns has no place for."""
    return [column for column in MEASURES if column not in columns]
