"""What would rescue a layer: more bits, another granularity, equalization."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from quantstore.schemes import BLOCK_SIZE
from quantstore.wording.text import listed
from quantstore.wording.units import db, spaced

# What fine means for the bits needed, in dB, as the store explains them.
FINE_DB = 30.0

# The most bits that the search for the bits needed tries.
MOST_BITS = 16

WHAT_FINE_IS = (
    f"Fine means that 90 % of channels reach {FINE_DB:.0f}{spaced('dB')} with symmetric integers."
)
EVERY_LAYER_IS_FINE = "For every layer to be fine"


def fine_from(bits_needed: Mapping[str, int | None], *, of_model: bool = False) -> str:
    """``To be fine, the layer needs 7 bits per channel or 6 in blocks of 32.``, and what fine is.

    Args:
        bits_needed: by granularity, None where the most bits are not enough; not empty.
        of_model: whether the bits are those that every layer of a model is fine with.
    """
    shares = {
        "tensor": "per tensor",
        "channel": "per channel",
        "block": f"in blocks of {BLOCK_SIZE}",
    }
    enough = [
        (number, shares[granularity])
        for granularity in shares
        if (number := bits_needed.get(granularity)) is not None
    ]
    never = [
        label
        for granularity, label in shares.items()
        if granularity in bits_needed and bits_needed[granularity] is None
    ]
    most = f"{MOST_BITS}{spaced('bits')}"
    if not enough:
        subject = "Not every layer is fine" if of_model else "Not fine"
        neither = listed(never).replace(" and ", " or ")
        return f"{subject} even with {most} {neither}. {WHAT_FINE_IS}"
    needed = listed([f"{number}{spaced('bits')} {label}" for number, label in enough])
    needed = needed.replace(" and ", " or ")
    subject = f"{EVERY_LAYER_IS_FINE}, you need" if of_model else "To be fine, the layer needs"
    sentence = f"{subject} {needed}."
    if never:
        where = listed(never)
        sentence += f" {where[0].upper()}{where[1:]}, even {most} are not enough."
    return f"{sentence} {WHAT_FINE_IS}"


# The columns of ``queries.layer_rescues`` and their names, in the order of what they cost.
REMEDIES = {
    "per_channel_p10_db": "per channel",
    "clipped_p10_db": "clipped",
    "equalized_p10_db": "equalized",
}
# A smaller gain may be the chance of rounding.
TELLING_GAIN_DB = 1.0


def best_remedy(now_db: float | None, remedies: Mapping[str, float | None]) -> str:
    """``best: per channel, +42.8 dB``; of remedies that hardly differ, the one named first.

    Args:
        now_db: what 90 % of channels reach, None or infinite where they come back exactly.
        remedies: what they would reach with each, None where nobody knows.
    """
    if now_db is None or not math.isfinite(now_db):
        return "nothing to gain"
    reachable_db = {name: value for name, value in remedies.items() if value is not None}
    most = max(reachable_db.values(), default=now_db)
    if most - now_db < TELLING_GAIN_DB:
        return "none of these helps" if reachable_db else ""
    name = next(name for name, value in reachable_db.items() if value >= most - TELLING_GAIN_DB)
    gain = reachable_db[name] - now_db
    return f"best: {name}, {db(gain, signed=True)}"


def what_helps(band: str, now_db: float | None, remedies: Mapping[str, float | None]) -> str:
    """What would help a layer most, where it needs help; see :func:`best_remedy`."""
    return "fine as it is" if band == "fine" else best_remedy(now_db, remedies)


FORECAST = "This is a forecast from the weights alone; each pair is considered separately."


def equalization_hope(band: str, layers: int, with_pair: int, lifted: int) -> str:
    """What equalization could give a model: how many of its broken layers have a pair, and leave.

    Args:
        band: of the layers in question, broken or at risk.
        layers: how many there are, at least one.
        with_pair: how many of them have a neighbour to share scale with.
        lifted: how many of these would be in a better band, each pair taken by itself.
    """
    # ``broken`` stands before its noun, ``at risk`` behind.
    layers_of_it = f"{band} layers" if band == "broken" else f"layers {band}"
    if layers == 1:
        whom = f"the {layers_of_it.replace('layers', 'layer')} has"
    elif with_pair in (0, layers):
        whom = f"{'all' if with_pair else 'the'} {layers:,} {layers_of_it} have"
    else:
        whom = (
            f"{with_pair:,} of the {layers:,} {layers_of_it} {'has' if with_pair == 1 else 'have'}"
        )
    if not with_pair:
        nobody_has = f"{whom} no" if layers == 1 else f"none of the {layers:,} {layers_of_it} has a"
        return (
            f"Cross-layer equalization cannot help: {nobody_has} neighbour to rescale with. SiLU,"
            " HardSwish, Sigmoid, ReLU6 and branches block it."
        )
    if with_pair == 1:
        outcome = f"it would {'no longer be' if lifted else 'still be'} {band}"
    elif lifted in (0, with_pair):
        outcome = f"{'none' if lifted else 'all'} of them would still be {band}"
    else:
        outcome = f"{lifted:,} of them would no longer be {band}"
    return (
        f"Cross-layer equalization: {whom} a neighbour to rescale with, and {outcome}. {FORECAST}"
    )


def model_remedies(
    hopes: Sequence[Mapping[Any, Any]], bits_needed: Mapping[str, int | None]
) -> str:
    """What could be done about the worst layers: neighbours to rescale with, and bits.

    Args:
        hopes: as ``queries.model_equalization`` gives them; empty under other schemes than theirs.
        bits_needed: as :func:`fine_from` takes them, or empty.
    """
    by_band = {row["band"]: row for row in hopes}
    sentences = [
        equalization_hope(
            band,
            layers=int(by_band[band]["layers"]),
            with_pair=int(by_band[band]["layers_with_pair"]),
            lifted=int(by_band[band]["layers_lifted"]),
        )
        for band in ("broken", "at risk")
        if band in by_band
    ][:1]
    if bits_needed:
        sentences.append(fine_from(bits_needed, of_model=True))
    return " ".join(sentences)
