"""Questions that a gate asks of one model under one scheme: its layers, and its probes."""

from dataclasses import dataclass

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
    """The latest noise probe of one mode; either figure and band, or why there is none.

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
    """The latest probe of each mode, one with a figure before one without.

    In the order in which verdicts trust them: weights and activations before either alone.
    """
    rows = con.rows(
        """
        with latest as (
            select mode, output_sqnr_db, failure, created_at, simulation_id
            from simulations
            where model_id = $model_id and scheme = $scheme and input_source = 'noise'
            qualify row_number() over (
                partition by mode
                order by output_sqnr_db is null, created_at desc, simulation_id desc
            ) = 1
        )
        select
            mode,
            output_sqnr_db,
            band,
            failure,
            (select min(lower_db) from bands where lower_db > output_sqnr_db) as next_limit_db
        from latest
        asof left join bands on output_sqnr_db >= bands.lower_db
        order by mode = 'both' desc, created_at desc, simulation_id desc
        """,
        {"model_id": model_id, "scheme": scheme},
    )
    return [ProbeFigures(*row) for row in rows]
