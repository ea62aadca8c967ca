"""Channels that may carry nothing: asked of the network, not guessed from their weights.

A rescaled network carries channels of very little energy for a reason: the next layer lifts them.
"""

from collections.abc import Sequence

import numpy as np

from quantstore.graph.findings import FaintFigures
from quantstore.numerics.quantization import dead_channels
from quantstore.records import Array
from quantstore.run import twin
from quantstore.run.comparison import Reference
from quantstore.run.network import Network
from quantstore.run.runtime import Feeds

# Of the mean energy of a layer's channels. Trained channels hold a hundredth and more.
LEAST_ENERGY_SHARE = 1e-6


def faint_channels(
    network: Network, samples: Sequence[Feeds], reference: Reference
) -> FaintFigures | None:
    """The candidates of every layer, all of them judged by one run, on the first sample.

    None where there are none.

    Dead channels by their weights alone, which no summary counts, are no candidates.

    Args:
        reference: what the float network gives on ``samples``.

    Raises:
        RunError: onnxruntime stops.
    """
    silenced: dict[str, Array] = {}
    channels: dict[str, tuple[int, ...]] = {}
    for name, slot in network.slot_of.items():
        layer = twin.layer_of(network.floats, slot)
        if layer is None:
            continue
        energy = np.square(layer.weights, dtype=np.float64).sum(axis=1)
        is_dead = dead_channels(layer.weights.min(axis=1), layer.weights.max(axis=1))
        is_faint = (energy < LEAST_ENERGY_SHARE * energy.mean()) & ~is_dead
        if is_faint.any():
            channels[slot.site.name] = tuple(int(at) for at in np.flatnonzero(is_faint))
            silenced[name] = twin.without_channels(slot, layer, is_faint)
    if not channels:
        return None
    fed = {**network.constants, **silenced, **samples[0]}
    # From sample to sample the figure moves by a decibel; the limit is tens away from either side.
    output_sqnr_db = reference.of_first().median_db([network.session.run(fed, network.outputs)])
    return FaintFigures(channels=channels, output_sqnr_db=output_sqnr_db)
