"""Activations of an integer file whose stored grids are too narrow."""

from collections.abc import Iterator

from quantstore.graph.findings.base import (
    MOST_NAMED,
    OfRun,
    RunFigures,
    Sentences,
    StoredRoundingFigures,
    short,
)

# Above, nobody misses what is lost.
_HARMLESS_FROM_DB = 20.0


def _look(figures: RunFigures) -> Iterator[Sentences]:
    if not isinstance(figures, StoredRoundingFigures) or not figures.saturated:
        return
    if not figures.output_sqnr_db < _HARMLESS_FROM_DB:
        return
    named = "; ".join(
        f"{short(tensor.name)} ends at {tensor.low:.3g} and {tensor.high:.3g}, with"
        f" {tensor.share:.1%} of its values beyond, and keeps {tensor.sqnr_db:.1f} dB"
        for tensor in figures.saturated[:MOST_NAMED]
    )
    others = len(figures.saturated) - MOST_NAMED
    more = f"; {others} more" if others > 0 else ""
    yield Sentences(
        f"Stored activation grids are too narrow (estimated with noise): {named}{more}. Output"
        f" SQNR is {figures.output_sqnr_db:.1f} dB.",
        "Calibrate the file again on real inputs, with a wider range for these tensors.",
    )


STORED_SATURATION = OfRun(
    name="stored saturation",
    severity="warning",
    meaning=(
        "Values lie beyond the stored grids of activations, and the output SQNR is"
        " below 20 dB against the same weights with float activations (measured on noise)."
    ),
    look=_look,
)
