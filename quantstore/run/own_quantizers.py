"""A float model with quantizers of QONNX in, the same in standard operators out, in place.

The network is meant with its quantizers: they stay, as arithmetic that onnxruntime knows.
``graph/qonnx.py`` says what each of them does.
"""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from quantstore.errors import QuantstoreError, RunError
from quantstore.graph.constants import Constant, find_constant, is_qonnx_quantizer
from quantstore.graph.fold import folded, values_of
from quantstore.graph.operators import QONNX_DOMAINS
from quantstore.graph.qonnx import arithmetic
from quantstore.records import Array
from quantstore.run.restore import new_constant

# Stands in the names of nodes that together are a quantizer, and of the tensors within it; what
# comes out of it keeps its name.
_WITHIN = "/own_quantizer/"


def is_within_quantizer(tensor: str) -> bool:
    """Whether a tensor is an intermediate value of a quantizer, which the file does not have."""
    return _WITHIN in tensor


def is_part_of_quantizer(node_name: str) -> bool:
    """Whether a node is a step of a quantizer of the file, so that no target rounds for it."""
    return _WITHIN in node_name


def name_in_file(node_name: str) -> str:
    """What the file calls a node: of a step of a quantizer, the quantizer."""
    return node_name.partition(_WITHIN)[0]


def has_quantizers(tensors: Iterable[str]) -> bool:
    """Whether a network of these tensors has quantizers of its file."""
    return any(map(is_within_quantizer, tensors))


def in_standard_operators(model: ir.Model, opset: int | None) -> None:
    """Replace every quantizer of QONNX, in place; those of constants by what they give.

    Raises:
        RunError: a quantizer whose parameters are computed when the network runs, or impossible.
    """
    for node in list(model.graph.all_nodes()):
        if not is_qonnx_quantizer(node):
            continue
        try:
            new = _result(model.graph, node, opset)
        except (ValueError, QuantstoreError) as error:
            raise RunError(
                f"the quantizer {str(node.name)[:80]!r} cannot be run: {error}",
                "export the model again",
            ) from error
        (old,) = node.outputs
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        if node.graph is not None:
            node.graph.remove(node, safe=True)
    for domain in QONNX_DOMAINS:
        model.opset_imports.pop(domain, None)


def _result(main: ir.Graph, node: ir.Node, opset: int | None) -> ir.Value:
    """What stands for the output of a quantizer, under its name."""
    data, output = node.inputs[0] if node.inputs else None, node.outputs[0]
    if data is None:
        raise ValueError("it has no input")
    name, output.name = str(output.name), None
    constant = find_constant(output)
    if isinstance(constant, Constant):
        return new_constant(main, name, folded(constant, opset))
    dtype = np.float64 if data.dtype == ir.DataType.DOUBLE else np.float32
    parameters = [values_of(value, opset) for value in node.inputs[1:]]
    if any(array is None for array in parameters):
        raise ValueError("its scale, zero point or bit width is computed when the network runs")
    steps = _Steps(main, node, name)
    with np.errstate(all="ignore"):
        return steps.named(
            arithmetic(
                node,
                data,
                [array.astype(dtype) for array in parameters if array is not None],
                steps.add,
            )
        )


class _Steps:
    """The nodes that stand for a quantizer, in front of it."""

    def __init__(self, main: ir.Graph, node: ir.Node, name: str) -> None:
        self._main, self._node, self._name = main, node, name
        self._count = 0

    def add(self, op_type: str, *operands: ir.Value | Array) -> ir.Value:
        """One more node, and its output."""
        self._count += 1
        name = f"{self._name}{_WITHIN}{self._count}"
        step = ir.node(
            op_type,
            [
                operand
                if isinstance(operand, ir.Value)
                else new_constant(self._main, f"{name}/{index}", operand)
                for index, operand in enumerate(operands)
            ],
            name=f"{self._node.name or self._name}{_WITHIN}{self._count}",
        )
        step.outputs[0].name = name
        if self._node.graph is not None:
            self._node.graph.insert_before(self._node, step)
        return step.outputs[0]

    def named(self, last: ir.Value) -> ir.Value:
        """The output of the last node, under the name of what comes out of the quantizer."""
        last.name = self._name
        return last
