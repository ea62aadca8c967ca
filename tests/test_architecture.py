"""Who may import what: data flows one way, and every library has one owner."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "quantstore"

# One row per module, besides the standard library and what is only a type. A folder is one row,
# its files may import one another; a file inside with a row of its own answers to that one.
MAY_IMPORT = {
    "__init__": "version",
    "__main__": "cli",
    "errors": "",
    "settings": "errors",
    "version": "",
    "deferred": "onnx_ir",
    "process": "errors",
    "palette": "",
    "schemes": "",
    "records": "numpy",
    "layers": "numpy",
    "words": "errors schemes",
    # From files to numbers to tables.
    "graph": "onnx onnx_ir google.protobuf numpy deferred errors layers records",
    "distribution": "numpy records",
    "quantization": "numpy records schemes",
    "columns": "numpy quantization records schemes",
    "tensor_scale": "numpy quantization records schemes",
    "sweep": "numpy quantization records schemes columns tensor_scale",
    "equalization": "numpy layers records quantization schemes columns sweep",
    "measure": "numpy layers distribution quantization schemes sweep records",
    "store": "duckdb numpy pyarrow settings errors records schemes version",
    # Where a model is run.
    "run": "onnx onnx_ir numpy deferred errors graph layers process quantization records schemes",
    "run.inputs": "PIL numpy errors",
    "run.runtime": "onnx onnxruntime numpy errors",
    "ingestion": (
        "graph layers measure equalization schemes sweep process run.probe store records errors"
        " settings version"
    ),
    "simulation": "run correlation ingestion process store errors",
    # From tables to answers.
    "queries": "pandas errors store words",
    "checks": "pandas errors queries revisions run.probe schemes store words",
    "correlation": "numpy records",
    "revisions": "numpy pandas words",
    "freshness": "ingestion queries measure errors",
    "console": "pandas pyarrow process store settings errors",
    "formats": "pandas numpy pyarrow tabulate errors",
    "codes": "numpy pandas quantization schemes",
    "explanations": "",
    "worked_example": "numpy pandas quantization records schemes errors words",
    "charts": "altair pandas numpy palette revisions words codes quantization schemes",
    "report": "pandas charts errors formats palette queries schemes store version words",
    "cli": (
        "click pandas streamlit settings process version errors records schemes store ingestion"
        " simulation run"
        " queries checks console formats report revisions words"
    ),
    "api": (
        "numpy pandas checks console errors ingestion queries run.simulate schemes settings"
        " simulation store words"
    ),
    # The app.
    "uploads": "",
    "worker": "ingestion errors process settings",
    "jobs": "ingestion process simulation words worker",
    "app": "streamlit errors pages words",
    "start": "app",
    "pages": (
        "streamlit numpy pandas charts codes console correlation errors explanations formats"
        " freshness ingestion jobs palette quantization process queries report revisions"
        " run.inputs schemes settings store uploads words worked_example"
    ),
}

# The library, and the only modules that know it.
OWNERS = {
    "duckdb": {"store"},
    "onnx": {"graph", "run", "run.runtime"},
    "onnx_ir": {"deferred", "graph", "run"},
    "google": {"graph"},
    "altair": {"charts"},
    # The command line starts the server; nothing else of it draws.
    "streamlit": {"app", "pages", "cli"},
    "click": {"cli"},
    "tabulate": {"formats"},
    "onnxruntime": {"run.runtime"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def row_of(path):
    """The key in ``MAY_IMPORT`` that a file answers to."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts) if ".".join(parts) in MAY_IMPORT else parts[0]


def is_for_types_only(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported(node):
    """Full names of what a syntax tree imports, wherever in the file."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        is_package = importlib.util.find_spec("quantstore") and node.module in (
            "quantstore",
            "quantstore.charts",
            "quantstore.pages",
        )
        yield from (
            (f"{node.module}.{alias.name}" for alias in node.names) if is_package else [node.module]
        )
    for child in ast.iter_child_nodes(node):
        if not is_for_types_only(child):
            yield from imported(child)


@cache
def tree_of(path):
    """The syntax tree of a file, which several tests walk."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path):
    """What a file imports: modules of ours without ``quantstore.``, others in full."""
    ours, others = set(), set()
    for name in imported(tree_of(path)):
        top = name.split(".")[0]
        if top == "quantstore":
            inside = name.removeprefix("quantstore").lstrip(".")
            if inside:
                ours.add(inside)
        elif top not in sys.stdlib_module_names:
            others.add(name)
    return ours, others


def is_allowed(name, allowed):
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_what_its_row_allows_and_nothing_else(path):
    row = row_of(path)
    assert row in MAY_IMPORT, f"{row} needs a row in MAY_IMPORT"
    allowed = {row.split(".")[0], *MAY_IMPORT[row].split()}
    ours, others = imports_of(path)
    assert {name for name in ours | others if not is_allowed(name, allowed)} == set()


def test_every_row_belongs_to_a_module():
    assert {row_of(path) for path in MODULES} >= set(MAY_IMPORT)


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_known_to_its_owners_only(library):
    users = {row_of(path) for path in MODULES if is_allowed_any(imports_of(path)[1], library)}
    assert users <= OWNERS[library]


def is_allowed_any(names, library):
    return any(is_allowed(name, [library]) for name in names)


def test_imports_never_run_in_a_circle():
    below = {row: set() for row in MAY_IMPORT}
    for path in MODULES:
        row = row_of(path)
        below[row] |= {name.split(".")[0] for name in imports_of(path)[0]} - {row}
    while below:
        leaves = {row for row, others in below.items() if not others & below.keys()}
        assert leaves, f"a circle among {sorted(below)}"
        below = {row: others for row, others in below.items() if row not in leaves}


def test_the_file_that_streamlit_runs_only_calls_the_package():
    (statement, call) = [
        node
        for node in ast.parse((ROOT / "app.py").read_text(encoding="utf-8")).body
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]
    assert ast.unparse(statement) == "from quantstore.app import run"
    assert ast.unparse(call) == "run()"


# What the store puts into a statement itself: its own tables, columns and sequences, lists of them
# and conditions on them, the comments of its own schema, quoted names, and a number.
OWN_WORDS = {
    *("table", "name", "column", "parent", "parent_key", "sequence", "listed", "condition"),
    *("common", "creation['name']", "_quoted(column)", "database"),
    *("quoted", "original", "copy", "STORAGE_VERSION", "max(1, int(timeout_seconds * 1000))"),
}
ASKING = ("rows", "value", "frame", "execute", "executemany", "sql", "answering")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_values_reach_sql_as_parameters(path):
    allowed = OWN_WORDS if row_of(path) == "store" else set()
    for call in ast.walk(tree_of(path)):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args):
            continue
        statement = call.args[0]
        if call.func.attr in ASKING:
            assert not isinstance(statement, ast.BinOp | ast.Call) or (
                ast.unparse(statement) == "schema_sql()"
            ), ast.unparse(statement)
            for part in ast.walk(statement) if isinstance(statement, ast.JoinedStr) else ():
                if isinstance(part, ast.FormattedValue):
                    assert ast.unparse(part.value) in allowed, ast.unparse(statement)


# Reading a pickle runs whatever its writer wanted.
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_is_ever_unpickled(path):
    tree = tree_of(path)
    assert {name.split(".")[0] for name in imported(tree)} & PICKLERS == set()
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        assert not name.endswith(("read_pickle", "to_pickle", "torch.load")), name
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert options.get("allow_pickle", "False") == "False", name
        # Streamlit pickles what it keeps on the disk.
        assert not (name.endswith("cache_data") and "persist" in options), name


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
}


def test_the_command_line_answers_before_anything_heavy_is_loaded():
    program = "import sys, quantstore.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert HEAVY & set(loaded.stdout.split()) == set()


def test_requirements_are_the_dependencies_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = [line.split("#")[0].strip() for line in lines]
    assert [line for line in required if line] == project["dependencies"]


def test_every_package_is_packed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = set(project["tool"]["setuptools"]["packages"])
    folders = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in MODULES}
    assert folders == packed


CHARTS = sorted((PACKAGE / "charts").glob("*.py"))


@pytest.mark.parametrize("path", CHARTS, ids=lambda path: path.name)
def test_a_channel_is_an_object_of_its_class_which_is_quicker_than_text(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if is_encoding(node)]
    given = [(keyword.arg, keyword.value) for call in calls for keyword in call.keywords]
    assert [name for name, value in given if isinstance(value, ast.Constant | ast.JoinedStr)] == []


def is_encoding(node):
    return isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "encode"


def test_reading_models_does_not_load_what_computes_with_symbols():
    # A fifth of a second in every process that reads a model; where it is needed, it is there.
    program = (
        "import sys; from quantstore import worker; from quantstore.run import simulate\n"
        "print('sympy.core' in sys.modules)\n"
        "import onnx_ir; print(onnx_ir.SymbolicDim('n') + 1, 'sympy.core' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == ["False", "n + 1 True"]


def test_every_chart_of_a_page_is_made_ready():
    """Held against the schema of Vega-Lite again, a chart takes twice as long to draw."""
    for path in sorted((PACKAGE / "pages").glob("*.py")):
        for call in re.findall(r"altair_chart\(\s*(\w+)\(?", path.read_text("utf-8")):
            assert call == "ready", path.name
