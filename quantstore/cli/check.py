"""The command that gates: does a model keep within its limits?"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import click

from quantstore.cli import terminal
from quantstore.cli.names import ModelName, NameChoice
from quantstore.cli.output import OK, SOME_FAILED, Talk, counted, emit, say, unwritable
from quantstore.cli.root import commands, everywhere
from quantstore.errors import (
    MissingStoreError,
    QuantstoreError,
    StoreError,
    UnknownModelError,
    printable,
)
from quantstore.schemes import DEFAULT_TARGET, SCHEMES, TARGETS

NO_FILE = "there is no file"


@commands.command(position=90)
@click.argument("names", nargs=-1, required=True, metavar="MODEL...", type=ModelName(or_file=True))
@click.option(
    "--target",
    type=NameChoice(list(TARGETS)),
    metavar="TARGET",
    help=f"What to judge the outputs for. One of: {', '.join(TARGETS)}."
    f" [default: {DEFAULT_TARGET.name}]",
)
@click.option(
    "--scheme",
    type=NameChoice(list(SCHEMES)),
    metavar="SCHEME",
    help=f"What to judge layers under. One of: {', '.join(SCHEMES)}. [default: the target's]",
)
@click.option(
    "--mode",
    type=click.Choice(["both", "weights"]),
    help="Judge by all that the target rounds, or by the weights alone. [default: both]",
)
@click.option(
    "--min-sqnr-db",
    type=float,
    metavar="DB",
    help="Minimum SQNR at the outputs. A model whose target was not measured fails.",
)
@click.option(
    "--min-layer-sqnr-db",
    type=float,
    metavar="DB",
    help="Minimum SQNR that 90 % of channels of each layer reach.",
)
@click.option("--max-broken-layers", type=int, metavar="N", help="Maximum number of broken layers.")
@click.option(
    "--max-at-risk-layers",
    type=int,
    metavar="N",
    help="Maximum number of layers at risk; broken ones are not counted.",
)
@click.option(
    "--max-channels-below-10db",
    type=int,
    metavar="N",
    help="Maximum number of channels below 10 dB, over all layers.",
)
@click.option(
    "--baseline",
    type=ModelName(or_file=True),
    metavar="MODEL",
    help="No layer may be worse than the layer of the same name in this model.",
)
@click.option(
    "--max-regression-db",
    type=float,
    metavar="DB",
    help="Maximum loss of a layer (SQNR that 90 % of channels reach). [default: 1]",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="LAYER",
    help="Leave out this layer, or those that fit a pattern with * and ?; may be repeated.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A TOML file with limits in [check] or [tool.quantstore.check]."
    " [default: the nearest pyproject.toml that has the latter]",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "junit", "github"]),
    default="text",
    show_default=True,
    help="For people, for scripts, JUnit XML, or annotations of GitHub Actions.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE; standard output then says the same as text.",
)
@everywhere
def check(
    db: Path,
    names: tuple[str, ...],
    config_path: Path | None,
    style: str,
    output: Path | None,
    **options: Any,
) -> int:
    """Check that each MODEL keeps within its limits; exit code 1 where one does not.

    MODEL is a name in the store, or an .onnx file, which is ingested unless its content is stored
    already. Without any limit a model fails if its verdict is "broken" or "untested" (not
    measured); --mode weights judges the weights alone. Findings of severity problem fail a model,
    too.

    Limits come from the command line and from TOML; the command line wins:

    \b
      [tool.quantstore.check]
      min-sqnr-db = 20
      max-broken-layers = 0
      [tool.quantstore.check.models."rtmdet-*"]
      target = "int8_channel_fused"

    \b
    Examples:
      quantstore check rtmdet-nano --target int8_tensor
      quantstore check build/model.onnx --min-sqnr-db 20 --max-broken-layers 0
      quantstore check model --baseline released --max-regression-db 2
      quantstore check model --format junit --output quantstore.xml
    """
    from quantstore import checks, store

    chosen_limits = {name: value for name, value in options.items() if value not in (None, ())}
    # Wrong limits are told before anything is measured.
    config = checks.read_config(config_path) if config_path else checks.find_config(Path.cwd())
    for name in names:
        if (
            "max_regression_db" in chosen_limits
            and config.limits(name, chosen_limits).baseline is None
        ):
            raise click.UsageError("--max-regression-db needs a --baseline")
    held = _Held(db)
    limits = {}
    for name in names:
        model = held.name_of(name)
        model_limits = config.limits(model, chosen_limits)
        if model_limits.baseline is not None:
            model_limits = dataclasses.replace(
                model_limits, baseline=held.name_of(model_limits.baseline)
            )
        limits[model] = model_limits
    with store.reading(db) as connection:
        results = checks.run(connection, limits)
    if output is None:
        _print(checks.FORMATS[style](results), style)
    else:
        try:
            output.write_text(checks.FORMATS[style](results), encoding="utf-8", newline="\n")
        except OSError as error:
            raise unwritable(output, error) from error
        _print(checks.to_text(results), "text")
    failed = {result.model for result in results if not result.is_held}
    source = f"; limits from {config.path}" if config.path else ""
    say(f"{len(limits) - len(failed)} of {counted(len(limits), 'model')} within limits{source}")
    return SOME_FAILED if failed else OK


def _print(content: str, style: str) -> None:
    """Print what came out; for people with outcomes in colour, where the terminal has any."""
    is_coloured = style == "text" and terminal.has_colours(sys.stdout)
    emit(terminal.outcomes_coloured(content) if is_coloured else content)


class _Held:
    """Models of the store, by name or by file; a file that is not stored yet is ingested, once."""

    def __init__(self, db: Path) -> None:
        self._db = db
        self._names: dict[str, str] = {}

    def name_of(self, name_or_path: str) -> str:
        """The name in the store of what somebody gave; whether the store holds it shows later."""
        if name_or_path not in self._names:
            path = Path(name_or_path)
            is_onnx = path.suffix.lower() == ".onnx"
            if is_onnx and path.is_file():
                self._names[name_or_path] = self._ingested(path)
            else:
                if (is_onnx or len(path.parts) > 1) and not path.exists():
                    self._require(name_or_path)
                self._names[name_or_path] = name_or_path
        return self._names[name_or_path]

    def _require(self, name_or_path: str) -> None:
        """Say of a path that there is no such file, unless a model has that name."""
        from quantstore import store

        try:
            with store.reading(self._db) as connection:
                store.find_model(connection, name_or_path)
        except (MissingStoreError, UnknownModelError) as error:
            raise type(error)(
                f"{NO_FILE} {name_or_path}, and {error}", f"check the path, or {error.hint}"
            ) from error

    def _ingested(self, path: Path) -> str:
        from quantstore.pipeline.ingest import ingest_file
        from quantstore.pipeline.outcome import IngestChoices, IngestProgress

        with Talk() as talk:

            def report(progress: IngestProgress) -> None:
                talk.progress(progress.bytes_done, progress.bytes_total, printable(path.name))

            try:
                result = ingest_file(path, self._db, IngestChoices(), report)
            except StoreError:
                raise
            except QuantstoreError as error:
                error.args = (f"{path}: {error}",)
                raise
        say(f"{path}: {result.outcome} as {result.model}")
        return str(result.model)
