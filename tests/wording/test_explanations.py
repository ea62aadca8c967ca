"""Explanations are read where a word is used: short, and about that word."""

import math
import shutil

import pytest

from quantstore import store
from quantstore.wording.explanations import EXPLANATIONS
from tests.support.visits import opened


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_an_explanation_is_read_in_a_breath(name):
    assert 20 <= len(EXPLANATIONS[name].text.split()) <= 60
    assert len(EXPLANATIONS[name].title.split()) <= 2


def test_bands_are_explained_with_the_limits_of_the_store():
    limits = {"fine": 35.0, "watch": 25.5, "at risk": 10.0, "broken": -math.inf}
    said = EXPLANATIONS["bands"].under(limits)
    assert "*Fine* is 35 dB or more, *watch* 25.5 dB or more, *at risk* 10 dB or more" in said
    assert all("{" not in one.under(limits) for one in EXPLANATIONS.values())


@pytest.fixture(scope="module")
def strict_store(demo_store, tmp_path_factory):
    """A store whose owner wants more of a fine layer."""
    path = tmp_path_factory.mktemp("strict") / "strict.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        con.rows("update bands set lower_db = 35 where band = 'fine'")
        con.rows("update bands set lower_db = 25 where band = 'watch'")
    return path


@pytest.mark.parametrize(
    "page",
    [
        "model",
        pytest.param("compare", marks=pytest.mark.slow),
        pytest.param("layer", marks=pytest.mark.slow),
    ],
)
def test_a_page_explains_the_bands_of_its_store(strict_store, page):
    said = " ".join(one.value for one in opened(page, strict_store).markdown)
    assert "*Fine* is 35 dB or more, *watch* 25 dB or more, *at risk* 10 dB or more" in said
