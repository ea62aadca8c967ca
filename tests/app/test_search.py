"""The search: what the browser gets of what was found, and what opening it does."""

import shutil
from types import SimpleNamespace

import pytest
import streamlit as st

from quantstore import store
from quantstore.app.sections import search
from quantstore.app.sections.search import LABEL, shown
from quantstore.queries import Hit, Hits, SearchResults
from tests.support.browsing import expect

NOTHING = Hits((), 0)


def test_the_best_group_comes_first_and_names_are_left_to_the_browser_to_escape():
    results = SearchResults(
        models=Hits((Hit("an edge", 2),), 1),
        layers=Hits((Hit("<b>edge", 3, "net", 7),), 40),
        tags=Hits((Hit("edge", 0, models=2),), 1),
    )
    groups = shown(results, "edge")["groups"]
    assert [group["title"] for group in groups] == ["Tags", "Models", "Layers, 1 of 40"]
    assert groups[0]["hits"] == [
        {"title": "edge", "small": "2\u00a0models", "target": {"tag": "edge"}}
    ]
    assert groups[2]["hits"] == [{"title": "<b>edge", "small": "net", "target": {"layer": "7"}}]


def test_what_nobody_is_called_is_said():
    results = SearchResults(NOTHING, NOTHING, NOTHING)
    assert shown(results, "zzz\n") == {
        "groups": [],
        "hint": "No model, layer or tag contains “zzz\\n”.",
    }


def test_every_page_has_it_once_there_is_a_model(open_app, demo_store, tmp_path):
    def boxes(app):
        return [one for one in app.get("bidi_component") if LABEL in str(one.proto.json)]

    assert len(boxes(open_app(demo_store, "example"))) == 1
    assert not boxes(open_app(tmp_path / "none.duckdb", "example"))


def test_a_tag_shows_all_models_that_have_it(monkeypatch):
    chosen = {}
    monkeypatch.setattr(search.address, "choose", chosen.__setitem__)
    monkeypatch.setattr(search.facets.address, "choose", chosen.__setitem__)
    monkeypatch.setattr(
        st, "session_state", {"search": SimpleNamespace(opened={"tag": "<b>"}), "verdict": []}
    )
    search._open()
    assert chosen["tag"] == ["<b>"]
    assert chosen["verdict"] == []
    assert chosen["models"] == []
    assert st.session_state["_search_opens"] == "compare"


@pytest.mark.slow
def test_the_keyboard_finds_and_opens_models_layers_and_tags(visit, served, demo_store, tmp_path):
    path = tmp_path / "tagged.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        store.set_tags(con, "digits-plain", ["<i>edge</i>"])
    visitor = visit(served.showing(path))
    page = visitor.page
    visitor.turn_to("/")
    box = page.get_by_role("combobox", name=LABEL)
    options = page.get_by_role("option")

    # A layer: not the first one that fits, by the arrows.
    page.keyboard.press("/")
    expect(box).to_be_focused()
    assert visitor.has_visible_focus()
    page.keyboard.type("rescaled conv")
    expect(options.first).to_contain_text("digits-rescaled")
    assert visitor.violations() == []
    page.keyboard.press("ArrowDown")
    second = options.nth(1).inner_text()
    page.keyboard.press("Enter")
    visitor.arrives("layer", "What would rescue it")
    (layer,) = visitor.query()["layer"]
    assert second.startswith(layer)

    # A model: Enter before the answer has come waits for it.
    page.keyboard.press("/")
    page.keyboard.type("SEPARABLE")
    page.keyboard.press("Enter")
    visitor.arrives("model", "digits-separable")
    visitor.reaches("model", "digits-separable")

    # A tag, whose name is no markup.
    page.keyboard.press("/")
    page.keyboard.type("edge")
    expect(options.first).to_contain_text("<i>edge</i>")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "tag=" in url)
    visitor.settle()
    expect(page.locator("td.name button")).to_have_text(["digits-plain"])

    # Where one types, a slash is a slash.
    page.keyboard.press("/")
    page.keyboard.type("/")
    expect(box).to_have_value("/")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(box).to_have_value("")
    visitor.leaves_no_trace()
