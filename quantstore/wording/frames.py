"""Rows of a frame as the facts that sentences are made of."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from quantstore.wording.causes import LayerFacts


def layer_facts(row: Mapping[Any, Any]) -> LayerFacts:
    """What the causes of a layer's trouble are read from, out of ``queries.worst_layers``."""
    return LayerFacts(
        band=str(row["band"]),
        channel_count=int(row["channel_count"]),
        flattened_channels=int(row["flattened_channels"]),
        outlier_channels=int(row["outlier_channel_count"]),
        spread_bits=figure_or_none(row["channel_spread_bits"]),
        narrow_channels=int(row["narrow_channels"]),
        symmetric_span_over_rms=figure_or_none(row["symmetric_span_over_rms"]),
        weight_min=figure_or_none(row["weight_min"]) or 0.0,
        weight_max=figure_or_none(row["weight_max"]) or 0.0,
    )


def layer_labels(layers: pd.DataFrame) -> list[str]:
    """What each layer of a model is called: its name, with the operand where a node has several."""
    has_several = layers["layer"].duplicated(keep=False)
    return [
        f"{layer} ({operand})" if several else layer
        for layer, operand, several in zip(
            layers["layer"], layers["operand"], has_several, strict=True
        )
    ]


def figure_or_none(value: Any) -> float | None:
    """A figure out of a frame, None where the store has NULL."""
    return None if pd.isna(value) else float(value)
