"""Questions that a gate asks of one model under one scheme: its layers, and its probes."""

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
class ProbeFigures:
    """The noise probe of one mode; either figure and band, or why there is none.

    ``next_limit_db`` is the lower limit of the next better band, None where there is none.
    """

    mode: str
    output_sqnr_db: float | None
    band: str | None
    failure: str | None
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


def probe_figures(con: Connection, model_id: int, scheme: str) -> list[ProbeFigures]:
    """The probe of each mode that verdicts rest on; where there is none, one that rounded nothing.

    In the order in which verdicts trust them: weights and activations before either alone.
    """
    rows = con.rows(
        """
        with own as (
            select mode, output_sqnr_db, band, failure, created_at, simulation_id
            from probes
            where model_id = $model_id and scheme = $scheme
        ),
        rounded_nothing as (
            select mode, null as output_sqnr_db, null as band, failure, created_at, simulation_id
            from simulations
            where model_id = $model_id
                and scheme = $scheme
                and input_source = 'noise'
                and list_contains($nothing_rounded, failure)
                and mode not in (select mode from own)
            qualify row_number() over (
                partition by mode
                order by created_at desc, simulation_id desc
            ) = 1
        )
        select
            mode,
            output_sqnr_db,
            band,
            failure,
            (select min(lower_db) from bands where lower_db > output_sqnr_db) as next_limit_db
        from (from own union all by name from rounded_nothing)
        order by mode = 'both' desc, created_at desc, simulation_id desc
        """,
        {"model_id": model_id, "scheme": scheme, "nothing_rounded": list(NOTHING_ROUNDED)},
    )
    return [ProbeFigures(*row) for row in rows]
