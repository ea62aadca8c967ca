"""What ingesting promises: content stored once, names that tell, failures that stay alone."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from quantstore import settings, store
from quantstore.errors import (
    LockedStoreError,
    ModelFileError,
    NoLayersError,
    QuantstoreError,
    StoreError,
)
from quantstore.file_formats import SUFFIXES, any_of
from quantstore.numerics.measure_layer import MEASURES_VERSION
from quantstore.numerics.measures import MEASURES
from quantstore.pipeline import fleet, ingest
from quantstore.pipeline.files import demo_paths, find_files
from quantstore.pipeline.measure_file import NO_WEIGHT
from quantstore.pipeline.outcome import IngestChoices, IngestProgress
from quantstore.schemes import SCHEMES
from quantstore.store.labelling import name_is_taken
from tests.support.graphs import conv_model, gaussian, make_model, move_outside, node, save
from tests.support.runs import a_rescue, a_run, a_sensitivity, a_tensor, add


# What running a model finds, and what it costs, is told in test_probe.py.
def ingest_file(path, store_path, choices=None, **more):
    choices = dataclasses.replace(choices or IngestChoices(), probe=False)
    return ingest.ingest_file(path, store_path, choices, **more)


def ingest_many(paths, store_path, choices=None, **more):
    choices = dataclasses.replace(choices or IngestChoices(), probe=False)
    return fleet.ingest_many(paths, store_path, choices, **more)


@pytest.fixture
def path(tmp_path, empty_store):
    """A store without a model."""
    return Path(shutil.copy(empty_store, tmp_path / "test.duckdb"))


@pytest.fixture
def no_store(tmp_path):
    """Where a store will be."""
    return tmp_path / "test.duckdb"


@pytest.fixture
def names(path):
    """The models in the store, in the order they came."""

    def model_names():
        with store.reading(path) as connection:
            return [
                row[0] for row in connection.rows("select model from models order by ingested_at")
            ]

    return model_names


def model_file(path, seed=0):
    return save(conv_model(gaussian(4, 3, 3, 3, seed=seed)), path)


def broken_file(path):
    path.write_text("This is no model.")
    return path


# --- the same content is stored once -----------------------------------------------------------


@pytest.mark.slow
def test_a_model_is_stored_with_what_is_known_about_its_file(tmp_path, no_store):
    file, path = model_file(tmp_path / "net.onnx"), no_store
    result = ingest_file(file, path)
    assert (result.outcome, result.model, result.layers, result.error) == ("stored", "net", 1, None)
    assert result.path == str(file)
    with store.reading(path) as connection:
        ((source, size, folded, layers, weights, version),) = connection.rows(
            "select source, file_bytes, folded, layer_count, weight_count, measures_version"
            " from models"
        )
    assert (source, size, folded) == (str(file.resolve()), file.stat().st_size, True)
    assert (layers, weights, version) == (1, 4 * 3 * 3 * 3, MEASURES_VERSION)


def test_the_same_content_twice_is_stored_once(tmp_path, path, names):
    file = model_file(tmp_path / "net.onnx")
    ingest_file(file, path)
    again = ingest_file(file, path)
    assert (again.outcome, again.model, again.layers) == ("already stored", "net", None)
    assert names() == ["net"]


def test_the_same_content_under_another_file_name_is_the_same_model(tmp_path, path, names):
    ingest_file(model_file(tmp_path / "net.onnx"), path)
    again = ingest_file(model_file(tmp_path / "copy.onnx"), path)
    assert (again.outcome, again.model) == ("already stored", "net")
    assert names() == ["net"]


def test_other_external_data_is_other_content(tmp_path, path, names):
    for folder, seed in (("a", 1), ("b", 2)):
        model = conv_model(gaussian(4, 3, 3, 3, seed=seed))
        file = tmp_path / folder / f"{folder}.onnx"
        move_outside(model.graph.initializer[0], file.parent / "weights.bin")
        ingest_file(save(model, file), path)
    first, second = (tmp_path / name / f"{name}.onnx" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert names() == ["a", "b"]


def test_replace_measures_the_same_content_anew_under_its_name(tmp_path, path, names):
    file = model_file(tmp_path / "net.onnx")
    ingest_file(file, path, IngestChoices(name="chosen"))
    again = ingest_file(file, path, IngestChoices(replace=True))
    assert (again.outcome, again.model) == ("replaced", "chosen")
    assert names() == ["chosen"]


def test_replace_puts_other_content_in_the_place_of_the_same_name(tmp_path, path, names):
    file = tmp_path / "net.onnx"
    ingest_file(model_file(file, seed=1), path)
    again = ingest_file(model_file(file, seed=2), path, IngestChoices(replace=True))
    assert (again.outcome, again.model) == ("replaced", "net")
    assert names() == ["net"]
    with store.reading(path) as connection:
        assert (
            connection.value("select weight_max from layers") == gaussian(4, 3, 3, 3, seed=2).max()
        )


@pytest.mark.parametrize("name", [None, pytest.param("renamed", marks=pytest.mark.slow)])
def test_what_people_ran_stays_with_the_content_that_is_measured_anew(tmp_path, path, name):
    file = model_file(tmp_path / "net.onnx")
    ingest_file(file, path)
    with store.writing(path) as connection:
        add(connection, "net", a_run(minute=1))
        add(connection, "net", a_run(source="12 images"), [a_tensor(0, 20.0), a_tensor(1, 10.0)])
        store.add_sensitivities(
            connection,
            store.find_model(connection, "net"),
            [a_sensitivity(0, 30.0), a_sensitivity(None, 20.0, unit="sum", unit_kind="tensor")],
        )
        store.add_rescue(connection, store.find_model(connection, "net"), a_rescue())
    again = ingest_file(file, path, IngestChoices(replace=True, name=name))
    assert (again.outcome, again.runs_removed) == ("replaced", 0)
    with store.reading(path) as connection:
        model_id = store.find_model(connection, name or "net")
        # The probe is part of the measurement, and this one went without.
        assert connection.rows("select model_id, input_source from simulations") == [
            (model_id, "12 images")
        ]
        tensors = "from activation_errors semi join simulations using (simulation_id)"
        assert connection.value(f"select count(*) {tensors}") == 2
        assert connection.rows(
            "select models.model, layers.layer, output_sqnr_db from sensitivities"
            " join models using (model_id) join layers using (layer_id)"
        ) == [(name or "net", "conv", 30.0)]
        assert connection.rows(
            "select model_id, unit from sensitivities where layer_id is null"
        ) == [(model_id, "sum")]
        assert connection.value("select count(*) from layers") == 1
        rescued = "join rescues using (rescue_id) join models using (model_id)"
        assert connection.rows(
            f"select models.model, unit, layer from rescue_units {rescued}"
            " left join layers using (layer_id) order by unit"
        ) == [(name or "net", "Relu_0", None), (name or "net", "conv0", "conv")]
        for table, count in (("rescue_steps", 4), ("rescue_files", 1)):
            assert connection.value(f"select count(*) from {table} {rescued}") == count


@pytest.mark.slow
def test_what_people_ran_on_other_content_goes_with_it_and_is_counted(tmp_path, path):
    file = tmp_path / "net.onnx"
    ingest_file(model_file(file, seed=1), path)
    with store.writing(path) as connection:
        add(connection, "net", a_run())
        add(connection, "net", a_run(source="12 images"), [a_tensor(0, 20.0)])
        store.add_rescue(connection, store.find_model(connection, "net"), a_rescue())
    again = ingest_file(model_file(file, seed=2), path, IngestChoices(replace=True))
    assert (again.outcome, again.runs_removed) == ("replaced", 2)
    with store.reading(path) as connection:
        for table in ("simulations", "activation_errors", "rescues", "rescue_units"):
            assert connection.value(f"select count(*) from {table}") == 0


def test_replace_may_rename(tmp_path, path, names):
    file = model_file(tmp_path / "net.onnx")
    ingest_file(file, path)
    ingest_file(file, path, IngestChoices(name="renamed", replace=True))
    assert names() == ["renamed"]


@pytest.mark.slow
def test_folded_and_unfolded_are_two_models(tmp_path, path, names):
    file = model_file(tmp_path / "net.onnx")
    ingest_file(file, path)
    unfolded = ingest_file(file, path, IngestChoices(fold=False))
    assert unfolded.outcome == "stored"
    assert unfolded.model.startswith("net-")
    assert ingest_file(file, path, IngestChoices(fold=False)).outcome == "already stored"
    assert ingest_file(file, path).outcome == "already stored"
    assert len(names()) == 2


@pytest.mark.slow
def test_a_model_measured_by_an_older_version_is_measured_anew(tmp_path, path, names):
    file = model_file(tmp_path / "net.onnx")
    ingest_file(file, path, IngestChoices(name="chosen"))
    with store.writing(path) as connection:
        connection.rows("update models set measures_version = 0")
        connection.rows("update layers set std = -1")
    again = ingest_file(file, path)
    assert (again.outcome, again.model) == ("replaced", "chosen")
    assert names() == ["chosen"]
    with store.reading(path) as connection:
        assert connection.rows("select measures_version from models") == [(MEASURES_VERSION,)]
        assert connection.value("select std from layers") > 0


@pytest.mark.slow
def test_a_scheme_that_is_added_reaches_stores_and_models_that_were_there_before(
    tmp_path, path, names, monkeypatch
):
    file = model_file(tmp_path / "net.onnx")
    ingest_file(file, path)
    with store.reading(path) as connection:
        before = connection.rows("from errors order by layer_id, scheme")
    six_bits = dataclasses.replace(SCHEMES["int4_channel_symmetric"], name="int6_x", bits=6)
    monkeypatch.setitem(SCHEMES, "int6_x", six_bits)

    again = ingest_file(file, path)
    assert (again.outcome, again.model) == ("replaced", "net")
    assert ingest_file(file, path).outcome == "already stored"
    with store.reading(path) as connection:
        assert connection.rows("select bits from schemes where scheme = 'int6_x'") == [(6,)]
        now = connection.rows("from errors order by layer_id, scheme")
        assert [row[1:] for row in now if row[1] != "int6_x"] == [row[1:] for row in before]
        four, six, eight = connection.rows(
            "select sqnr_db from errors where scheme in"
            " ('int4_channel_symmetric', 'int6_x', 'int8_channel_symmetric') order by 1"
        )
        assert four < six < eight
    # Who knows fewer schemes leaves the others alone.
    monkeypatch.delitem(SCHEMES, "int6_x")
    assert ingest_file(file, path).outcome == "already stored"
    with store.reading(path) as connection:
        assert connection.rows("select bits from schemes where scheme = 'int6_x'") == [(6,)]


@pytest.mark.slow
def test_a_measure_that_is_added_reaches_stores_and_models_that_were_there_before(
    tmp_path, path, names, monkeypatch
):
    file = model_file(tmp_path / "net.onnx")
    ingest_file(file, path)
    with store.reading(path) as connection:
        before = connection.frame("from layers").drop(columns=["layer_id", "model_id"])
    middle = dataclasses.replace(
        MEASURES["mean"],
        column="midrange",
        meaning="(weight_min + weight_max) / 2, in weight units.",
        of=lambda weights: float(weights.tensor.minimum[0] + weights.tensor.maximum[0]) / 2,
        beside_errors=True,
    )
    monkeypatch.setitem(MEASURES, "midrange", middle)

    again = ingest_file(file, path)
    assert (again.outcome, again.model) == ("replaced", "net")
    assert ingest_file(file, path).outcome == "already stored"
    with store.reading(path) as connection:
        assert connection.rows("select measures_version from models") == [(MEASURES_VERSION,)]
        for source in ("layers", "model_layers", "layer_errors"):
            assert connection.value(
                f"select bool_and(midrange = (weight_min + weight_max) / 2) from {source}"
            ), source
        assert connection.value(
            "select comment from duckdb_columns()"
            " where table_name = 'layers' and column_name = 'midrange'"
        ).startswith("(weight_min + weight_max) / 2")
        now = connection.frame("from layers").drop(columns=["layer_id", "model_id", "midrange"])
    pd.testing.assert_frame_equal(now, before)
    # As it was, it lies beside the store.
    assert len(list(tmp_path.glob("*.backup"))) == 1
    # Who knows fewer measures leaves the others alone.
    monkeypatch.delitem(MEASURES, "midrange")
    assert ingest_file(file, path).outcome == "already stored"
    assert names() == ["net"]
    ingest_file(model_file(tmp_path / "other.onnx", seed=9), path)
    with store.reading(path) as connection:
        rows = connection.rows("select model, midrange is null from model_layers")
    assert rows == [("net", False), ("other", True)]


# --- names -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_another_content_of_the_same_name_gets_a_piece_of_its_hash(tmp_path, path, names):
    ingest_file(model_file(tmp_path / "a" / "net.onnx", seed=1), path)
    ingest_file(model_file(tmp_path / "b" / "net.onnx", seed=2), path)
    with store.reading(path) as connection:
        sha256 = connection.value("select sha256 from models order by ingested_at desc limit 1")
    assert names() == ["net", f"net-{sha256[:8]}"]


@pytest.mark.parametrize("name", ["Model.ONNX", pytest.param("model.onnx", marks=pytest.mark.slow)])
def test_a_file_called_model_is_named_after_its_folder(tmp_path, path, names, name):
    ingest_file(model_file(tmp_path / "mobilenet" / name), path)
    assert names() == ["mobilenet"]


def test_a_chosen_name_is_used(tmp_path, path, names):
    ingest_file(
        model_file(tmp_path / "net.onnx"), path, IngestChoices(name="chosen", source="upload")
    )
    assert names() == ["chosen"]
    with store.reading(path) as connection:
        assert connection.value("select source from models") == "upload"


def test_a_chosen_name_that_another_model_has_is_refused(tmp_path, path, names):
    ingest_file(model_file(tmp_path / "a.onnx", seed=1), path)
    other = model_file(tmp_path / "b.onnx", seed=2)
    with pytest.raises(QuantstoreError, match=name_is_taken("a")) as caught:
        ingest_file(other, path, IngestChoices(name="a"))
    assert "--replace" in caught.value.hint
    assert names() == ["a"]


# --- a model is wholly there or absent ---------------------------------------------------------


def test_nothing_is_stored_of_a_model_whose_last_layer_cannot_be_read(tmp_path, path, names):
    ingest_file(model_file(tmp_path / "sound.onnx"), path)
    nodes = [node("Conv", ["x", "w"], ["h"], "first"), node("Conv", ["h", "v"], ["y"], "second")]
    model = make_model(nodes, {"w": gaussian(3, 3, 1), "v": gaussian(4, 3, 1)})
    model.graph.initializer[1].dims[:] = [4, 4, 1]
    with pytest.raises(ModelFileError, match="'v'"):
        ingest_file(save(model, tmp_path / "half.onnx"), path)
    assert names() == ["sound"]


def test_a_file_that_fails_does_not_create_a_store(tmp_path, no_store):
    with pytest.raises(ModelFileError):
        ingest_file(broken_file(tmp_path / "text.onnx"), no_store)
    assert not no_store.exists()


def test_a_replacement_that_fails_leaves_the_old_model(tmp_path, path, names):
    file = model_file(tmp_path / "net.onnx")
    ingest_file(file, path)
    broken_file(file)
    with pytest.raises(ModelFileError):
        ingest_file(file, path, IngestChoices(replace=True))
    assert names() == ["net"]


def test_a_model_of_empty_weights_is_refused(tmp_path, path):
    model = make_model(
        [node("MatMul", ["x", "w"], ["y"], "fc")], {"w": np.zeros((3, 0), np.float32)}
    )
    with pytest.raises(NoLayersError, match=NO_WEIGHT):
        ingest_file(save(model, tmp_path / "empty.onnx"), path)


def test_a_model_of_nan_is_stored_and_says_so(tmp_path, path):
    model = conv_model(np.full((2, 3, 1), np.nan, dtype=np.float32))
    ingest_file(save(model, tmp_path / "nan.onnx"), path)
    with store.reading(path) as connection:
        assert connection.rows("select nonfinite_count, weight_range from layers") == [(6, None)]
        assert connection.value("select nonfinite_count from model_summary") == 6


# --- progress ----------------------------------------------------------------------------------


def test_progress_counts_layers_and_bytes_of_weights(tmp_path, path):
    nodes = [node("Conv", ["x", "w"], ["h"], "first"), node("Conv", ["h", "v"], ["y"], "second")]
    model = make_model(nodes, {"w": gaussian(3, 3, 1), "v": gaussian(5, 3, 1)})
    seen = []
    ingest_file(save(model, tmp_path / "net.onnx"), path, report=seen.append)
    assert seen == [
        IngestProgress(layers_done=0, layers_total=2, bytes_done=0, bytes_total=96),
        # Large ones first, so that several processes end together.
        IngestProgress(layers_done=1, layers_total=2, bytes_done=60, bytes_total=96),
        IngestProgress(layers_done=2, layers_total=2, bytes_done=96, bytes_total=96),
    ]


# --- several files -----------------------------------------------------------------------------


@pytest.mark.slow
def test_failures_are_reported_while_the_rest_goes_on(tmp_path, path, names):
    files = [
        model_file(tmp_path / "a.onnx", seed=1),
        broken_file(tmp_path / "text.onnx"),
        tmp_path / "missing.onnx",
        model_file(tmp_path / "b.onnx", seed=2),
    ]
    results = {Path(result.path).name: result for result in ingest_many(files, path, jobs=1)}
    assert [result.outcome for result in results.values()] == [
        "stored",
        "failed",
        "failed",
        "stored",
    ]
    assert results["text.onnx"].error.startswith("not an ONNX file")
    assert results["missing.onnx"].error.startswith("does not exist")
    assert names() == ["a", "b"]


def test_a_path_given_twice_is_ingested_once(tmp_path, path):
    file = model_file(tmp_path / "net.onnx")
    assert len(list(ingest_many([file, file], path))) == 1


def test_a_store_that_cannot_be_used_stops_everything(tmp_path, path):
    path.write_text("This is no store.")
    files = [model_file(tmp_path / f"{seed}.onnx", seed=seed) for seed in range(2)]
    with pytest.raises(StoreError):
        list(ingest_many(files, path, jobs=1))


TABLES = ("channels", "errors", "channel_errors", "histograms", "clipping", "bits_needed")


def rounded(rows):
    return [
        tuple(float(f"{part:.12g}") if isinstance(part, float) else part for part in row)
        for row in rows
    ]


def everything(path):
    """Every row of every table, without keys, times and the order of arrival."""
    with store.reading(path) as connection:
        return {
            "models": connection.rows(
                "select * exclude (model_id, ingested_at, ingest_seconds) from models"
                " order by model"
            ),
            **{
                table: connection.rows(
                    f"select model, depth, {table}.* exclude (layer_id) from {table}"
                    " join layers using (layer_id) join models using (model_id) order by all"
                )
                for table in TABLES
            },
            "equalization": connection.rows(
                "select model, layers.depth, partner.depth,"
                " equalization.* exclude (layer_id, partner_layer_id) from equalization"
                " join layers using (layer_id) join models using (model_id)"
                " join layers as partner on partner.layer_id = partner_layer_id order by all"
            ),
            "layers": connection.rows(
                "select model, layers.* exclude (layer_id, model_id) from layers"
                " join models using (model_id) order by all"
            ),
        }


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """A store that two processes filled with the demo models, and what became of each file.

    The first model is in there already, and a file is none.
    """
    folder = tmp_path_factory.mktemp("two")
    path = folder / "two.duckdb"
    files = [*demo_paths(), broken_file(folder / "text.onnx")]
    ingest_file(files[0], path)
    return path, list(ingest_many(files, path, jobs=2))


@pytest.mark.slow
def test_one_process_and_two_write_the_same_tables(two_processes, demo_store):
    path, results = two_processes
    outcomes = sorted(result.outcome for result in results)
    assert outcomes == ["already stored", "failed", *["stored"] * 3]
    one, two = everything(demo_store), everything(path)
    for table, rows in one.items():
        # This process may have loaded numpy with other vector instructions than those it starts.
        assert rounded(rows) == rounded(two[table]), table
        assert rows


@pytest.mark.slow
def test_processes_that_share_one_file_find_the_same(tmp_path, empty_store, monkeypatch):
    # Sharing the work on a file this small takes longer than doing it.
    monkeypatch.setattr("quantstore.pipeline.measure_file.WORTH_A_PROCESS", 0)
    (model,) = (file for file in demo_paths() if file.stem == "digits-rescaled")
    alone, shared = (shutil.copy(empty_store, tmp_path / f"{jobs}.duckdb") for jobs in (1, 2))
    ingest_file(model, alone, IngestChoices(jobs=1))
    ingest_file(model, shared, IngestChoices(jobs=2))
    assert everything(alone) == everything(shared)


# --- which files -------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    for name in ("b.onnx", "a.onnx", "deep/er/c.ONNX", "deep/notes.txt", "deep/d.onnx.data"):
        file = tmp_path / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "tree"


def test_a_folder_stands_for_every_onnx_file_below_it(tree):
    found, failures = find_files([str(tree)])
    assert [file.relative_to(tree).as_posix() for file in found] == [
        "a.onnx",
        "b.onnx",
        "deep/er/c.ONNX",
    ]
    assert failures == []


def test_a_pattern_stands_for_what_it_matches(tree):
    found, failures = find_files([str(tree / "*.onnx"), str(tree / "**" / "*.ONNX")])
    assert [file.name for file in found] == ["a.onnx", "b.onnx", "c.ONNX"]
    assert failures == []


def test_a_file_is_taken_whatever_it_is_called_and_only_once(tree):
    file = tree / "deep" / "notes.txt"
    found, failures = find_files([str(file), str(file), str(tree / "deep" / "*.txt")])
    assert found == [file]
    assert failures == []


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tree):
    file = tree / "net[1].onnx"
    file.touch()
    assert find_files([str(file)]) == ([file], [])


def test_a_missing_file_is_passed_on_to_fail_by_itself(tree):
    found, failures = find_files([str(tree / "missing.onnx")])
    assert found == [tree / "missing.onnx"]
    assert failures == []


def test_what_stands_for_no_file_is_a_failure_of_its_own(tree):
    shutil.rmtree(tree / "deep" / "er")
    empty, pattern = str(tree / "deep"), str(tree / "*.pb")
    found, failures = find_files([empty, str(tree / "a.onnx"), pattern])
    assert [file.name for file in found] == ["a.onnx"]
    assert [(failure.path, failure.outcome) for failure in failures] == [
        (empty, "failed"),
        (pattern, "failed"),
    ]
    assert f"holds no {any_of(SUFFIXES)} file" in failures[0].error
    assert "no file matches" in failures[1].error


def test_a_home_folder_may_be_abbreviated(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree))
    assert find_files(["~/a.onnx"])[0] == [tree / "a.onnx"]


def test_the_demo_models_travel_with_the_package():
    assert len(demo_paths()) == 4


@pytest.mark.parametrize("pattern", ["~nobody-of-this-name/x.onnx", "x" * 5000, "a\0b.onnx"])
def test_a_path_that_no_system_accepts_is_a_sentence(pattern):
    files, failures = find_files([pattern])
    assert files == []
    assert failures[0].error.endswith("check the path")


# --- what became of each file ------------------------------------------------------------------


def attempts_in(path):
    """The rows of ``ingests``, oldest first, as dicts."""
    with store.reading(path) as connection:
        found = connection.rows("select ingests from ingests order by finished_at")
        return [row for (row,) in found]


@pytest.fixture
def attempts(path):
    return partial(attempts_in, path)


@pytest.mark.slow
def test_every_attempt_leaves_a_row(tmp_path, path, attempts):
    file = model_file(tmp_path / "net.onnx")
    broken = broken_file(tmp_path / "broken.onnx")
    ingest_file(file, path)
    ingest_file(file, path)
    ingest_file(file, path, IngestChoices(replace=True, name="other"))
    with pytest.raises(ModelFileError) as failure:
        ingest_file(broken, path, IngestChoices(source="an upload"))
    rows = attempts()
    assert [(row["path"], row["outcome"], row["model"]) for row in rows] == [
        (str(file), "stored", "net"),
        (str(file), "already stored", "net"),
        (str(file), "replaced", "other"),
        ("an upload", "failed", None),
    ]
    assert [row["message"] for row in rows] == ["", "", "", failure.value.sentence]
    for row in rows:
        took = (row["finished_at"] - row["started_at"]).total_seconds()
        assert 0 < row["seconds"] == pytest.approx(took, abs=0.05)
        # No process that has numpy in memory is smaller; None on Windows.
        assert row["peak_bytes"] is None or row["peak_bytes"] > 20e6


def test_a_name_that_is_taken_is_a_failure_with_a_row_and_without_a_model(
    tmp_path, path, attempts, names
):
    ingest_file(model_file(tmp_path / "net.onnx"), path)
    other = model_file(tmp_path / "other.onnx", seed=1)
    with pytest.raises(QuantstoreError, match=name_is_taken("net")):
        ingest_file(other, path, IngestChoices(name="net"))
    assert attempts()[-1]["outcome"] == "failed"
    assert names() == ["net"]


def test_a_first_file_that_fails_makes_no_store(tmp_path, no_store):
    with pytest.raises(ModelFileError):
        ingest_file(broken_file(tmp_path / "broken.onnx"), no_store)
    assert [file.name for file in tmp_path.iterdir()] == ["broken.onnx"]


@pytest.mark.slow
def test_files_measured_by_other_processes_leave_rows_too(two_processes):
    path, _ = two_processes
    first, *others = (file.stem for file in demo_paths())
    outcomes = [(Path(row["path"]).stem, row["outcome"]) for row in attempts_in(path)[1:]]
    assert sorted(outcomes) == sorted(
        [(first, "already stored"), *((name, "stored") for name in others), ("text", "failed")]
    )


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True], ids=["already stored", "failed"])
def test_an_attempt_that_leaves_no_row_is_not_passed_over(tmp_path, path, broken):
    file = model_file(tmp_path / "net.onnx")
    ingest_file(file, path)
    if broken:
        file = broken_file(tmp_path / "broken.onnx")
    with (
        duckdb.connect(path, read_only=True, config=dict(store.CONFIG)),
        settings.waiting_at_most(0.05),
        pytest.raises(LockedStoreError),
    ):
        ingest_file(file, path)


def test_removing_a_model_leaves_the_history(tmp_path, path, attempts):
    ingest_file(model_file(tmp_path / "net.onnx"), path)
    with store.writing(path) as connection:
        store.remove_model_named(connection, "net")
    assert [row["model"] for row in attempts()] == ["net"]
