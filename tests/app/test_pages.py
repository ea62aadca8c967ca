"""Every page in three states: no store, an empty store, a full one; and what it must answer."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from quantstore import store
from quantstore.app.main import PAGE_FAILED
from quantstore.app.page_list import FOLDER, PAGES
from quantstore.app.pages.model import no_such_layer
from quantstore.app.pages.models import NO_MODEL_FITS
from quantstore.app.widgets import pickers, welcome
from quantstore.app.widgets.stores import FILE_STATES
from quantstore.errors import DamagedStoreError
from quantstore.pipeline.files import demo_paths
from quantstore.schemes import DEFAULT_TARGET, TARGETS
from quantstore.wording import headlines, remedies
from quantstore.wording.text import markdown
from tests.support.facts import finding
from tests.support.visits import (
    ROOT,
    fails,
    opened,
    texts,
    trusting_no_chart,
    turned_to,
)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pytest.fixture(scope="module")
def seen(demo_store):
    """Looks at a page of the demo models that others look at as well."""

    def look_at(page, **address):
        app = opened(page, demo_store, **address)
        assert fails(app) == []
        return app

    return look_at


@pytest.fixture(scope="module")
def one_model_store(demo_store, tmp_path_factory):
    """A store of one model, which breaks."""
    path = tmp_path_factory.mktemp("one") / "one.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        for name in ("digits-plain", "digits-separable", "digits-separable-unfolded"):
            store.remove_model(con, store.find_model(con, name))
        store.set_tags(con, "digits-rescaled", ["alone"])
    return path


def test_every_file_of_a_page_has_an_entry_and_every_entry_a_file():
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    assert sorted(page.name for page in PAGES) == sorted(files)
    assert len({page.title for page in PAGES}) == len(PAGES)
    assert sum(page.is_default for page in PAGES) == 1


@every_page
def test_the_file_of_a_page_begins_with_its_question(page):
    docstring = ast.get_docstring(ast.parse(page.file.read_text("utf-8")))
    question = page.question[0].lower() + page.question[1:]
    assert docstring.split("\n")[0] == f"{page.title}: {question}"


def test_every_link_from_page_to_page_leads_to_a_page():
    code = " ".join(
        word for path in FOLDER.parent.rglob("*.py") for word in path.read_text("utf-8").split()
    )
    names = set(re.findall(r'navigation\.\w+(?:\( ?|, args=\()"(\w+)"', code))
    assert {"compare", "drift", "example", "model", "revisions"} <= names
    assert names <= {page.name for page in PAGES}


@every_page
def test_without_a_store_a_page_says_how_to_begin(open_app, tmp_path, page):
    app = open_app(tmp_path / "none.duckdb", page.name)
    assert fails(app) == []
    assert [b.label for b in app.button if b.key == "add_examples"] == (
        [welcome.ADD_EXAMPLES] if page.needs_models else []
    )
    if page.is_default:
        command = f"quantstore --db {tmp_path / 'none.duckdb'} ingest path/to/models"
        assert [one.value for one in app.code] == [command]
    assert not (tmp_path / "none.duckdb").exists()


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page in ("compare", "models") else pytest.mark.slow)
        for page in PAGES
    ],
)
def test_an_empty_store_is_no_different(open_app, empty_store, page):
    app = open_app(empty_store, page.name)
    assert fails(app) == []
    assert any(b.key == "add_examples" for b in app.button) is page.needs_models


@pytest.mark.slow
@every_page
def test_with_models_every_page_draws_by_the_schema_of_vega_lite(
    open_app, demo_store, page, monkeypatch
):
    trusting_no_chart(monkeypatch)
    app = open_app(demo_store, page.name)
    assert fails(app) == []
    assert len(app.title) + len(app.get("html")) >= 1
    assert any(box.key == "target" for box in app.sidebar.selectbox) is page.judges


@every_page
@pytest.mark.slow
def test_one_model_is_enough_for_every_page(one_model_store, page):
    app = opened(page.name, one_model_store)
    assert fails(app) == []
    assert not any(b.key == "add_examples" for b in app.button)


@pytest.mark.slow
def test_compare_opens_with_the_answer(seen):
    app = seen("compare", target="int8_tensor")
    untested = [finding() for _ in range(3)]
    per_channel = [finding(target="int8_channel") for _ in range(4)]
    assert app.header[0].value == headlines.models_headline(
        [finding("broken"), *untested], per_channel, TARGETS["int8_tensor"]
    )
    assert len(app.get("vega_lite_chart")) == 3


@pytest.mark.slow
def test_compare_shows_the_models_of_its_address(seen):
    app = seen("compare", models=["digits-plain", "digits-separable"])
    assert app.multiselect(key="models").value == ["digits-plain", "digits-separable"]
    assert app.header[0].value == headlines.models_headline(
        [finding(), finding()], [], DEFAULT_TARGET
    )


@pytest.mark.slow
def test_what_was_picked_last_is_what_other_pages_show(open_app, demo_store):
    app = open_app(demo_store, "compare")
    # What a click in the matrix does, before the page of the model opens.
    app.session_state["model"] = "digits-rescaled"
    app.session_state["_address_memory"]["model"] = "digits-rescaled"
    turned_to(app, "model").run()
    assert app.selectbox(key="model").value == "digits-rescaled"
    app.selectbox(key="model").set_value("digits-plain").run()
    turned_to(app, "compare").run()
    turned_to(app, "model").run()
    assert app.selectbox(key="model").value == "digits-plain"


@pytest.mark.slow
def test_a_target_in_the_address_is_the_target_of_the_page(seen):
    app = seen("compare", target="int8_weights")
    assert app.selectbox(key="target").value == "int8_weights"
    assert app.header[0].value.endswith(f"with {TARGETS['int8_weights'].title}")


def test_the_default_target_comes_first(seen):
    picker = seen("compare").selectbox(key="target")
    assert picker.value == DEFAULT_TARGET.name
    assert len(picker.options) == len(TARGETS)
    assert picker.options[0].lower() == DEFAULT_TARGET.title.lower()


@pytest.mark.slow
def test_an_address_of_an_earlier_release_names_a_scheme(seen):
    app = seen("compare", scheme="int8_tensor_symmetric")
    assert app.selectbox(key="target").value == "int8_tensor"


def test_an_unknown_target_falls_back_to_the_default(seen):
    app = seen("compare", target="int3_magic")
    assert app.selectbox(key="target").value == DEFAULT_TARGET.name


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["Weight range", "Channel spread", "Range / rms", "SQNR"])
def test_every_view_of_the_differences_draws(open_app, demo_store, measure):
    app = open_app(demo_store, "compare", measure=measure)
    assert fails(app) == []
    assert len(app.get("vega_lite_chart")) == 3


@pytest.mark.slow
def test_bin_width_and_axis_can_be_chosen(open_app, demo_store):
    app = open_app(demo_store, "compare", axis="linear")
    widths = next(box for box in app.selectbox if box.label == "Bin width")
    widths.set_value("20").run()
    assert fails(app) == []
    assert dict(app.query_params)["bin_width"] == "20"


@pytest.mark.slow
def test_two_models_can_be_drawn_as_the_article_draws_them(seen):
    app = seen("compare", models=["digits-plain", "digits-rescaled"], shape="Bars")
    assert "One brick" not in texts(app)


def test_model_opens_with_the_worst_one_and_its_answer(seen):
    app = seen("model", target="int8_tensor")
    assert app.title[0].value == r"digits\-rescaled"
    assert app.header[0].value == headlines.model_headline(
        finding("broken", broken=8, layer_count=10), finding(), TARGETS["int8_tensor"]
    )


def test_model_says_what_equalization_and_more_bits_could_give(seen):
    said = texts(seen("model", model="digits-rescaled", target="int8_tensor"))
    assert any(
        remedies.equalization_hope("broken", 8, with_pair, lifted) in said
        for with_pair in range(1, 9)
        for lifted in range(with_pair + 1)
    )
    assert remedies.FORECAST in said
    assert remedies.EVERY_LAYER_IS_FINE in said


@pytest.mark.slow
def test_the_forecast_of_equalization_stays_with_the_scheme_it_is_for(seen):
    app = seen("model", model="digits-rescaled", target="int8_channel")
    assert "Equalization" not in texts(app)
    assert remedies.EVERY_LAYER_IS_FINE in texts(app)


def test_a_model_without_trouble_hears_nothing_of_equalization(seen):
    said = texts(seen("model", model="digits-plain"))
    assert "Equalization" not in said


@pytest.mark.slow
def test_a_model_without_pairs_hears_that_equalization_gives_nothing(
    open_app, demo_store, tmp_path
):
    path = tmp_path / "no-pairs.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        con.rows("delete from equalization")
        con.rows("delete from bits_needed")
    said = texts(open_app(path, "model", model="digits-rescaled", target="int8_tensor"))
    assert remedies.equalization_hope("broken", 8, 0, 0) in said
    assert remedies.EVERY_LAYER_IS_FINE not in said


@pytest.mark.slow
def test_model_finds_layers_by_name_as_it_is_typed(open_app, demo_store):
    app = open_app(demo_store, "model", model="digits-plain")
    app.text_input(key="find").set_value("%").run()
    assert no_such_layer(is_filtered=False) in texts(app)
    app.text_input(key="find").set_value("FEATURES.7").run()
    assert no_such_layer(is_filtered=False) not in texts(app)


def test_a_model_that_is_gone_is_said_to_be_gone(seen):
    app = seen("model", model="*yesterday*")
    assert app.warning[0].value == pickers.not_in_store("model named", r"\*yesterday\*")
    assert fails(app) == []


def test_a_store_that_is_no_database_is_a_sentence_on_every_page(open_app, tmp_path):
    text = tmp_path / "notes.duckdb"
    text.write_text("shopping list")
    with pytest.raises(DamagedStoreError) as damaged, store.reading(text):
        pass
    for page in PAGES:
        if not page.needs_models:
            continue
        app = open_app(text, page.name)
        assert len(app.exception) == 0
        assert app.error[0].value == markdown(damaged.value.sentence)


@pytest.mark.slow
def test_names_that_look_like_markup_show_as_themselves(open_app, demo_store, tmp_path):
    path = tmp_path / "evil.duckdb"
    shutil.copy(demo_store, path)
    evil = "<script>alert(1)</script> **bold** $x$ | [link](http://a) 模型"
    with store.writing(path) as con:
        con.rows("update models set model = ? where model = 'digits-rescaled'", [evil])
        con.rows("update layers set layer = layer || ?", [" <img src=x> *a* `b`"])
    for page in PAGES:
        app = open_app(path, page.name)
        assert fails(app) == []
        assert "<script>" not in texts(app).replace("\\<script\\>", "")
        assert "<img" not in texts(app).replace("\\<img", "")


@pytest.mark.slow
def test_one_model_alone_is_designed_too(open_app, one_model_store):
    app = open_app(one_model_store, "compare", target="int8_tensor")
    assert fails(app) == []
    assert app.header[0].value == headlines.models_headline(
        [finding("broken")], [finding(target="int8_channel")], TARGETS["int8_tensor"]
    )
    assert len(app.multiselect) == 0
    assert not [box for box in app.selectbox if box.key == "tag"]


@pytest.mark.slow
def test_embeddings_are_shown_apart_from_layers(open_app, demo_store, tmp_path):
    def tables(app):
        """The rows of each table of layers: as many as there are tables."""
        found = [
            json.loads(component.proto.json or "null") for component in app.get("bidi_component")
        ]
        return [
            len(data["rows"])
            for data in found
            if data and data.get("columns", [{}])[0].get("title", "").startswith("layer")
        ]

    path = tmp_path / "table.duckdb"
    shutil.copy(demo_store, path)
    before = open_app(path, "model", model="digits-plain")
    assert "Embeddings" not in texts(before)
    assert tables(before) == [6]
    with store.writing(path) as con:
        con.rows(
            "update layers set op_family = 'embedding' where layer = '/features/features.2/Conv'"
        )
    app = open_app(path, "model", model="digits-plain")
    assert fails(app) == []
    assert "Embeddings" in texts(app)
    assert tables(app) == [5, 1]


def test_models_says_what_the_store_holds_and_whether_it_is_in_order(seen):
    app = seen("models")
    assert app.header[0].value.startswith("4\u00a0models, 36\u00a0layers, ")
    assert app.header[0].value.endswith("; all in order")


def test_models_tells_a_file_that_changed_from_one_that_may_have(
    open_app, demo_store, tmp_path, monkeypatch
):
    monkeypatch.setattr("quantstore.app.widgets.reach.is_this_computer_only", lambda: True)
    path = tmp_path / "s.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as con:
        # One of a size that nobody reads while a page is drawn.
        for model, file_bytes in (("digits-separable", 1), ("digits-rescaled", 10**12)):
            changed = shutil.copy(demo_paths()[0], tmp_path / f"{model}.onnx")
            con.rows(
                "update models set source = ?, file_bytes = ?, ingested_at = '2020-01-01'"
                " where model = ?",
                [str(changed), file_bytes, model],
            )
    app = open_app(path, "models")
    concerns = headlines.shelf_headline(4, 36, 0, changed=1, perhaps=1, outdated=0)
    assert app.header[0].value.split("; ")[1] == concerns.split("; ")[1]
    (shelf,) = [one for one in app.get("bidi_component") if "marked" in str(one.proto)]
    rows = {row["name"]: row["file"]["text"] for row in json.loads(shelf.proto.json)["rows"]}
    assert rows == {
        "digits-plain": "",
        "digits-rescaled": FILE_STATES["perhaps changed"],
        "digits-separable": FILE_STATES["changed"],
        "digits-separable-unfolded": "",
    }


def test_models_finds_by_name_as_its_address_says(seen):
    app = seen("models", models_search="Rescaled")
    assert app.text_input(key="models_search").value == "Rescaled"
    (shelf,) = [one for one in app.get("bidi_component") if "marked" in str(one.proto)]
    assert "digits-rescaled" in str(shelf.proto)
    assert "digits-plain" not in str(shelf.proto)
    app = seen("models", models_search="nobody")
    assert [one.value for one in app.info] == [NO_MODEL_FITS]


def test_models_are_narrowed_down_as_the_address_says(seen):
    app = seen("models", target="int8_tensor", models_verdict="broken")
    (shelf,) = [one for one in app.get("bidi_component") if "marked" in str(one.proto)]
    assert [row["name"] for row in json.loads(shelf.proto.json)["rows"]] == ["digits-rescaled"]
    assert app.button_group(key="models_verdict").value == ["broken"]
    assert any("1 of 4" in str(one.value) for one in app.caption)


def test_models_says_that_a_tag_is_gone(seen):
    app = seen("models", models_tag="gone")
    assert [one.value for one in app.warning] == [pickers.not_in_store("tag named", "gone")]


@pytest.mark.parametrize("page", ["compare", "models"])
def test_a_bug_is_a_sentence_without_a_traceback_and_is_logged(
    open_app, demo_store, page, monkeypatch, caplog
):
    monkeypatch.setattr("quantstore.queries.model_facts", lambda *_: 1 / 0)
    app = open_app(demo_store, page)
    assert list(app.exception) == []
    (said,) = [one.value for one in app.error]
    assert said == PAGE_FAILED
    assert "ZeroDivisionError" not in texts(app) + said
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.slow
def test_the_first_page_loads_nothing_that_others_left_for_later(demo_store):
    program = (
        "import sys; from tests.support.visits import unopened; app = unopened('compare').run();"
        " print(len(app.exception), 'onnx_ir' in sys.modules, 'sympy.core' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "QUANTSTORE_DB": str(demo_store)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0", "True", "False"]
