"""Quantizers of QONNX on activations, which the values of layers pass by."""

from collections.abc import Iterator

from quantstore.graph.constants import find_constant, is_qonnx_quantizer
from quantstore.graph.findings.base import OfModel, Sentences, SurveyedModel


def _look(model: SurveyedModel) -> Iterator[Sentences]:
    nodes = [node for node in model.file.model.graph.all_nodes() if is_qonnx_quantizer(node)]
    count = sum(bool(node.inputs) and find_constant(node.inputs[0]) is None for node in nodes)
    if count:
        activations = "1 activation" if count == 1 else f"{count:,} activations"
        yield Sentences(
            f"The file quantizes {activations} itself, with quantizers of QONNX. They are passed"
            " by: values of layers concern the weights alone.",
            "To run it, convert the file to QDQ: qonnx-convert --output-style qcdq.",
        )


OWN_QUANTIZERS = OfModel(
    name="own quantizers",
    severity="note",
    meaning="The file quantizes activations itself, with quantizers of QONNX, which are not run.",
    look=_look,
)
