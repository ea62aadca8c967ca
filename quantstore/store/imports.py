"""What another store or an export holds, taken over into ours.

Whatever comes in was written by somebody else: it is checked whole, in a database of its own that
reaches no file, before our store is opened. There is one way in, the Parquet files of an export:
a foreign DuckDB file is exported first, from its base tables only, so that no view, macro or
generated column of it ever runs.
"""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from quantstore.answers import LONGEST_ANSWER_BYTES
from quantstore.errors import DamagedStoreError, RefusedImportError
from quantstore.numerics.measures import lacking
from quantstore.schemes import RUN_SCHEMES, TARGETS
from quantstore.store.connection import SANDBOX, Connection, together, writing
from quantstore.store.exports import (
    MANIFEST,
    file_names,
    read_manifest,
    write_tables,
)
from quantstore.store.keys import KEY_COLUMNS
from quantstore.store.labelling import Labels, labels
from quantstore.store.models import free_name, remove_model
from quantstore.store.rows import may_be_infinite
from quantstore.store.schema import SCHEMA_VERSION, create_schema
from quantstore.store.tables import ALL_TABLES, INGESTS, OF_MODELS, Table, parquet_name
from quantstore.store.totals import add_totals
from quantstore.version import __version__

if TYPE_CHECKING:
    from pyarrow import dataset

# The other tables of a store describe our release, not the models.
INCOMING = (*OF_MODELS, INGESTS)

# Parquet is compressed: a zip that packs it a hundred times smaller holds something else.
_LARGEST_PACKING = 100


@dataclass(slots=True)
class MergeSummary:
    """What became of the models of an import, by the names that they have in our store now.

    ``renamed`` holds the name over there and the name here. ``replaced`` holds the names of the
    models that had to go. ``runs`` counts runs, rescues and audits that were taken over for models
    that were here already.
    """

    added: list[str] = field(default_factory=list)
    already_stored: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    runs: int = 0
    ingests: int = 0


def merge(path: Path, source: Path, *, replace: bool = False) -> MergeSummary:
    """Take over every model and run of ``source`` that the store at ``path`` does not hold.

    A model is the same where its content and folding are, and so is its key. One whose name belongs
    to other content here is called ``name-<first 8 of sha256>``. Everything happens in one
    transaction.

    Args:
        source: a folder that :func:`quantstore.store.export` wrote, a zip file of one, or the
            DuckDB file of another store.
        replace: take the incoming model where content or name is here already.

    Raises:
        StoreError: our store cannot be opened or written.
        RefusedImportError: ``source`` is no store or export of this schema, or contradicts itself.
            Nothing is changed.
    """
    with _as_export(path, source) as folder:
        _check_manifest(folder, source)
        datasets = _datasets(folder, source)
        _check_measures(datasets, source)
        _check_rows(datasets, folder, source)
        try:
            with writing(path) as connection:
                for table, dataset in datasets.items():
                    connection._connection.register(f"incoming_{table}", dataset)
                return _Merge(connection, replace=replace).run()
        except (duckdb.InvalidInputException, duckdb.ConstraintException) as error:
            raise _refused(source, f"its rows cannot be stored: {_first_line(error)}") from error


# From whatever was named to a folder of Parquet files.


@contextmanager
def _as_export(path: Path, source: Path) -> Iterator[Path]:
    """The folder of an export that holds what ``source`` does."""
    if not source.exists():
        raise RefusedImportError(f"{source} does not exist", "check the path")
    if source.is_dir():
        yield source
        return
    if path.exists() and path.samefile(source):
        raise RefusedImportError(
            f"{source} is the store itself", "name another store, or an export"
        )
    with tempfile.TemporaryDirectory(prefix="quantstore-import-") as scratch:
        folder = Path(scratch)
        if zipfile.is_zipfile(source):
            _unpack(source, folder)
        else:
            _export_foreign(source, folder)
        yield folder


def _unpack(source: Path, folder: Path) -> None:
    """Unpack the files of an export, and nothing else that a zip file holds."""
    try:
        with zipfile.ZipFile(source) as archive:
            members = {Path(info.filename).name: info for info in archive.infolist()}
            export_members = [members[name] for name in file_names() if name in members]
            if (
                sum(info.file_size for info in export_members)
                > _LARGEST_PACKING * source.stat().st_size
            ):
                raise _refused(source, "it unpacks to more data than any export")
            for info in export_members:
                # By its own bare name: a path in the archive leads nowhere else.
                (folder / Path(info.filename).name).write_bytes(archive.read(info))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise _refused(source, f"the zip file cannot be unpacked: {error}") from error


def _export_foreign(source: Path, folder: Path) -> None:
    """Export a DuckDB file of somebody else, opened where it reaches nothing but itself."""
    try:
        with together(source, config=SANDBOX) as connection:
            _require_base_tables(connection, source)
            write_tables(Connection(connection), folder)
    except DamagedStoreError as error:
        raise RefusedImportError(str(error), RefusedImportError.hint) from error
    except (duckdb.Error, OSError, ValueError) as error:
        # What goes wrong while rows are read comes through Arrow.
        raise _refused(source, f"it cannot be read: {_first_line(error)}") from error


def _require_base_tables(connection: duckdb.DuckDBPyConnection, source: Path) -> None:
    """Refuse a file in which one of our tables is a view, or computes while it is read."""
    # In full: a macro over there may bear the name of any function.
    tables = {
        name: sql
        for schema, name, is_internal, sql in connection.execute(
            "select schema_name, table_name, internal, sql from system.main.duckdb_tables()"
        ).fetchall()
        if schema == "main" and not is_internal
    }
    missing = [table for table in ALL_TABLES if table not in tables]
    if missing == list(ALL_TABLES):
        raise _refused(source, "it is a DuckDB database, but not a quantstore")
    # An older store lacks tables, too, and deserves a better sentence.
    if "store_info" in tables and "generated always" not in tables["store_info"].lower():
        _check_version(_foreign_version(connection), source)
    if missing:
        raise _refused(source, f"it has no table {missing[0]}")
    for table in ALL_TABLES:
        if "generated always" in tables[table].lower():
            raise _refused(source, f"its table {table} computes a column while it is read")


def _foreign_version(connection: duckdb.DuckDBPyConnection) -> object:
    rows = connection.execute(
        "select value from main.store_info where key = 'schema_version' limit 1"
    ).fetchall()
    return rows[0][0] if rows else None


def _check_version(version: object, source: Path) -> None:
    text = str(version)
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise _refused(source, "its schema version is missing")
    if int(text) > SCHEMA_VERSION:
        raise RefusedImportError(
            f"{source} has schema {text}, quantstore {__version__} knows {SCHEMA_VERSION}",
            "upgrade quantstore",
        )
    if int(text) < SCHEMA_VERSION:
        raise RefusedImportError(
            f"{source} has schema {text}, older than {SCHEMA_VERSION}, which"
            f" quantstore {__version__} reads",
            _HINT_TO_UPDATE,
        )


_HINT_TO_UPDATE = "update that store with: quantstore migrate; then import it, or export it again"


# Whether what is in the folder may come in.

IS_NO_EXPORT = "is not an export of a store"


def _check_manifest(folder: Path, source: Path) -> None:
    """Refuse a folder that is no export, or one of another schema."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise RefusedImportError(
            f"{source} {IS_NO_EXPORT}: it lacks a {MANIFEST} of quantstore",
            "name a folder that quantstore export wrote, its zip file, or a DuckDB file",
        )
    _check_version(manifest.get("schema_version"), source)


def _datasets(folder: Path, source: Path) -> "dict[str, dataset.Dataset]":
    """The incoming tables, unread."""
    import pyarrow as pa
    from pyarrow import dataset

    datasets = {}
    for table in INCOMING:
        file = folder / parquet_name(table.name)
        if not file.is_file():
            raise _refused(source, f"it has no file {file.name}")
        try:
            # Named as Parquet and without partitioning: the path itself means nothing.
            datasets[table.name] = dataset.dataset(file, format="parquet", partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise _refused(source, f"{file.name} is not a Parquet file") from error
    return datasets


def _check_measures(datasets: "dict[str, dataset.Dataset]", source: Path) -> None:
    """Refuse layers of a release that measured less."""
    names = lacking(datasets["layers"].schema.names)
    if names:
        raise RefusedImportError(
            f"{source} was written by an earlier release, which did not measure {', '.join(names)}",
            _HINT_TO_UPDATE,
        )


def _check_rows(datasets: "dict[str, dataset.Dataset]", folder: Path, source: Path) -> None:
    """Refuse rows that our tables could not hold, or that do not hold together."""
    import pyarrow as pa

    with _scratch() as duck:
        for name, rows in datasets.items():
            duck.register(f"incoming_{name}", rows)
        try:
            for problem in _problems(duck, folder):
                raise _refused(source, problem)
            _check_text(datasets, source)
        except duckdb.OutOfMemoryException as error:
            raise _refused(source, "it is too large for the memory of this computer") from error
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise _refused(source, f"its rows cannot be read: {_first_line(error)}") from error


def _check_text(datasets: "dict[str, dataset.Dataset]", source: Path) -> None:
    """Refuse text that is not UTF-8: DuckDB takes it from Arrow unseen, and nobody can show it."""
    import pyarrow as pa

    for table, rows in datasets.items():
        columns = [field.name for field in rows.schema if not pa.types.is_primitive(field.type)]
        for batch in rows.to_batches(columns=columns):
            try:
                batch.validate(full=True)
            except pa.ArrowInvalid as error:
                raise _refused(
                    source, f"{parquet_name(table)} contains text that is not valid"
                ) from error


@contextmanager
def _scratch() -> "Iterator[duckdb.DuckDBPyConnection]":
    """A database in memory that reaches no file, but has room to sort."""
    with tempfile.TemporaryDirectory(prefix="quantstore-import-") as spill:
        duck = duckdb.connect(":memory:", config=SANDBOX | {"temp_directory": spill})
        try:
            yield duck
        finally:
            duck.close()


@cache
def _columns() -> dict[str, dict[str, tuple[str, bool]]]:
    """Type of each column of our tables, and whether it may be NULL, as the schema has them."""
    columns: dict[str, dict[str, tuple[str, bool]]] = {table.name: {} for table in INCOMING}
    with _scratch() as duck:
        create_schema(duck)
        rows = duck.execute(
            "select table_name, column_name, data_type, is_nullable from duckdb_columns()"
            " where not internal order by table_name, column_index"
        ).fetchall()
    for table, column, data_type, may_be_null in rows:
        if table in columns:
            columns[table][column] = (data_type, may_be_null)
    return columns


def _problems(duck: duckdb.DuckDBPyConnection, folder: Path) -> Iterator[str]:
    """What is wrong with the incoming rows, in an order in which later questions can be asked."""
    for table in INCOMING:
        yield from _wrong_columns(duck, table.name)
    manifest = read_manifest(folder) or {}
    for table in INCOMING:
        yield from _wrong_values(duck, table.name, manifest)
        yield from _wrong_keys(duck, table)
    for question, problem in _COHERENCE:
        for row in duck.execute(question).fetchall():
            yield problem.format(*row)
    for (scheme,) in duck.execute(_SCHEMES_USED).fetchall():
        if scheme not in RUN_SCHEMES:
            yield f"it was measured with the scheme {scheme}, which quantstore {__version__} lacks"
    for (target,) in duck.execute(_TARGETS_USED).fetchall():
        if target not in TARGETS:
            yield f"it was run for the target {target}, which quantstore {__version__} lacks"


def _wrong_columns(duck: duckdb.DuckDBPyConnection, table: str) -> Iterator[str]:
    our_types = {name: data_type for name, (data_type, _) in _columns()[table].items()}
    incoming = duck.sql(f"from incoming_{table}")
    incoming_types = dict(zip(incoming.columns, map(str, incoming.types), strict=True))
    file = parquet_name(table)
    if len(incoming_types) < len(incoming.columns):
        yield f"{file} has two columns of one name"
    for column in our_types.keys() - incoming_types.keys():
        yield f"{file} lacks the column {column}"
    for column in incoming_types.keys() - our_types.keys():
        yield f"{file} has a column {column}, which the table {table} does not have"
    for column, data_type in our_types.items():
        if incoming_types[column] != data_type:
            yield f"{file} holds {column} as {incoming_types[column]}, not as {data_type}"


def is_infinite(column: str) -> str:
    """What is wrong with a file that holds NaN or infinity where neither has a meaning."""
    return f"has values of {column} that are not finite"


def _is_no_number(table: str, column: str) -> str:
    """A condition: a value is NaN, or infinite where that has no meaning."""
    return f'isnan("{column}")' if may_be_infinite(table, column) else f'not isfinite("{column}")'


def _wrong_values(
    duck: duckdb.DuckDBPyConnection, table: str, manifest: dict[str, object]
) -> Iterator[str]:
    """NULL where there must be a value, numbers that are none; a file that was cut short."""
    columns = _columns()[table]
    # Every column is counted, so that every page of the file is read before our store is open.
    counts = [f'count("{column}")' for column in columns]
    counts += [
        f"count(*) filter ({_is_no_number(table, column)})"
        if data_type in ("DOUBLE", "FLOAT")
        else "0"
        for column, (data_type, _) in columns.items()
    ]
    listed = ", ".join(counts)
    rows, *column_counts = duck.execute(
        f"select count(*), {listed} from incoming_{table}"
    ).fetchall()[0]
    file = parquet_name(table)
    expected = manifest.get("rows")
    if isinstance(expected, dict) and expected.get(table) != rows:
        yield f"{file} has {rows} rows, but {MANIFEST} states {expected.get(table)}"
    for (column, (_, may_be_null)), value_count in zip(
        columns.items(), column_counts, strict=False
    ):
        if value_count < rows and not may_be_null:
            yield f"{file} has rows without a {column}"
    for column, infinite_count in zip(columns, column_counts[len(columns) :], strict=True):
        if infinite_count:
            yield f"{file} {is_infinite(column)}"


def _wrong_keys(duck: duckdb.DuckDBPyConnection, table: Table) -> Iterator[str]:
    """Two rows of one key, and rows that belong to nothing."""
    name, file = table.name, parquet_name(table.name)
    for key in table.keys:
        listed = ", ".join(key)
        if duck.execute(
            f"from incoming_{name} select 1 group by {listed} having count(*) > 1 limit 1"
        ).fetchall():
            yield f"{file} has two rows with the same {' and '.join(key)}"
    for column, parent in table.points_to:
        parent_key = KEY_COLUMNS[parent]
        if duck.execute(
            f"from incoming_{name} select 1 where {column} not in"
            f" (select {parent_key} from incoming_{parent}) limit 1"
        ).fetchall():
            yield f"{file} has a {column} that is not in {parquet_name(parent)}"


# Each row of an answer fills one sentence.
_COHERENCE = (
    (
        "select model from incoming_models where not regexp_full_match(sha256, '[0-9a-f]{64}')"
        " limit 1",
        "the sha256 of the model {0} is not valid",
    ),
    (
        "select model, layer_count, count(layer_id) from incoming_models"
        " left join incoming_layers using (model_id) group by all"
        " having count(layer_id) <> layer_count limit 1",
        "the model {0} is incomplete: {2} of its {1} layers are there",
    ),
    (
        "select model, layer, channel_count, count(channel) from incoming_layers"
        " join incoming_models using (model_id) left join incoming_stored_channels using (layer_id)"
        " group by layer_id, model, layer, channel_count"
        " having count(channel) <> channel_count limit 1",
        "the layer {1} of the model {0} is incomplete: {3} of its {2} channels are there",
    ),
    *(
        (
            f"select model from incoming_{table} as child"
            f" join incoming_layers as layers on layers.layer_id = child.{column}"
            f" join incoming_models as models on models.model_id = child.model_id"
            " where layers.model_id <> child.model_id limit 1",
            f"{parquet_name(table)} gives the model {{0}} a layer of another model",
        )
        for table, column in (
            ("findings", "layer_id"),
            ("sensitivities", "layer_id"),
            ("graph_points", "layer_id"),
        )
    ),
    (
        "select model from incoming_graph_edges as edges"
        " join incoming_models using (model_id)"
        " where source_point >= target_point or not exists ("
        "from incoming_graph_points as points where points.model_id = edges.model_id"
        " and points.point = source_point) or not exists ("
        "from incoming_graph_points as points where points.model_id = edges.model_id"
        " and points.point = target_point) limit 1",
        "graph_edges.parquet has edges of the model {0} that run backwards or end nowhere",
    ),
    (
        "select own.layer from incoming_equalization as pairs"
        " join incoming_layers as own on own.layer_id = pairs.layer_id"
        " join incoming_layers as partner on partner.layer_id = pairs.partner_layer_id"
        " where own.model_id <> partner.model_id limit 1",
        "equalization.parquet pairs the layer {0} with one of another model",
    ),
    (
        "select model from incoming_rescue_units as units"
        " join incoming_rescues as rescues using (rescue_id)"
        " join incoming_models as models on models.model_id = rescues.model_id"
        " join incoming_layers as layers on layers.layer_id = units.layer_id"
        " where layers.model_id <> rescues.model_id limit 1",
        "rescue_units.parquet gives the model {0} a layer of another model",
    ),
    *(
        (
            f"select models.model from incoming_audit_layers as audited"
            f" join incoming_audits as audits using (audit_id)"
            f" join incoming_models as models on models.model_id = audits.{side}_model_id"
            f" join incoming_layers as layers on layers.layer_id = audited.{side}_layer_id"
            f" where layers.model_id <> audits.{side}_model_id limit 1",
            "audit_layers.parquet gives the model {0} a layer of another model",
        )
        for side in ("int8", "float")
    ),
    (
        "select greatest(octet_length(picture), strlen(float_answer), strlen(int8_answer)) as size"
        f" from incoming_simulation_answers where size > {LONGEST_ANSWER_BYTES} limit 1",
        "simulation_answers.parquet has an answer or a picture of {0} bytes, which is too large",
    ),
)

_SCHEMES_USED = """
    select scheme from incoming_stored_errors
    union select scheme from incoming_simulations
    union select scheme from incoming_sensitivities
    union select scheme from incoming_equalization
    order by scheme
"""
_TARGETS_USED = """
    select target from incoming_simulations where target is not null
    union select target from incoming_sensitivities where target is not null
    union select target from incoming_rescues
    order by target
"""


# Into our store.


class _Merge:
    """Takes over what is registered as ``incoming_*``, inside the open transaction."""

    def __init__(self, connection: Connection, *, replace: bool) -> None:
        self._connection = connection
        self._duck = connection._connection
        self._replace = replace
        self._summary = MergeSummary()
        self._kept: dict[str, Labels] = {}

    def run(self) -> MergeSummary:
        """Everything, parents before their children."""
        names = self._choose()
        self._choose_rows(names)
        for table in INCOMING:
            self._insert(table)
        self._summary.ingests = int(self._connection.value("select count(*) from new_ingests"))
        add_totals(self._duck, list(names))
        self._label()
        return self._summary

    def _choose(self) -> dict[int, str]:
        """The incoming models to take over, by their key over there, with their name here."""
        stored_contents = {content: (key, name) for key, name, content in self._contents("models")}
        keys = {name: key for key, name in stored_contents.values()}
        taken = set(keys)
        names: dict[int, str] = {}
        for key, incoming_name, content in self._contents("incoming_models"):
            same = stored_contents.get(content)
            if same is not None and not self._replace:
                self._summary.already_stored.append(same[1])
                continue
            kept = Labels()
            if self._replace:
                former = {incoming_name} if same is None else {incoming_name, same[1]}
                for name in sorted(former & keys.keys()):
                    kept = kept.joined(labels(self._connection, name))
                    remove_model(self._connection, keys.pop(name))
                    taken.remove(name)
                    self._summary.replaced.append(name)
            names[key] = free_name(taken, incoming_name, sha256=content[0])
            taken.add(names[key])
            self._kept[names[key]] = kept
            self._summary.added.append(names[key])
            if names[key] != incoming_name:
                self._summary.renamed.append((incoming_name, names[key]))
        return names

    def _contents(self, table: str) -> list[tuple[int, str, tuple[str, bool]]]:
        """Key, name and content (sha256 and folding) of each model."""
        return [
            (key, name, (sha256, folded))
            for key, name, sha256, folded in self._connection.rows(
                f"select model_id, model, sha256, folded from {table} order by model_id"
            )
        ]

    def _choose_rows(self, names: dict[int, str]) -> None:
        """The keys of what to take over, in ``new_<table>`` for each table that has keys."""
        import pyarrow as pa

        columns = [pa.array(list(names), pa.int64()), pa.array(list(names.values()), pa.string())]
        self._duck.register("new_models", pa.table(columns, ["model_id", "name"]))
        for table, keys in _NEW_ROWS.items():
            statement = f"create temporary table new_{table} as {keys}"
            self._connection.rows(statement)
        self._summary.runs = int(self._connection.value(_RUNS_OF_OTHERS))

    def _insert(self, table: Table) -> None:
        """Take over the rows of a table that belong to what was chosen."""
        pointers = table.pointers()
        leading, *others = pointers
        # What a row points to besides may not be here.
        changes = [
            f"case when {column} in (select {KEY_COLUMNS[pointers[column]]}"
            f" from main.{pointers[column]}) then {column} end as {column}"
            for column in others
        ]
        if table.name == "models":
            changes.append(
                "(select name from new_models where new_models.model_id = theirs.model_id) as model"
            )
        columns = f"* replace ({', '.join(changes)})" if changes else "*"
        parent = pointers[leading]
        is_new = f"{leading} in (select {KEY_COLUMNS[parent]} from new_{parent})"
        # In the order of their keys: who asks for a layer reads one place.
        order = ", ".join(table.keys[0] if table.keys else (leading,))
        statement = (
            f"insert into {table.name} by name"
            f" select {columns} from incoming_{table.name} as theirs"
            f" where {_BELONG.get(table.name, is_new)} order by {order}"
        )
        self._connection.rows(statement)

    def _label(self) -> None:
        """What somebody here wrote on a model that had to go stays with the one that came."""
        for name, former_labels in self._kept.items():
            if former_labels != Labels():
                joined_labels = former_labels.joined(labels(self._connection, name))
                self._connection.rows(
                    "update models set tags = ?, note = ? where model = ?",
                    [list(joined_labels.tags), joined_labels.note, name],
                )


def _runs_to_take(table: str, model_column: str, which: str = "true") -> str:
    """The keys of runs of models to take over, and of those here that lack the run."""
    key = KEY_COLUMNS[table]
    return f"""
        select {key}
        from incoming_{table}
        where {model_column} in (select model_id from new_models)
            or (
                {model_column} in (select model_id from models)
                and {key} not in (select {key} from {table})
                and {which}
            )
    """


_NEW_ROWS = {
    "layers": "select layer_id from incoming_layers semi join new_models using (model_id)",
    # The probe belongs to the measurement of a model, which stays ours.
    "simulations": _runs_to_take("simulations", "model_id", "input_source <> 'noise'"),
    "rescues": _runs_to_take("rescues", "model_id"),
    "audits": _runs_to_take("audits", "int8_model_id"),
    "ingests": "select ingest_id from incoming_ingests anti join ingests using (ingest_id)",
}
_RUNS_OF_OTHERS = """
    select
        (
            select count(*)
            from incoming_simulations semi join new_simulations using (simulation_id)
            anti join new_models using (model_id)
        ) + (
            select count(*) from incoming_rescues semi join new_rescues using (rescue_id)
            anti join new_models using (model_id)
        ) + (
            select count(*) from incoming_audits semi join new_audits using (audit_id)
            anti join new_models on new_models.model_id = int8_model_id
        )
"""
# What quantizing one unit at a time did belongs to a model and its inputs, and to no single run.
_BELONG = {
    "sensitivities": """
        model_id in (select model_id from models)
        and not exists (
            from sensitivities as ours
            where ours.model_id = theirs.model_id
                and ours.scheme = theirs.scheme
                and ours.mode = theirs.mode
                and ours.kind = theirs.kind
                and ours.input_source = theirs.input_source
                and ours.target is not distinct from theirs.target
        )
    """
}


def _refused(source: Path, reason: str) -> RefusedImportError:
    return RefusedImportError(f"{source} was not imported: {reason}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
