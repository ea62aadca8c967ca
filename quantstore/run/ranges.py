"""The range of every tensor over the calibration samples, in one pass and in bounded memory.

Values beyond 1e30 stand for infinity (padding of a MaxPool, a mask before a Softmax): they are
left out and counted, for a grid that reaches them has no code left for anything else.
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantstore.records import Array, Doubles
from quantstore.run.bodies import nodes_of_bodies, range_names, with_ranges
from quantstore.run.choices import ReportSteps
from quantstore.run.histogram import SharedHistogram
from quantstore.run.inputs import Samples
from quantstore.run.network import Network
from quantstore.run.relay import Relay, packed, rounds
from quantstore.run.runtime import Session

# Beyond, a number means "never" or "nothing", whatever float it was written as.
SENTINEL = 1e30
# What is observed at the same time.
BLOCK_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class ChannelRanges:
    """Smallest and largest value of each channel, along axis 1 of a tensor with so many behind."""

    low: Doubles
    high: Doubles
    trailing_axes: int


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest value, 0 and 0 where there is none; ``sentinel_count``: left out."""

    low: float
    high: float
    sentinel_count: int = 0
    channels: ChannelRanges | None = None

    @property
    def ends(self) -> tuple[float, float]:
        return self.low, self.high

    @classmethod
    def of(cls, array: Array) -> "Range":
        """The range of one array; NaN does not count."""
        if not array.size:
            return cls(0.0, 0.0)
        low, high = float(array.min()), float(array.max())
        if low > -SENTINEL and high < SENTINEL:
            return cls(low, high)
        usable = array[np.abs(array) < SENTINEL]
        left_out = int(np.sum(np.abs(array) >= SENTINEL))
        if not usable.size:
            return cls(0.0, 0.0, left_out)
        return cls(float(usable.min()), float(usable.max()), left_out)

    def joined(self, other: "Range") -> "Range":
        return Range(
            min(self.low, other.low),
            max(self.high, other.high),
            self.sentinel_count + other.sentinel_count,
            _joined(self.channels, other.channels),
        )


def _channels_of(array: Array) -> ChannelRanges | None:
    if array.ndim < 3:
        return None
    axes = (0, *range(2, array.ndim))
    low, high = array.min(axes).astype(np.float64), array.max(axes).astype(np.float64)
    return ChannelRanges(low, high, array.ndim - 2)


def _joined(first: ChannelRanges | None, second: ChannelRanges | None) -> ChannelRanges | None:
    if first is None or second is None:
        return None
    return ChannelRanges(
        np.minimum(first.low, second.low), np.maximum(first.high, second.high), first.trailing_axes
    )


@dataclass(slots=True)
class Observed:
    """What the calibration samples showed of one tensor; ``histogram`` where it was asked for.

    ``kept``: the tensor of each sample, where that was asked for.
    """

    range: Range | None = None
    histogram: SharedHistogram | None = None
    has_channels: bool = False
    kept: list[Array] | None = None

    def add(self, array: Array) -> None:
        """Take in the tensor of one sample."""
        if self.kept is not None:
            self.kept.append(array)
        sample_range = Range.of(array)
        if self.has_channels and bool(np.all(np.abs(array) < SENTINEL)):
            sample_range = dataclasses.replace(sample_range, channels=_channels_of(array))
        self.range = sample_range if self.range is None else self.range.joined(sample_range)
        if self.histogram is not None:
            values = np.ravel(array).astype(np.float64)
            if sample_range.sentinel_count or not np.isfinite(values).all():
                values = values[np.abs(values) < SENTINEL]
            if values.size:
                self.histogram.widen(float(values.min()), float(values.max()))
                self.histogram.add(0, values)


def observe(
    network: Network,
    names: Iterable[str],
    samples: Samples,
    folder: Path,
    report: ReportSteps | None = None,
    *,
    has_histograms: bool = False,
    by_channel: Collection[str] = (),
    keep: Collection[str] = (),
    block_bytes: int = BLOCK_BYTES,
) -> dict[str, Observed]:
    """Run the network on all samples and note what each tensor holds.

    Args:
        names: tensors, inputs and those of bodies included.
        by_channel: of these, those whose channels (axis 1) have a range of their own.
        keep: further tensors, that are kept as well.
        folder: for what a later block needs; nobody else writes there.

    Raises:
        RunError: onnxruntime refuses the network, or stops.
    """
    tensor_names = list(dict.fromkeys([*names, *keep]))
    observed = {
        name: Observed(
            histogram=SharedHistogram.of_one() if has_histograms else None,
            has_channels=name in by_channel,
            kept=[] if name in keep else None,
        )
        for name in tensor_names
    }
    inputs = [name for name in tensor_names if name in network.inputs]
    for index in range(len(samples)):
        sample = samples[index]
        for name in inputs:
            observed[name].add(sample[name])
    computed_names = [name for name in tensor_names if name in network.tensors]
    blocks = packed(computed_names, network.bytes_of, block_bytes)
    computed = _computed(network, blocks, samples, folder, block_bytes)
    for done, arrays in enumerate(computed, start=1):
        for name, array in arrays.items():
            observed[name].add(array)
        # The next run makes as many.
        arrays.clear()
        if report is not None:
            report(done, len(blocks) * len(samples))
    in_bodies = frozenset(tensor_names).difference(inputs, computed_names)
    _observe_in_bodies(network, in_bodies, samples, observed)
    return {name: tensor for name, tensor in observed.items() if tensor.range is not None}


def _computed(
    network: Network,
    blocks: Sequence[Sequence[str]],
    samples: Samples,
    folder: Path,
    block_bytes: int,
) -> Iterator[dict[str, Array]]:
    """The tensors of each block for each sample, by name."""
    if sum(map(network.bytes_of, network.tensors)) <= block_bytes:
        # All of them fit at once: into the session that is there.
        for names in blocks:
            for index in range(len(samples)):
                feeds = network.fed(samples[index])
                yield dict(zip(names, network.observing.run(feeds, names), strict=True))
        return
    relay = Relay(network.model, blocks, folder, "ranges")
    for indices in rounds(len(samples), lambda: relay.most_bytes):
        for number in range(len(blocks)):
            relay.open(number)
            for index in indices:
                yield relay.run(index, network.fed(samples[index]))


def _observe_in_bodies(
    network: Network, names: frozenset[str], samples: Samples, observed: dict[str, Observed]
) -> None:
    """Note the ranges of tensors inside bodies, which have no histograms."""
    names = names.intersection(
        name for _, body_names in nodes_of_bodies(network.model.graph) for name in body_names
    )
    if not names:
        return
    session = Session(with_ranges(network.model, names), is_optimized=False)
    for index in range(len(samples)):
        for name in names:
            low, high = session.run(network.fed(samples[index]), range_names(name))
            if -SENTINEL < low <= high < SENTINEL:
                seen = observed[name]
                run_range = Range(float(low), float(high))
                seen.range = run_range if seen.range is None else seen.range.joined(run_range)
