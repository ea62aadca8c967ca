"""Small ONNX models for tests, and the referee that runs them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from quantstore.graph import find_sites, open_model, read_layer

node = helper.make_node


def gaussian(*shape, seed=0):
    """Float32 weights nobody would take for zeros, ones or one another."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def float_value(name, shape=None):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def make_model(nodes, weights, *, inputs=("x",), outputs=("y",), opset=17, ir_version=8):
    """A model of these nodes; ``weights`` maps the name of an initializer to its array."""
    graph = helper.make_graph(
        nodes,
        "test",
        [float_value(name) for name in inputs],
        [float_value(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    domains = {node.domain for node in nodes} - {"", "ai.onnx"}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(node, 1) for node in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def conv_model(weights=None, **attributes):
    """One convolution named ``conv``."""
    weights = gaussian(4, 3, 3, 3) if weights is None else weights
    return make_model([node("Conv", ["x", "w"], ["y"], "conv", **attributes)], {"w": weights})


def save(model, path):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def layers_of(path, *, fold=True):
    """Every layer of a file that has weights, in order."""
    file = open_model(path)
    read = [read_layer(file, site, fold=fold) for site in find_sites(file)]
    return [layer for layer in read if layer is not None]


def as_stored(layer):
    """A layer's effective weights in the shape of the tensor that the node reads."""
    if layer.channel_axis is None:
        return layer.weights.reshape(layer.shape)
    if layer.op_family == "recurrent":
        directions, rows = layer.shape[0], layer.shape[layer.channel_axis]
        moved = layer.weights.reshape(directions, rows, -1)
        return np.moveaxis(moved, 1, layer.channel_axis)
    other_sizes = [size for axis, size in enumerate(layer.shape) if axis != layer.channel_axis]
    return np.moveaxis(layer.weights.reshape(-1, *other_sizes), 0, layer.channel_axis)


def move_outside(tensor, path, *, offset=0, location=None, length=None):
    """Move a tensor's data into a file at an offset, and let the tensor point there."""
    content = tensor.raw_data
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if path.exists() else "w+b") as stream:
        stream.seek(offset)
        stream.write(content)
    point_outside(tensor, location or path.name, offset=offset, length=length or len(content))


def point_outside(tensor, location, *, offset=None, length=None):
    """Let a tensor point into a file, whatever that file holds."""
    tensor.raw_data = tensor.raw_data or b"\0"
    external_data_helper.set_external_data(tensor, location, offset, length)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL


def run(model, **feeds):
    """The outputs of a model as onnxruntime computes them."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="it is the referee")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def computed(model, *names):
    """Constants of a model as onnx's own reference evaluator computes them."""
    computed_names = {tensor.name for tensor in model.graph.initializer}
    needed, waiting = [], list(names)
    while waiting:
        name = waiting.pop()
        maker = next((node for node in model.graph.node if name in node.output), None)
        if name not in computed_names and maker is not None:
            computed_names.update(maker.output)
            needed.append(maker)
            waiting.extend(maker.input)
    nodes = [
        node for node in model.graph.node if any(node is needed_node for needed_node in needed)
    ]
    graph = helper.make_graph(
        nodes,
        "constants",
        [],
        [helper.make_empty_tensor_value_info(name) for name in names],
        model.graph.initializer,
    )
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return ReferenceEvaluator(part).run(list(names), {})
