"""Rows of a model that was measured: its layers, its graph, its file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from quantstore.records import Counts, Doubles
from quantstore.records.findings import FindingRecord
from quantstore.records.graphs import GraphEdgeRecord, GraphPointRecord
from quantstore.records.runs import SimulationRecord


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
