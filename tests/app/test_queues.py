"""The app's queue: one file at a time, each in a process of its own, nothing half written."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from quantstore import queries, store
from quantstore.app.queue import FileQueue, RunQueue
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import LARGER_MACHINE, OUT_OF_MEMORY, IngestChoices, IngestProgress
from quantstore.process import limits
from quantstore.process.queue import UNFORESEEN, Job
from tests.support.graphs import gaussian, make_model, node, point_outside, save
from tests.support.queues import finished


@pytest.fixture
def queue():
    queue = FileQueue(probe=False)
    yield queue
    queue.cancel_all()


def demo(name: str) -> Path:
    return next(path for path in demo_paths() if path.stem == name)


def add(queue: FileQueue, path: Path, store_path: Path, **more) -> int:
    return queue.add(path, store_path, name=path.name, source=f"upload {path.name}", **more)


@pytest.mark.slow
def test_good_and_bad_files_each_get_their_outcome_and_the_rest_goes_on(queue, tmp_path):
    store_path = tmp_path / "s.duckdb"
    bad = tmp_path / "bad.onnx"
    bad.write_text("no model")
    cleaned: list[str] = []
    for path in (bad, demo("digits-plain"), demo("digits-plain")):
        add(queue, path, store_path, when_finished=lambda name=path.name: cleaned.append(name))
    failed, done, again = finished(queue)

    assert failed.state == "failed"
    assert failed.message.startswith("not an ONNX file")
    assert (done.state, done.result.model, done.result.layers) == ("done", "digits-plain", 6)
    assert done.share_done == 1.0
    assert again.result.outcome == "already stored"
    while len(cleaned) < 3:  # an upload is removed right after its outcome is known
        time.sleep(0.01)
    assert sorted(cleaned) == ["bad.onnx", "digits-plain.onnx", "digits-plain.onnx"]
    with store.reading(store_path) as con:
        assert queries.model_names(con) == ["digits-plain"]
        assert queries.models(con)["source"].tolist() == ["upload digits-plain.onnx"]


@pytest.mark.slow
def test_a_model_is_measured_again_under_its_own_name(queue, tmp_path):
    store_path, path = tmp_path / "s.duckdb", tmp_path / "net.onnx"
    path.write_bytes(demo("digits-plain").read_bytes())
    ingest_file(path, store_path, IngestChoices(name="--mine", probe=False))
    path.write_bytes(demo("digits-separable").read_bytes())
    add(queue, path, store_path, replaces="--mine", fold=False)
    (job,) = finished(queue)
    assert (job.state, job.result.model, job.result.outcome) == ("done", "--mine", "replaced")
    with store.reading(store_path) as con:
        assert con.rows("select model, folded, layer_count from models") == [("--mine", False, 10)]


def test_cancelling_stops_what_runs_and_what_waits_and_stores_nothing(queue, tmp_path):
    store_path = tmp_path / "s.duckdb"
    for _ in range(3):
        add(queue, demo("digits-plain"), store_path)
    queue.cancel_all()
    assert {job.state for job in finished(queue)} == {"cancelled"}
    time.sleep(0.5)
    assert not store_path.exists()


@pytest.mark.slow
def test_the_queue_works_again_after_a_cancel(queue, tmp_path):
    store_path = tmp_path / "s.duckdb"
    add(queue, demo("digits-plain"), store_path)
    queue.cancel_all()
    add(queue, demo("digits-rescaled"), store_path)
    assert [job.state for job in finished(queue)] == ["cancelled", "done"]


@pytest.mark.slow
def test_a_file_that_vanished_is_a_sentence(queue, tmp_path):
    add(queue, tmp_path / "gone.onnx", tmp_path / "s.duckdb")
    (job,) = finished(queue)
    assert job.message == "does not exist; check the path"


def test_progress_counts_bytes_not_layers():
    progress = IngestProgress(9, 10, 1, 4)
    job = Job(1, "x", "10 B", "running", progress)
    assert job.share_done == 0.25


@pytest.mark.slow
def test_a_job_may_be_cancelled_and_dismissed_while_its_process_starts(
    queue, tmp_path, monkeypatch
):
    start = subprocess.Popen

    def impatient(*arguments, **options):
        monkeypatch.setattr(subprocess, "Popen", start)
        process = start(*arguments, **options)
        queue.cancel_all()
        queue.dismiss_finished()
        return process

    monkeypatch.setattr(subprocess, "Popen", impatient)
    add(queue, demo("digits-plain"), tmp_path / "s.duckdb")
    while queue.snapshot():
        time.sleep(0.005)
    add(queue, demo("digits-rescaled"), tmp_path / "s.duckdb")
    assert [job.state for job in finished(queue)] == ["done"]


@pytest.mark.slow
def test_a_bug_in_the_child_fails_one_file_and_the_queue_goes_on(queue, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfrom quantstore.pipeline import ingest\n"
        "def ingest_file(*arguments):\n    return 1 / 0\ningest.ingest_file = ingest_file"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    add(queue, demo("digits-plain"), tmp_path / "s.duckdb")
    assert [job.message for job in finished(queue)] == [UNFORESEEN]
    monkeypatch.delenv("PYTHONPATH")
    add(queue, demo("digits-plain"), tmp_path / "s.duckdb")
    assert [job.state for job in finished(queue)] == ["failed", "done"]


@pytest.mark.slow
def test_a_file_in_the_working_folder_is_not_taken_for_a_library(queue, tmp_path, monkeypatch):
    (tmp_path / "onnx.py").write_text("raise SystemExit('not the library')")
    monkeypatch.chdir(tmp_path)
    add(queue, demo("digits-plain"), tmp_path / "s.duckdb")
    assert [job.state for job in finished(queue)] == ["done"]


@pytest.mark.slow
def test_a_file_that_takes_for_ever_is_stopped(queue, tmp_path, monkeypatch):
    monkeypatch.setattr("quantstore.pipeline.ingest_child.TIME_LIMIT_SECONDS", 0.01)
    add(queue, demo("digits-plain"), tmp_path / "s.duckdb")
    (job,) = finished(queue)
    assert job.state == "failed"
    assert job.message.startswith("not done after")
    assert not (tmp_path / "s.duckdb").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_file_that_takes_all_memory_is_a_sentence(queue, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "memory_bytes", lambda: 768 << 20)
    model = make_model([node("MatMul", ["x", "w"], ["y"], "product")], {"w": gaussian(1, 1)})
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend([16 << 10, 1 << 14])
    point_outside(tensor, "w.bin")
    with (tmp_path / "w.bin").open("wb") as stream:
        # A gigabyte of nothing: a hole in the file.
        stream.truncate(1 << 30)
    add(queue, save(model, tmp_path / "m.onnx"), tmp_path / "s.duckdb")
    (job,) = finished(queue)
    assert job.message == f"{OUT_OF_MEMORY}; {LARGER_MACHINE}"


def test_a_run_is_started_with_what_was_chosen():
    asked = []

    class Over:
        progress = None

        def cancel(self):
            """Nothing to end."""

        def wait(self):
            return "done"

    queue = RunQueue(lambda *arguments: asked.append(arguments) or Over())
    queue.add(
        Path("tiny.onnx"),
        Path("s.duckdb"),
        "noise",
        {"mode": "both"},
        name="tiny",
        description="int8, both, noise",
    )
    (job,) = finished(queue)
    assert (job.description, job.result) == ("int8, both, noise", "done")
    assert asked == [(Path("tiny.onnx"), Path("s.duckdb"), "noise", {"mode": "both"})]
