"""BatchNormalizations of a file without a graph that belong to nobody knows which convolution."""

from collections.abc import Iterator

from quantstore.graph.findings.base import MOST_NAMED, OfModel, Sentences, SurveyedModel, short
from quantstore.graph.operators import LOOSE, NORMALIZATION


def _look(model: SurveyedModel) -> Iterator[Sentences]:
    if not model.fold:
        return
    names = [
        short(str(node.name))
        for node in model.file.model.graph
        if node.domain == LOOSE and node.op_type == NORMALIZATION
    ]
    if not names:
        return
    rest = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    which = (
        "1 BatchNormalization was"
        if len(names) == 1
        else f"{len(names):,} BatchNormalizations were"
    )
    yield Sentences(
        f"{which} not folded, because names and shapes do not tell which convolution comes before:"
        f" {', '.join(names[:MOST_NAMED])}{rest}. Weights that an int8 runtime folds are shown"
        " unfolded: their error is another one, usually a smaller one.",
        "Export the network to ONNX, which says what follows what.",
    )


LOOSE_NORMALIZATION = OfModel(
    name="unfolded",
    severity="warning",
    meaning=(
        "A file without a graph does not tell which convolution a BatchNormalization follows, so it"
        " is not folded."
    ),
    look=_look,
)
