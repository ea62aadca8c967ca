"""A run goes with all that belongs to it, and comes back as it was."""

import shutil
from pathlib import Path

import pytest

import quantstore
from quantstore import store
from quantstore.errors import UnknownRunError
from quantstore.store.tables import OF_MODELS
from tests.support.runs import a_run, a_sensitivity, a_tensor, add

MODEL = "digits-plain"


@pytest.fixture
def path(demo_store, tmp_path):
    return Path(shutil.copy(demo_store, tmp_path / "own.duckdb"))


def put(path, source="noise", minute=0):
    """A run with tensors, and the sensitivities it found."""
    with store.writing(path) as con:
        run = a_run(20.0, source=source, minute=minute)
        key = add(con, MODEL, run, [a_tensor(0, 55), a_tensor(1, 20)])
        record = a_sensitivity(0, 12.0, mode=run.mode, target=run.target, input_source=source)
        store.add_sensitivities(con, store.find_model(con, MODEL), [record])
    return key


def contents(path):
    """Every row of every table that belongs to models."""
    with store.reading(path) as con:
        return {table.name: sorted(map(str, con.rows(f"from {table.name}"))) for table in OF_MODELS}


@pytest.mark.slow
def test_a_run_goes_with_all_that_belongs_to_it_and_nothing_else(path):
    before = contents(path)
    key = put(path)
    assert contents(path) != before
    with store.writing(path) as con:
        store.remove_run(con, key)
    assert contents(path) == before


def test_a_run_comes_back_as_it_was(path):
    key = put(path)
    before = contents(path)
    with store.writing(path) as con:
        removed = store.remove_run(con, key)
    with store.writing(path) as con:
        assert store.restore_run(con, removed)
        # Twice would be two.
        assert not store.restore_run(con, removed)
    assert contents(path) == before


def test_sensitivities_stay_with_another_run_of_the_same_kind(path):
    first, second = put(path), put(path, minute=1)
    with store.writing(path) as con:
        store.remove_run(con, first)
        assert con.value("select count(*) from sensitivities") == 1
        store.remove_run(con, second)
        assert con.value("select count(*) from sensitivities") == 0


def test_a_run_whose_model_is_gone_does_not_come_back(path):
    key = put(path)
    with store.writing(path) as con:
        removed = store.remove_run(con, key)
        store.remove_model_named(con, MODEL)
        assert not store.restore_run(con, removed)


def test_python_removes_a_run_and_says_where_there_is_none(path):
    opened = quantstore.open_store(path)
    key = put(path)
    opened.remove_run(key)
    assert opened.query("from simulations where simulation_id = ?", [key]).empty
    with pytest.raises(UnknownRunError):
        opened.remove_run(key)
