"""Which layers can trade scale with each other: a graph in, pairs of its layers out.

Multiply output channel i of one layer by a positive factor, divide input channel i of the next by
the same factor: if nothing between them minds, the network computes the same. Cross-layer
equalization lives on that (Nagel et al., "Data-Free Quantization Through Weight Equalization and
Bias Correction", 2019, https://arxiv.org/abs/1906.04721).
"""

import onnx_ir as ir

from quantstore.graph.attributes import integer
from quantstore.graph.batchnorm import folding_after
from quantstore.graph.constants import Constant, find_constant, only_consumer
from quantstore.graph.file import ModelFile
from quantstore.graph.operators import STANDARD_DOMAINS
from quantstore.graph.tensors import FLOAT_TYPES, dimensions
from quantstore.graph.walk import Site

# f(s x) = s f(x) for every s > 0, element by element: what the first input is multiplied by comes
# out again. Sigmoid and what is made of it (SiLU, HardSwish) bend, and Clip at 6 has an edge that
# does not move along. Pooling would qualify, but the paper does not list it.
POSITIVELY_HOMOGENEOUS = frozenset(("Relu", "LeakyRelu", "PRelu", "Identity", "Dropout"))

# The layers that take part; a matrix product would too, where the graph says which axis is which.
_PAIRED = ("Conv", "Gemm")
# Both have their data in front of their weights, and a bias behind them.
_DATA, _WEIGHTS, _BIAS = 0, 1, 2
# Shift and mean of a BatchNormalization: they become part of a bias when it is folded.
_SHIFT_AND_MEAN = (2, 3)


def find_pairs(file: ModelFile, sites: list[Site], *, fold: bool) -> list[tuple[int, int]]:
    """Layers that only one other layer follows, with nothing between that minds a factor.

    The first is a Conv or Gemm with constant bias, or none. A BatchNormalization or a constant Mul
    behind it belongs to it where ``fold`` is on and it can be folded, else it ends the search. Then
    come any number of :data:`POSITIVELY_HOMOGENEOUS` nodes, and the second, a Conv (of any number
    of groups) or a Gemm, which reads the result as its data. Each value on the way has a single
    reader in the same graph and is no output; the weights of both are float, as the file stores
    them, and read by nobody else, since a factor that suits this pair would change the other
    reader's result.

    Args:
        sites: of this file, as ``find_sites`` lists them.
        fold: whether layers are read with BatchNormalization folded into them.

    Returns:
        Positions in ``sites``: the first of the pair and the second, in the order of the firsts. A
        layer can be the second of one pair and the first of another.
    """
    positions = {id(site.node): position for position, site in enumerate(sites)}
    pairs: list[tuple[int, int]] = []
    for position, first in enumerate(sites):
        if not _takes_part(first):
            continue
        node = _layer_behind(file, first, fold=fold)
        if node is None or id(node) not in positions:
            continue
        second = sites[positions[id(node)]]
        if _takes_part(second) and _output_channels(first) == _input_channels(second):
            pairs.append((position, positions[id(node)]))
    return pairs


def _takes_part(site: Site) -> bool:
    shape = dimensions(site.tensor)
    return (
        site.node.op_type in _PAIRED
        and site.operand.index == _WEIGHTS
        and site.is_stored
        and site.tensor.dtype in FLOAT_TYPES
        and len(shape) >= 2
        and 0 not in shape
        and _has_no_other_reader(site.node.inputs[_WEIGHTS])
    )


def _has_no_other_reader(weights: ir.Value | None) -> bool:
    """Whether one node alone reads the stored weights, through however many Identity nodes."""
    while weights is not None:
        if only_consumer(weights) is None:
            return False
        producer = weights.producer()
        # A constant leads back through Identity nodes only, or to a Constant, which reads nothing.
        weights = producer.inputs[0] if producer is not None and producer.inputs else None
    return True


def _layer_behind(file: ModelFile, first: Site, *, fold: bool) -> ir.Node | None:
    """The Conv or Gemm that a factor on the first one's output reaches unharmed."""
    if not _is_constant_or_absent(first.node, _BIAS):
        return None
    value = _result(first.node)
    channels = _output_channels(first)
    folding = None
    if fold and channels is not None:
        rank = len(dimensions(first.tensor))
        folding = folding_after(first.node, channels, file.opset or 1, rank=rank)
    if folding is not None:
        normalization = folding.normalization
        if normalization is not None and not all(
            _is_constant_or_absent(normalization, index) for index in _SHIFT_AND_MEAN
        ):
            return None
        value = _result(folding.node)
    while True:
        node = None if value is None else only_consumer(value)
        if (
            node is None
            or node.graph is not first.node.graph
            or node.domain not in STANDARD_DOMAINS
            or node.inputs[_DATA] is not value
        ):
            return None
        if node.op_type in _PAIRED:
            # Transposed data has its channels in front, where a Gemm looks for the rows.
            return None if integer(node, "transA", 0) else node
        if node.op_type not in POSITIVELY_HOMOGENEOUS:
            return None
        value = _result(node)


def _result(node: ir.Node) -> ir.Value | None:
    return node.outputs[0] if node.outputs else None


def _is_constant_or_absent(node: ir.Node, index: int) -> bool:
    value = node.inputs[index] if index < len(node.inputs) else None
    return value is None or isinstance(find_constant(value), Constant)


def _output_channels(site: Site) -> int | None:
    shape = dimensions(site.tensor)
    axis = site.operand.channel_axis(site.node, len(shape))
    return None if axis is None else shape[axis]


def _input_channels(site: Site) -> int | None:
    shape = dimensions(site.tensor)
    axis = site.operand.channel_axis(site.node, len(shape))
    if axis is None:
        return None
    # Gemm has two axes, and Conv counts the input channels of one group on axis 1.
    return shape[1 - axis] * integer(site.node, "group", 1)
