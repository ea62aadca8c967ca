"""What is known of the nodes of a model in, the model with that drawn on its nodes out.

For two viewers, of the original file: Model Explorer takes node data as JSON, one file for each
metric; Netron shows what stands in ``metadata_props`` of a node. Weights are never touched, and
external data is not even read.

Sources: ``NodeDataProviderGraphData`` in
https://github.com/google-ai-edge/model-explorer/blob/main/src/ui/src/components/visualizer/common/types.ts
and https://github.com/onnx/onnx/blob/main/onnx/onnx.in.proto
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from quantstore.errors import ModelFileError
from quantstore.file_formats.signature import refuse_other_formats
from quantstore.graph.file import head_of

# Prefix of the properties of a node.
PREFIX = "quantstore."
# JSON knows no infinity: the SQNR of what comes back exactly.
EXACT_DB = 200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What is known of one node; None where it is not, infinite where no error is left.

    ``node``: its name, of an unnamed node that of its first output. ``band`` of the weights.
    ``sensitivity_db``: of the outputs where only this layer is quantized. ``accumulated_db`` and
    ``local_db``: of its first output, with everything before it quantized and without.
    ``remedy``: what would help the weights, in words.
    """

    node: str
    band: str | None = None
    sensitivity_db: float | None = None
    accumulated_db: float | None = None
    local_db: float | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A fact that is drawn: its field in :class:`NodeFacts`, its property, and its title."""

    field: str
    key: str
    title: str


METRICS = {
    "band": Metric("band", "band", "Band of the weights"),
    "sensitivity": Metric(
        "sensitivity_db", "sensitivity_db", "Output SQNR with only this layer quantized, dB"
    ),
    "accumulated": Metric("accumulated_db", "accumulated_db", "Accumulated SQNR, dB"),
    "local": Metric("local_db", "local_db", "Local SQNR, dB"),
    "remedy": Metric("remedy", "remedy", "What would help the weights"),
}


@dataclass(frozen=True, slots=True)
class BandScale:
    """The bands and their colours.

    ``limits``: by the band its lowest SQNR in dB; ``fills``: by the band the colour of a node, as
    ``#rrggbb``. Model Explorer writes in white on dark ones.
    """

    limits: Mapping[str, float]
    fills: Mapping[str, str]

    def band_of(self, sqnr_db: float) -> str:
        """The band of a SQNR."""
        return next(band for band, limit in self._downwards() if sqnr_db >= limit)

    def thresholds(self) -> list[dict[str, Any]]:
        """The highest value of each band, upwards, as Model Explorer wants them."""
        upwards = self._downwards()[::-1]
        tops = [*(limit for _, limit in upwards[1:]), EXACT_DB]
        return [
            {"value": top, "bgColor": self.fills[band]}
            for (band, _), top in zip(upwards, tops, strict=True)
        ]

    def _downwards(self) -> list[tuple[str, float]]:
        return sorted(self.limits.items(), key=lambda limit: -limit[1])


@dataclass(frozen=True)
class Original:
    """The file of a model, without its external data."""

    proto: onnx.ModelProto

    @property
    def graph_name(self) -> str:
        return str(self.proto.graph.name)

    @property
    def nodes(self) -> frozenset[str]:
        """Names of the nodes of the main graph; unnamed ones have none."""
        return frozenset(node.name for node in self.proto.graph.node if node.name)

    @property
    def has_external_data(self) -> bool:
        """Whether weights lie in other files."""
        return any(tensor.external_data for tensor in self.proto.graph.initializer)

    def unplaced(self, facts: Iterable[NodeFacts]) -> tuple[str, ...]:
        """What node data cannot be laid on: unnamed nodes, nodes of bodies and functions."""
        return tuple(fact.node for fact in facts if fact.node not in self.nodes)


def open_original(path: Path) -> Original:
    """Read a file that was read before; its graph is what it was then.

    Raises:
        ModelFileError: it is gone, was changed meanwhile, or is no ONNX file.
    """
    refuse_other_formats(head_of(path))
    try:
        return Original(onnx.load_model(str(path), load_external_data=False))
    except OSError as error:
        raise ModelFileError(f"{path.name}: changed while it was read", "try again") from error


def known_metrics(facts: Sequence[NodeFacts]) -> tuple[str, ...]:
    """Those of which anything is known."""
    return tuple(
        name
        for name, metric in METRICS.items()
        if any(getattr(fact, metric.field) is not None for fact in facts)
    )


def node_data(
    facts: Iterable[NodeFacts], metric: str, scale: BandScale, original: Original | None = None
) -> str:
    """One file for Model Explorer, of the nodes of which this is known.

    Args:
        metric: a key of :data:`METRICS`.
        original: without it nothing tells the name of the graph, and Model Explorer lays the data
            on the graph that it shows.
    """
    drawn = METRICS[metric]
    node_names = None if original is None else original.nodes
    results = {
        fact.node: _result(fact, metric, scale)
        for fact in facts
        if getattr(fact, drawn.field) is not None
        and (node_names is None or fact.node in node_names)
    }
    data: dict[str, Any] = {"name": f"quantstore: {drawn.title}", "results": results}
    if drawn.field.endswith("_db"):
        data["thresholds"] = scale.thresholds()
    content = data if original is None else {original.graph_name: data}
    return f"{json.dumps(content, indent=1, allow_nan=False)}\n"


def _result(fact: NodeFacts, metric: str, scale: BandScale) -> dict[str, Any]:
    value = getattr(fact, METRICS[metric].field)
    if isinstance(value, float):
        shown = round(min(max(value, -EXACT_DB), EXACT_DB), 2)
        return {"value": shown, "bgColor": scale.fills[scale.band_of(value)]}
    return {"value": value} | ({} if fact.band is None else {"bgColor": scale.fills[fact.band]})


def annotated(original: Original, facts: Iterable[NodeFacts]) -> onnx.ModelProto:
    """The model with properties on its nodes, which Netron shows; everything else as it is.

    The version of the intermediate representation stays, too: ``metadata_props`` of a node belong
    to version 10, but onnx.checker, onnxruntime and the viewers take them in files of any, while a
    later version would change what initializers mean that are inputs as well.
    """
    by_node = {fact.node: fact for fact in facts}
    model = onnx.ModelProto()
    model.CopyFrom(original.proto)
    for node in model.graph.node:
        fact = by_node.get(node.name or next((name for name in node.output if name), ""))
        if fact is None:
            continue
        kept = [entry for entry in node.metadata_props if not entry.key.startswith(PREFIX)]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        for metric in METRICS.values():
            value = getattr(fact, metric.field)
            if value is not None:
                node.metadata_props.add(key=f"{PREFIX}{metric.key}", value=_text(value))
    return model


def _text(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return "exact" if value == math.inf else f"{value:.1f}"


def readers(original: Original, tensors: Iterable[str]) -> tuple[str, ...]:
    """Names of the nodes that read one of these tensors, in the order of the graph."""
    names = frozenset(tensors)
    return tuple(
        node.name
        for node in original.proto.graph.node
        if node.name and not names.isdisjoint(node.input)
    )
