"""The sentence at the top of a page, from verdicts and counts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from quantstore.schemes import TARGETS, Target
from quantstore.wording.text import listed
from quantstore.wording.units import NO_BREAK_SPACE, count, counted, file_size, weight, weights
from quantstore.wording.verdicts import (
    ESTIMATED,
    LOSS_UNKNOWN,
    NOT_RUN,
    NOTHING_TO_ROUND,
    OWN,
    PROVISIONAL,
    STORED_SO,
    UNFOLDED,
    UNTESTED,
    ModelFacts,
    at_outputs,
    basis,
    verdict,
    verdict_sentence,
)


def models_headline(
    models: Sequence[ModelFacts], per_channel: Sequence[ModelFacts], target: Target
) -> str:
    """The answer of the Compare page: ``3 of 10 models are broken with per-tensor int8``.

    Args:
        models: one per model, under the target.
        per_channel: the same models under the target of the same kind with a scale per channel;
            empty where the target is such a one.
    """
    total = len(models)
    stored = [model for model in models if model.is_on_its_own_grid]
    counts = Counter(model.verdict for model in models if not model.is_on_its_own_grid)
    leading = next((state for state in _STATES if counts[state]), None)
    if leading is None:
        return f"{_subject(total, total)} {_are(total)} {STORED_SO}: {LOSS_UNKNOWN}"
    number = counts[leading]
    sentence = f"{_subject(number, total)} {_are(number)} {_STATES[leading]} with {target.title}"
    sentence += _evidence([model for model in models if model.verdict == leading])
    others = [
        f"{counts[state]:,} {_are(counts[state])} {_STATES[state]}"
        for state in _STATES
        if state != leading and counts[state] and (state == UNTESTED or leading != "broken")
    ]
    if leading == "broken" and counts["at risk"]:
        others.insert(0, f"{counts['at risk']:,} {_are(counts['at risk'])} at risk")
    if stored:
        others.append(f"{len(stored):,} {_are(len(stored))} {STORED_SO}")
    if leading == "broken" and per_channel:
        others.append(_per_channel_clause(per_channel))
    return "; ".join((sentence, *others))


# What is said first, and how.
_STATES = {
    "broken": "broken",
    "at risk": "at risk",
    "fine": "fine",
    "watch": "rated watch",
    UNTESTED: UNTESTED,
}


def _evidence(models: Sequence[ModelFacts]) -> str:
    """What a statement about some models rests on, in parentheses."""
    evidence = {model.evidence for model in models}
    if any(model.is_untested for model in models):
        return ""
    if evidence == {"probe"}:
        basis_text = ESTIMATED
    elif evidence == {"run"}:
        basis_text = OWN
    elif evidence == {"weights"}:
        basis_text = NOT_RUN.replace("model", "models") if len(models) > 1 else NOT_RUN
    else:
        basis_text = listed([_OF_SOME[name] for name in _OF_SOME if name in evidence])
    if any(model.provisional and model.was_run for model in models):
        basis_text += f"; {PROVISIONAL}"
    return f" ({basis_text})"


_OF_SOME = {"run": "some on your inputs", "probe": "some with noise", "weights": "some not run"}


def _per_channel_clause(per_channel: Sequence[ModelFacts]) -> str:
    title = TARGETS[per_channel[0].target].title
    broken = sum(model.verdict == "broken" for model in per_channel)
    untested = sum(model.is_untested for model in per_channel)
    if broken:
        return f"with {title}, {broken:,} {_are(broken)} broken"
    if untested:
        return f"with {title}, {untested:,} {_are(untested)} untested"
    return f"with {title}, none is broken"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _subject(named_count: int, total: int) -> str:
    """``The model``, ``Both models``, ``All 4 models``, ``3 of 4 models``."""
    if named_count < total:
        return f"{named_count:,} of {total:,} models"
    return {1: "The model", 2: "Both models"}.get(total, f"All {total:,} models")


def model_headline(facts: ModelFacts, per_channel: ModelFacts | None, target: Target) -> str:
    """The Model page's answer: ``Broken with per-channel int8: output SQNR 7 dB, estimated ...``.

    Args:
        per_channel: the same under the target of this kind with a scale per channel; None where
            the target is such a one.
    """
    state = facts.verdict[0].upper() + facts.verdict[1:]
    if facts.is_on_its_own_grid:
        mark = ":" if facts.audited_against is None else ";"
        return f"{STORED_SO[0].upper()}{STORED_SO[1:]}{mark} {facts.stored_loss}"
    if facts.is_untested:
        return f"{state} with {target.title}: {verdict(facts).evidence}"
    sentence = f"{state} with {target.title}: "
    if not facts.was_run:
        return f"{sentence}{layers_in_words(facts)}, {NOT_RUN}"
    if facts.output_sqnr_db is None:
        return f"{sentence}{NOTHING_TO_ROUND}, {basis(facts)}"
    sentence += f"output SQNR {at_outputs(facts)}, {basis(facts)}"
    if per_channel is not None and per_channel.is_measured and per_channel.output_sqnr_db:
        sentence += f"; {TARGETS[per_channel.target].title}: {at_outputs(per_channel)}"
    return sentence


def revision_headline(before: ModelFacts, after: ModelFacts, target: Target) -> str:
    """``Fine → broken with per-tensor int8: output SQNR 33.5 → 0.4 dB, estimated with noise``.

    The Revisions page's answer: the verdict on both revisions, and what happened at the outputs.
    """
    was, is_now = (STORED_SO if f.is_on_its_own_grid else f.verdict for f in (before, after))
    change = f"Still {is_now}" if was == is_now else f"{was[0].upper()}{was[1:]} → {is_now}"
    sentence = f"{change} with {target.title}"
    grounds = list(dict.fromkeys(basis(f) for f in (before, after) if not f.is_untested))
    if not grounds:
        return sentence
    clauses = [" → ".join(grounds)]
    values = {
        side: at_outputs(facts).rpartition(NO_BREAK_SPACE)
        for side, facts in (("before", before), ("after", after))
        if facts.output_sqnr_db is not None and facts.was_run
    }
    if len(values) == 2:
        # The unit stands once.
        clauses.insert(0, f"output SQNR {values['before'][0]} → {''.join(values['after'])}")
    else:
        clauses[:0] = [f"output SQNR {''.join(value)} {side}" for side, value in values.items()]
    return f"{sentence}: {', '.join(clauses)}"


def shelf_headline(
    models: int, layers: int, disk_bytes: int, *, changed: int, perhaps: int, outdated: int
) -> str:
    """The Models page's answer: ``18 models, 653 layers, 36.7 MB on disk; all in order``.

    Args:
        changed: models whose file holds something else than was measured.
        perhaps: models whose file may do so; nobody has looked.
        outdated: models that an older release measured in another way.
    """
    held = (
        f"{counted(models, 'model')}, {counted(layers, 'layer')}, {file_size(disk_bytes)} on disk"
    )
    concerns = []
    if changed:
        concerns.append(
            f"{changed:,} {'file has' if changed == 1 else 'files have'} changed since"
            f" {'it was' if changed == 1 else 'they were'} measured"
        )
    if perhaps and changed:
        concerns.append(f"{counted(perhaps, 'other')} may have")
    elif perhaps:
        concerns.append(
            f"{counted(perhaps, 'file')} may have changed since"
            f" {'it was' if perhaps == 1 else 'they were'} measured"
        )
    if outdated:
        concerns.append(
            f"{counted(outdated, 'model')} {'was' if outdated == 1 else 'were'} measured by an"
            " older release"
        )
    return f"{held}; {listed(concerns) if concerns else 'all in order'}"


def layers_in_words(facts: ModelFacts) -> str:
    """``24 of 123 layers are broken, 44 at risk``; what the strip of bands shows."""
    total = counted(facts.layer_count, "layer")
    if facts.layers_broken:
        verb = "is" if facts.layers_broken == 1 else "are"
        at_risk_clause = f", {facts.layers_at_risk:,} at risk" if facts.layers_at_risk else ""
        whose = "its" if facts.layers_broken == 1 else "their"
        return (
            f"{facts.layers_broken:,} of {total} {verb} broken by {whose} weights{at_risk_clause}"
        )
    if facts.layers_at_risk:
        verb = "is" if facts.layers_at_risk == 1 else "are"
        whose = "its" if facts.layers_at_risk == 1 else "their"
        return f"{facts.layers_at_risk:,} of {total} {verb} at risk by {whose} weights"
    sentence = f"none of {total} is broken or at risk by its weights alone"
    if facts.was_run and facts.verdict in ("broken", "at risk"):
        # What each layer loses, and what the network does, are two questions.
        losses = "their losses"
        if facts.mode != "weights":
            losses += " and those of the activations"
        sentence += f", but {losses} add up at the outputs"
    return sentence


def verdict_line(facts: ModelFacts) -> str:
    """The verdict with all that it rests on; empty where :func:`model_headline` says it all."""
    if not facts.says_more_on_one_line:
        return ""
    sentence = verdict_sentence(facts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def weights_line(row: Mapping[Any, Any], facts: ModelFacts) -> str:
    """What the weights of a model look like under a target.

    Args:
        row: of ``queries.verdicts``, which the facts are made of.
    """
    layers = layers_in_words(facts)
    return (
        f"{layers[0].upper()}{layers[1:]}. {count(row['channels_below_10db'])} of"
        f" {count(row['channel_count'])} channels are below 10 dB. Weight range of a layer: median"
        f" {weight(row['median_weight_range'])}, largest {weight(row['max_weight_range'])}."
        + ("" if row["folded"] else f" Measured with {UNFOLDED}.")
    )


def model_size(row: Mapping[Any, Any]) -> list[str]:
    """``10 layers``, ``23.9 k weights`` and, where the file holds integers, that it does.

    Args:
        row: of ``queries.verdicts``.
    """
    size = [counted(int(row["layer_count"]), "layer"), f"{weights(row['weight_count'])} weights"]
    return [*size, "stored as integers"] if row["layers_already_quantized"] else size
