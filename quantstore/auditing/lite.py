"""An audit of two TensorFlow Lite files: what can be said without taking them apart.

LiteRT runs both files and shows every tensor, so that weights, grids and drift are known as for
ONNX files. It computes with integers only: weights or activations alone, and roundings that are
left out one at a time, would need another file.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir

from quantstore import graph
from quantstore.auditing.choices import Audit, AuditChoices
from quantstore.auditing.layers import layers_of, pair_layers
from quantstore.auditing.rows import NO_WEIGHTS, layer_record, output_records
from quantstore.auditing.tensors import pair_tensors
from quantstore.auditing.weights import WeightFigures, weight_figures
from quantstore.errors import RunError
from quantstore.numerics.quantization import sqnr_db
from quantstore.records import Array, AuditLayerRecord, AuditRecord, AuditTensorRecord
from quantstore.run import noise, outputs
from quantstore.run.choices import NOISE, Choices, ReportProgress
from quantstore.run.clock import Clock
from quantstore.run.histogram import SharedHistogram
from quantstore.run.inputs import ModelInput, Samples, read_samples
from quantstore.run.litert import LiteSession, LiteTensorGrid, version
from quantstore.run.outputs import JudgedPart
from quantstore.run.points import Part
from quantstore.run.ranges import Observed
from quantstore.run.restore import StoredGrid
from quantstore.run.stored_grids import GridFigures, figures_of
from quantstore.run.workplace import Workplace

NOT_FLOAT = "holds integer weights or activations itself"
NOT_QUANTIZED = "holds no integer weights and rounds no activations"
FROM_ANOTHER = "audit an int8 file against the float file that it was made from"
NOT_TAKEN_APART = (
    "LiteRT computes a TensorFlow Lite file with integers only: the values of weights alone, of"
    " activations alone and of roundings left out one at a time are not measured. In place of float"
    " arithmetic stand LiteRT's reference kernels."
)
# Kernels of a computer that differ by more from the reference do something else.
_TELLING_GAP_DB = 1.0
_NOISE_SEED = 22
# What hides a difference at an output, and what hands values on: the points are before them.
_SQUASHING = ("SOFTMAX", "LOG_SOFTMAX", "Sigmoid")
_PASSING = ("Identity", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE")
_MOST_STEPS = 1_000


@dataclass(slots=True)
class _Drift:
    """Energies of a tensor and of its error over the samples."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, before: Array, after: Array) -> None:
        if before.shape != after.shape:
            return
        usable = np.isfinite(before)
        y = before[usable].astype(np.float64)
        difference = after[usable].astype(np.float64) - y
        self.signal += float(y @ y)
        self.noise += float(difference @ difference)

    @property
    def db(self) -> float:
        return float(sqnr_db(self.signal, self.noise)) if self.signal else math.nan


@dataclass(slots=True)
class _RoundedTensor:
    """A tensor of codes, its partner in the float file, and what both showed."""

    name: str
    grid: LiteTensorGrid
    float_name: str | None
    observed: Observed = field(default_factory=lambda: Observed(histogram=SharedHistogram.of_one()))
    drift: _Drift = field(default_factory=_Drift)

    def figures(self) -> GridFigures:
        """How the grid fits the float tensor."""
        value = ir.Value(name=self.name)
        stored = StoredGrid(
            source=value,
            clip=ir.Node("", "Clip", [value], num_outputs=1),
            scale=self.grid.scale,
            zero_point=self.grid.zero_point,
            lowest=self.grid.lowest,
            highest=self.grid.highest,
            file_tensor=self.name,
            has_codes=True,
        )
        return figures_of(self.observed if self.observed.range is not None else None, stored)


class LiteAudit:
    """Both files, open and paired; :meth:`answer` runs them."""

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
        self._clock = Clock()
        self._work = Workplace(Choices(target="int8_weights"), folder, report)
        self._work.say("reading", 0, 1)
        self._before, self._after = graph.open_any(float_path), graph.open_any(int8_path)
        self._float_layers, self._int8_layers = layers_of(self._before), layers_of(self._after)
        self._float = LiteSession(float_path)
        self._int8 = LiteSession(int8_path)
        self._reference = LiteSession(int8_path, has_reference_kernels=True)
        self._require_kinds(float_path, int8_path)
        self._work.say("pairing layers and tensors", 0, 1)
        self._pairs = pair_layers(self._float_layers, self._int8_layers)
        self._partners = self._paired_tensors()
        self._tensors = list(self._rounded_tensors())
        self._is_real = inputs != NOISE
        self._notes = [NOT_TAKEN_APART]
        self._samples = self._chosen(inputs, choices)
        self._parts = list(self._compared())

    def answer(self) -> Audit:
        """Run both files, and give everything that was found."""
        figures_of_way = self._run()
        judged = figures_of_way["grid"]
        weights = self._weight_figures()
        grid_db, integer_db = (
            outputs.deciding_sqnr_db(figures_of_way[way]) for way in ("grid", "integer")
        )
        if abs(grid_db - integer_db) > _TELLING_GAP_DB:
            self._notes.append(
                f"LiteRT's kernels for this computer keep {integer_db:.1f} dB, its reference"
                f" kernels {grid_db:.1f} dB."
            )
        return Audit(
            float_sha256=self._before.sha256,
            int8_sha256=self._after.sha256,
            record=AuditRecord(
                input_source=self._samples.description,
                input_shape=self._samples.shapes,
                compared=", ".join(dict.fromkeys(part.point for part, *_ in self._parts)),
                sample_count=len(self._samples),
                float_layers=len(self._float_layers),
                int8_layers=len(self._int8_layers),
                paired_layers=len(self._pairs),
                rounded_tensors=len(self._tensors),
                paired_tensors=sum(tensor.float_name is not None for tensor in self._tensors),
                grid_db=grid_db,
                integer_db=integer_db,
                exact_db=grid_db,
                weights_db=math.nan,
                activations_db=math.nan,
                neither_db=math.nan,
                # Kernels that add up in 16 bits are ONNX Runtime's alone.
                saturates=False,
                seconds=self._clock.wall_lap(),
                cpu_seconds=self._clock.cpu_lap(),
                onnxruntime_version=version(),
                created_at=datetime.now(UTC).replace(tzinfo=None),
                notes=tuple(self._notes),
                layers=tuple(self._layer_records(weights)),
                tensors=tuple(self._tensor_records()),
                outputs=tuple(
                    output_records(
                        {
                            "grid": judged,
                            "integer": figures_of_way["integer"],
                            "exact": judged,
                            "weights": (),
                            "activations": (),
                            "neither": (),
                        }
                    )
                ),
            ),
        )

    # Pairs

    def _require_kinds(self, float_path: Path, int8_path: Path) -> None:
        def is_quantized(file: graph.ModelFile, session: LiteSession, schemes: set[object]) -> bool:
            names = _activations_of(file)
            return schemes != {None} or any(session.grid_of(name) for name in names)

        if is_quantized(
            self._before, self._float, {layer.stored_scheme for layer in self._float_layers}
        ):
            raise RunError(f"{float_path.name} {NOT_FLOAT}", "name the float file first")
        if not is_quantized(
            self._after, self._int8, {layer.stored_scheme for layer in self._int8_layers}
        ):
            raise RunError(f"{int8_path.name} {NOT_QUANTIZED}", "name the int8 file second")

    def _paired_tensors(self) -> dict[str, str]:
        """By the name of a tensor of the int8 file, that of the float file."""
        paired = pair_tensors(
            self._before.model,
            self._after.model,
            (),
            [(pair, pair.after.site.node) for pair in self._pairs],
        )
        partners: dict[str, str] = {}
        for pair in paired.pairs:
            name = str(pair.before.name)
            if not self._float.has(name):
                continue
            # Codes, and the same in float before or behind them, are one tensor.
            for copy in _copies(pair.after):
                partners.setdefault(str(copy.name), name)
        for float_name, int8_name in zip(
            self._float.output_names, self._int8.output_names, strict=False
        ):
            partners.setdefault(int8_name, float_name)
        return partners

    def _rounded_tensors(self) -> Iterator[_RoundedTensor]:
        for name in _activations_of(self._after):
            grid = self._int8.grid_of(name)
            if grid is not None:
                yield _RoundedTensor(name, grid, self._partners.get(name))

    def _compared(self) -> Iterator[tuple[Part, str, str]]:
        """A part for each output, and the tensors of both files that are compared for it.

        Raises:
            RunError: the files have no output in common.
        """
        int8_name_of = {float_name: name for name, float_name in self._partners.items()}
        values = {str(value.name): value for value in self._before.model.graph.outputs}
        count = 0
        for float_name, int8_name in zip(
            self._float.output_names, self._int8.output_names, strict=False
        ):
            if not (self._float.has(float_name) and self._int8.has(int8_name)):
                continue
            count += 1
            squashing, source = _before_squashing(values.get(float_name))
            partner = int8_name_of.get(source)
            if squashing and partner is not None and self._float.has(source):
                point = f"the input of {squashing}"
                yield Part(float_name, "", (source,), point), source, partner
            else:
                yield Part(float_name, "", (float_name,), "the output"), float_name, int8_name
        if not count:
            raise RunError("the two files have no output in common", FROM_ANOTHER)

    # Samples

    def _chosen(self, source: str, choices: AuditChoices) -> Samples:
        asked = self._float.inputs
        if len(asked) != len(self._int8.inputs):
            raise RunError("the two files have different inputs", FROM_ANOTHER)
        if source == NOISE:
            return _drawn(asked, choices.samples)
        samples = read_samples(
            source, list(asked), count=choices.samples, preprocess=choices.preprocess
        )
        self._notes += samples.notes
        return samples

    @cached_property
    def _fed_as(self) -> dict[str, str]:
        """By the name of an input of the int8 file, that of the float file, else in order."""
        names = [model_input.name for model_input in self._float.inputs]
        mine = [model_input.name for model_input in self._int8.inputs]
        if set(mine) == set(names):
            return {name: name for name in mine}
        return dict(zip(mine, names, strict=True))

    # Runs

    def _run(self) -> dict[str, tuple[JudgedPart, ...]]:
        """All samples through all sessions; tensors are observed as they pass."""
        expected: list[list[Array]] = []
        actual: dict[str, list[list[Array]]] = {"grid": [], "integer": []}
        sessions = {"grid": self._reference, "integer": self._int8}
        for index in range(len(self._samples)):
            self._work.say("running both files", index, len(self._samples))
            sample = self._samples[index]
            self._float.run(sample)
            expected.append([self._float.tensor(name) for _, name, _ in self._parts])
            fed = {name: sample[source] for name, source in self._fed_as.items()}
            for way, session in sessions.items():
                session.run(fed)
                actual[way].append([session.tensor(name) for *_, name in self._parts])
            for tensor in self._tensors:
                if tensor.float_name is not None:
                    values = self._float.tensor(tensor.float_name)
                    tensor.observed.add(values)
                    tensor.drift.add(values, self._reference.tensor(tensor.name))
        compared_parts = [part for part, *_ in self._parts]
        names = [name for _, name, _ in self._parts]
        return {
            way: outputs.judged(compared_parts, names, expected, arrays, is_real=self._is_real)
            for way, arrays in actual.items()
        }

    def _weight_figures(self) -> dict[int, WeightFigures]:
        """By the depth of a layer of the int8 file."""
        figures: dict[int, WeightFigures] = {}
        for number, pair in enumerate(self._pairs):
            self._work.say("comparing weights", number, len(self._pairs))
            before = graph.read_layer(self._before, pair.before.site)
            after = graph.read_layer(self._after, pair.after.site)
            if before is not None and after is not None:
                figures[pair.after.depth] = weight_figures(
                    before.weights, after.weights, after.stored_scheme
                )
        return figures

    def _layer_records(self, weights: dict[int, WeightFigures]) -> Iterator[AuditLayerRecord]:
        pair_of = {pair.after.depth: pair for pair in self._pairs}
        for layer in self._int8_layers:
            pair = pair_of.get(layer.depth)
            figures = weights.get(layer.depth, NO_WEIGHTS)
            yield layer_record(layer, pair, figures, math.nan)

    def _tensor_records(self) -> Iterator[AuditTensorRecord]:
        for tensor in self._tensors:
            grid, figures = tensor.grid, tensor.figures()
            yield AuditTensorRecord(
                float_tensor=tensor.float_name,
                int8_tensor=tensor.name,
                scale=grid.scale,
                zero_point=grid.zero_point,
                grid_low=grid.scale * grid.lowest,
                grid_high=grid.scale * grid.highest,
                seen_low=figures.seen_low,
                seen_high=figures.seen_high,
                saturated_share=figures.saturated_share,
                used_share=figures.used_share,
                sqnr_db=figures.sqnr_db,
                best_sqnr_db=figures.best_sqnr_db,
                drift_db=tensor.drift.db,
                released_gain_db=math.nan,
            )


def _activations_of(file: graph.ModelFile) -> list[str]:
    """Names of the tensors that come from the network's inputs, in the order of the graph."""
    main = file.model.graph
    values = [*main.inputs, *(output for node in main for output in node.outputs)]
    return list(dict.fromkeys(str(value.name) for value in values))


def _copies(value: ir.Value) -> Iterator[ir.Value]:
    """A value, and what it is a copy of."""
    for _ in range(_MOST_STEPS):
        yield value
        producer = value.producer()
        if producer is None or producer.op_type != "Identity" or producer.inputs[0] is None:
            return
        value = producer.inputs[0]


def _before_squashing(value: ir.Value | None) -> tuple[str, str]:
    """The operator that squashes an output, and the tensor before it; empty where none does."""
    for _ in range(_MOST_STEPS):
        producer = None if value is None else value.producer()
        source = producer.inputs[0] if producer is not None and producer.inputs else None
        if producer is None or source is None:
            return "", ""
        if producer.op_type in _SQUASHING:
            return producer.op_type, str(source.name)
        if producer.op_type not in _PASSING:
            return "", ""
        value = source
    return "", ""


def _drawn(asked: Sequence[ModelInput], count: int | None) -> Samples:
    """Noise for every input: pictures for images, whose channels come last here."""
    inputs, is_turned = [], {}
    for model_input in asked:
        shape = tuple(size or 1 for size in model_input.shape)
        image = model_input.image
        is_image = image is not None and len(shape) == 4 and model_input.dtype.kind == "f"
        is_turned[model_input.name] = is_image and image is not None and not image.channels_first
        if is_turned[model_input.name]:
            shape = (shape[0], shape[3], *shape[1:3])
        content: noise.InputContent = "image" if is_image else "number"
        inputs.append(noise.Input(model_input.name, shape, model_input.dtype, content))
    drawn = tuple(inputs)
    _, compared_count = noise.sample_counts(drawn)

    def feed(index: int) -> dict[str, Array]:
        (sample,) = noise.samples(drawn, 1, seed=_NOISE_SEED * 100_003 + index, first=index)
        return {
            name: np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if is_turned[name] else array
            for name, array in sample.items()
        }

    likeness = "image-like" if any(is_turned.values()) else "white"
    return Samples(f"noise, {likeness}", count or compared_count, feed)
