"""Rows of audits of int8 files."""

from dataclasses import dataclass, field
from datetime import datetime

from quantstore.records import LITERT, NO_COLUMN


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
