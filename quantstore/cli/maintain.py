"""The commands that look after a store: remove, export, import, backup, compact, migrate."""

from pathlib import Path

import click

from quantstore.cli.names import ModelName
from quantstore.cli.output import counted, say
from quantstore.cli.root import commands, everywhere
from quantstore.wording import units


@commands.command(position=130)
@click.argument("model", type=ModelName())
@everywhere
def remove(db: Path, model: str) -> None:
    """Take MODEL out of the store, with everything known about it.

    \b
    Example:
      quantstore remove rtmdet-nano
    """
    from quantstore import store

    with store.writing(db, may_create=False) as connection:
        store.remove_model(connection, store.find_model(connection, model))
    say(f"removed {model}")


@commands.command(position=140)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.argument("models", nargs=-1, metavar="[MODEL]...", type=ModelName())
@click.option("--replace", is_flag=True, help="Write beside other files that DIR holds.")
@everywhere
def export(db: Path, folder: Path, models: tuple[str, ...], replace: bool) -> None:
    """Write the store into DIR as Parquet files, one per table.

    With MODEL names, only these models and everything known about them. An earlier export in DIR
    is replaced. Read the files with anything that reads Parquet, or with: quantstore import DIR

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
    help="Take the incoming model where its content or its name is here already.",
)
@everywhere
def import_(db: Path, source: Path, replace: bool) -> None:
    """Take over the models of another store: an export in DIR, its zip, or a DuckDB FILE.

    A model whose content is here already is left alone. One whose name belongs to other content
    here is called NAME-<first 8 digits of its sha256>. Either everything is taken over or, where
    something is wrong with it, nothing.

    \b
    Examples:
      quantstore import shared/store=anna
      quantstore import colleague.duckdb --replace
    """
    from quantstore import store

    summary = store.merge(db, source, replace=replace)
    for incoming_name, name in summary.renamed:
        say(f"{incoming_name} is called {name} here: another model has its name")
    for name in summary.replaced:
        say(f"replaced {name}")
    outcomes = [f"imported {counted(len(summary.added), 'model')}"]
    if summary.already_stored:
        outcomes.append(f"{len(summary.already_stored)} already stored")
    say(", ".join(outcomes))


@commands.command(position=160)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--replace", is_flag=True, help="Overwrite FILE.")
@everywhere
def backup(db: Path, file: Path, replace: bool) -> None:
    """Copy the store to FILE, safely while others use it.

    Copying the file itself can miss what was written last, and can break into a write.

    \b
    Examples:
      quantstore backup quantstore-2026-11-28.duckdb
      quantstore backup latest.duckdb --replace
    """
    from quantstore import store

    summary = store.backup(db, file, replace=replace)
    say(f"copied {db} to {file}, {_size(summary.bytes_after)}")


@commands.command(position=170)
@everywhere
def compact(db: Path) -> None:
    """Write the store anew, without the room that removed models left.

    Needs room for a second copy on the same disk while it works.

    \b
    Example:
      quantstore compact
    """
    from quantstore import store

    summary = store.compact(db)
    say(f"{db}: {_size(summary.bytes_before)} before, {_size(summary.bytes_after)} after")


def _size(number: int) -> str:
    return units.file_size(number).replace(units.NO_BREAK_SPACE, " ")


@commands.command(position=180)
@everywhere
def migrate(db: Path) -> None:
    """Bring a store of an earlier release up to date, keeping a copy of it as it was.

    Whatever writes to a store (ingest, remove, simulate) does so by itself; the command is for a
    store that is only read. Measurements are not repeated: ingesting the files again does that.

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
