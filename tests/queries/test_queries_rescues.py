"""What pages and commands ask of rescues: all of a model, the latest per target, what is in one."""

import math
import shutil
from dataclasses import replace

import pytest

from quantstore import queries, store
from tests.support.runs import a_rescue, layer_names

MODEL = "digits-plain"


@pytest.fixture
def path(demo_store, tmp_path):
    path = tmp_path / "rescues.duckdb"
    shutil.copy(demo_store, path)
    return path


@pytest.fixture
def rescue(path):
    """Store a rescue; returns its key."""

    def rescue(*arguments, model=MODEL, **changes):
        with store.writing(path) as con:
            record = a_rescue(*arguments, **changes)
            return store.add_rescue(con, store.find_model(con, model), record)

    return rescue


@pytest.fixture
def ask(path):
    """Ask a question of the store."""

    def ask(question, *arguments, **options):
        with store.reading(path) as con:
            return question(con, *arguments, **options)

    return ask


def test_the_rescues_of_a_model_come_with_bands_the_latest_first(ask, rescue):
    first = rescue(before=8.0, after=25.0)
    second = rescue(before=8.0, after=31.0, minute=1)
    other = rescue(model="digits-rescaled", minute=2)
    found = ask(queries.rescues, MODEL)
    assert found["rescue_id"].tolist() == [second, first]
    assert set(found["model"]) == {MODEL}
    assert found["before_band"].tolist() == ["broken", "broken"]
    assert found["after_band"].tolist() == ["fine", "watch"]
    assert found["file_band"].tolist() == ["fine", "watch"]
    assert ask(queries.rescues)["rescue_id"].tolist() == [other, second, first]


def test_a_file_that_loses_nothing_is_fine_and_a_failure_has_no_band(ask, rescue):
    rescue(file_db=math.inf)
    rescue(minute=1, failure="stopped", after_db=math.nan, file_db=math.nan)
    assert ask(queries.rescues, MODEL)["file_band"].fillna("none").tolist() == ["none", "fine"]


@pytest.mark.slow
def test_the_latest_of_a_target_is_the_one_of_the_verdict(ask, rescue):
    rescue(minute=0)
    shown = rescue(minute=1)
    rescue(minute=2, is_proposal=True)
    rescue(minute=3, failure="stopped")
    found = ask(queries.rescues, MODEL)
    assert found["rescue_id"][found["is_latest"]].tolist() == [shown]
    assert ask(queries.latest_rescues, MODEL)["rescue_id"].tolist() == [shown]
    row = ask(queries.verdicts, [MODEL], "int8_channel").iloc[0]
    assert row["rescued_db"] == found["file_db"][found["is_latest"]].item()


@pytest.mark.slow
def test_a_plan_without_a_file_has_no_band_and_does_not_hide_an_earlier_file(ask, rescue):
    written = rescue(minute=0)
    rescue(minute=1, file_db=math.nan, integer_db=math.nan, reached=False)
    found = ask(queries.rescues, MODEL)
    assert found["has_files"].tolist() == [False, True]
    assert found["file_band"].fillna("none").tolist() == ["none", "watch"]
    assert ask(queries.latest_rescues, MODEL)["rescue_id"].tolist() == [written]
    assert ask(queries.verdicts, [MODEL], "int8_channel")["rescued_db"].tolist() == [24.75]


def test_every_target_has_its_latest_rescue_a_proposal_where_there_is_nothing_better(ask, rescue):
    rescue("int8_tensor", is_proposal=True)
    proposal = rescue("int8_tensor", minute=1, is_proposal=True)
    written = rescue("int8_channel", minute=2)
    found = ask(queries.latest_rescues, MODEL)
    assert found["target"].tolist() == ["int8_channel", "int8_tensor"]
    assert found["rescue_id"].tolist() == [written, proposal]
    assert found["is_latest"].tolist() == [True, False]


def test_steps_come_in_their_order_with_the_band_of_inputs_that_decided_nothing(ask, rescue):
    rescue_id = rescue()
    rescue(minute=1, steps=())
    found = ask(queries.rescue_steps, rescue_id)
    assert found["step"].tolist() == [0, 1, 2, 3]
    assert found["remedy"].tolist() == ["placement", "depthwise", "ranges", "int16"]
    assert found["band"].tolist() == ["broken", "at risk", "at risk", "watch"]


def test_units_are_the_promoted_then_the_most_sensitive_with_their_layers(ask, rescue):
    promoted, weights = a_rescue().units
    silent = replace(weights, unit="input", kind="tensor", depth=None, noise_to_signal=math.nan)
    rescue_id = rescue(units=(silent, weights, promoted))
    found = ask(queries.rescue_units, rescue_id)
    assert found["unit"].tolist() == ["Relu_0", "conv0", "input"]
    names = ask(layer_names, MODEL)
    assert found["layer"].fillna("").tolist() == [names[1], names[0], ""]
    assert ask(queries.rescue_units, rescue_id, only_promoted=True)["unit"].tolist() == ["Relu_0"]


def test_files_come_in_the_order_in_which_they_were_written(ask, rescue):
    (file,) = a_rescue().files
    names = ("net.rescued.onnx", "net.ongrid.onnx", "quantize.py")
    files = tuple(replace(file, path=name) for name in names)
    assert ask(queries.rescue_files, rescue(files=files))["path"].tolist() == list(names)


def test_without_a_rescue_every_frame_is_empty(ask):
    assert ask(queries.rescues).empty
    assert ask(queries.latest_rescues, MODEL).empty
    for question in (queries.rescue_steps, queries.rescue_units, queries.rescue_files):
        assert ask(question, 1).empty
