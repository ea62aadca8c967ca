"""Outputs that become NaN or infinite in int8, and the operator that makes them so."""

import shlex
from collections.abc import Iterator

from quantstore.graph.findings.base import LostFigures, OfRun, RunFigures, Sentences, short
from quantstore.schemes import LOST_DB

_UNDEFINED_AT_ZERO = ("Log", "Div", "Reciprocal", "ReduceLogSum")


def _look(figures: RunFigures) -> Iterator[Sentences]:
    if not isinstance(figures, LostFigures):
        return
    node, tensor = short(figures.node), short(figures.tensor)
    cause = ", whose small values round to 0" if figures.op_type in _UNDEFINED_AT_ZERO else ""
    yield Sentences(
        f"In int8 the network returns NaN or infinity. {node} ({figures.op_type}) is the first"
        f" operator to compute one: it reads {tensor}{cause}. Such an output"
        f" counts as \u2212\u221e dB (stored as {LOST_DB:.0f}).",
        f"Keep {tensor} in float (--exclude {shlex.quote(figures.tensor)}).",
    )


INFINITE_OUTPUT = OfRun(
    name="infinite output",
    severity="warning",
    meaning="Rounding makes an output NaN or infinite, which is finite in float (measured).",
    look=_look,
)
