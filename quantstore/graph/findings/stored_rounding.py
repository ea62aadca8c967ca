"""What an integer file keeps of its own weights with float activations."""

import math
from collections.abc import Iterator

from quantstore.graph.findings.base import OfRun, RunFigures, Sentences, StoredRoundingFigures


def _look(figures: RunFigures) -> Iterator[Sentences]:
    if not isinstance(figures, StoredRoundingFigures) or math.isnan(figures.output_sqnr_db):
        return
    yield Sentences(
        f"The stored activation grids leave an output SQNR of {figures.output_sqnr_db:.1f} dB,"
        " compared with the same weights and float activations (estimated with noise). The loss of"
        " the weights is unknown without the float file.",
        "Audit the file against the float file that it was made from: quantstore audit FLOAT INT8.",
    )


STORED_ROUNDING = OfRun(
    name="stored rounding",
    severity="note",
    meaning=(
        "The file rounds activations on stored grids; the output SQNR against the same"
        " weights with float activations (measured by running both on noise)."
    ),
    look=_look,
)
