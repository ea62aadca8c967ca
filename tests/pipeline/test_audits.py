"""Audits in the store: written whole, moved with their models, gone with them."""

import math

import pytest

from quantstore import queries, store
from quantstore.errors import ModelFileError, RunError, UnknownModelError
from quantstore.pipeline import audits
from quantstore.pipeline.audits import AuditChoices
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from tests.support.pairs import inputs_file, quantized, saved_network


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    float_path = saved_network(folder)
    int8_path = quantized(float_path, folder / "net-int8.onnx", "qdq")
    return float_path, int8_path, str(inputs_file(folder))


@pytest.fixture
def path(tmp_path, files):
    path = tmp_path / "store.duckdb"
    for file in files[:2]:
        ingest_file(file, path, IngestChoices(probe=False))
    return path


def rows(path, sql):
    with store.reading(path) as con:
        return con.rows(sql)


def audited(path, files, **choices):
    return audits.run(*files[:2], path, files[2], AuditChoices(release=4, **choices))


@pytest.mark.slow
def test_an_audit_is_stored_with_layers_tensors_and_outputs_of_both_models(path, files):
    done = audited(path, files)
    assert (done.float_model, done.int8_model, done.ingested) == ("net", "net-int8", ())
    with store.reading(path) as con:
        (row,) = queries.audits(con, "net-int8").to_dict("records")
        assert len(queries.audits(con, "net")) == len(queries.audits(con)) == 1
        layers = queries.audit_layers(con, done.audit_id)
        tensors = queries.audit_tensors(con, done.audit_id)
        outputs = queries.audit_outputs(con, done.audit_id)
    assert (row["int8_model"], row["float_model"]) == ("net-int8", "net")
    assert row["grid_db"] == pytest.approx(done.audit.record.grid_db)
    assert row["band"] == "watch"
    assert set(layers["float_layer"]) == {"stem", "depthwise", "point", "hidden", "head"}
    assert layers["released_gain_db"].notna().sum() + tensors["released_gain_db"].notna().sum() == 4
    # Best first.
    gains = tensors["released_gain_db"].dropna().tolist()
    assert gains == sorted(gains, reverse=True)
    assert outputs["output"].tolist() == ["y"]


@pytest.mark.slow
def test_models_that_are_not_stored_are_ingested(tmp_path, files):
    done = audited(tmp_path / "new.duckdb", files)
    assert done.ingested == ("net", "net-int8")


@pytest.mark.slow
def test_a_model_that_is_stored_unfolded_alone_is_the_one_of_the_audit(tmp_path, files):
    path = tmp_path / "store.duckdb"
    ingest_file(files[0], path, IngestChoices(probe=False, fold=False))
    assert audited(path, files).ingested == ("net-int8",)
    assert rows(path, "select count(*) from models") == [(2,)]


@pytest.mark.slow
def test_an_audit_moves_with_a_new_measurement_of_its_model(path, files):
    done = audited(path, files)
    ingest_file(files[1], path, IngestChoices(probe=False, name="net-int8", replace=True))
    with store.reading(path) as con:
        assert queries.audits(con, "net-int8")["audit_id"].tolist() == [done.audit_id]
        assert queries.audit_layers(con, done.audit_id)["int8_depth"].notna().all()


@pytest.mark.slow
def test_without_its_float_model_an_audit_still_says_what_it_was_of(path, files):
    done = audited(path, files)
    with store.writing(path) as con:
        store.remove_model_named(con, "net")
    with store.reading(path) as con:
        (row,) = queries.audits(con, "net-int8").to_dict("records")
        layers = queries.audit_layers(con, done.audit_id)
    assert row["float_model"] == "net.onnx"
    assert layers["float_layer"].isna().all()


@pytest.mark.slow
def test_an_audit_goes_with_its_int8_model(path, files):
    audited(path, files)
    with store.writing(path) as con:
        store.remove_model_named(con, "net-int8")
    for table in ("audits", "audit_layers", "audit_tensors", "audit_outputs"):
        assert rows(path, f"select count(*) from {table}") == [(0,)]


@pytest.mark.slow
def test_a_failure_stores_nothing(path, files):
    with pytest.raises(RunError, match="integer model itself"):
        audits.run(files[1], files[1], path, files[2])
    assert rows(path, "select count(*) from audits") == [(0,)]


@pytest.mark.slow
def test_both_sides_are_named_by_file_or_by_model(path, files):
    assert audits.file_of("net", path) == files[0]
    assert audits.file_of(str(files[1]), path) == files[1]
    with pytest.raises(UnknownModelError, match="nett") as failure:
        audits.file_of("nett", path)
    assert "did you mean net" in failure.value.hint
    with store.writing(path) as con:
        con.rows("update models set source = '/gone/net.onnx' where model = 'net'")
    with pytest.raises(ModelFileError, match="moved or deleted"):
        audits.file_of("net", path)


@pytest.mark.slow
def test_what_was_not_measured_is_null(path, files):
    done = audited(path, files)
    assert math.isfinite(done.audit.record.grid_db)
    ((count,),) = rows(path, "select count(*) from audit_layers where isnan(released_gain_db)")
    assert count == 0
