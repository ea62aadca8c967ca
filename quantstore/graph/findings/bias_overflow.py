"""Biases that int32 cannot hold, because the weights beside them are tiny."""

from collections.abc import Iterator

import numpy as np

from quantstore.graph.bias import LARGEST_INT32, bias_of, bias_overflows, in_units, overflows
from quantstore.graph.bounds import largest_of
from quantstore.graph.findings.base import (
    MOST_NAMED,
    MeasuredLayer,
    OfLayer,
    Sentences,
    dead_of,
    scales_of,
)

# Where the graph sets no bound to a layer's input: no less than the pixels of an image.
_PLAUSIBLE_LARGEST = 255.0
_STEPS = 255


def _look(measured: MeasuredLayer) -> Iterator[Sentences]:
    layer = measured.layer
    if layer.already_quantized or layer.mul_folded or layer.channel_axis is None:
        return
    scales = scales_of(measured)
    # Before anything is read: no bias of a network is that large.
    if not scales.min(initial=1.0) < _LARGEST_BIAS / LARGEST_INT32:
        return
    bias = bias_of(measured.site, layer)
    if bias is None or bias.size != scales.size:
        return
    bound = largest_of(measured.site.node.inputs[0], None)
    input_scale = (_PLAUSIBLE_LARGEST if bound is None else bound) / _STEPS
    if input_scale <= 0:
        return
    # Dead channels have a finding of their own.
    lost = np.flatnonzero(overflows(bias, scales, input_scale) & ~dead_of(measured))
    if not lost.size:
        return
    worst = lost[np.argmax(np.abs(in_units(bias, scales, input_scale)[lost]))]
    units = abs(float(in_units(bias, scales, input_scale)[worst]))
    shared = bias_overflows(bias, scales.max(), input_scale)
    per_tensor = " One scale for all channels does not help." if shared.count else ""
    named = ", ".join(map(str, lost[:MOST_NAMED])) + (", …" if lost.size > MOST_NAMED else "")
    channels = "channel" if lost.size == 1 else "channels"
    origin = "assumed; the model was not run" if bound is None else f"its input ends at {bound:.3g}"
    yield Sentences(
        f"The bias of {lost.size:,} of {bias.size:,} {channels} ({named}) does not fit into int32:"
        f" {bias[worst]:.3g} / (input scale × weight scale) is {units:.1e} at an input scale of"
        f" {input_scale:.2g} ({origin}), but int32 ends at 2.1e9.{per_tensor}",
        "Keep the layer in float. It does little more than add its bias: if the"
        " weights are not needed, replace the layer with an Add.",
    )


# What is larger does not train.
_LARGEST_BIAS = 1e6

BIAS_OVERFLOW = OfLayer(
    name="bias overflow",
    severity="warning",
    meaning=(
        "A bias exceeds int32 at input scale × weight scale, in channels that are not"
        " dead (assuming an input scale of 1, values up to 255, if the graph does not"
        " bound the input)."
    ),
    look=_look,
)
