"""Nodes of an ONNX graph as protobuf holds them: which makes a tensor, which read it."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import onnx
from onnx import helper

Node = Any
Model = Any


def key_of(node: Node) -> str:
    """What tells a node from all others: names of nodes repeat, names of tensors do not."""
    return next((str(name) for name in node.output if name), "")


def name_of(node: Node) -> str:
    """The node's name, that of its first output where an optimizer left it without one."""
    return str(node.name) or key_of(node)


def attribute(node: Node, name: str, default: Any) -> Any:
    """What a node says by an attribute, or what holds where it does not."""
    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default


def producers(model: Model) -> dict[str, Node]:
    """The node that computes a tensor, by the tensor's name."""
    return {name: node for node in model.graph.node for name in node.output if name}


def consumers(model: Model) -> dict[str, list[Node]]:
    """The nodes that read a tensor, by its name; outputs of the graph count as one that is none.

    What a subgraph reads, the node that holds the subgraph reads.
    """
    readers: dict[str, list[Node]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(read_by(node)):
            readers.setdefault(name, []).append(node)
    for value in model.graph.output:
        readers.setdefault(value.name, []).append(onnx.NodeProto())
    return readers


def read_by(node: Node) -> Iterator[str]:
    """Names of the tensors a node reads, those that its subgraphs read included."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        for inner in graph.node:
            yield from read_by(inner)
        yield from (value.name for value in graph.output)


def subgraphs(node: Node) -> Iterator[Any]:
    """The bodies of an If, a Loop or a Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def every_node(graph: Any) -> Iterator[Node]:
    """The nodes of a graph and of all its subgraphs."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from every_node(inner)


def has_subgraph(node: Node) -> bool:
    """Whether a node is an If, a Loop or their kin."""
    return any(True for _ in subgraphs(node))


def computed(model: Model, constants: Collection[str] = ()) -> list[tuple[str, Node]]:
    """Tensors that depend on the inputs' values, with the nodes that compute them, in order.

    Args:
        constants: inputs that are fed the same at every run.
    """
    alive = {value.name for value in model.graph.input}.difference(
        constants, (tensor.name for tensor in model.graph.initializer)
    )
    tensors = []
    for node in model.graph.node:
        if node.op_type in ("Shape", "Size") or alive.isdisjoint(read_by(node)):
            continue
        for output in node.output:
            if output:
                alive.add(output)
                tensors.append((output, node))
    return tensors


def successor(model: Model, name: str, is_match: Callable[[str], bool]) -> str | None:
    """The first tensor from ``name`` on, along single readers, that is known; None without one.

    Finds a layer again after an optimizer: what a node computed is gone, what the node behind it
    made of that, a folded BatchNormalization or a fused Add, has kept its name.
    """
    readers = consumers(model)
    for _ in range(8):
        if is_match(name):
            return name
        following = readers.get(name, [])
        if len(following) != 1 or not following[0].output:
            return None
        name = following[0].output[0]
    return None
