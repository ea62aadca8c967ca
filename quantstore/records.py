"""One frozen dataclass per table; fields are columns, by their names.

A mapping stands for several columns, by their names. Tables with many rows per layer (channels,
channel errors) travel as columns of arrays. Keys are left out: the store gives them. NaN and
infinities stand for "not defined" and become NULL.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

# What arrays hold, by the names that every module uses: weights and scales as a file stores them,
# figures, counts, and tensors of whatever type a file has.
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """A row of ``models``."""

    model: str
    sha256: str
    folded: bool
    source: str
    file_bytes: int
    file_format: str
    producer: str | None
    ir_version: int | None
    opset: int | None
    ingested_at: datetime
    ingest_seconds: float
    layer_count: int
    weight_count: int
    quantstore_version: str
    measures_version: int
    tags: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecord:
    """A row of ``layers``; ``figures`` are the columns of ``numerics.measures``, in their order."""

    depth: int
    layer: str
    module_path: str | None
    operand: str
    op_type: str
    op_family: str
    weight_name: str
    weight_dtype: str
    shape: tuple[int, ...]
    channel_axis: int | None
    channel_count: int
    group_count: int
    is_depthwise: bool
    weight_count: int
    nonfinite_count: int
    batchnorm_folded: bool
    mul_folded: bool
    already_quantized: bool
    stored_scheme: str | None
    stored_step: float | None
    attributes: str | None
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelColumns:
    """The rows of ``stored_channels`` that belong to one layer; one entry per channel."""

    channel: Counts
    weight_min: Doubles
    whisker_low: Doubles
    q1: Doubles
    median: Doubles
    q3: Doubles
    whisker_high: Doubles
    weight_max: Doubles
    mean: Doubles
    std: Doubles
    outlier_count: Counts
    nonzero_count: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRecord:
    """A row of ``stored_errors``."""

    scheme: str
    mse: float
    max_abs_error: float
    sqnr_db: float
    zeroed_fraction: float
    levels_used: int | None
    channel_sqnr_min_db: float
    channel_sqnr_p10_db: float
    channel_sqnr_median_db: float
    channels_below_10db: int
    input_channel_sqnr_p10_db: float = math.nan
    input_channels_below_10db: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelErrorColumns:
    """What one int8 scheme does to each channel of a layer: its columns in ``stored_channels``."""

    scheme: str
    sqnr_db: Doubles
    zeroed_count: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramRecord:
    """A row of ``histograms``."""

    low: float
    high: float
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippingRecord:
    """A row of ``stored_clipping``.

    ``sqnr_db`` at thresholds in equal ratios, from ``lowest_threshold`` to 1, as shares of the
    largest absolute weight. ``best_point`` counts from 1.
    """

    bits: int
    measure: str
    lowest_threshold: float
    best_point: int
    sqnr_db: Doubles


@dataclass(frozen=True, slots=True, kw_only=True)
class BitsNeededRecord:
    """A row of ``bits_needed``."""

    granularity: str
    bits: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualizationRecord:
    """A row of ``equalization``; layers are named by their depth, the store gives the keys."""

    depth: int
    partner_depth: int
    scheme: str
    channel_sqnr_p10_before_db: float
    channel_sqnr_p10_after_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphPointRecord:
    """A row of ``graph_points``; a layer is named by its depth, the store gives the key."""

    point: int
    role: str
    name: str
    op_type: str | None
    depth: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphEdgeRecord:
    """A row of ``graph_edges``; ``operators`` is JSON: how often each is passed on the way."""

    source_point: int
    target_point: int
    operators: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRecord:
    """A row of ``findings``; the layer is named by its depth, None where it concerns the model."""

    depth: int | None
    kind: str
    severity: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestRecord:
    """A row of ``ingests``."""

    path: str
    model: str | None
    outcome: str
    message: str
    started_at: datetime
    finished_at: datetime
    seconds: float
    peak_bytes: int | None
    quantstore_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRecord:
    """A row of ``simulation_outputs``: one output of a run, or a part of it."""

    output: str
    part: str | None = None
    point: str | None = None
    sqnr_db: float = math.nan
    varying_sqnr_db: float = math.nan
    decision_f1: float = math.nan
    decisions: int | None = None
    decides: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRecord:
    """A row of ``simulation_answers``: what became of the answer on one input.

    ``form`` is one of ``answers.ANSWER_FORMS`` or ``answers.NO_FORM``; ``float_answer`` and
    ``int8_answer`` are what ``answers.NetworkAnswer.to_json`` writes; ``picture`` is a JPEG file.
    """

    input_name: str
    rank: int
    sqnr_db: float
    form: str
    is_shown: bool
    kept: int | None = None
    kept_by_heads: int | None = None
    lost: int | None = None
    gained: int | None = None
    score_change: float = math.nan
    float_class: int | None = None
    int8_class: int | None = None
    peak_shift: int | None = None
    float_answer: str | None = None
    int8_answer: str | None = None
    picture: bytes | None = None


# A field that is no column of the table: rows of another one that belong to the record.
NO_COLUMN = {"is_column": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationRecord:
    """A row of ``simulations``: one run of a model beside its int8 version.

    ``outputs`` are the rows of ``simulation_outputs`` that belong to it, ``answers`` those of
    ``simulation_answers``.
    """

    scheme: str
    mode: str
    calibration: str | None
    input_source: str
    input_shape: str | None
    compared: str | None
    sample_count: int
    output_sqnr_db: float
    top1_agreement: float
    seconds: float
    onnxruntime_version: str
    created_at: datetime
    failure: str | None
    target: str | None = None
    float_layers: tuple[str, ...] | None = ()
    calibration_count: int | None = 0
    cpu_seconds: float = math.nan
    deciding_sqnr_db: float = math.nan
    tail_sqnr_db: float = math.nan
    provisional: str | None = None
    outputs: tuple[OutputRecord, ...] = field(default=(), metadata=NO_COLUMN)
    answers: tuple[AnswerRecord, ...] = field(default=(), metadata=NO_COLUMN)


INTEGERS_ON_GRID = (
    "the stored integers lie on this grid already; what their rounding lost is unknown"
)
WEIGHTS_ON_GRID = "the weights lie on this grid already: rounding them changes nothing"
ROUNDS_NOTHING = "this target rounds nothing that the outputs of this model depend on"
RETURNS_THE_SAME = (
    "the quantized model returns what the float one does: its weights lie on this grid already"
)
# What 0.1.0 said.
_LEFT_AS_IT_IS = "onnxruntime's quantizer leaves this model as it is"
# Why a run has no figure although nothing is left unmeasured: there was nothing to round. To the
# view ``verdicts`` nothing is lost there; every other failure leaves the figure unknown.
NOTHING_ROUNDED = (
    INTEGERS_ON_GRID,
    WEIGHTS_ON_GRID,
    ROUNDS_NOTHING,
    RETURNS_THE_SAME,
    _LEFT_AS_IT_IS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationErrorRecord:
    """A row of ``activation_errors``: how far one tensor drifts."""

    depth: int
    node_name: str
    op_type: str
    tensor: str
    kind: str
    sqnr_db: float
    cosine: float
    mean_shift: float
    std_ratio: float
    float_min: float
    float_max: float
    quantized_min: float
    quantized_max: float
    low: float
    high: float
    float_counts: Counts
    quantized_counts: Counts
    channel_sqnr_p10_db: float = math.nan
    channels_below_10db: int | None = None
    channel_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityRecord:
    """A row of ``sensitivities``; the layer is named by its depth, the store gives the key.

    ``depth`` is None where the unit belongs to no layer; an empty ``unit`` is the layer's name.
    """

    depth: int | None
    scheme: str
    mode: str
    kind: str
    input_source: str
    sample_count: int
    output_sqnr_db: float
    created_at: datetime
    target: str | None = None
    unit: str = ""
    unit_kind: str = "layer"
    node_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatSetRecord:
    """A row of ``float_sets``: one unit that returns to float, in the order they were found."""

    goal_db: float
    position: int
    unit: str
    unit_kind: str
    output_sqnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RescueStepRecord:
    """A row of ``rescue_steps``: one remedy that was tried, in the order of the steps.

    ``validation_db`` decides whether it is kept; ``test_db`` is of inputs that decide nothing.
    ``int8_macs``: the share of the multiply-accumulates in int8 after it.
    """

    step: int
    remedy: str
    detail: str
    predicted_db: float = math.nan
    validation_db: float = math.nan
    test_db: float = math.nan
    int8_macs: float = math.nan
    unit_count: int = 0
    kept: bool = False
    seconds: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class RescueUnitRecord:
    """A row of ``rescue_units``: a tensor, or the weights of a layer, that a target rounds.

    ``depth``: of its layer in the store, None without one. ``noise_to_signal`` at the outputs where
    it is rounded alone, NaN where that was not measured. ``rank``: the position among the promoted,
    None where it stays in int8. ``precision``: ``int8``, ``int16`` or ``float``.
    """

    unit: str
    kind: str
    node_name: str | None
    depth: int | None
    noise_to_signal: float = math.nan
    sensitivity_db: float = math.nan
    macs: int | None = None
    rank: int | None = None
    precision: str = "int8"
    range_low: float = math.nan
    range_high: float = math.nan
    cause: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RescueFileRecord:
    """A row of ``rescue_files``; ``kind`` is a key of ``rescuing.formats.KINDS``."""

    path: str
    kind: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RescueDriftRecord:
    """A row of ``rescue_drift``: what a layer hands on, before and after, in the order of depth.

    SQNR in dB against the float network, over the test inputs; infinite where nothing is lost.
    """

    depth: int
    node_name: str
    op_type: str
    tensor: str
    before_db: float
    after_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RescueRecord:
    """A row of ``rescues``: from a model that a target breaks to files that were verified.

    SQNR of the deciding output in dB, of the test inputs: ``before_db`` as the target rounds by
    default, ``after_db`` under the plan, ``file_db`` of the written file in float arithmetic,
    ``integer_db`` of the same with the integer kernels of this computer. ``agreement_*``: share of
    the largest scores, or F1 of the scores beyond the limit, that stay as they are in float.
    ``float_file_db``: the equalized float model against the original. ``is_proposal``: it was made
    without real inputs, and no quantized file was written.
    """

    target: str
    reach_db: float
    keep_macs: float
    allowed: tuple[str, ...]
    input_source: str
    calibration_count: int
    validation_count: int
    test_count: int
    float_check_db: float
    before_db: float
    after_db: float
    file_db: float
    integer_db: float
    float_file_db: float
    agreement_before: float
    agreement_after: float
    int8_macs: float
    added_nodes: int
    weights_unsigned: bool
    is_proposal: bool
    reached: bool
    seconds: float
    cpu_seconds: float
    onnxruntime_version: str
    created_at: datetime
    failure: str | None = None
    notes: tuple[str, ...] = ()
    steps: tuple[RescueStepRecord, ...] = field(default=(), metadata=NO_COLUMN)
    units: tuple[RescueUnitRecord, ...] = field(default=(), metadata=NO_COLUMN)
    files: tuple[RescueFileRecord, ...] = field(default=(), metadata=NO_COLUMN)
    drift: tuple[RescueDriftRecord, ...] = field(default=(), metadata=NO_COLUMN)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLayerRecord:
    """A row of ``audit_layers``: a layer of the int8 file beside the float layer it was made from.

    ``float_depth`` and ``int8_depth``: the layers' places in their files, which the store turns
    into their keys; ``float_depth`` None where no layer is its partner. SQNR in dB against the
    float weights: ``stored_*`` of the file's weights, ``plain_p10_db`` of plain rounding of the
    same kind, ``per_channel_p10_db`` of plain rounding with a scale per channel. ``rounding``:
    ``plain``, ``clipped`` or ``changed``. ``released_gain_db``: what the outputs gain with float
    weights in this layer alone.
    """

    float_depth: int | None
    int8_depth: int
    matched_by: str | None
    relative_error: float
    stored_scheme: str | None
    stored_sqnr_db: float
    stored_p10_db: float
    plain_p10_db: float
    per_channel_p10_db: float
    scale_ratio: float
    rounding: str | None
    released_gain_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTensorRecord:
    """A row of ``audit_tensors``: an activation that the int8 file rounds.

    ``float_tensor``: its name in the float file, None where it has none there. ``seen_*``: least
    and largest value on the inputs of the audit. ``sqnr_db``: of rounding the float tensor to the
    grid, ``best_sqnr_db`` to the best range of as many codes, ``drift_db`` of everything up to it.
    """

    float_tensor: str | None
    int8_tensor: str
    scale: float
    zero_point: int
    grid_low: float
    grid_high: float
    seen_low: float
    seen_high: float
    saturated_share: float
    used_share: float
    sqnr_db: float
    best_sqnr_db: float
    drift_db: float
    released_gain_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOutputRecord:
    """A row of ``audit_outputs``: one output, or a part of it, in the six ways of an audit."""

    output: str
    part: str | None
    point: str
    decides: bool
    grid_db: float
    integer_db: float
    exact_db: float
    weights_db: float
    activations_db: float
    neither_db: float


# What ran an audit of TensorFlow Lite files, where others have the release of onnxruntime.
LITERT = "LiteRT"
# What it says of an audit of weights alone.
NOT_RUN = "not run"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """A row of ``audits``: what an int8 file keeps of the float file that it was made from.

    SQNR of the worst output that decides, in dB: ``grid_db`` in float arithmetic on the file's
    grids, ``integer_db`` with the integer kernels of this computer, ``exact_db`` with the same and
    exact sums, ``weights_db`` with weights alone, ``activations_db`` with activations alone,
    ``neither_db`` with neither, which proves the pairing.
    """

    input_source: str
    input_shape: str
    compared: str
    sample_count: int
    float_layers: int
    int8_layers: int
    paired_layers: int
    rounded_tensors: int
    paired_tensors: int
    grid_db: float
    integer_db: float
    exact_db: float
    weights_db: float
    activations_db: float
    neither_db: float
    saturates: bool
    seconds: float
    cpu_seconds: float
    onnxruntime_version: str
    created_at: datetime
    failure: str | None = None
    notes: tuple[str, ...] = ()
    layers: tuple[AuditLayerRecord, ...] = field(default=(), metadata=NO_COLUMN)
    tensors: tuple[AuditTensorRecord, ...] = field(default=(), metadata=NO_COLUMN)
    outputs: tuple[AuditOutputRecord, ...] = field(default=(), metadata=NO_COLUMN)

    @property
    def was_run(self) -> bool:
        """Whether both files were run; else their weights alone were compared."""
        return self.sample_count > 0

    @property
    def was_taken_apart(self) -> bool:
        """Whether weights and activations were run alone; LiteRT runs a file as it is."""
        return not self.onnxruntime_version.startswith(LITERT)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecords:
    """Everything known about one layer. A layer of NaN alone has no histogram."""

    layer: LayerRecord
    channels: ChannelColumns
    errors: tuple[ErrorRecord, ...]
    channel_errors: tuple[ChannelErrorColumns, ...]
    clipping: tuple[ClippingRecord, ...]
    bits_needed: tuple[BitsNeededRecord, ...]
    histogram: HistogramRecord | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecords:
    """Everything known about one model, as one transaction writes it.

    ``ingest``: what is to be said of the file.
    """

    model: ModelRecord
    layers: tuple[LayerRecords, ...]
    equalization: tuple[EqualizationRecord, ...] = ()
    graph_points: tuple[GraphPointRecord, ...] = ()
    graph_edges: tuple[GraphEdgeRecord, ...] = ()
    probes: tuple[SimulationRecord, ...] = ()
    findings: tuple[FindingRecord, ...] = ()
    ingest: IngestRecord | None = None
