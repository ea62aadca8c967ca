"""One story, two renderers: what the pages say of a model, its report says in the same words."""

import json
import shutil

import pytest

from quantstore import store
from quantstore.wording.drift import tensor_columns
from quantstore.wording.targets import NOT_MEASURED
from tests.support.browsing import HOSTILE
from tests.support.reports import Reader, write
from tests.support.runs import a_rescue, a_run, a_sensitivity, a_tensor, add, layer_names
from tests.support.visits import opened

MODEL, TARGET, SCHEME = "digits-rescaled", "int8_tensor", "int8_tensor_symmetric"
EVIL = HOSTILE[3]


@pytest.fixture(scope="module")
def path(demo_store, tmp_path_factory):
    """A model with all that a store can hold of it: runs, drift, sensitivity, a rescue."""
    path = tmp_path_factory.mktemp("story") / "story.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        model_id = store.find_model(con, MODEL)
        names = layer_names(con, MODEL)
        add(con, MODEL, a_run(12.0, target=TARGET, scheme=SCHEME))
        add(con, MODEL, a_run(None, target="int8_dynamic", failure=f"no kernel for {EVIL}"))
        run = a_run(8.4, target=TARGET, scheme=SCHEME, source=EVIL)
        add(
            con,
            MODEL,
            run,
            [
                a_tensor(0, 38.0, node=names[0]),
                a_tensor(1, 21.0, node=names[1]),
                a_tensor(2, 8.4, node=EVIL, tensor=EVIL),
                a_tensor(2, 30.0, node=EVIL, tensor=EVIL, kind="local"),
            ],
        )
        store.add_sensitivities(
            con, model_id, [a_sensitivity(depth, 10.0 + depth) for depth in range(6)]
        )
        store.add_rescue(con, model_id, a_rescue(target=TARGET, input_source=EVIL))
    return path


@pytest.fixture(scope="module")
def report_text(path):
    return Reader(write(path, [MODEL], TARGET)).text


def plain(text):
    return " ".join(text.replace("\u00a0", " ").split())


def titles_of(data):
    return [column["title"] for column in data.get("columns", [])]


def cells_of(app):
    """What the cells of the tables, or of the matrix, of a page say."""
    for component in app.get("bidi_component"):
        data = json.loads(component.proto.json or "null")
        if not data or tensor_columns(is_several=False)[0].title in titles_of(data):
            # That table is for whoever goes on to look at a tensor.
            continue
        for row in data.get("rows", []):
            cells = [cell for cell in row["cells"] if cell is not None]
            if NOT_MEASURED not in [cell.get("text") for cell in cells] or cells[0].get("note"):
                yield from cells


# Layers that are fine stand in the report as CSV.
ADDRESS = {"model": MODEL, "models": MODEL, "target": TARGET, "kept": "At risk and worse"}
PAGES = ("compare", "model", "drift", "rescue")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_value_and_word_in_a_table_of_a_page_is_in_the_report(path, report_text, page):
    app = opened(page, path, **ADDRESS)
    assert not app.exception
    texts = [
        plain(str(cell[part]))
        for cell in cells_of(app)
        for part in ("text", "small", "note", "band", "evidence", "rescued")
        if cell.get(part)
    ]
    assert len(texts) > 5
    assert [text for text in texts if text not in report_text] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_answer_of_a_page_is_in_the_report(path, report_text, page):
    app = opened(page, path, **ADDRESS)
    answer = plain(app.header[0].value.replace("\\", ""))
    assert answer in report_text


@pytest.mark.slow
def test_a_cell_says_what_a_rescue_reached(path, report_text):
    app = opened("compare", path, models=MODEL, target=TARGET)
    rescued = {cell["rescued"] for cell in cells_of(app)} - {""}
    assert {plain(text) for text in rescued} == {"Rescued: 24.8 dB"}
    assert "Rescued: 24.8 dB" in report_text


@pytest.mark.slow
def test_what_a_file_says_is_text_in_every_section(path):
    page = write(path, [MODEL], TARGET, note=EVIL)
    assert EVIL not in page
    # In the note, as a node, as inputs, in a failure.
    assert Reader(page).text.count(EVIL) >= 4
