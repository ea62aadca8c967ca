"""Many files into one store: workers that know none, one writer, and what becomes of the dead."""

import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

import quantstore
from quantstore import store
from quantstore.errors import QuantstoreError
from quantstore.pipeline import fleet, ingest, outcome, worker
from quantstore.pipeline.outcome import (
    CRASHED,
    Attempt,
    IngestChoices,
    IngestResult,
    Refusal,
    StoredContent,
)
from quantstore.store import copies
from quantstore.version import __version__
from tests.support.graphs import conv_model, gaussian, save
from tests.support.workers import (
    DEADLY,
    LossyExecutor,
    WatchedExecutor,
    begin_process_that_dies,
)

# What running a model finds is told in test_probe.py.
CHOICES = IngestChoices(probe=False)


@pytest.fixture
def path(tmp_path, empty_store):
    return Path(shutil.copy(empty_store, tmp_path / "test.duckdb"))


@pytest.fixture
def names(path):
    def model_names():
        with store.reading(path) as connection:
            return [row[0] for row in connection.rows("select model from models order by model")]

    return model_names


def model_file(path, seed=0):
    return save(conv_model(gaussian(4, 3, 3, 3, seed=seed)), path)


def model_files(folder, count):
    return [model_file(folder / f"net{seed}.onnx", seed) for seed in range(count)]


def broken_file(path):
    path.write_text("This is no model.")
    return path


def outcomes(results):
    return {Path(result.path).stem: result.outcome for result in results}


def ingest_many(files, path, executor, choices=CHOICES):
    with executor:
        return list(fleet.ingest_many(files, path, choices, executor=executor))


# --- what a worker does ------------------------------------------------------------------------


def test_a_worker_returns_what_is_wrong_with_a_file(tmp_path):
    refusal = worker.work_on(broken_file(tmp_path / "text.onnx"), CHOICES, b"", __version__)
    assert isinstance(refusal, Refusal)
    assert refusal.sentence.startswith("not an ONNX file")
    assert refusal.traceback == ""


def test_a_worker_does_not_measure_what_is_stored(tmp_path, monkeypatch):
    file = model_file(tmp_path / "net.onnx")
    sha256 = worker.work_on(file, CHOICES, b"", __version__).sha256
    monkeypatch.delattr(worker, "measure")
    stored = worker.packed(["0" * 64, sha256, "f" * 64])
    assert isinstance(worker.work_on(file, CHOICES, stored, __version__), StoredContent)


def test_a_bug_costs_one_file_and_its_traceback_travels(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "measure", lambda *_: 1 / 0)
    refusal = worker.work_on(model_file(tmp_path / "net.onnx"), CHOICES, b"", __version__)
    assert refusal.sentence == (
        "unexpected error: ZeroDivisionError: division by zero; report this bug"
    )
    assert "lambda" in refusal.traceback


def test_a_worker_of_another_release_measures_nothing(tmp_path):
    refusal = worker.work_on(model_file(tmp_path / "net.onnx"), CHOICES, b"", "0.0.1")
    assert refusal.sentence == (
        f"the worker runs quantstore {__version__}, and the store is written by 0.0.1;"
        " install quantstore 0.0.1 on every worker"
    )


def test_ten_thousand_known_contents_travel_in_a_third_of_a_megabyte():
    contents = [f"{number:064x}" for number in range(10_000)]
    assert len(worker.packed(contents)) == 320_000
    # A store that somebody else wrote may hold any text.
    assert worker.packed(["", "no sha256", "é" * 64]) == b""


def test_an_attempt_goes_on_as_old_as_it_was_on_a_machine_with_another_clock(monkeypatch):
    attempt = Attempt.begin(Path("net.onnx"))
    packed = pickle.dumps(attempt)
    there = outcome.time.perf_counter() + 1e6
    monkeypatch.setattr(outcome.time, "perf_counter", lambda: there)
    arrived = pickle.loads(packed)
    assert arrived.path == "net.onnx"
    assert 0 <= arrived.seconds < 60
    assert abs((arrived.started_at - attempt.started_at).total_seconds()) < 60


# --- into the store ----------------------------------------------------------------------------


@pytest.mark.slow
def test_everything_settles_and_a_second_run_stores_and_measures_nothing(
    tmp_path, path, names, monkeypatch
):
    files = model_files(tmp_path, 3)
    copy = shutil.copy(files[0], tmp_path / "copy.onnx")
    files = [*files, Path(copy), broken_file(tmp_path / "text.onnx"), tmp_path / "missing.onnx"]
    results = ingest_many(files, path, WatchedExecutor())
    first = outcomes(results)
    assert sorted(first.values()) == ["already stored", "failed", "failed", *["stored"] * 3]
    assert first["text"] == first["missing"] == "failed"
    assert {first["net0"], first["copy"]} == {"stored", "already stored"}
    assert len(names()) == 3
    assert [result.path for result in results if result.model] == [
        result.path for result in results if not result.error
    ]

    monkeypatch.delattr(worker, "measure")
    again = outcomes(ingest_many(files, path, WatchedExecutor()))
    assert sorted(again.values()) == [*["already stored"] * 4, "failed", "failed"]
    with store.reading(path) as connection:
        assert connection.value("select count(*) from models") == 3
        assert connection.value("select count(*) from ingests") == 2 * len(files)


def test_paths_are_told_as_they_were_given(tmp_path, path, monkeypatch):
    model_files(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    executor = WatchedExecutor()
    (result,) = ingest_many([Path("net0.onnx")], path, executor)
    assert result.path == "net0.onnx"
    # A worker has a folder of its own.
    assert executor.paths == [tmp_path / "net0.onnx"]
    with store.reading(path) as connection:
        assert connection.value("select path from ingests") == "net0.onnx"
        assert connection.value("select source from models") == str(tmp_path / "net0.onnx")


def test_python_takes_an_executor(tmp_path, path):
    executor = WatchedExecutor()
    with executor:
        results = quantstore.ingest(model_files(tmp_path, 2), path, probe=False, executor=executor)
    assert [(result.model, result.outcome) for result in results] == [
        ("net0", "stored"),
        ("net1", "stored"),
    ]
    assert len(executor.paths) == 2


def test_files_that_fail_make_no_store(tmp_path):
    no_store = tmp_path / "none.duckdb"
    ingest_many([broken_file(tmp_path / "text.onnx")], no_store, WatchedExecutor())
    assert not no_store.exists()


@pytest.mark.slow
def test_results_do_not_pile_up_before_the_writer(tmp_path, path, monkeypatch):
    monkeypatch.setattr(fleet, "MOST_UNDER_WAY", 3)
    executor = WatchedExecutor()
    files = [broken_file(tmp_path / f"{number}.onnx") for number in range(20)]
    assert len(ingest_many(files, path, executor)) == 20
    assert executor.most_under_way == 3


def test_what_is_finished_goes_into_one_transaction(tmp_path, path, monkeypatch):
    batches = []

    def written(batch, *arguments):
        batches.append(len(batch))
        return ingest.written(batch, *arguments)

    monkeypatch.setattr(fleet, "written", written)
    monkeypatch.setattr(fleet, "GATHERING_SECONDS", 60)
    monkeypatch.setattr(fleet, "MOST_PER_BATCH", 4)
    ingest_many(model_files(tmp_path, 5), path, WatchedExecutor())
    assert sorted(batches) == [1, 4]


@pytest.mark.parametrize("replace", [False, True])
def test_files_of_one_batch_know_of_one_another(tmp_path, path, names, monkeypatch, replace):
    monkeypatch.setattr(fleet, "GATHERING_SECONDS", 60)
    net = model_file(tmp_path / "a" / "net.onnx", seed=1)
    (tmp_path / "b").mkdir()
    files = [
        net,
        Path(shutil.copy(net, tmp_path / "b" / "copy.onnx")),
        model_file(tmp_path / "c" / "net.onnx", seed=2),
    ]
    # One thread: they come in this order.
    ingest_many(files, path, WatchedExecutor(1), IngestChoices(probe=False, replace=replace))
    with store.reading(path) as connection:
        rows = connection.rows(
            "select outcome, model, sha256 from ingests left join models using (model)"
        )
    if replace:
        # The last of a name has it.
        assert names() == ["net"]
        assert sorted(outcome for outcome, *_ in rows) == ["replaced", "replaced", "stored"]
    else:
        (_, other) = names()
        assert other.startswith("net-")
        assert sorted(outcome for outcome, *_ in rows) == ["already stored", "stored", "stored"]


@pytest.mark.slow
def test_one_that_cannot_be_written_takes_no_other_with_it(tmp_path, path, names, monkeypatch):
    free_name = ingest._free_name

    def refusing(connection, requested_name, *arguments, **more):
        if requested_name == "net1":
            raise QuantstoreError("no such name")
        return free_name(connection, requested_name, *arguments, **more)

    monkeypatch.setattr(ingest, "_free_name", refusing)
    monkeypatch.setattr(fleet, "GATHERING_SECONDS", 60)
    results = ingest_many(model_files(tmp_path, 3), path, WatchedExecutor())
    assert outcomes(results) == {"net0": "stored", "net1": "failed", "net2": "stored"}
    assert [result.error for result in results if result.error] == ["no such name"]
    assert names() == ["net0", "net2"]
    with store.reading(path) as connection:
        assert connection.value("select message from ingests where outcome = 'failed'") == (
            "no such name"
        )


@pytest.mark.slow
def test_a_model_that_is_removed_meanwhile_is_measured_after_all(tmp_path, path, names):
    files = model_files(tmp_path, 2)
    ingest_many(files, path, WatchedExecutor())

    class Removing(WatchedExecutor):
        def submit(self, *call):
            if not self.paths:
                with store.writing(path) as connection:
                    store.remove_model_named(connection, "net0")
            return super().submit(*call)

    again = outcomes(ingest_many(files, path, Removing()))
    assert again == {"net0": "stored", "net1": "already stored"}
    assert names() == ["net0", "net1"]


@pytest.mark.slow
def test_replace_measures_what_is_stored(tmp_path, path, names):
    files = model_files(tmp_path, 2)
    ingest_many(files, path, WatchedExecutor())
    replaced = ingest_many(files, path, WatchedExecutor(), IngestChoices(probe=False, replace=True))
    assert outcomes(replaced) == {"net0": "replaced", "net1": "replaced"}
    assert names() == ["net0", "net1"]


# --- workers that die --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_file_whose_worker_died_is_tried_once_more_alone(tmp_path, path, names):
    executor = LossyExecutor({"net0": 1, "net2": 1})
    results = ingest_many(model_files(tmp_path, 4), path, executor)
    assert set(outcomes(results).values()) == {"stored"}
    assert len(executor.paths) == 4 + 2
    assert len(names()) == 4


def test_a_file_whose_worker_died_for_good_is_reported_and_the_others_settle(tmp_path, path, names):
    files = model_files(tmp_path, 4)
    results = ingest_many(files, path, LossyExecutor({"net1": 9}))
    assert outcomes(results) == {
        name: "failed" if name == "net1" else "stored" for name in ("net0", "net1", "net2", "net3")
    }
    (error,) = [result.error for result in results if result.error]
    assert error == (
        "the worker that measured the file ended without a result"
        " (ConnectionError: the worker is gone);"
        " see the log of the workers, or ingest this file on its own"
    )
    with store.reading(path) as connection:
        assert connection.rows("select path, message from ingests where outcome = 'failed'") == [
            (str(files[1]), error)
        ]


def test_an_executor_that_takes_no_more_files_is_a_sentence_and_what_it_did_is_stored(
    tmp_path, path, names, monkeypatch
):
    class Closing(WatchedExecutor):
        def submit(self, *call):
            if len(self.paths) == 2:
                raise RuntimeError("cannot schedule new futures after shutdown")
            return super().submit(*call)

    with pytest.raises(QuantstoreError, match=r"takes no more files .*after shutdown"):
        ingest_many(model_files(tmp_path, 4), path, Closing())
    assert names() == ["net0", "net1"]


@pytest.mark.slow
def test_a_pool_that_breaks_leaves_its_files_to_processes_of_this_machine(tmp_path, path, names):
    files = [*model_files(tmp_path, 3), model_file(tmp_path / f"{DEADLY}.onnx", seed=9)]
    executor = ProcessPoolExecutor(
        2, mp_context=get_context("spawn"), initializer=begin_process_that_dies
    )
    assert set(outcomes(ingest_many(files, path, executor)).values()) == {"stored"}
    assert len(names()) == 4


@pytest.mark.slow
def test_a_file_that_kills_its_process_is_found_out_and_the_others_settle(
    tmp_path, path, monkeypatch
):
    monkeypatch.setattr(fleet, "_begin_process", begin_process_that_dies)
    files = [model_file(tmp_path / f"{DEADLY}.onnx", seed=9), *model_files(tmp_path, 5)]
    results = list(fleet.ingest_many(files, path, CHOICES, jobs=2))
    assert outcomes(results) == {
        file.stem: "failed" if file.stem == DEADLY else "stored" for file in files
    }
    assert [result.error for result in results if result.error] == [CRASHED]


@pytest.mark.parametrize(("count", "is_compacted"), [(2, True), (1, False)])
def test_a_sparse_store_is_compacted_after_many_models(
    tmp_path, path, monkeypatch, count, is_compacted
):
    monkeypatch.setattr(fleet, "MANY_MODELS", 2)
    monkeypatch.setattr(copies, "LEAST_FREE_BYTES", 0)
    monkeypatch.setattr(copies, "MOST_FREE_SHARE", 0)
    results = ingest_many(model_files(tmp_path, count), path, WatchedExecutor())
    results.append(IngestResult(path="old.onnx", outcome="already stored", model="old"))
    summary = fleet.compact_after(results, path)
    assert (summary is not None) is is_compacted
