"""What a store holds, written into a published folder: a part with what the folder lacks.

A part is written beside the others under a temporary name and renamed when it is whole. Writers
need no lock and no catalog: each adds parts of its own, and readers take their union.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from quantstore.errors import QuantstoreError
from quantstore.store.beside import room_beside
from quantstore.store.connection import CONFIG, Connection, reading
from quantstore.store.keys import KEY_COLUMNS
from quantstore.store.parts import (
    DIGESTS,
    PREFIX,
    PUBLISHED_TABLES,
    PublishedPart,
    listing,
    put_in_place,
)
from quantstore.store.published import (
    PUBLISHED_AT,
    VIEWS_FILE,
    choose_parts,
    create_views,
    declare_tables,
    list_parts,
    live_parts,
    require_plain_name,
)
from quantstore.store.schema import STORAGE_VERSION, create_schema
from quantstore.store.tables import Table, parquet_name

logger = logging.getLogger(__name__)

# Parts grow under such names, whoever writes them: what a killed writer left is removed in the end.
ROOM = "part"

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
    part = None
    with writing_into(folder):
        _prepare(folder)
    # What cannot be written is a matter of the folder, what cannot be read one of the store.
    with reading(path) as connection, writing_into(folder):
        chosen = _choose(connection, live_parts(folder))
        if any(chosen.values()):
            part = _add_part(connection, folder, datetime.now(UTC))
    with writing_into(folder):
        renew_views(folder)
    if part is None:
        return PublishSummary(None, 0, 0, 0)
    runs = sum(chosen[table] for table in ("simulations", "rescues", "audits"))
    return PublishSummary(part.path, chosen["models"], runs, part.file_bytes())


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Say in a sentence why a published folder cannot be written."""
    try:
        yield
    except (OSError, duckdb.IOException, duckdb.TransactionException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise QuantstoreError(
            f"{folder} cannot be written: {reason}",
            "name a folder that you may write to, on a disk with space",
        ) from error


def _prepare(folder: Path) -> None:
    """Make the folder with an empty part, or see that it is a published one."""
    require_plain_name(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = {entry.name for entry in folder.iterdir()}
    if VIEWS_FILE not in names and not all(name.startswith((".", PREFIX)) for name in names):
        raise QuantstoreError(
            f"{folder} contains files that are not part of a published folder",
            "name another folder",
        )
    if not listing(folder).live:
        # A part without rows: what reads the folder needs a file of every table.
        with duckdb.connect(":memory:") as connection:
            create_schema(connection)
            _create_chosen(Connection(connection))
            _add_part(Connection(connection), folder, datetime.fromtimestamp(0, UTC))


def renew_views(folder: Path) -> None:
    """Write the file of views anew: over the parts that count now, as this release has them.

    Two writers may do so at once. Each looks again right before its file takes the place of the
    other's, so that no part goes away, and right after, so that the last one leaves what is true.
    """
    views = folder / VIEWS_FILE
    live = live_parts(folder)
    with room_beside(views) as room:
        fresh, spare = room / VIEWS_FILE, room / "spare.duckdb"
        config = CONFIG | {"storage_compatibility_version": STORAGE_VERSION}
        with duckdb.connect(spare, config=config) as connection:
            declare_tables(connection)
            choose_parts(connection, live)
            create_views(connection, _listed(live))
        is_in_place = False
        while not is_in_place or live != live_parts(folder):
            live = live_parts(folder)
            with duckdb.connect(spare, config=config) as connection:
                list_parts(connection, _listed(live))
            shutil.copyfile(spare, fresh)
            if live != live_parts(folder):
                continue
            try:
                fresh.replace(views)
            except PermissionError as error:
                # Nobody needs it to read the folder with quantstore, and the part is in place.
                logger.warning("%s was not renewed: %s", views, error.strerror)
                return
            is_in_place = True


def _listed(live: Sequence[PublishedPart]) -> str:
    listed = ", ".join(_literal(str(part.path)) for part in live)
    return f"[{listed}]"


def _create_chosen(connection: Connection) -> None:
    for table in (*_PARENTS, "layers"):
        column = KEY_COLUMNS[table]
        connection.rows(f"create temp table chosen_{table} ({column} bigint)")
    connection.rows("create temp table digests (model_id bigint, digest varchar)")


_PARENTS = ("models", "simulations", "rescues", "audits", "ingests")


def _choose(connection: Connection, live: tuple[PublishedPart, ...]) -> dict[str, int]:
    """The keys of what the parts lack, in ``chosen_<table>``; how many there are, by table."""
    duck = connection._connection
    _create_chosen(connection)
    statement = f"insert into digests {_DIGESTS}"
    connection.rows(statement)
    with duckdb.connect(":memory:", config=dict(CONFIG)) as published:
        for table in _PARENTS:
            of_models = table == "models"
            columns = "model_id, digest" if of_models else KEY_COLUMNS[table]
            files = [str(part.file(DIGESTS if of_models else table)) for part in live]
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


def _add_part(connection: Connection, folder: Path, published_at: datetime) -> PublishedPart:
    """Write the chosen rows as a part."""
    moment = published_at.replace(tzinfo=None)
    sources = {table.name: _chosen_rows(table, moment) for table in PUBLISHED_TABLES}
    sources[DIGESTS] = "from digests semi join chosen_models using (model_id)"
    return write_part(connection._connection, folder, sources)


def _chosen_rows(table: Table, published_at: datetime) -> str:
    leading, parent = next(iter(table.pointers().items()))
    columns = f", timestamp '{published_at}' as {PUBLISHED_AT}" if table.name == "models" else ""
    return (
        f"select *{columns} from main.{table.name}"
        f" where {leading} in (select {leading} from chosen_{parent})"
    )


def write_part(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    sources: Mapping[str, str],
    replaces: frozenset[str] = frozenset(),
) -> PublishedPart:
    """Write one file per table, in the order of keys, and put the part in its place.

    Args:
        sources: a query for the rows of each file.
        replaces: names of the parts whose rows are all among these.
    """
    with room_beside(folder / ROOM) as room:
        fresh = room / ROOM
        fresh.mkdir()
        for name, query in sources.items():
            rows = connection.sql(query)
            rows.order(", ".join(_order(name, rows))).write_parquet(
                str(fresh / parquet_name(name)),
                compression="zstd",
                row_group_size=_ROWS_IN_A_GROUP.get(name, _MOST_ROWS_IN_A_GROUP),
            )
        content = _content_of(connection, fresh)
        return put_in_place(fresh, folder, content, replaces)


def _order(name: str, rows: duckdb.DuckDBPyRelation) -> list[str]:
    """The columns that rows are sorted by: the same rows give the same file."""
    table = _TABLES.get(name)
    if table is not None and table.keys:
        return list(table.keys[0])
    leading = [] if table is None else [next(iter(table.pointers()))]
    columns = zip(rows.columns, rows.types, strict=True)
    return [*leading, *(f'"{column}"' for column, data_type in columns if data_type.id != "list")]


_TABLES = {table.name: table for table in PUBLISHED_TABLES}


def _content_of(connection: duckdb.DuckDBPyConnection, part: Path) -> str:
    """A digest of what a part holds: every model in its state, and every run."""
    columns = {DIGESTS: "model_id, digest"} | {table: KEY_COLUMNS[table] for table in _PARENTS[1:]}
    files = {table: str(part / parquet_name(table)) for table in columns}
    lines = " union all ".join(
        f"select concat_ws(' ', '{table}', {columns[table]}) as line from read_parquet(${table})"
        for table in files
    )
    statement = (
        f"select sha256(coalesce(string_agg(line, chr(10) order by line), '')) from ({lines})"
    )
    ((content,),) = connection.execute(statement, files).fetchall()
    return str(content)


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'"
