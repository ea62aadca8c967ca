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
        scores = f" Of the scores above the limit {figures.scores_kept:.0%} remain."
    count = len(figures.nodes)
    these = "this node" if count == 1 else f"these {count} nodes"
    excluded = " ".join(f"--exclude {shlex.quote(name)}" for name in figures.nodes)
    yield Sentences(
        f"The decoder behind the heads loses what they still have: {figures.heads_db:.1f} dB at the"
        f" heads, {figures.whole_file_db:.1f} dB where {short(figures.nodes[0])} and what belongs"
        f" to it is quantized.{scores}",
        f"Keep the decoder in float: exclude {these} ({excluded}). That leaves"
        f" {figures.kept_db:.1f} dB (measured).",
    )


DECODER = OfRun(
    name="decoder",
    severity="warning",
    meaning=(
        "The nodes behind the heads, which decode boxes and join them with scores, lose more than"
        " 3 dB in int8, or the decisions that the heads still make; measured by running them."
    ),
    look=_look,
)
