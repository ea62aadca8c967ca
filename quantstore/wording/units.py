"""Figures with their units, in the words of a person."""

import math
from collections.abc import Iterable
from datetime import datetime

from quantstore.schemes import LOST_DB

NO_BREAK_SPACE = "\u00a0"
MINUS = "\u2212"


NOTHING_KEPT = f"{MINUS}\u221e{NO_BREAK_SPACE}dB"


def db(value: float | None, *, signed: bool = False) -> str:
    """``12.2 dB``; an exact layer has an infinite ratio and is called ``exact``.

    An output that is NaN or infinite in int8 keeps ``−∞ dB``.
    """
    if value is None or not math.isfinite(value):
        return "exact"
    if value == LOST_DB:
        return NOTHING_KEPT
    text = f"{value:+.1f}" if signed else f"{tenths(value):.1f}"
    return with_minus(text).replace("+0.0", "0.0").replace(f"{MINUS}0.0", "0.0") + spaced("dB")


def tenths(value: float) -> float:
    """A figure to one decimal, and never a whole number that it does not reach.

    Limits are whole numbers: a layer to watch with 29.96 dB must not read 30.0, which is fine.
    """
    rounded = round(value, 1) + 0.0  # no minus zero
    is_short = 0 < value < rounded and rounded.is_integer()
    return rounded - 0.1 if is_short else rounded


def count(value: int) -> str:
    """``8,991``."""
    return f"{value:,}"


def counted(value: int, noun: str) -> str:
    """``1 layer``, ``24 layers``."""
    return f"{value:,}{NO_BREAK_SPACE}{noun}{'' if value == 1 else 's'}"


def weights(value: int) -> str:
    """``977 k``, ``2.29 M``: three significant digits."""
    if value < 1000:
        return str(value)
    thousands = value / 1000
    for unit in ("k", "M"):
        if thousands < 999.5:
            return f"{thousands:.3g}{spaced(unit)}"
        thousands /= 1000
    return f"{thousands:.3g}{spaced('G')}"


def file_size(value: int) -> str:
    """``4.0 MB``, ``102 MB``: decimal units, as disks are sold."""
    if value < 1000:
        return f"{value}{spaced('B')}"
    scaled, units = value / 1000, ["kB", "MB", "GB"]
    while scaled >= 999.5 and len(units) > 1:
        scaled, units = scaled / 1000, units[1:]
    return f"{scaled:.{0 if scaled >= 99.95 else 1}f}{spaced(units[0])}"


def share(value: float, *, digits: int = 0) -> str:
    """``77 %``; a share that is not zero never reads ``0 %``."""
    percent = 100 * value
    smallest = 10.0**-digits
    if 0 < percent < smallest / 2:
        return f"<{NO_BREAK_SPACE}{smallest:g}{spaced('%')}"
    return f"{percent:.{digits}f}{spaced('%')}"


def weight(value: float | None) -> str:
    """A range or a weight: ``211.8`` from 10 on, else three significant digits."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return with_minus(f"{value:.2e}")
    if abs(value) >= 9.995:
        return with_minus(f"{value:,.1f}")
    return with_minus(f"{value:#.3g}")


def times(ratio: float, sign: str = "×") -> str:
    """``1.5×``, ``67×``."""
    return f"{ratio:.1f}{sign}" if ratio < 9.95 else f"{count(round(ratio))}{sign}"


def bits(value: float | None) -> str:
    """``1.5 bits``."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.1f}{spaced('bits')}"


def seconds(value: float) -> str:
    """``0.9 s``, ``14 ms``."""
    if value < 0.0995:
        return f"{1000 * value:.0f}{spaced('ms')}"
    return f"{value:.1f}{spaced('s')}"


def shape(dimensions: Iterable[int]) -> str:
    """``64 × 1 × 3 × 3``."""
    return " × ".join(str(dimension) for dimension in dimensions)


def with_minus(text: str) -> str:
    """The text with true minus signs."""
    return text.replace("-", MINUS)


def moment(when: datetime) -> str:
    """``28 Nov 2026, 11:25``."""
    return f"{when.day} {when:%b %Y, %H:%M}"


def spaced(unit: str) -> str:
    """A unit behind its figure, on the same line."""
    return NO_BREAK_SPACE + unit
