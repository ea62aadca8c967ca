"""What onnx.checker objects to."""

from collections.abc import Iterator

from quantstore.graph.findings.base import OfModel, Sentences, SurveyedModel


def _look(model: SurveyedModel) -> Iterator[Sentences]:
    if model.file.complaint:
        yield Sentences(
            f"The model is not valid according to onnx.checker: {model.file.complaint}.",
            "Export the model again if your runtime rejects it. quantstore could read the weights.",
        )


INVALID = OfModel(
    name="invalid",
    severity="note",
    meaning="The model is not valid according to onnx.checker.",
    look=_look,
)
