"""The whole file, its decoder included: what is left of the heads' figure, and what to leave out.

The heads of the rounded network go through the decoder twice, in float and rounded. What the two
differ in is the decoder's own doing. Definitions: docs/method.md, section 8.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from quantstore.errors import RunError
from quantstore.graph.findings.base import DecoderFigures
from quantstore.records import Array
from quantstore.run import grids, outputs
from quantstore.run.choices import Calibration
from quantstore.run.decoder import Decoder, Share
from quantstore.run.emulator import FixedEmulator
from quantstore.run.inputs import Samples
from quantstore.run.nodes import name_of
from quantstore.run.outputs import JudgedPart
from quantstore.run.placement import placement
from quantstore.run.plans import Planner, Rounding
from quantstore.run.points import Join
from quantstore.run.ranges import Observed, Range, observe
from quantstore.run.runtime import Feeds
from quantstore.schemes import Activations, Target

# Roundings that follow one another cost as much together as the worst of them, or a little more.
MOST_LOSS_DB = 3.0
# Of decisions, what changes by chance.
MOST_LOST_DECISIONS = 0.02
# Where nobody decides: scores of a grid that other values set keep about 0 dB, those of their own
# 20 dB and more, if few are far above the others.
LEAST_SCORES_DB = 10.0
# Decoded values are lost where errors come near all that varies with the input.
LEAST_VARYING_DB = 3.0

Handed = Sequence[Sequence[Array]]


@dataclass(frozen=True)
class FloatHeads:
    """What the float network gives at its heads, and what its decoder makes of that.

    It is the same for every target, and computed once.

    ``calibration`` and ``expected``: of the calibration samples, and of those that are compared,
    each with the samples themselves beside it. ``folder``: for files.
    """

    decoder: Decoder
    calibration_samples: Sequence[Feeds]
    calibration: Handed
    samples: Sequence[Feeds]
    expected: Handed
    folder: Path
    _observed: dict[tuple[bool, frozenset[str]], Mapping[str, Observed]] = field(
        default_factory=dict, repr=False
    )

    def fed(self, heads: Handed) -> list[dict[str, Array]]:
        """What the decoder is fed, sample by sample, where the heads give this."""
        return [
            self.decoder.fed(arrays, sample)
            for arrays, sample in zip(heads, self.samples, strict=True)
        ]

    @cached_property
    def handed(self) -> Handed:
        """What the decoder makes of the heads that are compared.

        Raises:
            RunError: onnxruntime stops.
        """
        return [self.decoder.run(fed) for fed in self.fed(self.expected)]

    def observed(
        self, *, has_histograms: bool, by_channel: frozenset[str]
    ) -> Mapping[str, Observed]:
        """What the calibration samples show of every float tensor of the decoder.

        Raises:
            RunError: onnxruntime refuses the decoder, or stops.
        """
        key = has_histograms, by_channel
        if key not in self._observed:
            calibration = [
                self.decoder.fed(arrays, sample)
                for arrays, sample in zip(self.calibration, self.calibration_samples, strict=True)
            ]
            self._observed[key] = observe(
                self.decoder.network,
                sorted(self.decoder.network.float_tensors),
                Samples("heads", len(calibration), lambda index: calibration[index]),
                self.folder,
                has_histograms=has_histograms,
                by_channel=by_channel,
            )
        return self._observed[key]


@dataclass(frozen=True, slots=True)
class WholeFile:
    """What the whole file keeps, and what it hands out, input by input and by name of the tensor.

    ``figures``: None where there is nothing to say. ``expected`` and ``actual``: of the float file,
    and of the one whose decoder is rounded as well. ``in_float``: of the rounded network where
    nothing rounds the decoder.
    """

    figures: DecoderFigures | None
    expected: Sequence[Mapping[str, Array]]
    actual: Sequence[Mapping[str, Array]]
    in_float: Sequence[Mapping[str, Array]] = ()


@dataclass(frozen=True, slots=True)
class _Loss:
    """What rounding the decoder does to a share of what is handed out.

    ``own_db``: SQNR against the decoder in float on the same heads; ``own_varying_db``: the same of
    what varies. ``heads_db``: what the heads of this kind keep. ``f1`` and ``kept_f1``: decisions
    with the decoder rounded and in float, NaN where there are none.
    """

    share: Share
    heads_db: float
    own_db: float
    own_varying_db: float
    f1: float
    kept_f1: float
    scores_kept: float

    @property
    def figure_db(self) -> float:
        """What is left of the heads' figure: both errors, as if nothing else did harm."""
        if not self.share.part.decision:
            return min(self.heads_db, self.own_varying_db + outputs.VARYING_MARGIN_DB)
        noise = 10 ** (-self.heads_db / 10) + 10 ** (-self.own_db / 10)
        return -10 * math.log10(noise) if noise > 0 else self.heads_db

    @property
    def is_lost(self) -> bool:
        """Whether the decoder loses what the heads had."""
        if not self.heads_db - self.figure_db > MOST_LOSS_DB:
            return False
        if not self.share.part.decision:
            # Constants carry most of a decoded value.
            return self.own_varying_db < LEAST_VARYING_DB
        if math.isnan(self.f1):
            return self.own_db < LEAST_SCORES_DB
        return self.kept_f1 - self.f1 > MOST_LOST_DECISIONS


@dataclass(frozen=True)
class Tail:
    """A decoder under a target.

    ``actual``: what the rounded network gives at the heads. ``exclude``: names of what stays in
    float.
    """

    heads: FloatHeads
    target: Target
    actual: Handed
    is_real: bool
    exclude: frozenset[str] = frozenset()
    calibration: Calibration = "minmax"

    @property
    def decoder(self) -> Decoder:
        return self.heads.decoder

    def figures(
        self, judged: Sequence[JudgedPart], *, has_remedy: bool = True
    ) -> DecoderFigures | None:
        """What the whole file keeps of the heads' figures; None where there is nothing to say.

        Args:
            has_remedy: whether nodes are sought whose return to float brings them back.

        Raises:
            RunError: onnxruntime refuses the decoder, or stops.
        """
        if self.target.activations is None or math.isnan(outputs.deciding_sqnr_db(judged)):
            return None
        return self.whole_file(judged, has_remedy=has_remedy).figures

    def whole_file(self, judged: Sequence[JudgedPart], *, has_remedy: bool = True) -> WholeFile:
        """The same with what is handed out; raises as :meth:`figures` does."""
        heads_db = outputs.deciding_sqnr_db(judged)
        fed = self.heads.fed(self.actual)
        expected = self.heads.handed
        kept = [self.decoder.run(tensors) for tensors in fed]
        if self.target.activations is None or math.isnan(heads_db):
            return WholeFile(None, self._by_name(expected), self._by_name(kept))
        shares = self.decoder.shares(self.heads.fed(self.heads.expected)[0])
        run = _Run(self, shares, expected, kept, judged)
        handed = run.rounded(fed, self.exclude)
        losses = run.losses(handed)
        whole_db = _figure_db(losses, heads_db)
        figures = DecoderFigures(heads_db=heads_db, whole_file_db=whole_db)
        if has_remedy and any(loss.is_lost for loss in losses):
            nodes, still_lost = run.remedy(fed)
            figures = DecoderFigures(
                heads_db=heads_db,
                whole_file_db=whole_db,
                nodes=nodes,
                kept_db=_figure_db(still_lost, heads_db),
                scores_kept=min(
                    (loss.scores_kept for loss in losses if not math.isnan(loss.scores_kept)),
                    default=math.nan,
                ),
            )
        return WholeFile(figures, self._by_name(expected), handed, self._by_name(kept))

    def _by_name(self, handed: Handed) -> list[dict[str, Array]]:
        return [dict(zip(self.decoder.ends, arrays, strict=True)) for arrays in handed]


@dataclass(frozen=True)
class _Run:
    """What the decoder makes of the heads: of the float ones, and in float of the rounded ones."""

    tail: Tail
    shares: Sequence[Share]
    expected: Handed
    kept: Handed
    judged: Sequence[JudgedPart]

    @property
    def _activations(self) -> Activations:
        activations = self.tail.target.activations
        if activations is None:
            raise RunError("a target with float activations does not quantize the decoder")
        return activations

    def rounded(self, fed: Sequence[Feeds], exclude: Iterable[str]) -> list[dict[str, Array]]:
        """The ends, by name, where all but some nodes of the decoder are rounded."""
        decoder, target = self.tail.decoder, self.tail.target
        excluded = frozenset(exclude)
        placed = placement(decoder.network, target, excluded)
        by_channel = self._activations.is_per_channel_at_depthwise
        observed = self.tail.heads.observed(
            has_histograms=self.tail.calibration != "minmax",
            by_channel=placed.depthwise if by_channel else frozenset(),
        )
        planner = Planner(decoder.network, observed, self.tail.calibration)
        plan = planner.plan(placed, Rounding.of(target))
        emulator = FixedEmulator(decoder.network, placed, plan.grids)
        handed = [
            dict(zip(decoder.ends, emulator.run(plan, sample), strict=True)) for sample in fed
        ]
        if target.placement == "everywhere":
            ranges = {name: item.range for name, item in observed.items() if item.range is not None}
            for join in decoder.points.joins:
                if join.node not in excluded:
                    self._join(handed, join, ranges)
        return handed

    def losses(self, handed: Sequence[Mapping[str, Array]]) -> list[_Loss]:
        """What each share lost, against the decoder in float."""
        decoder = self.tail.decoder
        losses = []
        for share in self.shares:
            (name,) = share.part.names
            at = decoder.ends.index(name)
            y = [[share.of(sample[at])] for sample in self.expected]
            kept = [[share.of(sample[at])] for sample in self.kept]
            whole = [[share.of(sample[name])] for sample in handed]
            f1 = kept_f1 = scores_kept = math.nan
            if share.part.decision and self.tail.is_real:
                f1, count = outputs.decided(share.part, y, whole)
                kept_f1, _ = outputs.decided(share.part, y, kept)
                if count:
                    scores_kept = _kept(y, whole, share.part.limit)
            losses.append(
                _Loss(
                    share=share,
                    heads_db=self._heads_db(is_score=bool(share.part.decision)),
                    own_db=outputs.sqnr_db(kept, whole),
                    own_varying_db=outputs.varying_sqnr_db(kept, whole),
                    f1=f1,
                    kept_f1=kept_f1,
                    scores_kept=scores_kept,
                )
            )
        return losses

    def _heads_db(self, *, is_score: bool) -> float:
        """The figure of the heads that decide, or do not decide, element by element."""
        alike = [item for item in self.judged if bool(item.part.decision) == is_score]
        figure_db = outputs.deciding_sqnr_db(alike)
        return outputs.deciding_sqnr_db(self.judged) if math.isnan(figure_db) else figure_db

    def remedy(self, fed: Sequence[Feeds]) -> tuple[tuple[str, ...], list[_Loss]]:
        """Nodes whose return to float brings the heads' figure back, and what is still lost then.

        Where scores and other values are joined, if that is enough, else the whole decoder.
        """
        joins = tuple(join.node for join in self.tail.decoder.points.joins)
        nodes = self.tail.decoder.network.model.graph.node
        concats = tuple(name_of(node) for node in nodes if node.op_type == "Concat")
        everything = tuple(self._rounding_nodes())
        names: tuple[str, ...] = ()
        losses: list[_Loss] = []
        for names in (joins, (*concats, *joins), (*everything, *joins)):
            if names:
                losses = self.losses(self.rounded(fed, self.tail.exclude.union(names)))
                if not any(loss.is_lost for loss in losses):
                    break
        return tuple(dict.fromkeys(names)), losses

    def _rounding_nodes(self) -> Iterator[str]:
        """Names of the nodes of the decoder that a target rounds something for."""
        network, target = self.tail.decoder.network, self.tail.target
        placed = placement(network, target, self.tail.exclude)
        rounded = {*placed.grid_of, *placed.constants, *placed.weights, *placed.norms}
        for node in network.model.graph.node:
            if not rounded.isdisjoint((*node.input, *node.output)):
                yield name_of(node)

    def _join(
        self, handed: Sequence[dict[str, Array]], join: Join, ranges: Mapping[str, Range]
    ) -> None:
        """Put scores on the grid that they share with other values behind a selection."""
        seen = [ranges[name] for name in (*join.scores, *join.values) if name in ranges]
        if not seen:
            return
        low, high = min(item.low for item in seen), max(item.high for item in seen)
        grid = grids.grid_of(low, high, self._activations)
        for sample in handed:
            for name in join.scores:
                if name in sample:
                    sample[name] = grids.rounded(sample[name], grid)


def _figure_db(losses: Sequence[_Loss], heads_db: float) -> float:
    """The heads' figure less what the decoder costs, where it loses something."""
    return min([heads_db, *(loss.figure_db for loss in losses if loss.is_lost)])


def _kept(expected: Handed, actual: Handed, limit: float) -> float:
    """Of the elements beyond the limit in float, the share that still is."""
    before = np.concatenate([item.ravel() for (item,) in expected]) > limit
    after = np.concatenate([item.ravel() for (item,) in actual]) > limit
    return float(np.sum(before & after) / np.sum(before)) if before.any() else math.nan
