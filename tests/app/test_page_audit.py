"""The Audit page, and the form that starts an audit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from quantstore import queries, store
from quantstore.app.pages import audit as page
from quantstore.app.queue import Job, RunQueue
from quantstore.app.sections import audit_form, audits, run_form
from quantstore.app.widgets import inputs_box, pickers, reach
from quantstore.auditing.choices import DEFAULT_RELEASE, AuditChoices
from quantstore.pipeline.files import demo_paths
from quantstore.run.choices import Progress
from quantstore.wording import audit_tables as tables
from quantstore.wording import audits as wording
from tests.support import fake_audit
from tests.support.queues import finished
from tests.support.runs import an_audit, an_audited_tensor, audited
from tests.support.visits import button, fails, listed, said, texts, trusting_no_chart

INT8, FLOAT = "digits-separable", "digits-rescaled"
HOSTILE = "<img src=x onerror=alert(1)> **bold** $x$ [a](http://b)"
NAMES = {0: "/1/Conv", 1: "/4/Conv"}


@pytest.fixture
def path(demo_store, tmp_path):
    """The demo models, one of which passes for int8."""
    path = Path(shutil.copy(demo_store, tmp_path / "audits.duckdb"))
    with store.writing(path) as con:
        con.rows(
            "update layers set already_quantized = true where model_id = ?",
            [store.find_model(con, INT8)],
        )
    return path


@pytest.fixture
def on_loopback(monkeypatch):
    monkeypatch.setattr(reach, "is_this_computer_only", lambda: True)


@pytest.fixture
def asked(monkeypatch):
    """What the form asks for, without running it."""
    asked = []

    def add_audit(self, *arguments, when_finished, **more):
        asked.append((*arguments, more))
        return len(asked)

    monkeypatch.setattr(RunQueue, "add_audit", add_audit)
    return asked


def demo(name):
    return next(one for one in demo_paths() if one.stem == name)


# What came of an audit


@pytest.mark.slow
def test_the_page_opens_with_the_verdict_and_what_it_rests_on(open_app, path, monkeypatch):
    trusting_no_chart(monkeypatch)
    audit_id = audited(path, INT8, FLOAT)
    app = open_app(path, "audit")
    assert fails(app) == []
    record = an_audit()
    expected = wording.headline(record, INT8, FLOAT, "at risk").replace("\u00a0", " ")
    assert app.header[0].value.replace("\\", "").replace("\u00a0", " ") == expected
    with store.reading(path) as con:
        layers = [row["layer"] for row in queries.audit_layers(con, audit_id).to_dict("records")]
    for sentence in wording.sentences(record, dict(enumerate(reversed(layers)))):
        assert sentence.replace("\u00a0", " ") in said(app)
    assert "Images resized to 8x8" in said(app)
    assert len(app.get("vega_lite_chart")) == 1
    assert set(listed(app)) == {"layer", "tensor", "output"}


@pytest.mark.slow
def test_layers_and_grids_come_with_their_values(open_app, path):
    audited(path, INT8, FLOAT)
    shown = listed(open_app(path, "audit"))
    first, second = (row["cells"] for row in shown["layer"])
    assert [cell["text"] for cell in first[1:2]] == ["+7.5\u00a0dB"]
    assert first[2] == {"band": "broken", "small": "9.5\u00a0dB"}
    assert first[5]["text"] == "1.3×"
    assert second[1]["text"] == "–"
    tensor = shown["tensor"][0]["cells"]
    assert tensor[2]["text"] == "grid 0 to 127.5"
    assert tensor[2]["small"] == "seen −2.00 to 255.0"
    assert tensor[2]["bars"] == [[0.0078, 0.4961], [0.0, 1.0]]
    assert tensor[3]["text"] == "12.5\u00a0%"
    assert len(shown["output"][0]["cells"]) == 1 + len(wording.WAY_TITLES)


@pytest.mark.slow
def test_a_row_opens_its_layer(open_app, path):
    audited(path, INT8, FLOAT)
    rows = listed(open_app(path, "audit"))["layer"]
    assert [row["key"] for row in rows] == [0, 1]


@pytest.mark.slow
def test_many_rows_are_folded(open_app, path):
    tensors = tuple(an_audited_tensor(f"t{number}") for number in range(30))
    audited(path, INT8, FLOAT, an_audit(tensors=tensors))
    app = open_app(path, "audit")
    assert len(listed(app)["tensor"]) == page.FIRST_ROWS
    app.button(key="show_audit_tensors").click().run()
    assert fails(app) == []
    assert len(listed(app)["tensor"]) == 30


@pytest.mark.slow
def test_a_file_that_rounds_no_activations_has_no_grids(open_app, path):
    audited(path, INT8, FLOAT, an_audit(tensors=(), rounded_tensors=0))
    app = open_app(path, "audit")
    assert tables.NO_GRIDS in said(app)


@pytest.mark.slow
def test_a_failure_is_a_sentence_and_draws_nothing(open_app, path):
    audited(path, INT8, FLOAT, an_audit(failure="stopped", layers=(), tensors=(), outputs=()))
    app = open_app(path, "audit")
    assert fails(app) == []
    assert "stopped" in app.header[0].value
    assert not app.get("vega_lite_chart")


@pytest.mark.slow
def test_names_from_a_file_are_never_markup(open_app, path, on_loopback):
    record = an_audit()
    audited(
        path,
        INT8,
        FLOAT,
        an_audit(
            input_source=HOSTILE,
            notes=(HOSTILE,),
            compared=HOSTILE,
            tensors=tuple(replace(one, float_tensor=HOSTILE) for one in record.tensors),
            outputs=tuple(replace(one, output=HOSTILE, point=HOSTILE) for one in record.outputs),
        ),
    )
    app = open_app(path, "audit")
    assert fails(app) == []
    assert "<img" not in texts(app).replace("\\<img", "")


# Which audit


@pytest.mark.slow
def test_the_latest_comes_first_and_an_address_names_another(open_app, path):
    first = audited(path, INT8, FLOAT, an_audit(grid_db=11.5))
    second = audited(path, INT8, FLOAT, an_audit(minute=1, grid_db=21.5))
    app = open_app(path, "audit")
    assert app.selectbox(key="audit").value == str(second)
    app.selectbox(key="audit").set_value(str(first)).run()
    assert "11.5 dB" in said(app).splitlines()[1]
    assert dict(app.query_params)["audit"] == [str(first)] or dict(app.query_params)[
        "audit"
    ] == str(first)
    again = open_app(path, "audit", audit=str(first))
    assert again.selectbox(key="audit").value == str(first)


@pytest.mark.slow
def test_an_audit_that_is_gone_is_said(open_app, path):
    audited(path, INT8, FLOAT)
    app = open_app(path, "audit", audit="999")
    assert [one.value for one in app.warning] == [pickers.not_in_store("audit numbered", "999")]


@pytest.mark.slow
def test_of_a_float_model_the_audits_of_its_int8_files_are_shown(open_app, path):
    key = audited(path, INT8, FLOAT)
    app = open_app(path, "audit", model=FLOAT)
    assert fails(app) == []
    assert app.selectbox(key="audit").value == str(key)


@pytest.mark.slow
def test_a_pair_without_an_audit_opens_the_form_with_both_chosen(open_app, path, on_loopback):
    audited(path, INT8, FLOAT)
    app = open_app(path, "audit", model=INT8, float="digits-plain")
    assert fails(app) == []
    assert app.header[0].value.replace("\\", "") == page.no_audit_yet(INT8, "digits-plain").replace(
        "\\", ""
    )
    picked = {box.label: box.value for box in app.selectbox if box.label in ("INT8", "FLOAT")}
    assert picked == {"INT8": INT8, "FLOAT": "digits-plain"}


# The form


def test_without_an_audit_the_page_says_what_one_is_and_offers_the_form(
    open_app, path, on_loopback
):
    app = open_app(path, "audit")
    assert fails(app) == []
    assert app.header[0].value == page.no_audit_yet(INT8)
    assert wording.WHAT_IT_IS in said(app)
    assert button(app, "Audit") is not None
    assert f"quantstore --db {path} audit" in app.code[0].value
    picked = {box.label: box.value for box in app.selectbox if box.label in ("INT8", "FLOAT")}
    assert picked["INT8"] == INT8
    assert picked["FLOAT"] in (FLOAT, "digits-separable-unfolded")


@pytest.mark.slow
def test_an_audit_is_asked_for_with_what_was_chosen(open_app, path, asked, on_loopback, tmp_path):
    (tmp_path / "photos").mkdir()
    app = open_app(path, "audit", model=INT8, float=FLOAT)
    app.number_input(key="audit_samples").set_value(6)
    app.number_input(key="audit_release").set_value(4)
    app.selectbox(key="audit_kind").set_value(inputs_box.OWN_DATA)
    app.text_input(key="audit_folder").set_value(str(tmp_path / "photos"))
    button(app, "Audit").click().run()
    assert fails(app) == []
    ((float_file, int8_file, store_path, inputs, choices, more),) = asked
    assert (float_file, int8_file) == (demo(FLOAT), demo(INT8))
    assert (store_path, inputs) == (path, str(tmp_path / "photos"))
    assert AuditChoices(**choices) == AuditChoices(samples=6, release=4)
    assert more == {
        "name": INT8,
        "description": f"audit against {FLOAT}, {tmp_path / 'photos'}",
    }


@pytest.mark.slow
def test_inputs_that_are_not_there_are_asked_for_again(open_app, path, asked, on_loopback):
    app = open_app(path, "audit", model=INT8)
    app.selectbox(key="audit_kind").set_value(inputs_box.OWN_DATA)
    button(app, "Audit").click().run()
    assert app.error[0].value == inputs_box.NO_INPUTS
    assert asked == []


@pytest.mark.slow
def test_from_a_float_model_the_int8_file_that_fits_is_proposed(open_app, path, on_loopback):
    app = open_app(path, "audit", model=FLOAT)
    picked = {box.label: box.value for box in app.selectbox if box.label in ("INT8", "FLOAT")}
    assert picked == {"INT8": INT8, "FLOAT": FLOAT}


@pytest.mark.slow
def test_a_file_that_is_not_at_hand_is_chosen_again(open_app, path, on_loopback):
    with store.writing(path) as con:
        con.rows("update models set source = 'upload a.onnx' where model = ?", [INT8])
    app = open_app(path, "audit", model=INT8)
    assert fails(app) == []
    assert run_form.NOT_AT_HAND in said(app)
    assert button(app, "Audit") is None


@pytest.mark.slow
def test_without_an_int8_model_the_page_says_to_add_one(open_app, demo_store, on_loopback):
    app = open_app(demo_store, "audit")
    assert fails(app) == []
    assert audit_form.NO_INT8 in said(app)
    assert button(app, "Audit") is None


def test_nobody_starts_an_audit_from_another_computer(open_app, path, monkeypatch):
    monkeypatch.setattr(reach, "is_this_computer_only", lambda: False)
    app = open_app(path, "audit")
    assert fails(app) == []
    assert audit_form.FROM_A_TERMINAL in said(app)
    assert button(app, "Audit") is None


# Under way


@pytest.mark.slow
def test_an_audit_under_way_is_shown_and_its_result_appears(open_app, path, monkeypatch):
    jobs = [Job(1, INT8, "audit, noise", "running", Progress("running the int8 file", 3, 6))]
    monkeypatch.setattr(RunQueue, "snapshot", lambda self: list(jobs))
    monkeypatch.setattr(RunQueue, "work_of", lambda self, job: "audit")
    app = open_app(path, "audit", model="digits-plain")
    assert fails(app) == []
    assert "running the int8 file 3 of 6" in said(app)
    assert [one.label for one in app.button if one.key == "cancel_run_1"] == ["Cancel"]
    key = audited(path, INT8, FLOAT)
    app.session_state["own_jobs"] = {1}
    result = SimpleNamespace(
        audit_id=key, int8_model=INT8, audit=SimpleNamespace(record=an_audit())
    )
    jobs[0] = Job(1, INT8, "audit, noise", "done", result=result)
    app.run()
    assert fails(app) == []
    assert app.selectbox(key="model").value == INT8
    assert app.selectbox(key="audit").value == str(key)
    assert "done: 18.5 dB" in said(app)


def start(queue, path, inputs):
    queue.add_audit(
        demo(FLOAT), demo(INT8), path, inputs, {"samples": 3}, name=INT8, description="audit"
    )
    (job,) = finished(queue)
    return job


@pytest.mark.slow
def test_what_an_audit_found_is_in_the_store(path, tmp_path, monkeypatch):
    fake_audit.install(tmp_path / "fake", monkeypatch)
    queue = RunQueue()
    job = start(queue, path, "photos")
    assert (job.state, queue.work_of(job)) == ("done", "audit")
    with store.reading(path) as con:
        (row,) = queries.audits(con).to_dict("records")
    assert (row["int8_model"], row["float_model"]) == (INT8, FLOAT)
    assert list(row["notes"]) == [f"3, {DEFAULT_RELEASE}"]
    assert row["audit_id"] == job.result.audit_id


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["wrong", "crash", "killed", "bug"])
def test_what_fails_in_the_child_is_a_sentence_and_stores_nothing(
    path, tmp_path, monkeypatch, trouble
):
    fake_audit.install(tmp_path / "fake", monkeypatch)
    job = start(RunQueue(), path, trouble)
    assert job.state == "failed"
    assert job.message
    with store.reading(path) as con:
        assert queries.audits(con).empty


# Where other pages point here


def links(app):
    """Labels of the links on a page, with the query that each carries."""
    return {
        link.proto.label: str(link.proto.query_string)
        for link in app.get("page_link")
        if link.proto.label in (audits.OPEN, audits.START)
    }


@pytest.mark.slow
def test_revisions_of_an_int8_and_a_float_model_point_to_an_audit(open_app, path):
    app = open_app(path, "revisions", before=FLOAT, after=INT8)
    assert fails(app) == []
    assert app.header[0].value.replace("\\", "") == wording.instead_of_a_diff(INT8, FLOAT)
    assert wording.DIFF_POINTS_HERE in said(app)
    assert links(app) == {audits.START: f"model={INT8}&float={FLOAT}"}
    assert not app.get("vega_lite_chart")


@pytest.mark.slow
def test_revisions_show_the_audit_of_both_where_there_is_one(open_app, path):
    key = audited(path, INT8, FLOAT)
    app = open_app(path, "revisions", before=INT8, after=FLOAT)
    assert links(app) == {audits.OPEN: f"model={INT8}&audit={key}"}
    assert "has an output SQNR of 18.5" in said(app)


@pytest.mark.slow
def test_the_page_of_an_int8_model_shows_its_audit_or_the_way_to_one(open_app, path):
    app = open_app(path, "model", model=INT8)
    assert links(app) == {audits.START: f"model={INT8}"}
    assert wording.FOR_AN_INT8_MODEL in said(app)
    key = audited(path, INT8, FLOAT)
    for model in (INT8, FLOAT):
        app = open_app(path, "model", model=model)
        assert fails(app) == []
        assert links(app) == {audits.OPEN: f"model={INT8}&audit={key}"}
        assert (
            f"At risk: {INT8} has an output SQNR of 18.5 dB against {FLOAT} on 6 inputs."
            in said(app)
        )
    assert links(open_app(path, "model", model="digits-plain")) == {}


@pytest.mark.slow
def test_a_cell_of_compare_says_what_the_audit_found(open_app, path):
    audited(path, INT8, FLOAT)
    app = open_app(path, "compare")
    assert fails(app) == []
    (matrix,) = (
        data["rows"]
        for data in (json.loads(part.proto.json or "null") for part in app.get("bidi_component"))
        if data and "targets" in data
    )
    told = {row["name"]: {cell["rescued"] for cell in row["cells"]} for row in matrix}
    assert told.pop(INT8) == {f"Audited: 18.5\u00a0dB against {FLOAT}"}
    assert set().union(*told.values()) == {""}
