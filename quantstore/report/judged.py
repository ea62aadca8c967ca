"""What the report says of a model under a target: the words of the pages, from rows of verdicts."""

from collections.abc import Sequence

from quantstore import queries
from quantstore.schemes import Target
from quantstore.wording import headlines, verdicts
from quantstore.wording.columns import Row
from quantstore.wording.verdicts import MODES, VerdictCell

__all__ = ["MODES", "Row", "cell_verdict", "layers_in_words", "model", "models", "sentence"]


def cell_verdict(row: Row) -> VerdictCell:
    """What a cell of the matrix says, and what that rests on."""
    return verdicts.verdict(queries.model_facts(row))


def sentence(row: Row) -> str:
    """The verdict on one line, with all that it rests on; empty where a headline says it all."""
    facts = queries.model_facts(row)
    if not facts.says_more_on_one_line:
        return ""
    line = verdicts.verdict_sentence(facts)
    return f"{line[0].upper()}{line[1:]}."


def models(rows: Sequence[Row], twins: Sequence[Row], target: Target) -> str:
    """The headline of the whole report.

    Args:
        twins: the same models under the per-channel target of the same kind, if there is one.
    """
    facts, per_channel = (list(map(queries.model_facts, group)) for group in (rows, twins))
    return headlines.models_headline(facts, per_channel, target)


def model(row: Row, twin: Row | None, target: Target) -> str:
    """The headline of one model."""
    per_channel = None if twin is None else queries.model_facts(twin)
    return headlines.model_headline(queries.model_facts(row), per_channel, target)


def layers_in_words(row: Row) -> str:
    """``24 of 123 layers are broken by their weights, 44 at risk``."""
    return headlines.layers_in_words(queries.model_facts(row))
