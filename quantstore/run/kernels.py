"""What the integer kernels of this processor, and of others, make of a plan.

Floats that are rounded to the same grids give the same figure on every computer. The integers that
a runtime computes with instead may not: on x86 processors without VNNI sums of uint8 x int8
products saturate (``numerics.saturation``). This module writes the file, runs it both ways and
says what is lost, and estimates whether other processors would lose something.
"""

import math
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantstore.graph.findings.base import MOST_GAP_DB, KernelFigures
from quantstore.numerics.patches import windows
from quantstore.numerics.saturation import Saturation, saturation
from quantstore.records import Array
from quantstore.run import qdq_file
from quantstore.run.comparison import Reference
from quantstore.run.emulator import Plan, rounded
from quantstore.run.grids import ActivationGrid
from quantstore.run.network import Network
from quantstore.run.nodes import Node, attribute, name_of
from quantstore.run.placement import Placement
from quantstore.run.plans import Rounding
from quantstore.run.qdq_file import pair_grids
from quantstore.run.roundings import byte_codes, has_byte_codes
from quantstore.run.runtime import Feeds, Session

# Instructions that add uint8 x int8 products in 32 bits, by their names in Linux.
_WIDE_SUMS = {"avx512_vnni", "avx_vnni"}
_CPUINFO = Path("/proc/cpuinfo")
# Of a layer's output this many positions and channels are looked at.
_MOST_ROWS, _MOST_COLUMNS = 8, 16


def cpuinfo() -> str | None:
    """What Linux says of the processor; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def can_saturate(text: str | None) -> bool:
    """Whether the integer kernels of a processor may clamp sums; True where it is not known.

    Args:
        text: of ``/proc/cpuinfo``; None where there is none.
    """
    if text is None:
        return True
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value)
    if "flags" in fields:
        return _WIDE_SUMS.isdisjoint(fields["flags"].split())
    # Linux calls them so on ARM, whose kernels widen before they add.
    return not ("Features" in fields and "CPU architecture" in fields)


def has_mixed_products(rounding: Rounding) -> bool:
    """Whether a rounding multiplies uint8 activations with int8 weights, and QDQ expresses it."""
    scheme, activations = rounding.scheme, rounding.activations
    return (
        scheme is not None
        and activations is not None
        and scheme.is_symmetric
        and not activations.is_symmetric
        and activations.bits == 8
        and not (activations.is_dynamic or activations.is_per_channel_at_depthwise)
    )


def measure(
    network: Network,
    placed: Placement,
    rounding: Rounding,
    planned: Plan,
    samples: Sequence[Feeds],
    reference: Reference,
    folder: Path,
    *,
    clamped: Mapping[str, Saturation],
    float_arithmetic_db: float = math.nan,
    may_saturate: bool | None = None,
) -> KernelFigures:
    """Run a plan with integer kernels where they may saturate, and estimate it for others.

    Args:
        placed, rounding: what ``planned`` was made of.
        reference: what the float network gives on ``samples``.
        folder: for files; nobody else writes there.
        clamped: by the layer, as :func:`clamped_layers` has them.
        float_arithmetic_db: the figure of the emulator, where it is there already; the file is not
            run in float arithmetic then.
        may_saturate: whether the kernels of this processor may; None looks at the processor.

    Raises:
        RunError: QDQ cannot express the rounding, or onnxruntime refuses the file or stops.
    """
    if not has_mixed_products(rounding):
        return KernelFigures(float_arithmetic_db=float_arithmetic_db)
    layer, worst = _most_clamped(clamped)
    if not (can_saturate(cpuinfo()) if may_saturate is None else may_saturate):
        return KernelFigures(
            float_arithmetic_db=float_arithmetic_db,
            saturating_share=worst.share,
            saturating_sqnr_db=worst.sqnr_db,
            saturating_layer=layer,
        )

    def figure(file: Path, *, has_integer_kernels: bool) -> float:
        session = Session(file, has_integer_kernels=has_integer_kernels)
        return reference.median_db(session.run(sample, network.outputs) for sample in samples)

    model = qdq_file.qdq_model(network, placed, rounding, planned)
    path = qdq_file.save(model, folder / "kernels.onnx")
    in_floats = float_arithmetic_db
    if math.isnan(in_floats):
        in_floats = figure(path, has_integer_kernels=False)
    in_integers = figure(path, has_integer_kernels=True)
    unsigned = math.nan
    if in_floats - in_integers > MOST_GAP_DB:
        other = qdq_file.qdq_model(network, placed, rounding, planned, weights_unsigned=True)
        other_path = qdq_file.save(other, folder / "kernels-unsigned.onnx")
        unsigned = figure(other_path, has_integer_kernels=True)
    return KernelFigures(
        float_arithmetic_db=in_floats,
        integer_kernels_db=in_integers,
        unsigned_weights_db=unsigned,
        saturating_share=worst.share,
        saturating_sqnr_db=worst.sqnr_db,
        saturating_layer=layer,
    )


@dataclass(frozen=True, slots=True)
class Product:
    """A node that multiplies codes: those of the tensor ``data`` by int8 ``weights``.

    ``grid``: of the data. ``observed``: the tensor of a ``FixedEmulator`` that holds it, as bytes
    or as the floats that stand for them.
    """

    node: Node
    data: str
    grid: ActivationGrid
    observed: str
    weights: Array

    @property
    def zero_point(self) -> int:
        return int(-self.grid.lowest[0])

    def codes(self, tensor: Array) -> Array:
        """The codes of the data, of the observed tensor."""
        if tensor.dtype == np.uint8:
            return tensor
        codes: Array = (np.rint(tensor / self.grid.scale[0]) - self.grid.lowest[0]).astype(np.uint8)
        return codes


def _most_clamped(clamped: Mapping[str, Saturation]) -> tuple[str | None, Saturation]:
    """The layer that loses most on a processor without VNNI, None where none does."""
    losing = {name: layer for name, layer in clamped.items() if layer.share > 0}
    if not losing:
        return None, Saturation(0.0, math.inf)
    worst = min(losing, key=lambda name: losing[name].sqnr_db)
    return worst, losing[worst]


def clamped_layers(
    multiplied: Iterable[Product], tensors: Mapping[str, Array]
) -> dict[str, Saturation]:
    """What a processor without VNNI makes of each layer, on a part of its output.

    Args:
        tensors: by the name of what a product observes, of one sample.
    """
    return {
        name_of(product.node): saturation(
            *matrices(
                product,
                product.codes(tensors[product.observed]),
                most_rows=_MOST_ROWS,
                most_columns=_MOST_COLUMNS,
            ),
            product.zero_point,
        )
        for product in multiplied
    }


def observed_tensors(network: Network, placed: Placement, planned: Plan) -> tuple[str, ...]:
    """The tensors of a ``FixedEmulator`` that :func:`products` observe, whatever the weights."""
    pairs = _multiplying(network, placed, planned)
    return tuple(dict.fromkeys(_observed(node, planned) for node, _ in pairs))


def products(network: Network, placed: Placement, planned: Plan) -> Iterator[Product]:
    """Every MatMul, Gemm and Conv that onnxruntime runs as an integer operator of both types.

    Args:
        placed: what ``planned`` was made of, a plan that :func:`has_mixed_products`.
    """
    for node, grid in _multiplying(network, placed, planned):
        name = node.input[1]
        values, slot = planned.constants[name], network.slot_of.get(name)
        integers = qdq_file.weight_integers(values, planned.constant_grids[name], slot)
        # What has to be brought into shape behind DequantizeLinear is no operand of integers.
        if integers is not None and integers.shape is None:
            yield Product(node, node.input[0], grid, _observed(node, planned), integers.codes)


def _observed(node: Node, planned: Plan) -> str:
    name = node.input[0]
    grid = planned.grids.get(name)
    if grid is None:
        # It only moves values of a rounded tensor, and is not rounded again.
        return str(name)
    return byte_codes(rounded(name)) if has_byte_codes(grid) else rounded(name)


def _multiplying(
    network: Network, placed: Placement, planned: Plan
) -> Iterator[tuple[Node, ActivationGrid]]:
    """The nodes whose data has codes, and the grid of the data."""
    grids = {name: grid for name, (_, grid) in pair_grids(network, placed, planned).items()}
    readers = network.readers
    for node in network.model.graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv") or node.input[0] not in grids:
            continue
        name = node.input[1]
        if name in placed.constants or name not in planned.constant_grids:
            continue
        if node.op_type == "Conv" and (
            _is_depthwise(node, network.constant(name)) or not _is_requantized(node, grids, readers)
        ):
            # Depthwise kernels add in 32 bits; without a result to round, a Conv stays in float.
            continue
        yield node, grids[node.input[0]]


def _is_depthwise(node: Node, weights: Array) -> bool:
    group_count = int(attribute(node, "group", 1))
    return bool(weights.shape[1] == 1 and weights.shape[0] == group_count)


def _is_requantized(node: Node, grids: Collection[str], readers: Mapping[str, list[Node]]) -> bool:
    """Whether a rounding follows a node, with at most a Relu or Clip in between."""
    if node.output[0] in grids:
        return True
    following = readers.get(node.output[0], [])
    if len(following) != 1 or following[0].op_type not in ("Relu", "Clip"):
        return False
    return following[0].output[0] in grids


def matrices(
    product: Product,
    codes: Array,
    *,
    group: int = 0,
    most_rows: int | None = None,
    most_columns: int | None = None,
) -> tuple[Array, Array]:
    """The matrix product that a node computes: ``(rows, K)`` and ``(K, columns)``.

    Args:
        codes: of the data; of a stack of images or matrices the first is taken, as rows of all
            matrices are where they share weights.
        group: of a Conv in groups.
        most_rows, most_columns: how many of them, evenly spread; None for all.
    """
    if product.node.op_type == "Conv":
        data, weights = _patches(product, codes, group, most_rows)
    else:
        weights = product.weights if product.weights.ndim > 1 else product.weights[:, None]
        weights = weights.reshape(-1, *weights.shape[-2:])[0]
        if attribute(product.node, "transB", 0):
            weights = weights.T
        if attribute(product.node, "transA", 0):
            codes = codes.T
        data = codes.reshape(-1, codes.shape[-1])
        data = data[_spread(len(data), most_rows)]
    return data, weights[:, _spread(weights.shape[1], most_columns)]


def _patches(
    product: Product, codes: Array, group: int, most_rows: int | None
) -> tuple[Array, Array]:
    """Patches of the first image, and kernels, channels last as onnxruntime multiplies them."""
    node = product.node
    group_count = attribute(node, "group", 1)
    size = max(1, product.weights.shape[0] // group_count)
    kernels = product.weights[group * size : (group + 1) * size]
    depth, rank = kernels.shape[1], kernels.ndim - 2
    strides = attribute(node, "strides", [1] * rank)
    dilations = attribute(node, "dilations", [1] * rank)
    pads = attribute(node, "pads", [0] * 2 * rank)
    image = codes[0, group * depth : (group + 1) * depth]
    views = windows(
        image,
        kernels.shape[2:],
        strides=strides,
        dilations=dilations,
        pads=pads,
        # The number zero, not the code 0, is what lies around an image.
        filling=product.zero_point,
    )
    positions = views.shape[1 : rank + 1]
    chosen = np.unravel_index(_spread(int(np.prod(positions)), most_rows), positions)
    everything: Any = slice(None)
    patches = np.moveaxis(views[(everything, *chosen)], 0, -1)
    return (
        patches.reshape(len(patches), -1),
        np.moveaxis(kernels, 1, -1).reshape(len(kernels), -1).T,
    )


def _spread(count: int, most: int | None) -> Array:
    """Indices from the first to the last, evenly, at most so many."""
    if most is None or count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(int)
