"""A model and its limits in, one outcome per limit out."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from quantstore import queries, store
from quantstore.checks import audited
from quantstore.checks.limits import Limits, fits
from quantstore.checks.outcome import (
    FINDINGS,
    TOLD_SEVERITIES,
    Check,
    CheckedFinding,
    CheckOutcome,
    Offender,
    db,
)
from quantstore.queries import matching
from quantstore.queries.checks import LayerFigures, WeightsAlone
from quantstore.schemes import TARGETS
from quantstore.wording import units, verdicts
from quantstore.wording.verdicts import ModelFacts

# Beyond this, and where weights come back exactly, nothing but float rounding is lost.
LOSSLESS_DB = 100.0
# So many names stand in a sentence; beyond, only their number is told.
NAMES_IN_A_NOTE = 5


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with everything it is judged by; layers in graph order.

    ``facts`` are those of the target, None where no target is judged; ``target_layers`` the layers
    under the target's scheme, None where ``layers`` are; ``weights_alone`` what its outputs reach
    where only the weights are rounded; ``audit`` that against the float model of the limits.
    """

    model: str
    scheme: str
    layers: Sequence[LayerFigures]
    facts: ModelFacts | None = None
    weights_alone: WeightsAlone | None = None
    findings: Sequence[CheckedFinding] = ()
    target_layers: Sequence[LayerFigures] | None = None
    audit: audited.AuditSubject | None = None


def run(connection: store.Connection, limits: Mapping[str, Limits]) -> list[Check]:
    """Judge models of the store, each by its own limits, in the order given.

    Raises:
        UnknownModelError: the store lacks one of them, or a baseline.
    """
    # First all of them: nothing is said about any where one is missing.
    subjects = [
        read_subject(connection, model, model_limits) for model, model_limits in limits.items()
    ]
    baselines = [
        None
        if model_limits.baseline is None
        else read_subject(connection, model_limits.baseline, model_limits)
        for model_limits in limits.values()
    ]
    return [
        check
        for subject, baseline, model_limits in zip(
            subjects, baselines, limits.values(), strict=True
        )
        for check in judge(subject, model_limits, baseline)
    ]


def read_subject(connection: store.Connection, model: str, limits: Limits) -> Subject:
    """What a model is judged by.

    Raises:
        UnknownModelError: the store does not hold it.
    """
    model_id = store.find_model(connection, model)
    target = limits.judged_target
    facts = None
    if target is not None:
        (row,) = queries.verdicts(connection, [model], target.name).to_dict("records")
        facts = queries.model_facts(row)
    of_target = target.layer_scheme.name if target is not None else limits.layer_scheme
    of_weights = None
    if of_target != limits.layer_scheme:
        of_weights = queries.layer_figures(connection, model_id, of_target)
    return Subject(
        model,
        limits.layer_scheme,
        queries.layer_figures(connection, model_id, limits.layer_scheme),
        facts,
        queries.weights_alone(connection, model_id, of_target),
        [
            CheckedFinding(
                kind=row["kind"],
                severity=row["severity"],
                message=row["message"],
                remedy=row["remedy"],
                layers=tuple(row["layers"]),
                layer_count=int(row["layer_count"]),
            )
            for row in queries.model_findings(connection, model).to_dict("records")
        ],
        of_weights,
        None if limits.audit is None else audited.read(connection, model, limits.audit),
    )


def judge(subject: Subject, limits: Limits, baseline: Subject | None = None) -> list[Check]:
    """Every limit that is set, or the verdict where none is.

    Args:
        baseline: the model that ``limits.baseline`` names, under the same scheme.
    """
    assessment = _Assessment(subject, limits)
    findings = assessment.findings()
    if limits.are_none:
        return [assessment.verdict(), *findings]
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
    if limits.audit is not None:
        checks += audited.judge(subject.model, subject.scheme, limits, subject.audit)
    return [*checks, *findings]


class _Assessment:
    """One model before its limits."""

    def __init__(self, subject: Subject, limits: Limits) -> None:
        self._subject = subject
        self._limits = limits
        self._layers = _included(subject.layers, limits.exclude)
        self._notes = _notes_on_exclusion(subject.layers, limits.exclude)
        of_target = self._layers
        if subject.target_layers is not None:
            of_target = _included(subject.target_layers, limits.exclude)
        families = TARGETS[subject.facts.target].layer_families if subject.facts else ()
        self._target_layers = [
            layer for layer in of_target if not families or layer.op_family in families
        ]
        self._facts = self._facts_of_included()

    def verdict(self) -> Check:
        """Whether the model breaks, as the app says it."""
        facts = self._facts
        if facts is None:
            return self._check("verdict", is_held=None, message=NO_TARGET, unit="dB")
        is_broken = facts.verdict == "broken"
        return self._check(
            "verdict",
            is_held=None if facts.is_untested else not is_broken,
            message=verdicts.verdict_sentence(facts),
            target=facts.target,
            value=facts.output_sqnr_db,
            unit="dB",
            offenders=_by_p10(layer for layer in self._target_layers if layer.band == "broken")
            if is_broken
            else (),
            notes=(*self._notes_on_outputs(), *self._notes),
        )

    def findings(self) -> list[Check]:
        """What the file gives away; nothing where nothing of it has to be told."""
        findings = [f for f in self._subject.findings if f.severity in TOLD_SEVERITIES]
        if not findings:
            return []
        failing = sum(finding.fails for finding in findings)
        counts = [_counted(failing, "problem")] if failing else []
        if failing < len(findings):
            counts.append(_counted(len(findings) - failing, "warning"))
        return [
            self._check(
                FINDINGS,
                is_held=not failing,
                message=" and ".join(counts),
                value=failing,
                limit=0,
                unit="problems",
                findings=tuple(findings),
            )
        ]

    def output_sqnr(self, least_db: float) -> Check:
        """The SQNR at the outputs, which only a run measures."""
        facts = self._facts
        found_db = None
        if facts is not None and facts.was_run:
            is_weights_wanted = self._limits.mode == "weights"
            if facts.is_measured or is_weights_wanted:
                found_db = math.inf if facts.output_sqnr_db is None else facts.output_sqnr_db
            elif facts.output_sqnr_db is not None and facts.output_sqnr_db < least_db:
                # Less than the whole target misses it already.
                found_db = facts.output_sqnr_db
        if facts is None or found_db is None:
            return self._check(
                "min-sqnr-db",
                is_held=None,
                message=NO_TARGET if facts is None else self._why_not_measured(facts),
                target=None if facts is None else facts.target,
                limit=least_db,
                unit="dB",
            )
        return self._check(
            "min-sqnr-db",
            is_held=found_db >= least_db,
            message=(
                f"output SQNR {db(found_db)}, {verdicts.basis(facts)}; at least {least_db:g} dB"
                " required"
            ),
            target=facts.target,
            value=found_db,
            limit=least_db,
            unit="dB",
            notes=self._notes_on_outputs(),
        )

    def layer_sqnr(self, least_db: float) -> Check:
        """The SQNR that 90 % of channels of a layer reach, for every layer."""
        below = [layer for layer in self._layers if layer.p10_db < least_db]
        worst_db = min((layer.p10_db for layer in self._layers), default=math.inf)
        return self._of_layers(
            "min-layer-sqnr-db",
            below,
            is_held=not below,
            message=(
                f"{_some_of(below, self._layers)} below {least_db:g} dB, the worst {db(worst_db)}"
                " (what 90 % of channels reach)"
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
            True: "pass",
            False: "fail",
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

    def _facts_of_included(self) -> ModelFacts | None:
        """What is known of the outputs, with the layers that are judged."""
        facts, alone = self._subject.facts, self._subject.weights_alone
        if facts is None:
            return None
        families = TARGETS[facts.target].layer_families
        layers = self._target_layers
        counts = Counter(layer.band for layer in layers)
        facts = dataclasses.replace(
            facts,
            layers_broken=counts["broken"],
            layers_at_risk=counts["at risk"],
            layer_count=len(layers),
        )
        by_layers = next((band for band in ("broken", "at risk") if counts[band]), None)
        if self._limits.mode == "weights" and alone is not None and not families:
            return dataclasses.replace(
                facts,
                verdict=alone.band,
                evidence=alone.evidence,
                mode="weights",
                output_sqnr_db=alone.output_sqnr_db,
                next_limit_db=alone.next_limit_db,
                sample_count=alone.sample_count,
                is_measured=TARGETS[facts.target].mode == "weights",
                **_OF_THE_TARGET_ONLY,
            )
        if self._limits.mode == "weights":
            return dataclasses.replace(
                facts,
                verdict=by_layers or "fine",
                evidence="weights",
                mode="weights",
                output_sqnr_db=None,
                **_OF_THE_TARGET_ONLY,
            )
        if not facts.was_run:
            verdict = by_layers or verdicts.UNTESTED
            return dataclasses.replace(
                facts, verdict=verdict, reason=facts.reason or verdicts.NOT_MEASURED
            )
        return facts

    def _why_not_measured(self, facts: ModelFacts) -> str:
        if not facts.is_untested:
            facts = dataclasses.replace(
                facts, verdict=verdicts.UNTESTED, reason=facts.reason or verdicts.NOT_MEASURED
            )
        return verdicts.verdict_sentence(facts)

    def _notes_on_outputs(self) -> tuple[str, ...]:
        """What a value at the outputs leaves open."""
        facts = self._facts
        if facts is None or not facts.was_run or not self._limits.exclude:
            return ()
        return (EXCLUDED_TOO,)


# What is known of a target says nothing of its weights alone.
_OF_THE_TARGET_ONLY: dict[str, Any] = {
    "worst_output": None,
    "decision_f1": None,
    "reason": None,
}
NO_TARGET = "no target rounds weights under this scheme; choose one with --target"
EXCLUDED_TOO = "the runs also quantize the layers that --exclude names"
NO_LAYER_LEFT = "no layer is left to judge"
NO_LAYER_FITS = "no layer matches --exclude"


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
