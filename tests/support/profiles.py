"""Layers as Compare charts them, from two figures each."""

import math

import pandas as pd

LIMITS = {"fine": 30.0, "watch": 20.0, "at risk": 10.0, "broken": -math.inf}


def band_of(p10: float) -> str:
    return next(band for band, low in LIMITS.items() if p10 >= low)


def profiles(rows: dict[str, list[tuple[float, float]]]) -> pd.DataFrame:
    """Layers of several models from (weight range, p10) pairs."""
    records = []
    for name, layers in rows.items():
        for depth, (weight_range, p10) in enumerate(layers):
            records.append(
                {
                    "model": name,
                    "layer_id": len(records),
                    "layer": f"Conv_{depth}",
                    "depth": depth,
                    "layer_count": len(layers),
                    "op_type": "Conv",
                    "is_depthwise": False,
                    "weight_count": 100,
                    "weight_range": weight_range,
                    "channel_spread_bits": 1.0,
                    "channel_sqnr_p10_db": p10,
                    "band": band_of(p10),
                }
            )
    return pd.DataFrame(records)
