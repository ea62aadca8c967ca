"""The notebook in examples/ runs from top to bottom, and prints what it says it does."""

import ast
import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parent.parent / "examples" / "quantstore.ipynb"


@pytest.fixture(scope="module")
def cells():
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_every_cell_runs_and_prints_what_it_printed_when_it_was_written(
    cells, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in cells:
        value = run("".join(cell["source"]), names)
        # A chart is only correct once it has been made into JSON, a frame can always be shown.
        if hasattr(value, "to_dict"):
            assert value.to_dict()
        # A store and a verdict show themselves.
        if hasattr(value, "_repr_html_"):
            assert value._repr_html_()
        printed = capsys.readouterr().out
        written = ["".join(output.get("text", "")) for output in cell["outputs"]]
        assert without_figures(printed) == without_figures("".join(written))


def run(source, names):
    """Run a cell as a notebook does; the value of its last line, if that is one."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return last and eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def without_figures(text):
    """The figures of the probe differ by a little between processors."""
    return re.sub(r"\d+(\.\d+)?", "N", text)


def test_the_notebook_asks_for_nothing_outside_and_names_no_machine():
    text = NOTEBOOK.read_text("utf-8")
    for part in ("http", "/home", "/tmp", "/root"):
        assert part not in text
