"""Questions about audits: what an int8 file keeps of its float file, layer by layer."""

import pandas as pd

from quantstore.store import Connection


def audits(con: Connection, model: str | None = None) -> pd.DataFrame:
    """One row per audit, the latest first: of an int8 model, of a float one, or of all.

    ``float_model`` is NULL where the store does not hold the float file. ``band``: of ``grid_db``.
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
            on if(audits.failure is null, coalesce(audits.grid_db, 'infinity'), null)
                >= bands.lower_db
        where $model is null or int8.model = $model or floats.model = $model
        order by audits.created_at desc, audits.audit_id desc
        """,
        {"model": model},
    )


def audit_layers(con: Connection, audit_id: int) -> pd.DataFrame:
    """One row per layer of the int8 file: the largest gain first, then the worst weights."""
    return con.frame(
        """
        select
            coalesce(int8.layer, floats.layer) as layer,
            floats.layer as float_layer,
            int8.op_type,
            int8.depth as int8_depth,
            floats.depth as float_depth,
            audit_layers.* exclude (audit_id, int8_layer_id, float_layer_id),
            audit_layers.int8_layer_id as layer_id
        from audit_layers
        left join layers as int8 on int8.layer_id = audit_layers.int8_layer_id
        left join layers as floats on floats.layer_id = audit_layers.float_layer_id
        where audit_id = ?
        order by released_gain_db desc nulls last, stored_p10_db nulls last, int8.depth
        """,
        [audit_id],
    )


def audit_tensors(con: Connection, audit_id: int) -> pd.DataFrame:
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


def audit_outputs(con: Connection, audit_id: int) -> pd.DataFrame:
    """One row per output and part, the worst that decides first."""
    return con.frame(
        """
        from audit_outputs select * exclude (audit_id)
        where audit_id = ?
        order by decides desc, grid_db nulls last, output, part
        """,
        [audit_id],
    )
