"""What a child may take: processor time, time on the clock, memory, files.

The parent decides (:class:`ChildLimits`) and the child puts them on itself (:func:`put_on`),
because code between fork and exec is not safe in a process with threads. The operating system then
keeps them, also where the parent is gone or the child no longer listens.
"""

import contextlib
import math
import os
import signal
import time
from dataclasses import dataclass

from quantstore.process import memory

try:
    import resource
except ImportError:
    # Windows knows no such limits: the parent's clock must do.
    resource = None  # type: ignore[assignment]

# Of what the machine has, or the container may take: the app and the system keep the rest.
MEMORY_SHARE = 0.75
# Libraries reserve addresses that they never use, about one GiB of them.
LEAST_ADDRESS_SPACE_BYTES = 4 << 30
# Stacks and buffers of threads, of which libraries start some for each core, are hardly used; the
# limit on memory counts them all the same.
RESERVED_BYTES = 1 << 30
RESERVED_BYTES_PER_CORE = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildLimits:
    """What a child may take for one request; None for as much as it likes.

    Args:
        cpu_seconds: of all its threads together; a busy computer does not change what it may do.
        wall_seconds: from the request on, the start of Python included.
        memory_bytes: memory of its own (heap, stacks, anonymous mappings), used or reserved.
        address_space_bytes: everything that it maps, used or not.
        may_write_files: False makes every write to a file fail.
    """

    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    memory_bytes: int | None = None
    address_space_bytes: int | None = None
    may_write_files: bool = True


def memory_bytes() -> int | None:
    """What a child may have: a share of the machine's or the container's, and what is reserved."""
    available = memory.available_bytes()
    if available is None:
        return None
    reserved = RESERVED_BYTES + (os.cpu_count() or 1) * RESERVED_BYTES_PER_CORE
    return int(MEMORY_SHARE * available) + reserved


def sharing_memory(
    *, cpu_seconds: float | None = None, wall_seconds: float | None = None
) -> ChildLimits:
    """The limits of a child that may have its share of the memory, and write files."""
    share = memory_bytes()
    return ChildLimits(
        cpu_seconds=cpu_seconds,
        wall_seconds=wall_seconds,
        memory_bytes=share,
        address_space_bytes=None if share is None else max(LEAST_ADDRESS_SPACE_BYTES, share),
    )


def put_on(limits: ChildLimits) -> None:
    """Limit this process from now on; clocks start anew, other limits only become tighter."""
    if resource is not None:
        if limits.memory_bytes is not None:
            # Unlike the address space it leaves out mapped files and what nobody can write to.
            # macOS does not count all of it there.
            _lower(resource.RLIMIT_DATA, limits.memory_bytes)
        if limits.address_space_bytes is not None:
            _lower(resource.RLIMIT_AS, limits.address_space_bytes)
        if not limits.may_write_files:
            _lower(resource.RLIMIT_FSIZE, 0)
        # A core file of gigabytes helps nobody.
        _lower(resource.RLIMIT_CORE, 0)
        if limits.cpu_seconds is not None:
            _stop_after_cpu_seconds(limits.cpu_seconds)
    if limits.wall_seconds is not None and hasattr(signal, "setitimer"):
        # The alarm ends the process without asking whether it listens; 0 would switch it off.
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, limits.wall_seconds))


def take_off_clocks() -> None:
    """Stop both clocks: between two requests a child may wait for ever."""
    if resource is not None and _cpu_limit_before:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (_cpu_limit_before.pop(), hard))
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


def _stop_after_cpu_seconds(seconds: float) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if not _cpu_limit_before:
        _cpu_limit_before.append(soft)
    # The system counts whole seconds. The hard limit stays, so that the next request gets its own.
    allowed = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (_lowest(allowed, _cpu_limit_before[0], hard), hard))


# The limit that this process began with, while it has another.
_cpu_limit_before: list[int] = []


def _lower(limit: int, value: int) -> None:
    lowest = _lowest(value, *resource.getrlimit(limit))
    # macOS refuses some of them.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(limit, (lowest, lowest))


def _lowest(*values: int) -> int:
    return min(value for value in values if value != resource.RLIM_INFINITY)
