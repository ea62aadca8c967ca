"""A file and samples in, the network that is run on them out: cut where it is compared.

What every caller that runs a network on somebody's inputs does first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from quantstore import graph
from quantstore.errors import RunError
from quantstore.run import decoder, noise, points, twin
from quantstore.run.decoder import Decoder
from quantstore.run.inputs import Samples
from quantstore.run.layers import FileLayers, LayerKey
from quantstore.run.network import Network
from quantstore.run.points import Points
from quantstore.run.probe_figures import NO_FLOAT_OUTPUT_DEPENDS
from quantstore.run.stored_grids import BRANCHING


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """What is run.

    ``behind``: the decoder, None without one. ``layer_of``: by the name of weights in the network,
    the layer of the file. ``holds_scores``: whether what is compared are scores of classes.
    """

    network: Network
    behind: Decoder | None
    points: Points
    holds_scores: bool
    layer_of: Mapping[str, LayerKey]


@dataclass(frozen=True, slots=True)
class CutModel:
    """A model that ends where it is compared, its shapes fixed.

    ``every_name``: of the nodes of the file, those that the cut drops included; ``order``: its
    tensors in the order in which they are computed.
    """

    model: onnx.ModelProto
    points: Points
    holds_scores: bool
    every_name: frozenset[str]
    order: tuple[str, ...]
    layers: FileLayers

    def prepared(self, folder: Path, *, fold: bool) -> PreparedModel:
        """The network, folded and taken apart.

        Raises:
            RunError: onnxruntime refuses the model.
        """
        network, behind = decoder.prepare(self.model, self.points, folder, fold=fold)
        layer_of = self.layers.keys_in(network)
        return PreparedModel(network, behind, self.points, self.holds_scores, layer_of)


def cut(model: twin.FloatModel, samples: Samples) -> CutModel:
    """Cut a model where it is compared and fix what the samples fix, in place.

    Raises:
        RunError: no float output depends on the inputs.
    """
    # What the cut drops can be named all the same: it is in float then, as if it were there.
    every_name = frozenset(str(node.name) for node in model.model.graph if node.name)
    freeze_scalars(model.model, samples)
    has_one_output = len(model.model.graph.outputs) == 1
    cut_points = points.cut(model.model, keeps_decoder=True)
    if not cut_points.names:
        raise RunError(NO_FLOAT_OUTPUT_DEPENDS)
    fix_shapes(model.model, samples)
    return CutModel(
        model=twin.to_proto(model),
        points=cut_points,
        # What is left before a selection are no scores of classes, though it may look alike.
        holds_scores=has_one_output and "the last tensors" not in cut_points.description,
        every_name=every_name,
        order=tuple(str(output.name) for node in model.model.graph for output in node.outputs),
        layers=FileLayers.of(model),
    )


def stored_depths(path: Path) -> dict[LayerKey, int]:
    """The depth of every layer of a file, as the store counts."""
    file = graph.open_model(path)
    sites = [site for site in graph.find_sites(file) if graph.read_layer(file, site) is not None]
    return {LayerKey.of(site): depth for depth, site in enumerate(sites)}


def freeze_scalars(model: ir.Model, samples: Samples) -> tuple[str, ...]:
    """Whole numbers that choose a branch become constants, so that the branch is quantized.

    Returns:
        Names of the inputs that they were.
    """
    first, last = samples[0], samples[len(samples) - 1]
    names = [name for name in noise.frozen_inputs(model) if (first[name] == last[name]).all()]
    for name in names:
        twin.freeze_input(model, name, first[name])
    return tuple(names)


def fix_shapes(model: ir.Model, samples: Samples) -> None:
    """Write the shapes that are fed into the model, so that what hangs on them is constant."""
    if any(node.op_type in BRANCHING for node in model.graph):
        return
    feed = samples[0]
    for value in model.graph.inputs:
        if value.name in feed:
            value.shape = ir.Shape(feed[value.name].shape)
