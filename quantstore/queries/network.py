"""Questions about the graph of a model: its layers, what they hand on, and how each fares."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantstore.queries.overlays import drift_run, node_sensitivities
from quantstore.schemes import Target
from quantstore.store import Connection

# What a picture of a network can be coloured by: each is a SQNR in dB.
MEASURED_BY = ("weights", "sensitivity", "drift")


@dataclass(frozen=True, slots=True)
class Point:
    """A row of ``graph_points``; of several operands of a node ``layer_id`` is the first."""

    number: int
    role: str
    name: str
    op_type: str | None
    layer_id: int | None
    module_path: str | None


@dataclass(frozen=True, slots=True)
class Edge:
    """A row of ``graph_edges``: numbers of points, and the operators passed, with how often."""

    source: int
    target: int
    operators: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class NetworkGraph:
    """The graph of a model: points in the order of the graph, sources before what they feed."""

    points: Sequence[Point]
    edges: Sequence[Edge]

    def sources(self) -> dict[int, list[int]]:
        """What feeds each point, in order."""
        by_point: dict[int, list[int]] = {}
        for edge in self.edges:
            by_point.setdefault(edge.target, []).append(edge.source)
        return by_point

    def readers(self) -> dict[int, list[int]]:
        """What each point feeds, in order."""
        by_point: dict[int, list[int]] = {}
        for edge in self.edges:
            by_point.setdefault(edge.source, []).append(edge.target)
        return by_point


def model_network(con: Connection, model: str) -> NetworkGraph:
    """What the store holds of the graph of a model: without points nothing, in an old store.

    Of a graph that was too large it has points, and no edges.
    """
    points = con.rows(
        """
        select point, role, name, graph_points.op_type, graph_points.layer_id, module_path
        from graph_points
        left join layers using (layer_id)
        where graph_points.model_id = (select model_id from models where model = $model)
        order by point
        """,
        {"model": model},
    )
    edges = con.rows(
        """
        select source_point, target_point, operators
        from graph_edges
        where model_id = (select model_id from models where model = $model)
        order by all
        """,
        {"model": model},
    )
    return NetworkGraph(
        [Point(*row) for row in points],
        [Edge(source, target, json.loads(operators)) for source, target, operators in edges],
    )


def network_values(
    con: Connection, model: str, target: Target, measured_by: str
) -> dict[str, float]:
    """The SQNR in dB of nodes by their names, infinite where nothing is lost.

    ``weights``: what 90 % of the channels reach under the scheme of the target, of several
    operands the worst. ``sensitivity``: the outputs where this node alone is quantized. ``drift``:
    what the node hands on in the latest run. Empty where nothing of the kind was measured.

    Args:
        measured_by: one of :data:`MEASURED_BY`.
    """
    match measured_by:
        case "weights":
            rows = con.rows(
                """
                select layer, min(coalesce(channel_sqnr_p10_db, 'infinity'))
                from layer_errors
                where model = $model and scheme = $scheme
                group by layer
                """,
                {"model": model, "scheme": target.layer_scheme.name},
            )
            return {name: float(value) for name, value in rows}
        case "sensitivity":
            frame = node_sensitivities(con, model, target)
            return dict(zip(frame["node_name"], frame["output_sqnr_db"].astype(float), strict=True))
        case "drift":
            run = drift_run(con, model, target)
            rows = con.rows(
                """
                select node_name, min(coalesce(sqnr_db, 'infinity'))
                from activation_errors
                where simulation_id = $run and kind = 'accumulated'
                group by node_name
                """,
                {"run": run},
            )
            return {name: float(value) for name, value in rows}
        case _:
            raise ValueError(f"no values by {measured_by}")
