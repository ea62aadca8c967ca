"""A stored model in, files out that show its bands and values on the graph in other viewers.

The store says what is known of the nodes; the file of the model, where it still is what was
measured, says which nodes there are.
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantstore import queries, settings
from quantstore.errors import QuantstoreError
from quantstore.pipeline import stored_files
from quantstore.queries import Origin
from quantstore.rescuing import formats, overlay
from quantstore.rescuing.overlay import BandScale, NodeFacts, Original
from quantstore.schemes import Target
from quantstore.store import Connection
from quantstore.wording import frames, remedies, units

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFacts:
    """What the store knows of the nodes of a model under a target.

    ``limits``: of the bands. ``float_layers`` and ``float_tensors``: what a search for ``goal_db``
    returned to float; where none was made, ``goal_db`` is None, and these are the broken layers.
    """

    origin: Origin
    target: Target
    nodes: tuple[NodeFacts, ...]
    limits: Mapping[str, float]
    float_layers: tuple[str, ...]
    float_tensors: tuple[str, ...]
    goal_db: float | None


def graph_facts_of(con: Connection, model: str, target: Target) -> GraphFacts:
    """Ask the store.

    Args:
        model: one that it holds.
    """
    (origin,) = queries.origins(con, [model])
    scheme = target.layer_scheme.name
    layers = queries.worst_layers(con, model, scheme).merge(
        queries.layer_rescues(con, model, scheme), on="layer_id"
    )
    run = queries.drift_run(con, model, target)
    tensors = None if run is None else queries.drift(con, [run])
    float_set = queries.float_set(con, model, target)
    is_searched = not float_set.empty
    of_tensors = float_set["unit_kind"] == "tensor"
    broken = layers[layers["band"] == "broken"].sort_values("depth")["layer"]
    return GraphFacts(
        origin=origin,
        target=target,
        nodes=_nodes(
            layers,
            queries.node_sensitivities(con, model, target),
            tensors,
            has_per_channel=target.layer_scheme.is_per_channel,
        ),
        limits=queries.band_limits(con),
        float_layers=tuple(float_set[~of_tensors]["unit"] if is_searched else broken),
        float_tensors=tuple(float_set[of_tensors]["unit"]),
        goal_db=float(float_set["goal_db"].iloc[0]) if is_searched else None,
    )


def _nodes(
    layers: "pd.DataFrame",
    sensitivities: "pd.DataFrame",
    tensors: "pd.DataFrame | None",
    *,
    has_per_channel: bool,
) -> tuple[NodeFacts, ...]:
    """Of several weights or results of a node, the worst.

    Args:
        has_per_channel: a scale per channel is no remedy, for there is one.
    """
    columns = {
        column: name
        for column, name in remedies.REMEDIES.items()
        if not (has_per_channel and column == "per_channel_p10_db")
    }
    facts: dict[str, NodeFacts] = {}

    def add(name: object, **changes: float | str | None) -> None:
        fact = facts.get(str(name), NodeFacts(node=str(name)))
        facts[str(name)] = dataclasses.replace(fact, **changes)  # type: ignore[arg-type]

    # The worst comes first, and stays.
    for layer in layers.drop_duplicates("layer").sort_values("depth").to_dict("records"):
        now_db = frames.figure_or_none(layer["channel_sqnr_p10_db"])
        reached = frames.reached_with(layer, columns)
        helps = remedies.what_helps(layer["band"], now_db, reached)
        # Other viewers show a space that does not break as they like.
        remedy = helps.replace(units.NO_BREAK_SPACE, " ") or None
        add(layer["layer"], band=layer["band"], remedy=remedy)
    for row in sensitivities.to_dict("records"):
        add(row["node_name"], sensitivity_db=float(row["output_sqnr_db"]))
    if tensors is not None:
        worst_first = tensors.sort_values("sqnr_db", na_position="last")
        for row in worst_first.drop_duplicates("node_name").to_dict("records"):
            local_db = _db(row["local_db"]) if row["has_local"] else None
            add(row["node_name"], accumulated_db=_db(row["sqnr_db"]), local_db=local_db)
    return tuple(facts.values())


def _db(value: object) -> float:
    """A SQNR out of a frame; NULL is exact."""
    figure = frames.figure_or_none(value)
    return float("inf") if figure is None else figure


# The file


def path_of(origin: Origin, named: Path | None, store_path: Path) -> Path:
    """The file of a model, whose content is what was measured.

    Args:
        named: the file, where it is not where it was.

    Raises:
        ModelFileError: it is not there, cannot be read, or holds something else.
    """
    again = settings.command("ingest FILE --name NAME --replace", store_path)
    return stored_files.file_of(
        origin,
        store_path,
        named,
        if_gone="name it with --file MODEL.onnx",
        if_changed=f"name the right file with --file, or measure this one: {again}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file that is to be written; ``skipped``: names of nodes that it cannot hold."""

    kind: str
    name: str
    content: bytes
    skipped: tuple[str, ...] = ()


def node_data(
    graph_facts: GraphFacts, scale: BandScale, original: Original | None
) -> tuple[File, ...]:
    """A file for each metric of which anything is known of a node that has a name.

    Args:
        original: without it nothing tells which nodes have names.
    """
    stem = _stem(graph_facts.origin.model)
    pattern = formats.KINDS["node_data"].file_name(stem)
    facts: tuple[NodeFacts, ...] = graph_facts.nodes
    skipped: tuple[str, ...] = ()
    if original is not None:
        skipped = original.unplaced(facts)
        facts = tuple(fact for fact in facts if fact.node in original.nodes)
    return tuple(
        File(
            kind="node_data",
            name=pattern.replace("METRIC", metric),
            content=overlay.node_data(facts, metric, scale, original).encode(),
            skipped=skipped,
        )
        for metric in overlay.known_metrics(facts)
    )


def annotated(graph_facts: GraphFacts, original: Original) -> File:
    """The model itself, with properties on its nodes."""
    return File(
        kind="annotated",
        name=formats.KINDS["annotated"].file_name(_stem(graph_facts.origin.model)),
        content=overlay.annotated(original, graph_facts.nodes).SerializeToString(),
    )


def excluded(graph_facts: GraphFacts, original: Original | None) -> File:
    """Names of nodes to keep in float: of layers, and of what reads the tensors of a search.

    Args:
        original: without it nothing tells what reads a tensor: tensors are skipped.
    """
    if original is None:
        nodes, unknown = graph_facts.float_layers, graph_facts.float_tensors
    else:
        unknown = tuple(name for name in graph_facts.float_layers if name not in original.nodes)
        nodes = tuple(name for name in graph_facts.float_layers if name in original.nodes)
        nodes += overlay.readers(original, graph_facts.float_tensors)
    written = formats.exclude_txt(nodes)
    return File(
        kind="exclude",
        name=written.file_name,
        content=written.text.encode(),
        skipped=(*written.skipped, *unknown),
    )


def _stem(model: str) -> str:
    """The name of a model as that of a file: nothing in it but letters, digits and dots."""
    return re.sub(r"[^\w.]+", "-", model).strip("-.")[-60:] or "model"


def write(files: tuple[File, ...], folder: Path) -> tuple[Path, ...]:
    """Write files into a folder: all of them, or none.

    Raises:
        QuantstoreError: a file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            drafts = [(stack.enter_context(_draft(file, folder)), file) for file in files]
            return tuple(draft.replace(folder / file.name) for draft, file in drafts)
        except OSError as error:
            raise QuantstoreError(
                f"{folder}: cannot be written: {error.strerror or error}",
                "name a folder that you may write to",
            ) from error


@contextlib.contextmanager
def _draft(file: File, folder: Path) -> Iterator[Path]:
    """The content under another name, which is gone afterwards."""
    draft = folder / f".{file.name}.{os.getpid()}"
    try:
        draft.write_bytes(file.content)
        yield draft
    finally:
        draft.unlink(missing_ok=True)
