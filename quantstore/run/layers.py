"""Which weights of a network are which layer of the file, after an optimizer went over it."""

from dataclasses import dataclass

import onnx

from quantstore import graph
from quantstore.run import twin
from quantstore.run.network import Network
from quantstore.run.nodes import every_node, successor


@dataclass(frozen=True, slots=True)
class FileLayers:
    """The layers of a file, and its nodes without their weights.

    ``made_by``: by the name of a layer, what its node computes and which operand holds the weights.
    """

    nodes: onnx.ModelProto
    made_by: dict[str, tuple[str, str]]

    @classmethod
    def of(cls, model: twin.FloatModel) -> "FileLayers":
        """Before anything is taken apart."""
        made_by = {
            site.name: (str(site.node.outputs[0].name), site.operand.name)
            for site in graph.find_sites(model.file)
        }
        nodes = onnx.ModelProto()
        whole = twin.to_proto(model)
        nodes.graph.node.extend(whole.graph.node)
        nodes.graph.output.extend(whole.graph.output)
        return cls(nodes, made_by)

    def names_in(self, network: Network) -> dict[str, str]:
        """By the name of a layer in the file, the name of its weights in the network.

        An optimizer may fold what follows a layer into it: then the layer is where the folded
        node's result is made.
        """
        made = {name for node in every_node(network.model.graph) for name in node.output}
        slot_of = {
            (str(slot.site.node.outputs[0].name), slot.site.operand.name): name
            for name, slot in network.slot_of.items()
        }
        by_name = {slot.site.name: name for name, slot in network.slot_of.items()}
        found: dict[str, str] = {}
        for layer, (output, operand) in self.made_by.items():
            tensor = successor(self.nodes, output, made.__contains__)
            slot = slot_of.get((tensor or output, operand)) or by_name.get(layer)
            if slot is not None:
                found[layer] = slot
        return found
