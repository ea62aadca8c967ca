"""The bias of a layer, and whether int32 can hold it: a site in, figures of each channel out.

int8 kernels add up in int32, so that a bias is stored in units of input scale times weight scale.
The smaller these are, the more units it takes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quantstore.graph.batchnorm import FOLDABLE
from quantstore.graph.constants import only_consumer
from quantstore.graph.fold import values_of
from quantstore.graph.walk import Site
from quantstore.layer import Layer
from quantstore.records import Doubles

LARGEST_INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True)
class BiasOverflow:
    """Channels whose bias int32 cannot hold: how many, and their share of all, from 0 to 1."""

    count: int
    share: float


def bias_overflows(
    bias: npt.ArrayLike, weight_scales: npt.ArrayLike, input_scale: float
) -> BiasOverflow:
    """How many channels have a bias that does not fit into int32.

    Args:
        bias: of each output channel, ``(channels,)``; one that is not finite does not fit.
        weight_scales: positive; one of the tensor, or one of each channel.
        input_scale: of the layer's input, positive: measured, or assumed.
    """
    lost = overflows(bias, weight_scales, input_scale)
    count = int(np.count_nonzero(lost))
    return BiasOverflow(count, count / lost.size if lost.size else 0.0)


def overflows(
    bias: npt.ArrayLike, weight_scales: npt.ArrayLike, input_scale: float
) -> npt.NDArray[np.bool_]:
    """Which channels these are; arguments as for :func:`bias_overflows`."""
    units = in_units(bias, weight_scales, input_scale)
    lost: npt.NDArray[np.bool_] = ~(np.abs(np.rint(units)) <= LARGEST_INT32)
    return lost


def in_units(bias: npt.ArrayLike, weight_scales: npt.ArrayLike, input_scale: float) -> Doubles:
    """The bias of each channel as int32 would have to hold it: over input times weight scale."""
    biases = np.asarray(bias, dtype=np.float64)
    scales = np.broadcast_to(np.asarray(weight_scales, dtype=np.float64), biases.shape)
    with np.errstate(all="ignore"):
        # One after the other: the product of two small scales may be 0.
        units: Doubles = biases / scales / input_scale
    return units


def bias_of(site: Site, layer: Layer) -> Doubles | None:
    """The bias of each output channel, with a folded BatchNormalization's shift in it."""
    node = site.node
    if node.op_type not in (*FOLDABLE, "Gemm"):
        return None
    bias = _vector(node.inputs[2]) if len(node.inputs) > 2 else None
    if not layer.batchnorm_folded:
        return bias
    norm = only_consumer(node.outputs[0])
    if norm is None or norm.op_type != "BatchNormalization":
        return None
    gamma, shift, mean, variance = (_vector(norm.inputs[index]) for index in (1, 2, 3, 4))
    if gamma is None or shift is None or mean is None or variance is None:
        return None
    if bias is not None and bias.shape != mean.shape:
        return None
    epsilon = norm.attributes.get("epsilon")
    added = 1e-5 if epsilon is None else float(epsilon.as_float())
    with np.errstate(all="ignore"):
        factor = gamma / np.sqrt(variance + added)
        return np.asarray(((0 if bias is None else bias) - mean) * factor + shift, dtype=np.float64)


def _vector(value: ir.Value | None) -> Doubles | None:
    values = values_of(value, None)
    if values is None or values.ndim != 1 or values.dtype.kind not in "fiu":
        return None
    return values.astype(np.float64)
