"""Commands that take care of the store: remove."""

from pathlib import Path

import click

from quantstore.cli.root import commands, everywhere
from quantstore.cli.talk import say


@commands.command()
@click.argument("model")
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
