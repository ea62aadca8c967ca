"""A store as a folder of Parquet files, one per table, for whoever has no DuckDB at hand.

Parquet has one reader in every language, carries no code and is never locked. Keys stay as they
are in the store: they are made from content, so that exports of several stores can be joined.
"""

import json
import os
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from quantstore.errors import QuantstoreError
from quantstore.store.beside import room_beside
from quantstore.store.connection import BATCH_ROWS, Connection, reading
from quantstore.store.models import find_model
from quantstore.store.schema import SCHEMA_VERSION, schema_sql
from quantstore.store.tables import ALL_TABLES, DERIVED, OF_MODELS, parquet_name
from quantstore.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "manifest.json"
SCHEMA_SQL = "schema.sql"
FORMAT = "quantstore export"
HOLDS_OTHER_FILES = "contains files that are not part of an export"

_LONGEST_MANIFEST_BYTES = 1 << 16

# Rows of histograms hold 16 KB each, those of channels a hundred bytes: groups are cut by size.
_GROUP_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export wrote: the models, the rows of each table, the bytes of all files."""

    folder: Path
    models: tuple[str, ...]
    rows: dict[str, int]
    file_bytes: int


def export(
    path: Path, folder: Path, models: Sequence[str] | None = None, *, replace: bool = False
) -> ExportSummary:
    """Write the store at ``path`` into ``folder``: one Parquet file per table, and what they are.

    The folder appears whole or not at all. An earlier export in it is replaced.

    Args:
        models: names of those to export, with everything known about them; None for all.
        replace: write into a folder that holds other files, too; these stay.

    Raises:
        StoreError: the store cannot be read.
        UnknownModelError: the store holds no model of such a name; nothing is written.
        QuantstoreError: the folder holds something else, or cannot be written.
    """
    # The folder behind a symbolic link, and a name for the one called ".".
    folder = folder.resolve()
    holds_others = _holds_others(folder)
    if holds_others and not replace:
        raise QuantstoreError(
            f"{folder} {HOLDS_OTHER_FILES}",
            "name another folder, or add --replace to write beside them",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with room_beside(folder) as fresh:
            with reading(path) as connection:
                summary = write_tables(connection, fresh, models)
            if holds_others:
                _move_files(fresh, folder)
            else:
                _swap(fresh, folder)
    except OSError as error:
        raise QuantstoreError(
            f"{folder} cannot be written: {error.strerror or error}",
            "name a folder that you may write to, on a disk with space",
        ) from error
    return ExportSummary(folder, summary.models, summary.rows, summary.file_bytes)


def export_zip(path: Path, target: Path, models: Sequence[str] | None = None) -> ExportSummary:
    """Write an export as one zip file, replacing what is there; raises as :func:`export` does."""
    with tempfile.TemporaryDirectory(prefix="quantstore-export-") as scratch:
        summary = export(path, Path(scratch) / "export", models)
        # Parquet is compressed already.
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(summary.folder.iterdir()):
                archive.write(file, file.name)
    return ExportSummary(target, summary.models, summary.rows, target.stat().st_size)


def write_tables(
    connection: Connection, folder: Path, models: Sequence[str] | None = None
) -> ExportSummary:
    """Write every table of an open store into an empty folder, the manifest last."""
    model_ids = None if models is None else [find_model(connection, name) for name in models]
    names = [
        name
        for model_id, name in connection.rows("select model_id, model from main.models")
        if model_ids is None or model_id in model_ids
    ]
    rows = {
        table: _write_table(connection._connection, table, model_ids, folder)
        for table in ALL_TABLES
    }
    (folder / SCHEMA_SQL).write_text(schema_sql(), encoding="utf-8", newline="\n")
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "quantstore_version": __version__,
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "models": len(names),
        "rows": rows,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    size = sum(file.stat().st_size for file in folder.iterdir())
    return ExportSummary(folder, tuple(names), rows, size)


def file_names() -> list[str]:
    """Every file of an export."""
    return [*map(parquet_name, ALL_TABLES), SCHEMA_SQL, MANIFEST]


def read_manifest(folder: Path) -> dict[str, object] | None:
    """What an export says of itself; None where the folder holds no export."""
    try:
        with (folder / MANIFEST).open("rb") as stream:
            manifest = json.loads(stream.read(_LONGEST_MANIFEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    is_ours = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    return manifest if is_ours else None


# An audit is of two models.
_AUDITS_AMONG = (
    "int8_model_id in (select unnest($ids))"
    " and coalesce(float_model_id in (select unnest($ids)), true)"
)
# The rows that belong to some models, for each column that leads to them.
_OF_SOME_MODELS = {
    "model_id": "model_id in (select unnest($ids))",
    "layer_id": (
        "layer_id in (select layer_id from main.layers where model_id in (select unnest($ids)))"
    ),
    "simulation_id": (
        "simulation_id in"
        " (select simulation_id from main.simulations where model_id in (select unnest($ids)))"
    ),
    "rescue_id": (
        "rescue_id in (select rescue_id from main.rescues where model_id in (select unnest($ids)))"
    ),
    "int8_model_id": _AUDITS_AMONG,
    "audit_id": f"audit_id in (select audit_id from main.audits where {_AUDITS_AMONG})",
    "model": "model in (select model from main.models where model_id in (select unnest($ids)))",
}


def _leading_columns() -> dict[str, str]:
    """The column by which each table's rows belong to a model; absent where they belong to all."""
    by_table = {
        table.name: table.points_to[0][0] if table.points_to else "model_id"
        for table in (*OF_MODELS, *DERIVED)
    }
    return by_table | {"ingests": "model"}


def _write_table(
    duck: duckdb.DuckDBPyConnection, table: str, model_ids: list[int] | None, folder: Path
) -> int:
    """Write one table; returns its rows. Base tables are named in full: a view cannot slip in."""
    column = _leading_columns().get(table)
    if model_ids is None or column is None:
        relation = duck.sql(f"from main.{table}")
    else:
        condition = _OF_SOME_MODELS[column]
        relation = duck.sql(
            f"from main.{table} where {condition}",
            params={"ids": model_ids},
        )
    return _write_parquet(relation.to_arrow_reader(BATCH_ROWS), folder / parquet_name(table))


def _write_parquet(batches: "pa.RecordBatchReader", target: Path) -> int:
    """Write a stream of batches in groups of rows; returns how many rows they were."""
    import pyarrow as pa
    from pyarrow import parquet

    rows, waiting, waiting_bytes = 0, [], 0
    with parquet.ParquetWriter(target, batches.schema, compression="zstd") as writer:
        for batch in batches:
            rows += batch.num_rows
            waiting.append(batch)
            waiting_bytes += batch.nbytes
            if waiting_bytes >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting, waiting_bytes = [], 0
        writer.write_table(pa.Table.from_batches(waiting, batches.schema))
    return rows


def _holds_others(folder: Path) -> bool:
    """Whether there is something in the folder that no export of ours put there."""
    try:
        present = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return False
    except NotADirectoryError as error:
        raise QuantstoreError(f"{folder} is a file", "name a folder") from error
    return bool(present - set(file_names())) or (bool(present) and read_manifest(folder) is None)


def _swap(fresh: Path, folder: Path) -> None:
    """Put the fresh folder in the place of an absent or empty one, or of an earlier export."""
    if not folder.exists():
        # mkdtemp lets nobody else in; an export is there to be shared, as far as umask allows.
        fresh.chmod(0o777 & ~_umask())
        fresh.rename(folder)
        return
    fresh.chmod(folder.stat().st_mode & 0o7777)
    with room_beside(folder) as former:
        folder.rename(former / "former")
        fresh.rename(folder)


def _umask() -> int:
    # The only way to read it is to set it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _move_files(fresh: Path, folder: Path) -> None:
    """Move an export into a folder that holds other files; while it is partial, it is no export."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in file_names():
        (fresh / name).replace(folder / name)
