"""A tensor that depthwise convolutions read and others, too, gets a name of its own for the former.

A target that rounds what matrix units read alone leaves the tensor in float for everybody else, an
addition for example. With a name of its own the depthwise input can be rescaled without them.
"""

import dataclasses

import onnx

from quantstore.run.network import Network
from quantstore.run.nodes import consumers, name_of
from quantstore.run.placement import MULTIPLYING, Placement

_SUFFIX = "_depthwise_input"


def with_branches(network: Network, placed: Placement) -> tuple[Network, dict[str, str]]:
    """The network with an Identity in front of such depthwise convolutions.

    Returns:
        The new names, each with the tensor that it repeats.
    """
    readers = consumers(network.model)
    branches: dict[str, str] = {}
    readers_of: dict[str, set[str]] = {}
    for name in placed.depthwise:
        others = [node for node in readers[name] if node.op_type not in MULTIPLYING]
        if others and placed.grid_of.get(name) == name:
            branches[f"{name}{_SUFFIX}"] = name
            readers_of[name] = {
                name_of(node) for node in readers[name] if node.op_type in MULTIPLYING
            }
    if not branches:
        return network, {}
    branched = with_identities(network.model, branches, readers_of)
    return dataclasses.replace(network, model=branched), branches


def with_identities(
    model: onnx.ModelProto, branches: dict[str, str], readers_of: dict[str, set[str]]
) -> onnx.ModelProto:
    """A model in which these nodes read a tensor by another name.

    Args:
        branches: by the new name the tensor.
        readers_of: by the tensor the nodes that shall read the new name.
    """
    branched = onnx.ModelProto()
    branched.CopyFrom(model)
    del branched.graph.node[:]
    new_of = {name: new for new, name in branches.items()}
    waiting = set(branches.values())

    def branch(name: str) -> None:
        branched.graph.node.append(
            onnx.NodeProto(
                op_type="Identity", name=new_of[name], input=[name], output=[new_of[name]]
            )
        )
        waiting.discard(name)

    for value in model.graph.input:
        if value.name in waiting:
            branch(value.name)
    for node in model.graph.node:
        copied = branched.graph.node.add()
        copied.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in new_of and name_of(node) in readers_of[name]:
                copied.input[index] = new_of[name]
        for name in [name for name in node.output if name in waiting]:
            branch(name)
    return branched
