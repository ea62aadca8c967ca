"""How the layers of models differ and where they lie, in sentences below a chart. Plain text."""

from collections.abc import Callable, Mapping, Sequence

from quantstore.wording.columns import Row
from quantstore.wording.text import listed, short_name
from quantstore.wording.units import bits, counted, weight

# A name in a sentence.
LONGEST_NAME = 40

DIFFERENCES, DEPTH = "How the layers differ", "Where in the network"
FROM_INPUT = "Input on the left, output on the right."
WITHOUT_GRAPH = "In the order of the file, which has no graph."
DEPTH_NOTE = (
    "Bars show the SQNR that 90 % of the layer's channels reach, measured down from 40 dB."
    " Longer bars are worse."
)


def map_heading(layers_broken: int, *, has_graph: bool = True) -> str:
    """What stands above the layers of a model from input to output."""
    if not has_graph:
        return "Every layer"
    return "Where it breaks" if layers_broken else "From input to output"


def bricks_note(layer_kind: str) -> str:
    """``One brick per convolution, coloured by band``: what a mark is."""
    return f"One brick per {layer_kind}, coloured by band"


def layers_counted(uncounted: int, without: Sequence[str], *, hint: str = "") -> str:
    """What a distribution leaves out where nobody has chosen operators; empty if nothing.

    Args:
        uncounted: layers that are no convolutions, of models that have some.
        without: models that have none.
        hint: what can be done about it, behind the first sentence.
    """
    sentences = []
    if uncounted:
        verb = "is" if uncounted == 1 else "are"
        layers = counted(uncounted, "other layer")
        sentences.append(f"Only convolutions are counted; {layers} {verb} not{hint}.")
    if without:
        names = listed([short_name(model, LONGEST_NAME) for model in without])
        verb = "has" if len(without) == 1 else "have"
        sentences.append(f"{names} {verb} no convolutions, so all layers are counted there.")
    return " ".join(sentences)


def range_story(layers: Sequence[Row | None], column: str, *, is_several: bool) -> str:
    """How far raw range can be trusted, by the layers that show it best.

    Args:
        layers: the widest, the widest that is not at risk, the narrowest that is broken.
        column: of the rows, where the range is.
        is_several: whether layers of several models are compared, which are then named.
    """
    widest, widest_unharmed, narrowest_broken = layers
    if widest is None:
        return ""
    name_of: Callable[[Row], str] = _with_model if is_several else _layer_name
    story = f"The widest layer is {name_of(widest)} with a range of {weight(widest[column])}."
    if widest_unharmed is not None and narrowest_broken is not None:
        story += (
            f" Range alone does not decide: {name_of(widest_unharmed)} spans"
            f" {weight(widest_unharmed[column])} and is not at risk, while"
            f" {name_of(narrowest_broken)} is broken with a range of"
            f" {weight(narrowest_broken[column])}."
        )
    return story


def _layer_name(layer: Row) -> str:
    return short_name(str(layer["layer"]), LONGEST_NAME)


def _with_model(layer: Row) -> str:
    return f"{short_name(str(layer['model']), LONGEST_NAME)} {_layer_name(layer)}"


def spread_story(spread_bits: Mapping[str, float], layer_kind: str) -> str:
    """Which model spreads most and which least; empty for a single one.

    Args:
        spread_bits: what a tenth of its counted layers exceed, by model, least first.
    """
    if len(spread_bits) < 2:
        return ""
    (least, least_bits), *_, (most, most_bits) = spread_bits.items()
    return (
        f"10 % of the counted {layer_kind}s have a spread of {bits(most_bits)} or more in"
        f" {short_name(most, LONGEST_NAME)}, and of {bits(least_bits)} or more in"
        f" {short_name(least, LONGEST_NAME)}."
    )
