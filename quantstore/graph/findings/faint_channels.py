"""Channels of next to no energy, which the outputs do not miss."""

from collections.abc import Iterator

from quantstore.graph.findings.base import (
    MOST_NAMED,
    FaintFigures,
    OfRun,
    RunFigures,
    Sentences,
    short,
)


def _look(figures: RunFigures) -> Iterator[Sentences]:
    if not isinstance(figures, FaintFigures) or not figures.are_dead:
        return
    count = sum(map(len, figures.channels.values()))
    layers = [short(name) for name in figures.channels]
    named = ", ".join(layers[:MOST_NAMED]) + (", …" if len(layers) > MOST_NAMED else "")
    are = "1 channel carries" if count == 1 else f"{count} channels carry"
    yield Sentences(
        f"{are} almost no energy: less than a millionth of the layer's mean ({named}). Without"
        f" them the output SQNR is {figures.output_sqnr_db:.0f} dB, so the network does not need"
        " them. They still count in the SQNR of their layers, which looks worse than it is.",
        "Prune these channels, or set their weights to exactly 0 so that they no longer count.",
    )


FAINT_CHANNELS = OfRun(
    name="faint channels",
    severity="note",
    meaning=(
        "Channels have less than a millionth of the mean energy of their layer's"
        " channels, and the output SQNR is 60 dB or more with all of them set to zero"
        " (measured by running the model without them)."
    ),
    look=_look,
)
