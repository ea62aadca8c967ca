"""A handful of numbers through a grid, step by step: what is stored, what returns, what merges.

Text and a scheme in, an :class:`Example` out. The arithmetic is the one that measures models.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd

from quantstore.errors import QuantstoreError
from quantstore.numerics.quantization import (
    SMALLEST_SCALE,
    dequantize,
    grid_for,
    measure_error,
    quantize,
    sqnr_db,
)
from quantstore.records import Floats
from quantstore.schemes import Scheme
from quantstore.wording.text import listed
from quantstore.wording.units import MINUS, db, with_minus

# The values of "Accuracy Degradation After Quantization", the article this page is about.
ARTICLE_VALUES = "-51.35, 165.52, 0.4, -0.4, 0.5, 1.2"

# More than this is a layer, not an example.
MOST_VALUES = 64
# What returns may lie half a step outside the range and must still be a float32.
LARGEST_VALUE = 1e30
# An enlarged stretch with more grid points than this is no enlargement.
MOST_CODES_ENLARGED = 9

GROUPS_NAMED = 3
VALUES_NAMED = 4


class UnreadableValuesError(QuantstoreError):
    """What was typed is no list of numbers."""


@dataclass(frozen=True, slots=True)
class Merged:
    """Different values that share one code and so return as one: ``values`` as they were given."""

    code: int
    returned: float
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """Values, their codes and what returns, one entry each; the grid; and what merged.

    ``scale`` is the step between neighbouring grid points, ``zero_point`` the code of 0. ``low``
    and ``high`` are the range, widened to include 0. ``merged`` holds the largest group first.
    SQNR is in dB, infinite where nothing moved and NaN where every value is 0.
    """

    scheme: Scheme
    values: tuple[float, ...]
    codes: tuple[int, ...]
    returned: tuple[float, ...]
    scale: float
    zero_point: int
    low: float
    high: float
    merged: tuple[Merged, ...]
    sqnr_db: float
    merged_sqnr_db: float

    @property
    def has_range(self) -> bool:
        """Whether the values span anything a grid could divide; else the scale is 1 by rule."""
        span = max(-self.low, self.high) if self.scheme.is_symmetric else self.high - self.low
        return span / self.scheme.qmax >= SMALLEST_SCALE

    @property
    def distinct_count(self) -> int:
        """How many different values there are."""
        return len(set(self.values))

    @property
    def merged_count(self) -> int:
        """How many different values lost their difference."""
        return sum(len(group.values) for group in self.merged)

    def grid_point(self, code: int) -> float:
        """What a code returns as."""
        return self.scale * (code - self.zero_point)

    def group_of(self, position: int) -> int | None:
        """The index in ``merged`` of the group that a value belongs to, if any."""
        code = self.codes[position]
        return next((i for i, group in enumerate(self.merged) if group.code == code), None)


def parse_values(text: str) -> tuple[float, ...]:
    """The numbers in a text: separated by commas, semicolons or white space, brackets ignored.

    Raises:
        UnreadableValuesError: naming the first entry that is no finite number.
    """
    entries = [entry for entry in re.split(r"[\s,;()\[\]{}]+", text) if entry]
    values = [_number(entry) for entry in entries]
    if len(values) > MOST_VALUES:
        raise UnreadableValuesError(
            f"these are {len(values):,} values", f"the page shows at most {MOST_VALUES}"
        )
    return tuple(values)


def work_out(values: Sequence[float], scheme: Scheme) -> Example:
    """Send at least one value through the grid that the scheme lays over all of them."""
    row = np.array([values], dtype=np.float32)
    grid = grid_for(row, scheme)
    codes = quantize(row, grid)
    returned = dequantize(codes, grid)[0]
    whole_codes = tuple(int(code) for code in codes[0])
    # A minus zero would read as a difference where there is none.
    returns = tuple(float(value) + 0.0 for value in returned)
    merged = _merged(values, whole_codes, returns)
    in_groups = np.isin(codes[0], [group.code for group in merged])
    moved = (returned - row[0])[in_groups].astype(np.float64)
    kept = row[0][in_groups].astype(np.float64)
    noise, signal = float(moved @ moved), float(kept @ kept)
    return Example(
        scheme=scheme,
        values=tuple(values),
        codes=whole_codes,
        returned=returns,
        scale=float(grid.scale[0, 0]),
        zero_point=int(grid.zero_point[0, 0]),
        low=min(0.0, *values),
        high=max(0.0, *values),
        merged=merged,
        sqnr_db=measure_error(row, scheme).sqnr_db if row.any() else math.nan,
        merged_sqnr_db=10 * math.log10(signal / noise) if noise and signal else math.nan,
    )


# Three small kernels, the third of which is the one that grows.
KERNELS = ((0.31, -0.22, 0.08, 0.17), (-0.12, 0.05, 0.19, -0.26), (0.24, -0.3, 0.4, -0.15))
WIDENINGS = ("1", "10", "100", "1000")


@dataclass(frozen=True, slots=True)
class Kernel:
    """One output channel: its weights, and what returns where it shares a scale or has its own.

    SQNR is in dB, infinite where nothing moved.
    """

    values: tuple[float, ...]
    shared_returned: tuple[float, ...]
    own_returned: tuple[float, ...]
    shared_db: float
    own_db: float


@dataclass(frozen=True, slots=True)
class ExampleLayer:
    """Kernels under one scale for all, and under one scale each; the steps, and the SQNR of all."""

    kernels: tuple[Kernel, ...]
    shared_step: float
    own_steps: tuple[float, ...]
    shared_db: float
    own_db: float


def kernels(widening: float, scheme: Scheme) -> ExampleLayer:
    """The three kernels, the third so many times as wide, per tensor and per channel.

    Args:
        scheme: per tensor; its bits and its symmetry serve for both.
    """
    weights = np.array(KERNELS, dtype=np.float32)
    weights[-1] *= np.float32(widening)
    per_channel = replace(scheme, granularity="channel")
    shared_grid, own_grid = grid_for(weights, scheme), grid_for(weights, per_channel)
    shared_returned = dequantize(quantize(weights, shared_grid), shared_grid)
    own_returned = dequantize(quantize(weights, own_grid), own_grid)

    def decibels(returned: Floats, axis: int | None) -> list[float]:
        exact = weights.astype(np.float64)
        moved = returned - exact
        return list(map(float, np.atleast_1d(sqnr_db((exact**2).sum(axis), (moved**2).sum(axis)))))

    channels = zip(
        weights.tolist(),
        shared_returned.tolist(),
        own_returned.tolist(),
        decibels(shared_returned, 1),
        decibels(own_returned, 1),
        strict=True,
    )
    return ExampleLayer(
        kernels=tuple(
            Kernel(
                tuple(values), _plus_zero(shared_values), _plus_zero(own_values), shared_db, own_db
            )
            for values, shared_values, own_values, shared_db, own_db in channels
        ),
        shared_step=float(shared_grid.scale.flat[0]),
        own_steps=tuple(own_grid.scale.ravel().tolist()),
        shared_db=decibels(shared_returned, None)[0],
        own_db=decibels(own_returned, None)[0],
    )


def kernels_headline(layer: ExampleLayer, limit_db: float) -> str:
    """``2 of 3 channels are lost, although the whole tensor has 43.9 dB; per channel, none is``.

    A channel is lost below ``limit_db``.
    """
    total = len(layer.kernels)
    lost = sum(kernel.shared_db < limit_db for kernel in layer.kernels)
    still_lost = sum(kernel.own_db < limit_db for kernel in layer.kernels)
    whole = db(layer.shared_db)
    if not lost:
        return (
            f"No channel is lost: all {total} reach {limit_db:g} dB; the whole tensor has {whole}"
        )
    verb = "is lost" if lost == 1 else "are lost"
    although = "although the whole tensor has" if layer.shared_db >= limit_db else "the tensor has"
    per_channel = (
        f"{still_lost} still {'is' if still_lost == 1 else 'are'}" if still_lost else "none is"
    )
    return f"{lost} of {total} channels {verb}, {although} {whole}; per channel, {per_channel}"


def _plus_zero(values: Sequence[float]) -> tuple[float, ...]:
    # A minus zero would read as a difference where there is none.
    return tuple(value + 0.0 for value in values)


def number(value: float) -> str:
    """A value as it was typed, to seven digits, which is what float32 keeps: ``−51.35``."""
    return with_minus(f"{value + 0.0:.7g}")


def on_grid(value: float, scale: float) -> str:
    """A returned value or an error, with two digits below the step: ``165.84``, ``0.85``."""
    if value == 0 and scale >= 1e-4:
        return f"{0:.{_decimals(scale)}f}"
    if not 1e-4 <= scale < 1e6:
        return with_minus(f"{value:.4g}")
    text = f"{value:.{_decimals(scale)}f}"
    return with_minus(text) if text.strip("-0.") else text.lstrip("-")


def headline(example: Example) -> str:
    """The answer: ``4 of 6 values merge: 0.4 and −0.4 become 0.00; 0.5 and 1.2 become 0.85``."""
    count = example.distinct_count
    if count == 1:
        return "A single value has nothing to merge with"
    if not example.merged:
        if count == 2:
            return "The two values stay apart: each keeps a code of its own"
        return f"No two of {count} values merge: each keeps a code of its own"
    named = [
        f"{_abridged(group.values)} become {on_grid(group.returned, example.scale)}"
        for group in example.merged[:GROUPS_NAMED]
    ]
    unnamed_count = len(example.merged) - GROUPS_NAMED
    if unnamed_count > 0:
        named.append(f"and {unnamed_count} more group{'' if unnamed_count == 1 else 's'}")
    return f"{example.merged_count} of {count} values merge: {'; '.join(named)}"


def same_as(example: Example, position: int) -> str:
    """What a value can no longer be told from: ``same as −0.4``; empty where it stands alone."""
    index = example.group_of(position)
    if index is None:
        return ""
    value = example.values[position]
    others = [other for other in example.merged[index].values if other != value]
    return f"same as {_abridged(others)}"


def widest_apart(example: Example) -> float | None:
    """The value to leave out if the others are to get a finer grid; None where none helps."""
    if example.distinct_count < 3:
        return None
    extreme = max(example.values, key=abs)
    remaining = [value for value in example.values if value != extreme]
    return extreme if work_out(remaining, example.scheme).scale < 0.9 * example.scale else None


def enlarged_codes(example: Example) -> range | None:
    """The codes worth a closer look: around most of what merged, else around the closest values.

    None where there is nothing that the whole range does not show as well.
    """
    if example.merged:
        first, last = _busiest(example.merged)
    else:
        pairs = sorted({*zip(example.values, example.codes, strict=True)})
        if len(pairs) < 2:
            return None
        closest = min(pairwise(pairs), key=lambda pair: pair[1][0] - pair[0][0])
        first, last = closest[0][1], closest[1][1]
    scheme = example.scheme
    codes = range(max(scheme.qmin, first - 1), min(scheme.qmax, last + 1) + 1)
    return codes if len(codes) <= MOST_CODES_ENLARGED else None


def points(example: Example) -> pd.DataFrame:
    """One row per different value: where it is, where it goes, and in which words."""
    rows = {}
    for position, value in enumerate(example.values):
        group = example.group_of(position)
        returned = example.returned[position]
        rows[value] = {
            "value": value,
            "returned": returned,
            "code": example.codes[position],
            "group": -1 if group is None else group,
            "label": number(value),
            "returned_label": on_grid(returned, example.scale),
            "error_label": on_grid(returned - value, example.scale),
            "merged_label": same_as(example, position) or "stays apart",
        }
    return pd.DataFrame(list(rows.values()))


def grid_points(example: Example, codes: range) -> pd.DataFrame:
    """One row per code: the value it returns as, and the group that merged there."""
    groups = {group.code: index for index, group in enumerate(example.merged)}
    return pd.DataFrame(
        {
            "code": list(codes),
            "position": [example.grid_point(code) for code in codes],
            "label": [on_grid(example.grid_point(code), example.scale) for code in codes],
            "group": [groups.get(code, -1) for code in codes],
        }
    )


def _busiest(merged: Sequence[Merged]) -> tuple[int, int]:
    """First and last code of the stretch, short enough to enlarge, where most values merge."""
    longest = MOST_CODES_ENLARGED - 2
    stretches = []
    for start in merged:
        inside = [group for group in merged if 0 <= group.code - start.code < longest]
        size = sum(len(group.values) for group in inside)
        stretches.append((-size, start.code, max(group.code for group in inside)))
    _, first, last = min(stretches)
    return first, last


def _number(entry: str) -> float:
    hint = "write numbers such as 0.4, with commas or spaces between them"
    try:
        value = float(entry.replace(MINUS, "-"))
    except ValueError:
        raise UnreadableValuesError(f"“{_clipped(entry)}” is not a number", hint) from None
    if not math.isfinite(value):
        raise UnreadableValuesError(
            f"“{_clipped(entry)}” cannot be placed on a grid", "every value has to be finite"
        )
    if abs(value) > LARGEST_VALUE:
        raise UnreadableValuesError(
            f"“{_clipped(entry)}” is too large", f"stay within ±{LARGEST_VALUE:g}"
        )
    return value


def _clipped(entry: str) -> str:
    return entry if len(entry) <= 24 else entry[:23] + "…"


def _merged(
    values: Sequence[float], codes: Sequence[int], returned: Sequence[float]
) -> tuple[Merged, ...]:
    by_code: dict[int, dict[float, None]] = {}
    for value, code in zip(values, codes, strict=True):
        by_code.setdefault(code, {})[value] = None
    points = dict(zip(codes, returned, strict=True))
    groups = [
        Merged(code, points[code], tuple(members))
        for code, members in by_code.items()
        if len(members) > 1
    ]
    return tuple(sorted(groups, key=lambda group: -len(group.values)))


def _abridged(values: Sequence[float]) -> str:
    if len(values) <= VALUES_NAMED:
        return listed([number(value) for value in values])
    first = VALUES_NAMED - 1
    names = [number(value) for value in values[:first]]
    return listed([*names, f"{len(values) - first} more"])


def _decimals(scale: float) -> int:
    """Decimals that show two digits below the step, never fewer than money has."""
    return max(2, 1 - math.floor(math.log10(scale)))
