"""Weights as stored, batch normalization not folded: said wherever such a model is shown."""

import json
import shutil

import pytest

from quantstore import cli
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.wording import method
from quantstore.wording.verdicts import UNFOLDED
from tests.support.reports import Reader, write
from tests.support.visits import opened

FOLDED, RAW = "digits-separable-unfolded", "raw"


@pytest.fixture(scope="module")
def both(demo_store, tmp_path_factory):
    """One file, measured in both ways, among the examples."""
    path = tmp_path_factory.mktemp("both") / "both.duckdb"
    shutil.copy(demo_store, path)
    (file,) = (one for one in demo_paths() if one.stem == FOLDED)
    ingest_file(file, path, IngestChoices(name=RAW, fold=False, probe=False))
    return path


def rows(app, part):
    """The rows of a component of the page, by name."""
    for component in app.get("bidi_component"):
        data = json.loads(component.proto.json or "null")
        if data and part in data:
            return {row["name"]: row for row in data["rows"]}
    raise AssertionError(f"no component has {part}")


@pytest.mark.slow
@pytest.mark.parametrize(("page", "part"), [("compare", "targets"), ("models", "marked")])
def test_a_page_that_shows_both_tells_them_apart(both, page, part):
    found = rows(opened(page, both), part)
    assert (found[RAW]["caveat"], found[FOLDED]["caveat"]) == (UNFOLDED, "")


@pytest.mark.slow
@pytest.mark.parametrize("model", [RAW, pytest.param(FOLDED, marks=pytest.mark.slow)])
def test_the_page_of_a_model_says_which_weights_it_judges(both, model):
    facts = opened("model", both, model=model).caption[0].value
    assert facts.startswith("None of")
    assert facts.endswith(f" Measured with {UNFOLDED}.") == (model == RAW)


@pytest.mark.parametrize("command", [("models",), ("compare", RAW, FOLDED)])
def test_the_command_line_says_it_below_the_table(both, capsys, command):
    assert cli.main(["--db", str(both), *command]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if UNFOLDED in line]
    assert said == [f"{RAW}: {UNFOLDED}"]


@pytest.mark.parametrize(
    ("models", "said", "unsaid"),
    [
        pytest.param([FOLDED], f"{method.FOLDED}.", "--no-fold", marks=pytest.mark.slow),
        ([FOLDED, RAW], method.not_folded_in([RAW]), method.NOT_FOLDED),
        pytest.param([RAW], method.NOT_FOLDED, method.FOLDED, marks=pytest.mark.slow),
    ],
)
def test_a_report_claims_no_folding_that_was_not_done(both, models, said, unsaid):
    text = Reader(write(both, models)).text
    assert Reader(said).text in text
    assert Reader(unsaid).text not in text
    assert (UNFOLDED in text) == (RAW in models)
