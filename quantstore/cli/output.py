"""What the command line prints, data to standard output and talk to standard error,
and the exit codes that scripts rely on."""

import errno
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantstore.cli import terminal
from quantstore.errors import RejectedQueryError, printable, unwritable
from quantstore.wording.text import listed

if TYPE_CHECKING:
    import pandas as pd

OK, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

# Progress that is over at once only flickers.
PATIENCE_SECONDS = 1.0


def write_answer(answer: Any, path: Path) -> None:
    """Write an answer to a file, in the format that its ending names."""
    from quantstore.wording import tables

    try:
        match path.suffix.lower():
            case ".parquet":
                tables.write_parquet(answer.table, path)
            case ".json":
                path.write_text(tables.to_json(answer.frame), encoding="utf-8", newline="\n")
            case _:
                path.write_text(tables.to_csv(answer.frame), encoding="utf-8", newline="\n")
    except OSError as error:
        raise unwritable(path, error) from error


def standard_input() -> str:
    """Everything on standard input, as text."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise RejectedQueryError("the statement is not valid text", "save it as UTF-8") from error


def print_frame(
    frame: "pd.DataFrame",
    style: str,
    columns: Iterable[str] | None = None,
    expendable: Sequence[str] = (),
) -> None:
    """Print a frame; a table shows the given columns, the other formats all of them.

    Args:
        expendable: what a narrow terminal does without, the least important column first.
    """
    from quantstore.wording import tables

    if style == "table":
        _print_table(frame if columns is None else frame[list(columns)], expendable)
    elif style == "json":
        emit(tables.to_json(frame))
    else:
        text = tables.to_csv(frame)
        if sys.stdout.isatty():
            # A file gets names as they are; a terminal must not obey what they contain.
            text = "".join(f"{printable(line)}\n" for line in text.split("\n")[:-1])
        emit(text)


def _print_table(frame: "pd.DataFrame", expendable: Sequence[str]) -> None:
    """On a terminal, within its width; a pipe gets all of it."""
    from quantstore.wording import tables

    paint = _painted if terminal.has_colours(sys.stdout) else None
    width = terminal.columns(sys.stdout)
    if width is None:
        emit(tables.to_table(frame, paint) + "\n")
        return
    table = tables.fitted_table(frame, width, expendable, paint)
    emit(table.text + "\n")
    if table.left_out or table.shortened:
        say(to_fit(width, table.left_out, table.shortened))


def to_fit(width: int, left_out: Sequence[str], shortened: Sequence[str]) -> str:
    """What to say of a table that was made to fit a terminal."""
    changes = []
    if left_out:
        changes.append(f"left out {listed(left_out)}")
    if shortened:
        changes.append(f"shortened {listed(shortened)}")
    return f"to fit {width} columns: {'; '.join(changes)}. See everything with: | less -S"


def _painted(column: str, cell: str) -> str:
    """A cell of a table, coloured where its column holds verdicts or bands."""
    is_judged = column == "verdict" or "band" in column.split("_")
    return terminal.coloured(cell) if is_judged else cell


def print_lines(rows: list[dict[str, Any]]) -> None:
    """Print rows as JSON, one on each line."""
    emit("[\n  " + ",\n  ".join(map(json.dumps, rows)) + "\n]\n")


def emit(text: str) -> None:
    """Write data to standard output."""
    stream = sys.stdout
    if hasattr(stream, "reconfigure"):
        # A terminal may lack the letters of a layer's name.
        stream.reconfigure(errors="backslashreplace")
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        # Windows has no error of its own for a closed pipe.
        is_closed = isinstance(error, BrokenPipeError) or (
            sys.platform == "win32" and error.errno == errno.EINVAL
        )
        if not is_closed:
            raise
        # Whoever reads has enough (head, less). Python would complain once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise click.exceptions.Exit(OK) from None


def counted(number: int, noun: str) -> str:
    """A number with its noun, as in ``1 layer`` and ``1,200 layers``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def say(message: str, verdict: str | None = None) -> None:
    """Tell the person something, on standard error.

    Args:
        verdict: a word in it to colour, on a terminal that has colours.
    """
    # Names in it come from files that anybody can write.
    text = printable(message)
    is_coloured = verdict is not None and terminal.has_colours(sys.stderr)
    if is_coloured:
        text = terminal.coloured(text, verdict)
    click.echo(text, err=True, color=is_coloured)


def complain(sentence: str) -> None:
    """Tell the person what went wrong."""
    say(f"error: {sentence}")


def one_line(message: str) -> str:
    """A message of click on one line, without its full stop."""
    return " ".join(message.split()).rstrip(".")


class Talk:
    """Lines on standard error and, on a terminal, a progress bar below them."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started

    def say(self, line: str, verdict: str | None = None) -> None:
        """Print a line above the bar; ``verdict`` is a word in it to colour."""
        self._clear()
        say(line, verdict)
        if self._bar is not None:
            self._bar.render_progress()

    def begin(self) -> None:
        """Another stage: a bar of its own."""
        self._clear()
        self._bar = None

    def progress(self, done: int, total: int, label: str) -> None:
        """Show how far the work is, once it has turned out to be long."""
        if not sys.stderr.isatty() or done >= total:
            return
        if self._bar is None:
            if self.seconds < PATIENCE_SECONDS:
                return
            self._bar = click.progressbar(length=total, label=label, file=sys.stderr)
        self._bar.label = label
        if done == self._bar.pos:
            # The beginning of a stage, or another label: click draws steps alone.
            self._bar.render_progress()
        else:
            self._bar.update(done - self._bar.pos)

    def _clear(self) -> None:
        if self._bar is not None:
            # Back to the first column, erase to the end of the line, show the cursor again.
            click.echo("\r\033[K\033[?25h", nl=False, err=True)
