"""Tensors whose channels can be rescaled: found in the graph, and what that does to weights.

Divide channel c of a tensor by s_c > 0 and multiply input channel c of every layer that reads it by
s_c: the network computes the same, and a grid with one scale for all channels loses less. Where a
convolution makes the tensor, with nothing in between but operators that let a positive factor pass,
the division folds into its weights and bias. Else a Mul by 1/s_c does it.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
ICCV 2019 (https://arxiv.org/abs/1906.04721), whose factors even out weights; here they even out
activations, for weights have a scale per channel.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from quantstore.records import Array, Doubles
from quantstore.run.network import Network
from quantstore.run.nodes import Node, attribute, consumers, producers
from quantstore.run.placement import Placement

# f(s x) = s f(x) for s > 0, element by element.
_HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu")


@dataclass(frozen=True, slots=True)
class Scalable:
    """A tensor whose channels can be rescaled.

    ``chain``: the tensors that are divided, this one last. ``producer``: the weights of the
    convolution that the division folds into, None where only a Mul can do it; ``bias``: its bias,
    if it has one. ``readers``: the weights that are multiplied. ``is_depthwise``: every reader is a
    depthwise convolution, which minds no factor.
    """

    tensor: str
    channel_count: int
    chain: tuple[str, ...]
    producer: str | None
    bias: str | None
    readers: tuple[str, ...]
    is_depthwise: bool


def scalable_tensors(network: Network, placed: Placement) -> list[Scalable]:
    """Every tensor that is rounded, and read by convolutions alone."""
    return list(_scalable(network, placed))


def _scalable(network: Network, placed: Placement) -> Iterator[Scalable]:
    readers, made_by = consumers(network.model), producers(network.model)
    reader_count = {name: len(nodes) for name, nodes in readers.items()}
    for name in placed.activations:
        reading = readers.get(name, [])
        if placed.grid_of[name] != name or not reading:
            continue
        if not all(_multiplies(network, node, name, reader_count) for node in reading):
            continue
        channel_counts = {_input_channels(network, node) for node in reading}
        if len(channel_counts) > 1:
            continue
        (channel_count,) = channel_counts
        is_depthwise = all(_is_depthwise(network, node) for node in reading)
        chain, producer = _chain(network, placed, name, readers, made_by)
        if producer is None and not is_depthwise:
            continue
        bias = producer.input[2] if producer is not None and len(producer.input) > 2 else ""
        yield Scalable(
            tensor=name,
            channel_count=channel_count,
            chain=chain,
            producer=None if producer is None else producer.input[1],
            bias=bias or None,
            readers=tuple(node.input[1] for node in reading),
            is_depthwise=is_depthwise,
        )


def _multiplies(network: Network, node: Node, name: str, reader_count: Mapping[str, int]) -> bool:
    """Whether a node is a convolution of a tensor with constant weights of its own."""
    return (
        node.op_type == "Conv"
        and list(node.input).count(name) == 1
        and node.input[0] == name
        and _is_own_slot(network, node, reader_count)
    )


def _is_own_slot(network: Network, node: Node, reader_count: Mapping[str, int]) -> bool:
    slot = network.slot_of.get(node.input[1])
    return slot is not None and slot.factor is None and reader_count.get(node.input[1]) == 1


def _chain(
    network: Network,
    placed: Placement,
    name: str,
    readers: Mapping[str, list[Node]],
    made_by: Mapping[str, Node],
) -> tuple[tuple[str, ...], Node | None]:
    """The tensors from the convolution that makes this one, and that; itself alone without one."""
    chain = [name]
    node = made_by.get(name)
    while node is not None and node.op_type in _HOMOGENEOUS:
        before = node.input[0]
        if len(readers.get(before, ())) != 1 or placed.grid_of.get(before, before) not in (
            before,
            chain[-1],
        ):
            return (name,), None
        chain.append(before)
        node = made_by.get(before)
    reader_count = {other: len(nodes) for other, nodes in readers.items()}
    if node is None or node.op_type != "Conv" or not _is_own_slot(network, node, reader_count):
        return (name,), None
    if len(node.input) > 2 and node.input[2]:
        bias = node.input[2]
        if bias not in network.float_constants or reader_count.get(bias) != 1:
            return (name,), None
    return tuple(reversed(chain)), node


def group_count(node: Node) -> int:
    """Of a convolution."""
    return int(attribute(node, "group", 1))


def _input_channels(network: Network, node: Node) -> int:
    return int(network.constants[node.input[1]].shape[1]) * group_count(node)


def _is_depthwise(network: Network, node: Node) -> bool:
    return group_count(node) > 1 and network.constants[node.input[1]].shape[1] == 1


@dataclass(frozen=True, slots=True)
class Scaling:
    """A tensor and its factors, one per channel; ``is_folded``: into the convolution before it."""

    scalable: Scalable
    factors: Doubles
    is_folded: bool

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that are divided."""
        return self.scalable.chain if self.is_folded else (self.scalable.tensor,)


@dataclass(frozen=True)
class Factors:
    """What several scalings together do to weights.

    ``of_inputs`` multiply the input channels of weights, ``of_outputs`` divide their output
    channels, by the name of the weights; ``of_biases`` divide biases; ``of_tensors`` divide
    tensors.
    """

    of_inputs: Mapping[str, Doubles] = field(default_factory=dict)
    of_outputs: Mapping[str, Doubles] = field(default_factory=dict)
    of_biases: Mapping[str, Doubles] = field(default_factory=dict)
    of_tensors: Mapping[str, Doubles] = field(default_factory=dict)
    of_graph: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, network: Network, scalings: Mapping[str, Scaling]) -> "Factors":
        """Of every scaling, by the tensor."""
        inputs: dict[str, Doubles] = {}
        outputs: dict[str, Doubles] = {}
        biases: dict[str, Doubles] = {}
        tensors: dict[str, Doubles] = {}
        for scaling in scalings.values():
            tensors |= dict.fromkeys(scaling.tensors, scaling.factors)
            inputs |= dict.fromkeys(scaling.scalable.readers, scaling.factors)
            if scaling.is_folded and scaling.scalable.producer is not None:
                outputs[scaling.scalable.producer] = scaling.factors
                if scaling.scalable.bias is not None:
                    biases[scaling.scalable.bias] = scaling.factors
        groups = {
            node.input[1]: group_count(node)
            for node in network.model.graph.node
            if node.op_type == "Conv" and (node.input[1] in inputs or node.input[1] in outputs)
        }
        return cls(inputs, outputs, biases, tensors, groups)

    def scaled(self, name: str, weights: Array) -> Array:
        """Weights as they lie in the file: input channels multiplied, output channels divided."""
        return self._times(name, weights, is_inverse=False)

    def unscaled(self, name: str, weights: Array) -> Array:
        """The way back."""
        return self._times(name, weights, is_inverse=True)

    def _times(self, name: str, weights: Array, *, is_inverse: bool) -> Array:
        if name not in self.of_inputs and name not in self.of_outputs:
            return weights
        factor = np.ones((len(weights), weights.shape[1]))
        if name in self.of_inputs:
            # Each group of outputs reads its own input channels.
            by_group = self.of_inputs[name].reshape(self.of_graph.get(name, 1), -1)
            factor *= np.repeat(by_group, len(weights) // len(by_group), axis=0)
        if name in self.of_outputs:
            factor /= self.of_outputs[name][:, None]
        factor = factor.reshape(*factor.shape, *(1,) * (weights.ndim - 2))
        returned = weights / factor if is_inverse else weights * factor
        return np.asarray(returned, np.float32)

    def scaled_bias(self, name: str, bias: Array) -> Array:
        """A bias as it lies in the file."""
        if name not in self.of_biases:
            return bias
        return np.asarray(bias / self.of_biases[name], np.float32)

    def unscaled_bias(self, name: str, bias: Array) -> Array:
        """The way back."""
        if name not in self.of_biases:
            return bias
        return np.asarray(bias * self.of_biases[name], np.float32)
