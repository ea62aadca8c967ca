"""Generated models to measure on: real shapes, random weights.

``python bench/models.py NAME PATH [ARGUMENT...]`` writes one and prints its weight count, so that
whoever measures need not hold the libraries, or a model, in memory.
"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

# Random numbers are drawn and written so many at a time.
CHUNK_WEIGHTS = 1 << 22


class _Network:
    """A graph being written. Every method adds a node and returns the name of its output.

    Weights are normal with a standard deviation of their own per channel (log-normal around
    sqrt(2 / fan-in)), so that channels spread as trained ones do.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.weight_count = 0

    def node(self, op_type: str, name: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(
            helper.make_node(op_type, inputs, [f"{name}.out"], name=f"/{name}", **attributes)
        )
        return f"{name}.out"

    def conv(
        self, value: str, name: str, shape: tuple[int, ...], *, stride: int = 1, groups: int = 1
    ) -> str:
        """``shape`` is that of the weights: output channels, inputs per group, kernel, kernel."""
        kernel = shape[-1]
        return self.node(
            "Conv",
            f"{name}/Conv",
            value,
            self.weights(name, self.normal(shape)),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=groups,
        )

    def classifier(self, value: str, inputs: int) -> str:
        """Mean over the image, then 1,000 classes."""
        pooled = self.node("GlobalAveragePool", "pool", value)
        flat = self.node("Flatten", "flatten", pooled)
        weights = self.weights("fc", self.normal((1000, inputs)))
        return self.node("Gemm", "fc/Gemm", flat, weights, transB=1)

    def weights(self, name: str, values: npt.NDArray[np.float32]) -> str:
        self.weight_count += values.size
        return self.constant(f"{name}.weight", values)

    def constant(self, name: str, values: npt.NDArray[np.float32]) -> str:
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def normal(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        fan_in = int(np.prod(shape[1:]))
        spread = np.exp(self.random.normal(0, 0.3, (shape[0], *[1] * (len(shape) - 1))))
        values = self.random.standard_normal(shape, dtype=np.float32)
        return (values * np.sqrt(2 / fan_in) * spread).astype(np.float32)

    def save(self, path: Path, title: str, output: str, output_shape: list[int | str]) -> int:
        """Write the file; returns its weight count."""
        model = _model(
            self.nodes,
            title,
            # An image of any size, so that whoever must run the model may choose a small one.
            ("image", [1, 3, "height", "width"]),
            (output, output_shape),
            self.initializers,
        )
        onnx.save(model, path)
        return self.weight_count


def resnet50_like(path: Path, seed: int = 0) -> int:
    """Write a model with the 53 convolutions and the Gemm of ResNet-50; returns its weight count.

    The largest of them has 2.4 M weights.
    """
    network = _Network(seed)

    def conv(value: str, name: str, out: int, in_: int, kernel: int, stride: int = 1) -> str:
        return network.conv(value, name, (out, in_, kernel, kernel), stride=stride)

    def relu(value: str) -> str:
        return network.node("Relu", f"{value}/Relu", value)

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
            value, channels = relu(network.node("Add", f"{name}/Add", inner, value)), 4 * width
    return network.save(path, "resnet50-like", network.classifier(value, 2048), [1, 1000])


def mobilenetv2_like(path: Path, seed: int = 0) -> int:
    """Write a model with the 52 convolutions and the Gemm of MobileNetV2; returns its weight count.

    Every Relu6 is a Clip, as exporters write it, so that no pair of layers can be equalized.
    """
    network = _Network(seed)
    zero = network.constant("zero", np.array(0, dtype=np.float32))
    six = network.constant("six", np.array(6, dtype=np.float32))

    def conv(
        value: str, name: str, shape: tuple[int, ...], *, stride: int = 1, groups: int = 1
    ) -> str:
        inner = network.conv(value, name, shape, stride=stride, groups=groups)
        return network.node("Clip", f"{name}/Clip", inner, zero, six)

    value, channels = conv("image", "stem", (32, 3, 3, 3), stride=2), 32
    # Sandler et al. 2018, table 2: expansion, output channels, repeats, stride of the first.
    stages = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    for stage, (expansion, out, repeats, first_stride) in enumerate(stages):
        for block in range(repeats):
            name, wide = f"stage{stage}.{block}", channels * expansion
            stride = 1 if block else first_stride
            inner = value
            if expansion > 1:
                inner = conv(inner, f"{name}.expand", (wide, channels, 1, 1))
            inner = conv(inner, f"{name}.depthwise", (wide, 1, 3, 3), stride=stride, groups=wide)
            inner = network.conv(inner, f"{name}.project", (out, wide, 1, 1))
            is_residual = stride == 1 and channels == out
            value = network.node("Add", f"{name}/Add", inner, value) if is_residual else inner
            channels = out
    value = conv(value, "head", (1280, channels, 1, 1))
    return network.save(path, "mobilenetv2-like", network.classifier(value, 1280), [1, 1000])


def mobile_like(path: Path, seed: int = 0, spread: float = 0.5) -> int:
    """Write a chain of depthwise and pointwise convolutions: 123 layers, about 9,000 channels.

    Args:
        spread: standard deviation of the logarithm of the channels' scales, of an average layer.

    Returns:
        The number of weights.
    """
    network = _Network(seed)
    random = network.random
    value, in_ = "image", 3
    for depth in range(123):
        is_depthwise = depth % 2 == 1
        out = in_ if is_depthwise else (32, 64, 96, 128)[depth * 4 // 123]
        kernel = 3 if is_depthwise else 1
        name = f"blocks.{depth // 2}/{'depthwise' if is_depthwise else 'pointwise'}"
        scales = np.exp(random.normal(0, spread * random.uniform(0.2, 1.8), (out, 1, 1, 1)))
        shape = (out, 1 if is_depthwise else in_, kernel, kernel)
        # What comes out is about as large as what goes in, or no float could hold it at the end.
        gain = np.sqrt(np.prod(shape[1:]) * np.exp(2 * np.var(np.log(scales))))
        weights = (random.standard_normal(shape) * scales / gain).astype(np.float32)
        value = network.node(
            "Conv",
            f"{name}/Conv",
            value,
            network.weights(f"/{name}/Conv", weights),
            kernel_shape=[kernel, kernel],
            group=out if is_depthwise else 1,
            pads=[kernel // 2] * 4,
        )
        in_ = out
    return network.save(path, "mobile-like", value, [1, in_, "height", "width"])


def external_like(
    path: Path, layers: int, rows: int, columns: int, op_type: str = "MatMul", seed: int = 0
) -> int:
    """Write a chain of equal layers whose weights lie in one file beside the model.

    Neither this function nor the file is bound by the 2 GB of a protobuf message. Every other
    layer is ``(columns, rows)``, so that each fits behind the one before.

    Args:
        op_type: ``MatMul`` or ``Gemm``; pairs of Gemm can be equalized, so more is measured.

    Returns:
        The number of weights.
    """
    data = path.with_suffix(".data")
    random = np.random.default_rng(seed)
    nodes, initializers, value = [], [], "x"
    with data.open("wb") as file:
        for depth in range(layers):
            shape = (columns, rows) if depth % 2 else (rows, columns)
            tensor = TensorProto(name=f"layer{depth}.weight", data_type=TensorProto.FLOAT)
            tensor.dims.extend(shape)
            tensor.data_location = TensorProto.EXTERNAL
            entries = {"location": data.name, "offset": file.tell(), "length": rows * columns * 4}
            for key, entry in entries.items():
                tensor.external_data.add(key=key, value=str(entry))
            for chunk in _chunks(random, shape):
                file.write(chunk.tobytes())
            initializers.append(tensor)
            output = f"layer{depth}.out"
            nodes.append(
                helper.make_node(
                    op_type, [value, tensor.name], [output], name=f"/layer{depth}/{op_type}"
                )
            )
            value = output
    last = rows if layers % 2 == 0 else columns
    model = _model(nodes, "external-like", ("x", [1, rows]), (value, [1, last]), initializers)
    # Not onnx.save, which would look for the data.
    path.write_bytes(model.SerializeToString())
    return layers * rows * columns


def _chunks(
    random: np.random.Generator, shape: tuple[int, int]
) -> Iterator[npt.NDArray[np.float32]]:
    """Rows of ``(inputs, output channels)``, with a scale per output channel."""
    inputs, outputs = shape
    scales = np.exp(random.normal(0, 0.3, outputs)).astype(np.float32)
    scales *= np.float32(np.sqrt(2 / inputs))
    at_once = max(1, CHUNK_WEIGHTS // outputs)
    for start in range(0, inputs, at_once):
        size = (min(at_once, inputs - start), outputs)
        yield random.standard_normal(size, dtype=np.float32) * scales


def _model(
    nodes: list[onnx.NodeProto],
    title: str,
    input_: tuple[str, list[int | str]],
    output: tuple[str, list[int | str]],
    initializers: list[onnx.TensorProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        title,
        [helper.make_tensor_value_info(input_[0], TensorProto.FLOAT, input_[1])],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


GENERATORS = {
    generate.__name__.replace("_", "-"): generate
    for generate in (resnet50_like, mobilenetv2_like, mobile_like, external_like)
}


def main(arguments: list[str]) -> None:
    """Write the model that the command line names; print its weight count."""
    name, path, *texts = arguments
    generate = GENERATORS[name]
    parsers = [
        parameter.annotation for parameter in inspect.signature(generate).parameters.values()
    ]
    print(
        generate(
            Path(path), *(parse(text) for parse, text in zip(parsers[1:], texts, strict=False))
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
