"""How many multiply-accumulates (MACs) each node of a network takes, from shapes."""

import math
from dataclasses import dataclass

from quantstore.run.network import Network
from quantstore.run.nodes import Node, name_of
from quantstore.run.placement import MULTIPLYING, RECURRENT


@dataclass(frozen=True, slots=True)
class Macs:
    """MACs by the name of a node; ``reading``: the nodes that multiply a tensor or weights."""

    of_node: dict[str, int]
    reading: dict[str, tuple[str, ...]]

    @property
    def total(self) -> int:
        """Of the whole network."""
        return sum(self.of_node.values())

    def nodes_of(self, name: str) -> tuple[str, ...]:
        """The nodes that multiply by a tensor or constant; they take floats once it is float."""
        return self.reading.get(name, ())

    def share_in_int8(self, promoted: frozenset[str]) -> float:
        """Share of the MACs in int8 with these tensors and weights promoted; 1 without MACs."""
        lost = {node for name in promoted for node in self.nodes_of(name)}
        return 1 - sum(self.of_node[node] for node in lost) / self.total if self.total else 1.0


def count_macs(network: Network) -> Macs:
    """Of every node that multiplies; where a shape is not known, as few as its weights show."""
    of_node: dict[str, int] = {}
    reading: dict[str, dict[str, None]] = {}
    for node in network.model.graph.node:
        if node.op_type not in MULTIPLYING:
            continue
        name = name_of(node)
        of_node[name] = _macs(network, node)
        operands = node.input[:1] if node.op_type in RECURRENT else node.input[:2]
        for operand in (*operands, *(name for name in node.input if name in network.slot_of)):
            reading.setdefault(operand, {})[name] = None
    return Macs(of_node, {name: tuple(nodes) for name, nodes in reading.items()})


def _macs(network: Network, node: Node) -> int:
    sizes = [
        network.constants[name].size
        for name in node.input
        if name in network.slot_of and name in network.constants
    ]
    weight_count = sum(sizes)
    facts = network.tensors.get(node.output[0])
    shape = None if facts is None else facts.shape
    if shape is None or None in shape:
        return weight_count
    result = math.prod(size or 1 for size in shape)
    if node.op_type in ("Conv", "ConvTranspose") and weight_count:
        weights = network.constants[node.input[1]]
        if node.op_type == "Conv":
            return int(result * weight_count // weights.shape[0])
        return int((_elements(network, node.input[0]) or result) * math.prod(weights.shape[1:]))
    if node.op_type in RECURRENT:
        steps = _elements(network, node.output[0]) or 1
        return weight_count * max(1, steps // max(1, shape[-1] or 1))
    return result * (_depth(network, node) or 1)


def _depth(network: Network, node: Node) -> int | None:
    """Along which a matrix product sums."""
    for index, axis in ((1, -2), (0, -1)):
        name = node.input[index]
        if name in network.constants:
            dims: tuple[int | None, ...] = network.constants[name].shape
        else:
            facts = network.tensors.get(name)
            dims = () if facts is None or facts.shape is None else facts.shape
        if not dims:
            continue
        turned = "transB" if index else "transA"
        is_turned = any(item.name == turned and item.i for item in node.attribute)
        if len(dims) > 1 and is_turned:
            axis = -1 if axis == -2 else -2
        size = dims[axis] if len(dims) > 1 else dims[0]
        if size is not None:
            return int(size)
    return None


def _elements(network: Network, name: str) -> int | None:
    facts = network.tensors.get(name)
    if facts is None or facts.shape is None or None in facts.shape:
        return None
    return math.prod(size or 1 for size in facts.shape)
