"""The report's questions, one function each: an open store in, a frame out.

The command line and the pages ask the same functions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from quantstore.store import Connection
from quantstore.words import NARROW_CHANNEL_SHARE, OWN_GRID_DB, Finding

# Falls of a tensor's SQNR are counted from here, where the bars of every page hang from: what
# happens above it is no loss that anybody could notice.
FALLS_FROM_DB = 40.0

# Bins of the small histogram of channel SQNR in tables: 0 to 50 dB, the last one open.
SPARK_BINS = 25
SPARK_DB_PER_BIN = 2


@dataclass(frozen=True, slots=True)
class StoreSize:
    """What the store holds."""

    models: int
    layers: int


def store_size(con: Connection) -> StoreSize:
    """Models and layers in the store."""
    (row,) = con.rows("select count(*), coalesce(sum(layer_count), 0) from models")
    return StoreSize(*row)


def model_names(con: Connection) -> list[str]:
    """Every model, in alphabetical order."""
    return [row[0] for row in con.rows("select model from models order by lower(model), model")]


def models(con: Connection) -> pd.DataFrame:
    """One row per model: where it comes from and how its weights spread."""
    return con.frame("from model_summary order by lower(model), model")


def verdicts(con: Connection, models: list[str] | None = None) -> pd.DataFrame:
    """One row per model and scheme, with the size of the model; every model by default.

    ``probe_failure`` says why the latest probe has no figure, where there is no other.
    """
    return con.frame(
        """
        with failures as (
            select model_id, scheme, arg_max(failure, simulation_id) as probe_failure
            from simulations
            where input_source = 'noise' and failure is not null
            group by model_id, scheme
        )
        select verdicts.*, layer_count, weight_count, file_bytes, layers_already_quantized,
            max_weight_range, median_weight_range, channel_spread_p90_bits,
            if(evidence = 'weights', probe_failure, null) as probe_failure
        from verdicts
        join model_summary using (model)
        left join failures
            on failures.model_id = verdicts.model_id and failures.scheme = verdicts.scheme
        where $models is null or list_contains($models, model)
        order by lower(model), model, verdicts.scheme
        """,
        {"models": models},
    )


def finding(row: Mapping[Any, Any]) -> Finding:
    """What words need of a row of ``verdicts`` or ``ranking``."""
    is_probed = row["evidence"] == "probe"
    failure = row.get("probe_failure")
    # NULL: no error at all. A ranking does not know it.
    worst_db = row.get("worst_channel_sqnr_p10_db", 0.0)
    return Finding(
        verdict=str(row["verdict"]),
        mode=str(row["mode"]) if is_probed else None,
        output_sqnr_db=float(row["output_sqnr_db"]) if is_probed else None,
        layers_broken=int(row["layers_broken"]),
        layers_at_risk=int(row["layers_at_risk"]),
        layer_count=int(row["layer_count"]),
        is_already_quantized=bool(row["layers_already_quantized"]),
        are_layers_exact=bool(pd.isna(worst_db) or worst_db > OWN_GRID_DB),
        probe_failure=None if pd.isna(failure) else str(failure),
    )


def ranking(con: Connection, scheme: str, models: list[str] | None = None) -> pd.DataFrame:
    """One row per model under one scheme, worst first: its verdict and what that rests on.

    Worst is the worst verdict; then the lowest SQNR at the outputs; where a model was not probed,
    the largest share of layers that is broken, then at risk, then to watch. The same verdicts as
    in the view of that name, without what the view finds out besides.
    """
    return con.frame(
        """
        with counts as (
            select
                model_id,
                count(*) as layers,
                count(*) filter (band = 'broken') as layers_broken,
                count(*) filter (band = 'at risk') as layers_at_risk,
                count(*) filter (band = 'watch') as layers_watch,
                count(*) filter (already_quantized) as layers_already_quantized
            from errors
            join layers using (layer_id)
            asof join bands on coalesce(channel_sqnr_p10_db, 'infinity') >= bands.lower_db
            where scheme = $scheme
            group by model_id
        ),
        probes as (
            select model_id, mode, output_sqnr_db, band
            from simulations
            asof join bands on simulations.output_sqnr_db >= bands.lower_db
            where input_source = 'noise' and scheme = $scheme
            qualify row_number() over (
                partition by model_id
                order by mode = 'both' desc, created_at desc, simulation_id desc
            ) = 1
        ),
        judged as (
            select
                model,
                counts.*,
                layer_count,
                if(band is null, 'weights', 'probe') as evidence,
                coalesce(mode, 'weights') as mode,
                output_sqnr_db,
                case
                    when band is not null then if(band = 'broken', 'breaks', band)
                    when layers_broken > 0 then 'breaks'
                    when layers_at_risk > 0 then 'at risk'
                    when layers_watch > 0 then 'watch'
                    else 'fine'
                end as verdict
            from counts
            join models using (model_id)
            left join probes using (model_id)
            where $models is null or list_contains($models, model)
        )
        select
            model, verdict, evidence, mode, output_sqnr_db,
            layers_broken, layers_at_risk, layer_count, layers_already_quantized
        from judged
        order by list_position(['breaks', 'at risk', 'watch', 'fine'], verdict),
            output_sqnr_db nulls last,
            layers_broken / layers desc, layers_at_risk / layers desc,
            layers_watch / layers desc, lower(model)
        """,
        {"models": models, "scheme": scheme},
    )


def rank_of_models(con: Connection, scheme: str, models: list[str] | None = None) -> list[str]:
    """Models, worst first: by verdict, then by SQNR at the outputs."""
    return [str(model) for model in ranking(con, scheme, models)["model"]]


def layer_profiles(con: Connection, models: list[str], scheme: str) -> pd.DataFrame:
    """One row per layer of the given models under one scheme, in graph order: for charts."""
    return con.frame(
        """
        select
            model, layer_id, layer, operand, depth,
            count(*) over (partition by model) as layer_count,
            op_type, op_family, is_depthwise, weight_count, channel_count,
            weight_range, range_over_std, already_quantized,
            channel_spread_bits, symmetric_span_over_rms, asymmetric_span_over_rms,
            band, channel_sqnr_p10_db, zeroed_fraction, channels_below_10db
        from layer_errors
        join (
            select layer_id, channel_spread_bits, symmetric_span_over_rms, asymmetric_span_over_rms
            from model_layers
            where list_contains($models, model)
        ) using (layer_id)
        where scheme = $scheme and list_contains($models, model)
        order by list_position($models, model), depth
        """,
        {"models": models, "scheme": scheme},
    )


def found_by_name(layers: pd.DataFrame, text: str) -> pd.DataFrame:
    """Those layers whose name or module path contains the text, in any case.

    Names that a machine made, such as ``node_conv2d_17``, say less than the module they come from.
    """
    named, of_module = (
        layers[column].fillna("").str.contains(text, case=False, regex=False)
        for column in ("layer", "module_path")
    )
    return layers[named | of_module]


def worst_layers(con: Connection, model: str, scheme: str) -> pd.DataFrame:
    """One row per layer of a model, worst first, with what its causes are read from.

    ``rank`` counts from 1; ``spark`` holds the number of channels in each 2 dB bin of SQNR;
    ``per_channel_p10_db`` is what the per-channel scheme of the same symmetry reaches.
    """
    return con.frame(
        """
        with chosen as (
            select *
            from layer_errors
            where model = $model and scheme = $scheme
        ),
        per_channel as (
            select layer_id, channel_sqnr_p10_db as per_channel_p10_db
            from errors
            where scheme = replace($scheme, '_tensor_', '_channel_')
        ),
        sparks as (
            select layer_id, list(channels order by bin) as spark
            from (
                select grid.layer_id, bin, count(channel_errors.channel) as channels
                from (select layer_id, unnest(range($bins)) as bin from chosen) as grid
                left join channel_errors
                    on channel_errors.layer_id = grid.layer_id
                    and channel_errors.scheme = $scheme
                    and least(floor(coalesce(sqnr_db, 1e9) / $bin_db), $bins - 1) = bin
                group by grid.layer_id, bin
            )
            group by layer_id
        ),
        flattened as (
            select
                layer_id,
                count(*) filter (channel_errors.zeroed_fraction = 1) as flattened_channels
            from channel_errors
            join chosen using (layer_id)
            where channel_errors.scheme = $scheme
            group by layer_id
        ),
        narrow as (
            select
                layer_id,
                count(*) filter (channels.weight_range < $narrow * chosen.abs_max)
                    as narrow_channels
            from channels
            join chosen using (layer_id)
            group by layer_id
        )
        select
            row_number() over (
                order by channel_sqnr_p10_db nulls last, chosen.zeroed_fraction desc, depth
            ) as rank,
            chosen.*,
            channel_spread_bits, symmetric_span_over_rms,
            flattened_channels, narrow_channels, per_channel_p10_db, spark
        from chosen
        join (
            select layer_id, channel_spread_bits, symmetric_span_over_rms from model_layers
        ) using (layer_id)
        left join per_channel using (layer_id)
        left join sparks using (layer_id)
        left join flattened using (layer_id)
        left join narrow using (layer_id)
        order by rank
        """,
        {
            "model": model,
            "scheme": scheme,
            "bins": SPARK_BINS,
            "bin_db": SPARK_DB_PER_BIN,
            "narrow": NARROW_CHANNEL_SHARE,
        },
    )


def layer_address(con: Connection, layer_id: int) -> tuple[str, str] | None:
    """The model and the label of a layer; None where it was removed meanwhile.

    The label is the layer's name, with the operand where a node has several.
    """
    rows = con.rows(
        """
        select model, layer || case when operands > 1 then ' (' || operand || ')' else '' end
        from (
            select layer_id, model, layer, count(*) over (partition by layer) as operands, operand
            from layers
            join models using (model_id)
            where model_id = (select model_id from layers where layer_id = $layer_id)
        )
        where layer_id = $layer_id
        """,
        {"layer_id": layer_id},
    )
    return rows[0] if rows else None


def layer_details(con: Connection, layer_id: int) -> dict[str, object]:
    """One layer's row of model_layers."""
    frame = con.frame("from model_layers where layer_id = ?", [layer_id])
    return {str(name): value for name, value in frame.iloc[0].to_dict().items()}


def layer_schemes(con: Connection, layer_id: int) -> pd.DataFrame:
    """One row per scheme for a layer: its errors, its band, its channels in 2 dB bins of SQNR.

    ``spark`` is NULL for schemes that are not kept channel by channel.
    """
    return con.frame(
        """
        with kept as (
            select distinct scheme
            from channel_errors
            where layer_id = $layer_id
        ),
        sparks as (
            select scheme, list(channels order by bin) as spark
            from (
                select grid.scheme, bin, count(channel_errors.channel) as channels
                from (select scheme, unnest(range($bins)) as bin from kept) as grid
                left join channel_errors
                    on channel_errors.scheme = grid.scheme
                    and channel_errors.layer_id = $layer_id
                    and least(floor(coalesce(sqnr_db, 1e9) / $bin_db), $bins - 1) = bin
                group by grid.scheme, bin
            )
            group by scheme
        )
        select layer_errors.*, spark
        from layer_errors
        left join sparks using (scheme)
        where layer_id = $layer_id
        """,
        {"layer_id": layer_id, "bins": SPARK_BINS, "bin_db": SPARK_DB_PER_BIN},
    )


def layer_channels(con: Connection, layer_id: int, scheme: str) -> pd.DataFrame:
    """One row per output channel: its box plot, its SQNR and its own band under one scheme.

    ``is_outlier`` marks the channels that ``outlier_channel_count`` counts.
    """
    return con.frame(
        """
        with fence as (
            select q3 + 1.5 * (q3 - q1) as range_fence
            from (
                select
                    quantile_cont(weight_range, 0.25) as q1,
                    quantile_cont(weight_range, 0.75) as q3
                from channels
                where layer_id = $layer_id
            )
        )
        select
            channels.* exclude (layer_id),
            greatest(-weight_min, weight_max) as abs_max,
            coalesce(weight_range > range_fence, false) as is_outlier,
            sqnr_db, zeroed_fraction, band
        from channels
        cross join fence
        left join channel_errors
            on channel_errors.layer_id = channels.layer_id
            and channel_errors.channel = channels.channel
            and channel_errors.scheme = $scheme
        asof left join bands on coalesce(sqnr_db, 'infinity') >= bands.lower_db
        where channels.layer_id = $layer_id
        order by channels.channel
        """,
        {"layer_id": layer_id, "scheme": scheme},
    )


def layer_histogram(con: Connection, layer_id: int) -> pd.DataFrame:
    """One row per bin of a layer's histogram."""
    return con.frame(
        """
        select bin, bin_low, bin_high, weights
        from histogram_bins
        where layer_id = ?
        order by bin
        """,
        [layer_id],
    )


def layer_clipping(con: Connection, layer_id: int) -> pd.DataFrame:
    """One row per bit width, measure and clipping threshold of a layer, thresholds ascending.

    ``threshold`` is a share of the largest absolute weight; ``sqnr_db`` is NULL where the weights
    come back exactly; ``is_best`` marks one threshold of each curve. The channels' few thresholds
    are joined by that of the least squared error, whose scheme is measured anyway.
    """
    return con.frame(
        """
        with curves as (
            select * from clipping where layer_id = $layer_id
        ),
        points as (
            select bits, measure, unnest(thresholds) as threshold, unnest(sqnr_db) as sqnr_db
            from curves
            union all
            select
                channels.bits,
                channels.measure,
                tensor.best_threshold,
                case channels.measure
                    when 'channel_p10' then channel_sqnr_p10_db
                    else channel_sqnr_median_db
                end
            from curves as channels
            join curves as tensor on tensor.bits = channels.bits and tensor.measure = 'tensor'
            join errors
                on errors.layer_id = channels.layer_id
                and errors.scheme = 'int8_tensor_symmetric_mse'
            where channels.measure in ('channel_p10', 'channel_median')
                and channels.bits = 8
                and not list_contains(channels.thresholds, tensor.best_threshold)
        )
        select
            bits, measure, threshold, sqnr_db,
            row_number() over (
                partition by bits, measure
                order by coalesce(sqnr_db, 'infinity') desc, threshold
            ) = 1 as is_best
        from points
        order by bits desc, measure, threshold
        """,
        {"layer_id": layer_id},
    )


def layer_bits_needed(con: Connection, layer_id: int) -> dict[str, int | None]:
    """The fewest bits that keep a layer fine, by granularity; None where 16 are not enough."""
    return dict(
        con.rows("select granularity, bits from bits_needed where layer_id = ?", [layer_id])
    )


def layer_equalization(con: Connection, layer_id: int, scheme: str) -> pd.DataFrame:
    """One row per neighbour that a layer could share scale with, the better one first.

    ``before_db`` and ``after_db`` are the layer's own channel p10, those with ``partner_`` the
    neighbour's; NULL where it is infinite. ``is_before`` says whether the neighbour feeds it.
    """
    return con.frame(
        """
        select
            own.partner_layer_id,
            partners.layer as partner,
            partners.depth < layers.depth as is_before,
            own.channel_sqnr_p10_before_db as before_db,
            own.channel_sqnr_p10_after_db as after_db,
            own_bands.band,
            own_bands_after.band as band_after,
            theirs.channel_sqnr_p10_before_db as partner_before_db,
            theirs.channel_sqnr_p10_after_db as partner_after_db,
            their_bands.band as partner_band,
            their_bands_after.band as partner_band_after
        from equalization as own
        join equalization as theirs
            on theirs.layer_id = own.partner_layer_id
            and theirs.partner_layer_id = own.layer_id
            and theirs.scheme = own.scheme
        join layers on layers.layer_id = own.layer_id
        join layers as partners on partners.layer_id = own.partner_layer_id
        asof join bands as own_bands
            on coalesce(own.channel_sqnr_p10_before_db, 'infinity') >= own_bands.lower_db
        asof join bands as own_bands_after
            on coalesce(own.channel_sqnr_p10_after_db, 'infinity') >= own_bands_after.lower_db
        asof join bands as their_bands
            on coalesce(theirs.channel_sqnr_p10_before_db, 'infinity') >= their_bands.lower_db
        asof join bands as their_bands_after
            on coalesce(theirs.channel_sqnr_p10_after_db, 'infinity') >= their_bands_after.lower_db
        where own.layer_id = $layer_id and own.scheme = $scheme
        order by after_db desc nulls first, partners.depth
        """,
        {"layer_id": layer_id, "scheme": scheme},
    )


def model_equalization(con: Connection, model: str, scheme: str) -> pd.DataFrame:
    """One row per band that layers of a model are in: what equalization could give those layers.

    ``layers_with_pair`` have a neighbour to share scale with, ``layers_lifted`` would leave the
    band for a better one with the better of their neighbours, each pair taken by itself.
    """
    return con.frame(
        """
        with chosen as (
            select layer_id, coalesce(channel_sqnr_p10_db, 'infinity') as before_db
            from errors
            join layers using (layer_id)
            join models using (model_id)
            where model = $model and scheme = $scheme
        ),
        forecast as (
            select
                layer_id,
                max(coalesce(channel_sqnr_p10_after_db, 'infinity')) as after_db
            from equalization
            where scheme = $scheme
            group by layer_id
        ),
        judged as (
            select
                before_bands.band,
                before_bands.lower_db,
                after_db,
                after_bands.lower_db as after_lower_db
            from chosen
            left join forecast using (layer_id)
            asof join bands as before_bands on before_db >= before_bands.lower_db
            asof left join bands as after_bands on after_db >= after_bands.lower_db
        )
        select
            band,
            count(*) as layers,
            count(after_db) as layers_with_pair,
            count(*) filter (after_lower_db > lower_db) as layers_lifted
        from judged
        group by band, lower_db
        order by lower_db
        """,
        {"model": model, "scheme": scheme},
    )


def model_findings(con: Connection, model: str) -> pd.DataFrame:
    """What stands out about a model, the gravest first; layers of one kind share a row.

    ``layers`` are the names of the first layers, in graph order, ``layer_count`` is how many there
    are; both are empty and 0 for the model as a whole. Message and remedy are the first layer's.
    """
    return con.frame(
        """
        select
            kind,
            severity,
            first(message order by depth) as message,
            first(remedy order by depth) as remedy,
            coalesce((list(layer order by depth) filter (layer is not null))[:10], []) as layers,
            count(layer) as layer_count
        from model_findings
        where model = ?
        group by kind, severity, layer_id is null, if(layer_id is null, message, '')
        order by
            list_position(['problem', 'warning', 'note'], severity),
            layer_count desc,
            message
        """,
        [model],
    )


def layer_findings(con: Connection, layer_id: int) -> pd.DataFrame:
    """What stands out about one layer, the gravest first."""
    return con.frame(
        """
        select kind, severity, message, remedy
        from findings
        where layer_id = ?
        order by list_position(['problem', 'warning', 'note'], severity), kind
        """,
        [layer_id],
    )


def model_bits_needed(con: Connection, model: str) -> dict[str, int | None]:
    """The fewest bits that keep every layer fine, by granularity; None where 16 are not enough."""
    return dict(
        con.rows(
            """
            select granularity, case when count(bits) = count(*) then max(bits) end
            from bits_needed
            join layers using (layer_id)
            join models using (model_id)
            where model = ?
            group by granularity
            """,
            [model],
        )
    )


# Where a model was run


def model_runs(con: Connection, model: str) -> pd.DataFrame:
    """One row per scheme, mode and inputs a model was run with: the latest run, probes first.

    ``has_drift`` says whether the run keeps its tensors, ``band`` is that of the SQNR at the
    outputs, NULL where there is none.
    """
    return con.frame(
        """
        select
            simulations.* exclude (model_id),
            band,
            simulation_id in (select simulation_id from activation_errors) as has_drift
        from simulations
        asof left join bands on output_sqnr_db >= bands.lower_db
        where model_id = (select model_id from models where model = $model)
        qualify row_number() over (
            partition by scheme, mode, input_source
            order by failure is null desc, created_at desc, simulation_id desc
        ) = 1
        order by input_source = 'noise' desc, input_source, scheme, mode
        """,
        {"model": model},
    )


# Statistics of the weights that are held against reality; all of them of one model and scheme.
PREDICTIONS = ("max_weight_range", "median_range_over_std", "noise_to_signal", "worst_p10_db")


def reality(con: Connection, scheme: str, mode: str, *, is_real: bool) -> pd.DataFrame:
    """One row per model that was run: four statistics of its weights, and what came out.

    Args:
        is_real: runs on inputs that somebody gave, instead of the probe.

    ``noise_to_signal`` is the sum over the layers of 10^(-SQNR/10); ``worst_p10_db`` the lowest
    channel p10 of a layer, NULL where every layer is exact. What the file holds as integers of
    this very scheme is left out: it has nothing to lose.
    """
    return con.frame(
        """
        with measured as (
            select model_id, output_sqnr_db, input_source, sample_count
            from simulations
            where scheme = $scheme
                and mode = $mode
                and output_sqnr_db is not null
                and case
                    when $is_real then not starts_with(input_source, 'noise')
                    else input_source = 'noise'
                end
            qualify row_number() over (
                partition by model_id
                order by created_at desc, simulation_id desc
            ) = 1
        ),
        predicted as (
            select
                model_id,
                max(weight_range) as max_weight_range,
                median(range_over_std) as median_range_over_std,
                -- An exact layer adds no noise.
                sum(coalesce(10 ^ (-sqnr_db / 10), 0)) as noise_to_signal,
                min(channel_sqnr_p10_db) as worst_p10_db,
                bool_or(already_quantized) as already_quantized
            from layers
            join errors using (layer_id)
            where scheme = $scheme and model_id in (select model_id from measured)
            group by model_id
        )
        select model, predicted.* exclude (model_id), measured.* exclude (model_id), band
        from measured
        join predicted using (model_id)
        join models using (model_id)
        asof join bands on output_sqnr_db >= bands.lower_db
        where not (already_quantized and output_sqnr_db > $own_grid)
        order by output_sqnr_db, model
        """,
        {"scheme": scheme, "mode": mode, "is_real": is_real, "own_grid": OWN_GRID_DB},
    )


def run_counts(con: Connection) -> pd.DataFrame:
    """One row per scheme, mode and kind of input that has figures: on how many models."""
    return con.frame(
        """
        select
            scheme,
            mode,
            not starts_with(input_source, 'noise') as is_real,
            count(distinct model_id) as models
        from simulations
        where output_sqnr_db is not null
            and (input_source = 'noise' or not starts_with(input_source, 'noise'))
        group by all
        order by models desc, scheme, mode
        """
    )


def drift_runs(con: Connection, limit: int = 500) -> pd.DataFrame:
    """One row per run that keeps its tensors, the latest first."""
    return con.frame(
        """
        select simulation_id, model, simulations.* exclude (simulation_id, model_id)
        from simulations
        join models using (model_id)
        where simulation_id in (select simulation_id from activation_errors)
        order by created_at desc, simulation_id desc
        limit $limit
        """,
        {"limit": limit},
    )


def drift(con: Connection, runs: Sequence[int]) -> pd.DataFrame:
    """One row per run and tensor, in graph order, without the histograms.

    ``place`` is the depth as a share of the run's deepest tensor. ``drop_db`` says by how much the
    accumulated error falls below everything before it, both cut at 40 dB; 0 where it does not.
    ``layer_id`` and the statistics of its weights are NULL where the node is no layer.
    """
    return con.frame(
        """
        with accumulated as (
            select
                * exclude (kind, float_counts, quantized_counts, low, high),
                max(depth) over own as deepest,
                coalesce(
                    min(least(coalesce(sqnr_db, $most), $most)) over (
                        partition by simulation_id
                        order by depth
                        rows between unbounded preceding and 1 preceding
                    ),
                    $most
                ) as lowest_before_db
            from activation_errors
            where kind = 'accumulated' and list_contains($runs, simulation_id)
            window own as (partition by simulation_id)
        ),
        local as (
            select simulation_id, depth, sqnr_db as local_db, true as has_local
            from activation_errors
            where kind = 'local' and list_contains($runs, simulation_id)
        ),
        -- A node with several weights is one tensor: its first operand stands for it.
        own_layers as (
            select *
            from layers
            where model_id in (
                select model_id from simulations where list_contains($runs, simulation_id)
            )
            qualify row_number() over (partition by model_id, layer order by depth) = 1
        )
        select
            accumulated.* exclude (deepest),
            accumulated.depth / greatest(deepest, 1) as place,
            greatest(
                lowest_before_db - least(coalesce(accumulated.sqnr_db, $most), $most), 0
            ) as drop_db,
            local_db,
            coalesce(has_local, false) as has_local,
            model,
            simulations.scheme,
            mode,
            own_layers.layer_id,
            own_layers.weight_range,
            own_layers.channel_range_ratio,
            channel_sqnr_p10_db,
            channels_below_10db,
            own_layers.channel_count,
            band
        from accumulated
        join simulations using (simulation_id)
        join models using (model_id)
        left join local using (simulation_id, depth)
        left join own_layers
            on own_layers.model_id = simulations.model_id
            and own_layers.layer = accumulated.node_name
        left join errors
            on errors.layer_id = own_layers.layer_id and errors.scheme = simulations.scheme
        asof left join bands
            on if(
                errors.layer_id is null, null, coalesce(errors.channel_sqnr_p10_db, 'infinity')
            ) >= bands.lower_db
        order by list_position($runs, simulation_id), accumulated.depth
        """,
        {"runs": list(runs), "most": FALLS_FROM_DB},
    )


def tensor_values(con: Connection, run: int, tensor: str) -> pd.DataFrame:
    """One row: a tensor of a run with both of its histograms; empty where there is none."""
    return con.frame(
        """
        select *
        from activation_errors
        where simulation_id = $run and tensor = $tensor and kind = 'accumulated'
        order by depth
        limit 1
        """,
        {"run": run, "tensor": tensor},
    )


def sensitivities(con: Connection, model: str) -> pd.DataFrame:
    """One row per layer that was quantized alone, in the latest scheme and mode that this was done.

    ``channel_sqnr_p10_db`` is what its weights alone say of it, NULL where they are exact.
    """
    return con.frame(
        """
        with own as (
            select sensitivities.*
            from sensitivities
            where kind = 'alone'
                and model_id = (select model_id from models where model = $model)
        ),
        latest as (
            select scheme, mode, input_source
            from own
            order by created_at desc
            limit 1
        )
        select
            layers.layer_id, layer, layers.depth, op_type, is_depthwise,
            scheme, mode, input_source, sample_count, output_sqnr_db,
            channel_sqnr_p10_db, band,
            row_number() over (order by output_sqnr_db nulls last, layers.depth) as rank,
            row_number() over (order by channel_sqnr_p10_db nulls last, layers.depth)
                as weight_rank
        from own
        join latest using (scheme, mode, input_source)
        join layers using (layer_id)
        join errors using (layer_id, scheme)
        asof join bands on coalesce(channel_sqnr_p10_db, 'infinity') >= bands.lower_db
        order by rank
        """,
        {"model": model},
    )


def sources(con: Connection) -> pd.DataFrame:
    """One row per model: where its file was read from, by name."""
    return con.frame("select model, source, folded from models order by lower(model), model")


def band_limits(con: Connection) -> dict[str, float]:
    """The lower limit of each band in dB, best band first."""
    return dict(con.rows("select band, lower_db from bands order by lower_db desc"))


def schema(con: Connection) -> pd.DataFrame:
    """One row per column of every view and table, views first, with types and comments."""
    return con.frame(
        """
        with things as (
            select view_name as thing, comment as meaning, true as is_view
            from duckdb_views()
            where not internal
            union all
            select table_name, comment, false
            from duckdb_tables()
            where not internal
        )
        select thing, is_view, meaning, column_name, data_type, columns.comment
        from things
        join duckdb_columns() as columns on columns.table_name = thing
        where not columns.internal
        order by is_view desc, thing, column_index
        """
    )


def layer_rescues(con: Connection, model: str, scheme: str) -> pd.DataFrame:
    """One row per layer of a model: what could rescue it under one scheme, as far as it is stored.

    ``clipped_p10_db`` is what clipping the range reaches where the scheme is per tensor,
    ``equalized_p10_db`` what the better neighbour could give; NULL where nothing is stored, and
    infinite where no error is left. ``bits_tensor``, ``bits_channel`` and ``bits_block`` are the
    bits needed, -1 where the most bits are not enough.
    """
    return con.frame(
        """
        with needed as (
            select
                layer_id,
                max(coalesce(bits, -1)) filter (granularity = 'tensor') as bits_tensor,
                max(coalesce(bits, -1)) filter (granularity = 'channel') as bits_channel,
                max(coalesce(bits, -1)) filter (granularity = 'block') as bits_block
            from bits_needed
            group by layer_id
        ),
        equalized as (
            select
                layer_id,
                max(coalesce(channel_sqnr_p10_after_db, 'infinity')) as equalized_p10_db
            from equalization
            where scheme = $scheme
            group by layer_id
        )
        select
            layers.layer_id,
            case when clipped.layer_id is not null
                then coalesce(clipped.channel_sqnr_p10_db, 'infinity') end as clipped_p10_db,
            equalized_p10_db,
            bits_tensor, bits_channel, bits_block
        from layers
        join models using (model_id)
        left join errors as clipped
            on clipped.layer_id = layers.layer_id and clipped.scheme = $scheme || '_mse'
        left join needed on needed.layer_id = layers.layer_id
        left join equalized on equalized.layer_id = layers.layer_id
        where model = $model
        order by depth
        """,
        {"model": model, "scheme": scheme},
    )
