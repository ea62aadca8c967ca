"""Generated models to measure on: real shapes, random weights."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def resnet50_like(path: Path, seed: int = 0) -> int:
    """Write a model with the 53 convolutions and the Gemm of ResNet-50; returns its weight count.

    Weights are normal with a standard deviation of their own per channel (log-normal around
    sqrt(2 / fan-in)), so that channels spread as trained ones do.
    """
    random = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    weight_count = 0

    def weights(name: str, shape: tuple[int, ...]) -> None:
        nonlocal weight_count
        fan_in = int(np.prod(shape[1:]))
        spread = np.exp(random.normal(0, 0.3, (shape[0], *[1] * (len(shape) - 1))))
        values = random.standard_normal(shape, dtype=np.float32) * np.sqrt(2 / fan_in) * spread
        initializers.append(numpy_helper.from_array(values.astype(np.float32), name))
        weight_count += values.size

    def conv(value: str, name: str, out: int, in_: int, kernel: int, stride: int = 1) -> str:
        weights(f"{name}.weight", (out, in_, kernel, kernel))
        pad = kernel // 2
        nodes.append(
            helper.make_node(
                "Conv",
                [value, f"{name}.weight"],
                [f"{name}.out"],
                name=f"/{name}/Conv",
                kernel_shape=[kernel, kernel],
                strides=[stride, stride],
                pads=[pad] * 4,
            )
        )
        return f"{name}.out"

    def relu(value: str) -> str:
        nodes.append(helper.make_node("Relu", [value], [f"{value}.relu"], name=f"/{value}/Relu"))
        return f"{value}.relu"

    value = relu(conv("image", "stem", 64, 3, 7, 2))
    channels = 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for block in range(blocks):
            name = f"stage{stage}.{block}"
            stride = 2 if block == 0 and stage else 1
            inner = relu(conv(value, f"{name}.conv1", width, channels, 1))
            inner = relu(conv(inner, f"{name}.conv2", width, width, 3, stride))
            inner = conv(inner, f"{name}.conv3", 4 * width, width, 1)
            if block == 0:
                value = conv(value, f"{name}.down", 4 * width, channels, 1, stride)
            nodes.append(
                helper.make_node("Add", [inner, value], [f"{name}.sum"], name=f"/{name}/Add")
            )
            value, channels = relu(f"{name}.sum"), 4 * width
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pooled"], name="/pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], name="/flatten"))
    weights("fc.weight", (1000, 2048))
    nodes.append(
        helper.make_node("Gemm", ["flat", "fc.weight"], ["logits"], name="/fc/Gemm", transB=1)
    )
    graph = helper.make_graph(
        nodes,
        "resnet50-like",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1000])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return weight_count


def mobile_like(path: Path, seed: int = 0, spread: float = 0.5) -> int:
    """Write a chain of depthwise and pointwise convolutions: 123 layers, about 9,000 channels.

    Args:
        spread: standard deviation of the logarithm of the channels' scales, of an average layer.

    Returns:
        The number of weights.
    """
    random = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    value, in_, weight_count = "image", 3, 0
    for depth in range(123):
        is_depthwise = depth % 2 == 1
        out = in_ if is_depthwise else (32, 64, 96, 128)[depth * 4 // 123]
        kernel = 3 if is_depthwise else 1
        name = f"/blocks.{depth // 2}/{'depthwise' if is_depthwise else 'pointwise'}/Conv"
        scales = np.exp(random.normal(0, spread * random.uniform(0.2, 1.8), (out, 1, 1, 1)))
        shape = (out, 1 if is_depthwise else in_, kernel, kernel)
        weights = (random.standard_normal(shape) * scales).astype(np.float32)
        initializers.append(numpy_helper.from_array(weights, f"{name}.weight"))
        nodes.append(
            helper.make_node(
                "Conv",
                [value, f"{name}.weight"],
                [f"{name}.out"],
                name=name,
                kernel_shape=[kernel, kernel],
                group=out if is_depthwise else 1,
                pads=[kernel // 2] * 4,
            )
        )
        value, in_ = f"{name}.out", out
        weight_count += weights.size
    graph = helper.make_graph(
        nodes,
        "mobile-like",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, [1, in_, 224, 224])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return weight_count
