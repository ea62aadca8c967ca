"""What stands behind the heads of a network: the part that turns them into what is handed out.

A network is judged at its heads, before whatever hides or reorders a difference. A file is rounded
to its end, though: boxes in pixels and scores from 0 to 1 on one grid lose what the heads still
had. So the decoder is a small network of its own here, run on what the heads give.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from quantstore.errors import QuantstoreError, RunError
from quantstore.records import Array
from quantstore.run import network, twin
from quantstore.run.network import Network
from quantstore.run.nodes import name_of
from quantstore.run.points import HEADS, SCORE_LIMIT, Part, Points, score_operator
from quantstore.run.runtime import Feeds, Session

_FLOAT = onnx.TensorProto.FLOAT
# They only move values: what a part of their input is, a part of their output is.
_MOVING = frozenset(
    (
        *("Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split"),
        *("Gather", "Concat", "ReduceMax"),
    )
)


@dataclass(frozen=True, slots=True)
class Share:
    """A part of what is handed out: elements of one end, ``places`` into it; None for all."""

    part: Part
    places: Array | None

    def of(self, tensor: Array) -> Array:
        """These elements."""
        return tensor if self.places is None else tensor.ravel()[self.places]


@dataclass(frozen=True)
class Decoder:
    """The network behind the heads; ``model`` reads :attr:`points` and gives :attr:`ends`."""

    network: Network
    points: Points

    @cached_property
    def ends(self) -> tuple[str, ...]:
        return self.network.outputs

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """What it must be fed: heads, and inputs of the whole network."""
        return self.network.inputs

    def fed(self, heads: Sequence[Array], sample: Feeds) -> dict[str, Array]:
        """What it reads of the tensors at the points and of a sample."""
        tensors = {**sample, **dict(zip(self.points.names, heads, strict=True))}
        return {name: tensors[name] for name in self.reads}

    def run(self, fed: Feeds) -> list[Array]:
        """What it makes of the heads in float.

        Raises:
            RunError: onnxruntime stops.
        """
        return self.network.session.run(self.network.fed(fed), self.ends)

    def shares(self, fed: Feeds) -> list[Share]:
        """The parts of every end: scores apart from the values that a Concat joined to them."""
        return list(_shares(self, fed))


def prepare(
    model: onnx.ModelProto,
    points: Points,
    folder: Path,
    *,
    fold: bool,
    keeps_shapes: bool = True,
) -> tuple[Network, Decoder | None]:
    """A network that ends at its points, as ``network.prepare`` has it, and what is behind them.

    Args:
        model: with its shapes fixed, as ``points.cut`` leaves it where it keeps the decoder.
        folder: for files; nobody else writes there.
        keeps_shapes: as ``network.optimized`` has it.

    Raises:
        RunError: onnxruntime refuses the model.
    """
    floats = network.optimized(model, folder, fold=fold, keeps_shapes=keeps_shapes)
    behind = _split(floats, points) if points.ends else None
    ready = network.taken_apart(floats, points.names, fold=fold)
    if behind is None:
        return ready, None
    try:
        ends = tuple(value.name for value in behind.graph.output)
        tail = twin.own_float_model(behind, folder / "decoder.onnx")
        apart = network.taken_apart(tail, ends, fold=fold, needs_layers=False)
        return ready, Decoder(apart, points)
    except QuantstoreError:
        # The heads can be judged without it.
        return ready, None


def _split(floats: twin.FloatModel, points: Points) -> onnx.ModelProto | None:
    """Take what is behind the points out of a model, in place; None where it has no bounds."""
    graph = floats.model.graph
    heads = set(points.names)
    ends = [value for value in graph.outputs if value.name not in heads]
    model = _model_of(floats.model, ends, heads)
    for value in ends:
        graph.outputs.remove(value)
    return model


def _model_of(whole: ir.Model, ends: Sequence[ir.Value], heads: set[str]) -> onnx.ModelProto | None:
    reads: dict[str, ir.Value] = {}
    constants: dict[str, ir.Value] = {}
    nodes: set[ir.Node] = set()
    waiting, seen = list(ends), set(ends)
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value.name in heads or (node is None and value.const_value is None):
            reads[str(value.name)] = value
        elif node is None:
            constants[str(value.name)] = value
        else:
            if any(item.type == ir.AttributeType.GRAPH for item in node.attributes.values()):
                return None
            nodes.add(node)
            fresh = [item for item in node.inputs if item is not None and item not in seen]
            seen.update(fresh)
            waiting += fresh
    # A way around the points leads through the network itself.
    is_around = any(name not in heads for name in reads)
    if not nodes or (is_around and any(node.op_type in HEADS for node in nodes)):
        return None
    graph = helper.make_graph(
        _named_apart([ir.to_proto(node) for node in whole.graph if node in nodes]),
        "decoder",
        [_declared(value) for value in reads.values()],
        [helper.make_tensor_value_info(str(value.name), _FLOAT, None) for value in ends],
        [_stored(value) for value in constants.values()],
    )
    opsets = [
        helper.make_opsetid(domain, version) for domain, version in whole.opset_imports.items()
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=whole.ir_version)


def _declared(value: ir.Value) -> onnx.ValueInfoProto:
    element_type = _FLOAT if value.dtype is None else int(value.dtype)
    return helper.make_tensor_value_info(str(value.name), element_type, None)


def _stored(value: ir.Value) -> onnx.TensorProto:
    tensor = value.const_value
    if tensor is None:
        raise RunError(f"the constant {value.name!r} cannot be read")
    stored = onnx.numpy_helper.from_array(np.array(tensor.numpy(), order="C"), str(value.name))
    return stored


def _named_apart(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes, each with a name of its own; onnxruntime wants it, onnx's converter does not care.

    A node without one is called as its first output is, see ``nodes.name_of``.
    """
    seen: set[str] = set()
    for node in nodes:
        if name_of(node) in seen:
            node.name = f"{node.output[0]}/{node.op_type}"
        seen.add(name_of(node))
    return list(nodes)


# Which part of an end is what


def _shares(decoder: Decoder, fed: Feeds) -> Iterator[Share]:
    output_of = {end.name: end.output for end in decoder.points.ends}
    model = decoder.network.floats.model
    end_of = {str(value.name): value for value in model.graph.outputs}
    for name in decoder.ends:
        leaves = list(_leaves(end_of[name]))
        kinds = [score_operator(leaf) for leaf in leaves]
        names = list(dict.fromkeys(operator or "values" for operator in kinds))
        labels = None
        if len(names) > 1:
            labels = _labels(
                decoder,
                name,
                [str(leaf.name) for leaf in leaves],
                [names.index(operator or "values") for operator in kinds],
                fed,
            )
            if labels is None:
                continue
        for index, operator in enumerate(names):
            places = None if labels is None else np.flatnonzero(labels.ravel() == index)
            if places is not None and not places.size:
                continue
            yield Share(
                Part(
                    output=output_of[name],
                    part=operator if labels is not None else "",
                    names=(name,),
                    point=f"{name}, as it is handed out",
                    decision="" if operator == "values" else "set",
                    limit=SCORE_LIMIT,
                    is_decoded=operator == "values",
                ),
                places,
            )


def _leaves(value: ir.Value) -> Iterator[ir.Value]:
    """The values that moves and Concats put together."""
    node = value.producer()
    if node is None or node.op_type not in _MOVING:
        yield value
    elif node.op_type == "Concat":
        for operand in node.inputs:
            if operand is not None:
                yield from _leaves(operand)
    elif node.inputs[0] is not None:
        yield from _leaves(node.inputs[0])


def _labels(
    decoder: Decoder, end: str, leaves: Sequence[str], kinds: Sequence[int], fed: Feeds
) -> Array | None:
    """Of which kind each element of an end is: numbers take the way that the values take."""
    network = decoder.network
    observed = onnx.ModelProto()
    observed.CopyFrom(network.model)
    del observed.graph.output[:]
    computed = [name for name in dict.fromkeys(leaves) if name in network.tensors]
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed)
    try:
        shapes = {
            name: array.shape
            for name, array in zip(
                computed,
                Session(observed, is_optimized=False).run(network.fed(fed)) if computed else (),
                strict=True,
            )
        }
        numbered = {
            name: np.full(shapes.get(name, np.shape(fed.get(name, 0))), operator, np.float32)
            for name, operator in zip(leaves, kinds, strict=True)
        }
        return _moved(network.model, end, numbered)
    except RunError:
        return None


def _moved(model: onnx.ModelProto, end: str, numbered: dict[str, Array]) -> Array:
    made_by = {name: node for node in model.graph.node for name in node.output}
    waiting, needed = [end], set()
    while waiting:
        name = waiting.pop()
        node = None if name in numbered else made_by.get(name)
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            waiting += node.input
    graph = helper.make_graph(
        [node for node in model.graph.node if id(node) in needed],
        "labels",
        [
            helper.make_tensor_value_info(name, _FLOAT, item.shape)
            for name, item in numbered.items()
        ],
        [onnx.ValueInfoProto(name=end)],
        list(model.graph.initializer),
    )
    moving = onnx.ModelProto(ir_version=model.ir_version, graph=graph)
    moving.opset_import.extend(model.opset_import)
    (labels,) = Session(moving, is_optimized=False).run(numbered)
    return labels
