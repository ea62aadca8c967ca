"""What verdicts need of the layers of a model, added up when the model is written.

The view ``verdicts`` would otherwise read every layer of every model each time. The totals hold
what stays as it was measured; the view applies the bands, which somebody may change.
"""

from collections.abc import Sequence

import duckdb

from quantstore.schemes import TARGETS

# Nobody asks for a verdict under the others.
_SCHEMES = sorted({target.layer_scheme.name for target in TARGETS.values()})
_TOTALS = """
    insert into layer_totals by name
    with ranked as (
        select
            model_id,
            scheme,
            op_family,
            layer,
            depth,
            channel_count,
            weight_count,
            -- An exact layer has no finite SQNR: it counts as infinitely good.
            coalesce(channel_sqnr_p10_db, 'infinity') as p10_db,
            channels_below_10db,
            zeroed_fraction,
            row_number() over severity as place,
            sum(weight_count) over severity as weight_sum
        from errors
        join layers using (layer_id)
        where ($models is null or list_contains($models, model_id))
            and list_contains($schemes, scheme)
        window severity as (
            partition by model_id, scheme, op_family
            order by p10_db, zeroed_fraction desc, depth
            rows unbounded preceding
        )
    )
    select
        model_id,
        scheme,
        op_family,
        sum(channel_count)::bigint as channel_count,
        sum(channels_below_10db)::bigint as channels_below_10db,
        sum(weight_count)::bigint as weight_count,
        arg_min(layer, place) as worst_layer,
        arg_min(depth, place) as worst_depth,
        arg_min(zeroed_fraction, place) as worst_zeroed_fraction,
        list(p10_db order by place) as channel_sqnr_p10_db,
        list(weight_sum::bigint order by place) as weight_sums
    from ranked
    group by model_id, scheme, op_family
    order by model_id, scheme, op_family
"""


def add_totals(connection: duckdb.DuckDBPyConnection, model_ids: Sequence[int]) -> None:
    """Add up the layers of models that have none yet, inside the open transaction."""
    connection.execute(_TOTALS, {"models": list(model_ids), "schemes": _SCHEMES})


def renew_totals(connection: duckdb.DuckDBPyConnection) -> None:
    """Add up the layers of every model anew, inside the open transaction."""
    connection.execute("delete from layer_totals")
    connection.execute(_TOTALS, {"models": None, "schemes": _SCHEMES})
