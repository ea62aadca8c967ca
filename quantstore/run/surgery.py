"""A float graph and its quantized twin in; graphs that show where the twin errs come out.

Both are ONNX graphs that name their tensors alike. The twin either holds other weights under the
same names (``weights``), or is what onnxruntime's quantizer writes: QuantizeLinear and
DequantizeLinear around every operator. Graphs are taken apart and put together here, never run.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from onnx import external_data_helper, helper

# In front of the names of what is added; no exporter writes a slash-tailed word like it.
LOCAL = "quantstore_local/"
GATED = "quantstore_gated/"
FLAG = "quantstore_flag/"
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
# What the quantizer appends to the name of a constant.
_DEQUANTIZED = "_DequantizeLinear_Output"
# Shapes and other small constants stay where shape inference finds them.
_INLINE_BYTES = 1024

Node = Any
Model = Any


@dataclass(frozen=True)
class TwinPair:
    """A float model and its quantized twin.

    ``weights`` are the initializers that differ, where the twin is the same graph; empty where it
    was written by onnxruntime's quantizer.
    """

    float_model: Model
    quantized: Model
    weights: frozenset[str] = frozenset()

    @cached_property
    def _float_producers(self) -> dict[str, Node]:
        return producers(self.float_model)

    @cached_property
    def _float_names(self) -> set[str]:
        graph = self.float_model.graph
        return {
            *self._float_producers,
            *(value.name for value in graph.input),
            *(tensor.name for tensor in graph.initializer),
        }

    @cached_property
    def _producers(self) -> dict[str, Node]:
        return producers(self.quantized)

    @cached_property
    def _tensors(self) -> dict[str, Any]:
        return {tensor.name: tensor for tensor in self.quantized.graph.initializer}

    @cached_property
    def _rounding_of(self) -> dict[str, tuple[Node, Node]]:
        """The QuantizeLinear and DequantizeLinear behind a tensor, by its name."""
        dequantizers = {
            node.input[0]: node for node in self.quantized.graph.node if node.op_type == _DEQUANTIZE
        }
        return {
            node.input[0]: (node, dequantizers[node.output[0]])
            for node in self.quantized.graph.node
            if node.op_type == _QUANTIZE and node.output[0] in dequantizers
        }

    @cached_property
    def observed(self) -> dict[str, str]:
        """Which tensor of the twin stands for a tensor of the float model.

        Where it is rounded, the rounded one: that is what every later operator reads.
        """
        observed_names = {name: name for name in self._producers if name in self._float_names}
        for name, (_, dequantize) in self._rounding_of.items():
            float_name = self._name_in_float_model(name)
            if float_name is not None:
                observed_names[float_name] = dequantize.output[0]
        return observed_names

    def _name_in_float_model(self, name: str) -> str | None:
        """What the float model calls a tensor of the twin; None where it has none like it."""
        if name in self._float_names:
            return name
        # The quantizer renames what an operator returns where the rounded tensor is an output.
        rounding = self._rounding_of.get(name)
        if rounding is not None and rounding[1].output[0] in self._float_names:
            return str(rounding[1].output[0])
        return None

    def operators(self) -> Iterator["TwinOperator"]:
        """The operators of the twin that quantizing touches, in its order."""
        for node in self.quantized.graph.node:
            if node.op_type in (_QUANTIZE, _DEQUANTIZE) or has_subgraph(node):
                continue
            operator = self._operator(node)
            if operator is not None and operator.is_touched:
                yield operator

    def _operator(self, node: Node) -> "TwinOperator | None":
        """The node with what is around it; None where the float model has no such inputs."""
        operands = []
        for name in node.input:
            operand = self._operand(name)
            if operand is None:
                return None
            operands.append(operand)
        results = []
        for name in node.output:
            float_name = self._name_in_float_model(name) if name else ""
            if float_name is None:
                return None
            results.append(TwinResult(name, float_name, self._rounding_of.get(name)))
        return TwinOperator(node, tuple(operands), tuple(results))

    def _operand(self, name: str) -> "TwinOperand | None":
        if not name:
            return TwinOperand(name, "", ())
        dequantize = self._producers.get(name)
        if dequantize is None or dequantize.op_type != _DEQUANTIZE:
            if name in self.weights:
                return TwinOperand(name, "", (), is_weight=True)
            float_name = self._name_in_float_model(name)
            if float_name is None and name in self._tensors:
                return TwinOperand(name, "", (), is_constant=True)
            return None if float_name is None else TwinOperand(name, float_name, ())
        quantize = self._producers.get(dequantize.input[0])
        if quantize is None:
            return TwinOperand(name, "", (dequantize,), is_constant=True)
        float_name = self._name_in_float_model(quantize.input[0])
        return None if float_name is None else TwinOperand(name, float_name, (quantize, dequantize))

    def tensor(self, name: str) -> Any | None:
        """An initializer of the twin."""
        return self._tensors.get(name)

    def float_producer(self, name: str) -> Node | None:
        """The node of the float model that computes a tensor."""
        return self._float_producers.get(name)


@dataclass(frozen=True, slots=True)
class TwinOperand:
    """An input of an operator of the twin: ``base`` is the float model's tensor behind it.

    ``rounding`` is QuantizeLinear and DequantizeLinear, or DequantizeLinear alone for a stored
    constant; empty where the operator reads the tensor as it is.
    """

    name: str
    base: str
    rounding: tuple[Node, ...]
    is_weight: bool = False
    is_constant: bool = False


@dataclass(frozen=True, slots=True)
class TwinResult:
    """An output of an operator of the twin, ``float_name`` is what the float model calls it."""

    name: str
    float_name: str
    rounding: tuple[Node, Node] | None


@dataclass(frozen=True, slots=True)
class TwinOperator:
    """A node of the twin with what is around it."""

    node: Node
    operands: tuple[TwinOperand, ...]
    results: tuple[TwinResult, ...]

    @property
    def is_touched(self) -> bool:
        """Whether anything of it is quantized."""
        return any(operand.rounding or operand.is_weight for operand in self.operands) or any(
            result.rounding for result in self.results
        )


@dataclass
class _Additions:
    """Nodes and initializers that a graph gains; each name once."""

    pair: TwinPair
    prefix: str
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Any] = field(default_factory=dict)
    added_names: set[str] = field(default_factory=set)

    def constant(self, name: str) -> str:
        """A copy of an initializer of the twin, under a name of its own."""
        new_name = self.prefix + name
        tensor = self.pair.tensor(name)
        if tensor is not None and new_name not in self.tensors:
            self.tensors[new_name] = deepcopy(tensor)
            self.tensors[new_name].name = new_name
        return new_name

    def rounded(self, base: str, rounding: Sequence[Node], suffix: str = "") -> str:
        """``base`` through copies of QuantizeLinear and DequantizeLinear."""
        current = base
        for node in rounding:
            new_name = self.prefix + node.output[0] + suffix
            if new_name not in self.added_names:
                scale = [self.constant(name) if name else "" for name in node.input[1:]]
                self.copy(node, [current, *scale], [new_name], suffix)
                self.added_names.add(new_name)
            current = new_name
        return current

    def stored(self, operand: TwinOperand) -> str:
        """A stored constant as the twin reads it."""
        name = operand.rounding[0].input[0] if operand.rounding else operand.name
        return self.rounded(self.constant(name), operand.rounding)

    def copy(
        self, node: Node, inputs: Sequence[str], outputs: Sequence[str], suffix: str = ""
    ) -> None:
        """The node once more, between other tensors."""
        copied = deepcopy(node)
        copied.name = self.prefix + node.name + suffix
        del copied.input[:], copied.output[:]
        copied.input.extend(inputs)
        copied.output.extend(outputs)
        self.nodes.append(copied)


def with_local_twins(pair: TwinPair) -> tuple[Model, dict[str, str]]:
    """The float model and, beside each operator, its quantized twin fed with the float inputs.

    One run then gives every tensor twice: as it should be, and as this operator alone, quantized,
    makes it.

    Returns:
        The model, and the name of the twin's result by the name of the tensor.
    """
    added = _Additions(pair, LOCAL)
    local: dict[str, str] = {}
    readers = consumers(pair.float_model)
    for operator in pair.operators():
        inputs = []
        for operand in operator.operands:
            if operand.is_weight:
                inputs.append(added.constant(operand.name))
            elif operand.is_constant:
                inputs.append(added.stored(operand))
            else:
                inputs.append(added.rounded(operand.base, operand.rounding))
        outputs = [LOCAL + result.name if result.name else "" for result in operator.results]
        added.copy(operator.node, inputs, outputs)
        for result, output in zip(operator.results, outputs, strict=True):
            if not output:
                continue
            # A later operator quantizes the float tensor with the same nodes; this one its own.
            local[result.float_name] = added.rounded(output, result.rounding or (), "/result")
            following = readers.get(result.float_name, [])
            if operator.operands and result.rounding is None and len(following) == 1:
                (node,) = following
                if node.op_type == "BatchNormalization" and node.input[0] == result.float_name:
                    # Folded by every int8 runtime: the layer's error is known behind it.
                    name = LOCAL + node.output[0]
                    added.copy(node, [output, *node.input[1:]], [name])
                    local[node.output[0]] = name
    return _extended(pair.float_model, added), local


def with_switches(pair: TwinPair, group_of: dict[str, str]) -> tuple[Model, list[str]]:
    """A model that is float or quantized operator by operator, as its extra inputs say.

    Args:
        group_of: the switch of an operator, by what :func:`key_of` makes of its node.

    Returns:
        The model, and its switches in order: inputs of one boolean each, true for quantized. Named
        ``FLAG`` + group. Operators without a group share the switch ``FLAG``.
    """
    added = _Additions(pair, GATED)
    flags: dict[str, None] = {}
    touched = {key_of(operator.node): operator for operator in pair.operators()}

    def gate(flag: str, quantized: str, as_float: str, name: str) -> str:
        if name not in added.added_names:
            added.nodes.append(helper.make_node("Where", [flag, quantized, as_float], [name], name))
            added.added_names.add(name)
        return name

    for node in pair.quantized.graph.node:
        if node.op_type in (_QUANTIZE, _DEQUANTIZE):
            continue
        operator = touched.get(key_of(node))
        if operator is None:
            # Whatever it reads carries the float model's name already.
            untouched = deepcopy(node)
            for index, name in enumerate(node.input):
                operand = pair._operand(name)
                if operand is not None and operand.base:
                    untouched.input[index] = operand.base
            added.nodes.append(untouched)
            continue
        flag = FLAG + group_of.get(key_of(node), "")
        flags[flag] = None
        inputs = []
        for operand in operator.operands:
            if operand.is_constant:
                rounded = added.stored(operand)
                original = _original(operand, pair)
                inputs.append(
                    gate(flag, rounded, original, f"{flag}/{operand.name}") if original else rounded
                )
            elif operand.rounding:
                rounded = added.rounded(operand.base, operand.rounding)
                inputs.append(gate(flag, rounded, operand.base, f"{flag}/{operand.name}"))
            else:
                inputs.append(operand.base)
        raw = [
            f"{GATED}raw/{result.float_name}" if result.rounding else result.float_name
            for result in operator.results
        ]
        added.copy(node, inputs, raw)
        for result, name in zip(operator.results, raw, strict=True):
            if result.rounding:
                rounded = added.rounded(name, result.rounding, "/result")
                gate(flag, rounded, _activated(pair, added, node, result, name), result.float_name)
    model = deepcopy(pair.float_model)
    del model.graph.node[:]
    model.graph.node.extend(added.nodes)
    model.graph.initializer.extend(added.tensors.values())
    model.graph.input.extend(
        helper.make_tensor_value_info(flag, onnx.TensorProto.BOOL, []) for flag in flags
    )
    _join_opsets(model, pair.quantized)
    in_any_order = ir.from_proto(model)
    in_any_order.graph.sort()
    return ir.to_proto(in_any_order), list(flags)


def _original(operand: TwinOperand, pair: TwinPair) -> str:
    """The float initializer that a quantized constant was made of; empty where it is gone."""
    name = operand.name.removesuffix(_DEQUANTIZED)
    return name if name in pair._float_names else ""


def _activated(pair: TwinPair, added: _Additions, node: Node, result: TwinResult, name: str) -> str:
    """What the float model makes of an operator's result before it bears the tensor's name.

    The quantizer drops a Relu or Clip whose work the rounding does as well.
    """
    producer = pair.float_producer(result.float_name)
    if producer is None or producer.name == node.name or producer.op_type == node.op_type:
        return name
    output = f"{GATED}activated/{result.float_name}"
    added.copy(producer, [name, *producer.input[1:]], [output])
    return output


def kept_outside(model: Model, folder: Path, name: str) -> Model:
    """The model with its weights in a file, in place: parts of it then share that file.

    Whatever is saved in ``folder`` finds them.
    """
    external_data_helper.convert_model_to_external_data(
        model, all_tensors_to_one_file=True, location=f"{name}.bin", size_threshold=_INLINE_BYTES
    )
    onnx.save(model, folder / f"{name}.onnx")
    return model


def computed(model: Model) -> list[tuple[str, Node]]:
    """Tensors that depend on the inputs' values, with the nodes that compute them, in order."""
    weights = {tensor.name for tensor in model.graph.initializer}
    alive = {value.name for value in model.graph.input} - weights
    tensors = []
    for node in model.graph.node:
        if node.op_type in ("Shape", "Size") or alive.isdisjoint(read_by(node)):
            continue
        for output in node.output:
            if output:
                alive.add(output)
                tensors.append((output, node))
    return tensors


def key_of(node: Node) -> str:
    """What tells a node from all others: names of nodes repeat, names of tensors do not."""
    return next((str(name) for name in node.output if name), "")


def producers(model: Model) -> dict[str, Node]:
    """The node that computes a tensor, by the tensor's name."""
    return {name: node for node in model.graph.node for name in node.output if name}


def consumers(model: Model) -> dict[str, list[Node]]:
    """The nodes that read a tensor, by its name; outputs of the graph count as one that is none."""
    readers: dict[str, list[Node]] = {}
    for node in model.graph.node:
        for name in set(read_by(node)):
            readers.setdefault(name, []).append(node)
    for value in model.graph.output:
        readers.setdefault(value.name, []).append(onnx.NodeProto())
    return readers


def read_by(node: Node) -> Iterator[str]:
    """Names of the tensors a node reads, those that its subgraphs read included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from read_by(inner)
            yield from (value.name for value in graph.output)


def has_subgraph(node: Node) -> bool:
    """Whether a node is an If, a Loop or their kin."""
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _extended(model: Model, added: _Additions) -> Model:
    extended = deepcopy(model)
    extended.graph.node.extend(added.nodes)
    extended.graph.initializer.extend(added.tensors.values())
    _join_opsets(extended, added.pair.quantized)
    return extended


def _join_opsets(model: Model, other: Model) -> None:
    """Domains that the other model uses as well; the quantizer writes some into its files."""
    domains = {opset.domain for opset in model.opset_import}
    model.opset_import.extend(opset for opset in other.opset_import if opset.domain not in domains)


def with_float_constants(pair: TwinPair) -> Model:
    """The twin with its stored constants in float again: only activations stay quantized."""
    model = deepcopy(pair.quantized)
    tensors = {tensor.name: tensor for tensor in pair.float_model.graph.initializer}
    stored = {tensor.name for tensor in model.graph.initializer}
    replaced = {}
    for node in model.graph.node:
        if node.op_type == _DEQUANTIZE and node.input[0] in stored:
            original = str(node.output[0]).removesuffix(_DEQUANTIZED)
            if original in tensors:
                replaced[node.output[0]] = original
    nodes = [node for node in model.graph.node if node.output[0] not in replaced]
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = replaced.get(name, name)
    kept = deepcopy(nodes)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(
        tensors[name] for name in dict.fromkeys(replaced.values()) if name not in stored
    )
    return model


def name_every_node(model: Model) -> None:
    """Give nodes that an optimizer left without a name that of their first output, in place."""
    for node in model.graph.node:
        node.name = node.name or key_of(node)


def successor(model: Model, name: str, is_match: Callable[[str], bool]) -> str | None:
    """The first tensor from ``name`` on, along single readers, that is known; None without one.

    Finds a layer again after an optimizer: what a node computed is gone, what the node behind it
    made of that, a folded BatchNormalization or a fused Add, has kept its name.
    """
    readers = consumers(model)
    for _ in range(8):
        if is_match(name):
            return name
        following = readers.get(name, [])
        if len(following) != 1 or not following[0].output:
            return None
        name = following[0].output[0]
    return None
