"""A file in, a float model that runs out, and the same with weights from one of our grids.

The grid is ours, by the same formulas as the stored errors: weights go through
``quantization.round_trip`` as a runtime would see them, BatchNormalization folded in, and come back
to where the file keeps them.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from quantstore import graph
from quantstore.errors import RunError
from quantstore.file_formats import QONNX
from quantstore.graph.attributes import number
from quantstore.graph.batchnorm import folding_after
from quantstore.graph.constants import computed
from quantstore.graph.fold import values_of
from quantstore.graph.operators import QONNX_DOMAINS
from quantstore.graph.tensors import read_array
from quantstore.layer import Layer
from quantstore.numerics.quantization import Grid, blocks_of, dequantize, grid_for, quantize
from quantstore.records import Array, Doubles
from quantstore.run.own_quantizers import in_standard_operators
from quantstore.run.precision import in_single_precision
from quantstore.run.restore import StoredGrid, float_arithmetic, new_constant
from quantstore.run.runtime import LOWEST_QDQ_OPSET, raise_opset
from quantstore.schemes import Scheme

# Below, onnx's converter and onnxruntime demand that every weight is an input of the graph too.
LOWEST_IR_VERSION = 8
# Weights of layers that are kept as they were read, beside those that are fed, and as they were
# rounded last.
KEPT_BYTES = 64 << 20
_SLOT = "quantstore_weights_{}"


@dataclass(frozen=True, slots=True)
class FloatModel:
    """A model in memory, in float arithmetic, as onnxruntime can run it.

    ``was_quantized``: the file computes with integers; they were turned back into floats, and what
    the first rounding lost is not known. ``grids``: where the file rounds activations.
    """

    file: graph.ModelFile
    was_quantized: bool
    grids: tuple[StoredGrid, ...] = ()
    _kept_layers: dict[str, Layer] = field(default_factory=dict, repr=False)
    # By the slot: the scheme that it was rounded by last, and what came of that.
    _kept_rounded: dict[str, tuple[Scheme, "RoundedWeights"]] = field(
        default_factory=dict, repr=False
    )

    @property
    def model(self) -> ir.Model:
        return self.file.model


@dataclass(frozen=True, slots=True)
class Slot:
    """One layer's weights: ``value`` is an initializer of its own in the main graph.

    ``depth`` counts the layers as the store does. ``factor`` is what BatchNormalization multiplies
    the stored tensor by, broadcastable against it, None where nothing is folded.
    """

    depth: int
    site: graph.Site
    value: ir.Value
    factor: npt.NDArray[np.float64] | None
    opset: int | None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the weights as the node reads them."""
        return np.dtype((self.value.dtype or ir.DataType.FLOAT).numpy())


def open_float(path: Path) -> FloatModel:
    """Read a file, its external weights too, and make a float model of it.

    Raises:
        ModelFileError: the file cannot be read.
        MissingWeightsError: external data is missing.
        RunError: it is of a format that cannot be run.
    """
    file = graph.open_model(path, is_judged=False)
    if file.file_format.why_not_run:
        raise RunError(
            f"{path.name} is a {file.file_format.name} file", file.file_format.why_not_run
        )
    return float_model(file)


def float_model(file: graph.ModelFile) -> FloatModel:
    """The same of an open file, whose model is changed in place."""
    load_weights(file)
    model = file.model
    model.ir_version = max(LOWEST_IR_VERSION, model.ir_version)
    _bind_initializers(model)
    in_single_precision(model)
    if file.file_format == QONNX:
        file = _without_qonnx(file)
        model = file.model
    grids = float_arithmetic(model)
    _replace_image_scalers(model)
    passes.RemoveUnusedNodesPass()(model)
    return FloatModel(file, grids is not None, grids or ())


def _without_qonnx(file: graph.ModelFile) -> graph.ModelFile:
    """The file with its quantizers in standard operators, in a set that knows these."""
    for domain in QONNX_DOMAINS:
        # Some files leave it out, and onnx converts none that does.
        file.model.opset_imports.setdefault(domain, 1)
    raised = raise_opset(to_proto(file.model))
    opset = max(LOWEST_QDQ_OPSET, file.opset or 0)
    file = dataclasses.replace(file, model=ir.from_proto(raised), opset=opset)
    in_standard_operators(file.model, opset)
    return file


def own_float_model(proto: onnx.ModelProto, path: Path) -> FloatModel:
    """A model that this process made of a float model.

    Args:
        path: of the model; its external weights lie beside it.
    """
    file = graph.own_model(proto, path)
    load_weights(file)
    _bind_initializers(file.model)
    return FloatModel(file, was_quantized=False)


def _bind_initializers(model: ir.Model) -> None:
    """An initializer that is an input too could be fed, so that nothing is folded into it."""
    for value in list(model.graph.inputs):
        if value.const_value is not None:
            model.graph.inputs.remove(value)


def to_proto(model: FloatModel | ir.Model) -> onnx.ModelProto:
    """What onnxruntime loads."""
    return ir.to_proto(model.model if isinstance(model, FloatModel) else model)


@dataclass(frozen=True, slots=True)
class Lifted:
    """``slots``: layers whose weights can be exchanged. ``packed``: names of those whose cannot:
    their codes are unpacked by the node itself.
    """

    slots: tuple[Slot, ...]
    packed: tuple[str, ...]


def lift_weights(model: FloatModel, *, fold: bool = True) -> Lifted:
    """Give every layer weights of its own, in place, so that one can be changed without another.

    Weights shared by layers, hidden in Constant nodes or behind Identity, or lying in the branch of
    an If: all become initializers of the main graph, which holds the float weights until
    :func:`fill` says otherwise.

    Raises:
        NoLayersError: there is no layer to quantize.
    """
    slots: list[Slot] = []
    packed: list[str] = []
    main = model.model.graph
    has_others = False
    depth = -1
    # What nobody reads is no layer.
    passes.RemoveUnusedNodesPass()(model.model)
    for site in graph.find_sites(model.file):
        layer = graph.read_layer(model.file, site, fold=fold)
        if layer is None:
            continue
        depth += 1
        slot_index = len(slots)
        weights = values_of(site.constant.value, model.file.opset)
        # Codes whose scale is another input of the node: floats in their place would be cut off.
        holds_codes = weights is not None and np.issubdtype(weights.dtype, np.integer)
        if weights is None or weights.shape != layer.shape or holds_codes:
            packed.append(site.name)
            continue
        if not site.is_stored:
            site = dataclasses.replace(site, constant=computed(weights, site.tensor.name))
        value = new_constant(main, _SLOT.format(slot_index), weights)
        factor = _factor(model.file, site, layer)
        if (factor is not None) == (layer.batchnorm_folded or layer.mul_folded):
            _keep(model, value, layer)
        before = site.node.inputs[site.operand.index]
        site.node.replace_input_with(site.operand.index, value)
        slots.append(Slot(depth, site, value, factor, model.file.opset))
        if before is not None and _is_left_alone(before, main):
            main.initializers.pop(str(before.name))
        else:
            has_others = True
    if has_others:
        # Nodes that computed weights, and what bodies held.
        passes.RemoveUnusedNodesPass()(model.model)
    return Lifted(tuple(slots), tuple(packed))


def _is_left_alone(value: ir.Value, main: ir.Graph) -> bool:
    """Whether nobody reads an initializer of the main graph any more."""
    is_stored = value.is_initializer() and value.graph is main
    return is_stored and not value.uses() and not value.is_graph_output()


def float_weights(slot: Slot) -> Array:
    """The weights as the node reads them."""
    values = values_of(slot.site.constant.value, slot.opset)
    if values is None:
        raise RunError(f"the weights of {slot.site.name!r} can no longer be read", "try again")
    return values


@dataclass(frozen=True, slots=True)
class RoundedWeights:
    """``values`` in the shape and type in which the node reads them; ``scale`` of each row of the
    scheme's grid: one for the tensor, or one for each channel or block.
    """

    values: Array
    scale: Doubles


def rounded_weights(
    model: FloatModel, slot: Slot, scheme: Scheme, least_scale: Doubles | None = None
) -> RoundedWeights:
    """What to put into a slot so that the layer's effective weights lie on the scheme's grid.

    A BatchNormalization stays in the graph: the slot gets the grid's values divided by its factor.
    No overflow: a grid value is at most twice the weight it stands for, so is the quotient.

    Args:
        least_scale: scales are raised to this, one for the tensor or one for each channel, where a
            grid of one scale for each is meant; other grids do not mind.
    """
    layer = layer_of(model, slot)
    if layer is None:
        return RoundedWeights(float_weights(slot), np.ones(1))
    finite = np.isfinite(layer.weights)
    # A weight that is no number has no place on a grid, and must not ruin that of the others.
    usable = layer.weights if finite.all() else np.where(finite, layer.weights, np.float32(0))
    rows = blocks_of(usable) if scheme.granularity == "block" else usable
    grid = grid_for(rows, scheme)
    if least_scale is not None and scheme.granularity != "block":
        grid = raised(grid, least_scale)
    # Targets differ in what they round besides: most of them give a layer the same grid.
    kept_scheme, kept = model._kept_rounded.get(str(slot.value.name), (None, None))
    if (
        kept is not None
        and kept_scheme == scheme
        and np.array_equal(kept.scale, grid.scale.ravel())
    ):
        return kept
    returned = dequantize(quantize(rows, grid), grid)
    rounded = returned.reshape(usable.shape[0], -1)[:, : usable.shape[1]]
    if usable is not layer.weights:
        rounded = np.where(finite, rounded, layer.weights)
    values = as_read(rounded, slot.site, layer)
    if slot.factor is not None:
        factor = np.broadcast_to(slot.factor, values.shape)
        is_usable = np.isfinite(factor) & (factor != 0)
        unscaled = values.astype(np.float64) / np.where(is_usable, factor, 1)
        values = np.where(is_usable, unscaled, float_weights(slot))
    with np.errstate(over="ignore"):
        cast = np.array(values, dtype=slot.dtype, order="C")
    weights = RoundedWeights(cast, grid.scale.astype(np.float64).ravel())
    if str(slot.value.name) in model._kept_layers:
        model._kept_rounded[str(slot.value.name)] = scheme, weights
    return weights


def layer_of(model: FloatModel, slot: Slot) -> Layer | None:
    """The layer in a slot, kept while there is room: every target rounds it once more."""
    name = str(slot.value.name)
    if name in model._kept_layers:
        return model._kept_layers[name]
    layer = graph.read_layer(model.file, slot.site, fold=slot.factor is not None)
    if layer is not None:
        _keep(model, slot.value, layer)
    return layer


def _keep(model: FloatModel, value: ir.Value, layer: Layer) -> None:
    """Keep the layer of a slot while there is room."""
    kept = sum(other.weights.nbytes for other in model._kept_layers.values())
    if kept + layer.weights.nbytes <= KEPT_BYTES:
        model._kept_layers[str(value.name)] = layer


def raised(grid: Grid, least_scale: Doubles) -> Grid:
    """The grid with scales that are no smaller than these."""
    count = grid.scale.size
    if count == 1:
        least = np.array([least_scale.max()])
    elif least_scale.size % count == 0:
        # A ConvTranspose in groups has more biases than its stored tensor has channels.
        least = least_scale.reshape(-1, count).max(axis=0)
    else:
        return grid
    scale = np.maximum(grid.scale, least.reshape(grid.scale.shape)).astype(np.float32)
    return dataclasses.replace(grid, scale=scale)


def fill(slots: Sequence[Slot], weights: Sequence[Array]) -> None:
    """Put arrays into slots, in place; the next :func:`to_proto` carries them."""
    for slot, array in zip(slots, weights, strict=True):
        slot.value.const_value = ir.tensor(array, name=slot.value.name)


def weights_as_inputs(model: FloatModel, slots: Sequence[Slot]) -> None:
    """Make inputs of all slots, in place: one session then runs any weights, fed by slot name.

    Loading a session costs more than running it once, and a model whose weights exceed protobuf's
    2 GB still fits.
    """
    main = model.model.graph
    for slot in slots:
        main.initializers.pop(str(slot.value.name))
        slot.value.const_value = None
        main.inputs.append(slot.value)


def freeze_input(model: ir.Model, name: str, array: Array) -> None:
    """Turn an input into a constant, in place, so that onnxruntime can decide an If by it."""
    value = next(value for value in model.graph.inputs if value.name == name)
    value.replace_all_uses_with(new_constant(model.graph, f"{name}_frozen", array))
    model.graph.inputs.remove(value)


def load_weights(file: graph.ModelFile) -> None:
    """Read external weights into memory, with our own reader, which watches the paths."""
    for part in file.model.graphs():
        for value in part.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                array = read_array(value.const_value)
                value.const_value = ir.tensor(array, name=value.name)
        for node in part:
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR:
                    tensor = attribute.as_tensor()
                    if isinstance(tensor, ir.ExternalTensor):
                        loaded = ir.tensor(read_array(tensor), name=tensor.name)
                        node.attributes[name] = ir.AttrTensor(name, loaded)


def _replace_image_scalers(model: ir.Model) -> None:
    """ONNX 1.0's ImageScaler: onnxruntime runs it, onnx can convert no model that has one."""
    main = model.graph
    for node in list(main):
        if node.op_type != "ImageScaler" or "bias" not in node.attributes:
            continue
        bias = np.array(node.attributes["bias"].as_floats(), np.float32).reshape(1, -1, 1, 1)
        scale = np.array(number(node, "scale", 1.0), np.float32)
        product = ir.node("Mul", [node.inputs[0], new_constant(main, f"{node.name}_scale", scale)])
        total = ir.node("Add", [product.outputs[0], new_constant(main, f"{node.name}_bias", bias)])
        for new in (product, total):
            main.insert_before(node, new)
        node.outputs[0].replace_all_uses_with(total.outputs[0], replace_graph_outputs=True)
        main.remove(node, safe=True)


def _factor(
    file: graph.ModelFile, site: graph.Site, layer: Layer
) -> npt.NDArray[np.float64] | None:
    """The factor of the BatchNormalization that was folded, shaped for the stored tensor."""
    if not (layer.batchnorm_folded or layer.mul_folded):
        return None
    shape, groups = layer.shape, layer.group_count
    is_first = layer.channel_axis == 0
    channels = shape[0] if is_first else shape[1] * groups
    folding = folding_after(site.node, channels, file.opset or 1, rank=len(shape))
    if folding is None:
        return None
    trailing = (1,) * (len(shape) - 2)
    if is_first:
        return folding.factor.reshape(-1, 1, *trailing)
    # ConvTranspose: input channels (axis 0) come group by group, each with its own outputs.
    by_group = folding.factor.reshape(groups, shape[1])
    return np.repeat(by_group, shape[0] // groups, axis=0).reshape(shape[0], shape[1], *trailing)


def without_channels(slot: Slot, layer: Layer, is_left_out: npt.NDArray[np.bool_]) -> Array:
    """The weights as the node reads them, some channels of the layer at zero."""
    stored = float_weights(slot)
    kept = np.ones_like(layer.weights)
    kept[is_left_out] = 0
    return np.asarray(stored * as_read(kept, slot.site, layer), dtype=stored.dtype, order="C")


def as_read(
    rows: npt.NDArray[np.float32], site: graph.Site, layer: Layer
) -> npt.NDArray[np.float32]:
    """``(channels, weights per channel)`` back in the shape in which the node reads the tensor."""
    axis = layer.channel_axis
    if site.operand.joined_axis is not None:
        # Directions come first, each with its own channels: the order of the rows already.
        return rows.reshape(layer.shape)
    if axis is None:
        return rows.reshape(layer.shape)
    rest = [size for index, size in enumerate(layer.shape) if index != axis]
    return np.moveaxis(rows.reshape(layer.shape[axis], *rest), 0, axis)
