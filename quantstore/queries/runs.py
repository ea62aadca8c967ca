"""Questions about runs of a model in float and quantized."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantstore.queries.lookup import model_key
from quantstore.schemes import TARGETS
from quantstore.store import Connection
from quantstore.wording.verdicts import OWN_GRID_DB

if TYPE_CHECKING:
    import pandas as pd

# Targets whose runs are figures of a scheme and a mode; others round less, or otherwise.
OF_THEIR_SCHEME = [target.name for target in TARGETS.values() if target.is_of_its_scheme]


# Schemes that only targets have, and those whose figures of layers stand for them.
_OTHERWISE_MEASURED = {
    target.scheme.name: target.layer_scheme.name
    for target in TARGETS.values()
    if target.layer_scheme is not target.scheme
}
_LAYER_SCHEME = {
    "of_targets": list(_OTHERWISE_MEASURED),
    "of_layers": list(_OTHERWISE_MEASURED.values()),
}


# Where a model was run
def model_runs(con: Connection, model: str) -> "pd.DataFrame":
    """One row per scheme, mode and inputs a model was run with: the latest run, probes first.

    Runs on inputs that were given have a row for each target, too. Of the probes, those are left
    out that are no figure of a scheme and a mode; :func:`model_targets` has all.

    ``has_drift`` says whether the run keeps its tensors. ``output_sqnr_db`` is what a verdict
    takes, of the worst output that decides, and ``band`` its band; NULL where there is none.
    """
    return con.frame(
        """
        -- First of all, for a mark and an asof join look at every row.
        with own as (from simulations where model_id = $model_id)
        select
            own.* exclude (model_id)
                replace (coalesce(deciding_sqnr_db, output_sqnr_db) as output_sqnr_db),
            band,
            simulation_id in (
                select simulation_id from activation_errors semi join own using (simulation_id)
            ) as has_drift
        from own
        asof left join bands
            on coalesce(deciding_sqnr_db, own.output_sqnr_db) >= bands.lower_db
        where input_source <> 'noise'
            or target is null
            or list_contains($of_their_scheme, target)
        qualify row_number() over (
            partition by scheme, mode, input_source, if(input_source = 'noise', null, target)
            order by failure is null desc, created_at desc, simulation_id desc
        ) = 1
        order by input_source = 'noise' desc, input_source, scheme, mode
        """,
        {"model_id": model_key(con, model), "of_their_scheme": OF_THEIR_SCHEME},
    )


def model_targets(con: Connection, model: str) -> "pd.DataFrame":
    """One row per target that the probe was asked for: its figure, or why there is none.

    ``output_sqnr_db`` is the figure that a verdict takes, of the worst output that decides, and
    ``band`` its band; both are NULL where ``failure`` says why.
    """
    return con.frame(
        """
        select
            simulations.* exclude (model_id)
                replace (coalesce(deciding_sqnr_db, output_sqnr_db) as output_sqnr_db),
            band
        from simulations
        asof left join bands
            on coalesce(deciding_sqnr_db, simulations.output_sqnr_db) >= bands.lower_db
        where model_id = $model_id
            and input_source = 'noise'
            and target is not null
        qualify row_number() over (
            partition by target
            order by failure is null desc, created_at desc, simulation_id desc
        ) = 1
        order by target
        """,
        {"model_id": model_key(con, model)},
    )


# Statistics of the weights that are held against reality; all of them of one model and scheme.
PREDICTIONS = ("max_weight_range", "median_range_over_std", "noise_to_signal", "worst_p10_db")


def reality(con: Connection, scheme: str, mode: str, *, is_real: bool) -> "pd.DataFrame":
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
                and (target is null or list_contains($of_their_scheme, target))
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
        {
            "scheme": scheme,
            "mode": mode,
            "is_real": is_real,
            "own_grid": OWN_GRID_DB,
            "of_their_scheme": OF_THEIR_SCHEME,
        },
    )


def run_counts(con: Connection) -> "pd.DataFrame":
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
            and (target is null or list_contains($of_their_scheme, target))
        group by all
        order by models desc, scheme, mode
        """,
        {"of_their_scheme": OF_THEIR_SCHEME},
    )


def drift_runs(con: Connection, model: str | None = None, *, limit: int = 500) -> "pd.DataFrame":
    """One row per run that keeps its tensors, of a model or of all, the latest first.

    ``output_sqnr_db`` is what a verdict takes, of the worst output that decides, and ``band`` its
    band; NULL where there is none.
    """
    return con.frame(
        """
        select
            simulation_id,
            model,
            simulations.* exclude (simulation_id, model_id)
                replace (coalesce(deciding_sqnr_db, output_sqnr_db) as output_sqnr_db),
            band
        from simulations
        join models using (model_id)
        asof left join bands
            on coalesce(deciding_sqnr_db, simulations.output_sqnr_db) >= bands.lower_db
        where simulation_id in (select simulation_id from activation_errors)
            and ($model is null or model = $model)
        order by created_at desc, simulation_id desc
        limit $limit
        """,
        {"model": model, "limit": limit},
    )


def drift(con: Connection, runs: Sequence[int]) -> "pd.DataFrame":
    """One row per run and tensor, in graph order, without the histograms.

    ``place`` is the depth as a share of the run's deepest tensor. ``drop_db`` says by how much the
    accumulated error falls below everything before it, both cut at 40 dB; 0 where it does not.
    ``layer_id`` and the statistics of its weights are NULL where the node is no layer.
    """
    from quantstore.wording.drift import FALLS_FROM_DB

    return con.frame(
        """
        with accumulated as (
            select
                * exclude (
                    kind, float_counts, quantized_counts, low, high,
                    -- Of the tensor; below, they are those of the weights.
                    channel_sqnr_p10_db, channels_below_10db, channel_count
                ),
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
            on errors.layer_id = own_layers.layer_id
            and errors.scheme = coalesce(
                $of_layers[list_position($of_targets, simulations.scheme)], simulations.scheme
            )
        asof left join bands
            on if(
                errors.layer_id is null, null, coalesce(errors.channel_sqnr_p10_db, 'infinity')
            ) >= bands.lower_db
        order by list_position($runs, simulation_id), accumulated.depth
        """,
        {"runs": list(runs), "most": FALLS_FROM_DB, **_LAYER_SCHEME},
    )


def simulation_answers(con: Connection, runs: Sequence[int]) -> "pd.DataFrame":
    """One row per run and input, those first whose outputs changed most."""
    return con.frame(
        """
        select *
        from simulation_answers
        where list_contains($runs, simulation_id)
        order by simulation_id, rank
        """,
        {"runs": list(runs)},
    )


def tensor_values(con: Connection, run: int, tensor: str) -> "pd.DataFrame":
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


def sensitivities(con: Connection, model: str) -> "pd.DataFrame":
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
            select scheme, mode, target, input_source
            from own
            order by created_at desc
            limit 1
        )
        select
            layers.layer_id, layer, layers.depth, op_type, is_depthwise,
            own.target, own.scheme, own.mode, own.unit_kind, own.input_source,
            sample_count, output_sqnr_db,
            channel_sqnr_p10_db, band,
            row_number() over (order by output_sqnr_db nulls last, layers.depth) as rank,
            row_number() over (order by channel_sqnr_p10_db nulls last, layers.depth)
                as weight_rank
        from own
        join latest
            on own.scheme = latest.scheme
            and own.mode = latest.mode
            and own.target is not distinct from latest.target
            and own.input_source = latest.input_source
        -- Tensors that belong to no layer are left out.
        join layers on layers.layer_id = own.layer_id
        join errors
            on errors.layer_id = own.layer_id
            and errors.scheme = coalesce(
                $of_layers[list_position($of_targets, own.scheme)], own.scheme
            )
        asof join bands on coalesce(channel_sqnr_p10_db, 'infinity') >= bands.lower_db
        order by rank
        """,
        {"model": model, **_LAYER_SCHEME},
    )
