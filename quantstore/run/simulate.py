"""A model beside its quantized twin on real inputs: how the outputs drift, where, and by whom.

The one function that the command line and the pages call, through ``quantstore.simulation``, which
adds the store and a process that can be cancelled. Nothing here knows a store.
"""

import contextlib
import ctypes
import dataclasses
import gc
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from quantstore import graph
from quantstore.errors import InputsError, RunError
from quantstore.records import ActivationErrorRecord, Array, SensitivityRecord, SimulationRecord
from quantstore.run import noise, points, ranges, sensitivity, surgery, twin
from quantstore.run.comparison import Reference
from quantstore.run.drift import measure_drift
from quantstore.run.figures import EXACT_DB
from quantstore.run.inputs import AUTO, Preprocessing, Samples, Wanted, read_samples
from quantstore.run.runtime import Calibration, Session, quantizable, quantize_file, version
from quantstore.schemes import DEFAULT_SCHEME, INT8_SCHEMES, SCHEMES

Mode = Literal["weights", "activations", "both"]
MODES: tuple[Mode, ...] = ("weights", "activations", "both")
CALIBRATIONS: tuple[Calibration, ...] = ("minmax", "percentile", "entropy")
NOISE = "noise"
# Not those of the probe: a run by hand shall be evidence of its own.
_CALIBRATION_SEED, _TEST_SEED = 21, 22
# Fixing the shapes around them makes onnxruntime fail, or crash.
_BRANCHING = ("If", "Loop", "Scan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What is run, and how.

    ``samples``: at most so many inputs are used, the calibration's included. ``exclude``: layers or
    nodes that stay float. ``calibration_inputs``: where ranges of activations are found; by default
    every other sample is for that, and the figures come from the rest. ``drift``: whether tensors
    inside are compared as well, not the outputs alone.
    """

    scheme: str = DEFAULT_SCHEME.name
    mode: Mode = "both"
    calibration: Calibration = "minmax"
    samples: int | None = None
    exclude: tuple[str, ...] = ()
    preprocess: str | Preprocessing = AUTO
    calibration_inputs: str | None = None
    drift: bool = True
    sensitivity: bool = False
    budget_seconds: float = 60.0
    fold: bool = True

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise InputsError(f"no scheme is named {self.scheme!r}", f"choose {', '.join(SCHEMES)}")
        if self.mode != "weights" and self.scheme not in INT8_SCHEMES:
            raise InputsError(
                f"activations are quantized by onnxruntime, which does not know {self.scheme}",
                f"choose {', '.join(INT8_SCHEMES)}, or mode weights",
            )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, ``stage`` in words."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What a run found. ``accuracy``: of the float and the quantized model, given the labels."""

    sha256: str
    folded: bool
    record: SimulationRecord
    activation_errors: tuple[ActivationErrorRecord, ...] = ()
    sensitivities: tuple[SensitivityRecord, ...] = ()
    accuracy: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One line, for another process."""
        return json.dumps(dataclasses.asdict(self), default=_plain)

    @classmethod
    def from_json(cls, text: str) -> "Simulation":
        """What :meth:`to_json` wrote."""
        found = json.loads(text)
        accuracy = found["accuracy"]
        return cls(
            sha256=found["sha256"],
            folded=found["folded"],
            record=SimulationRecord(**_timed(found["record"])),
            activation_errors=tuple(
                ActivationErrorRecord(
                    **{
                        **row,
                        "float_counts": np.array(row["float_counts"], np.int64),
                        "quantized_counts": np.array(row["quantized_counts"], np.int64),
                    }
                )
                for row in found["activation_errors"]
            ),
            sensitivities=tuple(SensitivityRecord(**_timed(row)) for row in found["sensitivities"]),
            accuracy=None if accuracy is None else (accuracy[0], accuracy[1]),
            notes=tuple(found["notes"]),
        )


Report = Callable[[Progress], None]


def simulate(
    path: Path, inputs: str, choices: Choices | None = None, report: Report | None = None
) -> Simulation:
    """Run a model beside its quantized twin and compare them, tensor by tensor.

    Args:
        inputs: a folder of images, an image, an ``.npz`` or ``.npy`` file, or ``noise``.
        report: told how far it is.

    Raises:
        ModelFileError: the model cannot be read.
        InputsError: the inputs cannot, or do not fit.
        RunError: onnxruntime refuses the model or its twin, or the float model returns no numbers.
    """
    run = _Run(path, inputs, choices or Choices(), report or (lambda _: None))
    with tempfile.TemporaryDirectory(prefix="quantstore-") as folder:
        return run.result(Path(folder))


class _Run:
    """One call of :func:`simulate`: what its steps hand on to one another."""

    def __init__(self, path: Path, inputs: str, choices: Choices, report: Report) -> None:
        self._started = time.perf_counter()
        self._path, self._inputs, self._choices, self._report = path, inputs, choices, report
        self._notes: list[str] = []

    def result(self, folder: Path) -> Simulation:
        self._say("reading", 0, 1)
        self._folder = folder
        self._depth_of = _stored_depths(self._path)
        self._model = twin.open_float(self._path)
        sha256 = self._model.file.sha256
        if self._model.was_quantized:
            self._notes.append(
                "the file computes with integers: they were turned back into floats first, what"
                " their rounding lost is unknown"
            )
        calibrating, samples = self._samples()
        self._freeze_scalars(samples)
        self._batch = _batch(samples)
        has_one_output = len(self._model.model.graph.outputs) == 1
        compared = points.cut(self._model.model)
        # What is left before a selection are no scores of classes, though it may look alike.
        self._returns_scores = has_one_output and "the last tensors" not in compared.words
        if not compared.names:
            raise RunError("no output of floating-point numbers depends on the inputs")
        self._names = compared.names
        self._fix_shapes(samples)

        order = [str(out.name) for node in self._model.model.graph for out in node.outputs]
        self._say("quantizing", 0, 1)
        if self._choices.mode == "weights":
            pair = self._with_rounded_weights()
        else:
            pair = self._with_rounded_activations(calibrating)
        failure, output_db, expected, actual = self._compared(pair, samples)
        # NaN where there is nothing to decide.
        agreement, accuracy = self._decisions(samples, expected, actual)
        rows: tuple[ActivationErrorRecord, ...] = ()
        if self._choices.drift:
            _give_memory_back()
            rows = measure_drift(
                pair,
                samples,
                folder,
                lambda done, total: self._say("comparing tensors", done, total),
                order=order,
            )
        now = datetime.now(UTC).replace(tzinfo=None)
        findings = self._sensitivity(pair, samples) if self._choices.sensitivity else ()
        return Simulation(
            sha256=sha256,
            folded=self._choices.fold,
            record=SimulationRecord(
                scheme=self._choices.scheme,
                mode=self._choices.mode,
                calibration=None if self._choices.mode == "weights" else self._choices.calibration,
                input_source=samples.description,
                input_shape=samples.shapes,
                compared=compared.words,
                sample_count=len(samples),
                output_sqnr_db=output_db,
                top1_agreement=agreement,
                seconds=time.perf_counter() - self._started,
                onnxruntime_version=version(),
                created_at=now,
                failure=failure,
            ),
            activation_errors=rows,
            sensitivities=tuple(
                SensitivityRecord(
                    depth=finding.depth,
                    scheme=self._choices.scheme,
                    mode=self._choices.mode,
                    kind=finding.kind,
                    input_source=samples.description,
                    sample_count=finding.sample_count,
                    output_sqnr_db=finding.output_sqnr_db,
                    created_at=now,
                )
                for finding in findings
            ),
            accuracy=accuracy,
            notes=tuple(self._notes),
        )

    # What is fed

    def _samples(self) -> tuple[Samples, Samples]:
        """Those to calibrate on, and those to compare on; the same where there is one alone."""
        needs_ranges = self._choices.mode != "weights"
        if self._inputs == NOISE:
            return self._noise(needs_ranges)
        wanted = [
            Wanted(one.name, shape, np.dtype(one.dtype))
            for one, shape in zip(*self._wanted(), strict=True)
        ]
        limit, how = self._choices.samples, self._choices.preprocess
        samples = self._read(self._inputs, wanted, limit, how)
        if not needs_ranges:
            return samples, samples
        if self._choices.calibration_inputs is not None:
            source = self._choices.calibration_inputs
            return self._read(source, wanted, limit, how), samples
        if len(samples) == 1:
            self._notes.append("there is one sample: ranges and figures come from the same")
            return samples, samples
        calibrating = samples.some(range(0, len(samples), 2))
        compared = samples.some(range(1, len(samples), 2))
        self._notes.append(
            f"{len(calibrating)} samples to find ranges on, the other {len(compared)} to compare on"
        )
        return calibrating, compared

    def _read(
        self, source: str, wanted: Sequence[Wanted], limit: int | None, how: str | Preprocessing
    ) -> Samples:
        if source == NOISE:
            raise InputsError("ranges found on noise say nothing about real inputs")
        samples = read_samples(source, wanted, count=limit, preprocess=how)
        self._notes += [note for note in samples.notes if note not in self._notes]
        return samples

    def _wanted(self) -> tuple[list[noise.Input], list[tuple[int | None, ...]]]:
        """The inputs with every dimension chosen, and their shapes with what the model leaves open.

        A number of channels that a layer prescribes is not open.
        """
        values = [v for v in self._model.model.graph.inputs if v.const_value is None]
        decided = list(next(iter(noise.choices(self._model.model))))
        shapes: list[tuple[int | None, ...]] = []
        for value, one in zip(values, decided, strict=True):
            given: list[int | None] = [
                size if isinstance(size, int) and size > 0 else None for size in value.shape or ()
            ] or [None] * len(one.shape)
            if len(given) == 4:
                for axis in (1, 3):
                    if given[axis] is None and one.shape[axis] in (1, 3):
                        given[axis] = one.shape[axis]
            shapes.append(tuple(given))
        return decided, shapes

    def _noise(self, needs_ranges: bool) -> tuple[Samples, Samples]:
        fixed = noise.frozen_inputs(self._model.model)
        session = Session(self._saved(twin.to_proto(self._model), "trial"))
        first: RunError | None = None
        for inputs in noise.choices(self._model.model):
            kind = noise.kind_for(inputs)
            (trial,) = noise.samples(inputs, 1, seed=_TEST_SEED, kind=kind)
            try:
                session.run({**trial, **fixed})
            except RunError as error:
                first = first or error
            else:
                break
        else:
            raise first or RunError("the model has no inputs")
        del session
        for_ranges, count = noise.sample_counts(inputs)
        count = self._choices.samples or count
        words = "noise, image-like" if kind == "image" else "noise, white"

        def drawn(number: int, seed: int) -> Samples:
            # Each sample by its own seed: none needs to be kept.
            def feed(index: int) -> dict[str, Array]:
                (one,) = noise.samples(inputs, 1, seed=seed * 100_003 + index, kind=kind)
                return {**one, **fixed}

            return Samples(words, number, feed)

        calibrating = drawn(for_ranges if needs_ranges else 1, _CALIBRATION_SEED)
        return calibrating, drawn(count, _TEST_SEED)

    def _freeze_scalars(self, samples: Samples) -> None:
        """Whole numbers that choose a branch become constants, so that the branch is quantized."""
        first, last = samples[0], samples[len(samples) - 1]
        for name in noise.frozen_inputs(self._model.model):
            if np.array_equal(first[name], last[name]):
                twin.freeze_input(self._model.model, name, first[name])

    def _fix_shapes(self, samples: Samples) -> None:
        """Write the shapes that are fed into the model, so that what hangs on them is constant."""
        main = self._model.model.graph
        if any(node.op_type in _BRANCHING for node in main):
            return
        feed = samples[0]
        for value in main.inputs:
            if value.name in feed:
                value.shape = ir.Shape(feed[value.name].shape)

    # What is compared with what

    def _with_rounded_weights(self) -> surgery.Pair:
        """Our own grid: the same graph with other weights."""
        model, scheme = self._model, SCHEMES[self._choices.scheme]
        slots = twin.lift_weights(model, fold=self._choices.fold)
        excluded = self._excluded({slot.site.name for slot in slots})
        as_float = self._outside(twin.to_proto(model), "float")
        chosen = [slot for slot in slots if slot.site.name not in excluded]
        for done, slot in enumerate(chosen):
            twin.fill([slot], [twin.quantized_weights(model, slot, scheme)])
            self._say("quantizing", done + 1, len(chosen))
        quantized = self._outside(twin.to_proto(model), "quantized")
        twin.fill(chosen, [twin.float_weights(slot) for slot in chosen])
        self._slots = chosen
        return surgery.Pair(as_float, quantized, frozenset(str(s.value.name) for s in chosen))

    def _with_rounded_activations(self, calibrating: Samples) -> surgery.Pair:
        """onnxruntime's own quantizer, around every operator that it knows."""
        scheme = SCHEMES[self._choices.scheme]
        whole = twin.to_proto(self._model)
        # What each layer computes.
        outputs = {
            site.name: str(site.node.outputs[0].name) for site in graph.find_sites(self._model.file)
        }
        # The quantizer makes several copies of the weights; there shall be none beside them.
        del self._model
        work = self._folder / "work"
        work.mkdir()
        source = quantizable(whole, work, fold=self._choices.fold)
        self._outside(whole, "whole")
        as_float = onnx.load(source)
        surgery.name_every_node(as_float)
        onnx.save(as_float, source)
        self._outside(as_float, "float")
        made = surgery.producers(as_float)
        nodes = {node.name for node in as_float.graph.node}
        excluded = set()
        for name in self._excluded(outputs.keys() | nodes):
            found = None
            if name in outputs:
                found = surgery.successor(whole, outputs[name], made.__contains__)
            excluded.add(made[found].name if found is not None else name)

        fed = [value.name for value in as_float.graph.input]
        self._say("calibrating", 0, len(calibrating))
        cache = None
        if self._choices.calibration == "minmax":
            cache = work / "ranges.json"
            ranges.write_minmax(
                as_float,
                calibrating,
                self._folder,
                cache,
                lambda done, total: self._say("calibrating", done, total),
            )
        target = quantize_file(
            source,
            work / "quantized.onnx",
            _Listed(calibrating, fed, lambda n: self._say("calibrating", n, len(calibrating))),
            per_channel=scheme.is_per_channel,
            calibration=self._choices.calibration,
            cache=cache,
            nodes_to_exclude=sorted(excluded),
            extra_options=None if scheme.is_symmetric else {"WeightSymmetric": False},
        )
        _give_memory_back()
        quantized = onnx.load(target)
        if not any(node.op_type == "QuantizeLinear" for node in quantized.graph.node):
            raise RunError(
                "onnxruntime's quantizer finds nothing to quantize in this model",
                "try --mode weights",
            )
        pair = surgery.Pair(as_float, self._outside(quantized, "quantized"))
        if self._choices.mode == "activations":
            pair = surgery.Pair(as_float, surgery.with_float_constants(pair))
        # Which operator of the twin is which layer of the file.
        self._group_of = {}
        results = {
            result.known: surgery.key_of(operator.node)
            for operator in pair.operators()
            for result in operator.results
        }
        for name, output in outputs.items():
            found = surgery.successor(whole, output, results.__contains__)
            depth = self._depth_of.get(name)
            if found is not None and depth is not None and name not in excluded:
                self._group_of[results[found]] = depth
        return pair

    def _excluded(self, known: set[str]) -> list[str]:
        missing = [name for name in self._choices.exclude if name not in known]
        if missing:
            raise InputsError(
                f"no layer is named {missing[0]!r}", "list them with: quantstore layers MODEL"
            )
        return list(self._choices.exclude)

    def _compared(
        self, pair: surgery.Pair, samples: Samples
    ) -> tuple[str | None, float, list[list[Array]], list[list[Array]]]:
        """Why there is no figure, the figure, and what both models return."""
        as_float = self._returned(pair.float_model, samples, "running the float model")
        for name, places in self._not_numbers(as_float):
            raise RunError(
                f"the float model returns NaN or infinity in {name!r} for {places} samples",
                "check the preprocessing of the inputs",
            )
        reference = Reference(self._names, as_float)
        actual = self._returned(pair.quantized, samples, "running the quantized model")
        for name, places in self._not_numbers(actual):
            sentence = (
                f"the quantized model returns NaN or infinity in {name!r} for {places} samples"
            )
            return sentence, math.nan, as_float, actual
        figure = reference.median_db(actual)
        if figure > EXACT_DB:
            sentence = (
                "the quantized model returns what the float one does: its weights lie on this grid"
                " already"
            )
            return sentence, math.nan, as_float, actual
        return None, figure, as_float, actual

    def _returned(self, model: Any, samples: Samples, stage: str) -> list[list[Array]]:
        session = Session(self._saved(model, "run"))
        found = []
        for index in range(len(samples)):
            found.append(session.run(samples[index], self._names))
            self._say(stage, index + 1, len(samples))
        return found

    def _not_numbers(self, outputs: Sequence[Sequence[Array]]) -> Iterator[tuple[str, int]]:
        for place, name in enumerate(self._names):
            bad = sum(
                one[place].dtype.kind == "f" and not np.isfinite(one[place]).all()
                for one in outputs
            )
            if bad:
                yield name, bad

    def _decisions(
        self,
        samples: Samples,
        expected: Sequence[Sequence[Array]],
        actual: Sequence[Sequence[Array]],
    ) -> tuple[float, tuple[float, float] | None]:
        """How often the largest score stays the same, and how often it is the right one."""
        before, after = _largest(expected, self._batch), _largest(actual, self._batch)
        if before is None or after is None or not self._returns_scores:
            return math.nan, None
        agreement = float(np.mean(before == after))
        labels = samples.labels
        if labels is None or len(labels) != len(before):
            return agreement, None
        return agreement, (float(np.mean(before == labels)), float(np.mean(after == labels)))

    # Whose fault it is

    def _sensitivity(self, pair: surgery.Pair, samples: Samples) -> tuple[sensitivity.Finding, ...]:
        self._say("sensitivity", 0, 1)
        if self._choices.mode == "weights":
            board: sensitivity.Switchboard = self._swapped_weights()
        else:
            board = self._switches(pair)
        found = sensitivity.measure_sensitivity(
            board,
            samples,
            self._names,
            self._choices.budget_seconds,
            lambda done, total: self._say("sensitivity", done, total),
        )
        expected = len(sensitivity.KINDS) * len(board.depths)
        if len(found) < expected:
            self._notes.append(
                f"sensitivity: the budget of {self._choices.budget_seconds:g} s sufficed for"
                f" {len(found)} of {expected} runs"
            )
        return found

    def _swapped_weights(self) -> sensitivity.SwappedWeights:
        slots = {
            depth: slot
            for slot in self._slots
            if (depth := self._depth_of.get(slot.site.name)) is not None
        }
        model = self._model
        scheme = SCHEMES[self._choices.scheme]
        quantized = {d: twin.quantized_weights(model, slot, scheme) for d, slot in slots.items()}
        as_float = {depth: twin.float_weights(slot) for depth, slot in slots.items()}
        twin.weights_as_inputs(model, list(slots.values()))
        return sensitivity.SwappedWeights(
            Session(self._saved(twin.to_proto(model), "swapped")),
            sorted(slots),
            {depth: str(slot.value.name) for depth, slot in slots.items()},
            as_float,
            quantized,
        )

    def _switches(self, pair: surgery.Pair) -> sensitivity.Switches:
        groups = {key: str(depth) for key, depth in self._group_of.items()}
        model, flags = surgery.with_switches(pair, groups)
        session = Session(self._saved(model, "switches"))
        names: dict[int | None, str] = {
            int(flag.removeprefix(surgery.FLAG)) if flag != surgery.FLAG else None: flag
            for flag in flags
        }
        depths = sorted(depth for depth in names if depth is not None)
        return sensitivity.Switches(session, depths, names)

    def _outside(self, model: Any, name: str) -> Any:
        """The model with its weights in a file, in place: the memory is for running it."""
        return surgery.kept_outside(model, self._folder, name)

    def _saved(self, model: Any, name: str) -> Path:
        """Where a session finds the model, whose weights are kept outside as well."""
        self._outside(model, name)
        return self._folder / f"{name}.onnx"

    def _say(self, stage: str, done: int, total: int) -> None:
        self._report(Progress(stage, done, total))


class _Listed(Sequence[dict[str, Array]]):
    """Samples as the quantizer wants them, with no array too many, saying how many it has had."""

    def __init__(
        self, samples: Samples, names: Sequence[str], report: Callable[[int], None]
    ) -> None:
        self._samples, self._names, self._say = samples, names, report

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: Any) -> Any:
        self._say(min(index + 1, len(self)))
        feed = self._samples[index]
        return {name: feed[name] for name in self._names}


def _give_memory_back() -> None:
    """Return to the system what a finished stage has freed.

    Objects of the quantizer refer to one another, and glibc keeps some 500 MB of a large session in
    reserve. Giving every block back at once, by its threshold, would take five times as long.
    """
    gc.collect()
    # Only glibc has it.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _stored_depths(path: Path) -> dict[str, int]:
    """The depth of every layer by its name, as the store counts."""
    file = graph.open_model(path)
    depths: dict[str, int] = {}
    for site in graph.find_sites(file):
        if graph.read_layer(file, site) is not None:
            depths[site.name] = len(depths)
    return depths


def _batch(samples: Samples) -> int:
    """How many rows of scores belong to a run: the first axis of its largest input."""
    largest = max(samples[0].values(), key=lambda array: array.size)
    return int(largest.shape[0]) if largest.ndim > 1 else 1


def _largest(outputs: Sequence[Sequence[Array]], batch: int) -> npt.NDArray[np.int64] | None:
    """Places of the largest scores, row by row; None where the output is no vector of scores."""
    rows = []
    for one in outputs:
        if len(one) != 1 or one[0].dtype.kind != "f" or one[0].shape[-1:] in ((), (1,)):
            return None
        scores = one[0][np.newaxis] if one[0].ndim == 1 else one[0]
        if scores.ndim != 2 or scores.shape[0] != batch:
            return None
        rows.append(scores.argmax(axis=1))
    return np.concatenate(rows) if rows else None


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def _timed(row: dict[str, Any]) -> dict[str, Any]:
    with contextlib.suppress(KeyError):
        row["created_at"] = datetime.fromisoformat(row["created_at"])
    return row
