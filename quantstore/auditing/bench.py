"""Two files in, one network out that can be either: float or int8 weights, rounded or not.

The network is the int8 file in float arithmetic with the float file's weights put in. Its weights
and its grids are inputs (``run.emulator``), so that every figure of an audit is a run with other
inputs. What the float file itself gives on the samples is what all of them are held against.
"""

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from quantstore import graph
from quantstore.auditing.choices import AuditChoices
from quantstore.auditing.layers import (
    MOST_RELATIVE_ERROR,
    AuditedLayer,
    AuditedPair,
    layers_of,
    pair_layers,
)
from quantstore.auditing.tensors import PairedTensors, bias_behind, pair_tensors
from quantstore.auditing.weights import Rescaling, relative_error, rescaling
from quantstore.errors import QuantstoreError, RunError
from quantstore.file_formats import QONNX
from quantstore.graph import Site
from quantstore.graph.fold import values_of
from quantstore.records import Array, Floats
from quantstore.run import outputs, points, stored_grids, subject, twin
from quantstore.run.choices import NOISE, Choices, ReportProgress
from quantstore.run.comparison import Reference
from quantstore.run.emulator import Emulator, Plan
from quantstore.run.feeding import choose_samples
from quantstore.run.grids import ActivationGrid
from quantstore.run.inputs import CACHE_BYTES, Samples
from quantstore.run.layers import LayerKey
from quantstore.run.network import Network, taken_apart
from quantstore.run.outputs import JudgedPart
from quantstore.run.placement import Bias, Placement
from quantstore.run.points import Part, Points
from quantstore.run.probe_figures import NO_FLOAT_OUTPUT_DEPENDS
from quantstore.run.restore import StoredGrid
from quantstore.run.runtime import Session
from quantstore.run.workplace import Workplace
from quantstore.wording.units import NO_BREAK_SPACE, counted

NOT_FLOAT = "is an integer model itself"
IS_QONNX = "is a QONNX file, whose quantizers cannot be taken out one at a time"
NOT_QUANTIZED = "holds no integer weights and rounds no activations"
OTHER_INPUTS = "the two files have different inputs"
# A tensor of the float file and its partner agree that far where nothing is rounded; a pair that
# does not is none. What remains are biases, which the int8 file holds as integers.
LEAST_AGREEMENT_DB = 20.0
# Rounding to 8 bits leaves less than this of a difference; factors of channels leave more.
LEAST_RELATIVE_ERROR = 0.02
# Factors that leave so much of a difference do not explain it.
EXPLAINED = 0.5
# What the files must agree better with rescaled weights.
LEAST_GAIN_DB = 1.0
FROM_ANOTHER = "audit an int8 file against the float file that it was made from"
WITH_BIAS = ("Conv", "ConvTranspose", "Gemm")


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A tensor as the int8 file has it: floats, or codes with their scale and zero point."""

    name: str
    grid: StoredGrid | None = None

    def floats(self, array: Array) -> Array:
        """What its values stand for."""
        if self.grid is None:
            return array
        codes = array.astype(np.float32) - np.float32(self.grid.zero_point)
        return np.asarray(codes * np.float32(self.grid.scale), np.float32)


@dataclass(frozen=True, slots=True)
class KeptDb:
    """What the outputs keep one way: the worst that decides, and part by part."""

    deciding_db: float
    parts: tuple[JudgedPart, ...]


class AuditBench:
    """Both files, open, paired and ready to run."""

    def __init__(
        self,
        float_path: Path,
        int8_path: Path,
        inputs: str,
        choices: AuditChoices,
        folder: Path,
        report: ReportProgress,
    ) -> None:
        """Read, pair, feed.

        Raises:
            QuantstoreError: a file cannot be read, the inputs do not fit, or the files are no pair.
        """
        self.work = Workplace(
            # Nothing is calibrated: every sample is compared.
            Choices(target="int8_weights", samples=choices.samples, preprocess=choices.preprocess),
            folder,
            report,
        )
        self.notes: list[str] = []
        self.work.say("reading", 0, 1)
        with _naming(float_path):
            self.before = twin.open_float(float_path)
        if self.before.was_quantized:
            raise RunError(f"{float_path.name} {NOT_FLOAT}", "name the float file first")
        with _naming(int8_path):
            self._file = graph.open_model(int8_path)
            if self._file.file_format == QONNX:
                raise RunError(f"{int8_path.name} {IS_QONNX}", "audit an int8 file made from it")
            self.after = stored_grids.open_rounding(int8_path)
        self.float_layers = layers_of(self.before.file)
        self.int8_layers = layers_of(self._file)
        if not self.after.was_quantized and all(
            layer.stored_scheme is None for layer in self.int8_layers
        ):
            raise RunError(f"{int8_path.name} {NOT_QUANTIZED}", "name the int8 file second")
        self.work.say("pairing layers and tensors", 0, 1)
        self.pairs = pair_layers(self.float_layers, self.int8_layers)
        # What is an input w of QLinearConv is W of the Conv that stands for it.
        self._key_at = {
            position: LayerKey.of(site)
            for position, site in _places(layer.site for layer in self.int8_layers).items()
        }
        self._restored = restored = {
            self._key_at[position]: site
            for position, site in _places(graph.find_sites(self.after.file)).items()
            if position in self._key_at
        }
        self.rescaling_of: dict[LayerKey, Rescaling] = {}
        self.tensors: PairedTensors = pair_tensors(
            self.before.model,
            self.after.model,
            self.after.grids,
            [
                (pair, restored[key].node)
                for pair in self.pairs
                if (key := LayerKey.of(pair.after.site)) in restored
            ],
        )
        chosen = choose_samples(self.work, self.before.model, inputs)
        self.notes += chosen.notes
        self.samples, self.is_real = chosen.compared, inputs != NOISE
        self._fed_as = self._input_names()
        self._set_bounds()
        cut_model, self.points, ends = self._where_compared(float_path)
        self._file_tensors = [self._in_file(value) for value in ends]
        self.expected = self._float_outputs(cut_model)
        # By the name of weights, that of their bias, and what the int8 file has there.
        self.bias_of: dict[str, str] = {}
        self._int8_biases: dict[str, Array] = {}
        apart = self._taken_apart(ends)
        self._put_together(apart)
        self._follow_rescaling(apart)

    # Inputs and points

    @cached_property
    def fed_samples(self) -> Samples:
        """All samples, under the names of the int8 file; kept where there is room for them."""

        def feed(index: int) -> dict[str, Array]:
            sample = self.samples[index]
            return {name: sample[source] for name, source in self._fed_as.items()}

        first = feed(0)
        count = len(self.samples)
        if count * sum(array.nbytes for array in first.values()) > CACHE_BYTES:
            return Samples(self.samples.description, count, feed)
        kept = [first, *(feed(index) for index in range(1, count))]
        return Samples(self.samples.description, count, kept.__getitem__)

    def feeds(self) -> Iterator[dict[str, Array]]:
        """One after the other."""
        return (self.fed_samples[index] for index in range(len(self.samples)))

    @cached_property
    def float_name_of(self) -> dict[str, str]:
        """By the name of what is rounded, what the float file calls it."""
        return {str(pair.after.name): str(pair.before.name) for pair in self.tensors.pairs}

    def _input_names(self) -> dict[str, str]:
        """By the name of an input of the int8 file, that of the float file."""
        named = {
            str(pair.after.name): str(pair.before.name)
            for pair in self.tensors.pairs
            if pair.found_by == "input"
        }
        # Behind its rounding an input has another name.
        by_origin = {str(value.name): str(value.name) for value in _inputs_of(self.before.model)}
        fed: dict[str, str] = {}
        others = iter(_inputs_of(self.before.model))
        for value in _inputs_of(self.after.model):
            name, source = str(value.name), next(others, None)
            partner = named.get(name) or by_origin.get(name)
            if partner is None and source is not None:
                partner = str(source.name)
            array = None if partner is None else self.samples[0].get(partner)
            if partner is None or array is None:
                raise RunError(
                    f"{OTHER_INPUTS}: {name!r} of the int8 file is not an input of the float file",
                    FROM_ANOTHER,
                )
            if value.dtype is not None and value.dtype.numpy() != array.dtype:
                raise RunError(
                    f"{OTHER_INPUTS}: {name!r} holds {value.dtype.numpy()} in the int8 file and"
                    f" {array.dtype} in the float file",
                    "export the int8 file with the inputs of the float file",
                )
            sizes = _fixed_sizes(value, array.ndim)
            if any(
                size not in (None, sample_size)
                for size, sample_size in zip(sizes, array.shape, strict=False)
            ):
                raise RunError(
                    f"{OTHER_INPUTS}: {name!r} has the shape"
                    f" {'x'.join(str(size or '?') for size in sizes)} in the int8 file and"
                    f" {'x'.join(map(str, array.shape))} in the float file",
                    "export both with inputs of the same shape",
                )
            fed[name] = partner
        return fed

    def _set_bounds(self) -> None:
        """Let tensors that are not rounded pass as far as the float file lets them.

        A Relu that the quantizer dropped lives on in the ends of a grid; where the float file is
        known to have none, the ends are part of the rounding alone.
        """
        for grid in self.after.grids:
            if grid.is_dynamic:
                continue
            bounds = self.tensors.bounds.get(grid.clip.outputs[0]) or stored_grids.kept_bounds(grid)
            stored_grids.set_bounds(self.after.model, grid, bounds)

    def _where_compared(self, float_path: Path) -> tuple[twin.FloatModel, Points, list[ir.Value]]:
        """The float model, ending at its points, and what stands for them in the int8 file.

        Where a point has no partner, all is compared at the outputs of the files.
        """
        model = twin.open_float(float_path)
        partner = {str(pair.before.name): pair.after for pair in self.tensors.pairs}
        float_points = points.cut(model.model)
        if not float_points.names:
            raise RunError(NO_FLOAT_OUTPUT_DEPENDS)
        named = {name: name for name in float_points.names} | {
            name: self.tensors.folded[name]
            for name in float_points.names
            if name not in partner and name in self.tensors.folded
        }
        if all(name in partner for name in named.values()):
            if any(name != other for name, other in named.items()):
                # A factor behind a point changes no SQNR.
                model = twin.open_float(float_path)
                values = _values_of(model.model)
                stored_grids.end_at(model.model, [values[name] for name in named.values()])
                float_points = _renamed(float_points, named)
            return model, float_points, [partner[name] for name in float_points.names]
        model = twin.open_float(float_path)
        kept, ends = [], []
        theirs = list(self.after.model.graph.outputs)
        by_name = {value.name: value for value in theirs}
        mine = list(model.model.graph.outputs)
        for index, value in enumerate(mine):
            end = by_name.get(value.name)
            if end is None and len(theirs) == len(mine):
                end = theirs[index]
            if end is not None and value.dtype in points.FLOATS and end.dtype in points.FLOATS:
                kept.append(value)
                ends.append(end)
        if not ends:
            raise RunError("the two files have no output in common", FROM_ANOTHER)
        stored_grids.end_at(model.model, kept)
        names = tuple(str(value.name) for value in kept)
        point_parts = tuple(Part(name, "", (name,), "the output") for name in names)
        return model, Points(names, "the outputs", point_parts), ends

    def _in_file(self, value: ir.Value) -> FileTensor | None:
        """What the int8 file calls a tensor; None where it has none like it."""
        for grid in self.after.grids:
            if grid.clip.outputs[0] is value:
                return FileTensor(grid.file_tensor, grid if grid.has_codes else None)
        name = str(value.name)
        return FileTensor(name) if name in _values_of(self._file.model) else None

    def _float_outputs(self, model: twin.FloatModel) -> list[list[Array]]:
        """What the float file gives at the points, sample by sample.

        Raises:
            RunError: onnxruntime stops, or an output is no number.
        """
        subject.fix_shapes(model.model, self.samples)
        session = Session(twin.to_proto(model))
        expected = []
        for index in range(len(self.samples)):
            self.work.say("running the float file", index, len(self.samples))
            expected.append(session.run(self.samples[index], self.points.names))
        # Says what is wrong with the outputs, where something is.
        Reference(self.points.names, expected)
        return expected

    # The network and its plans

    def _taken_apart(self, ends: list[ir.Value]) -> Network:
        """The int8 file in float arithmetic, its weights apart from its graph."""
        # A graph names an output once.
        stored_grids.end_at(self.after.model, list(dict.fromkeys(ends)))
        stored_grids.fix_input_shapes(self.after.model, self.fed_samples[0])
        self.ends = tuple(str(value.name) for value in ends)
        apart = taken_apart(self.after, tuple(dict.fromkeys(self.ends)), fold=False)
        self.int8_weights = dict(apart.constants)
        name_of = {id(slot.site): name for name, slot in apart.slot_of.items()}
        self.slot_of = {
            self._key_at[position]: name_of[id(site)]
            for position, site in _places(slot.site for slot in apart.slot_of.values()).items()
            if position in self._key_at
        }
        return apart

    def _put_together(self, apart: Network) -> None:
        """The network of both files: the int8 file's graph, the float file's weights and biases."""
        floats: dict[str, Array] = {}
        biases: dict[str, Array] = {}
        for pair in self.pairs:
            name = self.slot_of.get(LayerKey.of(pair.after.site))
            if name is None:
                continue
            slot = apart.slot_of[name]
            floats[name] = self._as_in_float_file(pair, slot)
            bias = _lone_bias(slot.site.node)
            float_bias = self._float_bias(pair)
            if bias is not None and float_bias is not None:
                self.bias_of[name] = str(bias.name)
                biases[str(bias.name)] = float_bias
        model = onnx.ModelProto()
        model.CopyFrom(apart.model)
        for tensor in model.graph.initializer:
            if tensor.name in biases:
                stored = onnx.numpy_helper.to_array(tensor)
                float_bias = np.broadcast_to(biases[tensor.name].ravel(), stored.ravel().shape)
                float_bias = float_bias.reshape(stored.shape).astype(stored.dtype)
                self._int8_biases[tensor.name] = stored
                tensor.CopyFrom(onnx.numpy_helper.from_array(float_bias, tensor.name))
        self.network = dataclasses.replace(
            apart, model=model, constants={**apart.constants, **floats}
        )
        self.grids = stored_grids.in_network(self.after.grids, self.network)
        placed = Placement(
            activations=tuple(self.grids),
            weights=tuple(self.network.slot_of),
            # They are fed as well; nothing is rounded anew.
            biases=tuple(Bias(name, "", slot) for slot, name in self.bias_of.items()),
        )
        self.emulator = Emulator(self.network, [placed], [self.grid_plan])

    def _follow_rescaling(self, apart: Network) -> None:
        """Rescale the float weights as the int8 file does, if that brings the two files together.

        Factors that cancel between layers (equalization, smooth quantization) change nothing that
        is computed. A scale that is wrong does, and stays.
        """
        best: dict[LayerKey, Rescaling] = {}
        best_db = math.nan
        # What the graph says is exact. What the weights say has their rounding in it.
        for factors in (self._rescalings(is_exact=True), self._rescalings(is_exact=False)):
            if factors.keys() <= best.keys():
                continue
            if math.isnan(best_db):
                best_db = self.db(Plan())
            self.rescaling_of = factors
            self._put_together(apart)
            rescaled_db = self.db(Plan())
            if rescaled_db >= best_db + LEAST_GAIN_DB:
                best, best_db = factors, rescaled_db
        if self.rescaling_of != best:
            self.rescaling_of = best
            self._put_together(apart)
        if not best:
            return
        layers = counted(len(best), "layer").replace(NO_BREAK_SPACE, " ")
        self.notes.append(
            f"The int8 file rescales the channels of {layers} (equalization or smooth"
            " quantization). Their float weights were rescaled likewise."
        )

    def _float_bias(self, pair: AuditedPair) -> Array | None:
        """What the float file adds behind a layer; None where something else is folded into it."""
        if pair.is_folded and pair.before.is_folded:
            return None
        bias = bias_behind(pair.before.site.node, self.before.file.opset)
        factors = self.rescaling_of.get(LayerKey.of(pair.after.site))
        if bias is None:
            return np.zeros(1, np.float32)
        if factors is None or not factors.scales_outputs:
            return bias
        return np.asarray(bias.ravel() * factors.rows, np.float32)

    def _as_in_float_file(self, pair: AuditedPair, slot: twin.Slot) -> Array:
        """The float weights of a pair, as the node of the int8 file reads its own."""
        int8_layer = twin.layer_of(self.after, slot)
        if int8_layer is None:
            return twin.float_weights(slot)
        weights = self.float_weights(pair)
        return np.array(twin.as_read(weights, slot.site, int8_layer), dtype=slot.dtype, order="C")

    def float_weights(self, pair: AuditedPair) -> Floats:
        """Effective weights of the float file as the int8 file should hold them.

        Channels that the int8 file rescales are rescaled.
        """
        weights = self._weights_as_they_are(pair)
        factors = self.rescaling_of.get(LayerKey.of(pair.after.site))
        return weights if factors is None else factors.applied(weights)

    def _weights_as_they_are(self, pair: AuditedPair) -> Floats:
        layer = graph.read_layer(self.before.file, pair.before.site, fold=pair.is_folded)
        if layer is None:
            raise _unreadable(pair.before)
        return layer.weights

    def _rescalings(self, *, is_exact: bool) -> dict[LayerKey, Rescaling]:
        """Of layers whose weights differ by factors of their channels: these factors.

        Args:
            is_exact: whether a Mul in front of the layer must say them.
        """
        explained = {}
        for pair in self.pairs:
            if pair.relative_error < LEAST_RELATIVE_ERROR:
                continue
            key = LayerKey.of(pair.after.site)
            weights, stored = self._weights_as_they_are(pair), self.stored_weights(pair.after)
            factors = self._factors_before(key, pair)
            if factors is not None:
                # Weights that are broken besides stay far from the file's; they come nearer.
                if relative_error(factors.applied(weights), stored) < pair.relative_error:
                    explained[key] = factors
            elif not is_exact:
                factors = rescaling(weights, stored, pair.before.input_count)
                remaining = relative_error(factors.applied(weights), stored)
                if remaining < min(EXPLAINED * pair.relative_error, MOST_RELATIVE_ERROR):
                    explained[key] = factors
        return explained

    def _factors_before(self, key: LayerKey, pair: AuditedPair) -> Rescaling | None:
        """The factors that a Mul in front of a layer of the int8 file undoes; None without one."""
        roundings = {node for grid in self.after.grids for node in grid.nodes}
        value = self._restored[key].node.inputs[0] if key in self._restored else None
        node = None if value is None else value.producer()
        while node is not None and node in roundings:
            value = node.inputs[0]
            node = None if value is None else value.producer()
        if node is None or node.op_type != "Mul":
            return None
        arrays = [values_of(operand, self.after.file.opset) for operand in node.inputs]
        constant = next((array for array in arrays if array is not None), None)
        if constant is None or not constant.all():
            return None
        factors = 1 / constant.astype(np.float64).ravel()
        row_count, inputs = pair.before.matrix_shape[0], pair.before.input_count
        if factors.size == inputs:
            return Rescaling(np.ones(row_count), factors, scales_outputs=False)
        # A depthwise convolution: each input channel has rows of its own.
        if inputs == 1 and row_count % factors.size == 0:
            rows = np.repeat(factors, row_count // factors.size)
            return Rescaling(rows, np.ones(1), scales_outputs=False)
        return None

    def stored_weights(self, layer: AuditedLayer) -> Floats:
        """Effective weights of the int8 file."""
        read = graph.read_layer(self._file, layer.site, fold=False)
        if read is None:
            raise _unreadable(layer)
        return read.weights

    @cached_property
    def grid_plan(self) -> dict[str, ActivationGrid]:
        """Every grid of the file."""
        return stored_grids.plan_of(self.grids)

    @cached_property
    def weight_plan(self) -> dict[str, Array]:
        """Every weight of the file that is not as in the float file, and every bias."""
        weights = {
            name: array
            for name, array in self.int8_weights.items()
            if array is not self.network.constants[name]
        }
        return {**weights, **self._int8_biases}

    def released(self, name: str) -> Plan:
        """The file as it is, but for one rounding: of a tensor, or of weights with their bias."""
        return self.plan.without([name, *filter(None, [self.bias_of.get(name)])])

    @cached_property
    def plan(self) -> Plan:
        """The file as it is."""
        return Plan(self.grid_plan, self.weight_plan)

    # KeptDb

    def run(self, plan: Plan) -> list[list[Array]]:
        """What the network gives at the points under a plan, sample by sample."""
        names = self.network.outputs
        order = [names.index(name) for name in self.ends]
        return [
            [arrays[index] for index in order] for arrays in self.emulator.run(plan, self.feeds())
        ]

    def figures(self, actual: Sequence[Sequence[Array]]) -> KeptDb:
        """What the outputs keep of those of the float file."""
        judged = outputs.judged(
            self.points.parts, self.points.names, self.expected, actual, is_real=self.is_real
        )
        return KeptDb(outputs.deciding_sqnr_db(judged), judged)

    def db(self, plan: Plan) -> float:
        """What the worst output that decides keeps under a plan."""
        return self.figures(self.run(plan)).deciding_db

    @property
    def has_integer_form(self) -> bool:
        """Whether the file can be run as it is where the networks are compared.

        onnxruntime crashes on integer kernels in branches.
        """
        return all(tensor is not None for tensor in self._file_tensors) and not any(
            node.op_type in stored_grids.BRANCHING for node in self._file.model.graph
        )

    @cached_property
    def _file_proto(self) -> onnx.ModelProto:
        """The int8 file itself, ending where the networks are compared."""
        twin.load_weights(self._file)
        values = {output.name: output for node in self._file.model.graph for output in node.outputs}
        tensors = [tensor for tensor in self._file_tensors if tensor is not None]
        codes = {
            tensor.name: tensor.grid.code_type for tensor in tensors if tensor.grid is not None
        }
        names = dict.fromkeys(tensor.name for tensor in tensors)
        stored_grids.end_at(self._file.model, [values[name] for name in names], codes)
        return ir.to_proto(self._file.model)

    def run_file(self, *, has_exact_sums: bool) -> list[list[Array]]:
        """The int8 file as onnxruntime runs it on this computer.

        Raises:
            RunError: onnxruntime refuses it, or stops.
        """
        session = Session(self._file_proto, has_integer_kernels=True, has_exact_sums=has_exact_sums)
        tensors = [tensor for tensor in self._file_tensors if tensor is not None]
        names = list(dict.fromkeys(tensor.name for tensor in tensors))
        file_outputs = []
        for feed in self.feeds():
            arrays = dict(zip(names, session.run(feed, names), strict=True))
            file_outputs.append([tensor.floats(arrays[tensor.name]) for tensor in tensors])
        return file_outputs


def _lone_bias(node: ir.Node) -> ir.Value | None:
    """The stored bias of a layer that no other layer shares."""
    bias = node.inputs[2] if len(node.inputs) > 2 and node.op_type in WITH_BIAS else None
    if bias is None or bias.const_value is None or len(bias.uses()) != 1:
        return None
    return bias


def _places(sites: Iterable[Site]) -> dict[tuple[str, int], Site]:
    """Layers by the name of their node, and which of its operands they are."""
    count: Counter[str] = Counter()
    by_place = {}
    for site in sites:
        by_place[site.name, count[site.name]] = site
        count[site.name] += 1
    return by_place


def _fixed_sizes(value: ir.Value, rank: int) -> list[int | None]:
    """The sizes that a file prescribes for an input, None where it leaves one open."""
    dims: Sequence[object] = [None] * rank if value.shape is None else value.shape.dims
    return [size if isinstance(size, int) else None for size in dims]


def _values_of(model: ir.Model) -> dict[str, ir.Value]:
    return {str(output.name): output for node in model.graph for output in node.outputs}


def _renamed(float_points: Points, named: Mapping[str, str]) -> Points:
    """The points under other names."""
    point_parts = tuple(
        dataclasses.replace(part, names=tuple(named[name] for name in part.names))
        for part in float_points.parts
    )
    return Points(tuple(named.values()), float_points.description, point_parts)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let what is wrong with one of the two files begin with its name."""
    try:
        yield
    except QuantstoreError as error:
        error.args = (f"{path.name}: {error}",)
        raise


def _unreadable(layer: AuditedLayer) -> RunError:
    return RunError(f"the weights of {layer.name!r} can no longer be read", "try again")


def _inputs_of(model: ir.Model) -> list[ir.Value]:
    return [value for value in model.graph.inputs if value.const_value is None]
