"""What a few letters find: any case, no patterns, the best first."""

import shutil

import pytest

from quantstore import queries, store

HOSTILE = "50%_<b>'x'"


@pytest.fixture(scope="module")
def con(demo_store, tmp_path_factory):
    """The demo models with tags, one of them with a layer of a hostile name."""
    path = tmp_path_factory.mktemp("search") / "s.duckdb"
    shutil.copy(demo_store, path)
    with store.writing(path) as connection:
        store.set_tags(connection, "digits-plain", ["plain", "Gate"])
        store.set_tags(connection, "digits-rescaled", ["gate keeper", "Gate"])
        connection.rows(
            "update layers set layer = $name where layer_id = (select min(layer_id) from layers)",
            {"name": HOSTILE},
        )
    with store.reading(path) as connection:
        yield connection


def names(hits):
    return [hit.name for hit in hits.best]


def test_nothing_typed_finds_nothing(con):
    results = queries.search(con, "  ")
    assert (results.models.best, results.layers.best, results.tags.best) == ((), (), ())


def test_models_that_begin_with_it_come_before_those_that_hold_it(con):
    assert names(queries.search(con, "DIGITS-sep").models) == [
        "digits-separable",
        "digits-separable-unfolded",
    ]
    (exact, longer) = queries.search(con, "digits-separable").models.best
    assert (exact.name, exact.rank, longer.rank) == ("digits-separable", 0, 1)
    assert queries.search(con, "plain").models.best[0].rank == 2
    assert queries.search(con, "lain").models.best[0].rank == 3


def test_every_word_must_be_there_in_any_order(con):
    assert names(queries.search(con, "unfolded digits").models) == ["digits-separable-unfolded"]
    assert queries.search(con, "digits nobody").models.total == 0


def test_a_layer_is_found_by_its_name_and_told_apart_by_its_model(con):
    everywhere = queries.search(con, "conv", limit=100).layers
    assert everywhere.total == len(everywhere.best) > 10
    of_one = queries.search(con, "rescaled conv", limit=100).layers
    assert {hit.model for hit in of_one.best} == {"digits-rescaled"}
    hit = of_one.best[0]
    assert queries.layer_address(con, hit.layer_id)[0] == "digits-rescaled"
    # What only the model is called by is no layer.
    assert queries.search(con, "rescaled").layers.total == 0


def test_a_limit_leaves_the_count_alone(con):
    few, many = (queries.search(con, "conv", limit=limit).layers for limit in (2, 100))
    assert (len(few.best), few.total) == (2, many.total)
    assert few.best == many.best[:2]


def test_tags_know_how_many_models_have_them(con):
    tags = queries.search(con, "gate").tags
    assert [(hit.name, hit.models) for hit in tags.best] == [("Gate", 2), ("gate keeper", 1)]


@pytest.mark.parametrize("text", ["50%_", "%_<", HOSTILE, "'x'"])
def test_no_letter_is_a_pattern(con, text):
    assert names(queries.search(con, text).layers) == [HOSTILE]
    assert queries.search(con, "d_gits").models.total == 0
    assert queries.search(con, "%").models.total == 0
