"""Which layers cost how much: quantize one at a time, and all but one, and look at the outputs.

One session for all of it: what is quantized is an input. Loading a model costs more than running
it.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from quantstore.errors import RunError
from quantstore.records import Array
from quantstore.run.choices import ReportSteps
from quantstore.run.comparison import Reference
from quantstore.run.inputs import Samples
from quantstore.run.runtime import Session

Scope = Literal["alone", "all but"]
SCOPES: tuple[Scope, ...] = ("alone", "all but")
# Enough for a ranking; fewer where the budget does not allow for so many.
MOST_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """The SQNR at the outputs with one layer quantized alone, or all but this one."""

    depth: int
    scope: Scope
    output_sqnr_db: float
    sample_count: int


class Switchboard(Protocol):
    """A model whose layers can be quantized one by one; layers go by their depth."""

    @property
    def session(self) -> Session:
        """The model."""
        ...

    @property
    def depths(self) -> Sequence[int]:
        """The layers that can be quantized."""
        ...

    def settings(self, quantized: frozenset[int], *, rest: bool) -> Mapping[str, Array]:
        """What to feed so that these layers are quantized, and the rest of the graph or not."""
        ...


@dataclass(frozen=True, slots=True)
class SwappedWeights:
    """Weights are inputs: each layer is fed its float or its quantized ones."""

    session: Session
    depths: Sequence[int]
    names: Mapping[int, str]
    as_float: Mapping[int, Array]
    quantized: Mapping[int, Array]

    def settings(self, quantized: frozenset[int], *, rest: bool) -> Mapping[str, Array]:
        return {
            name: (self.quantized if depth in quantized else self.as_float)[depth]
            for depth, name in self.names.items()
        }


@dataclass(frozen=True, slots=True)
class Switches:
    """Every rounding has a switch; ``names`` by depth, None for operators that are no layers."""

    session: Session
    depths: Sequence[int]
    names: Mapping[int | None, str]

    def settings(self, quantized: frozenset[int], *, rest: bool) -> Mapping[str, Array]:
        return {
            name: np.array(rest if depth is None else depth in quantized)
            for depth, name in self.names.items()
        }


def measure_sensitivity(
    board: Switchboard,
    samples: Samples,
    compared: Sequence[str],
    budget_seconds: float,
    report: ReportSteps | None = None,
) -> tuple[LayerSensitivity, ...]:
    """Quantize each layer alone, then all but each, as far as the time allows.

    Args:
        compared: names of the outputs to compare.

    Returns:
        Two per layer; fewer where the budget ran out. Both scopes see the same samples.
    """
    started = time.perf_counter()
    everything = frozenset(board.depths)
    settings = [
        (depth, scope, frozenset([depth]) if scope == "alone" else everything - {depth})
        for scope in SCOPES
        for depth in board.depths
    ]
    nothing = board.settings(frozenset(), rest=False)
    expected = [board.session.run({**samples[0], **nothing}, compared)]
    # The first run is the slowest; the plan is a careful one.
    per_run = max(time.perf_counter() - started, 1e-6)
    affordable = int(budget_seconds / (per_run * max(len(settings), 1)))
    count = min(max(affordable, 1), MOST_SAMPLES, len(samples))
    chosen = samples.some([index * len(samples) // count for index in range(count)])
    feeds = [chosen[index] for index in range(count)]
    expected += [board.session.run({**feed, **nothing}, compared) for feed in feeds[1:]]
    reference = Reference(compared, expected)

    sensitivities = []
    for done, (depth, scope, quantized) in enumerate(settings):
        if time.perf_counter() - started > budget_seconds:
            break
        setting = board.settings(quantized, rest=scope == "all but")
        try:
            figure = reference.median_db(
                board.session.run({**feed, **setting}, compared) for feed in feeds
            )
        except RunError:
            # Not a number: the row has no figure.
            figure = math.nan
        sensitivities.append(LayerSensitivity(depth, scope, figure, count))
        if report is not None:
            report(done + 1, len(settings))
    return tuple(sensitivities)
