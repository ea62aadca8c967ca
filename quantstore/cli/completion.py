"""The command that lets a shell complete commands, options and names: completion."""

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from quantstore.cli import shells
from quantstore.cli.output import emit
from quantstore.cli.root import commands, everywhere


@commands.command(position=196)
@click.argument("shell", type=click.Choice(shells.NAMES), required=False)
@everywhere
def completion(db: Path, shell: str | None) -> None:
    """Print the script that lets SHELL complete commands, options, models and targets.

    SHELL is bash (4.4 or later), zsh or fish; by default the one that $SHELL names.

    \b
    Examples:
      quantstore completion bash > ~/.local/share/bash-completion/completions/quantstore
      quantstore completion zsh > "${fpath[1]}/_quantstore"
      quantstore completion fish > ~/.config/fish/completions/quantstore.fish
      eval "$(quantstore completion bash)"    # for this session only
    """
    chosen_shell = shell or Path(os.environ.get("SHELL", "")).name
    completion_class = get_completion_class(chosen_shell) if chosen_shell in shells.NAMES else None
    if completion_class is None:
        raise click.UsageError(NO_SHELL)
    emit(completion_class(commands, {}, "quantstore", shells.VARIABLE).source() + "\n")


NO_SHELL = f"name a shell: {', '.join(shells.NAMES)}"
