"""Which tensors of a network a target rounds, and which tensor's range each of them takes.

``everywhere`` is what onnxruntime's ``quantize_static`` does by default (QDQ format),
``mac_inputs`` what it does with ``op_types_to_quantize`` and ``OpTypesToExcludeOutputQuantization``
of the same operators, which is also what TensorRT and most NPUs do; ``linear_inputs`` is that for
linear and recurrent layers alone. Source: onnxruntime 1.32, ``quantization/qdq_quantizer.py`` and
``quantization/operators``.

Two of its habits are not followed, because they lose a network that int8 would keep: it drops a
Relu that a branch of an If reads as well, and it lets values of -3.4e38, which padding and masks
write, set a range (``ranges``). Recurrent layers, and layers in the bodies of If, Loop and Scan,
which it leaves in float, are rounded.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from quantstore.run.bodies import nodes_of_bodies
from quantstore.run.network import Network
from quantstore.run.nodes import Node, name_of
from quantstore.run.own_quantizers import is_part_of_quantizer
from quantstore.schemes import Target

RECURRENT = ("LSTM", "GRU", "RNN")
LINEAR = ("Gemm", "MatMul", *RECURRENT)
MULTIPLYING = ("Conv", "ConvTranspose", *LINEAR)

# Families of layers that int8 arithmetic multiplies; a lookup in a table does not.
_MULTIPLYING_FAMILIES = ("conv", "conv_transpose", "linear", "recurrent", "attention")
_LINEAR_FAMILIES = ("linear", "recurrent", "attention")
# A Softmax gives shares, whatever it was calibrated on.
SHARES = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Bias:
    """A bias becomes int32 on the grid ``scale of the input * scale of the weights``."""

    name: str
    input: str
    weights: str


@dataclass(frozen=True, slots=True)
class Placement:
    """What is rounded.

    ``grid_of``: by the rounded tensor, the tensor whose range sets its grid, itself for most.
    ``activations``: of these, the tensors that a rounding must follow; the others only move values
    of a rounded one and lie on its grid already. ``shares``: tensors whose range is 0 to 1.
    ``constants``: initializers that are rounded as activations are.
    ``norms``: scales of normalizations, rounded as weights are, with one scale.
    ``weights``: slots of layers. ``depthwise``: of ``activations``, inputs of depthwise
    convolutions alone. ``left_in_float``: names of nodes that multiply, and whose data is not
    rounded although the target rounds its kind.
    """

    grid_of: Mapping[str, str] = field(default_factory=dict)
    activations: tuple[str, ...] = ()
    shares: frozenset[str] = frozenset()
    constants: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()
    biases: tuple[Bias, ...] = ()
    weights: tuple[str, ...] = ()
    depthwise: frozenset[str] = frozenset()
    left_in_float: tuple[str, ...] = ()


def placement(network: Network, target: Target, exclude: Iterable[str] = ()) -> Placement:
    """What a target rounds of a network.

    Args:
        exclude: names of nodes and layers that stay in float, and of tensors that are not rounded.
    """
    excluded = frozenset(exclude)
    if target.activations is None:
        packed = tuple(name for name in network.layers.packed if name not in excluded)
        return Placement(weights=_slots(network, excluded), left_in_float=packed)
    nodes = [
        node
        for node in network.model.graph.node
        if name_of(node) not in excluded and not is_part_of_quantizer(name_of(node))
    ]
    marks = _Marks(network, is_asymmetric=not target.activations.is_symmetric)
    if target.placement == "everywhere":
        for node in nodes:
            _EVERYWHERE.get(node.op_type, _layer)(marks, node)
        families: tuple[str, ...] = _MULTIPLYING_FAMILIES
    else:
        is_linear = target.placement == "linear_inputs"
        families = _LINEAR_FAMILIES if is_linear else _MULTIPLYING_FAMILIES
        for node in nodes:
            if node.op_type in (LINEAR if is_linear else MULTIPLYING) or marks.reads_slot(
                node, families
            ):
                marks.operands_of(node)
    for node, body_names in nodes_of_bodies(network.model.graph):
        if name_of(node) not in excluded and marks.reads_slot(node, families):
            marks.operands_of_body(node, body_names, with_results=target.placement == "everywhere")
    placed = marks.placement(_slots(network, excluded, families), excluded)
    in_float = tuple(_left_in_float(marks, placed, families, excluded))
    return dataclasses.replace(placed, left_in_float=in_float)


def _left_in_float(
    marks: "_Marks", placed: Placement, families: tuple[str, ...], excluded: frozenset[str]
) -> Iterator[str]:
    """Nodes that multiply data that is not rounded, those in bodies of branches and loops too."""
    rounding: tuple[str, ...] = LINEAR if families == _LINEAR_FAMILIES else MULTIPLYING
    for node in marks.network.nodes:
        if node.op_type not in rounding and not marks.reads_slot(node, families):
            continue
        data = (
            node.input[:1]
            if node.op_type in ("Conv", "ConvTranspose", *RECURRENT)
            else node.input[:2]
        )
        exposed = [
            name for name in data if not marks.is_constant(name) and name not in placed.grid_of
        ]
        if exposed and name_of(node) not in excluded and excluded.isdisjoint(exposed):
            yield name_of(node)
    yield from (name for name in marks.network.layers.packed if name not in excluded)


def _slots(
    network: Network, excluded: frozenset[str], families: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """Names of the layers' weights, all of them or those of some families."""
    # In the bodies of branches and loops a layer's name is longer than that of its node.
    node_of = (
        {name: name_of(node) for node in network.nodes for name in node.input} if excluded else {}
    )
    return tuple(
        name
        for name, slot in network.slot_of.items()
        if excluded.isdisjoint((slot.site.name, node_of.get(name, "")))
        and (families is None or slot.site.operator.family in families)
    )


class _Marks:
    """What has been marked for rounding, node by node, in the order of the graph.

    The order matters: a Reshape is rounded where its input was marked before it.
    """

    def __init__(self, network: Network, *, is_asymmetric: bool) -> None:
        self.network = network
        self.is_asymmetric = is_asymmetric
        self.readers = network.readers
        self.constants = network.float_constants
        self.graph_outputs = {value.name for value in network.model.graph.output}
        self.graph_inputs = {value.name for value in network.model.graph.input}
        # By the tensor: None, or the tensor whose grid it shares.
        self._provider_of: dict[str, str | None] = {}
        # Tensors that lie on the grid of their provider already.
        self._moved: set[str] = set()
        self._range_of: dict[str, str] = {}
        self._shares: set[str] = set()
        self._norms: dict[str, None] = {}
        self._biases: dict[str, Bias] = {}
        self._dense: set[str] = set()
        self._in_bodies: set[str] = set()
        self._depthwise: set[str] = set()

    def is_float(self, name: str) -> bool:
        """Whether a tensor can be rounded: a float that a node or the caller gives."""
        return name in self.network.float_tensors or name in self._in_bodies

    def is_constant(self, name: str) -> bool:
        return name in self.constants or name in self.network.slot_of

    def is_marked(self, name: str) -> bool:
        return name in self._provider_of or name in self._biases

    def round(self, *names: str) -> None:
        """Mark tensors, and float constants, for a grid of their own."""
        for name in names:
            if self.is_float(name) or self.is_constant(name):
                self._provider_of.setdefault(name, None)

    def share(self, name: str, provider: str, *, is_moved: bool) -> None:
        """Mark a tensor for the grid of another; ``is_moved``: it lies on that already."""
        if self.is_float(name):
            self._provider_of[name] = provider
            if is_moved:
                self._moved.add(name)

    def unmark(self, name: str) -> None:
        self._provider_of.pop(name, None)

    def take_range_of(self, name: str, other: str) -> None:
        """The range of another tensor is what this one needs."""
        self._range_of[name] = other

    def round_shares(self, name: str) -> None:
        self._shares.add(name)

    def round_norm(self, name: str) -> None:
        """The scale of a normalization: as weights, with one scale for all."""
        if name in self.constants:
            self._norms[name] = None
        else:
            self.round(name)

    def round_bias(self, name: str, data: str, weights: str) -> None:
        if name in self.constants and name not in self._biases:
            self._biases[name] = Bias(name, data, weights)

    def reads_slot(self, node: Node, families: tuple[str, ...]) -> bool:
        """Whether a node multiplies by the weights of a layer."""
        slots = (self.network.slot_of.get(name) for name in node.input)
        return any(slot is not None and slot.site.operator.family in families for slot in slots)

    def operands_of(self, node: Node) -> None:
        """What a node that multiplies reads: data, weights and bias."""
        if node.op_type in RECURRENT:
            self.round(node.input[0])
            return
        is_convolving = node.op_type in ("Conv", "ConvTranspose")
        has_bias = (is_convolving or node.op_type == "Gemm") and len(node.input) > 2
        data = node.input[:2] if has_bias else node.input
        for name in data:
            if name not in self.network.slot_of:
                self.round(name)
        if has_bias and node.input[2]:
            self.round_bias(node.input[2], node.input[0], node.input[1])
        (self._depthwise if self._is_depthwise(node) else self._dense).add(node.input[0])

    def operands_of_body(
        self, node: Node, body_names: frozenset[str], *, with_results: bool
    ) -> None:
        """The same of a node in a body: what multiplies weights of single precision is one too.

        Args:
            body_names: what the body makes, or is given; it reads tensors from around it as well.
        """
        data = [name for name in node.input[:1] if name in body_names]
        self._in_bodies.update(data)
        self.operands_of(node)
        if with_results:
            results = [name for name in node.output if name]
            self._in_bodies.update(results)
            self.round(*results)

    def _is_depthwise(self, node: Node) -> bool:
        if node.op_type != "Conv":
            return False
        slot = self.network.slot_of.get(node.input[1])
        shape = None if slot is None else self.network.constants[node.input[1]].shape
        group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        return shape is not None and group > 1 and shape[1] == 1

    def placement(self, weights: tuple[str, ...], excluded: frozenset[str]) -> Placement:
        """Everything that was marked, less what is excluded."""
        rounded = {name for name in self._provider_of if name not in excluded}
        grid_of: dict[str, str] = {}
        activations: list[str] = []
        for name, provider in self._provider_of.items():
            if name not in rounded or not self.is_float(name):
                continue
            lies_on_grid = provider in grid_of or (
                provider in rounded and provider not in self.network.float_tensors
            )
            grid_of[name] = self._root(name)
            if not (name in self._moved and lies_on_grid):
                activations.append(name)
        return Placement(
            grid_of=grid_of,
            activations=tuple(activations),
            shares=frozenset(self._shares),
            constants=tuple(name for name in rounded if not self.is_float(name)),
            norms=tuple(name for name in self._norms if name not in excluded),
            biases=tuple(bias for name, bias in self._biases.items() if name not in excluded),
            weights=weights,
            depthwise=frozenset(self._depthwise - self._dense).intersection(activations),
        )

    def _root(self, name: str) -> str:
        """The tensor whose range sets the grid of this one."""
        seen = {name}
        while (other := self._provider_of.get(name) or self._range_of.get(name)) is not None:
            if other in seen:
                break
            seen.add(other)
            name = other
        return name


def _layer(marks: _Marks, node: Node) -> None:
    """An operator that has no rule of its own: rounded where it multiplies by weights."""
    if marks.reads_slot(node, _MULTIPLYING_FAMILIES):
        _multiplying(marks, node)


def _multiplying(marks: _Marks, node: Node) -> None:
    marks.operands_of(node)
    marks.round(*node.output)


def _always(marks: _Marks, node: Node) -> None:
    marks.round(*node.input, *node.output)
    if node.op_type == "Softmax":
        marks.round_shares(node.output[0])


def _removable(marks: _Marks, node: Node) -> None:
    """Relu and Clip, whose work the rounding of their result does as well.

    Where nothing else reads their input, that is not rounded: an int8 runtime runs the operator
    before them and them as one.
    """
    data, result = node.input[0], node.output[0]
    is_only_reader = len(marks.readers.get(data, ())) == 1
    if is_only_reader and marks.is_float(data) and marks.is_float(result):
        marks.take_range_of(data, result)
    if not marks.is_marked(data):
        return
    is_fused = is_only_reader and marks.is_float(data) and data not in marks.graph_inputs
    if marks.is_asymmetric and is_fused and marks.is_float(result):
        marks.unmark(data)
    else:
        marks.round(data)
    marks.round(result)


def _sharing(marks: _Marks, node: Node, *, is_moving: bool) -> None:
    if marks.is_marked(node.input[0]):
        for result in node.output[:1]:
            marks.share(result, node.input[0], is_moved=is_moving)


def _moving(marks: _Marks, node: Node) -> None:
    """What comes out is what went in, elsewhere."""
    _sharing(marks, node, is_moving=True)


def _averaging(marks: _Marks, node: Node) -> None:
    """What comes out lies between values of the grid of its input, on which it is rounded."""
    _sharing(marks, node, is_moving=False)


def _split(marks: _Marks, node: Node) -> None:
    marks.round(node.input[0])
    for result in node.output:
        marks.share(result, node.input[0], is_moved=True)


def _gather(marks: _Marks, node: Node) -> None:
    if marks.is_constant(node.input[0]):
        marks.round(node.input[0])
    _moving(marks, node)


def _where(marks: _Marks, node: Node) -> None:
    if all(marks.is_marked(name) for name in node.input[1:3]):
        marks.round(*node.output)


def _pad(marks: _Marks, node: Node) -> None:
    marks.round(*(name for name in node.input if name))
    mode = next(
        (attribute.s for attribute in node.attribute if attribute.name == "mode"), b"constant"
    )
    filling = _constant_of(marks, node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
    if mode in (b"reflect", b"edge", b"wrap") or (mode == b"constant" and filling == 0):
        marks.share(node.output[0], node.input[0], is_moved=True)
    else:
        marks.round(node.output[0])


def _constant_of(marks: _Marks, name: str) -> float | None:
    """The value of a scalar constant; None where it is computed."""
    array = marks.constants.get(name)
    return None if array is None or array.size != 1 else float(array.ravel()[0])


def _normalizing(marks: _Marks, node: Node) -> None:
    marks.round(node.input[0])
    marks.round_norm(node.input[1])
    if len(node.input) > 2 and node.input[2]:
        marks.round_bias(node.input[2], node.input[0], node.input[1])
    marks.round(*node.output)


_Rule = Callable[[_Marks, Node], None]
# By the operator, as onnxruntime's quantizer knows them.
_EVERYWHERE: dict[str, _Rule] = {
    **dict.fromkeys(MULTIPLYING, _multiplying),
    **dict.fromkeys(
        (
            *("Add", "Mul", "LeakyRelu", "Sigmoid", "Concat", "Softmax", "ArgMax", "CumSum"),
            "GlobalAveragePool",
        ),
        _always,
    ),
    **dict.fromkeys(("Relu", "Clip"), _removable),
    **dict.fromkeys(
        ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "MaxPool", "Slice", "TopK"),
        _moving,
    ),
    **dict.fromkeys(("Resize", "AveragePool"), _averaging),
    "Split": _split,
    **dict.fromkeys(("Gather", "GatherElements"), _gather),
    "Where": _where,
    "Pad": _pad,
    **dict.fromkeys(
        ("InstanceNormalization", "LayerNormalization", "BatchNormalization"), _normalizing
    ),
}
