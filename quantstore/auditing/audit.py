"""Why an int8 file gives other answers than the float file it was made from.

The one function that the command line, Python and the page call, through
``quantstore.pipeline.audits``, which adds the store and a process that can be cancelled. The
method: docs/audit.md.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quantstore.auditing.activations import drift_db, grid_figures
from quantstore.auditing.bench import LEAST_AGREEMENT_DB, AuditBench, KeptDb
from quantstore.auditing.choices import Audit, AuditChoices
from quantstore.auditing.layers import AuditedPair
from quantstore.auditing.lite import LiteAudit
from quantstore.auditing.loose import audit_weights
from quantstore.auditing.rows import NO_WEIGHTS, layer_record, output_records
from quantstore.auditing.weights import WeightFigures, weight_figures
from quantstore.errors import RunError
from quantstore.file_formats import TENSORFLOW_LITE
from quantstore.file_formats.signature import format_of
from quantstore.graph.file import head_of
from quantstore.graph.findings.base import MOST_GAP_DB
from quantstore.records import (
    AuditLayerRecord,
    AuditRecord,
    AuditTensorRecord,
)
from quantstore.run.choices import ReportProgress
from quantstore.run.clock import Clock
from quantstore.run.emulator import Plan
from quantstore.run.layers import LayerKey
from quantstore.run.runtime import version
from quantstore.run.stored_grids import GridFigures

# The six ways in which the outputs are computed, by the column that holds what they keep.
WAYS = ("grid", "integer", "exact", "weights", "activations", "neither")
_KERNELS = {"integer": "integer kernels", "exact": "exact integer sums"}
_NOTHING = KeptDb(math.nan, ())


def audit(
    float_path: Path,
    int8_path: Path,
    inputs: str,
    choices: AuditChoices | None = None,
    report: ReportProgress | None = None,
) -> Audit:
    """Hold an int8 file against the float file that it was made from.

    Args:
        inputs: a folder of images, an image, an ``.npz`` or ``.npy`` file, or ``noise``.
        report: told how far it is.

    Raises:
        ModelFileError: a file cannot be read.
        InputsError: the inputs cannot, or do not fit.
        RunError: the files are no float file and its int8 version, or onnxruntime refuses one.
    """
    choices = choices or AuditChoices()
    report = report or (lambda _: None)
    formats = {format_of(path, head_of(path)) for path in (float_path, int8_path)}
    if not any(file_format.has_graph for file_format in formats):
        return audit_weights(float_path, int8_path, report)
    if len(formats) > 1:
        raise RunError(*TWO_FORMATS)
    with tempfile.TemporaryDirectory(prefix="quantstore-") as folder:
        if TENSORFLOW_LITE in formats:
            return LiteAudit(float_path, int8_path, inputs, choices, Path(folder), report).answer()
        clock = Clock()
        bench = AuditBench(float_path, int8_path, inputs, choices, Path(folder), report)
        return _Audited(bench, choices, clock).answer()


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A rounding that may be taken out: ``name`` in the plan, how much noise it adds locally."""

    name: str
    noise_to_signal: float


class _Audited:
    """One audit on its way; :meth:`answer` goes all of it."""

    def __init__(self, bench: AuditBench, choices: AuditChoices, clock: Clock) -> None:
        self._bench, self._choices, self._clock = bench, choices, clock
        self._gain_of: dict[str, float] = {}

    def answer(self) -> Audit:
        """All figures, and the record of them."""
        bench = self._bench
        figures = self._six_figures()
        of_weights = self._weight_figures()
        of_grids = grid_figures(bench)
        drift = drift_db(bench)
        self._release(figures["grid"].deciding_db, of_weights, of_grids)
        integer_db, exact_db = (figures[way].deciding_db for way in ("integer", "exact"))
        return Audit(
            float_sha256=bench.before.file.sha256,
            int8_sha256=bench.after.file.sha256,
            record=AuditRecord(
                input_source=bench.samples.description,
                input_shape=bench.samples.shapes,
                compared=bench.points.description,
                sample_count=len(bench.samples),
                float_layers=len(bench.float_layers),
                int8_layers=len(bench.int8_layers),
                paired_layers=len(bench.pairs),
                rounded_tensors=len(bench.grids),
                paired_tensors=sum(name in bench.float_name_of for name in bench.grids),
                grid_db=figures["grid"].deciding_db,
                integer_db=integer_db,
                exact_db=exact_db,
                weights_db=figures["weights"].deciding_db,
                activations_db=figures["activations"].deciding_db,
                neither_db=figures["neither"].deciding_db,
                saturates=exact_db - integer_db > MOST_GAP_DB,
                seconds=self._clock.wall_lap(),
                cpu_seconds=self._clock.cpu_lap(),
                onnxruntime_version=version(),
                created_at=datetime.now(UTC).replace(tzinfo=None),
                notes=tuple(bench.notes),
                layers=tuple(self._layer_records(of_weights)),
                tensors=tuple(self._tensor_records(of_grids, drift)),
                outputs=tuple(output_records({way: kept.parts for way, kept in figures.items()})),
            ),
        )

    def _six_figures(self) -> dict[str, KeptDb]:
        bench = self._bench
        plans = {
            "grid": bench.plan,
            "weights": Plan(constants=bench.weight_plan),
            "activations": Plan(bench.grid_plan),
            "neither": Plan(),
        }
        figures = dict.fromkeys(WAYS, _NOTHING)
        for number, (way, plan) in enumerate(plans.items()):
            bench.work.say("running the int8 file", number, len(WAYS))
            figures[way] = bench.figures(bench.run(plan))
        if not bench.has_integer_form:
            bench.notes.append(NO_INTEGER_FORM)
            return figures
        for number, (way, kernels) in enumerate(_KERNELS.items(), start=len(plans)):
            bench.work.say("running the int8 file", number, len(WAYS))
            try:
                file_outputs = bench.run_file(has_exact_sums=way == "exact")
            except RunError as error:
                bench.notes.append(f"The int8 file does not run with {kernels}: {error.sentence}")
            else:
                figures[way] = bench.figures(file_outputs)
        neither_db = figures["neither"].deciding_db
        if neither_db < LEAST_AGREEMENT_DB:
            bench.notes.append(
                f"Without any rounding the int8 file still differs from the float file"
                f" ({neither_db:.1f} dB): it computes something else, or layers are paired wrongly."
            )
        return figures

    def _weight_figures(self) -> dict[LayerKey, WeightFigures]:
        bench = self._bench
        figures = {}
        for number, pair in enumerate(bench.pairs):
            bench.work.say("comparing weights", number, len(bench.pairs))
            figures[LayerKey.of(pair.after.site)] = weight_figures(
                bench.float_weights(pair),
                bench.stored_weights(pair.after),
                pair.after.stored_scheme,
            )
        return figures

    def _release(
        self,
        grid_db: float,
        of_weights: Mapping[LayerKey, WeightFigures],
        of_grids: Mapping[str, GridFigures],
    ) -> None:
        """Take suspects out one at a time: only this says what matters at the outputs."""
        bench = self._bench
        weights = [
            _Suspect(bench.slot_of[key], _noise_to_signal(figures.stored_sqnr_db))
            for key, figures in of_weights.items()
            if bench.slot_of.get(key) in bench.weight_plan
        ]
        tensors = [
            _Suspect(name, _noise_to_signal(figures.sqnr_db)) for name, figures in of_grids.items()
        ]
        half = self._choices.release // 2
        chosen = _worst(weights, self._choices.release - min(half, len(tensors)))
        chosen += _worst(tensors, self._choices.release - len(chosen))
        for number, suspect in enumerate(chosen):
            bench.work.say("releasing one rounding at a time", number, len(chosen))
            gain_db = bench.db(bench.released(suspect.name)) - grid_db
            self._gain_of[suspect.name] = gain_db

    def _layer_records(
        self, of_weights: Mapping[LayerKey, WeightFigures]
    ) -> Iterator[AuditLayerRecord]:
        pair_of: dict[LayerKey, AuditedPair] = {
            LayerKey.of(pair.after.site): pair for pair in self._bench.pairs
        }
        for layer in self._bench.int8_layers:
            key = LayerKey.of(layer.site)
            pair = pair_of.get(key)
            figures = of_weights.get(key, NO_WEIGHTS)
            slot = self._bench.slot_of.get(key, "")
            yield layer_record(layer, pair, figures, self._gain_of.get(slot, math.nan))

    def _tensor_records(
        self, of_grids: Mapping[str, GridFigures], drift: Mapping[str, float]
    ) -> Iterator[AuditTensorRecord]:
        for name, grid in self._bench.grids.items():
            figures = of_grids[name]
            yield AuditTensorRecord(
                float_tensor=self._bench.float_name_of.get(name),
                int8_tensor=grid.file_tensor,
                scale=math.nan if grid.is_dynamic else grid.scale,
                zero_point=grid.zero_point,
                grid_low=math.nan if grid.is_dynamic else grid.low,
                grid_high=math.nan if grid.is_dynamic else grid.high,
                seen_low=figures.seen_low,
                seen_high=figures.seen_high,
                saturated_share=figures.saturated_share,
                used_share=figures.used_share,
                sqnr_db=figures.sqnr_db,
                best_sqnr_db=figures.best_sqnr_db,
                drift_db=drift.get(name, math.nan),
                released_gain_db=self._gain_of.get(name, math.nan),
            )


TWO_FORMATS = (
    "the two files have different formats",
    "name two ONNX files, two TensorFlow Lite files, or two files of weights (safetensors, GGUF)",
)
NO_INTEGER_FORM = (
    "The int8 file was run in float arithmetic alone: it has branches or loops, or codes where the"
    " files are compared."
)


def _noise_to_signal(sqnr_db: float) -> float:
    """As a ratio; 0 where nothing is lost or known."""
    return 0.0 if math.isnan(sqnr_db) else float(10 ** (-sqnr_db / 10))


def _worst(suspects: list[_Suspect], count: int) -> list[_Suspect]:
    noisy = [suspect for suspect in suspects if suspect.noise_to_signal > 0]
    return sorted(noisy, key=lambda suspect: -suspect.noise_to_signal)[: max(count, 0)]
