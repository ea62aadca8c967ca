"""What a plan decided, tensor by tensor, for writers of files in the formats of other tools."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedTensor:
    """An activation on a grid of its own.

    ``tensor``: its name in the written float file; ``node_name``: what computes it, None for an
    input of the network. ``bits``: 8 or 16, None where the plan leaves it in float. ``low`` and
    ``high``: the ends of the range that the codes cover. Signed codes where ``is_symmetric``.
    """

    tensor: str
    node_name: str | None
    bits: int | None
    scale: float
    zero_point: int
    low: float
    high: float
    is_symmetric: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedWeights:
    """The weights of a layer.

    ``tensor``: the initializer in the written float file; ``node_name``: what reads it.
    ``scales``: one, or one for each index of ``axis``. ``bits``: 8, None where the plan leaves them
    in float.
    """

    tensor: str
    node_name: str
    axis: int | None
    scales: tuple[float, ...]
    bits: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedNetwork:
    """Everything that a plan decided about a network.

    ``graph_name`` of the ONNX graph. ``every_node``: names of all nodes of the float file, in
    order, with their operators. ``float_nodes``: of these, the ones that do not compute in int8
    although the target would have it.
    """

    graph_name: str
    opset: int
    target: str
    every_node: tuple[tuple[str, str], ...]
    tensors: tuple[QuantizedTensor, ...]
    weights: tuple[QuantizedWeights, ...]
    float_nodes: tuple[str, ...]
    symmetric_activations: bool
    activation_bits: int
