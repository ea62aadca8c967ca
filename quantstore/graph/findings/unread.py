"""Constant weights that are out of reach."""

from collections.abc import Iterator

from quantstore.graph.findings.base import MOST_NAMED, OfModel, Sentences, SurveyedModel, short
from quantstore.graph.origins import constant_count


def _look(model: SurveyedModel) -> Iterator[Sentences]:
    unread = sorted(model.unread, key=lambda operand: -operand.weight_count)
    if not unread:
        return
    named = "; ".join(
        f"{operand.op_type} {short(operand.name)} ({operand.operand} {operand.reason})"
        for operand in unread[:MOST_NAMED]
    )
    rest_note = f"; and {len(unread) - MOST_NAMED:,} more" if len(unread) > MOST_NAMED else ""
    operands = "weight operand is" if len(unread) == 1 else "weight operands are"
    yield Sentences(
        f"{len(unread):,} constant {operands} not measured: {named}{rest_note}.{_share(model)}",
        "The values of the model do not include them. Export the model with plain"
        " float weights to measure them.",
    )


def _share(model: SurveyedModel) -> str:
    """How much of the model that is; empty where nobody knows."""
    weight_count = sum(operand.weight_count for operand in model.unread)
    total = constant_count(model.file.model.graph)
    if not weight_count or weight_count > total:
        return ""
    weights = "weight is" if weight_count == 1 else "weights are"
    return f" {weight_count:,} {weights} left out, {weight_count / total:.0%} of its constants."


UNREAD = OfModel(
    name="unread",
    severity="warning",
    meaning=(
        "Constant weights are not measured, and why: an operator of another domain, a"
        " kernel that is computed at run time, or an unsupported form."
    ),
    look=_look,
)
