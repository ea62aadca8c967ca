"""Weights of a layer as a matrix, one row for each output channel, and the way back."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from quantstore.records import Array, Floats
from quantstore.run.network import Network
from quantstore.run.nodes import Node, attribute


@dataclass(frozen=True, slots=True)
class Rows:
    """``matrix``: ``(output channels, inputs)``; ``node``: the one that reads the weights.

    ``is_turned``: the node has inputs along the first axis.
    """

    node: Node
    matrix: Floats
    shape: tuple[int, ...]
    is_turned: bool

    def holding(self, weights: Array) -> "Rows":
        """The same of other weights in the shape in which the node reads them."""
        matrix = np.asarray(weights, np.float32)
        matrix = matrix.T if self.is_turned else matrix.reshape(len(matrix), -1)
        return dataclasses.replace(self, matrix=matrix)

    def back(self, matrix: Floats) -> Floats:
        """Rows in the shape in which the node reads them."""
        if self.is_turned:
            return np.ascontiguousarray(matrix.T, np.float32)
        return np.asarray(matrix.reshape(self.shape), np.float32)


def rows_of(network: Network, name: str) -> Rows | None:
    """The rows of a Conv, Gemm or MatMul whose weights nobody else reads; None of anything else."""
    slot = network.slot_of[name]
    if slot.factor is not None or slot.site.operand.joined_axis is not None:
        return None
    readers = [node for node in network.model.graph.node if name in node.input]
    if len(readers) != 1 or readers[0].input[1] != name:
        return None
    (node,) = readers
    weights = network.constants[name]
    if node.op_type == "Conv" and weights.ndim > 2:
        is_turned = False
    elif node.op_type in ("Gemm", "MatMul") and weights.ndim == 2:
        is_turned = node.op_type == "MatMul" or not attribute(node, "transB", 0)
        if attribute(node, "transA", 0):
            return None
    else:
        return None
    empty = np.empty((0, 0), np.float32)
    return Rows(node, empty, weights.shape, is_turned).holding(weights)
