"""A model that computes with integers, back in float arithmetic: in place, one form at a time.

Four forms are known: dynamic quantization (ConvInteger, MatMulInteger), pairs of QuantizeLinear
and DequantizeLinear (QDQ), the operators that take scales along (QLinearConv and its kin), and
those that dequantize for themselves (DynamicQuantizeLSTM, QAttention and others).
Weights become the floats they stand for. Where the file stores the range of an activation, a Clip
to that range stays: saturation is part of what the network computes. Rounding of activations goes;
the grids that it used are returned, for those who put it back (``auditing``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from quantstore.graph.attributes import integer, number
from quantstore.graph.constants import constant_tensor
from quantstore.graph.dequantize import weight_scale
from quantstore.graph.operators import MICROSOFT
from quantstore.graph.tensors import read_array
from quantstore.records import Array, Floats

_DYNAMIC = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}


@dataclass(frozen=True, slots=True)
class _Codes:
    """Where an operator has stored weights: indices of codes, scale and zero point.

    ``axis``: that scales run along, where there are several. ``is_transposed``: the last two axes
    stand the other way round in the float operator.
    """

    index: int
    scale: int
    zero_point: int
    axis: int
    is_transposed: bool = False


@dataclass(frozen=True, slots=True)
class _Fused:
    """An operator that dequantizes for itself. ``takes``: its inputs that the float operator has,
    in that order, None where it has one that this operator lacks. ``data``: which of them is
    rounded, and ``bias``: which is added, where the float operator does not add it.
    """

    op_type: str
    domain: str
    codes: tuple[_Codes, ...]
    takes: tuple[int | None, ...]
    data: int | None = 0
    bias: int | None = None


# Inputs as https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md has them.
_FUSED = {
    "DynamicQuantizeMatMul": _Fused("MatMul", "", (_Codes(1, 2, 3, -1),), (0, 1), bias=4),
    "MatMulIntegerToFloat": _Fused("MatMul", "", (_Codes(1, 3, 5, -1),), (0, 1), bias=6),
    "DynamicQuantizeLSTM": _Fused(
        "LSTM",
        "",
        (_Codes(1, 8, 9, 0, is_transposed=True), _Codes(2, 10, 11, 0, is_transposed=True)),
        tuple(range(8)),
    ),
    "QAttention": _Fused("Attention", MICROSOFT, (_Codes(1, 4, 7, -1),), (0, 1, 2, 5, 8)),
    "QEmbedLayerNormalization": _Fused(
        "EmbedLayerNormalization",
        MICROSOFT,
        tuple(_Codes(index, index + 6, index + 11, 0) for index in range(2, 7)),
        tuple(range(8)),
        data=None,
    ),
}
_SCALED = {"QLinearConv": "Conv", "QLinearMatMul": "MatMul"}
# By the operator: what it computes, and where its output's scale stands; the zero point is next.
# https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
_ONE_OPERAND = {
    "QLinearGlobalAveragePool": ("GlobalAveragePool", 3),
    "QLinearAveragePool": ("AveragePool", 3),
    "QLinearReduceMean": ("ReduceMean", 3),
    "QLinearSigmoid": ("Sigmoid", 3),
    "QLinearLeakyRelu": ("LeakyRelu", 3),
    "QLinearSoftmax": ("Softmax", 3),
}
_TWO_OPERANDS = {"QLinearAdd": "Add", "QLinearMul": "Mul"}
# What the float operator does not know.
_OF_INTEGERS_ONLY = ("channels_last", "opset")
# They move integers about without computing, and so do the same with floats.
_MOVING = (
    "Reshape",
    "Transpose",
    "MaxPool",
    "Flatten",
    "Resize",
    "Slice",
    "Squeeze",
    "Unsqueeze",
    "Split",
    "Gather",
    "DepthToSpace",
    "SpaceToDepth",
)


@dataclass(frozen=True, slots=True)
class ChannelGrids:
    """Grids of the channels of a tensor, in a shape that broadcasts against it; as NNCF writes them
    in front of depthwise convolutions.
    """

    scale: Floats
    lowest: Floats
    highest: Floats


@dataclass(frozen=True, slots=True)
class StoredGrid:
    """Where a file rounds an activation, and on which grid.

    ``source``: what is rounded. ``clip``: the node that stands in place of the rounding and limits
    ``source`` to the ends of the grid, or lets it pass where the grid is found at run time (then
    ``scale`` is 0). ``lowest`` and ``highest`` count from the zero point. ``file_tensor``: what the
    file calls the rounded tensor, which holds codes of ``code_type`` where ``has_codes``.
    ``channels``: where each channel has a grid of its own; ``scale`` is the largest of them then.
    """

    source: ir.Value
    clip: ir.Node
    scale: float
    zero_point: int
    lowest: float
    highest: float
    file_tensor: str
    has_codes: bool
    code_type: ir.DataType = ir.DataType.UINT8
    channels: "ChannelGrids | None" = None

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """What stands in place of the rounding: of channels, a Max and a Min."""
        above = self.clip.inputs[0] if self.channels is not None else None
        maximum = None if above is None else above.producer()
        return (self.clip,) if maximum is None else (maximum, self.clip)

    @property
    def is_dynamic(self) -> bool:
        """Whether the grid is found at run time."""
        return self.scale == 0

    @property
    def low(self) -> float:
        """The least value on the grid."""
        return self.scale * self.lowest

    @property
    def high(self) -> float:
        """The largest value on the grid."""
        return self.scale * self.highest


def float_arithmetic(model: ir.Model) -> tuple[StoredGrid, ...] | None:
    """Replace integer arithmetic, in place.

    Returns:
        Where the file rounds activations; None where it holds no integer arithmetic.
    """
    restored = _Restored(model.graph)
    restored.dynamic()
    restored.pairs()
    restored.scaled()
    restored.fused()
    if not restored.count:
        return None
    passes.RemoveUnusedNodesPass()(model)
    remaining = set(model.graph)
    return tuple(grid for grid in restored.grids if grid.clip in remaining)


def new_constant(main: ir.Graph, name: str, array: Array) -> ir.Value:
    """A new initializer of a graph."""
    # Not ascontiguousarray, which turns a scalar into a vector.
    value = ir.val(name, const_value=ir.Tensor(np.array(array, order="C"), name=name))
    main.register_initializer(value)
    return value


class _Restored:
    """The graph under work, and the float value of every integer tensor met so far."""

    def __init__(self, main: ir.Graph) -> None:
        self._main = main
        self.count = 0
        self.grids: list[StoredGrid] = []
        self._float_of: dict[ir.Value, ir.Value] = {}

    def dynamic(self) -> None:
        """DynamicQuantizeLinear, ConvInteger or MatMulInteger, Cast, Mul: onnxruntime's form."""
        for node in list(self._main):
            if node.op_type not in _DYNAMIC:
                continue
            scale = _constant(weight_scale(node))
            codes = _constant(node.inputs[1])
            source = node.inputs[0].producer() if node.inputs[0] is not None else None
            if scale is None or codes is None or source is None:
                continue
            axis = 0 if node.op_type == "ConvInteger" else codes.ndim - 1
            weights = _floats(codes, scale, _constant(_input(node, 3)), axis)
            # weight_scale has seen this chain.
            cast, bias = _only_user(node), None
            if cast.op_type == "Add":
                bias = _bias_in_integers(cast, node.outputs[0])
                if bias is None or node.op_type != "ConvInteger":
                    continue
                cast = _only_user(cast)
            operands = [self._rounded_at_run_time(source), self._new("weights", weights)]
            new = ir.node(
                _DYNAMIC[node.op_type],
                operands if bias is None else [*operands, self._new("bias", bias)],
                attributes=dict(node.attributes),
                name=node.name,
            )
            self._replace(_only_user(cast), new)

    def fused(self) -> None:
        """Operators that take float or integer data and stored weights, and give floats."""
        for node in list(self._main):
            form = _FUSED.get(node.op_type)
            if form is None or node.domain != MICROSOFT:
                continue
            stored = {part.index: self._stored(node, part) for part in form.codes}
            data = self._data_of_fused(node, form)
            if None in stored.values() or (data is None and form.data is not None):
                continue
            operands: dict[int | None, ir.Value | None] = {
                index: stored.get(index, value) for index, value in enumerate(node.inputs)
            }
            operands[form.data] = data
            new = ir.node(
                form.op_type,
                [None if index is None else operands.get(index) for index in form.takes],
                domain=form.domain,
                attributes=dict(node.attributes),
                num_outputs=len(node.outputs),
                name=node.name,
            )
            bias = None if form.bias is None else _input(node, form.bias)
            if bias is None:
                self._replace(node, new)
                continue
            self._main.insert_before(node, new)
            self._replace(node, ir.node("Add", [new.outputs[0], bias]))

    def _stored(self, node: ir.Node, part: _Codes) -> ir.Value | None:
        codes, scale = _constant(_input(node, part.index)), _constant(_input(node, part.scale))
        if codes is None or scale is None:
            return None
        zero = _constant(_input(node, part.zero_point))
        if scale.ndim > 1:
            # Of a recurrent layer: one for each direction and channel.
            offset = 0 if zero is None else np.reshape(zero, (scale.shape[0], 1, -1))
            floats = (codes.astype(np.float32) - offset) * scale[:, None]
            weights = floats.astype(np.float32)
        else:
            weights = _floats(codes, scale, zero, part.axis)
        turned = np.swapaxes(weights, -1, -2) if part.is_transposed else weights
        return self._new("weights", turned)

    def _data_of_fused(self, node: ir.Node, form: _Fused) -> ir.Value | None:
        """The float data, behind a node at which it can be rounded as the file does."""
        value = None if form.data is None else _input(node, form.data)
        if value is None or value in self._float_of:
            return None if value is None else self._float_of[value]
        source = value.producer()
        if source is not None and source.op_type == "DynamicQuantizeLinear":
            return self._rounded_at_run_time(source)
        # The others take floats, and round them at run time by themselves.
        return self._rounded_at_run_time(node) if form.op_type != "Attention" else None

    def pairs(self) -> None:
        """DequantizeLinear, of a stored tensor or of what a QuantizeLinear has just rounded."""
        for node in list(self._main):
            if node.op_type != "DequantizeLinear":
                continue
            scale = _far_constant(_input(node, 1))
            zero = _far_constant(_input(node, 2))
            codes = _far_constant(_input(node, 0))
            # A scale for each block has as many axes as the weights: onnxruntime's own business.
            if scale is None or scale.ndim > 1:
                continue
            if codes is not None:
                axis = integer(node, "axis", 1)
                new = self._new("constant", _floats(codes, scale, zero, axis))
            else:
                rounded = _before_moves(_input(node, 0))
                if rounded is None or rounded.op_type != "QuantizeLinear":
                    continue
                activation_scale = _far_constant(_input(rounded, 1))
                activation_zero = _far_constant(_input(rounded, 2))
                if activation_scale is None:
                    continue
                if activation_scale.size != 1:
                    limited = self._limited_by_channel(node, rounded, activation_scale)
                    if limited is not None:
                        _hand_over(node.outputs[0], limited)
                        self.count += 1
                    continue
                new = self._clipped(
                    rounded.inputs[0],
                    activation_scale,
                    activation_zero,
                    rounded,
                    file_tensor=node.outputs[0],
                )
            _hand_over(node.outputs[0], new)
            self.count += 1

    def scaled(self) -> None:
        """QLinearConv and its kin: every integer tensor gets a float value, in graph order."""
        for node in list(self._main):
            self._restore_scaled(node)

    def _restore_scaled(self, node: ir.Node) -> None:
        op, inputs = node.op_type, node.inputs
        data = _input(node, 0)
        if integer(node, "channels_last", 0):
            return
        if op == "QuantizeLinear":
            users = [use.node.op_type for use in node.outputs[0].uses()]
            scale = _constant(_input(node, 1))
            if scale is None or all(name == "DequantizeLinear" for name in users):
                return
            self._note(node, self._clipped(data, scale, _constant(_input(node, 2)), node))
        elif op in _SCALED and data in self._float_of:
            codes, scale = _constant(inputs[3]), _constant(inputs[4])
            activation_scale = _constant(inputs[1])
            if codes is None or scale is None or activation_scale is None:
                return
            axis = 0 if op == "QLinearConv" else codes.ndim - 1
            weights = _floats(codes, scale, _constant(inputs[5]), axis)
            operands: list[ir.Value | None] = [
                self._float_of[data],
                self._new("weights", weights),
            ]
            bias = _constant(_input(node, 8)) if op == "QLinearConv" else None
            if bias is not None:
                # A bias is stored in units of both scales.
                step = activation_scale.astype(np.float64) * scale.astype(np.float64)
                operands.append(self._new("bias", (bias * step).astype(np.float32)))
            self._note_rounded(node, _SCALED[op], operands)
        elif op in _TWO_OPERANDS:
            sides = [self._side(node, start) for start in (0, 3)]
            if None not in sides:
                self._note_rounded(node, _TWO_OPERANDS[op], sides)
        elif op == "QGemm" and data in self._float_of:
            self._restore_gemm(node)
        elif op == "QLinearConcat":
            sides = [self._side(node, start) for start in range(2, len(inputs), 3)]
            if None not in sides:
                self._note_rounded(node, "Concat", sides, at=0)
        elif op in _ONE_OPERAND and data in self._float_of:
            float_op, at = _ONE_OPERAND[op]
            self._note_rounded(node, float_op, [self._float_of[data]], at=at)
        elif op in _MOVING and data in self._float_of:
            operands = [self._float_of[data], *inputs[1:]]
            new = ir.node(
                op, operands, attributes=dict(node.attributes), num_outputs=len(node.outputs)
            )
            self._main.insert_before(node, new)
            for codes_moved, moved in zip(node.outputs, new.outputs, strict=True):
                self._float_of[codes_moved] = moved
            self.count += 1
        elif op == "Shape" and data in self._float_of:
            node.replace_input_with(0, self._float_of[data])
        elif op == "DequantizeLinear" and data in self._float_of:
            _hand_over(node.outputs[0], self._float_of[data])
            self.count += 1

    def _restore_gemm(self, node: ir.Node) -> None:
        """``alpha * A' * B' + C``, C in units of both scales; without an output scale in float."""
        codes, scale = _constant(_input(node, 3)), _constant(_input(node, 4))
        activation_scale = _constant(_input(node, 1))
        data = _input(node, 0)
        if codes is None or scale is None or activation_scale is None or data is None:
            return
        axis = 0 if integer(node, "transB", 0) else codes.ndim - 1
        weights = _floats(codes, scale, _constant(_input(node, 5)), axis)
        operands: list[ir.Value | None] = [self._float_of[data], self._new("weights", weights)]
        bias = _constant(_input(node, 6))
        if bias is not None:
            step = activation_scale.astype(np.float64) * scale.astype(np.float64)
            factor = number(node, "alpha", 1.0)
            operands.append(self._new("bias", (bias * step * factor).astype(np.float32)))
        if _input(node, 7) is not None:
            self._note_rounded(node, "Gemm", operands, at=7)
            return
        new = ir.node("Gemm", operands, attributes=dict(node.attributes), name=node.name)
        self._replace(node, new)

    def _note(self, node: ir.Node, value: ir.Value) -> None:
        self._float_of[node.outputs[0]] = value
        self.count += 1

    def _note_rounded(
        self,
        node: ir.Node,
        op_type: str,
        operands: Sequence[ir.Value | None],
        *,
        at: int = 6,
    ) -> None:
        """The float operator, and a Clip to the range that the file stores for its result.

        Args:
            at: which input is the scale of the result.
        """
        attributes = {
            name: attribute
            for name, attribute in node.attributes.items()
            if name not in _OF_INTEGERS_ONLY
        }
        new = ir.node(op_type, operands, attributes=attributes, name=node.name)
        self._main.insert_before(node, new)
        scale, zero = _constant(_input(node, at)), _constant(_input(node, at + 1))
        if scale is None:
            self._note(node, new.outputs[0])
            return
        self._note(node, self._clipped(new.outputs[0], scale, zero, node))

    def _side(self, node: ir.Node, start: int) -> ir.Value | None:
        """One addend with its scale and zero point: stored, or computed before."""
        codes, scale = _constant(node.inputs[start]), _constant(node.inputs[start + 1])
        if codes is not None and scale is not None:
            return self._new("addend", _floats(codes, scale, _constant(node.inputs[start + 2]), 0))
        value = node.inputs[start]
        return None if value is None else self._float_of.get(value)

    def _replace(self, old: ir.Node, new: ir.Node) -> None:
        self._main.insert_before(old, new)
        for before, after in zip(old.outputs, new.outputs, strict=True):
            _hand_over(before, after)
        self.count += 1

    def _new(self, purpose: str, array: Array) -> ir.Value:
        name = f"quantstore_{purpose}_{len(self._main.initializers)}"
        return new_constant(self._main, name, array)

    def _clipped(
        self,
        value: ir.Value | None,
        scale: Array,
        zero_point: Array | None,
        reader: ir.Node,
        *,
        file_tensor: ir.Value | None = None,
    ) -> ir.Value:
        """The value, limited to what codes of the zero point's type can stand for.

        Args:
            reader: in front of which the value is limited.
            file_tensor: the rounded tensor of the file where ``reader`` does not give it as codes.
        """
        limits = np.iinfo(np.uint8 if zero_point is None else zero_point.dtype)
        step = float(np.ravel(scale)[0])
        zero = 0 if zero_point is None else int(np.ravel(zero_point)[0])
        bounds = [
            self._new("bound", np.array(step * (code - zero), np.float32))
            for code in (limits.min, limits.max)
        ]
        clip = ir.node("Clip", [value, *bounds])
        self._main.insert_before(reader, clip)
        if value is not None:
            codes_or_floats = file_tensor or reader.outputs[0]
            self.grids.append(
                StoredGrid(
                    source=value,
                    clip=clip,
                    scale=step,
                    zero_point=zero,
                    lowest=float(limits.min - zero),
                    highest=float(limits.max - zero),
                    file_tensor=str(codes_or_floats.name),
                    has_codes=file_tensor is None,
                    code_type=ir.DataType.from_numpy(limits.dtype),
                )
            )
        return clip.outputs[0]

    def _limited_by_channel(self, node: ir.Node, rounded: ir.Node, scale: Array) -> ir.Value | None:
        """The same where each channel has a grid; None where nobody knows how the channels lie."""
        value, zero_point = rounded.inputs[0], _far_constant(_input(rounded, 2))
        rank = None if value is None or value.shape is None else len(value.shape)
        if value is None or rank is None or scale.ndim != 1:
            return None
        axis = integer(rounded, "axis", 1) % rank
        shape = [-1 if index == axis else 1 for index in range(rank)]
        limits = np.iinfo(np.uint8 if zero_point is None else zero_point.dtype)
        zero = np.zeros(1) if zero_point is None else zero_point.astype(np.float64)
        grids = ChannelGrids(
            *(
                np.broadcast_to(part, scale.shape).reshape(shape).astype(np.float32)
                for part in (scale, limits.min - zero, limits.max - zero)
            )
        )
        low, high = (
            self._new("bound", np.asarray(grids.scale * ends, np.float32))
            for ends in (grids.lowest, grids.highest)
        )
        above = ir.node("Max", [value, low])
        between = ir.node("Min", [above.outputs[0], high])
        for new in (above, between):
            self._main.insert_before(rounded, new)
        widest = int(np.argmax(scale))
        self.grids.append(
            StoredGrid(
                source=value,
                clip=between,
                scale=float(scale[widest]),
                zero_point=int(np.ravel(zero)[0]),
                lowest=float(grids.lowest.ravel()[widest]),
                highest=float(grids.highest.ravel()[widest]),
                file_tensor=str(node.outputs[0].name),
                has_codes=False,
                channels=grids,
            )
        )
        return between.outputs[0]

    def _rounded_at_run_time(self, quantizer: ir.Node) -> ir.Value | None:
        """What a DynamicQuantizeLinear rounds, behind a node at which it can be rounded again."""
        value = quantizer.inputs[0]
        for grid in self.grids:
            if grid.source is value and grid.is_dynamic:
                return grid.clip.outputs[0]
        passing = ir.node("Identity", [value])
        self._main.insert_before(quantizer, passing)
        if value is not None:
            self.grids.append(
                StoredGrid(value, passing, 0.0, 0, 0.0, 0.0, str(value.name), has_codes=False)
            )
        return passing.outputs[0]


def _hand_over(old: ir.Value, new: ir.Value) -> None:
    """Everybody who read the old value reads the new one, which an output of the file names."""
    takes_name = old.is_graph_output() and new.producer() is not None and not new.is_graph_output()
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    if takes_name:
        new.name, old.name = old.name, None


def _floats(codes: Array, scale: Array, zero_point: Array | None, axis: int) -> Floats:
    """``scale * (code - zero point)``, one scale for all or one for each slice along the axis."""
    zero = np.zeros(1, np.float32) if zero_point is None else zero_point.astype(np.float32)
    shape = [1] * codes.ndim

    def along(values: Array) -> Array:
        if values.size == 1:
            return values.reshape(())
        shape[axis] = values.size
        return values.reshape(shape)

    floats: Array = (codes.astype(np.float32) - along(zero)) * along(scale.astype(np.float32))
    return floats.astype(np.float32)


def _bias_in_integers(added: ir.Node, product: ir.Value) -> Array | None:
    """The bias in floats that early releases of ``quantize_dynamic`` round at run time: Div by the
    scale of the sums, Floor, Cast, Reshape, Add. None where something else is added.
    """
    other = next((value for value in added.inputs if value is not product), None)
    for op_type in ("Reshape", "Cast", "Floor", "Div"):
        node = None if other is None else other.producer()
        if node is None or node.op_type != op_type:
            return None
        other = node.inputs[0]
    return _constant(other)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _constant(value: ir.Value | None) -> Array | None:
    tensor = constant_tensor(value)
    return None if tensor is None else read_array(tensor)


def _far_constant(value: ir.Value | None) -> Array | None:
    """A constant, also behind Identity and Cast."""
    arrays = map(_constant, _backwards(value))
    return next((array for array in arrays if array is not None), None)


def _before_moves(value: ir.Value | None) -> ir.Node | None:
    *_, first = [None, *_backwards(value)]
    return None if first is None else first.producer()


def _backwards(value: ir.Value | None) -> Iterator[ir.Value]:
    """The value, and what it is a copy or a cast of."""
    while value is not None:
        yield value
        node = value.producer()
        if node is None or node.op_type not in ("Identity", "Cast"):
            return
        value = _input(node, 0)


def _only_user(node: ir.Node) -> ir.Node:
    return next(iter(node.outputs[0].uses())).node
