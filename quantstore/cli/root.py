"""The command itself: its options, its exit codes, and one way out for every failure."""

import functools
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click

from quantstore import settings
from quantstore.cli import shells
from quantstore.cli.names import NameChoice
from quantstore.cli.output import INTERRUPTED, OK, USAGE, complain, one_line
from quantstore.errors import QuantstoreError, unwritable
from quantstore.process import instructions, logs
from quantstore.schemes import ALL_TARGETS, DEFAULT_SCHEME, DEFAULT_TARGET, SCHEMES, TARGETS
from quantstore.version import __version__

logger = logging.getLogger(__name__)

CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done. 1: some input failed or a query was wrong, the rest is done. 2: usage, or a model that
    the store does not hold. 3: the store cannot be used. 130: interrupted.
    """
    if shells.VARIABLE in os.environ:
        shells.prepare()
    instructions.prefer_fast_sorting()
    with _watching_for_ctrl_c() as was_pressed:
        try:
            outcome = commands.main(
                args=argv,
                prog_name="quantstore",
                complete_var=shells.VARIABLE,
                standalone_mode=False,
            )
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "quantstore"
            complain(f"{one_line(error.format_message())}; try: {command} --help")
            return USAGE
        except click.Abort:
            return INTERRUPTED
        except SystemExit as error:
            # click leaves in this way where a pipe is closed, and after completing a shell's line.
            return error.code if isinstance(error.code, int) else OK
        except Exception as error:
            # Code that is interrupted while it loads or closes tells of that in its own way.
            if was_pressed():
                return INTERRUPTED
            if not isinstance(error, QuantstoreError):
                raise
            complain(error.sentence)
            return error.exit_code
    return outcome if isinstance(outcome, int) else OK


@contextmanager
def _watching_for_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed, which interrupts as ever."""
    presses: list[int] = []

    def press(number: int, frame: FrameType | None) -> None:
        presses.append(number)
        signal.default_int_handler(number, frame)

    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if before is not signal.default_int_handler or not is_main:
        # A program around this one has decided otherwise, or nobody can decide here.
        yield lambda: False
        return
    signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(presses)
    finally:
        signal.signal(signal.SIGINT, before)


class _Command(click.Command):
    """A command, and its position in the order of use, in which ``--help`` lists it; else last.

    Positions are tens, so that another command finds room between any two.
    """

    def __init__(self, *arguments: Any, position: float = math.inf, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.position = position


class _Commands(click.Group):
    """Commands in the order of use."""

    command_class = _Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.commands, key=self._position)

    def _position(self, name: str) -> tuple[float, str]:
        command = self.commands[name]
        return (command.position if isinstance(command, _Command) else math.inf), name


def _store_path(
    context: click.Context, _parameter: click.Parameter, value: Path | None
) -> Path | None:
    """The store named after the command, else before it, else by the environment."""
    if value is not None and _is_folder(value) and settings.published_folder(value) is None:
        raise click.BadParameter(f"{str(value)!r} is a directory, and not a published folder.")
    if context.parent is None:
        return value
    return value or context.parent.params["db"] or settings.store_path()


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # A name that no system accepts; whoever opens it says what is wrong.
        return False


def _for_this_command(
    begin: Callable[[Any], AbstractContextManager[None]],
) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Let an option hold from here to the end of its command."""

    def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        is_chosen = value is not None and value is not False
        # Completing a line must not begin what the line would.
        if is_chosen and not context.resilient_parsing:
            context.with_resource(begin(value))

    return callback


def _to_file(path: Path) -> AbstractContextManager[None]:
    try:
        with path.open("a", encoding="utf-8"):
            return logs.logging_to(logs.Logging(file=path.absolute()))
    except OSError as error:
        raise unwritable(path, error) from error


def everywhere(command: CommandFunction) -> CommandFunction:
    """Give a command the options that every command has, and log how it begins and ends."""
    return _with_options(_logged(command))


def _with_options(command: CommandFunction) -> CommandFunction:
    options = (
        click.option(
            "--db",
            type=click.Path(path_type=Path),
            metavar="FILE",
            callback=_store_path,
            help=f"Use this store. [default: ${settings.ENVIRONMENT_VARIABLE} or"
            f" {settings.DEFAULT_STORE}]",
        ),
        click.option(
            "--wait",
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            expose_value=False,
            callback=_for_this_command(settings.waiting_at_most),
            help="Wait this long for a locked store; 0 fails at once."
            f" [default: ${settings.WAIT_VARIABLE} or {settings.DEFAULT_WAIT_SECONDS:g}]",
        ),
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            expose_value=False,
            callback=_for_this_command(lambda _: logs.logging_to(logs.Logging(to_stderr=True))),
            help="Log each step to stderr.",
        ),
        click.option(
            "--log-file",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            expose_value=False,
            callback=_for_this_command(_to_file),
            help="Append the log to FILE, with the traceback of an unexpected error.",
        ),
        click.version_option(__version__, prog_name="quantstore", message="%(prog)s %(version)s"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _logged(command: CommandFunction) -> CommandFunction:
    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        logger.info("quantstore %s, Python %s: %s", __version__, sys.version.split()[0], sys.argv)
        try:
            outcome = command(*arguments, **options)
        except (QuantstoreError, click.ClickException) as error:
            logger.info("%s: %s", type(error).__name__, error)
            raise
        except Exception as error:
            if not isinstance(error, click.exceptions.Exit | click.Abort):
                logger.exception("unexpected: %s", type(error).__name__)
            raise
        logger.info("done: %s", "exit code 0" if outcome is None else f"exit code {outcome}")
        return outcome

    return run  # type: ignore[return-value]


def scheme_option(does: str) -> Callable[[CommandFunction], CommandFunction]:
    """One scheme; ``does``: what the command does with it."""
    return click.option(
        "--scheme",
        type=NameChoice(list(SCHEMES)),
        default=DEFAULT_SCHEME.name,
        show_default=True,
        metavar="SCHEME",
        help=f"{does} this scheme. One of: {', '.join(SCHEMES)}.",
    )


target_option = click.option(
    "--target",
    type=NameChoice(list(TARGETS)),
    default=DEFAULT_TARGET.name,
    show_default=True,
    metavar="TARGET",
    help=f"Judge for this target. One of: {', '.join(TARGETS)}.",
)


def targets_option(does: str, default: str) -> Callable[[CommandFunction], CommandFunction]:
    """Several targets, or all of them; ``does``: what the command does with each."""
    return click.option(
        "--target",
        "targets",
        type=NameChoice([*TARGETS, ALL_TARGETS]),
        multiple=True,
        metavar="TARGET",
        help=f"{does} this target; may be repeated. One of: {', '.join((*TARGETS, ALL_TARGETS))}."
        f" [default: {default}]",
    )


format_option = click.option(
    "--format",
    "style",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="Choose the output format. A table shows the main columns, rounded; csv and"
    " json show all columns with every digit.",
)


probe_seconds_option = click.option(
    "--probe-seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Limit the probe of each model to S seconds of CPU time and five times as long"
    " on the clock. [default: 60]",
)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
)
@_with_options
@click.pass_context
def commands(context: click.Context, db: Path | None) -> None:
    """Does a network survive int8, which layers break it, and what would rescue it?

    quantstore measures the weights of ONNX models under many schemes, runs each model on noise in
    float and int8, and keeps everything in one DuckDB file.

    \b
    Start here:
      quantstore demo                      load four small example models
      quantstore compare digits-separable digits-rescaled
      quantstore layers digits-rescaled    which layers break, worst first
      quantstore app                       the same and more, in the browser

    \b
    Then your own models:
      quantstore ingest model.onnx
      quantstore rescue model.onnx --inputs photos/
      quantstore sql "from model_summary"

    \b
    Exit codes: 0 done; 1 some input failed, a query was wrong, or a check failed; 2 wrong usage, or
    no such model in the store; 3 the store is missing, locked, damaged, too old or too new.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(USAGE)
