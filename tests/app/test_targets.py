"""The section on targets: every target with its value, and the button that measures the others."""

import json
import shutil
from pathlib import Path

import pytest

from quantstore import queries, store
from quantstore.app.queue import RUNS, Job, RunQueue
from quantstore.app.sections import run_form, targets
from quantstore.app.widgets import model_files
from quantstore.process.queue import UNFORESEEN
from quantstore.records import NOTHING_ROUNDED
from quantstore.run.choices import Progress
from quantstore.schemes import TARGETS
from quantstore.wording.targets import MOST_NAMES, NOT_MEASURED
from tests.support.queues import finished
from tests.support.runs import a_run, a_tensor, add
from tests.support.visits import fails, said

MODEL = "digits-plain"
STOPPED = "stopped after 60 s of CPU time"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def path(demo_store, tmp_path):
    """The demo models, none of which was run: to add to."""
    return Path(shutil.copy(demo_store, tmp_path / "own.duckdb"))


@pytest.fixture
def on_loopback(monkeypatch):
    monkeypatch.setattr(run_form, "is_offered", lambda: True)


@pytest.fixture
def asked(monkeypatch):
    """What is asked of the queue, instead of being run."""
    asked = []
    monkeypatch.setattr(
        RunQueue, "add_probe", lambda _, *arguments, **_more: asked.append(arguments)
    )
    return asked


def a_figure(target, db=40.0, **changes):
    scheme = TARGETS[target].scheme.name
    return a_run(db, scheme, TARGETS[target].mode, target=target, **changes)


def put(path, *figures):
    with store.writing(path) as con:
        for figure in figures:
            add(con, MODEL, figure)


def table_of(app):
    for component in app.get("bidi_component"):
        table = json.loads(component.proto.json or "null")
        if table and table.get("columns", [{}])[0].get("title") == "target":
            return {row["key"]: row["cells"] for row in table["rows"]}
    return None


def button(app):
    return next((button for button in app.button if button.key == "measure_targets"), None)


@pytest.mark.slow
def test_every_target_has_a_row_and_what_is_measured_its_value(open_app, path):
    put(path, a_figure("int8_channel", 33.9), a_figure("int8_dynamic", None, failure=STOPPED))
    app = open_app(path, "model", model=MODEL)
    assert fails(app) == []
    table = table_of(app)
    assert list(table) == list(TARGETS)
    assert table["int8_channel"][1] == {"band": "fine", "small": "33.9\u00a0dB"}
    assert table["int8_tensor"][1] == {"text": NOT_MEASURED}
    assert table["int8_dynamic"][1] == {"text": NOT_MEASURED}
    assert table["int8_dynamic"][0]["note"] == f"Not measured: {STOPPED}."
    for name, (cell, _) in table.items():
        assert (cell["text"], cell["small"]) == (name, TARGETS[name].description)


@pytest.mark.slow
def test_what_stayed_in_float_is_said_beside_the_value_and_named_once(open_app, path):
    names = (HOSTILE, *(f"/rnn/LSTM_{number}" for number in range(20)))
    put(
        path,
        a_figure("int8_tensor", float_layers=names),
        a_figure("int8_channel", float_layers=names),
        a_figure("int8_dynamic", float_layers=("If_0",)),
    )
    table = table_of(open_app(path, "model", model=MODEL))
    first, again, other = (
        table[name][0]["note"].replace("\u00a0", " ")
        for name in ("int8_tensor", "int8_channel", "int8_dynamic")
    )
    assert first.startswith(f"21 layers stayed in float: {HOSTILE}, /rnn/LSTM_0")
    assert first.endswith(f" and {21 - MOST_NAMES} more.")
    assert again == "The same 21 layers stayed in float."
    assert other == "1 layer stayed in float: If_0."


@pytest.mark.slow
def test_the_button_asks_for_what_is_missing(open_app, path, asked, on_loopback):
    put(
        path,
        a_figure("int8_channel"),
        a_figure("int8_tensor", None, failure=STOPPED),
        a_figure("int8_weights", None, failure=NOTHING_ROUNDED[1]),
    )
    app = open_app(path, "model", model=MODEL)
    assert button(app).label == targets.MEASURE_OTHERS
    button(app).click().run()
    assert fails(app) == []
    missing = [name for name in TARGETS if name not in ("int8_channel", "int8_weights")]
    assert asked == [(MODEL, path, missing)]


@pytest.mark.slow
def test_where_only_reasons_are_left_they_are_tried_again(open_app, path, asked, on_loopback):
    put(path, *(a_figure(name) for name in TARGETS if name != "int4_weights"))
    put(path, a_figure("int4_weights", None, failure=STOPPED))
    app = open_app(path, "model", model=MODEL)
    assert button(app).label == targets.MEASURE_AGAIN
    put(path, a_figure("int4_weights", 14.0, minute=1))
    app.run()
    assert button(app) is None
    assert "quantstore probe" not in said(app)


@pytest.mark.slow
def test_from_elsewhere_a_command_is_shown(open_app, path, monkeypatch):
    monkeypatch.setattr(run_form, "is_offered", lambda: False)
    app = open_app(path, "model", model=MODEL)
    assert button(app) is None
    assert targets.FROM_A_TERMINAL in said(app)
    assert app.code[0].value == f"quantstore --db {path} probe FILE --target all"


@pytest.mark.slow
def test_without_the_file_it_can_be_chosen_again(open_app, path, on_loopback):
    with store.writing(path) as con:
        con.rows("update models set source = 'upload a.onnx'")
    app = open_app(path, "model", model=MODEL)
    assert button(app) is None
    assert targets.NO_FILE in said(app)
    assert model_files.CHOOSE_AGAIN in [box.label for box in app.get("file_uploader")]


@pytest.mark.slow
def test_a_job_is_shown_with_its_progress_and_can_be_cancelled(
    open_app, path, monkeypatch, on_loopback
):
    jobs = [
        Job(1, MODEL, "6 targets, noise", "running", Progress("measuring targets", 2, 6)),
        Job(2, "digits-rescaled", "6 targets, noise", "waiting"),
        Job(3, MODEL, "both, noise", "waiting"),
    ]
    cancelled = []
    monkeypatch.setattr(RunQueue, "snapshot", lambda _: list(jobs))
    monkeypatch.setattr(RunQueue, "cancel", lambda _, job_id: cancelled.append(job_id))
    monkeypatch.setattr(RUNS, "_work_of", {1: "probe", 2: "probe"})
    app = open_app(path, "model", model=MODEL)
    assert fails(app) == []
    assert "measuring targets 2 of 6" in said(app)
    # Others have pages of their own.
    assert [b.key for b in app.button if b.label == "Cancel"] == ["cancel_run_1"]
    assert button(app) is None
    app.button(key="cancel_run_1").click().run()
    assert cancelled == [1]


@pytest.mark.slow
def test_a_job_that_failed_says_why_and_may_be_asked_for_again(
    open_app, path, monkeypatch, on_loopback
):
    job = Job(1, MODEL, "6 targets, noise", "failed", message=UNFORESEEN)
    monkeypatch.setattr(RunQueue, "snapshot", lambda _: [job])
    monkeypatch.setattr(RUNS, "_work_of", {1: "probe"})
    app = open_app(path, "model", model=MODEL)
    assert f"failed: {UNFORESEEN}" in said(app)
    assert button(app)


@pytest.mark.slow
def test_the_queue_measures_targets_and_stores_them(path):
    queue = RunQueue()
    job_id = queue.add_probe(MODEL, path, ["int8_dynamic"])
    (job,) = finished(queue)
    assert (job.job_id, job.state, job.name, job.description) == (
        *(job_id, "done", MODEL),
        "1 target, noise",
    )
    assert queue.work_of(job) == "probe"
    assert job.result.is_complete
    with store.reading(path) as con:
        assert queries.model_targets(con, MODEL)["target"].tolist() == ["int8_dynamic"]


@pytest.mark.slow
def test_the_page_of_a_run_says_what_stayed_in_float(open_app, path):
    figure = a_figure("int8_channel", 20.0, source="12 images", float_layers=("<b>LSTM</b>",))
    with store.writing(path) as con:
        key = add(con, MODEL, figure, [a_tensor(0, 55), a_tensor(1, 20)])
        other = add(con, MODEL, a_figure("int8_channel", source="3 images"), [a_tensor(0, 55)])
    app = open_app(path, "drift", runs=[str(key)])
    assert fails(app) == []
    assert "1 layer stayed in float: <b>LSTM</b>." in said(app)
    app = open_app(path, "drift", runs=[str(other)])
    assert "stayed in float" not in said(app)
    app = open_app(path, "drift", runs=[str(key), str(other)])
    assert "12 images: 1 layer stayed in float" in said(app)
