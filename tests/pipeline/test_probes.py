"""Measuring targets of a model: which file, which figures, and what stays in the store."""

import dataclasses
import math
import shutil
import threading
from pathlib import Path

import pytest

from quantstore import queries, store
from quantstore.errors import (
    CancelledError,
    MissingStoreError,
    ModelFileError,
    QuantstoreError,
    UnknownModelError,
    UnknownTargetError,
)
from quantstore.pipeline import probes
from quantstore.pipeline.files import demo_paths
from quantstore.pipeline.ingest import ingest_file
from quantstore.pipeline.outcome import IngestChoices
from quantstore.records import NOTHING_ROUNDED, FindingRecord
from quantstore.run.plan import PLAN, Probed
from quantstore.run.probe import Prober, probe
from quantstore.schemes import DEFAULT_TARGET, TARGETS
from quantstore.wording.failures import reason
from tests.support.graphs import conv_model, save
from tests.support.runs import a_run, add

MODEL = "digits-plain"
TARGET = TARGETS["int8_dynamic"]
FILE = next(path for path in demo_paths() if path.stem == MODEL)


@pytest.fixture
def path(demo_store, tmp_path):
    """The demo models, none of which was run: to add to."""
    return Path(shutil.copy(demo_store, tmp_path / "own.duckdb"))


@pytest.fixture
def answering(monkeypatch):
    """Let the child answer this at once: an SQNR, or why there is none; says what it was asked."""

    def answer(output_sqnr_db=25.0, failure=None):
        asked = []

        def start(self, path, *, fold, seconds, asked: list):
            self.asked = asked
            requests.append((path, fold, seconds, [one.names[1] for one in asked]))

        def result(self, report=None):
            return tuple(
                a_run(
                    None if failure else output_sqnr_db,
                    *(one.scheme.name, one.mode),
                    target=one.names[1],
                    failure=failure,
                )
                for one in self.asked
            )

        requests = asked
        monkeypatch.setattr(Prober, "start", start)
        monkeypatch.setattr(Prober, "result", result)
        return requests

    return answer


def a_figure(target=TARGET, db=40.0, **changes):
    return a_run(db, target.scheme.name, target.mode, target=target.name, **changes)


def stored_figures(path, model=MODEL):
    with store.reading(path) as con:
        frame = queries.model_targets(con, model)
    return dict(zip(frame["target"], frame["output_sqnr_db"], strict=True))


def row_count(path, model=MODEL):
    with store.reading(path) as con:
        return con.value(
            "select count(*) from simulations join models using (model_id) where model = ?", [model]
        )


# Figures.


@pytest.mark.slow
def test_the_figure_is_the_one_of_the_probe_itself(path):
    result = probes.probe_model(MODEL, path, TARGET.name)
    (expected,) = probe(FILE, asked=[Probed.of(TARGET)])
    (record,) = result.records
    assert record.output_sqnr_db == expected.output_sqnr_db
    assert stored_figures(path) == {TARGET.name: expected.output_sqnr_db}
    assert (result.model, result.is_complete, result.notes) == (MODEL, True, ())
    assert record.cpu_seconds > 0


def test_without_targets_those_of_ingest_are_measured(path, answering):
    requests = answering()
    probes.probe_model(MODEL, path)
    ((_, _, _, names),) = requests
    assert names == [name for name, target in TARGETS.items() if target.is_default]


@pytest.mark.slow
def test_all_means_every_target_and_each_is_asked_for_once(path, answering):
    requests = answering()
    probes.probe_model(MODEL, path, ["int4_weights", "all", "int4_weights"])
    probes.probe_model(MODEL, path, ["int4_weights", "int8_dynamic", "int4_weights"])
    assert [names for *_, names in requests] == [[*TARGETS], ["int4_weights", "int8_dynamic"]]


def test_the_latest_figure_of_a_target_stands_alone(path, answering):
    with store.writing(path) as con:
        add(con, MODEL, a_figure())
        add(con, MODEL, a_figure(TARGETS["int4_weights"]))
        add(con, MODEL, a_figure(source="12 images"))
        add(con, "digits-rescaled", a_figure())
    answering(25.0)
    probes.probe_model(MODEL, path, TARGET.name)
    assert stored_figures(path) == {TARGET.name: 25.0, "int4_weights": 40.0}
    # With what was run on images.
    assert row_count(path) == 3
    assert row_count(path, "digits-rescaled") == 1


def test_a_figure_that_is_missing_never_replaces_one(path, answering):
    with store.writing(path) as con:
        add(con, MODEL, a_figure(db=33.9))
    answering(failure="stopped after 60 s of CPU time")
    result = probes.probe_model(MODEL, path, [TARGET.name, "int4_weights"])
    assert not result.is_complete
    assert result.kept_db == {TARGET.name: 33.9}
    assert result.notes == (
        "int8_dynamic: stopped after 60 s of CPU time; the earlier value of 33.9 dB is kept",
        "int4_weights: stopped after 60 s of CPU time",
    )
    with store.reading(path) as con:
        rows = con.rows("select target, output_sqnr_db, failure from simulations order by target")
    assert rows == [
        ("int4_weights", None, "stopped after 60 s of CPU time"),
        (TARGET.name, 33.9, None),
    ]


def test_where_there_is_nothing_to_round_no_figure_is_missing(path, answering):
    answering(failure=NOTHING_ROUNDED[1])
    result = probes.probe_model(MODEL, path, TARGET.name)
    assert result.is_complete
    assert result.notes == (f"{TARGET.name}: {reason(NOTHING_ROUNDED[1])}",)


@pytest.mark.slow
def test_a_reason_gives_way_to_a_later_reason_and_to_a_figure(path, answering):
    for failure in ("the first", "the second"):
        answering(failure=failure)
        probes.probe_model(MODEL, path, TARGET.name)
        with store.reading(path) as con:
            assert con.rows("select failure from simulations") == [(failure,)]
    answering(25.0)
    probes.probe_model(MODEL, path, TARGET.name)
    with store.reading(path) as con:
        assert con.rows("select output_sqnr_db, failure from simulations") == [(25.0, None)]


@pytest.mark.slow
def test_too_little_time_is_a_reason_that_is_stored(path):
    result = probes.probe_model(MODEL, path, TARGET.name, seconds=0.001)
    (record,) = result.records
    assert record.failure.startswith("stopped after ")
    assert math.isnan(stored_figures(path)[TARGET.name])


@pytest.fixture
def showing(monkeypatch, answering):
    """Let a run show these findings besides: messages by kind."""

    def show(**messages):
        def result_with_findings(self, report=None):
            self.findings = tuple(
                FindingRecord(
                    depth=None, kind=kind, severity="warning", message=message, remedy="none"
                )
                for kind, message in messages.items()
            )
            return answer(self, report)

        answering()
        answer = Prober.result
        monkeypatch.setattr(Prober, "result", result_with_findings)

    return show


def messages_of(path):
    with store.reading(path) as con:
        return sorted(
            con.rows("""
            select kind, message from findings join models using (model_id)
            where model = 'digits-plain'
        """)
        )


@pytest.mark.slow
def test_what_a_run_shows_replaces_what_an_earlier_one_showed(path, showing):
    before = messages_of(path)
    for figure in ("33.1 dB", "35.2 dB"):
        showing(saturates=f"kernels give {figure}", decoder=f"the decoder keeps {figure}")
        probes.probe_model(MODEL, path, DEFAULT_TARGET.name)
    kept = [("decoder", "the decoder keeps 35.2 dB"), ("saturates", "kernels give 35.2 dB")]
    assert messages_of(path) == sorted([*before, *kept])
    # What is not found any more goes.
    showing()
    probes.probe_model(MODEL, path, DEFAULT_TARGET.name)
    assert messages_of(path) == before


@pytest.mark.slow
def test_what_another_target_shows_leaves_what_the_default_one_did(path, showing, answering):
    before = messages_of(path)
    showing(saturates="of the default")
    probes.probe_model(MODEL, path, DEFAULT_TARGET.name)
    showing(saturates="of another", decoder="of another")
    probes.probe_model(MODEL, path, TARGET.name)
    both = sorted([*before, ("decoder", "of another"), ("saturates", "of the default")])
    assert messages_of(path) == both
    answering(failure="stopped")
    probes.probe_model(MODEL, path, DEFAULT_TARGET.name)
    assert messages_of(path) == both


@pytest.mark.slow
def test_without_the_default_target_the_latest_run_says_what_it_shows(path, showing):
    before = messages_of(path)
    for figure in ("33.1 dB", "35.2 dB"):
        showing(saturates=figure)
        probes.probe_model(MODEL, path, TARGET.name)
    assert messages_of(path) == sorted([*before, ("saturates", "35.2 dB")])


# Which model, which file.


def test_a_model_is_run_as_it_was_measured(path, answering):
    requests = answering()
    ingest_file(FILE, path, IngestChoices(fold=False, probe=False, name="unfolded"))
    probes.probe_model("unfolded", path, seconds=7)
    assert requests[0][:3] == (FILE, False, 7)


def test_a_file_that_the_store_holds_is_that_model(path, answering, tmp_path):
    answering()
    copy = Path(shutil.copy(FILE, tmp_path / "another name.onnx"))
    for file in (copy, str(copy)):
        result = probes.probe_model(file, path, TARGET.name)
        assert (result.model, result.was_ingested) == (MODEL, False)
    with store.reading(path) as con:
        assert len(queries.model_names(con)) == 4


@pytest.mark.slow
def test_a_new_file_is_ingested_with_one_probe_that_measures_the_usual_as_well(tmp_path, answering):
    requests = answering()
    path = tmp_path / "new.duckdb"
    result = probes.probe_model(FILE, path, [TARGET.name, "int8_channel"])
    assert (result.model, result.was_ingested) == (MODEL, True)
    assert [record.target for record in result.records] == [TARGET.name, "int8_channel"]
    ((*_, names),) = requests
    assert names[:2] == [TARGET.name, "int8_channel"]
    assert len(names) == len(PLAN) + 1
    assert row_count(path) == len(PLAN) + 1


def test_what_is_neither_a_model_nor_a_file_is_a_sentence(path, tmp_path):
    for store_path in (path, tmp_path / "none.duckdb"):
        with pytest.raises(UnknownModelError, match="'nope', and there is no such file"):
            probes.probe_model("nope", store_path)
    assert not (tmp_path / "none.duckdb").exists()


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~nobody-here/a.onnx"])
def test_a_name_that_no_file_can_have_is_none(path, name):
    with pytest.raises(UnknownModelError):
        probes.probe_model(name, path)


def test_a_file_that_is_no_model_is_named(path, tmp_path):
    text = tmp_path / "text.onnx"
    text.write_text("hello")
    with pytest.raises(ModelFileError, match=r"text\.onnx: not an ONNX file"):
        probes.probe_model(text, path)
    with pytest.raises(ModelFileError, match="is a folder"):
        probes.probe_model(tmp_path, path)


def test_a_file_that_is_gone_or_was_uploaded_is_asked_for(path, tmp_path):
    file = save(conv_model(), tmp_path / "net.onnx")
    ingest_file(file, path, IngestChoices(probe=False))
    with store.writing(path) as con:
        con.rows("update models set source = 'upload a.onnx' where model = ?", [MODEL])
    file.unlink()
    with pytest.raises(ModelFileError, match="the file of 'net' has been moved or deleted") as gone:
        probes.probe_model("net", path)
    assert "probe FILE" in gone.value.hint
    with pytest.raises(ModelFileError, match="was not kept after the upload"):
        probes.probe_model(MODEL, path)


def test_a_file_that_has_changed_since_is_not_run(path, tmp_path, answering):
    requests = answering()
    file = save(conv_model(), tmp_path / "net.onnx")
    ingest_file(file, path, IngestChoices(probe=False))
    file.write_bytes(FILE.read_bytes())
    with pytest.raises(ModelFileError, match="differs from the file that was measured as 'net'"):
        probes.probe_model("net", path)
    assert requests == []


def test_a_file_that_changes_while_it_is_run_gets_no_figure(path, tmp_path, answering, monkeypatch):
    answering()
    file = save(conv_model(), tmp_path / "net.onnx")
    ingest_file(file, path, IngestChoices(probe=False))
    result = Prober.result

    def result_of_another_file(self, report=None):
        file.write_bytes(FILE.read_bytes())
        return result(self, report)

    monkeypatch.setattr(Prober, "result", result_of_another_file)
    with pytest.raises(ModelFileError, match="changed while it was run"):
        probes.probe_model("net", path)
    assert row_count(path, "net") == 0


def test_a_model_that_is_removed_meanwhile_gets_no_figure(path, answering, monkeypatch):
    answering()
    result = Prober.result

    def result_of_a_removed_model(self, report=None):
        with store.writing(path) as con:
            store.remove_model_named(con, MODEL)
        return result(self, report)

    monkeypatch.setattr(Prober, "result", result_of_a_removed_model)
    with pytest.raises(UnknownModelError, match="removed meanwhile"):
        probes.probe_model(MODEL, path)


def test_a_target_that_is_none_lists_those_that_are(path):
    for names in ("nope", ["int8_channel", "nope"]):
        with pytest.raises(UnknownTargetError, match="there is no target 'nope'") as unknown:
            probes.start(MODEL, path, names)
        assert "int8_channel_fused" in unknown.value.hint
        assert unknown.value.hint.endswith("all")
    with pytest.raises(UnknownTargetError, match="no target was given"):
        probes.start(MODEL, path, [])


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_no_time_is_a_sentence(path, seconds):
    with pytest.raises(QuantstoreError, match="more than 0 seconds"):
        probes.start(MODEL, path, seconds=seconds)


def test_a_store_that_goes_missing_is_not_made_anew(path, answering, monkeypatch):
    answering()
    result = Prober.result

    def result_without_store(self, report=None):
        path.unlink()
        return result(self, report)

    monkeypatch.setattr(Prober, "result", result_without_store)
    with pytest.raises(MissingStoreError):
        probes.probe_model(MODEL, path)


# Progress and cancelling.


@pytest.mark.slow
def test_progress_counts_the_figures(path):
    seen = []
    running = probes.start(MODEL, path, "all")
    running.wait(lambda progress: seen.append(progress))
    assert {progress.stage for progress in seen} <= {probes.READING, probes.MEASURING}
    last = running.progress
    assert (last.stage, last.done, last.total) == (probes.MEASURING, len(TARGETS), len(TARGETS))
    assert last.share_done == 1


@pytest.mark.parametrize("begun", [False, True], ids=["before it runs", "while it runs"])
def test_cancelled_it_stores_nothing_and_leaves_no_process(path, monkeypatch, begun):
    probers, may_start, has_started = [], threading.Event(), threading.Event()
    start = Prober.start

    def start_when_told(self, *arguments, **options):
        probers.append(self)
        if not begun:
            may_start.wait(10)
        start(self, *arguments, **options)
        has_started.set()

    monkeypatch.setattr(Prober, "start", start_when_told)
    running = probes.start(MODEL, path, "all")
    if begun:
        assert has_started.wait(10)
    running.cancel()
    may_start.set()
    with pytest.raises(CancelledError):
        running.wait()
    assert row_count(path) == 0
    assert [prober._child for prober in probers] in ([None], [])


def test_the_records_are_rows_of_the_store(path, answering):
    answering()
    (record,) = probes.probe_model(MODEL, path, TARGET.name).records
    with store.reading(path) as con:
        frame = con.frame("from simulations")
    # Outputs have a table of their own.
    columns = {field.name for field in dataclasses.fields(record)} - {"outputs", "answers"}
    assert columns <= set(frame.columns)
    assert frame.loc[0, "created_at"] == record.created_at
