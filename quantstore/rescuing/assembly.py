"""A draft in, the whole network as its files hold it out: rescaled, with names of the file.

The emulator runs a network that ends where it is compared. The files hold all of it, its decoder
included, which stays in float.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from quantstore.errors import RunError
from quantstore.records import Array
from quantstore.rescuing.bench import RescueBench
from quantstore.rescuing.branches import with_identities
from quantstore.rescuing.draft import Draft, FileGrids
from quantstore.rescuing.scaling import Factors
from quantstore.run import network as networks
from quantstore.run import qdq_file, subject, twin
from quantstore.run.emulator import Plan
from quantstore.run.inputs import Samples
from quantstore.run.network import Network
from quantstore.run.nodes import Node, consumers, name_of
from quantstore.run.placement import Bias, Placement
from quantstore.run.plans import Rounding

_HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
_IS_A_BUG = "report this as a bug of quantstore, with the model"
_SCALED = "_scaled"
_FACTOR = "_inverse_factors"


@dataclass(frozen=True)
class Assembly:
    """The whole network, rescaled; ``plan`` and ``placed`` by its names and in its units.

    ``tensor_of`` and ``weights_of``: its names by those of the network on the bench. ``inserted``:
    names of the Muls.
    """

    network: Network
    placed: Placement
    plan: Plan
    tensor_of: Mapping[str, str]
    weights_of: Mapping[str, str]
    source: "Whole"
    inserted: tuple[str, ...]

    def as_float(self, rounding: Rounding, *, is_on_grid: bool) -> onnx.ModelProto:
        """The float model; with ``is_on_grid`` with the values that its integers stand for."""
        constants = self.plan.constants if is_on_grid else {}
        plain = Plan(constants=constants, constant_grids={})
        return qdq_file.qdq_model(self.network, self.placed, rounding, plain)

    def finished(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A model with the inputs and outputs of the file, no others."""
        kept = {value.name: value for value in model.graph.output}
        del model.graph.output[:]
        for declared in self.source.declared:
            # A map of scores has a type that the way through the optimizer loses.
            is_typed = kept[declared.name].HasField("type")
            model.graph.output.append(kept[declared.name] if is_typed else declared)
        model.graph.input.extend(self.source.frozen)
        return model


@dataclass(frozen=True)
class Whole:
    """The network of a file, with everything behind its heads.

    ``declared``: what the file hands out; the graph gives the compared tensors besides.
    ``frozen``: inputs that a file keeps although nothing reads them any more. ``is_fixed``: the
    shapes of the inputs are those of the samples. ``was_half``: the file has inputs or outputs in
    half precision, these networks have none.
    """

    network: Network
    declared: tuple[onnx.ValueInfoProto, ...]
    frozen: tuple[onnx.ValueInfoProto, ...] = ()
    is_fixed: bool = False
    was_half: bool = False


class OtherNetworkError(RunError):
    """Optimized as a whole the model is another network than the one on the bench."""


def whole_network(
    path: Path, bench: RescueBench, folder: Path, *, fold: bool, fixed_by: Samples | None = None
) -> Whole:
    """The network of a file with everything behind its heads, the compared tensors as outputs.

    Args:
        fixed_by: fix shapes, and numbers that choose a branch, as these samples have them.

    Raises:
        RunError: onnxruntime refuses the model.
    """
    model = twin.open_float(path)
    graph = model.model.graph
    original = onnx.load(path, load_external_data=False).graph
    declared = tuple(original.output)
    was_half = any(
        value.type.tensor_type.elem_type in _HALVES for value in (*original.input, *declared)
    )
    handed = {value.name for value in declared}
    frozen: tuple[onnx.ValueInfoProto, ...] = ()
    if fixed_by is not None:
        inputs = {value.name: value for value in twin.to_proto(model).graph.input}
        names = subject.freeze_scalars(model.model, fixed_by)
        frozen = tuple(inputs[name] for name in names)
        subject.fix_shapes(model.model, fixed_by)
    values = {str(value.name): value for node in graph for value in node.outputs}
    for name in bench.network.outputs:
        if name not in handed and name in values:
            graph.outputs.append(values[name])
    names = tuple(str(value.name) for value in graph.outputs)
    folder.mkdir(parents=True, exist_ok=True)
    floats = networks.optimized(twin.to_proto(model), folder, fold=fold)
    _name_apart(floats.model.graph)
    network = networks.taken_apart(floats, names, fold=fold)
    missing = set(bench.network.outputs).difference(network.tensors)
    if missing:
        raise OtherNetworkError(f"the whole model does not compute {min(missing)!r}", _IS_A_BUG)
    return Whole(network, declared, frozen, fixed_by is not None, was_half)


def _name_apart(graph: ir.Graph) -> None:
    """Give every node a name of its own, in place; onnxruntime's optimizations repeat some."""
    seen: set[str] = set()
    for node in graph:
        name = node.name or str(node.outputs[0].name)
        if name in seen:
            node.name = name = f"{node.outputs[0].name}/{node.op_type}"
        seen.add(name)


def assemble(
    source: Whole, bench: RescueBench, draft: Draft, branches: Mapping[str, str]
) -> Assembly:
    """Rescale the whole network and translate a draft into its names.

    Args:
        branches: of ``branches.with_branches``.

    Raises:
        OtherNetworkError: the whole network does not hold what the draft is about.
    """
    whole = source.network
    node_of = {name_of(node): node for node in whole.model.graph.node}
    made_by = {name: node for node in whole.model.graph.node for name in node.output}
    weights_of: dict[str, str] = {}
    bias_of: dict[str, str] = {}
    reader_of: dict[str, Node] = {}
    for node in bench.network.model.graph.node:
        for index, name in enumerate(node.input):
            if name not in bench.network.slot_of:
                continue
            other = made_by.get(node.output[0]) or node_of.get(name_of(node))
            if other is None or len(other.input) <= index:
                raise OtherNetworkError(
                    f"{name_of(node)!r} is another node in the whole model", _IS_A_BUG
                )
            if whole.slot_of.get(other.input[index]) is None:
                raise OtherNetworkError(
                    f"{name_of(node)!r} reads other weights in the whole model", _IS_A_BUG
                )
            weights_of[name] = other.input[index]
            reader_of[name] = other
            if len(node.input) > 2 and node.input[2] and len(other.input) > 2:
                bias_of[node.input[2]] = other.input[2]
    in_file = bench.drafting.in_file(draft)
    factors = Factors.of(bench.network, draft.scalings)
    tensor_of, model, inserted = _with_muls(whole, bench, draft, branches, factors)
    constants = dict(whole.constants)
    for name, other in weights_of.items():
        constants[other] = factors.scaled(name, bench.network.constants[name])
    replaced = {
        bias_of[name]: _bias(bench, draft, factors, name)
        for name in (*factors.of_biases, *draft.corrections)
        if name in bias_of
    }
    for name in [name for name in replaced if name in constants]:
        constants[name] = replaced.pop(name)
    for tensor in model.graph.initializer:
        if tensor.name in replaced:
            tensor.CopyFrom(numpy_helper.from_array(replaced[tensor.name], tensor.name))
    changed = dataclasses.replace(whole, model=model, constants=constants)
    named = {**weights_of, **bias_of}
    return Assembly(
        network=changed,
        placed=_translated(bench.placed, tensor_of, named),
        plan=_plan(in_file, tensor_of, named),
        tensor_of=tensor_of,
        weights_of=weights_of,
        source=source,
        inserted=inserted,
    )


def _bias(bench: RescueBench, draft: Draft, factors: Factors, name: str) -> Array:
    return factors.scaled_bias(name, bench.drafting.bias(name, draft))


def _with_muls(
    whole: Network, bench: RescueBench, draft: Draft, branches: Mapping[str, str], factors: Factors
) -> tuple[dict[str, str], onnx.ModelProto, tuple[str, ...]]:
    """The graph with a Mul where factors do not fold, and the names of tensors in it."""
    readers = consumers(bench.network.model)
    new_names: dict[str, str] = {}
    readers_of: dict[str, set[str]] = {}
    tensor_of = {}
    for name, scaling in draft.scalings.items():
        if scaling.is_folded:
            continue
        source = branches.get(name, name)
        new_name = _fresh(whole, f"{source}{_SCALED}")
        new_names[new_name] = source
        readers_of[source] = {node.output[0] for node in readers[name]}
        tensor_of[name] = new_name
    # A depthwise input that got a name of its own and no factors is the tensor that it repeats.
    tensor_of |= {name: source for name, source in branches.items() if name not in tensor_of}
    model = with_identities(whole.model, new_names, _by_name(whole, readers_of))
    for node in model.graph.node:
        new = node.output[0] if node.op_type == "Identity" else ""
        if new not in new_names:
            continue
        (tensor,) = [name for name, other in tensor_of.items() if other == new]
        inverse = 1 / factors.of_tensors[tensor]
        array = inverse.reshape(-1, *(1,) * bench.drafting.trailing_axes(tensor))
        constant = _fresh(whole, f"{new_names[new]}{_FACTOR}")
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), constant))
        node.op_type = "Mul"
        node.input.append(constant)
    return tensor_of, model, tuple(new_names)


def _by_name(whole: Network, readers_of: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Nodes by what they compute, which two networks agree on, as names of the whole one."""
    named = {name: name_of(node) for node in whole.model.graph.node for name in node.output}
    return {
        tensor: {named[output] for output in outputs if output in named}
        for tensor, outputs in readers_of.items()
    }


def _fresh(whole: Network, name: str) -> str:
    taken = {*whole.tensors, *whole.inputs, *whole.constants, *whole.float_constants}
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _plan(in_file: FileGrids, tensor_of: Mapping[str, str], constant_of: Mapping[str, str]) -> Plan:
    return Plan(
        {tensor_of.get(name, name): grid for name, grid in in_file.tensors.items()},
        {constant_of.get(name, name): array for name, array in in_file.constants.items()},
        {constant_of.get(name, name): grid for name, grid in in_file.constant_grids.items()},
    )


def _translated(
    placed: Placement, tensor_of: Mapping[str, str], constant_of: Mapping[str, str]
) -> Placement:
    names = {**constant_of, **tensor_of}

    def named(name: str) -> str:
        return names.get(name, name)

    return dataclasses.replace(
        placed,
        grid_of={named(name): named(root) for name, root in placed.grid_of.items()},
        activations=tuple(map(named, placed.activations)),
        shares=frozenset(map(named, placed.shares)),
        constants=tuple(map(named, placed.constants)),
        norms=tuple(map(named, placed.norms)),
        biases=tuple(
            Bias(named(bias.name), named(bias.input), named(bias.weights)) for bias in placed.biases
        ),
        weights=tuple(map(named, placed.weights)),
        depthwise=frozenset(map(named, placed.depthwise)),
    )
