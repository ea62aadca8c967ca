"""What the report says of a model under a scheme: the words of the pages, from rows of verdicts."""

from collections.abc import Mapping, Sequence
from typing import Any

from quantstore import queries
from quantstore.schemes import Scheme
from quantstore.wording import headlines, verdicts
from quantstore.wording.verdicts import MODES, VerdictCell

__all__ = ["MODES", "cell_verdict", "is_probed", "layers_in_words", "model", "models"]

Row = Mapping[Any, Any]


def is_probed(row: Row) -> bool:
    """Whether a row of ``queries.verdicts`` rests on a run, not on weights alone."""
    return queries.model_facts(row).is_probed


def cell_verdict(row: Row) -> tuple[VerdictCell, str]:
    """What a cell of the matrix says, and what that rests on."""
    verdict = verdicts.verdict(queries.model_facts(row))
    return verdict, f"{verdict.where}{verdict.evidence}"


def models(rows: Sequence[Row], twins: Sequence[Row], scheme: Scheme) -> str:
    """The headline of the whole report.

    Args:
        twins: the same models under the per-channel scheme of the same symmetry.
    """
    findings, per_channel = (list(map(queries.model_facts, group)) for group in (rows, twins))
    return headlines.models_headline(findings, per_channel, scheme)


def model(row: Row, twin: Row, scheme: Scheme) -> str:
    """The headline of one model."""
    return headlines.model_headline(queries.model_facts(row), queries.model_facts(twin), scheme)


def layers_in_words(row: Row) -> str:
    """``24 of 123 layers are broken by their weights, 44 at risk``."""
    return headlines.layers_in_words(queries.model_facts(row))
