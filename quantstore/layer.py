"""What the graph reader hands to the measurements: a layer is a name and a matrix of weights."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Layer:
    """One weight operand of one node, ready to be measured.

    ``weights`` are the effective weights: what a runtime would quantize, float32, as a matrix
    ``(output channels, weights per channel)``. ``shape`` and ``channel_axis`` are those of the
    tensor as the node reads it; the axis is None where the whole tensor is one channel (a vector).
    In a recurrent layer the directions, axis 0, count channels too: one direction after another.
    ``module_path`` is the module it was exported from, where the file says so.
    ``stored_scheme`` and ``stored_step`` describe integer weights that were dequantized;
    ``stored_step`` is their scale, the largest where there are several, in weight units.
    ``attributes`` are those of the node as JSON.
    ``weight_key`` is equal for layers that share one and the same effective weights.
    """

    name: str
    operand: str
    op_type: str
    op_family: str
    weight_name: str
    weight_dtype: str
    shape: tuple[int, ...]
    channel_axis: int | None
    group_count: int
    is_depthwise: bool
    batchnorm_folded: bool
    mul_folded: bool
    already_quantized: bool
    stored_scheme: str | None
    stored_step: float | None
    weight_key: tuple[object, ...]
    weights: npt.NDArray[np.float32] = field(repr=False)
    module_path: str | None = None
    attributes: str | None = None

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or self.weights.dtype != np.float32:
            raise ValueError(f"{self.name}: weights must be a float32 matrix, channels first")
