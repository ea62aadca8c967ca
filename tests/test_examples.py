"""The demo models are what examples/README.md says they are."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantstore.numerics.quantization import round_trip
from quantstore.schemes import SCHEMES
from tests.support.demo_models import MODELS, documented

PLAIN = "digits-plain.onnx"
FOLDED = "digits-separable.onnx"
UNFOLDED = "digits-separable-unfolded.onnx"
RESCALED = "digits-rescaled.onnx"
FILES = (PLAIN, FOLDED, UNFOLDED, RESCALED)

every_file = pytest.mark.parametrize("file", FILES)
# Weights are quantized after folding, so the unfolded file has no int8 accuracy of its own.
every_folded_file = pytest.mark.parametrize("file", [PLAIN, FOLDED, RESCALED])


def quantized(model: onnx.ModelProto, scheme: str) -> onnx.ModelProto:
    """The model, its Conv and Gemm weights having gone through int8 and back."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            tensor = tensors[node.input[1]]
            weights = numpy_helper.to_array(tensor)
            rows = round_trip(weights.reshape(len(weights), -1), SCHEMES[scheme])
            back = rows.reshape(weights.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(back, tensor.name))
    return model


def logits(file: str, images: np.ndarray, scheme: str | None = None) -> np.ndarray:
    """What onnxruntime makes of the file: in float, or with weights quantized by ``scheme``."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="it runs the demo models")
    model = onnx.load(MODELS / file)
    if scheme is not None:
        model = quantized(model, scheme)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    outputs: list[np.ndarray] = session.run(None, {"image": images})
    return outputs[0]


def accuracy(file: str, split: tuple[np.ndarray, np.ndarray], scheme: str | None = None) -> float:
    """The share of test images classified correctly."""
    images, labels = split
    return float(np.mean(logits(file, images, scheme).argmax(axis=1) == labels))


def test_the_four_files_are_shipped_and_documented():
    assert {path.name for path in MODELS.glob("*.onnx")} == set(FILES)
    assert set(documented()) == set(FILES)


def test_together_they_stay_below_two_megabytes():
    assert sum((MODELS / file).stat().st_size for file in FILES) < 2_000_000


@every_file
def test_onnx_accepts_the_file(file):
    onnx.checker.check_model(onnx.load(MODELS / file), full_check=True)


@every_file
def test_the_file_tells_nothing_about_the_machine_it_was_made_on(file):
    content = (MODELS / file).read_bytes()
    folders = [b"/" + name + b"/" for name in (b"root", b"tmp", b"home", b"work", b"Users")]
    for path in (*folders, b"site-packages"):
        assert path not in content


@every_file
def test_the_table_gives_the_size_and_the_number_of_layers(file):
    row, model = documented()[file], onnx.load(MODELS / file)
    assert int(row["Bytes"]) == (MODELS / file).stat().st_size
    layers = sum(node.op_type in ("Conv", "Gemm") for node in model.graph.node)
    assert int(row["Layers"]) == layers


@every_file
@pytest.mark.slow
def test_the_table_gives_the_float_accuracy(file, test_split):
    assert documented()[file]["Float"] == f"{accuracy(file, test_split):.2%}"


@every_folded_file
@pytest.mark.parametrize("sharing", ["tensor", "channel"])
def test_the_table_gives_the_int8_accuracy(file, sharing, test_split):
    measured = accuracy(file, test_split, f"int8_{sharing}_symmetric")
    assert documented()[file][f"int8 per {sharing}"] == f"{measured:.2%}"


def test_the_networks_learned_something(test_split):
    assert accuracy(PLAIN, test_split) >= 0.98
    assert accuracy(FOLDED, test_split) >= 0.97


def test_one_scale_per_tensor_destroys_the_rescaled_network(test_split):
    assert accuracy(FOLDED, test_split, "int8_tensor_symmetric") > 0.95
    assert accuracy(RESCALED, test_split, "int8_tensor_symmetric") < 0.3


def test_one_scale_per_channel_rescues_the_rescaled_network(test_split):
    images, _ = test_split
    # Powers of two move into the scales and leave the codes alone.
    np.testing.assert_allclose(
        logits(RESCALED, images, "int8_channel_symmetric"),
        logits(FOLDED, images, "int8_channel_symmetric"),
        rtol=1e-5,
        atol=1e-4,
    )


@pytest.mark.parametrize("file", [UNFOLDED, RESCALED])
def test_the_float_function_is_that_of_the_folded_network(file, test_split):
    images, _ = test_split
    np.testing.assert_allclose(logits(file, images), logits(FOLDED, images), rtol=1e-5, atol=1e-4)


def test_every_convolution_of_the_unfolded_file_feeds_one_batch_normalization_alone():
    nodes = onnx.load(MODELS / UNFOLDED).graph.node
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert len(convolutions) == 9
    for convolution in convolutions:
        (consumer,) = [node for node in nodes if convolution.output[0] in node.input]
        assert consumer.op_type == "BatchNormalization"
        assert len(consumer.output) == 1  # inference mode: no running statistics come out


@pytest.mark.parametrize("file", [PLAIN, FOLDED, RESCALED])
def test_the_other_files_have_no_batch_normalization_left(file):
    assert all(node.op_type != "BatchNormalization" for node in onnx.load(MODELS / file).graph.node)
