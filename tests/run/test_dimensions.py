"""Dimensions that a file computes from names, and how they are decided together."""

import pytest

from quantstore.run.dimensions import sizes

CACHE = {"batch": 1, "past": 64}


def test_what_is_computed_follows_from_the_names_in_it():
    texts = ["batch", "sequence", "past", "past + 1", "past + sequence", "2*sequence - 1"]
    assert sizes(texts, CACHE, 8) == {
        "batch": 1,
        "sequence": 8,
        "past": 64,
        "past + 1": 65,
        "past + sequence": 72,
        "2*sequence - 1": 15,
    }


def test_names_alone_decide_nothing():
    """An exporter may call every open dimension the same."""
    assert sizes(["batch", "dynamic", "dynamic"], CACHE, 8) is None
    assert sizes([], CACHE, 8) is None


@pytest.mark.parametrize(
    "text", ["", "7 apples", "past //", "past / 2", "past // 0", "1 - past", "past ** 9", "f(past)"]
)
def test_what_cannot_be_computed_stays_open(text):
    assert sizes([text, "past + 1"], CACHE, 8) == {"past + 1": 65}


@pytest.mark.parametrize("text", ["(" * 10_000, "1" + "+1" * 10_000, "9" * 10_000])
def test_a_text_without_end_stays_open(text):
    assert sizes([text, "past + 1"], CACHE, 8) == {"past + 1": 65}
