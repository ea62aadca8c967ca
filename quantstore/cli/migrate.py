"""The command that brings a store of an earlier release up to date: migrate."""

from pathlib import Path

from quantstore.cli.root import commands, everywhere
from quantstore.cli.talk import say


@commands.command()
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
