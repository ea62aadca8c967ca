"""Adding models in the sidebar: what becomes of uploads and of typed paths."""

import io
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from queues import finished

from quantstore import ingestion
from quantstore.jobs import Queue
from quantstore.pages import sidebar


class Upload(io.BytesIO):
    """What Streamlit hands over: a name and bytes."""

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__(content)
        self.name = name


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A queue of this test alone, its store, and a folder for what is uploaded."""
    monkeypatch.setenv("QUANTSTORE_DB", str(tmp_path / "s.duckdb"))
    (tmp_path / "uploads").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "uploads"))
    queue = Queue(probe=False)
    monkeypatch.setattr(sidebar, "QUEUE", queue)
    yield queue
    queue.cancel()


def is_soon_empty(folder: Path) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and list(folder.iterdir()):
        time.sleep(0.01)
    return not list(folder.iterdir())


PLAIN = next(path for path in ingestion.demo_paths() if path.stem == "digits-plain").read_bytes()


def test_an_upload_called_model_is_not_named_after_a_temporary_folder(queue, tmp_path):
    sidebar._queue_uploads([Upload("model.onnx", PLAIN)])
    assert [job.model for job in finished(queue)] == ["model"]
    assert is_soon_empty(tmp_path / "uploads")


@pytest.mark.parametrize("name", ["../../up.onnx", "..\\up.onnx", "/etc/up.onnx"])
def test_an_upload_stays_in_its_folder_whatever_it_is_called(queue, tmp_path, name):
    sidebar._queue_uploads([Upload(name, PLAIN)])
    assert [job.name for job in finished(queue)] == ["up.onnx"]
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.parametrize("name", ["..", "x" * 300 + ".onnx"])
def test_an_upload_that_no_file_can_be_called_is_refused(queue, tmp_path, name):
    sidebar._queue_uploads([Upload(name, PLAIN)])
    (job,) = queue.snapshot()
    assert job.message.startswith("cannot be copied: ")
    assert is_soon_empty(tmp_path / "uploads")


def test_two_files_of_one_name_do_not_overwrite_each_other(queue):
    sidebar._queue_uploads([Upload("a.onnx", PLAIN), Upload("a.onnx", b"other")])
    assert sorted(job.state for job in finished(queue)) == ["done", "failed"]


def test_data_without_a_model_is_refused_and_removed(queue, tmp_path):
    sidebar._queue_uploads([Upload("model.onnx.data", b"0")])
    assert queue.snapshot()[0].message.startswith("no .onnx file among the upload")
    assert is_soon_empty(tmp_path / "uploads")


@pytest.mark.parametrize("text", ["x" * 5000, "~nobody-of-this-name/x.onnx", "a\0b"])
def test_what_cannot_be_a_path_is_refused_in_words(queue, text):
    sidebar._queue_path(text)
    assert [job.state for job in finished(queue)] == ["failed"]
    assert len(queue.snapshot()[0].name) < 100


def test_a_path_that_leads_nowhere_is_shown_as_it_was_typed(queue, tmp_path):
    sidebar._queue_path(str(tmp_path / "gone.onnx"))
    assert [job.name for job in finished(queue)] == [str(tmp_path / "gone.onnx")]


def test_a_folder_brings_all_its_models(queue, tmp_path):
    for path in ingestion.demo_paths()[:2]:
        shutil.copy(path, tmp_path)
    sidebar._queue_path(str(tmp_path))
    assert [job.state for job in finished(queue)] == ["done", "done"]
