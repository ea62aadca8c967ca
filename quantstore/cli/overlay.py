"""The command that shows a model's bands and values in other viewers: overlay."""

import shlex
from pathlib import Path

import click

from quantstore.cli.names import ModelName
from quantstore.cli.output import counted, say
from quantstore.cli.root import commands, everywhere, target_option
from quantstore.schemes import TARGETS


@commands.command(position=78)
@click.argument("model", metavar="MODEL", type=ModelName())
@click.option(
    "--file",
    "named",
    type=click.Path(path_type=Path),
    metavar="MODEL.onnx",
    help="Read the model from this file. [default: where it was read from]",
)
@target_option
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    metavar="FOLDER",
    help="Write into this folder, replacing existing files. [default: the working folder]",
)
@everywhere
def overlay(db: Path, model: str, named: Path | None, target: str, output: Path) -> None:
    """Write files that show a stored MODEL in Model Explorer and Netron.

    NAME.METRIC.node_data.json colours the nodes in Model Explorer by band and remedy. If runs of
    the target are stored, there are also sensitivity, accumulated error and local error.
    NAME.annotated.onnx is the model with the same values in the properties of its nodes, for
    Netron. exclude.txt lists the nodes to keep in float: those that simulate --goal found, or else
    the broken layers.

    \b
    Examples:
      quantstore overlay digits-rescaled --target int8_tensor -o overlays/
      quantstore overlay rtmdet-nano --file moved/rtmdet-nano.onnx

    \b
    To open ONNX in Model Explorer, install its adapter (pip install ai-edge-model-explorer
    model-explorer-onnx):
      model-explorer rtmdet-nano.onnx --extensions=model_explorer_onnx \\
        --node_data_paths=rtmdet-nano.band.node_data.json
    """
    from quantstore import store
    from quantstore.charts.palette import BANDS, LIGHT
    from quantstore.pipeline import overlays
    from quantstore.rescuing.overlay import BandScale, known_metrics, open_original

    with store.reading(db) as connection:
        store.find_model(connection, model)
        graph_facts = overlays.graph_facts_of(connection, model, TARGETS[target])
    path = overlays.path_of(graph_facts.origin, named, db)
    original = open_original(path)
    scale = BandScale(graph_facts.limits, dict(zip(BANDS, LIGHT.band_fills, strict=True)))
    files = (
        *overlays.node_data(graph_facts, scale, original),
        overlays.annotated(graph_facts, original),
        overlays.excluded(graph_facts, original),
    )
    for written in overlays.write(files, output):
        say(f"wrote {written}")
    unplaced = original.unplaced(graph_facts.nodes)
    if unplaced:
        say(
            f"{counted(len(unplaced), 'node')} left out of the node data because the file does"
            f" not name them: {_named(unplaced)}"
        )
    left_out = next(file.skipped for file in files if file.kind == "exclude")
    if left_out:
        say(f"{counted(len(left_out), 'name')} left out of exclude.txt: {_named(left_out)}")
    if graph_facts.goal_db is None:
        say(
            "exclude.txt lists the broken layers, because no run of this target searched for a goal"
        )
    else:
        say(f"exclude.txt lists what a search for {graph_facts.goal_db:g} dB returned to float")
    if "accumulated" not in known_metrics(graph_facts.nodes):
        say(f"no run for {target} has tensor values; for more metrics: {_simulate(path, target)}")
    if original.has_external_data:
        say(f"the annotated model needs its external data: move the model to {path.parent}")


_MOST_NAMED = 3


def _named(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown}, …"


def _simulate(path: Path, target: str) -> str:
    return f"quantstore simulate {shlex.quote(str(path))} --inputs FOLDER --target {target}"
