"""A published folder that somebody else wrote, or spoiled: one clear sentence, or no difference."""

import shutil

import duckdb
import pytest

from quantstore import store
from quantstore.console import statement
from quantstore.errors import StoreError
from quantstore.store.published import VIEWS_FILE
from tests.support import hostile_folders
from tests.support.published import ask, parts

QUERY = """
    select model, models.weight_count, layer, scheme, channel_sqnr_p10_db, kurtosis
    from stored_errors join layers using (layer_id) join models using (model_id)
"""

QUICK = {
    *("a part is a link", "a file is a link to a secret", "a later schema", "half of the models"),
    *("keys lose their last digits", "another part without a column", "pages written over"),
}


@pytest.fixture(scope="module")
def sound(demo_store, tmp_path_factory):
    """A folder of two parts with rows, from two stores. Only read."""
    root = tmp_path_factory.mktemp("sound")
    shutil.copy(demo_store, root / "store.duckdb")
    with store.writing(root / "store.duckdb") as connection:
        store.remove_model_named(connection, "digits-plain")
    for path in (root / "store.duckdb", demo_store):
        store.publish(path, root / "folder")
    assert len(parts(root / "folder")) == 3
    return root / "folder"


@pytest.fixture
def folder(sound, tmp_path):
    """A copy that this process has not looked at."""
    shutil.copytree(sound, tmp_path / "folder")
    return tmp_path / "folder"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name in hostile_folders.SPOILT
    ],
)
def test_what_is_wrong_with_a_folder_is_one_sentence(folder, name):
    spoil, words = hostile_folders.SPOILT[name]
    spoil(folder)
    with pytest.raises(StoreError) as refused:
        ask(folder, QUERY)
    sentence = str(refused.value)
    assert words in sentence
    assert sentence.startswith(str(folder))
    assert len(sentence.splitlines()) == 1
    assert refused.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("name", ["another part without a column", "pages written over"])
def test_the_console_says_so_too(folder, name):
    spoil, words = hostile_folders.SPOILT[name]
    spoil(folder)
    with pytest.raises(StoreError, match=words):
        statement.run(folder, QUERY, row_limit=None, timeout_seconds=20)


@pytest.mark.parametrize("name", hostile_folders.HARMLESS)
def test_what_else_lies_there_changes_nothing(folder, sound, name):
    hostile_folders.HARMLESS[name](folder)
    assert sorted(ask(folder, QUERY)) == sorted(ask(sound, QUERY)) != []


@pytest.mark.slow
def test_a_publisher_renews_the_file_of_views_without_reading_it(folder, demo_store):
    hostile_folders.views_of_somebody_else(folder)
    assert store.publish(demo_store, folder).part is None
    with duckdb.connect(folder / VIEWS_FILE, read_only=True) as connection:
        models = connection.execute("select model from models order by model").fetchall()
    assert models == sorted(ask(folder, "select model from models")) != []


@pytest.mark.slow
def test_parts_of_a_release_without_a_measure_lack_it_and_nothing_else(folder, demo_store):
    before = sorted(ask(folder, "select layer_id, depth, std from layers"))
    for part in hostile_folders.parts(folder):
        hostile_folders.rewritten(part / "layers.parquet", "select * exclude (kurtosis) from this")
    assert ask(folder, "select distinct kurtosis from layers") == [(None,)]
    assert sorted(ask(folder, "select layer_id, depth, std from layers")) == before
    # The file of views is made by a release that has the measure.
    store.publish(demo_store, folder)
    with duckdb.connect(folder / VIEWS_FILE, read_only=True) as connection:
        measured = connection.execute("select distinct kurtosis from layers").fetchall()
    assert measured == [(None,)]
