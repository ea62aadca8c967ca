"""What is said of a rescue: its steps, what it reached, and its files. Plain text."""

import math
from typing import TYPE_CHECKING

from quantstore.errors import printable
from quantstore.schemes import TARGETS
from quantstore.wording.units import counted, db, share, spaced

if TYPE_CHECKING:
    from quantstore.records import RescueRecord

# What a step does, by the name of its remedy.
REMEDY_TITLES = {
    "placement": "target as it is",
    "depthwise": "scale per channel at depthwise inputs",
    "ranges": "better activation ranges",
    "equalize": "equalized channels",
    "rounding": "compensated rounding",
    "mul": "Mul before depthwise convolutions",
    "int16": "16-bit activations",
    "float": "float",
}
# Those that somebody may allow or not.
REMEDY_NAMES = tuple(name for name in REMEDY_TITLES if name != "placement")

KEPT, DROPPED = "kept", "dropped"
PROPOSAL = (
    "This is a proposal based on noise. No quantized model was written; rescue the model on real"
    " inputs to get one."
)
NO_FILE = "No quantized file could be written."
# Integer kernels that differ by more saturate on this processor.
MOST_GAP_DB = 1.0

# Why a tensor or the weights of a layer had to leave int8, by the name of the cause.
CAUSE_SENTENCES = {
    "outlier channels": "A few channels are far larger than the others and share their scale.",
    "mixed Concat": "A Concat puts tensors with different ranges on one scale.",
    "squashing behind it": "The squashing function that follows is steep where the values lie.",
    "sentinel values": "Some values stand for infinity.",
    "activation spread": "Most values lie in a small part of the range.",
    "weight spread": "The weights spread more widely than their scales can resolve.",
}

# What no value here tells, one thing a sentence.
_NO_ACCURACY = "SQNR is not accuracy. Measure accuracy on labelled data before you ship."
_FEW_INPUTS = "With so few inputs, each value is uncertain by at least 1 dB."
_NO_MILLISECONDS = (
    "MACs are not milliseconds. Only a profiler can tell what 16 bits or float cost on your"
    " hardware."
)
_FUSED = "A fused target assumes which operators are fused. Check that your accelerator does so."
_COVERED = (
    "Compensated rounding and rescaling cover Conv, Gemm and MatMul. Recurrent layers, attention"
    " and layers in branches are rounded to nearest."
)
_OTHER_TOOLS = (
    "The quantized model was run with onnxruntime, and with OpenVINO if it is installed. The files"
    " were not tried with other tools."
)
LIMITS = (_NO_ACCURACY, _FEW_INPUTS, _NO_MILLISECONDS, _FUSED, _COVERED, _OTHER_TOOLS)
# So many unseen inputs are few.
_FEW = 8


def step_title(remedy: str, *, is_first: bool = False) -> str:
    """What a step of this remedy is called; the first one is what the target does by itself."""
    if remedy == "placement" and not is_first:
        return "other placement"
    return REMEDY_TITLES.get(remedy, printable(remedy))


def headline(record: "RescueRecord", before_band: str | None, after_band: str | None) -> str:
    """``Broken → fine with per-channel int8: output SQNR 2.2 → 35.4 dB on 3 unseen inputs``.

    Args:
        before_band: of the value; None where nobody knows it.
    """
    title = TARGETS[record.target].title
    if record.failure is not None:
        return f"No rescue with {title}: {printable(record.failure).rstrip('.')}"
    if before_band is None or after_band is None:
        state = ""
    elif before_band == after_band:
        state = f"still {after_band} "
    else:
        state = f"{before_band} → {after_band} "
    inputs = counted(record.test_count, "noise input" if record.is_proposal else "unseen input")
    values = before_and_after(record.before_db, rescued_db(record))
    sentence = f"{state}with {title}: output SQNR {values} on {inputs}"
    if record.is_proposal:
        return f"Proposal, {sentence}"
    return f"{sentence[0].upper()}{sentence[1:]}"


def before_and_after(before_db: float, after_db: float) -> str:
    """``2.2 → 35.4 dB``."""
    before = db(before_db)
    unit = spaced("dB")
    if before.endswith(unit) and math.isfinite(after_db):
        before = before.removesuffix(unit)
    return f"{before} → {db(after_db)}"


def limits(record: "RescueRecord") -> tuple[str, ...]:
    """Those of :data:`LIMITS` that the values of this rescue call for."""
    if record.failure is not None:
        return ()
    calls = {
        _NO_ACCURACY: True,
        _FEW_INPUTS: record.test_count <= _FEW,
        _NO_MILLISECONDS: record.int8_macs < 1,
        _FUSED: TARGETS[record.target].placement != "everywhere",
        _COVERED: False,
        _OTHER_TOOLS: is_written(record),
    }
    return tuple(sentence for sentence in LIMITS if calls[sentence])


def is_written(record: "RescueRecord") -> bool:
    """Whether a quantized file was made and run; where somebody wanted none, it was not kept."""
    return not record.is_proposal and not math.isnan(record.file_db)


def rescued_db(record: "RescueRecord") -> float:
    """SQNR after a rescue: of the file itself, where there is one; else of the plan."""
    return record.file_db if is_written(record) else record.after_db


def before_sentence(record: "RescueRecord", band: str | None) -> str:
    """``Before: broken with per-channel int8, output SQNR 2.2 dB. 38 % of decisions are ...``

    Args:
        band: of the value; None where nobody knows it.
    """
    state = "" if band is None else f"{band} with "
    sentence = f"Before: {state}{TARGETS[record.target].title}, output SQNR {db(record.before_db)}."
    return sentence + _decisions(record.agreement_before)


def after_sentence(record: "RescueRecord", band: str | None) -> str:
    """``After: fine, output SQNR 35.4 dB, on 3 inputs that the search did not use.``

    Args:
        band: of the value; None where nobody knows it.
    """
    state = "" if band is None else f"{band}, "
    inputs = counted(record.test_count, "input" if not record.is_proposal else "noise input")
    addition = "" if is_written(record) else " (plan only, no file)"
    sentence = f"After: {state}output SQNR {db(rescued_db(record))}{addition}"
    if record.test_count:
        sentence += f", measured on {inputs} that the search did not use."
    else:
        sentence += ", measured on the same input as the search: test the model on others."
    return sentence + _decisions(record.agreement_after)


def _decisions(agreement: float) -> str:
    return "" if math.isnan(agreement) else f" {share(agreement)} of decisions are unchanged."


def goal_sentence(record: "RescueRecord") -> str:
    """``Goal reached: 20 dB. 98.8 % of the multiply-accumulates stay in int8.``"""
    state = "Goal reached" if record.reached else "Goal not reached"
    stay = share(record.int8_macs, digits=1)
    sentence = f"{state}: {record.reach_db:g} dB."
    if not math.isnan(record.int8_macs):
        sentence += f" {stay} of the multiply-accumulates stay in int8."
    if not record.reached and is_written(record):
        sentence += " This is the best plan found."
    return sentence


def result_sentences(
    record: "RescueRecord", before_band: str | None, after_band: str | None
) -> tuple[str, ...]:
    """What came of a rescue, a fact a line; the verdict before and after comes last."""
    if record.failure is not None:
        return (f"No result: {printable(record.failure)}",)
    sentences = []
    if record.is_proposal:
        sentences.append(PROPOSAL)
    elif not is_written(record):
        sentences.append(NO_FILE)
    elif not math.isnan(record.integer_db):
        sentences.append(_integer_sentence(record))
    sentences.append(goal_sentence(record))
    sentences.append(before_sentence(record, before_band))
    sentences.append(after_sentence(record, after_band))
    return tuple(sentences)


def _integer_sentence(record: "RescueRecord") -> str:
    """What the integer kernels of this computer make of the file."""
    sentence = f"With the integer kernels of this computer: {db(record.integer_db)}"
    if record.file_db - record.integer_db > MOST_GAP_DB:
        sentence += "; sums saturate on this processor"
    return f"{sentence}."


def progress_label(stage: str, seconds_left: float | None) -> str:
    """``calibrating, about 97 s of the budget left``; None where the stage has no budget."""
    if seconds_left is None:
        return stage
    if seconds_left < 1:
        return f"{stage}, budget spent"
    return f"{stage}, about {seconds_left:.0f} s of the budget left"
