"""Statements that teach the schema: each answers a question that people bring to a store."""

EXAMPLES = {
    "Verdict per model": """\
-- Who survives per-channel int8 with int8 activations? One row per model, worst first.
-- A run on your own inputs decides, else the probe (evidence); reason says why one is untested.
select
    model, verdict, output_sqnr_db, evidence, mode, sample_count, provisional, reason,
    layers_broken, layers_at_risk, layers_watch, layers_fine, channels_below_10db, worst_layer
from verdicts
where target = 'int8_channel'
order by
    list_position(['broken', 'at risk', 'watch', 'fine', 'untested'], verdict),
    output_sqnr_db nulls last,
    layers_broken desc, layers_at_risk desc, layers_watch desc, model""",
    "Worst layers": """\
-- The worst layers of all models: the SQNR that 90 % of their channels reach is lowest.
select
    model, layer, band, channels_below_10db, channel_count,
    channel_sqnr_p10_db, zeroed_fraction, weight_range
from layer_errors
where scheme = 'int8_tensor_symmetric'
order by channel_sqnr_p10_db nulls last, zeroed_fraction desc
limit 25""",
    "Gain of per-channel scales": """\
-- Which layers gain most from per-channel scales, compared with one scale per tensor?
select
    model, layer,
    per_channel.channel_sqnr_p10_db - per_tensor.channel_sqnr_p10_db as gain_db,
    per_tensor.channel_sqnr_p10_db as per_tensor_db,
    per_channel.channel_sqnr_p10_db as per_channel_db
from layer_errors as per_tensor
join errors as per_channel using (layer_id)
where per_tensor.scheme = 'int8_tensor_symmetric'
    and per_channel.scheme = 'int8_channel_symmetric'
order by gain_db desc nulls last
limit 25""",
    "Good tensor, lost channels": """\
-- Why the SQNR of a whole tensor misleads: it is above 30 dB, but some channels are lost.
select
    model, layer, channels_below_10db, channel_count,
    sqnr_db, channel_sqnr_p10_db, zeroed_fraction
from layer_errors
where scheme = 'int8_tensor_symmetric'
    and sqnr_db > 30
    and channels_below_10db > 0
order by channels_below_10db / channel_count desc""",
    "Range histogram": """\
-- The histogram of the article: number of convolutions by weight range, in bins of 5.
select
    model,
    5 * floor(weight_range / 5) as range_from,
    count(*) as convolutions
from model_layers
where op_family = 'conv'
group by model, range_from
order by model, range_from""",
    "Channel spread": """\
-- What the weight range hides: the bits that a typical channel loses to the widest one.
-- spread_p90_bits: 90 % of the layers of the model have a smaller spread.
select
    model,
    quantile_cont(channel_spread_bits, 0.9) as spread_p90_bits,
    median(channel_spread_bits) as spread_median_bits,
    max(weight_range) as widest_range,
    count(*) as layers
from model_layers
group by model
order by spread_p90_bits desc""",
    "Bits needed": """\
-- How many bits are enough? Layers by the fewest bits with which 90 % of channels reach 30 dB.
select
    granularity,
    bits,
    count(*) as layers
from bits_needed
where bits is not null -- NULL: not even 16 are enough
group by granularity, bits
order by granularity, bits""",
    "Node attributes": """\
-- Do strided convolutions lose more? Node attributes are JSON; ->> reads one of them.
select
    op_type,
    coalesce(attributes ->> 'strides', 'not given') as strides,
    median(channel_sqnr_p10_db) as typical_p10_db,
    count(*) as layers
from layers
join errors using (layer_id)
where op_family = 'conv' and scheme = 'int8_tensor_symmetric'
group by all
order by layers desc""",
    "Box plot of a layer": """\
-- One box per output channel of the convolution with the widest range; see the chart.
select
    channel, weight_min, whisker_low, q1, median, q3, whisker_high, weight_max,
    model, layer
from layer_channels
where layer_id = (
    select arg_max(layer_id, weight_range) from layers where op_family = 'conv'
)
order by channel""",
}
