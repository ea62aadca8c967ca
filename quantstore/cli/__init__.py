"""The command line: parse, call the same functions as the pages, print.

Standard output carries data, standard error carries talk. Everything heavy is imported by the
command that needs it, so that ``quantstore --help`` answers at once. Each module of this folder
holds commands of one kind, and importing it makes them known: a new one is listed nowhere.
"""

import importlib
import pkgutil

from quantstore.cli.output import INTERRUPTED, OK, SOME_FAILED, USAGE
from quantstore.cli.root import commands, main

__all__ = ["INTERRUPTED", "OK", "SOME_FAILED", "USAGE", "commands", "main"]

for _name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_name}")
