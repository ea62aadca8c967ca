"""Input channels whose weights int8 rounds away, because others of the same output are larger."""

from collections.abc import Iterator

from quantstore.graph.findings.base import MeasuredLayer, OfLayer, Sentences

# One in so many may be lost: training shrinks weights that read nothing of use.
_FEW_LOST = 4


def _look(measured: MeasuredLayer) -> Iterator[Sentences]:
    lost, count = measured.lost_inputs, measured.input_count
    if measured.layer.already_quantized or lost * _FEW_LOST <= count:
        return
    yield Sentences(
        f"{lost:,} of {count:,} input channels are lost in int8, even with a scale per channel: the"
        " SQNR of their weights is below 10 dB, because other inputs of the same layer have far"
        " larger weights. If the values of these inputs are large, for example from a branch of a"
        " Concat, the whole branch is lost.",
        "Divide the weights and bias that produce these inputs by a factor, and"
        " multiply the weights that read them by the same factor. Or keep the layer in"
        " float.",
    )


LOST_INPUTS = OfLayer(
    name="lost inputs",
    severity="warning",
    meaning=(
        "More than a quarter of a layer's input channels have weights with an SQNR"
        " below 10 dB under int8 per channel."
    ),
    look=_look,
)
