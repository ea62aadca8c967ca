"""How much memory there is, and how much this process has needed."""

import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path

try:
    import resource
except ImportError:
    # Windows.
    resource = None  # type: ignore[assignment]

# Where Linux says which control groups this process belongs to, and what they may take.
CGROUPS_OF_PROCESS = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")
# So many new objects make Python look for cycles; by default 700 do. Large graphs have as many.
OBJECTS_PER_COLLECTION = 500_000
# Parameters of glibc's mallopt, by their numbers in malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def available_bytes() -> int | None:
    """What the machine has, or what the container may take of it; None where nobody tells."""
    limits = container_limits()
    with contextlib.suppress(AttributeError, OSError, ValueError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def container_limits() -> list[int]:
    """Every limit in bytes that a control group of Linux, version 1 or 2, sets on this process.

    Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max) and
    https://docs.kernel.org/admin-guide/cgroup-v1/memory.html (memory.limit_in_bytes). A container
    sees its own group as the root; elsewhere the groups around the own one count as well.
    """
    try:
        lines = CGROUPS_OF_PROCESS.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    limits = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            folder, name = CGROUP_ROOT, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = CGROUP_ROOT / "memory", "memory.limit_in_bytes"
        else:
            continue
        path = Path(group.lstrip("/"))
        for parent in (path, *path.parents):
            # "max" is no number: no limit. Version 1 says so with a number beyond any machine's.
            with contextlib.suppress(OSError, ValueError):
                limits.append(int((folder / parent / name).read_text("ascii")))
    return limits


def peak_bytes() -> int | None:
    """The most memory this process has had so far; None where the system does not tell."""
    # Not getrusage's: Linux lets it begin with what the parent had when it started the child.
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return None if resource is None else _in_bytes(resource.RUSAGE_SELF)


def peak_bytes_with_children() -> int | None:
    """The most that this process, or one that it started and that is over, has had so far."""
    peak = peak_bytes()
    if peak is None or resource is None:
        return peak
    return max(peak, _in_bytes(resource.RUSAGE_CHILDREN))


def _in_bytes(who: int) -> int:
    peak = resource.getrusage(who).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def give_back() -> None:
    """Return to the system what was freed and is still kept in reserve.

    glibc keeps hundreds of megabytes of a large session. Giving every block back at once, by its
    threshold, would take five times as long.
    """
    # Only glibc has it.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed() -> None:
    """Have the allocator keep what is freed: the next run of a network asks for as much again.

    Left alone, glibc gives the end of its heap back to the system when it happens to be free, and
    the system clears each page before it hands it out again. Blocks beyond 32 MB are given back.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        allocator = ctypes.CDLL(None)
        for parameter, nbytes in ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 256 << 20)):
            allocator.mallopt(parameter, nbytes)


def collect_rarely() -> None:
    """Have Python look for cycles rarely, for a process that works on one model at a time.

    A graph has tens of thousands of objects, which live as long as its model is worked on, and all
    that was imported is looked at as well. Between two models somebody must look.
    """
    gc.set_threshold(OBJECTS_PER_COLLECTION)
