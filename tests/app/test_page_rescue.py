"""The Rescue page, the form that starts a rescue, and what the Model page makes of the result."""

import math
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from quantstore import store
from quantstore.app.pages import rescue as page
from quantstore.app.queue import Job, RunQueue
from quantstore.app.sections import answers, rescue_files, rescue_form
from quantstore.app.widgets import inputs_box, pickers, reach
from quantstore.pipeline.files import demo_paths
from quantstore.records import RescueFileRecord
from quantstore.rescuing.choices import RescueChoices
from quantstore.rescuing.terms import REMEDIES, RESCUE_TARGETS
from quantstore.run.choices import Progress
from quantstore.schemes import DEFAULT_TARGET, TARGETS
from quantstore.wording import rescue_tables
from quantstore.wording import rescues as wording
from quantstore.wording.answers import opening
from tests.support.facts import finding
from tests.support.queues import finished
from tests.support.runs import a_rescue, a_run, add
from tests.support.visits import button, fails, listed, said, texts, trusting_no_chart, turned_to

MODEL = "digits-plain"
HOSTILE = "<img src=x onerror=alert(1)> **bold** $x$ [a](http://b)"


@pytest.fixture
def path(demo_store, tmp_path):
    """The demo models, none of which was rescued: to add to."""
    return Path(shutil.copy(demo_store, tmp_path / "rescues.duckdb"))


@pytest.fixture
def on_loopback(monkeypatch):
    monkeypatch.setattr(reach, "is_this_computer_only", lambda: True)


@pytest.fixture
def from_elsewhere(monkeypatch):
    monkeypatch.setattr(reach, "is_this_computer_only", lambda: False)


@pytest.fixture
def rescued(path):
    """Store a rescue of a model; returns its key."""

    def rescued(*arguments, model=MODEL, **changes):
        with store.writing(path) as con:
            record = a_rescue(*arguments, **changes)
            return store.add_rescue(con, store.find_model(con, model), record)

    return rescued


@pytest.fixture
def asked(monkeypatch):
    """What the form asks for, without running it."""
    asked = []

    def add(self, path, store_path, inputs, choices, *, name, description, work, when_finished):
        assert work == "rescue"
        asked.append((path, store_path, inputs, choices, name, description))
        return len(asked)

    monkeypatch.setattr(RunQueue, "add", add)
    return asked


# What came of a rescue


@pytest.mark.slow
def test_the_page_opens_with_the_verdict_before_and_after(open_app, path, rescued, monkeypatch):
    trusting_no_chart(monkeypatch)
    rescued()
    app = open_app(path, "rescue", model=MODEL)
    assert fails(app) == []
    record = a_rescue()
    assert app.header[0].value.replace("\\", "") == wording.headline(record, "broken", "watch")
    for sentence in wording.result_sentences(record, "broken", "watch"):
        assert sentence.replace("\u00a0", " ") in said(app)
    assert all(sentence in said(app) for sentence in wording.LIMITS)
    assert "Images resized to 320x320." in said(app)
    # The staircase, and what it costs.
    assert len(app.get("vega_lite_chart")) == 3


@pytest.mark.slow
def test_every_step_has_a_row_with_what_decided_and_what_did_not(open_app, path, rescued):
    rescued()
    rows = listed(open_app(path, "rescue", model=MODEL))["step"]
    names = [row["cells"][0]["text"] for row in rows]
    assert names == [
        "target as it is",
        *(
            wording.REMEDY_TITLES[name]
            for name in REMEDIES
            if name in ("depthwise", "ranges", "int16")
        ),
    ]
    assert rows[3]["cells"][1] == {"band": "watch", "small": "25.0\u00a0dB"}
    assert [row["cells"][-1]["text"] for row in rows] == ["kept", "kept", "dropped", "kept"]


@pytest.mark.slow
def test_what_left_int8_comes_with_its_cause_and_its_layer(open_app, path, rescued):
    rescued()
    app = open_app(path, "rescue", model=MODEL)
    (row,) = listed(app)["tensor or weights"]
    name, now, sensitivity, macs, cause = row["cells"]
    assert name["text"] == "1. Relu_0"
    assert name["small"].startswith("tensor, ")
    assert (now["text"], sensitivity["text"]) == ("int16", "20.0\u00a0dB")
    assert (macs["text"], cause["text"]) == ("4.61\u00a0k", "outlier channels")


@pytest.mark.slow
def test_where_nothing_left_int8_a_sentence_says_so(open_app, path, rescued):
    record = a_rescue()
    rescued(units=(), int8_macs=1.0, steps=record.steps[:2])
    app = open_app(path, "rescue", model=MODEL)
    assert rescue_tables.ALL_IN_INT8 in said(app)
    assert "tensor or weights" not in listed(app)
    assert len(app.get("vega_lite_chart")) == 2


def test_a_failure_is_a_sentence_and_draws_nothing(open_app, path, rescued):
    unknown = dict.fromkeys(("before_db", "after_db", "file_db", "integer_db"), math.nan)
    rescued(failure="the outputs are constant", steps=(), units=(), files=(), **unknown)
    app = open_app(path, "rescue", model=MODEL)
    assert fails(app) == []
    assert "the outputs are constant" in app.header[0].value
    assert not app.get("vega_lite_chart")
    assert rescue_tables.NO_FILES in said(app)


@pytest.mark.slow
def test_a_proposal_says_that_no_model_was_written(open_app, path, rescued):
    rescued(is_proposal=True, file_db=math.nan, integer_db=math.nan, files=())
    app = open_app(path, "rescue", model=MODEL)
    assert app.header[0].value.startswith("Proposal, ")
    assert wording.PROPOSAL in said(app)


@pytest.mark.slow
@pytest.mark.slow
def test_a_rescue_that_loses_nothing_is_exact(open_app, path, rescued):
    record = a_rescue()
    steps = (*record.steps[:3], replace(record.steps[3], test_db=math.inf))
    rescued(after=math.inf, file_db=math.inf, integer_db=math.inf, steps=steps)
    app = open_app(path, "rescue", model=MODEL)
    assert fails(app) == []
    assert "8.0 dB → exact" in said(app)


@pytest.mark.slow
@pytest.mark.slow
def test_names_from_a_file_are_never_markup(open_app, path, rescued, on_loopback):
    record = a_rescue()
    rescued(
        input_source=HOSTILE,
        notes=(HOSTILE,),
        onnxruntime_version=HOSTILE,
        steps=tuple(replace(step, detail=HOSTILE) for step in record.steps),
        units=tuple(replace(unit, unit=HOSTILE, cause=HOSTILE) for unit in record.units),
        files=tuple(replace(file, path=f"/gone/{HOSTILE}") for file in record.files),
    )
    app = open_app(path, "rescue", model=MODEL)
    assert fails(app) == []
    assert "<img" not in texts(app).replace("\\<img", "")


# Which rescue


@pytest.mark.slow
def test_of_several_the_latest_for_the_target_comes_first(open_app, path, rescued):
    first = rescued("int8_channel", after=21.0)
    second = rescued("int8_channel", after=25.0, minute=1)
    other = rescued("int8_tensor", after=31.0, minute=2)
    app = open_app(path, "rescue", model=MODEL, target="int8_channel")
    assert app.selectbox(key="rescue").value == str(second)
    app.selectbox(key="rescue").set_value(str(first)).run()
    assert fails(app) == []
    assert "8.0 → 20.8 dB" in said(app).splitlines()[1]
    # Another target in the sidebar brings its own.
    app.selectbox(key="target").set_value("int8_tensor").run()
    assert app.selectbox(key="rescue").value == str(other)
    assert TARGETS["int8_tensor"].title in said(app).splitlines()[1]


@pytest.mark.slow
def test_an_address_names_the_rescue(open_app, path, rescued):
    first = rescued("int8_channel", after=21.0)
    rescued("int8_channel", after=25.0, minute=1)
    app = open_app(path, "rescue", model=MODEL, rescue=str(first))
    assert app.selectbox(key="rescue").value == str(first)


@pytest.mark.slow
def test_a_rescue_that_is_gone_is_said(open_app, path, rescued):
    key = rescued()
    app = open_app(path, "rescue", model=MODEL, rescue="999")
    assert [one.value for one in app.warning] == [pickers.not_in_store("rescue numbered", "999")]
    assert app.selectbox(key="rescue").value == str(key)


@pytest.mark.slow
def test_a_target_without_a_rescue_shows_the_form_and_keeps_the_others_at_hand(
    open_app, path, rescued, on_loopback
):
    key = rescued("int8_tensor")
    app = open_app(path, "rescue", model=MODEL, target="int8_channel_fused")
    assert app.header[0].value == page.no_rescue_yet(MODEL, TARGETS["int8_channel_fused"])
    assert button(app, "Rescue") is not None
    assert app.selectbox(key="rescue").value == ""
    app.selectbox(key="rescue").set_value(str(key)).run()
    assert fails(app) == []
    assert TARGETS["int8_tensor"].title in said(app).splitlines()[1]


# Its files


def a_file(folder, name="net.rescued.onnx", content=b"model"):
    target = folder / name
    target.write_bytes(content)
    return RescueFileRecord(
        path=str(target), kind="rescued", sha256=sha256(content).hexdigest(), bytes=len(content)
    )


@pytest.mark.slow
def test_every_file_can_be_downloaded_with_the_line_that_uses_it(
    open_app, path, rescued, tmp_path, on_loopback
):
    file = a_file(tmp_path)
    rescued(files=(file, replace(file, path=str(tmp_path / "gone.onnx"), kind="ongrid")))
    app = open_app(path, "rescue", model=MODEL)
    assert fails(app) == []
    labels = [one.proto.label.replace("\\", "") for one in app.get("download_button")]
    assert labels == ["net.rescued.onnx (5\u00a0B)"]
    assert 'onnxruntime.InferenceSession("net.rescued.onnx")' in said(app)
    assert rescue_files.MISSING["gone"] in said(app)


@pytest.mark.slow
def test_an_empty_file_says_so(open_app, path, rescued, tmp_path, on_loopback):
    rescued(files=(replace(a_file(tmp_path, "exclude.txt", b""), kind="exclude"),))
    app = open_app(path, "rescue", model=MODEL)
    assert not app.get("download_button")
    assert rescue_files.EMPTY in said(app)


@pytest.mark.slow
def test_a_file_with_another_content_is_not_handed_out(
    open_app, path, rescued, tmp_path, on_loopback
):
    file = a_file(tmp_path)
    rescued(files=(replace(file, sha256="ab" * 32),))
    app = open_app(path, "rescue", model=MODEL)
    assert not app.get("download_button")
    assert rescue_files.MISSING["changed"] in said(app)


@pytest.mark.slow
def test_nothing_is_handed_out_to_another_computer(
    open_app, path, rescued, tmp_path, from_elsewhere
):
    rescued(files=(a_file(tmp_path),))
    app = open_app(path, "rescue", model=MODEL)
    assert not app.get("download_button")
    assert rescue_files.FROM_ELSEWHERE in said(app)
    assert str(tmp_path) in [one.value for one in app.code]


# The form


def test_a_model_without_a_rescue_shows_the_form_at_once(open_app, path, on_loopback):
    app = open_app(path, "rescue", model=MODEL)
    assert fails(app) == []
    assert app.header[0].value == page.no_rescue_yet(MODEL, DEFAULT_TARGET)
    assert rescue_form.WHAT_IT_IS in said(app)
    assert button(app, "Rescue") is not None


def test_a_rescue_is_asked_for_with_what_was_chosen(open_app, path, asked, on_loopback, tmp_path):
    (tmp_path / "photos").mkdir()
    app = open_app(path, "rescue", model=MODEL, target="int8_channel_fused")
    of = f"{MODEL}_int8_channel_fused"
    # First the target of the sidebar.
    assert app.selectbox(key=f"rescue_target_{of}").value == "int8_channel_fused"
    app.number_input(key="rescue_reach").set_value(30.0)
    app.number_input(key="rescue_keep").set_value(85.0)
    app.number_input(key="rescue_budget").set_value(60)
    app.text_input(key="rescue_folder").set_value(f' "{tmp_path / "photos"}" ')
    app.button_group(key="rescue_allowed").set_value(["depthwise", "int16"])
    button(app, "Rescue").click().run()
    assert fails(app) == []
    ((file, store_path, inputs, arguments, name, description),) = asked
    assert file == next(one for one in demo_paths() if one.stem == MODEL)
    assert (store_path, inputs, name) == (path, str(tmp_path / "photos"), MODEL)
    assert RescueChoices(**arguments) == RescueChoices(
        target="int8_channel_fused",
        reach_db=30.0,
        keep_macs=0.85,
        allow=("depthwise", "int16"),
        budget_seconds=60.0,
        output=str(tmp_path / f"{MODEL}-rescued" / "int8_channel_fused"),
    )
    assert description == f"rescue, per-channel int8, fused, {tmp_path / 'photos'}"


@pytest.mark.slow
@pytest.mark.slow
def test_noise_needs_no_path_and_gives_a_proposal(open_app, path, asked, on_loopback):
    app = open_app(path, "rescue", model=MODEL)
    app.selectbox(key="rescue_kind").set_value(inputs_box.NOISE)
    button(app, "Rescue").click().run()
    assert fails(app) == []
    assert asked[0][2] == "noise"


@pytest.mark.slow
def test_inputs_that_are_not_there_and_no_remedy_are_asked_for_again(
    open_app, path, asked, on_loopback
):
    app = open_app(path, "rescue", model=MODEL)
    button(app, "Rescue").click().run()
    assert app.error[0].value == inputs_box.NO_INPUTS
    app.selectbox(key="rescue_kind").set_value(inputs_box.NOISE)
    app.button_group(key="rescue_allowed").set_value([])
    button(app, "Rescue").click().run()
    assert app.error[0].value == rescue_form.NO_REMEDY
    assert asked == []


@pytest.mark.slow
def test_a_target_that_cannot_be_rescued_offers_those_that_can(open_app, path, on_loopback):
    app = open_app(path, "rescue", model=MODEL, target="int4_weights")
    assert fails(app) == []
    assert rescue_form.NOT_RESCUABLE in said(app)
    picker = app.selectbox(key=f"rescue_target_{MODEL}_int4_weights")
    assert picker.value == DEFAULT_TARGET.name
    assert len(picker.options) == len(RESCUE_TARGETS)


def test_nobody_starts_a_rescue_from_another_computer(open_app, path, from_elsewhere):
    app = open_app(path, "rescue", model=MODEL)
    assert fails(app) == []
    assert rescue_form.FROM_A_TERMINAL in said(app)
    assert app.code[0].value.startswith(f"quantstore --db {path} rescue ")
    assert button(app, "Rescue") is None


@pytest.mark.slow
def test_without_the_file_a_command_is_shown(open_app, path, on_loopback):
    with store.writing(path) as con:
        con.rows("update models set source = 'upload a.onnx'")
    app = open_app(path, "rescue", model=MODEL)
    assert rescue_form.NO_FILE in said(app)
    assert button(app, "Rescue") is None


# Under way


@pytest.mark.slow
def test_a_rescue_under_way_says_what_is_certain_and_its_result_appears(
    open_app, path, rescued, monkeypatch
):
    first = rescued()
    progress = Progress("measuring sensitivity", 3, 12, ["ranges: <b>kept</b>"])
    jobs = [Job(1, MODEL, "rescue, noise", "running", progress)]
    monkeypatch.setattr(RunQueue, "snapshot", lambda self: list(jobs))
    monkeypatch.setattr(RunQueue, "work_of", lambda self, job: "rescue")
    for name in ("drift", "rescue"):
        # It is seen wherever runs are seen.
        app = open_app(path, name, model=MODEL)
        assert fails(app) == []
        assert "measuring sensitivity 3 of 12" in said(app)
        assert "ranges: &lt;b&gt;kept&lt;/b&gt;" in said(app)
        assert [b.label for b in app.button if b.key == "cancel_run_1"] == ["Cancel"]
    second = rescued(after=31.0, minute=1)
    app.session_state["own_jobs"] = {1}
    result = SimpleNamespace(rescue_id=second, rescue=SimpleNamespace(record=a_rescue(after=31.0)))
    jobs[0] = Job(1, MODEL, "rescue, noise", "done", result=result)
    app.run()
    assert fails(app) == []
    assert app.selectbox(key="rescue").value == str(second) != str(first)
    assert "done: output SQNR 8.0 → 30.8 dB" in said(app)


def test_what_fails_in_the_child_is_a_sentence(tmp_path):
    queue = RunQueue()
    queue.add(
        tmp_path / "gone.onnx",
        tmp_path / "s.duckdb",
        "noise",
        {"target": "int8_weights"},
        name=MODEL,
        description="rescue",
        work="rescue",
    )
    (job,) = finished(queue)
    assert job.state == "failed"
    assert job.message.startswith("int8_weights cannot be rescued: ")
    assert queue.work_of(job) == "rescue"


# What can I do?


@pytest.mark.slow
def test_a_model_that_is_fine_gets_one_sentence(open_app, path):
    with store.writing(path) as con:
        add(con, MODEL, a_run(40.0, target="int8_tensor"))
    app = open_app(path, "model", model=MODEL, target="int8_tensor")
    assert answers.HEADING in [header.value for header in app.header]
    assert opening(finding("fine", "both", 40.0, target="int8_tensor")) in said(app)
    assert not [one for one in app.button if str(one.key).startswith("answer_")]


@pytest.mark.slow
def test_the_file_of_the_latest_rescue_is_the_first_answer_and_one_click_away(
    open_app, path, rescued
):
    with store.writing(path) as con:
        add(con, MODEL, a_run(7.0, target="int8_tensor"))
    key = rescued("int8_tensor", before=7.0, after=25.0)
    app = open_app(path, "model", model=MODEL, target="int8_tensor")
    assert "1. Use net.rescued.onnx: 7.0 → 24.8 dB" in said(app)
    assert "+17.8 dB, measured on 3 unseen inputs" in said(app)
    app.button(key="answer_0").click().run()
    assert fails(app) == []
    assert app.title[0].value == "Rescue"
    assert app.selectbox(key="rescue").value == str(key)


@pytest.mark.slow
def test_a_model_that_nobody_rescued_is_one_click_from_the_form(open_app, path, on_loopback):
    with store.writing(path) as con:
        add(con, MODEL, a_run(7.0, target="int8_tensor"))
    app = open_app(path, "model", model=MODEL, target="int8_tensor")
    app.button(key="answer_0").click().run()
    assert fails(app) == []
    assert app.title[0].value == "Rescue"
    assert app.selectbox(key="model").value == MODEL
    assert app.selectbox(key=f"rescue_target_{MODEL}_int8_tensor").value == "int8_tensor"


@pytest.mark.slow
@pytest.mark.slow
def test_another_target_is_chosen_where_it_is_offered(open_app, path):
    with store.writing(path) as con:
        add(con, MODEL, a_run(7.0, target="int8_tensor"))
        add(con, MODEL, a_run(33.0, "int8_channel_symmetric", target="int8_channel"))
    app = open_app(path, "model", model=MODEL, target="int8_tensor")
    app.button(key="answer_0").click().run()
    assert fails(app) == []
    assert app.selectbox(key="target").value == "int8_channel"
    assert app.title[0].value.replace("\\", "") == MODEL


@pytest.mark.slow
def test_what_a_rescue_reached_stands_beside_its_target(open_app, path, rescued):
    rescued("int8_channel", after=25.0)
    rows = listed(open_app(path, "model", model=MODEL))["target"]
    by_target = {row["key"]: row["cells"] for row in rows}
    assert by_target["int8_channel"][2] == {"band": "watch", "small": "24.8\u00a0dB"}
    assert by_target["int8_tensor"][2] is None


@pytest.mark.slow
def test_from_the_model_page_another_model_shows_its_own(open_app, path, rescued):
    rescued()
    app = open_app(path, "rescue", model=MODEL)
    turned_to(app, "model").run()
    app.selectbox(key="model").set_value("digits-rescaled").run()
    turned_to(app, "rescue").run()
    assert fails(app) == []
    assert app.header[0].value == page.no_rescue_yet("digits-rescaled", DEFAULT_TARGET)
