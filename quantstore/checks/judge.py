"""A model and its limits in, one outcome per limit out."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from quantstore import queries, store
from quantstore.checks.limits import Limits, fits
from quantstore.queries import matching
from quantstore.queries.checks import LayerFigures, ProbeFigures
from quantstore.records import NOTHING_ROUNDED
from quantstore.run.plan import PLAN
from quantstore.wording import units, verdicts
from quantstore.wording.verdicts import FULL_INT8_NOT_MEASURED

CheckOutcome = Literal["holds", "breaks", "not measured"]

# Beyond this, and where weights come back exactly, nothing but float rounding is lost.
LOSSLESS_DB = 100.0
# So many names stand in a sentence; beyond, only their number is told.
NAMES_IN_A_NOTE = 5


@dataclass(frozen=True, slots=True)
class Subject:
    """A model under one scheme, with everything it is judged by; layers in graph order."""

    model: str
    scheme: str
    layers: Sequence[LayerFigures]
    probes: Sequence[ProbeFigures] = ()


@dataclass(frozen=True, slots=True)
class Offender:
    """A layer beyond a limit. ``value`` is in the unit of its check, ``baseline`` likewise.

    ``baseline`` is infinite where the weights of the baseline's layer come back exactly, and None
    where nothing is compared.
    """

    layer: str
    operand: str
    value: float
    baseline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What became of one limit.

    ``check`` is the limit by the name of its option. ``value`` is what was found and ``limit`` what
    is allowed, both in ``unit``; None where there is no such number, infinite where nothing is
    lost. ``offenders`` come worst first. ``notes`` say what somebody should know besides.
    """

    model: str
    scheme: str
    check: str
    outcome: CheckOutcome
    message: str
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    offenders: tuple[Offender, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_held(self) -> bool:
        """Whether the limit holds; what was not measured does not."""
        return self.outcome == "holds"


def run(connection: store.Connection, limits: Mapping[str, Limits]) -> list[Check]:
    """Judge models of the store, each by its own limits, in the order given.

    Raises:
        UnknownModelError: the store lacks one of them, or a baseline.
    """
    # First all of them: nothing is said about any where one is missing.
    subjects = [
        read_subject(connection, model, model_limits.scheme)
        for model, model_limits in limits.items()
    ]
    baselines = [
        None
        if model_limits.baseline is None
        else read_subject(connection, model_limits.baseline, model_limits.scheme)
        for model_limits in limits.values()
    ]
    return [
        check
        for subject, baseline, model_limits in zip(
            subjects, baselines, limits.values(), strict=True
        )
        for check in judge(subject, model_limits, baseline)
    ]


def read_subject(connection: store.Connection, model: str, scheme: str) -> Subject:
    """What a model is judged by.

    Raises:
        UnknownModelError: the store does not hold it.
    """
    model_id = store.find_model(connection, model)
    return Subject(
        model,
        scheme,
        queries.layer_figures(connection, model_id, scheme),
        queries.probe_figures(connection, model_id, scheme),
    )


def judge(subject: Subject, limits: Limits, baseline: Subject | None = None) -> list[Check]:
    """Every limit that is set, or the verdict where none is.

    Args:
        baseline: the model that ``limits.baseline`` names, under the same scheme.
    """
    assessment = _Assessment(subject, limits)
    if limits.are_none:
        return [assessment.verdict()]
    checks = []
    if limits.min_sqnr_db is not None:
        checks.append(assessment.output_sqnr(limits.min_sqnr_db))
    if limits.min_layer_sqnr_db is not None:
        checks.append(assessment.layer_sqnr(limits.min_layer_sqnr_db))
    for band, most in (
        ("broken", limits.max_broken_layers),
        ("at risk", limits.max_at_risk_layers),
    ):
        if most is not None:
            checks.append(assessment.layers_in_band(band, most))
    if limits.max_channels_below_10db is not None:
        checks.append(assessment.channels(limits.max_channels_below_10db))
    if limits.baseline is not None:
        if baseline is None:
            raise ValueError(f"the baseline {limits.baseline!r} must be given as well")
        checks.append(assessment.regression(baseline, limits.max_regression_db))
    return checks


class _Assessment:
    """One model before its limits."""

    def __init__(self, subject: Subject, limits: Limits) -> None:
        self._subject = subject
        self._limits = limits
        self._layers = _included(subject.layers, limits.exclude)
        self._notes = _notes_on_exclusion(subject.layers, limits.exclude)
        allowed = [probe for probe in subject.probes if limits.mode in (None, probe.mode)]
        self._probe = next((probe for probe in allowed if probe.band is not None), None)
        self._failure = next((probe.failure for probe in allowed if probe.failure), None)
        self._cut_off = next(
            (
                probe.failure
                for probe in allowed
                if probe.mode == "both"
                and probe.band is None
                and probe.failure not in (None, *NOTHING_ROUNDED)
            ),
            None,
        )

    def verdict(self) -> Check:
        """Whether the model breaks, as the app says it."""
        counts = {band: self._in_band(band) for band in ("broken", "at risk", "watch")}
        probe = self._probe
        if probe is not None:
            band = str(probe.band)
        else:
            band = next((band for band, layers in counts.items() if layers), "fine")
        if self._cut_off and band not in ("broken", "at risk"):
            # Less than full int8 can prove a loss, never that there is none.
            return self._check(
                "verdict",
                is_held=None,
                message=f"{FULL_INT8_NOT_MEASURED}: {self._cut_off}",
                unit="dB",
                notes=self._notes,
            )
        facts = verdicts.ModelFacts(
            verdict="breaks" if band == "broken" else band,
            mode=probe.mode if probe else None,
            output_sqnr_db=probe.output_sqnr_db if probe else None,
            layers_broken=len(counts["broken"]),
            layers_at_risk=len(counts["at risk"]),
            layer_count=len(self._layers),
            is_already_quantized=any(layer.already_quantized for layer in self._layers),
            are_layers_exact=all(layer.p10_db > verdicts.OWN_GRID_DB for layer in self._layers),
            probe_failure=self._failure,
            next_limit_db=probe.next_limit_db if probe else None,
        )
        return self._check(
            "verdict",
            is_held=facts.verdict != "breaks",
            message=verdicts.verdict_sentence(facts),
            value=facts.output_sqnr_db,
            unit="dB",
            offenders=_by_p10(counts["broken"]) if facts.verdict == "breaks" else (),
            notes=(*self._notes_on_probe(), *self._notes),
        )

    def output_sqnr(self, least_db: float) -> Check:
        """The SQNR at the outputs, which only a probe measures."""
        probe = self._probe
        is_cut_off = self._cut_off is not None and (
            probe is None or probe.output_sqnr_db is None or probe.output_sqnr_db >= least_db
        )
        if probe is None or probe.output_sqnr_db is None or is_cut_off:
            return self._check(
                "min-sqnr-db",
                is_held=None,
                message=self._why_not_probed(),
                limit=least_db,
                unit="dB",
            )
        found_db = probe.output_sqnr_db
        return self._check(
            "min-sqnr-db",
            is_held=found_db >= least_db,
            message=(
                f"{db(found_db)} at the outputs in the noise probe ({verdicts.MODES[probe.mode]}),"
                f" at least {least_db:g} dB wanted"
            ),
            value=found_db,
            limit=least_db,
            unit="dB",
            notes=self._notes_on_probe(),
        )

    def layer_sqnr(self, least_db: float) -> Check:
        """The SQNR that nine in ten channels of a layer reach, for every layer."""
        below = [layer for layer in self._layers if layer.p10_db < least_db]
        worst_db = min((layer.p10_db for layer in self._layers), default=math.inf)
        return self._of_layers(
            "min-layer-sqnr-db",
            below,
            is_held=not below,
            message=(
                f"{_some_of(below, self._layers)} below {least_db:g} dB, the worst {db(worst_db)}"
                " (what nine in ten channels reach)"
            ),
            value=worst_db,
            limit=least_db,
            unit="dB",
        )

    def layers_in_band(self, band: str, most: int) -> Check:
        """How many layers a band holds."""
        band_layers = self._in_band(band)
        return self._of_layers(
            f"max-{band.replace(' ', '-')}-layers",
            band_layers,
            is_held=len(band_layers) <= most,
            message=f"{_some_of(band_layers, self._layers)} {band}, {most:,} allowed",
            value=len(band_layers),
            limit=most,
            unit="layers",
        )

    def channels(self, most: int) -> Check:
        """How many channels, over all layers, are mostly noise."""
        noisy_layers = sorted(
            (layer for layer in self._layers if layer.channels_below_10db),
            key=lambda layer: -layer.channels_below_10db,
        )
        noisy_count = sum(layer.channels_below_10db for layer in noisy_layers)
        total = sum(layer.channel_count for layer in self._layers)
        is_held = noisy_count <= most
        return self._check(
            "max-channels-below-10db",
            is_held=is_held if self._layers else None,
            message=(
                f"{noisy_count:,} of {total:,} channels below 10 dB, {most:,} allowed"
                if self._layers
                else NO_LAYER_LEFT
            ),
            value=noisy_count,
            limit=most,
            unit="channels",
            offenders=tuple(
                Offender(layer.layer, layer.operand, layer.channels_below_10db)
                for layer in (() if is_held else noisy_layers)
            ),
            notes=self._notes,
        )

    def regression(self, baseline: Subject, most_db: float) -> Check:
        """No layer worse than its counterpart in the baseline, by more than a margin."""
        baseline_layers = _included(baseline.layers, self._limits.exclude)
        pairs, reason, notes = _paired(
            self._subject.model, self._layers, baseline.model, baseline_layers
        )
        if reason:
            return self._check(
                "max-regression-db",
                is_held=None,
                message=reason,
                limit=most_db,
                unit="dB",
                notes=(*notes, *self._notes),
            )
        drops = [(_drop_db(before.p10_db, now.p10_db), now, before) for now, before in pairs]
        drops.sort(key=lambda drop: -drop[0])
        worse = [drop for drop in drops if drop[0] > most_db]
        most_lost = max(0.0, drops[0][0])
        number = f"{len(worse):,}" if worse else "none"
        return self._check(
            "max-regression-db",
            is_held=not worse,
            message=(
                f"{len(pairs):,} of {_counted(len(self._layers), 'layer')} compared with"
                f" {baseline.model}: {number} lost more than {most_db:g} dB,"
                f" the most {db(most_lost)}"
            ),
            value=most_lost,
            limit=most_db,
            unit="dB",
            offenders=tuple(
                Offender(now.layer, now.operand, now.p10_db, before.p10_db)
                for _, now, before in worse
            ),
            notes=(*notes, *self._notes),
        )

    def _in_band(self, band: str) -> list[LayerFigures]:
        return [layer for layer in self._layers if layer.band == band]

    def _of_layers(
        self,
        check: str,
        affected: Sequence[LayerFigures],
        *,
        is_held: bool,
        message: str,
        **figures: object,
    ) -> Check:
        """A check that goes through all layers, and fails where there is none to go through."""
        return self._check(
            check,
            is_held=is_held if self._layers else None,
            message=message if self._layers else NO_LAYER_LEFT,
            offenders=() if is_held else _by_p10(affected),
            notes=self._notes,
            **figures,
        )

    def _check(self, check: str, *, is_held: bool | None, **figures: object) -> Check:
        outcome: dict[bool | None, CheckOutcome] = {
            True: "holds",
            False: "breaks",
            None: "not measured",
        }
        subject = self._subject
        return Check(
            model=subject.model,
            scheme=subject.scheme,
            check=check,
            outcome=outcome[is_held],
            **figures,  # type: ignore[arg-type]
        )

    def _why_not_probed(self) -> str:
        if self._failure:
            return f"{NO_FIGURE}: {self._failure}"
        scheme, mode = self._subject.scheme, self._limits.mode
        probed = [plan_scheme for plan_scheme, plan_mode in PLAN if mode in (None, plan_mode)]
        if scheme not in probed:
            schemes = ", ".join(dict.fromkeys(probed))
            return f"{PROBE_DOES_NOT_RUN} {scheme}; it runs {schemes}"
        return NOT_RUN_ON_NOISE

    def _notes_on_probe(self) -> tuple[str, ...]:
        """What a verdict from less than full int8 leaves open."""
        probe = self._probe
        if probe is None:
            return ()
        notes = []
        if probe.mode != "both" and self._limits.mode is None:
            reason = f": {self._failure}" if self._failure else ""
            notes.append(f"{FULL_INT8_NOT_MEASURED}{reason}")
        if self._limits.exclude:
            notes.append("the probe quantizes the layers that --exclude names, too")
        return tuple(notes)


NO_LAYER_LEFT = "no layer is left to judge"
NO_LAYER_FITS = "no layer fits --exclude"
# Why there is nothing to hold a limit on the outputs against.
NO_FIGURE = "there is no figure at the outputs"
PROBE_DOES_NOT_RUN = "the noise probe does not run"
NOT_RUN_ON_NOISE = "the model was not run on noise; ingest it with --replace and without --no-probe"


def _included(layers: Sequence[LayerFigures], patterns: Sequence[str]) -> Sequence[LayerFigures]:
    return [
        layer for layer in layers if not any(fits(layer.layer, pattern) for pattern in patterns)
    ]


def _notes_on_exclusion(layers: Sequence[LayerFigures], patterns: Sequence[str]) -> tuple[str, ...]:
    """How many layers are left out, and which patterns are of no use: those may be mistyped."""
    notes = []
    left_out = len(layers) - len(_included(layers, patterns))
    if left_out:
        notes.append(f"{_counted(left_out, 'layer')} left out")
    for pattern in patterns:
        if not any(fits(layer.layer, pattern) for layer in layers):
            notes.append(f"{NO_LAYER_FITS} {pattern}")
    return tuple(notes)


LayerPair = tuple[LayerFigures, LayerFigures]


def _paired(
    model: str,
    model_layers: Sequence[LayerFigures],
    baseline: str,
    baseline_layers: Sequence[LayerFigures],
) -> tuple[list[LayerPair], str, tuple[str, ...]]:
    """Layers of two models that belong together, as the comparison of revisions matches them.

    Returns:
        The pairs; why they tell nothing, empty where they do; and what is to say about the rest.
    """
    if not model_layers:
        return [], NO_LAYER_LEFT, ()
    if not baseline_layers:
        return [], f"no layer of {baseline} is left to compare with", ()
    changed = matching.changes(_frame(baseline_layers), _frame(model_layers))
    counts = matching.tally(changed)
    if not counts.are_alike or not counts.pairs:
        number = f"{counts.pairs:,} of {_counted(counts.smaller, 'layer')}"
        return [], f"{number} can be matched with {baseline}: {matching.TWO_NETWORKS}", ()
    pairs, only_in_model, only_in_baseline = [], [], []
    for now, before in zip(changed["position_after"], changed["position_before"], strict=True):
        if pd.isna(now):
            only_in_baseline.append(baseline_layers[int(before)].layer)
        elif pd.isna(before):
            only_in_model.append(model_layers[int(now)].layer)
        else:
            pairs.append((model_layers[int(now)], baseline_layers[int(before)]))
    notes = []
    if counts.by_shape:
        match_note = matching.how_matched(changed).replace(units.NO_BREAK_SPACE, " ")
        notes.append(f"{match_note[0].lower()}{match_note[1:]}".rstrip("."))
    for name, alone in ((model, only_in_model), (baseline, only_in_baseline)):
        if alone:
            notes.append(f"only in {name}: {_named(alone)}")
    return pairs, "", tuple(notes)


def _frame(layers: Sequence[LayerFigures]) -> pd.DataFrame:
    """What layers are recognized by, and their position in the sequence."""
    return pd.DataFrame(
        {
            "position": range(len(layers)),
            "layer": [layer.layer for layer in layers],
            "operand": [layer.operand for layer in layers],
            "op_family": [layer.op_family for layer in layers],
            "channel_count": [layer.channel_count for layer in layers],
            "shape": [layer.shape for layer in layers],
            "channel_sqnr_p10_db": [layer.p10_db for layer in layers],
        }
    )


def _drop_db(before_db: float, now_db: float) -> float:
    """How much was lost."""
    return min(before_db, LOSSLESS_DB) - min(now_db, LOSSLESS_DB)


def _by_p10(layers: Iterable[LayerFigures]) -> tuple[Offender, ...]:
    worst_first = sorted(layers, key=lambda layer: layer.p10_db)
    return tuple(Offender(layer.layer, layer.operand, layer.p10_db) for layer in worst_first)


def db(value: float) -> str:
    """``9.9 dB``, in ASCII for logs; never a limit that the figure misses."""
    return f"{units.tenths(value):.1f} dB" if math.isfinite(value) else "exact"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _some_of(some: Sequence[object], all_of_them: Sequence[object]) -> str:
    """``none of 10 layers is``, ``1 of 10 layers is``, ``8 of 10 layers are``."""
    number = f"{len(some):,}" if some else "none"
    verb = "is" if len(some) < 2 else "are"
    return f"{number} of {_counted(len(all_of_them), 'layer')} {verb}"


def _named(names: Sequence[str]) -> str:
    hidden_count = len(names) - NAMES_IN_A_NOTE
    shown_names = ", ".join(names[:NAMES_IN_A_NOTE])
    return f"{shown_names} and {hidden_count:,} more" if hidden_count > 0 else shown_names
