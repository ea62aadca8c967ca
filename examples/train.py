"""Train the demo models, export them to ONNX and write their accuracy into README.md.

In: scikit-learn's digits (1797 images of 8x8 pixels). Out: the four files of
``quantstore/demo_models`` and the table between the markers in ``examples/README.md``.
The only file of the project that needs PyTorch; run it from the project's root with
``python -m examples.train``.
"""

import copy
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

from quantstore.numerics.quantization import round_trip
from quantstore.schemes import SCHEMES, Scheme

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "quantstore" / "demo_models"
README = ROOT / "examples" / "README.md"
TABLE_BEGIN, TABLE_END = "<!-- accuracy: begin -->", "<!-- accuracy: end -->"

SEED = 0
TEST_SHARE = 0.25
EPOCHS = 60
BATCH = 64
LEARNING_RATE = 3e-3
OPSET = 17

# Exponents of the rescaling factors, drawn uniformly: 2^-5 .. 2^5, so the widest channel of a
# layer is about 2^5 times the median one. RTMDet-nano's layers reach that at their 90th percentile.
RESCALE_BITS = 5

TENSOR = SCHEMES["int8_tensor_symmetric"]
CHANNEL = SCHEMES["int8_channel_symmetric"]


# The data


@dataclass(frozen=True)
class Digits:
    """Images as float32 ``(n, 1, 8, 8)`` in 0..1, labels as int64 ``(n,)``; the split is fixed."""

    train_images: np.ndarray
    test_images: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray


def read_digits() -> Digits:
    """The 1347 training and 450 test images; every digit has the same share in both."""
    images, labels = load_digits(return_X_y=True)
    # Pixels are counts from 0 to 16.
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return Digits(
        *train_test_split(
            images,
            labels.astype(np.int64),
            test_size=TEST_SHARE,
            stratify=labels,
            random_state=SEED,
        )
    )


# The networks


class PlainNet(nn.Module):
    """Convolutions, two poolings, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * 2 * 2, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, 10)`` of images ``(n, 1, 8, 8)``."""
        return self.classifier(self.features(image))


class ConvBnRelu(nn.Module):
    """A convolution whose bias is left to the BatchNormalization behind it."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(outputs)
        # Not ReLU6: only a ReLU lets a positive factor pass, which rescale() relies on.
        self.relu = nn.ReLU()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The feature map ``(n, outputs, height / stride, width / stride)``."""
        return self.relu(self.bn(self.conv(image)))


class SeparableBlock(nn.Module):
    """A depthwise convolution over space, then a pointwise one over channels."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = ConvBnRelu(inputs, inputs, 3, stride=stride, groups=inputs)
        self.pointwise = ConvBnRelu(inputs, outputs, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The feature map ``(n, outputs, height / stride, width / stride)``."""
        return self.pointwise(self.depthwise(image))


class SeparableNet(nn.Module):
    """A small MobileNet: a stem, four separable blocks, global pooling, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBnRelu(1, 16, 3)
        self.blocks = nn.Sequential(
            SeparableBlock(16, 32),
            SeparableBlock(32, 48, stride=2),
            SeparableBlock(48, 48),
            SeparableBlock(48, 64, stride=2),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, 10)`` of images ``(n, 1, 8, 8)``."""
        return self.head(self.blocks(self.stem(image)))


def train(net: nn.Module, digits: Digits) -> nn.Module:
    """Train in place for a fixed number of epochs; return the network in inference mode.

    Nothing is chosen by looking at the test images: no early stopping, the last epoch counts.
    """
    images, labels = torch.from_numpy(digits.train_images), torch.from_numpy(digits.train_labels)
    steps = -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * steps)
    net.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            loss = functional.cross_entropy(net(shift(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def shift(images: torch.Tensor) -> torch.Tensor:
    """The batch moved by up to one pixel each way, so that 1347 images go a little further."""
    down, right = torch.randint(0, 3, (2,)).tolist()
    return functional.pad(images, (1, 1, 1, 1))[:, :, down : down + 8, right : right + 8]


def rescale(net: SeparableNet) -> SeparableNet:
    """The same float function with weights that one scale per tensor cannot hold.

    relu(s x) = s relu(x) for s > 0. So channel i of a convolution may grow by s_i if the
    depthwise convolution behind it divides its kernel i by s_i. A kernel of a depthwise
    convolution is an output channel as well as an input channel, which is why a scale per
    output channel absorbs s_i in both layers; in front of an ordinary convolution it would not.
    Powers of two leave every float32 mantissa as it was.

    This is cross-layer equalization run backwards (Nagel et al., "Data-Free Quantization Through
    Weight Equalization and Bias Correction", ICCV 2019, https://arxiv.org/abs/1906.04721).
    """
    net = copy.deepcopy(net)
    random = np.random.default_rng(SEED)
    before = [net.stem, *(block.pointwise for block in net.blocks[:-1])]
    with torch.no_grad():
        for conv, block in zip(before, net.blocks, strict=True):
            channels = conv.bn.num_features
            exponents = random.integers(-RESCALE_BITS, RESCALE_BITS, size=channels, endpoint=True)
            factors = torch.from_numpy(np.exp2(exponents).astype(np.float32))
            # The normalization is folded into the convolution on export, weights and bias alike.
            conv.bn.weight *= factors
            conv.bn.bias *= factors
            block.depthwise.conv.weight /= factors.reshape(-1, 1, 1, 1)
    return net


# The files


def export(net: nn.Module, *, fold: bool) -> onnx.ModelProto:
    """The network as ONNX, BatchNormalization folded into the convolutions or left alone."""
    mode = torch.onnx.TrainingMode
    file = io.BytesIO()
    with warnings.catch_warnings():
        # dynamo=False is deprecated; most files in the wild still have the names it gives.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            net,
            (torch.zeros(1, 1, 8, 8),),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            # EVAL folds; PRESERVE keeps what eval() made of the network, node by node.
            training=mode.EVAL if fold else mode.PRESERVE,
            do_constant_folding=fold,
        )
    return without_traces(onnx.load_model_from_string(file.getvalue()))


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without doc strings and metadata, where exporters leave paths of the machine."""
    model.doc_string = ""
    model.graph.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model


# The measurement


def with_quantized_weights(model: onnx.ModelProto, scheme: Scheme) -> onnx.ModelProto:
    """A copy whose Conv and Gemm weights went through int8 and back. Biases stay as they are."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        tensor = tensors[node.input[1]]
        # Output channels come first in both: a Linear is exported as a Gemm with transB = 1.
        weights = numpy_helper.to_array(tensor)
        rows = round_trip(weights.reshape(len(weights), -1), scheme)
        back = rows.reshape(weights.shape).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(back, tensor.name))
    return model


def logits(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """What onnxruntime computes for these images: ``(n, 10)``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[np.ndarray] = session.run(None, {"image": images})
    return outputs[0]


def accuracy(model: onnx.ModelProto, digits: Digits) -> float:
    """The share of test images whose largest logit is that of the right digit."""
    return float(np.mean(logits(model, digits.test_images).argmax(axis=1) == digits.test_labels))


def table(models: dict[str, onnx.ModelProto], digits: Digits) -> str:
    """One row per file: layers, bytes and three accuracies, as Markdown."""
    lines = [
        "| File | Layers | Bytes | Float | int8 per tensor | int8 per channel |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, model in models.items():
        # Weights are quantized as a runtime would: after folding.
        folded = models[name.removesuffix("-unfolded")]
        layers = sum(node.op_type in ("Conv", "Gemm") for node in model.graph.node)
        measured = (
            accuracy(model, digits),
            accuracy(with_quantized_weights(folded, TENSOR), digits),
            accuracy(with_quantized_weights(folded, CHANNEL), digits),
        )
        shares = " | ".join(f"{share:.2%}" for share in measured)
        lines.append(f"| `{name}.onnx` | {layers} | {model.ByteSize()} | {shares} |")
    return "\n".join(lines)


def write_table(text: str) -> None:
    """Replace what stands between the markers in the README."""
    before, from_marker = README.read_text(encoding="utf-8").split(TABLE_BEGIN)
    _, after = from_marker.split(TABLE_END)
    README.write_text(
        f"{before}{TABLE_BEGIN}\n\n{text}\n\n{TABLE_END}{after}", encoding="utf-8", newline="\n"
    )


def main() -> None:
    """Train, export, measure, write."""
    # One thread adds up in one order, so a second run on the same machine gives the same bytes.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    digits = read_digits()
    MODELS.mkdir(parents=True, exist_ok=True)

    plain = train(PlainNet(), digits)
    separable = train(SeparableNet(), digits)
    models = {
        "digits-plain": export(plain, fold=True),
        "digits-separable": export(separable, fold=True),
        "digits-separable-unfolded": export(separable, fold=False),
        "digits-rescaled": export(rescale(separable), fold=True),
    }
    reference = logits(models["digits-separable"], digits.test_images)
    for name in ("digits-separable-unfolded", "digits-rescaled"):
        apart = np.abs(logits(models[name], digits.test_images) - reference).max()
        print(f"{name}: float logits differ from digits-separable by at most {apart:.2g}")

    for name, model in models.items():
        onnx.save(model, MODELS / f"{name}.onnx")
    text = table(models, digits)
    write_table(text)
    print(text)


if __name__ == "__main__":
    main()
