"""What the tables hold together by: their keys, and the columns that point into other tables."""

from dataclasses import dataclass

from quantstore.store.keys import CONTENT, KEY_COLUMNS


@dataclass(frozen=True, slots=True)
class Table:
    """A table that belongs to models.

    ``keys``: columns that together name one row. ``points_to``: the table that a column's values
    are keys of; NULL points nowhere.
    """

    name: str
    keys: tuple[tuple[str, ...], ...] = ()
    points_to: tuple[tuple[str, str], ...] = ()

    def pointers(self) -> dict[str, str]:
        """The columns that hold keys, the row's own among them, and the tables whose keys they are.

        The first one says which model or run a row belongs to.
        """
        own_key = {KEY_COLUMNS[self.name]: self.name} if self.name in CONTENT else {}
        return own_key | dict(self.points_to)


_MODEL = (("model_id", "models"),)
_LAYER = (("layer_id", "layers"),)
_SIMULATION = (("simulation_id", "simulations"),)
_RESCUE = (("rescue_id", "rescues"),)
_AUDIT = (("audit_id", "audits"),)

# Parents before their children.
OF_MODELS = (
    Table("models", keys=(("model_id",), ("model",), ("sha256", "folded"))),
    Table("layers", keys=(("layer_id",), ("model_id", "depth")), points_to=_MODEL),
    Table("simulations", keys=(("simulation_id",),), points_to=_MODEL),
    Table("stored_channels", keys=(("layer_id", "channel"),), points_to=_LAYER),
    Table("stored_errors", keys=(("layer_id", "scheme"),), points_to=_LAYER),
    Table("stored_clipping", keys=(("layer_id", "bits", "measure"),), points_to=_LAYER),
    Table("bits_needed", keys=(("layer_id", "granularity"),), points_to=_LAYER),
    Table("histograms", keys=(("layer_id",),), points_to=_LAYER),
    Table(
        "equalization",
        keys=(("layer_id", "partner_layer_id", "scheme"),),
        points_to=(*_LAYER, ("partner_layer_id", "layers")),
    ),
    Table("graph_points", keys=(("model_id", "point"),), points_to=(*_MODEL, *_LAYER)),
    Table("graph_edges", keys=(("model_id", "source_point", "target_point"),), points_to=_MODEL),
    Table("findings", points_to=(*_MODEL, *_LAYER)),
    Table(
        "sensitivities",
        # Operands of one node share a name, and a tensor belongs to no layer.
        keys=(
            (
                *("model_id", "layer_id", "unit", "unit_kind"),
                *("scheme", "mode", "target", "kind", "input_source"),
            ),
        ),
        points_to=(*_MODEL, *_LAYER),
    ),
    Table("simulation_outputs", keys=(("simulation_id", "output", "part"),), points_to=_SIMULATION),
    Table("simulation_answers", keys=(("simulation_id", "rank"),), points_to=_SIMULATION),
    Table("activation_errors", points_to=_SIMULATION),
    Table("float_sets", keys=(("simulation_id", "goal_db", "position"),), points_to=_SIMULATION),
    Table("rescues", keys=(("rescue_id",),), points_to=_MODEL),
    Table("rescue_steps", keys=(("rescue_id", "step"),), points_to=_RESCUE),
    Table("rescue_units", points_to=(*_RESCUE, *_LAYER)),
    Table("rescue_files", keys=(("rescue_id", "path"),), points_to=_RESCUE),
    Table("rescue_drift", keys=(("rescue_id", "depth"),), points_to=_RESCUE),
    Table(
        "audits",
        keys=(("audit_id",),),
        points_to=(("int8_model_id", "models"), ("float_model_id", "models")),
    ),
    Table(
        "audit_layers",
        points_to=(*_AUDIT, ("int8_layer_id", "layers"), ("float_layer_id", "layers")),
    ),
    Table("audit_tensors", points_to=_AUDIT),
    Table("audit_outputs", keys=(("audit_id", "output", "part"),), points_to=_AUDIT),
)

# What is computed from these: an export carries it, an import computes it anew.
DERIVED = (Table("layer_totals", keys=(("model_id", "scheme", "op_family"),), points_to=_MODEL),)

# Attempts to ingest travel along with models, and belong to none.
INGESTS = Table("ingests", keys=(("ingest_id",),))

# What belongs to the store as a whole.
OF_THE_STORE = ("store_info", "schemes", "targets", "bands", "ingests")

ALL_TABLES = (*(table.name for table in (*OF_MODELS, *DERIVED)), *OF_THE_STORE)


def parquet_name(table: str) -> str:
    """The file that holds a table, in an export and in a part of a published folder."""
    return f"{table}.parquet"
