"""Weights that are no numbers."""

from collections.abc import Iterator

from quantstore.graph.findings.base import MeasuredLayer, OfLayer, Sentences


def _look(measured: MeasuredLayer) -> Iterator[Sentences]:
    count = measured.nonfinite_count
    if count:
        yield Sentences(
            f"{count:,} of its {measured.layer.weights.size:,} weights"
            f" {'is' if count == 1 else 'are'} NaN or infinite. They are left out of"
            " every figure; no integer stands for them.",
            "Train or export the layer again; clip what overflowed on the way to float16.",
        )


NOT_FINITE = OfLayer(
    name="not finite",
    severity="problem",
    meaning="Weights are NaN or infinite.",
    look=_look,
)
