"""One frozen dataclass per table; fields are columns, by their names.

A mapping stands for several columns, by their names. Tables with many rows per layer (channels,
channel errors) travel as columns of arrays. Keys are left out: the store gives them. NaN and
infinities stand for "not defined" and become NULL.

A record is defined when it is first asked for: defining all of them takes a twentieth of the time
of probing a small model, and the process that does that needs two.
"""

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from quantstore.records.audits import *  # noqa: F403
    from quantstore.records.findings import *  # noqa: F403
    from quantstore.records.graphs import *  # noqa: F403
    from quantstore.records.models import *  # noqa: F403
    from quantstore.records.outputs import *  # noqa: F403
    from quantstore.records.rescues import *  # noqa: F403
    from quantstore.records.runs import *  # noqa: F403

# What arrays hold, by the names that every module uses: weights and scales as a file stores them,
# figures, counts, and tensors of whatever type a file has.
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

# A field that is no column of the table: rows of another one that belong to the record.
NO_COLUMN = {"is_column": False}

INTEGERS_ON_GRID = (
    "the stored integers lie on this grid already; what their rounding lost is unknown"
)
WEIGHTS_ON_GRID = "the weights lie on this grid already: rounding them changes nothing"
ROUNDS_NOTHING = "this target rounds nothing that the outputs of this model depend on"
RETURNS_THE_SAME = (
    "the quantized model returns what the float one does: its weights lie on this grid already"
)
ABSORBED = "the quantizers of the file absorb the rounding: the outputs stay as they are"
# What 0.1.0 said.
_LEFT_AS_IT_IS = "onnxruntime's quantizer leaves this model as it is"
# Why a run has no figure although nothing is left unmeasured: rounding changed nothing. To the
# view ``verdicts`` nothing is lost there; every other failure leaves the figure unknown.
NOTHING_ROUNDED = (
    INTEGERS_ON_GRID,
    WEIGHTS_ON_GRID,
    ROUNDS_NOTHING,
    RETURNS_THE_SAME,
    ABSORBED,
    _LEFT_AS_IT_IS,
)

# What ran an audit of TensorFlow Lite files, where others have the release of onnxruntime.
LITERT = "LiteRT"
# What it says of an audit of weights alone.
NOT_RUN = "not run"

_RECORDS_OF = {
    "audits": (
        "AuditLayerRecord",
        "AuditTensorRecord",
        "AuditOutputRecord",
        "AuditRecord",
    ),
    "findings": ("FindingRecord",),
    "graphs": ("GraphPointRecord", "GraphEdgeRecord"),
    "models": (
        "ModelRecord",
        "LayerRecord",
        "ChannelColumns",
        "ErrorRecord",
        "ChannelErrorColumns",
        "HistogramRecord",
        "ClippingRecord",
        "BitsNeededRecord",
        "EqualizationRecord",
        "IngestRecord",
        "LayerRecords",
        "ModelRecords",
    ),
    "outputs": ("OutputRecord",),
    "rescues": (
        "RescueStepRecord",
        "RescueUnitRecord",
        "RescueFileRecord",
        "RescueDriftRecord",
        "RescueRecord",
    ),
    "runs": (
        "AnswerRecord",
        "SimulationRecord",
        "ActivationErrorRecord",
        "SensitivityRecord",
        "FloatSetRecord",
    ),
}
_MODULE_OF = {name: module for module, names in _RECORDS_OF.items() for name in names}

if not TYPE_CHECKING:
    # A type checker would believe in any name.
    def __getattr__(name: str) -> Any:
        """A record, from the module that defines it (https://peps.python.org/pep-0562)."""
        module = _MODULE_OF.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
