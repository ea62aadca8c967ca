"""Sums of products that do not fit into 16 bits, on x86 processors without VNNI."""

from collections.abc import Iterator

from quantstore.graph.findings.base import KernelFigures, OfRun, RunFigures, Sentences, short

_CURE = (
    "Store the weights as uint8 with zero point 128: the values stay the same and"
    " nothing is lost{proof}. reduce_range=True also helps, but costs about 4 dB."
)


def _look(figures: RunFigures) -> Iterator[Sentences]:
    if not isinstance(figures, KernelFigures):
        return
    if figures.saturates:
        yield Sentences(
            f"Output SQNR is {figures.float_arithmetic_db:.1f} dB in float arithmetic, but"
            f" {figures.integer_kernels_db:.1f} dB with the integer kernels of this processor. They"
            " add products of uint8 activations and int8 weights in 16 bits, which saturates.",
            _CURE.format(proof=f" ({figures.unsigned_weights_db:.1f} dB on this processor)"),
        )
    elif figures.may_saturate_elsewhere:
        layer = short(str(figures.saturating_layer))
        yield Sentences(
            "Integer kernels of x86 processors without VNNI will probably saturate. In layer"
            f" {layer} {figures.saturating_share:.2%} of the 16-bit sums overflow, which alone"
            f" reduces its SQNR to {figures.saturating_sqnr_db:.1f} dB (estimated). Output SQNR in"
            f" float arithmetic is {figures.float_arithmetic_db:.1f} dB.",
            _CURE.format(proof=""),
        )


# A warning, not a problem: the figures hold, and whether a file passes a check must not depend on
# the computer that checks it.
SATURATES = OfRun(
    name="saturates",
    severity="warning",
    meaning=(
        "Sums of products of uint8 activations and int8 weights overflow 16 bits in"
        " the integer kernels of x86 processors without VNNI (measured on this"
        " processor, or estimated for others)."
    ),
    look=_look,
)
