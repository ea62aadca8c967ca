"""Rows of runs: simulations, and what they show of tensors and layers."""

import math
from dataclasses import dataclass, field
from datetime import datetime

from quantstore.records import NO_COLUMN, Counts
from quantstore.records.outputs import OutputRecord


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
