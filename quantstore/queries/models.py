"""Questions about models: what there is, how they compare, what is known about one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantstore.numerics.measures import MEASURES
from quantstore.schemes import TARGETS
from quantstore.store import Connection
from quantstore.wording.verdicts import OWN_GRID_DB, ModelFacts

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class StoreSize:
    """What the store holds."""

    models: int
    layers: int


def store_size(con: Connection) -> StoreSize:
    """Models and layers in the store."""
    (row,) = con.rows("select count(*), coalesce(sum(layer_count), 0) from models")
    return StoreSize(*row)


def model_names(con: Connection) -> list[str]:
    """Every model, in alphabetical order."""
    rows = con.rows("select model from models order by lower(model), model")
    return [model for (model,) in rows]


def models(con: Connection) -> "pd.DataFrame":
    """One row per model: where it comes from and how its weights spread."""
    return con.frame("from model_summary order by lower(model), model")


def verdicts(
    con: Connection, models: list[str] | None = None, target: str | None = None
) -> "pd.DataFrame":
    """One row per model and target, with the size of the model; every model by default.

    ``next_limit_db`` is the limit of the bands that the SQNR at the outputs stays below.

    Args:
        target: this one only.
    """
    return con.frame(*_verdicts(con, models, target))


def _verdicts(
    con: Connection, models: list[str] | None, target: str | None = None
) -> tuple[str, dict[str, object]]:
    """The statement behind :func:`verdicts`, with its parameters."""
    ids = [
        model_id
        for (model_id,) in con.rows(
            "select model_id from models where $models is null or list_contains($models, model)",
            {"models": models},
        )
    ]
    return (
        """
        -- Both views answer for a few models at once; joined first, they would for all. DuckDB
        -- carries the limits of a key into every part of a view, a list of keys into some.
        with judged as (
            from verdicts
            where model_id between $first and $last
                and list_contains($ids, model_id)
                and ($target is null or target = $target)
        ),
        summaries as (
            from model_summary
            where model_id between $first and $last and list_contains($ids, model_id)
        ),
        audited as (
            select distinct on (int8.model)
                int8.model,
                audits.grid_db as audited_db,
                coalesce(floats.model, audits.float_file) as audited_against
            from audits
            join models as int8 on int8.model_id = audits.int8_model_id
            left join models as floats on floats.model_id = audits.float_model_id
            where audits.failure is null and audits.sample_count > 0
                and list_contains($ids, audits.int8_model_id)
            order by audits.created_at desc, audits.audit_id desc
        )
        select judged.*, audited_against, audited_db, audited_bands.band as audited_band,
            folded, layer_count, weight_count, file_bytes, layers_already_quantized,
            max_weight_range, median_weight_range, channel_spread_p90_bits,
            (select min(lower_db) from bands where lower_db > output_sqnr_db) as next_limit_db
        from judged
        join summaries using (model)
        left join audited using (model)
        asof left join bands as audited_bands
            on if(audited_against is null, null, coalesce(audited_db, 'infinity'))
                >= audited_bands.lower_db
        order by lower(model), model, list_position($targets, judged.target)
        """,
        {
            "ids": ids,
            "first": min(ids, default=None),
            "last": max(ids, default=None),
            "target": target,
            "targets": list(TARGETS),
        },
    )


def model_facts(row: Mapping[Any, Any]) -> ModelFacts:
    """What words need of a row of ``verdicts``."""
    import pandas as pd

    return _facts(row, pd.isna)


def verdict_facts(con: Connection, models: list[str]) -> list[ModelFacts]:
    """What words need of the verdicts on models, one per target, without loading pandas."""
    rows = con.records(*_verdicts(con, models))
    return [_facts(row, lambda value: value is None) for row in rows]


def _facts(row: Mapping[Any, Any], is_missing: Callable[[Any], bool]) -> ModelFacts:
    def value_of(column: str) -> Any:
        return None if is_missing(row[column]) else row[column]

    sample_count = value_of("sample_count")
    bands = ("broken", "at_risk", "watch", "fine")
    return ModelFacts(
        verdict=str(row["verdict"]),
        evidence=str(row["evidence"]),
        mode=str(row["mode"]),
        output_sqnr_db=value_of("output_sqnr_db"),
        layers_broken=int(row["layers_broken"]),
        layers_at_risk=int(row["layers_at_risk"]),
        layer_count=sum(int(row[f"layers_{band}"]) for band in bands),
        target=str(row["target"]),
        model=str(row["model"]),
        is_measured=bool(row["is_measured"]),
        is_already_quantized=bool(row["layers_already_quantized"]),
        # NULL: no error at all.
        are_layers_exact=(value_of("worst_channel_sqnr_p10_db") or math.inf) > OWN_GRID_DB,
        next_limit_db=value_of("next_limit_db"),
        reason=value_of("reason"),
        sample_count=None if sample_count is None else int(sample_count),
        worst_output=value_of("worst_output"),
        decision_f1=value_of("decision_f1"),
        provisional=value_of("provisional"),
        rescued_db=value_of("rescued_db"),
        audited_against=value_of("audited_against"),
        audited_db=value_of("audited_db"),
        audited_band=value_of("audited_band"),
    )


def layers_by_band(row: Mapping[Any, Any]) -> dict[str, int]:
    """How many layers of a row of ``verdicts`` are in each band, worst first."""
    bands = (state for state in WORST_FIRST if f"layers_{state.replace(' ', '_')}" in row)
    return {band: int(row[f"layers_{band.replace(' ', '_')}"]) for band in bands}


def ranked(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of :func:`verdicts` under one target, the worst model first.

    Worst is the worst verdict, untested after all that are known; then the lowest SQNR at the
    outputs; where a model was not run, the largest share of layers that is broken, then at risk,
    then to watch.
    """
    if frame.empty:
        return frame
    layers = frame[["layers_broken", "layers_at_risk", "layers_watch", "layers_fine"]].sum(axis=1)
    import pandas as pd

    order = pd.DataFrame(
        {
            "state": frame["verdict"].map(WORST_FIRST.index),
            "db": frame["output_sqnr_db"].fillna(math.inf),
            **{
                band: -frame[f"layers_{band}"] / layers.clip(lower=1)
                for band in ("broken", "at_risk", "watch")
            },
        }
    )
    worst_first = order.sort_values(list(order.columns), kind="stable").index
    return frame.loc[worst_first].reset_index(drop=True)


def shown_targets(verdicts: "pd.DataFrame", chosen: str) -> list[str]:
    """The targets that a table of verdicts has columns for, in the order of ``TARGETS``.

    Those that every ingest measures, those that somebody measured, and the chosen one.
    """
    measured = set(verdicts.loc[verdicts["is_measured"], "target"])
    return [
        name
        for name, target in TARGETS.items()
        if target.is_default or name in measured or name == chosen
    ]


WORST_FIRST = ["broken", "at risk", "watch", "fine", "untested"]


def rank_of_models(con: Connection, target: str, models: list[str] | None = None) -> list[str]:
    """Models, worst first: by verdict, then by SQNR at the outputs."""
    return [str(model) for model in ranked(verdicts(con, models, target))["model"]]


def layer_profiles(con: Connection, models: list[str], scheme: str) -> "pd.DataFrame":
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


def model_equalization(con: Connection, model: str, scheme: str) -> "pd.DataFrame":
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


def model_findings(con: Connection, model: str) -> "pd.DataFrame":
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


def sources(con: Connection) -> "pd.DataFrame":
    """One row per model: where its file was read from, its format and content, by name."""
    return con.frame(
        "select model, source, file_format, sha256, folded from models order by lower(model), model"
    )


def band_limits(con: Connection) -> dict[str, float]:
    """The lower limit of each band in dB, best band first."""
    return dict(con.rows("select band, lower_db from bands order by lower_db desc"))


def schema(con: Connection) -> "pd.DataFrame":
    """One row per column of every view and table, views first, with types and comments."""
    return con.frame(
        """
        with things as (
            select schema_name, view_name as thing, comment as meaning, true as is_view
            from duckdb_views()
            where not internal
            union all
            select schema_name, table_name, comment, false
            from duckdb_tables()
            where not internal
        )
        select thing, is_view, meaning, column_name, data_type, columns.comment
        from things
        join duckdb_columns() as columns
            on columns.table_name = thing and columns.schema_name = things.schema_name
        where not columns.internal
            -- Of a published folder: what its tables are put together from.
            and things.schema_name not in ('parts', 'declared')
        order by is_view desc, thing, column_index
        """
    )
