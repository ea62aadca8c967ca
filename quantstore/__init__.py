"""quantstore: does a network survive int8, which layers break it, and what would rescue it?

    import quantstore

    store = quantstore.open_store("models.duckdb")
    quantstore.ingest("exports/", store, progress=print)
    store.verdict("rtmdet-s")
    store.layers("rtmdet-s").head()
    store.query("from layer_errors where band = 'broken'")

``docs/python.md`` has the rest. Everything is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from quantstore.version import __version__

if TYPE_CHECKING:
    from quantstore.api import Store, Verdict, audit, demo_models, ingest, open_store, probe, rescue
    from quantstore.checks import Check, Limits
    from quantstore.errors import QuantstoreError
    from quantstore.pipeline.outcome import IngestResult

__all__ = [
    "Check",
    "IngestResult",
    "Limits",
    "QuantstoreError",
    "Store",
    "Verdict",
    "__version__",
    "audit",
    "demo_models",
    "ingest",
    "open_store",
    "probe",
    "rescue",
]

_HOMES = {
    "Check": "checks",
    "IngestResult": "pipeline.outcome",
    "Limits": "checks",
    "QuantstoreError": "errors",
    "Store": "api",
    "Verdict": "api",
    "audit": "api",
    "demo_models": "api",
    "ingest": "api",
    "open_store": "api",
    "probe": "api",
    "rescue": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
