"""Write a model and what is known about it into the open store, take one out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any

import duckdb

from quantstore.errors import UnknownModelError, hint_for
from quantstore.store.connection import Connection
from quantstore.store.keys import KEY_COLUMNS, content_of, key_of
from quantstore.store.rows import columns_of, insert, rounded_db, stacked
from quantstore.store.totals import add_totals

if TYPE_CHECKING:
    from quantstore.records import (
        ActivationErrorRecord,
        Array,
        AuditRecord,
        EqualizationRecord,
        FindingRecord,
        FloatSetRecord,
        IngestRecord,
        LayerRecords,
        ModelRecord,
        ModelRecords,
        RescueRecord,
        SensitivityRecord,
        SimulationRecord,
    )

NO_MODEL_NAMED = "the store has no model named"


def find_model(connection: Connection, model: str) -> int:
    """The key of a model.

    Raises:
        UnknownModelError: where the store does not hold it.
    """
    model_id = connection.value("select model_id from models where model = ?", [model])
    if model_id is None:
        names = [name for (name,) in connection.rows("select model from models")]
        hint = hint_for(model, names, UnknownModelError.hint)
        raise UnknownModelError(f"{NO_MODEL_NAMED} {model!r}", hint)
    return int(model_id)


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that the store holds, and how it was measured."""

    model_id: int
    model: str
    measures_version: int
    schemes: tuple[str, ...]


def model_with_content(connection: Connection, sha256: str, folded: bool) -> StoredModel | None:
    """The model with this content; None where it is new."""
    return models_with_content(connection, folded, [sha256]).get(sha256)


def models_with_content(
    connection: Connection, folded: bool, contents: "Sequence[str] | None" = None
) -> dict[str, StoredModel]:
    """The models that hold some contents, by their SHA-256; all models where none are named."""
    rows = connection.rows(
        """
        with chosen as (
            select model_id, model, sha256, measures_version
            from models
            where folded = $folded and ($contents is null or list_contains($contents, sha256))
        ),
        -- Every layer has a row for every scheme.
        first_layers as (
            select model_id, min(layer_id) as layer_id
            from layers semi join chosen using (model_id)
            group by model_id
        ),
        measured as (
            select model_id, list(scheme) as schemes
            from errors join first_layers using (layer_id)
            group by model_id
        )
        select sha256, model_id, model, measures_version, coalesce(schemes, [])
        from chosen join first_layers using (model_id) left join measured using (model_id)
        """,
        {"folded": folded, "contents": contents},
    )
    return {
        sha256: StoredModel(model_id, model, measures_version, tuple(schemes))
        for sha256, model_id, model, measures_version, schemes in rows
    }


def free_name(taken: Iterable[str], preferred_name: str, sha256: str) -> str:
    """The name of a model whose own name may belong to other content."""
    taken = set(taken)
    if preferred_name not in taken:
        return preferred_name
    name = stamped = f"{preferred_name}-{sha256[:8]}"
    number = 1
    while name in taken:
        # The same content, once folded and once not, under a name that is taken.
        number += 1
        name = f"{stamped}-{number}"
    return name


@dataclass(frozen=True, slots=True)
class _Keys:
    """The key of a model, and those of its layers by their depth."""

    model_id: int
    layer_ids: Mapping[int | None, int]


def _keys_of(connection: Connection, model_id: int) -> _Keys:
    rows = connection.rows("select depth, layer_id from layers where model_id = ?", [model_id])
    return _Keys(model_id, dict(rows))


def _insert_keyed(
    duck: duckdb.DuckDBPyConnection, table: str, columns: dict[str, list[Any]]
) -> list[int]:
    """Write rows whose keys are made from their content; returns the keys."""
    keys = [key_of(table, content) for content in content_of(table, columns)]
    insert(duck, table, columns | {KEY_COLUMNS[table]: keys})
    return keys


def add_model(
    connection: Connection,
    record: "ModelRecord",
    measures: "Sequence[LayerRecords]",
    equalization: "Sequence[EqualizationRecord]" = (),
) -> int:
    """Write a model and its layers inside the open transaction; returns its key."""
    from quantstore.records import ModelRecords

    whole = ModelRecords(model=record, layers=tuple(measures), equalization=tuple(equalization))
    return write_models(connection, [whole])[0]


def write_models(connection: Connection, models: "Sequence[ModelRecords]") -> list[int]:
    """Write whole models inside the open transaction; returns their keys.

    Every table is written once for all of them, which costs little more than writing one model.
    They are all there once the transaction commits. If it fails, none of them is. An earlier
    measurement of the same content goes; what people ran on it stays.

    Raises:
        ConstraintException: two of them have the same content, or the name of a model of other
            content that is stored.
    """
    if not models:
        return []
    duck = connection._connection
    columns = columns_of([whole.model for whole in models])
    stored_ids = [
        model_id
        for (model_id,) in connection.rows(
            "select model_id from models where list_contains($keys, model_id)",
            {"keys": [key_of("models", content) for content in content_of("models", columns)]},
        )
    ]
    for model_id in stored_ids:
        _remove_measurement(connection, model_id)
    model_ids = _insert_keyed(duck, "models", columns)
    layers = [
        (model_id, measured)
        for model_id, whole in zip(model_ids, models, strict=True)
        for measured in whole.layers
    ]
    new_keys = iter(_insert_layers(duck, layers))
    keyed = [
        (_Keys(model_id, dict(enumerate(islice(new_keys, len(whole.layers))))), whole)
        for model_id, whole in zip(model_ids, models, strict=True)
    ]
    add_totals(duck, model_ids)
    for table in _DEPTHS:
        _insert_of_models(
            duck, table, [(keys, row) for keys, whole in keyed for row in getattr(whole, table)]
        )
    _insert_simulations(
        connection, [(keys.model_id, probe) for keys, whole in keyed for probe in whole.probes]
    )
    _insert_ingests(connection, [whole.ingest for whole in models if whole.ingest is not None])
    for model_id in stored_ids:
        _forget_lost_layers(connection, model_id)
    return model_ids


def _insert_layers(
    duck: duckdb.DuckDBPyConnection, layers: "Sequence[tuple[int, LayerRecords]]"
) -> list[int]:
    """Write layers, each beside the key of its model, and everything known about each of them.

    Returns:
        Their keys.
    """
    if not layers:
        return []
    columns = columns_of([measured.layer for _, measured in layers])
    columns["model_id"] = [model_id for model_id, _ in layers]
    layer_ids = _insert_keyed(duck, "layers", columns)
    with_ids = [(key, measured) for key, (_, measured) in zip(layer_ids, layers, strict=True)]
    channels = stacked([(i, _channel_columns(measured)) for i, measured in with_ids])
    insert(duck, "stored_channels", rounded_db(channels))
    many: dict[str, list[tuple[int, Any]]] = {
        "stored_errors": [(i, error) for i, m in with_ids for error in m.errors],
        "stored_clipping": [(i, curve) for i, m in with_ids for curve in m.clipping],
        "bits_needed": [(i, bits) for i, m in with_ids for bits in m.bits_needed],
        "histograms": [(i, m.histogram) for i, m in with_ids if m.histogram is not None],
    }
    for table, rows in many.items():
        if rows:
            columns = rounded_db(columns_of([record for _, record in rows]))
            insert(duck, table, columns | {"layer_id": [i for i, _ in rows]})
    return layer_ids


def _channel_columns(measured: "LayerRecords") -> "dict[str, Array]":
    """The columns of ``stored_channels`` by name; those of int8 schemes bear the scheme's name."""
    columns = {
        field.name: getattr(measured.channels, field.name) for field in fields(measured.channels)
    }
    for part in measured.channel_errors:
        columns[f"{part.scheme}_sqnr_db"] = part.sqnr_db
        columns[f"{part.scheme}_zeroed_count"] = part.zeroed_count
    return columns


# The fields of records that name a layer by its depth, by table, and the columns for its key.
_DEPTHS = {
    "equalization": {"depth": "layer_id", "partner_depth": "partner_layer_id"},
    "graph_points": {"depth": "layer_id"},
    "graph_edges": {},
    "findings": {"depth": "layer_id"},
}


def _insert_of_models(
    duck: duckdb.DuckDBPyConnection, table: str, rows: "Sequence[tuple[_Keys, Any]]"
) -> None:
    """Write records, each beside the keys of its model, to a table of ``_DEPTHS``."""
    if not rows:
        return
    columns = columns_of([record for _, record in rows])
    for field, column in _DEPTHS[table].items():
        of_layers = zip(rows, columns.pop(field), strict=True)
        columns[column] = [keys.layer_ids.get(depth) for (keys, _), depth in of_layers]
    if table != "equalization":
        # Its layers say which model it belongs to.
        columns["model_id"] = [keys.model_id for keys, _ in rows]
    insert(duck, table, columns)


def set_source(connection: Connection, model: str, source: str) -> None:
    """Write where the file of a model is from now on; nothing where the store does not hold it."""
    connection.rows("update models set source = ? where model = ?", [source, model])


def own_runs(connection: Connection, model: str) -> int:
    """How many times people ran a model, rescued or audited it.

    The probe, whose inputs are all noise, is not theirs; a rescue and an audit are, whatever their
    inputs.
    """
    return int(
        connection.value(
            """
            with own as (select model_id from models where model = $model)
            select
                (
                    select count(*) from simulations semi join own using (model_id)
                    where input_source <> 'noise'
                ) + (select count(*) from rescues semi join own using (model_id))
                + (select count(*) from audits join own on int8_model_id = own.model_id)
            """,
            {"model": model},
        )
    )


def _forget_lost_layers(connection: Connection, model_id: int) -> None:
    """Let runs of a model point only to layers that its new measurement found, too."""
    key = {"model": model_id}
    condition = "not in (select layer_id from layers where model_id = $model)"
    connection.rows(
        f"delete from sensitivities where model_id = $model and layer_id {condition}", key
    )
    connection.rows(
        f"update rescue_units set layer_id = null where layer_id {condition} and rescue_id in"
        " (select rescue_id from rescues where model_id = $model)",
        key,
    )
    for side in ("int8", "float"):
        connection.rows(
            f"update audit_layers set {side}_layer_id = null where {side}_layer_id {condition}"
            f" and audit_id in (select audit_id from audits where {side}_model_id = $model)",
            key,
        )


def add_findings(connection: Connection, model_id: int, records: "Sequence[FindingRecord]") -> None:
    """Write what the graph and the weights of a model give away."""
    if records:
        keys = _keys_of(connection, model_id)
        rows = [(keys, record) for record in records]
        _insert_of_models(connection._connection, "findings", rows)


def replace_findings(
    connection: Connection,
    model_id: int,
    kinds: "Sequence[str]",
    records: "Sequence[FindingRecord]",
) -> None:
    """Write findings in place of those of these kinds that the model had."""
    connection.rows(
        "delete from findings where model_id = ? and list_contains(?, kind)",
        [model_id, list(kinds)],
    )
    add_findings(connection, model_id, records)


def add_ingest(connection: Connection, record: "IngestRecord") -> None:
    """Write what became of one file that somebody tried to ingest."""
    _insert_ingests(connection, [record])


def _insert_ingests(connection: Connection, records: "Sequence[IngestRecord]") -> None:
    if records:
        _insert_keyed(connection._connection, "ingests", columns_of(records))


def add_simulation(
    connection: Connection,
    model_id: int,
    record: "SimulationRecord",
    activation_errors: "Sequence[ActivationErrorRecord]" = (),
) -> int:
    """Write a run of a model with its outputs, answers and drifting tensors; returns its key."""
    (simulation_id,) = _insert_simulations(connection, [(model_id, record)])
    if activation_errors:
        run_keys = {"simulation_id": [simulation_id] * len(activation_errors)}
        columns = columns_of(activation_errors) | run_keys
        insert(connection._connection, "activation_errors", columns)
    return simulation_id


def _insert_simulations(
    connection: Connection, runs: "Sequence[tuple[int, SimulationRecord]]"
) -> list[int]:
    """Write runs with outputs and answers, each beside the key of its model; returns their keys."""
    if not runs:
        return []
    duck = connection._connection
    columns = columns_of([record for _, record in runs])
    columns["model_id"] = [model_id for model_id, _ in runs]
    simulation_ids = _insert_keyed(duck, "simulations", columns)
    with_keys = [(key, run) for key, (_, run) in zip(simulation_ids, runs, strict=True)]
    children: dict[str, list[tuple[int, Any]]] = {
        "simulation_outputs": [(key, part) for key, run in with_keys for part in run.outputs],
        "simulation_answers": [(key, answer) for key, run in with_keys for answer in run.answers],
    }
    for table, rows in children.items():
        if rows:
            columns = columns_of([record for _, record in rows])
            insert(duck, table, columns | {"simulation_id": [key for key, _ in rows]})
    return simulation_ids


def replace_probe(
    connection: Connection, model_id: int, record: "SimulationRecord"
) -> float | None:
    """Write a figure of the probe in place of the earlier ones of the same target.

    A figure that is missing takes the place of others that are, never of one that is there.

    Returns:
        The earlier figure in dB where it stays, and nothing was written; else None.
    """
    same = [model_id, record.target, record.scheme, record.mode]
    if record.failure is not None:
        earlier_db = connection.value(
            "select arg_max(coalesce(deciding_sqnr_db, output_sqnr_db), created_at)"
            " from simulations where model_id = ? and input_source = 'noise'"
            " and target is not distinct from ? and scheme = ? and mode = ?"
            " and output_sqnr_db is not null",
            same,
        )
        if earlier_db is not None:
            return float(earlier_db)
    earlier_ids = [
        row[0]
        for row in connection.rows(
            "select simulation_id from simulations"
            " where model_id = ? and input_source = 'noise' and target is not distinct from ?"
            " and scheme = ? and mode = ?",
            same,
        )
    ]
    for table in (*CHILDREN_OF_SIMULATIONS, "simulations"):
        connection.rows(f"delete from {table} where list_contains(?, simulation_id)", [earlier_ids])
    add_simulation(connection, model_id, record)
    return None


def add_sensitivities(
    connection: Connection, model_id: int, records: "Sequence[SensitivityRecord]"
) -> None:
    """Write what quantizing one unit at a time does; it replaces what an earlier run found."""
    if not records:
        return
    layers: dict[int | None, tuple[int | None, str]] = {None: (None, "")}
    for depth, layer_id, layer in connection.rows(
        "select depth, layer_id, layer from layers where model_id = ?", [model_id]
    ):
        layers[depth] = (layer_id, layer)
    for run_key in {(r.scheme, r.mode, r.kind, r.input_source, r.target) for r in records}:
        connection.rows(
            "delete from sensitivities where model_id = ? and scheme = ? and mode = ?"
            " and kind = ? and input_source = ? and target is not distinct from ?",
            [model_id, *run_key],
        )
    columns = columns_of(records)
    own_layers = [layers[depth] for depth in columns.pop("depth")]
    columns["layer_id"] = [layer_id for layer_id, _ in own_layers]
    columns["unit"] = [
        unit or layer for unit, (_, layer) in zip(columns["unit"], own_layers, strict=True)
    ]
    columns["model_id"] = [model_id] * len(records)
    insert(connection._connection, "sensitivities", columns)


def add_float_set(
    connection: Connection, simulation_id: int, records: "Sequence[FloatSetRecord]"
) -> None:
    """Write which units return to float; it replaces what was found for the same goals."""
    if not records:
        return
    for goal_db in {record.goal_db for record in records}:
        connection.rows(
            "delete from float_sets where simulation_id = ? and goal_db = ?",
            [simulation_id, goal_db],
        )
    columns = columns_of(records) | {"simulation_id": [simulation_id] * len(records)}
    insert(connection._connection, "float_sets", columns)


def add_rescue(connection: Connection, model_id: int, record: "RescueRecord") -> int:
    """Write a rescue of a model with all that belongs to it; returns its key."""
    duck = connection._connection
    (rescue_id,) = _insert_keyed(duck, "rescues", columns_of([record]) | {"model_id": [model_id]})
    ids = dict(connection.rows("select depth, layer_id from layers where model_id = ?", [model_id]))
    if record.units:
        columns = columns_of(record.units)
        columns["layer_id"] = [ids.get(depth) for depth in columns.pop("depth")]
        insert(duck, "rescue_units", columns | {"rescue_id": [rescue_id] * len(record.units)})
    for table, rows in (
        ("rescue_steps", record.steps),
        ("rescue_files", record.files),
        ("rescue_drift", record.drift),
    ):
        if rows:
            insert(duck, table, columns_of(rows) | {"rescue_id": [rescue_id] * len(rows)})
    return rescue_id


def add_audit(
    connection: Connection,
    int8_model_id: int,
    float_model_id: int | None,
    float_file: str,
    record: "AuditRecord",
) -> int:
    """Write an audit with all that belongs to it; returns its key."""
    duck = connection._connection
    of_the_files: dict[str, list[Any]] = {
        "int8_model_id": [int8_model_id],
        "float_model_id": [float_model_id],
        "float_file": [float_file],
    }
    (audit_id,) = _insert_keyed(duck, "audits", columns_of([record]) | of_the_files)
    if record.layers:
        columns = columns_of(record.layers)
        for side, model_id in (("int8", int8_model_id), ("float", float_model_id)):
            ids = dict(
                connection.rows("select depth, layer_id from layers where model_id = ?", [model_id])
            )
            columns[f"{side}_layer_id"] = [ids.get(depth) for depth in columns.pop(f"{side}_depth")]
        insert(duck, "audit_layers", columns | {"audit_id": [audit_id] * len(record.layers)})
    for table, rows in (("audit_tensors", record.tensors), ("audit_outputs", record.outputs)):
        if rows:
            insert(duck, table, columns_of(rows) | {"audit_id": [audit_id] * len(rows)})
    return audit_id


CHILDREN_OF_AUDITS = ("audit_layers", "audit_tensors", "audit_outputs")
CHILDREN_OF_RESCUES = ("rescue_steps", "rescue_units", "rescue_files", "rescue_drift")
CHILDREN_OF_SIMULATIONS = (
    "simulation_outputs",
    "simulation_answers",
    "activation_errors",
    "float_sets",
)

# What was measured of a model; the layers and the model itself last, for others are found by them.
_OF_A_MEASUREMENT = ("findings", "graph_edges", "graph_points", "layer_totals", "layers", "models")
CHILDREN_OF_LAYERS = (
    "stored_channels",
    "stored_errors",
    "stored_clipping",
    "bits_needed",
    "equalization",
    "histograms",
)


def remove_model(connection: Connection, model_id: int) -> None:
    """Take a model and everything known about it out, inside the open transaction."""
    _remove_runs(connection, CHILDREN_OF_SIMULATIONS, "simulations", "model_id = ?", model_id)
    _remove_runs(connection, CHILDREN_OF_RESCUES, "rescues", "model_id = ?", model_id)
    _remove_runs(connection, CHILDREN_OF_AUDITS, "audits", "int8_model_id = ?", model_id)
    # An audit says as much of an int8 file when the float file is gone from the store.
    connection.rows("update audits set float_model_id = null where float_model_id = ?", [model_id])
    connection.rows(
        "update audit_layers set float_layer_id = null where float_layer_id in"
        " (select layer_id from layers where model_id = ?)",
        [model_id],
    )
    connection.rows("delete from sensitivities where model_id = ?", [model_id])
    _remove_measurement(connection, model_id)


def _remove_measurement(connection: Connection, model_id: int) -> None:
    """Take out what was measured of a model, its probe included."""
    # The names of tables are our own; only values come from outside.
    for table in CHILDREN_OF_LAYERS:
        connection.rows(
            f"delete from {table} where layer_id in"
            " (select layer_id from layers where model_id = ?)",
            [model_id],
        )
    of_the_probe = "model_id = ? and input_source = 'noise'"
    _remove_runs(connection, CHILDREN_OF_SIMULATIONS, "simulations", of_the_probe, model_id)
    for table in _OF_A_MEASUREMENT:
        connection.rows(f"delete from {table} where model_id = ?", [model_id])


def _remove_runs(
    connection: Connection, children: Sequence[str], parent: str, condition: str, model_id: int
) -> None:
    """Take out runs of one kind with what belongs to them."""
    column = KEY_COLUMNS[parent]
    for table in children:
        connection.rows(
            f"delete from {table} where {column} in"
            f" (select {column} from {parent} where {condition})",
            [model_id],
        )
    connection.rows(f"delete from {parent} where {condition}", [model_id])


def remove_model_named(connection: Connection, model: str) -> bool:
    """Take the model of this name out, if there is one; says whether there was."""
    model_id = connection.value("select model_id from models where model = ?", [model])
    if model_id is not None:
        remove_model(connection, model_id)
    return model_id is not None
