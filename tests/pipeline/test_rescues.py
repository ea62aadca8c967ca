"""A rescue from start to store: all of its files and its row, or nothing at all."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quantstore import store
from quantstore.errors import CancelledError, InputsError, LockedStoreError, QuantstoreError
from quantstore.pipeline import rescues
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.rescues import OTHER_FOLDER, RescueChoices
from quantstore.run.inputs import changed, preset
from quantstore.run.runtime import CRASHED
from quantstore.settings import waiting_at_most
from tests.support import fake_rescue

MODEL = next(path for path in demo_paths() if path.stem == "digits-plain")
NAMES = sorted(fake_rescue.FILES.values())


@pytest.fixture
def path(demo_store, tmp_path, monkeypatch):
    """A store that holds the model; children have a rescue that takes no time."""
    fake_rescue.install(tmp_path / "in-the-child", monkeypatch)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return Path(shutil.copy(demo_store, tmp_path / "store.duckdb"))


def choices(output="out", **changes):
    return RescueChoices(target="int8_channel", output=output, **changes)


def rows(path, question="select path from rescue_files order by path"):
    with store.reading(path) as con:
        return [row[0] for row in con.rows(question)]


def left_behind():
    """Every file and folder below the working folder."""
    return sorted(str(found.relative_to(Path.cwd())) for found in Path().absolute().rglob("*"))


def wait_for_progress(running):
    while running.progress is None and not running.is_over():
        time.sleep(0.01)


@pytest.mark.slow
def test_files_are_where_they_were_asked_for_and_so_say_the_rows(path):
    seen = []
    done = rescues.run(MODEL, path, "photos", choices(), seen.append)
    assert (done.model, done.was_ingested) == ("digits-plain", False)
    assert left_behind() == ["out", *(f"out/{name}" for name in NAMES)]
    expected = [str(Path("out", name).absolute()) for name in NAMES]
    assert rows(path) == sorted(file.path for file in done.rescue.record.files) == expected
    assert rows(path, "select rescue_id from rescues") == [done.rescue_id]
    assert seen
    assert seen[-1].stage == "writing files"
    assert 0 < seen[-1].budget_left_s <= choices().budget_seconds


@pytest.mark.slow
def test_what_was_chosen_reaches_the_child(path):
    size = changed(preset("imagenet"), size=(480, 640))
    done = rescues.run(
        MODEL, path, "photos", choices(None, allow=("ranges", "float"), preprocess=size)
    )
    assert done.rescue.record.notes == (str(size),)
    assert done.rescue.record.allowed == ("ranges", "float")


@pytest.mark.slow
def test_without_an_output_no_file_is_kept(path):
    done = rescues.run(MODEL, path, "photos", choices(None))
    assert (done.rescue.record.files, rows(path), left_behind()) == ((), [], [])
    assert len(rows(path, "select rescue_id from rescues")) == 1


@pytest.mark.slow
def test_a_model_that_is_not_stored_is_ingested(path):
    with store.writing(path) as con:
        store.remove_model(con, store.find_model(con, "digits-plain"))
    assert rescues.run(MODEL, path, "photos", choices()).was_ingested
    assert rows(path, "select model from rescues join models using (model_id)") == ["digits-plain"]


@pytest.mark.slow
def test_another_rescue_takes_the_place_of_the_files_and_leaves_the_others(path):
    Path("out").mkdir()
    Path("out", "notes.txt").write_text("mine")
    rescues.run(MODEL, path, "photos", choices())
    rescues.run(MODEL, path, "photos", RescueChoices(target="int8_tensor", output="out"))
    assert Path("out", "exclude.txt").read_text() == "exclude for int8_tensor"
    assert left_behind() == ["out", *sorted(f"out/{name}" for name in (*NAMES, "notes.txt"))]


@pytest.mark.slow
def test_a_cancelled_rescue_leaves_no_file_and_no_row(path):
    running = rescues.start(MODEL, path, "hang", choices("new/out"))
    wait_for_progress(running)
    running.cancel()
    with pytest.raises(CancelledError):
        running.wait()
    assert (left_behind(), rows(path, "select rescue_id from rescues")) == ([], [])


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        ("full", "the disk is full; free some room"),
        pytest.param("crash", CRASHED, marks=pytest.mark.slow),
        pytest.param("killed", "there is not enough memory for the rescue", marks=pytest.mark.slow),
        pytest.param("bug", "the rescue failed: ZeroDivisionError", marks=pytest.mark.slow),
        pytest.param("wrong", "there is no such folder: nowhere; check", marks=pytest.mark.slow),
    ],
)
def test_a_trouble_is_a_sentence_and_leaves_no_file_and_no_row(path, trouble, sentence):
    with pytest.raises(QuantstoreError) as caught:
        rescues.run(MODEL, path, trouble, choices())
    assert caught.value.sentence.startswith(sentence)
    assert isinstance(caught.value, InputsError) == (trouble == "wrong")
    assert (left_behind(), rows(path, "select rescue_id from rescues")) == ([], [])


@pytest.mark.slow
def test_a_store_that_others_hold_gets_no_row_and_the_folder_no_file(path):
    Path("out").mkdir()
    Path("out", "exclude.txt").write_text("of before")
    running = None
    with store.writing(path), waiting_at_most(0):
        running = rescues.start(MODEL, path, "photos", choices())
        with pytest.raises(LockedStoreError):
            running.wait()
    assert left_behind() == ["out", "out/exclude.txt"]


@pytest.mark.slow
def test_a_row_that_cannot_be_written_takes_the_files_back(path, monkeypatch):
    """Also those that were replaced stand there again."""
    Path("out").mkdir()
    Path("out", "exclude.txt").write_text("of before")

    def fail(*_):
        raise QuantstoreError("no row")

    monkeypatch.setattr(store, "add_rescue", fail)
    with pytest.raises(QuantstoreError, match="no row"):
        rescues.run(MODEL, path, "photos", choices())
    assert left_behind() == ["out", "out/exclude.txt"]
    assert Path("out", "exclude.txt").read_text() == "of before"


@pytest.mark.slow
def test_a_file_that_cannot_be_moved_takes_the_others_back(path):
    # A folder stands where a file belongs.
    Path("out", "exclude.txt").mkdir(parents=True)
    with pytest.raises(QuantstoreError, match="cannot write to") as caught:
        rescues.run(MODEL, path, "photos", choices())
    assert caught.value.hint == OTHER_FOLDER
    assert left_behind() == ["out", "out/exclude.txt"]
    assert rows(path, "select rescue_id from rescues") == []


@pytest.mark.parametrize("output", ["taken", "taken/out"])
def test_an_output_that_is_no_folder_is_refused_before_anything_is_searched(path, output):
    Path("taken").write_text("a file")
    running = rescues.start(MODEL, path, "hang", choices(output))
    with pytest.raises(QuantstoreError, match="taken is a file") as caught:
        running.wait()
    assert running.progress is None
    assert caught.value.hint == OTHER_FOLDER


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_one_may_not_write_to_is_refused_before_anything_is_searched(path):
    Path("closed").mkdir(mode=0o500)
    with pytest.raises(QuantstoreError, match=r"cannot write to .*closed"):
        rescues.run(MODEL, path, "hang", choices("closed"))


def test_a_temporary_folder_that_cannot_be_made_is_refused(path, monkeypatch):
    monkeypatch.setattr(rescues.tempfile, "mkdtemp", lambda *_: fake_rescue.full())
    with pytest.raises(QuantstoreError, match=r"cannot write to .*: No space left"):
        rescues.run(MODEL, path, "hang", choices())
    assert left_behind() == []


INTERRUPTED = """
import os, signal, sys, threading, time
from pathlib import Path
from quantstore.pipeline import rescues
from quantstore.rescuing.choices import RescueChoices

choices = RescueChoices(target="int8_channel", output="out")
running = rescues.start(Path({model!r}), Path({store!r}), "hang", choices)
# The first file comes some time after the first word of progress.
while running.progress is None or not list(Path().glob(".unfinished-*/*")):
    assert not running.is_over()
    time.sleep(0.01)
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
running.wait()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_whoever_presses_ctrl_c_finds_nothing(path):
    program = INTERRUPTED.format(model=str(MODEL), store=str(path))
    temporary = path.with_name("temporary")
    temporary.mkdir()
    environment = os.environ | {
        "TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join((os.environ["PYTHONPATH"], *filter(None, sys.path))),
    }
    process = subprocess.run(
        [sys.executable, "-c", program],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "KeyboardInterrupt" in process.stderr
    assert process.returncode in (1, 130, -signal.SIGINT), process.stderr
    assert list(temporary.iterdir()) == []
    assert (left_behind(), rows(path, "select rescue_id from rescues")) == ([], [])


def test_a_file_counts_as_there_with_this_very_content_alone(tmp_path):
    file = tmp_path / "net.rescued.onnx"
    file.write_bytes(b"as written")
    sha256 = hashlib.sha256(b"as written").hexdigest()
    assert rescues.state_of_file(str(file), sha256, 10) == "there"
    file.write_bytes(b"As written")
    os.utime(file, ns=(1, 1))
    assert rescues.state_of_file(str(file), sha256, 10) == "changed"
    file.write_bytes(b"longer than it was")
    assert rescues.state_of_file(str(file), sha256, 10) == "changed"
    file.unlink()
    for gone in (file, tmp_path, "/dev/zero", "a\0b", "x" * 5000):
        assert rescues.state_of_file(str(gone), sha256, 10) == "gone"
