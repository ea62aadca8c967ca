"""A BatchNormalization behind a convolution that is not part of its weights, and why."""

from collections.abc import Iterator

import onnx_ir as ir

from quantstore.graph.attributes import integer
from quantstore.graph.batchnorm import FOLDABLE
from quantstore.graph.findings.base import MeasuredLayer, OfLayer, Sentences, is_standard
from quantstore.graph.fold import values_of

# Why a normalization is left as it is.
IS_AN_OUTPUT = "the convolution's own result is an output of the graph"
IS_IN_TRAINING = "it is in training mode and normalizes by the current batch"
IS_NOT_CONSTANT = "its parameters are not constant"


def _look(measured: MeasuredLayer) -> Iterator[Sentences]:
    reason = _why_not_folded(measured) if measured.fold else ""
    if reason:
        yield Sentences(
            f"The BatchNormalization after this layer was not folded: {reason}. The weights"
            " shown are the raw ones. Runtimes quantize the normalization separately or"
            " keep it in float.",
            "Export the model in inference mode with constant parameters, or fold it before"
            " the export, if the graph allows.",
        )


def _why_not_folded(measured: MeasuredLayer) -> str:
    """Empty where there is none, or where it is folded."""
    node, layer = measured.site.node, measured.layer
    if layer.batchnorm_folded or node.op_type not in FOLDABLE or not node.outputs:
        return ""
    output = node.outputs[0]
    users = [use.node for use in output.uses()]
    normalizations = [
        user
        for user in users
        if user.op_type == "BatchNormalization" and is_standard(user) and user.inputs[0] is output
    ]
    if not normalizations:
        return ""
    if layer.already_quantized:
        return "the weights are stored as integers"
    if output.is_graph_output():
        return IS_AN_OUTPUT
    if len(users) > 1:
        return f"{len(users)} nodes read the convolution's result"
    return _what_keeps(normalizations[0])


def _what_keeps(norm: ir.Node) -> str:
    """What of the BatchNormalization itself keeps it from being folded."""
    if (
        integer(norm, "training_mode", 0)
        or len([output_value for output_value in norm.outputs if output_value.name]) > 1
    ):
        return IS_IN_TRAINING
    if len(norm.inputs) < 5:
        return "it lacks parameters"
    parameters = [values_of(norm.inputs[index], None) for index in (1, 2, 3, 4)]
    if any(values is None for values in parameters):
        return IS_NOT_CONSTANT
    sizes = {values.size for values in parameters if values is not None}
    return (
        f"it has {min(sizes):,} parameters for another number of channels"
        if sizes
        else "its parameters do not fit"
    )


NOT_FOLDED = OfLayer(
    name="not folded",
    severity="warning",
    meaning="A BatchNormalization after a convolution is not folded into its weights, and why.",
    look=_look,
)
