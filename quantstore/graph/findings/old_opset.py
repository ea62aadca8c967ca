"""Operator sets before 13, and what they cannot say of integers."""

from collections.abc import Iterator

from quantstore.graph.findings.base import OfModel, Sentences, SurveyedModel

# DequantizeLinear is there since the first of these operator sets, and knows a scale per channel
# since the second. https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html
DEQUANTIZE_OPSET = 10
PER_CHANNEL_OPSET = 13

KNOWS_NEITHER_OPERATOR = (
    f"does not support quantization: QuantizeLinear and DequantizeLinear need {DEQUANTIZE_OPSET},"
    f" per-channel scales {PER_CHANNEL_OPSET}."
)
KNOWS_ONE_SCALE = (
    f"does not support per-channel quantization, which needs {PER_CHANNEL_OPSET} or later."
)


def opset_in_words(opset: int) -> str:
    """Which operator set a model uses."""
    return f"Opset {opset}"


def _look(model: SurveyedModel) -> Iterator[Sentences]:
    opset = model.file.opset
    if opset is None or opset >= PER_CHANNEL_OPSET:
        return
    knows = KNOWS_NEITHER_OPERATOR if opset < DEQUANTIZE_OPSET else KNOWS_ONE_SCALE
    before = "quantizing" if opset < DEQUANTIZE_OPSET else "quantizing per channel"
    yield Sentences(
        f"{opset_in_words(opset)} {knows}",
        f"Export with opset {PER_CHANNEL_OPSET} or later, or convert the model with"
        f" onnx.version_converter, before {before}.",
    )


OLD_OPSET = OfModel(
    name="old opset",
    severity="warning",
    meaning=(
        f"The opset is below {PER_CHANNEL_OPSET}, where DequantizeLinear has no scale"
        f" per channel, or below {DEQUANTIZE_OPSET}, where it does not exist."
    ),
    look=_look,
)
