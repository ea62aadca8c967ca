"""What can be done about a model under a target: facts in, up to three answers out, best first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quantstore.errors import printable
from quantstore.schemes import LOST_DB, TARGETS, Target
from quantstore.wording.rescues import before_and_after, is_written, rescued_db
from quantstore.wording.units import counted, db
from quantstore.wording.verdicts import ModelFacts, at_outputs, basis

if TYPE_CHECKING:
    from quantstore.records import RescueRecord

HEADING = "What can I do?"
MOST_ANSWERS = 3
# A smaller gain is within what other inputs, or another seed of the noise, would show.
TELLING_GAIN_DB = 1.0
TELLING_ESTIMATE_DB = 3.0
GOOD_ENOUGH = ("fine", "watch")
# A search stands behind a scale per channel, which is one switch of a tool, and before all else.
RESCUE_PRICE = 0.1
GAIN_UNKNOWN = "gain unknown until you run it"

# ``file``: one that was written for this target; ``other file``: for another target; ``target``:
# another target as it is; ``rescue``: a search that nobody has started yet.
AdviceKind = Literal["file", "other file", "target", "rescue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRescue:
    """A rescue in the store. ``file_name``: of the quantized model; empty where none was kept."""

    rescue_id: int
    record: "RescueRecord"
    band: str | None = None
    file_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One thing to do. ``gain``: in words, with what it rests on; ``target``: what it is for."""

    kind: AdviceKind
    text: str
    gain: str
    target: str
    rescue_id: int | None = None


def opening(facts: ModelFacts, why_not_run: str = "") -> str:
    """The sentence before the answers, all there is to say where none is needed.

    Args:
        why_not_run: why no target can be measured, as a sentence; empty where one can.
    """
    title = TARGETS[facts.target].title
    if facts.is_untested and why_not_run:
        return f"The effect of {title} on this model is unknown. {why_not_run}"
    if facts.is_untested:
        return (
            f"The effect of {title} on this model is unknown. Measure it below under Targets, or"
            " rescue the model: a rescue measures the effect on your inputs."
        )
    if is_calm(facts):
        return f"No action needed for {title}."
    if facts.verdict == "watch":
        return "The loss is visible but usually harmless. To reduce it:"
    return ""


def is_calm(facts: ModelFacts) -> bool:
    """Whether nothing needs to be done."""
    return facts.verdict == "fine" or facts.is_on_its_own_grid


def answers(
    facts: ModelFacts,
    others: Sequence[ModelFacts],
    rescues: Sequence[StoredRescue],
    *,
    can_be_rescued: bool,
) -> tuple[Advice, ...]:
    """What to do about a model under a target, none where it is fine.

    A file that was written and measured comes first. Then what costs least to change: the same
    hardware with a scale per channel, a rescue, another placement, other arithmetic. What leaves
    the model broken or at risk comes behind all that does not.

    Args:
        others: the same model under the other targets.
        rescues: the latest of each target.
        can_be_rescued: whether there is a rescue for this target.
    """
    if is_calm(facts):
        return ()
    target = TARGETS[facts.target]
    ranked: list[tuple[bool, float, Advice]] = []
    by_target = {rescue.record.target: rescue for rescue in rescues}
    latest = by_target.pop(target.name, None)
    own_answer = None if latest is None else _file_answer(latest, facts, "file")
    if latest is not None and own_answer is not None:
        ranked.append((False, -1.0, own_answer))
    for other in others:
        if other.target == target.name:
            continue
        price = _price(target, TARGETS[other.target])
        rescue = by_target.get(other.target)
        answer = None if rescue is None else _file_answer(rescue, facts, "other file")
        if rescue is not None and answer is not None and other.verdict not in GOOD_ENOUGH:
            ranked.append((rescue.band not in GOOD_ENOUGH, price, answer))
            continue
        answer = _target_answer(facts, other)
        if answer is not None:
            ranked.append((other.verdict not in GOOD_ENOUGH, price, answer))
    if can_be_rescued and (
        own_answer is None or (latest is not None and latest.band not in GOOD_ENOUGH)
    ):
        ranked.append(
            (False, RESCUE_PRICE, _rescue_answer(target, is_again=own_answer is not None))
        )
    ranked.sort(key=lambda entry: entry[:2])
    return tuple(answer for _, _, answer in ranked[:MOST_ANSWERS])


def _price(target: Target, other: Target) -> float:
    """How much of the hardware and its tools must change, from 0."""
    if target.per_channel is not None and other.name == target.per_channel.name:
        return 0
    price = 0.0 if other.scheme == target.scheme else 1.0
    price += 0.0 if other.placement == target.placement else 0.5
    if other.activations is None or other.activations.is_dynamic:
        return price + 3
    if target.activations is None or other.activations.bits != target.activations.bits:
        price += 1
    return price + 0.25 * (other.activations != target.activations)


def _file_answer(rescue: StoredRescue, facts: ModelFacts, answer_kind: AdviceKind) -> Advice | None:
    record = rescue.record
    if record.failure is not None or not is_written(record):
        return None
    after = rescued_db(record)
    if not after - record.before_db >= TELLING_GAIN_DB:
        return None
    name = printable(rescue.file_name) if rescue.file_name else "the rescued model"
    which = "" if answer_kind == "file" else f" with {TARGETS[record.target].title}"
    gain = f"measured on {counted(record.test_count, 'unseen input')}"
    if record.before_db != LOST_DB:
        gain = f"{db(after - record.before_db, signed=True)}, {gain}"
    return Advice(
        kind=answer_kind,
        text=f"Use {name}{which}: {before_and_after(record.before_db, after)}",
        gain=gain,
        target=record.target,
        rescue_id=rescue.rescue_id,
    )


def _target_answer(facts: ModelFacts, other: ModelFacts) -> Advice | None:
    """Another target as it is, where a value says that it loses less."""
    if not other.is_measured or other.output_sqnr_db is None or other.is_by_weights:
        return None
    now = facts.output_sqnr_db
    if now is None:
        if other.verdict not in GOOD_ENOUGH:
            return None
        values, gain = at_outputs(other), basis(other)
    else:
        if other.output_sqnr_db - now < TELLING_ESTIMATE_DB:
            return None
        values = f"{at_outputs(facts)} → {at_outputs(other)}"
        gain = basis(other)
        if now != LOST_DB:
            gain = f"about {round(other.output_sqnr_db - now):+d} dB, {gain}"
    return Advice(
        kind="target",
        text=f"Choose {TARGETS[other.target].title} instead: {values}",
        gain=gain,
        target=other.target,
    )


def _rescue_answer(target: Target, *, is_again: bool) -> Advice:
    text = f"Rescue the model for {target.title}: try remedies and write a quantized model"
    if is_again:
        text = (
            f"Rescue the model again for {target.title}: allow more remedies, or fewer MACs in int8"
        )
    return Advice(kind="rescue", text=text, gain=GAIN_UNKNOWN, target=target.name)
