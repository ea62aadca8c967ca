"""A measure that is added is a column of new stores at once, and of older ones when written to."""

import dataclasses
import gzip
import re
import shutil
from importlib import resources
from pathlib import Path

import duckdb
import pytest

from quantstore import store
from quantstore.app.widgets.stores import NEEDS_UPDATE
from quantstore.cli import main
from quantstore.errors import OlderStoreError, RefusedImportError
from quantstore.numerics.measures import MEASURES
from quantstore.store.schema import schema_sql
from tests.support.visits import unopened

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture
def path(tmp_path, demo_store):
    """A store with models."""
    return Path(shutil.copy(demo_store, tmp_path / "test.duckdb"))


@pytest.fixture
def added(monkeypatch):
    """A measure that no store has."""
    measure = dataclasses.replace(
        MEASURES["abs_max"], column="midrange", meaning="It's in the middle, in weight units."
    )
    monkeypatch.setitem(MEASURES, measure.column, measure)
    return measure


def ask(path, sql):
    with duckdb.connect(path, read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_every_line_of_the_schema_that_stands_for_measures_is_filled_in():
    sql = resources.files("quantstore.store").joinpath("schema.sql").read_text("utf-8")
    assert sql.count("numerics/measures.py:") == 3
    assert "measures.py" not in schema_sql()
    for column in MEASURES:
        assert re.search(rf"^    {column} \w+", schema_sql(), re.MULTILINE)


@pytest.mark.slow
def test_a_new_store_has_it_with_its_comment(tmp_path, added):
    path = tmp_path / "new.duckdb"
    with store.writing(path):
        pass
    columns = "from duckdb_columns() select table_name, data_type, comment where column_name ="
    assert ask(path, f"{columns} 'midrange' order by all") == [
        (table, "DOUBLE", added.meaning) for table in ("layer_errors", "layers", "model_layers")
    ]


@pytest.mark.slow
def test_who_reads_a_store_that_lacks_it_is_told_what_to_do(path, added, capsys):
    before = path.read_bytes()
    with pytest.raises(OlderStoreError) as caught, store.reading(path):
        pass
    assert "did not measure midrange" in caught.value.sentence
    assert f"quantstore migrate --db {path}" in caught.value.sentence
    assert path.read_bytes() == before
    assert main(["models", "--db", str(path)]) == OlderStoreError.exit_code
    assert main(["migrate", "--db", str(path)]) == 0
    assert main(["models", "--db", str(path)]) == 0
    assert "digits-plain" in capsys.readouterr().out


@pytest.mark.slow
def test_the_app_offers_to_update_it(path, added, monkeypatch):
    monkeypatch.setenv("QUANTSTORE_DB", str(path))
    app = unopened("model").run()
    assert app.title[0].value == NEEDS_UPDATE
    (button,) = (button for button in app.button if button.label == "Update the store")
    button.click().run()
    assert app.error == app.exception == []
    assert "digits" in app.title[0].value


@pytest.mark.slow
def test_updating_adds_the_column_keeps_the_rest_and_marks_the_models(path, added):
    tables = [name for (name,) in ask(path, "select table_name from duckdb_tables() order by all")]
    others = [table for table in tables if table not in ("layers", "models", "store_info")]
    before = {table: ask(path, f"from {table} order by all") for table in others}
    layers = ask(path, "from layers order by all")
    models = ask(path, "select * exclude (measures_version) from models order by all")

    backup = store.update(path)
    assert {table: ask(path, f"from {table} order by all") for table in others} == before
    assert ask(path, "select * exclude (midrange) from layers order by all") == layers
    assert ask(path, "select distinct midrange from layers") == [(None,)]
    assert ask(path, "select * exclude (measures_version) from models order by all") == models
    assert ask(path, "select distinct measures_version from models") == [(0,)]
    assert ask(backup, "from layers order by all") == layers
    assert store.update(path) is None


@pytest.mark.slow
def test_a_store_of_an_earlier_release_gets_it_along_with_the_rest(tmp_path, added):
    path = tmp_path / "old.duckdb"
    with gzip.open(DATA / "store-schema-1.duckdb.gz") as packed, path.open("wb") as file:
        shutil.copyfileobj(packed, file)
    store.update(path)
    assert ask(path, "select distinct midrange from layer_errors") == [(None,)]
    assert ask(path, "select distinct measures_version from models") == [(0,)]


def test_an_export_that_lacks_it_is_refused_with_what_to_do(tmp_path, path, monkeypatch, added):
    with monkeypatch.context() as earlier:
        earlier.delitem(MEASURES, "midrange")
        store.export(path, tmp_path / "export")
    with pytest.raises(RefusedImportError) as caught:
        store.merge(tmp_path / "ours.duckdb", tmp_path / "export")
    assert "did not measure midrange" in caught.value.sentence
    assert "quantstore migrate" in caught.value.sentence
    assert not (tmp_path / "ours.duckdb").exists()
