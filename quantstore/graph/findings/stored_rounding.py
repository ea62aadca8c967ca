"""What an integer file keeps of its own weights with float activations."""

import math
from collections.abc import Iterator

from quantstore.graph.findings.base import OfRun, RunFigures, Sentences, StoredRoundingFigures


def _look(figures: RunFigures) -> Iterator[Sentences]:
    if not isinstance(figures, StoredRoundingFigures) or math.isnan(figures.output_sqnr_db):
        return
    yield Sentences(
        f"As stored, the int8 file keeps {figures.output_sqnr_db:.1f} dB of what its own weights"
        " give with float activations (estimated with noise). What its weights lost when they were"
        " rounded is unknown without the float file.",
        "Audit the file against the float file it was made from: quantstore audit FLOAT INT8.",
    )


STORED_ROUNDING = OfRun(
    name="stored rounding",
    severity="note",
    meaning=(
        "The file rounds activations on grids of its own: what it keeps of its own"
        " weights with float activations (measured by running both on noise)."
    ),
    look=_look,
)
