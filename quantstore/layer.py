"""What the graph reader hands to the measurements: a layer is a name and a matrix of weights."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

# A channel whose largest weight is below this share of the layer's carries nothing.
DEAD_SHARE = 1e-6


@dataclass(frozen=True, slots=True)
class Layer:
    """One weight operand of one node, ready to be measured.

    ``weights`` are the effective weights: what a runtime would quantize, float32, as a matrix
    ``(output channels, weights per channel)``. ``shape`` and ``channel_axis`` are those of the
    tensor as the node reads it; the axis is None where the whole tensor is one channel (a vector).
    A ConvTranspose of several groups stores one channel for all of them: its rows are stored
    channels, each with a scale of its own; :meth:`by_output_channel` has the true ones.
    In a recurrent layer the directions, axis 0, count channels too: one direction after another.
    ``module_path`` is the module it was exported from, where the file says so.
    ``stored_scheme`` and ``stored_step`` describe integer weights that were dequantized, or float
    weights that lie on a grid because the graph rounds them;
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

    @property
    def scale_sharing(self) -> int:
        """How many output channels share a scale under a scheme per channel.

        The groups of a ConvTranspose, as QuantizeLinear has one axis; 1 everywhere else.
        """
        return self.group_count if self.op_family == "conv_transpose" else 1

    def by_output_channel(self) -> npt.NDArray[np.float32]:
        """The weights with a row for each channel of the node's output.

        Rows ``i`` and ``i + n``, n stored channels further, share a scale where
        :attr:`scale_sharing` is not 1.
        """
        groups = self.scale_sharing
        if groups == 1:
            return self.weights
        stored, columns = self.weights.shape
        apart = self.weights.reshape(stored, groups, columns // groups).transpose(1, 0, 2)
        return np.ascontiguousarray(apart).reshape(groups * stored, columns // groups)
