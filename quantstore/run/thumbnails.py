"""A picture in, a small one out, as the bytes of a JPEG file without a word about its origin."""

import io

import numpy as np
from PIL import Image

from quantstore.records import Array

LONGEST_SIDE = 200
MOST_BYTES = 15_000
# Photographs of this size need less than the first; noise needs the last, and is cut down then.
_QUALITIES = (85, 70, 50, 30)


def encoded(pixels: Array) -> bytes:
    """A JPEG of at most ``LONGEST_SIDE`` pixels a side and ``MOST_BYTES``.

    Args:
        pixels: ``(height, width, 3)`` in red, green and blue, or ``(height, width, 1)``; uint8.
    """
    image = Image.fromarray(
        np.ascontiguousarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    )
    side = LONGEST_SIDE
    while True:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        for quality in _QUALITIES:
            stream = io.BytesIO()
            image.save(stream, "JPEG", quality=quality, optimize=True)
            if stream.tell() <= MOST_BYTES:
                return stream.getvalue()
        side //= 2
