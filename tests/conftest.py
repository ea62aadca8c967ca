"""What many tests share: repeatable examples, the demo models in a store, and real models."""

import os
import sys
from pathlib import Path

import pytest
from browsing import (  # noqa: F401
    browser,
    empty_app,
    full_app,
    hostile_app,
    hostile_store,
    served,
    tabs,
    visit,
)
from hypothesis import settings

from quantstore import ingestion

ROOT = Path(__file__).resolve().parent.parent

# The same examples on every machine: a law that fails here fails everywhere.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, one has the browser and its servers, and one each real model."""
    for item in items:
        name = item.path.stem
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("browser"))
        elif name == "test_shared_models":
            parameters = getattr(item, "callspec", None)
            group = str(parameters.params.get("model", "")) if parameters else ""
            item.add_marker(pytest.mark.xdist_group(f"real {group}"))


@pytest.fixture(autouse=True)
def own_main(monkeypatch):
    """AppTest leaves its script behind as ``__main__``, which new processes would run first."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory) -> Path:
    """A store that holds the demo models. Read it, never write to it."""
    path = tmp_path_factory.mktemp("demo") / "demo.duckdb"
    for model in ingestion.demo_paths():
        ingestion.ingest_file(model, path, ingestion.Choices(probe=False))
    return path


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder of real models beside the project; tests that need it skip where it is absent."""
    shared = Path(os.environ.get("QUANTSTORE_SHARED") or ROOT.parent / "shared")
    models = shared / "models"
    if not models.is_dir():
        pytest.skip("the real models are absent (../shared/models, or QUANTSTORE_SHARED)")
    return models
