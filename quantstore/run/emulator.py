"""What a network computes when these tensors are rounded like so: any plan, in one session.

Every tensor that some target rounds is followed by a rounding whose grid is fed like an input, and
so are the weights: bits, ranges, placement, one layer alone, other weights are other numbers to
feed, never another graph. A caller that always rounds the same tensors in the same way, with one
set of weights or another, has a faster one (:class:`FixedEmulator`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import helper

from quantstore.records import Array
from quantstore.run.grids import ActivationGrid
from quantstore.run.network import Network
from quantstore.run.nodes import subgraphs
from quantstore.run.placement import Placement
from quantstore.run.roundings import FixedGrids, GridInputs
from quantstore.run.runtime import Feeds, Session

_FLOAT = onnx.TensorProto.FLOAT


@dataclass(frozen=True, slots=True)
class Plan:
    """What is rounded, and how: by the name of the tensor its grid, by the name of a constant what
    stands in for it. What is named in neither stays in float.

    ``constant_grids``: by the name of a constant the grid on which it lies, for those who store
    integers; a run needs none. That of weights is the grid of their scheme, for effective weights
    (see ``twin.Slot.factor``).
    """

    grids: Mapping[str, ActivationGrid] = field(default_factory=dict)
    constants: Mapping[str, Array] = field(default_factory=dict)
    constant_grids: Mapping[str, ActivationGrid] = field(default_factory=dict, repr=False)

    def only(self, names: Iterable[str]) -> "Plan":
        """Of this plan, these tensors and constants alone."""
        kept = frozenset(names)
        return Plan(
            {name: grid for name, grid in self.grids.items() if name in kept},
            {name: array for name, array in self.constants.items() if name in kept},
            {name: grid for name, grid in self.constant_grids.items() if name in kept},
        )

    def without(self, names: Iterable[str]) -> "Plan":
        """This plan with these tensors and constants in float."""
        return self.only((self.grids.keys() | self.constants.keys()).difference(names))


class Emulator:
    """One network in one session; :meth:`run` says what it computes under a plan."""

    def __init__(
        self,
        network: Network,
        placements: Sequence[Placement],
        grids: Sequence[Mapping[str, ActivationGrid]] = (),
    ) -> None:
        """Build the session.

        Args:
            placements: what the plans to come may round, all of them together.
            grids: theirs, as far as they are known; one for each channel, or one that is found at
                run time, takes other nodes.

        Raises:
            RunError: onnxruntime refuses the graph.
        """
        self.network = network
        tensors = dict.fromkeys(name for placed in placements for name in placed.activations)
        self._inputs = GridInputs.of(tuple(tensors), grids)
        self.constants = fed_constants(network, placements)
        self.model = _with_roundings(network.model, self._inputs, self.constants)
        self.outputs = tuple(rounded(name) if name in tensors else name for name in network.outputs)
        self._session = Session(self.model, is_optimized=False)

    def fed(self, plan: Plan) -> dict[str, Array]:
        """Everything that a run under a plan is fed besides a sample."""
        return {**self.constants, **plan.constants, **self._inputs.fed(plan.grids)}

    def run(self, plan: Plan, samples: Iterable[Feeds]) -> Iterator[list[Array]]:
        """The compared tensors under a plan, sample by sample.

        Raises:
            RunError: onnxruntime stops.
        """
        fed = self.fed(plan)
        for sample in samples:
            yield self._session.run({**fed, **sample}, self.outputs)


class FixedEmulator:
    """One network whose activations always lie on the same grids; its weights are fed.

    It computes what :class:`Emulator` computes, bit for bit, in less time: bytes are rounded by
    QuantizeLinear and DequantizeLinear, and nothing passes a rounding that is switched off.
    """

    def __init__(
        self,
        network: Network,
        placed: Placement,
        grids: Mapping[str, ActivationGrid],
        observed: Iterable[str] = (),
    ) -> None:
        """Build the session.

        Args:
            placed: the placement of the plans to come.
            grids: theirs.
            observed: further tensors that :meth:`run` may be asked for.

        Raises:
            RunError: onnxruntime refuses the graph.
        """
        self._constants = fed_constants(network, [placed])
        model = _with_roundings(network.model, FixedGrids(grids), self._constants)
        self._outputs = tuple(rounded(name) if name in grids else name for name in network.outputs)
        declared = {value.name for value in model.graph.output}
        model.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in observed if name not in declared
        )
        self._session = Session(model, is_optimized=False)

    def run(self, plan: Plan, sample: Feeds, observed: Sequence[str] = ()) -> list[Array]:
        """The compared tensors under a plan with these grids, and behind them those observed.

        Raises:
            RunError: onnxruntime stops.
        """
        fed = {**self._constants, **plan.constants, **sample}
        return self._session.run(fed, (*self._outputs, *observed))


def rounded(name: str) -> str:
    """What a tensor is called behind its rounding."""
    return f"{name}/quantstore_rounded"


def fed_constants(network: Network, placements: Sequence[Placement]) -> dict[str, Array]:
    """The constants that some placement rounds, and those that are too large for a graph."""
    lifted = {
        name
        for placed in placements
        for name in (*placed.constants, *placed.norms, *(bias.name for bias in placed.biases))
    }
    others = network.float_constants
    return {**network.constants, **{name: others[name] for name in others if name in lifted}}


def declare_constants(
    graph: onnx.GraphProto, model: onnx.ModelProto, constants: Mapping[str, Array]
) -> None:
    """Give a graph the inputs and constants of a model, these constants among the inputs."""
    declared = {value.name for value in model.graph.input}
    graph.input.extend(model.graph.input)
    graph.input.extend(
        helper.make_tensor_value_info(name, _FLOAT, array.shape)
        for name, array in constants.items()
        if name not in declared
    )
    graph.initializer.extend(
        tensor for tensor in model.graph.initializer if tensor.name not in constants
    )


def model_of(graph: onnx.GraphProto, like: onnx.ModelProto) -> onnx.ModelProto:
    """A model with another graph."""
    extended = onnx.ModelProto(ir_version=like.ir_version, graph=graph)
    extended.opset_import.extend(like.opset_import)
    extended.functions.extend(like.functions)
    return extended


def _with_roundings(
    model: onnx.ModelProto, roundings: GridInputs | FixedGrids, constants: Mapping[str, Array]
) -> onnx.ModelProto:
    """The graph with a rounding behind each tensor that has a grid, read by all behind it."""
    chosen = frozenset(roundings.names)
    graph = onnx.GraphProto(name=model.graph.name)
    roundings.declare(graph)
    declare_constants(graph, model, constants)
    graph.node.extend(_rounding_nodes(model.graph, roundings, chosen))
    for value in model.graph.output:
        is_rounded = value.name in chosen
        # Without a type: the runtime infers it.
        graph.output.append(onnx.ValueInfoProto(name=rounded(value.name)) if is_rounded else value)
    return model_of(graph, model)


def _rounding_nodes(
    graph: Any, roundings: GridInputs | FixedGrids, chosen: frozenset[str]
) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph, each tensor followed by its rounding, in bodies as well."""
    for value in graph.input:
        if value.name in chosen:
            yield from roundings.rounding(value.name, value.name, rounded(value.name))
    for node in graph.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        for index, name in enumerate(copied.input):
            if name in chosen:
                copied.input[index] = rounded(name)
        for body in subgraphs(copied):
            nodes = list(_rounding_nodes(body, roundings, chosen))
            del body.node[:]
            body.node.extend(nodes)
            for value in body.output:
                if value.name in chosen:
                    value.name = rounded(value.name)
        yield copied
        for name in node.output:
            if name in chosen:
                yield from roundings.rounding(name, name, rounded(name))
