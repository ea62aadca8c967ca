"""Questions about models: what there is, how they compare, what is known about one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from quantstore.numerics.measures import MEASURES
from quantstore.store import Connection
from quantstore.wording.verdicts import OWN_GRID_DB, ModelFacts


@dataclass(frozen=True, slots=True)
class StoreSize:
    """What the store holds."""

    models: int
    layers: int


def store_size(con: Connection) -> StoreSize:
    """Models and layers in the store."""
    (row,) = con.rows("select count(*), coalesce(sum(layer_count), 0) from models")
    return StoreSize(*row)


def model_names(con: Connection, tag: str | None = None) -> list[str]:
    """Every model, or those with the tag, in alphabetical order."""
    rows = con.rows(
        """
        select model
        from models
        where $tag is null or list_contains(tags, $tag)
        order by lower(model), model
        """,
        {"tag": tag},
    )
    return [model for (model,) in rows]


def models(con: Connection) -> pd.DataFrame:
    """One row per model: where it comes from and how its weights spread."""
    return con.frame("from model_summary order by lower(model), model")


def verdicts(con: Connection, models: list[str] | None = None) -> pd.DataFrame:
    """One row per model and scheme, with the size of the model; every model by default.

    ``probe_failure`` says why the latest probe has no figure, where there is no other;
    ``next_limit_db`` is the limit of the bands that the SQNR at the outputs stays below.
    """
    return con.frame(
        """
        with failures as (
            select model_id, scheme, arg_max(failure, simulation_id) as probe_failure
            from simulations
            where input_source = 'noise' and failure is not null
            group by model_id, scheme
        ),
        -- Both views answer for a few models at once; joined first, they would for all.
        judged as (
            from verdicts
            where list_contains($models, model)
        ),
        summaries as (
            from model_summary
            where list_contains($models, model)
        )
        select judged.*, folded, layer_count, weight_count, file_bytes, layers_already_quantized,
            max_weight_range, median_weight_range, channel_spread_p90_bits,
            (select min(lower_db) from bands where lower_db > output_sqnr_db) as next_limit_db,
            if(evidence = 'weights', probe_failure, null) as probe_failure
        from judged
        join summaries using (model)
        left join failures
            on failures.model_id = judged.model_id and failures.scheme = judged.scheme
        order by lower(model), model, judged.scheme
        """,
        {"models": model_names(con) if models is None else models},
    )


def model_facts(row: Mapping[Any, Any]) -> ModelFacts:
    """What words need of a row of ``verdicts`` or ``ranking``."""
    is_probed = row["evidence"] == "probe"
    failure, reason = row.get("probe_failure"), row.get("reason")
    # NULL: no error at all.
    worst_db = row["worst_channel_sqnr_p10_db"]
    return ModelFacts(
        verdict=str(row["verdict"]),
        mode=str(row["mode"]) if is_probed else None,
        output_sqnr_db=float(row["output_sqnr_db"]) if is_probed else None,
        layers_broken=int(row["layers_broken"]),
        layers_at_risk=int(row["layers_at_risk"]),
        layer_count=int(row["layer_count"]),
        is_already_quantized=bool(row["layers_already_quantized"]),
        are_layers_exact=bool(pd.isna(worst_db) or worst_db > OWN_GRID_DB),
        probe_failure=None if pd.isna(failure) else str(failure),
        reason=None if pd.isna(reason) else str(reason),
        next_limit_db=None if pd.isna(row["next_limit_db"]) else float(row["next_limit_db"]),
    )


def ranking(con: Connection, scheme: str, models: list[str] | None = None) -> pd.DataFrame:
    """One row per model under one scheme, worst first: its verdict and what that rests on.

    Worst is the worst verdict, untested after all that are known; then the lowest SQNR at the
    outputs; where a model was not probed, the largest share of layers that is broken, then at risk,
    then to watch. The same verdicts as in the view of that name, without what the view finds out
    besides.
    """
    return con.frame(
        """
        with chosen as (
            select model_id, model, layer_count, weight_count
            from models
            where list_contains($models, model)
        ),
        -- Not asof: it would sort the layers of every model.
        intervals as (
            select band, lower_db, lead(lower_db, 1, 'nan') over (order by lower_db) as upper_db
            from bands
        ),
        counts as (
            select
                model_id,
                count(*) as layers,
                count(*) filter (band = 'broken') as layers_broken,
                count(*) filter (band = 'at risk') as layers_at_risk,
                count(*) filter (band = 'watch') as layers_watch,
                count(*) filter (already_quantized) as layers_already_quantized,
                min(channel_sqnr_p10_db) as worst_channel_sqnr_p10_db,
                coalesce(sum(layers.weight_count) filter (band = 'broken'), 0)
                    / sum(layers.weight_count) as broken_weight_share
            from errors
            join layers using (layer_id)
            join chosen using (model_id)
            -- NaN, which is larger than infinity, bounds the best band.
            join intervals
                on coalesce(channel_sqnr_p10_db, 'infinity') >= lower_db
                and coalesce(channel_sqnr_p10_db, 'infinity') < upper_db
            where scheme = $scheme
            group by model_id
        ),
        own_probes as (
            from probes
            where scheme = $scheme
        ),
        measured as (
            select model_id, mode, output_sqnr_db, band
            from own_probes
            where band is not null
            qualify row_number() over (
                partition by model_id
                order by mode = 'both' desc, created_at desc, simulation_id desc
            ) = 1
        ),
        cut_off as (
            select model_id, failure
            from own_probes
            where mode = 'both' and band is null
        ),
        judged as (
            select
                model,
                counts.*,
                layer_count,
                weight_count,
                if(band is null, 'weights', 'probe') as evidence,
                coalesce(mode, 'weights') as mode,
                output_sqnr_db,
                case
                    when band is not null then band
                    when layers_broken > 0 then 'broken'
                    when layers_at_risk > 0 then 'at risk'
                    when layers_watch > 0 then 'watch'
                    else 'fine'
                end as worst_band,
                case
                    when worst_band = 'broken' then 'breaks'
                    when worst_band = 'at risk' then 'at risk'
                    when failure is not null then 'untested'
                    else worst_band
                end as verdict,
                if(verdict = 'untested', failure, null) as reason
            from counts
            join chosen using (model_id)
            left join measured using (model_id)
            left join cut_off using (model_id)
        )
        select
            model, verdict, evidence, mode, output_sqnr_db, reason,
            layers_broken, layers_at_risk, layer_count, layers_already_quantized,
            worst_channel_sqnr_p10_db, weight_count, broken_weight_share,
            (select min(lower_db) from bands where lower_db > output_sqnr_db) as next_limit_db
        from judged
        order by list_position(['breaks', 'at risk', 'watch', 'fine', 'untested'], verdict),
            output_sqnr_db nulls last,
            layers_broken / layers desc, layers_at_risk / layers desc,
            layers_watch / layers desc, lower(model)
        """,
        {"models": model_names(con) if models is None else models, "scheme": scheme},
    )


def rank_of_models(con: Connection, scheme: str, models: list[str] | None = None) -> list[str]:
    """Models, worst first: by verdict, then by SQNR at the outputs."""
    return [str(model) for model in ranking(con, scheme, models)["model"]]


def layer_profiles(con: Connection, models: list[str], scheme: str) -> pd.DataFrame:
    """One row per layer of the given models under one scheme, in graph order: for charts.

    It has every measure that charts offer and no more: a chart carries its frame to the browser.
    """
    return con.frame(
        """
        select
            model, layer_id, layer, operand, depth,
            count(*) over (partition by model) as layer_count,
            op_type, op_family, is_depthwise, weight_count, channel_count, already_quantized,
            measured.* exclude (layer_id),
            band, channel_sqnr_p10_db, sqnr_db, zeroed_fraction, channels_below_10db
        from layer_errors
        join (
            select
                layer_id,
                columns(lambda name: list_contains($offered, name)),
                channel_spread_bits, symmetric_span_over_rms, asymmetric_span_over_rms,
                100 * outlier_fraction as outlier_percent
            from model_layers
            where list_contains($models, model)
        ) as measured using (layer_id)
        where scheme = $scheme and list_contains($models, model)
        order by list_position($models, model), depth
        """,
        {
            "models": models,
            "scheme": scheme,
            "offered": [name for name, measure in MEASURES.items() if measure.chart is not None],
        },
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
