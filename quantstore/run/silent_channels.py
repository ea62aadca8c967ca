"""Channels that may carry nothing, and biases that do not fit: asked of the network, not guessed.

Channels of very little energy are dead where the network does not miss them, and alive where it
does: a network that was rescaled carries such channels for a reason. A bias overflows at the scales
that the ranges gave, not at assumed ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantstore import graph
from quantstore.records import Array
from quantstore.run import twin
from quantstore.run.comparison import Reference
from quantstore.run.network import Network
from quantstore.run.placement import Placement
from quantstore.run.plans import Planner, Rounding
from quantstore.run.runtime import Feeds

# Of the mean energy of a layer's channels. Trained channels hold a hundredth and more.
LEAST_ENERGY_SHARE = 1e-6
# What rounding to 8 bits can do to outputs is far above: nobody misses what costs less.
MISSED_BELOW_DB = 60.0
_LARGEST_CODE = float(np.iinfo(np.int32).max)


@dataclass(frozen=True, slots=True)
class FaintChannels:
    """Channels of a layer with next to no energy; ``output_sqnr_db``: with all such channels of all
    layers at zero, the SQNR at the outputs.
    """

    layer: str
    channels: tuple[int, ...]
    output_sqnr_db: float

    @property
    def is_dead(self) -> bool:
        """Whether the network does not miss them."""
        return self.output_sqnr_db >= MISSED_BELOW_DB


@dataclass(frozen=True, slots=True)
class OverflowingBias:
    """How many values of a layer's bias exceed int32 in units of input scale times weight scale."""

    layer: str
    count: int


def faint_channels(
    network: Network, samples: Sequence[Feeds], reference: Reference
) -> tuple[FaintChannels, ...]:
    """The candidates of every layer, all of them judged by one run.

    Args:
        reference: what the float network gives on ``samples``.

    Raises:
        RunError: onnxruntime stops.
    """
    silenced: dict[str, Array] = {}
    candidates: dict[str, tuple[int, ...]] = {}
    for name, slot in network.slot_of.items():
        layer = graph.read_layer(network.floats.file, slot.site, fold=slot.factor is not None)
        if layer is None:
            continue
        energy = np.square(layer.weights, dtype=np.float64).reshape(len(layer.weights), -1).sum(1)
        is_faint = energy < LEAST_ENERGY_SHARE * energy.mean()
        if is_faint.any():
            candidates[slot.site.name] = tuple(int(at) for at in np.flatnonzero(is_faint))
            silenced[name] = twin.without_channels(slot, layer, is_faint)
    if not candidates:
        return ()
    fed = {**network.constants, **silenced}
    figure_db = reference.median_db(
        network.session.run({**fed, **sample}, network.outputs) for sample in samples
    )
    return tuple(FaintChannels(name, which, figure_db) for name, which in candidates.items())


def overflowing_biases(
    network: Network, placed: Placement, planner: Planner, rounding: Rounding
) -> tuple[OverflowingBias, ...]:
    """Layers whose bias does not fit into int32 where the weights keep the scale of their own."""
    scheme, activations = rounding.scheme, rounding.activations
    if scheme is None or activations is None or not scheme.is_symmetric:
        return ()
    roots = planner.grids(placed, activations)
    overflowing = []
    for bias in placed.biases:
        grid = roots.get(placed.grid_of.get(bias.input, ""))
        slot = network.slot_of.get(bias.weights)
        if grid is None or grid.is_dynamic or slot is None:
            continue
        values = np.abs(network.constant(bias.name).astype(np.float64)).ravel()
        scale = network.rounded(slot, scheme).scale * float(grid.scale[0])
        if scale.size not in (1, values.size):
            continue
        count = int(np.sum(values > _LARGEST_CODE * scale))
        if count:
            overflowing.append(OverflowingBias(slot.site.name, count))
    return tuple(overflowing)
