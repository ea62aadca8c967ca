"""The command that gates: does a model keep within its limits?"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import click

from quantstore.cli import terminal
from quantstore.cli.names import ModelName, NameChoice
from quantstore.cli.output import OK, SOME_FAILED, Talk, counted, emit, say
from quantstore.cli.preprocessing import preprocessing_options
from quantstore.cli.root import commands, everywhere
from quantstore.cli.stages import showing_stages
from quantstore.errors import (
    MissingStoreError,
    QuantstoreError,
    StoreError,
    UnknownModelError,
    printable,
    unwritable,
)
from quantstore.schemes import DEFAULT_TARGET, SCHEMES, TARGETS

NO_FILE = "there is no file"


@commands.command(position=90)
@click.argument("names", nargs=-1, required=True, metavar="MODEL...", type=ModelName(or_file=True))
@click.option(
    "--target",
    type=NameChoice(list(TARGETS)),
    metavar="TARGET",
    help=f"Judge the outputs for this target. One of: {', '.join(TARGETS)}. [default:"
    f" {DEFAULT_TARGET.name}]",
)
@click.option(
    "--scheme",
    type=NameChoice(list(SCHEMES)),
    metavar="SCHEME",
    help=f"Judge layers under this scheme. One of: {', '.join(SCHEMES)}. [default: the"
    " scheme of the target]",
)
@click.option(
    "--mode",
    type=click.Choice(["both", "weights"]),
    help="Judge weights and activations, or the weights alone. [default: both]",
)
@click.option(
    "--min-sqnr-db",
    type=float,
    metavar="DB",
    help="Require this output SQNR. A model whose target was not measured fails.",
)
@click.option(
    "--min-layer-sqnr-db",
    type=float,
    metavar="DB",
    help="Require this SQNR for 90 % of the channels of each layer.",
)
@click.option(
    "--max-broken-layers", type=int, metavar="N", help="Allow at most this many broken layers."
)
@click.option(
    "--max-at-risk-layers",
    type=int,
    metavar="N",
    help="Allow at most this many layers at risk; broken layers are not counted.",
)
@click.option(
    "--max-channels-below-10db",
    type=int,
    metavar="N",
    help="Allow at most this many channels below 10 dB in all layers together.",
)
@click.option(
    "--baseline",
    type=ModelName(or_file=True),
    metavar="MODEL",
    help="Compare each layer with the layer of the same name in this model.",
)
@click.option(
    "--max-regression-db",
    type=float,
    metavar="DB",
    help="Allow at most this loss of a layer against --baseline (SQNR that 90 % of"
    " channels reach). [default: 1]",
)
@click.option(
    "--audit",
    type=ModelName(or_file=True),
    metavar="FLOAT",
    help="Judge the latest audit of each int8 MODEL against this float model. If there is none, it"
    " is made. Without a limit for audits, a broken file fails.",
)
@click.option(
    "--min-audit-db",
    type=float,
    metavar="DB",
    help="Require this output SQNR of the int8 file against --audit.",
)
@click.option(
    "--max-integer-gap-db",
    type=float,
    metavar="DB",
    help="Allow integer kernels to lose at most this much more than float arithmetic.",
)
@click.option(
    "--max-saturated-share",
    type=float,
    metavar="SHARE",
    help="Allow at most this share of the values of a tensor beyond its grid, as in 0.01.",
)
@click.option(
    "--min-audit-layer-db",
    type=float,
    metavar="DB",
    help="Require this SQNR of stored against float weights for 90 % of the channels of each"
    " layer.",
)
@click.option(
    "--inputs",
    default="noise",
    show_default=True,
    metavar="FOLDER|FILE|noise",
    help="Make an audit on these inputs if the latest is on others.",
)
@preprocessing_options
@click.option(
    "--exclude",
    multiple=True,
    metavar="LAYER",
    help="Leave out this layer; may be a pattern with * and ?, and may be repeated.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Read limits from [check] or [tool.quantstore.check] of this TOML file."
    " [default: the nearest pyproject.toml with the latter]",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "junit", "github"]),
    default="text",
    show_default=True,
    help="Choose the output format: text, JSON, JUnit XML or GitHub annotations.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE, and print the same as text.",
)
@everywhere
def check(
    db: Path,
    names: tuple[str, ...],
    config_path: Path | None,
    style: str,
    output: Path | None,
    inputs: str,
    preprocess: Any,
    **options: Any,
) -> int:
    """Check each MODEL against limits; exit with 1 if one fails.

    MODEL is the name of a stored model, or an .onnx file, which is ingested if its content is not
    stored yet. Without limits, a model fails if its verdict is "broken" or "untested" (not
    measured). A finding of severity "problem" fails a model, too.

    Set limits on the command line or in TOML; the command line takes precedence:

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
      quantstore check model-int8.onnx --audit model.onnx --min-audit-db 20 --inputs photos/
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
        if model_limits.audit is not None:
            model_limits = dataclasses.replace(model_limits, audit=held.name_of(model_limits.audit))
            _audit(db, model, str(model_limits.audit), inputs, preprocess)
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


def _audit(db: Path, model: str, float_model: str, inputs: str, preprocess: Any) -> None:
    """See to it that there is an audit of both."""
    from quantstore import store
    from quantstore.checks import audited
    from quantstore.pipeline import audits

    with store.reading(db) as connection:
        for name in (model, float_model):
            store.find_model(connection, name)
        latest = audited.read(connection, model, float_model)
    # Noise is asked for by nobody: any audit is as good, one on real inputs better.
    if latest is not None and (inputs == "noise" or _is_on(latest.record.input_source, inputs)):
        return
    float_file, int8_file = (audits.file_of(name, db) for name in (float_model, model))
    choices = audits.AuditChoices(preprocess=preprocess)
    with showing_stages(printable(f"{model} against {float_model}")) as report:
        audits.run(float_file, int8_file, db, inputs, choices, report)
    say(f"audited {model} against {float_model} on {inputs}")


def _is_on(input_source: str, inputs: str) -> bool:
    """Whether an audit was made on these inputs, as far as their name tells."""
    return Path(inputs).name in input_source


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
        from quantstore.pipeline.files import is_model_file

        if name_or_path not in self._names:
            path = Path(name_or_path)
            is_model = is_model_file(path)
            if is_model and path.is_file():
                self._names[name_or_path] = self._ingested(path)
            else:
                if (is_model or len(path.parts) > 1) and not path.exists():
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
