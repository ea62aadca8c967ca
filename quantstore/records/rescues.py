"""Rows of rescues."""

import math
from dataclasses import dataclass, field
from datetime import datetime

from quantstore.records import NO_COLUMN


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
