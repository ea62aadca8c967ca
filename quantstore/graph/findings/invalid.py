"""What onnx.checker objects to."""

from collections.abc import Iterator

from quantstore.graph.findings.base import OfModel, Sentences, SurveyedModel


def _look(model: SurveyedModel) -> Iterator[Sentences]:
    if model.file.complaint:
        yield Sentences(
            f"The model is not valid, says onnx.checker: {model.file.complaint}.",
            "Its weights were read nevertheless. A runtime may refuse it: export it again if"
            " yours does.",
        )


INVALID = OfModel(
    name="invalid",
    severity="note",
    meaning="The checker of onnx objects to the model.",
    look=_look,
)
