"""One layer measured: a layer and a plan in, its records for every table out.

Every scheme of the plan is tried. No file, no store.
"""

import math
from collections.abc import Collection

import numpy as np

from quantstore.layer import Layer
from quantstore.numerics.distribution import Distribution, describe, sorted_weights
from quantstore.numerics.input_channels import INPUT_SCHEMES, InputChannels, input_channels
from quantstore.numerics.measures import figures_of
from quantstore.numerics.quantization import summarize_channels
from quantstore.numerics.sweep import FULL_PLAN, Sweep, SweepPlan, sweep
from quantstore.records import (
    BitsNeededRecord,
    ChannelColumns,
    ChannelErrorColumns,
    ClippingRecord,
    ErrorRecord,
    HistogramRecord,
    LayerRecord,
    LayerRecords,
)
from quantstore.schemes import INT8_SCHEMES

# Raise it when a figure changes its meaning: models measured under an older version are measured
# anew when they are ingested again. What is added needs no new number: the store knows under which
# schemes a model was measured, and gives version 0 to the models of a store that lacked a measure.
MEASURES_VERSION = 4


def is_current(
    measures_version: int, schemes: Collection[str], plan: SweepPlan = FULL_PLAN
) -> bool:
    """Whether a stored model has every figure that would be measured today.

    Args:
        schemes: those that the model was measured under.
        plan: what would be measured.
    """
    return measures_version >= MEASURES_VERSION and set(plan.schemes) <= set(schemes)


def measure_layer(layer: Layer, depth: int, plan: SweepPlan = FULL_PLAN) -> LayerRecords:
    """Measure one layer under every scheme.

    Args:
        layer: with at least one weight.
        depth: its position among the model's layers, from 0.
        plan: fewer schemes for those who time them.
    """
    weights = layer.by_output_channel()
    ordered = sorted_weights(weights)
    distribution = describe(weights, ordered)
    inputs = input_channels(layer)
    swept = sweep(
        weights,
        ordered,
        distribution.channel_energy,
        plan,
        sharing=layer.scale_sharing,
        inputs=inputs,
    )
    channel = np.arange(weights.shape[0], dtype=np.int64)
    return LayerRecords(
        layer=_layer_record(layer, depth, distribution),
        channels=ChannelColumns(
            channel=channel,
            weight_min=distribution.channels.minimum,
            whisker_low=distribution.channels.whisker_low,
            q1=distribution.channels.q1,
            median=distribution.channels.median,
            q3=distribution.channels.q3,
            whisker_high=distribution.channels.whisker_high,
            weight_max=distribution.channels.maximum,
            mean=distribution.channel_mean,
            std=distribution.channel_std,
            outlier_count=distribution.channels.outlier_count,
            nonzero_count=swept.nonzero_count,
        ),
        errors=_error_records(swept, inputs, plan),
        channel_errors=tuple(
            ChannelErrorColumns(
                scheme=name,
                sqnr_db=swept.channel_sqnr_db[swept.names.index(name)],
                zeroed_count=swept.channel_zeroed_count[swept.names.index(name)],
            )
            for name in INT8_SCHEMES
            if name in swept.names
        ),
        clipping=tuple(
            ClippingRecord(
                bits=curve.bits,
                measure=curve.measure,
                lowest_threshold=float(curve.thresholds[0]),
                best_point=1 + curve.thresholds.tolist().index(curve.best_threshold),
                sqnr_db=curve.sqnr_db,
            )
            for curve in swept.clipping
        ),
        bits_needed=tuple(
            BitsNeededRecord(granularity=granularity, bits=bits)
            for granularity, bits in swept.bits_needed.items()
        ),
        histogram=None
        if distribution.histogram is None
        else HistogramRecord(
            low=distribution.histogram.low,
            high=distribution.histogram.high,
            counts=distribution.histogram.counts,
        ),
    )


def _layer_record(layer: Layer, depth: int, distribution: Distribution) -> LayerRecord:
    return LayerRecord(
        depth=depth,
        layer=layer.name,
        module_path=layer.module_path,
        operand=layer.operand,
        op_type=layer.op_type,
        op_family=layer.op_family,
        weight_name=layer.weight_name,
        weight_dtype=layer.weight_dtype,
        shape=layer.shape,
        channel_axis=layer.channel_axis,
        channel_count=distribution.channel_energy.size,
        group_count=layer.group_count,
        is_depthwise=layer.is_depthwise,
        weight_count=distribution.weight_count,
        nonfinite_count=distribution.nonfinite_count,
        batchnorm_folded=layer.batchnorm_folded,
        mul_folded=layer.mul_folded,
        already_quantized=layer.already_quantized,
        stored_scheme=layer.stored_scheme,
        stored_step=layer.stored_step,
        attributes=layer.attributes,
        figures=figures_of(distribution),
    )


def _error_records(
    swept: Sweep, inputs: InputChannels | None, plan: SweepPlan
) -> tuple[ErrorRecord, ...]:
    of_inputs = {
        name: summarize_channels(inputs.sqnr_db(plan.schemes[name]))
        for name in (*INPUT_SCHEMES,)
        if inputs is not None and name in plan.schemes
    }
    figures = zip(
        swept.names,
        swept.mse.tolist(),
        swept.max_abs_error.tolist(),
        swept.sqnr_db.tolist(),
        swept.zeroed_fraction.tolist(),
        strict=True,
    )
    return tuple(
        ErrorRecord(
            scheme=name,
            mse=mse,
            max_abs_error=max_abs_error,
            sqnr_db=sqnr_db,
            zeroed_fraction=zeroed_fraction,
            levels_used=swept.levels_used.get(name),
            channel_sqnr_min_db=swept.summaries[name].min_db,
            channel_sqnr_p10_db=swept.summaries[name].p10_db,
            channel_sqnr_median_db=swept.summaries[name].median_db,
            channels_below_10db=swept.summaries[name].below_10db,
            input_channel_sqnr_p10_db=of_inputs[name].p10_db if name in of_inputs else math.nan,
            input_channels_below_10db=of_inputs[name].below_10db if name in of_inputs else None,
        )
        for name, mse, max_abs_error, sqnr_db, zeroed_fraction in figures
    )
