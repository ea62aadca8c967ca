"""What a graph and its weights give away before anything is run: findings, each with a remedy.

:data:`FINDING_KINDS` is the list of all there are, a module each. ``of_model`` needs the graph
alone, ``of_layer`` the weights of one layer, ``of_run`` what a run showed. None changes anything.
"""

from quantstore.graph.file import ModelFile
from quantstore.graph.findings.base import (
    DecoderFigures,
    FaintFigures,
    Finding,
    KernelFigures,
    LostFigures,
    MeasuredLayer,
    OfLayer,
    OfModel,
    OfRun,
    RunFigures,
    SurveyedModel,
)
from quantstore.graph.findings.bias_overflow import BIAS_OVERFLOW
from quantstore.graph.findings.dead_channel import DEAD_CHANNEL
from quantstore.graph.findings.decoder import DECODER
from quantstore.graph.findings.faint_channels import FAINT_CHANNELS
from quantstore.graph.findings.infinite_output import INFINITE_OUTPUT
from quantstore.graph.findings.invalid import INVALID
from quantstore.graph.findings.large_mask import LARGE_MASK
from quantstore.graph.findings.left_out import LEFT_OUT
from quantstore.graph.findings.lone_normalization import LONE_NORMALIZATION
from quantstore.graph.findings.loose_normalization import LOOSE_NORMALIZATION
from quantstore.graph.findings.lost_inputs import LOST_INPUTS
from quantstore.graph.findings.mixed_output import MIXED_OUTPUT
from quantstore.graph.findings.no_graph import NO_GRAPH
from quantstore.graph.findings.not_finite import NOT_FINITE
from quantstore.graph.findings.not_folded import NOT_FOLDED
from quantstore.graph.findings.not_learned import NOT_LEARNED
from quantstore.graph.findings.old_opset import OLD_OPSET
from quantstore.graph.findings.own_quantizers import OWN_QUANTIZERS
from quantstore.graph.findings.saturates import SATURATES
from quantstore.graph.findings.stored_rounding import STORED_ROUNDING
from quantstore.graph.findings.stored_saturation import STORED_SATURATION
from quantstore.graph.findings.unread import UNREAD
from quantstore.graph.unread import Unread
from quantstore.graph.walk import Site
from quantstore.layer import Layer
from quantstore.records import Doubles

__all__ = [
    "FINDING_KINDS",
    "DecoderFigures",
    "FaintFigures",
    "Finding",
    "KernelFigures",
    "LostFigures",
    "OfLayer",
    "OfModel",
    "OfRun",
    "of_layer",
    "of_model",
    "of_run",
]

# In the order in which they are stored: what keeps figures from being right comes first. Whoever
# shows them sorts by severity.
FINDING_KINDS: tuple[OfModel | OfLayer | OfRun, ...] = (
    LEFT_OUT,
    NOT_FINITE,
    UNREAD,
    NO_GRAPH,
    LOOSE_NORMALIZATION,
    DEAD_CHANNEL,
    BIAS_OVERFLOW,
    LOST_INPUTS,
    LARGE_MASK,
    MIXED_OUTPUT,
    INFINITE_OUTPUT,
    DECODER,
    SATURATES,
    STORED_SATURATION,
    STORED_ROUNDING,
    FAINT_CHANNELS,
    OWN_QUANTIZERS,
    LONE_NORMALIZATION,
    OLD_OPSET,
    NOT_LEARNED,
    NOT_FOLDED,
    INVALID,
)


def of_model(
    file: ModelFile, unread: tuple[Unread, ...], left_out: str, *, fold: bool
) -> list[Finding]:
    """What concerns the model as a whole; see :class:`SurveyedModel` for the arguments."""
    model = SurveyedModel(file=file, unread=unread, left_out=left_out, fold=fold)
    return [
        finding
        for entry in FINDING_KINDS
        if isinstance(entry, OfModel)
        for finding in entry.findings(model)
    ]


def of_layer(
    site: Site,
    layer: Layer,
    *,
    channel_min: Doubles,
    channel_max: Doubles,
    nonfinite_count: int,
    fold: bool,
    input_count: int = 0,
    lost_inputs: int = 0,
) -> list[Finding]:
    """What concerns one layer; see :class:`MeasuredLayer` for the arguments."""
    measured = MeasuredLayer(
        site=site,
        layer=layer,
        channel_min=channel_min,
        channel_max=channel_max,
        nonfinite_count=nonfinite_count,
        fold=fold,
        input_count=input_count,
        lost_inputs=lost_inputs,
    )
    return [
        finding
        for entry in FINDING_KINDS
        if isinstance(entry, OfLayer)
        for finding in entry.findings(measured)
    ]


def of_run(figures: RunFigures) -> list[Finding]:
    """What a run showed; see :data:`RunFigures`."""
    return [
        finding
        for entry in FINDING_KINDS
        if isinstance(entry, OfRun)
        for finding in entry.findings(figures)
    ]
