"""Why a tensor or the weights of a layer lose much in int8, as far as statistics and graph tell."""

import numpy as np

from quantstore.records import Doubles
from quantstore.rescuing.bench import RescueBench
from quantstore.run.nodes import Node, consumers, producers
from quantstore.run.points import SQUASHING

# A channel, or an operand of a Concat, that is so many times larger than the median one.
_OUTLIER = 8.0

OUTLIER_CHANNELS = "outlier channels"
MIXED_CONCAT = "mixed Concat"
SQUASHING_BEHIND = "squashing behind it"
SENTINEL = "sentinel values"
SPREAD = "activation spread"
WEIGHTS = "weight spread"
# What each means, in a sentence: ``wording.rescues.CAUSE_SENTENCES``.
EVERY_CAUSE = (OUTLIER_CHANNELS, MIXED_CONCAT, SQUASHING_BEHIND, SENTINEL, SPREAD, WEIGHTS)


class Causes:
    """Looks at the network once, and tells the cause of any unit."""

    def __init__(self, bench: RescueBench) -> None:
        self._bench = bench
        self._made_by = producers(bench.network.model)
        self._readers = consumers(bench.network.model)

    def of_weights(self) -> str:
        """Of the weights of a layer."""
        return WEIGHTS

    def of_tensor(self, name: str) -> str:
        """The first cause that is found, from the most to the least specific."""
        if self._bench.drafting.has_sentinels(name):
            return SENTINEL
        made_by = self._made_by.get(name)
        if made_by is not None and made_by.op_type == "Concat" and self._is_mixed(made_by):
            return MIXED_CONCAT
        ends = self._bench.drafting.channel_ends(name)
        if ends is not None and _has_outlier(np.maximum(np.abs(ends[0]), np.abs(ends[1]))):
            return OUTLIER_CHANNELS
        if any(node.op_type in SQUASHING for node in self._readers.get(name, ())):
            return SQUASHING_BEHIND
        return SPREAD

    def _is_mixed(self, node: Node) -> bool:
        sizes = [self._bench.drafting.largest(name) for name in node.input]
        observed_sizes = [size for size in sizes if size is not None and size > 0]
        return len(observed_sizes) > 1 and max(observed_sizes) > _OUTLIER * min(observed_sizes)


def _has_outlier(magnitudes: Doubles) -> bool:
    used = magnitudes[magnitudes > 0]
    return bool(used.size > 1 and used.max() > _OUTLIER * np.median(used))
