"""A processor without VNNI, in numpy: what a QDQ file computes where sums of products saturate."""

import numpy as np
import onnx
from onnx import numpy_helper

from quantstore.numerics.saturation import clamped_product
from quantstore.run.grids import ActivationGrid
from quantstore.run.kernels import Product, matrices
from quantstore.run.nodes import consumers, producers, read_by
from quantstore.run.runtime import Session

# What is multiplied at a time.
_MOST_SUMS = 1 << 24


def products_of_file(model):
    """Every MatMul, Gemm and Conv of a QDQ file that is run on bytes of both signs."""
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
        stored, quantized = constants.get(weights.input[0]), made_by.get(data.input[0])
        if stored is None or stored.data_type != onnx.TensorProto.INT8:
            continue
        if quantized is None or quantized.op_type != "QuantizeLinear":
            continue
        array = numpy_helper.to_array(stored)
        if node.op_type == "Conv" and (
            _is_depthwise(node, array) or not _is_requantized(node, readers)
        ):
            continue
        scale, zero_point = (numpy_helper.to_array(constants[name]) for name in data.input[1:3])
        lowest = np.array([-float(zero_point)], np.float32)
        grid = ActivationGrid(scale.reshape(1), lowest, lowest + 255)
        yield Product(node, data.input[0], grid, data.input[0], array)


def _is_depthwise(node, weights):
    group_count = next((one.i for one in node.attribute if one.name == "group"), 1)
    return weights.shape[1] == 1 and weights.shape[0] == group_count


def _is_requantized(node, readers):
    for _ in range(2):
        following = readers.get(node.output[0], [])
        if any(reader.op_type == "QuantizeLinear" for reader in following):
            return True
        if len(following) != 1 or following[0].op_type not in ("Relu", "Clip"):
            return False
        node = following[0]
    return False


def run_without_vnni(model, sample, names, multiply=clamped_product):
    """Tensors of a QDQ file, its products of uint8 and int8 clamped as VPMADDUBSW clamps them."""
    tensors = dict(sample)
    for product in products_of_file(model):
        name = product.node.output[0]
        codes, unclamped = _computed(model, tensors, [product.data, name])
        tensors[name] = _result(model, product, codes, unclamped, multiply)
    return _computed(model, tensors, names)


def _result(model, product, codes, unclamped, multiply):
    """What a node gives, in floats; ``unclamped``: what it gives where nothing saturates."""
    made_by = producers(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    def dequantized(name):
        node = made_by[name]
        stored, scale = constants[node.input[0]], constants[node.input[1]]
        return stored.astype(np.float32) * scale

    node = product.node
    data_scale, weight_scale = (constants[made_by[name].input[1]] for name in node.input[:2])
    if node.op_type != "Conv":
        total = _sums(product, codes, multiply) * (data_scale * weight_scale)
        result = total.reshape(*codes.shape[:-1], -1).astype(np.float32)
        return result + (dequantized(node.input[2]) if len(node.input) > 2 else np.float32(0))
    group_count = next((one.i for one in node.attribute if one.name == "group"), 1)
    images = [
        np.concatenate(
            [_sums(product, codes[at : at + 1], multiply, group) for group in range(group_count)], 1
        )
        for at in range(len(codes))
    ]
    total = np.stack(images) * (data_scale * weight_scale)
    if len(node.input) > 2:
        total = total + dequantized(node.input[2])
    return np.moveaxis(total, 1, 2).reshape(unclamped.shape).astype(np.float32)


def _sums(product, codes, multiply, group=0):
    data, weights = matrices(product, codes, group=group)
    offset = product.zero_point * weights.astype(np.int64).sum(axis=0)
    step = max(1, _MOST_SUMS // weights.size)
    parts = [data[start : start + step] for start in range(0, len(data), step)]
    return np.concatenate([multiply(part, weights) for part in parts]) - offset


def _computed(model, tensors, names):
    return Session(_part(model, tensors, names), is_optimized=False).run(tensors, names)


def _part(model, tensors, names):
    """The nodes that compute some tensors from those that are there already."""
    made_by = producers(model)
    needed, waiting = set(), list(names)
    while waiting:
        node = made_by.get(waiting.pop())
        if node is None or any(name in tensors for name in node.output) or id(node) in needed:
            continue
        needed.add(id(node))
        waiting.extend(read_by(node))
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.node[:], part.graph.output[:]
    part.graph.node.extend(node for node in model.graph.node if id(node) in needed)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    read = consumers(part)
    known = {value.name for value in part.graph.input}
    part.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)
        for name, array in tensors.items()
        if name not in known and name in read
    )
    return part
