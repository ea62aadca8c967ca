"""Notes below tables of verdicts, as HTML: what the words in them rest on."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from quantstore.errors import printable
from quantstore.wording.units import spaced
from quantstore.wording.verdicts import PROVISIONAL, UNTESTED

BAND_NOTE = (
    "The strip shows how many layers are in each band. The band of a layer is set by the SQNR"
    " (signal-to-quantization-noise ratio) that 90 % of its output channels reach. The limits are"
    " provisional."
)
WHAT_WEIGHTS_PROVE = "Weights can prove that a model is broken, but not that it is fine."
WEIGHTS_NOTE = f"<i>Weights only</i>: the model was not run. {WHAT_WEIGHTS_PROVE}"
RUN_NOTE = (
    "<i>On your inputs</i>: the model and its int8 version were run on your own data. Activation"
    " ranges were calibrated on other samples of that data."
)

WHAT_THE_PROBE_IS = (
    "<i>Estimated with noise</i>: the model and its int8 version were run on the same noise. The"
    " verdict rests on the SQNR at the worst output, in full int8 or with int8 weights only,"
    " whichever is lower."
)
CONFIRM_IT = "Confirm close calls with your own data."
PROBE_NOTE = (
    f"{WHAT_THE_PROBE_IS} On 14 image networks, estimates for full int8 differed from runs on"
    " photographs by 0.6 dB per tensor (median; 3.3 dB at most) and by 1.2 dB per channel (4.2 dB"
    " at most); on 11 networks that the noise was not chosen on, by 2.3 dB (5.3 dB) and 3.3 dB"
    " (15.6 dB). Estimates for other kinds of inputs may be further off."
    f" {CONFIRM_IT}"
)

UNTESTED_NOTE = (
    "<i>Untested</i>: this target has not been measured, or the measurement failed or was stopped."
    " Weights alone can prove a loss, but not that there is none."
)

ALREADY_QUANTIZED_NOTE = (
    "<i>Stored as integers</i>: the weights in this file were rounded before. The values show the"
    " loss of a second rounding. The loss of the first one is unknown."
)


def evidence_notes(rows: Sequence[Mapping[Any, Any]]) -> list[str]:
    """Below a matrix: what its words rest on, as far as they occur in it, as HTML.

    Args:
        rows: of ``queries.verdicts``, those that the matrix shows.
    """
    verdicts = {str(row["verdict"]) for row in rows}
    evidence = {str(row["evidence"]) for row in rows if row["verdict"] != UNTESTED}
    of_evidence = {"run": RUN_NOTE, "probe": PROBE_NOTE, "": BAND_NOTE, "weights": WEIGHTS_NOTE}
    notes = [" ".join(note for name, note in of_evidence.items() if not name or name in evidence)]
    if UNTESTED in verdicts:
        notes.append(UNTESTED_NOTE)
    reasons = (row["provisional"] for row in rows)
    for reason in dict.fromkeys(reason for reason in reasons if isinstance(reason, str)):
        notes.append(f"<i>{PROVISIONAL.capitalize()}</i>: {html.escape(printable(reason))}")
    if any(row["layers_already_quantized"] > 0 for row in rows):
        notes.append(ALREADY_QUANTIZED_NOTE)
    return notes


def band_ranges(limits: Mapping[str, float]) -> list[tuple[str, str]]:
    """Each band with what it spans, worst first: ``at risk``, ``10 to 20 dB``.

    Args:
        limits: the lower limit of each band in dB, best band first.
    """
    lowest_first = list(limits.items())[::-1]
    upper = [lower_db for _, lower_db in lowest_first[1:]]
    spans = [
        f"below {upper[0]:g}",
        *(
            f"{lower_db:g} to {next_db:g}"
            for (_, lower_db), next_db in zip(lowest_first[1:-1], upper[1:], strict=True)
        ),
    ]
    ranges = [f"{span}{spaced('dB')}" for span in spans]
    ranges.append(f"{lowest_first[-1][1]:g}{spaced('dB')} and more")
    return [(band, text) for (band, _), text in zip(lowest_first, ranges, strict=True)]
