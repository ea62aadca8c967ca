"""Layers beyond the limits of what the store takes of one model."""

from collections.abc import Iterator

from quantstore.graph.findings.base import OfModel, Sentences, SurveyedModel


def _look(model: SurveyedModel) -> Iterator[Sentences]:
    if model.left_out:
        yield Sentences(
            model.left_out[0].upper() + model.left_out[1:] + ".",
            "Split the model, or judge it by the layers that were measured.",
        )


LEFT_OUT = OfModel(
    name="left out",
    severity="problem",
    meaning="The model has more layers or channels than the store accepts.",
    look=_look,
)
