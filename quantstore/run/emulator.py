"""What a network computes when these tensors are rounded like so: any plan, in one session.

Every tensor that some target rounds is followed by a rounding whose grid is fed like an input, and
so are the weights: bits, ranges, placement, one layer alone, other weights are other numbers to
feed, never another graph. The rounding is that of QuantizeLinear and DequantizeLinear, in float32::

    ((clip(x / scale, lowest, highest) + magic) - magic) * scale

with codes counted from the zero point, and ``magic = 1.5 * 2^23``, whose addition leaves no bit for
a fraction: ties go to the even code (https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html).
With ``scale = 1, lowest = -inf, highest = inf, magic = 0`` every value passes through as it is, bit
for bit: the tensor stays in float.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantstore.records import Array, Floats
from quantstore.run.network import Network
from quantstore.run.nodes import subgraphs
from quantstore.run.placement import Placement
from quantstore.run.runtime import Feeds, Session

MAGIC = np.float32(1.5 * 2**23)
# In front of names that are added; no exporter writes one like it.
PREFIX = "quantstore/"
GRIDS = f"{PREFIX}grids"
_SIZES = f"{PREFIX}sizes"
_ROUNDED = "/quantstore_rounded"
_FLOAT = onnx.TensorProto.FLOAT
# scale, lowest, highest, magic
_PASSING = np.array([1, -np.inf, np.inf, 0], np.float32)


@dataclass(frozen=True, slots=True)
class ActivationGrid:
    """The codes of one tensor: ``lowest`` and ``highest`` are counted from the zero point.

    Arrays of one number, or of one per channel, shaped to be broadcast against the tensor.
    """

    scale: Floats
    lowest: Floats
    highest: Floats


@dataclass(frozen=True, slots=True)
class Plan:
    """What is rounded, and how: by the name of the tensor its grid, by the name of a constant what
    stands in for it. What is named in neither stays in float.

    ``dynamic``: tensors whose grid is found while they are there, for each run anew.
    """

    grids: Mapping[str, ActivationGrid] = field(default_factory=dict)
    constants: Mapping[str, Array] = field(default_factory=dict)

    def only(self, tensors: Iterable[str] = (), constants: Iterable[str] = ()) -> "Plan":
        """Of this plan, these tensors and constants alone."""
        return Plan(
            {name: self.grids[name] for name in tensors if name in self.grids},
            {name: self.constants[name] for name in constants if name in self.constants},
        )

    def without(self, tensors: Iterable[str] = (), constants: Iterable[str] = ()) -> "Plan":
        """This plan with these tensors and constants in float."""
        gone = set(tensors) | set(constants)
        return Plan(
            {name: grid for name, grid in self.grids.items() if name not in gone},
            {name: array for name, array in self.constants.items() if name not in gone},
        )


class Emulator:
    """One network in one session; :meth:`run` says what it computes under a plan."""

    def __init__(self, network: Network, placements: Sequence[Placement]) -> None:
        """Build the session.

        Args:
            placements: what the plans to come may round, all of them together.

        Raises:
            RunError: onnxruntime refuses the graph.
        """
        self.network = network
        self.tensors = tuple(
            dict.fromkeys(name for placed in placements for name in placed.activations)
        )
        lifted = {
            name
            for placed in placements
            for name in (*placed.constants, *placed.norms, *(bias.name for bias in placed.biases))
        }
        self.constants = dict(network.constants) | {
            name: array for name, array in network.float_constants.items() if name in lifted
        }
        self._position = {name: 4 * index for index, name in enumerate(self.tensors)}
        self.model = _with_roundings(network.model, self.tensors, self.constants)
        self.outputs = tuple(
            rounded(name) if name in self._position else name for name in network.outputs
        )
        self._session = Session(self.model, is_optimized=False)

    def fed(self, plan: Plan) -> dict[str, Array]:
        """Everything that a run under a plan is fed besides a sample."""
        grids = np.tile(_PASSING, max(1, len(self.tensors)))
        for name, grid in plan.grids.items():
            at = self._position.get(name)
            if at is not None:
                grids[at : at + 4] = (
                    grid.scale.item(),
                    grid.lowest.item(),
                    grid.highest.item(),
                    MAGIC,
                )
        return {**self.constants, **plan.constants, GRIDS: grids}

    def run(self, plan: Plan, samples: Iterable[Feeds]) -> list[list[Array]]:
        """The compared tensors under a plan, sample by sample.

        Raises:
            RunError: onnxruntime stops.
        """
        fed = self.fed(plan)
        return [self._session.run({**fed, **sample}, self.outputs) for sample in samples]


def rounded(name: str) -> str:
    """What a tensor is called behind its rounding."""
    return name + _ROUNDED


def _with_roundings(
    model: onnx.ModelProto, tensors: Sequence[str], constants: Mapping[str, Array]
) -> onnx.ModelProto:
    """The graph with a rounding behind each of the tensors, which everything behind it reads."""
    chosen = set(tensors)
    graph = onnx.GraphProto(name=model.graph.name)
    split_names = [part for name in tensors for part in _grid_names(name)]
    if tensors:
        graph.node.append(
            onnx.NodeProto(op_type="Split", input=[GRIDS, _SIZES], output=split_names)
        )
    graph.initializer.append(
        numpy_helper.from_array(np.ones(len(split_names), np.int64), _SIZES)
    )
    for value in model.graph.input:
        if value.name in chosen:
            graph.node.extend(_rounding(value.name))
    for node in model.graph.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        _rename_inputs(copied, chosen)
        graph.node.append(copied)
        for name in node.output:
            if name in chosen:
                graph.node.extend(_rounding(name))
    known = {value.name for value in model.graph.input}
    graph.initializer.extend(
        tensor for tensor in model.graph.initializer if tensor.name not in constants
    )
    graph.input.extend(model.graph.input)
    graph.input.extend(
        helper.make_tensor_value_info(name, _FLOAT, array.shape)
        for name, array in constants.items()
        if name not in known
    )
    graph.input.append(
        helper.make_tensor_value_info(GRIDS, _FLOAT, [max(4, len(split_names))])
    )
    for value in model.graph.output:
        if value.name in chosen:
            # Without a type: the runtime infers it.
            graph.output.append(onnx.ValueInfoProto(name=rounded(value.name)))
        else:
            graph.output.append(value)
    extended = onnx.ModelProto(ir_version=model.ir_version, graph=graph)
    extended.opset_import.extend(model.opset_import)
    extended.functions.extend(model.functions)
    return extended


def _grid_names(name: str) -> list[str]:
    return [f"{name}/quantstore_{part}" for part in ("scale", "lowest", "highest", "magic")]


def _rounding(name: str) -> list[onnx.NodeProto]:
    scale, lowest, highest, magic = _grid_names(name)
    steps = [f"{name}/quantstore_{step}" for step in ("steps", "clipped", "lifted", "code")]
    return [
        onnx.NodeProto(op_type=op_type, input=inputs, output=[output])
        for op_type, inputs, output in (
            ("Div", [name, scale], steps[0]),
            ("Clip", [steps[0], lowest, highest], steps[1]),
            ("Add", [steps[1], magic], steps[2]),
            ("Sub", [steps[2], magic], steps[3]),
            ("Mul", [steps[3], scale], rounded(name)),
        )
    ]


def _rename_inputs(node: Any, chosen: set[str]) -> None:
    """Let a node, and the nodes of its subgraphs, read what is behind the roundings, in place."""
    for index, name in enumerate(node.input):
        if name in chosen:
            node.input[index] = rounded(name)
    for graph in subgraphs(node):
        own = {name for inner in graph.node for name in inner.output}
        outer = chosen - own
        for inner in graph.node:
            _rename_inputs(inner, outer)
        for value in graph.output:
            if value.name in outer:
                # A branch may give what lies outside of it only through a node of its own.
                value.name = rounded(value.name)
