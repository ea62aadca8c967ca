"""The words of quantization: what a scheme is, and the ones quantstore measures."""

from dataclasses import dataclass
from typing import Literal

from quantstore.errors import UnknownSchemeError

Granularity = Literal["tensor", "channel"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """A uniform integer grid, and how widely one scale is shared.

    A symmetric grid has zero point 0 and the codes ``-(2^(bits-1) - 1) .. 2^(bits-1) - 1``: the
    lowest code of two's complement is left out, so that zero lies in the middle. An asymmetric
    grid has the codes ``0 .. 2^bits - 1`` and a zero point among them.

    ``granularity`` says who shares one scale: the whole ``tensor`` or one output ``channel``.
    """

    name: str
    bits: int
    granularity: Granularity
    is_symmetric: bool

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ValueError(f"{self.name}: {self.bits} bits; a grid needs 2 to 16")

    @property
    def qmin(self) -> int:
        """The lowest code."""
        # TensorFlow Lite prescribes -127..127 for weights and onnxruntime's quantizer uses it too.
        # https://www.tensorflow.org/lite/performance/quantization_spec
        return -self.qmax if self.is_symmetric else 0

    @property
    def qmax(self) -> int:
        """The highest code."""
        return (1 << (self.bits - 1)) - 1 if self.is_symmetric else (1 << self.bits) - 1

    @property
    def per_channel(self) -> bool:
        return self.granularity == "channel"

    @property
    def format(self) -> str:
        """The stored number format, ``int8`` for an 8-bit integer grid."""
        return f"int{self.bits}"

    @property
    def clip(self) -> str:
        """How the range is found; ``minmax`` lets the extreme weights set it."""
        return "minmax"

    @property
    def title(self) -> str:
        """The scheme in the words of a user, for example ``int8 per tensor, symmetric``."""
        return f"{self.format} per {self.granularity}, {self.symmetry}"

    @property
    def symmetry(self) -> str:
        return "symmetric" if self.is_symmetric else "asymmetric"

    @property
    def description(self) -> str:
        """One sentence: codes, and what the scale is made of."""
        shared = "each output channel" if self.per_channel else "the whole tensor"
        scale = f"max abs / {self.qmax}" if self.is_symmetric else f"(max - min) / {self.qmax}"
        return f"Codes {self.qmin}..{self.qmax}, one scale for {shared}: {scale}."


INT8_TENSOR_SYMMETRIC = Scheme("int8_tensor_symmetric", 8, "tensor", is_symmetric=True)
INT8_TENSOR_ASYMMETRIC = Scheme("int8_tensor_asymmetric", 8, "tensor", is_symmetric=False)
INT8_CHANNEL_SYMMETRIC = Scheme("int8_channel_symmetric", 8, "channel", is_symmetric=True)
INT8_CHANNEL_ASYMMETRIC = Scheme("int8_channel_asymmetric", 8, "channel", is_symmetric=False)

SCHEMES = {
    scheme.name: scheme
    for scheme in (
        INT8_TENSOR_SYMMETRIC,
        INT8_TENSOR_ASYMMETRIC,
        INT8_CHANNEL_SYMMETRIC,
        INT8_CHANNEL_ASYMMETRIC,
    )
}
DEFAULT_SCHEME = INT8_TENSOR_SYMMETRIC


def find_scheme(name: str) -> Scheme:
    """The scheme of this name.

    Raises:
        UnknownSchemeError: naming the schemes there are.
    """
    try:
        return SCHEMES[name]
    except KeyError:
        raise UnknownSchemeError(
            f"there is no scheme {name!r}", f"choose one of: {', '.join(SCHEMES)}"
        ) from None
