"""Random pictures: scenes drawn from shapes, textures and strokes, and 1/f noise.

Both in units in which photographs have zero mean and unit variance, roughly. Knows Pillow and
numpy, not the model.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from quantstore.records import Floats

Rgb = tuple[int, int, int]
Draw = Callable[[np.random.Generator, Image.Image, "_Spot", Rgb], None]

# One correlation for all: that of the channels of photographs, roughly.
CHANNEL_CORRELATION = 0.9
# Scenes are drawn with a longest side in between, then scaled: strokes need room, and a larger
# canvas takes longer without showing more.
SMALLEST_CANVAS, LARGEST_CANVAS = 64, 320
# Of pixels from 0 to 1, photographs roughly: what scenes are centered and scaled by.
TYPICAL_MEAN, TYPICAL_DEVIATION = 114 / 255, 64 / 255
# A gradient has no detail.
GRADIENT_SIDE = 32
# Of values from 0 to 1: what a sensor adds. One part falls as 1/f, the other is white.
PINK_GRAIN, WHITE_GRAIN = 0.04, 0.01


def one_over_f(random: np.random.Generator, channels: int, height: int, width: int) -> Floats:
    """Noise with amplitude spectrum 1/f; zero mean and unit variance in every channel.

    Channels share a field, so that any two correlate by :data:`CHANNEL_CORRELATION`.

    Returns:
        ``(channels, height, width)``.

    Source: Field 1987, the spectra of photographs. https://doi.org/10.1364/JOSAA.4.002379
    """
    if channels == 1:
        return _pink(random, 1, height, width)
    return _pink(random, channels, height, width, correlation=CHANNEL_CORRELATION)


def scene(random: np.random.Generator, channels: int, height: int, width: int) -> Floats:
    """A drawn picture: a gradient under filled shapes, textures and writing, blurred, with grain.

    Returns:
        ``(channels, height, width)``, red, green and blue in turn; grey for a single channel.
    """
    longest = max(height, width)
    scale = min(max(longest, SMALLEST_CANVAS), LARGEST_CANVAS) / longest
    canvas = max(8, round(width * scale)), max(8, round(height * scale))
    image = _gradient(random, *canvas)
    for _ in range(int(random.integers(6, 28))):
        spot = _Spot.anywhere(random, image)
        kinds: tuple[Draw, ...] = (_ellipse, _rectangle, _polygon, _texture, _writing)
        kinds[random.integers(len(kinds))](random, image, spot, _color(random))
    if random.random() < 0.7:
        radius = random.uniform(0.3, 1.6) * max(canvas) / LARGEST_CANVAS
        image = image.filter(ImageFilter.BoxBlur(radius))
    if canvas != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    # Planes one behind the other: what follows then runs over memory in order.
    pixels: Floats = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1), np.float32)
    pixels /= np.float32(255)
    if channels != 3:
        pixels = pixels.mean(0, keepdims=True) if channels == 1 else pixels[_in_turn(channels)]
    pixels *= np.float32(random.uniform(0.5, 1))
    pixels += np.float32(PINK_GRAIN) * _pink(random, 1, height, width)
    pixels += np.float32(WHITE_GRAIN) * random.standard_normal((1, height, width), np.float32)
    pixels -= np.float32(TYPICAL_MEAN)
    pixels /= np.float32(TYPICAL_DEVIATION)
    return pixels


def _in_turn(channels: int) -> npt.NDArray[np.int64]:
    return np.arange(channels) % 3


def _pink(
    random: np.random.Generator, channels: int, height: int, width: int, correlation: float = 0.0
) -> Floats:
    """Drawn where it is simple: the Fourier transform of 1/f noise is white noise times 1/f."""
    columns = width // 2 + 1
    white = _white(random, channels, height, columns)
    if correlation:
        shared = _white(random, 1, height, columns)
        white *= np.float32(np.sqrt(1 - correlation))
        white += np.float32(np.sqrt(correlation)) * shared
    colored = np.fft.irfft2(white * _amplitude(height, width), s=(height, width))
    fields: Floats = colored.astype(np.float32, copy=False)
    deviation = fields.std((1, 2), keepdims=True)
    # A picture of one pixel has no frequency but zero.
    unit: Floats = fields / np.maximum(deviation, np.finfo(np.float32).tiny)
    return unit


# Every scene has grain of its own size; textures have many.
@lru_cache(maxsize=8)
def _amplitude(height: int, width: int) -> Floats:
    """``1/f`` of a real field's Fourier coefficients."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    # No constant part: the mean is zero.
    amplitude = np.divide(1, frequency, out=np.zeros_like(frequency), where=frequency > 0)
    single: Floats = amplitude.astype(np.float32)
    return single


def _white(
    random: np.random.Generator, channels: int, rows: int, columns: int
) -> npt.NDArray[np.complex64]:
    return random.standard_normal((channels, rows, 2 * columns), np.float32).view(np.complex64)


class _Spot:
    """Where a shape lies on the canvas, in pixels: its center, its longer and its shorter side."""

    def __init__(self, x: float, y: float, size: float, across: float) -> None:
        self.x, self.y, self.size, self.across = x, y, size, across

    @classmethod
    def anywhere(cls, random: np.random.Generator, image: Image.Image) -> "_Spot":
        """Sizes are log-uniform: there are many small things and few large ones."""
        size = max(2.0, max(image.size) * 10 ** random.uniform(-1.6, -0.3))
        x, y = random.uniform(0, image.width), random.uniform(0, image.height)
        return cls(x, y, size, size * random.uniform(0.3, 1))

    @property
    def box(self) -> tuple[float, float, float, float]:
        half, half_across = self.size / 2, self.across / 2
        return self.x - half, self.y - half_across, self.x + half, self.y + half_across


def _color(random: np.random.Generator) -> Rgb:
    """Mostly dark or bright, and not far from grey."""
    values = 255 * (random.beta(0.8, 0.8) + 0.25 * random.standard_normal(3))
    # For three numbers numpy's clip takes as long as all the rest.
    red, green, blue = (int(min(max(value, 0.0), 255.0)) for value in values.tolist())
    return red, green, blue


def _gradient(random: np.random.Generator, width: int, height: int) -> Image.Image:
    start, end = (255 * random.random(3, np.float32) for _ in range(2))
    along = _along(random.uniform(0, 2 * np.pi), GRADIENT_SIDE, GRADIENT_SIDE)
    along = (along - along.min()) / np.ptp(along)
    small = Image.fromarray((start + (end - start) * along[..., np.newaxis]).astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BILINEAR)


def _along(angle: float, width: int, height: int) -> Floats:
    """How far each pixel lies in a direction."""
    down, across = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
    distance: Floats = np.add.outer(
        np.float32(np.sin(angle)) * down, np.float32(np.cos(angle)) * across
    )
    return distance


def _ellipse(_: np.random.Generator, image: Image.Image, spot: _Spot, color: Rgb) -> None:
    ImageDraw.Draw(image).ellipse(spot.box, fill=color)


def _rectangle(_: np.random.Generator, image: Image.Image, spot: _Spot, color: Rgb) -> None:
    ImageDraw.Draw(image).rectangle(spot.box, fill=color)


def _polygon(random: np.random.Generator, image: Image.Image, spot: _Spot, color: Rgb) -> None:
    angles = np.sort(random.uniform(0, 2 * np.pi, int(random.integers(3, 8))))
    radii = spot.size / 2 * random.uniform(0.5, 1, (2, angles.size))
    corners = (spot.x + radii[0] * np.cos(angles), spot.y + radii[1] * np.sin(angles))
    ImageDraw.Draw(image).polygon(list(zip(*map(np.ndarray.tolist, corners), strict=True)), color)


def _texture(random: np.random.Generator, image: Image.Image, spot: _Spot, color: Rgb) -> None:
    """A rectangle of a grating, or of 1/f noise."""
    west, top, right, bottom = spot.box
    first_column, first_row = max(0, int(west)), max(0, int(top))
    width, height = (
        min(image.width, int(right) + 1) - first_column,
        min(image.height, int(bottom)) - first_row,
    )
    if width < 4 or height < 4:
        return
    if random.random() < 0.5:
        along = _along(random.uniform(0, np.pi), width, height)
        pattern = np.sin(2 * np.pi * along / random.uniform(2, 20))
    else:
        pattern = _pink(random, 1, height, width)[0]
    pixels = np.array(color) + random.uniform(8, 60) * pattern[..., np.newaxis]
    image.paste(Image.fromarray(np.uint8(np.clip(pixels, 0, 255))), (first_column, first_row))


def _writing(random: np.random.Generator, image: Image.Image, spot: _Spot, color: Rgb) -> None:
    """Lines of letters, each letter two strokes."""
    draw = ImageDraw.Draw(image)
    letter = max(1.0, spot.size / 40 * random.uniform(1, 4))
    thickness = max(1, int(letter / 4))
    for line in range(int(random.integers(1, 5))):
        count = int(random.integers(4, 24))
        shown = np.flatnonzero(random.random(count) >= 0.2)
        top = spot.y + 3 * letter * line
        strokes = random.uniform(0, letter, (shown.size, 2, 2, 2)) * (1, 2)
        strokes[..., 0] += (spot.x - spot.size / 2 + 1.6 * letter * shown)[:, None, None]
        strokes[..., 1] += top
        for stroke in strokes.reshape(-1, 4).tolist():
            draw.line(stroke, color, thickness)
