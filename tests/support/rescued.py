"""What a rescue would know of a trial: the facts of its plan, and the float file on the grid."""

import onnx

from quantstore.rescuing.facts import QuantizedNetwork, QuantizedTensor, QuantizedWeights
from quantstore.run import qdq_file
from quantstore.run.emulator import Plan


def ongrid_model(trial) -> onnx.ModelProto:
    """The network in float, with the weights that the plan rounds as they come back."""
    weights = {
        name: array for name, array in trial.plan.constants.items() if name in trial.placed.weights
    }
    return qdq_file.qdq_model(
        trial.network, trial.placed, trial.rounding, Plan(constants=weights, constant_grids={})
    )


def facts_of(trial, target, *, in_float=(), wide=()) -> QuantizedNetwork:
    """The plan of a trial in words.

    Args:
        in_float: tensors that the plan leaves out.
        wide: tensors that have 16 bits, and the grid for them.
    """
    graph = trial.network.model.graph
    made_by = {name: one for one in graph.node for name in one.output}
    activations = trial.rounding.activations
    tensors = []
    for name, grid in trial.plan.grids.items():
        bits = None if name in in_float else 16 if name in wide else activations.bits
        scale, lowest = float(grid.scale[0]), int(grid.lowest[0])
        if bits is None:
            # Nobody may take it for a grid.
            scale, lowest = 1.0, 0
        tensors.append(
            QuantizedTensor(
                tensor=name,
                node_name=made_by[name].name if name in made_by else None,
                bits=bits,
                scale=scale,
                zero_point=0 if activations.is_symmetric else -lowest,
                low=lowest * scale,
                high=float(grid.highest[0]) * scale,
                is_symmetric=activations.is_symmetric,
            )
        )
    weights = []
    for name in trial.placed.weights:
        slot, grid = trial.network.slot_of[name], trial.plan.constant_grids.get(name)
        axis = slot.site.operand.channel_axis(slot.site.node, trial.network.constants[name].ndim)
        scales = () if grid is None else tuple(float(scale) for scale in grid.scale)
        weights.append(
            QuantizedWeights(
                tensor=slot.site.tensor.name or slot.site.name,
                node_name=slot.site.name,
                axis=axis if len(scales) > 1 else None,
                scales=scales,
                bits=None if grid is None else 8,
            )
        )
    return QuantizedNetwork(
        graph_name=graph.name,
        opset=max(used.version for used in trial.network.model.opset_import if not used.domain),
        target=target,
        every_node=tuple((one.name, one.op_type) for one in graph.node),
        tensors=tuple(tensors),
        weights=tuple(weights),
        float_nodes=(),
        symmetric_activations=activations.is_symmetric,
        activation_bits=activations.bits,
    )
