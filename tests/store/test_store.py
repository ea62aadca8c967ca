"""What the store promises: its tables and views, whole models, clear failures, patience."""

import contextlib
import dataclasses
import math
import shutil
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from quantstore import records, store
from quantstore.errors import (
    LockedStoreError,
    UnknownModelError,
)
from quantstore.numerics.distribution import sorted_weights
from quantstore.numerics.measure_layer import measure_layer
from quantstore.numerics.measures import MEASURES
from quantstore.numerics.sweep import sweep
from quantstore.schemes import INT8_SCHEMES, SCHEMES, TARGETS
from quantstore.store.connection import IN_USE_BY_PROCESS, IN_USE_HERE
from quantstore.store.totals import renew_totals
from tests.support.layers import linear_layer
from tests.support.runs import a_rescue, a_run, a_sensitivity, a_tensor

GAUSSIAN = np.random.default_rng(1).normal(size=(10, 40)).astype(np.float32)
# One channel a thousand times as large as the others, which int8 then erases.
UNEVEN = GAUSSIAN * np.array([[1000.0]] + [[1.0]] * 9, dtype=np.float32)
ON_GRID = np.arange(-127, 128, dtype=np.float32).reshape(1, -1)


def convolution(weights, name):
    family = {"operand": "W", "op_type": "Conv", "op_family": "conv"}
    return linear_layer(weights, name=name, weight_key=(name,), **family)


def measured(*tensors):
    return [
        measure_layer(convolution(weights, f"conv{depth}"), depth)
        for depth, weights in enumerate(tensors)
    ]


def model_record(name="net", **changes):
    record = records.ModelRecord(
        model=name,
        sha256=f"hash of {name}",
        folded=True,
        source=f"{name}.onnx",
        file_bytes=1000,
        file_format="ONNX",
        producer=None,
        ir_version=8,
        opset=17,
        ingested_at=datetime(2026, 1, 2, 3, 4, 5),
        ingest_seconds=0.5,
        layer_count=1,
        weight_count=400,
        quantstore_version="0",
        measures_version=1,
    )
    return dataclasses.replace(record, **changes)


@pytest.fixture
def path(tmp_path, empty_store):
    """A store of the test's own, without a model."""
    return Path(shutil.copy(empty_store, tmp_path / "test.duckdb"))


@pytest.fixture
def add(path):
    """Adds a model of these weights to the store at ``path``."""

    def add_model(*tensors, name="net"):
        with store.writing(path) as connection:
            return store.add_model(connection, model_record(name), measured(*tensors))

    return add_model


def asker(path):
    def rows(sql, *parameters):
        with store.reading(path) as connection:
            return connection.rows(sql, parameters)

    return rows


@pytest.fixture
def ask(path):
    return asker(path)


@pytest.fixture
def ask_empty(empty_store):
    """Asks a store without a model, which is made only once."""
    return asker(empty_store)


# --- the schema --------------------------------------------------------------------------------

# Columns that people's own queries rely on: the contract of the design, word for word.
CONTRACT = {
    "models": "model_id, model, sha256, folded, source, file_bytes, producer, ir_version, opset,"
    " ingested_at, ingest_seconds, layer_count, weight_count, quantstore_version, measures_version",
    "layers": "layer_id, model_id, depth, layer, operand, op_type, op_family, weight_name,"
    " weight_dtype, shape, channel_axis, channel_count, group_count, is_depthwise, weight_count,"
    " nonfinite_count, batchnorm_folded, mul_folded, already_quantized, stored_scheme, stored_step,"
    " weight_min, weight_max, weight_range, abs_max, mean, std, range_over_std, q1, median, q3,"
    " kurtosis, zero_fraction, outlier_count, outlier_fraction, outlier_channel_count,"
    " channel_range_ratio",
    "channels": "layer_id, channel, weight_min, whisker_low, q1, median, q3, whisker_high,"
    " weight_max, weight_range, mean, std, outlier_count",
    "schemes": "scheme, format, bits, granularity, is_symmetric, clip, description",
    "errors": "layer_id, scheme, mse, max_abs_error, sqnr_db, zeroed_fraction, levels_used,"
    " channel_sqnr_min_db, channel_sqnr_p10_db, channel_sqnr_median_db, channels_below_10db",
    "channel_errors": "layer_id, scheme, channel, sqnr_db, zeroed_fraction",
    "histograms": "layer_id, low, high, counts",
    "clipping": "layer_id, bits, measure, thresholds, sqnr_db, best_threshold",
    "bits_needed": "layer_id, granularity, bits",
    "ingests": "ingest_id, path, model, outcome, message, started_at, finished_at, seconds,"
    " peak_bytes, quantstore_version",
    "equalization": "layer_id, partner_layer_id, scheme, channel_sqnr_p10_before_db,"
    " channel_sqnr_p10_after_db",
    "findings": "model_id, layer_id, kind, severity, message, remedy",
    "model_findings": "model, layer, kind, severity, message, remedy",
    "bands": "band, lower_db, meaning",
    "targets": "target, scheme, activations, placement, description",
    "simulations": "simulation_id, model_id, target, scheme, mode, calibration, input_source,"
    " input_shape, compared, float_layers, sample_count, calibration_count, output_sqnr_db,"
    " deciding_sqnr_db, tail_sqnr_db, top1_agreement, provisional, seconds, cpu_seconds,"
    " onnxruntime_version, created_at, failure",
    "simulation_outputs": "simulation_id, output, part, point, sqnr_db, varying_sqnr_db,"
    " decision_f1, decisions, decides",
    "simulation_answers": "simulation_id, input_name, rank, sqnr_db, form, is_shown, kept,"
    " kept_by_heads, lost, gained, score_change, float_class, int8_class, peak_shift,"
    " float_answer, int8_answer, picture",
    "activation_errors": "simulation_id, sqnr_db, channel_sqnr_p10_db, channels_below_10db,"
    " channel_count",
    "sensitivities": "model_id, layer_id, target, scheme, mode, unit, unit_kind, node_name, kind,"
    " input_source, sample_count, output_sqnr_db, created_at",
    "float_sets": "simulation_id, goal_db, position, unit, unit_kind, output_sqnr_db",
    "rescues": "rescue_id, model_id, target, reach_db, allowed, input_source, calibration_count,"
    " validation_count, test_count, float_check_db, before_db, after_db, file_db, integer_db,"
    " agreement_before, agreement_after, int8_macs, added_nodes, reached, seconds,"
    " onnxruntime_version, created_at, failure",
    "rescue_steps": "rescue_id, step, remedy, detail, predicted_db, validation_db, test_db,"
    " int8_macs, unit_count, kept, seconds",
    "rescue_units": "rescue_id, unit, kind, node_name, layer_id, noise_to_signal, sensitivity_db,"
    " macs, rank, precision, range_low, range_high, cause",
    "rescue_files": "rescue_id, path, kind, sha256, bytes",
    "rescue_drift": "rescue_id, depth, node_name, op_type, tensor, before_db, after_db",
    "probes": "model, scheme, mode, target, output_sqnr_db, band, failure",
    "store_info": "key, value",
    "model_summary": "model",
    "model_layers": "model, layer, operand, weight_range, shape",
    "layer_errors": "model, layer, band, scheme, weight_range, std, mse, sqnr_db,"
    " channel_sqnr_p10_db, channels_below_10db",
    "layer_channels": "model, layer, channel, whisker_low, q1, median, q3, whisker_high",
    "histogram_bins": "model, layer",
    "verdicts": "model, target, scheme, verdict, evidence, mode, output_sqnr_db, worst_output,"
    " decision_f1, sample_count, input_source, provisional, reason, is_measured,"
    " layers_broken, layers_at_risk, layers_watch, layers_fine, channels_below_10db,"
    " channel_count, worst_layer, worst_channel_sqnr_p10_db, broken_weight_share, rescued_db",
}
# Records whose fields are written by name, in another order than the columns of their tables.
WRITTEN_BY_NAME = {
    "simulations": (
        records.SimulationRecord,
        {"simulation_id", "model_id"},
        {"outputs", "answers"},
    ),
    "simulation_answers": (records.AnswerRecord, {"simulation_id"}, set()),
    "simulation_outputs": (records.OutputRecord, {"simulation_id"}, set()),
    "activation_errors": (records.ActivationErrorRecord, {"simulation_id"}, set()),
    "sensitivities": (records.SensitivityRecord, {"model_id", "layer_id"}, {"depth"}),
    "float_sets": (records.FloatSetRecord, {"simulation_id"}, set()),
    "rescues": (
        records.RescueRecord,
        {"rescue_id", "model_id"},
        {"steps", "units", "files", "drift"},
    ),
    "rescue_steps": (records.RescueStepRecord, {"rescue_id"}, set()),
    "rescue_units": (records.RescueUnitRecord, {"rescue_id", "layer_id"}, {"depth"}),
    "rescue_files": (records.RescueFileRecord, {"rescue_id"}, set()),
    "rescue_drift": (records.RescueDriftRecord, {"rescue_id"}, set()),
}
TABLE_OF = {
    "models": records.ModelRecord,
    "layers": records.LayerRecord,
    "stored_channels": records.ChannelColumns,
    "stored_errors": records.ErrorRecord,
    "histograms": records.HistogramRecord,
    "stored_clipping": records.ClippingRecord,
    "bits_needed": records.BitsNeededRecord,
    "ingests": records.IngestRecord,
}


@pytest.fixture(scope="module")
def columns_of(empty_store):
    """The columns of every table and view, in their order."""
    sql = """
        select table_name, list(column_name order by column_index) from duckdb_columns()
        where not internal group by table_name
    """
    return dict(asker(empty_store)(sql))


@pytest.mark.parametrize("table", CONTRACT)
def test_every_promised_column_is_there(columns_of, table):
    assert set(CONTRACT[table].split(", ")) <= set(columns_of[table])


@pytest.mark.parametrize("table", TABLE_OF)
def test_the_fields_of_a_record_are_the_columns_of_its_table(columns_of, table):
    keys = {"models": ["model_id"], "layers": ["layer_id", "model_id"], "ingests": ["ingest_id"]}
    key = keys.get(table, ["layer_id"])
    fields = [field.name for field in dataclasses.fields(TABLE_OF[table])]
    # The figures of a layer are columns by their own names.
    figures = list(MEASURES) if table == "layers" else []
    if table == "stored_channels":
        # So are those of each int8 scheme, with its name.
        own = ("sqnr_db", "zeroed_count")
        figures = [f"{scheme}_{name}" for scheme in INT8_SCHEMES for name in own]
        assert {"scheme", *own} == {
            field.name for field in dataclasses.fields(records.ChannelErrorColumns)
        }
    assert columns_of[table] == key + [name for name in fields if name != "figures"] + figures


@pytest.mark.parametrize("table", WRITTEN_BY_NAME)
def test_every_field_of_a_record_has_its_column(columns_of, table):
    record, keys, only_in_record = WRITTEN_BY_NAME[table]
    fields = {field.name for field in dataclasses.fields(record)}
    assert fields - only_in_record == set(columns_of[table]) - keys


def test_every_table_view_and_column_has_a_comment(ask_empty):
    silent = ask_empty("""
        select table_name from duckdb_tables() where comment is null and not internal
        union all
        select view_name from duckdb_views() where comment is null and not internal
        union all
        select table_name || '.' || column_name
        from duckdb_columns() where comment is null and not internal
    """)
    assert silent == []


def test_every_scheme_has_a_row(ask_empty):
    names = ask_empty("select scheme, bits, granularity, is_symmetric, description from schemes")
    assert names == [
        (s.name, s.bits, s.granularity, s.is_symmetric, s.description) for s in SCHEMES.values()
    ]


def test_every_target_has_a_row(ask_empty):
    assert ask_empty("from targets") == [
        (
            target.name,
            target.scheme.name,
            target.activations.title if target.activations else None,
            target.placement_title,
            target.description,
        )
        for target in TARGETS.values()
    ]


@pytest.mark.parametrize("table", ["schemes", "targets"])
def test_a_store_that_lacks_a_registered_row_gets_it_with_the_next_write(path, ask, table):
    complete = ask(f"from {table}")
    with duckdb.connect(path) as connection:
        connection.execute(f"delete from {table} where description like '%channel%'")
    assert ask(f"from {table}") != complete
    with store.writing(path):
        pass
    assert ask(f"from {table}") == complete


# Of ``python -c``, as of a prompt and a notebook, DuckDB thinks that somebody sits in front of it.
ASK_FOR_PROGRESS = """
import sys, duckdb
from pathlib import Path
from quantstore import store
setting = "select current_setting('enable_progress_bar')"
with store.reading(Path(sys.argv[1])) as reader:
    print(reader.value(setting), duckdb.connect().execute(setting).fetchall())
"""


def test_no_progress_bar_is_drawn_over_what_a_caller_prints(empty_store):
    command = [sys.executable, "-c", ASK_FOR_PROGRESS, empty_store]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "[(True,)]"]


def test_an_older_duckdb_can_open_a_new_store(ask_empty):
    ((tags,),) = ask_empty("select tags from duckdb_databases() where database_name = 'empty'")
    assert tags["storage_version"].startswith("v1.5")


# --- a model is wholly there or absent ---------------------------------------------------------

PARENTS = """
    select table_name, column_name from duckdb_columns()
    join duckdb_tables() using (table_name)
    where column_name in ('layer_id', 'model_id') and table_name not in ('models')
    and not (table_name = 'layers' and column_name = 'layer_id')
"""


def orphans(ask):
    """How many rows of every table have a layer or model that does not exist."""
    counts = [
        f"select '{table}' as name, count(*) as rows from {table} where {key} not in"
        f" (select {key} from {key.removesuffix('_id')}s)"
        for table, key in ask(PARENTS)
    ]
    return ask(f"from ({' union all '.join(counts)}) where rows > 0")


def every_row(path):
    """The rows of every table, in an order of their own."""
    with store.reading(path) as connection:
        tables = [name for (name,) in connection.rows("select table_name from duckdb_tables()")]
        return {table: connection.rows(f"from {table} order by all") for table in tables}


def row_counts(ask):
    tables = [name for (name,) in ask("select table_name from duckdb_tables()")]
    return dict(ask(" union all ".join(f"select '{one}', count(*) from {one}" for one in tables)))


def test_a_model_arrives_with_everything_that_is_known_about_it(add, ask):
    add(GAUSSIAN, UNEVEN)
    counts = row_counts(ask)
    assert counts["models"] == 1
    assert counts["layers"] == counts["histograms"] == 2
    assert counts["stored_channels"] == 20
    assert counts["stored_errors"] == 2 * len(SCHEMES)
    assert ask("select count(*) from channel_errors") == [(20 * len(INT8_SCHEMES),)]
    # Two widths each; the uneven layer is not fine, so that its channels have curves, too.
    assert counts["stored_clipping"] == 2 + 4
    assert counts["bits_needed"] == 2 * 3
    assert orphans(ask) == []


def test_values_of_a_layer_come_back_exactly(add, ask):
    add(GAUSSIAN)
    (measures,) = measured(GAUSSIAN)
    (row,) = ask("select std, kurtosis, q1, outlier_count, shape, channel_axis from layers")
    expected = measures.layer
    assert row == (
        expected.figures["std"],
        expected.figures["kurtosis"],
        expected.figures["q1"],
        expected.figures["outlier_count"],
        list(expected.shape),
        expected.channel_axis,
    )
    rows = ask("select scheme, mse, levels_used from errors order by all")
    assert rows == sorted((error.scheme, error.mse, error.levels_used) for error in measures.errors)
    assert ask("select counts from histograms") == [(measures.histogram.counts.tolist(),)]
    needed = ask("select granularity, bits from bits_needed")
    assert needed == [(record.granularity, record.bits) for record in measures.bits_needed]


# What tables named stored_* hold: float32, and SQNR to 0.001 dB.
FLOAT32 = {"rel": 2**-24, "abs": 0}
IN_DB = {"rel": 1e-12, "abs": 0.0005}


CHANNEL_COLUMNS = (
    *("weight_min", "whisker_low", "q1", "median", "q3", "whisker_high", "weight_max"),
    *("mean", "std", "outlier_count"),
)


@pytest.mark.slow
def test_values_of_channels_come_back_in_single_precision(add, ask):
    add(GAUSSIAN, UNEVEN)
    columns = [measures.channels for measures in measured(GAUSSIAN, UNEVEN)]
    for name in CHANNEL_COLUMNS:
        stored = ask(f"select {name} from channels order by layer_id, channel")
        expected = np.concatenate([getattr(part, name) for part in columns])
        assert stored == [(pytest.approx(value, **FLOAT32),) for value in expected], name
    ranges = ask("select weight_range from channels order by layer_id, channel")
    expected = np.concatenate([part.weight_max - part.weight_min for part in columns])
    assert ranges == [(value,) for value in expected]


def test_errors_come_back_to_a_thousandth_of_a_decibel(add, ask):
    add(GAUSSIAN, UNEVEN)
    layers = measured(GAUSSIAN, UNEVEN)
    in_order = [
        error
        for measures in layers
        for error in sorted(measures.errors, key=lambda error: error.scheme)
    ]
    for name in ("sqnr_db", "channel_sqnr_min_db", "channel_sqnr_p10_db", "channel_sqnr_median_db"):
        stored = ask(f"select {name} from errors order by layer_id, scheme")
        assert stored == [(pytest.approx(getattr(error, name), **IN_DB),) for error in in_order]
        # As it is written, without the noise of single precision.
        assert stored == [(round(sqnr_db, 3),) for (sqnr_db,) in stored]
    rows = ask(
        "select scheme, sqnr_db, zeroed_fraction from channel_errors"
        " order by layer_id, scheme, channel"
    )
    expected = [
        (part.scheme, pytest.approx(sqnr_db, **IN_DB), zeroed / nonzero)
        for measures in layers
        for part in sorted(measures.channel_errors, key=lambda part: part.scheme)
        for sqnr_db, zeroed, nonzero in zip(
            part.sqnr_db, part.zeroed_count, measures.channels.nonzero_count, strict=True
        )
    ]
    assert rows == expected
    assert any(zeroed_fraction > 0 for _, _, zeroed_fraction in rows)


def test_a_channel_of_zeros_loses_none_of_them(add, ask):
    weights = GAUSSIAN.copy()
    weights[3] = 0
    add(weights)
    assert ask("select distinct zeroed_fraction from channel_errors where channel = 3") == [(0,)]


def test_a_filter_on_the_view_of_channel_errors_reads_one_scheme(add, ask, path):
    add(GAUSSIAN)
    ((layer_id,),) = ask("select layer_id from layers")
    for filtered in (
        f"from channel_errors where layer_id = {layer_id} and scheme = 'int8_channel_symmetric'",
        "from channel_errors join layers using (layer_id)"
        " where depth = 0 and scheme = 'int8_channel_symmetric'",
    ):
        with store.reading(path) as connection:
            ((_, plan),) = connection.rows(f"explain {filtered}")
        assert plan.count("stored_channels") == 1, plan
        assert "int8_tensor_symmetric_sqnr_db" not in plan


def test_clipping_curves_come_back_with_the_thresholds_that_were_tried(add, ask):
    add(UNEVEN)
    weights = linear_layer(UNEVEN).by_output_channel()
    curves = sweep(
        weights, sorted_weights(weights), np.square(weights, dtype=np.float64).sum(axis=1)
    ).clipping
    rows = ask("select bits, measure, thresholds, sqnr_db, best_threshold from clipping")
    assert {measure for _, measure, *_ in rows} == {"tensor", "channel_p10", "channel_median"}
    assert rows == [
        (
            curve.bits,
            curve.measure,
            pytest.approx(curve.thresholds.tolist(), rel=1e-15),
            pytest.approx(curve.sqnr_db.tolist(), **IN_DB),
            pytest.approx(curve.best_threshold, rel=1e-15),
        )
        for curve in curves
    ]


def test_a_layer_without_a_weight_has_no_curve_and_an_exact_one_has_gaps(add, ask):
    add(ON_GRID, np.zeros((2, 3)))
    assert ask("select distinct depth from clipping join layers using (layer_id)") == [(0,)]
    ((last,),) = ask("select sqnr_db[-1] from clipping where bits = 8 and measure = 'tensor'")
    assert last is None


def test_that_16_bits_are_not_enough_is_null(add, ask):
    add(np.array([[1.0] * 32, [1e-5] * 32, [5e-6, 2e-6] * 16]))
    needed = dict(ask("select granularity, bits from bits_needed"))
    assert needed["tensor"] is None
    assert needed["channel"] is not None


@pytest.mark.slow
def test_a_model_that_is_removed_and_stored_again_has_the_key_that_it_had(add, ask, path):
    first = add(GAUSSIAN, UNEVEN)
    layer_ids = ask("select layer_id from layers order by depth")
    with store.writing(path) as connection:
        store.remove_model(connection, first)
    assert add(GAUSSIAN, UNEVEN) == first
    assert ask("select layer_id from layers order by depth") == layer_ids


@pytest.mark.slow
def test_removing_a_model_removes_everything_about_it_and_nothing_else(add, ask, path):
    add(GAUSSIAN, name="stays")
    before = row_counts(ask)
    kept = ask("from layer_errors order by all")
    leaving = add(GAUSSIAN, UNEVEN, name="leaves")
    with store.writing(path) as connection:
        store.remove_model(connection, leaving)
    assert row_counts(ask) == before
    assert ask("from layer_errors order by all") == kept
    assert orphans(ask) == []


def test_removing_by_name_says_whether_there_was_such_a_model(add, ask, path):
    add(GAUSSIAN)
    with store.writing(path) as connection:
        assert not store.remove_model_named(connection, "other")
        assert store.remove_model_named(connection, "net")
    assert ask("from models") == []


@pytest.mark.slow
def test_a_model_can_be_taken_out_and_put_back_in_one_transaction(add, ask, path):
    model_id = add(GAUSSIAN)
    with store.writing(path) as connection:
        store.remove_model(connection, model_id)
        store.add_model(connection, model_record(), measured(GAUSSIAN, UNEVEN))
    assert ask("select count(*) from layers") == [(2,)]
    assert orphans(ask) == []


@pytest.mark.slow
def test_nothing_remains_of_a_model_that_fails_in_the_middle(add, ask, path):
    add(GAUSSIAN)
    before = row_counts(ask)
    (sound,) = measured(GAUSSIAN)
    nameless = dataclasses.replace(sound.errors[0], scheme=None)
    # models, layers and channels are written before errors fails.
    broken = dataclasses.replace(sound, errors=(nameless,))
    with pytest.raises(duckdb.ConstraintException), store.writing(path) as connection:
        store.add_model(connection, model_record("half"), [broken])
    assert row_counts(ask) == before


def whole_model(name, *tensors, **changes):
    """A model with a row in every table that is written with it."""
    ingest = records.IngestRecord(
        path=f"{name}.onnx",
        model=name,
        outcome="stored",
        message="",
        started_at=datetime(2026, 1, 2),
        finished_at=datetime(2026, 1, 2),
        seconds=0.5,
        peak_bytes=None,
        quantstore_version="0",
    )
    whole = records.ModelRecords(
        model=model_record(name),
        layers=tuple(measured(*tensors)),
        equalization=(
            records.EqualizationRecord(
                depth=0,
                partner_depth=1,
                scheme="int8_tensor_symmetric",
                channel_sqnr_p10_before_db=10.0,
                channel_sqnr_p10_after_db=20.0,
            ),
        ),
        graph_points=(
            records.GraphPointRecord(point=0, role="input", name="x", op_type=None, depth=None),
            records.GraphPointRecord(point=1, role="layer", name="conv0", op_type="Conv", depth=0),
        ),
        graph_edges=(records.GraphEdgeRecord(source_point=0, target_point=1, operators="{}"),),
        probes=(
            a_run(),
            a_run(minute=1, outputs=tuple(records.OutputRecord(output=name) for name in "yz")),
        ),
        findings=tuple(
            records.FindingRecord(
                depth=depth, kind="old opset", severity="note", message=name, remedy=""
            )
            for depth in (None, 1)
        ),
        ingest=ingest,
    )
    return dataclasses.replace(whole, **changes)


@pytest.mark.slow
def test_models_written_together_have_the_rows_that_they_have_when_written_one_by_one(
    path, tmp_path
):
    models = [whole_model("a", GAUSSIAN, UNEVEN), whole_model("b", UNEVEN, ON_GRID, GAUSSIAN)]
    one_by_one = Path(shutil.copy(path, tmp_path / "one_by_one.duckdb"))
    with store.writing(path) as connection:
        model_ids = store.write_models(connection, models)
    names = {"a": model_ids[0], "b": model_ids[1]}
    assert dict(asker(path)("select model, model_id from models")) == names
    for whole in models:
        with store.writing(one_by_one) as connection:
            store.write_models(connection, [whole])
    together, apart = (every_row(file) for file in (path, one_by_one))
    assert together == apart
    written = ("layers", "stored_errors", "equalization", "graph_edges", "findings", "ingests")
    assert all(len(together[table]) >= 2 for table in (*written, "simulation_outputs"))
    assert orphans(asker(path)) == []


@pytest.mark.slow
def test_of_models_written_together_all_are_there_or_none(path, add, ask):
    add(GAUSSIAN)
    before = row_counts(ask)
    (sound,) = measured(GAUSSIAN)
    nameless = dataclasses.replace(sound.errors[0], scheme=None)
    broken = dataclasses.replace(sound, errors=(nameless,))
    for last in (
        whole_model("c", GAUSSIAN, UNEVEN, layers=(sound, broken)),
        # A name that is taken, by other content that is stored, and content twice in a batch.
        whole_model("net", GAUSSIAN, UNEVEN, model=model_record("net", sha256="other")),
        whole_model("a", GAUSSIAN, UNEVEN),
    ):
        models = [whole_model("a", GAUSSIAN, UNEVEN), whole_model("b", UNEVEN, GAUSSIAN), last]
        with pytest.raises(duckdb.ConstraintException), store.writing(path) as connection:
            store.write_models(connection, models)
        assert row_counts(ask) == before


def test_writing_no_model_writes_nothing(path, ask):
    before = row_counts(ask)
    with store.writing(path) as connection:
        assert store.write_models(connection, []) == []
    assert row_counts(ask) == before


def test_a_block_that_raises_changes_nothing(add, ask, path):
    add(GAUSSIAN)
    with contextlib.suppress(ZeroDivisionError), store.writing(path) as connection:
        connection.rows("delete from models")
        raise ZeroDivisionError
    assert ask("select model from models") == [("net",)]


def test_a_store_whose_first_model_fails_is_still_empty(tmp_path):
    path = tmp_path / "new.duckdb"
    with pytest.raises(ZeroDivisionError), store.writing(path):
        raise ZeroDivisionError
    with store.reading(path) as connection:
        assert connection.value("select count(*) from models") == 0


def test_content_that_is_stored_again_is_there_once_as_it_was_measured_last(path, ask):
    with store.writing(path) as connection:
        store.add_model(connection, model_record("a", sha256="same"), measured(GAUSSIAN, UNEVEN))
    again = model_record("b", sha256="same")
    with store.writing(path) as connection:
        store.add_model(connection, again, measured(GAUSSIAN))
    assert ask("select model, count(*) from model_layers group by all") == [("b", 1)]
    assert orphans(ask) == []


# --- what is not defined is NULL ---------------------------------------------------------------


def test_nan_and_infinity_become_null(add, ask, path):
    add(ON_GRID, np.zeros((2, 3)), np.full((2, 2), np.nan))
    doubles = ask(
        "select table_name, column_name from duckdb_columns()"
        " where list_contains(?, table_name) and data_type in ('DOUBLE', 'FLOAT')"
        " and not internal",
        list(TABLE_OF),
    )
    assert len(doubles) > 30
    undefined = [
        f"select '{table}.{column}' from {table} where not isfinite({column})"
        for table, column in doubles
    ]
    assert ask(" union all ".join(undefined)) == []
    ((sqnr_db, p10_db),) = ask(
        "select sqnr_db, channel_sqnr_p10_db from layer_errors"
        " where layer = 'conv0' and scheme = 'int8_tensor_symmetric'"
    )
    assert (sqnr_db, p10_db) == (None, None)
    ((kurtosis, std, ratio),) = ask(
        "select kurtosis, std, range_over_std from layers where layer = 'conv1'"
    )
    assert (kurtosis, std, ratio) == (None, 0, None)
    assert ask("select nonfinite_count, mean from layers where layer = 'conv2'") == [(4, None)]


def test_integers_with_nulls_stay_integers_in_a_frame(path, add):
    add(GAUSSIAN)
    with store.reading(path) as connection:
        levels = connection.frame("select levels_used, sqnr_db from errors order by all")
        assert isinstance(levels["levels_used"].dtype, pd.Int32Dtype | pd.Int64Dtype)
        shared = sum(scheme.granularity == "tensor" for scheme in SCHEMES.values())
        assert levels["levels_used"].isna().sum() == len(SCHEMES) - shared
        assert levels["sqnr_db"].dtype == np.float64
        whole = connection.frame("select channel from channels")
        assert whole["channel"].dtype.kind == "i"
        large = connection.frame("select unnest([9007199254740993, null]) as large")
        assert large["large"][0] == 2**53 + 1  # a float64 cannot hold it
        nothing = connection.frame("select levels_used from errors where scheme = 'none'")
        assert list(nothing.columns) == ["levels_used"]


def test_values_reach_sql_as_parameters(path, add):
    add(GAUSSIAN, name="it's; drop table models")
    with store.reading(path) as connection:
        found = connection.value(
            "select layer_count from models where model = ?", ["it's; drop table models"]
        )
        assert found == 1
        named = connection.frame("select $number + 1 as next", {"number": 41})
        assert named["next"].tolist() == [42]
        assert connection.value("select 1 where false") is None


def test_a_model_is_found_by_name_or_by_content(path, add):
    model_id = add(GAUSSIAN)
    with store.reading(path) as connection:
        assert store.find_model(connection, "net") == model_id
        assert store.model_with_content(connection, "hash of net", True) == store.StoredModel(
            model_id, "net", 1, tuple(SCHEMES)
        )
        assert store.model_with_content(connection, "hash of net", False) is None
        with pytest.raises(UnknownModelError, match="no model named 'other'") as caught:
            store.find_model(connection, "other")
    assert caught.value.exit_code == 2


# --- runs --------------------------------------------------------------------------------------


def test_a_run_keeps_what_it_was_for_and_what_stayed_in_float(add, ask, path):
    model_id = add(GAUSSIAN)
    with store.writing(path) as connection:
        run = a_run(target="int8_channel", float_layers=("LSTM_0",), cpu_seconds=2.5)
        store.add_simulation(connection, model_id, run, [a_tensor(0, 20.0, channel_count=8)])
        store.add_simulation(connection, model_id, a_run(target=None, calibration_count=None))
    columns = "target, float_layers, calibration_count, cpu_seconds"
    assert ask(f"select {columns} from simulations order by target nulls last") == [
        ("int8_channel", ["LSTM_0"], 0, 2.5),
        (None, [], None, None),
    ]
    assert ask("select channel_sqnr_p10_db, channel_count from activation_errors") == [(None, 8)]


def test_what_is_quantized_one_at_a_time_is_a_layer_or_a_tensor(add, ask, path):
    model_id = add(GAUSSIAN)
    tensor = a_sensitivity(None, 20.0, unit="sum", unit_kind="tensor", node_name="Add_1")
    with store.writing(path) as connection:
        store.add_sensitivities(connection, model_id, [a_sensitivity(0, 30.0), tensor])
        for_target = a_sensitivity(0, 25.0, target="int8_weights", unit_kind="weights")
        store.add_sensitivities(connection, model_id, [for_target])
        # Of the same target, it takes the place of both.
        store.add_sensitivities(connection, model_id, [a_sensitivity(0, 31.0)])
    columns = "target, layer_id is null, unit, unit_kind, node_name, output_sqnr_db"
    assert ask(f"select {columns} from sensitivities order by output_sqnr_db") == [
        ("int8_weights", False, "conv0", "weights", None, 25.0),
        (None, False, "conv0", "layer", None, 31.0),
    ]


@pytest.mark.slow
def test_the_outputs_of_a_run_belong_to_it(add, ask, path):
    model_id = add(GAUSSIAN)
    outputs = (
        records.OutputRecord(output="boxes", sqnr_db=33.0, varying_sqnr_db=31.0, point="boxes"),
        records.OutputRecord(
            output="boxes", part="scores", point="before Sigmoid", sqnr_db=12.0, decision_f1=0.5,
            decisions=40,
        ),
        records.OutputRecord(output="mask", decides=False),
    )  # fmt: skip
    run = a_run(22.5, deciding_sqnr_db=12.0, tail_sqnr_db=9.0, provisional="noise", outputs=outputs)
    with store.writing(path) as connection:
        store.add_simulation(connection, model_id, run)
    assert ask("select deciding_sqnr_db, tail_sqnr_db, provisional from simulations") == [
        (12.0, 9.0, "noise")
    ]
    assert ask("select * exclude (simulation_id) from simulation_outputs order by all") == [
        ("boxes", "scores", "before Sigmoid", 12.0, None, 0.5, 40, True),
        ("boxes", None, "boxes", 33.0, 31.0, None, None, True),
        ("mask", None, None, None, None, None, None, False),
    ]
    with store.writing(path) as connection:
        # The latest probe takes the place of the one before, with what belongs to it.
        store.replace_probe(connection, model_id, a_run(22.5, outputs=outputs[:1]))
    assert ask("select count(*) from simulation_outputs") == [(1,)]
    with store.writing(path) as connection:
        store.remove_model(connection, model_id)
    assert ask("from simulation_outputs") == []


def test_the_answers_of_a_run_belong_to_it(add, ask, path):
    model_id = add(GAUSSIAN)
    answers = (
        records.AnswerRecord(
            input_name="cat.jpg", rank=1, sqnr_db=9.5, form="boxes", is_shown=True, kept=2, lost=1,
            gained=0, kept_by_heads=3, score_change=-0.5, float_answer="{}", int8_answer="{}",
            picture=b"\xff\xd8",
        ),
        records.AnswerRecord(
            input_name="dog.jpg", rank=2, sqnr_db=math.inf, form="none", is_shown=False
        ),
    )  # fmt: skip
    with store.writing(path) as connection:
        store.add_simulation(connection, model_id, a_run(22.5, answers=answers))
    assert ask("select * exclude (simulation_id) from simulation_answers order by rank") == [
        (
            "cat.jpg",
            1,
            9.5,
            "boxes",
            True,
            2,
            3,
            1,
            0,
            -0.5,
            None,
            None,
            None,
            "{}",
            "{}",
            b"\xff\xd8",
        ),
        ("dog.jpg", 2, None, "none", False, *[None] * 11),
    ]
    with store.writing(path) as connection:
        store.remove_model(connection, model_id)
    assert ask("from simulation_answers") == []


def test_a_set_that_returns_to_float_belongs_to_its_run(add, ask, path):
    model_id = add(GAUSSIAN)
    steps = [
        records.FloatSetRecord(
            goal_db=30.0, position=at, unit=unit, unit_kind="tensor", output_sqnr_db=db
        )
        for at, (unit, db) in enumerate([("sum", 21.0), ("mask", 31.0)])
    ]
    with store.writing(path) as connection:
        run = store.add_simulation(connection, model_id, a_run())
        store.add_float_set(connection, run, steps)
        store.add_float_set(connection, run, [dataclasses.replace(steps[0], goal_db=20.0)])
        # A new search for a goal takes the place of the former one.
        store.add_float_set(connection, run, steps)
    found = ask("select goal_db, position, unit, output_sqnr_db from float_sets order by all")
    assert found == [(20.0, 0, "sum", 21.0), (30.0, 0, "sum", 21.0), (30.0, 1, "mask", 31.0)]
    with store.writing(path) as connection:
        store.remove_model(connection, model_id)
    assert ask("from float_sets") == []


@pytest.mark.slow
def test_a_rescue_is_written_whole_and_goes_with_its_model(add, ask, path):
    model_id = add(GAUSSIAN)
    with store.writing(path) as connection:
        store.add_rescue(connection, model_id, a_rescue())
    assert ask("select target, before_db, file_db, allowed, reached from rescues") == [
        ("int8_channel", 8.0, 24.75, ["depthwise", "rounding", "int16"], True)
    ]
    # Nothing was lost by the emulator: there is no number for it.
    assert ask("select float_check_db from rescues") == [(None,)]
    assert ask("select remedy, kept from rescue_steps order by step") == [
        ("placement", True), ("depthwise", True), ("ranges", False), ("int16", True),
    ]  # fmt: skip
    assert ask(
        "select unit, layer, rank from rescue_units left join layers using (layer_id) order by unit"
    ) == [("Relu_0", None, 0), ("conv0", "conv0", None)]
    assert ask("select kind, bytes from rescue_files") == [("rescued", 12345)]
    # Nothing is lost in the first layer any more.
    assert ask("select before_db, after_db from rescue_drift order by depth") == [
        (20.0, None), (6.0, 26.5),
    ]  # fmt: skip
    with store.writing(path) as connection:
        store.remove_model(connection, model_id)
    for table in ("rescues", "rescue_steps", "rescue_units", "rescue_files", "rescue_drift"):
        assert ask(f"from {table}") == []


def test_verdicts_know_the_file_of_the_latest_rescue(add, ask, path):
    model_id = add(GAUSSIAN)
    question = "select rescued_db from verdicts where target = 'int8_channel'"
    assert ask(question) == [(None,)]
    with store.writing(path) as connection:
        store.add_rescue(connection, model_id, a_rescue(after=23.0, minute=1))
        store.add_rescue(connection, model_id, a_rescue(after=25.0, minute=2))
        store.add_rescue(connection, model_id, a_rescue(after=40.0, minute=3, is_proposal=True))
        store.add_rescue(connection, model_id, a_rescue("int8_tensor", after=30.0, minute=4))
    assert ask(question) == [(24.75,)]


# --- views -------------------------------------------------------------------------------------


def test_every_layer_is_in_exactly_one_band(add, ask):
    add(GAUSSIAN, UNEVEN, ON_GRID)
    rows = ask("""
        select target, layers_broken + layers_at_risk + layers_watch + layers_fine from verdicts
    """)
    # Dynamic quantization leaves convolutions in float.
    assert dict(rows) == dict.fromkeys(TARGETS, 3) | {"int8_dynamic": 0}


def band(ask, weights_depth, scheme="int8_tensor_symmetric"):
    sql = "select band from layer_errors where depth = ? and scheme = ?"
    return ask(sql, weights_depth, scheme)[0][0]


def test_a_layer_that_comes_back_exactly_is_fine(add, ask):
    add(ON_GRID, np.zeros((2, 3)))
    assert [band(ask, 0), band(ask, 1)] == ["fine", "fine"]
    verdict = ask(
        "select verdict, layers_fine, worst_channel_sqnr_p10_db from verdicts"
        " where target = 'int8_tensor'"
    )
    assert verdict == [("untested", 2, None)]


def test_a_model_breaks_under_the_targets_that_break_a_layer(add, ask):
    add(GAUSSIAN, UNEVEN)
    verdicts = dict(ask("select target, verdict from verdicts"))
    assert verdicts.keys() == TARGETS.keys()
    assert {name for name, verdict in verdicts.items() if verdict == "broken"} == {
        "int8_tensor",
        "int8_tensor_power_of_two",
    }
    worst = ask(
        "select worst_layer, layers_broken, channels_below_10db, channel_count,"
        " broken_weight_share, evidence, mode, output_sqnr_db from verdicts"
        " where target = 'int8_tensor'"
    )
    assert worst == [("conv1", 1, 9, 20, 0.5, "weights", "weights", None)]


@pytest.fixture(scope="module")
def store_of_one_layer(empty_store, tmp_path_factory):
    path = Path(shutil.copy(empty_store, tmp_path_factory.mktemp("one") / "one.duckdb"))
    with store.writing(path) as connection:
        store.add_model(connection, model_record(), measured(GAUSSIAN))
    return path


@pytest.mark.parametrize(
    ("p10_db", "expected"),
    [
        (30, "fine"),
        (29.999, "watch"),
        (20, "watch"),
        (19.999, "at risk"),
        (10, "at risk"),
        (9.999, "broken"),
        (-3, "broken"),
        (None, "fine"),
    ],
)
def test_the_limits_of_the_bands(store_of_one_layer, p10_db, expected):
    with store.writing(store_of_one_layer) as connection:
        connection.rows("update stored_errors set channel_sqnr_p10_db = ?", [p10_db])
        renew_totals(connection._connection)
        bands = connection.rows("select distinct band from layer_errors")
        verdicts = connection.rows("select distinct verdict from verdicts")
    assert bands == [(expected,)]
    assert ("untested" if expected in ("watch", "fine") else expected,) in verdicts


def test_changing_the_limits_changes_the_verdict(add, ask, path):
    add(UNEVEN)
    verdict = "select verdict from verdicts where target = 'int8_tensor'"
    assert ask(verdict) == [("broken",)]
    with store.writing(path) as connection:
        connection.rows("update bands set lower_db = -1 where band = 'at risk'")
    assert ask(verdict) == [("at risk",)]


def test_bins_cover_the_range_and_hold_every_weight(add, ask):
    add(GAUSSIAN)
    ((bins, weights, low, high, gap),) = ask("""
        select count(*), sum(weights), min(bin_low), max(bin_high), max(bin_low - previous)
        from (select *, lag(bin_high) over (order by bin) as previous from histogram_bins)
    """)
    assert (bins, weights) == (2048, GAUSSIAN.size)
    assert (low, high) == (GAUSSIAN.min(), GAUSSIAN.max())
    assert gap == pytest.approx(0, abs=1e-12)


def test_span_over_rms_predicts_sqnr(add, ask):
    # 58.9 - 20 log10 of it, in dB, as the column comments say.
    add(np.random.default_rng(2).normal(size=(50, 1000)))
    for granularity in ("symmetric", "asymmetric"):
        ((predicted, sqnr_db),) = ask(
            f"select 58.9 - 20 * log10({granularity}_span_over_rms), sqnr_db"
            " from model_layers join errors using (layer_id)"
            f" where scheme = 'int8_tensor_{granularity}'"
        )
        assert predicted == pytest.approx(sqnr_db, abs=0.1)


def test_the_summary_has_one_row_per_model(add, ask):
    add(GAUSSIAN, UNEVEN, name="two")
    add(ON_GRID, name="one")
    rows = ask(
        "select model, channel_count, max_weight_range, channel_spread_p90_bits"
        " from model_summary order by model"
    )
    assert [(model, channels) for model, channels, _, _ in rows] == [("one", 1), ("two", 20)]
    assert rows[0][2:] == (254, 0)
    assert rows[1][2] == pytest.approx(np.ptp(UNEVEN))
    assert rows[1][3] > 8


# --- several at a time -------------------------------------------------------------------------


HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "read")
print("holding", flush=True)
sys.stdin.readline()
connection.close()
"""


@pytest.fixture
def hold(path):
    """Lets another process hold the store, for reading or writing, until its input is closed."""
    started = []

    def start(how):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "holding\n"
        return process

    yield start
    for process in started:
        process.communicate(timeout=10)


@pytest.mark.parametrize(
    ("how", "opening"),
    [
        pytest.param("write", store.reading, id="reader and writer"),
        pytest.param("write", store.writing, id="two writers", marks=pytest.mark.slow),
        pytest.param("read", store.writing, id="writer and reader", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_a_store_held_by_another_process_is_named_with_that_process(add, path, hold, how, opening):
    add(GAUSSIAN)
    holder = hold(how)
    started = time.monotonic()
    with pytest.raises(LockedStoreError) as caught, opening(path, wait_seconds=0.3):
        pass
    assert time.monotonic() - started >= 0.3
    assert f"{IN_USE_BY_PROCESS} {holder.pid} (python" in caught.value.sentence
    assert caught.value.exit_code == 3


@pytest.mark.slow
def test_two_processes_may_read_at_the_same_time(add, path, hold):
    add(GAUSSIAN)
    hold("read")
    with store.reading(path, wait_seconds=0) as connection:
        assert connection.value("select count(*) from models") == 1


@pytest.mark.slow
def test_a_writer_waits_for_a_reader_that_lets_go(add, path, hold):
    add(GAUSSIAN)
    holder = hold("read")
    timer = threading.Timer(0.3, holder.stdin.close)
    timer.start()
    with store.writing(path, wait_seconds=20) as connection:
        assert not timer.is_alive()
        assert connection.value("select count(*) from models") == 1
    holder.stdin = None


@pytest.mark.slow
def test_a_writer_waits_for_a_reader_in_the_same_process(add, path):
    add(GAUSSIAN)
    reading, release = threading.Event(), threading.Event()

    def read():
        with store.reading(path):
            reading.set()
            release.wait(10)

    thread = threading.Thread(target=read)
    thread.start()
    reading.wait(10)
    with pytest.raises(LockedStoreError, match=IN_USE_HERE):
        store.writing(path, wait_seconds=0.1).__enter__()
    threading.Timer(0.2, release.set).start()
    with store.writing(path, wait_seconds=20) as connection:
        connection.rows("delete from models")
    thread.join()


@pytest.mark.slow
def test_writers_wait_for_one_another(tmp_path):
    path = tmp_path / "new.duckdb"
    names = [f"net{number}" for number in range(6)]
    measures = measured(GAUSSIAN)

    # Whoever comes first makes the store.
    def write(name):
        with store.writing(path) as connection:
            store.add_model(connection, model_record(name), measures)

    threads = [threading.Thread(target=write, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.reading(path) as connection:
        assert connection.rows("select model from models order by model") == [(n,) for n in names]
