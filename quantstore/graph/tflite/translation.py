"""A TensorFlow Lite graph in, the same network in ONNX's terms out: for reading, never for running.

Operators with weights become the ONNX operator that computes the same, with weights in ONNX's order
(output channels, input channels, kernel), so that a layer compares value by value with that of the
same network in ONNX. So do activations, which say what may be rescaled. Everything else keeps its
name, in a domain of its own: data has its channels last here, and no rule for ONNX holds for it.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from quantstore.errors import ModelFileError
from quantstore.graph.fold import UnfoldableError
from quantstore.graph.operators import TFLITE
from quantstore.graph.tflite.schema import CUSTOM, LiteOperator, LiteTensor, Schema, require_data
from quantstore.graph.walk import wrong_weights
from quantstore.records import Array

# Where the schema says more than this, the values are no numbers (or complex ones).
_TYPES = {
    "FLOAT32": ir.DataType.FLOAT,
    "FLOAT16": ir.DataType.FLOAT16,
    "BFLOAT16": ir.DataType.BFLOAT16,
    "FLOAT64": ir.DataType.DOUBLE,
    "INT4": ir.DataType.INT4,
    "INT8": ir.DataType.INT8,
    "UINT8": ir.DataType.UINT8,
    "INT16": ir.DataType.INT16,
    "UINT16": ir.DataType.UINT16,
    "INT32": ir.DataType.INT32,
    "UINT32": ir.DataType.UINT32,
    "INT64": ir.DataType.INT64,
    "UINT64": ir.DataType.UINT64,
    "BOOL": ir.DataType.BOOL,
}
# The order of ONNX's axes among those of the file, by operator.
_KERNEL_AXES = {
    "CONV_2D": (0, 3, 1, 2),
    "DEPTHWISE_CONV_2D": (3, 0, 1, 2),
    "TRANSPOSE_CONV": (3, 0, 1, 2),
    "CONV_3D": (4, 3, 0, 1, 2),
    "CONV_3D_TRANSPOSE": (4, 3, 0, 1, 2),
}
# The activations that an operator can have built in, and those that are operators of their own.
_FUSED = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
_ACTIVATIONS = {
    "RELU": "Relu",
    "RELU6": "Clip",
    "RELU_N1_TO_1": "Clip",
    "RELU_0_TO_1": "Clip",
    "TANH": "Tanh",
    "LOGISTIC": "Sigmoid",
    "LEAKY_RELU": "LeakyRelu",
    "ELU": "Elu",
    "HARD_SWISH": "HardSwish",
}
# Where the gates of a recurrent layer have their weights, in the order in which ONNX joins them:
# those of the input, then those of the state.
_GATES = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": ("LSTM", (1, 4, 2, 3), (5, 8, 6, 7)),
    "UNIDIRECTIONAL_SEQUENCE_RNN": ("RNN", (1,), (2,)),
    "RNN": ("RNN", (1,), (2,)),
}
STORED_SPARSE = "it is stored as a sparse tensor"
STORED_SHUFFLED = "its weights are shuffled for one processor"

_Emit = Callable[[LiteOperator], None]


def translated(schema: Schema) -> ir.Graph:
    """The graph of a file, all its subgraphs one after another.

    Raises:
        ModelFileError: weights that do not fit their shape or their operator.
    """
    return _Translation(schema).graph()


class _Translation:
    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._nodes: list[ir.Node] = []
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        # Of the subgraph that is translated.
        self._graph = 0
        self._prefix = ""
        self._values: dict[int, ir.Value] = {}
        # A constant that is dequantized by an operator, by the position of what that gives.
        self._restored: dict[int, int] = {}
        # Shared weights are one value, in each order of axes that is asked for.
        self._weights: dict[tuple[object, ...], ir.Value] = {}
        self._emit: dict[str, _Emit] = {
            **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D"), self._convolution),
            **dict.fromkeys(("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"), self._transposed),
            "FULLY_CONNECTED": self._fully_connected,
            "BATCH_MATMUL": self._product,
            "GATHER": self._lookup,
            "EMBEDDING_LOOKUP": self._lookup,
            **dict.fromkeys(_GATES, self._recurrent),
            **dict.fromkeys(_ACTIVATIONS, self._activation),
            # The same values, in codes or not.
            **dict.fromkeys(("QUANTIZE", "DEQUANTIZE"), self._activation),
        }

    def graph(self) -> ir.Graph:
        for index in range(self._schema.graph_count):
            self._follow(index)
        return ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=list(self._initializers()),
            opset_imports={"": 21, TFLITE: 1},
            name="main",
        )

    def _initializers(self) -> Iterator[ir.Value]:
        """Every constant that a node reads; one of them for each name."""
        constants = {
            value.name: value
            for node in self._nodes
            for value in node.inputs
            if value is not None and value.const_value is not None
        }
        yield from constants.values()

    def _follow(self, graph: int) -> None:
        self._graph, self._values, self._restored = graph, {}, {}
        # Control flow says which subgraph it runs in settings of its own; each is read once.
        name = self._schema.graph_name(graph) or f"subgraph {graph}"
        self._prefix = f"{name}/" if graph else ""
        inputs, outputs = self._schema.ends(graph)
        for index in dict.fromkeys(inputs):
            value = ir.Value(name=self._name(index))
            self._values[index] = value
            self._inputs.append(value)
        for operator in self._schema.operators(graph):
            self._operator(operator)
        values = [self._value(index) for index in dict.fromkeys(outputs)]
        self._outputs += [value for value in values if value is not None]

    def _operator(self, operator: LiteOperator) -> None:
        if operator.code == "DEQUANTIZE" and self._is_stored(operator, 0):
            # Weights in 16 or 8 bits that the network computes with in 32.
            source = self._constant_at(operator.inputs[0])
            if operator.outputs and source is not None:
                self._restored[operator.outputs[0]] = source
            return
        emit = self._emit.get(operator.code)
        if emit is None or not operator.outputs:
            self._unknown(operator)
        else:
            emit(operator)

    def _unknown(self, operator: LiteOperator) -> None:
        """An operator that keeps its name; what it reads and gives is known."""
        is_custom = operator.code == CUSTOM
        self._add(
            operator,
            operator.custom or "custom operator" if is_custom else operator.code,
            [self._value(index) for index in operator.inputs],
            domain=f"{TFLITE}.custom" if is_custom else TFLITE,
        )

    # Operators with weights.

    def _convolution(self, operator: LiteOperator) -> None:
        if not self._has(operator, 2):
            return self._unknown(operator)
        axes = _KERNEL_AXES[operator.code]
        weights = self._tensor_at(operator, 1)
        group_count = 1
        if operator.code == "DEPTHWISE_CONV_2D" and len(weights.shape) == len(axes):
            group_count = weights.shape[3] // max(1, operator.setting("DepthMultiplier", 1))
        elif operator.code == "CONV_2D" and len(weights.shape) == len(axes) and weights.shape[3]:
            data = self._tensor_at(operator, 0).shape
            group_count = max(1, data[-1] // weights.shape[3]) if data else 1
        settings = self._strides(operator) | {"group": ir.AttrInt64("group", group_count)}
        operands = [self._value(operator.inputs[0]), self._weight(operator, 1, axes)]
        self._add_layer(operator, "Conv", [*operands, self._bias(operator, 2)], settings)
        return None

    def _transposed(self, operator: LiteOperator) -> None:
        if not self._has(operator, 3):
            return self._unknown(operator)
        axes = _KERNEL_AXES[operator.code]
        operands = [self._value(operator.inputs[2]), self._weight(operator, 1, axes)]
        operands.append(self._bias(operator, 3))
        self._add_layer(operator, "ConvTranspose", operands, self._strides(operator))
        return None

    def _fully_connected(self, operator: LiteOperator) -> None:
        if not self._has(operator, 2):
            return self._unknown(operator)
        weights = self._weight(
            operator, 1, None, is_shuffled=bool(operator.setting("WeightsFormat"))
        )
        operands = [self._value(operator.inputs[0]), weights, self._bias(operator, 2)]
        self._add_layer(operator, "Gemm", operands, {"transB": ir.AttrInt64("transB", 1)})
        return None

    def _product(self, operator: LiteOperator) -> None:
        if not self._has(operator, 2):
            return self._unknown(operator)
        operands = []
        for index, setting in enumerate(("AdjX", "AdjY")):
            rank = len(self._tensor_at(operator, index).shape)
            is_turned = bool(operator.setting(setting)) and rank > 1
            axes = (*range(rank - 2), rank - 1, rank - 2) if is_turned else None
            operands.append(self._weight(operator, index, axes))
        self._add(operator, "MatMul", operands)
        return None

    def _lookup(self, operator: LiteOperator) -> None:
        if not self._has(operator, 2):
            return self._unknown(operator)
        is_gather = operator.code == "GATHER"
        table, indices = (0, 1) if is_gather else (1, 0)
        axis = operator.setting("Axis") if is_gather else 0
        operands = [self._weight(operator, table, None), self._value(operator.inputs[indices])]
        self._add(operator, "Gather", operands, {"axis": ir.AttrInt64("axis", axis)})
        return None

    def _recurrent(self, operator: LiteOperator) -> None:
        op_type, *both = _GATES[operator.code]
        joined = [self._joined(operator, indices) for indices in both]
        if any(value is None for value in joined):
            return self._unknown(operator)
        self._add(operator, str(op_type), [self._value(operator.inputs[0]), *joined])
        return None

    def _joined(self, operator: LiteOperator, indices: Sequence[int]) -> ir.Value | None:
        """The weights of all gates in one tensor, as ONNX has it; None where one is computed.

        Each gate has a scale of its own, which its channels share.
        """
        # A layer may couple two of its gates and leave the first out.
        there = [index for index in indices if self._has(operator, index + 1)]
        if not there or not all(self._is_stored(operator, index) for index in there):
            return None
        tensors = [self._tensor_at(operator, index) for index in there]
        first = tensors[0]
        if any(
            len(tensor.shape) != 2
            or tensor.shape[1:] != first.shape[1:]
            or tensor.dtype != first.dtype
            or tensor.is_sparse
            or (tensor.quantization is None) != (first.quantization is None)
            for tensor in tensors
        ):
            return None
        dtype = _checked_type(first)
        for tensor in tensors:
            _checked_type(tensor)
        shape = (1, sum(tensor.shape[0] for tensor in tensors), *first.shape[1:])
        value = _constant(
            self._prefix + first.name,
            dtype,
            shape,
            lambda: np.concatenate([_values(tensor, dtype) for tensor in tensors])[np.newaxis],
        )
        if first.quantization is None:
            return value
        scale, zero_point = (
            np.concatenate([_along(tensor, part) for tensor in tensors])
            for part in ("scale", "zero_point")
        )
        return self._dequantized(value, scale, zero_point, axis=1)

    def _activation(self, operator: LiteOperator) -> None:
        if not self._has(operator, 1):
            return self._unknown(operator)
        op_type = _ACTIVATIONS.get(operator.code, "Identity")
        self._add(operator, op_type, [self._value(operator.inputs[0])])
        return None

    # Values.

    def _has(self, operator: LiteOperator, count: int) -> bool:
        """Whether an operator has its first inputs; of several, the last one counts."""
        inputs = operator.inputs
        return len(inputs) >= count and inputs[count - 1] is not None

    def _name(self, index: int) -> str:
        return self._prefix + self._schema.tensor(self._graph, index).name

    def _constant_at(self, index: int | None) -> int | None:
        """The position of the constant that a value is, restored to float or not."""
        if index is None:
            return None
        index = self._restored.get(index, index)
        is_stored = index not in self._values and (
            self._schema.tensor(self._graph, index).data is not None
        )
        return index if is_stored else None

    def _is_stored(self, operator: LiteOperator, position: int) -> bool:
        inputs = operator.inputs
        return len(inputs) > position and self._constant_at(inputs[position]) is not None

    def _tensor_at(self, operator: LiteOperator, position: int) -> LiteTensor:
        """The tensor at an input that is there, the stored one of a constant."""
        index = operator.inputs[position]
        stored = self._constant_at(index)
        return self._schema.tensor(self._graph, stored if stored is not None else int(index or 0))

    def _value(self, index: int | None) -> ir.Value | None:
        if index is None:
            return None
        constant = self._constant_at(index)
        if constant is not None:
            return self._constant_value(self._schema.tensor(self._graph, constant), None)
        if index not in self._values:
            self._values[index] = ir.Value(name=self._name(index))
        return self._values[index]

    def _weight(
        self,
        operator: LiteOperator,
        position: int,
        axes: tuple[int, ...] | None,
        *,
        is_shuffled: bool = False,
    ) -> ir.Value | None:
        """An operand that may be weights, its axes in the order of ONNX's.

        Args:
            axes: for each axis of ONNX's, which of the file it is; None for the same order.
        """
        if not self._is_stored(operator, position):
            return self._value(operator.inputs[position])
        tensor = self._tensor_at(operator, position)
        if axes is not None and len(axes) != len(tensor.shape):
            raise ModelFileError(
                f"layer {self._name(operator.outputs[0])!r}"
                f" {wrong_weights(operator.code, tensor.shape)}",
                "convert the model again",
            )
        return self._constant_value(tensor, axes, is_shuffled=is_shuffled)

    def _bias(self, operator: LiteOperator, position: int) -> ir.Value | None:
        return self._value(operator.inputs[position]) if self._has(operator, position + 1) else None

    def _constant_value(
        self, tensor: LiteTensor, axes: tuple[int, ...] | None, *, is_shuffled: bool = False
    ) -> ir.Value | None:
        """A constant, dequantized where it has a scale."""
        quantization = tensor.quantization
        key: tuple[object, ...] = (tensor.key, tensor.dtype, tensor.shape, axes, is_shuffled)
        if quantization is not None:
            key += (quantization.scale.tobytes(), quantization.zero_point.tobytes())
        if key not in self._weights:
            self._weights[key] = self._new_constant(tensor, axes, is_shuffled=is_shuffled)
        return self._weights[key]

    def _new_constant(
        self, tensor: LiteTensor, axes: tuple[int, ...] | None, *, is_shuffled: bool
    ) -> ir.Value:
        name = self._prefix + tensor.name
        if tensor.dtype not in _TYPES:
            # Texts and handles: nothing that could be weights.
            return ir.Value(name=name)
        dtype = _TYPES[tensor.dtype]
        reason = STORED_SPARSE if tensor.is_sparse else STORED_SHUFFLED if is_shuffled else ""
        if not reason:
            _checked_type(tensor)
        order = tuple(range(len(tensor.shape))) if axes is None else axes

        def values() -> Array:
            if reason:
                raise UnfoldableError(reason)
            return np.ascontiguousarray(_values(tensor, dtype).transpose(order))

        shape = tuple(max(0, tensor.shape[axis]) for axis in order)
        value = _constant(name, dtype, shape, values)
        quantization = tensor.quantization
        if quantization is None or not dtype.is_integer() or dtype.bitwidth > 16:
            return value
        axis = quantization.axis
        if quantization.scale.size > 1 and not 0 <= axis < len(order):
            raise ModelFileError(
                f"tensor {tensor.name!r} has its scales along axis {axis}, which it does not have",
                "convert the model again",
            )
        axis = order.index(axis) if 0 <= axis < len(order) else 0
        return self._dequantized(value, quantization.scale, quantization.zero_point, axis=axis)

    def _dequantized(
        self, codes: ir.Value, scale: Array, zero_point: Array, *, axis: int
    ) -> ir.Value:
        """What the codes stand for: scales of one, or of each channel along an axis."""
        count = scale.size
        if zero_point.size not in (1, count):
            raise ModelFileError(
                f"tensor {codes.name!r} has {count} scales and {zero_point.size} zero points",
                "convert the model again",
            )
        shape = (count,) if count > 1 else ()
        factors = [
            ir.Value(name=f"{codes.name}/{part}", const_value=ir.tensor(array))
            for part, array in (
                ("scale", scale.reshape(shape)),
                # In the type of the codes it might not fit: a damaged file says what it likes.
                ("zero_point", np.broadcast_to(zero_point, scale.shape).reshape(shape).copy()),
            )
        ]
        node = ir.Node(
            "",
            "DequantizeLinear",
            [codes, *factors],
            {"axis": ir.AttrInt64("axis", axis)},
            num_outputs=1,
            name=f"{codes.name}/dequantize",
        )
        node.outputs[0].name = f"{codes.name}/dequantized"
        self._nodes.append(node)
        return node.outputs[0]

    # Nodes.

    def _strides(self, operator: LiteOperator) -> dict[str, ir.Attr]:
        """The settings of a convolution that say how it moves over its data."""
        letters = "DHW" if operator.code.startswith("CONV_3D") else "HW"
        strides = [operator.setting(f"Stride{letter}", 1) for letter in letters]
        padding = "VALID" if operator.setting("Padding") else "SAME_UPPER"
        attributes = [ir.AttrInt64s("strides", strides), ir.AttrString("auto_pad", padding)]
        if not operator.code.startswith("TRANSPOSE"):
            dilations = [operator.setting(f"Dilation{letter}Factor", 1) for letter in letters]
            attributes.append(ir.AttrInt64s("dilations", dilations))
        return {attribute.name: attribute for attribute in attributes}

    def _add_layer(
        self,
        operator: LiteOperator,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        settings: dict[str, ir.Attr],
    ) -> None:
        """A layer and, where it has one built in, the activation behind it."""
        fused = _FUSED.get(operator.setting("FusedActivationFunction"))
        if fused is None:
            self._add(operator, op_type, inputs, settings)
            return
        name = self._name(operator.outputs[0])
        layer = ir.Node("", op_type, inputs, settings, num_outputs=1, name=name)
        layer.outputs[0].name = f"{name}/before {fused}"
        self._nodes.append(layer)
        activation = _ACTIVATIONS.get(fused)
        self._add(
            operator,
            activation or fused,
            layer.outputs,
            domain="" if activation else TFLITE,
            name=f"{name}/{fused}",
        )

    def _add(
        self,
        operator: LiteOperator,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        settings: dict[str, ir.Attr] | None = None,
        *,
        domain: str = "",
        name: str = "",
    ) -> None:
        outputs = [ir.Value(name=self._name(index)) for index in operator.outputs]
        first = outputs[0].name if outputs else op_type
        node = ir.Node(domain, op_type, inputs, settings or {}, outputs=outputs, name=name or first)
        self._nodes.append(node)
        # What is written twice is another value from then on.
        self._values.update(zip(operator.outputs, outputs, strict=True))


def _checked_type(tensor: LiteTensor) -> ir.DataType:
    dtype = _TYPES[tensor.dtype]
    require_data(tensor, dtype.bitwidth if dtype != ir.DataType.BOOL else 8)
    return dtype


def _constant(
    name: str, dtype: ir.DataType, shape: tuple[int, ...], values: Callable[[], Array]
) -> ir.Value:
    """A constant whose values are read when they are asked for, and not kept."""
    tensor = ir.LazyTensor(
        lambda: ir.Tensor(values(), dtype=dtype, name=name), dtype, ir.Shape(shape), name=name
    )
    return ir.Value(name=name, const_value=tensor)


def _values(tensor: LiteTensor, dtype: ir.DataType) -> Array:
    """The values of a constant, in the shape that the file gives them."""
    raw = np.frombuffer(tensor.data or b"", np.uint8)
    if dtype == ir.DataType.INT4:
        # Two in a byte, the first in its low bits.
        pairs = np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)
        codes = pairs[: math.prod(tensor.shape)].astype(np.int8)
        return ((codes ^ 8) - 8).astype(dtype.numpy()).reshape(tensor.shape)
    return raw.view(dtype.numpy()).reshape(tensor.shape)


def _along(tensor: LiteTensor, part: str) -> Array:
    """A scale or zero point for each row of a matrix that has one of its own, or one for all."""
    array: Array = getattr(tensor.quantization, part)
    return np.broadcast_to(array, tensor.shape[:1]) if array.size == 1 else array
