"""Figures of an audit in, rows of it out."""

import math
from collections.abc import Iterator, Mapping, Sequence

from quantstore.auditing.weights import WeightFigures
from quantstore.records import AuditOutputRecord
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
