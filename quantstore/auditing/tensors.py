"""Tensors of two graphs in, which is which out: from the layers that are known, node by node.

Outputs of paired layers are anchors. From the inputs and the anchors on, a node of the float graph
is the node of the int8 graph that has the same operator and reads the same tensors. Both graphs
compute with floats; where the int8 file rounds, a Clip or an Identity stands (``run.restore``).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from quantstore.auditing.layers import AuditedPair, stem
from quantstore.graph.attributes import integer
from quantstore.graph.batchnorm import FOLDABLE, Folding, folding_after
from quantstore.graph.constants import only_consumer
from quantstore.graph.fold import values_of
from quantstore.graph.tensors import dimensions
from quantstore.records import Array
from quantstore.run.restore import StoredGrid
from quantstore.run.stored_grids import Bounds

FoundBy = Literal["input", "layer", "graph", "absorbed"]
# They hand on what they get.
_COPYING = ("Identity", "Cast", "Dropout")
# What they give depends on shapes alone, and is the same for both.
_OF_SHAPES = ("Shape", "Size", "Constant", "ConstantOfShape")
_COMMUTATIVE = ("Add", "Mul", "Max", "Min", "Sum")
# A quantizer leaves these out where the grid does what they do, or folds them into a layer.
_ABSORBED = ("Relu", "Clip", "BatchNormalization")
_LIMITING = ("Relu", "Clip")
# Graphs have no longer chains of what only copies.
_MOST_COPIES = 1_000


@dataclass(frozen=True, slots=True)
class TensorPair:
    """A tensor of the float graph and the one of the int8 graph that stands for it.

    ``after``: as its readers get it, behind its rounding.
    """

    before: ir.Value
    after: ir.Value
    found_by: FoundBy


@dataclass(slots=True)
class PairedTensors:
    """Every pair that was found.

    ``pairs`` in the order of the float graph. ``bounds``: by the rounded tensor, what the int8 file
    leaves to the ends of its grid; tensors that nobody knows are not there. ``folded``: by the name
    of what a layer of the float file gives, what is behind the factors that the int8 file holds in
    its weights.
    """

    pairs: list[TensorPair] = field(default_factory=list)
    bounds: dict[ir.Value, Bounds] = field(default_factory=dict)
    folded: dict[str, str] = field(default_factory=dict)


def pair_tensors(
    before: ir.Model,
    after: ir.Model,
    grids: Sequence[StoredGrid],
    layers: Iterable[tuple[AuditedPair, ir.Node]],
) -> PairedTensors:
    """Pair the tensors of a float graph with those of an int8 graph in float arithmetic.

    Args:
        layers: pairs, each with the node of ``after`` that the layer is of.
    """
    first = _Graph(before, frozenset())
    second = _Graph(after, frozenset(node for grid in grids for node in grid.nodes))
    pairing = _Pairing(first, second)
    named = {value.name: value for value in second.inputs}
    for index, value in enumerate(first.inputs):
        # By name, else by position.
        partner = named.get(value.name)
        if partner is None and len(first.inputs) == len(second.inputs):
            partner = second.inputs[index]
        if partner is not None:
            pairing.put(value, partner, "input")
    folded: dict[str, str] = {}
    for pair, node in layers:
        if not pair.before.site.node.outputs or not node.outputs:
            continue
        before_folding = pair.before.site.node.outputs[0]
        anchors = _results(pair, node, first, second)
        pairing.put(*anchors, "layer", node=node)
        if anchors[0] is not before_folding:
            folded[str(before_folding.name)] = str(anchors[0].name)
    for node in before.graph:
        pairing.follow(node)
    return pairing.answer(grids, folded)


class _Graph:
    """A graph as it is compared: every tensor by the first of its copies."""

    def __init__(self, model: ir.Model, roundings: frozenset[ir.Node]) -> None:
        graph = model.graph
        self.opset = model.opset_imports.get("") or model.opset_imports.get("ai.onnx")
        self._roundings = roundings
        self._origin: dict[ir.Value, ir.Value] = {}
        self._last: dict[ir.Value, ir.Value] = {}
        self.inputs = [value for value in graph.inputs if value.const_value is None]
        self._constant: set[ir.Value] = set()
        self.readers: dict[ir.Value, list[ir.Node]] = defaultdict(list)
        for node in graph:
            self._add(node)

    def _add(self, node: ir.Node) -> None:
        if node.op_type in _OF_SHAPES or (
            not any(
                attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()
            )
            and all(value is None or self.is_constant(value) for value in node.inputs)
        ):
            self._constant.update(node.outputs)
            return
        data = node.inputs[0] if node.inputs else None
        if data is not None and (node in self._roundings or node.op_type in _COPYING):
            origin = self.origin(data)
            self._origin[node.outputs[0]] = origin
            if node in self._roundings or self._last.get(origin, origin) is data:
                self._last[origin] = node.outputs[0]
            return
        for value in self.live_inputs(node):
            self.readers[value].append(node)

    def is_constant(self, value: ir.Value) -> bool:
        """Whether it does not depend on the inputs of the graph, but for their shapes."""
        return value.const_value is not None or value in self._constant

    def values_of(self, value: ir.Value | None) -> Array | None:
        """Of a constant, computed where the graph computes it."""
        return values_of(value, self.opset)

    def origin(self, value: ir.Value) -> ir.Value:
        """What it is a copy of, rounded or not."""
        return self._origin.get(value, value)

    def as_read(self, origin: ir.Value) -> ir.Value:
        """Its last copy: the rounded one, where it is rounded."""
        return self._last.get(origin, origin)

    def live_inputs(self, node: ir.Node) -> list[ir.Value]:
        """What a node reads that depends on the inputs of the graph, by their origins."""
        return [
            self.origin(value)
            for value in node.inputs
            if value is not None and not self.is_constant(value)
        ]

    def is_copying(self, node: ir.Node) -> bool:
        """Whether what it gives is what it gets."""
        return node.outputs[0] in self._origin or node.outputs[0] in self._constant


class _Pairing:
    def __init__(self, first: _Graph, second: _Graph) -> None:
        self._first, self._second = first, second
        self._partner: dict[ir.Value, ir.Value] = {}
        self._found_by: dict[ir.Value, FoundBy] = {}
        self._absorbed: dict[ir.Value, Bounds] = {}
        self._taken: set[ir.Node] = set()

    def put(
        self, before: ir.Value, after: ir.Value, found_by: FoundBy, node: ir.Node | None = None
    ) -> None:
        """Note a pair; the first one counts."""
        origin = self._first.origin(before)
        if origin not in self._partner:
            self._partner[origin] = self._second.origin(after)
            self._found_by[origin] = found_by
            if node is not None:
                self._taken.add(node)

    def follow(self, node: ir.Node) -> None:
        """Pair what a node of the float graph gives, where what it reads has partners."""
        if not node.outputs or node.outputs[0] in self._partner or self._first.is_copying(node):
            return
        live = self._first.live_inputs(node)
        if not live or any(value not in self._partner for value in live):
            return
        partners = [self._partner[value] for value in live]
        same = self._same_node(node, partners)
        if same is not None:
            self._taken.add(same)
            for value, partner in zip(node.outputs, same.outputs, strict=False):
                self.put(value, partner, "graph")
        elif node.op_type in _ABSORBED and len(live) == 1:
            self.put(node.outputs[0], partners[0], "absorbed")
            if node.op_type in _LIMITING:
                earlier = self._absorbed.get(partners[0], Bounds())
                self._absorbed[partners[0]] = earlier.joined(_bounds_of(node, self._first))

    def _same_node(self, node: ir.Node, partners: list[ir.Value]) -> ir.Node | None:
        """The node of the int8 graph with this operator that reads these tensors.

        Of several (slices of one tensor), the one whose result has the same name, or the same
        constants.
        """
        candidates = []
        for other in self._second.readers[partners[0]]:
            if other.op_type != node.op_type or other in self._taken:
                continue
            read = self._second.live_inputs(other)
            is_any_order = node.op_type in _COMMUTATIVE and len(read) == len(partners)
            if read == partners or (is_any_order and set(read) == set(partners)):
                candidates.append(other)
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        return max(candidates, key=lambda other: self._likeness(node, other))

    def _likeness(self, node: ir.Node, other: ir.Node) -> tuple[bool, bool]:
        """Whether the results have one name, and whether both read the same constants."""
        is_called_alike = stem(str(node.outputs[0].name)) == stem(str(other.outputs[0].name))
        mine, theirs = (
            [
                np.asarray(array, np.float64).tobytes()
                for value in reader.inputs
                if (array := graph.values_of(value)) is not None
            ]
            for reader, graph in ((node, self._first), (other, self._second))
        )
        return is_called_alike, mine == theirs

    def answer(self, grids: Sequence[StoredGrid], folded: dict[str, str]) -> PairedTensors:
        paired = PairedTensors(folded=folded)
        for before, after in self._partner.items():
            as_read = self._second.as_read(after)
            paired.pairs.append(TensorPair(before, as_read, self._found_by[before]))
        partners = set(self._partner.values())
        for grid in grids:
            origin = self._second.origin(grid.source)
            if origin in partners:
                paired.bounds[grid.clip.outputs[0]] = self._absorbed.get(origin, Bounds())
        return paired


def _has_bodies(node: ir.Node) -> bool:
    return any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values())


def _bounds_of(node: ir.Node, graph: _Graph) -> Bounds:
    if node.op_type == "Relu":
        return Bounds(low=0.0)
    limits = []
    for index, name in enumerate(("min", "max"), start=1):
        value = node.inputs[index] if index < len(node.inputs) else None
        array = graph.values_of(value)
        if array is not None and np.size(array):
            limits.append(float(np.ravel(array)[0]))
        elif name in node.attributes:
            limits.append(node.attributes[name].as_float())
        else:
            limits.append(-math.inf if name == "min" else math.inf)
    return Bounds(*limits)


def _results(
    pair: AuditedPair, node: ir.Node, first: _Graph, second: _Graph
) -> tuple[ir.Value, ir.Value]:
    """Where both files have computed the same of a layer: behind its bias and what is folded."""
    site = pair.before.site
    before, after = site.node.outputs[0], node.outputs[0]
    folding = _folding(pair, first.opset)
    if folding is not None:
        before = folding.node.outputs[0]
    has_bias = folding is not None or _has_bias(site.node)
    if has_bias and not _has_bias(node):
        after = _behind_bias(after, second) or after
    elif _has_bias(node) and not has_bias:
        before = _behind_bias(before, first) or before
    return before, after


def _folding(pair: AuditedPair, opset: int | None) -> Folding | None:
    """What the int8 file holds folded into the weights of the layer."""
    node = pair.before.site.node
    if not pair.is_folded or node.op_type not in FOLDABLE:
        return None
    shape = dimensions(pair.before.site.tensor)
    group_count = integer(node, "group", 1)
    channels = shape[0] if node.op_type == "Conv" else shape[1] * group_count
    return folding_after(node, channels, opset or 1, rank=len(shape))


def _has_bias(node: ir.Node) -> bool:
    return len(node.inputs) > 2 and node.inputs[2] is not None


def _behind_bias(value: ir.Value, graph: _Graph) -> ir.Value | None:
    """The result of the Add of a constant that alone reads a value, or its rounding."""
    for _ in range(_MOST_COPIES):
        reader = only_consumer(value)
        if reader is None:
            return None
        if reader.op_type == "Add":
            others = [other for other in reader.inputs if other is not value]
            is_bias = (
                len(others) == 1
                and others[0] is not None
                and graph.values_of(others[0]) is not None
            )
            return reader.outputs[0] if is_bias else None
        if not graph.is_copying(reader):
            return None
        value = reader.outputs[0]
    return None


def bias_behind(node: ir.Node, opset: int | None) -> Array | None:
    """What a layer of a float graph adds, itself or in the Add that follows; None for nothing."""
    if _has_bias(node):
        return values_of(node.inputs[2], opset)
    reader = only_consumer(node.outputs[0])
    if reader is None or reader.op_type != "Add":
        return None
    arrays = [values_of(value, opset) for value in reader.inputs]
    return next((array for array in arrays if array is not None), None)
