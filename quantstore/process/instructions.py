"""Which vector instructions numpy uses: decided before it loads, here and in children.

numpy sorts with AVX-512 wherever a processor has it. On AMD's Zen 4 that takes five times as long
as with AVX2, because these processors store compressed vectors in microcode, and everything here
begins with sorted weights. Nothing else loses by it: they compute 512 bits in two halves anyway.
"""

import contextlib
import os
from collections.abc import MutableMapping
from pathlib import Path

VARIABLE = "NPY_DISABLE_CPU_FEATURES"
# As numpy calls them from 2.4 on; an older one takes no notice.
AVX512 = "X86_V4 AVX512_ICL"
CPUINFO = Path("/proc/cpuinfo")
# The first processor is described in less.
_HEAD_BYTES = 1 << 13


def prefer_fast_sorting(
    environment: MutableMapping[str, str] = os.environ, cpuinfo: Path = CPUINFO
) -> None:
    """Choose for processes with this environment; what somebody chose before stands."""
    if VARIABLE not in environment and _is_zen_4(cpuinfo):
        environment[VARIABLE] = AVX512


def _is_zen_4(cpuinfo: Path) -> bool:
    """AMD's family 25 is Zen 3 and Zen 4, of which the latter has AVX-512."""
    text = ""
    # Only Linux has the file.
    with contextlib.suppress(OSError), cpuinfo.open("rb") as file:
        text = file.read(_HEAD_BYTES).decode("ascii", "replace")
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, content = line.partition(":")
        fields.setdefault(name.strip(), content.strip())
    return (
        fields.get("vendor_id") == "AuthenticAMD"
        and fields.get("cpu family") == "25"
        and "avx512f" in fields.get("flags", "").split()
    )
