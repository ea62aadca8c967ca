"""What a terminal can show: colours where it has them, and how many columns it has.

A pipe or a file gets neither colours nor a table cut to a width. The words carry the meaning
anyway: a colour repeats the band that stands there.
"""

import os
import shutil
import sys
from typing import TextIO

# From the 256 colours of xterm, close to those of the app. Each has a contrast of at least 3:1 on
# white, on black and on the backgrounds of common themes (tests/cli/test_terminal.py computes it).
COLOURS = {
    "broken": 197,
    "at risk": 166,
    "watch": 136,
    "fine": 67,
    "untested": 244,
    # Outcomes of a check, in the colours of the verdicts that they come from.
    "fail": 197,
    "pass": 67,
    "not measured": 244,
}
_RESET = "\x1b[0m"
# Terminals of Windows that understand colours announce themselves; the old console does not.
_WINDOWS_TERMINALS = ("WT_SESSION", "TERM", "ConEmuANSI", "ANSICON")


def has_colours(stream: TextIO) -> bool:
    """Whether text on a stream may be coloured.

    ``NO_COLOR`` forbids it, ``FORCE_COLOR`` wants it even in a pipe, each if it is not empty. Else
    a terminal has colours, unless ``TERM`` is ``dumb``. The order is the one of Python itself.
    https://no-color.org, https://force-color.org
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    if os.environ.get("TERM") == "dumb" or not stream.isatty():
        return False
    return sys.platform != "win32" or any(name in os.environ for name in _WINDOWS_TERMINALS)


def columns(stream: TextIO) -> int | None:
    """How many characters fit into a line; None where the lines go into a pipe or a file."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def coloured(text: str, word: str | None = None) -> str:
    """The text in the colour of a verdict, a band or an outcome.

    Args:
        word: colour only the first place where it stands; by default the text is the word.
    """
    word = text if word is None else word
    if word not in COLOURS:
        return text
    return text.replace(word, f"\x1b[38;5;{COLOURS[word]}m{word}{_RESET}", 1)


def outcomes_coloured(text: str) -> str:
    """The text with the outcome that a line begins with in its colour."""
    return "".join(_line_coloured(line) for line in text.splitlines(keepends=True))


def _line_coloured(line: str) -> str:
    outcome = next((word for word in COLOURS if line.startswith(f"{word} ")), None)
    return line if outcome is None else coloured(line, outcome)
