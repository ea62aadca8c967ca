"""The Revisions page: what it answers, what its address restores, and its chart."""

import json
import shutil

import pytest

from quantstore import queries, store
from quantstore.app.pages.revisions import NOTHING_TO_COMPARE, SAME_MODEL_TWICE
from quantstore.app.widgets import pickers
from quantstore.charts.palette import LIGHT
from quantstore.charts.revisions import dumbbells
from quantstore.queries import matching
from quantstore.schemes import DEFAULT_SCHEME
from tests.support.visits import unopened

LIMITS = {"fine": 30.0, "watch": 20.0, "at risk": 10.0, "broken": float("-inf")}


@pytest.fixture
def page(monkeypatch, demo_store):
    monkeypatch.setenv("QUANTSTORE_DB", str(demo_store))

    def open_page(**address):
        app = unopened("revisions", **({"target": "int8_tensor"} | address)).run()
        assert not app.exception
        assert not app.error
        return app

    return open_page


@pytest.fixture(scope="module")
def changed(demo_store):
    with store.reading(demo_store) as con:
        return matching.changes(
            *(
                queries.revision_layers(con, model, DEFAULT_SCHEME.name)
                for model in ("digits-separable", "digits-rescaled")
            )
        )


def table(app):
    """The cells of the table of changes, as the browser gets them."""
    for component in app.get("bidi_component"):
        data = json.loads(component.proto.json or "null")
        if data and "columns" in data:
            return [row["cells"] for row in data["rows"]]
    return None


def test_the_page_opens_with_the_answer(page):
    app = page(before="digits-separable", after="digits-rescaled")
    # The verdict first, and then the layers.
    assert app.header[0].value.startswith("Untested → broken with")
    assert "got worse" in app.markdown[0].value
    first, *_ = table(app)
    assert first[1]["text"].startswith("−")
    assert (first[2]["band"], first[3]["band"]) == ("fine", "broken")


@pytest.mark.slow
def test_swapped_losses_are_gains(page):
    app = page(before="digits-separable", after="digits-rescaled")
    app.button(key="swap_revisions").click().run()
    assert app.selectbox(key="before").value == "digits-rescaled"
    assert app.header[0].value.startswith("Broken → untested with")
    assert "got better" in app.markdown[0].value
    assert dict(app.query_params)["after"] == "digits-separable"


def test_without_an_address_two_models_of_equally_many_layers_are_picked(page):
    app = page()
    picked = {app.selectbox(key=key).value for key in ("before", "after")}
    assert "digits-plain" not in picked
    assert len(picked) == 2


@pytest.mark.slow
def test_where_nothing_changed_there_is_no_chart(page):
    app = page(before="digits-separable", after="digits-separable-unfolded")
    assert "none of the 10" in app.markdown[0].value
    assert not app.get("vega_lite_chart")
    assert [one.label.replace("\u00a0", " ") for one in app.expander] == ["10 layers unchanged"]


def test_a_model_that_is_gone_is_said(page):
    app = page(before="gone", after="digits-rescaled")
    assert [one.value for one in app.warning] == [pickers.not_in_store("model named", "gone")]
    assert app.selectbox(key="after").value == "digits-rescaled"


def test_a_model_is_not_held_against_itself(page):
    app = page(before="digits-plain", after="digits-plain")
    assert app.header[0].value == SAME_MODEL_TWICE


def test_with_one_model_the_page_says_what_it_is_for(monkeypatch, demo_store, tmp_path):
    path = tmp_path / "one.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        for model in queries.model_names(con)[1:]:
            store.remove_model_named(con, model)
    monkeypatch.setenv("QUANTSTORE_DB", str(path))
    app = unopened("revisions").run()
    assert not app.exception
    assert app.header[0].value == NOTHING_TO_COMPARE


def rows_of(chart, moment):
    spec = chart.to_dict()
    (data,) = [rows for rows in spec["datasets"].values() if any("moment" in row for row in rows)]
    return [row for row in data if row["moment"] == moment]


def test_by_change_the_chart_holds_what_changed_the_largest_loss_first(changed):
    chart = dumbbells(changed, LIGHT, LIMITS, order="change")
    before, after = rows_of(chart, "before"), rows_of(chart, "after")
    drops = [now["y"] - was["y"] for was, now in zip(before, after, strict=True)]
    assert len(drops) == matching.tally(changed).changed
    assert drops == sorted(drops)
    assert rows_of(chart, "unchanged") == []


@pytest.mark.slow
def test_names_of_layers_are_left_out_where_they_would_lie_over_other_dots(changed):
    spec = dumbbells(changed, LIGHT, LIMITS, order="change").to_dict()
    words = [one["mark"] for one in spec["layer"] if one["mark"].get("fontWeight") == 600]
    assert words
    assert all("width <" in one["opacity"]["expr"] for one in words)


def test_along_the_network_the_chart_holds_every_layer_in_its_place(changed):
    chart = dumbbells(changed, LIGHT, LIMITS, order="depth")
    after = [*rows_of(chart, "after"), *rows_of(chart, "unchanged")]
    ids = [row["layer_id"] for row in sorted(after, key=lambda row: row["x"])]
    assert ids == changed["layer_id_after"].astype(str).tolist()
