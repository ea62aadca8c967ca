"""The page that draws the pictures of the article with stored models."""

import shutil

import pytest

from quantstore import store
from quantstore.wording import article
from tests.support.visits import fails, texts, unopened


@pytest.fixture
def page(monkeypatch, demo_store):
    def open_page(path=demo_store, **address):
        monkeypatch.setenv("QUANTSTORE_DB", str(path))
        app = unopened("article", **address).run()
        assert fails(app) == []
        return app

    return open_page


@pytest.mark.slow
def test_the_examples_stand_for_the_models_of_the_article(page):
    app = page()
    assert app.selectbox(key="ruined").value == "digits-rescaled"
    assert app.selectbox(key="spared").value == "digits-separable"
    assert "digits-rescaled" in app.header[0].value.replace("\\", "")
    assert [header.value for header in app.header[1:]] == [
        article.VALUES,
        article.CHANNELS,
        article.RANGES,
    ]
    # The values, the channels of a layer of either, and the ranges.
    assert len(app.get("vega_lite_chart")) == 4
    assert "Missing: RTMDet-s, YOLOv10-N and Faster R-CNN" in texts(app).replace("\\", "")


@pytest.mark.slow
def test_the_models_of_the_address_are_drawn(page):
    app = page(ruined="digits-plain", spared="digits-rescaled")
    assert app.selectbox(key="ruined").value == "digits-plain"
    assert "no depthwise convolution" in texts(app)


@pytest.mark.slow
def test_a_model_beside_itself_is_drawn_once(page):
    app = page(ruined="digits-plain", spared="digits-plain")
    assert app.header[0].value == article.SAME_MODEL
    assert len(app.get("vega_lite_chart")) == 3


@pytest.mark.slow
def test_the_layer_of_the_article_is_found_by_its_name(page, demo_store, tmp_path):
    path = shutil.copy(demo_store, tmp_path / "named.duckdb")
    with store.writing(path) as con:
        layer_id = con.value("select min(layer_id) from layers where is_depthwise")
        con.rows("update layers set layer = ? where layer_id = ?", [article.LAYER, layer_id])
    assert "The layer that the article shows." in texts(page(path))


@pytest.mark.slow
def test_a_layer_opens(page, demo_store):
    app = page()
    button = next(b for b in app.button if b.key.startswith("article_layer_"))
    layer_id = int(button.key.rsplit("_", 1)[1])
    button.click().run()
    assert fails(app) == []
    with store.reading(demo_store) as con:
        (name,) = con.rows("select layer from layers where layer_id = ?", [layer_id])[0]
    assert app.session_state["layer"] == name
