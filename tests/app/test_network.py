"""The network on the Model page: a picture, the same as a list, and what is said without either."""

import json
import shutil

import pytest

from quantstore import queries, store
from quantstore.app.pages.model import NETWORK
from quantstore.schemes import TARGETS
from quantstore.wording import networks, units
from tests.support.browsing import expect
from tests.support.runs import a_run, a_sensitivity, a_tensor, add
from tests.support.visits import texts, unopened

MODEL = "digits-rescaled"
TARGET = TARGETS["int8_tensor"]


@pytest.fixture
def page(monkeypatch, demo_store):
    def open_page(path=demo_store, **address):
        monkeypatch.setenv("QUANTSTORE_DB", str(path))
        address = {"model": MODEL, "target": TARGET.name, "show": NETWORK, **address}
        app = unopened("model", **address).run()
        assert not app.exception
        assert not app.error
        return app

    return open_page


@pytest.fixture
def own_store(demo_store, tmp_path):
    return shutil.copy(demo_store, tmp_path / "own.duckdb")


def drawing_of(app):
    for component in app.get("bidi_component"):
        data = json.loads(component.proto.json or "null")
        if data and "boxes" in data:
            return data
    return None


def rows_in(tree):
    for row in tree:
        yield row
        yield from rows_in(row["children"])


@pytest.mark.slow
def test_picture_and_list_show_the_same_with_the_band_of_each_layer(page, demo_store):
    drawing = drawing_of(page())
    with store.reading(demo_store) as con:
        bands = dict(
            con.rows(
                "select layer_id, band from layer_errors where model = ? and scheme = ?",
                [MODEL, TARGET.layer_scheme.name],
            )
        )
    boxes = {box["layer"]: box["band"] for box in drawing["boxes"] if box["layer"] is not None}
    rows = {
        row["layer"]: row["band"] for row in rows_in(drawing["tree"]) if row["layer"] is not None
    }
    # Keys are text in a browser, which would round them.
    assert boxes == rows == {str(layer): band for layer, band in bands.items()}
    assert drawing["summary"].startswith("Network of 10")


@pytest.mark.slow
def test_a_block_has_the_band_of_its_worst_layer(page):
    drawing = drawing_of(page())
    blocks = [row for row in rows_in(drawing["tree"]) if row["block"] is not None]
    assert blocks
    for block in blocks:
        verdicts = [row["verdict"] for row in rows_in(block["children"]) if row["layer"]]
        assert block["verdict"] in verdicts


@pytest.mark.slow
@pytest.mark.parametrize("label", ["Sensitivity", "Drift"])
def test_without_a_run_the_page_says_where_to_start_one(page, label):
    app = page(colour=label)
    measured_by = next(key for key, title in networks.COLOURED_BY.items() if title == label)
    assert networks.not_measured(measured_by, TARGET.title) in texts(app)
    assert {box["band"] for box in drawing_of(app)["boxes"]} == {None}


@pytest.mark.slow
def test_sensitivity_and_drift_colour_the_nodes_that_were_measured(page, own_store):
    with store.writing(own_store) as con:
        layer = queries.layer_profiles(con, [MODEL], TARGET.layer_scheme.name)["layer"][3]
        model_id = store.find_model(con, MODEL)
        run = a_run(5.0, TARGET.scheme.name, target=TARGET.name, source="mine")
        add(con, MODEL, run, [a_tensor(4, 12.0, node=layer)])
        record = a_sensitivity(3, 35.0, scheme=TARGET.scheme.name, target=TARGET.name)
        store.add_sensitivities(con, model_id, [record])
    for label, value in (("Drift", 12.0), ("Sensitivity", 35.0)):
        drawing = drawing_of(page(own_store, colour=label))
        said = {row["title"]: row["verdict"] for row in rows_in(drawing["tree"]) if row["layer"]}
        assert said[layer] == units.db(value)
        assert set(said.values()) == {"", units.db(value)}


def test_a_model_of_an_earlier_release_is_to_be_ingested_again(page, own_store):
    with store.writing(own_store) as con:
        con.rows("delete from graph_points")
        con.rows("delete from graph_edges")
    app = page(own_store)
    assert drawing_of(app) is None
    assert "Ingest it again to see the network" in texts(app)


def test_a_network_that_was_too_large_says_so(page, own_store):
    with store.writing(own_store) as con:
        con.rows("delete from graph_edges")
    app = page(own_store)
    assert drawing_of(app) is None
    assert networks.TOO_LARGE in texts(app)


def test_names_are_text_and_nothing_else(page, own_store):
    evil = "/<img src=x onerror=alert(1)>/\u202ename"
    with store.writing(own_store) as con:
        con.rows("update graph_points set name = ? where role = 'join'", [evil])
        con.rows("update graph_points set name = ? where point = 0", [evil])
    drawing = drawing_of(page(own_store))
    assert not any("\u202e" in row["label"] for row in rows_in(drawing["tree"]))


# --- in a browser -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 800)])
def test_blocks_open_by_keyboard_and_a_click_on_a_layer_opens_it(visit, full_app, scheme, width):
    visitor = visit(full_app)
    page = visitor.page
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 1000})
    visitor.open(f"/model?model={MODEL}&target={TARGET.name}&show={NETWORK}")
    expect(page.get_by_role("img", name="Network of 10")).to_be_visible()
    page.get_by_role("button", name="Close all").click()
    blocks = page.locator(".list button[aria-expanded]")
    expect(page.locator(".list button[aria-expanded=true]")).to_have_count(0)
    closed = page.locator(".picture g").count()
    blocks.first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".list button[aria-expanded=true]")).to_have_count(1)
    assert page.locator(".picture g").count() > closed
    # Drawn anew, the keyboard is where it was.
    assert visitor.focus() == blocks.first.inner_text()
    assert visitor.has_visible_focus()
    page.get_by_role("button", name="Open all").click()
    expect(page.locator(".list button[aria-expanded=false]")).to_have_count(0)
    assert visitor.sideways() <= 0
    assert visitor.violations() == []
    visitor.screenshot(f"network-{width}")
    page.locator(".picture g.opens", has_text="depthwise").first.click()
    visitor.arrives("layer", "What would rescue it")
    visitor.leaves_no_trace()
