"""Questions about the nodes of a model under one target: what a viewer of the graph can show."""

from typing import TYPE_CHECKING

from quantstore.schemes import Target
from quantstore.store import Connection

if TYPE_CHECKING:
    import pandas as pd


def drift_run(con: Connection, model: str, target: Target) -> int | None:
    """The latest run of a target that keeps its tensors; None where there is none."""
    rows = con.rows(
        """
        select simulation_id
        from simulations
        where model_id = (select model_id from models where model = $model)
            and (target = $target or (target is null and scheme = $scheme and mode = $mode))
            and simulation_id in (select simulation_id from activation_errors)
        order by created_at desc, simulation_id desc
        limit 1
        """,
        {
            "model": model,
            "target": target.name,
            # A run of 0.1.0 names no target.
            "scheme": target.scheme.name if target.is_of_its_scheme else None,
            "mode": target.mode,
        },
    )
    return int(rows[0][0]) if rows else None


def node_sensitivities(con: Connection, model: str, target: Target) -> "pd.DataFrame":
    """One row per node: the outputs where only its weights, or only its result, is quantized.

    ``output_sqnr_db`` is the lower of the two, infinite where both change nothing. Of the inputs
    that this was done with, the latest.
    """
    return con.frame(
        """
        with own as (
            select *
            from sensitivities
            where kind = 'alone'
                and model_id = (select model_id from models where model = $model)
                and (target = $target or (target is null and scheme = $scheme and mode = $mode))
            qualify input_source = first_value(input_source) over (order by created_at desc)
        )
        select
            coalesce(own.node_name, layer) as node_name,
            min(coalesce(output_sqnr_db, 'infinity')) as output_sqnr_db
        from own
        left join layers using (layer_id)
        where coalesce(own.node_name, layer) is not null
        group by all
        order by node_name
        """,
        {
            "model": model,
            "target": target.name,
            "scheme": target.scheme.name if target.is_of_its_scheme else None,
            "mode": target.mode,
        },
    )


def float_set(con: Connection, model: str, target: Target) -> "pd.DataFrame":
    """The units that the latest search of a target returned to float, in the order found.

    Of several goals of a run, the highest. Empty where nothing was searched.
    """
    return con.frame(
        """
        with latest as (
            select simulation_id, max(goal_db) as goal_db
            from float_sets
            join simulations using (simulation_id)
            where model_id = (select model_id from models where model = $model)
                and target = $target
            group by simulation_id, created_at
            order by created_at desc, simulation_id desc
            limit 1
        )
        select position, unit, unit_kind, float_sets.goal_db, output_sqnr_db
        from float_sets
        semi join latest using (simulation_id, goal_db)
        order by position
        """,
        {"model": model, "target": target.name},
    )
