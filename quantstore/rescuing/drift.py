"""How far each layer's result is from float, as the target rounds by default and under the plan."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from quantstore.numerics.quantization import sqnr_db
from quantstore.records import Array, RescueDriftRecord
from quantstore.run.choices import ReportSteps
from quantstore.run.emulator import Emulator, Plan, rounded
from quantstore.run.network import Network
from quantstore.run.nodes import Node, name_of
from quantstore.run.placement import MULTIPLYING, Placement
from quantstore.run.ranges import BLOCK_BYTES
from quantstore.run.relay import Relay, packed, rounds
from quantstore.run.runtime import Feeds


def drift(
    emulator: Emulator,
    placed: Placement,
    before: Plan,
    after: Plan,
    samples: Sequence[Feeds],
    folder: Path,
    report: ReportSteps,
) -> tuple[RescueDriftRecord, ...]:
    """SQNR of what every node that multiplies hands on, over these samples.

    Raises:
        RunError: onnxruntime stops.
    """
    network = emulator.network
    nodes = _multiplying(network)
    is_rounded = frozenset(placed.activations)
    emulated = {
        node.output[0]: rounded(node.output[0]) if node.output[0] in is_rounded else node.output[0]
        for node in nodes
    }
    blocks = packed(list(emulated), lambda name: 3 * network.bytes_of(name), BLOCK_BYTES)
    relay = Relay(
        emulator.model, [[emulated[name] for name in block] for block in blocks], folder, "drift"
    )
    plans = [emulator.fed(plan) for plan in (Plan(), before, after)]
    signal = dict.fromkeys(emulated, 0.0)
    noise = {name: np.zeros(2) for name in emulated}
    done = 0
    for indices in rounds(len(samples), lambda: len(plans) * relay.most_bytes):
        for number, block in enumerate(blocks):
            relay.open(number)
            for index in indices:
                # What a block hands on is kept by number of the run: three for each sample.
                results = [
                    relay.run(len(plans) * index + run, {**fed, **samples[index]})
                    for run, fed in enumerate(plans)
                ]
                for name in block:
                    y, *others = (arrays[emulated[name]] for arrays in results)
                    signal[name] += _energy(y)
                    noise[name] += [_energy(other - y) for other in others]
                done += 1
                report(done, len(blocks) * len(samples))
    return tuple(
        RescueDriftRecord(
            depth=depth,
            node_name=name_of(node),
            op_type=node.op_type,
            tensor=node.output[0],
            before_db=float(sqnr_db(signal[node.output[0]], noise[node.output[0]][0])),
            after_db=float(sqnr_db(signal[node.output[0]], noise[node.output[0]][1])),
        )
        for depth, node in enumerate(nodes)
    )


def _multiplying(network: Network) -> list[Node]:
    return [
        node
        for node in network.model.graph.node
        if node.op_type in MULTIPLYING and node.output[0] in network.float_tensors
    ]


def _energy(array: Array) -> float:
    return float(np.sum(np.square(array, dtype=np.float64)))
