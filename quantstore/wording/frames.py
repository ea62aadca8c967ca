"""Rows of a frame as the facts that sentences are made of."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quantstore.records import (
    LITERT,
    AnswerRecord,
    AuditLayerRecord,
    AuditOutputRecord,
    AuditRecord,
    AuditTensorRecord,
    RescueRecord,
    SimulationRecord,
)
from quantstore.wording.causes import LayerFacts

if TYPE_CHECKING:
    import pandas as pd


def layer_facts(row: Mapping[Any, Any]) -> LayerFacts:
    """What the causes of a layer's trouble are read from, out of ``queries.worst_layers``."""
    return LayerFacts(
        band=str(row["band"]),
        channel_count=int(row["channel_count"]),
        # Channels are kept apart under int8 schemes alone.
        flattened_channels=int(figure_or_none(row["flattened_channels"]) or 0),
        outlier_channels=int(row["outlier_channel_count"]),
        spread_bits=figure_or_none(row["channel_spread_bits"]),
        narrow_channels=int(row["narrow_channels"]),
        symmetric_span_over_rms=figure_or_none(row["symmetric_span_over_rms"]),
        weight_min=figure_or_none(row["weight_min"]) or 0.0,
        weight_max=figure_or_none(row["weight_max"]) or 0.0,
        dead_channels=int(figure_or_none(row["dead_channel_count"]) or 0),
    )


# Values that are missing where nothing was measured, and NULL where nothing is lost.
_WITHOUT_LOSS = ("before_db", "after_db")


def rescue_record(row: Mapping[Any, Any]) -> RescueRecord:
    """A row of ``queries.rescues`` as what the sentences about a rescue are made of."""
    import pandas as pd

    values: dict[str, Any] = {
        field.name: row.get(field.name)
        for field in dataclasses.fields(RescueRecord)
        if field.metadata.get("is_column", True)
    }
    for field in dataclasses.fields(RescueRecord):
        if field.type in (float, "float"):
            values[field.name] = _finite_or(row[field.name], math.nan)
    is_exact = pd.isna(row["failure"])
    for name in _WITHOUT_LOSS:
        values[name] = _finite_or(row[name], math.inf if is_exact else math.nan)
    values["file_db"] = _finite_or(row["file_db"], math.inf if row["has_files"] else math.nan)
    values["failure"] = None if is_exact else str(row["failure"])
    for name in ("allowed", "notes"):
        values[name] = tuple(names_or_none(row[name]))
    return RescueRecord(**values)


def answer_record(row: Mapping[Any, Any]) -> AnswerRecord:
    """A row of ``queries.simulation_answers``; an SQNR that is missing is that of an exact one."""
    import pandas as pd

    values: dict[str, Any] = {
        field.name: None if pd.isna(row[field.name]) else row[field.name]
        for field in dataclasses.fields(AnswerRecord)
    }
    for field in dataclasses.fields(AnswerRecord):
        if field.type in ("int | None", int | None) and values[field.name] is not None:
            values[field.name] = int(values[field.name])
    if values["picture"] is not None:
        values["picture"] = bytes(values["picture"])
    values["sqnr_db"] = _finite_or(row["sqnr_db"], math.inf)
    values["score_change"] = _finite_or(row["score_change"], math.nan)
    return AnswerRecord(**values)


# Missing where nothing is lost; the other two are missing where the file was not run so, too.
_WAYS_ALWAYS_RUN = ("grid_db", "weights_db", "activations_db", "neither_db")
# Of a file that is run as it is.
_WAYS_OF_LITERT = ("grid_db", "integer_db", "exact_db")


def audit_record(
    row: Mapping[Any, Any],
    layers: "pd.DataFrame | None" = None,
    tensors: "pd.DataFrame | None" = None,
    outputs: "pd.DataFrame | None" = None,
) -> AuditRecord:
    """A row of ``queries.audits`` with its parts as what the sentences about an audit are made of.

    Its headline needs no parts.

    A layer that the store no longer holds has a negative depth, which no other layer has:
    :func:`audit_layer_names` names it all the same.
    """
    values = _values(AuditRecord, row)
    if values["failure"] is None:
        is_by_litert = str(row["onnxruntime_version"]).startswith(LITERT)
        names: tuple[str, ...] = _WAYS_OF_LITERT if is_by_litert else _WAYS_ALWAYS_RUN
        # What was not run has no values, which is not to say that nothing is lost.
        names = names if row["sample_count"] else ()
        values |= {name: _finite_or(row[name], math.inf) for name in names}
    return AuditRecord(
        **values
        | {
            "notes": tuple(names_or_none(row["notes"])),
            "layers": tuple(
                AuditLayerRecord(**_values(AuditLayerRecord, layer) | {"int8_depth": depth})
                for depth, layer in (() if layers is None else _by_depth(layers))
            ),
            "tensors": tuple(
                AuditTensorRecord(**_values(AuditTensorRecord, tensor))
                for tensor in (() if tensors is None else tensors.to_dict("records"))
            ),
            "outputs": tuple(
                AuditOutputRecord(**_values(AuditOutputRecord, output))
                for output in (() if outputs is None else outputs.to_dict("records"))
            ),
        }
    )


def audit_layer_names(layers: "pd.DataFrame") -> dict[int, str]:
    """What the layers of ``queries.audit_layers`` are called, by depth in the int8 file."""
    import pandas as pd

    return {
        depth: str(layer["layer"])
        for depth, layer in _by_depth(layers)
        if not pd.isna(layer["layer"])
    }


def _by_depth(layers: "pd.DataFrame") -> list[tuple[int, Mapping[Any, Any]]]:
    """Each layer with its depth in the int8 file."""
    import pandas as pd

    return [
        (-1 - position if pd.isna(layer["int8_depth"]) else int(layer["int8_depth"]), layer)
        for position, layer in enumerate(layers.to_dict("records"))
    ]


def _values(record: type, row: Mapping[Any, Any]) -> dict[str, Any]:
    """The columns of a record out of a row: NaN for a figure that is missing, else None."""
    import pandas as pd

    values: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        if not field.metadata.get("is_column", True):
            continue
        value = row[field.name]
        if field.type in (float, "float"):
            values[field.name] = _finite_or(value, math.nan)
        elif pd.api.types.is_list_like(value):
            values[field.name] = value
        elif pd.isna(value):
            values[field.name] = None
        else:
            values[field.name] = int(value) if field.type in _WHOLE_NUMBERS else value
    return values


_WHOLE_NUMBERS = (int, "int", int | None, "int | None")


def _finite_or(value: Any, otherwise: float) -> float:
    import pandas as pd

    return otherwise if pd.isna(value) else float(value)


def layer_labels(layers: "pd.DataFrame") -> list[str]:
    """What each layer of a model is called: its name, with the operand where a node has several."""
    has_several = layers["layer"].duplicated(keep=False)
    return [
        f"{layer} ({operand})" if several else layer
        for layer, operand, several in zip(
            layers["layer"], layers["operand"], has_several, strict=True
        )
    ]


def reached_with(layer: Mapping[Any, Any], remedies: Mapping[str, str]) -> dict[str, float | None]:
    """What a layer would reach with each remedy, by its name; None where nobody knows.

    Args:
        layer: a row of ``queries.worst_layers`` with that of ``queries.layer_rescues``.
        remedies: names by columns, as in ``remedies.REMEDIES``.
    """
    reached = {name: figure_or_none(layer[column]) for column, name in remedies.items()}
    if "per channel" in reached and reached["per channel"] is None:
        # Every layer is measured per channel: NULL is exact.
        reached["per channel"] = math.inf
    return reached


# In this order; what noise has no value of is left out.
_FIGURES = (
    *(
        "target",
        "scheme",
        "mode",
        "deciding_sqnr_db",
        "output_sqnr_db",
        "sample_count",
        "calibration_count",
    ),
    *("input_shape", "compared", "float_layers", "seconds", "cpu_seconds"),
    *("onnxruntime_version", "created_at", "failure"),
)


def target_figures(
    model: str, records: Sequence[SimulationRecord], kept_db: Mapping[str, float]
) -> "pd.DataFrame":
    """One row per figure of a probe, in the order given.

    Args:
        kept_db: by target, the earlier figure that stays in the store where a new one is missing.
    """
    import pandas as pd

    rows = [dataclasses.asdict(record) for record in records]
    frame = pd.DataFrame([[row[column] for column in _FIGURES] for row in rows], columns=_FIGURES)
    frame["float_layers"] = [list(row["float_layers"] or ()) for row in rows]
    frame["kept_sqnr_db"] = [kept_db.get(row["target"], float("nan")) for row in rows]
    frame.insert(0, "model", model)
    return frame


def names_or_none(value: Any) -> list[str]:
    """A list of names out of a frame; empty where the store has NULL."""
    import pandas as pd

    return [str(name) for name in value] if pd.api.types.is_list_like(value) else []


def figure_or_none(value: Any) -> float | None:
    """A figure out of a frame, None where the store has NULL."""
    import pandas as pd

    return None if pd.isna(value) else float(value)
