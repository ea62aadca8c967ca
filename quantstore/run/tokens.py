"""Byte tokens as texts and files have them. Numbers out."""

import numpy as np
import numpy.typing as npt

# English letters by frequency, then digits and punctuation of texts and programs.
LETTERS = np.frombuffer(b' etaoinshrdlcumwfgypbvk\n.,ETAOIN0123456789(){}_=;"/-<>', np.uint8)
# One sequence in so many is no text: bytes of a program or a picture, small ones more often.
BINARY_EVERY = 3
MEAN_BINARY = 60.0


def text(random: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Characters by their frequency, which falls with their rank (Zipf's law)."""
    frequency = 1 / np.arange(1, LETTERS.size + 1)
    return random.choice(LETTERS, shape, p=frequency / frequency.sum()).astype(np.int64)


def binary(random: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Bytes from 0 to 255, exponentially distributed."""
    return random.exponential(MEAN_BINARY, shape).astype(np.int64) % 256
