"""Constant weights that are out of reach."""

from collections.abc import Iterator

from quantstore.graph.findings.base import MOST_NAMED, OfModel, Sentences, SurveyedModel, short


def _look(model: SurveyedModel) -> Iterator[Sentences]:
    unread = model.unread
    if not unread:
        return
    named = "; ".join(
        f"{operand.op_type} {short(operand.name)} ({operand.operand} {operand.reason})"
        for operand in unread[:MOST_NAMED]
    )
    rest_note = f"; and {len(unread) - MOST_NAMED:,} more" if len(unread) > MOST_NAMED else ""
    operands = "weight operand is" if len(unread) == 1 else "weight operands are"
    yield Sentences(
        f"{len(unread):,} constant {operands} not measured: {named}{rest_note}.",
        "The model's figures leave them out. Export it with plain float weights to see them.",
    )


UNREAD = OfModel(
    name="unread",
    severity="warning",
    meaning="A constant weight operand is not measured, and why.",
    look=_look,
)
