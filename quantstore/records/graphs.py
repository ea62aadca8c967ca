"""Rows of the graph of a model: its points, and what connects them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphPointRecord:
    """A row of ``graph_points``; a layer is named by its depth, the store gives the key."""

    point: int
    role: str
    name: str
    op_type: str | None
    depth: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphEdgeRecord:
    """A row of ``graph_edges``; ``operators`` is JSON: how often each is passed on the way."""

    source_point: int
    target_point: int
    operators: str
