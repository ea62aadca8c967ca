"""Decoders that lose in int8 what the heads of the network still had."""

import math
import shlex
from collections.abc import Iterator

from quantstore.graph.findings.base import DecoderFigures, OfRun, RunFigures, Sentences, short


def _look(figures: RunFigures) -> Iterator[Sentences]:
    if not isinstance(figures, DecoderFigures) or not figures.nodes:
        return
    scores = ""
    if not math.isnan(figures.scores_kept):
        scores = f" {figures.scores_kept:.0%} of the scores above the limit remain."
    count = len(figures.nodes)
    these = "this node" if count == 1 else f"these {count} nodes"
    excluded = " ".join(f"--exclude {shlex.quote(name)}" for name in figures.nodes)
    yield Sentences(
        "The decoder loses accuracy that the heads still have: output SQNR is"
        f" {figures.heads_db:.1f} dB at the heads, but {figures.whole_file_db:.1f} dB"
        f" if {short(figures.nodes[0])} and its neighbours are quantized, too.{scores}",
        f"Keep the decoder in float: exclude {these} ({excluded}). The output SQNR is"
        f" then {figures.kept_db:.1f} dB (measured).",
    )


DECODER = OfRun(
    name="decoder",
    severity="warning",
    meaning=(
        "The nodes after the heads, which decode boxes and join them with scores, lose"
        " more than 3 dB in int8, or decisions that the heads still make (measured by"
        " running these nodes)."
    ),
    look=_look,
)
