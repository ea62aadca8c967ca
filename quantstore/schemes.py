"""The words of quantization: what a scheme is, and the ones quantstore measures."""

from dataclasses import dataclass
from typing import Literal

Format = Literal["int", "fp8_e4m3", "fp8_e5m2"]
Granularity = Literal["tensor", "channel", "block"]
Clip = Literal["minmax", "mse"]

# Consecutive weights of one output channel that share a scale; the last block may be shorter.
BLOCK_SIZE = 32

# Largest finite value, bits of mantissa, exponent of the smallest normal number.
# OCP 8-bit Floating Point Specification, 2023; ONNX FLOAT8E4M3FN and FLOAT8E5M2.
FLOAT_FORMATS = {"fp8_e4m3": (448, 3, -6), "fp8_e5m2": (57344, 2, -14)}


@dataclass(frozen=True, slots=True)
class Scheme:
    """A grid of numbers, and how widely one scale is shared.

    A symmetric integer grid has zero point 0 and the codes ``-(2^(bits-1) - 1) .. 2^(bits-1) - 1``:
    the lowest code of two's complement is left out, so that zero lies in the middle. An asymmetric
    one has the codes ``0 .. 2^bits - 1`` and a zero point among them. An 8-bit float grid is
    symmetric by nature; its scale maps the largest weight to its largest finite value.

    ``granularity`` says who shares one scale: the whole ``tensor``, one output ``channel``, or a
    ``block`` of 32 consecutive weights of a channel. ``clip`` says how the range is found:
    ``minmax`` lets the extreme weights set it, ``mse`` cuts it where the squared error is least.
    """

    name: str
    bits: int
    granularity: Granularity
    is_symmetric: bool
    number: Format = "int"
    clip: Clip = "minmax"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ValueError(f"{self.name}: {self.bits} bits; a grid needs 2 to 16")
        if self.clip == "mse" and self.granularity != "tensor":
            raise ValueError(f"{self.name}: clipping is sought for a whole tensor only")

    @property
    def qmin(self) -> int:
        """The lowest code."""
        # TensorFlow Lite prescribes -127..127 for weights and onnxruntime's quantizer uses it too.
        # https://www.tensorflow.org/lite/performance/quantization_spec
        return -self.qmax if self.is_symmetric else 0

    @property
    def qmax(self) -> int:
        """The highest code; for a float format its largest finite value."""
        if self.number != "int":
            return FLOAT_FORMATS[self.number][0]
        return (1 << (self.bits - 1)) - 1 if self.is_symmetric else (1 << self.bits) - 1

    @property
    def is_per_tensor(self) -> bool:
        return self.granularity == "tensor"

    @property
    def is_per_channel(self) -> bool:
        return self.granularity == "channel"

    @property
    def per_tensor(self) -> "Scheme":
        """Itself, or the measured scheme that differs in its one scale for the whole tensor alone.

        Raises:
            LookupError: none is measured.
        """
        return self._kin("tensor")

    @property
    def per_channel(self) -> "Scheme":
        """Itself, or the measured scheme that differs in its scale for each channel alone.

        Raises:
            LookupError: none is measured; clipping, for example, is sought for a whole tensor only.
        """
        return self._kin("channel")

    @property
    def format(self) -> str:
        """The stored number format, ``int8`` for an 8-bit integer grid, ``fp8_e4m3``."""
        return f"int{self.bits}" if self.number == "int" else self.number

    @property
    def title(self) -> str:
        """The scheme in the words of a user, for example ``int8 per tensor, symmetric``."""
        shared = f"block of {BLOCK_SIZE}" if self.granularity == "block" else self.granularity
        if self.number != "int":
            return (
                f"{self.number.replace('_', ' ').replace('fp8 e', 'fp8 E')} per {shared}".replace(
                    "m", "M"
                )
            )
        clipped = ", clipped (MSE)" if self.clip == "mse" else ""
        return f"{self.format} per {shared}, {self.symmetry}{clipped}"

    @property
    def symmetry(self) -> str:
        return "symmetric" if self.is_symmetric else "asymmetric"

    @property
    def description(self) -> str:
        """One sentence: codes, and what the scale is made of."""
        shared = {
            "tensor": "the whole tensor",
            "channel": "each output channel",
            "block": f"each {BLOCK_SIZE} consecutive weights of an output channel",
        }[self.granularity]
        scale = f"max abs / {self.qmax}" if self.is_symmetric else f"(max - min) / {self.qmax}"
        cut = (
            "; the range is clipped where the squared error is least" if self.clip == "mse" else ""
        )
        codes = (
            f"Codes {self.qmin}..{self.qmax}"
            if self.number == "int"
            else f"Values of {self.number}"
        )
        return f"{codes}, one scale for {shared}: {scale}{cut}."

    @property
    def _grid(self) -> tuple[Format, int, bool, Clip]:
        """Everything but how widely the scale is shared."""
        return self.number, self.bits, self.is_symmetric, self.clip

    def _kin(self, granularity: Granularity) -> "Scheme":
        if self.granularity == granularity:
            return self
        for scheme in SCHEMES.values():
            if scheme.granularity == granularity and scheme._grid == self._grid:
                return scheme
        raise LookupError(f"{self.name}: no scheme like it is measured per {granularity}")


def _integer(
    bits: int, granularity: Granularity, *, is_symmetric: bool, clip: Clip = "minmax"
) -> Scheme:
    shared = f"block{BLOCK_SIZE}" if granularity == "block" else granularity
    symmetry = "symmetric" if is_symmetric else "asymmetric"
    suffix = "_mse" if clip == "mse" else ""
    name = f"int{bits}_{shared}_{symmetry}{suffix}"
    return Scheme(name, bits, granularity, is_symmetric, clip=clip)


def _float8(number: Format, granularity: Granularity) -> Scheme:
    return Scheme(f"{number}_{granularity}", 8, granularity, is_symmetric=True, number=number)


INT8_TENSOR_SYMMETRIC = _integer(8, "tensor", is_symmetric=True)
INT8_TENSOR_ASYMMETRIC = _integer(8, "tensor", is_symmetric=False)
INT8_CHANNEL_SYMMETRIC = _integer(8, "channel", is_symmetric=True)
INT8_CHANNEL_ASYMMETRIC = _integer(8, "channel", is_symmetric=False)

# The four that int8 hardware offers: what verdicts are about, and what is kept channel by channel.
INT8_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        INT8_TENSOR_SYMMETRIC,
        INT8_TENSOR_ASYMMETRIC,
        INT8_CHANNEL_SYMMETRIC,
        INT8_CHANNEL_ASYMMETRIC,
    )
}

SCHEMES = INT8_SCHEMES | {
    scheme.name: scheme
    for scheme in (
        _integer(8, "block", is_symmetric=True),
        _integer(8, "block", is_symmetric=False),
        _integer(8, "tensor", is_symmetric=True, clip="mse"),
        _integer(8, "tensor", is_symmetric=False, clip="mse"),
        _float8("fp8_e4m3", "tensor"),
        _float8("fp8_e4m3", "channel"),
        _float8("fp8_e5m2", "tensor"),
        _float8("fp8_e5m2", "channel"),
        _integer(4, "tensor", is_symmetric=True),
        _integer(4, "tensor", is_symmetric=False),
        _integer(4, "tensor", is_symmetric=True, clip="mse"),
        _integer(4, "tensor", is_symmetric=False, clip="mse"),
        _integer(4, "channel", is_symmetric=True),
        _integer(4, "channel", is_symmetric=False),
        _integer(4, "block", is_symmetric=True),
        _integer(4, "block", is_symmetric=False),
        _integer(2, "block", is_symmetric=True),
        _integer(2, "block", is_symmetric=False),
    )
}
DEFAULT_SCHEME = INT8_TENSOR_SYMMETRIC
