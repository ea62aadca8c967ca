"""The Layer page: what an address shows, and what it says where the address is wrong."""

import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from quantstore import queries, store
from quantstore.schemes import DEFAULT_SCHEME, SCHEMES

ROOT = Path(__file__).resolve().parent.parent
MODEL = "digits-rescaled"
LAYER = "/stem/conv/Conv"


@pytest.fixture
def page(monkeypatch, demo_store):
    monkeypatch.setenv("QUANTSTORE_DB", str(demo_store))

    def open_page(**address):
        app = AppTest.from_file(ROOT / "app.py", default_timeout=30)
        for key, value in address.items():
            app.query_params[key] = value
        app.switch_page("quantstore/pages/layer.py")
        return run(app)

    return open_page


def run(app):
    app.run()
    assert not app.exception
    assert not app.error
    return app


def html_of(app):
    return "\n".join(element.proto.body for element in app.get("html"))


def name_on(app):
    found = re.search(r"<h1[^>]*>(.*?)</h1>", html_of(app))
    return found and found.group(1).replace("<wbr>", "")


def worst_layer(demo_store, model=MODEL):
    with store.reading(demo_store) as con:
        return queries.worst_layers(con, model, DEFAULT_SCHEME.name).iloc[0]["layer"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_address_restores_the_layer_and_the_scheme(page, scheme):
    app = page(model=MODEL, layer=LAYER, scheme=scheme)
    assert name_on(app) == LAYER
    assert f"under {SCHEMES[scheme].title}" in html_of(app)
    assert len(app.get("vega_lite_chart")) == 4
    assert not app.warning


def test_sections_follow_the_scheme(page):
    shared = [header.value for header in page(model=MODEL, layer=LAYER).header]
    own = page(model=MODEL, layer=LAYER, scheme="int8_channel_symmetric").header
    assert shared == ["Channels", "How many codes the weights get", "What would rescue it"]
    assert [header.value for header in own][1] == "How the weights are distributed"


def test_without_an_address_the_layer_is_the_worst_one(page, demo_store):
    app = page(model=MODEL)
    assert name_on(app) == worst_layer(demo_store)
    assert "1 of 10 by damage" in [text.value for text in app.markdown]


def test_an_unknown_layer_falls_back_to_the_worst_one_and_says_so(page, demo_store):
    app = page(model=MODEL, layer="<b>nope</b>")
    assert name_on(app) == worst_layer(demo_store)
    (warning,) = app.warning
    assert "has no layer named" in warning.value
    assert "<b>" not in warning.value
    # Another run, such as the one after a change of theme, still says so.
    assert run(app).warning


def test_an_unknown_model_falls_back_and_says_so(page):
    app = page(model="nope", layer=LAYER)
    assert name_on(app)
    assert any("nope" in warning.value for warning in app.warning)


def test_changing_the_model_leaves_a_layer_behind_that_it_does_not_have(page, demo_store):
    app = page(model=MODEL, layer=LAYER)
    app.selectbox("model").set_value("digits-plain")
    run(app)
    with store.reading(demo_store) as con:
        names = set(queries.worst_layers(con, "digits-plain", DEFAULT_SCHEME.name)["layer"])
    assert name_on(app) in names
    assert not app.warning


def test_worse_and_better_walk_through_the_layers_by_damage(page):
    app = page(model=MODEL)
    first = name_on(app)
    assert not [button for button in app.button if button.key == "worse_layer"]
    app.button("better_layer").click()
    second = name_on(run(app))
    assert second != first
    app.button("worse_layer").click()
    assert name_on(run(app)) == first


def test_every_layer_of_a_model_opens(page, demo_store):
    with store.reading(demo_store) as con:
        names = queries.worst_layers(con, MODEL, DEFAULT_SCHEME.name)["layer"].tolist()
    app = page(model=MODEL)
    for name in names:
        app.selectbox("layer").set_value(name)
        assert name_on(run(app)) == name
