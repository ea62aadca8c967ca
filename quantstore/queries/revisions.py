"""Questions about several models at once: two revisions of a network, layer by layer."""

from typing import TYPE_CHECKING

from quantstore.queries import matching
from quantstore.store import Connection, find_model

if TYPE_CHECKING:
    import pandas as pd


def revision_layers(con: Connection, model: str, scheme: str) -> "pd.DataFrame":
    """One row per layer of a model under one scheme, in graph order: to match with another's."""
    return con.frame(
        """
        select
            layer_id, layer, operand, depth, op_type, op_family, shape, channel_count,
            is_depthwise, weight_count, band, channel_sqnr_p10_db, sqnr_db, zeroed_fraction,
            channels_below_10db, weight_range, log2(nullif(channel_range_ratio, 0))
                as channel_spread_bits
        from layer_errors
        where model = $model and scheme = $scheme
        order by depth
        """,
        {"model": model, "scheme": scheme},
    )


def revision_changes(con: Connection, before: str, after: str, scheme: str) -> "pd.DataFrame":
    """Which layer of one revision is which of the other, and what changed under one scheme.

    Returns:
        A frame as :func:`matching.changes` gives it, in the order of the later network.

    Raises:
        UnknownModelError: the store does not hold one of them.
    """
    for model in (before, after):
        find_model(con, model)
    return matching.changes(
        revision_layers(con, before, scheme), revision_layers(con, after, scheme)
    )


def likely_revisions(con: Connection) -> tuple[str, str] | None:
    """Two models that look like revisions of one network, the earlier one first.

    Of all pairs with equally many layers the one with the most similar number of weights, of these
    the newest; None where no two have equally many layers.
    """
    rows = con.rows(
        """
        select earlier.model, later.model
        from models as earlier
        join models as later
            on later.layer_count = earlier.layer_count
            and (later.ingested_at, later.model) > (earlier.ingested_at, earlier.model)
        order by
            abs(later.weight_count - earlier.weight_count) / later.weight_count,
            later.ingested_at desc,
            earlier.ingested_at desc,
            later.model,
            earlier.model
        limit 1
        """
    )
    return rows[0] if rows else None
