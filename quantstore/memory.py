"""How much memory this process has needed."""

import contextlib
import sys
from pathlib import Path

try:
    import resource
except ImportError:
    # Windows.
    resource = None  # type: ignore[assignment]


def peak_bytes() -> int | None:
    """The most memory this process has had so far; None where the system does not tell."""
    # Not getrusage's: Linux lets it begin with what the parent had when it started the child.
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return None if resource is None else _in_bytes(resource.RUSAGE_SELF)


def peak_bytes_with_children() -> int | None:
    """The most that this process, or one that it started and that is over, has had so far."""
    own = peak_bytes()
    if own is None or resource is None:
        return own
    return max(own, _in_bytes(resource.RUSAGE_CHILDREN))


def _in_bytes(who: int) -> int:
    peak = resource.getrusage(who).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
