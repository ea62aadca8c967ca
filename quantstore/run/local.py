"""A network with, beside each operator, its rounded twin fed with the float inputs.

One run then gives every tensor twice: as it should be, and as this operator alone, rounded, makes
it. What all operators together make of it is another matter (``emulator``).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from quantstore.records import Array
from quantstore.run.emulator import Plan, declare_constants, fed_constants, model_of
from quantstore.run.grids import ActivationGrid
from quantstore.run.network import Network
from quantstore.run.nodes import has_subgraph
from quantstore.run.placement import Placement
from quantstore.run.roundings import GridInputs


@dataclass(frozen=True, slots=True)
class LocalTwins:
    """A model, what to feed it besides a sample, and by the tensor the name of its local twin."""

    model: onnx.ModelProto
    fed: Mapping[str, Array]
    name_of: Mapping[str, str]


def with_local_twins(
    network: Network, placed: Placement, plan: Plan, grids: Mapping[str, ActivationGrid]
) -> LocalTwins:
    """Put a twin beside every operator that a plan touches.

    Args:
        grids: by the tensor that sets it; a tensor that only moves rounded values has a grid too,
            though no plan rounds it again.
    """
    grid_of = {name: root for name, root in placed.grid_of.items() if root in grids}
    grid_of |= {name: name for name in plan.grids if name not in grid_of}
    inputs = GridInputs.of(tuple(dict.fromkeys(grid_of.values())), [grids])
    constants = fed_constants(network, [placed])
    graph = onnx.GraphProto(name=network.model.graph.name)
    inputs.declare(graph)
    declare_constants(graph, network.model, constants)
    changed = {name: f"{name}/quantstore_constant" for name in plan.constants}
    graph.input.extend(
        onnx.helper.make_tensor_value_info(
            changed[name], onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in plan.constants.items()
    )
    rounded: dict[str, str] = {}
    local: dict[str, str] = {}

    def as_read(name: str) -> str:
        if name in changed:
            return changed[name]
        if name not in grid_of:
            return name
        if name not in rounded:
            rounded[name] = f"{name}/quantstore_read"
            graph.node.extend(inputs.rounding(grid_of[name], name, rounded[name]))
        return rounded[name]

    for node in network.model.graph.node:
        graph.node.append(node)
        touched = any(name in changed or name in grid_of for name in (*node.input, *node.output))
        if not touched or has_subgraph(node):
            continue
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        del twin.input[:], twin.output[:]
        twin.name = f"{node.name}/quantstore_local"
        twin.input.extend(as_read(name) for name in node.input)
        for name in node.output:
            twin.output.append(f"{name}/quantstore_local" if name else "")
        graph.node.append(twin)
        for name, output in zip(node.output, twin.output, strict=True):
            if not name:
                continue
            local[name] = output
            if name in grid_of:
                local[name] = f"{name}/quantstore_local_rounded"
                graph.node.extend(inputs.rounding(grid_of[name], output, local[name]))
    graph.output.extend(network.model.graph.output)
    fed = {**constants, **inputs.fed(grids)}
    fed |= {changed[name]: array for name, array in plan.constants.items()}
    return LocalTwins(model_of(graph, network.model), fed, local)
