"""What pages ask the store once for each of its states, and never longer."""

import pandas as pd
import pytest

from quantstore import queries, store
from quantstore.app.page_list import PAGES
from quantstore.app.widgets import stores
from quantstore.schemes import TARGETS
from quantstore.settings import PUBLISHED_VIEWS
from tests.support.visits import turned_to, unopened

SOME = ["digits-rescaled", "digits-plain"]
TARGET = TARGETS["int8_tensor"]


@pytest.fixture
def own_store(demo_store, tmp_path, monkeypatch):
    """A copy of the demo store that the app is about."""
    path = tmp_path / "own.duckdb"
    path.write_bytes(demo_store.read_bytes())
    monkeypatch.setenv("QUANTSTORE_DB", str(path))
    return path


def test_verdicts_of_some_models_are_those_that_a_query_gives(own_store):
    with store.reading(own_store) as con:
        pd.testing.assert_frame_equal(stores.verdicts(con), queries.verdicts(con))
        pd.testing.assert_frame_equal(stores.verdicts(con, SOME), queries.verdicts(con, SOME))
        assert stores.worst_first(con, TARGET) == queries.rank_of_models(con, TARGET.name)
        ranked = stores.ranking(con, TARGET, SOME)
        assert list(ranked["model"]) == queries.rank_of_models(con, TARGET.name, SOME)
        rows = ranked.to_dict("records")
        assert stores.facts(con, TARGET, SOME) == [queries.model_facts(row) for row in rows]
        assert len(stores.facts(con, TARGET)) == len(queries.model_names(con))


def test_the_store_is_asked_for_verdicts_once_until_somebody_writes(own_store):
    with store.reading(own_store) as con:
        asked = stores.verdicts(con)
    with store.reading(own_store) as con:
        assert stores.verdicts(con) is asked
    with store.writing(own_store) as con:
        store.rename_model(con, "digits-plain", "renamed")
    with store.reading(own_store) as con:
        assert "renamed" in set(stores.verdicts(con)["model"])
        assert "renamed" in stores.worst_first(con, TARGET)


@pytest.mark.slow
def test_whoever_turns_the_pages_has_verdicts_asked_for_once(own_store, monkeypatch):
    asked = []

    def counted(con, *arguments):
        asked.append(arguments)
        return verdicts(con, *arguments)

    verdicts = queries.verdicts
    monkeypatch.setattr(queries, "verdicts", counted)
    app = unopened("compare", target=TARGET.name).run()
    for page in PAGES:
        turned_to(app, page.name).run()
        assert not app.exception
    assert asked == [()]


def test_the_answers_of_one_state_are_kept_up_to_a_number(own_store, monkeypatch):
    monkeypatch.setattr(stores, "MOST_ANSWERS", 2)
    asked = []

    def question(_, number, *, sign=1):
        asked.append(number)
        return sign * number

    with store.reading(own_store) as con:
        assert [stores.ask(con, question, number) for number in (1, 2, 2, 3, 3, 2, 1)] == [
            *(1, 2, 2, 3, 3, 2, 1)
        ]
        assert stores.ask(con, question, 1, sign=-1) == -1
    assert asked == [1, 2, 3, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", PUBLISHED_VIEWS])
def test_a_part_that_somebody_publishes_is_seen(own_store, tmp_path, monkeypatch, name):
    folder = tmp_path / "published"
    with store.writing(own_store) as con:
        store.remove_model(con, store.find_model(con, "digits-plain"))
    store.publish(own_store, folder)
    monkeypatch.setenv("QUANTSTORE_DB", str(folder / name))
    with store.reading(folder / name) as con:
        before = set(stores.verdicts(con)["model"])
    with store.writing(own_store) as con:
        store.rename_model(con, "digits-rescaled", "renamed")
    store.publish(own_store, folder)
    with store.reading(folder / name) as con:
        assert set(stores.verdicts(con)["model"]) == before - {"digits-rescaled"} | {"renamed"}
