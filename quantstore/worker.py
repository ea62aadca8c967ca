"""One file in, JSON lines out: how the app ingests, in a process of its own.

A process can be cancelled, and a crash inside a parser takes down nothing else. Lines on standard
output are ``{"progress": {...}}`` and, last, ``{"result": {...}}``.
"""

import dataclasses
import json
import sys
from pathlib import Path

from quantstore.errors import QuantstoreError
from quantstore.ingest import Choices, IngestResult, Progress, ingest_file


def main(arguments: list[str]) -> int:
    """Ingest ``PATH`` into ``STORE``; ``SOURCE`` is what the store says of the file's origin.

    Args:
        arguments: ``STORE PATH SOURCE [--no-probe]``.
    """
    store_path, path, source, *options = arguments
    choices = Choices(source=source, probe="--no-probe" not in options)
    try:
        result = ingest_file(Path(path), Path(store_path), choices, _report)
    except QuantstoreError as error:
        result = IngestResult(path=path, outcome="failed", error=error.sentence)
    _say({"result": dataclasses.asdict(result)})
    return 0


def _report(progress: Progress) -> None:
    _say({"progress": dataclasses.asdict(progress)})


def _say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
