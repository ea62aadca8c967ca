"""What cross-layer equalization could give: two layers in, their channel SQNR before and after out.

Two layers with nothing between them that minds a factor (``graph/pairs.py`` finds them) may trade
scale: output channel i of the first is divided by ``s_i > 0``, input channel i of the second
multiplied by it, and the network computes the same. With ``s_i = sqrt(r1_i / r2_i)``, r the largest
magnitude in the channel, both come to ``sqrt(r1_i r2_i)``: the paper's optimum for the product of
the two layers' precisions (a channel's precision is its share of its tensor's range).

Computed from weights alone: what the factors do to activations and to biases is not measured.

Source: Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization Through Weight Equalization
and Bias Correction", ICCV 2019, section 4.1 (https://arxiv.org/abs/1906.04721).
"""

from dataclasses import dataclass

import numpy as np

from quantstore.layer import Layer
from quantstore.numerics.quantization import dead_channels, row_dots
from quantstore.numerics.rounding import Columns
from quantstore.numerics.sweep import channel_p10_db
from quantstore.records import Doubles, Floats
from quantstore.schemes import DEFAULT_SCHEME, Scheme

# float32 holds all digits of such factors, and of such energies.
_LARGEST_FACTOR, _LEAST_ENERGY = 2.0**100, 2.0**-100


@dataclass(frozen=True, slots=True)
class PairGain:
    """SQNR in dB that nine in ten channels reach (the 10th percentile), both layers of a pair.

    Infinite where the round trip is exact; NaN where every channel is zero.
    """

    before_first_db: float
    after_first_db: float
    before_second_db: float
    after_second_db: float


def equalize(first: Layer, second: Layer, scheme: Scheme = DEFAULT_SCHEME) -> PairGain | None:
    """What equalizing this pair, and no other, would do to the two layers; None for no pair.

    Every pair is taken by itself, from the weights as they are in the file. The paper goes over a
    chain of layers until nothing changes any more; that needs every layer of the chain at once,
    while here memory follows the largest two tensors. A layer between two others therefore has two
    predictions, one for its input side and one for its output side.

    A gain can be negative: factors that even out one layer can spread the channels of the other.
    """
    after = p10_after_db(first, second, scheme)
    if after is None:
        return None
    return PairGain(
        before_first_db=p10_db(first.weights, scheme),
        after_first_db=after[0],
        before_second_db=p10_db(second.weights, scheme),
        after_second_db=after[1],
    )


def p10_after_db(
    first: Layer, second: Layer, scheme: Scheme = DEFAULT_SCHEME
) -> tuple[float, float] | None:
    """The part of :func:`equalize` that is not in the layers' own error figures already."""
    scale = pair_scale(first, second)
    if scale is None:
        return None
    # One scaled copy at a time.
    return (
        p10_db(scaled_first(first, scale), scheme, like=first.weights),
        p10_db(scaled_second(second, scale), scheme, like=second.weights),
    )


def p10_db(
    weights: Floats, scheme: Scheme = DEFAULT_SCHEME, *, like: Floats | None = None
) -> float:
    """SQNR in dB that nine in ten channels of a layer reach after a round trip.

    Args:
        like: the weights that say which channels are dead, where they are others.
    """
    finite = np.isfinite(weights)
    clean = weights if finite.all() else np.where(finite, weights, np.float32(0))
    is_dead = None
    if like is not None:
        low, high = like.min(axis=1, initial=0), like.max(axis=1, initial=0)
        # Without a mask numpy is several times as fast, and mostly none is needed.
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            where = np.isfinite(like)
            low = like.min(axis=1, initial=0, where=where)
            high = like.max(axis=1, initial=0, where=where)
        is_dead = dead_channels(low, high)
    return channel_p10_db(Columns(clean), _energy(clean), [scheme], is_dead)[0]


def _energy(weights: Floats) -> Doubles:
    """The sum of squares of each channel, in float32 wherever that has room for the squares."""
    with np.errstate(over="ignore", under="ignore"):
        quick = row_dots(weights, weights).astype(np.float64)
    if quick.size and quick.min() > _LEAST_ENERGY and quick.max() < np.inf:
        return quick
    # A channel at a time.
    exact: Doubles = np.einsum("ij,ij->i", weights, weights, dtype=np.float64)
    return exact


def pair_scale(first: Layer, second: Layer) -> Doubles | None:
    """``s_i = sqrt(r1_i / r2_i)``, one per channel between the two layers; None for no pair.

    1 where either side of the channel is all zero: there is nothing to trade. NaN and infinite
    weights do not count.
    """
    if not (_takes_part(first) and _takes_part(second)):
        return None
    first_range = _largest_magnitude(first.weights, (1,))
    second_range = _largest_magnitude(by_input_channel(second), (1, 3))
    if first_range.shape != second_range.shape:
        return None
    is_alive = (first_range > 0) & (second_range > 0)
    return np.sqrt(np.where(is_alive, first_range, 1) / np.where(is_alive, second_range, 1))


def scaled_first(layer: Layer, scale: Doubles) -> Floats:
    """``W_i / s_i`` for every output channel i, in the shape of ``layer.weights``."""
    scaled = np.empty_like(layer.weights)
    factors = _as_short_as_possible(scale)[:, np.newaxis]
    np.divide(layer.weights, factors, out=scaled, casting="same_kind")
    return scaled


def scaled_second(layer: Layer, scale: Doubles) -> Floats:
    """``W_i s_i`` for every input channel i, in the shape of ``layer.weights``."""
    weights = by_input_channel(layer)
    groups, outputs, _, kernel = weights.shape
    scaled = np.empty_like(weights)
    # One factor for each weight of a row: along a short axis numpy is slow.
    factors = np.repeat(_as_short_as_possible(scale), kernel).reshape(groups, 1, -1)
    rows = (groups, outputs, -1)
    np.multiply(weights.reshape(rows), factors, out=scaled.reshape(rows), casting="same_kind")
    return scaled.reshape(layer.weights.shape)


def _as_short_as_possible(scale: Doubles) -> Floats | Doubles:
    """In float32, which is several times as quick, wherever it holds the factors well."""
    if scale.size and scale.min() > 1 / _LARGEST_FACTOR and scale.max() < _LARGEST_FACTOR:
        return scale.astype(np.float32)
    return scale


def by_input_channel(layer: Layer) -> Floats:
    """The weights of a Conv or Gemm as ``(groups, outputs, inputs, kernel)``, without a copy.

    Outputs and inputs are counted inside a group: input channel ``c`` of group ``g`` is channel
    ``g * inputs + c`` of the data. A Gemm has one group and a kernel of one weight; a depthwise
    convolution has as many groups as channels, each with one input.
    """
    groups = layer.group_count
    outputs, columns = layer.weights.shape
    inputs = layer.shape[1] if layer.op_type == "Conv" else columns
    return layer.weights.reshape(groups, outputs // groups, inputs, columns // inputs)


def _takes_part(layer: Layer) -> bool:
    # Gemm with constant A is a layer too, with its channels in the rows of the result.
    is_listed = (layer.op_type, layer.operand) in (("Conv", "W"), ("Gemm", "B"))
    return is_listed and not layer.already_quantized and layer.weights.size > 0


def _largest_magnitude(weights: Floats, axes: tuple[int, ...]) -> Doubles:
    low, high = weights, weights
    # An axis at a time: numpy runs along each without a detour.
    for axis in axes:
        low, high = (
            low.min(axis=axis, initial=0, keepdims=True),
            high.max(axis=axis, initial=0, keepdims=True),
        )
    # A largest that is not finite says that some weight is not; mostly none is.
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        finite = np.isfinite(weights)
        low = weights.min(axis=axes, initial=0, where=finite)
        high = weights.max(axis=axes, initial=0, where=finite)
    magnitude: Doubles = np.maximum(-low, high).astype(np.float64)
    return magnitude.ravel()
