"""Why a layer suffers, and what its weights let expect."""

import math
from dataclasses import dataclass

from quantstore.schemes import Scheme
from quantstore.wording.units import counted, share

# The limits of the bands as they come, where no store says otherwise.
BAND_LIMITS_DB = (10, 20, 30)

# A channel this much narrower than the largest weight gets at most 4 of 127 codes per side.
NARROW_CHANNEL_SHARE = 1 / 32
# From two bits of spread on, a typical channel has lost a quarter of the grid's precision.
TELLING_SPREAD_BITS = 2.0
# From here on even the whole tensor stays below 30 dB: 58.9 - 20 log10(28) = 30.
HEAVY_TAIL_SPAN_OVER_RMS = 28.0
# Less than this share of the grid lies on the emptier side of zero.
ONE_SIDED_SHARE = 0.05


def expected_db(span_over_rms: float) -> float:
    """SQNR of a uniform 8-bit grid that covers ``span_over_rms`` root mean squares, in dB.

    Uniform rounding noise has the variance step^2 / 12: 20 log10(255 sqrt(12)) = 58.9 dB less
    20 log10 of the span (W. R. Bennett, Spectra of Quantized Signals, 1948).
    """
    return 58.9 - 20 * math.log10(span_over_rms)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What the causes of a layer's trouble are read from, under one scheme."""

    band: str
    channel_count: int
    flattened_channels: int  # channels all of whose weights come back as 0
    outlier_channels: int
    spread_bits: float | None
    narrow_channels: int  # channels narrower than NARROW_CHANNEL_SHARE of the largest weight
    symmetric_span_over_rms: float | None
    weight_min: float
    weight_max: float
    dead_channels: int = 0  # channels that carry nothing; no summary counts them


def causes(facts: LayerFacts, scheme: Scheme) -> list[str]:
    """Why a layer suffers, most telling first, at most three; empty where nothing stands out.

    Dead channels, which are no cause, are mentioned behind them.
    """
    dead = []
    if facts.dead_channels:
        dead = [f"{counted(facts.dead_channels, 'dead channel')} left out"]
    return [*_causes(facts, scheme), *dead]


def _causes(facts: LayerFacts, scheme: Scheme) -> list[str]:
    if facts.band == "fine":
        return ["no problem in the weights"]
    reasons: list[str] = []
    of_channels = f"of {counted(facts.channel_count, 'channel')}"
    if not scheme.is_per_channel:
        if facts.flattened_channels:
            verb = "rounds" if facts.flattened_channels == 1 else "round"
            reasons.append(f"{facts.flattened_channels:,} {of_channels} {verb} to zero")
        # An outlier among ranges costs the others nothing unless it is much wider than they are.
        if facts.outlier_channels and (facts.spread_bits or 0) >= 1:
            noun = "outlier channel sets" if facts.outlier_channels == 1 else "outlier channels set"
            reasons.append(f"{facts.outlier_channels:,} {noun} the scale")
        if facts.spread_bits is not None and facts.spread_bits >= TELLING_SPREAD_BITS:
            kept = max(0.0, scheme.bits - facts.spread_bits)
            reasons.append(f"a typical channel keeps {kept:.1f} of {scheme.bits} bits")
        if not reasons and facts.narrow_channels:
            verb = "uses" if facts.narrow_channels == 1 else "use"
            limit = share(NARROW_CHANNEL_SHARE)
            reasons.append(
                f"{facts.narrow_channels:,} {of_channels} {verb} less than {limit} of the range"
            )
    span = facts.symmetric_span_over_rms
    if span is not None and span >= HEAVY_TAIL_SPAN_OVER_RMS:
        reasons.append("heavy tail: few large weights")
    if scheme.is_symmetric and _is_one_sided(facts.weight_min, facts.weight_max):
        reasons.append("one-sided: half of the codes stay unused")
    return reasons[:3]


def _is_one_sided(low: float, high: float) -> bool:
    smaller, larger = sorted((max(0.0, -low), max(0.0, high)))
    return smaller < ONE_SIDED_SHARE * larger
