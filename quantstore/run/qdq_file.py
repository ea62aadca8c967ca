"""A network and a plan in, a file that int8 runtimes load out: the QDQ format.

Every rounded tensor passes a QuantizeLinear and a DequantizeLinear, constants are integers behind
a DequantizeLinear, and everything else is the network as it is. What the file computes in float
arithmetic is what ``emulator`` computes under the same plan, bit for bit in most cases.

Tensors that only move values of a rounded one pass a pair with the same grid too. Nothing changes
by that, but a runtime replaces "DequantizeLinear, operator, QuantizeLinear" with an integer
operator only where all three are there.

Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html and
https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantstore.errors import RunError
from quantstore.records import Array, Floats
from quantstore.run import twin
from quantstore.run.emulator import Plan
from quantstore.run.grids import ActivationGrid
from quantstore.run.network import Network
from quantstore.run.nodes import producers, subgraphs
from quantstore.run.placement import Placement
from quantstore.run.plans import Rounding, bias_codes
from quantstore.schemes import Scheme
from quantstore.version import __version__

PRODUCER = "quantstore"
# protobuf holds 2 GB, and the graph needs some of it.
MOST_INLINE_BYTES = (2 << 30) - (64 << 20)
# QuantizeLinear knows 16 bits since this operator set; onnxruntime's own domain always did.
# https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
WIDE_OPSET = 21
_MICROSOFT = "com.microsoft"
_MOST_CODES_OF_8_BITS = 255
# int8 codes of weights as uint8: this is added to each, and is the zero point.
UNSIGNED_ZERO_POINT = 128
# Weights that are this far from the number their code stands for, in steps, lie on no grid.
_OFF_GRID_STEPS = 1e-3

IS_DYNAMIC = "scales found at run time cannot be written as QuantizeLinear and DequantizeLinear"
IS_PER_CHANNEL = "onnxruntime has no integer operator for activations with a scale per channel"
NEEDS_INTEGERS = (
    "weights are written as symmetric integers of at most 8 bits, per tensor or channel"
)
_OTHER_TARGET = "choose a target with one scale per activation tensor, such as int8_channel"


def qdq_model(
    network: Network,
    placed: Placement,
    rounding: Rounding,
    planned: Plan,
    *,
    weights_unsigned: bool = False,
    is_per_channel_allowed: bool = False,
) -> onnx.ModelProto:
    """The network with its roundings, as a model that needs no other inputs than samples.

    Args:
        placed, rounding: what ``planned`` was made of. Tensors and constants that ``planned``
            leaves out stay in float.
        weights_unsigned: store the same weights as uint8 with zero point 128. Nothing is lost, and
            sums of products can no longer saturate on processors without VNNI.
        is_per_channel_allowed: write activations with a scale for each channel, too. onnxruntime
            has no integer operators for them and computes in floats; other runtimes have some.

    Raises:
        RunError: QDQ cannot express the rounding.
    """
    _check(rounding, planned, is_per_channel_allowed=is_per_channel_allowed)
    writer = _Writer(network, planned, rounding, weights_unsigned=weights_unsigned)
    for name, array in network.constants.items():
        writer.add_constant(name, array, placed)
    for tensor in network.model.graph.initializer:
        if tensor.name in planned.constants:
            writer.add_constant(tensor.name, network.float_constants[tensor.name], placed)
        else:
            writer.graph.initializer.append(tensor)
    writer.add_nodes(pair_grids(network, placed, planned))
    return writer.model()


def save(model: onnx.ModelProto, path: Path, *, most_inline_bytes: int = MOST_INLINE_BYTES) -> Path:
    """Write a model; one beyond protobuf's 2 GB leaves its constants in ``NAME.data`` beside it.

    Raises:
        RunError: the file cannot be written.
    """
    constant_bytes = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    location = f"{path.name}.data"
    try:
        if constant_bytes <= most_inline_bytes:
            path.write_bytes(model.SerializeToString())
            return path
        # onnx appends to a file that is there.
        path.with_name(location).unlink(missing_ok=True)
        onnx.save_model(model, str(path), save_as_external_data=True, location=location)
    except OSError as error:
        raise RunError(
            f"{path.name} cannot be written: {error.strerror or error}", "choose another folder"
        ) from error
    return path


def _check(rounding: Rounding, planned: Plan, *, is_per_channel_allowed: bool) -> None:
    scheme, activations = rounding.scheme, rounding.activations
    if activations is not None and activations.is_dynamic:
        raise RunError(IS_DYNAMIC, _OTHER_TARGET)
    is_per_channel = any(grid.scale.size > 1 for grid in planned.grids.values())
    if is_per_channel and not is_per_channel_allowed:
        raise RunError(IS_PER_CHANNEL, _OTHER_TARGET)
    if scheme is not None and not _is_plain(scheme):
        raise RunError(NEEDS_INTEGERS, "choose a target such as int8_channel")


def _is_plain(scheme: Scheme) -> bool:
    return (
        scheme.number == "int"
        and scheme.bits <= 8
        and scheme.is_symmetric
        and scheme.granularity != "block"
    )


@dataclass(frozen=True, slots=True)
class Integers:
    """A constant as DequantizeLinear reads it.

    ``scale``: one number, or one for each index of ``axis``. ``shape``: what comes out has to be
    brought into this shape; None where it has it.
    """

    codes: Array
    scale: Floats
    zero_point: int
    axis: int | None = None
    shape: tuple[int, ...] | None = None


def pair_grids(
    network: Network, placed: Placement, planned: Plan
) -> dict[str, tuple[str, ActivationGrid]]:
    """By the tensor that gets a pair: the tensor or constant whose grid it has, and the grid."""
    grid_by_root = {placed.grid_of[name]: grid for name, grid in planned.grids.items()}
    grid_by_root |= {
        name: planned.constant_grids[name]
        for name in placed.constants
        if name in planned.constants and name in planned.constant_grids
    }
    grids = {name: (placed.grid_of[name], grid) for name, grid in planned.grids.items()}
    on_grid = {*grids, *placed.constants}
    made_by = producers(network.model)
    # In the order of the graph: what a moved tensor was made of comes before it.
    for name in network.tensors:
        root = placed.grid_of.get(name)
        if root is None or name in grids or root not in grid_by_root:
            continue
        if made_by[name].input[0] in on_grid:
            grids[name] = root, grid_by_root[root]
            on_grid.add(name)
    return grids


class _Writer:
    """The graph that is written, and the names that are taken in it."""

    def __init__(
        self, network: Network, planned: Plan, rounding: Rounding, *, weights_unsigned: bool
    ) -> None:
        self.network = network
        self.planned = planned
        self.rounding = rounding
        self.weights_unsigned = weights_unsigned
        self.graph = onnx.GraphProto(name=network.model.graph.name or "graph")
        self._taken = set(_names(network.model.graph))
        # Slots have names of ours in the network; the file calls them what their model called them.
        self._renamed: dict[str, str] = {}
        # By the root of a grid, and by how wide it is: the names of its scale and zero point.
        self._grid_names: dict[tuple[str, bool], tuple[str, str]] = {}
        activations = rounding.activations
        self._is_signed = activations is not None and activations.is_symmetric
        self._used_domains: set[str] = set()
        self._opset = next(
            used.version for used in network.model.opset_import if used.domain in ("", "ai.onnx")
        )

    def model(self) -> onnx.ModelProto:
        """Everything that was added, as a model."""
        source = self.network.model
        model = onnx.ModelProto(
            ir_version=source.ir_version,
            producer_name=PRODUCER,
            producer_version=__version__,
            graph=self.graph,
        )
        model.opset_import.extend(source.opset_import)
        domains = {used.domain for used in source.opset_import}
        if _MICROSOFT in self._used_domains - domains:
            model.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))
        model.functions.extend(source.functions)
        return model

    def _domain(self, *, is_wide: bool) -> str:
        """Of QuantizeLinear and DequantizeLinear with so many bits."""
        domain = _MICROSOFT if is_wide and self._opset < WIDE_OPSET else ""
        self._used_domains.add(domain)
        return domain

    # Constants

    def add_constant(self, name: str, array: Array, placed: Placement) -> None:
        """A constant of the network: as integers where the plan gives it a grid, else as it is."""
        called = self._name_of(name)
        values = self.planned.constants.get(name, array)
        integers = self._integers(name, values, array, placed)
        if integers is None:
            self.graph.initializer.append(numpy_helper.from_array(np.asarray(values), called))
            return
        stored, scale, zero_point = (
            self._fresh(f"{called}_{part}") for part in ("quantized", "scale", "zero_point")
        )
        zeros = np.full(integers.scale.shape, integers.zero_point, integers.codes.dtype)
        for tensor_name, content in (
            (stored, integers.codes),
            (scale, integers.scale),
            (zero_point, zeros),
        ):
            self.graph.initializer.append(numpy_helper.from_array(content, tensor_name))
        is_wide = integers.codes.dtype in (np.uint16, np.int16)
        output = called if integers.shape is None else self._fresh(f"{called}_rows")
        node = helper.make_node(
            "DequantizeLinear",
            [stored, scale, zero_point],
            [output],
            self._fresh(f"{called}_DequantizeLinear"),
            domain=self._domain(is_wide=is_wide),
        )
        if integers.axis is not None:
            node.attribute.append(helper.make_attribute("axis", integers.axis))
        self.graph.node.append(node)
        if integers.shape is not None:
            sizes = self._fresh(f"{called}_shape")
            self.graph.initializer.append(
                numpy_helper.from_array(np.array(integers.shape, np.int64), sizes)
            )
            self.graph.node.append(helper.make_node("Reshape", [output, sizes], [called]))
        if name in placed.constants:
            self._grid_names[name, is_wide] = scale, zero_point

    def _name_of(self, name: str) -> str:
        slot = self.network.slot_of.get(name)
        if slot is None:
            return name
        original = slot.site.tensor.name or slot.site.name
        self._renamed[name] = self._fresh(original)
        return self._renamed[name]

    def _integers(
        self, name: str, values: Array, array: Array, placed: Placement
    ) -> Integers | None:
        """A constant's codes; None where the plan leaves it in float or no grid holds it."""
        grid = self.planned.constant_grids.get(name)
        if grid is None or name not in self.planned.constants or values.dtype != np.float32:
            return None
        if any(bias.name == name for bias in placed.biases):
            return _bias(array, grid)
        if name in placed.constants:
            dtype = self._dtype(grid)
            zero_point = 0 if self._is_signed else int(-grid.lowest[0])
            codes = np.rint(values / grid.scale[0]) + zero_point
            return Integers(codes.astype(dtype), grid.scale.reshape(()), zero_point)
        integers = weight_integers(values, grid, self.network.slot_of.get(name))
        if integers is None or not self.weights_unsigned:
            return integers
        shifted = (integers.codes.astype(np.int16) + UNSIGNED_ZERO_POINT).astype(np.uint8)
        return Integers(shifted, integers.scale, UNSIGNED_ZERO_POINT, integers.axis, integers.shape)

    def _dtype(self, grid: ActivationGrid) -> np.dtype[Any]:
        """What activations on a grid are stored as."""
        return np.dtype(f"{'int' if self._is_signed else 'uint'}{16 if _is_wide(grid) else 8}")

    # Nodes

    def add_nodes(self, grids: Mapping[str, tuple[str, ActivationGrid]]) -> None:
        """Inputs, nodes and outputs of the network, with a pair behind each of these tensors."""
        source = self.network.model.graph
        for value in source.input:
            if value.name in self.network.constants:
                continue
            self.graph.input.append(value)
            if value.name in grids:
                # The caller feeds this name: what reads it must read another one.
                result = self._fresh(f"{value.name}_DequantizeLinear_Output")
                self.graph.node.extend(
                    self._pair(value.name, value.name, result, *grids[value.name])
                )
                self._renamed[value.name] = result
        self.graph.node.extend(self._nodes(source, grids, self._renamed))
        self.graph.output.extend(_with_shape(value, self.network) for value in source.output)
        # Shapes of tensors whose name now belongs to the same values, rounded.
        self.graph.value_info.extend(value for value in source.value_info if value.HasField("type"))

    def _nodes(
        self,
        graph: Any,
        grids: Mapping[str, tuple[str, ActivationGrid]],
        renamed: Mapping[str, str],
    ) -> Iterator[onnx.NodeProto]:
        """The nodes of a graph or body, with a pair behind each of these tensors."""
        for node in graph.node:
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            for index, name in enumerate(node.input):
                copied.input[index] = renamed.get(name, name)
            for body in subgraphs(copied):
                self._round_body(body, grids, renamed)
            # The result of a pair takes the name of the tensor, so that outputs keep theirs.
            raw_names = {
                name: self._fresh(f"{name}_QuantizeLinear_Input")
                for name in node.output
                if name in grids
            }
            for index, name in enumerate(node.output):
                copied.output[index] = raw_names.get(name, name)
            yield copied
            for name, raw in raw_names.items():
                yield from self._pair(name, raw, name, *grids[name])

    def _round_body(
        self,
        body: Any,
        grids: Mapping[str, tuple[str, ActivationGrid]],
        renamed: Mapping[str, str],
    ) -> None:
        """The same of a body, in place; what it is given is renamed, for its caller names that."""
        inner_names = {name for node in body.node for name in node.output}
        inner_names |= {value.name for value in (*body.input, *body.initializer)}
        outer = {old: new for old, new in renamed.items() if old not in inner_names}
        pairs: list[onnx.NodeProto] = []
        for value in body.input:
            if value.name in grids:
                result = self._fresh(f"{value.name}_DequantizeLinear_Output")
                pairs += self._pair(value.name, value.name, result, *grids[value.name])
                outer[value.name] = result
        nodes = [*pairs, *self._nodes(body, grids, outer)]
        del body.node[:]
        body.node.extend(nodes)
        for value in body.output:
            value.name = outer.get(value.name, value.name)

    def _pair(
        self, name: str, read: str, result: str, root: str, grid: ActivationGrid
    ) -> Iterator[onnx.NodeProto]:
        """QuantizeLinear and DequantizeLinear."""
        is_wide = _is_wide(grid)
        scale, zero_point = self._grid_names.get((root, is_wide)) or self._add_grid(root, grid)
        codes = self._fresh(f"{name}_QuantizeLinear_Output")
        for op_type, tensor, output in (
            ("QuantizeLinear", read, codes),
            ("DequantizeLinear", codes, result),
        ):
            node = helper.make_node(
                op_type,
                [tensor, scale, zero_point],
                [output],
                self._fresh(f"{name}_{op_type}"),
                domain=self._domain(is_wide=is_wide),
            )
            if grid.scale.size > 1:
                node.attribute.append(helper.make_attribute("axis", 1))
            yield node

    def _add_grid(self, root: str, grid: ActivationGrid) -> tuple[str, str]:
        names = self._fresh(f"{root}_scale"), self._fresh(f"{root}_zero_point")
        shape = () if grid.scale.size == 1 else (-1,)
        lowest = grid.lowest.reshape(shape)
        zero_points = np.zeros_like(lowest) if self._is_signed else -lowest
        for name, content in (
            (names[0], grid.scale.reshape(shape)),
            (names[1], zero_points.astype(self._dtype(grid))),
        ):
            self.graph.initializer.append(numpy_helper.from_array(content, name))
        self._grid_names[root, _is_wide(grid)] = names
        return names

    def _fresh(self, name: str) -> str:
        """A name that nothing in the file has yet, this one if possible."""
        number, free = 1, name
        while free in self._taken:
            number += 1
            free = f"{name}_{number}"
        self._taken.add(free)
        return free


def _is_wide(grid: ActivationGrid) -> bool:
    """Whether a grid has more codes than 8 bits hold."""
    return float(np.max(grid.highest - grid.lowest)) > _MOST_CODES_OF_8_BITS


def _bias(array: Array, grid: ActivationGrid) -> Integers | None:
    """A bias as int32; None where its scales belong to no axis of it."""
    codes = bias_codes(array, grid.scale).astype(np.int32).reshape(array.shape)
    if grid.scale.size == 1:
        return Integers(codes, grid.scale.reshape(()), 0)
    axes = [axis for axis, size in enumerate(array.shape) if size == array.size]
    return Integers(codes, grid.scale, 0, axes[0]) if axes else None


def weight_integers(values: Array, grid: ActivationGrid, slot: twin.Slot | None) -> Integers | None:
    """Weights as int8; None where no scale for each channel leads to these numbers."""
    scale = grid.scale
    axis, shape, stored = None, None, values
    if slot is not None and (scale.size > 1 or slot.factor is not None):
        axis = slot.site.operand.channel_axis(slot.site.node, values.ndim)
        joined = slot.site.operand.joined_axis
        if axis is None or (joined is not None and values.shape[joined] > 1):
            if slot.factor is not None or values.size % scale.size:
                return None
            # Rows of several directions follow one another, and all count as channels.
            axis, shape, stored = 0, values.shape, values.reshape(scale.size, -1)
        if slot.factor is not None:
            factor = np.moveaxis(np.broadcast_to(slot.factor, values.shape), axis, 0)
            by_channel = factor.reshape(factor.shape[0], -1)
            if not (by_channel == by_channel[:, :1]).all() or not by_channel[:, 0].all():
                return None
            # A scale is positive; the sign goes into the codes, which are as many on either side.
            scale = (scale / np.abs(by_channel[:, 0])).astype(np.float32)
        if scale.size != stored.shape[axis]:
            return None
    elif scale.size > 1:
        return None
    spread = scale.reshape([-1 if index == axis else 1 for index in range(stored.ndim)])
    if axis is None:
        scale = spread = scale.reshape(())
    with np.errstate(all="ignore"):
        steps = stored / spread
        codes = np.rint(steps)
        is_on_grid = np.abs(steps - codes) <= _OFF_GRID_STEPS
    if not (is_on_grid & (np.abs(codes) <= grid.highest.max())).all():
        return None
    return Integers(codes.astype(np.int8), scale, 0, axis, shape)


def _with_shape(value: onnx.ValueInfoProto, network: Network) -> onnx.ValueInfoProto:
    """An output with the type and shape that onnx.checker demands, where they are known."""
    facts = network.tensors.get(value.name)
    # onnxruntime says () where it does not know the rank, too.
    if value.type.tensor_type.HasField("shape") or facts is None or not facts.shape:
        return value
    return helper.make_tensor_value_info(value.name, facts.element_type, facts.shape)


def _names(graph: Any) -> Iterator[str]:
    """Every name of a tensor or node in a graph and its subgraphs."""
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    for node in graph.node:
        yield from (node.name, *node.output, *node.input)
        for inner in subgraphs(node):
            yield from _names(inner)
