"""The DuckDB file: open it, shape it, write a model into it, label it, take it out, ask it.

The only package that knows duckdb. Connections live for milliseconds: DuckDB lets one process
write, or several read, so a connection held open would shut everybody else out.
"""

from quantstore.store.connection import (
    BATCH_ROWS,
    CONFIG,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    SANDBOX,
    Connection,
    ConnectionSettings,
    Parameters,
    StoreStamp,
    reading,
    sandbox,
    stamp,
    update,
    writing,
)
from quantstore.store.copies import CopySummary, backup, compact
from quantstore.store.exports import ExportSummary, export, export_zip
from quantstore.store.imports import MergeSummary, merge
from quantstore.store.labelling import (
    LONGEST_NAME,
    LONGEST_NOTE,
    Labels,
    labels,
    rename_model,
    set_note,
    set_tags,
)
from quantstore.store.models import (
    CHILDREN_OF_LAYERS,
    StoredModel,
    add_findings,
    add_float_set,
    add_ingest,
    add_model,
    add_sensitivities,
    add_simulation,
    find_model,
    free_name,
    model_with_content,
    own_runs,
    remove_model,
    remove_model_named,
)
from quantstore.store.schema import SCHEMA_VERSION, STORAGE_VERSION

__all__ = [
    "BATCH_ROWS",
    "CHILDREN_OF_LAYERS",
    "CONFIG",
    "FIRST_PAUSE_SECONDS",
    "LONGEST_NAME",
    "LONGEST_NOTE",
    "LONGEST_PAUSE_SECONDS",
    "SANDBOX",
    "SCHEMA_VERSION",
    "STORAGE_VERSION",
    "Connection",
    "ConnectionSettings",
    "CopySummary",
    "ExportSummary",
    "Labels",
    "MergeSummary",
    "Parameters",
    "StoreStamp",
    "StoredModel",
    "add_findings",
    "add_float_set",
    "add_ingest",
    "add_model",
    "add_sensitivities",
    "add_simulation",
    "backup",
    "compact",
    "export",
    "export_zip",
    "find_model",
    "free_name",
    "labels",
    "merge",
    "model_with_content",
    "own_runs",
    "reading",
    "remove_model",
    "remove_model_named",
    "rename_model",
    "sandbox",
    "set_note",
    "set_tags",
    "stamp",
    "update",
    "writing",
]
