"""What a finding is, and what an entry of the list of findings says of its kind.

A module beside this one holds one entry: a :class:`OfModel` or an :class:`OfLayer`. Its ``look``
yields :class:`Sentences`, a pair for everything it sees; name and severity come from the entry.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

import onnx_ir as ir

from quantstore.graph.file import ModelFile
from quantstore.graph.operators import STANDARD_DOMAINS
from quantstore.graph.walk import Site, Unread
from quantstore.layer import Layer
from quantstore.records import Doubles

# The gravest first. problem: figures are missing or mean nothing; warning: int8 suffers; note: good
# to know.
Severity = Literal["problem", "warning", "note"]
Concern = Literal["model", "layer"]

# Of many channels, operands or the like a sentence names the first.
MOST_NAMED = 3
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth a sentence: ``message`` says what is there and ``remedy`` what to do."""

    kind: str
    severity: Severity
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Sentences:
    """What is there, and what to do about it."""

    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyedModel:
    """What can be looked at in a model as a whole.

    Attributes:
        unread: constant weights that are no layers, and why.
        left_out: what exceeds the limits, as ``walk.within_limits`` says; empty for nothing.
        fold: whether BatchNormalization is folded at all.
    """

    file: ModelFile
    unread: tuple[Unread, ...]
    left_out: str
    fold: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLayer:
    """What can be looked at in a layer.

    Attributes:
        channel_min: smallest weight of each channel, as far as it is finite; NaN where none is.
        channel_max: the largest.
        nonfinite_count: NaN and infinities among its weights.
        fold: whether BatchNormalization is folded at all.
    """

    site: Site
    layer: Layer
    channel_min: Doubles
    channel_max: Doubles
    nonfinite_count: int
    fold: bool


Evidence = TypeVar("Evidence", SurveyedModel, MeasuredLayer)


@dataclass(frozen=True, kw_only=True)
class FindingKind(Generic[Evidence]):
    """An entry of the list: what may be found, how grave it is, and the function that looks for it.

    ``name`` is what the store has in the column ``kind``. ``meaning`` is one sentence for the
    documents: what must be there for the finding to be made.
    """

    concerns: ClassVar[Concern]

    name: str
    severity: Severity
    meaning: str
    look: Callable[[Evidence], Iterator[Sentences]]

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Everything of this kind that a model or a layer gives away."""
        for sentences in self.look(evidence):
            yield Finding(self.name, self.severity, sentences.message, sentences.remedy)


class OfModel(FindingKind[SurveyedModel]):
    """What concerns a model as a whole."""

    concerns = "model"


class OfLayer(FindingKind[MeasuredLayer]):
    """What concerns a single layer."""

    concerns = "layer"


def short(name: str) -> str:
    """A name in a length that a sentence bears."""
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def is_standard(node: ir.Node) -> bool:
    """Whether a node's operator is one of ONNX itself."""
    return node.domain in STANDARD_DOMAINS
