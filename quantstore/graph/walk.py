"""A graph in, its layers out, one at a time: only one layer's weights are in memory."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quantstore.errors import ModelFileError, NoLayersError
from quantstore.graph.attributes import integer
from quantstore.graph.batchnorm import FOLDABLE, Folding, folding_after
from quantstore.graph.constants import constant_tensor
from quantstore.graph.dequantize import Stored, dequantized, weight_scale
from quantstore.graph.file import ModelFile
from quantstore.graph.operators import Operand, Operator, operator_of
from quantstore.graph.tensors import FLOAT_TYPES, INTEGER_TYPES, dimensions, read_array
from quantstore.layers import Layer


@dataclass(frozen=True, slots=True)
class Site:
    """A node whose weight operand is constant: a layer whose weights were not read yet."""

    name: str
    node: ir.Node
    operator: Operator
    operand: Operand
    tensor: ir.TensorProtocol

    @property
    def weight_bytes(self) -> int:
        return self.tensor.nbytes


def find_sites(file: ModelFile) -> list[Site]:
    """Where a model keeps its weights, in graph order, subgraphs where they stand.

    Raises:
        NoLayersError: where there is none, saying what was met instead.
    """
    sites: list[Site] = []
    taken: set[str] = set()
    repeats: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for name, node in _nodes(file.model.graph, ""):
        operator = operator_of(node)
        if operator is None:
            others[node.op_type] += 1
            continue
        found = _constant_operand(node, operator)
        if found is None:
            unread[_source_of(node, operator)] += 1
            continue
        sites.append(Site(_unique(name, taken, repeats), node, operator, *found))
    if not sites:
        raise NoLayersError(
            "no layer whose weights quantstore can read" + _what_was_met(unread or others),
            "it reads Conv, ConvTranspose, Gemm and MatMul with constant weights",
        )
    return sites


def read_layer(file: ModelFile, site: Site, *, fold: bool = True) -> Layer | None:
    """Read one layer's weights as a runtime would quantize them; None where it holds none.

    Args:
        fold: whether to fold a BatchNormalization that alone follows a convolution.

    Raises:
        ModelFileError: data that is missing or does not match its declared shape.
    """
    node, tensor = site.node, site.tensor
    shape = dimensions(tensor)
    if 0 in shape:
        return None
    axis = site.operand.channel_axis(node, len(shape))
    group_count = integer(node, "group", 1) if "conv" in site.operator.family else 1
    _check_shape(site, shape, group_count)
    stored: Stored | None = None
    if site.operator.is_integer:
        restored = dequantized(node, site.operand, tensor, axis)
        if restored is None:
            return None
        weights, stored = restored
    else:
        weights = _as_float32(read_array(tensor))

    folding = None
    if fold and site.operator.op_type in FOLDABLE:
        output_channels = shape[0] if axis == 0 else shape[1] * group_count
        folding = folding_after(node, output_channels, file.opset or 1)
        if folding is not None:
            weights = _folded(weights, folding, axis, group_count)
    return Layer(
        name=site.name,
        operand=site.operand.name,
        op_type=node.op_type,
        op_family=site.operator.family,
        weight_name=tensor.name or site.name,
        weight_dtype=tensor.dtype.numpy().name,
        shape=shape,
        channel_axis=axis,
        group_count=group_count,
        is_depthwise=(
            site.operator.family == "conv" and group_count > 1 and len(shape) > 1 and shape[1] == 1
        ),
        batchnorm_folded=folding is not None,
        mul_folded=False,
        already_quantized=stored is not None,
        stored_scheme=stored.scheme if stored else None,
        stored_step=stored.step if stored else None,
        weight_key=(id(tensor), axis, id(folding.node) if folding else None),
        weights=_channels_first(weights, axis),
    )


def _nodes(graph: ir.Graph, prefix: str) -> Iterator[tuple[str, ir.Node]]:
    """Every node with its name, subgraphs as ``outer/attribute/inner``."""
    for node in graph:
        name = prefix + (node.name or node.op_type)
        yield name, node
        for attribute in node.attributes.values():
            for subgraph in _subgraphs(attribute):
                yield from _nodes(subgraph, f"{name}/{attribute.name}/")


def _subgraphs(attribute: ir.Attr) -> tuple[ir.Graph, ...]:
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    return tuple(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else ()


def _unique(name: str, taken: set[str], repeats: Counter[str]) -> str:
    """The name itself at first, then ``name#2``, ``name#3``, skipping names a node really has."""
    candidate = name
    while candidate in taken:
        repeats[name] += 1
        candidate = f"{name}#{repeats[name] + 1}"
    taken.add(candidate)
    return candidate


def _constant_operand(
    node: ir.Node, operator: Operator
) -> tuple[Operand, ir.TensorProtocol] | None:
    for operand in operator.operands:
        value = node.inputs[operand.index] if operand.index < len(node.inputs) else None
        tensor = constant_tensor(value)
        if tensor is None:
            continue
        if operator.is_integer:
            # Without its scale an integer weight has no range.
            if tensor.dtype in INTEGER_TYPES and weight_scale(node) is not None:
                return operand, tensor
        elif tensor.dtype in FLOAT_TYPES:
            return operand, tensor
    return None


def _source_of(node: ir.Node, operator: Operator) -> str:
    """What feeds the weight operand of a node that is no layer, in words."""
    index = operator.operands[0].index
    value = node.inputs[index] if index < len(node.inputs) else None
    producer = value.producer() if value is not None else None
    return f"{node.op_type} fed by {producer.op_type if producer else 'an input'}"


def _what_was_met(unread: Counter[str]) -> str:
    if not unread:
        return ""
    met = ", ".join(f"{count} {what}" for what, count in unread.most_common(3))
    return f" (met {met})"


def _check_shape(site: Site, shape: tuple[int, ...], group_count: int) -> None:
    is_convolution = "conv" in site.operator.family
    if is_convolution and len(shape) < 3:
        raise ModelFileError(
            f"layer {site.name!r} is a convolution with weights of shape {shape}",
            "export the model again",
        )
    if group_count < 1 or (is_convolution and shape[0] % group_count):
        raise ModelFileError(
            f"layer {site.name!r} has {group_count} groups for weights of shape {shape}",
            "export the model again",
        )
    if site.operator.op_type == "Gemm" and len(shape) != 2:
        raise ModelFileError(
            f"layer {site.name!r} is a Gemm with weights of shape {shape}",
            "export the model again",
        )


def _as_float32(array: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    # A double beyond float32's range becomes infinite: a runtime could not hold it either.
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype=np.float32)


def _folded(
    weights: npt.NDArray[np.float32], folding: Folding, axis: int | None, group_count: int
) -> npt.NDArray[np.float32]:
    """The weights times the factor of their output channel: in float64, rounded once."""
    trailing = (1,) * (weights.ndim - 2)
    if axis == 0:
        factor = folding.factor.reshape(-1, 1, *trailing)
    else:
        # ConvTranspose: input channels (axis 0) come group by group, each with its own outputs.
        rows_per_group = weights.shape[0] // group_count
        per_group = folding.factor.reshape(group_count, weights.shape[1])
        factor = np.repeat(per_group, rows_per_group, axis=0).reshape(
            weights.shape[0], weights.shape[1], *trailing
        )
    with np.errstate(over="ignore", invalid="ignore"):
        return (weights.astype(np.float64) * factor).astype(np.float32)


def _channels_first(weights: npt.NDArray[np.float32], axis: int | None) -> npt.NDArray[np.float32]:
    if axis is None:
        return np.ascontiguousarray(weights).reshape(1, -1)
    moved = np.moveaxis(weights, axis, 0)
    return np.ascontiguousarray(moved).reshape(moved.shape[0], -1)
