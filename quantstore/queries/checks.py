"""Questions that a gate asks of one model: its layers, and what its weights alone lose."""

from dataclasses import dataclass

from quantstore.records import NOTHING_ROUNDED
from quantstore.store import Connection


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """What a layer is judged by. ``p10_db`` is infinite where the weights come back exactly."""

    layer: str
    operand: str
    op_family: str
    shape: tuple[int, ...]
    channel_count: int
    already_quantized: bool
    band: str
    p10_db: float
    channels_below_10db: int


@dataclass(frozen=True, slots=True)
class WeightsAlone:
    """What the outputs reach where only the weights are rounded; None where nothing is lost."""

    output_sqnr_db: float | None
    band: str
    evidence: str
    sample_count: int
    next_limit_db: float | None = None


def layer_figures(con: Connection, model_id: int, scheme: str) -> list[LayerFigures]:
    """Every layer of a model under one scheme, in graph order."""
    rows = con.rows(
        """
        select
            layer,
            operand,
            op_family,
            shape,
            channel_count,
            already_quantized,
            band,
            coalesce(channel_sqnr_p10_db, 'infinity'),
            channels_below_10db
        from errors
        join layers using (layer_id)
        asof join bands on coalesce(channel_sqnr_p10_db, 'infinity') >= bands.lower_db
        where model_id = $model_id and scheme = $scheme
        order by depth
        """,
        {"model_id": model_id, "scheme": scheme},
    )
    return [
        LayerFigures(layer, operand, op_family, tuple(shape), *figures)
        for layer, operand, op_family, shape, *figures in rows
    ]


def weights_alone(con: Connection, model_id: int, scheme: str) -> WeightsAlone | None:
    """The latest run of the weights alone: on inputs of one's own, else on noise."""
    rows = con.rows(
        """
        with figures as (
            select
                case when starts_with(input_source, 'noise') then 'probe' else 'run' end
                    as evidence,
                case when failure is null then coalesce(deciding_sqnr_db, output_sqnr_db) end
                    as sqnr_db,
                sample_count,
                created_at,
                simulation_id
            from simulations
            where model_id = $model_id
                and scheme = $scheme
                and mode = 'weights'
                and (
                    coalesce(deciding_sqnr_db, output_sqnr_db) is not null
                    or list_contains($nothing_rounded, failure)
                )
        )
        select
            sqnr_db,
            band,
            evidence,
            sample_count,
            (select min(lower_db) from bands where lower_db > sqnr_db) as next_limit_db
        from figures
        asof join bands on coalesce(sqnr_db, 'infinity') >= bands.lower_db
        order by evidence = 'run' desc, created_at desc, simulation_id desc
        limit 1
        """,
        {"model_id": model_id, "scheme": scheme, "nothing_rounded": list(NOTHING_ROUNDED)},
    )
    return WeightsAlone(*rows[0]) if rows else None
