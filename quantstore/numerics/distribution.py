"""How the weights of a layer are distributed: range, quartiles, outliers, histogram.

Takes a matrix ``(channels, weights per channel)`` of float32 and returns plain numbers and arrays
in weight units. NaN and infinities are counted and left out of everything else.

Everything is read off sorted rows: numpy sorts float32 at a few nanoseconds per weight, several
times faster than it finds a percentile.
"""

from dataclasses import dataclass

import numpy as np

from quantstore.numerics.median import median
from quantstore.numerics.quantization import dead_channels, row_dots
from quantstore.records import Counts, Doubles, Floats

# Tukey's inner fences, the whiskers of a box plot: about 7 in 1000 normally distributed weights
# lie beyond them. J. W. Tukey, Exploratory Data Analysis, 1977.
OUTLIER_FENCE_IQRS = 1.5
# Weights whose channels are sorted together.
ROWS_WEIGHTS = 1 << 19
# Of so many weights moments are summed together: float64 copies of them stay in a core's cache.
_MOMENT_WEIGHTS = 1 << 16
QUARTILES = np.array([0.25, 0.5, 0.75])

# So many that the bulk under an outlier a hundred times as large still has a shape.
HISTOGRAM_BINS = 2048


@dataclass(frozen=True, slots=True)
class Quartiles:
    """Order statistics of each row, in weight units; NaN for a row without a finite weight.

    Whiskers are the most extreme weights inside Tukey's fences; ``outlier_count`` those outside.
    """

    minimum: Doubles
    whisker_low: Doubles
    q1: Doubles
    median: Doubles
    q3: Doubles
    whisker_high: Doubles
    maximum: Doubles
    outlier_count: Counts

    @property
    def range(self) -> Doubles:
        return self.maximum - self.minimum


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean, standard deviation of the population and kurtosis (3 for a Gaussian) of a tensor."""

    mean: float
    std: float
    kurtosis: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Equal-width bins over ``[low, high]``, the last one closed; one bin for a constant tensor."""

    low: float
    high: float
    counts: Counts


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a layer's weights look like, as a whole and channel by channel."""

    weight_count: int
    nonfinite_count: int
    zero_count: int
    tensor: Quartiles  # of one row: the whole tensor
    channels: Quartiles
    moments: Moments
    channel_mean: Doubles
    channel_std: Doubles
    channel_energy: Doubles
    outlier_channel_count: int
    channel_range_ratio: float
    histogram: Histogram | None

    @property
    def range(self) -> float:
        return float(self.tensor.range[0])

    @property
    def finite_count(self) -> int:
        return self.weight_count - self.nonfinite_count

    @property
    def outlier_count(self) -> int:
        return int(self.tensor.outlier_count[0])

    @property
    def dead_channel_count(self) -> int:
        """Channels that carry nothing; see ``quantization.dead_channels``."""
        dead = dead_channels(self.channels.minimum, self.channels.maximum)
        return int(np.count_nonzero(dead))

    @property
    def abs_max(self) -> float:
        return float(np.maximum(-self.tensor.minimum, self.tensor.maximum)[0])


def sorted_weights(weights: Floats) -> Floats:
    """All finite weights of a layer, ascending."""
    ordered = np.sort(weights, axis=None)
    # What is not finite sorts to the ends.
    if ordered.size and np.isfinite(ordered[0]) and np.isfinite(ordered[-1]):
        return ordered
    return ordered[np.isfinite(ordered)]


def describe(weights: Floats, ordered: Floats | None = None) -> Distribution:
    """Measure one layer.

    Args:
        weights: ``(channels, weights per channel)``, at least one weight.
        ordered: its :func:`sorted_weights`, where they are at hand.
    """
    if ordered is None:
        ordered = sorted_weights(weights)
    nonfinite_count = int(weights.size - ordered.size)
    clean, finite_per_channel = weights, np.full(weights.shape[0], weights.shape[1])
    if nonfinite_count:
        finite = np.isfinite(weights)
        # NaN sorts behind every number, so that each row starts with its finite weights.
        clean = np.where(finite, weights, np.float32(np.nan))
        finite_per_channel = np.count_nonzero(finite, axis=1)

    channels = _channel_statistics(clean, finite_per_channel)
    tensor = order_statistics(ordered[np.newaxis, :], np.array([ordered.size], dtype=np.int64))
    moments, channel_mean, channel_std, channel_energy = _moments(clean, finite_per_channel)
    return Distribution(
        weight_count=int(weights.size),
        nonfinite_count=nonfinite_count,
        zero_count=_count_between(ordered, 0.0, 0.0),
        tensor=tensor,
        channels=channels,
        moments=moments,
        channel_mean=channel_mean,
        channel_std=channel_std,
        channel_energy=channel_energy,
        outlier_channel_count=_outlier_channel_count(channels.range),
        channel_range_ratio=_range_ratio(channels.range),
        histogram=histogram(ordered) if ordered.size else None,
    )


def _channel_statistics(weights: Floats, counts: Counts) -> Quartiles:
    """:func:`order_statistics` of each channel; some are sorted at a time, to save memory."""
    together = max(1, ROWS_WEIGHTS // max(1, weights.shape[1]))
    batches = [
        order_statistics(
            np.sort(weights[start : start + together], axis=1), counts[start : start + together]
        )
        for start in range(0, len(weights), together)
    ]
    if len(batches) == 1:
        return batches[0]
    return Quartiles(
        **{
            name: np.concatenate([getattr(batch, name) for batch in batches])
            for name in Quartiles.__slots__
        }
    )


def order_statistics(rows: Floats, counts: Counts) -> Quartiles:
    """Quartiles (linear interpolation, as ``np.quantile``), fences and whiskers of sorted rows.

    Args:
        rows: ``(rows, columns)``, each row ascending, NaN last.
        counts: ``(rows,)``, how many leading values of each row are finite.
    """
    if rows.shape[1] == 0:
        rows = np.full((rows.shape[0], 1), np.nan, dtype=np.float32)
    # Two values around each quartile, then the extremes, in one go.
    last = np.maximum(counts - 1, 0)
    position = np.multiply.outer(QUARTILES, last)
    index = position.astype(np.int64)
    low, high = _pick(rows, counts, np.stack([index, np.minimum(index + 1, last)]))
    q1, median, q3 = low + (position - index) * (high - low)
    reach = OUTLIER_FENCE_IQRS * (q3 - q1)
    # Fences as float32 that compare exactly: a rounded one could swallow the weight beside it.
    # Above the upper fence means not below the next float32 after it.
    below, not_above = _ranks(rows, counts, np.stack([_not_below(q1 - reach), _above(q3 + reach)]))
    minimum, whisker_low, whisker_high, maximum = _pick(
        rows, counts, np.stack([np.zeros_like(counts), below, not_above - 1, last])
    )
    return Quartiles(
        minimum=minimum,
        whisker_low=whisker_low,
        q1=q1,
        median=median,
        q3=q3,
        whisker_high=whisker_high,
        maximum=maximum,
        outlier_count=below + counts - not_above,
    )


def histogram(ordered: Floats) -> Histogram:
    """Counts of sorted finite values in 2,048 equal-width bins, as ``np.histogram`` bins them."""
    low, high = float(ordered[0]), float(ordered[-1])
    if low == high:
        return Histogram(low, high, np.array([ordered.size], dtype=np.int64))
    edges = _not_below(np.linspace(low, high, HISTOGRAM_BINS + 1))
    starts = np.searchsorted(ordered, edges)
    starts[-1] = ordered.size
    return Histogram(low, high, np.diff(starts))


def _not_below(values: Doubles) -> Floats:
    """The smallest float32 that is not below each value: comparing with it compares exactly."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
        after = np.nextafter(rounded, np.float32(np.inf))
    raised: Floats = np.where(rounded < values, after, rounded)
    return raised


def _above(values: Doubles) -> Floats:
    """The smallest float32 that is greater than each value."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
        after = np.nextafter(rounded, np.float32(np.inf))
    raised: Floats = np.where(rounded > values, rounded, after)
    return raised


def _ranks(rows: Floats, counts: Counts, limits: Floats) -> Counts:
    """How many of the leading values of each sorted row are below its limits: bisection at once.

    Args:
        limits: ``(limits, rows)``.
    """
    if len(rows) == 1:
        return np.searchsorted(rows[0, : counts[0]], limits[:, 0])[:, np.newaxis]
    low = np.zeros(limits.shape, dtype=np.int64)
    high = np.broadcast_to(counts, limits.shape)
    every, last = np.arange(rows.shape[0]), rows.shape[1] - 1
    for _ in range(int(rows.shape[1]).bit_length()):
        middle = (low + high) >> 1
        is_below = (middle < high) & (rows[every, np.minimum(middle, last)] < limits)
        low = np.where(is_below, middle + 1, low)
        high = np.where(is_below, high, middle)
    return low


def _count_between(ordered: Floats, low: float, high: float) -> int:
    """How many sorted values lie in ``[low, high]``."""
    first = np.searchsorted(ordered, np.float32(low), "left")
    last = np.searchsorted(ordered, np.float32(high), "right")
    return int(last - first)


def _pick(rows: Floats, counts: Counts, index: Counts) -> Doubles:
    """Values of each row in float64, NaN where the row has no finite value.

    Args:
        index: ``(..., rows)``, positions in each row; out of range counts as at its end.
    """
    safe = np.minimum(np.maximum(index, 0), rows.shape[1] - 1)
    values: Doubles = rows[np.arange(rows.shape[0]), safe].astype(np.float64)
    if not counts.all():
        values[..., counts == 0] = np.nan
    return values


def _moments(weights: Floats, counts: Counts) -> tuple[Moments, Doubles, Doubles, Doubles]:
    """Moments of the tensor; mean, standard deviation and energy of each channel, in float64.

    One channel at a time costs too many calls, the whole tensor too much memory: blocks of rows.
    The tensor's central moments follow from the channels' own (Chan, Golub, LeVeque 1983), so
    that a mean far from zero costs no digits.
    """
    channel_count, channel_size = weights.shape
    mean, second, third, fourth = (np.zeros(channel_count) for _ in range(4))
    present = np.maximum(counts, 1)
    rows = min(channel_count, max(1, _MOMENT_WEIGHTS // max(1, channel_size)))
    rooms = np.empty((2, rows, channel_size))
    for start in range(0, channel_count, rows):
        block = slice(start, min(start + rows, channel_count))
        values, squares = rooms[:, : block.stop - start]
        np.copyto(values, weights[block])
        missing = None
        if (counts[block] < channel_size).any():
            missing = np.isnan(values)
            values[missing] = 0
        mean[block] = values.sum(axis=1) / present[block]
        values -= mean[block, np.newaxis]
        if missing is not None:
            values[missing] = 0
        np.multiply(values, values, out=squares)
        second[block] = row_dots(values, values)
        third[block] = row_dots(squares, values)
        fourth[block] = row_dots(squares, squares)

    total = int(counts.sum())
    channel_mean = np.where(counts > 0, mean, np.nan)
    channel_std = np.where(counts > 0, np.sqrt(second / present), np.nan)
    energy = second + counts * mean**2
    if total == 0:
        return Moments(np.nan, np.nan, np.nan), channel_mean, channel_std, energy
    grand = float(np.sum(mean * counts) / total)
    shift = mean - grand
    tensor_second = float(np.sum(second + counts * shift**2))
    tensor_fourth = float(
        np.sum(fourth + 4 * shift * third + 6 * shift**2 * second + counts * shift**4)
    )
    variance = tensor_second / total
    kurtosis = tensor_fourth / total / variance**2 if variance**2 > 0 else np.nan
    return Moments(grand, float(np.sqrt(variance)), kurtosis), channel_mean, channel_std, energy


def _outlier_channel_count(ranges: Doubles) -> int:
    """Channels whose range lies above Tukey's upper fence of the layer's channel ranges."""
    defined_ranges = ranges[~np.isnan(ranges)]
    if defined_ranges.size == 0:
        return 0
    q1, q3 = np.quantile(defined_ranges, (0.25, 0.75))
    return int(np.count_nonzero(defined_ranges > q3 + OUTLIER_FENCE_IQRS * (q3 - q1)))


def _range_ratio(ranges: Doubles) -> float:
    """Largest channel range over the median one; NaN where the median is 0."""
    defined_ranges = ranges[~np.isnan(ranges)]
    typical = median(defined_ranges) if defined_ranges.size else 0.0
    return float(defined_ranges.max()) / typical if typical > 0 else np.nan
