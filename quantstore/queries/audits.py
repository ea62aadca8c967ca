"""Questions about audits: what an int8 file keeps of its float file, layer by layer."""

from typing import TYPE_CHECKING

from quantstore.store import Connection, find_model

if TYPE_CHECKING:
    import pandas as pd


def audits(con: Connection, model: str | None = None) -> "pd.DataFrame":
    """One row per audit, the latest first: of an int8 model, of a float one, or of all.

    ``float_model`` is NULL where the store does not hold the float file. ``band``: of ``grid_db``,
    NULL where the files were not run.
    """
    return con.frame(
        """
        select
            int8.model as int8_model,
            coalesce(floats.model, audits.float_file) as float_model,
            audits.* exclude (int8_model_id, float_model_id),
            bands.band
        from audits
        join models as int8 on int8.model_id = audits.int8_model_id
        left join models as floats on floats.model_id = audits.float_model_id
        asof left join bands
            on if(
                audits.failure is null and audits.sample_count > 0,
                coalesce(audits.grid_db, 'infinity'),
                null
            )
                >= bands.lower_db
        where $model is null or int8.model = $model or floats.model = $model
        order by audits.created_at desc, audits.audit_id desc
        """,
        {"model": model},
    )


def audit_layers(con: Connection, audit_id: int) -> "pd.DataFrame":
    """One row per layer of the int8 file: the largest gain first, then the worst weights.

    ``band``: of ``stored_p10_db``, NULL where the layer has no partner or stores floats.
    """
    return con.frame(
        """
        select
            coalesce(int8.layer, floats.layer) as layer,
            floats.layer as float_layer,
            int8.op_type,
            int8.depth as int8_depth,
            floats.depth as float_depth,
            audit_layers.* exclude (audit_id, int8_layer_id, float_layer_id),
            audit_layers.int8_layer_id as layer_id,
            bands.band
        from audit_layers
        asof left join bands
            on if(
                rounding is null,
                nullif(stored_p10_db, 'infinity'),
                coalesce(stored_p10_db, 'infinity')
            )
                >= bands.lower_db
        left join layers as int8 on int8.layer_id = audit_layers.int8_layer_id
        left join layers as floats on floats.layer_id = audit_layers.float_layer_id
        where audit_id = ?
        order by released_gain_db desc nulls last, stored_p10_db nulls last, int8.depth
        """,
        [audit_id],
    )


def audit_tensors(con: Connection, audit_id: int) -> "pd.DataFrame":
    """One row per activation that the int8 file rounds: the largest gain first."""
    return con.frame(
        """
        select
            coalesce(float_tensor, int8_tensor) as tensor,
            audit_tensors.* exclude (audit_id),
            best_sqnr_db - sqnr_db as lost_db
        from audit_tensors
        where audit_id = ?
        order by released_gain_db desc nulls last, lost_db desc nulls last, tensor
        """,
        [audit_id],
    )


def audit_outputs(con: Connection, audit_id: int) -> "pd.DataFrame":
    """One row per output and part, the worst that decides first."""
    return con.frame(
        """
        from audit_outputs select * exclude (audit_id)
        where audit_id = ?
        order by decides desc, grid_db nulls last, output, part
        """,
        [audit_id],
    )


def integer_models(con: Connection, models: list[str] | None = None) -> set[str]:
    """The models that store weights as integers, or as floats on a grid: of these, or of all."""
    rows = con.rows(
        """
        select model
        from models
        where ($models is null or list_contains($models, model))
            and exists (
                from layers
                where layers.model_id = models.model_id and layers.already_quantized
            )
        """,
        {"models": models},
    )
    return {str(model) for (model,) in rows}


def audit_partners(con: Connection, model: str) -> list[str]:
    """Float models that an int8 model may come from, or int8 models of a float one; best first.

    The share of layers that have one of the same operator and size in the other model decides, then
    the likeness of the names. Models without any such layer come last.

    Raises:
        UnknownModelError: the store does not hold the model.
    """
    rows = con.rows(
        """
        with kinds as (
            select model_id, bool_or(already_quantized) as is_integer, count(*) as layer_count
            from layers
            group by model_id
        ),
        sizes as (
            select model_id, op_family, weight_count, count(*) as number
            from layers
            group by model_id, op_family, weight_count
        ),
        own as (
            from sizes where model_id = $model_id
        ),
        fits as (
            select sizes.model_id, sum(least(sizes.number, own.number)) as fitting
            from sizes
            join own using (op_family, weight_count)
            group by sizes.model_id
        )
        select models.model
        from kinds
        join models using (model_id)
        left join fits using (model_id)
        cross join (from kinds where model_id = $model_id) as own_kind
        where kinds.is_integer <> own_kind.is_integer
        order by
            coalesce(fitting, 0) / greatest(kinds.layer_count, own_kind.layer_count) desc,
            jaro_winkler_similarity(models.model, $model) desc,
            models.model
        """,
        {"model_id": find_model(con, model), "model": model},
    )
    return [str(partner) for (partner,) in rows]
