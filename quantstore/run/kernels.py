"""What the integer kernels of this processor, and of others, make of a plan.

Floats that are rounded to the same grids give the same figure on every computer. The integers that
a runtime computes with instead may not: on x86 processors without VNNI sums of uint8 x int8
products saturate (``numerics.saturation``). This module writes the file, runs it both ways and
says what is lost, and estimates whether other processors would lose something.
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from quantstore.graph.findings.base import MOST_GAP_DB, KernelFigures
from quantstore.numerics.patches import windows
from quantstore.numerics.saturation import Saturation, saturation
from quantstore.records import Array
from quantstore.run import qdq_file
from quantstore.run.comparison import Reference
from quantstore.run.emulator import Plan
from quantstore.run.network import Network
from quantstore.run.nodes import Node, attribute, consumers, name_of, producers
from quantstore.run.placement import Placement
from quantstore.run.plans import Rounding
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
    float_arithmetic_db: float = math.nan,
    may_saturate: bool | None = None,
) -> KernelFigures:
    """Run a plan with integer kernels where they may saturate, and estimate it for others.

    Args:
        placed, rounding: what ``planned`` was made of.
        reference: what the float network gives on ``samples``.
        folder: for files; nobody else writes there.
        float_arithmetic_db: the figure of the emulator, where it is there already; the file is not
            run in float arithmetic then.
        may_saturate: whether the kernels of this processor may; None looks at the processor.

    Raises:
        RunError: QDQ cannot express the rounding, or onnxruntime refuses the file or stops.
    """
    if not has_mixed_products(rounding):
        return KernelFigures(float_arithmetic_db=float_arithmetic_db)
    model = qdq_file.qdq_model(network, placed, rounding, planned)
    layer, worst = _most_clamped(model, samples[0], folder)
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
    """A node that multiplies codes: ``data`` names computed uint8, ``weights`` are int8."""

    node: Node
    data: str
    zero_point: int
    weights: Array


def _most_clamped(
    model: onnx.ModelProto, sample: Feeds, folder: Path
) -> tuple[str | None, Saturation]:
    """The layer that loses most on a processor without VNNI, None where none does."""
    saturations = clamped_layers(model, sample, folder)
    clamped = {name: layer for name, layer in saturations.items() if layer.share > 0}
    if not clamped:
        return None, Saturation(0.0, math.inf)
    worst = min(clamped, key=lambda name: clamped[name].sqnr_db)
    return worst, clamped[worst]


def clamped_layers(model: onnx.ModelProto, sample: Feeds, folder: Path) -> dict[str, Saturation]:
    """What a processor without VNNI makes of each layer of a QDQ file, on a part of its output.

    Raises:
        RunError: onnxruntime refuses the file or stops.
    """
    multiplied = list(products(model))
    if not multiplied:
        return {}
    names = tuple(dict.fromkeys(product.data for product in multiplied))
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    del observed.graph.output[:]
    # Without a type: the runtime infers it.
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    path = qdq_file.save(observed, folder / "codes.onnx")
    session = Session(path, is_optimized=False)
    codes = dict(zip(names, session.run(sample, names), strict=True))
    return {
        name_of(product.node): saturation(
            *matrices(
                product,
                codes[product.data],
                most_rows=_MOST_ROWS,
                most_columns=_MOST_COLUMNS,
            ),
            product.zero_point,
        )
        for product in multiplied
    }


def products(model: onnx.ModelProto) -> Iterator[Product]:
    """Every MatMul, Gemm and Conv that onnxruntime runs as an integer operator of both types."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made_by, readers = producers(model), consumers(model)
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv"):
            continue
        data, weights = (made_by.get(name) for name in node.input[:2])
        if data is None or weights is None:
            continue
        if not data.op_type == weights.op_type == "DequantizeLinear":
            continue
        stored = constants.get(weights.input[0])
        quantized = made_by.get(data.input[0])
        if (
            stored is None
            or stored.data_type != onnx.TensorProto.INT8
            or quantized is None
            or quantized.op_type != "QuantizeLinear"
        ):
            continue
        array = numpy_helper.to_array(stored)
        if node.op_type == "Conv" and (
            _is_depthwise(node, array) or not _is_requantized(node, readers)
        ):
            # Depthwise kernels add in 32 bits; without a result to round, a Conv stays in float.
            continue
        zero_point = int(numpy_helper.to_array(constants[data.input[2]]))
        yield Product(node, data.input[0], zero_point, array)


def _is_depthwise(node: Node, weights: Array) -> bool:
    group_count = int(attribute(node, "group", 1))
    return bool(weights.shape[1] == 1 and weights.shape[0] == group_count)


def _is_requantized(node: Node, readers: Mapping[str, list[Node]]) -> bool:
    """Whether a rounding follows a node, with at most a Relu or Clip in between."""
    for _ in range(2):
        following = readers.get(node.output[0], [])
        if any(reader.op_type == "QuantizeLinear" for reader in following):
            return True
        if len(following) != 1 or following[0].op_type not in ("Relu", "Clip"):
            return False
        node = following[0]
    return False


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
