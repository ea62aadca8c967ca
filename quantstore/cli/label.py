"""Commands that help to find a model again: rename, tag, note."""

from pathlib import Path

import click

from quantstore.cli.names import ModelName
from quantstore.cli.output import one_line, say
from quantstore.cli.root import commands, everywhere


@commands.command(position=100)
@click.argument("model", type=ModelName())
@click.argument("name")
@everywhere
def rename(db: Path, model: str, name: str) -> None:
    """Rename MODEL to NAME.

    \b
    Example:
      quantstore rename best-v3 detector-2026-11
    """
    from quantstore import store

    _require(db, model)
    with store.writing(db) as connection:
        name = store.rename_model(connection, model, name)
    say(f"renamed {one_line(model)} to {one_line(name)}")


@commands.command(position=110)
@click.argument("model", type=ModelName())
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@click.option("--remove", "is_removing", is_flag=True, help="Remove these tags instead.")
@everywhere
def tag(db: Path, model: str, tags: tuple[str, ...], is_removing: bool) -> None:
    """Add tags to MODEL or remove them; without a TAG, print its tags.

    \b
    Examples:
      quantstore tag rtmdet-nano detector candidate
      quantstore tag rtmdet-nano candidate --remove
      quantstore tag rtmdet-nano
    """
    from quantstore import store

    _require(db, model)
    if tags:
        with store.writing(db) as connection:
            former_tags = store.labels(connection, model).tags
            new_tags = {*former_tags} - {*tags} if is_removing else {*former_tags, *tags}
            stored_tags = store.set_tags(connection, model, new_tags)
        say(f"{one_line(model)}: {one_line(', '.join(stored_tags)) or 'no tags'}")
        return
    if is_removing:
        raise click.UsageError("--remove needs a TAG")
    with store.reading(db) as connection:
        for own_tag in store.labels(connection, model).tags:
            click.echo(one_line(own_tag))


@commands.command(position=120)
@click.argument("model", type=ModelName())
@click.argument("text", required=False)
@everywhere
def note(db: Path, model: str, text: str | None) -> None:
    """Set the note of MODEL ("" removes it); without TEXT, print the note.

    \b
    Examples:
      quantstore note rtmdet-nano "candidate for the gate camera, needs per channel"
      quantstore note rtmdet-nano
    """
    from quantstore import store

    _require(db, model)
    if text is None:
        with store.reading(db) as connection:
            for line in store.labels(connection, model).note.splitlines():
                click.echo(one_line(line))
        return
    with store.writing(db) as connection:
        store.set_note(connection, model, text)
        is_empty = not store.labels(connection, model).note
    say(f"{one_line(model)}: {'note removed' if is_empty else 'note saved'}")


def _require(db: Path, model: str) -> None:
    """Writing creates a store where there is none; reading says that there is none."""
    from quantstore import store

    with store.reading(db) as connection:
        store.find_model(connection, model)
