"""Inputs without data: shapes for what a model leaves open, and what is likely to fill them.

What an input holds is decided once from its name, its shape and the nodes that read it. Images,
sounds and bytes are imitated (``pictures``, ``waveforms``, ``tokens``); :func:`provisional` says
where nothing can be.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from quantstore.errors import RunError
from quantstore.numerics.median import median
from quantstore.records import Array, Floats
from quantstore.run import dimensions, pictures, readers, tokens, waveforms
from quantstore.run.runtime import Feeds

# ``constant``: the same for every model, a mask of ones. ``length``: how much of another input
# holds data. ``number``: nothing is known of it.
InputContent = Literal["image", "sound", "bytes", "tokens", "constant", "length", "state", "number"]

# Sides of a square image, tried in this order where a model leaves them open.
IMAGE_SIDES = (320, 224, 256, 640, 416, 512, 128, 64, 32)
# Steps of a sequence, tried in this order. 576 and 16000: speech at 16 kHz, a window and a second.
SEQUENCE_LENGTHS = (64, 128, 576, 16000)
# Integers from 1 below this, less where an embedding has fewer rows.
INTEGER_LIMIT = 64
# A table of so many rows has one for each byte, and perhaps some for marks; or one for each letter.
BYTE_ROWS = (128, *range(256, 261))
# A sound is a single row of at least so many values, or two for stereo.
SHORTEST_SOUND, MOST_SOUND_ROWS = 256, 2
# More planes than these are no picture: features of another network, or several pictures.
MOST_CHANNELS = 4
# Numbers of which nothing is known do not matter beside a picture while they are so few: a size, a
# threshold.
FEW_NUMBERS = 16
# Share of the whole range: a deviation outside was not found on pixels.
PLAUSIBLE_DEVIATION = (0.1, 0.35)
# |bias| / norm of the filter, median over the channels of the first layer: above, it was trained
# for values as large as those of pixels.
PIXEL_BIAS_RATIO = 8.0
# Elements that are compared at an output, in all samples together: the error of a figure from so
# many independent values is about 0.4 dB.
COMPARED_ELEMENTS = 256
# Fewer images differ by 1 to 2 dB from seed to seed; more cost as much as the rest of the probe.
FEWEST_IMAGES, FEWEST_OTHERS, MOST_SAMPLES = 4, 24, 48
# Of large images: with 48, a classifier of two classes would take minutes.
MOST_IMAGES = 16
# Ranges are extremes, which few samples miss: with half as many, figures move by up to 3 dB.
CALIBRATION_RATIO = 3
# Smaller images do not show the range of every tensor in a few samples: five of 8x8 calibrate so
# badly that clipping costs 10 dB.
SMALL_SIDE = 64

CANNOT_BE_IMITATED = "noise cannot imitate the inputs of this network; run it on your own inputs"

_STATES = ("state", "hidden", "cell", "memory", "cache", "past")
_SHORT_STATES = ("h", "c", "h0", "c0", "hn", "cn", "hx", "cx", "h_0", "c_0", "h_in", "c_in")
_RATES = ("sr", "sample_rate", "sampling_rate")
_SOUNDS = ("waveform", "wav", "audio", "speech", "pcm", "signal")
_FEATURES = ("mel", "mfcc", "fbank", "spec", "feat", "embed", "latent")


@dataclass(frozen=True, slots=True)
class Scale:
    """What unit noise is multiplied by and shifted to, one number or one per channel; then clipped.

    In the units of the input.
    """

    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)
    lowest: float = -math.inf
    highest: float = math.inf

    def applied(self, unit: Floats) -> Floats:
        """To ``(channels, height, width)``."""
        if self == UNIT:
            return unit
        mean, deviation = (
            np.array(numbers, np.float32).reshape(-1, 1, 1)
            for numbers in (self.mean, self.deviation)
        )
        scaled: Floats = np.clip(
            mean + deviation * unit, np.float32(self.lowest), np.float32(self.highest)
        )
        return scaled

    @classmethod
    def up_to(cls, white: float) -> "Scale":
        """Of pixels from 0 to ``white``."""
        return cls(
            (pictures.TYPICAL_MEAN * white,), (pictures.TYPICAL_DEVIATION * white,), 0.0, white
        )


UNIT = Scale()
PIXELS = Scale.up_to(255.0)


@dataclass(frozen=True, slots=True)
class Input:
    """An input with every dimension decided, and what fills it.

    ``limit``: integers stay below it, and a length is one less. ``scale``: of images.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    content: InputContent
    limit: int = INTEGER_LIMIT
    scale: Scale = UNIT

    @property
    def is_imitated(self) -> bool:
        """Whether what fills it resembles what the model was made for."""
        if self.content == "image":
            return _channels(self.shape) <= MOST_CHANNELS
        return self.content != "number"


def choices(model: ir.Model) -> Iterator[tuple[Input, ...]]:
    """Ways to decide the dimensions that a model leaves open, the most likely first.

    Batch 1, three channels unless the first convolution says otherwise, sides and lengths from
    short lists. Dimensions that are computed from others are decided with them. Where nothing is
    open there is one way.

    Raises:
        RunError: an input of which nothing is known at all.
    """
    seen: set[tuple[Input, ...]] = set()
    values = [value for value in model.graph.inputs if value.const_value is None]
    opset = model.opset_imports.get("")
    for sizes in _sizes_together(values):
        yield _with_lengths(
            values,
            [
                _decided(value, IMAGE_SIDES[0], SEQUENCE_LENGTHS[0], opset, sizes)
                for value in values
            ],
        )
    for length in SEQUENCE_LENGTHS:
        for side in IMAGE_SIDES:
            inputs = _with_lengths(
                values, [_decided(value, side, length, opset) for value in values]
            )
            if inputs not in seen:
                seen.add(inputs)
                yield inputs


def _with_lengths(declared: Sequence[ir.Value], inputs: Sequence[Input]) -> tuple[Input, ...]:
    """The inputs, each length that of the longest open axis: nothing of a sample is padding."""
    open_sizes = [
        size
        for graph_input, model_input in zip(declared, inputs, strict=True)
        for fixed, size in zip((graph_input.shape or ())[1:], model_input.shape[1:], strict=False)
        if not isinstance(fixed, int)
    ]
    sizes = open_sizes or [size for model_input in inputs for size in model_input.shape[1:]]
    length = max(sizes, default=1)
    return tuple(
        dataclasses.replace(model_input, limit=length + 1)
        if model_input.content == "length"
        else model_input
        for model_input in inputs
    )


def _sizes_together(values: Sequence[ir.Value]) -> Iterator[dict[str, int]]:
    """Sizes of named dimensions that fit together: a sequence behind a cache, and one step of it.

    None where no dimension is computed from others.
    """
    shapes = [(value, [_text(size) for size in value.shape or ()]) for value in values]
    # The first dimension counts samples, wherever its name stands.
    lengths = {texts[0]: 1 for _, texts in shapes if texts and texts[0] is not None}
    for value, texts in shapes:
        if names_a_state(str(value.name)):
            for text in texts:
                if text is not None:
                    lengths.setdefault(text, SEQUENCE_LENGTHS[0])
    named = [text for _, texts in shapes for text in texts if text is not None]
    for length in (SEQUENCE_LENGTHS[0], 1):
        sizes = dimensions.sizes(named, lengths, length)
        if sizes is not None:
            yield sizes


def _text(size: object) -> str | None:
    """The name of an open dimension, or what it is computed from; None where it has neither."""
    return size.value if isinstance(size, ir.SymbolicDim) else None


def frozen_inputs(model: ir.Model) -> dict[str, Array]:
    """Integer scalars, which rather choose a branch than carry data, and what to freeze them at."""
    return {
        str(value.name): np.array(
            waveforms.SAMPLE_RATE if str(value.name).lower() in _RATES else 1, value.dtype.numpy()
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


def provisional(inputs: tuple[Input, ...]) -> str | None:
    """Why figures on noise are no evidence, in one sentence; None where they are.

    A handful of unknown numbers beside a larger input that is imitated does not count.
    """
    sizes = [math.prod(model_input.shape) for model_input in inputs]
    for model_input, size in zip(inputs, sizes, strict=True):
        if not model_input.is_imitated and (size > FEW_NUMBERS or size == max(sizes)):
            return CANNOT_BE_IMITATED
    return None


def states(inputs: tuple[Input, ...]) -> tuple[str, ...]:
    """Names of the inputs that are states of a recurrent network."""
    return tuple(model_input.name for model_input in inputs if model_input.content == "state")


def sample_counts(inputs: tuple[Input, ...], elements: float = math.inf) -> tuple[int, int]:
    """How many samples to calibrate on, and how many to compare on.

    Args:
        elements: that are compared in one sample, of an output; with fewer, more samples are drawn.
    """
    enough = math.ceil(COMPARED_ELEMENTS / max(elements, 1))
    largest = max(inputs, key=lambda model_input: np.prod(model_input.shape), default=None)
    is_large_image = (
        largest is not None
        and largest.content == "image"
        and math.prod(_sides(largest.shape)) > SMALL_SIDE**2
    )
    fewest, most = (FEWEST_IMAGES, MOST_IMAGES) if is_large_image else (FEWEST_OTHERS, MOST_SAMPLES)
    compared = min(max(enough, fewest), most)
    return min(CALIBRATION_RATIO * compared, MOST_SAMPLES), compared


def compared_elements(outputs: Sequence[Array]) -> float:
    """How many elements an output of floats has in one sample, median over the outputs."""
    # A classifier may give a sequence of maps as well, which is a list.
    sizes = [
        array.size for array in outputs if isinstance(array, np.ndarray) and _is_float(array.dtype)
    ]
    return median(sizes) if sizes else math.inf


def samples(inputs: tuple[Input, ...], count: int, *, seed: int, first: int = 0) -> list[Feeds]:
    """The first samples of a :func:`stream`."""
    return list(itertools.islice(stream(inputs, seed=seed, first=first), count))


def stream(inputs: tuple[Input, ...], *, seed: int, first: int = 0) -> Iterator[Feeds]:
    """Samples for all inputs, without end; the same seed gives the same samples.

    Images are drawn scenes, sounds vowels and pauses, bytes text and binary files. Masks and truth
    values are one, other integers small and positive, other floats standard normal. States are
    zero; ``states.streamed`` feeds them.

    Args:
        first: number of the first sample; text and binary bytes take turns by it.
    """
    drawn = [
        (model_input.name, _drawn(model_input, np.random.default_rng([seed, position]), first))
        for position, model_input in enumerate(inputs)
    ]
    while True:
        yield {name: next(arrays) for name, arrays in drawn}


def _drawn(model_input: Input, random: np.random.Generator, first: int) -> Iterator[Array]:
    """One sample after another of an input, without end."""
    shape, dtype = model_input.shape, model_input.dtype
    if model_input.content == "sound":
        axis = int(np.argmax(shape))
        others = (*shape[:axis], *shape[axis + 1 :])
        for rows in waveforms.windows(random, math.prod(others), shape[axis]):
            yield np.moveaxis(rows.reshape(*others, -1), -1, axis).astype(dtype)
    for index in itertools.count(first):
        match model_input.content:
            case "image":
                yield _image(model_input, random)
            case "state":
                yield np.zeros(shape, dtype)
            case "constant":
                yield np.full(shape, _constant(model_input.name, dtype), dtype)
            case "length":
                yield np.full(shape, model_input.limit - 1, dtype)
            case "bytes":
                is_binary = index % tokens.BINARY_EVERY == tokens.BINARY_EVERY - 1
                drawn = (tokens.binary if is_binary else tokens.text)(random, shape)
                yield np.minimum(drawn, model_input.limit - 1).astype(dtype)
            case _ if _is_float(dtype):
                yield random.standard_normal(shape).astype(dtype)
            case _:
                lowest = min(1, model_input.limit - 1)
                yield random.integers(lowest, model_input.limit, shape).astype(dtype)


def _image(model_input: Input, random: np.random.Generator) -> Array:
    batch, channels = model_input.shape[0], _channels(model_input.shape)
    height, width = _sides(model_input.shape)
    # Of more planes than a picture has, 1/f noise is all that can be said.
    draw = pictures.scene if channels <= MOST_CHANNELS else pictures.one_over_f
    drawn = np.stack(
        [model_input.scale.applied(draw(random, channels, height, width)) for _ in range(batch)]
    )
    if _has_channels_last(model_input.shape):
        drawn = np.moveaxis(drawn, 1, 3)
    if model_input.dtype == np.uint8:
        drawn = np.rint(drawn)
    return drawn.astype(model_input.dtype)


def _constant(name: str, dtype: np.dtype[np.generic]) -> int:
    """One for masks and truth values, the rate of a sound, zero for segments and states."""
    if name.lower() in _RATES:
        return waveforms.SAMPLE_RATE
    return 1 if dtype == np.bool_ or "mask" in name.lower() else 0


def _is_float(dtype: np.dtype[np.generic]) -> bool:
    # Types that numpy does not have (bfloat16) call themselves void.
    return np.issubdtype(dtype, np.floating) or dtype.kind == "V"


def names_a_state(name: str) -> bool:
    """Whether an input is the state of a recurrent network, by its name."""
    last = name.lower().rsplit("/", 1)[-1]
    return last in _SHORT_STATES or any(word in last for word in _STATES)


def _names_sound(name: str) -> bool:
    lower = name.lower()
    return any(word in lower for word in _SOUNDS) and not any(word in lower for word in _FEATURES)


def _names_a_length(lower: str) -> bool:
    """``input_lengths``, ``waveforms_lens``, ``seq_len``."""
    return any(
        word in ("len", "lens", "length", "lengths") for word in lower.replace("/", "_").split("_")
    ) or lower.endswith(("length", "lengths"))


def _has_channels_last(shape: tuple[int, ...] | list[int | None]) -> bool:
    return shape[3] in (1, 3) and shape[1] not in (1, 3)


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:3] if _has_channels_last(shape) else shape[2:4]


def _channels(shape: tuple[int, ...]) -> int:
    return shape[3] if _has_channels_last(shape) else shape[1]


def _decided(
    value: ir.Value,
    side: int,
    length: int,
    opset: int | None,
    sizes: Mapping[str, int] | None = None,
) -> Input:
    """An input with what is open chosen: by the layer that reads it, else by its rank.

    Args:
        sizes: of dimensions that are decided together, by their text.
    """
    name = str(value.name)
    expected = readers.prescribed(value)
    if value.shape is None:
        if expected is None:
            raise RunError(
                f"the shape of input {name!r} is unknown",
                "export the model with a shape for this input",
            )
        dims = expected.dimensions
    else:
        dims = [size if isinstance(size, int) and size > 0 else None for size in value.shape]
        if expected is not None and len(expected.dimensions) == len(dims):
            dims = [
                size or expected_size
                for size, expected_size in zip(dims, expected.dimensions, strict=True)
            ]
        if sizes is not None:
            texts = map(_text, value.shape)
            dims = [size or sizes.get(text or "") for size, text in zip(dims, texts, strict=True)]
    if len(dims) == 4:
        fill = [1, side, side, 3] if _has_channels_last(dims) else [1, 3, side, side]
    elif names_a_state(name) or not dims:
        fill = [1] * len(dims)
    else:
        if _names_sound(name) and len(dims) <= 3:
            length = max(length, waveforms.LASTING)
        fill = [1] + [length] * (len(dims) - 1)
    shape = tuple(size or chosen for size, chosen in zip(dims, fill, strict=True))
    dtype = np.dtype((value.dtype or ir.DataType.FLOAT).numpy())
    rows = readers.table_rows(value)
    is_linear = expected is not None and expected.op_type in ("Gemm", "MatMul")
    content = _content(name, shape, dtype, rows, is_linear=is_linear)
    if content == "state" and sizes is not None:
        # A cache of what was computed before: zeros would say that nothing was.
        content = "number"
    limit = INTEGER_LIMIT if rows is None else min(rows, INTEGER_LIMIT)
    if content == "bytes":
        limit = min(256, rows or 256)
    scale = _scale(value, _channels(shape), dtype, opset) if content == "image" else UNIT
    return Input(name, shape, dtype, content, limit, scale)


def _content(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[np.generic],
    rows: int | None,
    *,
    is_linear: bool,
) -> InputContent:
    """What an input holds.

    Args:
        rows: of the table that integers look into.
        is_linear: a linear layer reads it, which knows no order in time or space.
    """
    lower = name.lower()
    if names_a_state(name):
        return "state" if _is_float(dtype) else "constant"
    if dtype == np.bool_ or (not _is_float(dtype) and "mask" in lower):
        return "constant"
    is_named_features = any(word in lower for word in _FEATURES)
    is_plane = len(shape) == 4 and min(_sides(shape)) > 1
    if is_plane and not is_named_features and (_is_float(dtype) or dtype == np.uint8):
        return "image"
    if _is_float(dtype):
        longest = max(shape, default=0)
        is_row = longest >= SHORTEST_SOUND and longest in (shape[-1], *shape[1:2])
        is_sound = is_row and len(shape) <= 3 and math.prod(shape) <= MOST_SOUND_ROWS * longest
        return "sound" if is_sound and not (is_linear or is_named_features) else "number"
    if lower in _RATES or "token_type" in lower or "segment" in lower:
        return "constant"
    if rows is None and math.prod(shape) == 1 and _names_a_length(lower):
        return "length"
    if rows in BYTE_ROWS or (dtype == np.uint8 and (rows is None or rows >= 128)):
        return "bytes"
    return "number" if rows is None else "tokens"


def _scale(value: ir.Value, channels: int, dtype: np.dtype[np.generic], opset: int | None) -> Scale:
    """How large the values of an image are: from what the model does to them first."""
    normalized = readers.normalized(value, channels, opset)
    if normalized is not None:
        return _undone(normalized, is_bytes=dtype == np.uint8)
    if dtype == np.uint8:
        return PIXELS
    ratio = readers.bias_ratio(value, opset)
    return PIXELS if ratio is not None and ratio > PIXEL_BIAS_RATIO else UNIT


def _undone(normalized: readers.Normalized, *, is_bytes: bool) -> Scale:
    """What the model normalizes, before that.

    Means and deviations of pixels are taken as they are; where only a range can be read from them
    ((x - 127.5) / 127.5, x / 255), mean or deviation are those of any photograph.
    """
    mean, deviation = normalized.mean, normalized.deviation
    largest = max(np.abs(mean).max(), deviation.max())
    if is_bytes or 20 <= largest <= 400:
        white = 255.0
    elif (
        mean.min() > 0.05
        and mean.max() < 0.95
        and deviation.max() <= (0.5 if normalized.is_learned else 1)
    ):
        white = 1.0
    else:
        return Scale(tuple(mean.tolist()), tuple(deviation.tolist()))
    typical = Scale.up_to(white)
    low, high = (white * share for share in PLAUSIBLE_DEVIATION)
    is_mean = bool((low <= mean).all() and (mean <= white - low).all())
    is_deviation = bool((low <= deviation).all() and (deviation <= high).all())
    return dataclasses.replace(
        typical,
        mean=tuple(mean.tolist()) if is_mean else typical.mean,
        deviation=tuple(deviation.tolist()) if is_deviation else typical.deviation,
    )
