"""The questions of the Models page: a page of the shelf, in any order, found by words and tags."""

import shutil

import pytest

from quantstore import queries, store

DEMO_MODELS = ["digits-plain", "digits-rescaled", "digits-separable", "digits-separable-unfolded"]


@pytest.fixture(scope="module")
def con(demo_store, tmp_path_factory):
    """The demo models, labelled."""
    path = tmp_path_factory.mktemp("shelf") / "s.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as connection:
        store.set_tags(connection, "digits-plain", ["Gate", "door"])
        store.set_tags(connection, "digits-rescaled", ["door"])
        store.set_note(connection, "digits-separable", "50% better, ask_Ming")
    with store.reading(path) as connection:
        yield connection


def names(con, **choice):
    return queries.shelf(con, limit=10, **choice)["model"].tolist()


def test_every_model_lies_on_the_shelf_by_name(con):
    assert names(con) == DEMO_MODELS


@pytest.mark.parametrize("order", ["newest", "file size", "layers", "store share"])
def test_other_orders_begin_with_the_most(con, order):
    column = {
        "newest": "ingested_at",
        "file size": "file_bytes",
        "layers": "layer_count",
        "store share": "store_share",
    }[order]
    found = queries.shelf(con, limit=10, order=order)[column]
    assert found.is_monotonic_decreasing
    assert found.nunique() > 1


def test_a_page_knows_how_many_there_are_on_all_pages(con):
    page = queries.shelf(con, limit=3, offset=3)
    assert page["model"].tolist() == DEMO_MODELS[3:]
    assert page["found_count"].tolist() == [4]


def test_shares_of_the_store_add_up(con):
    assert queries.shelf(con, limit=10)["store_share"].sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" RESCALED ", ["digits-rescaled"]),
        ("ming", ["digits-separable"]),
        ("demo_models", DEMO_MODELS),
        # No pattern: these are the characters themselves.
        ("50% b", ["digits-separable"]),
        ("ask_", ["digits-separable"]),
        ("%", ["digits-separable"]),
        ("nobody", []),
    ],
)
def test_words_are_found_in_names_notes_and_sources(con, text, found):
    assert names(con, text=text) == found


def test_a_list_of_models_narrows_it_down(con):
    assert names(con, among=["digits-plain", "digits-rescaled"], text="plain") == ["digits-plain"]
    assert names(con, among=["digits-plain", "gone"]) == ["digits-plain"]
    assert names(con, among=[]) == []


def test_tags_are_counted_in_the_order_of_the_alphabet(con):
    assert list(queries.tag_counts(con).items()) == [("door", 2), ("Gate", 1)]


def test_origins_say_what_was_read_from_where(con):
    (origin,) = queries.origins(con, ["digits-plain"])
    assert origin.source.endswith("digits-plain.onnx")
    assert queries.model_of_content(con, origin.sha256, folded=True) == "digits-plain"
    assert queries.model_of_content(con, origin.sha256, folded=False) is None
    assert len(queries.origins(con)) == 4


def test_the_latest_files_come_first(con):
    ingests = queries.recent_ingests(con, 2)
    assert ingests["model"].tolist() == ["digits-separable", "digits-separable-unfolded"]
    assert set(ingests["outcome"]) == {"stored"}


@pytest.mark.slow
def test_what_was_removed_leaves_space(con, demo_store, tmp_path):
    path = tmp_path / "s.duckdb"
    shutil.copy(demo_store, path)
    for model in DEMO_MODELS:
        with store.writing(path) as connection:
            store.remove_model_named(connection, model)
    with store.reading(path) as connection:
        assert queries.free_bytes(connection) > queries.free_bytes(con)
