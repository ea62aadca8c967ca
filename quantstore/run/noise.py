"""Inputs without data: shapes for what a model leaves open, and seeded noise to fill them.

White noise has independent standard normal values. Image-like noise has what photographs have and
white noise lacks: an amplitude spectrum that falls as 1/f, and channels that look alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quantstore.errors import RunError
from quantstore.graph.attributes import integer
from quantstore.graph.constants import constant_tensor
from quantstore.graph.tensors import dimensions
from quantstore.records import Array, Doubles
from quantstore.run.runtime import Feeds

Spectrum = Literal["white", "image"]

# Sides of a square image, tried in this order where a model leaves them open.
IMAGE_SIDES = (320, 224, 256, 640, 416, 512, 128, 64, 32)
# Steps of a sequence, tried in this order. 576 and 16000: speech at 16 kHz, a window and a second.
SEQUENCE_LENGTHS = (64, 128, 576, 16000)
# One amplitude spectrum and one correlation for all: those of photographs, roughly.
# https://doi.org/10.1364/JOSAA.4.002379 (Field 1987) for 1/f.
CHANNEL_CORRELATION = 0.9
# Integers from 1 below this, less where an embedding has fewer rows.
INTEGER_LIMIT = 64
SAMPLE_RATE = 16000
# Images this small, and what is no image, need more samples to find ranges on: five images of 8x8
# calibrate so badly that clipping costs 10 dB.
SMALL_SIDE = 64
_STATES = ("state", "hidden", "cell", "memory", "cache", "past")
_SHORT_STATES = ("h", "c", "h0", "c0", "hn", "cn", "hx", "cx", "h_0", "c_0", "h_in", "c_in")
_RATES = ("sr", "sample_rate", "sampling_rate")
# An input that lies behind these still has the layout of what comes next.
_ELEMENTWISE = ("Cast", "Sub", "Add", "Mul", "Div", "Identity", "Pad", "Clip", "QuantizeLinear")


@dataclass(frozen=True, slots=True)
class Input:
    """An input with every dimension decided. ``limit``: integers stay below it."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    limit: int = INTEGER_LIMIT

    @property
    def is_image(self) -> bool:
        """Whether image-like noise suits it."""
        return len(self.shape) == 4 and min(_sides(self.shape)) > 1 and not self.is_state

    @property
    def is_state(self) -> bool:
        """Whether it is the state of a recurrent network, by its name."""
        name = self.name.lower().rsplit("/", 1)[-1]
        return name in _SHORT_STATES or any(word in name for word in _STATES)


def choices(model: ir.Model) -> Iterator[tuple[Input, ...]]:
    """Ways to decide the dimensions that a model leaves open, the most likely first.

    Batch 1, three channels unless the first convolution says otherwise, sides and lengths from
    short lists. Where nothing is open there is one way.

    Raises:
        RunError: an input of which nothing is known at all.
    """
    seen: set[tuple[Input, ...]] = set()
    values = [value for value in model.graph.inputs if value.const_value is None]
    for length in SEQUENCE_LENGTHS:
        for side in IMAGE_SIDES:
            inputs = tuple(_decided(value, side, length) for value in values)
            if inputs not in seen:
                seen.add(inputs)
                yield inputs


def frozen_inputs(model: ir.Model) -> dict[str, Array]:
    """Integer scalars, which rather choose a branch than carry data, and what to freeze them at."""
    return {
        str(value.name): np.array(
            SAMPLE_RATE if str(value.name).lower() in _RATES else 1, value.dtype.numpy()
        )
        for value in model.graph.inputs
        if value.const_value is None
        and value.shape is not None
        and len(value.shape) == 0
        and value.dtype in (ir.DataType.INT32, ir.DataType.INT64)
    }


def shapes_text(inputs: tuple[Input, ...]) -> str:
    """The shapes for a reader: ``input 1x3x320x320``."""
    return ", ".join(
        f"{model_input.name} {'x'.join(map(str, model_input.shape)) or 'scalar'}"
        for model_input in inputs
    )


def sample_counts(inputs: tuple[Input, ...]) -> tuple[int, int]:
    """How many samples to calibrate on, and how many to compare on."""
    largest = max(inputs, key=lambda model_input: np.prod(model_input.shape), default=None)
    if largest is None or not largest.is_image:
        return 48, 24
    height, width = _sides(largest.shape)
    return (48, 24) if height * width <= SMALL_SIDE**2 else (5, 3)


def spectrum_for(inputs: tuple[Input, ...]) -> Spectrum:
    """Image-like noise where there is an image among the inputs."""
    return "image" if any(model_input.is_image for model_input in inputs) else "white"


def samples(inputs: tuple[Input, ...], count: int, *, seed: int, spectrum: Spectrum) -> list[Feeds]:
    """The same seed gives the same samples.

    Floats have zero mean and unit variance; states of recurrent networks are zero, masks and truth
    values one, other integers small and positive. ``spectrum`` speaks of images; the rest is white.
    """
    random = np.random.default_rng(seed)
    return [
        {model_input.name: _values(model_input, random, spectrum) for model_input in inputs}
        for _ in range(count)
    ]


def image_like(random: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Spectrum with amplitude spectrum 1/f, zero mean and unit variance in every channel.

    Channels share a field, so that any two correlate by :data:`CHANNEL_CORRELATION`.

    Args:
        shape: ``(batch, channels, height, width)``.
    """
    batch, channels, height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    # No constant part: the mean is zero.
    amplitude = np.divide(1, frequency, out=np.zeros_like(frequency), where=frequency > 0)

    def field(count: int) -> Doubles:
        white = random.standard_normal((batch, count, height, width))
        colored = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(height, width))
        return _unit(colored)

    fields = field(channels)
    if channels > 1:
        shared = np.sqrt(CHANNEL_CORRELATION) * field(1)
        fields = _unit(shared + np.sqrt(1 - CHANNEL_CORRELATION) * fields)
    return fields.astype(np.float32)


def _unit(fields: Doubles) -> Doubles:
    scaled: Doubles = fields / fields.std((2, 3), keepdims=True)
    return scaled


def _values(model_input: Input, random: np.random.Generator, spectrum: Spectrum) -> Array:
    name = model_input.name.lower()
    if np.issubdtype(model_input.dtype, np.floating) or model_input.dtype.kind == "V":
        if model_input.is_state:
            return np.zeros(model_input.shape, model_input.dtype)
        return _floats(model_input, random, spectrum).astype(model_input.dtype)
    if model_input.dtype == np.bool_ or "mask" in name:
        return np.ones(model_input.shape, model_input.dtype)
    if model_input.is_state or "token_type" in name or "segment" in name:
        return np.zeros(model_input.shape, model_input.dtype)
    if name in _RATES:
        return np.full(model_input.shape, SAMPLE_RATE, model_input.dtype)
    if model_input.is_image and model_input.dtype == np.uint8:
        # Bytes of a picture: a mean grey, and two standard deviations to either end.
        return np.clip(128 + 64 * _floats(model_input, random, spectrum), 0, 255).astype(np.uint8)
    return random.integers(
        min(1, model_input.limit - 1), model_input.limit, model_input.shape
    ).astype(model_input.dtype)


def _floats(model_input: Input, random: np.random.Generator, spectrum: Spectrum) -> Doubles:
    if spectrum == "white" or not model_input.is_image:
        return random.standard_normal(model_input.shape)
    if not _has_channels_last(model_input.shape):
        return image_like(random, model_input.shape).astype(np.float64)
    batch, height, width, channels = model_input.shape
    fields = image_like(random, (batch, channels, height, width))
    return np.moveaxis(fields, 1, 3).astype(np.float64)


def _has_channels_last(shape: tuple[int, ...] | list[int | None]) -> bool:
    return shape[3] in (1, 3) and shape[1] not in (1, 3)


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:3] if _has_channels_last(shape) else shape[2:4]


def _decided(value: ir.Value, side: int, length: int) -> Input:
    """An input with what is open chosen: by the layer that reads it, else by its rank."""
    name = str(value.name)
    expected = _expected_by_reader(value)
    if value.shape is None:
        if expected is None:
            raise RunError(
                f"nothing is known of the shape of input {name!r}", "export it with a shape"
            )
        dims = expected
    else:
        dims = [size if isinstance(size, int) and size > 0 else None for size in value.shape]
        if expected is not None and len(expected) == len(dims):
            dims = [
                size or expected_size for size, expected_size in zip(dims, expected, strict=True)
            ]
    dtype = (value.dtype or ir.DataType.FLOAT).numpy()
    draft = Input(name, (), np.dtype(dtype), _limit(value))
    if len(dims) == 4:
        fill = [1, side, side, 3] if _has_channels_last(dims) else [1, 3, side, side]
    elif draft.is_state or not dims:
        fill = [1] * len(dims)
    else:
        fill = [1] + [length] * (len(dims) - 1)
    shape = tuple(size or chosen for size, chosen in zip(dims, fill, strict=True))
    return Input(name, shape, draft.dtype, draft.limit)


def _expected_by_reader(value: ir.Value) -> list[int | None] | None:
    """The dimensions that the first layer behind an input prescribes, None where it has no say."""
    for _ in range(8):
        for use in value.uses():
            prescribed = _expected_by(use.node, use.idx)
            if prescribed is not None:
                return prescribed
        following = [use.node for use in value.uses() if use.node.op_type in _ELEMENTWISE]
        if not following:
            return None
        value = following[0].outputs[0]
    return None


def _expected_by(node: ir.Node, index: int) -> list[int | None] | None:
    if index != 0 or len(node.inputs) < 2:
        return None
    tensor = constant_tensor(node.inputs[1])
    if tensor is None:
        return None
    shape = dimensions(tensor)
    if node.op_type == "Conv" and len(shape) > 2:
        return [None, shape[1] * integer(node, "group", 1), *[None] * (len(shape) - 2)]
    if node.op_type == "ConvTranspose" and len(shape) > 2:
        return [None, shape[0], *[None] * (len(shape) - 2)]
    if node.op_type == "Gemm" and len(shape) == 2:
        return [None, shape[1] if integer(node, "transB", 0) else shape[0]]
    if node.op_type == "MatMul" and len(shape) >= 2:
        return [None, shape[-2]]
    return None


def _limit(value: ir.Value) -> int:
    """Integers that look up rows of a table must stay below its length."""
    limits = [INTEGER_LIMIT]
    for use in value.uses():
        node = use.node
        if node.op_type == "Cast":
            limits.append(_limit(node.outputs[0]))
        if node.op_type == "Gather" and use.idx == 1:
            tensor = constant_tensor(node.inputs[0])
            if tensor is not None and dimensions(tensor):
                limits.append(dimensions(tensor)[integer(node, "axis", 0)])
    return min(limits)
