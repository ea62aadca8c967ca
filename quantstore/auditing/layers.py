"""Layers of two files in, which is which out: by value first, then by name, then by order.

Quantizers rename nodes and weights, fuse what follows a layer and reorder what they like. What they
keep is the weights themselves, up to rounding. So that a large model need not be held twice,
weights are compared on an even sample of each layer.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from quantstore import graph
from quantstore.errors import RunError
from quantstore.graph import ModelFile, Site
from quantstore.layer import Layer
from quantstore.records import Doubles

MatchedBy = Literal["value", "name", "order"]
# Rounding adds noise. With half the energy of the weights (3 dB) it still tells them from any other
# layer: two layers that have nothing to do with one another differ by as much as they have, twice.
MOST_RELATIVE_ERROR = math.sqrt(0.5)
# With a smaller share of pairs the files are hardly one network.
LEAST_PAIRED = 0.5
# Of each layer; enough to tell two layers apart, and few enough to compare all with all.
MOST_COMPARED = 1 << 14
# What quantizers put behind the names of nodes and tensors.
_SUFFIXES = (
    "_quant",
    "_quantized",
    "_dequantized",
    "_QuantizeLinear",
    "_DequantizeLinear",
    "_QuantizeLinear_Output",
    "_DequantizeLinear_Output",
)


@dataclass(frozen=True, slots=True, eq=False)
class AuditedLayer:
    """A layer of one of the files; its weights are read again when they are needed.

    ``depth`` counts as the store does. ``input_count``: channels that a row of its matrix reads.
    ``is_folded``: what follows is multiplied in. ``sample``: some of its effective weights,
    ``raw_sample`` the same without what is folded into them, in the order of the matrix.
    """

    depth: int
    site: Site
    family: str
    matrix_shape: tuple[int, int]
    input_count: int
    stored_scheme: str | None
    is_folded: bool
    sample: Doubles = field(repr=False)
    raw_sample: Doubles = field(repr=False)

    @property
    def name(self) -> str:
        return self.site.name

    @property
    def operand(self) -> str:
        """Which weights of the node these are."""
        return self.site.operand.name


@dataclass(frozen=True, slots=True, eq=False)
class AuditedPair:
    """The same layer in both files.

    ``relative_error``: ``|W' - W| / |W|`` over the sample. ``is_folded``: the int8 file holds what
    BatchNormalization makes of the float weights.
    """

    before: AuditedLayer
    after: AuditedLayer
    matched_by: MatchedBy
    relative_error: float
    is_folded: bool


def layers_of(file: ModelFile) -> list[AuditedLayer]:
    """The layers of a file, in its order.

    Raises:
        QuantstoreError: it has none, or weights cannot be read.
    """
    layers: list[AuditedLayer] = []
    for site in graph.find_sites(file):
        layer = graph.read_layer(file, site)
        if layer is None:
            continue
        sample = _sample(layer)
        is_folded = layer.batchnorm_folded or layer.mul_folded
        raw = graph.read_layer(file, site, fold=False) if is_folded else None
        rows, columns = layer.weights.shape
        layers.append(
            AuditedLayer(
                depth=len(layers),
                site=site,
                family=layer.op_family,
                matrix_shape=(rows, columns),
                input_count=columns // _kernel_size(layer),
                stored_scheme=layer.stored_scheme,
                is_folded=is_folded,
                sample=sample,
                raw_sample=sample if raw is None else _sample(raw),
            )
        )
    return layers


def pair_layers(before: Sequence[AuditedLayer], after: Sequence[AuditedLayer]) -> list[AuditedPair]:
    """Which layer of the int8 file is which of the float file, in the order of the latter.

    Layers of one operator family and shape are compared all with all, the nearest pairs first.

    Raises:
        RunError: hardly any layer has a partner: one file was not made from the other.
    """
    pairs = [
        pair
        for first, second in _groups(before, after)
        for pair in _paired(list(first), list(second))
    ]
    fewer = min(len(before), len(after))
    if len(pairs) < LEAST_PAIRED * fewer:
        raise RunError(
            f"only {len(pairs)} of {fewer} layers have a counterpart of the same kind and shape",
            "name the float file that the int8 file was made from",
        )
    return sorted(pairs, key=lambda pair: pair.before.depth)


def _groups(
    before: Sequence[AuditedLayer], after: Sequence[AuditedLayer]
) -> Iterator[tuple[list[AuditedLayer], list[AuditedLayer]]]:
    groups: dict[tuple[object, ...], tuple[list[AuditedLayer], list[AuditedLayer]]] = defaultdict(
        lambda: ([], [])
    )
    for side, layers in enumerate((before, after)):
        for layer in layers:
            groups[layer.family, layer.matrix_shape][side].append(layer)
    yield from groups.values()


def _paired(before: list[AuditedLayer], after: list[AuditedLayer]) -> Iterator[AuditedPair]:
    """Pairs of one group; the layers that have one leave the lists."""
    near = sorted(
        (
            pair
            for first in before
            for second in after
            if (pair := _compared(first, second)).relative_error <= MOST_RELATIVE_ERROR
        ),
        # Layers of equal weights by their names.
        key=lambda pair: (pair.relative_error, stem(pair.before.name) != stem(pair.after.name)),
    )
    for pair in near:
        if pair.before in before and pair.after in after:
            before.remove(pair.before)
            after.remove(pair.after)
            yield pair
    by_name = {(stem(layer.name), layer.operand): layer for layer in after}
    for first in list(before):
        second = by_name.get((stem(first.name), first.operand))
        if second is not None and second in after:
            before.remove(first)
            after.remove(second)
            yield _compared(first, second, "name")
    # Otherwise nobody knows which of them have no partner.
    if len(before) == len(after):
        for first, second in zip(before, after, strict=True):
            yield _compared(first, second, "order")


def stem(name: str) -> str:
    """A name without what quantizers put behind it."""
    while True:
        shorter = next(
            (name.removesuffix(end) for end in _SUFFIXES if name.endswith(end) and name != end),
            name,
        )
        if shorter == name:
            return name
        name = shorter


def _compared(
    before: AuditedLayer, after: AuditedLayer, matched_by: MatchedBy = "value"
) -> AuditedPair:
    folded, raw = (
        _relative_error(sample, after.raw_sample) for sample in (before.sample, before.raw_sample)
    )
    return AuditedPair(before, after, matched_by, min(folded, raw), is_folded=folded <= raw)


def _relative_error(weights: Doubles, others: Doubles) -> float:
    energy = float(np.vdot(weights, weights))
    difference = others - weights
    error = float(np.vdot(difference, difference))
    if energy == 0:
        return 0.0 if error == 0 else math.inf
    return math.sqrt(error / energy)


def _kernel_size(layer: Layer) -> int:
    """How many weights an input channel has in each output channel."""
    is_convolution = layer.op_family in ("conv", "conv_transpose")
    return math.prod(layer.shape[2:]) if is_convolution else 1


def _sample(layer: Layer) -> Doubles:
    """Some weights at even distances, those that are no numbers as 0; in float64."""
    values = layer.weights.ravel()
    # An odd distance, so that not always the same columns of the matrix are met.
    distance = -(-values.size // MOST_COMPARED) | 1 if values.size > MOST_COMPARED else 1
    return np.nan_to_num(values[::distance].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
