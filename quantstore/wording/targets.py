"""What is said of targets: what stayed in float, and which figures are missing."""

from collections.abc import Mapping, Sequence

from quantstore.errors import printable
from quantstore.records import SimulationRecord
from quantstore.wording.text import listed, short_name
from quantstore.wording.units import counted

# More names than these are only length.
MOST_NAMES = 3
LONGEST_NAME = 40


def stayed_in_float(names: Sequence[str], *, is_repeated: bool = False) -> str:
    """Which layers a target left in float, as plain text; empty where it left none.

    Args:
        is_repeated: whether these very layers were named before.
    """
    if not names:
        return ""
    if is_repeated:
        return f"The same {counted(len(names), 'layer')} stayed in float"
    shown = [short_name(printable(name), LONGEST_NAME) for name in names[:MOST_NAMES]]
    if len(names) > len(shown):
        shown.append(f"{len(names) - len(shown):,} more")
    return f"{counted(len(names), 'layer')} stayed in float: {listed(shown)}"


def missing_figures(
    records: Sequence[SimulationRecord], kept_db: Mapping[str, float]
) -> tuple[str, ...]:
    """A line for each target without a figure, as plain text: why, and which earlier one stays.

    Args:
        kept_db: the earlier figures that stay, by target.
    """
    return tuple(
        f"{record.target}: {printable(record.failure)}"
        + (
            f"; the earlier value of {kept_db[record.target]:.1f} dB is kept"
            if record.target in kept_db
            else ""
        )
        for record in records
        if record.target is not None and record.failure is not None
    )
