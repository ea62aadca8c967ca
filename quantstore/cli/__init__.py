"""The command line: parse, call the same functions as the pages, print.

Standard output carries data, standard error carries talk. Everything heavy is imported by the
command that needs it, so that ``quantstore --help`` answers at once. Each module holds commands of
one kind, and importing it makes them known.
"""

from quantstore.cli import app, check, ingest, inspect, label, maintain, simulate
from quantstore.cli.output import INTERRUPTED, OK, SOME_FAILED, USAGE
from quantstore.cli.root import commands, main

__all__ = [
    "INTERRUPTED",
    "OK",
    "SOME_FAILED",
    "USAGE",
    "app",
    "check",
    "commands",
    "ingest",
    "inspect",
    "label",
    "main",
    "maintain",
    "simulate",
]
