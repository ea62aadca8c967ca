"""How much memory a command takes at its peak, with all the processes it starts.

Linux only: it reads ``/proc``. The proportional set size (PSS) counts a page that several
processes share once, and mapped files as far as they are resident.
"""

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from timing import UnavailableError

SAMPLE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Peak:
    """Peaks of one run, in bytes.

    ``tree_pss`` is the largest sum over the process and its descendants at any sample;
    ``root_rss`` is what the kernel noted as the most that the process itself, or any one of its
    children, had resident.
    """

    tree_pss: int
    root_rss: int


def peak_memory(command: Sequence[object]) -> Peak:
    """Run a command and watch it.

    Raises:
        UnavailableError: it failed.
    """
    process = subprocess.Popen(
        [*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    largest = 0
    is_over = threading.Event()

    def watch() -> None:
        nonlocal largest
        while not is_over.wait(SAMPLE_SECONDS):
            largest = max(largest, sum(_pss(pid) for pid in _tree(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        errors = process.stderr.read() if process.stderr else ""
        # Not process.wait(), which keeps the resource usage to itself.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        is_over.set()
        watcher.join()
        if process.stderr:
            process.stderr.close()
    if process.returncode:
        raise UnavailableError(f"failed: {(errors.strip().splitlines() or ['no message'])[-1]}")
    return Peak(tree_pss=largest, root_rss=usage.ru_maxrss * 1024)


def _tree(root: int) -> Iterator[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            parent = _parent(entry)
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def _parent(entry: Path) -> int | None:
    try:
        # The second field is a name in parentheses, which may hold anything.
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _pss(pid: int) -> int:
    """In bytes; 0 of a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
