"""What a store holds, written into a published folder: a part with what the folder lacks.

A part is written beside the others under a temporary name and renamed when it is whole. Writers
need no lock and no catalog: each adds parts of its own, and readers take their union.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from quantstore.errors import QuantstoreError
from quantstore.store.beside import room_beside
from quantstore.store.connection import CONFIG, Connection, reading
from quantstore.store.exports import parquet_name
from quantstore.store.keys import KEY_COLUMNS
from quantstore.store.published import (
    PARTS,
    PUBLISHED_TABLES,
    VIEWS_FILE,
    create_views,
    require_plain_name,
)
from quantstore.store.schema import STORAGE_VERSION, store_facts

# Rows of these hold kilobytes each: groups of rows are cut so that a reader can hold one.
_ROWS_IN_A_GROUP = {"histograms": 2048, "activation_errors": 8192, "simulation_answers": 2048}
_MOST_ROWS_IN_A_GROUP = 122_880

# What is known of a model changes: its labels, its findings, its probe, its sensitivities.
_DIGESTS = """
    select
        models.model_id,
        sha256(concat_ws(
            chr(10),
            models::varchar,
            (
                select string_agg(rows::varchar, chr(10) order by rows::varchar)
                from findings as rows where rows.model_id = models.model_id
            ),
            (
                select string_agg(rows::varchar, chr(10) order by rows::varchar)
                from sensitivities as rows where rows.model_id = models.model_id
            ),
            (
                select string_agg(rows::varchar, chr(10) order by rows::varchar)
                from simulations as rows
                where rows.model_id = models.model_id and input_source = 'noise'
            )
        )) as digest
    from models
"""


@dataclass(frozen=True, slots=True)
class PublishSummary:
    """What a part holds that was published: ``part`` is None where the folder held everything."""

    part: Path | None
    models: int
    runs: int
    file_bytes: int


def publish(path: Path, folder: Path) -> PublishSummary:
    """Add to a folder, as one part, whatever the store at ``path`` holds and the folder does not.

    A model is written again, whole, when something about it has changed; the latest counts. What
    was removed from the store stays in the folder.

    Raises:
        StoreError: the store cannot be read.
        QuantstoreError: the folder holds something else, is of another release, or cannot be
            written.
    """
    folder = folder.resolve()
    try:
        _prepare(folder)
        with reading(path) as connection:
            chosen = _choose(connection, folder)
            if not any(chosen.values()):
                return PublishSummary(None, 0, 0, 0)
            now = datetime.now(UTC)
            part = folder / f"part={now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"
            with room_beside(part) as room:
                fresh = room / part.name
                fresh.mkdir()
                _write(connection, fresh, now.replace(tzinfo=None))
                size = sum(file.stat().st_size for file in fresh.iterdir())
                fresh.rename(part)
    except (OSError, duckdb.IOException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise QuantstoreError(
            f"{folder} cannot be written: {reason}",
            "name a folder that you may write to, on a disk with space",
        ) from error
    runs = sum(chosen[table] for table in ("simulations", "rescues", "audits"))
    return PublishSummary(part, chosen["models"], runs, size)


def _prepare(folder: Path) -> None:
    """Make the folder and its file of views, or see that it is one of this release."""
    require_plain_name(folder)
    folder.mkdir(parents=True, exist_ok=True)
    views = folder / VIEWS_FILE
    if not views.exists():
        if any(not entry.name.startswith((".", "part=")) for entry in folder.iterdir()):
            raise QuantstoreError(
                f"{folder} contains files that are not part of a published folder",
                "name another folder",
            )
        with room_beside(views) as room:
            fresh = room / VIEWS_FILE
            with duckdb.connect(
                fresh, config=CONFIG | {"storage_compatibility_version": STORAGE_VERSION}
            ) as connection:
                _write_empty_part(folder)
                create_views(connection, folder)
            fresh.replace(views)
    with duckdb.connect(views, read_only=True, config=dict(CONFIG)) as connection:
        facts = dict(connection.execute("from store_info").fetchall())
    if {name: facts.get(name) for name in store_facts()} != store_facts():
        raise QuantstoreError(
            f"{folder} was published by another release (schema {facts.get('schema_version')})",
            "publish into a new folder",
        )


def _write_empty_part(folder: Path) -> None:
    """A part without rows, so that the views find a file of every table."""
    from quantstore.store.schema import create_schema

    part = folder / "part=0"
    if part.exists():
        return
    with duckdb.connect(":memory:") as connection, room_beside(part) as room:
        create_schema(connection)
        _create_chosen(Connection(connection))
        fresh = room / part.name
        fresh.mkdir()
        _write(Connection(connection), fresh, datetime(1970, 1, 1))
        # Another writer may have come first.
        if not part.exists():
            fresh.rename(part)


def _create_chosen(connection: Connection) -> None:
    for table in (*_PARENTS, "layers"):
        column = KEY_COLUMNS[table]
        connection.rows(f"create temp table chosen_{table} ({column} bigint)")
    connection.rows("create temp table digests (model_id bigint, digest varchar)")


_PARENTS = ("models", "simulations", "rescues", "audits", "ingests")


def _choose(connection: Connection, folder: Path) -> dict[str, int]:
    """The keys of what the folder lacks, in ``chosen_<table>``; how many there are, by table."""
    duck = connection._connection
    _create_chosen(connection)
    statement = f"insert into digests {_DIGESTS}"
    connection.rows(statement)
    with duckdb.connect(":memory:", config=dict(CONFIG)) as published:
        for table in _PARENTS:
            columns = "model_id, digest" if table == "models" else KEY_COLUMNS[table]
            files = f"{folder}/{PARTS}/{parquet_name(table)}"
            statement = f"select distinct {columns} from read_parquet(?)"
            keys = published.sql(statement, params=[files]).to_arrow_table()
            duck.register(f"published_{table}", keys)
    connection.rows(
        "insert into chosen_models select model_id from digests"
        " anti join published_models using (model_id, digest)"
    )
    connection.rows(
        "insert into chosen_layers select layer_id from layers semi join chosen_models"
        " using (model_id)"
    )
    for table in _PARENTS[1:]:
        column = KEY_COLUMNS[table]
        condition = "input_source <> 'noise'" if table == "simulations" else "true"
        connection.rows(
            f"insert into chosen_{table} select {column} from main.{table}"
            f" anti join published_{table} using ({column}) where {condition}"
        )
    # The probe goes with its model.
    connection.rows(
        "insert into chosen_simulations select simulation_id from simulations"
        " semi join chosen_models using (model_id) where input_source = 'noise'"
    )
    return {
        table: int(connection.value(f"select count(*) from chosen_{table}")) for table in _PARENTS
    }


def _write(connection: Connection, part: Path, published_at: datetime) -> None:
    """Write the chosen rows of every table, in the order of their keys."""
    for table in PUBLISHED_TABLES:
        leading, parent = next(iter(table.pointers().items()))
        order = ", ".join(table.keys[0]) if table.keys else leading
        columns, joined = "rows.*", ""
        if table.name == "models":
            columns = f"rows.*, digest, timestamp '{published_at}' as published_at"
            joined = "join digests using (model_id)"
        statement = (
            f"select {columns} from main.{table.name} as rows {joined} where rows.{leading} in"
            f" (select {leading} from chosen_{parent}) order by {order}"
        )
        connection._connection.sql(statement).write_parquet(
            str(part / parquet_name(table.name)),
            compression="zstd",
            row_group_size=_ROWS_IN_A_GROUP.get(table.name, _MOST_ROWS_IN_A_GROUP),
        )
