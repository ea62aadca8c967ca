"""A Dask cluster as executor: local ones stand for many machines."""

import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import pytest

from quantstore import cli, store
from quantstore.pipeline import cluster, fleet
from quantstore.pipeline.outcome import IngestChoices
from tests.support.graphs import conv_model, gaussian, save
from tests.support.workers import DEADLY, begin_process_that_dies

distributed = pytest.importorskip("distributed", reason="needs the extra: quantstore[dask]")

CHOICES = IngestChoices(probe=False)


@pytest.fixture(scope="module")
def scheduler():
    """The address of a scheduler with two workers, threads of this process."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        dashboard_address=None,
    ) as local:
        yield local.scheduler_address


@pytest.fixture
def path(tmp_path, empty_store):
    return Path(shutil.copy(empty_store, tmp_path / "test.duckdb"))


def model_file(path, seed=0):
    return save(conv_model(gaussian(4, 3, 3, 3, seed=seed)), path)


def model_files(folder, count):
    return [model_file(folder / f"net{seed}.onnx", seed) for seed in range(count)]


def outcomes(results):
    return {Path(result.path).stem: result.outcome for result in results}


def test_a_folder_is_measured_by_a_cluster_and_a_second_run_stores_nothing(
    tmp_path, path, scheduler, capsys
):
    zoo = tmp_path / "zoo"
    first, *_ = model_files(zoo, 2)
    shutil.copy(first, zoo / "copy.onnx")
    (zoo / "text.onnx").write_text("This is no model.")
    command = ["--db", str(path), "ingest", str(zoo), "--no-probe"]
    command += ["--executor", "dask", "--scheduler", scheduler]
    assert cli.main(command) == 1
    assert "1 already stored" in (said := capsys.readouterr().err)
    assert "2 stored" in said
    assert "error: " in said
    assert "text.onnx: not an ONNX file" in said
    assert cli.main(command) == 1
    assert "3 already stored" in (said := capsys.readouterr().err)
    assert "1 failed" in said
    with store.reading(path) as connection:
        assert connection.value("select count(*) from models") == 2


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("tcp://127.0.0.1:9", "no Dask scheduler answers at tcp://127.0.0.1:9; start one with"),
        ("nonsense", "nonsense is not the address of a Dask scheduler; give it as in:"),
    ],
)
def test_a_scheduler_that_does_not_answer_is_a_sentence(tmp_path, capsys, address, sentence):
    file = model_file(tmp_path / "net.onnx")
    db = tmp_path / "none.duckdb"
    command = ["--db", str(db), "ingest", str(file), "--executor", "dask"]
    assert cli.main([*command, "--scheduler", address]) == 1
    assert sentence in capsys.readouterr().err
    assert not db.exists()


def test_without_the_extra_the_sentence_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    file = model_file(tmp_path / "net.onnx")
    assert cli.main(["ingest", str(file), "--executor", "dask"]) == 1
    assert capsys.readouterr().err == (
        f"error: {cluster.NOT_INSTALLED}; install it with: pip install 'quantstore[dask]'\n"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--scheduler", "tcp://x:1"], "--scheduler needs --executor dask"),
        (
            ["--executor", "dask", "--scheduler", "tcp://x:1", "--jobs", "2"],
            "--jobs is for this machine",
        ),
    ],
)
def test_options_that_exclude_each_other_are_a_usage_error(tmp_path, capsys, options, sentence):
    assert cli.main(["ingest", str(tmp_path), *options]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_file(tmp_path, path):
    threads_before = threading.active_count()
    files = model_files(tmp_path, 12)
    results = []
    with cluster.dask_executor(workers=2) as executor:
        pids = list(executor._client.run(os.getpid).values())
        for result in fleet.ingest_many(files, path, CHOICES, executor=executor):
            if not results:
                os.kill(pids[0], signal.SIGKILL)
            results.append(result)
    assert outcomes(results) == {file.stem: "stored" for file in files}
    with store.reading(path) as connection:
        assert connection.value("select count(*) from models") == len(files)
        assert connection.value("select count(*) from ingests") == len(files)
    # Neither workers nor what they started are left behind.
    assert threading.active_count() < threads_before + 10
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_a_file_that_kills_its_workers_is_reported_and_the_others_settle(tmp_path, path):
    files = [model_file(tmp_path / f"{DEADLY}.onnx", seed=99), *model_files(tmp_path, 6)]

    class Deadly(distributed.WorkerPlugin):
        def setup(self, worker):
            begin_process_that_dies()

    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        cluster.dask_executor(workers=2) as executor,
    ):
        executor._client.register_plugin(Deadly())
        results = list(fleet.ingest_many(files, path, CHOICES, executor=executor))
    assert outcomes(results) == {
        file.stem: "failed" if file.stem == DEADLY else "stored" for file in files
    }
    (error,) = [result.error for result in results if result.error]
    assert error.startswith(
        "the worker that measured the file ended without a result (KilledWorker"
    )
