"""The verdict on one model under one target, with what it rests on."""

import math
import shlex
from dataclasses import dataclass, replace

from quantstore.errors import printable
from quantstore.file_formats import FORMATS
from quantstore.schemes import DEFAULT_TARGET, LOST_DB, TARGETS
from quantstore.wording.audits import audited
from quantstore.wording.units import (
    NO_BREAK_SPACE,
    NOTHING_KEPT,
    counted,
    db,
    share,
    spaced,
    with_minus,
)

# Of a model that was measured with --no-fold.
UNFOLDED = "weights as stored, batch normalization not folded"

# The field's measure everywhere in the app, said so that nobody has to know percentiles.
NINE_IN_TEN_REACH = "90 % of channels reach"
NINE_IN_TEN = f"SQNR that {NINE_IN_TEN_REACH}"

# The outputs of an int8 network never come this close; integers that come back as they were do.
OWN_GRID_DB = 60.0


# The verdict where a target has no value of its own and nothing less proves a loss; it colours a
# cell, too.
UNTESTED = "untested"
# Its reason where nobody has measured the target; the view ``verdicts`` says the same.
NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known of one model under one target: a row of the view ``verdicts``."""

    verdict: str  # broken, at risk, watch, fine or untested
    evidence: str = "weights"  # run, probe or weights
    mode: str = "weights"  # what is quantized in the evidence
    output_sqnr_db: float | None = None
    layers_broken: int = 0
    layers_at_risk: int = 0
    layer_count: int = 0
    target: str = DEFAULT_TARGET.name
    model: str = ""  # its name, for the command that measures it
    is_measured: bool = False  # whether the target itself has a value
    is_already_quantized: bool = False
    are_layers_exact: bool = False  # nothing but float rounding is lost in any of them
    next_limit_db: float | None = None  # of the bands, the lowest that the outputs do not reach
    reason: str | None = None  # why the target has no value, where the verdict is untested
    sample_count: int | None = None
    worst_output: str | None = None
    decision_f1: float | None = None
    provisional: str | None = None  # why the value is provisional
    rescued_db: float | None = None  # of the file that the latest rescue wrote
    # Of an int8 model whose file was held against its float file, by the latest audit.
    audited_against: str | None = None  # the float model
    audited_db: float | None = None  # None where nothing is lost
    audited_band: str | None = None

    @property
    def stored_loss(self) -> str:
        """What is known of the loss that an int8 file has as it is stored."""
        if self.audited_against is None:
            return LOSS_UNKNOWN
        return audited(self.audited_db, self.audited_against)

    @property
    def was_run(self) -> bool:
        """Whether the verdict rests on a value at the outputs, or on there being no loss."""
        return self.evidence != "weights"

    @property
    def is_untested(self) -> bool:
        """Whether the target has no value, and nothing less proves a loss."""
        return self.verdict == UNTESTED

    @property
    def can_be_run(self) -> bool:
        """Whether its target may still get a value: the format of the file is one that is run."""
        return all(
            self.reason != file_format.why_not_run
            for file_format in FORMATS.values()
            if file_format.why_not_run
        )

    @property
    def is_on_its_own_grid(self) -> bool:
        """Whether the file holds integers of this very scheme, so that there is nothing to lose."""
        if not self.is_already_quantized or self.is_untested:
            return False
        if self.output_sqnr_db is None:
            return self.are_layers_exact or (self.was_run and self.verdict == "fine")
        return self.output_sqnr_db > OWN_GRID_DB

    @property
    def says_more_on_one_line(self) -> bool:
        """Whether :func:`verdict_sentence` says more than the headline of a model."""
        if self.is_untested:
            return self.can_be_run
        return any(
            detail is not None for detail in (self.worst_output, self.decision_f1, self.provisional)
        )

    @property
    def is_by_weights(self) -> bool:
        """Whether it is the weights alone that decide, under a target that rounds more."""
        return self.mode == "weights" and TARGETS[self.target].mode != "weights"


@dataclass(frozen=True, slots=True)
class VerdictCell:
    """What a cell of the verdict matrix says: ``band`` colours it, ``evidence`` says why.

    ``rescued`` is what a rescue reached, ``audited`` what an audit found of an int8 file; both are
    empty where there was none.
    """

    band: str
    text: str
    addition: str = ""
    evidence: str = ""
    rescued: str = ""
    audited: str = ""


MODES = {
    "both": "weights and activations",
    "weights": "weights only",
    "activations": "activations only",
}

STORED_SO, LOSS_UNKNOWN = "already stored in this format", "earlier loss unknown"
NOTHING_TO_ROUND = "no change"
NOT_RUN = "weights only, model not run"
ESTIMATED = "estimated with noise"
PROVISIONAL = "provisional"


def verdict(facts: ModelFacts) -> VerdictCell:
    """The verdict on one model under one target, with what it rests on."""
    rescued = "" if facts.rescued_db is None else f"Rescued: {db(facts.rescued_db)}"
    loss = "" if facts.audited_against is None else facts.stored_loss
    cell = _verdict(facts)
    # Where it is the evidence it is not told twice.
    loss = "" if loss == cell.evidence else f"{loss[:1].upper()}{loss[1:]}"
    return replace(cell, rescued=rescued, audited=loss)


def _verdict(facts: ModelFacts) -> VerdictCell:
    if facts.is_untested:
        return VerdictCell(UNTESTED, UNTESTED, "", _untested_because(facts))
    if facts.is_on_its_own_grid:
        return VerdictCell(facts.audited_band or "fine", STORED_SO, "", facts.stored_loss)
    if not facts.was_run:
        by_weights = weights_verdict(facts.layers_broken, facts.layers_at_risk)
        return VerdictCell(facts.verdict, by_weights.text, by_weights.addition, NOT_RUN)
    if facts.output_sqnr_db is None:
        return VerdictCell(facts.verdict, f"{facts.verdict}: {NOTHING_TO_ROUND}", "", basis(facts))
    evidence = basis(facts)
    if facts.layers_broken:
        evidence += f"; {counted(facts.layers_broken, 'layer')} broken"
    return VerdictCell(facts.verdict, f"{facts.verdict}: {at_outputs(facts)}", "", evidence)


def basis(facts: ModelFacts) -> str:
    """What a value rests on: ``estimated with noise``, ``on 12 of your inputs, weights alone``."""
    clauses = []
    if not facts.was_run:
        return NOT_RUN
    if facts.evidence == "run":
        clauses.append(f"on {facts.sample_count:,} of your inputs" if facts.sample_count else OWN)
    else:
        clauses.append(ESTIMATED)
    if facts.is_by_weights:
        clauses.append("weights alone" if facts.is_measured else NO_ACTIVATIONS)
    if facts.provisional:
        clauses.append(PROVISIONAL)
    return ", ".join(clauses)


OWN = "on your inputs"
NO_ACTIVATIONS = "weights alone, activations not measured"


def _untested_because(facts: ModelFacts) -> str:
    reason = printable(facts.reason or NOT_MEASURED).rstrip(".")
    if facts.output_sqnr_db is not None:
        reason += f"; weights alone: {at_outputs(facts)}"
    return reason


def verdict_sentence(facts: ModelFacts) -> str:
    """The verdict on one line: ``broken: output SQNR 7 dB, estimated with noise``.

    What is untested comes with the command that measures it, where the model has a name and can
    be run.
    """
    if facts.is_untested:
        sentence = f"{UNTESTED}: {_untested_because(facts)}"
        if facts.model and facts.can_be_run:
            sentence += f"; measure it with: {command(facts)}"
        return sentence.replace(NO_BREAK_SPACE, " ")
    cell = verdict(facts)
    if facts.was_run and facts.output_sqnr_db is not None and not facts.is_on_its_own_grid:
        text = f"{facts.verdict}: output SQNR {at_outputs(facts)}"
        if facts.worst_output:
            text += f" at {printable(facts.worst_output)}"
    else:
        text = " ".join(filter(None, (cell.text, cell.addition)))
    evidence = cell.evidence
    if facts.provisional and facts.was_run:
        # It comes with its reason, at the end.
        evidence = evidence.replace(f", {PROVISIONAL}", "")
    sentence = f"{text}, {evidence}"
    if facts.decision_f1 is not None:
        sentence += f"; {share(facts.decision_f1)} of decisions unchanged"
    if facts.provisional and facts.was_run:
        sentence += f"; {PROVISIONAL}: {printable(facts.provisional)}"
    return sentence.replace(NO_BREAK_SPACE, " ")


def command(facts: ModelFacts) -> str:
    """The command that measures a target of a model."""
    return shlex.join(("quantstore", "probe", printable(facts.model), "--target", facts.target))


def weights_verdict(layers_broken: int, layers_at_risk: int) -> VerdictCell:
    """What the weights alone say: they can prove that a model is broken, nothing else."""
    if layers_broken:
        addition = f"+{NO_BREAK_SPACE}{layers_at_risk} at risk" if layers_at_risk else ""
        return VerdictCell("broken", f"broken: {counted(layers_broken, 'layer')}", addition)
    if layers_at_risk:
        return VerdictCell("at risk", f"at risk: {counted(layers_at_risk, 'layer')}")
    return VerdictCell(UNTESTED, "no problem found in the weights")


def about_db(value: float | None, next_limit_db: float | None = None) -> str:
    """``7 dB``: another seed moves the probe by more than a decimal.

    Right below a limit of the bands a decimal stays: 9.7 dB must not read 10.

    Args:
        next_limit_db: the lowest limit above the value, None where there is none.
    """
    if value is None or not math.isfinite(value):
        return "exact"
    if value == LOST_DB:
        return NOTHING_KEPT
    whole = round(value)
    if next_limit_db is not None and whole >= next_limit_db > value:
        return with_minus(f"{math.floor(10 * value) / 10:.1f}") + spaced("dB")
    return with_minus(str(whole)) + spaced("dB")


def at_outputs(facts: ModelFacts) -> str:
    """What a model reaches at its outputs, with as many digits as the probe can hold."""
    return about_db(facts.output_sqnr_db, facts.next_limit_db)
