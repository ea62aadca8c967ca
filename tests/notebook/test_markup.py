"""What a notebook shows of a store and of a verdict: small, escaped, never a failure."""

import shutil
from html.parser import HTMLParser

import pytest

import quantstore
from quantstore import api, store
from quantstore.errors import MissingStoreError
from quantstore.notebook import markup
from quantstore.schemes import TARGETS
from tests.support.runs import a_run, add

HOSTILE = "<script>alert(1)</script>&\x1b"


class Reader(HTMLParser):
    """The tags of a text, and the words between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        if data.strip() and self.tags[-1] != "style":
            self.words.append(data)


@pytest.fixture
def own(demo_store, tmp_path):
    return quantstore.open_store(shutil.copy(demo_store, tmp_path / "own.duckdb"))


def test_a_store_shows_its_models_with_a_verdict_for_each_usual_target(own):
    shown = Reader(own._repr_html_())
    usual = [name for name, target in TARGETS.items() if target.is_default]
    assert [word for word in shown.words if word in usual] == usual
    assert "digits-rescaled" in shown.words
    verdicts = own.verdicts().set_index(["model", "target"])["verdict"]
    row = shown.words[shown.words.index("digits-rescaled") :][2 : 2 + len(usual)]
    assert row == [verdicts["digits-rescaled", target] for target in usual]
    assert len(own._repr_html_()) < 10_000


def test_a_store_of_many_models_shows_the_first(own, monkeypatch):
    monkeypatch.setattr(api, "MOST_SHOWN", 2)
    words = " ".join(Reader(own._repr_html_()).words)
    assert "4 models" in words.replace("\N{NO-BREAK SPACE}", " ")
    assert "first 2" in words
    assert "digits-separable" not in words


def test_a_store_that_cannot_be_read_says_why(tmp_path, empty_store):
    missing = quantstore.open_store(tmp_path / "none.duckdb")
    assert MissingStoreError.hint in " ".join(Reader(missing._repr_html_()).words)
    own = quantstore.open_store(shutil.copy(empty_store, tmp_path / "empty.duckdb"))
    assert "table" not in Reader(own._repr_html_()).tags
    own.path.write_text("no store")
    assert "is not a DuckDB database" in " ".join(Reader(own._repr_html_()).words)


def test_a_verdict_has_its_word_the_decibels_the_evidence_and_the_reason(own):
    with store.writing(own.path) as connection:
        run = a_run(scheme="int8_channel_symmetric", target="int8_channel", source="12 images")
        add(connection, "digits-plain", run)
    verdict = own.verdict("digits-plain")
    words = " ".join(Reader(verdict._repr_html_()).words)
    plain = words.replace("\N{NO-BREAK SPACE}", " ")
    assert verdict.verdict == Reader(verdict._repr_html_()).words[0]
    assert str(verdict).removeprefix(f"{verdict.verdict}: ") in plain
    assert "dB" in plain
    untested = own.verdict("digits-rescaled")
    assert untested.reason in " ".join(Reader(untested._repr_html_()).words)


def test_names_are_shown_as_they_are_and_never_as_markup(own):
    with store.writing(own.path) as connection:
        # As a release might have stored it that allowed such names.
        connection.rows("update models set model = ? where model = 'digits-plain'", [HOSTILE])
    for text in (own._repr_html_(), own.verdict(HOSTILE)._repr_html_()):
        shown = Reader(text)
        assert "script" not in shown.tags
        assert any(r"<script>alert(1)</script>&\x1b" in word for word in shown.words)
        assert "\x1b" not in text


def test_nothing_comes_from_outside_and_both_themes_are_served(own):
    text = own._repr_html_()
    assert "http" not in text
    assert "url(" not in text
    assert "light-dark(" in markup.verdict_chip("broken")
