"""A network that a target breaks in, files that keep it out: remedies chosen, written, verified.

The one function that the command line, Python and the page call, through
``quantstore.pipeline.rescues``, which adds the store and a process that can be cancelled. The
method, with sources and figures: docs/rescue.md.
"""

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quantstore.records import (
    RescueDriftRecord,
    RescueFileRecord,
    RescueRecord,
    RescueStepRecord,
    RescueUnitRecord,
)
from quantstore.rescuing import promotion, remedies
from quantstore.rescuing.assembly import Assembly, OtherNetworkError, assemble, whole_network
from quantstore.rescuing.bench import RescueBench
from quantstore.rescuing.causes import Causes
from quantstore.rescuing.choices import Rescue, RescueChoices
from quantstore.rescuing.draft import Draft
from quantstore.rescuing.drift import drift
from quantstore.rescuing.files import write_files
from quantstore.rescuing.judge import db_of, gain_db, safe_db
from quantstore.rescuing.opening import Opened, calibrated_on_all, open_model
from quantstore.rescuing.openvino import OpenVinoRun, run_in_openvino
from quantstore.rescuing.promotion import Promotion, UnitNoise
from quantstore.rescuing.remedies import LayerInputs, Proposal
from quantstore.rescuing.terms import PROMOTIONS
from quantstore.rescuing.verification import (
    FLOAT_FILE_DB,
    Verified,
    float_file_db,
    has_bodies,
    require_same,
    verify,
)
from quantstore.run.choices import Choices, ReportProgress
from quantstore.run.clock import Clock
from quantstore.run.decisions import decisions
from quantstore.run.inputs import Samples
from quantstore.run.nodes import name_of, producers
from quantstore.run.outputs import Tensors
from quantstore.run.plans import Rounding
from quantstore.run.runtime import version
from quantstore.run.workplace import Workplace

# What a step must gain to be kept: less is within what other inputs would show.
LEAST_GAIN_DB = 1.0
# Compensated rounding is judged by the weights alone: the full value is too noisy while activations
# dominate.
LEAST_WEIGHTS_GAIN_DB = 0.5
# Corrected biases take away a shift that all inputs have in common. What it gains on a few of them
# is small, so that they stay unless they do harm.
LEAST_BIAS_GAIN_DB = 0.0
# Ranges over more inputs are wider, and may cost so much on those that they were chosen with.
MOST_LOSS_DB = 1.0
# Of the test inputs, so many show where a network drifts.
MOST_DRIFT_SAMPLES = 4
_AS_IT_IS = "the plan quantizes the model as the target does."
NO_REMEDY_HELPED = f"No remedy gained enough: {_AS_IT_IS}"
NO_REMEDY_ALLOWED = f"No remedy was allowed: {_AS_IT_IS}"
NO_REMEDY_NEEDED = "No remedy was needed"
# Steps that cost nothing at run time go on until the goal has this margin, for the inputs that
# nobody has seen yet; what costs MACs stops at the goal.
FREE_MARGIN_DB = 5.0


def rescue(
    path: Path, inputs: str, choices: RescueChoices, report: ReportProgress | None = None
) -> Rescue:
    """Find what keeps a network under a target, write it and run what was written.

    Args:
        inputs: a folder of images, an image, an ``.npz`` or ``.npy`` file, or ``noise``, on which
            the result is a proposal.
        report: told how far it is.

    Raises:
        ModelFileError: the model cannot be read.
        InputsError: the inputs cannot, or do not fit.
        RunError: onnxruntime refuses the model, it is quantized already, or a file cannot be
            written.
    """
    run_choices = Choices(
        target=choices.target,
        samples=choices.samples,
        preprocess=choices.preprocess,
        fold=choices.fold,
    )
    with tempfile.TemporaryDirectory(prefix="quantstore-") as folder:
        work = Workplace(run_choices, Path(folder), report or (lambda _: None))
        return _RescueRun(path, inputs, choices, work).answer()


@dataclass(slots=True)
class _Step:
    """One that was tried; ``trial`` is its draft."""

    remedy: str
    detail: str
    trial: Draft
    validation_db: float
    kept: bool
    seconds: float
    predicted_db: float = math.nan
    test_db: float = math.nan


@dataclass(frozen=True, slots=True)
class _WrittenFiles:
    """What is written, and what it keeps; ``rescaled_db``: of the rescaled float model."""

    assembly: Assembly
    verified: Verified
    rescaled_db: float


class _RescueRun:
    """One rescue on its way; :meth:`answer` goes all of it."""

    def __init__(self, path: Path, inputs: str, choices: RescueChoices, work: Workplace) -> None:
        self._clock = Clock()
        self._path, self._inputs, self._choices, self._work = path, inputs, choices, work
        self._opened: Opened = open_model(path, inputs, choices, work)
        self._bench: RescueBench = self._opened.bench
        self._draft = Draft()
        self._before: Tensors = ()
        self._drift: tuple[RescueDriftRecord, ...] = ()
        self._plain = self._draft
        self._ratios = self._bench.validation.ratios(self._bench.drafting.plan(self._draft))
        self._steps: list[_Step] = []
        self._notes: list[str] = list(self._opened.notes)
        self._sensitivities: UnitNoise | None = None
        self._promotion: Promotion | None = None
        # Kept once biases are corrected: they are again for every list of promoted units.
        self._layer_inputs: LayerInputs | None = None

    def answer(self) -> Rescue:
        """All steps, files, and the record of them."""
        self._steps.append(
            _Step(
                "placement",
                self._choices.rounded.placement_title or "",
                self._draft,
                self._bench.db(self._draft),
                kept=True,
                seconds=self._bench.budget.spent,
            )
        )
        self._tell(self._steps[-1])
        if self._safe_db >= self._choices.reach_db:
            self._notes.append(
                f"{NO_REMEDY_NEEDED}: the network already reaches {db_of(self._ratios):.1f} dB;"
                f" the goal was {self._choices.reach_db:g} dB."
            )
        else:
            self._free_steps()
            if self._safe_db < self._choices.reach_db:
                self._promote()
            if self._draft is self._plain:
                self._notes.append(NO_REMEDY_HELPED if self._choices.allow else NO_REMEDY_ALLOWED)
        for step in self._steps:
            # The test inputs are looked at here, when everything else is decided.
            step.test_db = self._bench.test.db(self._bench.drafting.plan(step.trial))
        plain = self._bench.drafting.plan(self._plain)
        self._before = self._bench.test.outputs(plain)
        self._calibrate_on_all()
        self._drift = drift(
            self._bench.test.emulator,
            self._bench.placed,
            plain,
            self._bench.drafting.plan(self._draft),
            self._bench.test.samples[:MOST_DRIFT_SAMPLES],
            self._work.folder,
            self._work.steps("comparing layers"),
        )
        return self._written()

    # Steps

    @property
    def _safe_db(self) -> float:
        """Of the validation inputs under the draft as it is, less what is not known of it."""
        return safe_db(self._ratios)

    @property
    def _is_safe(self) -> bool:
        """Whether the goal is reached with a margin."""
        return self._safe_db >= self._choices.reach_db + FREE_MARGIN_DB

    def _free_steps(self) -> None:
        """Remedies that leave all MACs in int8, in the order in which they pay."""
        bench, allow = self._bench, self._choices.allow
        if "depthwise" in allow:
            self._depthwise()
        if "ranges" in allow and self._may_go_on("ranges", needs_data=True):
            self._best_of("ranges", lambda: remedies.ranges(bench, self._draft))
        if "equalize" in allow and self._may_go_on("equalize"):
            self._best_of("equalize", lambda: remedies.equalize(bench, self._draft))
        if "rounding" in allow and self._may_go_on("rounding", needs_data=True):
            self._round()

    def _may_go_on(self, step: str, *, needs_data: bool = False) -> bool:
        if self._is_safe:
            return False
        if needs_data and not self._bench.is_real:
            self._notes.append(
                f"{step}: skipped, because results on noise do not hold for real inputs."
            )
            return False
        if self._bench.budget.remaining <= 0:
            self._notes.append(f"{step}: skipped, because the budget is used up.")
            return False
        return True

    def _depthwise(self) -> None:
        with_muls = "mul" in self._choices.allow
        started = time.process_time()
        trial = remedies.depthwise(self._bench, self._draft, with_muls=with_muls)
        if trial is None:
            return
        mul_count = trial.draft.mul_count
        folded = remedies.without_muls(trial.draft)
        if mul_count and folded.scalings:
            # The Muls have a price, so they are judged by what they add.
            self._try("depthwise", Proposal(folded, remedies.scalings_in_words(folded)), started)
            self._try("mul", trial, time.process_time())
        else:
            self._try("mul" if mul_count else "depthwise", trial, started)

    def _round(self) -> None:
        started = time.process_time()
        budget = self._bench.budget.share("rounding")
        inputs = LayerInputs.of(self._bench)
        trial = remedies.rounding(self._bench, self._draft, inputs, budget)
        if trial is not None:
            names = self._bench.placed.weights
            now, then = (
                self._bench.validation.ratios(self._bench.drafting.plan(draft).only(names))
                for draft in (self._draft, trial.draft)
            )
            self._try(
                "rounding",
                trial,
                started,
                gain=gain_db(now, then),
                least_gain=LEAST_WEIGHTS_GAIN_DB,
            )
        started = time.process_time()
        corrected = remedies.biases(self._bench, self._draft, inputs)
        if corrected is not None:
            self._try("rounding", corrected, started, least_gain=LEAST_BIAS_GAIN_DB)
            if self._draft is corrected.draft:
                self._layer_inputs = inputs

    def _best_of(self, remedy: str, trials: Callable[[], list[Proposal]]) -> None:
        """Try several ways of one remedy; all are told, the best is kept if it gains enough."""
        started = time.process_time()
        budget = self._bench.budget.share(remedy)
        tried = []
        for trial in trials():
            ratios = self._bench.validation.ratios(self._bench.drafting.plan(trial.draft))
            tried.append((gain_db(self._ratios, ratios), trial))
            if budget.is_over:
                break
        tried.sort(key=lambda item: item[0])
        for _, trial in tried[:-1]:
            self._try(remedy, trial, started, may_be_kept=False)
            started = time.process_time()
        for _, trial in tried[-1:]:
            self._try(remedy, trial, started)

    def _try(
        self,
        remedy: str,
        trial: Proposal,
        started: float,
        *,
        gain: float | None = None,
        least_gain: float = LEAST_GAIN_DB,
        may_be_kept: bool = True,
    ) -> None:
        """Run a draft; keep it if it gains enough."""
        plan = self._bench.drafting.plan(trial.draft)
        ratios = self._bench.validation.ratios(plan)
        gained = gain_db(self._ratios, ratios) if gain is None else gain
        kept = may_be_kept and gained >= least_gain
        detail = trial.detail
        if not kept:
            reason = "another way gains more"
            if gained < least_gain:
                reason = f"{least_gain:g} dB would be worth it"
            detail += f"; gains {gained:.1f} dB, {reason}"
        self._steps.append(
            _Step(
                remedy,
                detail,
                trial.draft,
                db_of(ratios),
                kept,
                time.process_time() - started,
            )
        )
        self._tell(self._steps[-1])
        if kept:
            self._draft, self._ratios = trial.draft, ratios

    def _calibrate_on_all(self) -> None:
        """Ranges over all inputs that were searched on, once the plan is chosen."""
        if (
            "ranges" not in self._choices.allow
            or not self._bench.is_real
            or self._opened.is_shared
            or self._bench.budget.remaining <= 0
        ):
            return
        started = time.process_time()
        drafting = calibrated_on_all(self._opened, self._work)
        bench = dataclasses.replace(self._bench, drafting=drafting)
        former, self._bench = self._bench, bench
        draft = self._corrected(self._draft)
        ratios = bench.validation.ratios(drafting.plan(draft))
        gained = gain_db(self._ratios, ratios)
        kept = gained >= -MOST_LOSS_DB
        detail = "seen over all inputs of the search"
        step = _Step(
            "ranges",
            detail if kept else f"{detail}; loses {-gained:.1f} dB",
            draft,
            db_of(ratios),
            kept,
            time.process_time() - started,
            test_db=bench.test.db(drafting.plan(draft)),
        )
        self._steps.append(step)
        self._tell(step)
        if kept:
            self._draft, self._ratios = draft, ratios
        else:
            self._bench = former

    def _tell(self, step: _Step) -> None:
        """What a step came to, while the others go on; the first answers come within seconds."""
        outcome = "kept" if step.kept else "dropped"
        self._work.say(
            step.remedy,
            1,
            1,
            f"{step.remedy}: {step.validation_db:.1f} dB on the search inputs, {outcome}"
            f" ({step.detail})",
        )

    def _promote(self) -> None:
        """Take the most sensitive tensors and weights out of int8."""
        allowed = [name for name in PROMOTIONS if name in self._choices.allow]
        if not allowed:
            return
        started = time.process_time()
        plain = dataclasses.replace(self._draft, corrections={})
        self._sensitivities = promotion.measure(self._bench, plain)
        if not self._sensitivities.is_complete:
            self._notes.append(
                f"Sensitivity: {len(self._sensitivities.units)} of"
                f" {len(promotion.plan_units(self._bench, self._draft))} tensors and weights were"
                " measured before its share of the budget was used up."
            )
        if not self._sensitivities.units:
            return
        if self._choices.rounded.scheme.bits != 8 or self._has_wide_activations:
            allowed = [name for name in allowed if name != "int16"]
        for precision in allowed:
            promoted = promotion.promote(
                self._bench,
                self._draft,
                self._sensitivities,
                self._choices.reach_db,
                self._choices.keep_macs,
                precision,
                may_promote_weights="float" in allowed,
                finish=self._corrected,
            )
            if not promoted.units:
                self._notes.append(
                    f"{precision}: nothing can leave int8 without exceeding"
                    f" {1 - self._choices.keep_macs:.0%}"
                    " of the MACs."
                )
                break
            gained = gain_db(self._ratios, promoted.ratios)
            kept = promoted.is_reached or gained >= LEAST_GAIN_DB
            self._steps.append(
                _Step(
                    precision,
                    f"{len(promoted.units)} of {len(self._sensitivities.units)} tensors and weights"
                    + ("" if kept else f"; gains {gained:.1f} dB only"),
                    promoted.draft,
                    promoted.validation_db,
                    kept,
                    seconds=time.process_time() - started,
                    predicted_db=promoted.predicted_db,
                )
            )
            self._tell(self._steps[-1])
            if kept:
                for earlier in self._steps[:-1]:
                    if earlier.kept and earlier.remedy in PROMOTIONS:
                        # 16 bits did not suffice: the plan has floats in their stead.
                        earlier.kept = False
                        earlier.detail += f"; {precision} gains more"
                self._ratios, self._promotion = promoted.ratios, promoted
            if promoted.is_reached:
                break
            started = time.process_time()
        if self._promotion is not None:
            self._draft = self._promotion.draft

    @property
    def _has_wide_activations(self) -> bool:
        activations = self._choices.rounded.activations
        return activations is not None and activations.bits > 8

    def _corrected(self, draft: Draft) -> Draft:
        """A draft with biases corrected for what it rounds, if they are at all."""
        if self._layer_inputs is None:
            return draft
        trial = remedies.biases(self._bench, draft, self._layer_inputs)
        return draft if trial is None else trial.draft

    # Files and records

    def _written(self) -> Rescue:
        self._work.say("writing files", 0, 3)
        written = self._verified()
        output = self._choices.output
        files: tuple[RescueFileRecord, ...] = ()
        if output is not None and written is not None:
            files, notes = write_files(
                Path(output),
                self._path.stem,
                written.assembly,
                written.verified,
                self._choices.rounded,
                sample=self._bench.test.samples[0],
                is_proposal=not self._bench.is_real,
            )
            self._notes += notes
        self._work.say("writing files", 3, 3)
        return Rescue(
            sha256=self._opened.sha256,
            folded=self._choices.fold,
            record=self._record(written, files),
        )

    def _verified(self) -> _WrittenFiles | None:
        """The files in a folder of the run, loaded and run; None where none can be written."""
        folder = self._work.folder
        try:
            plain, assembly = self._assembled(folder / "whole", fixed_by=None)
        except OtherNetworkError:
            # Optimizations depend on shapes, and on which branch is taken.
            try:
                plain, assembly = self._assembled(
                    folder / "fixed", fixed_by=self._bench.calibration
                )
            except OtherNetworkError as error:
                self._notes.append(
                    f"No file was written: {error}. The plan was only run in the emulator."
                )
                return None
            self._notes.append(
                f"The files accept inputs of one shape only: {self._opened.shapes}. Without"
                " a fixed shape, onnxruntime builds a different network from the model."
            )
        target = self._choices.rounded
        rounding = Rounding.of(target)
        rescaled_db = float_file_db(plain, rounding, self._bench.test, folder)
        if rescaled_db < FLOAT_FILE_DB:
            self._notes.append(
                f"The rescaled float model equals the original to only {rescaled_db:.0f} dB;"
                f" {FLOAT_FILE_DB:.0f} dB are usual."
            )
        self._work.say("writing files", 1, 3)
        verified = verify(assembly, rounding, self._bench.test, folder)
        self._work.say("writing files", 2, 3)
        if self._opened.subject.behind is not None and target.placement == "everywhere":
            self._notes.append(
                "Everything after the heads stays in float: if scores and decoded values"
                " shared a scale, the decoder would lose what the heads still have."
            )
        if assembly.source.was_half:
            self._notes.append(
                "The model uses half precision; the files have float32 inputs and outputs."
            )
        if has_bodies(verified.model):
            self._notes.append(
                "The file has branches or loops. onnxruntime 1.32 can crash on these when it looks"
                " for integer operators: set session.disable_quant_qdq to 1. It was run with this"
                " setting, so without integer kernels."
            )
        ran = run_in_openvino(verified.model, self._bench.test, verified.file_db, folder)
        self._notes.append(ran.sentence)
        verified.model.doc_string = self._description(verified, ran)
        return _WrittenFiles(assembly, verified, rescaled_db)

    def _description(self, verified: Verified, ran: OpenVinoRun) -> str:
        """What the written file says of itself."""
        kernels = (
            "not run with integer kernels"
            if math.isnan(verified.integer_db)
            else f"{verified.integer_db:.1f} dB with integer kernels"
        )
        inputs = f"{len(self._bench.test)} unseen inputs"
        if self._opened.is_test_shared:
            inputs = "the input of the search"
        return (
            f"Rescued by quantstore for {self._choices.target}. SQNR of the worst output on"
            f" {inputs}: {verified.file_db:.1f} dB in float"
            f" arithmetic, {kernels} (onnxruntime {version()}). {ran.sentence}"
        )

    def _assembled(self, folder: Path, fixed_by: Samples | None) -> tuple[Assembly, Assembly]:
        """The whole network: rescaled alone, and under the draft."""
        bench, branches = self._bench, self._opened.branches
        fold = self._choices.fold
        whole = whole_network(self._path, bench, folder, fold=fold, fixed_by=fixed_by)
        require_same(whole, bench.test)
        plain = dataclasses.replace(self._draft, corrections={})
        return (
            assemble(whole, bench, plain, branches),
            assemble(whole, bench, self._draft, branches),
        )

    def _record(
        self, written: _WrittenFiles | None, files: tuple[RescueFileRecord, ...]
    ) -> RescueRecord:
        bench, before = self._bench, self._before
        after = bench.test.outputs(bench.drafting.plan(self._draft))
        after_db = db_of(bench.test.ratios_of(after))
        return RescueRecord(
            target=self._choices.target,
            reach_db=self._choices.reach_db,
            keep_macs=self._choices.keep_macs,
            allowed=self._choices.allow,
            input_source=self._opened.description,
            calibration_count=len(bench.calibration),
            validation_count=len(bench.validation),
            # What the search used is no test.
            test_count=0 if self._opened.is_test_shared else len(bench.test),
            float_check_db=self._opened.float_check_db,
            before_db=db_of(bench.test.ratios_of(before)),
            after_db=after_db,
            file_db=math.nan if written is None else written.verified.file_db,
            integer_db=math.nan if written is None else written.verified.integer_db,
            float_file_db=math.nan if written is None else written.rescaled_db,
            agreement_before=self._agreement(before),
            agreement_after=self._agreement(after),
            int8_macs=bench.int8_share(self._draft),
            added_nodes=0 if written is None else len(written.assembly.inserted),
            weights_unsigned=written is not None and written.verified.weights_unsigned,
            is_proposal=not bench.is_real,
            # What cannot be handed out reaches nothing.
            reached=written is not None and after_db >= self._choices.reach_db,
            seconds=self._clock.wall_lap(),
            cpu_seconds=self._clock.cpu_lap(),
            onnxruntime_version=version(),
            created_at=datetime.now(UTC).replace(tzinfo=None),
            notes=tuple(self._notes),
            steps=tuple(self._step_records()),
            units=tuple(self._unit_records()),
            files=files,
            drift=self._drift,
        )

    def _step_records(self) -> list[RescueStepRecord]:
        bench = self._bench
        return [
            RescueStepRecord(
                step=number,
                remedy=step.remedy,
                detail=step.detail,
                predicted_db=step.predicted_db,
                validation_db=step.validation_db,
                test_db=step.test_db,
                int8_macs=bench.int8_share(step.trial),
                unit_count=len(step.trial.promoted),
                kept=step.kept,
                seconds=step.seconds,
            )
            for number, step in enumerate(self._steps)
        ]

    def _unit_records(self) -> list[RescueUnitRecord]:
        """Promoted units first, in their order, then the others by their noise."""
        units = promotion.plan_units(self._bench, dataclasses.replace(self._draft, promoted={}))
        noise = {}
        if self._sensitivities is not None:
            for unit, ratios in zip(
                self._sensitivities.units, self._sensitivities.ratios, strict=True
            ):
                noise[unit.name] = ratios
        ranks = {}
        if self._promotion is not None:
            ranks = {unit.name: rank for rank, unit in enumerate(self._promotion.units)}
        namer = _Namer(self._opened)
        causes = Causes(self._bench)
        records = []
        for unit in units:
            ratios = noise.get(unit.name)
            sensitivity_db = math.nan if ratios is None else db_of(ratios)
            is_promoted = unit.name in ranks
            low, high = (
                self._bench.drafting.range_of(unit.name, self._draft)
                if unit.is_tensor
                else (math.nan, math.nan)
            )
            cause = causes.of_tensor(unit.name) if unit.is_tensor else causes.of_weights()
            macs = self._bench.macs
            records.append(
                RescueUnitRecord(
                    unit=namer.name(unit.name, is_tensor=unit.is_tensor),
                    kind="tensor" if unit.is_tensor else "weights",
                    node_name=namer.node_name(unit.name),
                    depth=namer.depth(unit.name),
                    noise_to_signal=10 ** (-sensitivity_db / 10),
                    sensitivity_db=sensitivity_db,
                    macs=sum(macs.of_node[node] for node in macs.nodes_of(unit.name)),
                    rank=ranks.get(unit.name),
                    precision=self._draft.promoted.get(unit.name, "int8"),
                    range_low=low,
                    range_high=high,
                    cause=cause if is_promoted else None,
                )
            )
        return sorted(
            records,
            key=lambda record: (
                math.inf if record.rank is None else record.rank,
                -record.noise_to_signal if not math.isnan(record.noise_to_signal) else math.inf,
            ),
        )

    def _agreement(self, actual: Tensors) -> float:
        """Share of the decisions that stay as they are in float; NaN where nothing is decided."""
        bench, opened = self._bench, self._opened
        rows = bench.test.judged(actual, is_real=bench.is_real)
        shares = [
            row.record.decision_f1
            for row in rows
            if row.record.decides and not math.isnan(row.record.decision_f1)
        ]
        if shares:
            return min(shares)
        if not opened.subject.holds_scores or not bench.is_real:
            return math.nan
        return decisions(opened.samples, bench.test.expected, actual).top1_agreement


class _Namer:
    """Units in the words of the file and the store."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._made_by = producers(opened.bench.network.model)
        self._slot_reader = {
            name: node
            for node in opened.bench.network.model.graph.node
            for name in node.input
            if name in opened.bench.network.slot_of
        }

    def name(self, unit: str, *, is_tensor: bool) -> str:
        """Of a tensor its own, of weights that of their layer."""
        if is_tensor:
            return self._opened.branches.get(unit, unit)
        key = self._opened.subject.layer_of.get(unit)
        return self._opened.bench.network.slot_of[unit].site.name if key is None else key.name

    def node_name(self, unit: str) -> str | None:
        """What computes a tensor, or reads weights."""
        node = self._made_by.get(self._opened.branches.get(unit, unit))
        node = self._slot_reader.get(unit, node)
        return None if node is None else name_of(node)

    def depth(self, unit: str) -> int | None:
        """Of the layer that reads the unit first, as the store counts; None without one."""
        layer_of, depth_of = self._opened.subject.layer_of, self._opened.depth_of
        if unit in layer_of:
            return depth_of.get(layer_of[unit])
        nodes = self._opened.bench.macs.nodes_of(unit)
        depths = [
            depth_of[layer_of[slot]]
            for slot, node in self._slot_reader.items()
            if name_of(node) in nodes and slot in layer_of and layer_of[slot] in depth_of
        ]
        return min(depths, default=None)
