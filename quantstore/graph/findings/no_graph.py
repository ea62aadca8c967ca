"""What cannot be known of a file that holds weights without a graph."""

from collections.abc import Iterator

from quantstore.file_formats import SAFETENSORS
from quantstore.graph.findings.base import OfModel, Sentences, SurveyedModel
from quantstore.graph.operators import operator_of

_EXPORT = (
    "Export the network to ONNX with torch.onnx.export or optimum to measure it as it runs, and to"
    " test targets."
)


def _look(model: SurveyedModel) -> Iterator[Sentences]:
    if model.file.file_format.has_graph:
        return
    nodes = list(model.file.model.graph)
    sentences = [
        "The file has no graph. The names and shapes of its tensors tell which layers there are."
    ]
    if model.file.file_format == SAFETENSORS:
        sentences.append("They are in the order of their names.")
    operators = [operator for operator in map(operator_of, nodes) if operator is not None]
    if any(operator.family in ("conv", "conv_transpose") for operator in operators):
        sentences.append(
            "It does not say how many groups a convolution has, nor always whether it is a"
            " transposed one."
        )
    if model.fold and any(
        node.op_type == "BatchNormalization" and not node.domain for node in nodes
    ):
        sentences.append("BatchNormalizations were folded with PyTorch's default epsilon, 1e-5.")
    yield Sentences(" ".join(sentences), _EXPORT)


NO_GRAPH = OfModel(
    name="no graph",
    severity="note",
    meaning="The file holds weights without a graph: layers were told by names and shapes.",
    look=_look,
)
