"""The app's queue: one file at a time, each in a process of its own, nothing half written."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from graphs import gaussian, make_model, node, point_outside, save
from queues import finished

from quantstore import ingestion, queries, store
from quantstore.jobs import Job, Queue


@pytest.fixture
def queue():
    queue = Queue(probe=False)
    yield queue
    queue.cancel()


def demo(name: str) -> Path:
    return next(path for path in ingestion.demo_paths() if path.stem == name)


def add(queue: Queue, path: Path, store_path: Path, **more) -> int:
    return queue.add(path, store_path, name=path.name, source=f"upload {path.name}", **more)


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
    assert (done.state, done.model, done.layers) == ("done", "digits-plain", 6)
    assert done.share_done == 1.0
    assert again.was_stored
    while len(cleaned) < 3:  # an upload is removed right after its outcome is known
        time.sleep(0.01)
    assert sorted(cleaned) == ["bad.onnx", "digits-plain.onnx", "digits-plain.onnx"]
    with store.reading(store_path) as con:
        assert queries.model_names(con) == ["digits-plain"]
        assert queries.models(con)["source"].tolist() == ["upload digits-plain.onnx"]


def test_a_model_is_measured_again_under_its_own_name(queue, tmp_path):
    store_path, path = tmp_path / "s.duckdb", tmp_path / "net.onnx"
    path.write_bytes(demo("digits-plain").read_bytes())
    ingestion.ingest_file(path, store_path, ingestion.Choices(name="--mine", probe=False))
    path.write_bytes(demo("digits-separable").read_bytes())
    add(queue, path, store_path, replaces="--mine", fold=False)
    (job,) = finished(queue)
    assert (job.state, job.model, job.was_stored) == ("done", "--mine", False)
    with store.reading(store_path) as con:
        assert con.rows("select model, folded, layer_count from models") == [("--mine", False, 10)]


def test_cancelling_stops_what_runs_and_what_waits_and_stores_nothing(queue, tmp_path):
    store_path = tmp_path / "s.duckdb"
    for _ in range(3):
        add(queue, demo("digits-plain"), store_path)
    queue.cancel()
    assert {job.state for job in finished(queue)} == {"cancelled"}
    time.sleep(0.5)
    assert not store_path.exists()


def test_the_queue_works_again_after_a_cancel(queue, tmp_path):
    store_path = tmp_path / "s.duckdb"
    add(queue, demo("digits-plain"), store_path)
    queue.cancel()
    add(queue, demo("digits-rescaled"), store_path)
    assert [job.state for job in finished(queue)] == ["cancelled", "done"]


def test_a_file_that_vanished_is_a_sentence(queue, tmp_path):
    add(queue, tmp_path / "gone.onnx", tmp_path / "s.duckdb")
    (job,) = finished(queue)
    assert job.message == "does not exist; check the path"


def test_finished_jobs_stay_until_they_are_dismissed(queue, tmp_path):
    queue.refuse("notes.txt", "no .onnx file among the upload")
    assert [job.state for job in queue.snapshot()] == ["failed"]
    queue.dismiss_finished()
    assert queue.snapshot() == []


def test_names_with_control_characters_are_made_visible(queue):
    queue.refuse("a\x1b[31mb.onnx", "…")
    assert queue.snapshot()[0].name == "a\\x1b[31mb.onnx"


def test_progress_counts_bytes_not_layers():
    job = Job(1, "x", 10, "running", layers_done=9, layers_total=10, bytes_done=1, bytes_total=4)
    assert job.share_done == 0.25


def test_a_job_may_be_cancelled_and_dismissed_while_its_process_starts(
    queue, tmp_path, monkeypatch
):
    start = subprocess.Popen

    def impatient(*arguments, **options):
        monkeypatch.setattr(subprocess, "Popen", start)
        process = start(*arguments, **options)
        queue.cancel()
        queue.dismiss_finished()
        return process

    monkeypatch.setattr(subprocess, "Popen", impatient)
    add(queue, demo("digits-plain"), tmp_path / "s.duckdb")
    while queue.snapshot():
        time.sleep(0.005)
    add(queue, demo("digits-rescaled"), tmp_path / "s.duckdb")
    assert [job.state for job in finished(queue)] == ["done"]


@pytest.mark.slow
def test_what_a_library_prints_is_no_message(queue, tmp_path, monkeypatch):
    noisy = tmp_path / "sitecustomize.py"
    noisy.write_text("print('a library says hello', flush=True)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    add(queue, demo("digits-plain"), tmp_path / "s.duckdb")
    assert [job.state for job in finished(queue)] == ["done"]


@pytest.mark.slow
def test_a_bug_fails_one_file_and_the_queue_goes_on(queue, tmp_path, monkeypatch):
    run = queue._run
    monkeypatch.setattr(queue, "_run", lambda job_id, task: 1 / 0)
    add(queue, demo("digits-plain"), tmp_path / "s.duckdb")
    assert [job.state for job in finished(queue)] == ["failed"]
    monkeypatch.setattr(queue, "_run", run)
    add(queue, demo("digits-plain"), tmp_path / "s.duckdb")
    assert [job.state for job in finished(queue)] == ["failed", "done"]


@pytest.mark.slow
def test_a_file_in_the_working_folder_is_not_taken_for_a_library(queue, tmp_path, monkeypatch):
    (tmp_path / "onnx.py").write_text("raise SystemExit('not the library')")
    monkeypatch.chdir(tmp_path)
    add(queue, demo("digits-plain"), tmp_path / "s.duckdb")
    assert [job.state for job in finished(queue)] == ["done"]


def test_a_file_that_takes_for_ever_is_stopped(queue, tmp_path, monkeypatch):
    monkeypatch.setattr("quantstore.jobs.TIME_LIMIT_SECONDS", 0.01)
    add(queue, demo("digits-plain"), tmp_path / "s.duckdb")
    (job,) = finished(queue)
    assert job.state == "failed"
    assert job.message.startswith("not done after")
    assert not (tmp_path / "s.duckdb").exists()


WITH_LITTLE_MEMORY = """
import sys
from pathlib import Path
from quantstore import worker
pages = int(Path("/proc/self/statm").read_text().split()[0])
worker.MEMORY_SHARE, worker.LEAST_MEMORY_BYTES = 0, 4096 * pages + (512 << 20)
sys.exit(worker.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_file_that_takes_all_memory_is_a_sentence(tmp_path):
    model = make_model([node("MatMul", ["x", "w"], ["y"], "product")], {"w": gaussian(1, 1)})
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend([10 << 10, 1 << 14])
    point_outside(tensor, "w.bin")
    with (tmp_path / "w.bin").open("wb") as stream:
        # 640 MiB of nothing: a hole in the file.
        stream.truncate(640 << 20)
    path = save(model, tmp_path / "m.onnx")
    answer = subprocess.run(
        [sys.executable, "-c", WITH_LITTLE_MEMORY, str(tmp_path / "s.duckdb"), str(path), "test"],
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(answer.stdout.splitlines()[-1])["result"]
    assert result["outcome"] == "failed"
    assert result["error"].startswith("it needs more memory than there is")
