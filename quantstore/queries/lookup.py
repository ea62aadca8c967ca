"""From names that somebody gave to keys of the store."""

from quantstore.errors import UnknownLayerError, hint_for
from quantstore.store import Connection, find_model


def model_key(con: Connection, model: str) -> int | None:
    """The key of a model; None, which no row has, where the store does not hold it.

    DuckDB finds the rows of a key at once, those of a name only after it has read every row.
    """
    key: int | None = con.value("select model_id from models where model = ?", [model])
    return key


def find_layer(con: Connection, model: str, layer: str, operand: str | None = None) -> int:
    """The key of a layer.

    Args:
        operand: where one node has several, as the W and R of an LSTM.

    Raises:
        UnknownModelError: the store does not hold the model.
        UnknownLayerError: the model has no such layer, or several of this name.
    """
    model_id = find_model(con, model)
    rows = con.rows(
        """
        select layer_id, operand
        from layers
        where model_id = $model_id and layer = $layer and operand = coalesce($operand, operand)
        order by depth
        """,
        {"model_id": model_id, "layer": layer, "operand": operand},
    )
    if not rows:
        operand_note = "" if operand is None else f" with the operand {operand!r}"
        names = con.rows("select distinct layer from layers where model_id = ?", [model_id])
        others = [name for (name,) in names if name != layer]
        hint = hint_for(layer, others, UnknownLayerError.hint)
        raise UnknownLayerError(f"{model} has no layer named {layer!r}{operand_note}", hint)
    if len(rows) > 1:
        operands = ", ".join(operand for _, operand in rows)
        raise UnknownLayerError(f"{layer!r} stands for several layers", f"choose one of {operands}")
    return int(rows[0][0])
