"""A graph in, its picture out: layers, the numbers where branches join, and what flows between.

Every value comes from one point: a layer, an input of the network, or a *join*, a node that is no
layer and reads what comes from several points, such as the Add of a residual branch. Nodes in
between are told as operators of an edge. A value has a single point, however many paths lead to it,
so that all is done in one walk over the nodes, and there are never more edges than inputs of nodes:
edges from layer to layer would grow with the square of the layers in a residual network.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from quantstore.graph.constants import find_constant
from quantstore.graph.file import ModelFile
from quantstore.graph.operators import STANDARD_DOMAINS
from quantstore.graph.walk import Site, subgraphs
from quantstore.records import GraphEdgeRecord, GraphPointRecord

# Far beyond what real networks have: RTMDet, with 123 layers, has 146 points and 171 edges. Of a
# graph that exceeds one of these, the layers alone are stored.
MOST_POINTS = 30_000
MOST_EDGES = 60_000
# Different operators that an edge names; the others count as OTHERS. An activation with all that
# its exporter made of it has five.
MOST_OPERATORS = 12
OTHERS = "others"
# A name is told for people to find the node; the layers have theirs in full.
MOST_CHARACTERS = 200

PointRole = Literal["input", "layer", "join", "output"]

# What these hand on says how large a tensor is, and nothing of what is in it.
_SIZES = frozenset(("Shape", "Size"))
# These hand on their first input as it is.
_NOTHING_DONE = frozenset(("Identity", "Dropout"))
_CONTROL_FLOW = frozenset(("If", "Loop", "Scan"))


@dataclass(frozen=True, slots=True)
class Flow:
    """The points of a graph, sources before what they feed, and its edges.

    ``edges`` is empty where there are more than :data:`MOST_POINTS` or :data:`MOST_EDGES`; the
    points are then the layers alone.
    """

    points: tuple[GraphPointRecord, ...]
    edges: tuple[GraphEdgeRecord, ...]


def flow_of(file: ModelFile, sites: Sequence[Site]) -> Flow:
    """What flows between the layers of a file.

    Args:
        sites: its layers, by depth: the position of a site is the depth of its layer. Of several
            operands of one node the first stands for the node.
    """
    depths: dict[int, int] = {}
    for depth, site in enumerate(sites):
        depths.setdefault(id(site.node), depth)
    trace = _Trace(depths, sites)
    trace.follow(file.model.graph)
    if trace.is_too_large:
        of_layers = enumerate(depths.values())
        return Flow(
            tuple(_layer_point(point, depth, sites[depth]) for point, depth in of_layers), ()
        )
    return trace.flow()


# How often each operator was passed since the point: on any one path, the most.
_Passed = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _FlowSource:
    """Where a value comes from."""

    point: int
    passed: _Passed = field(default_factory=dict)


class _Trace:
    """Follows the values of a graph from the point that each comes from."""

    def __init__(self, depths: Mapping[int, int], sites: Sequence[Site]) -> None:
        self._depths = depths
        self._sites = sites
        self._points: list[GraphPointRecord] = []
        self._edges: dict[tuple[int, int], _Passed] = {}
        self._sources: dict[int, _FlowSource] = {}
        self.is_too_large = False

    def follow(self, graph: ir.Graph) -> None:
        for value in graph.inputs:
            # Old files list their weights among the inputs.
            if find_constant(value) is None:
                point = self._point("input", value.name or "", "")
                self._sources[id(value)] = _FlowSource(point)
        self._follow_nodes(graph, "")
        outputs = [
            self._sources[id(value)] for value in graph.outputs if id(value) in self._sources
        ]
        self._connect(outputs, self._point("output", "", ""))

    def _follow_nodes(self, graph: ir.Graph, prefix: str) -> None:
        for node in graph:
            if self.is_too_large:
                return
            name = prefix + (node.name or node.op_type)
            depth = self._depths.get(id(node))
            if depth is not None:
                point = len(self._points)
                self._points.append(_layer_point(point, depth, self._sites[depth]))
                self._connect(self._read_by(node), point)
                self._give(node.outputs, _FlowSource(point))
            elif node.op_type in _CONTROL_FLOW and node.domain in STANDARD_DOMAINS:
                self._follow_bodies(node, name)
            else:
                self._give(self._carrying(node), self._joined(self._read_by(node), node, name))

    def _follow_bodies(self, node: ir.Node, name: str) -> None:
        """Bodies take the inputs of their node by position, and end with its outputs."""
        results: list[list[_FlowSource]] = [[] for _ in node.outputs]
        for attribute in node.attributes.values():
            for body in subgraphs(attribute):
                # The only input of an If is its condition.
                fed_by = () if node.op_type == "If" else node.inputs
                for inner, outer in zip(body.inputs, fed_by, strict=False):
                    if outer is not None and id(outer) in self._sources:
                        self._sources[id(inner)] = self._sources[id(outer)]
                self._follow_nodes(body, f"{name}/{attribute.name}/")
                # The first result of the body of a Loop is its condition.
                surplus = max(0, len(body.outputs) - len(node.outputs))
                for result, value in zip(results, body.outputs[surplus:], strict=False):
                    if id(value) in self._sources:
                        result.append(self._sources[id(value)])
        for value, sources in zip(node.outputs, results, strict=True):
            self._give((value,), self._joined(sources, node, name))

    def _read_by(self, node: ir.Node) -> list[_FlowSource]:
        return [
            self._sources[id(value)]
            for value in node.inputs
            if value is not None and id(value) in self._sources
        ]

    def _joined(self, read: list[_FlowSource], node: ir.Node, name: str) -> _FlowSource | None:
        """Where the result of a node comes from: what all it reads has in common, or itself."""
        if not read:
            return None
        if len({source.point for source in read}) > 1:
            point = self._point("join", name, node.op_type)
            self._connect(read, point)
            return _FlowSource(point)
        passed = _most(source.passed for source in read)
        if node.op_type in _NOTHING_DONE:
            return _FlowSource(read[0].point, passed)
        operator = node.op_type[:MOST_CHARACTERS]
        if operator not in passed and len(passed) >= MOST_OPERATORS:
            operator = OTHERS
        return _FlowSource(read[0].point, {**passed, operator: passed.get(operator, 0) + 1})

    def _carrying(self, node: ir.Node) -> Sequence[ir.Value]:
        """The results of a node that carry what it computes from the values it reads."""
        if node.op_type in _SIZES:
            return ()
        # Scale and zero point of what is quantized.
        return node.outputs[:1] if node.op_type == "DynamicQuantizeLinear" else node.outputs

    def _give(self, values: Iterable[ir.Value], source: _FlowSource | None) -> None:
        if source is not None:
            for value in values:
                self._sources[id(value)] = source

    def _point(self, role: PointRole, name: str, op_type: str) -> int:
        point = len(self._points)
        self.is_too_large |= point >= MOST_POINTS
        self._points.append(
            GraphPointRecord(
                point=point,
                role=role,
                name=name[:MOST_CHARACTERS],
                op_type=op_type[:MOST_CHARACTERS] or None,
                depth=None,
            )
        )
        return point

    def _connect(self, sources: Iterable[_FlowSource], target: int) -> None:
        for source in sources:
            key = (source.point, target)
            earlier = self._edges.get(key)
            self._edges[key] = source.passed if earlier is None else _most((earlier, source.passed))
        self.is_too_large |= len(self._edges) > MOST_EDGES

    def flow(self) -> Flow:
        """Without what leads nowhere; what no layer follows any more is the output."""
        output = len(self._points) - 1
        followers: dict[int, list[int]] = {}
        for source, target in self._edges:
            followers.setdefault(source, []).append(target)
        leads_to_layer, leads_to_output = set[int](), {output}
        # A point comes after whatever feeds it.
        for point in reversed(self._points):
            behind = followers.get(point.point, ())
            if point.role == "layer" or any(target in leads_to_layer for target in behind):
                leads_to_layer.add(point.point)
            if any(target in leads_to_output for target in behind):
                leads_to_output.add(point.point)
        edges: dict[tuple[int, int], _Passed] = {}
        for (source, target), passed in self._edges.items():
            is_kept = target in leads_to_layer
            if source not in leads_to_layer or not (is_kept or target in leads_to_output):
                continue
            key = (source, target if is_kept else output)
            edges[key] = _most((edges.get(key, {}), passed, self._through(target, is_kept, output)))
        at_edges = {point for edge in edges for point in edge}
        numbers = {
            point.point: number
            for number, point in enumerate(
                point for point in self._points if point.role == "layer" or point.point in at_edges
            )
        }
        return Flow(
            tuple(self._renumbered(numbers)),
            tuple(
                GraphEdgeRecord(
                    source_point=numbers[source],
                    target_point=numbers[target],
                    operators=json.dumps(passed, ensure_ascii=False),
                )
                for (source, target), passed in sorted(edges.items())
            ),
        )

    def _through(self, target: int, is_kept: bool, output: int) -> _Passed:
        """The join that an edge passes through, where the join itself is part of the output."""
        operator = self._points[target].op_type
        return {} if is_kept or target == output or operator is None else {operator: 1}

    def _renumbered(self, numbers: Mapping[int, int]) -> Iterator[GraphPointRecord]:
        for point in self._points:
            if point.point in numbers:
                yield GraphPointRecord(
                    point=numbers[point.point],
                    role=point.role,
                    name=point.name,
                    op_type=point.op_type,
                    depth=point.depth,
                )


def _layer_point(point: int, depth: int, site: Site) -> GraphPointRecord:
    return GraphPointRecord(
        point=point, role="layer", name=site.name, op_type=site.node.op_type, depth=depth
    )


def _most(paths: Iterable[_Passed]) -> _Passed:
    """Of each operator as many as any one path has: x + x counts nothing twice."""
    most: dict[str, int] = {}
    for passed in paths:
        for operator, times in passed.items():
            if operator not in most and len(most) >= MOST_OPERATORS:
                operator = OTHERS
            most[operator] = max(times, most.get(operator, 0))
    return most
