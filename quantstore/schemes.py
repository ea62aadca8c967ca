"""The words of quantization: schemes, which round weights, and targets, which run them.

A scheme is a grid for weights; a target is what hardware and its tools do with weights and
activations. Each is entered here once, and nowhere else.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

Format = Literal["int", "fp8_e4m3", "fp8_e5m2"]
Granularity = Literal["tensor", "channel", "block"]
Clip = Literal["minmax", "mse"]
PlacementRule = Literal["everywhere", "mac_inputs", "linear_inputs", "none"]

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
    A power of two as the scale makes a shift of what would be a multiplication.
    """

    name: str
    bits: int
    granularity: Granularity
    is_symmetric: bool
    number: Format = "int"
    clip: Clip = "minmax"
    has_power_of_two_scale: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ValueError(f"{self.name}: {self.bits} bits; a grid needs 2 to 16")
        if self.clip == "mse" and self.granularity != "tensor":
            raise ValueError(f"{self.name}: clipping is sought for a whole tensor only")
        if self.has_power_of_two_scale and not (self.number == "int" and self.is_symmetric):
            raise ValueError(f"{self.name}: only symmetric integers have such a scale")

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
        shift = ", scale a power of two" if self.has_power_of_two_scale else ""
        return f"{self.format} per {shared}, {self.symmetry}{clipped}{shift}"

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
        if self.has_power_of_two_scale:
            scale += ", rounded up to a power of two"
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
    def _grid(self) -> tuple[Format, int, bool, Clip, bool]:
        """Everything but how widely the scale is shared."""
        return self.number, self.bits, self.is_symmetric, self.clip, self.has_power_of_two_scale

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

# Four of int8: their errors are kept channel by channel, and runs combine them with activations.
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
# A target rounds to it; layers are not measured under it, so that it is none of SCHEMES.
INT8_TENSOR_POWER_OF_TWO = Scheme(
    "int8_tensor_power_of_two", 8, "tensor", is_symmetric=True, has_power_of_two_scale=True
)


# Targets


@dataclass(frozen=True, slots=True)
class Activations:
    """The grid of activations: one scale per tensor, found by calibration unless said otherwise.

    ``is_per_channel_at_depthwise``: a tensor that a depthwise convolution reads has a scale for
    each of its channels. ``is_dynamic``: the scale is taken from the very tensor, at run time.
    """

    bits: int = 8
    is_symmetric: bool = False
    has_power_of_two_scale: bool = False
    is_per_channel_at_depthwise: bool = False
    is_dynamic: bool = False

    @property
    def title(self) -> str:
        """The grid in the words of a user, for example ``uint8 asymmetric``."""
        number = f"{'int' if self.is_symmetric else 'uint'}{self.bits}"
        if self.has_power_of_two_scale:
            return f"{number}, scale a power of two"
        if self.is_dynamic:
            return f"{number}, scale taken at run time"
        title = f"{number} {'symmetric' if self.is_symmetric else 'asymmetric'}"
        if self.is_per_channel_at_depthwise:
            title += ", per channel at inputs of depthwise convolutions"
        return title


# Which activations are rounded, in words; None where they stay in float.
PLACEMENTS: dict[PlacementRule, str | None] = {
    "everywhere": "everywhere",
    "mac_inputs": "inputs of Conv, ConvTranspose, Gemm, MatMul and recurrent layers",
    "linear_inputs": "inputs of MatMul, Gemm and recurrent layers",
    "none": None,
}


@dataclass(frozen=True, slots=True)
class Target:
    """What hardware and its tools do with weights and activations.

    ``activations`` is None where they stay in float. ``is_default``: measured whenever a model is
    ingested; the others are measured on demand.
    """

    name: str
    scheme: Scheme
    activations: Activations | None
    placement: PlacementRule
    description: str
    is_default: bool = False

    def __post_init__(self) -> None:
        if (self.activations is None) != (self.placement == "none"):
            raise ValueError(f"{self.name}: activations are rounded somewhere, or stay in float")

    @property
    def mode(self) -> Literal["weights", "both"]:
        """What is rounded."""
        return "both" if self.activations else "weights"

    @property
    def is_of_its_scheme(self) -> bool:
        """Whether a run for it is what a run of its scheme and mode alone is."""
        if self.activations is None:
            return True
        return self.placement == "everywhere" and self.activations == Activations()

    @property
    def layer_scheme(self) -> Scheme:
        """The measured scheme whose figures of layers stand for those under this target."""
        if self.scheme.name in SCHEMES:
            return self.scheme
        return next(
            scheme
            for scheme in SCHEMES.values()
            if dataclasses.replace(self.scheme, name=scheme.name, has_power_of_two_scale=False)
            == scheme
        )

    @property
    def per_channel(self) -> "Target | None":
        """The target that differs in a scale for each channel of the weights; None without one."""
        return next(
            (
                target
                for target in TARGETS.values()
                if self.scheme.granularity == "tensor"
                and target.scheme.granularity == "channel"
                and (target.activations, target.placement) == (self.activations, self.placement)
            ),
            None,
        )

    @property
    def layer_families(self) -> tuple[str, ...]:
        """The families of operators whose weights are rounded; empty where all are."""
        return ("linear", "recurrent") if self.placement == "linear_inputs" else ()

    @property
    def title(self) -> str:
        """The target in the words of a user, for example ``per-channel int8``."""
        return _TITLES[self.name]

    @property
    def placement_title(self) -> str | None:
        """Which activations are rounded, in words; None where they stay in float."""
        return PLACEMENTS[self.placement]


TARGETS = {
    target.name: target
    for target in (
        Target(
            "int8_tensor",
            INT8_TENSOR_SYMMETRIC,
            Activations(),
            "everywhere",
            "Weights and activations in int8, one scale per tensor. Hardware: the oldest"
            " accelerators; also the default of onnxruntime's quantizer.",
            is_default=True,
        ),
        Target(
            "int8_channel",
            INT8_CHANNEL_SYMMETRIC,
            Activations(),
            "everywhere",
            "Weights and activations in int8, weights with one scale per output channel."
            " Hardware: CPUs with onnxruntime, TensorFlow Lite.",
            is_default=True,
        ),
        Target(
            "int8_channel_fused",
            INT8_CHANNEL_SYMMETRIC,
            Activations(),
            "mac_inputs",
            "Like int8_channel, but only the inputs of matrix units are rounded;"
            " everything between them is fused or stays in float. Hardware: TensorRT, most"
            " NPUs.",
            is_default=True,
        ),
        Target(
            "int8_channel_depthwise",
            INT8_CHANNEL_SYMMETRIC,
            Activations(is_per_channel_at_depthwise=True),
            "mac_inputs",
            "Like int8_channel_fused, and the inputs of depthwise convolutions have one"
            " scale per channel. Tools: NNCF and OpenVINO.",
        ),
        Target(
            "int8_channel_symmetric_activations",
            INT8_CHANNEL_SYMMETRIC,
            Activations(is_symmetric=True),
            "mac_inputs",
            "Like int8_channel_fused, with zero point 0 for activations, too. Hardware:"
            " units without zero points.",
        ),
        Target(
            "int8_tensor_power_of_two",
            INT8_TENSOR_POWER_OF_TWO,
            Activations(is_symmetric=True, has_power_of_two_scale=True),
            "everywhere",
            "Every scale is a power of two, so that rescaling is a shift. Hardware:"
            " microcontrollers, FPGAs.",
        ),
        Target(
            "int8_channel_int16",
            INT8_CHANNEL_SYMMETRIC,
            Activations(bits=16),
            "everywhere",
            "Weights in int8, activations in 16 bits, for networks whose activations do"
            " not fit into 8 bits.",
        ),
        Target(
            "int8_dynamic",
            INT8_TENSOR_SYMMETRIC,
            Activations(is_dynamic=True),
            "linear_inputs",
            "Dynamic quantization: weights of linear and recurrent layers in int8, inputs"
            " of these layers rounded at run time. Convolutions stay in float.",
        ),
        Target(
            "int8_weights",
            INT8_CHANNEL_SYMMETRIC,
            None,
            "none",
            "Only weights in int8, one scale per output channel. Activations stay in float.",
            is_default=True,
        ),
        Target(
            "int4_weights",
            SCHEMES["int4_block32_symmetric"],
            None,
            "none",
            "Only weights, in 4 bits, one scale per block of 32. Activations stay in float.",
        ),
    )
}
# The word for every target, where targets are named.
ALL_TARGETS = "all"
DEFAULT_TARGET = TARGETS["int8_channel"]

# Target titles stand in headings and sentences, where the name would be too dry.
_TITLES = {
    "int8_tensor": "per-tensor int8",
    "int8_channel": "per-channel int8",
    "int8_channel_fused": "per-channel int8, fused",
    "int8_channel_depthwise": "per-channel int8, fused, depthwise inputs per channel",
    "int8_channel_symmetric_activations": "per-channel int8, symmetric activations",
    "int8_tensor_power_of_two": "power-of-two int8",
    "int8_channel_int16": "per-channel int8, 16-bit activations",
    "int8_dynamic": "dynamic int8",
    "int8_weights": "int8 weights only",
    "int4_weights": "4-bit weights only",
}

# Every scheme that a run may be of: those that layers are measured under, and those of targets.
RUN_SCHEMES = SCHEMES | {target.scheme.name: target.scheme for target in TARGETS.values()}


def target_of(scheme_name: str, mode: str) -> str | None:
    """The target that a run of 0.1.0 was of, which named a scheme and a mode; None if of none."""
    return _TARGETS_OF_0_1_0.get((scheme_name, mode))


_TARGETS_OF_0_1_0 = {
    ("int8_tensor_symmetric", "both"): "int8_tensor",
    ("int8_channel_symmetric", "both"): "int8_channel",
    ("int8_channel_symmetric", "weights"): "int8_weights",
    ("int4_block32_symmetric", "weights"): "int4_weights",
}

# What an output keeps that is NaN or infinite in int8 where it is finite in float, in dB: a figure
# below any that is measured, for NULL says infinite, which is the opposite.
LOST_DB = -100.0
