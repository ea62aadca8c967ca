"""A network in float and rounded, on the same samples: how far every tensor drifts.

Two kinds of error, kept apart. Accumulated: the whole network is rounded, so a tensor carries what
every operator before it lost. Local: this operator alone is rounded and reads float inputs.
Tensors are observed a bounded block at a time, and only sums are kept, in float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quantstore.numerics.quantization import sqnr_db
from quantstore.records import ActivationErrorRecord, Array, Doubles
from quantstore.run.channels import ChannelSums, channel_axes
from quantstore.run.choices import ReportSteps
from quantstore.run.emulator import Emulator, Plan, rounded
from quantstore.run.histogram import SharedHistogram
from quantstore.run.inputs import Samples
from quantstore.run.local import LocalTwins
from quantstore.run.network import Network
from quantstore.run.nodes import computed, name_of
from quantstore.run.own_quantizers import is_within_quantizer, name_in_file
from quantstore.run.relay import Relay, packed, rounds

# All tensors that are observed at the same time, float, accumulated and local.
BLOCK_BYTES = 64 << 20
# Values of a tensor that are turned into float64 at a time: small enough for the cache, and for
# BLAS to add them up itself instead of waking threads, which takes four times as long.
_CHUNK = 1 << 13

# Operators with weights, whose results carry a network.
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
ACCUMULATED, LOCAL = "accumulated", "local"


@dataclass(slots=True)
class DriftSums:
    """Running sums over a tensor x of the float model and the same tensor y of the quantized one.

    Those for the variances are taken about ``center``, a value near both means: a variance far
    smaller than the mean would drown otherwise. Those for the energies are not: a quantized tensor
    far smaller than the float one would. Values that are not finite in either are left out and
    counted.
    """

    count: int = 0
    nonfinite_count: int = 0
    center: float = 0.0
    sums: Doubles = field(default_factory=lambda: np.zeros(8))
    float_min: float = math.inf
    float_max: float = -math.inf
    quantized_min: float = math.inf
    quantized_max: float = -math.inf
    counts: SharedHistogram = field(default_factory=SharedHistogram)
    channels: ChannelSums = field(default_factory=ChannelSums)

    def add(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        """Take in one sample's tensors, of one shape."""
        x, y = np.ravel(x), np.ravel(y)
        for start in range(0, x.size, _CHUNK):
            self._add(
                x[start : start + _CHUNK].astype(np.float64),
                y[start : start + _CHUNK].astype(np.float64),
            )

    def _add(self, x: Doubles, y: Doubles) -> None:
        is_finite = np.isfinite(x) & np.isfinite(y)
        if not is_finite.all():
            self.nonfinite_count += int(x.size - is_finite.sum())
            x, y = x[is_finite], y[is_finite]
            if not x.size:
                return
        low_x, high_x, low_y, high_y = x.min(), x.max(), y.min(), y.max()
        self.float_min = min(self.float_min, float(low_x))
        self.float_max = max(self.float_max, float(high_x))
        self.quantized_min = min(self.quantized_min, float(low_y))
        self.quantized_max = max(self.quantized_max, float(high_y))
        self.counts.widen(float(min(low_x, low_y)), float(max(high_x, high_y)))
        self.counts.add(0, x)
        self.counts.add(1, y)
        if not self.count:
            self.center = float(x.mean())
        self.count += x.size
        error = y - x
        energies = (x @ x, y @ y, x @ y, error @ error)
        x -= self.center
        y -= self.center
        self.sums += (x.sum(), y.sum(), x @ x, y @ y, *energies)

    def record(
        self, *, depth: int, node_name: str, op_type: str, tensor: str, kind: str
    ) -> ActivationErrorRecord:
        """The row of ``activation_errors``."""
        n = max(self.count, 1)
        sum_x, sum_y, sum_xx, sum_yy, *energies = (float(total) for total in self.sums)
        energy_x, energy_y, product, squared_error = energies
        std_x = math.sqrt(max(sum_xx / n - (sum_x / n) ** 2, 0.0))
        std_y = math.sqrt(max(sum_yy / n - (sum_y / n) ** 2, 0.0))
        norms = math.sqrt(energy_x) * math.sqrt(energy_y)
        low, high, counts = self.counts.joined()
        by_channel = self.channels.summary()
        return ActivationErrorRecord(
            depth=depth,
            node_name=node_name,
            op_type=op_type,
            tensor=tensor,
            kind=kind,
            sqnr_db=float(sqnr_db(energy_x, squared_error)) if self.count else math.nan,
            channel_sqnr_p10_db=by_channel.p10_db,
            channels_below_10db=by_channel.below_10db if by_channel.count else None,
            channel_count=by_channel.count or None,
            cosine=min(max(product / norms, -1.0), 1.0) if norms else math.nan,
            mean_shift=(sum_y - sum_x) / n / std_x if std_x else math.nan,
            std_ratio=std_y / std_x if std_x else math.nan,
            float_min=self.float_min,
            float_max=self.float_max,
            quantized_min=self.quantized_min,
            quantized_max=self.quantized_max,
            low=low,
            high=high,
            float_counts=counts[0],
            quantized_counts=counts[1],
        )


@dataclass(frozen=True, slots=True)
class _ObservedTensor:
    """A tensor to observe: its node, its name in the emulator, and that of its local twin.

    ``channel_axis``: along which it has channels, None where it has none.
    """

    name: str
    node_name: str
    op_type: str
    emulated_name: str
    local_name: str | None
    nbytes: int
    channel_axis: int | None


def measure_drift(
    emulator: Emulator,
    plan: Plan,
    local: LocalTwins,
    samples: Samples,
    folder: Path,
    report: ReportSteps | None = None,
    *,
    order: Sequence[str] = (),
    block_bytes: int = BLOCK_BYTES,
) -> tuple[ActivationErrorRecord, ...]:
    """Run the network in float and under a plan; one row per float tensor and kind of error.

    Args:
        local: the same network with a twin beside each operator.
        folder: for what a later block needs; nobody else writes there.
        report: told how many runs of how many are done.
        order: names of tensors in the order of the original graph, where an optimizer changed it.
        block_bytes: how much is observed at the same time.

    Raises:
        RunError: onnxruntime refuses one of the graphs, or stops.
    """
    tensors = _observed_tensors(emulator.network, plan, local)
    blocks = packed(
        tensors, lambda tensor: tensor.nbytes * (3 if tensor.local_name else 2), block_bytes
    )
    as_float = Relay(
        local.model,
        [
            [
                name
                for tensor in block
                for name in (tensor.name, tensor.local_name)
                if name is not None
            ]
            for block in blocks
        ],
        folder,
        "float",
    )
    as_int = Relay(
        emulator.model,
        [[tensor.emulated_name for tensor in block] for block in blocks],
        folder,
        "rounded",
    )
    fed = emulator.fed(plan)
    done, total = 0, len(blocks) * len(samples)
    sums_of: dict[tuple[str, str], DriftSums] = {}
    for indices in rounds(len(samples), lambda: as_float.most_bytes + as_int.most_bytes):
        for number, block in enumerate(blocks):
            as_float.open(number)
            as_int.open(number)
            for index in indices:
                sample = samples[index]
                _add(
                    sums_of,
                    block,
                    as_float.run(index, {**local.fed, **sample}),
                    as_int.run(index, {**fed, **sample}),
                )
                done += 1
                if report is not None:
                    report(done, total)
    return tuple(_records(_ordered(tensors, order), sums_of))


@dataclass(frozen=True, slots=True)
class Collapse:
    """Where a network is lost: nodes, None where it never is.

    ``first`` is the first whose tensor falls below the limit, ``for_good`` the one from which on
    all stay below. Branches that lie side by side make the two differ.
    """

    first: str | None
    for_good: str | None


def collapse(records: Sequence[ActivationErrorRecord], limit_db: float = 10.0) -> Collapse:
    """Where the accumulated SQNR of the layers falls below a limit.

    Layers alone count, where there are any: a Sigmoid between them squeezes the error away.
    """
    drifted = [
        record
        for record in records
        if record.kind == ACCUMULATED and not math.isnan(record.sqnr_db)
    ]
    drifted = [record for record in drifted if record.op_type in LAYERS] or drifted
    first = for_good = None
    for record in sorted(drifted, key=lambda record: record.depth):
        if record.sqnr_db >= limit_db:
            for_good = None
            continue
        first = first or record.node_name
        for_good = for_good or record.node_name
    return Collapse(first, for_good)


def _observed_tensors(network: Network, plan: Plan, local: LocalTwins) -> list[_ObservedTensor]:
    axis_of = channel_axes(network)
    return [
        _ObservedTensor(
            name=name,
            node_name=name_in_file(name_of(node)),
            op_type=node.op_type,
            emulated_name=rounded(name) if name in plan.grids else name,
            local_name=local.name_of.get(name),
            nbytes=network.bytes_of(name),
            channel_axis=axis_of.get(name),
        )
        for name, node in computed(network.model, network.constants)
        if name in network.float_tensors and not is_within_quantizer(name)
    ]


def _ordered(tensors: Sequence[_ObservedTensor], order: Sequence[str]) -> list[_ObservedTensor]:
    """The tensors in the given order; what it does not know stays behind what came before it."""
    position_of = {name: position for position, name in enumerate(order)}
    keys, last = [], -1
    for tensor in tensors:
        last = position_of.get(tensor.name, last)
        keys.append(last)
    return [tensors[index] for index in sorted(range(len(tensors)), key=lambda i: (keys[i], i))]


def _add(
    sums_of: dict[tuple[str, str], DriftSums],
    block: Sequence[_ObservedTensor],
    float_tensors: dict[str, Array],
    twin_tensors: dict[str, Array],
) -> None:
    """Take in a block's tensors of one sample."""
    for tensor in block:
        x = float_tensors[tensor.name]
        if not _is_float(x):
            continue
        others = [(ACCUMULATED, twin_tensors[tensor.emulated_name])]
        if tensor.local_name is not None:
            others.append((LOCAL, float_tensors[tensor.local_name]))
        for error_kind, y in others:
            if _is_float(y) and y.shape == x.shape:
                sums = sums_of.setdefault((tensor.name, error_kind), DriftSums())
                sums.add(x, y)
                sums.channels.add(x, y, tensor.channel_axis)


def _is_float(array: object) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind == "f"


def _records(
    tensors: Sequence[_ObservedTensor], sums_of: dict[tuple[str, str], DriftSums]
) -> list[ActivationErrorRecord]:
    records = []
    # Depth counts what was compared.
    compared = [tensor for tensor in tensors if (tensor.name, ACCUMULATED) in sums_of]
    for depth, tensor in enumerate(compared):
        for error_kind in (ACCUMULATED, LOCAL):
            sums = sums_of.get((tensor.name, error_kind))
            if sums is not None:
                records.append(
                    sums.record(
                        depth=depth,
                        node_name=tensor.node_name,
                        op_type=tensor.op_type,
                        tensor=tensor.name,
                        kind=error_kind,
                    )
                )
    return records
