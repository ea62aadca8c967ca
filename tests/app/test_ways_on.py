"""What to do next, where the question arises; what was removed comes back."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from quantstore import queries, store
from quantstore.app.queue import RunQueue
from quantstore.app.sections import model_dialogs, run_dialogs, run_form, ways_on
from quantstore.app.widgets import inputs_box, reach, undo
from quantstore.pipeline import kept
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.process.queue import Job
from tests.support.runs import TENSOR, a_run, a_tensor, add
from tests.support.visits import fails, section, texts, turned_to

MODEL = "digits-rescaled"


@pytest.fixture
def path(demo_store, tmp_path):
    """The demo models, none of which was run: to add to."""
    return Path(shutil.copy(demo_store, tmp_path / "own.duckdb"))


@pytest.fixture(autouse=True)
def on_loopback(monkeypatch):
    monkeypatch.setattr(reach, "is_this_computer_only", lambda: True)


@pytest.fixture
def asked(monkeypatch):
    """What is asked of the queue, instead of being run."""
    asked = []

    def add(self, path, store_path, inputs, choices, **more):
        asked.append((more["name"], inputs, choices))
        return len(asked)

    def add_probe(self, model, store_path, targets, **more):
        asked.append((model, targets))
        return len(asked)

    monkeypatch.setattr(RunQueue, "add", add)
    monkeypatch.setattr(RunQueue, "add_probe", add_probe)
    return asked


def drifted(path, source="noise, image-like", db=8.0):
    with store.writing(path) as con:
        tensors = [
            a_tensor(0, 55, "Conv_0"),
            a_tensor(1, 30, "Conv_1"),
            a_tensor(2, 12, "Conv_2"),
            a_tensor(3, db, "Conv_3"),
        ]
        return add(con, MODEL, a_run(db, TENSOR, source=source), tensors)


def button(app, key):
    return next((button for button in app.button if button.key == key), None)


@pytest.mark.slow
def test_an_untested_target_is_tested_from_the_model_and_from_compare(open_app, path, asked):
    app = open_app(path, "model", model=MODEL, target="int8_channel")
    button(app, "finish_test").click().run()
    assert fails(app) == []
    assert asked == [(MODEL, ["int8_channel"])]
    app = open_app(path, "compare", target="int8_channel")
    assert button(app, "finish_tests").label.startswith(ways_on.FINISH_TEST)
    button(app, "finish_tests").click().run()
    assert len(asked) > 2
    assert {targets[0] for _, targets in asked} == {"int8_channel"}


@pytest.mark.slow
def test_the_sidebar_shows_what_this_session_runs_and_links_to_its_result(
    open_app, path, monkeypatch
):
    key = drifted(path)
    result = SimpleNamespace(model=MODEL, simulation_id=key, notes=[])
    jobs = [
        Job(1, MODEL, "both, noise", "done", result=result),
        Job(2, MODEL, "somebody else's", "running"),
    ]
    monkeypatch.setattr(RunQueue, "snapshot", lambda _: list(jobs))
    app = open_app(path, "sql")
    assert not app.get("page_link")
    app.session_state["started_jobs"] = {1}
    app.run()
    assert fails(app) == []
    assert "both, noise" in texts(app)
    assert "somebody else" not in texts(app)
    assert "Open the run" in [link.proto.label for link in app.get("page_link")]


@pytest.mark.slow
def test_what_was_cut_off_is_measured_again(open_app, path, asked):
    with store.writing(path) as con:
        add(con, MODEL, a_run(None, failure="stopped after 60 s of CPU time"))
    app = open_app(path, "model", model=MODEL, target="int8_tensor")
    button(app, "measure_cut_off").click().run()
    assert fails(app) == []
    assert asked == [(MODEL, ["int8_tensor"])]


@pytest.mark.slow
def test_a_run_in_trouble_leads_to_its_rescue(open_app, path):
    key = drifted(path)
    app = open_app(path, "drift", runs=[str(key)], target="int8_tensor")
    button(app, "rescue_run").click().run()
    assert fails(app) == []
    assert app.title[0].value == "Rescue"
    assert app.selectbox(key="model").value == MODEL
    assert app.selectbox(key="target").value == "int8_tensor"


@pytest.mark.slow
def test_a_run_that_is_fine_offers_no_rescue(open_app, path):
    app = open_app(path, "drift", runs=[str(drifted(path, db=40.0))])
    assert button(app, "rescue_run") is None


@pytest.mark.slow
def test_a_run_on_noise_is_started_again_without_the_layers_it_falls_at(open_app, path, asked):
    app = open_app(path, "drift", runs=[str(drifted(path))])
    button(app, "without_steepest").click().run()
    assert fails(app) == []
    ((name, inputs, choices),) = asked
    assert (name, inputs, choices["target"]) == (MODEL, "noise", "int8_tensor")
    assert choices["exclude"] == ("Conv_2", "Conv_1", "Conv_3")


@pytest.mark.slow
def test_a_run_on_own_inputs_fills_in_the_form_and_asks_for_them(open_app, path, asked):
    app = open_app(path, "drift", runs=[str(drifted(path, source="12 images from photos/"))])
    button(app, "without_steepest").click().run()
    assert fails(app) == []
    assert asked == []
    assert app.multiselect(key="run_exclude").value == ["Conv_2", "Conv_1", "Conv_3"]
    assert app.selectbox(key="run_model").value == MODEL
    assert app.selectbox(key="run_kind").value == inputs_box.OWN_DATA
    assert app.expander[0].proto.expanded
    next(one for one in app.button if one.label == "Run").click().run()
    assert app.error[0].value == inputs_box.NO_INPUTS


@pytest.mark.slow
def test_nothing_is_started_from_another_computer(open_app, path, monkeypatch):
    monkeypatch.setattr(run_form, "is_offered", lambda: False)
    key = drifted(path)
    assert button(open_app(path, "drift", runs=[str(key)]), "without_steepest") is None
    app = open_app(path, "model", model=MODEL, target="int8_channel")
    assert button(app, "finish_test") is None


# Removal, and back


def rows_of(path):
    with store.reading(path) as con:
        runs = con.value("select count(*) from simulations")
        return queries.model_names(con), runs, con.value("select count(*) from channel_errors")


def press(app, key):
    button(app, key).click().run()
    assert fails(app) == []


@pytest.mark.slow
def test_a_run_is_deleted_once_confirmed_and_comes_back(open_app, path):
    key = drifted(path)
    before = rows_of(path)
    app = open_app(path, "drift", runs=[str(key)])
    press(app, "delete_runs")
    assert run_dialogs.WHAT_GOES in texts(app)
    assert rows_of(path) == before
    press(app, "really_delete_runs")
    assert rows_of(path)[1] == before[1] - 1
    # On another page, too.
    turned_to(app, "sql").run()
    press(app, "undo_0")
    assert rows_of(path) == before
    assert button(app, "undo_0") is None


def removed(models):
    undo.remove_models(models)


@pytest.mark.slow
def test_removed_models_come_back_with_their_runs_labels_and_copies(path, monkeypatch, tmp_path):
    monkeypatch.setenv("QUANTSTORE_DB", str(path))
    upload = Path(
        shutil.copy(
            Path(model_dialogs.__file__).parents[2] / "demo_models" / "digits-plain.onnx", tmp_path
        )
    )
    ingest_file(upload, path, IngestChoices(source="upload x", keep=True, probe=False))
    with store.writing(path) as con:
        store.set_note(con, MODEL, "remember me")
        store.set_tags(con, MODEL, ["teaching"])
    drifted(path)
    before = rows_of(path)
    (content,) = kept.sizes(path)
    app = section(removed, [MODEL, "digits-plain"])
    assert rows_of(path)[0] == [name for name in before[0] if name not in (MODEL, "digits-plain")]
    assert kept.kept_file(path, content) is None
    (removal,) = app.session_state["removals"]
    assert removal.put_back() == "2\u00a0models restored"
    assert rows_of(path) == before
    assert kept.kept_file(path, content) is not None
    with store.reading(path) as con:
        labels = store.labels(con, MODEL)
    assert (labels.note, labels.tags) == ("remember me", ("teaching",))


def test_a_removal_leaves_nothing_behind_once_the_session_ends(path, monkeypatch):
    monkeypatch.setenv("QUANTSTORE_DB", str(path))
    app = section(removed, [MODEL])
    (removal,) = app.session_state["removals"]
    cells = [cell.cell_contents for cell in removal.put_back.__closure__]
    folders = [cell.folder for cell in cells if hasattr(cell, "folder")]
    assert folders
    assert all(folder.is_dir() for folder in folders)
    del removal, cells
    app.session_state["removals"].clear()
    assert not any(folder.exists() for folder in folders)
