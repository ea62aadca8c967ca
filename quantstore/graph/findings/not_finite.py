"""Weights that are no numbers."""

from collections.abc import Iterator

from quantstore.graph.findings.base import MeasuredLayer, OfLayer, Sentences


def _look(measured: MeasuredLayer) -> Iterator[Sentences]:
    count = measured.nonfinite_count
    if count:
        yield Sentences(
            f"{count:,} of {measured.layer.weights.size:,} weights"
            f" {'is' if count == 1 else 'are'} NaN or infinite. No integer can represent"
            " such weights; all values leave them out.",
            "Train or export the layer again; clip values that overflowed in the"
            " conversion to float16.",
        )


NOT_FINITE = OfLayer(
    name="not finite",
    severity="problem",
    meaning="Weights are NaN or infinite.",
    look=_look,
)
