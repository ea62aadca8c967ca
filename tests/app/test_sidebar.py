"""Adding models in the sidebar: what becomes of uploads and of typed paths."""

import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from quantstore.app import sidebar, uploads
from quantstore.app.queue import FileQueue
from quantstore.app.widgets import reach, upload_box
from quantstore.pipeline.files import demo_paths
from tests.support.graphs import gaussian
from tests.support.queues import finished
from tests.support.visits import ROOT
from tests.support.weight_files import save_gguf_parts, save_parts


class Upload(io.BytesIO):
    """What Streamlit hands over: a name and bytes."""

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__(content)
        self.name = name
        self.size = len(content)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A queue of this test alone, its store, and a folder for what is uploaded."""
    monkeypatch.setenv("QUANTSTORE_DB", str(tmp_path / "s.duckdb"))
    (tmp_path / "uploads").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "uploads"))
    # What an earlier test left to the garbage collector is none of this one's.
    monkeypatch.setattr(uploads, "_live_bytes", 0)
    queue = FileQueue(probe=False)
    for module in (sidebar, upload_box):
        monkeypatch.setattr(module, "FILES", queue)
    yield queue
    queue.cancel_all()


def is_soon_empty(folder: Path) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and list(folder.iterdir()):
        time.sleep(0.01)
    return not list(folder.iterdir())


PLAIN, RESCALED = (
    next(path for path in demo_paths() if path.stem == name).read_bytes()
    for name in ("digits-plain", "digits-rescaled")
)


@pytest.mark.slow
def test_an_upload_called_model_is_not_named_after_a_temporary_folder(queue, tmp_path):
    upload_box.queue_uploads([Upload("model.onnx", PLAIN)])
    assert [job.result.model for job in finished(queue)] == ["model"]
    assert is_soon_empty(tmp_path / "uploads")


@pytest.mark.parametrize(
    "name",
    [
        "../../up.onnx",
        pytest.param("..\\up.onnx", marks=pytest.mark.slow),
        pytest.param("/etc/up.onnx", marks=pytest.mark.slow),
    ],
)
def test_an_upload_stays_in_its_folder_whatever_it_is_called(queue, tmp_path, name):
    upload_box.queue_uploads([Upload(name, PLAIN)])
    assert [job.name for job in finished(queue)] == ["up.onnx"]
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.parametrize("name", ["..", "x" * 300 + ".onnx"])
def test_an_upload_that_no_file_can_be_called_is_refused(queue, tmp_path, name):
    upload_box.queue_uploads([Upload(name, PLAIN)])
    (job,) = queue.snapshot()
    assert job.message.startswith("cannot be copied: ")
    assert is_soon_empty(tmp_path / "uploads")


def test_an_upload_is_nobody_elses_to_read(queue, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(queue, "add", lambda path, *_, **more: seen.append((path, more)))
    upload_box.queue_uploads([Upload("a.onnx", PLAIN)])
    (folder,) = (tmp_path / "uploads").iterdir()
    assert folder in seen[0][0].parents
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_uploads_together_have_a_limit_and_make_room_again(queue, tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "LARGEST_BYTES", len(PLAIN) + 10)
    upload_box.queue_uploads([Upload("a.onnx", PLAIN), Upload("b.onnx", PLAIN)])
    (job,) = queue.snapshot()
    assert job.message.startswith("cannot be copied: uploads under way may hold ")
    for name in ("c.onnx", "d.onnx"):
        upload_box.queue_uploads([Upload(name, PLAIN)])
        job = finished(queue)[-1]
        assert job.state == "done", job.message
        assert is_soon_empty(tmp_path / "uploads")


def test_an_upload_that_is_cancelled_is_removed(queue, tmp_path):
    upload_box.queue_uploads([Upload("a.onnx", PLAIN), Upload("b.onnx", PLAIN)])
    queue.cancel_all()
    assert is_soon_empty(tmp_path / "uploads")


def test_what_a_killed_server_left_is_removed_and_what_a_living_one_uses_is_not(queue, tmp_path):
    script = (
        "import os, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from quantstore.app.uploads import Upload\n"
        "upload = Upload(1); upload.folder.mkdir(); (upload.folder / 'a.onnx').touch()\n"
        "os.kill(os.getpid(), 9)"
    )
    folder = tmp_path / "uploads"
    subprocess.run([sys.executable, "-c", script, folder], check=False)
    (leftover,) = folder.iterdir()
    living = uploads.Upload(1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / f"{uploads.PREFIX}link").symlink_to(elsewhere)
    assert uploads.remove_leftovers() == [leftover]
    assert not leftover.exists()
    assert living.folder.parent.exists()
    assert elsewhere.exists()
    living.remove()
    assert not living.folder.parent.exists()


@pytest.mark.slow
def test_two_models_of_one_name_are_told_apart_by_their_content(queue):
    """As on the command line, where they lie in different folders."""
    upload_box.queue_uploads([Upload("model.onnx", PLAIN), Upload("model.onnx", RESCALED)])
    names = [job.result.model for job in finished(queue)]
    assert names[0] == "model"
    assert re.fullmatch("model-[0-9a-f]{8}", names[1])


def test_nothing_guesses_to_which_of_two_models_data_belongs(queue, tmp_path):
    a_model, data = Upload("a.onnx", PLAIN), Upload("a.data", b"0")
    upload_box.queue_uploads([a_model, Upload("a.onnx", RESCALED), data])
    assert [job.message for job in finished(queue)] == [upload_box.TWO_OF_A_NAME]
    assert is_soon_empty(tmp_path / "uploads")
    queue.dismiss_finished()
    assert upload_box.copied([Upload("b.data", b"0"), Upload("b.data", b"1")], tmp_path / "x") == []
    assert [job.message for job in finished(queue)] == [upload_box.TWO_DATA_FILES]


def test_an_archive_is_refused_with_what_to_do(queue, tmp_path):
    upload_box.queue_uploads([Upload("models.zip", b"PK")])
    assert [job.message for job in finished(queue)] == [upload_box.IS_AN_ARCHIVE]
    assert is_soon_empty(tmp_path / "uploads")


def test_data_without_a_model_is_refused_and_removed(queue, tmp_path):
    upload_box.queue_uploads([Upload("model.onnx.data", b"0")])
    assert queue.snapshot()[0].message == upload_box.NO_MODEL_IN_UPLOAD
    assert is_soon_empty(tmp_path / "uploads")


@pytest.mark.parametrize("text", ["x" * 5000, "~nobody-of-this-name/x.onnx", "a\0b"])
def test_what_cannot_be_a_path_is_refused_in_words(queue, text):
    sidebar._queue_path(text)
    assert [job.state for job in finished(queue)] == ["failed"]
    assert len(queue.snapshot()[0].name) < 100


@pytest.mark.slow
def test_a_path_that_leads_nowhere_is_shown_as_it_was_typed(queue, tmp_path):
    sidebar._queue_path(str(tmp_path / "gone.onnx"))
    assert [job.name for job in finished(queue)] == [str(tmp_path / "gone.onnx")]


@pytest.mark.slow
def test_a_folder_brings_all_its_models(queue, tmp_path):
    for path in demo_paths()[:2]:
        shutil.copy(path, tmp_path)
    sidebar._queue_path(str(tmp_path))
    assert [job.state for job in finished(queue)] == ["done", "done"]


# Who can reach the app.

LOCAL = {"server.address": "127.0.0.1", "server.allowedHosts": ["localhost", "127.0.0.1"]}


@pytest.mark.parametrize(
    ("options", "is_local"),
    [
        ({}, True),
        ({"server.address": "localhost"}, True),
        ({"server.address": "::1"}, True),
        ({"server.address": "127.8.8.8"}, True),
        ({"server.address": None}, False),
        ({"server.address": "0.0.0.0"}, False),
        ({"server.address": "::"}, False),
        ({"server.address": "192.168.1.7"}, False),
        ({"server.address": "quant.example.org"}, False),
        ({"server.allowedHosts": []}, False),
        ({"server.allowedHosts": ["localhost", "quant.example.org"]}, False),
    ],
)
def test_paths_may_be_given_only_where_nobody_else_can_ask(monkeypatch, options, is_local):
    monkeypatch.setattr(reach.st, "get_option", {**LOCAL, **options}.__getitem__)
    assert reach.is_this_computer_only() is is_local


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_the_box_for_paths_is_there_on_this_computer_only_and_its_absence_explained(
    monkeypatch, tmp_path, address
):
    monkeypatch.setenv("QUANTSTORE_DB", str(tmp_path / "s.duckdb"))
    get_option = st.get_option
    monkeypatch.setattr(
        st,
        "get_option",
        lambda name: (LOCAL | {"server.address": address}).get(name) or get_option(name),
    )
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30).run()
    assert not app.exception
    is_local = address == "127.0.0.1"
    assert [box.placeholder for box in app.sidebar.text_input] == (
        [sidebar.PATH_PLACEHOLDER] if is_local else []
    )
    explained = sidebar.PATHS_ARE_OFF in [one.value for one in app.sidebar.caption]
    assert explained is not is_local
    command = f"quantstore --db {tmp_path / 's.duckdb'} ingest FILE"
    assert [one.value for one in app.sidebar.code] == ([] if is_local else [command])
    hint = app.sidebar.caption[0].value
    assert hint.endswith(upload_box.DATA_FILES_TOO)
    assert (upload_box.for_larger_files(200) in hint) is is_local


@pytest.mark.parametrize("make", [save_parts, lambda *made: save_gguf_parts(*made)[0]])
def test_the_parts_of_a_model_are_one_job_with_what_stands_for_all(tmp_path, make):
    whole = make(tmp_path, {f"h.{n}.weight": gaussian(4, 5, seed=n) for n in range(5)})
    files = [Upload(path.name, path.read_bytes()) for path in sorted(tmp_path.iterdir())]
    folder = tmp_path / "upload"
    assert upload_box.copied(files, folder) == [folder / whole.name]
    assert len(list(folder.iterdir())) == 3
