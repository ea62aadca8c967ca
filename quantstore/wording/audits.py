"""What is said of an audit: one sentence first, then what backs it. Plain text."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from quantstore.errors import printable
from quantstore.wording.units import NO_BREAK_SPACE, counted, db, share, times

if TYPE_CHECKING:
    from quantstore.records import AuditLayerRecord, AuditRecord, AuditTensorRecord

# What a value must gain to be named a cause: less is within what other inputs would show.
TELLING_GAIN_DB = 1.0
# Integer kernels that differ by more do something else than the file says.
TELLING_GAP_DB = 1.0
# Weights and activations share a loss where neither explains it alone by so much.
SHARED_DB = 3.0
# A scale that differs by less is plain rounding with other words.
TELLING_SCALE_RATIO = 1.05
NOTHING_LOST_DB = 40.0
BROKEN_DB = 10.0
TELLING_SATURATION = 0.001

NO_ACTIVATIONS = "The int8 file rounds no activations."
ON_NOISE = (
    "Both files ran on noise. Audit them on your own inputs before you change anything: ranges that"
    " saturate on noise may fit what the network was made for."
)
NO_SINGLE_CAUSE = (
    "No single rounding explains the loss: none of those released one at a time gains 1 dB. The"
    " error builds up over the network, so look at the kind of quantization, not at one layer."
)
DIFF_POINTS_HERE = (
    "One of the two models is float and the other one int8. What int8 costs is measured by an audit"
)
WAY_TITLES = {
    "grid_db": "the file in float arithmetic",
    "integer_db": "with this computer's integer kernels",
    "exact_db": "with exact integer sums",
    "weights_db": "its weights alone",
    "activations_db": "its activations alone",
    "neither_db": "neither (proves the pairing)",
}


def headline(record: "AuditRecord", int8_name: str, float_name: str) -> str:
    """``int8.onnx keeps 18.6 dB of float.onnx on 6 inputs, 11.4 dB on this computer.``"""
    where = _inputs(record)
    kept = f"{int8_name} keeps {db(_finite(record.grid_db))} of {float_name} on {where}"
    if record.saturates:
        kept += (
            f", but {db(_finite(record.integer_db))} on this computer, whose integer sums saturate"
        )
    return f"{kept}."


def _inputs(record: "AuditRecord") -> str:
    noun = "noise input" if record.input_source.startswith("noise") else "input"
    return counted(record.sample_count, noun)


def sentences(record: "AuditRecord", layer_names: Mapping[int, str]) -> Iterator[str]:
    """What the headline rests on, one fact a sentence.

    Args:
        layer_names: of the int8 file, by depth.
    """
    yield _blame(record)
    yield from _common_causes(record)
    yield from causes(record, layer_names)
    yield _pairing(record)
    if record.input_source.startswith("noise"):
        yield ON_NOISE


def _blame(record: "AuditRecord") -> str:
    """Who loses it: weights, activations, or both."""
    weights, activations = record.weights_db, record.activations_db
    if not record.rounded_tensors:
        return NO_ACTIVATIONS
    both = f"{db(_finite(weights))} and {db(_finite(activations))} alone"
    if record.grid_db >= NOTHING_LOST_DB or math.isnan(record.grid_db):
        return f"Neither weights nor activations lose much: {both}."
    if abs(weights - activations) < SHARED_DB:
        return f"Weights and activations share the loss: {both}."
    if weights < activations:
        return (
            f"The weights lose it: with the int8 weights alone the outputs keep"
            f" {db(_finite(weights))}, with the activations alone {db(_finite(activations))}."
        )
    return (
        f"The activations lose it: with the rounded activations alone the outputs keep"
        f" {db(_finite(activations))}, with the int8 weights alone {db(_finite(weights))}."
    )


def _common_causes(record: "AuditRecord") -> Iterator[str]:
    """What many layers or tensors have in common, and what to do about it."""
    if record.grid_db >= NOTHING_LOST_DB:
        return
    sharing = sum(
        layer.stored_p10_db < BROKEN_DB and layer.per_channel_p10_db >= BROKEN_DB
        for layer in record.layers
    )
    if sharing:
        yield (
            f"{counted(sharing, 'layer')} would not be broken with a scale per channel:"
            " quantize the weights per channel."
        )
    saturated = sum(
        tensor.saturated_share > TELLING_SATURATION
        and tensor.best_sqnr_db - tensor.sqnr_db >= SHARED_DB
        for tensor in record.tensors
    )
    if saturated:
        yield (
            f"{counted(saturated, 'tensor')} had values beyond the grid: calibrate the int8 file on"
            " inputs like these."
        )


def causes(record: "AuditRecord", layer_names: Mapping[int, str]) -> Iterator[str]:
    """The roundings whose release gains most, best first; or that there is none such."""
    gains: list[tuple[float, str]] = [
        (layer.released_gain_db, layer_cause(layer, layer_names.get(layer.int8_depth)))
        for layer in record.layers
    ]
    gains += [(tensor.released_gain_db, tensor_cause(tensor)) for tensor in record.tensors]
    telling = sorted(
        (gain for gain in gains if gain[0] >= TELLING_GAIN_DB), key=lambda gain: -gain[0]
    )
    yield from (sentence for _, sentence in telling[:3])
    was_tried = any(not math.isnan(gain) for gain, _ in gains)
    if not telling and was_tried and record.grid_db < NOTHING_LOST_DB:
        yield NO_SINGLE_CAUSE


def layer_cause(layer: "AuditLayerRecord", name: str | None) -> str:
    """``The weights of Conv_24 cost 7.7 dB: their scale is 1.3 times too large.``

    Args:
        name: of the layer; None where the store does not hold it.
    """
    of = f"layer {layer.int8_depth + 1}" if name is None else printable(name)
    cost = f"The weights of {of} cost {db(layer.released_gain_db)} at the outputs"
    if layer.scale_ratio >= TELLING_SCALE_RATIO:
        return f"{cost}: their scale is {times(layer.scale_ratio)} what it need be."
    if layer.rounding == "clipped":
        return f"{cost}: the grid ends before the largest weights do."
    if layer.per_channel_p10_db - layer.stored_p10_db >= SHARED_DB:
        return (
            f"{cost}: their channels share one scale. With a scale per channel, 90{NO_BREAK_SPACE}%"
            f" of the channels would keep {db(_finite(layer.per_channel_p10_db))} instead of"
            f" {db(_finite(layer.stored_p10_db))}."
        )
    return f"{cost}."


def tensor_cause(tensor: "AuditTensorRecord") -> str:
    """``Tensor sum costs 4.1 dB: 12 % of its values lie beyond its grid.``"""
    name = printable(tensor.float_tensor or tensor.int8_tensor)
    cost = f"Tensor {name} costs {db(tensor.released_gain_db)} at the outputs"
    if tensor.saturated_share > TELLING_SATURATION:
        return f"{cost}: {share(tensor.saturated_share)} of its values lie beyond its grid."
    if tensor.best_sqnr_db - tensor.sqnr_db >= SHARED_DB:
        return (
            f"{cost}: its grid is wider than its values need"
            f" ({share(tensor.used_share)} of it is used)."
        )
    return f"{cost}: its values need more than 8 bits."


def _pairing(record: "AuditRecord") -> str:
    layers = f"{record.paired_layers} of {counted(record.int8_layers, 'layer')}"
    tensors = f"{record.paired_tensors} of {counted(record.rounded_tensors, 'rounded tensor')}"
    agreement = db(_finite(record.neither_db))
    return (
        f"{layers} and {tensors} are paired with the float file. Without any rounding the two files"
        f" agree to {agreement}."
    )


def figures(record: "AuditRecord") -> Sequence[tuple[str, float]]:
    """The six figures with their titles, in dB; those that were not measured are left out."""
    missing = set()
    if math.isnan(record.integer_db) and math.isnan(record.exact_db):
        missing = {"integer_db", "exact_db"}
    return [
        (title, getattr(record, column))
        for column, title in WAY_TITLES.items()
        if column not in missing
    ]


def _finite(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None
