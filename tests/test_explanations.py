"""Explanations are read where a word is used: short, and about that word."""

import pytest

from quantstore.explanations import EXPLANATIONS


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_an_explanation_is_read_in_a_breath(name):
    assert 20 <= len(EXPLANATIONS[name].text.split()) <= 60
    assert len(EXPLANATIONS[name].title.split()) <= 2
