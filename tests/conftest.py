"""What many tests share: repeatable examples, the demo models in a store, and real models."""

import gc
import importlib
import os
import pkgutil
import re
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers
from streamlit import delta_generator
from streamlit.components.v2 import manifest_scanner

import quantstore
from quantstore import store
from quantstore.charts.common import leave_parts_unchecked
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.run.probe import Prober
from tests.support.browsing import (  # noqa: F401
    browser,
    empty_app,
    full_app,
    hostile_app,
    hostile_store,
    served,
    tabs,
    visit,
)
from tests.support.demo_models import test_split  # noqa: F401
from tests.support.visits import open_app  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent

# The same examples on every machine: a law that fails here fails everywhere. A law that needs
# more or fewer of them than others asks for a share of `settings.default.max_examples`.
repeatable = settings(derandomize=True, deadline=None, database=None)
settings.register_profile("quick", repeatable, max_examples=25)
settings.register_profile("thorough", repeatable, max_examples=300)
settings.load_profile("quick")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files go to one worker each, so that what a module shares is made once.

    Those that open a browser go first: they take longest, and wait a good deal.
    """
    # Hypothesis asks every module which file it is, which would load those that are put off until
    # somebody uses them (quantstore/graph/deferred.py): sympy, half a second.
    waiting = (module for module in sys.modules.values() if type(module).__name__ == "_LazyModule")
    getattr(providers, "_seen_modules", set()).update(map(id, waiting))
    items.sort(key=needs_browser, reverse=True)


def needs_browser(item: pytest.Item) -> bool:
    return "browser" in getattr(item, "fixturenames", ())


def pytest_collection_finish() -> None:
    """Load the package and freeze it.

    Hypothesis draws constants that stand in loaded modules: which test comes first must not decide
    what a law is tried on. And what is loaded stays: a run of the simulator collects garbage to
    give memory back, and would look at all of it.
    """
    for module in pkgutil.walk_packages(quantstore.__path__, "quantstore."):
        # Pages and scripts do something when they are loaded.
        if not re.search(
            r"\.app\.(main|pages|sections|sidebar|start|widgets)\b|__main__|_child$", module.name
        ):
            importlib.import_module(module.name)
    # As in the app; tests of charts hold the whole of each against its schema.
    leave_parts_unchecked()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def known_components() -> Iterator[None]:
    """What AppTest looks for once more for every page; once is enough.

    Components in every installed package; and whether a person types, to be warned that no server
    runs, for which it looks at every module that is loaded.
    """
    with pytest.MonkeyPatch.context() as patched:
        scan = manifest_scanner.scan_component_manifests
        patched.setattr(manifest_scanner, "scan_component_manifests", cache(scan))
        patched.setattr(delta_generator, "_use_warning_has_been_displayed", True)
        yield


@pytest.fixture(autouse=True)
def own_main(monkeypatch):
    """AppTest leaves its script behind as ``__main__``, which new processes would run first."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(autouse=True)
def without_forced_colours(monkeypatch):
    """Servers of CI set it, and output would differ there."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT interrupts, also where a script has started the tests in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory) -> Path:
    """A store that holds the demo models. Read it, never write to it."""
    path = tmp_path_factory.mktemp("demo") / "demo.duckdb"
    for model in demo_paths():
        ingest_file(model, path, IngestChoices(probe=False))
    return path


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A store without a model: a copy of it is there sooner than a new one. Never write to it."""
    path = tmp_path_factory.mktemp("empty") / "empty.duckdb"
    with store.writing(path):
        pass
    return path


@pytest.fixture(scope="session")
def prober():
    """One process that runs models, for all tests that ingest with a probe and want no new one."""
    with Prober() as prober:
        yield prober


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder of real models beside the project; tests that need it skip where it is absent."""
    shared = Path(os.environ.get("QUANTSTORE_SHARED") or ROOT.parent / "shared")
    models = shared / "models"
    if not models.is_dir():
        pytest.skip("the real models are absent (../shared/models, or QUANTSTORE_SHARED)")
    return models


@pytest.fixture(scope="session")
def shared_pairs(shared_models) -> Path:
    """The folder of networks in two formats, beside the real models."""
    pairs = shared_models.parent / "pairs"
    if not pairs.is_dir():
        pytest.skip("the networks in two formats are absent (../shared/pairs)")
    return pairs
