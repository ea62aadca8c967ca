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
DECISIONS_SURVIVE = "About 75 % of decisions survive at 10 dB, 90 % at 15 dB, 95 % at 20 dB."

EXPLANATIONS = {
    "sqnr": Explanation(
        "SQNR",
        "**Signal-to-quantization-noise ratio**: the energy of the weights divided by the energy of"
        " their rounding errors, in decibels. Six dB correspond to one bit. At 40 dB the error is a"
        " hundredth of the signal, at 20 dB a tenth. At 0 dB the error is as large as the signal:"
        " nothing is left.",
    ),
    "bands": Explanation(
        "bands",
        "A layer is judged by its **p10**, the SQNR that 90 % of its channels reach; a model by its"
        " worst output. *Fine* is {fine} dB or more, *watch* {watch} dB or more, *at risk*"
        f" {{at_risk}} dB or more, *broken* less. {DECISIONS_SURVIVE}",
    ),
    "per_channel": Explanation(
        "per channel",
        "**Per tensor**, all weights of a layer share one step, set by the largest weight. **Per"
        " channel**, each output channel has its own step, so a wide channel does not ruin the"
        " narrow ones. Most int8 runtimes support this for weights. Activations still share one"
        " step.",
    ),
    "spread": Explanation(
        "channel spread",
        "How many **bits** a typical channel loses because it shares its step with the widest one:"
        " log₂ of the largest channel range over the median. With 3 bits of spread, 5 of 8 bits are"
        " left. Weight range alone says little: multiply all weights by 1000, and nothing is lost."
        " A scale per channel undoes the loss from spread.",
    ),
    "probe": Explanation(
        "noise probe",
        "The model and its int8 version are **run on the same noise**, and their outputs are"
        " compared. The result is the SQNR at the outputs. This needs no data and takes seconds."
        " The weights tell where and why a model loses accuracy; the probe tells whether it does."
        " The result is an estimate: confirm close calls with your own data.",
    ),
}
