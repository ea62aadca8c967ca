"""Quantizers of QONNX on activations, which are part of the network that targets round."""

from collections.abc import Iterator

from quantstore.graph.constants import find_constant, is_qonnx_quantizer
from quantstore.graph.findings.base import OfModel, Sentences, SurveyedModel


def _look(model: SurveyedModel) -> Iterator[Sentences]:
    nodes = [node for node in model.file.model.graph.all_nodes() if is_qonnx_quantizer(node)]
    count = sum(bool(node.inputs) and find_constant(node.inputs[0]) is None for node in nodes)
    if count:
        activations = "1 activation" if count == 1 else f"{count:,} activations"
        yield Sentences(
            f"The file quantizes {activations} itself, with quantizers of QONNX. They are part of"
            " the network that is run, whose outputs are the reference: a target's SQNR is what it"
            " loses on top of them.",
            "A target finds grids of its own. A runtime that takes over the scales of the file"
            " (qonnx-convert --output-style qcdq) keeps values of 8 bits or fewer as they are.",
        )


OWN_QUANTIZERS = OfModel(
    name="own quantizers",
    severity="note",
    meaning=(
        "The file quantizes activations itself, with quantizers of QONNX, and targets round on top"
        " of them."
    ),
    look=_look,
)
