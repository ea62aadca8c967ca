"""What is said of an audit: one sentence first, then what backs it. Plain text."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from quantstore.errors import printable
from quantstore.wording.units import NO_BREAK_SPACE, counted, db, seconds, share, times

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
# Without any rounding two files that compute the same agree to more.
TELLING_AGREEMENT_DB = 40.0

WHAT_IT_IS = (
    "An audit compares an int8 file with the float file that it was made from. It runs both on the"
    " same inputs and measures the loss in float arithmetic, with the integer kernels of this"
    " computer, with int8 weights only and with int8 activations only. Then it undoes the worst"
    " roundings one at a time, which shows which of them matter at the outputs."
)
NO_ACTIVATIONS = "The int8 file rounds no activations, so its weights cause the loss."
ON_NOISE = (
    "Both files ran on noise. Audit them on your own inputs before you change anything: ranges that"
    " saturate on noise may fit real inputs."
)
NO_SINGLE_CAUSE = (
    "No single rounding explains the loss: undoing any one of the worst gains less than 1 dB. The"
    " error builds up over the network, so change the kind of quantization, not a single layer."
)
DIFF_POINTS_HERE = (
    "One of the two models is float and the other is int8. A comparison of layers would round the"
    " int8 weights a second time, which does not show what int8 costs. An audit measures that."
)
FOR_AN_INT8_MODEL = (
    "The values on this page show a second rounding. An audit against the float file measures what"
    " int8 costs."
)
# The six ways in which the outputs are computed, by the column of their values.
PAIRING_CHECK = "neither_db"
WAY_TITLES = {
    "grid_db": "in float arithmetic",
    "integer_db": "with integer kernels of this computer",
    "exact_db": "with exact integer sums",
    "weights_db": "int8 weights only",
    "activations_db": "int8 activations only",
    PAIRING_CHECK: "no rounding (checks the pairing)",
}
# TensorFlow Lite files are run as they are.
LITERT_TITLES = {
    "grid_db": "with LiteRT's reference kernels",
    "integer_db": "with LiteRT's kernels for this computer",
}


def headline(
    record: "AuditRecord", int8_name: str, float_name: str, band: str | None = None
) -> str:
    """``At risk: a.onnx has an output SQNR of 18.6 dB against b.onnx on 6 inputs.``

    Args:
        band: of the value in float arithmetic; None to leave it out.
    """
    int8_name, float_name = printable(int8_name), printable(float_name)
    verdict = "" if band is None else f"{band[0].upper()}{band[1:]}: "
    if record.failure is not None:
        return f"The audit of {int8_name} failed: {printable(record.failure)}"
    if not record.was_run:
        return _weights_headline(record, int8_name, float_name)
    if not math.isfinite(record.grid_db):
        return (
            f"{verdict}{int8_name} gives exactly the answers of {float_name} on {_inputs(record)}."
        )
    kept = (
        f"{verdict}{int8_name} has an output SQNR of {db(record.grid_db)} against {float_name} on"
        f" {_inputs(record)}"
    )
    if record.saturates:
        kept += (
            f", but {db(_finite(record.integer_db))} on this computer, whose integer sums saturate"
        )
    return f"{kept}."


def _weights_headline(record: "AuditRecord", int8_name: str, float_name: str) -> str:
    """What weights alone say, where neither file was run."""
    kept_db = sorted(
        layer.stored_p10_db for layer in record.layers if math.isfinite(layer.stored_p10_db)
    )
    if not kept_db:
        return f"No layer of {int8_name} differs from {float_name}, as far as weights are paired."
    return (
        f"In the median layer of {int8_name}, 90{NO_BREAK_SPACE}% of the channels keep at least"
        f" {db(kept_db[len(kept_db) // 2])} of {float_name}; in the worst layer {db(kept_db[0])}."
    )


def _inputs(record: "AuditRecord") -> str:
    return counted(record.sample_count, "noise input" if _is_noise(record) else "input")


def _is_noise(record: "AuditRecord") -> bool:
    return record.input_source.startswith("noise")


def sentences(record: "AuditRecord", layer_names: Mapping[int, str]) -> Iterator[str]:
    """What the headline rests on, one fact a sentence.

    Args:
        layer_names: of the int8 file, by depth.
    """
    if record.failure is not None:
        return
    if not record.was_run:
        yield from _worst_weights(record, layer_names)
        yield f"{_paired_layers(record)} are paired with the float file."
        return
    yield from reasons(record, layer_names)
    yield _pairing(record)
    if _is_noise(record):
        yield ON_NOISE


def _worst_weights(record: "AuditRecord", layer_names: Mapping[int, str]) -> Iterator[str]:
    """The layers whose weights lose most."""
    paired = [layer for layer in record.layers if math.isfinite(layer.stored_p10_db)]
    worst = sorted(paired, key=lambda layer: layer.stored_p10_db)[:3]
    if worst:
        named = ", ".join(
            f"{printable(layer_names.get(layer.int8_depth, f'layer {layer.int8_depth + 1}'))}"
            f" ({printable(layer.stored_scheme or 'float')}, {db(layer.stored_p10_db)})"
            for layer in worst
        )
        yield f"Lowest: {named}."


def reasons(record: "AuditRecord", layer_names: Mapping[int, str]) -> Iterator[str]:
    """Why the file loses what it loses: who is to blame, what many share, what costs most."""
    if not math.isnan(record.weights_db):
        yield _blame(record)
    yield from _common_causes(record)
    yield from causes(record, layer_names)


def _blame(record: "AuditRecord") -> str:
    """What causes the loss: weights, activations, or both."""
    weights, activations = record.weights_db, record.activations_db
    if not record.rounded_tensors:
        return NO_ACTIVATIONS
    alone = (
        f"output SQNR is {db(_finite(weights))} with int8 weights only and"
        f" {db(_finite(activations))} with int8 activations only."
    )
    if record.grid_db >= NOTHING_LOST_DB or math.isnan(record.grid_db):
        return f"Neither weights nor activations lose much: {alone}"
    if abs(weights - activations) < SHARED_DB:
        return f"Weights and activations share the loss: {alone}"
    return f"The {'weights' if weights < activations else 'activations'} cause the loss: {alone}"


def _common_causes(record: "AuditRecord") -> Iterator[str]:
    """What many layers or tensors have in common, and what to do about it."""
    if record.grid_db >= NOTHING_LOST_DB:
        return
    sharing = sum(
        max(layer.stored_p10_db, layer.plain_p10_db) < BROKEN_DB <= layer.per_channel_p10_db
        for layer in record.layers
    )
    if sharing:
        yield (
            f"A scale per channel would repair {counted(sharing, 'broken layer')}: quantize the"
            " weights per channel."
        )
    saturated = sum(
        tensor.saturated_share > TELLING_SATURATION
        and tensor.best_sqnr_db - tensor.sqnr_db >= SHARED_DB
        for tensor in record.tensors
    )
    if saturated and not _is_noise(record):
        verb = "has" if saturated == 1 else "have"
        yield (
            f"{counted(saturated, 'tensor')} {verb} values beyond the grid: calibrate the int8 file"
            " on inputs like these."
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
    cost = f"The weights of {of} {_cost(layer.released_gain_db)}"
    if layer.scale_ratio >= TELLING_SCALE_RATIO:
        return f"{cost}: their scale is {times(layer.scale_ratio)} as large as they need."
    if layer.rounding == "clipped":
        return f"{cost}: the grid ends before the largest weights do."
    if layer.per_channel_p10_db - layer.stored_p10_db >= SHARED_DB:
        return (
            f"{cost}: their channels share one scale. With a scale per channel, 90{NO_BREAK_SPACE}%"
            f" of the channels would reach {db(_finite(layer.per_channel_p10_db))} instead of"
            f" {db(_finite(layer.stored_p10_db))}."
        )
    return f"{cost}."


def _cost(gain_db: float, *, verb: str = "cost") -> str:
    """``cost 7.7 dB at the outputs``; an infinite gain is all that is lost there."""
    if math.isinf(gain_db):
        return f"{verb} all that is lost at the outputs"
    return f"{verb} {db(gain_db)} at the outputs"


def tensor_cause(tensor: "AuditTensorRecord") -> str:
    """``Tensor sum costs 4.1 dB: 12 % of its values lie beyond its grid.``"""
    name = printable(tensor.float_tensor or tensor.int8_tensor)
    cost = f"Tensor {name} {_cost(tensor.released_gain_db, verb='costs')}"
    if tensor.saturated_share > TELLING_SATURATION:
        return f"{cost}: {share(tensor.saturated_share)} of its values lie beyond its grid."
    if tensor.best_sqnr_db - tensor.sqnr_db >= SHARED_DB:
        return (
            f"{cost}: its grid is wider than its values need"
            f" ({share(tensor.used_share)} of it is used)."
        )
    return f"{cost}: even the best range would not help; its values need more bits."


def _pairing(record: "AuditRecord") -> str:
    layers = _paired_layers(record)
    tensors = f"{record.paired_tensors} of {counted(record.rounded_tensors, 'rounded tensor')}"
    agreement = db(_finite(record.neither_db))
    paired = f"{layers} and {tensors} are paired with the float file."
    if math.isnan(record.neither_db):
        return paired
    if record.neither_db < TELLING_AGREEMENT_DB:
        return (
            f"{paired} Without any rounding the two files still differ ({agreement}), so"
            " values of single layers may be wrong."
        )
    return (
        f"{paired} Without any rounding the two files agree to {agreement}, which proves the"
        " pairing."
    )


def _paired_layers(record: "AuditRecord") -> str:
    return f"{record.paired_layers} of {counted(record.int8_layers, 'layer')}"


def way_titles(record: "AuditRecord") -> Mapping[str, str]:
    """What its values are called, by column."""
    return WAY_TITLES if record.was_taken_apart else LITERT_TITLES


def ways(record: "AuditRecord") -> Sequence[str]:
    """The columns of the values that were measured, in the order they are shown in."""
    if not record.was_run:
        return []
    if not record.was_taken_apart:
        return list(LITERT_TITLES)
    kernels = ("integer_db", "exact_db")
    were_run = not all(math.isnan(getattr(record, column)) for column in kernels)
    return [column for column in WAY_TITLES if were_run or column not in kernels]


def figures(record: "AuditRecord") -> Sequence[tuple[str, float]]:
    """The six values with their titles, in dB; those that were not measured are left out."""
    titles = way_titles(record)
    return [(titles[column], getattr(record, column)) for column in ways(record)]


def inputs_sentence(record: "AuditRecord") -> str:
    """Which inputs, where the outputs were compared, and how long it took."""
    if not record.was_run:
        return f"Weights only, nothing was run. {seconds(record.seconds)}."
    runtime = printable(record.onnxruntime_version)
    if record.was_taken_apart:
        runtime = f"onnxruntime {runtime}"
    return (
        f"Inputs: {printable(record.input_source)}. Compared: {printable(record.compared)}."
        f" {seconds(record.seconds)}, {runtime}."
    )


def result_of(grid_db: float | None, sample_count: int) -> str:
    """What came of an audit, in a word or two."""
    return kept(grid_db) if sample_count else "weights only"


def kept(value: float | None) -> str:
    """A value of an audit: ``6.1 dB``, ``exact``, or that it was not measured (NaN)."""
    if value is not None and math.isnan(value):
        return "not measured"
    return db(value)


def audited(grid_db: float | None, float_name: str) -> str:
    """``audited: 18.6 dB against rtmdet-nano``, for a matrix; None where it is exact."""
    is_exact = grid_db is None or math.isinf(grid_db)
    value = "same answers as" if is_exact else f"{db(grid_db)} against"
    return f"audited: {value} {printable(float_name)}"


def instead_of_a_diff(int8_name: str, float_name: str) -> str:
    """The headline where somebody compares an int8 model with a float one, layer by layer."""
    return (
        f"{printable(int8_name)} is int8 and {printable(float_name)} is float: an audit compares"
        " them"
    )


def _finite(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None
