"""Tensors inside the bodies of If, Loop and Scan: which of them are multiplied, and their ranges.

Nobody can fetch such a tensor. What a body is made to return besides its outputs can be fetched:
its smallest and largest value, handed outwards body by body.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantstore.run.nodes import Node, subgraphs

_FLOAT = onnx.TensorProto.FLOAT
_SUFFIXES = ("/quantstore_lowest", "/quantstore_highest")
# What a branch returns for a tensor that it does not have, and a loop that never ran.
_NOTHING = {_SUFFIXES[0]: np.inf, _SUFFIXES[1]: -np.inf}


def nodes_of_bodies(graph: Any) -> Iterator[tuple[Node, frozenset[str]]]:
    """Every node of a body, with the names that its body makes or is given."""
    for node in graph.node:
        for body in subgraphs(node):
            body_names = frozenset(
                [value.name for value in body.input]
                + [name for inner in body.node for name in inner.output if name]
            )
            for inner in body.node:
                yield inner, body_names
            yield from nodes_of_bodies(body)


def range_names(name: str) -> tuple[str, str]:
    """The outputs of :func:`with_ranges` that hold the smallest and the largest value."""
    lowest, highest = (name + suffix for suffix in _SUFFIXES)
    return lowest, highest


def with_ranges(model: onnx.ModelProto, names: frozenset[str]) -> onnx.ModelProto:
    """The model with the range of tensors of its bodies as further outputs, each a number.

    Infinite, the wrong way round, where the body was not run.
    """
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    exposed = _expose_in_bodies(extended.graph, names)
    extended.graph.output.extend(
        helper.make_tensor_value_info(result, _FLOAT, [])
        for name in exposed
        for result in range_names(name)
    )
    return extended


def _expose_in_bodies(graph: Any, names: frozenset[str]) -> list[str]:
    """Let a graph compute the ranges of tensors of its bodies, in place; which of them it has."""
    exposed: list[str] = []
    nodes = []
    for node in graph.node:
        nodes.append(node)
        bodies = list(subgraphs(node))
        by_body = [_expose(body, names) for body in bodies]
        together = [name for name in dict.fromkeys(chain(*by_body)) if name not in exposed]
        if not together:
            continue
        for body, exposed_names in zip(bodies, by_body, strict=True):
            _return_ranges(body, together, exposed_names)
        for name in together:
            for result in range_names(name):
                if node.op_type == "If":
                    node.output.append(result)
                    continue
                node.output.append(f"{result}/steps")
                nodes += _over_all_steps(result)
        exposed += together
    del graph.node[:]
    graph.node.extend(nodes)
    return exposed


def _expose(body: Any, names: frozenset[str]) -> list[str]:
    """The same of a body, which has tensors of its own as well."""
    exposed = _expose_in_bodies(body, names)
    tensor_names = [value.name for value in body.input]
    tensor_names += [name for node in body.node for name in node.output]
    for name in tensor_names:
        if name in names and name not in exposed:
            for op_type, result in zip(("ReduceMin", "ReduceMax"), range_names(name), strict=True):
                body.node.append(helper.make_node(op_type, [name], [result], keepdims=0))
            exposed.append(name)
    return exposed


def _return_ranges(body: Any, together: list[str], exposed_names: list[str]) -> None:
    """Let a body return a range for every tensor, in place."""
    for name in together:
        for result, suffix in zip(range_names(name), _SUFFIXES, strict=True):
            if name not in exposed_names:
                nothing = numpy_helper.from_array(np.array(_NOTHING[suffix], np.float32), result)
                body.node.append(helper.make_node("Constant", [], [result], value=nothing))
            body.output.append(helper.make_tensor_value_info(result, _FLOAT, []))


def _over_all_steps(result: str) -> list[Node]:
    """One number from those of all steps of a loop, of which there may be none."""
    is_lowest = result.endswith(_SUFFIXES[0])
    nothing = _NOTHING[_SUFFIXES[0] if is_lowest else _SUFFIXES[1]]
    value = numpy_helper.from_array(np.array([nothing], np.float32), f"{result}/nothing")
    return [
        helper.make_node("Constant", [], [f"{result}/nothing"], value=value),
        helper.make_node(
            "Concat", [f"{result}/nothing", f"{result}/steps"], [f"{result}/any"], axis=0
        ),
        helper.make_node(
            "ReduceMin" if is_lowest else "ReduceMax", [f"{result}/any"], [result], keepdims=0
        ),
    ]
