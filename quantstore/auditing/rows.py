"""Figures of an audit in, rows of it out."""

import math
from collections.abc import Iterator, Mapping, Sequence

from quantstore.auditing.layers import AuditedLayer, AuditedPair
from quantstore.auditing.weights import WeightFigures
from quantstore.records import AuditLayerRecord, AuditOutputRecord
from quantstore.run.outputs import JudgedPart

NO_WEIGHTS = WeightFigures(math.nan, math.nan, math.nan, math.nan, math.nan, None)


def output_records(
    parts_of: Mapping[str, Sequence[JudgedPart]],
) -> Iterator[AuditOutputRecord]:
    """A row for each output, or part of one, in the ways in which it was computed.

    Args:
        parts_of: by the way, what each part keeps; empty for a way that was not gone.
    """

    def kept_db(way: str, index: int) -> float:
        judged_parts = parts_of[way]
        return judged_parts[index].figure_db if judged_parts else math.nan

    for index, judged in enumerate(parts_of["grid"]):
        yield AuditOutputRecord(
            output=judged.record.output,
            part=judged.record.part,
            point=judged.record.point or "",
            decides=judged.record.decides,
            grid_db=kept_db("grid", index),
            integer_db=kept_db("integer", index),
            exact_db=kept_db("exact", index),
            weights_db=kept_db("weights", index),
            activations_db=kept_db("activations", index),
            neither_db=kept_db("neither", index),
        )


def layer_record(
    layer: AuditedLayer, pair: AuditedPair | None, figures: WeightFigures, gain_db: float
) -> AuditLayerRecord:
    """The row of a layer of the int8 file.

    Args:
        pair: None where no float layer is its partner.
        gain_db: of its release, NaN where it was not tried.
    """
    return AuditLayerRecord(
        float_depth=None if pair is None else pair.before.depth,
        int8_depth=layer.depth,
        matched_by=None if pair is None else pair.matched_by,
        relative_error=math.nan if pair is None else pair.relative_error,
        stored_scheme=layer.stored_scheme,
        stored_sqnr_db=figures.stored_sqnr_db,
        stored_p10_db=figures.stored_p10_db,
        plain_p10_db=figures.plain_p10_db,
        per_channel_p10_db=figures.per_channel_p10_db,
        scale_ratio=figures.scale_ratio,
        rounding=figures.rounding,
        released_gain_db=gain_db,
    )
