"""SQL: examples that teach, a statement of one's own, and what the page says when it is wrong."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest

from quantstore import queries, store
from quantstore.app.pages.sql import TOO_LONG_FOR_A_LINK
from quantstore.app.widgets import address
from quantstore.app.widgets.welcome import ADD_EXAMPLES
from quantstore.charts.result import NEEDS_NUMBERS
from quantstore.console import statement
from quantstore.console.examples import EXAMPLES
from quantstore.schemes import DEFAULT_TARGET
from tests.support.runs import probed
from tests.support.visits import opened, unopened


@pytest.fixture
def page(monkeypatch, demo_store):
    """The page as the app frames it, over the demo models or another store."""

    # The page waits for its answer, however busy the computer is.
    monkeypatch.setattr(statement, "PATIENCE_SECONDS", 60)

    def open_page(path=demo_store, asked=None, **address):
        monkeypatch.setenv("QUANTSTORE_DB", str(path))
        app = unopened("sql", **address)
        ask(app, asked) if asked is not None else app.run()
        assert not app.exception
        return app

    return open_page


@pytest.fixture
def seen(demo_store):
    """The page as it opens, which others look at as well."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(statement, "PATIENCE_SECONDS", 60)
        return opened("sql", demo_store)


def ask(app, statement):
    """What the editor in the browser does when it is told to run."""
    app.session_state["query"] = statement
    app.session_state["sql_is_sent"] = True
    return app.run()


def data_of(app, part):
    """What a component of the page hands to the browser."""
    for component in app.get("bidi_component"):
        data = json.loads(component.proto.json or "null")
        if data and part in data:
            return data
    return None


def asks_for_run(monkeypatch, *, fragment_ids_this_run=(), is_history_navigation=False):
    """Whether Back and Forward, or parts of the page, ask for the next run; AppTest cannot say."""
    context = SimpleNamespace(
        fragment_ids_this_run=fragment_ids_this_run, is_history_navigation=is_history_navigation
    )
    monkeypatch.setattr(address, "get_script_run_ctx", lambda: context)


def in_editor(app):
    return data_of(app, "statement")["statement"]


def headline(app):
    return app.header[0].value.replace("\u00a0", " ").split(" :gray")[0]


def plain(text):
    return re.sub(r"\\(.)", r"\1", text)


def test_the_page_opens_with_the_verdict_of_each_model(seen):
    assert in_editor(seen) == EXAMPLES["Verdict per model"]
    assert seen.pills(key="example").value == "Verdict per model"
    assert headline(seen) == "4 rows"
    frame = seen.dataframe[0].value
    # Nobody ran them.
    assert set(frame["verdict"]) == {"untested"}
    assert set(frame["reason"]) == {"not measured"}


@pytest.mark.slow
def test_each_example_fills_the_editor_finds_rows_and_can_be_drawn(page):
    app = page(view="Chart")
    for name, example in reversed(EXAMPLES.items()):
        app.pills(key="example").set_value(name).run()
        assert in_editor(app) == example
        assert not app.error, name
        assert int(headline(app).split()[0]) > 0, name
        assert app.get("vega_lite_chart"), name
        assert not any("xa0" in caption.value for caption in app.caption), name


def test_who_survives_is_ordered_as_compare_is_and_says_what_it_rests_on(demo_store, tmp_path):
    path = tmp_path / "probed.duckdb"
    shutil.copy(demo_store, path)
    # One that breaks at its outputs without a broken layer, one whose broken layers do no harm.
    figures = {"digits-plain": 4.9, "digits-rescaled": 41.2, "digits-separable": 16.0}
    for model, output_sqnr_db in figures.items():
        probed(path, model, DEFAULT_TARGET.scheme.name, output_sqnr_db)
    with store.reading(path) as con:
        frame = con.frame(EXAMPLES["Verdict per model"])
        assert frame["model"].tolist() == queries.rank_of_models(con, DEFAULT_TARGET.name)
    assert frame["verdict"].tolist() == ["broken", "at risk", "fine", "untested"]
    assert frame["evidence"].tolist() == ["probe", "probe", "probe", "weights"]
    first = frame.iloc[0]
    assert (first["output_sqnr_db"], first["mode"], first["layers_broken"]) == (4.9, "both", 0)


def test_no_example_names_a_column_twice(demo_store):
    with store.reading(demo_store) as con:
        for statement in EXAMPLES.values():
            frame = con.frame(statement)
            assert not frame.empty
            assert frame.columns.is_unique


def test_the_drowned_channels_are_there_although_the_tensor_looks_healthy(demo_store):
    with store.reading(demo_store) as con:
        frame = con.frame(EXAMPLES["Good tensor, lost channels"])
    assert (frame["sqnr_db"] > 30).all()
    assert (frame["channels_below_10db"] > 0).all()


@pytest.mark.slow
def test_a_link_that_carries_a_statement_shows_its_result(page):
    app = page(query="select 6 * 7 as answer")
    assert in_editor(app) == "select 6 * 7 as answer"
    assert app.pills(key="example").value is None
    assert headline(app) == "1 row"
    assert app.dataframe[0].value["answer"].tolist() == [42]


def test_a_statement_is_run_and_put_into_the_address(page):
    app = page(asked="select model from models order by model limit 3")
    assert headline(app) == "3 rows"
    assert app.query_params["query"] == "select model from models order by model limit 3"


@pytest.mark.slow
def test_more_rows_than_the_limit_are_cut_and_said_to_be(page):
    app = page(asked="select * from range(20000)")
    assert headline(app) == "First 10,000 rows"
    assert any("only the first 10,000 rows" in caption.value for caption in app.caption)
    assert len(app.dataframe[0].value) == 10_000


@pytest.mark.slow
def test_no_rows_is_an_answer(page):
    app = page(asked="select model from models where false")
    assert headline(app) == "0 rows"
    assert not app.dataframe
    assert any("returned no rows" in caption.value for caption in app.caption)


@pytest.mark.slow
def test_a_wrong_statement_is_explained_and_shown_where_it_is_wrong(page):
    app = page(asked="select modell\nfrom models")
    (error,) = app.error
    assert "modell" in plain(error.value)
    assert "perhaps" in plain(error.value) or "did you mean" in plain(error.value)
    assert app.code[0].value.startswith("line 1: select modell")
    assert not app.dataframe


def test_what_was_typed_is_no_markup_in_the_explanation(page):
    app = page(asked='select "**bold** <img src=x>" from models')
    (error,) = app.error
    assert "**bold** <img src=x>" in plain(error.value)
    assert r"\<img" in error.value


@pytest.mark.parametrize(
    "statement",
    [
        "delete from models",
        pytest.param("select 1; select 2", marks=pytest.mark.slow),
        pytest.param("copy models to 'models.csv'", marks=pytest.mark.slow),
        pytest.param("attach 'x.duckdb'", marks=pytest.mark.slow),
    ],
)
def test_anything_but_one_question_is_refused(page, demo_store, statement):
    before = demo_store.read_bytes()
    app = page(asked=statement)
    assert len(app.error) == 1
    assert demo_store.read_bytes() == before


def test_an_empty_editor_asks_for_a_statement(page):
    app = page(asked="  ")
    assert not app.error
    assert "Write a query" in app.info[0].value


@pytest.mark.slow
def test_a_result_without_numbers_says_what_a_chart_needs(page):
    app = page(query="select model from models", view="Chart")
    assert plain(app.info[0].value) == NEEDS_NUMBERS
    assert not app.get("vega_lite_chart")


@pytest.mark.slow
def test_the_answer_is_kept_while_only_its_view_changes(page, monkeypatch):
    app = page()
    asked = app.session_state["sql_outcome"]
    app.segmented_control(key="view").set_value("Chart").run()
    assert app.get("vega_lite_chart")
    assert app.session_state["sql_outcome"] is asked
    ask(app, in_editor(app))
    assert app.session_state["sql_outcome"] is not asked


def test_every_table_and_view_is_listed_with_its_columns(seen, demo_store):
    with store.reading(demo_store) as con:
        schema = queries.schema(con)
    things = data_of(seen, "things")["things"]
    assert things[0]["name"] == "verdicts"
    assert things[0]["meaning"].startswith("View. ")
    assert [thing["name"] for thing in things if thing["is_open"]] == ["verdicts"]
    listed = {(thing["name"], one["name"]) for thing in things for one in thing["columns"]}
    assert listed == set(zip(schema["thing"], schema["column_name"], strict=True))
    types = {one["name"]: one["type"] for thing in things for one in thing["columns"]}
    assert types["sqnr_db"] == "float, dB"
    assert types["zeroed_fraction"] == "float, 0 to 1"
    # The editor completes the same names.
    assert [one["name"] for one in data_of(seen, "statement")["tables"]] == [
        thing["name"] for thing in things
    ]


@pytest.mark.slow
def test_a_new_statement_from_python_replaces_what_is_typed_and_an_answer_does_not(page):
    app = page()
    before = data_of(app, "statement")["revision"]
    app.segmented_control(key="view").set_value("Chart").run()
    assert data_of(app, "statement")["revision"] == before
    app.pills(key="example").set_value("Worst layers").run()
    assert data_of(app, "statement")["revision"] > before


@pytest.mark.slow
def test_what_was_asked_can_be_asked_again(page):
    app = ask(page(asked="select 1 as one"), "select nothing")
    assert plain(app.button(key="history_0").label) == "select nothing :gray[refused]"
    assert "select 1 as one :gray[1\u00a0row in" in plain(app.button(key="history_1").label)
    app.button(key="history_1").click().run()
    assert in_editor(app) == "select 1 as one"
    assert headline(app) == "1 row"
    # Once, however often it is asked.
    assert len([button for button in app.button if "history" in str(button.key)]) == 2


@pytest.mark.slow
def test_a_statement_too_long_for_a_link_stays_out_of_the_address_and_on_the_page(page):
    long = f"select 1 as one -- {'é' * 1200}"
    app = page(asked=long)
    assert headline(app) == "1 row"
    assert "query" not in app.query_params
    assert TOO_LONG_FOR_A_LINK in [caption.value for caption in app.caption]
    app.segmented_control(key="view").set_value("Chart").run()
    assert in_editor(app) == long


def test_a_statement_without_end_is_refused(page):
    app = page(asked=f"select 1 -- {'x' * 20_000}")
    assert "longer than 20,000 characters" in plain(app.error[0].value)


def test_an_answer_can_be_taken_along_in_three_forms(seen):
    found = seen.get("download_button")
    assert [button.label for button in found] == ["CSV", "JSON", "Parquet"]


@pytest.mark.slow
def test_a_slow_statement_can_be_cancelled(page, monkeypatch):
    monkeypatch.setattr(statement, "PATIENCE_SECONDS", 0)
    app = page(
        query="select count(*) from range(900000) a, range(900000) b where a.range < b.range"
    )
    assert any("of 30 seconds" in text.value for text in app.markdown)
    assert not app.header or "row" not in headline(app)
    _, question = app.session_state["sql_question"]
    app.button(key="cancel_query").click().run()
    assert question.is_over(30)
    app.run()
    assert "Cancelled" in app.info[0].value
    assert not app.error


@pytest.mark.slow
def test_an_outdated_address_changes_nothing_and_back_and_forward_do(page, monkeypatch):
    app = page()
    ask(app, "select 7 as lucky")
    # The browser asks for a run before it knows the address that the run before has written.
    app.query_params.clear()
    app.run()
    assert in_editor(app) == "select 7 as lucky"
    assert app.query_params["query"] == "select 7 as lucky"
    app.query_params.clear()
    asks_for_run(monkeypatch, is_history_navigation=True)
    app.run()
    assert in_editor(app) == EXAMPLES["Verdict per model"]


@pytest.mark.slow
def test_an_example_that_the_browser_still_shows_is_not_chosen_anew(page, monkeypatch):
    """What looks after a statement under way asks for runs on what the browser knows by then."""
    app = page()
    ask(app, "select 7 as lucky")
    app.pills(key="example").set_value("Verdict per model")
    with monkeypatch.context() as patched:
        asks_for_run(patched, fragment_ids_this_run=["look"])
        app.run()
    assert in_editor(app) == "select 7 as lucky"
    app.pills(key="example").set_value("Verdict per model").run()
    assert in_editor(app) == EXAMPLES["Verdict per model"]


@pytest.mark.slow
def test_columns_to_draw_can_be_chosen_and_are_part_of_the_address(page):
    app = page(view="Chart", mark="dots", y="layers_fine")
    assert any("layers_fine for each model." in plain(caption.value) for caption in app.caption)
    assert app.selectbox(key="colour").value == "verdict"
    app.selectbox(key="y").set_value("layers_watch").run()
    assert app.query_params["y"] == "layers_watch"
    assert app.get("vega_lite_chart")


def test_without_a_store_the_page_says_how_to_begin(page, tmp_path):
    app = page(tmp_path / "none.duckdb")
    assert [title.value for title in app.title] == ["SQL"]
    assert data_of(app, "statement") is None
    assert app.button(key="add_examples").label == ADD_EXAMPLES


@pytest.mark.slow
def test_an_empty_store_is_like_none(page, tmp_path):
    path = tmp_path / "empty.duckdb"
    with store.writing(path):
        pass
    app = page(path)
    assert data_of(app, "statement") is None
    assert app.button(key="add_examples")


def test_a_file_that_is_no_store_is_explained(page, tmp_path):
    path = tmp_path / "notes.duckdb"
    path.write_text("not a database")
    app = page(path)
    assert len(app.error) == 1
    assert data_of(app, "statement") is None
