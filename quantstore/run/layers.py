"""Which weights of a network are which layer of the file, after an optimizer went over it."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from quantstore import graph
from quantstore.run import twin
from quantstore.run.network import Network
from quantstore.run.nodes import consumers, every_node, successor

# onnxruntime puts these in front of names of a branch that it takes out of an If.
_TAKEN_OUT = ("_if_then_branch_", "_if_else_branch_")


@dataclass(frozen=True, slots=True)
class LayerKey:
    """What tells the layers of a file apart: W and R of a recurrent layer share its name."""

    name: str
    operand: str

    @classmethod
    def of(cls, site: graph.Site) -> "LayerKey":
        return cls(site.name, site.operand.name)


@dataclass(frozen=True, slots=True)
class FileLayers:
    """The layers of a file, and its nodes without their weights.

    ``made_by``: what the node of a layer computes.
    """

    nodes: onnx.ModelProto
    made_by: dict[LayerKey, str]

    @classmethod
    def of(cls, model: twin.FloatModel) -> "FileLayers":
        """Before anything is taken apart."""
        made_by = {LayerKey.of(site): _result(site) for site in graph.find_sites(model.file)}
        return cls(_side_by_side(twin.to_proto(model)), made_by)

    def keys_in(self, network: Network) -> dict[str, LayerKey]:
        """By the name of weights in the network, the layer of the file that they are.

        An optimizer may fold what follows a layer into it: then the layer is where the folded
        node's result is computed_names.
        """
        nodes = _side_by_side(network.model)
        computed_names = {_plain(name) for node in nodes.graph.node for name in node.output}
        readers = consumers(nodes)
        slot_of = {
            (_plain(result), slot.site.operand.name): name
            for name, slot in network.slot_of.items()
            for result in _results(slot.site, readers)
        }
        by_key = {LayerKey.of(slot.site): name for name, slot in network.slot_of.items()}
        key_of_slot: dict[str, LayerKey] = {}
        for key, output in self.made_by.items():
            tensor = successor(self.nodes, output, computed_names.__contains__)
            slot = slot_of.get((tensor or output, key.operand)) or by_key.get(key)
            if slot is not None:
                key_of_slot[slot] = key
        return key_of_slot


def _side_by_side(model: onnx.ModelProto) -> onnx.ModelProto:
    """What reads and makes what, the nodes of bodies beside those of the graph."""
    nodes = onnx.ModelProto()
    nodes.graph.node.extend(
        onnx.NodeProto(op_type=node.op_type, input=node.input, output=node.output)
        for node in every_node(model.graph)
    )
    nodes.graph.output.extend(model.graph.output)
    return nodes


def _result(site: graph.Site) -> str:
    """The first tensor that a layer's node computes; a recurrent one may leave some out."""
    return next((str(value.name) for value in site.node.outputs if value.name), "")


def _results(site: graph.Site, readers: dict[str, list[onnx.NodeProto]]) -> Iterator[str]:
    """The same, and what a Reshape makes of it, which a product of three axes is followed by."""
    result = _result(site)
    yield result
    following = readers.get(result, [])
    if len(following) == 1 and following[0].op_type == "Reshape":
        yield following[0].output[0]


def _plain(name: str) -> str:
    """The name that a tensor had before onnxruntime took it out of a branch."""
    while name.startswith(_TAKEN_OUT):
        name = name[len(_TAKEN_OUT[0]) :]
    return name
