"""Remedies that keep everything in int8: what each tries, and the draft that comes out best.

Which remedies pay, in which order, and by how much: docs/rescue.md.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quantstore.numerics.compensation import compensated_codes
from quantstore.records import Doubles, Floats
from quantstore.rescuing.bench import RescueBench
from quantstore.rescuing.draft import Draft
from quantstore.rescuing.rows import Rows, rows_of
from quantstore.rescuing.scaling import Factors, Scalable, Scaling, group_count
from quantstore.rescuing.statistics import inputs_of_layers
from quantstore.run.choices import Calibration
from quantstore.run.grids import ActivationGrid
from quantstore.run.sensitivity import Budget

# Shares of the work that the activation does, the weights the rest (SmoothQuant, arXiv 2211.10438).
_ALPHAS = (0.5, 0.8)
_RANGE_METHODS: tuple[Calibration, ...] = ("mse", "percentile")
# Few calibration inputs do not reach as far as those that come later. What a wider range costs in
# steps, validation weighs against what is clipped.
_HEADROOMS = (1.2, 1.4)
# Layers with more inputs than this keep their nearest codes: H would take too long to invert.
MOST_INPUTS = 4608
# How far below zero a range may reach that reaches 1 above.
_SHARES_BELOW_ZERO = (
    1e-6,
    *(2.0 ** (-step / 2) for step in range(17)),
    *(2.0**step for step in range(1, 9)),
)
# A factor beyond these changes nothing more on a grid of 8 bits, and costs precision of floats.
_MOST_FACTOR = 1e4


@dataclass(frozen=True, slots=True)
class Proposal:
    """A draft that a remedy proposes; ``detail`` in words."""

    draft: Draft
    detail: str


def depthwise(bench: RescueBench, draft: Draft, *, with_muls: bool) -> Proposal | None:
    """Give every channel that only depthwise convolutions read a scale of its own."""
    scalings = {}
    for scalable in bench.scalable:
        if not scalable.is_depthwise or (scalable.producer is None and not with_muls):
            continue
        factors = _fitted(bench, scalable.tensor)
        if factors is not None:
            scalings[scalable.tensor] = Scaling(
                scalable, factors, is_folded=scalable.producer is not None
            )
    if not scalings:
        return None
    trial = dataclasses.replace(draft, scalings={**draft.scalings, **scalings})
    return Proposal(trial, scalings_in_words(trial))


def scalings_in_words(draft: Draft) -> str:
    """How many depthwise inputs are rescaled, and how."""
    folded = len(draft.scalings) - draft.mul_count
    phrases = [f"{folded} folded into the convolution before"] if folded else []
    phrases += [f"{draft.mul_count} as a Mul"] if draft.mul_count else []
    return f"{_count(len(draft.scalings), 'depthwise input')}: {', '.join(phrases)}"


def without_muls(draft: Draft) -> Draft:
    """The same with the factors alone that fold into a convolution."""
    folded = {name: scaling for name, scaling in draft.scalings.items() if scaling.is_folded}
    return dataclasses.replace(draft, scalings=folded)


def ranges(bench: RescueBench, draft: Draft) -> list[Proposal]:
    """Ranges by other methods than min-max, or wider ones, the same for all tensors."""
    proposals = [
        Proposal(dataclasses.replace(draft, calibration=method), f"calibration {method}")
        for method in _RANGE_METHODS
        if method != draft.calibration
    ]
    activations = bench.drafting.target.activations
    if activations is not None and not activations.has_power_of_two_scale:
        proposals += [
            Proposal(dataclasses.replace(draft, headroom=headroom), f"min-max times {headroom:g}")
            for headroom in _HEADROOMS
        ]
    return proposals


def equalize(bench: RescueBench, draft: Draft) -> list[Proposal]:
    """Even out the channels of activations where the factors fold into the convolution before."""
    trials = []
    for alpha in _ALPHAS:
        scalings = {}
        for scalable in bench.scalable:
            if scalable.producer is None or scalable.tensor in draft.scalings:
                continue
            factors = _evened(bench, scalable, alpha)
            if factors is not None:
                scalings[scalable.tensor] = Scaling(scalable, factors, is_folded=True)
        if scalings:
            trial = dataclasses.replace(draft, scalings={**draft.scalings, **scalings})
            trials.append(Proposal(trial, f"{_count(len(scalings), 'tensor')}, alpha {alpha:g}"))
    return trials


@dataclass(frozen=True)
class LayerInputs:
    """Some inputs of each layer, by the name of its weights, as ``inputs_of_layers`` gives them."""

    rows: Mapping[str, Rows]
    read: Mapping[str, list[Floats]]

    @classmethod
    def of(cls, bench: RescueBench) -> "LayerInputs":
        """Of every layer that is a plain matrix.

        Raises:
            RunError: onnxruntime stops.
        """
        rows_by_name = {name: rows_of(bench.network, name) for name in bench.placed.weights}
        rows = {
            name: row
            for name, row in rows_by_name.items()
            if row is not None and row.matrix.shape[1] <= MOST_INPUTS
        }
        return cls(rows, inputs_of_layers(bench.network, rows, bench.calibration, bench.folder))


def rounding(
    bench: RescueBench, draft: Draft, inputs: LayerInputs, budget: Budget
) -> Proposal | None:
    """Codes whose errors compensate each other, layer by layer, as far as the time goes."""
    report = bench.steps("rounding weights")
    in_file = bench.drafting.in_file(dataclasses.replace(draft, codes={}))
    factors = Factors.of(bench.network, draft.scalings)
    codes: dict[str, Floats] = {}
    layer_count = 0
    for done, (name, groups) in enumerate(inputs.read.items(), start=1):
        grid = bench.drafting.grid_of_rows(name, in_file)
        if grid is None:
            continue
        layer_count += 1
        if budget.is_over:
            continue
        rows = inputs.rows[name]
        scaled = rows.holding(factors.scaled(name, bench.network.constants[name]))
        scales = factors.of_tensors.get(rows.node.input[0])
        codes[name] = compensated_codes(scaled.matrix, _moments(groups, scales), grid)
        report(done, len(inputs.read))
    if not codes:
        return None
    detail = f"weights of {_count(len(codes), 'layer')}"
    if len(codes) < layer_count:
        detail += f" of {layer_count} (its share of the budget was used up)"
    return Proposal(dataclasses.replace(draft, codes=codes), detail)


def biases(bench: RescueBench, draft: Draft, inputs: LayerInputs) -> Proposal | None:
    """Biases that take back what rounding adds to the mean of each output channel.

    ``E[W' x' - W x]`` over the calibration samples, W' and x' rounded, is subtracted from the bias;
    x is what the float network gives. Source: Nagel 2019, section 4.2.
    """
    plan = bench.drafting.plan(dataclasses.replace(draft, corrections={}))
    bias_of = {bias.weights: bias.name for bias in bench.placed.biases}
    bias_count = Counter(bias_of.values())
    corrections: dict[str, Doubles] = {}
    for name, groups in inputs.read.items():
        bias = bias_of.get(name)
        if bias is None or bias_count[bias] > 1 or bench.network.float_constants[bias].ndim != 1:
            continue
        rows = inputs.rows[name]
        tensor = rows.node.input[0]
        grid = plan.grids.get(tensor) or plan.grids.get(bench.placed.grid_of.get(tensor, tensor))
        before = rows.matrix.astype(np.float64)
        after = rows.holding(plan.constants.get(name, bench.network.constants[name])).matrix
        corrections[bias] = -_mean_shift(before, after.astype(np.float64), groups, grid)
    if not corrections:
        return None
    detail = f"biases of {_count(len(corrections), 'layer')}"
    return Proposal(dataclasses.replace(draft, corrections=corrections), detail)


def _mean_shift(
    before: Doubles, after: Doubles, groups: list[Floats], grid: ActivationGrid | None
) -> Doubles:
    """By how much rounding shifts the mean of each output channel."""
    size = len(before) // len(groups)
    shifts = []
    for index, patches in enumerate(groups):
        group_rows = slice(index * size, (index + 1) * size)
        read = _rounded(patches, grid, index, len(groups))
        shifts.append(
            after[group_rows] @ read.mean(axis=0)
            - before[group_rows] @ patches.mean(axis=0, dtype=np.float64)
        )
    return np.concatenate(shifts)


def _rounded(patches: Floats, grid: ActivationGrid | None, index: int, groups: int) -> Doubles:
    """Inputs of a layer's group as they come back from their grid."""
    values = patches.astype(np.float64)
    if grid is None or grid.is_dynamic:
        return values
    scale, lowest, highest = (
        np.ravel(part).astype(np.float64) for part in (grid.scale, grid.lowest, grid.highest)
    )
    if scale.size > 1:
        scale, lowest, highest = (
            _of_columns(part, index, groups, values.shape[1]) for part in (scale, lowest, highest)
        )
    rounded: Doubles = np.clip(np.rint(values / scale), lowest, highest) * scale
    return rounded


def _of_columns(by_channel: Doubles, index: int, groups: int, columns: int) -> Doubles:
    """A number for each column of a group's patches, from one for each channel of the tensor."""
    channels = by_channel.reshape(groups, -1)[index]
    return np.repeat(channels, columns // len(channels))


def _moments(groups: list[Floats], scales: Doubles | None) -> Doubles:
    """The mean of ``x x^T`` by group.

    Args:
        scales: what the layer's input channels are multiplied by in the file; inputs are divided.
    """
    inputs = np.stack(groups).astype(np.float64)
    if scales is not None:
        by_column = [
            _of_columns(scales, index, len(groups), inputs.shape[2]) for index in range(len(groups))
        ]
        inputs /= np.stack(by_column)[:, None]
    moments: Doubles = np.swapaxes(inputs, 1, 2) @ inputs / inputs.shape[1]
    return moments


def _fitted(bench: RescueBench, tensor: str) -> Doubles | None:
    """A factor for each channel that brings all to one range; None where nothing was observed.

    The range is ``[-r, 1]``, for the channels share a zero point. With ``s_c = max(high_c,
    -low_c / r)`` each fits; a step is then ``(1 + r) s_c`` codes wide. The best r is that with the
    least mean square of steps over the channels' own ranges: 1 where negative values are as large
    as positive ones, near 0 behind a SiLU, which leaves small ones.
    """
    ends = bench.drafting.channel_ends(tensor)
    if ends is None:
        return None
    low, high = np.maximum(-ends[0], 0), np.maximum(ends[1], 0)
    span = low + high
    is_used = span > 0
    if not is_used.any():
        return np.ones_like(span)
    best, least = high, np.inf
    for share in _SHARES_BELOW_ZERO:
        factors = np.maximum(high, low / share)
        cost = float(np.mean(((1 + share) * factors[is_used] / span[is_used]) ** 2))
        if cost < least:
            best, least = factors, cost
    return _usable(best)


def _evened(bench: RescueBench, scalable: Scalable, alpha: float) -> Doubles | None:
    """``m^alpha / w^(1 - alpha)``: m of the channel's activation, w of the weights that read it."""
    if scalable.is_depthwise:
        return _fitted(bench, scalable.tensor)
    ends = bench.drafting.channel_ends(scalable.tensor)
    if ends is None:
        return None
    largest = np.maximum(np.abs(ends[0]), np.abs(ends[1]))
    weights = np.zeros(scalable.channel_count)
    groups = _groups(bench)
    for name in scalable.readers:
        array = np.abs(bench.network.constants[name])
        group_count = groups.get(name, 1)
        by_input = array.reshape(group_count, len(array) // group_count, array.shape[1], -1)
        weights = np.maximum(weights, by_input.max(axis=(1, 3)).ravel())
    return _usable(largest**alpha / np.maximum(weights, 1e-12) ** (1 - alpha))


def _groups(bench: RescueBench) -> Mapping[str, int]:
    return {
        node.input[1]: group_count(node)
        for node in bench.network.model.graph.node
        if node.op_type == "Conv"
    }


def _usable(factors: Doubles) -> Doubles:
    """Factors with a geometric mean of 1; channels that are always zero keep theirs."""
    is_usable = np.isfinite(factors) & (factors > 0)
    if not is_usable.any():
        return np.ones_like(factors)
    mean = np.exp(np.mean(np.log(factors[is_usable])))
    usable: Doubles = np.where(is_usable, factors / mean, 1.0)
    # Exact in float32, in which files hold them.
    clipped = np.clip(usable, 1 / _MOST_FACTOR, _MOST_FACTOR)
    return np.asarray(clipped.astype(np.float32), np.float64)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
