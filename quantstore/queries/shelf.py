"""Questions about the store as a shelf: what lies in it, under which labels, and how it got there.

Every answer is one page of a table, so that a thousand models cost no more than ten.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from quantstore.file_formats import why_not_run_sentence
from quantstore.store import Connection

if TYPE_CHECKING:
    import pandas as pd

# By name from A on, by everything else from the largest or latest down.
ModelOrder = Literal["name", "newest", "file size", "layers", "store share"]


def shelf(
    con: Connection,
    *,
    text: str = "",
    among: Sequence[str] | None = None,
    order: ModelOrder = "name",
    limit: int,
    offset: int = 0,
) -> "pd.DataFrame":
    """One row per model, one page of them: what it is, its labels, and what it takes of the store.

    Args:
        text: what the name, the note or the source holds, in any case; empty for every model.
        among: the only models that are meant; None for every model.

    Returns:
        ``found_count`` is how many models there are on all pages. ``store_share`` is the model's
        share, from 0 to 1, of the rows of channels, which are most of what lies on disk.
    """
    return con.frame(
        """
        with sizes as (
            select model_id, sum(channel_count) as channel_rows
            from layers
            group by model_id
        )
        select
            models.*,
            count(*) over () as found_count,
            channel_rows / (select sum(channel_rows) from sizes) as store_share
        from models
        left join sizes using (model_id)
        where ($text = '' or contains(lower(concat_ws(chr(10), model, note, source)), $text))
            and ($among is null or list_contains($among, model))
        order by
            case $order
                when 'newest' then -epoch(ingested_at)
                when 'file size' then -file_bytes
                when 'layers' then -layer_count
                when 'store share' then -channel_rows
            end,
            lower(model),
            model
        limit $limit offset $offset
        """,
        {
            "text": text.strip().lower(),
            "among": None if among is None else list(among),
            "order": order,
            "limit": limit,
            "offset": offset,
        },
    )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model was read from, and what was read; ``ingested_at`` is UTC, without a zone."""

    model: str
    source: str
    file_bytes: int
    file_format: str
    sha256: str
    folded: bool
    ingested_at: datetime
    measures_version: int
    schemes: tuple[str, ...]

    @property
    def why_not_run(self) -> str:
        """Why no target of the model can be measured, as a sentence; empty where one can."""
        return why_not_run_sentence(self.file_format)


def origins(con: Connection, models: Sequence[str] | None = None) -> list[Origin]:
    """Where each model was read from, by name; every model by default."""
    rows = con.rows(
        """
        with chosen as (
            from models where $models is null or list_contains($models, model)
        ),
        -- Every layer has a row for every scheme.
        measured as (
            select model_id, list(scheme) as schemes
            from errors
            join layers using (layer_id)
            semi join chosen using (model_id)
            where depth = 0
            group by model_id
        )
        select
            model,
            source,
            file_bytes,
            file_format,
            sha256,
            folded,
            ingested_at,
            measures_version,
            schemes
        from chosen
        left join measured using (model_id)
        order by lower(model), model
        """,
        {"models": None if models is None else list(models)},
    )
    return [Origin(*(*columns, tuple(schemes or ()))) for *columns, schemes in rows]


def model_of_content(con: Connection, sha256: str, *, folded: bool) -> str | None:
    """The model that holds this content; None where none does."""
    name: str | None = con.value(
        "select model from models where sha256 = ? and folded = ?", [sha256, folded]
    )
    return name


def file_format_of(con: Connection, sha256: str) -> str:
    """The format of the model with this content; empty where there is none."""
    return str(con.value("select max(file_format) from models where sha256 = ?", [sha256]) or "")


def tag_counts(con: Connection) -> dict[str, int]:
    """Every tag in use, in alphabetical order, and how many models have it."""
    return dict(
        con.rows(
            """
            select tag, count(*)
            from (select unnest(tags) as tag from models)
            group by tag
            order by lower(tag), tag
            """
        )
    )


def recent_ingests(con: Connection, limit: int) -> "pd.DataFrame":
    """The latest attempts to ingest a file, newest first: what became of each."""
    return con.frame(
        """
        select path, model, outcome, message, finished_at, seconds, peak_bytes
        from ingests
        order by finished_at desc, started_at desc, path
        limit ?
        """,
        [limit],
    )


def free_bytes(con: Connection) -> int:
    """Bytes of the store's file that hold nothing any more, and that new models will fill."""
    return int(con.value("select free_blocks * block_size from pragma_database_size()"))
