"""What a finding is, and what an entry of the list of findings says of its kind.

A module beside this one holds one entry: a :class:`OfModel`, an :class:`OfLayer` or an
:class:`OfRun`. Its ``look`` yields :class:`Sentences`, a pair for everything it sees; name and
severity come from the entry.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quantstore.graph.file import ModelFile
from quantstore.graph.operators import STANDARD_DOMAINS
from quantstore.graph.unread import Unread
from quantstore.graph.walk import Site
from quantstore.layer import DEAD_SHARE, Layer
from quantstore.records import Doubles, FindingRecord

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

    def record(self, depth: int | None = None) -> FindingRecord:
        """The row of ``findings``; ``depth`` is that of the layer it concerns, None for a model."""
        return FindingRecord(
            depth=depth,
            kind=self.kind,
            severity=self.severity,
            message=self.message,
            remedy=self.remedy,
        )


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
        input_count: how many input channels it reads, 0 where nobody counted.
        lost_inputs: how many of them are lost under int8 per channel.
        fold: whether BatchNormalization is folded at all.
    """

    site: Site
    layer: Layer
    channel_min: Doubles
    channel_max: Doubles
    nonfinite_count: int
    fold: bool
    input_count: int = 0
    lost_inputs: int = 0


# Integer kernels differ from float arithmetic by where they round, up to 1 dB either way; see
# docs/method.md. Beyond, something is lost.
MOST_GAP_DB = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFigures:
    """What a run showed of integer kernels; ``run.kernels`` measures it.

    Attributes:
        float_arithmetic_db: SQNR at the outputs in float arithmetic on the integer grids, NaN where
            it was not measured.
        integer_kernels_db: the same with the integer kernels of this processor, NaN where they
            cannot saturate and did not run.
        unsigned_weights_db: the same with weights as uint8, NaN where the two above are close.
        saturating_layer: the layer that clamping costs most on a processor without VNNI, None where
            no sum is clamped.
        saturating_share: of its sums of two products, those that are clamped.
        saturating_sqnr_db: what clamping alone leaves of its output.
    """

    float_arithmetic_db: float = math.nan
    integer_kernels_db: float = math.nan
    unsigned_weights_db: float = math.nan
    saturating_layer: str | None = None
    saturating_share: float = 0.0
    saturating_sqnr_db: float = math.inf

    @property
    def gap_db(self) -> float:
        """What integer kernels cost in dB, negative where they gain; NaN where they did not run."""
        if self.float_arithmetic_db == self.integer_kernels_db:
            return 0.0
        return self.float_arithmetic_db - self.integer_kernels_db

    @property
    def saturates(self) -> bool:
        """Whether this processor saturates: its kernels lose, and uint8 weights bring it back.

        Kernels that round in other places can lose as well; the same integers in another type
        would not change that.
        """
        recovered_db = self.unsigned_weights_db - self.integer_kernels_db
        return self.gap_db > MOST_GAP_DB and recovered_db > self.gap_db / 2

    @property
    def may_saturate_elsewhere(self) -> bool:
        """Whether a processor without VNNI would probably lose, where this one cannot.

        The noise of clamping in one layer, carried to the outputs undiminished, then costs more
        than :data:`MOST_GAP_DB`.
        """
        was_run = not math.isnan(self.integer_kernels_db)
        if was_run or math.isnan(self.float_arithmetic_db) or self.saturating_layer is None:
            return False
        if math.isinf(self.float_arithmetic_db):
            return self.float_arithmetic_db > self.saturating_sqnr_db
        clamping = 10 ** ((self.float_arithmetic_db - self.saturating_sqnr_db) / 10)
        return 10 * math.log10(1 + clamping) > MOST_GAP_DB


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderFigures:
    """What a run showed of the part behind the heads; ``run.tail`` measures it.

    Attributes:
        heads_db: SQNR at the heads, before the decoder.
        whole_file_db: what is left of it where the decoder is rounded as well.
        nodes: what must stay in float; empty where the decoder loses nothing.
        kept_db: with these in float, what is left of ``heads_db``: of a run.
        scores_kept: of the scores that decided something in float, the share that still does where
            the decoder is rounded; NaN where that is not known.
    """

    heads_db: float
    whole_file_db: float
    nodes: tuple[str, ...] = ()
    kept_db: float = math.nan
    scores_kept: float = math.nan


# What rounding to 8 bits does to outputs is far more: nobody misses what costs less.
_MISSED_BELOW_DB = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FaintFigures:
    """Channels of next to no energy, and what is left of the outputs without any of them.

    Attributes:
        channels: by the name of the layer; ``run.faint_channels`` finds them.
        output_sqnr_db: SQNR at the outputs of the float network with all of them at zero.
    """

    channels: Mapping[str, tuple[int, ...]]
    output_sqnr_db: float

    @property
    def are_dead(self) -> bool:
        """Whether the network does not miss them."""
        return self.output_sqnr_db >= _MISSED_BELOW_DB


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturatedTensor:
    """An activation with values beyond its stored grid.

    Attributes:
        low, high: ends of the grid.
        share: of its values, those beyond.
        sqnr_db: what rounding to the grid leaves of it.
    """

    name: str
    low: float
    high: float
    share: float
    sqnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRoundingFigures:
    """What the activations of an integer file lose; ``run.stored_rounding`` measures it.

    Attributes:
        output_sqnr_db: SQNR at the worst output that decides, of the file as stored against its own
            weights with float activations.
        saturated: the worst first.
    """

    output_sqnr_db: float
    saturated: tuple[SaturatedTensor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LostFigures:
    """Where a network first computes NaN or infinity that it does not compute in float.

    ``run.lost`` finds it.

    Attributes:
        tensor: what the node reads.
    """

    node: str
    op_type: str
    tensor: str


RunFigures = KernelFigures | DecoderFigures | FaintFigures | StoredRoundingFigures | LostFigures
Evidence = TypeVar("Evidence", SurveyedModel, MeasuredLayer, RunFigures)


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


class OfRun(FindingKind[RunFigures]):
    """What concerns a model as a whole, and shows when it runs."""

    concerns = "model"


_INT8_MAX = 127


def abs_max_of(measured: MeasuredLayer) -> Doubles:
    """The largest magnitude in each output channel; 0 where none is finite."""
    high = np.fmax(np.nan_to_num(measured.channel_max), 0)
    low = np.fmin(np.nan_to_num(measured.channel_min), 0)
    return np.maximum(high, -low)


def scales_of(measured: MeasuredLayer) -> Doubles:
    """The scale of each output channel in int8; smaller ones than float32 holds become 1.

    onnxruntime does the same. The groups of a ConvTranspose share theirs.
    """
    abs_max = abs_max_of(measured)
    sharing = measured.layer.scale_sharing
    abs_max = np.tile(abs_max.reshape(sharing, -1).max(axis=0), sharing)
    with np.errstate(over="ignore"):
        scales = (abs_max / _INT8_MAX).astype(np.float32).astype(np.float64)
    return np.where(scales >= np.finfo(np.float32).tiny, scales, 1.0)


def dead_of(measured: MeasuredLayer) -> npt.NDArray[np.bool_]:
    """Which output channels carry nothing beside the layer's largest weight."""
    abs_max = abs_max_of(measured)
    dead: npt.NDArray[np.bool_] = abs_max < DEAD_SHARE * abs_max.max(initial=0)
    return dead


def short(name: str) -> str:
    """A name in a length that a sentence bears."""
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def is_standard(node: ir.Node) -> bool:
    """Whether a node's operator is one of ONNX itself."""
    return node.domain in STANDARD_DOMAINS
