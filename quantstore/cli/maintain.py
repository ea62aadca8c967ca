"""The commands that look after a store: remove, export, import, backup, compact, migrate."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantstore import settings
from quantstore.cli.names import ModelName
from quantstore.cli.output import counted, say
from quantstore.cli.root import commands, everywhere
from quantstore.wording import units

if TYPE_CHECKING:
    from quantstore.store import FolderSummary


@commands.command(position=130)
@click.argument("model", type=ModelName())
@everywhere
def remove(db: Path, model: str) -> None:
    """Remove MODEL and all its measurements from the store.

    \b
    Example:
      quantstore remove rtmdet-nano
    """
    from quantstore import store
    from quantstore.pipeline import kept

    with store.writing(db, may_create=False) as connection:
        store.remove_model(connection, store.find_model(connection, model))
    kept.sweep(db)
    say(f"removed {model}")


@commands.command(position=140)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.argument("models", nargs=-1, metavar="[MODEL]...", type=ModelName())
@click.option("--replace", is_flag=True, help="Write into DIR even if it holds other files.")
@everywhere
def export(db: Path, folder: Path, models: tuple[str, ...], replace: bool) -> None:
    """Write the store into DIR as Parquet files, one per table.

    Name MODELs to export only these. An earlier export in DIR is replaced. Read the files with any
    Parquet reader, or with: quantstore import DIR

    \b
    Examples:
      quantstore export shared/store=anna
      quantstore export for-review/ rtmdet-nano rtmdet-s
    """
    from quantstore import store

    summary = store.export(db, folder, models or None, replace=replace)
    number = counted(len(summary.models), "model")
    say(f"exported {number} to {folder}, {_size(summary.file_bytes)}")


@commands.command(name="import", position=150)
@click.argument("source", type=click.Path(path_type=Path), metavar="DIR|FILE")
@click.option(
    "--replace",
    is_flag=True,
    help="Replace stored models that have the same content or name.",
)
@everywhere
def import_(db: Path, source: Path, replace: bool) -> None:
    """Import the models of another store: an export in DIR, its zip, or a DuckDB FILE.

    Models with content that is already stored are skipped; runs of them are imported. If a name is
    taken by other content, the imported model is named NAME-<first 8 digits of its sha256>. If
    anything is wrong with the source, nothing is imported.

    \b
    Examples:
      quantstore import shared/store=anna
      quantstore import colleague.duckdb --replace
    """
    from quantstore import store

    summary = store.merge(db, source, replace=replace)
    for incoming_name, name in summary.renamed:
        say(f"{incoming_name} is stored as {name}: another model already has this name")
    for name in summary.replaced:
        say(f"replaced {name}")
    outcomes = [f"imported {counted(len(summary.added), 'model')}"]
    if summary.already_stored:
        outcomes.append(f"{len(summary.already_stored)} already stored")
    if summary.runs:
        outcomes.append(f"{counted(summary.runs, 'run')} of stored models")
    say(", ".join(outcomes))


@commands.command(position=155)
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@everywhere
def publish(db: Path, folder: Path) -> None:
    """Add what the store holds to FOLDER, which many can read at once.

    Writes one part with the models and runs that FOLDER lacks, as Parquet files. Several people can
    publish into one folder at the same time. Read it with --db FOLDER.

    \b
    Examples:
      quantstore publish /shared/models
      quantstore app --db /shared/models
    """
    from quantstore import store

    summary = store.publish(db, folder)
    if summary.part is None:
        say(f"{folder} already holds everything in {db}")
        return
    say(
        f"published {counted(summary.models, 'model')} and {counted(summary.runs, 'run')}"
        f" to {folder}, {_size(summary.file_bytes)}"
    )


@commands.command(position=160)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--replace", is_flag=True, help="Overwrite FILE.")
@everywhere
def backup(db: Path, file: Path, replace: bool) -> None:
    """Copy the store to FILE, even while others use it.

    Do not copy the file itself: the copy can miss the latest changes or be damaged.

    \b
    Examples:
      quantstore backup quantstore-2026-11-28.duckdb
      quantstore backup latest.duckdb --replace
    """
    from quantstore import store

    summary = store.backup(db, file, replace=replace)
    say(f"copied {db} to {file}, {_size(summary.bytes_after)}")


@commands.command(position=170)
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]")
@everywhere
def compact(db: Path, folder: Path | None) -> None:
    """Return the space of removed models to the disk, or merge the parts of a published FOLDER.

    Needs space for a second copy on the same disk while it works. Others can read meanwhile, and
    publish into FOLDER. Merged parts stay for a day, for those who still read them; the next
    compact removes them.

    \b
    Examples:
      quantstore compact
      quantstore compact /shared/models
    """
    from quantstore import store

    published = settings.published_folder(folder or db)
    if published is not None:
        _say_merged(published, store.compact_folder(published))
        return
    if folder is not None:
        raise click.BadParameter(f"{str(folder)!r} is not a published folder.")
    summary = store.compact(db)
    say(f"{db}: {_size(summary.bytes_before)} before, {_size(summary.bytes_after)} after")


def _say_merged(folder: Path, summary: "FolderSummary") -> None:
    if summary.merged:
        sizes = f"{_size(summary.bytes_before)} before, {_size(summary.bytes_after)} after"
        say(f"merged {summary.merged} parts of {folder} into one: {sizes}")
    else:
        say(f"{folder} has no small parts to merge")
    if summary.removed:
        say(f"removed {counted(summary.removed, 'part')} merged earlier")
    if summary.waiting:
        say(f"{counted(summary.waiting, 'merged part')} can be removed after a day: compact again")


def _size(number: int) -> str:
    return units.file_size(number).replace(units.NO_BREAK_SPACE, " ")


@commands.command(position=180)
@everywhere
def migrate(db: Path) -> None:
    """Update a store of an earlier release, keeping a copy of the old file.

    Commands that write to the store (ingest, remove, simulate) update it themselves. Use this
    command for a store that you only read. Measurements are not repeated; ingest the files again
    to do so.

    \b
    Example:
      quantstore migrate --db shared/quantstore.duckdb
    """
    from quantstore import store

    backup = store.update(db)
    if backup is None:
        say(f"{db} is up to date")
    else:
        say(f"updated {db}; as it was before: {backup}")
