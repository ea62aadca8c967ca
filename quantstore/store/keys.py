"""Keys from content: the same model, layer or run has the same key in every store.

Whoever stores a model needs nobody to number it, so that rows of several stores lie beside one
another without colliding: the union of two stores is their merge. See decision 15.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

# The columns that make a row what it is, for each table whose keys are ours to give. They never
# change once they are written. Keys of parents among them are made first.
CONTENT = {
    "models": ("sha256", "folded"),
    "layers": ("model_id", "layer", "operand"),
    "simulations": (
        *("model_id", "target", "scheme", "mode", "input_source"),
        *("output_sqnr_db", "failure", "created_at"),
    ),
    "rescues": ("model_id", "target", "reach_db", "input_source", "created_at"),
    "audits": ("int8_model_id", "float_file", "input_source", "created_at"),
    "ingests": ("path", "outcome", "message", "started_at", "finished_at"),
}
# What the key of a row is called.
KEY_COLUMNS = {table: f"{table.removesuffix('s')}_id" for table in CONTENT}


def key_of(table: str, content: Iterable[object]) -> int:
    """The key of a row: 63 bits of a SHA-256, so that BIGINT holds it.

    Of a hundred million rows two have the same key with a probability of one in two thousand.

    Args:
        table: one of ``CONTENT``.
        content: the values of its columns, in that order, as they are stored or about to be.
    """
    text = json.dumps([table, *map(_stored, content)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def content_of(table: str, columns: Mapping[str, Sequence[Any]]) -> list[tuple[object, ...]]:
    """What makes each row what it is, from columns that hold more."""
    return list(zip(*(columns[name] for name in CONTENT[table]), strict=True))


def _stored(value: object) -> object:
    """A value as it comes back out of the store: NaN and infinities are NULL."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(timespec="microseconds")
    return value
