"""What a first-time visitor has to know, a few sentences each: shown where the word is used.

Every text is plain Markdown, and short enough to be read where it opens.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Explanation:
    """A word of the field: ``title`` names it on a button, ``text`` explains it."""

    title: str
    text: str

    def under(self, limits: Mapping[str, float]) -> str:
        """The text with the lower limits of the bands in dB, as the store has them."""
        return self.text.format(
            **{band.replace(" ", "_"): f"{lower:g}" for band, lower in limits.items()}
        )


# What the bands mean for decisions: docs/method.md, section 5.
DECISIONS_SURVIVE = (
    "About three in four decisions survive at 10 dB, nine in ten at 15, nineteen in twenty at 20."
)

EXPLANATIONS = {
    "sqnr": Explanation(
        "SQNR",
        "**Signal to quantization noise ratio**: the energy of the weights over that of the errors"
        " that rounding leaves, in decibels. Six dB more is one bit more. At 40 dB the error is a"
        " hundredth of the signal, at 20 dB a tenth; at 0 dB it is as large as the signal, and"
        " nothing is left.",
    ),
    "bands": Explanation(
        "bands",
        "A layer is judged by its **p10**, the SQNR that 90 % of its channels reach; a model by its"
        " worst output. *Fine* is {fine} dB and more, *watch* from {watch}, *at risk* from"
        f" {{at_risk}}, *broken* below. {DECISIONS_SURVIVE}",
    ),
    "per_channel": Explanation(
        "per channel",
        "**Per tensor**, all weights of a layer share one step, set by the largest of them. **Per"
        " channel**, each output channel has a step of its own: a wide channel no longer ruins the"
        " narrow ones. Most int8 runtimes can do it for weights; activations still share one step.",
    ),
    "spread": Explanation(
        "channel spread",
        "How many **bits** a typical channel loses because it shares its step with the widest one:"
        " log₂ of the largest channel range over the median. With 3 bits of spread, 5 of 8 are"
        " left. Raw weight range says little by itself: multiply all weights by 1000, and nothing"
        " is lost. Spread is what per channel takes away.",
    ),
    "probe": Explanation(
        "noise probe",
        "The model and its int8 version are **run on the same noise**, and their outputs are"
        " compared. The result is the SQNR at the outputs. This needs no data and takes seconds."
        " The weights say where and why a model suffers; the probe says whether. It is an estimate:"
        " confirm close calls with your own data.",
    ),
}
