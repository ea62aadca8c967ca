"""The verdict on one model under one scheme, with what it rests on."""

import math
from dataclasses import dataclass

from quantstore.errors import printable
from quantstore.wording.units import NO_BREAK_SPACE, counted, spaced, with_minus

# Of a model that was measured with --no-fold.
UNFOLDED = "weights as stored, batch normalization not folded"

# The field's measure everywhere in the app, said so that nobody has to know percentiles.
NINE_IN_TEN_REACH = "nine in ten channels reach"
NINE_IN_TEN = f"SQNR that {NINE_IN_TEN_REACH}"

# The outputs of an int8 network never come this close; integers that come back as they were do.
OWN_GRID_DB = 60.0


# The verdict where full int8 has no figure and nothing less proves a loss; it colours a cell, too.
UNTESTED = "untested"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known of one model under one scheme: a row of the view ``verdicts``."""

    verdict: str  # breaks, at risk, watch, fine or untested
    mode: str | None  # what the probe quantized; None where the verdict rests on the weights alone
    output_sqnr_db: float | None
    layers_broken: int
    layers_at_risk: int
    layer_count: int
    is_already_quantized: bool = False
    are_layers_exact: bool = False  # nothing but float rounding is lost in any of them
    probe_failure: str | None = None
    next_limit_db: float | None = None  # of the bands, the lowest that the outputs do not reach
    reason: str | None = None  # why full int8 has no figure, where the verdict is untested

    @property
    def is_probed(self) -> bool:
        return self.mode is not None and self.output_sqnr_db is not None

    @property
    def is_untested(self) -> bool:
        """Whether full int8 has no figure, and nothing less proves a loss."""
        return self.verdict == UNTESTED

    @property
    def is_on_its_own_grid(self) -> bool:
        """Whether the file holds integers of this very scheme, so that there is nothing to lose."""
        if not self.is_already_quantized or self.is_untested:
            return False
        if self.output_sqnr_db is None:
            return self.are_layers_exact
        return self.output_sqnr_db > OWN_GRID_DB


@dataclass(frozen=True, slots=True)
class VerdictCell:
    """What a cell of the verdict matrix says: ``band`` colours it, ``evidence`` says why."""

    band: str
    text: str
    addition: str = ""
    evidence: str = ""
    where: str = ""  # what the figure is of, in front of the evidence


MODES = {
    "both": "weights and activations",
    "weights": "weights only",
    "activations": "activations only",
}
_MODES_IN_A_CELL = MODES | {"both": "full int8"}


def verdict(facts: ModelFacts) -> VerdictCell:
    """The verdict on one model under one scheme, with what it rests on.

    The probe decides where there is one. Weights alone never prove that a model survives, and
    layers to watch never change their verdict.
    """
    if facts.is_untested:
        evidence = FULL_INT8_NOT_MEASURED
        if facts.is_probed:
            evidence += f"; {with_less_than_full_int8(facts)}"
        return VerdictCell(UNTESTED, UNTESTED, "", evidence)
    if facts.is_on_its_own_grid:
        return VerdictCell("fine", "on this grid already", "", "the first loss is unknown")
    if not facts.is_probed:
        by_weights = weights_verdict(facts.layers_broken, facts.layers_at_risk)
        if facts.probe_failure:
            evidence = "weights alone; the probe failed"
        elif by_weights.band == "fine":
            evidence = "activations not measured"
        else:
            evidence = "weights alone, not run"
        return VerdictCell(by_weights.band, by_weights.text, by_weights.addition, evidence)
    mode = facts.mode or ""
    survives = {"weights": "weights survive", "activations": "activations survive"}
    outcome = survives.get(mode, "survives") if facts.verdict == "fine" else facts.verdict
    band = "broken" if facts.verdict == "breaks" else facts.verdict
    text = f"{outcome}: {at_outputs(facts)}"
    evidence = _MODES_IN_A_CELL[mode]
    if facts.layers_broken:
        evidence += f"; {counted(facts.layers_broken, 'layer')} broken"
    return VerdictCell(band, text, "", evidence, "at the outputs, ")


def verdict_sentence(facts: ModelFacts) -> str:
    """The verdict on one line: ``breaks: 7 dB at the outputs, full int8; 24 layers broken``."""
    if facts.is_untested:
        reason = printable(facts.reason or "no reason given").rstrip(".")
        sentence = f"{UNTESTED}: {FULL_INT8_NOT_MEASURED}: {reason}"
        if facts.is_probed:
            sentence += f"; {with_less_than_full_int8(facts)} at the outputs"
        return sentence.replace(NO_BREAK_SPACE, " ")
    cell = verdict(facts)
    text = " ".join(filter(None, (cell.text, cell.addition)))
    evidence = f" {cell.where}{cell.evidence}" if cell.where else f", {cell.evidence}"
    return f"{text}{evidence}".replace(NO_BREAK_SPACE, " ")


FULL_INT8_NOT_MEASURED = "full int8 was not measured"


def with_less_than_full_int8(facts: ModelFacts) -> str:
    """``weights only: 22 dB``, what is measured of a model that is untested."""
    return f"{MODES[facts.mode or 'weights']}: {at_outputs(facts)}"


def weights_verdict(layers_broken: int, layers_at_risk: int) -> VerdictCell:
    """The verdict from the weights alone: they can prove that a model breaks, nothing else."""
    if layers_broken:
        addition = f"+{NO_BREAK_SPACE}{layers_at_risk} at risk" if layers_at_risk else ""
        return VerdictCell("broken", f"breaks: {counted(layers_broken, 'layer')}", addition)
    if layers_at_risk:
        return VerdictCell("at risk", f"at risk: {counted(layers_at_risk, 'layer')}")
    return VerdictCell("fine", "no weight-side blocker")


def about_db(value: float | None, next_limit_db: float | None = None) -> str:
    """``7 dB``: another seed moves the probe by more than a decimal.

    Right below a limit of the bands a decimal stays: 9.7 dB must not read 10.

    Args:
        next_limit_db: the lowest limit above the value, None where there is none.
    """
    if value is None or not math.isfinite(value):
        return "exact"
    whole = round(value)
    if next_limit_db is not None and whole >= next_limit_db > value:
        return with_minus(f"{math.floor(10 * value) / 10:.1f}") + spaced("dB")
    return with_minus(str(whole)) + spaced("dB")


def at_outputs(facts: ModelFacts) -> str:
    """What a model reaches at its outputs, with as many digits as the probe can hold."""
    return about_db(facts.output_sqnr_db, facts.next_limit_db)
