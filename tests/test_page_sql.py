"""SQL: examples that teach, a statement of one's own, and what the page says when it is wrong."""

import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from quantstore import queries, store
from quantstore.sql_examples import EXAMPLES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def page(monkeypatch, demo_store):
    """The page as the app frames it, over the demo models or another store."""

    def open_page(path=demo_store, **address):
        monkeypatch.setenv("QUANTSTORE_DB", str(path))
        app = AppTest.from_file(ROOT / "app.py", default_timeout=30)
        for key, value in address.items():
            app.query_params[key] = value
        app.switch_page("quantstore/pages/sql.py")
        app.run()
        assert not app.exception
        return app

    return open_page


def ask(app, statement):
    app.text_area(key="query").set_value(statement)
    (run,) = [button for button in app.button if button.label == "Run"]
    return run.click().run()


def headline(app):
    return app.header[0].value.replace("\u00a0", " ").split(" :gray")[0]


def plain(text):
    return re.sub(r"\\(.)", r"\1", text)


def html_of(app):
    return "\n".join(element.proto.body for element in app.get("html"))


def test_the_page_opens_with_the_verdict_of_each_model(page):
    app = page()
    assert app.text_area(key="query").value == EXAMPLES["Verdict per model"]
    assert app.pills(key="example").value == "Verdict per model"
    assert headline(app) == "4 rows"
    frame = app.dataframe[0].value
    assert frame["model"][0] == "digits-rescaled"
    assert frame["verdict"][0] == "breaks"


def test_each_example_fills_the_editor_finds_rows_and_can_be_drawn(page):
    app = page(view="Chart")
    for name, statement in reversed(EXAMPLES.items()):
        app.pills(key="example").set_value(name).run()
        assert app.text_area(key="query").value == statement
        assert not app.error, name
        assert int(headline(app).split()[0]) > 0, name
        assert app.get("vega_lite_chart"), name
        assert not any("xa0" in caption.value for caption in app.caption), name


def test_no_example_names_a_column_twice(demo_store):
    with store.reading(demo_store) as con:
        for statement in EXAMPLES.values():
            frame = con.frame(statement)
            assert not frame.empty
            assert frame.columns.is_unique


def test_the_drowned_channels_are_there_although_the_tensor_looks_healthy(page):
    app = page()
    app.pills(key="example").set_value("Healthy tensor, drowned channels").run()
    frame = app.dataframe[0].value
    assert (frame["sqnr_db"] > 30).all()
    assert (frame["channels_below_10db"] > 0).all()


def test_a_link_that_carries_a_statement_shows_its_result(page):
    app = page(query="select 6 * 7 as answer")
    assert app.text_area(key="query").value == "select 6 * 7 as answer"
    assert app.pills(key="example").value is None
    assert headline(app) == "1 row"
    assert app.dataframe[0].value["answer"].tolist() == [42]


def test_a_statement_is_run_and_put_into_the_address(page):
    app = ask(page(), "select model from models order by model limit 3")
    assert headline(app) == "3 rows"
    assert app.query_params["query"] == "select model from models order by model limit 3"


def test_more_rows_than_the_limit_are_cut_and_said_to_be(page):
    app = ask(page(), "select * from range(20000)")
    assert headline(app) == "First 10,000 rows"
    assert any("There are more rows than 10,000" in caption.value for caption in app.caption)
    assert len(app.dataframe[0].value) == 10_000


def test_no_rows_is_an_answer(page):
    app = ask(page(), "select model from models where false")
    assert headline(app) == "0 rows"
    assert not app.dataframe
    assert any("nothing matches" in caption.value for caption in app.caption)


def test_a_wrong_statement_is_explained_and_shown_where_it_is_wrong(page):
    app = ask(page(), "select modell\nfrom models")
    (error,) = app.error
    assert "modell" in plain(error.value)
    assert "perhaps" in plain(error.value) or "did you mean" in plain(error.value)
    assert app.code[0].value.startswith("line 1: select modell")
    assert not app.dataframe


def test_what_was_typed_is_no_markup_in_the_explanation(page):
    app = ask(page(), 'select "**bold** <img src=x>" from models')
    (error,) = app.error
    assert "**bold** <img src=x>" in plain(error.value)
    assert r"\<img" in error.value


@pytest.mark.parametrize(
    "statement",
    [
        "delete from models",
        "select 1; select 2",
        "copy models to 'models.csv'",
        "attach 'x.duckdb'",
    ],
)
def test_anything_but_one_question_is_refused(page, demo_store, statement):
    before = demo_store.read_bytes()
    app = ask(page(), statement)
    assert len(app.error) == 1
    assert demo_store.read_bytes() == before


def test_an_empty_editor_asks_for_a_statement(page):
    app = ask(page(), "  ")
    assert not app.error
    assert "Write a statement" in app.info[0].value


def test_a_result_without_numbers_says_what_a_chart_needs(page):
    app = page(query="select model from models", view="Chart")
    assert "needs a column of numbers" in plain(app.info[0].value)
    assert not app.get("vega_lite_chart")


def test_the_answer_is_kept_while_only_its_view_changes(page, monkeypatch):
    app = page()
    asked = app.session_state["sql_outcome"]
    app.segmented_control(key="view").set_value("Chart").run()
    assert app.get("vega_lite_chart")
    assert app.session_state["sql_outcome"] is asked
    ask(app, app.text_area(key="query").value)
    assert app.session_state["sql_outcome"] is not asked


def test_every_table_and_view_is_listed_with_its_columns(page, demo_store):
    app = page()
    with store.reading(demo_store) as con:
        schema = queries.schema(con)
    listed = [expander.label.strip("`") for expander in app.expander]
    assert listed[0] == "verdicts"
    assert set(schema["thing"]) <= set(listed)
    shown = html_of(app)
    for column in set(schema["column_name"]):
        assert f">{column}</span>" in shown
    assert ">double, dB</span>" in shown
    assert ">double, 0 to 1</span>" in shown


def test_without_a_store_the_page_says_how_to_begin(page, tmp_path):
    app = page(tmp_path / "none.duckdb")
    assert [title.value for title in app.title] == ["SQL"]
    assert not app.text_area
    assert app.button(key="add_examples").label == "Add the example models"


def test_an_empty_store_is_like_none(page, tmp_path):
    path = tmp_path / "empty.duckdb"
    with store.writing(path):
        pass
    app = page(path)
    assert not app.text_area
    assert app.button(key="add_examples")


def test_a_file_that_is_no_store_is_explained(page, tmp_path):
    path = tmp_path / "notes.duckdb"
    path.write_text("not a database")
    app = page(path)
    assert len(app.error) == 1
    assert not app.text_area
