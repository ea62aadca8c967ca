"""An audit of two files without a graph: their weights, layer by layer. Neither file can be run."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from quantstore import graph
from quantstore.auditing.choices import Audit
from quantstore.auditing.layers import AuditedLayer, AuditedPair, layers_of, pair_layers
from quantstore.auditing.rows import NO_WEIGHTS, layer_record
from quantstore.auditing.weights import WeightFigures, weight_figures
from quantstore.errors import RunError
from quantstore.records import NOT_RUN, AuditLayerRecord, AuditRecord
from quantstore.run.choices import Progress, ReportProgress
from quantstore.run.clock import Clock

WEIGHTS_ONLY = "weights only"
NOTHING_RUN = (
    "Neither file has a graph, so neither was run, and inputs were not used. Output SQNR, grids of"
    " activations, and what the outputs gain without single roundings are not measured."
)
NOT_QUANTIZED = "holds no quantized weights"
QUANTIZED = "holds quantized weights itself"
FROM_ANOTHER = "audit a quantized file against the float file that it was made from"


def audit_weights(float_path: Path, quantized_path: Path, report: ReportProgress) -> Audit:
    """Hold the weights of a quantized file against those of the float file it was made from.

    Raises:
        QuantstoreError: a file cannot be read, or the files are no pair.
    """
    clock = Clock()
    report(Progress("reading", 0, 1))
    before, after = graph.open_any(float_path), graph.open_any(quantized_path)
    float_layers, quantized_layers = layers_of(before), layers_of(after)
    if any(layer.stored_scheme is not None for layer in float_layers):
        raise RunError(f"{float_path.name} {QUANTIZED}", FROM_ANOTHER)
    if all(layer.stored_scheme is None for layer in quantized_layers):
        raise RunError(f"{quantized_path.name} {NOT_QUANTIZED}", FROM_ANOTHER)
    report(Progress("pairing layers", 0, 1))
    pairs = pair_layers(float_layers, quantized_layers)
    figures = dict(_weight_figures(before, after, pairs, report))
    return Audit(
        float_sha256=before.sha256,
        int8_sha256=after.sha256,
        record=AuditRecord(
            input_source=WEIGHTS_ONLY,
            input_shape="",
            compared="weights",
            sample_count=0,
            float_layers=len(float_layers),
            int8_layers=len(quantized_layers),
            paired_layers=len(pairs),
            rounded_tensors=0,
            paired_tensors=0,
            grid_db=math.nan,
            integer_db=math.nan,
            exact_db=math.nan,
            weights_db=math.nan,
            activations_db=math.nan,
            neither_db=math.nan,
            saturates=False,
            seconds=clock.wall_lap(),
            cpu_seconds=clock.cpu_lap(),
            onnxruntime_version=NOT_RUN,
            created_at=datetime.now(UTC).replace(tzinfo=None),
            notes=(NOTHING_RUN,),
            layers=tuple(_layer_records(quantized_layers, pairs, figures)),
        ),
    )


def _weight_figures(
    before: graph.ModelFile,
    after: graph.ModelFile,
    pairs: list[AuditedPair],
    report: ReportProgress,
) -> Iterator[tuple[int, WeightFigures]]:
    """By the depth of a layer of the quantized file."""
    for number, pair in enumerate(pairs):
        report(Progress("comparing weights", number, len(pairs)))
        weights = graph.read_layer(before, pair.before.site)
        stored = graph.read_layer(after, pair.after.site)
        if weights is not None and stored is not None:
            yield (
                pair.after.depth,
                weight_figures(weights.weights, stored.weights, stored.stored_scheme),
            )


def _layer_records(
    layers: list[AuditedLayer], pairs: list[AuditedPair], figures: dict[int, WeightFigures]
) -> Iterator[AuditLayerRecord]:
    pair_of = {pair.after.depth: pair for pair in pairs}
    for layer in layers:
        pair = pair_of.get(layer.depth)
        yield layer_record(layer, pair, figures.get(layer.depth, NO_WEIGHTS), math.nan)
