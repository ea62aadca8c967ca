"""Take a run out of the open store, and put it back as it was."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantstore.errors import UnknownRunError
from quantstore.store.connection import Connection
from quantstore.store.models import CHILDREN_OF_SIMULATIONS

if TYPE_CHECKING:
    import pyarrow as pa

# What quantizing one unit at a time did belongs to the latest run of its kind: a run replaces what
# an earlier one found.
_ITS_SENSITIVITIES = """
    exists (
        from simulations as run
        where run.simulation_id = $run
            and run.model_id = sensitivities.model_id
            and run.scheme = sensitivities.scheme
            and run.mode = sensitivities.mode
            and run.target is not distinct from sensitivities.target
            and run.input_source = sensitivities.input_source
            and not exists (
                from simulations as other
                where other.simulation_id <> run.simulation_id
                    and other.model_id = run.model_id
                    and other.scheme = run.scheme
                    and other.mode = run.mode
                    and other.target is not distinct from run.target
                    and other.input_source = run.input_source
            )
    )
"""
_ITS_ROWS = "simulation_id = $run"
# Children before their parent; sensitivities ask the run itself.
_CONDITIONS = {
    "sensitivities": _ITS_SENSITIVITIES,
    **dict.fromkeys(CHILDREN_OF_SIMULATIONS, _ITS_ROWS),
    "simulations": _ITS_ROWS,
}
_IF_KNOWN = {"sensitivities": "layer_id is null or layer_id in (select layer_id from layers)"}


@dataclass(frozen=True, slots=True)
class RemovedRun:
    """Every row of a run that was taken out, by table."""

    simulation_id: int
    model_id: int
    rows: "dict[str, pa.Table]"


def remove_run(connection: Connection, simulation_id: int) -> RemovedRun:
    """Take a run out: its outputs, its tensors, its float sets, and the sensitivities it found.

    Sensitivities stay where another run of the same kind on the same inputs is left.

    Raises:
        UnknownRunError: the store holds no such run.
    """
    model_id = connection.value(
        "select model_id from simulations where simulation_id = ?", [simulation_id]
    )
    if model_id is None:
        raise UnknownRunError(f"the store has no run {simulation_id}")
    duck = connection._connection
    run = {"run": simulation_id}
    rows: dict[str, pa.Table] = {}
    for table, condition in _CONDITIONS.items():
        # The names of tables are our own; only values come from outside.
        relation = duck.sql(f"from {table} where {condition}", params=run)
        rows[table] = relation.to_arrow_table()
        connection.rows(f"delete from {table} where {condition}", run)
    return RemovedRun(simulation_id, int(model_id), rows)


def restore_run(connection: Connection, removed: RemovedRun) -> bool:
    """Put a run back; says whether that was possible.

    It is not where the model was removed meanwhile. Where it was measured anew, sensitivities of
    layers that are no more stay away.
    """
    has_model = connection.value(
        "select count(*) > 0 from models where model_id = ?", [removed.model_id]
    )
    is_here = connection.value(
        "select count(*) > 0 from simulations where simulation_id = ?", [removed.simulation_id]
    )
    if is_here or not has_model:
        return False
    duck = connection._connection
    for table in reversed(_CONDITIONS):
        duck.register("removed_rows", removed.rows[table])
        condition = _IF_KNOWN.get(table, "true")
        try:
            duck.execute(f"insert into {table} by name from removed_rows where {condition}")
        finally:
            duck.unregister("removed_rows")
    return True
