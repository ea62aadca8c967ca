"""What a picture of a network says: its boxes, its edges, and what is missing for it."""

import math
from collections.abc import Collection, Mapping

from quantstore.wording.units import counted, db

# What a picture can be coloured by, by the name that queries have for it.
COLOURED_BY = {"weights": "Band", "sensitivity": "Sensitivity", "drift": "Drift"}
MEANINGS = {
    "weights": "Colour: the SQNR that 90 % of the layer's channels reach (weights only).",
    "sensitivity": "Colour: the output SQNR with only this node quantized.",
    "drift": "Colour: the accumulated SQNR of the node's output in the latest run, including the"
    " errors of all nodes before it.",
}
HOW_TO_READ = (
    "Input at the top, output at the bottom. A sheet behind a box is a block: click to open it. A"
    " block has the band of its worst layer. Click a layer to open its page; point at a line to"
    " see the operators in between."
)
TOO_LARGE = "This network has too many connections to draw. Choose the view Layers instead."

_SIGNS = {"Add": "+", "Sum": "+", "Mul": "×", "Sub": "−", "Div": "÷", "Concat": "C", "MatMul": "·"}
_SIGNS |= {"QLinearAdd": "+", "QLinearMul": "×", "QLinearConcat": "C"}


def ingest_again(command: str) -> str:
    """That an earlier release stored the model, as Markdown."""
    return (
        "An earlier release stored this model, without the connections between its layers. Ingest"
        f" it again to see the network: `{command}`"
    )


def not_measured(measured_by: str, target_title: str) -> str:
    """That nothing of the kind was measured, and where it is."""
    if measured_by == "sensitivity":
        return (
            f"No sensitivity was measured for {target_title}. Measure it on the Drift page, with"
            " “Also measure sensitivity”."
        )
    return f"No run for {target_title} has tensor values. Start one on the Drift page."


def sign(op_type: str | None) -> str:
    """What stands in the circle of a join."""
    return _SIGNS.get(op_type or "", "•")


def passed(operators: Collection[str]) -> str:
    """``Relu, MaxPool``: what lies between two boxes; empty where nothing does."""
    return ", ".join(operators)


def in_block(layer_count: int, value: float | None) -> str:
    """``12 layers, worst 3.2 dB``."""
    layers = counted(layer_count, "layer")
    return layers if value is None else f"{layers}, worst {in_db(value)}"


def in_db(value: float) -> str:
    """A SQNR; infinite is exact."""
    return db(None if math.isinf(value) else value)


def summary(layers: int, blocks: int, counts: Mapping[str, int]) -> str:
    """The picture in a sentence, for people who cannot see it."""
    by_band = ", ".join(f"{number} {band}" for band, number in counts.items() if number)
    return (
        f"Network of {counted(layers, 'layer')} in {counted(blocks, 'block')}"
        f"{f': {by_band}' if by_band else ''}. The view Layers lists them all."
    )
