"""What a graph and its weights give away before anything is run: findings, each with a remedy.

``of_model`` needs the graph alone, ``of_layer`` the weights of one layer. Neither changes anything.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from quantstore.graph.attributes import integer
from quantstore.graph.batchnorm import FOLDABLE
from quantstore.graph.constants import only_consumer
from quantstore.graph.file import ModelFile
from quantstore.graph.fold import values_of
from quantstore.graph.operators import STANDARD_DOMAINS
from quantstore.graph.walk import Site, Unread
from quantstore.layer import Layer
from quantstore.records import Doubles

# problem: figures are missing or mean nothing; warning: int8 suffers; note: good to know.
Severity = Literal["problem", "warning", "note"]

# DequantizeLinear is there since the first of these operator sets, and knows a scale per channel
# since the second. https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html
DEQUANTIZE_OPSET = 10
PER_CHANNEL_OPSET = 13
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
# A ramp of fewer weights may be learned by chance.
_SHORTEST_RAMP = 4

_BOUNDED = ("Sigmoid", "HardSigmoid", "Softmax")
# What only moves values: their range stays.
_MOVING = frozenset(
    [
        "Transpose",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Slice",
        "Split",
        "Gather",
        "Cast",
        "Dropout",
    ]
)
_MOST_STEPS = 64
_MOST_NAMED = 3
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth a sentence: ``message`` says what is there and ``remedy`` what to do."""

    kind: str
    severity: Severity
    message: str
    remedy: str


def of_model(
    file: ModelFile, unread: tuple[Unread, ...], left_out: str, *, fold: bool
) -> list[Finding]:
    """What concerns the model as a whole, the gravest first.

    Args:
        unread: constant weights that are no layers, and why.
        left_out: what exceeds the limits, as ``limits.within_limits`` says; empty for nothing.
        fold: whether BatchNormalization is folded at all.
    """
    findings = []
    if left_out:
        findings.append(
            Finding(
                "left out",
                "problem",
                left_out[0].upper() + left_out[1:] + ".",
                "Split the model, or judge it by the layers that were measured.",
            )
        )
    if unread:
        findings.append(_unread(unread))
    findings.extend(_mixed_outputs(file.model.graph))
    if fold:
        findings.extend(_lone_normalizations(file.model.graph))
    if file.opset is not None and file.opset < PER_CHANNEL_OPSET:
        findings.append(_old_opset(file.opset))
    if file.complaint:
        findings.append(
            Finding(
                "invalid",
                "note",
                f"The model is not valid, says onnx.checker: {file.complaint}.",
                "Its weights were read nevertheless. A runtime may refuse it: export it again if"
                " yours does.",
            )
        )
    return findings


def of_layer(
    site: Site,
    layer: Layer,
    *,
    channel_min: Doubles,
    channel_max: Doubles,
    nonfinite_count: int,
    fold: bool,
) -> list[Finding]:
    """What concerns one layer.

    Args:
        channel_min: smallest weight of each channel, as far as it is finite; NaN where none is.
        channel_max: the largest.
        nonfinite_count: NaN and infinities among its weights.
    """
    findings = []
    if nonfinite_count:
        findings.append(
            Finding(
                "not finite",
                "problem",
                f"{nonfinite_count:,} of its {layer.weights.size:,} weights"
                f" {'is' if nonfinite_count == 1 else 'are'} NaN or infinite. They are left out of"
                " every figure; no integer stands for them.",
                "Train or export the layer again; clip what overflowed on the way to float16.",
            )
        )
    dead = _overflowing_channels(site, layer, channel_min, channel_max)
    if dead:
        named = ", ".join(map(str, dead[:_MOST_NAMED])) + (", …" if len(dead) > _MOST_NAMED else "")
        are, them = ("is", "its") if len(dead) == 1 else ("are", "their")
        findings.append(
            Finding(
                "dead channel",
                "warning",
                f"{len(dead):,} {'channel' if len(dead) == 1 else 'channels'} ({named}) {are} all"
                f" but dead: {them} weights span less than a millionth of the layer's. With a scale"
                " per channel the bias then overflows 32 bits, even where the input has a scale of"
                " 6/255 (an assumption; the model was not run).",
                "Set these weights to exactly 0, or prune the channels. onnxruntime widens their"
                " scale instead; other tools clip the bias.",
            )
        )
    constant = _not_learned(layer)
    if constant:
        findings.append(
            Finding(
                "not learned",
                "note",
                constant,
                "Leave the node out of quantization: its rounding error goes straight into what is"
                " decoded there.",
            )
        )
    if fold:
        reason = _why_not_folded(site, layer)
        if reason:
            findings.append(
                Finding(
                    "not folded",
                    "warning",
                    f"The BatchNormalization behind it was not folded: {reason}. The weights shown"
                    " are the raw ones, and the normalization is quantized by itself or stays in"
                    " float.",
                    "Export the model in inference mode with constant parameters, or fold it before"
                    " the export, if the graph allows.",
                )
            )
    return findings


def _old_opset(opset: int) -> Finding:
    """What an operator set before 13 cannot say of integers."""
    knows = (
        "It has neither QuantizeLinear nor DequantizeLinear: they come with"
        f" {DEQUANTIZE_OPSET}, and a scale per channel with {PER_CHANNEL_OPSET}."
        if opset < DEQUANTIZE_OPSET
        else "Its DequantizeLinear knows one scale per tensor; a scale per channel needs"
        f" {PER_CHANNEL_OPSET} or later."
    )
    before = "quantizing" if opset < DEQUANTIZE_OPSET else "quantizing per channel"
    return Finding(
        "old opset",
        "warning",
        f"The model uses operator set {opset}. {knows}",
        f"Export it with opset {PER_CHANNEL_OPSET} or later, or convert it with"
        f" onnx.version_converter, before {before}.",
    )


def _unread(unread: tuple[Unread, ...]) -> Finding:
    named = "; ".join(
        f"{operand.op_type} {_short(operand.name)} ({operand.operand} {operand.reason})"
        for operand in unread[:_MOST_NAMED]
    )
    rest_note = f"; and {len(unread) - _MOST_NAMED:,} more" if len(unread) > _MOST_NAMED else ""
    operands = "weight operand is" if len(unread) == 1 else "weight operands are"
    return Finding(
        "unread",
        "warning",
        f"{len(unread):,} constant {operands} not measured: {named}{rest_note}.",
        "The model's figures leave them out. Export it with plain float weights to see them.",
    )


def _short(name: str) -> str:
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


# Outputs


def _mixed_outputs(graph: ir.Graph) -> Iterator[Finding]:
    """Concats that feed an output and join scores with values of any size."""
    seen: set[int] = set()
    for output in graph.outputs:
        concat = _mover(output)
        if concat is None or concat.op_type != "Concat" or id(concat) in seen:
            continue
        seen.add(id(concat))
        scores: list[ir.Node] = []
        others: list[ir.Node] = []
        for source in _joined(concat):
            (scores if source.op_type in _BOUNDED else others).append(source)
        if scores and others:
            yield Finding(
                "mixed output",
                "warning",
                f"Output {_short(output.name or '?')} joins scores from 0 to 1"
                f" ({scores[0].op_type} {_short(scores[0].name or '?')}) with values that no"
                f" function bounds ({others[0].op_type} {_short(others[0].name or '?')}). One"
                " activation scale must serve both: if box coordinates reach 640, a step is 2.5 and"
                " every score rounds to 0.",
                "Export the two as separate outputs, or leave the Concat and what follows it out of"
                " quantization.",
            )


def _mover(value: ir.Value | None) -> ir.Node | None:
    """The node that computes a value, behind those that only move it."""
    for _ in range(_MOST_STEPS):
        node = value.producer() if value is not None else None
        if node is None or not _is_standard(node) or node.op_type not in _MOVING or not node.inputs:
            return node
        value = node.inputs[0]
    return None


def _joined(concat: ir.Node) -> Iterator[ir.Node]:
    """The nodes whose results a Concat joins, Concats before it included."""
    waiting, seen = [concat], {id(concat)}
    while waiting and len(seen) < _MOST_STEPS:
        for value in waiting.pop().inputs:
            node = _mover(value)
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            if node.op_type == "Concat" and _is_standard(node):
                waiting.append(node)
            elif node.op_type != "Constant":
                yield node


def _is_standard(node: ir.Node) -> bool:
    return node.domain in STANDARD_DOMAINS


# BatchNormalization


def _lone_normalizations(graph: ir.Graph) -> Iterator[Finding]:
    """BatchNormalizations that no convolution is before, so that nothing can take them in."""
    behind: Counter[str] = Counter()
    for node in graph.all_nodes():
        if node.op_type != "BatchNormalization" or not _is_standard(node) or not node.inputs:
            continue
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        # Behind a convolution it concerns a layer, and behind a Mul perhaps, too.
        if source is None:
            behind["an input"] += 1
        elif source.op_type not in (*FOLDABLE, "Mul"):
            behind[source.op_type] += 1
    if behind:
        count = sum(behind.values())
        where = ", ".join(
            f"{number} behind {source_name}" for source_name, number in behind.most_common(4)
        )
        nodes, them = (
            ("BatchNormalization follows", "it")
            if count == 1
            else ("BatchNormalizations follow", "them")
        )
        yield Finding(
            "not folded",
            "note",
            f"{count:,} {nodes} no convolution ({where}), so that no weights can take {them} in.",
            "A runtime computes them in float or quantizes their outputs: look at the activations"
            " there.",
        )


def _why_not_folded(site: Site, layer: Layer) -> str:
    """Why a BatchNormalization behind a convolution is not part of its weights, empty if it is."""
    node = site.node
    if layer.batchnorm_folded or node.op_type not in FOLDABLE or not node.outputs:
        return ""
    output = node.outputs[0]
    users = [use.node for use in output.uses()]
    normalizations = [
        user
        for user in users
        if user.op_type == "BatchNormalization" and _is_standard(user) and user.inputs[0] is output
    ]
    if not normalizations:
        return ""
    norm = normalizations[0]
    if layer.already_quantized:
        return "the weights are stored as integers"
    if output.is_graph_output():
        return "the convolution's own result is an output of the graph"
    if len(users) > 1:
        return f"{len(users)} nodes read the convolution's result"
    if (
        integer(norm, "training_mode", 0)
        or len([output_value for output_value in norm.outputs if output_value.name]) > 1
    ):
        return "it is in training mode, so that it normalizes by what it sees"
    if len(norm.inputs) < 5:
        return "it lacks parameters"
    parameters = [values_of(norm.inputs[index], None) for index in (1, 2, 3, 4)]
    if any(values is None for values in parameters):
        return "its parameters are not constant"
    sizes = {values.size for values in parameters if values is not None}
    return (
        f"it has {min(sizes):,} parameters for another number of channels"
        if sizes
        else "its parameters do not fit"
    )


# Weights


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


def _not_learned(layer: Layer) -> str:
    """What the weights of a convolution are, where nobody can have learned them."""
    weights = layer.weights
    if layer.op_family != "conv" or weights.shape[1] < _SHORTEST_RAMP or layer.group_count > 1:
        return ""
    first = weights[0].astype(np.float64)
    # The ends first: most layers hold something else, and NaN and infinities are no ramp.
    step = float(first[1]) - float(first[0])
    if not np.isfinite(first[[0, 1, -1]]).all() or step == 0:
        return ""
    ramp = first[0] + step * np.arange(first.size)
    if not np.allclose(weights, ramp, rtol=1e-3, atol=1e-3 * abs(step)):
        return ""
    return (
        f"Its weights are the ramp {first[0]:.4g} to {ramp[-1]:.4g}, not learned: it computes a"
        " mean of positions, as the distribution focal loss of YOLO and others does."
    )
