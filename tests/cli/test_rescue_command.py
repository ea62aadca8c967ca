"""The command ``rescue``: its options reach the rescue, its tables and sentences a reader."""

import csv
import io
import json
import math
import re
import sys
from pathlib import Path

import pytest

from quantstore import store
from quantstore.cli.preprocessing import WRONG_SIZE
from quantstore.cli.rescue import (
    FILE_COLUMNS,
    NO_FILE,
    NO_REMEDY,
    RESCUE_TARGETS,
    STEP_COLUMNS,
    UNIT_COLUMNS,
    default_output,
    unknown_remedy,
)
from quantstore.errors import RunError
from quantstore.pipeline import rescues
from quantstore.pipeline.files import demo_paths
from quantstore.rescuing.choices import Rescue
from quantstore.rescuing.terms import REMEDIES
from quantstore.run.inputs import changed, preset
from quantstore.schemes import DEFAULT_TARGET
from quantstore.wording.rescues import CAUSE_SENTENCES, PROPOSAL, limits, progress_label
from quantstore.wording.units import NO_BREAK_SPACE
from tests.support import fake_rescue
from tests.support.runs import a_rescue

MODEL = next(path for path in demo_paths() if path.stem == "digits-rescaled")


@pytest.fixture
def answering(monkeypatch):
    """What the rescue would answer; returns the requests that it gets."""
    requests = []

    def answer(**changes):
        def rescued(path, db, inputs, choices, report):
            requests.append((path, inputs, choices))
            record = a_rescue(choices.target, **changes)
            with store.writing(db) as con:
                model_id = store.find_model(con, path.stem)
                rescue_id = store.add_rescue(con, model_id, record)
            return rescues.DoneRescue(
                model=path.stem,
                rescue_id=rescue_id,
                rescue=Rescue(sha256="", folded=True, record=record),
                was_ingested=False,
                peak_bytes=123_000_000,
            )

        monkeypatch.setattr(rescues, "run", rescued)
        return requests

    return answer


def test_a_line_for_each_step_the_promoted_units_then_the_files_with_their_use(run, answering):
    answering()
    code, out, _ = run("rescue", MODEL, "--inputs", "photos")
    assert code == 0
    steps, units, files = out.split("\n\n")
    head, _, *rows = steps.splitlines()
    assert head.split() == list(STEP_COLUMNS)
    assert [row.split()[0] for row in rows] == ["placement", "depthwise", "ranges", "int16"]
    assert [row.split()[5] for row in rows] == ["kept", "kept", "dropped", "kept"]
    assert "gains 0.2 dB, 1 dB would be worth it" in rows[2]
    head, _, row = units.splitlines()
    assert head.split() == list(UNIT_COLUMNS)
    assert row.startswith("Relu_0")
    assert row.endswith("outlier channels")
    head, _, row = files.splitlines()
    assert head.split() == list(FILE_COLUMNS)
    assert row.startswith("net.rescued.onnx")
    assert f'InferenceSession("{MODEL.stem}.rescued.onnx")' in row


def test_the_verdict_before_and_after_ends_it(run, answering):
    answering()
    _, _, err = run("rescue", MODEL, "--inputs", "photos")
    *_, goal, before, after = err.splitlines()
    assert goal.startswith("Goal reached: 20 dB")
    assert before.startswith("Before: broken with per-channel int8, output SQNR 8.0 dB.")
    assert after.startswith("After: watch, output SQNR 24.8 dB, ")
    assert "note: Images resized to 320x320.\n" in err
    assert f"outlier channels: {CAUSE_SENTENCES['outlier channels']}\n" in err
    assert all(f"note: {sentence}\n" in err for sentence in limits(a_rescue()))
    assert re.search(r"stored as rescue \d+\n", err)
    assert NO_BREAK_SPACE not in err


@pytest.mark.parametrize(("after", "code"), [(19.9, 1), (20.0, 0)])
def test_a_goal_that_is_not_reached_is_exit_code_1(run, answering, after, code):
    answering(after=after)
    assert run("rescue", MODEL, "--inputs", "photos")[0] == code


def test_a_proposal_is_called_one(run, answering):
    answering(is_proposal=True, file_db=math.nan, integer_db=math.nan, files=())
    code, out, err = run("rescue", MODEL, "--inputs", "noise")
    assert code == 0
    assert ".onnx" not in out
    assert PROPOSAL in err


def test_csv_has_the_steps_and_json_everything(run, answering):
    answering(minute=1)
    _, out, _ = run("rescue", MODEL, "--inputs", "photos", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["remedy"] for row in rows] == ["placement", "depthwise", "ranges", "int16"]
    assert {(row["model"], row["target"]) for row in rows} == {(MODEL.stem, DEFAULT_TARGET.name)}
    answering(minute=2)
    _, out, _ = run("rescue", MODEL, "--inputs", "photos", "--format", "json")
    (rescue,) = json.loads(out)
    assert (rescue["file_db"], rescue["reached"]) == (24.75, True)
    assert rescue["rescue_id"] > 0
    assert [step["remedy"] for step in rescue["steps"]] == [row["remedy"] for row in rows]
    assert [unit["unit"] for unit in rescue["units"]] == ["Relu_0", "conv0"]
    assert rescue["files"][0]["use"]


def test_what_is_left_out_has_the_value_of_the_library(run, answering):
    requests = answering()
    run("rescue", MODEL, "--inputs", "photos")
    ((path, inputs, choices),) = requests
    assert (path, inputs) == (MODEL, "photos")
    assert choices == rescues.RescueChoices(
        target=DEFAULT_TARGET.name, output="digits-rescaled-rescued"
    )


def test_every_option_reaches_the_rescue(run, answering):
    requests = answering()
    run(
        "rescue", MODEL, "--inputs", "photos", "--test-inputs", "others", "--size", "480x640",
        "--target", "int8_channel_fused", "--reach", "30", "--keep-macs", "0.5",
        "--allow", "ranges, mul,ranges", "--budget", "7.5", "--samples", "9", "--no-fold",
        "-o", "there",
    )  # fmt: skip
    assert requests[0][2] == rescues.RescueChoices(
        target="int8_channel_fused",
        reach_db=30.0,
        keep_macs=0.5,
        allow=("ranges", "mul"),
        budget_seconds=7.5,
        samples=9,
        preprocess=changed(preset("imagenet"), size=(480, 640)),
        test_inputs="others",
        output="there",
        fold=False,
    )


def test_the_help_lists_every_target_that_can_be_rescued(run):
    _, out, _ = run("rescue", "--help")
    text = " ".join(out.split())
    assert ", ".join(RESCUE_TARGETS) in text
    assert ", ".join(REMEDIES) in text
    assert default_output(Path("somewhere/net.onnx")) == Path("net-rescued")
    assert "[default: NAME-rescued in the working folder]" in text


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["none.onnx", "--inputs", "photos"], 1, NO_FILE),
        ([MODEL], 2, "--inputs"),
        ([MODEL, "--inputs", "photos", "--target", "int8_dynamic"], 2, "int8_channel_fused"),
        ([MODEL, "--inputs", "photos", "--allow", "ranges,magic"], 2, unknown_remedy("magic")),
        ([MODEL, "--inputs", "photos", "--allow", " , "], 2, NO_REMEDY),
        ([MODEL, "--inputs", "photos", "--keep-macs", "2"], 2, "--keep-macs"),
        ([MODEL, "--inputs", "photos", "--budget", "0"], 2, "--budget"),
        ([MODEL, "--inputs", "photos", "--size", "big"], 2, WRONG_SIZE),
    ],
)
def test_whatever_is_wrong_is_one_sentence(run, arguments, code, part):
    actual_code, out, err = run("rescue", *arguments)
    (line,) = err.splitlines()
    assert (actual_code, out) == (code, "")
    assert line.startswith("error: ")
    assert part in line


def test_a_failure_names_the_file(run, monkeypatch):
    def fail(*_):
        raise RunError("the disk is full", "free some room there")

    monkeypatch.setattr(rescues, "run", fail)
    code, out, err = run("rescue", MODEL, "--inputs", "photos")
    assert (code, out) == (1, "")
    assert err == f"error: {MODEL.name}: the disk is full; free some room there\n"


def test_a_terminal_shows_the_stage_and_what_is_left_of_the_budget(run, monkeypatch):
    def slow(path, db, inputs, choices, report):
        report(rescues.Progress("sensitivity", 1, 4, budget_left_s=90.0))
        report(rescues.Progress("sensitivity", 2, 4, budget_left_s=60.4))
        report(rescues.Progress("measuring the weights", 0, 1))
        raise RunError("enough seen")

    monkeypatch.setattr("quantstore.cli.output.PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(rescues, "run", slow)
    _, _, err = run("rescue", MODEL, "--inputs", "photos")
    shown = [progress_label("sensitivity", left) for left in (90.0, 60.4)]
    assert [label in err for label in shown] == [True, True]
    assert "measuring the weights  [" in err


def test_ctrl_c_ends_it(run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rescues, "run", interrupted)
    assert run("rescue", MODEL, "--inputs", "photos")[::2] == (130, "")


def test_presets_are_listed_without_a_model(run):
    code, out, _ = run("rescue", "--preprocess", "help")
    assert code == 0
    assert "imagenet" in out


@pytest.mark.slow
def test_files_lie_in_a_folder_that_is_named_after_the_model(run, tmp_path, monkeypatch):
    fake_rescue.install(tmp_path / "in-the-child", monkeypatch)
    code, out, err = run("rescue", MODEL, "--inputs", "photos")
    assert code == 0, err
    folder = tmp_path / "digits-rescaled-rescued"
    assert sorted(path.name for path in folder.iterdir()) == sorted(fake_rescue.FILES.values())
    assert all(name in out for name in fake_rescue.FILES.values())
    assert f"wrote files to {folder}\n" in err


@pytest.mark.slow
def test_a_model_is_rescued_on_noise(run):
    """The whole way, with nothing replaced."""
    code, out, err = run("rescue", MODEL, "--inputs", "noise")
    assert code == 0
    assert "depthwise" in out
    assert err.splitlines()[-1].startswith("After: fine, ")
