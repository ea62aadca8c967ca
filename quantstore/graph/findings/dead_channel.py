"""Channels all but dead whose bias does not fit into 32 bits at a scale of their own."""

from collections.abc import Iterator

import numpy as np

from quantstore.graph.bias import bias_of, overflows
from quantstore.graph.findings.base import (
    MOST_NAMED,
    MeasuredLayer,
    OfLayer,
    Sentences,
    dead_of,
    scales_of,
)

# The scale of a layer's input is not known before the model is run; 6/255 is that of ReLU6, in the
# middle of what convolutions see.
ASSUMED_INPUT_SCALE = 6 / 255
# onnxruntime 1.32, QDQQuantizer._adjust_weight_scale_for_int32_bias: the smallest scale of a bias
# is 1.0001 times twice its size over the range of int32.
_BIAS_MARGIN = 1.0001


def _look(measured: MeasuredLayer) -> Iterator[Sentences]:
    dead = _overflowing_channels(measured)
    if not dead:
        return
    named = ", ".join(map(str, dead[:MOST_NAMED])) + (", …" if len(dead) > MOST_NAMED else "")
    are, them = ("is", "its") if len(dead) == 1 else ("are", "their")
    yield Sentences(
        f"{len(dead):,} {'channel' if len(dead) == 1 else 'channels'} ({named}) {are} almost all"
        f" zero: {them} weights are below a millionth of the layer's largest. With per-channel"
        f" scales {them} int32 bias overflows (assuming an input scale of 6/255; the model was not"
        " run).",
        "Set these weights to exactly 0, or prune the channels. Otherwise onnxruntime"
        " widens their scale, and other tools clip the bias.",
    )


def _overflowing_channels(measured: MeasuredLayer) -> list[int]:
    """Channels all but dead whose bias does not fit into 32 bits at their own scale.

    Source: onnxruntime's QDQQuantizer, which quantizes a bias with zero point 0 and the scale
    ``input scale * weight scale`` of its channel.
    """
    layer = measured.layer
    if layer.channel_axis is None or layer.mul_folded:
        return []
    is_dead = dead_of(measured)
    if not is_dead.any():
        return []
    bias = bias_of(measured.site, layer)
    scales = scales_of(measured)
    if bias is None or bias.size != scales.size:
        return []
    overflow = overflows(_BIAS_MARGIN * bias, scales, ASSUMED_INPUT_SCALE)
    return [int(channel) for channel in np.flatnonzero(is_dead & overflow)]


DEAD_CHANNEL = OfLayer(
    name="dead channel",
    severity="warning",
    meaning=(
        "A channel's largest weight is below a millionth of the layer's largest, and"
        " its bias exceeds int32 at input scale × weight scale, as onnxruntime"
        " computes it (assuming an input scale of 6/255)."
    ),
    look=_look,
)
