"""The Model page: its layers worst first, what breaks each of them and what would rescue it."""

import json
import shutil

import pytest

from quantstore import queries, store
from quantstore.app.pages.model import RESCUES
from quantstore.app.widgets.matrix import UNTESTED_GLYPH
from quantstore.charts.palette import DARK, LIGHT, both, css_variables
from quantstore.schemes import TARGETS
from quantstore.wording import units
from quantstore.wording.layers import LAYER_AND_CAUSE, LAYER_AND_REMEDY
from quantstore.wording.notes import UNTESTED_NOTE
from tests.support.runs import CHANNEL, a_run, add
from tests.support.visits import texts, unopened

MODEL = "digits-rescaled"


@pytest.fixture
def page(monkeypatch, demo_store):
    def open_page(path=demo_store, **address):
        monkeypatch.setenv("QUANTSTORE_DB", str(path))
        app = unopened("model", **{"model": MODEL, "target": "int8_tensor", **address}).run()
        assert not app.exception
        assert not app.error
        return app

    return open_page


def table_of(app, first):
    for component in app.get("bidi_component"):
        data = json.loads(component.proto.json or "null")
        if data and "columns" in data and data["columns"][0]["title"] == first:
            return data
    return None


@pytest.mark.slow
def test_what_would_rescue_a_layer_is_what_the_store_says(page, demo_store):
    table = table_of(page(columns=RESCUES), LAYER_AND_REMEDY)
    with store.reading(demo_store) as con:
        scheme = "int8_tensor_symmetric"
        worst = queries.worst_layers(con, MODEL, scheme).iloc[0]
        rescues = queries.layer_rescues(con, MODEL, scheme).set_index("layer_id")
    own = rescues.loc[worst["layer_id"]]
    titles = [column["title"] for column in table["columns"]]
    cells = dict(zip(titles, table["rows"][0]["cells"], strict=True))
    assert cells["p10 per channel"] == {
        "text": units.db(worst["per_channel_p10_db"]),
        "small": units.db(worst["per_channel_p10_db"] - worst["channel_sqnr_p10_db"], signed=True),
    }
    assert cells["p10 clipped"]["text"] == units.db(own["clipped_p10_db"])
    assert cells["bits per tensor"]["text"] == (
        "> 16" if own["bits_tensor"] < 0 else str(int(own["bits_tensor"]))
    )
    assert cells[titles[0]]["small"].startswith("best: ")


@pytest.fixture
def untested_store(demo_store, tmp_path):
    """The model survives with its weights alone; full int8 was cut off."""
    path = tmp_path / "untested.duckdb"
    shutil.copy(demo_store, path)
    runs = (
        a_run(45.0, CHANNEL, mode="weights"),
        a_run(None, CHANNEL, failure="stopped after <b>20</b> s"),
    )
    with store.writing(path) as con:
        con.rows("delete from simulations")
        for run in runs:
            add(con, "digits-plain", run)
    return path


def cells_of(app, key):
    """Every cell of the components that have such."""
    for component in app.get("bidi_component"):
        data = json.loads(component.proto.json or "null")
        for row in (data or {}).get("rows", ()):
            if key in row:
                yield row[key]


@pytest.mark.slow
def test_an_untested_model_is_drawn_neither_good_nor_bad(page, untested_store):
    app = page(untested_store, model="digits-plain", target="int8_channel")
    assert app.header[0].value.startswith(f"Untested with {TARGETS['int8_channel'].title}: stopped")
    default = [name for name, target in TARGETS.items() if target.is_default]
    cell = next(cells_of(app, "cells"))[default.index("int8_channel")]
    assert (cell["band"], cell["text"]) == ("untested", "untested")
    assert "stopped after <b>20</b> s" in cell["tip"]
    assert cell["glyph"] == UNTESTED_GLYPH
    assert "weights alone: 45" in cell["evidence"]
    assert "quantstore probe digits-plain --target int8" in texts(app).replace("\\", "")
    assert UNTESTED_NOTE in texts(app)
    css = css_variables()
    assert f"--untested-tint: {both(LIGHT.untested.tint, DARK.untested.tint)}" in css


@pytest.mark.slow
def test_under_a_scheme_per_channel_its_remedies_are_others(page):
    table = table_of(page(columns=RESCUES, target="int8_channel"), LAYER_AND_REMEDY)
    titles = [column["title"] for column in table["columns"]]
    assert "p10 per channel" not in titles
    assert "bits per tensor" in titles
    assert {row["cells"][0]["small"] for row in table["rows"]} == {"fine as it is"}


@pytest.mark.slow
def test_two_operands_of_a_node_are_told_apart(page, demo_store, tmp_path):
    path = tmp_path / "several.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        con.rows("update layers set layer = 'node' where depth < 2")
        con.rows("update layers set operand = 'R' where depth = 1")
    app = page(path, find="node")
    rows = table_of(app, LAYER_AND_CAUSE)["rows"]
    assert {row["cells"][0]["text"] for row in rows} == {"node (W)", "node (R)"}
    assert [button.label for button in app.get("download_button")].count("CSV") == 1
