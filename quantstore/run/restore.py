"""A model that computes with integers, back in float arithmetic: in place, one form at a time.

Three forms are known: dynamic quantization (ConvInteger, MatMulInteger), pairs of QuantizeLinear
and DequantizeLinear (QDQ), and the operators that take scales along (QLinearConv and its kin).
Weights become the floats they stand for. Where the file stores the range of an activation, a Clip
to that range stays: saturation is part of what the network computes. Rounding of activations goes.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from quantstore.graph.attributes import integer
from quantstore.graph.constants import constant_tensor
from quantstore.graph.dequantize import weight_scale
from quantstore.graph.tensors import read_array
from quantstore.records import Array, Floats

_DYNAMIC = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}
_SCALED = {"QLinearConv": "Conv", "QLinearMatMul": "MatMul"}
# They move integers about without computing, and so do the same with floats.
_MOVING = ("Reshape", "Transpose", "MaxPool", "Flatten")


def float_arithmetic(model: ir.Model) -> int:
    """Replace integer arithmetic, in place; how many places there were."""
    restored = _Restored(model.graph)
    count = restored.dynamic() + restored.pairs() + restored.scaled()
    if count:
        passes.RemoveUnusedNodesPass()(model)
    return count


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
        self._count = 0
        self._float_of: dict[ir.Value, ir.Value] = {}

    def dynamic(self) -> int:
        """DynamicQuantizeLinear, ConvInteger or MatMulInteger, Cast, Mul: onnxruntime's form."""
        before = self._count
        for node in list(self._main):
            if node.op_type not in _DYNAMIC:
                continue
            scale = _constant(weight_scale(node))
            codes = _constant(node.inputs[1])
            source = node.inputs[0].producer() if node.inputs[0] is not None else None
            if scale is None or codes is None or source is None:
                continue
            zero = node.inputs[3] if len(node.inputs) > 3 else None
            axis = 0 if node.op_type == "ConvInteger" else codes.ndim - 1
            weights = _floats(codes, scale, _constant(zero), axis)
            # weight_scale has seen this chain.
            rescaled = _only_user(_only_user(node))
            new = ir.node(
                _DYNAMIC[node.op_type],
                [source.inputs[0], self._new("weights", weights)],
                attributes=dict(node.attributes),
                name=node.name,
            )
            self._replace(rescaled, new)
        return self._count - before

    def pairs(self) -> int:
        """DequantizeLinear, of a stored tensor or of what a QuantizeLinear has just rounded."""
        before = self._count
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
                if activation_scale is None or activation_scale.size != 1:
                    continue
                new = self._clipped(rounded.inputs[0], activation_scale, activation_zero, rounded)
            _hand_over(node.outputs[0], new)
            self._count += 1
        return self._count - before

    def scaled(self) -> int:
        """QLinearConv and its kin: every integer tensor gets a float value, in graph order."""
        before = self._count
        for node in list(self._main):
            self._restore_scaled(node)
        return self._count - before

    def _restore_scaled(self, node: ir.Node) -> None:
        op, inputs = node.op_type, node.inputs
        data = _input(node, 0)
        if op == "QuantizeLinear":
            users = [use.node.op_type for use in node.outputs[0].uses()]
            scale = _constant(_input(node, 1))
            if scale is None or not any(name.startswith("QLinear") for name in users):
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
            self._note_rounded(node, _SCALED[op], operands, dict(node.attributes))
        elif op == "QLinearAdd":
            sides = [self._side(node, start) for start in (0, 3)]
            if None not in sides:
                self._note_rounded(node, "Add", sides, {})
        elif op == "QLinearGlobalAveragePool" and data in self._float_of:
            new = ir.node("GlobalAveragePool", [self._float_of[data]], name=node.name)
            self._main.insert_before(node, new)
            self._note(node, new.outputs[0])
        elif op in _MOVING and data in self._float_of:
            operands = [self._float_of[data], *inputs[1:]]
            new = ir.node(op, operands, attributes=dict(node.attributes))
            self._main.insert_before(node, new)
            self._note(node, new.outputs[0])
        elif op == "Shape" and data in self._float_of:
            node.replace_input_with(0, self._float_of[data])
        elif op == "DequantizeLinear" and data in self._float_of:
            _hand_over(node.outputs[0], self._float_of[data])
            self._count += 1

    def _note(self, node: ir.Node, value: ir.Value) -> None:
        self._float_of[node.outputs[0]] = value
        self._count += 1

    def _note_rounded(
        self,
        node: ir.Node,
        op_type: str,
        operands: Sequence[ir.Value | None],
        attributes: dict[str, ir.Attr],
    ) -> None:
        """The float operator, and a Clip to the range that the file stores for its result."""
        new = ir.node(op_type, operands, attributes=attributes, name=node.name)
        self._main.insert_before(node, new)
        scale, zero = _constant(node.inputs[6]), _constant(_input(node, 7))
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
        _hand_over(old.outputs[0], new.outputs[0])
        self._count += 1

    def _new(self, purpose: str, array: Array) -> ir.Value:
        name = f"quantstore_{purpose}_{len(self._main.initializers)}"
        return new_constant(self._main, name, array)

    def _clipped(
        self,
        value: ir.Value | None,
        scale: Array,
        zero_point: Array | None,
        reader: ir.Node,
    ) -> ir.Value:
        """The value, limited to what codes of the zero point's type can stand for."""
        limits = np.iinfo(np.uint8 if zero_point is None else zero_point.dtype)
        step = float(np.ravel(scale)[0])
        zero = 0.0 if zero_point is None else float(np.ravel(zero_point)[0])
        bounds = [
            self._new("bound", np.array(step * (code - zero), np.float32))
            for code in (limits.min, limits.max)
        ]
        clip = ir.node("Clip", [value, *bounds])
        self._main.insert_before(reader, clip)
        return clip.outputs[0]


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
