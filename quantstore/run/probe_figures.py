"""The probe itself: a file in, one figure after another out, what was asked for first first.

Meant for a process of its own (``probe_child``), because a runtime can crash, hang or want all the
memory there is. Definitions and sources: docs/method.md, section 8.
"""

import dataclasses
import itertools
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from quantstore.errors import QuantstoreError, RunError
from quantstore.graph.findings import of_run
from quantstore.graph.findings.base import DecoderFigures, KernelFigures, LostFigures
from quantstore.numerics.saturation import Saturation
from quantstore.records import (
    ABSORBED,
    INTEGERS_ON_GRID,
    ROUNDS_NOTHING,
    WEIGHTS_ON_GRID,
    Array,
    FindingRecord,
    OutputRecord,
)
from quantstore.run import decoder, kernels, noise, outputs, points, states, twin
from quantstore.run.clock import Clock
from quantstore.run.comparison import Reference
from quantstore.run.decoder import Decoder
from quantstore.run.emulator import FixedEmulator, Plan
from quantstore.run.faint_channels import faint_channels
from quantstore.run.inputs import Samples
from quantstore.run.kernels import Product
from quantstore.run.lost import first_lost
from quantstore.run.network import Network
from quantstore.run.outputs import JudgedPart
from quantstore.run.own_quantizers import has_quantizers
from quantstore.run.placement import Placement, placement
from quantstore.run.plan import Probed
from quantstore.run.plans import Planner, Rounding
from quantstore.run.points import Points
from quantstore.run.ranges import Observed, observe
from quantstore.run.runtime import Feeds, Session
from quantstore.run.stored_grids import BRANCHING
from quantstore.run.stored_rounding import stored_rounding
from quantstore.run.tail import FloatHeads, Tail
from quantstore.schemes import DEFAULT_TARGET, LOST_DB, Target

logger = logging.getLogger(__name__)

# One seed for each use, so that nothing is tested on what it was calibrated on.
CALIBRATION_SEED, TEST_SEED = 11, 12
# Rounding to 8 bits cannot come near; what lies above is float32's own noise: nothing was rounded.
EXACT_DB = 100.0

NO_FLOAT_OUTPUT_DEPENDS = "no output of floating-point numbers depends on the inputs"


@dataclass(frozen=True, slots=True)
class Facts:
    """What holds for all figures of a model: its inputs, and where it is compared, in words.

    ``provisional``: why figures on noise are no evidence for this model, None where they are.
    """

    input_shape: str
    compared: str
    provisional: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure, or in ``failure`` why there is none; ``output_sqnr_db`` is NaN then."""

    target: str | None
    scheme: str
    mode: str
    calibration: str | None
    sample_count: int
    calibration_count: int
    output_sqnr_db: float
    float_layers: tuple[str, ...]
    seconds: float
    cpu_seconds: float
    failure: str | None
    deciding_sqnr_db: float = math.nan
    tail_sqnr_db: float = math.nan
    outputs: tuple[OutputRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the outputs keep: the median of all, row by row, and what a verdict takes."""

    output_sqnr_db: float = math.nan
    judged: tuple[JudgedPart, ...] = ()
    tail: DecoderFigures | None = None

    @property
    def rows(self) -> tuple[OutputRecord, ...]:
        return tuple(row.record for row in self.judged)

    @property
    def deciding_sqnr_db(self) -> float:
        heads_db = outputs.deciding_sqnr_db(self.judged)
        return heads_db if self.tail is None else min(heads_db, self.tail.whole_file_db)

    @property
    def tail_sqnr_db(self) -> float:
        return math.nan if self.tail is None else self.tail.whole_file_db


def figures(
    path: Path, asked: Sequence[Probed], *, fold: bool = True
) -> Iterator[Facts | Figure | FindingRecord]:
    """Run a model in float and rounded, on noise.

    Args:
        asked: the figures, in the order in which they are given.
        fold: whether BatchNormalization is folded into the weights before they are quantized.

    Yields:
        The facts, then each figure as soon as it is there, and behind it what it shows besides.

    Raises:
        QuantstoreError: the model cannot be run at all.
    """
    clock = Clock()
    model = twin.open_float(path)
    for name, value in noise.frozen_inputs(model.model).items():
        twin.freeze_input(model.model, name, value)
    compared = points.cut(model.model, keeps_decoder=True)
    if not compared.names:
        raise RunError(NO_FLOAT_OUTPUT_DEPENDS)
    with tempfile.TemporaryDirectory(prefix="quantstore-") as folder:
        ready = _ready(model, compared, Path(folder), fold=fold)
        was_quantized = model.was_quantized
        # There shall be no second copy of the weights beside the network.
        del model
        inputs = ready.inputs
        yield Facts(noise.shapes_text(inputs), compared.description, noise.provisional(inputs))
        trial = _Trial(ready, compared, Path(folder), asked, was_quantized=was_quantized)
        for probed in asked:
            try:
                kept, failure = trial.figure(probed)
            except RunError as error:
                kept, failure = _Kept(), error.sentence
            if failure is not None:
                kept = _Kept()
            yield Figure(
                target=None if probed.target is None else probed.target.name,
                scheme=probed.scheme.name,
                mode=probed.mode,
                calibration="minmax" if probed.mode == "both" else None,
                sample_count=trial.sample_count,
                calibration_count=trial.calibration_count if probed.mode == "both" else 0,
                output_sqnr_db=kept.output_sqnr_db,
                deciding_sqnr_db=kept.deciding_sqnr_db,
                tail_sqnr_db=kept.tail_sqnr_db,
                outputs=kept.rows,
                float_layers=trial.float_layers(probed),
                seconds=clock.wall_lap(),
                cpu_seconds=clock.cpu_lap(),
                failure=failure,
            )
            if failure is None:
                yield from trial.findings(probed, kept)
        if was_quantized:
            yield from trial.stored_findings(path)


def prepared(
    model: twin.FloatModel, names: tuple[str, ...], folder: Path, *, fold: bool
) -> tuple[Network, tuple[noise.Input, ...]]:
    """The network that is probed, of a model that ends at its points, and its inputs.

    Args:
        names: of the points, which are the model's outputs.
        folder: for files; nobody else writes there.

    Raises:
        RunError: it runs on no choice of shapes; what it says of the first.
    """
    ready = _ready(model, Points(names, ""), folder, fold=fold)
    return ready.network, ready.inputs


@dataclass(frozen=True, slots=True)
class _Ready:
    """A network with shapes that it runs on, what is behind its points, and its first run.

    ``first_sample``: of those that are compared; ``others``: the rest of them, without end.
    ``first_outputs``: what it gives on the first.
    """

    network: Network
    decoder: Decoder | None
    inputs: tuple[noise.Input, ...]
    first_sample: Feeds
    others: Iterator[Feeds]
    first_outputs: list[Array]


def _ready(model: twin.FloatModel, compared: Points, folder: Path, *, fold: bool) -> _Ready:
    """The network with the first choice of shapes that it runs on.

    Args:
        compared: as ``points.cut`` left the model where it keeps the decoder.

    Raises:
        RunError: it runs on none; what it says of the first.
    """
    choices = noise.choices(model.model)
    first = next(choices)
    try:
        return _tried(twin.to_proto(model), first, compared, folder, fold=fold)
    except RunError as refusal:
        others = list(choices)
        if not others:
            raise
        # One session for all other choices: loading a model costs more than running it.
        session = Session(twin.to_proto(model))
        for inputs in others:
            try:
                session.run(next(noise.stream(inputs, seed=TEST_SEED)))
            except RunError:
                continue
            return _tried(twin.to_proto(model), inputs, compared, folder, fold=fold)
        raise refusal from None


def _tried(
    whole: onnx.ModelProto,
    inputs: tuple[noise.Input, ...],
    compared: Points,
    folder: Path,
    *,
    fold: bool,
) -> _Ready:
    """The network with these shapes, after one run."""
    fix_shapes(whole, inputs)
    network, behind = decoder.prepare(whole, compared, folder, fold=fold, keeps_shapes=False)
    others = noise.stream(inputs, seed=TEST_SEED)
    first_sample = next(others)
    first_outputs = network.session.run(network.fed(first_sample), network.outputs)
    return _Ready(network, behind, inputs, first_sample, others, first_outputs)


class _Trial:
    """One network with its samples; what several figures need is made once, when it is needed."""

    def __init__(
        self,
        ready: _Ready,
        compared: Points,
        folder: Path,
        asked: Sequence[Probed],
        *,
        was_quantized: bool,
    ) -> None:
        self._network, self._inputs, self._folder = ready.network, ready.inputs, folder
        self._decoder, self._points = ready.decoder, compared
        self._ready = ready
        # Known as soon as ranges are.
        self._heads: FloatHeads | None = None
        self._was_quantized = was_quantized
        self._has_named_lost = False
        self._last_plan: dict[str, Plan] = {}
        self._last_emulator: tuple[Placement, FixedEmulator] | None = None
        # By the target: what sums of a sample would saturate elsewhere, layer by layer.
        self._clamped: dict[str, dict[str, Saturation]] = {}
        targets = [probed.target for probed in asked if probed.target is not None]
        # Targets that differ in their weights alone have one placement, and one emulator.
        alike = {(target.placement, target.activations): target for target in targets}
        placements = {key: placement(ready.network, target) for key, target in alike.items()}
        self._placements = {
            target.name: placements[target.placement, target.activations] for target in targets
        }
        # Those that round activations as well.
        self._rounding = {
            target.name: target.activations for target in targets if target.activations is not None
        }
        # The target that findings are made for.
        rounding = [*self._rounding]
        is_asked = DEFAULT_TARGET.name in rounding
        self._default = DEFAULT_TARGET.name if is_asked else next(iter(rounding), None)

    def figure(self, probed: Probed) -> tuple[_Kept, str | None]:
        """What the outputs keep, and why it is no figure.

        Raises:
            RunError: onnxruntime stops, or an output is no number.
        """
        if probed.target is None or probed.target.activations is None:
            kept = self._weights_alone(probed)
            is_exact = kept.output_sqnr_db > EXACT_DB
            return kept, self._why_weights_lose_nothing(probed) if is_exact else None
        _, reference = self._compared
        actual = self._rounded(probed.target)
        kept = self._kept(reference, actual)
        if kept.output_sqnr_db > EXACT_DB:
            is_absorbed = self._has_quantizers and self._placements[probed.target.name].grid_of
            return kept, ABSORBED if is_absorbed else ROUNDS_NOTHING
        return self._to_the_end(probed.target, kept, actual), None

    def _why_weights_lose_nothing(self, probed: Probed) -> str:
        if self._was_quantized:
            return INTEGERS_ON_GRID
        is_absorbed = self._has_quantizers and not all(
            np.allclose(rounded, self._network.constants[name], rtol=1e-5, atol=0, equal_nan=True)
            for name, rounded in self._rounded_weights(probed).items()
        )
        return ABSORBED if is_absorbed else WEIGHTS_ON_GRID

    @property
    def _has_quantizers(self) -> bool:
        """Whether the network rounds by itself, as its file says."""
        return has_quantizers(self._network.tensors)

    def _rounded(self, target: Target) -> list[list[Array]]:
        """What the network gives under a target, sample by sample."""
        placed, plan = self._placements[target.name], self._plan(target)
        samples, _ = self._compared
        if self._last_emulator is None or self._last_emulator[0] is not placed:
            self._last_emulator = None
            observed = kernels.observed_tensors(self._network, placed, plan)
            self._last_emulator = (
                placed,
                FixedEmulator(self._network, placed, plan.grids, observed),
            )
        _, emulator = self._last_emulator
        multiplied: tuple[Product, ...] = ()
        if self._has_estimate(target):
            multiplied = tuple(kernels.products(self._network, placed, plan))
        observed = tuple(dict.fromkeys(product.observed for product in multiplied))
        first = emulator.run(plan, samples[0], observed)
        count = len(first) - len(observed)
        tensors = dict(zip(observed, first[count:], strict=True))
        self._clamped[target.name] = kernels.clamped_layers(multiplied, tensors)
        return [first[:count], *(emulator.run(plan, sample) for sample in samples[1:])]

    def _kept(self, reference: Reference, actual: Sequence[Sequence[Array]]) -> _Kept:
        """What the outputs keep at the heads."""
        output_sqnr_db = reference.median_db(actual)
        names = self._network.outputs
        judged = outputs.judged(
            self._points.parts, names, reference.expected, actual, is_real=False
        )
        return _Kept(output_sqnr_db, judged)

    def _to_the_end(self, target: Target, kept: _Kept, actual: Sequence[Sequence[Array]]) -> _Kept:
        """The same of the whole file, its decoder included."""
        if self._heads is None or kept.output_sqnr_db == LOST_DB:
            return kept
        judge = Tail(self._heads, target, actual, is_real=False)
        try:
            figures = judge.figures(kept.judged, has_remedy=target.name == self._default)
        except RunError as error:
            logger.info("decoder under %s: %s", target.name, error.sentence)
            return kept
        return dataclasses.replace(kept, tail=figures)

    def findings(self, probed: Probed, kept: _Kept) -> Iterator[FindingRecord]:
        """What figures show besides: decoders that lose, and integer kernels that saturate."""
        shown = (
            self._lost(probed, kept),
            kept.tail,
            self._kernel_figures(probed, kept.output_sqnr_db),
            # They are the same for every target.
            faint_channels(self._network, *self._compared)
            if probed.target is DEFAULT_TARGET
            else None,
        )
        for figures_of_run in shown:
            if figures_of_run is not None:
                yield from (finding.record() for finding in of_run(figures_of_run))

    def _lost(self, probed: Probed, kept: _Kept) -> LostFigures | None:
        """What makes an output NaN or infinite."""
        if probed.target is None or kept.output_sqnr_db != LOST_DB or self._has_named_lost:
            return None
        # Targets differ little in that.
        self._has_named_lost = True
        samples, _ = self._compared
        placed, plan = self._placements[probed.target.name], self._plan(probed.target)
        return first_lost(self._network, placed, plan, samples)

    def stored_findings(self, path: Path) -> Iterator[FindingRecord]:
        """What the activations of an integer file lose as they are stored."""
        try:
            shown = stored_rounding(path, self._compared[0])
        except QuantstoreError as error:
            logger.info("stored rounding: %s", error.sentence)
            return
        if shown is not None:
            yield from (finding.record() for finding in of_run(shown))

    def _kernel_figures(self, probed: Probed, output_sqnr_db: float) -> KernelFigures | None:
        """What integer kernels make of a target whose products saturate on some processors."""
        if probed.target is None or not self._has_estimate(probed.target):
            return None
        placed, rounding = self._placements[probed.target.name], Rounding.of(probed.target)
        samples, reference = self._compared
        try:
            return kernels.measure(
                self._network,
                placed,
                rounding,
                self._plan(probed.target),
                samples,
                reference,
                self._folder,
                clamped=self._clamped[probed.target.name],
                float_arithmetic_db=output_sqnr_db,
                may_saturate=self._may_saturate,
            )
        except RunError as error:
            # No file, no kernels: the figure stands, it is of float arithmetic.
            logger.info("integer kernels under %s: %s", probed.target.name, error.sentence)
            return None

    def _has_estimate(self, target: Target) -> bool:
        """Whether what products of a target saturate is asked.

        A processor that cannot saturate is asked once, for what others would lose.
        """
        is_asked = self._may_saturate or target is DEFAULT_TARGET
        return is_asked and kernels.has_mixed_products(Rounding.of(target))

    @cached_property
    def _may_saturate(self) -> bool:
        return kernels.can_saturate(kernels.cpuinfo())

    def _plan(self, target: Target) -> Plan:
        """The plan of a target, kept until another one is asked for: it holds all weights."""
        if target.name not in self._last_plan:
            placed = self._placements[target.name]
            self._last_plan = {target.name: self._planner.plan(placed, Rounding.of(target))}
        return self._last_plan[target.name]

    def float_layers(self, probed: Probed) -> tuple[str, ...]:
        """Names of what stays in float though it is of a kind that is rounded."""
        return () if probed.target is None else self._placements[probed.target.name].left_in_float

    def _weights_alone(self, probed: Probed) -> _Kept:
        """Without roundings in the graph, which would cost as much as the network itself."""
        samples, reference = self._compared
        fed = {**self._network.constants, **self._rounded_weights(probed)}
        session, names = self._network.session, self._network.outputs
        return self._kept(reference, [session.run({**fed, **sample}, names) for sample in samples])

    def _rounded_weights(self, probed: Probed) -> dict[str, Array]:
        return {
            name: self._network.rounded(slot, probed.scheme).values
            for name, slot in self._network.slot_of.items()
        }

    @cached_property
    def _planner(self) -> Planner:
        drawn = self._streamed(
            noise.samples(self._inputs, self.calibration_count, seed=CALIBRATION_SEED)
        )
        samples = Samples("noise", len(drawn), lambda index: dict(drawn[index]))
        placements = [self._placements[name] for name in self._rounding]
        by_channel = {
            tensor
            for name, activations in self._rounding.items()
            if activations.is_per_channel_at_depthwise
            for tensor in self._placements[name].depthwise
        }
        roots = dict.fromkeys(root for placed in placements for root in placed.grid_of.values())
        observed = observe(
            self._network,
            [*roots, *sorted(by_channel)],
            samples,
            self._folder,
            by_channel=by_channel,
            keep=self._network.outputs if self._decoder is not None else (),
        )
        self._heads = self._float_heads(drawn, observed)
        return Planner(self._network, observed)

    def _float_heads(
        self, drawn: Sequence[Feeds], observed: Mapping[str, Observed]
    ) -> FloatHeads | None:
        """What the float network gives to its decoder; None without one."""
        kept = [observed[name].kept for name in self._network.outputs if name in observed]
        if self._decoder is None or len(kept) < len(self._network.outputs):
            return None
        of_calibration = tuple(zip(*(arrays or () for arrays in kept), strict=True))
        samples, reference = self._compared
        return FloatHeads(
            self._decoder, drawn, of_calibration, samples, reference.expected, self._folder
        )

    @property
    def calibration_count(self) -> int:
        return self._counts[0]

    @property
    def sample_count(self) -> int:
        return self._counts[1]

    @cached_property
    def _counts(self) -> tuple[int, int]:
        """How many samples ranges are found on, and how many are compared."""
        return noise.sample_counts(self._inputs, noise.compared_elements(self._ready.first_outputs))

    @cached_property
    def _compared(self) -> tuple[list[Feeds], Reference]:
        others = itertools.islice(self._ready.others, self.sample_count - 1)
        samples = self._streamed([self._ready.first_sample, *others])
        names, session = self._network.outputs, self._network.session
        outputs_of_others = [
            session.run(self._network.fed(sample), names) for sample in samples[1:]
        ]
        return samples, Reference(names, [self._ready.first_outputs, *outputs_of_others])

    def _streamed(self, drawn: Sequence[Feeds]) -> list[Feeds]:
        return states.streamed(drawn, noise.states(self._inputs), self._network.named_outputs)


def fix_shapes(whole: onnx.ModelProto, inputs: tuple[noise.Input, ...]) -> None:
    """Write the chosen shapes into the model, so that what is computed from them folds away."""
    if any(node.op_type in BRANCHING for node in whole.graph.node):
        return
    shapes = {model_input.name: model_input.shape for model_input in inputs}
    for value in whole.graph.input:
        shape = value.type.tensor_type.shape
        del shape.dim[:]
        for size in shapes[value.name]:
            shape.dim.add().dim_value = size
