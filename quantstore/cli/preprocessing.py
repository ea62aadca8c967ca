"""The options of commands that run a model: how to prepare inputs, and how many."""

import functools
from typing import Any, cast

import click

from quantstore.cli.output import OK, emit
from quantstore.cli.root import CommandFunction

WRONG_SIZE = "--size is a number or HEIGHTxWIDTH, as in 480x640"


def wrong_numbers(option: str) -> str:
    """What to say of a mean or a deviation that is no number for each channel."""
    return f"--{option} is one number or three, as in 0.5,0.5,0.5"


samples_option = click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="Use at most N samples, evenly spaced. [default: 32]",
)
no_fold_option = click.option(
    "--no-fold", is_flag=True, help="Do not fold BatchNormalization into the weights."
)


def preprocessing_options(command: CommandFunction) -> CommandFunction:
    """Give a command the options that say how to prepare pixels; ``preprocess`` is what they mean.

    That is a preset's name, or the preset with what was given on the command line.
    """
    options = (
        click.option(
            "--preprocess",
            default="auto",
            show_default=True,
            is_eager=True,
            callback=_help_with_presets,
            metavar="PRESET",
            help="Prepare pixels in this way; --preprocess help lists the presets. auto means"
            " imagenet, or gray for one channel.",
        ),
        click.option(
            "--size",
            metavar="N|HxW",
            help="Resize images to this size if the model does not fix it.",
        ),
        click.option(
            "--mean",
            metavar="A[,B,C]",
            help="Subtract this mean: (pixel * scale - mean) / std, pixels from 0 to 255.",
        ),
        click.option("--std", metavar="A[,B,C]", help="See --mean."),
        click.option("--scale", type=float, metavar="X", help="See --mean."),
        click.option(
            "--color",
            type=click.Choice(["rgb", "bgr", "gray"]),
            help="Feed channels in this order.",
        ),
    )

    @functools.wraps(command)
    def prepared(
        *arguments: Any,
        preprocess: str,
        size: str | None,
        mean: str | None,
        std: str | None,
        scale: float | None,
        color: str | None,
        **others: Any,
    ) -> Any:
        preset = _preset(preprocess, size=size, mean=mean, std=std, scale=scale, color=color)
        return command(*arguments, preprocess=preset, **others)

    decorated = cast("CommandFunction", prepared)
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def _preset(name: str, *, size: str | None, **options: Any) -> Any:
    from quantstore.run import inputs

    overrides = {key: value for key, value in options.items() if value is not None}
    for key in ("mean", "std"):
        if key in overrides:
            try:
                overrides[key] = tuple(float(part) for part in overrides[key].split(","))
            except ValueError:
                raise click.UsageError(wrong_numbers(key)) from None
    if size is not None:
        height, _, width = size.lower().partition("x")
        try:
            overrides["size"] = (int(height), int(width or height))
        except ValueError:
            raise click.UsageError(WRONG_SIZE) from None
    if name == inputs.AUTO:
        if not overrides:
            return name
        # Numbers of one's own replace the preset's, the size alone does not.
        name = "zero-one" if overrides.keys() - {"size"} else "imagenet"
    return inputs.changed(inputs.preset(name), **overrides)


def _help_with_presets(context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Where ``help`` stands for a preset, print them and end; nothing else need be there then."""
    if value == "help" and not context.resilient_parsing:
        _print_presets()
        context.exit(OK)
    return value


def _print_presets() -> None:
    from quantstore.run.inputs import ALIASES, PRESETS

    also = {
        name: [alias for alias, target in ALIASES.items() if target == name] for name in PRESETS
    }
    for name, preset in PRESETS.items():
        emit(f"{', '.join([name, *also[name]])}: {preset.description}\n")
