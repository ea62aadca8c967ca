"""An int8 TensorFlow Lite file held against its float file: LiteRT runs both, faults planted."""

import math
import sys

import numpy as np
import pytest

from quantstore import queries, store
from quantstore.auditing import lite
from quantstore.auditing.audit import TWO_FORMATS, audit
from quantstore.auditing.choices import AuditChoices
from quantstore.errors import RunError
from quantstore.pipeline import audits
from quantstore.run import litert
from quantstore.wording import audit_tables, frames, units
from quantstore.wording import audits as wording
from tests.support.graphs import conv_model, save
from tests.support.tflite_files import float_of_pair, int8_of_pair, saved

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")

TENSORS = ("x", "h", "g", "flat", "y")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lite")


@pytest.fixture(scope="module")
def inputs(folder):
    path = folder / "x.npy"
    np.save(path, np.random.default_rng(3).normal(size=(24, 8, 8, 3)).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def float_file(folder):
    return saved(folder / "float.tflite", float_of_pair())


@pytest.fixture(scope="module")
def ranges(float_file, inputs):
    """What a converter would find on the inputs of the audit."""
    session = litert.LiteSession(float_file)
    seen = {name: [] for name in TENSORS}
    for x in np.load(inputs):
        session.run({"x": x[np.newaxis]})
        for name in TENSORS:
            seen[name].append(session.tensor(name))
    return {name: (np.min(arrays), np.max(arrays)) for name, arrays in seen.items()}


@pytest.fixture(scope="module")
def audited(folder, float_file, inputs):
    def run(graph, source=None):
        path = saved(folder / "int8.tflite", graph)
        return audit(float_file, path, str(source or inputs), AuditChoices()).record

    return run


@pytest.fixture(scope="module")
def plain(audited, ranges):
    return audited(int8_of_pair(ranges))


def tensor(record, name):
    return next(row for row in record.tensors if row.int8_tensor == f"{name}_int8")


def test_every_layer_and_every_rounded_tensor_has_its_partner(plain):
    assert (plain.paired_layers, plain.int8_layers, plain.float_layers) == (3, 3, 3)
    assert {layer.matched_by for layer in plain.layers} == {"value"}
    assert {row.int8_tensor: row.float_tensor for row in plain.tensors} == {
        f"{name}_int8": name for name in TENSORS
    }
    assert plain.paired_tensors == plain.rounded_tensors == 5


def test_a_sound_int8_file_keeps_what_8_bits_keep(plain):
    assert 30 < plain.grid_db < 50
    assert plain.exact_db == plain.grid_db
    assert abs(plain.integer_db - plain.grid_db) < 1
    assert plain.sample_count == 24
    assert plain.onnxruntime_version.startswith("LiteRT ")
    (output,) = plain.outputs
    assert (output.output, output.point, output.grid_db) == ("y", "the output", plain.grid_db)


def test_what_needs_another_file_is_left_open_and_said(plain):
    assert math.isnan(plain.weights_db)
    assert math.isnan(plain.activations_db)
    assert math.isnan(plain.neither_db)
    assert all(math.isnan(row.released_gain_db) for row in (*plain.layers, *plain.tensors))
    assert lite.NOT_TAKEN_APART in plain.notes


def test_no_sentence_speaks_of_what_was_not_measured(plain):
    sentences = [
        wording.headline(plain, "int8.tflite", "float.tflite"),
        *wording.sentences(plain, {}),
    ]
    assert units.db(plain.grid_db) in sentences[0]
    assert [sentence for sentence in sentences if "nan" in sentence] == []


def test_weights_are_plain_rounding_of_the_float_weights(plain):
    for layer in plain.layers:
        assert (layer.rounding, round(layer.scale_ratio, 3)) == ("plain", 1.0)
        assert layer.stored_p10_db == pytest.approx(layer.plain_p10_db, abs=0.1)
    schemes = [layer.stored_scheme for layer in plain.layers]
    assert schemes == ["int8 per channel", "int8 per channel", "int8 per tensor"]


def test_grids_that_reach_what_is_seen_saturate_nothing(plain, ranges):
    for name in TENSORS:
        row = tensor(plain, name)
        assert row.saturated_share == 0
        assert row.used_share > 0.95
        assert (row.seen_low, row.seen_high) == pytest.approx(
            ranges["g" if name == "flat" else name]
        )
        assert row.drift_db > 25
        assert row.grid_low <= row.seen_low + row.scale


def test_drift_is_what_all_before_a_tensor_has_lost(plain):
    assert tensor(plain, "x").drift_db == pytest.approx(tensor(plain, "x").sqnr_db, abs=0.3)
    assert tensor(plain, "y").drift_db < tensor(plain, "x").drift_db


def test_a_scale_that_is_too_large_is_told_by_its_ratio(audited, ranges, plain):
    record = audited(int8_of_pair(ranges, {"w_y": 3.0}))
    by_name = {layer.int8_depth: layer for layer in record.layers}
    assert by_name[2].scale_ratio == pytest.approx(3, rel=0.01)
    assert by_name[2].stored_p10_db < by_name[2].plain_p10_db - 6
    assert by_name[0].scale_ratio == pytest.approx(1, rel=0.01)
    assert record.grid_db < plain.grid_db


def test_a_grid_that_ends_too_early_saturates(audited, ranges, plain):
    low, high = ranges["h"]
    record = audited(int8_of_pair({**ranges, "h": (low, high / 6)}))
    row = tensor(record, "h")
    assert row.saturated_share > 0.01
    assert row.best_sqnr_db > row.sqnr_db + 6
    assert tensor(record, "x").saturated_share == 0
    assert record.grid_db < plain.grid_db - 6


def test_without_inputs_both_files_run_on_noise(audited, ranges):
    record = audited(int8_of_pair(ranges), "noise")
    assert record.input_source == "noise, image-like"
    assert record.sample_count > 0
    assert math.isfinite(record.grid_db)


@pytest.mark.slow
def test_an_audit_is_stored_beside_both_models(float_file, folder, ranges, inputs, tmp_path):
    path = tmp_path / "s.duckdb"
    int8_file = saved(folder / "int8.tflite", int8_of_pair(ranges))
    done = audits.run(float_file, int8_file, path, str(inputs))
    assert (done.float_model, done.int8_model) == ("float", "int8")
    with store.reading(path) as con:
        ((grid_db, weights_db),) = con.rows("select grid_db, weights_db from audits")
        layers = con.rows("select count(*) from audit_layers where float_layer_id is not null")
        tensors = con.rows("select count(*) from audit_tensors")
    assert grid_db == pytest.approx(done.audit.record.grid_db)
    assert weights_db is None
    # What comes back from the store says the same as what went in.
    with store.reading(path) as con:
        row = queries.audits(con, "int8").iloc[0]
    read = frames.audit_record(row)
    assert wording.figures(read) == wording.figures(done.audit.record)
    assert [title for title, _ in wording.figures(read)] == [*wording.LITERT_TITLES.values()]
    assert "onnxruntime" not in wording.inputs_sentence(read)
    assert audit_tables.ways_note(read) == audit_tables.LITERT_WAYS_NOTE
    assert (layers, tensors) == ([(3,)], [(5,)])


# Refusals


def test_files_in_the_wrong_order_are_refused(float_file, folder, ranges, inputs):
    int8_file = saved(folder / "int8.tflite", int8_of_pair(ranges))
    with pytest.raises(RunError, match=lite.NOT_FLOAT):
        audit(int8_file, float_file, str(inputs))
    with pytest.raises(RunError, match=lite.NOT_QUANTIZED):
        audit(float_file, float_file, str(inputs))


def test_files_of_two_formats_are_refused(float_file, tmp_path, inputs):
    path = save(conv_model(), tmp_path / "m.onnx")
    with pytest.raises(RunError, match=TWO_FORMATS[0]):
        audit(float_file, path, str(inputs))


def test_without_the_extra_the_audit_says_how_to_install_it(monkeypatch, float_file):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(RunError) as failure:
        litert.LiteSession(float_file)
    assert litert.INSTALL in failure.value.sentence


def test_a_file_that_litert_refuses_is_named(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    with pytest.raises(RunError, match=r"LiteRT does not run m\.tflite"):
        litert.LiteSession(path)
