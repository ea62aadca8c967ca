"""Questions about rescues of a model: what was tried, what was chosen, what was written."""

from pathlib import Path
from typing import TYPE_CHECKING

from quantstore.store import Connection

if TYPE_CHECKING:
    import pandas as pd

    from quantstore.wording.answers import StoredRescue


def rescues(con: Connection, model: str | None = None) -> "pd.DataFrame":
    """One row per rescue of a model, or of all, the latest first.

    ``before_band``, ``after_band`` and ``file_band`` are the bands of the values beside them. An
    SQNR that is NULL means that nothing is lost, unless ``failure`` says why there is none, or
    ``has_files`` that no quantized file could be made. ``is_latest``: of those for this model and
    target that made one; the view ``verdicts`` shows its ``file_db``.
    """
    return con.frame(
        """
        with own as (
            select
                rescues.*,
                -- As the view verdicts has it.
                failure is null and not is_proposal and (file_db is not null or reached)
                    as has_files
            from rescues
            where $model is null
                or model_id = (select model_id from models where model = $model)
        ),
        -- Nothing lost stands above every limit.
        lifted as (
            select
                *,
                if(failure is null, coalesce(before_db, 'infinity'), before_db) as before_or_most,
                if(failure is null, coalesce(after_db, 'infinity'), after_db) as after_or_most,
                if(has_files, coalesce(file_db, 'infinity'), file_db) as file_or_most,
                row_number() over (
                    partition by model_id, target, has_files
                    order by created_at desc, rescue_id desc
                ) as age
            from own
        )
        select
            models.model,
            lifted.* exclude (
                model_id, age, before_or_most, after_or_most, file_or_most
            ),
            before_bands.band as before_band,
            after_bands.band as after_band,
            file_bands.band as file_band,
            has_files and age = 1 as is_latest
        from lifted
        join models using (model_id)
        asof left join bands as before_bands on before_or_most >= before_bands.lower_db
        asof left join bands as after_bands on after_or_most >= after_bands.lower_db
        asof left join bands as file_bands on file_or_most >= file_bands.lower_db
        order by created_at desc, rescue_id desc
        """,
        {"model": model},
    )


def latest_rescues(con: Connection, model: str) -> "pd.DataFrame":
    """One row per target that a model was rescued for, by target, as :func:`rescues` has it.

    The latest that wrote quantized files; where none did, the latest proposal, or failure.
    """
    frame = rescues(con, model)
    best_first = frame.sort_values("is_latest", ascending=False, kind="stable")
    latest = best_first.drop_duplicates("target")
    return latest.sort_values("target", kind="stable").reset_index(drop=True)


def stored_rescues(con: Connection, model: str) -> "list[StoredRescue]":
    """The latest rescue of each target, with the name of its quantized file."""
    import pandas as pd

    from quantstore.wording.answers import StoredRescue
    from quantstore.wording.frames import rescue_record

    latest = []
    for row in latest_rescues(con, model).to_dict("records"):
        files = rescue_files(con, int(row["rescue_id"]))
        names = [Path(str(path)).name for path in files.loc[files["kind"] == "rescued", "path"]]
        latest.append(
            StoredRescue(
                rescue_id=int(row["rescue_id"]),
                record=rescue_record(row),
                band=None if pd.isna(row["file_band"]) else str(row["file_band"]),
                file_name=names[0] if names else "",
            )
        )
    return latest


def rescue_steps(con: Connection, rescue_id: int) -> "pd.DataFrame":
    """One row per step of a rescue, in their order.

    ``band`` is that of ``test_db``, which alone is of inputs that decided nothing.
    """
    return con.frame(
        """
        select rescue_steps.* exclude (rescue_id), band
        from rescue_steps
        asof left join bands on coalesce(test_db, 'infinity') >= bands.lower_db
        where rescue_id = $rescue
        order by step
        """,
        {"rescue": rescue_id},
    )


def rescue_units(con: Connection, rescue_id: int, *, only_promoted: bool = False) -> "pd.DataFrame":
    """One row per unit of a rescue: the promoted in their order, then the most sensitive first.

    ``layer``, ``operand`` and ``depth`` are those of its layer, NULL where it has none.
    """
    return con.frame(
        """
        select rescue_units.* exclude (rescue_id), layer, operand, depth, op_type
        from rescue_units
        left join layers using (layer_id)
        where rescue_id = $rescue and (rank is not null or not $only_promoted)
        order by rank nulls last, noise_to_signal desc nulls last, depth nulls last, unit, kind
        """,
        {"rescue": rescue_id, "only_promoted": only_promoted},
    )


def rescue_files(con: Connection, rescue_id: int) -> "pd.DataFrame":
    """One row per file that a rescue wrote, in the order in which they were written."""
    return con.frame(
        """
        select * exclude (rescue_id)
        from rescue_files
        where rescue_id = $rescue
        order by rowid
        """,
        {"rescue": rescue_id},
    )


def rescue_drift(con: Connection, rescue_id: int) -> "pd.DataFrame":
    """One row per node that multiplies, in the order of the network: before and after."""
    return con.frame(
        """
        select * exclude (rescue_id)
        from rescue_drift
        where rescue_id = $rescue
        order by depth
        """,
        {"rescue": rescue_id},
    )
