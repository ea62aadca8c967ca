"""Who may import what: data flows one way, and every library has one owner.

Every test looks at the whole package and names all that break its rule.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.sources import MODULES, PACKAGE, nodes_of, tree_of

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"

# From low to high, besides what is only a type. A package, or a module at the root, imports only
# from lines above its own; those that share a line know nothing of one another.
LAYERS = """
    errors version schemes layer records answers
    settings file_formats
    process numerics graph
    store run wording
    queries console rescuing auditing
    pipeline checks charts
    report notebook
    api
    cli app
    __main__
"""

# ``quantstore`` itself says who stands where in it, and imports what is asked for when it is asked.
FACE = "__init__"

# The library, and the only places that know it: packages, or modules in them.
OWNERS = {
    "duckdb": {"store"},
    "onnx": {"graph", "run", "rescuing", "auditing"},
    "onnx_ir": {"graph", "run", "rescuing", "auditing"},
    "google": {"graph"},
    "tflite": {"graph.tflite.schema"},
    "safetensors": {"graph.weights.safetensors"},
    "gguf": {"graph.weights.gguf"},
    "ai_edge_litert": {"run.litert"},
    "onnxruntime": {"run.runtime"},
    "PIL": {"run.inputs", "run.pictures", "run.thumbnails", "charts.answers"},
    "altair": {"charts"},
    # The command line starts the server; nothing else of it draws.
    "streamlit": {"app", "cli.app"},
    "click": {"cli"},
    "tabulate": {"wording.tables"},
    "jinja2": {"report"},
    "dask": {"pipeline.cluster"},
    "distributed": {"pipeline.cluster"},
    "fsspec": {"pipeline.remote"},
    # Arrays, and frames of them: below the store there are no frames, except for what a chart shows
    # of one layer.
    "numpy": {
        *("layer", "records", "numerics", "graph", "run", "store", "queries", "charts", "api"),
        "rescuing",
        "auditing",
        *("wording.tables", "wording.worked_example", "app.pages"),
    },
    "pandas": {
        *("wording.tables", "wording.frames", "wording.worked_example"),
        *("queries", "console", "checks", "charts", "report", "notebook", "api", "cli", "app"),
    },
    "pyarrow": {"store", "console", "wording.tables", "api"},
}

LEVELS = {name: number for number, line in enumerate(LAYERS.split("\n")) for name in line.split()}


def named(path: Path) -> str:
    """``store.gate`` of a file; a package is called as its folder is."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


EVERY_MODULE = {named(path): path for path in MODULES}


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported(node: ast.AST, *, at_start: bool = False) -> Iterator[str]:
    """Full names of what a syntax tree imports, wherever in the file or when it is loaded."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            # A module, or a name in one.
            yield full if full.removeprefix("quantstore.") in EVERY_MODULE else str(node.module)
    for child in ast.iter_child_nodes(node):
        is_later = at_start and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        if not is_for_types_only(child) and not is_later:
            yield from imported(child, at_start=at_start)


@cache
def imports_of(path: Path) -> tuple[frozenset[str], frozenset[str]]:
    """What a file imports: modules of ours without ``quantstore.``, others in full."""
    ours, others = set(), set()
    for name in imported(tree_of(path)):
        top, _, inside = name.partition(".")
        if top == "quantstore":
            ours.add(inside or FACE)
        elif top not in sys.stdlib_module_names:
            others.add(name)
    return frozenset(ours), frozenset(others)


def top_of(module: str) -> str:
    return module.split(".")[0]


def is_inside(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


# Tests.


def test_what_tests_share_lies_in_support_and_no_test_file_imports_another():
    offenders = [
        f"{path.relative_to(TESTS)} imports {name}"
        for path in sorted(TESTS.rglob("*.py"))
        # To parse every test takes longer than all else here.
        if re.search(r"^ *(from|import) +tests\b(?!\.support\b)", path.read_text("utf-8"), re.M)
        for name in imports_of(path)[1]
        if top_of(name) == "tests" and not is_inside(name, {"tests.support"})
    ]
    assert offenders == []


# Layers.


def test_every_package_has_a_layer_and_every_layer_is_there():
    assert {top_of(name) for name in EVERY_MODULE} - {FACE} == set(LEVELS)


def test_a_module_imports_only_from_lower_layers():
    offenders = [
        f"{module} imports {other}"
        for module, path in EVERY_MODULE.items()
        for other in sorted(imports_of(path)[0])
        if module != FACE
        and top_of(other) != top_of(module)
        and (other == FACE or LEVELS[top_of(other)] >= LEVELS[top_of(module)])
    ]
    assert offenders == []


def test_a_library_is_known_to_its_owners_only():
    offenders = [
        f"{module} imports {other}"
        for module, path in EVERY_MODULE.items()
        for other in sorted(imports_of(path)[1])
        if not is_inside(module, OWNERS.get(top_of(other), set()))
    ]
    assert offenders == []


def test_every_owner_of_a_library_is_a_place_that_exists():
    places = {place for owners in OWNERS.values() for place in owners}
    assert {place for place in places if place not in EVERY_MODULE} == set()


def circle_in(arrows: dict[str, set[str]]) -> list[str]:
    """The modules that stand in a circle, or between two of them."""

    def without_ends(below: dict[str, set[str]]) -> dict[str, set[str]]:
        while ends := {name for name, others in below.items() if not others & below.keys()}:
            below = {name: others for name, others in below.items() if name not in ends}
        return below

    below = without_ends({name: others - {name} for name, others in arrows.items()})
    above: dict[str, set[str]] = {name: set() for name in below}
    for name, others in below.items():
        for other in others & below.keys():
            above[other].add(name)
    return sorted(without_ends(above))


def test_imports_never_run_in_a_circle_inside_a_package_either():
    arrows = {}
    for module, path in EVERY_MODULE.items():
        names = {name.removeprefix("quantstore.") for name in imported(tree_of(path))}
        arrows[module] = {name for name in names if name in EVERY_MODULE}
    # A package gathers its modules; these never ask the package they are in.
    assert circle_in(arrows) == []


def test_a_worker_knows_no_store():
    """What is sent to other machines: they may have none in reach, and must not open one."""
    reached, waiting = set(), {"pipeline.worker"}
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= {name for name in imports_of(EVERY_MODULE[module])[0] if name != FACE} - reached
    assert "run.probe" in reached
    assert {name for name in reached if is_inside(name, {"store", "queries"})} == set()


def test_the_root_holds_at_most_ten_modules():
    assert len(list(PACKAGE.glob("*.py"))) <= 10


def test_the_file_that_streamlit_runs_only_calls_the_package():
    (statement, call) = [
        node
        for node in tree_of(ROOT / "app.py").body
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]
    assert ast.unparse(statement) == "from quantstore.app.main import run"
    assert ast.unparse(call) == "run()"


def test_pages_know_no_other_page_and_widgets_no_page():
    order = ("app.widgets", "app.sections", "app.pages")
    offenders = [
        f"{module} imports {other}"
        for number, place in enumerate(order)
        for module, path in EVERY_MODULE.items()
        if is_inside(module, {place})
        for other in sorted(imports_of(path)[0])
        if is_inside(other, {*order[number + 1 :], "app.main", "app.sidebar", "app.start"})
        or (place == "app.pages" and is_inside(other, {place}))
    ]
    assert offenders == []


# What code may never do.


# What the store puts into a statement itself: its own tables, columns and sequences, lists of them,
# joins with them and conditions on them, comments of its own schema, quoted names, and a number.
OWN_WORDS = {
    *("table", "name", "column", "parent", "parent_key", "sequence", "listed", "joined"),
    "condition",
    *("model_column", "side", "statement"),
    *("creation['name']", "_quoted(column)", "database"),
    *("quoted", "original", "copy", "STORAGE_VERSION", "max(1, int(timeout_seconds * 1000))"),
}
ASKING = ("rows", "records", "value", "frame", "execute", "executemany", "sql", "answering")


def calls_of(path: Path) -> Iterator[ast.Call]:
    return (node for node in nodes_of(path) if isinstance(node, ast.Call))


def test_values_reach_sql_as_parameters():
    offenders = []
    for module, path in EVERY_MODULE.items():
        allowed = OWN_WORDS if is_inside(module, {"store"}) else set()
        for call in calls_of(path):
            if not (
                isinstance(call.func, ast.Attribute) and call.func.attr in ASKING and call.args
            ):
                continue
            statement = call.args[0]
            is_put_together = isinstance(statement, ast.BinOp | ast.Call)
            parts = ast.walk(statement) if isinstance(statement, ast.JoinedStr) else ()
            words = {ast.unparse(p.value) for p in parts if isinstance(p, ast.FormattedValue)}
            if (is_put_together and ast.unparse(statement) != "schema_sql()") or words - allowed:
                offenders.append(f"{module}: {ast.unparse(statement)}")
    assert offenders == []


# Reading a pickle runs whatever its writer wanted.
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def test_nothing_is_ever_unpickled():
    offenders = []
    for module, path in EVERY_MODULE.items():
        picklers = {top_of(name) for name in imported(tree_of(path))} & PICKLERS
        offenders += [f"{module} imports {name}" for name in sorted(picklers)]
        for call in calls_of(path):
            name = ast.unparse(call.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if (
                name.endswith(("read_pickle", "to_pickle", "torch.load"))
                or options.get("allow_pickle", "False") != "False"
                # Streamlit pickles what it keeps on the disk.
                or (name.endswith("cache_data") and "persist" in options)
            ):
                offenders.append(f"{module} calls {name}")
    assert offenders == []


# What loads, and what comes along.


HEAVY = {
    "duckdb",
    "onnx",
    "onnxruntime",
    "onnx_ir",
    "numpy",
    "pandas",
    "pyarrow",
    "altair",
    "streamlit",
    "distributed",
    "fsspec",
}


def printed(program: str) -> list[str]:
    """What a process of its own prints, in words."""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.parametrize("module", ["quantstore.cli", "quantstore.app"])
def test_nothing_heavy_is_loaded_before_it_is_needed(module):
    assert HEAVY & set(printed(f"import sys, {module}; print(*sys.modules)")) == set()


# These are started, not imported.
NO_LIBRARY = {"app", "__main__"}

# What a program shares with all that it imports. Libraries have ways of their own, and are loaded
# before it looks.
STATE = """
import atexit, gc, importlib, logging, os, signal, sys, threading, warnings
for name in {libraries!r}:
    importlib.import_module(name)
import altair as alt
from altair.utils import schemapi

def state():
    return {{
        "altair": (
            schemapi.DEBUG_MODE, alt.data_transformers.active, alt.data_transformers.options,
            alt.theme.active, alt.renderers.active,
        ),
        "gc": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "warnings": list(warnings.filters),
        "imports": (list(sys.meta_path), list(sys.path_hooks), list(sys.path)),
        "exits": atexit._ncallbacks(),
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "logging": (list(logging.root.handlers), logging.root.level),
        "environment": dict(os.environ),
        "threads": threading.active_count(),
    }}

before = state()
for name in {modules!r}:
    importlib.import_module(name)
after = state()
print(*(key for key in before if before[key] != after[key]))
"""


@pytest.mark.slow
def test_importing_what_a_notebook_imports_changes_nothing_for_the_rest_of_it():
    libraries = sorted({*OWNERS} - {"streamlit", "google"})
    libraries += ["PIL.Image", "multiprocessing.util"]
    modules = [f"quantstore.{name}" for name in EVERY_MODULE if not is_inside(name, NO_LIBRARY)]
    assert {"quantstore.api", "quantstore.charts.common", "quantstore.report"} <= {*modules}
    assert printed(STATE.format(libraries=libraries, modules=modules)) == []


def test_only_what_is_put_off_touches_the_interpreter_while_it_is_imported():
    """What a notebook never imports is held to it as well: the app begins by being run."""
    of_a_process = re.compile(
        r"^(gc|warnings|signal|sys\.meta_path|sys\.path|alt\.\w+|schemapi|logging\.(?!getLogger))\b"
    )
    offenders = [
        f"{module}: {ast.unparse(node)}"
        for module, path in EVERY_MODULE.items()
        for node in tree_of(path).body
        if isinstance(node, ast.Expr) and of_a_process.match(ast.unparse(node))
    ]
    assert offenders == ["graph.deferred: sys.meta_path.insert(0, _Finder)"]


@pytest.mark.slow
def test_reading_models_does_not_load_what_computes_with_symbols():
    # A fifth of a second in every process that reads a model; where it is needed, it is there.
    program = (
        "import sys; from quantstore.pipeline import ingest; from quantstore.run import simulate\n"
        "print('sympy.core' in sys.modules)\n"
        "import onnx_ir; print(onnx_ir.SymbolicDim('n') + 1, 'sympy.core' in sys.modules)"
    )
    assert " ".join(printed(program)) == "False n + 1 True"


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_requirements_are_the_dependencies_of_the_package():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = [line.split("#")[0].strip() for line in lines]
    assert [line for line in required if line] == project()["project"]["dependencies"]


def test_extras_are_tested_in_the_versions_that_they_promise():
    extras = project()["project"]["optional-dependencies"]
    tested = {line.split(";")[0].strip() for line in extras["test"]}
    names = {re.split(r"[<>=!\[]", line)[0] for line in tested}
    promised = {
        line for extra, lines in extras.items() if extra not in ("test", "check") for line in lines
    }
    # What is not named here comes along with another one, or is skipped where it is missing.
    assert {line for line in promised if re.split(r"[<>=!\[]", line)[0] in names} <= tested
    assert {"dask", "remote"} <= {*extras}


def test_every_package_is_packed():
    folders = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in MODULES}
    assert folders == set(project()["tool"]["setuptools"]["packages"])


def test_every_file_that_is_no_module_is_packed():
    globs = project()["tool"]["setuptools"]["package-data"]["quantstore"]
    packed = {path for glob in globs for path in PACKAGE.glob(glob)}
    others = {
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert sorted(others - packed) == []


# Charts.


def test_a_channel_is_an_object_of_its_class_which_is_quicker_than_text():
    offenders = [
        f"{path.name}: {keyword.arg}"
        for path in sorted((PACKAGE / "charts").glob("*.py"))
        for call in calls_of(path)
        if getattr(call.func, "attr", "") == "encode"
        for keyword in call.keywords
        if isinstance(keyword.value, ast.Constant | ast.JoinedStr)
    ]
    assert offenders == []


def test_every_chart_of_a_page_is_made_ready():
    """Held against the schema of Vega-Lite again, a chart takes twice as long to draw."""
    offenders = [
        f"{path.name}: {call}"
        for path in sorted((PACKAGE / "app").rglob("*.py"))
        for call in re.findall(r"altair_chart\(\s*(\w+)\(?", path.read_text("utf-8"))
        if call != "ready"
    ]
    assert offenders == []
