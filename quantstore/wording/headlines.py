"""The sentence at the top of a page, from verdicts and counts."""

from collections.abc import Sequence

from quantstore.schemes import Scheme
from quantstore.wording.text import listed
from quantstore.wording.units import counted, file_size
from quantstore.wording.verdicts import (
    FULL_INT8_NOT_MEASURED,
    ModelFacts,
    at_outputs,
    with_less_than_full_int8,
)


def models_headline(
    models: Sequence[ModelFacts], per_channel: Sequence[ModelFacts], scheme: Scheme
) -> str:
    """The answer of the Compare page: ``3 of 10 models break under ...; none does per channel``.

    Args:
        models: one per model, under the scheme.
        per_channel: the same models under the per-channel scheme of the same symmetry.
    """
    total = len(models)
    verdicts = [model.verdict for model in models]
    breaking, at_risk = verdicts.count("breaks"), verdicts.count("at risk")
    untested = sum(model.is_untested for model in models)
    subject = "The model" if total == 1 else f"{breaking or at_risk:,} of {total:,} models"
    if breaking:
        verb = "breaks" if breaking == 1 else "break"
        sentence = f"{subject} {verb} under {scheme.title}"
    elif at_risk:
        is_one = at_risk == 1
        verb = "has layers" if is_one else "have layers"
        if any(model.is_probed for model in models if model.verdict == "at risk"):
            verb = "is" if is_one else "are"
        sentence = f"{subject} {verb} at risk under {scheme.title}"
    else:
        return _none_breaks(models, scheme)
    if untested:
        sentence += f", {untested:,} {_are(untested)} untested"
    if scheme.is_per_channel or not breaking:
        return sentence
    still_breaking = sum(model.verdict == "breaks" for model in per_channel)
    untested_per_channel = sum(model.is_untested for model in per_channel)
    if untested_per_channel and not still_breaking:
        per_channel_clause = (
            "per channel it is untested"
            if total == 1
            else f"per channel, {untested_per_channel:,} {_are(untested_per_channel)} untested"
        )
    elif still_breaking == 0:
        per_channel_clause = "per channel it does not" if total == 1 else "none does per channel"
    elif total == 1:
        per_channel_clause = "per channel it still does"
    else:
        per_channel_clause = (
            f"{still_breaking:,} still {'does' if still_breaking == 1 else 'do'} per channel"
        )
    return f"{sentence}; {per_channel_clause}"


def _none_breaks(models: Sequence[ModelFacts], scheme: Scheme) -> str:
    total = len(models)
    untested = sum(model.is_untested for model in models)
    judged = [model for model in models if not (model.is_untested or model.is_on_its_own_grid)]
    stored = total - len(judged) - untested
    if untested and not judged:
        whom = _models(untested, total)
        sentence = f"{_capital(whom)} {_are(untested)} untested under {scheme.title}"
        return sentence + _and_stored(stored)
    if not judged:
        return (
            f"{_capital(_models(total, total))} {_are(total)} stored on the grid of {scheme.title}"
            " already; what that cost is unknown"
        )
    modes = {model.mode if model.is_probed else None for model in judged}
    # Without a probe, layers to watch change nothing.
    watch = sum(model.verdict == "watch" and model.is_probed for model in judged)
    surviving = len(judged) - watch
    whom = _models(surviving or watch, total)
    if modes == {None}:
        sentence = f"No blocker found in the weights of {whom} under {scheme.title}"
    elif None in modes:
        tested = total - untested
        none = "Neither model" if tested == total == 2 else f"None of {tested:,} models"
        sentence = f"{none} breaks under {scheme.title}; not all could be probed"
    elif not surviving:
        sentence = f"The loss of {whom} is visible under {scheme.title} in the noise probe"
    elif modes == {"both"}:
        verb = "survives" if surviving == 1 else "survive"
        sentence = f"{_capital(whom)} {verb} {scheme.title} in the noise probe"
    else:
        sentence = f"The weights of {whom} survive {scheme.title} in the noise probe"
    if None not in modes and modes != {"both"}:
        sentence += f"; activations were not {'always ' if 'both' in modes else ''}measured"
    if watch and (surviving or None in modes):
        sentence += f"; {watch:,} to watch"
    if untested:
        sentence += f"; {untested:,} {_are(untested)} untested"
    return sentence + _and_stored(stored)


def _and_stored(stored: int) -> str:
    return f"; {stored:,} {_are(stored)} stored on this grid already" if stored else ""


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _models(named_count: int, total: int) -> str:
    """``the model``, ``both models``, ``all 4 models``, ``3 of 4 models``."""
    if named_count < total:
        return f"{named_count:,} of {total:,} models"
    return {1: "the model", 2: "both models"}.get(total, f"all {total:,} models")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def model_headline(facts: ModelFacts, per_channel: ModelFacts, scheme: Scheme) -> str:
    """The Model page's answer, from the probe where there is one.

    ``In the noise probe it breaks under ...: 7 dB at the outputs, 19 dB per channel``, else
    ``24 of 123 layers break under ...; per channel, none does``.
    """
    if facts.is_untested:
        sentence = f"Untested under {scheme.title}: {FULL_INT8_NOT_MEASURED}"
        if facts.is_probed:
            sentence += f"; {with_less_than_full_int8(facts)} at the outputs"
        return sentence
    if facts.is_on_its_own_grid:
        return f"Stored on the grid of {scheme.title} already; what that cost is unknown"
    if not facts.is_probed:
        return _headline_from_weights(facts, per_channel.layers_broken, scheme)
    outcome = {
        "breaks": "it breaks under",
        "at risk": "it is at risk under",
        "watch": "its loss is visible under",
        "fine": {
            "weights": "its weights survive",
            "activations": "its activations survive",
        }.get(facts.mode or "", "it survives"),
    }[facts.verdict]
    sentence = f"In the noise probe {outcome} {scheme.title}: {at_outputs(facts)} at the outputs"
    if not scheme.is_per_channel and per_channel.is_probed and per_channel.mode == facts.mode:
        sentence += f", {at_outputs(per_channel)} per channel"
    if facts.mode == "weights":
        return f"{sentence}; activations not measured"
    return sentence


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
    sentence = f"none of {total} is broken or at risk by its weights"
    if facts.is_probed and facts.verdict in ("breaks", "at risk"):
        # What each layer loses, and what the network does, are two questions.
        losses = "their losses" if facts.mode == "weights" else "their losses and the activations'"
        sentence += f", but at the outputs {losses} add up"
    return sentence


def _headline_from_weights(facts: ModelFacts, broken_per_channel: int, scheme: Scheme) -> str:
    total = counted(facts.layer_count, "layer")
    if facts.layers_broken:
        verb = "breaks" if facts.layers_broken == 1 else "break"
        sentence = f"{facts.layers_broken} of {total} {verb} under {scheme.title}"
        if scheme.is_per_channel:
            return sentence
        per_channel_clause = (
            "none does" if broken_per_channel == 0 else f"{broken_per_channel} still do"
        )
        return f"{sentence}; per channel, {per_channel_clause}"
    if facts.layers_at_risk:
        verb = "is" if facts.layers_at_risk == 1 else "are"
        return f"{facts.layers_at_risk} of {total} {verb} at risk under {scheme.title}"
    return f"No blocker found in the weights under {scheme.title}"
