"""Channels all but dead whose bias does not fit into 32 bits at a scale of their own."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from quantstore.graph.batchnorm import FOLDABLE
from quantstore.graph.constants import only_consumer
from quantstore.graph.findings.base import MOST_NAMED, MeasuredLayer, OfLayer, Sentences
from quantstore.graph.fold import values_of
from quantstore.graph.walk import Site
from quantstore.layer import Layer
from quantstore.records import Doubles

# A channel whose weights span less than this share of the layer's does nothing but add its bias.
DEAD_SHARE = 1e-6
# The scale of a layer's input is not known before the model is run; 6/255 is that of ReLU6, in the
# middle of what convolutions see.
ASSUMED_INPUT_SCALE = 6 / 255
_INT8_MAX = 127
# onnxruntime 1.32, QDQQuantizer._adjust_weight_scale_for_int32_bias: the smallest scale of a bias
# is 1.0001 times twice its size over the range of int32.
_INT32_SPAN = 2.0 * (2**31 - 1)
_BIAS_MARGIN = 1.0001


def _look(measured: MeasuredLayer) -> Iterator[Sentences]:
    dead = _overflowing_channels(
        measured.site, measured.layer, measured.channel_min, measured.channel_max
    )
    if not dead:
        return
    named = ", ".join(map(str, dead[:MOST_NAMED])) + (", …" if len(dead) > MOST_NAMED else "")
    are, them = ("is", "its") if len(dead) == 1 else ("are", "their")
    yield Sentences(
        f"{len(dead):,} {'channel' if len(dead) == 1 else 'channels'} ({named}) {are} all"
        f" but dead: {them} weights span less than a millionth of the layer's. With a scale"
        " per channel the bias then overflows 32 bits, even where the input has a scale of"
        " 6/255 (an assumption; the model was not run).",
        "Set these weights to exactly 0, or prune the channels. onnxruntime widens their"
        " scale instead; other tools clip the bias.",
    )


def _overflowing_channels(
    site: Site, layer: Layer, channel_min: Doubles, channel_max: Doubles
) -> list[int]:
    """Channels all but dead whose bias does not fit into 32 bits at their own scale.

    Source: onnxruntime's QDQQuantizer, which quantizes a bias with zero point 0 and the scale
    ``input scale * weight scale`` of its channel.
    """
    if layer.channel_axis is None or layer.mul_folded:
        return []
    # Where a channel has no finite weight it has no scale either.
    high = np.fmax(np.nan_to_num(channel_max), 0)
    low = np.fmin(np.nan_to_num(channel_min), 0)
    span, abs_max = high - low, np.maximum(high, -low)
    layer_span = float(high.max(initial=0) - low.min(initial=0))
    with np.errstate(over="ignore"):
        scale = (abs_max / _INT8_MAX).astype(np.float32).astype(np.float64)
    # Smaller ones become 1, in onnxruntime and here.
    is_dead = (span < DEAD_SHARE * layer_span) & (scale >= np.finfo(np.float32).tiny)
    if not is_dead.any():
        return []
    bias = _bias(site, layer)
    if bias is None:
        return []
    if site.operator.op_type == "ConvTranspose" and bias.size == span.size * layer.group_count:
        # A channel of every group shares the scale: the largest bias decides.
        bias = np.abs(bias).reshape(layer.group_count, -1).max(axis=0)
    if bias.size != span.size:
        return []
    with np.errstate(invalid="ignore"):
        needed = _BIAS_MARGIN * 2 * np.abs(bias) / _INT32_SPAN
        overflows = is_dead & (ASSUMED_INPUT_SCALE * scale < needed)
    return [int(channel) for channel in np.flatnonzero(overflows)]


def _bias(site: Site, layer: Layer) -> Doubles | None:
    """The bias of each output channel, with a folded BatchNormalization's shift in it."""
    node = site.node
    if node.op_type not in (*FOLDABLE, "Gemm"):
        return None
    bias = _vector(node.inputs[2]) if len(node.inputs) > 2 else None
    if not layer.batchnorm_folded:
        return bias
    norm = only_consumer(node.outputs[0])
    if norm is None or norm.op_type != "BatchNormalization":
        return None
    gamma, shift, mean, variance = (_vector(norm.inputs[index]) for index in (1, 2, 3, 4))
    if gamma is None or shift is None or mean is None or variance is None:
        return None
    if bias is not None and bias.shape != mean.shape:
        return None
    epsilon = norm.attributes.get("epsilon")
    added = 1e-5 if epsilon is None else float(epsilon.as_float())
    with np.errstate(all="ignore"):
        factor = gamma / np.sqrt(variance + added)
        return np.asarray(((0 if bias is None else bias) - mean) * factor + shift, dtype=np.float64)


def _vector(value: ir.Value | None) -> Doubles | None:
    values = values_of(value, None)
    if values is None or values.ndim != 1 or values.dtype.kind not in "fiu":
        return None
    return values.astype(np.float64)


DEAD_CHANNEL = OfLayer(
    name="dead channel",
    severity="warning",
    meaning=(
        "A channel spans less than a millionth of the layer's range, and its bias exceeds int32 at"
        " input scale × weight scale, as onnxruntime computes it; the input scale is assumed to be"
        " 6/255."
    ),
    look=_look,
)
