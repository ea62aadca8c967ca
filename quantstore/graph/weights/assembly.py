"""Tensors of a file without a graph in, nodes out: each layer by itself, in ONNX's terms.

Nothing connects the nodes. A BatchNormalization that certainly follows a convolution stands behind
it, so that it is folded like any other.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from quantstore.errors import ModelFileError
from quantstore.graph.limits import MOST_NODES
from quantstore.graph.operators import LOOSE, NORMALIZATION, TENSOR

# What PyTorch uses unless somebody says otherwise; the file does not say.
EPSILON = 1e-5


class LooseGraph:
    """A graph that grows layer by layer.

    Raises:
        ModelFileError: of a method, where there are more layers than a graph may have.
    """

    def __init__(self) -> None:
        self._nodes: list[ir.Node] = []
        self._constants: dict[str, ir.Value] = {}

    def graph(self) -> ir.Graph:
        """What was added so far."""
        return ir.Graph(
            [],
            [],
            nodes=self._nodes,
            initializers=list(self._constants.values()),
            opset_imports={"": 1, LOOSE: 1},
            name="main",
        )

    def constant(self, tensor: ir.TensorProtocol) -> ir.Value:
        """A stored tensor as a value; the same tensor is one value."""
        name = str(tensor.name)
        if name not in self._constants:
            self._constants[name] = ir.Value(name=name, const_value=tensor)
        return self._constants[name]

    def dequantized(
        self,
        codes: ir.TensorProtocol,
        scale: ir.TensorProtocol,
        zero_point: ir.TensorProtocol | None,
    ) -> ir.Value:
        """What codes stand for: one scale, or one for each row."""
        factors = [self.constant(scale)]
        if zero_point is not None:
            factors.append(self.constant(zero_point))
        name = f"{codes.name}/dequantized"
        node = self._add(name, "DequantizeLinear", [self.constant(codes), *factors], {"axis": 0})
        return node.outputs[0]

    def convolution(
        self,
        name: str,
        weights: ir.Value,
        *,
        groups: int,
        is_transposed: bool,
        normalization: tuple[ir.TensorProtocol | None, ir.TensorProtocol] | None,
    ) -> None:
        """A convolution.

        Args:
            normalization: scale (None for 1) and variance of the BatchNormalization behind it.
        """
        op_type = "ConvTranspose" if is_transposed else "Conv"
        grouped = {"group": groups} if groups > 1 else {}
        node = self._add(name, op_type, [_unknown(name), weights], grouped)
        if normalization is None:
            return
        gamma, variance = normalization
        if gamma is None:
            ones = ir.tensor(np.ones(variance.size, np.float32), name=f"{name}/ones")
            gamma = ones
        norm = self._add(
            f"{name}/normalized",
            "BatchNormalization",
            # Shift and mean change no weights.
            [node.outputs[0], self.constant(gamma), None, None, self.constant(variance)],
            {"is_test": 1},
        )
        norm.attributes["epsilon"] = ir.AttrFloat32("epsilon", EPSILON)

    def linear(self, name: str, weights: ir.Value, *, is_turned: bool = False) -> None:
        """A matrix with an output channel in each row; in each column where ``is_turned``."""
        self._add(name, "Gemm", [_unknown(name), weights], {} if is_turned else {"transB": 1})

    def embedding(self, name: str, weights: ir.Value) -> None:
        """A table with a vector in each row."""
        self._add(name, "Gather", [weights, _unknown(name)], {})

    def recurrent(self, name: str, op_type: str, of_input: ir.Value, of_state: ir.Value) -> None:
        """A direction of a recurrent layer, its gates in the order of the file."""
        self._add(name, op_type, [_unknown(name), of_input, of_state], {})

    def tensor(self, weights: ir.Value) -> None:
        """A tensor that nobody can tell the purpose of."""
        self._add(str(weights.name), TENSOR, [weights], {}, domain=LOOSE)

    def lone_normalization(self, name: str) -> None:
        """A BatchNormalization that belongs to nobody knows which convolution."""
        self._add(name, NORMALIZATION, [], {}, domain=LOOSE)

    def _add(
        self,
        name: str,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        integers: Mapping[str, int],
        *,
        domain: str = "",
    ) -> ir.Node:
        attributes = [ir.AttrInt64(key, value) for key, value in integers.items()]
        node = ir.Node(domain, op_type, inputs, attributes, num_outputs=1, name=name)
        node.outputs[0].name = f"{name}/output"
        self._nodes.append(node)
        if len(self._nodes) > MOST_NODES:
            raise ModelFileError(f"it has more than {MOST_NODES:,} layers", "split the model")
        return node


def _unknown(name: str) -> ir.Value:
    """What a layer reads: nobody knows."""
    return ir.Value(name=f"{name}/input")
