"""The command line: parse, call the same functions as the pages, print.

Standard output carries data, standard error carries talk. Everything heavy is imported by the
command that needs it, so that ``quantstore --help`` answers at once. Each module holds commands of
one kind, and importing it makes them known.
"""

from quantstore.cli import ask, care, check, fill, label, migrate, runs, start
from quantstore.cli.exits import INTERRUPTED, OK, SOME_FAILED, USAGE
from quantstore.cli.root import commands, main

__all__ = [
    "INTERRUPTED",
    "OK",
    "SOME_FAILED",
    "USAGE",
    "ask",
    "care",
    "check",
    "commands",
    "fill",
    "label",
    "main",
    "migrate",
    "runs",
    "start",
]
