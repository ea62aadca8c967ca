"""The article that started this, with stored models: which stand for its own, and what is missing.

"Accuracy Degradation After Quantization" (Sunplus C3) shows six values that merge, the channels of
one layer of RTMDet-s, and the weight ranges of three detectors. Plain text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantstore.schemes import TARGETS
from quantstore.wording.columns import Row
from quantstore.wording.text import listed, short_name
from quantstore.wording.units import count, counted, share, weight
from quantstore.wording.verdicts import ModelFacts

TITLE = "Accuracy Degradation After Quantization"
# The article rounds per tensor, and looks at this layer of RTMDet-s.
TARGET = TARGETS["int8_tensor"]
LAYER = "/backbone/stage1/stage1.1/blocks/blocks.0/conv2/depthwise_conv/conv/Conv"

WHAT_IT_IS = (
    f"“{TITLE}” (Sunplus C3) shows in three pictures why int8 breaks one detector,"
    " RTMDet-s, but not another, YOLOv10-N. This page draws the same pictures for"
    " two models from your store, with per-tensor int8 as in the article."
)
VALUES = "1. Small values merge next to a large one"
CHANNELS = "2. A few channels set the range of a layer"
RANGES = "3. Weight ranges of the two models"
CHANNELS_NOTE = (
    "One box per output channel, coloured by the band of the channel. Weights in the grey zone"
    " round to 0."
)
RANGES_NOTE = "Each convolution counts once, as in the article, on a logarithmic axis."

# Its models, with what a name of a file has in it.
_FAMILIES = {
    "RTMDet-s": ("rtmdet",),
    "YOLOv10-N": ("yolov10",),
    "Faster R-CNN": ("fasterrcnn", "faster-rcnn", "faster_rcnn"),
}
_RUINED, _SPARED = "RTMDet-s", "YOLOv10-N"
# Two of the examples that compute the same function, one of them ruined by int8.
_EXAMPLES = ("digits-rescaled", "digits-separable")


def model_pair(worst_first: Sequence[str]) -> tuple[str, str]:
    """The model that int8 ruins and the one that it spares: of the article, else of the examples.

    Args:
        worst_first: all that the store holds, at least one; of a single one both are it.
    """
    ruined, spared = _named(_RUINED, worst_first), _named(_SPARED, worst_first)
    if ruined is None and spared is None and set(_EXAMPLES) <= set(worst_first):
        return _EXAMPLES
    ruined = ruined or next((name for name in worst_first if name != spared), worst_first[0])
    spared = spared or next((name for name in reversed(worst_first) if name != ruined), ruined)
    return ruined, spared


def _named(family: str, models: Sequence[str]) -> str | None:
    for fragment in _FAMILIES[family]:
        for model in models:
            if fragment in model.lower():
                return model
    return None


def headline(ruined: ModelFacts, spared: ModelFacts) -> str:
    """``rtmdet-nano is broken with per-tensor int8, yolov10n is rated watch``."""
    first, second = (short_name(facts.model, 40) for facts in (ruined, spared))
    if ruined.verdict == spared.verdict:
        return f"{first} and {second} are {_state(ruined)} with {TARGET.title}"
    return f"{first} is {_state(ruined)} with {TARGET.title}, {second} is {_state(spared)}"


def _state(facts: ModelFacts) -> str:
    return "rated watch" if facts.verdict == "watch" else facts.verdict


def weights_story(models: Sequence[ModelFacts], largest_ranges: Mapping[Any, Any]) -> str:
    """What the weights of each model say, the activations aside.

    Args:
        largest_ranges: of the counted layers, by model.
    """
    return f"By the weights alone: {'; '.join(_weights_of(f, largest_ranges) for f in models)}."


def _weights_of(facts: ModelFacts, largest_ranges: Mapping[Any, Any]) -> str:
    layers = f"{count(facts.layers_broken)} of {counted(facts.layer_count, 'layer')} broken"
    largest = weight(float(largest_ranges[facts.model]))
    return f"{layers} and a largest weight range of {largest} in {short_name(facts.model, 40)}"


def absent_models(models: Sequence[str]) -> str:
    """Which models of the article the store lacks, and what stands for those that it has."""
    standing = {family: _named(family, models) for family in _FAMILIES}
    absent = [family for family, model in standing.items() if model is None]
    present = [f"{model} (for {family})" for family, model in standing.items() if model]
    sentences = []
    if present:
        sentences.append(f"The store has {listed(present)}.")
    if absent:
        sentences.append(f"Missing: {listed(absent)}. Add the .onnx file in the sidebar.")
    return " ".join(sentences)


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """The layer of a model whose channels are drawn, and why this one: a sentence."""

    row: Row
    reason: str

    @property
    def layer_id(self) -> int:
        """Its key."""
        return int(self.row["layer_id"])


def layer_to_show(profiles: Sequence[Row]) -> LayerChoice | None:
    """The layer of the article, else the convolution whose channels differ most in range.

    Args:
        profiles: the layers of one model, as ``queries.layer_profiles`` gives them.

    Returns:
        None where no layer has channels that could differ.
    """
    of_article = [row for row in profiles if row["layer"] == LAYER]
    if of_article:
        return LayerChoice(of_article[0], "The layer that the article shows.")
    wide = [row for row in profiles if _spread(row) > float("-inf")]
    if not wide:
        return None
    for reason, rows in (
        (
            "This model does not have the article's layer. Shown instead: the depthwise"
            " convolution with the largest channel spread.",
            [row for row in wide if row["is_depthwise"]],
        ),
        (
            "This model has no depthwise convolutions. Shown instead: the convolution with"
            " the largest channel spread.",
            [row for row in wide if row["op_family"] in ("conv", "conv_transpose")],
        ),
    ):
        if rows:
            return LayerChoice(max(rows, key=_spread), reason)
    reason = "This model has no convolutions. Shown instead: the layer with the largest spread."
    return LayerChoice(max(wide, key=_spread), reason)


def _spread(row: Row) -> float:
    value = row["channel_spread_bits"]
    # NaN and NULL are smaller than any spread.
    return float(value) if isinstance(value, float) and value == value else float("-inf")


def channels_story(
    channel_count: int, outliers: Sequence[int], lost: int, largest: float, typical: float
) -> str:
    """Which channels set the range of a layer, and what becomes of the others.

    Args:
        outliers: the channels beyond the fence, widest first.
        lost: how many channels stay below 10 dB.
        largest: the range of the widest channel; ``typical``: of the median channel.
    """
    if outliers:
        # The article names two.
        named = listed([str(channel) for channel in outliers[:3]])
        others = len(outliers) - 3
        further = f" and {count(others)} more" if others > 0 else ""
        noun = "Channel" if len(outliers) == 1 else "Channels"
        verb = "stands" if len(outliers) == 1 else "stand"
        first = f"{noun} {named}{further} {verb} out: the widest spans {weight(largest)}"
    else:
        first = f"No channel stands out: the widest spans {weight(largest)}"
    part = share(lost / channel_count) if channel_count else share(0.0)
    return (
        f"{first}, a typical one {weight(typical)}. {count(lost)} of"
        f" {counted(channel_count, 'channel')} ({part}) are below 10 dB."
    )


NO_CHANNELS = "No layer of this model has channels to compare."
SAME_MODEL = "Choose two different models to compare their ranges."
