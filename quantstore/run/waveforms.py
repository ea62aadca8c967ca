"""Speech-like sound: vowels and pink noise, loud and soft. Numbers out, at 16 kHz."""

import itertools
from collections.abc import Iterator

import numpy as np

from quantstore.records import Doubles

SAMPLE_RATE = 16000
# One sound in so many is a pause: background noise alone.
PAUSE_EVERY = 5
# Amplitudes as powers of ten, where 1 is the loudest sound: of a vowel's peak, and of what lies
# under it and is left in a pause.
LOUDNESS = (-2.0, -0.3)
BACKGROUND = (-4.0, -2.3)
# Ranges of the first three resonances of vowels in Hz, and how wide each is.
# Peterson and Barney 1952, https://doi.org/10.1121/1.1906875
FORMANTS = (((250, 800), 80), ((800, 2300), 110), ((2700, 2700), 160))
PITCH = (80, 250)
# How long a sound lasts, in values: a quarter of a second. Shorter windows cut it into parts.
LASTING = SAMPLE_RATE // 4


def windows(random: np.random.Generator, rows: int, length: int) -> Iterator[Doubles]:
    """Windows that follow one another, ``(rows, length)``, without end."""
    windows_per_sound = max(1, LASTING // length)
    for number in itertools.count():
        is_pause = number % PAUSE_EVERY == PAUSE_EVERY - 1
        whole = np.stack(
            [sound(random, windows_per_sound * length, is_pause=is_pause) for _ in range(rows)]
        )
        yield from np.split(whole, windows_per_sound, axis=1)


def sound(random: np.random.Generator, length: int, *, is_pause: bool) -> Doubles:
    """One sound: a vowel over background noise, or the noise alone."""
    background = 10 ** random.uniform(*BACKGROUND)
    if is_pause:
        return background * pink(random, length)
    loudness = 10 ** random.uniform(*LOUDNESS)
    return loudness * vowel(random, length) + background * random.standard_normal(length)


def pink(random: np.random.Generator, length: int) -> Doubles:
    """Noise whose power falls as 1/f, with zero mean and unit variance."""
    frequency = np.fft.rfftfreq(length)
    amplitude = np.zeros_like(frequency)
    amplitude[1:] = frequency[1:] ** -0.5
    colored = np.fft.irfft(np.fft.rfft(random.standard_normal(length)) * amplitude, length)
    scaled: Doubles = colored / max(float(colored.std()), np.finfo(np.float64).tiny)
    return scaled


def vowel(random: np.random.Generator, length: int) -> Doubles:
    """Pulses at the pitch of a voice through three resonances; the largest amplitude is 1."""
    period = int(SAMPLE_RATE / random.uniform(*PITCH))
    pulses = 0.02 * random.standard_normal(length)
    pulses[int(random.integers(min(period, length))) :: period] += 1
    delay = np.exp(-2j * np.pi * np.fft.rfftfreq(length))
    response = np.ones_like(delay)
    for (lowest, highest), width in FORMANTS:
        radius = np.exp(-np.pi * width / SAMPLE_RATE)
        turn = 2 * np.pi * random.uniform(lowest, highest) / SAMPLE_RATE
        response /= 1 - 2 * radius * np.cos(turn) * delay + (radius * delay) ** 2
    voiced = np.fft.irfft(np.fft.rfft(pulses) * response, length)
    scaled: Doubles = voiced / np.abs(voiced).max()
    return scaled
