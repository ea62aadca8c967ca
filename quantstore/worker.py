"""One file in, JSON lines out: how the app ingests, in a process of its own.

A process can be cancelled, and a crash inside a parser takes down nothing else; nor does a file
that asks for more memory than the machine has, because the process may not take all of it. Lines
on standard output are ``{"progress": {...}}`` and, last, ``{"result": {...}}``.
"""

import dataclasses
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from quantstore import logs
from quantstore.errors import QuantstoreError
from quantstore.ingestion import IngestChoices, IngestProgress, IngestResult, ingest_file

# Of the machine's memory, so that the app and the system keep the rest. The limit counts addresses,
# not pages in use, and libraries reserve more of those than they need: hence a least.
MEMORY_SHARE = 0.75
LEAST_MEMORY_BYTES = 4 << 30

_REPLACE = "--replace="


def main(arguments: list[str]) -> int:
    """Ingest ``PATH`` into ``STORE``; ``SOURCE`` is what the store says of the file's origin.

    Args:
        arguments: ``STORE PATH SOURCE [--no-probe] [--no-fold] [--replace=MODEL]``; the model of
            that name gets what the file holds now.
    """
    _limit_memory()
    store_path, path, source, *options = arguments
    replaced = next((one for one in options if one.startswith(_REPLACE)), None)
    choices = IngestChoices(
        source=source,
        probe="--no-probe" not in options,
        fold="--no-fold" not in options,
        replace=replaced is not None,
        name=None if replaced is None else replaced.removeprefix(_REPLACE),
    )
    try:
        with logs.logging_to(logs.handed_down()):
            result = ingest_file(Path(path), Path(store_path), choices, _report)
    except QuantstoreError as error:
        result = IngestResult(path=path, outcome="failed", error=error.sentence)
    _say({"result": dataclasses.asdict(result)})
    return 0


def _limit_memory() -> None:
    """Let allocations beyond the limit fail here instead of the system ending any process."""
    try:
        import resource
    except ImportError:
        # Windows knows no such limit.
        return
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        # A container has less than the machine; "max" says that it has not.
        machine = min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))
    limit = max(LEAST_MEMORY_BYTES, int(MEMORY_SHARE * machine))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    # macOS refuses; the limit is a safety net, not a condition.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def _report(progress: IngestProgress) -> None:
    _say({"progress": dataclasses.asdict(progress)})


def _say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
