"""quantstore from Python: what a notebook sees, and what it may rely on."""

import dataclasses
import math
import shutil
import subprocess
import sys
import typing

import duckdb
import pandas as pd
import pytest

import quantstore
from quantstore import checks, queries, store
from quantstore.errors import (
    DamagedStoreError,
    InputsError,
    LimitsError,
    MissingStoreError,
    RejectedQueryError,
    UnknownLayerError,
    UnknownModelError,
    UnknownTargetError,
)
from quantstore.store.statements import ONLY_SELECT
from tests.support import fake_rescue

DEMO_MODELS = ["digits-plain", "digits-rescaled", "digits-separable", "digits-separable-unfolded"]


@pytest.fixture
def demo(demo_store):
    """The demo models. Read it, never write to it."""
    return quantstore.open_store(demo_store)


@pytest.fixture
def own(demo_store, tmp_path):
    """A store to write to."""
    return quantstore.open_store(shutil.copy(demo_store, tmp_path / "own.duckdb"))


# The module itself.


def test_importing_quantstore_loads_nothing_heavy():
    program = "import quantstore, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = {name for name in loaded if name.startswith("quantstore.")}
    heavy = {"numpy", "pandas", "pyarrow", "duckdb", "onnx", "onnx_ir", "onnxruntime", "click"}
    assert ours | heavy & set(loaded) == {"quantstore.version"}


def test_every_public_name_is_there_and_explained():
    assert set(quantstore.__all__) <= set(dir(quantstore))
    for name in quantstore.__all__:
        assert getattr(quantstore, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        quantstore.nope  # noqa: B018
    for name, method in vars(quantstore.Store).items():
        if callable(method) and not name.startswith("_"):
            assert method.__doc__, name
            assert "return" in typing.get_type_hints(method, localns=_later_types()), name


def _later_types():
    import pyarrow as pa

    from quantstore.charts.common import AnyChart
    from quantstore.charts.layer import ChannelOrder
    from quantstore.charts.palette import ThemeName
    from quantstore.charts.revisions import PairOrder
    from quantstore.pipeline.audits import DoneAudit
    from quantstore.pipeline.rescues import DoneRescue
    from quantstore.pipeline.runs import Done
    from quantstore.run.choices import Choices, Progress

    return {
        "pa": pa,
        "AnyChart": AnyChart,
        "ChannelOrder": ChannelOrder,
        "ThemeName": ThemeName,
        "PairOrder": PairOrder,
        "Choices": Choices,
        "Progress": Progress,
        "Done": Done,
        "DoneAudit": DoneAudit,
        "DoneRescue": DoneRescue,
    }


# Asking.


def test_models_layers_and_channels_are_the_frames_of_the_pages(demo, demo_store):
    with store.reading(demo_store) as connection:
        pd.testing.assert_frame_equal(demo.models(), queries.models(connection))
        layers = queries.worst_layers(connection, "digits-plain", "int8_channel_symmetric")
        pd.testing.assert_frame_equal(
            demo.layers("digits-plain", scheme="int8_channel_symmetric"), layers
        )
        first = layers.iloc[0]
        pd.testing.assert_frame_equal(
            demo.channels("digits-plain", first["layer"]),
            queries.layer_channel_rows(
                connection, int(first["layer_id"]), "int8_tensor_symmetric", order="by index"
            ),
        )
        assert len(demo.schema()) == len(queries.schema(connection))


def test_a_layer_is_found_by_its_operand_where_a_node_has_several(own):
    with store.writing(own.path) as connection:
        (model_id,) = connection.rows("select min(model_id) from models")[0]
        connection.rows(
            "update layers set layer = 'x' where model_id = ? and depth < 2", [model_id]
        )
        connection.rows(
            "update layers set operand = 'R' where model_id = ? and depth = 1", [model_id]
        )
        model = connection.value("select model from models where model_id = ?", [model_id])
    assert len(own.channels(model, "x", "R"))
    with pytest.raises(UnknownLayerError, match="stands for several layers"):
        own.channels(model, "x")
    with pytest.raises(UnknownLayerError, match="no layer named 'x' with the operand 'B'"):
        own.channels(model, "x", "B")
    with pytest.raises(UnknownLayerError, match="no layer named 'nope'"):
        own.channels(model, "nope")


def test_a_verdict_is_a_row_of_the_view_and_a_sentence(demo):
    verdict = demo.verdict("digits-rescaled", "int8_tensor")
    assert str(verdict) == "broken: 8 layers, weights only, model not run"
    assert (verdict.verdict, verdict.evidence, verdict.output_sqnr_db) == (
        "broken",
        "weights",
        None,
    )
    rows = demo.verdicts().set_index(["model", "target"])
    row = rows.loc["digits-rescaled", "int8_tensor"]
    for field in dataclasses.fields(verdict):
        value = getattr(verdict, field.name)
        if field.name in row and value is not None:
            assert value == row[field.name], field.name
    default = demo.verdict("digits-rescaled")
    assert (default.target, default.verdict, default.reason) == (
        *("int8_channel", "untested", "not measured"),
    )
    assert "quantstore probe digits-rescaled --target int8_channel" in str(default)


def test_compare_keeps_the_order_given(demo):
    names = ["digits-separable", "digits-plain", "digits-separable"]
    frame = demo.compare(names, "int8_weights")
    assert frame["model"].tolist() == names[:2]
    assert set(frame["target"]) == {"int8_weights"}


def test_a_diff_is_the_frame_of_the_revisions_page_the_worst_change_first(demo, demo_store):
    before, after = "digits-separable", "digits-rescaled"
    changed = demo.diff(before, after)
    with store.reading(demo_store) as connection:
        expected = queries.revision_changes(connection, before, after, "int8_tensor_symmetric")
    assert sorted(changed["layer_id_after"]) == sorted(expected["layer_id_after"])
    assert changed["change_db"].iloc[0] == changed["change_db"].min() < -1
    assert set(demo.diff(before, before)["outcome"]) == {"unchanged"}


@pytest.mark.slow
def test_a_report_is_a_file_to_send(demo, tmp_path):
    path = demo.report(["digits-plain", "digits-rescaled"], tmp_path / "digits.html")
    assert path == tmp_path / "digits.html"
    page = path.read_text("utf-8")
    assert "digits-rescaled" in page
    with pytest.raises(quantstore.QuantstoreError, match="cannot be written"):
        demo.report("digits-plain", tmp_path / "none" / "digits.html")


def test_one_name_is_one_model_and_not_its_letters(demo):
    assert demo.compare("digits-plain")["model"].tolist() == ["digits-plain"]


def test_limits_that_are_none_are_a_sentence(demo):
    with pytest.raises(LimitsError, match=r"quantstore\.Limits, not dict") as caught:
        demo.check("digits-plain", {"min-sqnr-db": 20})
    assert "Limits(min_sqnr_db=20)" in caught.value.hint


@pytest.mark.slow
def test_check_takes_limits_of_python_and_of_a_file(demo, tmp_path):
    (check,) = demo.check("digits-rescaled")
    assert (check.check, check.outcome) == ("verdict", "not measured")
    limits = quantstore.Limits(max_broken_layers=0, scheme="int8_tensor_symmetric")
    held = [check.is_held for check in demo.check(["digits-plain", "digits-rescaled"], limits)]
    assert held == [True, False]
    path = tmp_path / "gate.toml"
    path.write_text('[check.models."*-rescaled"]\nmax-broken-layers = 8')
    plain, rescaled = demo.check(["digits-plain", "digits-rescaled"], checks.read_config(path))
    assert (plain.check, rescaled.check, rescaled.is_held) == ("verdict", "max-broken-layers", True)


@pytest.mark.parametrize(
    "ask",
    [
        lambda demo: demo.layers("nope"),
        lambda demo: demo.channels("nope", "layer"),
        lambda demo: demo.verdict("nope"),
        lambda demo: demo.compare(["digits-plain", "nope"]),
        lambda demo: demo.check("nope"),
        lambda demo: demo.remove("nope"),
        lambda demo: demo.diff("digits-plain", "nope"),
        lambda demo: demo.report(["digits-plain", "nope"], "never.html"),
    ],
)
def test_an_unknown_model_is_an_error_everywhere(demo, ask):
    with pytest.raises(UnknownModelError, match="'nope'"):
        ask(demo)


@pytest.mark.parametrize(
    ("method", "message", "other"),
    [
        ("layers", "no scheme 'int9'", "int8_channel_symmetric"),
        ("verdict", "no target 'int9'", "int8_channel_fused"),
        ("compare", "no target 'int9'", "int8_channel_fused"),
    ],
)
@pytest.mark.parametrize("kind", [quantstore.QuantstoreError, ValueError])
def test_an_unknown_name_is_an_error_that_names_the_others(demo, method, message, other, kind):
    with pytest.raises(kind, match=message) as caught:
        getattr(demo, method)("digits-plain", "int9")
    assert other in caught.value.sentence


# SQL.


def test_a_query_is_a_frame_or_an_arrow_table(demo):
    sql = "select model, layer_count from models order by model"
    assert demo.query(sql)["model"].tolist() == DEMO_MODELS
    assert demo.query_arrow(sql).column("model").to_pylist() == DEMO_MODELS


def test_values_are_parameters(demo):
    by_place = demo.query("from models where model = ? and layer_count > ?", ["digits-plain", 1])
    by_name = demo.query("from models where model = $name", {"name": "digits-plain"})
    assert len(by_place) == len(by_name) == 1
    # A value out of a frame is numpy's.
    layer_id = demo.layers("digits-plain").iloc[0]["layer_id"]
    assert len(demo.query("from layers where layer_id = ?", [layer_id])) == 1
    assert demo.query("select ? as text", ["'; drop table models"]).iloc[0, 0].startswith("'")


def test_what_null_means_in_a_frame(demo):
    frame = demo.query("select null::double as f, null::int as i, null::varchar as t, 1.5 as d")
    assert math.isnan(frame["f"][0])
    assert frame["i"][0] is pd.NA
    assert frame["t"].isna()[0]
    assert frame["d"].dtype == float
    table = demo.query_arrow("select null::double as f, 'nan'::double as n")
    assert table.column("f").to_pylist() == [None]
    assert math.isnan(table.column("n")[0].as_py())


def test_files_of_the_caller_are_within_reach(demo, tmp_path):
    (tmp_path / "labels.csv").write_text("model,task\ndigits-plain,digits\n")
    frame = demo.query(f"select task from '{tmp_path}/labels.csv' join models using (model)")
    assert frame["task"].tolist() == ["digits"]


@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("delete from models", ONLY_SELECT),
        ("copy models to 'out.csv'", ONLY_SELECT),
        ("select 1; select 2", "2 statements"),
        ("select weight_rang from layers", "did you mean weight_range"),
        ("select modl,\n from models", "at line 1, column 8"),
        ("select 'x'::int", "Could not convert string 'x'"),
        ("select ?", "parameter"),
        ("from 'none.csv'", 'No files found that match the pattern "none.csv"'),
        ("from 'https://example.com/x.parquet'", "requires the extension httpfs"),
    ],
)
def test_a_wrong_query_is_a_sentence(demo, sql, part):
    with pytest.raises(RejectedQueryError) as caught:
        demo.query(sql)
    assert part in caught.value.sentence
    assert "{" not in caught.value.sentence


# Opening, filling, clearing.


def test_a_store_keeps_nobody_out(own):
    own.models()
    with duckdb.connect(own.path) as other:
        other.execute("update models set note = 'x'")
    assert set(own.models()["note"]) == {"x"}


def test_the_store_is_by_default_the_one_of_the_command_line(tmp_path, monkeypatch, demo_store):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUANTSTORE_DB", raising=False)
    missing = quantstore.open_store()
    assert missing.path.name == "quantstore.duckdb"
    assert not missing.path.exists()
    with pytest.raises(MissingStoreError):
        missing.models()
    monkeypatch.setenv("QUANTSTORE_DB", str(demo_store))
    assert len(quantstore.open_store().models()) == 4


def test_a_file_that_is_no_store_shows_when_it_is_opened(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DamagedStoreError):
        quantstore.open_store(tmp_path / "notes.txt")


@pytest.mark.slow
def test_ingest_tells_what_became_of_each_file_in_their_order(tmp_path):
    models = quantstore.demo_models()
    seen = []
    results = quantstore.ingest(
        [*models[:1], tmp_path / "none.onnx", tmp_path / "*.onnx"],
        tmp_path / "new.duckdb",
        probe=False,
        jobs=1,
        progress=seen.append,
    )
    assert [result.outcome for result in results] == ["failed", "stored", "failed"]
    assert [result.path for result in results][1] == str(models[0])
    assert len(seen) == 3
    again = quantstore.ingest(models[0], tmp_path / "new.duckdb", probe=False)
    assert [result.outcome for result in again] == ["already stored"]
    with pytest.raises(ValueError, match="for one file, and these are 4"):
        quantstore.ingest(models, tmp_path / "new.duckdb", name="x")


@pytest.mark.slow
def test_targets_are_measured_by_name_or_by_file(own):
    frame = quantstore.probe("digits-plain", ["int8_dynamic", "int4_weights"], own)
    assert frame["target"].tolist() == ["int8_dynamic", "int4_weights"]
    assert frame["model"].tolist() == ["digits-plain"] * 2
    assert frame["failure"].isna().all()
    stored = own.query("select target, output_sqnr_db from simulations order by target desc")
    pd.testing.assert_frame_equal(stored, frame[["target", "output_sqnr_db"]])

    seen = []
    file = next(path for path in quantstore.demo_models() if path.stem == "digits-plain")
    again = own.probe(file, "int8_dynamic", progress=seen.append)
    assert again["output_sqnr_db"].tolist() == frame["output_sqnr_db"].tolist()[:1]
    assert seen
    # No time: the reason is told, and the figure stays.
    late = own.probe("digits-plain", "int8_dynamic", seconds=0.001)
    assert late["failure"][0].startswith("stopped")
    assert late["kept_sqnr_db"].tolist() == again["output_sqnr_db"].tolist()


@pytest.mark.parametrize("kind", [quantstore.QuantstoreError, ValueError])
def test_an_unknown_target_is_an_error_that_names_the_others(demo, kind):
    with pytest.raises(kind, match="there is no target 'nope'"):
        demo.probe("digits-plain", "nope")


@pytest.mark.slow
def test_a_rescue_is_stored_and_its_files_are_where_they_were_asked_for(own, tmp_path, monkeypatch):
    fake_rescue.install(tmp_path / "in-the-child", monkeypatch)
    file = next(path for path in quantstore.demo_models() if path.stem == "digits-rescaled")
    seen = []
    done = quantstore.rescue(
        file, "photos", own, output=tmp_path / "out", allow=("ranges",), progress=seen.append
    )
    record = done.rescue.record
    assert (record.target, record.allowed) == ("int8_channel", ("ranges",))
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == sorted(
        fake_rescue.FILES.values()
    )
    assert seen
    # Without a folder no file is kept.
    again = own.rescue(str(file), tmp_path / "photos", target="int8_tensor")
    assert again.rescue.record.files == ()
    assert set(own.rescues("digits-rescaled")["target"]) == {"int8_tensor", "int8_channel"}
    assert own.rescues()["rescue_id"].nunique() == 2
    assert own.rescues("digits-plain").empty


@pytest.mark.slow
def test_quantstore_rescue_is_a_function_whatever_was_imported():
    program = (
        "import quantstore.rescuing.rescue, quantstore.pipeline.rescues, quantstore\n"
        "print(callable(quantstore.rescue), quantstore.rescue.__module__)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == ["True", "quantstore.api"]


def test_a_target_without_calibrated_scales_cannot_be_rescued(demo):
    with pytest.raises(UnknownTargetError, match="there is no target 'nope'"):
        demo.rescue("m.onnx", "noise", target="nope")
    with pytest.raises(InputsError, match="int8_dynamic cannot be rescued"):
        demo.rescue("m.onnx", "noise", target="int8_dynamic")
    with pytest.raises(UnknownModelError):
        demo.rescues("nope")


def test_remove_takes_a_model_out(own):
    own.remove("digits-plain")
    assert own.models()["model"].tolist() == DEMO_MODELS[1:]


@pytest.mark.slow
def test_a_script_without_a_guard_may_ingest_several_files_at_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import quantstore\n"
        "print('begin')\n"
        "store = quantstore.open_store('own.duckdb')\n"
        "models = quantstore.demo_models()[:2]\n"
        "done = quantstore.ingest(models, store, probe=False, jobs=2)\n"
        "print(*[one.outcome for one in done])\n"
    )
    said = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said.stdout.split() == ["begin", "stored", "stored"], said.stderr
