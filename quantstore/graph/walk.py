"""A graph in, its layers out, one at a time: only one layer's weights are in memory."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quantstore.errors import ModelFileError, NoLayersError
from quantstore.graph.attributes import integer, module_path, plain
from quantstore.graph.batchnorm import FOLDABLE, Folding, folding_after
from quantstore.graph.constants import Constant, Opaque, find_constant
from quantstore.graph.dequantize import Stored, restored, stored_as, stored_by, weight_scale
from quantstore.graph.file import ModelFile
from quantstore.graph.fold import UnfoldableError, folded, values_of
from quantstore.graph.grid import stored_on_grid
from quantstore.graph.operators import MICROSOFT, UNREAD, Operand, Operator, operator_of
from quantstore.graph.origins import tensors_of, value_count
from quantstore.graph.packed import READERS
from quantstore.graph.qonnx import stored_by as quantized_by
from quantstore.graph.stored import dtype_name, stored_of
from quantstore.graph.tensors import FLOAT_TYPES, INTEGER_TYPES, dimensions, is_float
from quantstore.graph.unread import NOT_READ_YET, Unread, out_of_reach
from quantstore.layer import Layer
from quantstore.records import Array, Floats

# Five rows of the store for each: 10 million rows, about a gigabyte while they are written. A
# language model of 7 billion weights has 1.4 million channels.
MOST_CHANNELS = 2_000_000
# A histogram takes 16 kB of memory until it is written.
MOST_LAYERS = 20_000
# A tensor that several nodes use is read again for each of them.
MOST_BYTES_READ_AGAIN = 16 << 30

CANNOT_BE_COMPUTED = "cannot be computed ahead"
NO_LAYER = "no layer whose weights quantstore can read"


@dataclass(frozen=True, slots=True)
class Site:
    """A node whose weight operand is constant: a layer whose weights were not read yet."""

    name: str
    node: ir.Node
    operator: Operator
    operand: Operand
    constant: Constant

    @property
    def tensor(self) -> ir.TensorProtocol:
        """The stored tensor that the weights are, or that they are made of."""
        return self.constant.tensor

    @property
    def is_stored(self) -> bool:
        """Whether the node reads the stored tensor as it is."""
        return self.constant.is_stored

    @property
    def weight_bytes(self) -> int:
        return self.tensor.nbytes


@dataclass(frozen=True, slots=True)
class Survey:
    """Where a model keeps its weights, in graph order, and those that will not be measured."""

    sites: tuple[Site, ...]
    unread: tuple[Unread, ...]


def find_sites(file: ModelFile) -> list[Site]:
    """Where a model keeps its weights, in graph order, subgraphs where they stand.

    Raises:
        NoLayersError: where there is none, saying what was met instead.
    """
    return list(survey(file).sites)


def survey(file: ModelFile) -> Survey:
    """Where a model keeps its weights, and which of them are out of reach.

    Raises:
        NoLayersError: where it keeps none, saying what was met instead.
    """
    sites: list[Site] = []
    unread: list[Unread] = []
    taken: set[str] = set()
    repeats: Counter[str] = Counter()
    computed: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for name, node in _nodes(file.model.graph, ""):
        operator = operator_of(node)
        if operator is None:
            others[node.op_type] += 1
            if node.domain == MICROSOFT and node.op_type in UNREAD:
                weight_count = sum(map(value_count, node.inputs))
                unread.append(Unread(name, "", node.op_type, NOT_READ_YET, weight_count))
            continue
        if _is_computed_ahead(node):
            continue
        weight_operands, unread_operands = _constant_operands(node, operator)
        if weight_operands:
            layer_name = _unique(name, taken, repeats)
            sites += [
                Site(layer_name, node, operator, *weight_operand)
                for weight_operand in weight_operands
            ]
        elif not unread_operands:
            computed[_source_of(node, operator)] += 1
        unread += [
            Unread(
                name, operand, node.op_type, reason, value_count(_operand(node, operator, operand))
            )
            for operand, reason in unread_operands
        ]
    seen = {id(tensor) for site in sites for tensor in tensors_of(site.constant.value)}
    unread += out_of_reach(_nodes(file.model.graph, ""), seen)
    if not sites:
        computed.update(f"{operand.op_type} {operand.reason}" for operand in unread)
        raise NoLayersError(
            NO_LAYER + _what_was_met(computed or others),
            "it reads convolutions, matrix products, recurrent layers and embeddings with constant"
            " weights",
        )
    return Survey(tuple(sites), tuple(unread))


def _is_computed_ahead(node: ir.Node) -> bool:
    """Whether a product is a constant itself: what reads it is a layer, this is none."""
    if node.op_type not in ("MatMul", "Gemm") or not node.outputs:
        return False
    result = node.outputs[0]
    return isinstance(find_constant(result), Constant) and not result.is_graph_output()


def _operand(node: ir.Node, operator: Operator, operand_name: str) -> ir.Value | None:
    index = next(operand.index for operand in operator.operands if operand.name == operand_name)
    return _input(node, index)


def read_layer(file: ModelFile, site: Site, *, fold: bool = True) -> Layer | None:
    """Read one layer's weights as a runtime would quantize them; None where it holds none.

    Args:
        fold: whether to fold a BatchNormalization or Mul that alone follows a convolution.

    Raises:
        ModelFileError: data that is missing or does not match its declared shape.
    """
    layer_or_reason = read_or_reason(file, site, fold=fold)
    return layer_or_reason if isinstance(layer_or_reason, Layer) else None


def read_or_reason(file: ModelFile, site: Site, *, fold: bool = True) -> Layer | Unread:
    """The same; where there are no weights to measure, why.

    Raises:
        ModelFileError: data that is missing or does not match its declared shape.
    """
    node = site.node
    shape = dimensions(site.tensor)
    if site.is_stored and not site.operator.is_packed:
        # Before anything is read: an empty tensor has no data to speak of.
        if 0 in shape:
            return _unread(site, "is empty")
        _check_shape(site, shape)
    try:
        weights, stored = _weights(file, site)
    except UnfoldableError as error:
        return _unread(site, f"{CANNOT_BE_COMPUTED}: {error}")
    if weights is None:
        return _unread(site, "contains no numbers that can be read as weights")
    shape = weights.shape
    if 0 in shape:
        return _unread(site, "is empty")
    group_count = _check_shape(site, shape)
    axis = site.operand.channel_axis(node, len(shape))

    folding = None
    if fold and stored is None and node.op_type in FOLDABLE:
        output_channels = shape[0] if axis == 0 else shape[1] * group_count
        folding = folding_after(node, output_channels, file.opset or 1, rank=len(shape))
        if folding is not None:
            weights = _folded(weights, folding, axis, group_count)
    joined = site.operand.joined_axis
    return Layer(
        name=site.name,
        module_path=module_path(node),
        attributes=plain(node),
        operand=site.operand.name,
        op_type=node.op_type,
        op_family=site.operator.family,
        weight_name=site.tensor.name or site.name,
        weight_dtype=dtype_name(site.tensor),
        shape=shape,
        channel_axis=axis,
        group_count=group_count,
        is_depthwise=(
            site.operator.family == "conv" and group_count > 1 and len(shape) > 1 and shape[1] == 1
        ),
        batchnorm_folded=folding is not None and folding.normalization is not None,
        mul_folded=folding is not None and folding.has_mul,
        already_quantized=stored is not None,
        stored_scheme=stored.scheme if stored else None,
        stored_step=stored.step if stored else None,
        weight_key=(
            id(site.tensor) if site.is_stored else id(site.constant.value),
            *_restored_by(site),
            axis,
            joined,
            *(() if folding is None else (id(folded_node) for folded_node in folding.nodes)),
        ),
        weights=_channels_first(weights, axis, joined),
    )


def _unread(site: Site, reason: str) -> Unread:
    return Unread(site.name, site.operand.name, site.node.op_type, reason, site.tensor.size)


def _weights(file: ModelFile, site: Site) -> tuple[Floats, Stored] | tuple[Floats | None, None]:
    """The weights in the shape the node reads them in, and how integers are stored."""
    node, operand, constant = site.node, site.operand, site.constant
    array = folded(constant, file.opset)
    if site.operator.is_packed:
        # Codes, scales, zero points, and whatever else the operator has behind them.
        return READERS[node.op_type](
            node, [array, *(_optional_input(file, node, index) for index in (2, 3, 4))]
        )
    scale_value = _scale_value(node, site.operator, operand)
    if scale_value is not None:
        axis = operand.channel_axis(node, array.ndim)
        scale = values_of(scale_value, file.opset)
        zero_point = _optional_input(file, node, operand.zero_point)
        if scale is None or not is_float(scale):
            return None, None
        if operand.joined_axis is not None:
            scale = _for_directions(scale, array, axis)
            if zero_point is not None:
                zero_point = _for_directions(zero_point, array, axis)
        weights = restored(node, array, scale, zero_point, axis=axis)
        return weights, stored_as(site.tensor.dtype, scale)
    if not is_float(array):
        return None, None
    weights = _as_float32(array)
    if constant.dequantizer is not None:
        scale = values_of(constant.dequantizer.inputs[1], file.opset)
        return weights, stored_by(constant.dequantizer, site.tensor, scale)
    marked = stored_of(site.tensor)
    if marked is not None:
        return weights, marked
    if site.tensor.dtype in INTEGER_TYPES:
        # Dequantized by arithmetic of the graph: no single factor is its scale.
        return weights, stored_as(site.tensor.dtype, None)
    if constant.quantizer is not None:
        parameters = [values_of(value, file.opset) for value in constant.quantizer.inputs[1:]]
        return weights, quantized_by(constant.quantizer, [weights, *parameters])
    if constant.is_rounded:
        stored = stored_on_grid(weights, operand.channel_axis(node, weights.ndim))
        return (weights, None) if stored is None else (weights, stored)
    return weights, None


def _scale_value(node: ir.Node, operator: Operator, operand: Operand) -> ir.Value | None:
    """Where the scale of an integer operand is; None where the operand holds floats."""
    if operator.scale_follows:
        return weight_scale(node)
    return _input(node, operand.scale)


def _optional_input(file: ModelFile, node: ir.Node, index: int | None) -> Array | None:
    """An input that may be left out.

    Raises:
        UnfoldableError: it is there, but not constant.
    """
    value = _input(node, index)
    if value is None:
        return None
    array = values_of(value, file.opset)
    if array is None:
        raise UnfoldableError("its scale or zero point is not constant")
    return array


def _input(node: ir.Node, index: int | None) -> ir.Value | None:
    return node.inputs[index] if index is not None and index < len(node.inputs) else None


def _restored_by(site: Site) -> Iterator[int]:
    """What makes the same codes other weights: their scale and zero point."""
    node, operand = site.node, site.operand
    values = [_scale_value(node, site.operator, operand), _input(node, operand.zero_point)]
    if site.operator.is_packed:
        values.append(_input(node, 4))
        yield from (
            integer(node, name, 0) for name in ("bits", "block_size", "N", "K", "quantize_axis")
        )
    for value in values:
        constant = find_constant(value)
        yield id(constant.tensor) if isinstance(constant, Constant) else 0


def _for_directions(values: Array, codes: Array, axis: int | None) -> Array:
    """Scales of a recurrent layer, one for each direction or each of its channels."""
    if axis is None or values.size == 1:
        return values
    per_channel = (codes.shape[0], codes.shape[axis])
    if values.shape in (per_channel, per_channel[:1]):
        broadcast_shape = [1] * codes.ndim
        broadcast_shape[0], broadcast_shape[axis] = codes.shape[0], values.size // codes.shape[0]
        return values.reshape(broadcast_shape)
    return values


def _nodes(graph: ir.Graph, prefix: str) -> Iterator[tuple[str, ir.Node]]:
    """Every node with its name, subgraphs as ``outer/attribute/inner``."""
    for node in graph:
        name = prefix + (node.name or node.op_type)
        yield name, node
        for attribute in node.attributes.values():
            for subgraph in subgraphs(attribute):
                yield from _nodes(subgraph, f"{name}/{attribute.name}/")


def subgraphs(attribute: ir.Attr) -> tuple[ir.Graph, ...]:
    """The bodies that an attribute holds: of If, Loop and Scan."""
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


def _constant_operands(
    node: ir.Node, operator: Operator
) -> tuple[list[tuple[Operand, Constant]], list[tuple[str, str]]]:
    """The operands that are layers; and those that are constant and yet no layers, with why."""
    weight_operands: list[tuple[Operand, Constant]] = []
    unread_operands: list[tuple[str, str]] = []
    for operand in operator.operands:
        if weight_operands and not operator.measures_all:
            break
        constant = find_constant(_input(node, operand.index))
        if constant is None:
            continue
        reason = (
            f"fed by {constant.op_type}"
            if isinstance(constant, Opaque)
            else _why_not(node, operator, operand, constant)
        )
        if isinstance(constant, Constant) and not reason:
            weight_operands.append((operand, constant))
        elif not _is_plumbing(node, operator, constant):
            unread_operands.append((operand.name, reason))
    return weight_operands, unread_operands if operator.measures_all or not weight_operands else []


def _why_not(node: ir.Node, operator: Operator, operand: Operand, constant: Constant) -> str:
    """What keeps a constant from being weights, empty where nothing does."""
    dtype = constant.tensor.dtype
    if operator.is_packed:
        return "" if dtype in INTEGER_TYPES else f"holds {dtype.name.lower()} codes"
    if operator.scale_follows or operand.scale is not None:
        if _is_number(dtype) and operand.scale is not None and dtype not in INTEGER_TYPES:
            return f"holds {dtype.name.lower()} where codes belong"
        scale = _scale_value(node, operator, operand)
        # Without its scale an integer weight has no range.
        if not isinstance(find_constant(scale), Constant):
            return "whose scale is not constant"
        return "" if dtype in INTEGER_TYPES else f"holds {dtype.name.lower()}"
    if operator.family == "embedding":
        if operator.op_type == "Gather" and _is_plumbing(node, operator, constant):
            return "is not a table"
        return ""
    if constant.is_stored and dtype not in FLOAT_TYPES:
        return f"holds {dtype.name.lower()}"
    return ""


def _is_number(dtype: ir.DataType) -> bool:
    return dtype in FLOAT_TYPES or dtype in INTEGER_TYPES


def _is_plumbing(node: ir.Node, operator: Operator, constant: Constant | Opaque) -> bool:
    """Whether a Gather picks from a shape or an index instead of looking up rows of a table.

    A table holds floats, or integers with a scale, in at least two dimensions, and what is looked
    up depends on the network's input.
    """
    if operator.op_type != "Gather":
        return False
    if isinstance(constant, Opaque) or find_constant(_input(node, 1)) is not None:
        return True
    if constant.dequantizer is None and constant.tensor.dtype not in FLOAT_TYPES:
        return True
    return constant.is_stored and len(dimensions(constant.tensor)) < 2


def _source_of(node: ir.Node, operator: Operator) -> str:
    """What feeds the weight operand of a node that is no layer, in words."""
    index = operator.operands[0].index
    value = node.inputs[index] if index < len(node.inputs) else None
    producer = value.producer() if value is not None else None
    return f"{node.op_type} fed by {producer.op_type if producer else 'an input'}"


def _what_was_met(unread: Counter[str]) -> str:
    if not unread:
        return ""
    met = ", ".join(f"{count} {source}" for source, count in unread.most_common(3))
    return f" (met {met})"


def wrong_weights(operator: str, shape: tuple[int, ...]) -> str:
    """What is wrong with a layer whose weights no such operator has."""
    return f"is {operator} with weights of shape {shape}"


def wrong_groups(group_count: int, shape: tuple[int, ...]) -> str:
    """What is wrong with a convolution whose groups do not share its channels evenly."""
    return f"has {group_count} groups for weights of shape {shape}"


def _check_shape(site: Site, shape: tuple[int, ...]) -> int:
    """Refuse weights that their operator cannot have; the number of groups."""
    is_convolution = site.operator.family in ("conv", "conv_transpose")
    group_count = integer(site.node, "group", 1) if is_convolution else 1
    wrong = ""
    if is_convolution and len(shape) < 3:
        wrong = wrong_weights("a convolution", shape)
    elif group_count < 1 or (is_convolution and shape[0] % group_count):
        wrong = wrong_groups(group_count, shape)
    elif site.operator.op_type in ("Gemm", "FusedGemm", "QGemm") and len(shape) != 2:
        wrong = wrong_weights(f"a {site.operator.op_type}", shape)
    elif site.operator.family == "recurrent" and len(shape) != 3:
        wrong = wrong_weights("a recurrent layer", shape)
    if wrong:
        raise ModelFileError(f"layer {site.name!r} {wrong}", "export the model again")
    return group_count


def _as_float32(array: npt.NDArray[np.generic]) -> Floats:
    # A double beyond float32's range becomes infinite: a runtime could not hold it either.
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype=np.float32)


def _folded(weights: Floats, folding: Folding, axis: int | None, group_count: int) -> Floats:
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


def _channels_first(weights: Floats, axis: int | None, joined: int | None) -> Floats:
    if axis is None:
        return np.ascontiguousarray(weights).reshape(1, -1)
    if joined is not None:
        moved = np.moveaxis(weights, (joined, axis), (0, 1))
        return np.ascontiguousarray(moved).reshape(moved.shape[0] * moved.shape[1], -1)
    moved = np.moveaxis(weights, axis, 0)
    return np.ascontiguousarray(moved).reshape(moved.shape[0], -1)


def within_limits(sites: Sequence[Site]) -> tuple[tuple[Site, ...], str]:
    """As many of a model's layers as the store takes, and what is missing, empty if nothing is."""
    channels = read_again = 0
    seen: set[int] = set()
    for count, site in enumerate(sites):
        shape = dimensions(site.tensor)
        axis = site.operand.channel_axis(site.node, len(shape))
        groups = integer(site.node, "group", 1) if site.operator.family == "conv_transpose" else 1
        channels += 1 if axis is None or axis >= len(shape) else max(1, shape[axis] * groups)
        if id(site.tensor) in seen:
            read_again += site.weight_bytes
        seen.add(id(site.tensor))
        too_many = (
            channels > MOST_CHANNELS or count >= MOST_LAYERS or read_again > MOST_BYTES_READ_AGAIN
        )
        # A single layer, however large, is one that a runtime would hold as well.
        if count > 0 and too_many:
            return tuple(sites[:count]), (
                f"only the first {count:,} of {len(sites):,} layers were measured, because the"
                " store limits the rows of a model"
            )
    return tuple(sites), ""
