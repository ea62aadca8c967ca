"""What the command that starts the app was told reaches its pages and the processes they start."""

import threading

import pytest

from quantstore import settings, store
from quantstore.errors import LockedStoreError, QuantstoreError
from quantstore.pipeline import ingest_child
from quantstore.pipeline.outcome import IngestChoices
from quantstore.process import logs
from tests.support.graphs import gaussian, make_model, node, save


@pytest.mark.parametrize(("told", "page", "process"), [(None, 10, 30), ("0", 0, 0), ("60", 10, 60)])
def test_a_page_waits_ten_seconds_or_less(monkeypatch, told, page, process):
    if told is not None:
        monkeypatch.setenv(settings.WAIT_VARIABLE, told)
    waits = []

    def look():
        waits.extend((settings.patience_seconds(), settings.wait_seconds()))

    # Pages run in threads of their own, which know nothing of the one that began.
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert waits == [page, process]


def test_what_a_block_says_comes_before_what_the_app_was_told(monkeypatch):
    monkeypatch.setenv(settings.WAIT_VARIABLE, "60")
    with settings.waiting_at_most(2):
        assert settings.wait_seconds() == 2
    assert settings.wait_seconds() == 60


@pytest.mark.parametrize("told", ["soon", "-1", "nan", ""])
def test_seconds_that_are_none_are_a_sentence(monkeypatch, told):
    monkeypatch.setenv(settings.WAIT_VARIABLE, told)
    with pytest.raises(QuantstoreError, match=f"QUANTSTORE_WAIT must be .*, not '{told}'"):
        settings.wait_seconds()


def test_where_to_log_is_handed_down(monkeypatch, tmp_path):
    assert logs.handed_down() == logs.NOWHERE
    for name in (logs.FILE_VARIABLE, logs.STDERR_VARIABLE):
        # Taken away again after the test, although the code under test sets it.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    where = logs.Logging(to_stderr=True, file=tmp_path / "steps.log")
    with logs.logging_to(where):
        logs.hand_down()
    assert logs.handed_down() == where


@pytest.mark.slow
def test_the_process_that_ingests_for_the_app_logs_and_waits_as_it_was_told(tmp_path, monkeypatch):
    weights = {"w": gaussian(4, 3, 3, 3)}
    model = make_model([node("Conv", ["x", "w"], ["y"])], weights)
    file = save(model, tmp_path / "model.onnx")
    path = tmp_path / "store.duckdb"
    monkeypatch.setenv(logs.FILE_VARIABLE, str(tmp_path / "steps.log"))
    monkeypatch.setenv(settings.WAIT_VARIABLE, "0")
    choices = IngestChoices(source="upload", probe=False)
    ingest_child.start(file, path, choices).wait()
    assert "opened " in (tmp_path / "steps.log").read_text("utf-8")
    with store.writing(path), pytest.raises(LockedStoreError):
        ingest_child.start(file, path, choices).wait()
