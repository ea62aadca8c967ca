"""The gate for int8 files: what of an audit passes, what fails, and how it is told."""

import json
import math
import shutil

import pytest

from quantstore import checks, cli, queries, store
from quantstore.checks import Limits
from quantstore.checks.audited import (
    KERNELS_NOT_RUN,
    NO_GRID,
    AuditSubject,
    judge,
    no_audit,
)
from quantstore.checks.limits import NEEDS_AUDIT, OF_AUDITS, SHARE, Config
from quantstore.errors import LimitsError
from quantstore.pipeline.files import demo_paths
from tests.support import fake_audit
from tests.support.runs import an_audit, audited

INT8, FLOAT = "digits-separable", "digits-rescaled"
NAMES = {0: "conv0", 1: "conv1"}


def judged(record, band="at risk", **limits):
    subject = None if record is None else AuditSubject(record, NAMES, band)
    return list(judge("net-int8", "scheme", Limits(audit="net", **limits), subject))


def only(record, **limits):
    (check,) = judged(record, **limits)
    return check


@pytest.mark.parametrize(("band", "outcome"), [("broken", "fail"), ("at risk", "pass")])
def test_without_a_limit_the_file_must_not_be_broken(band, outcome):
    check = only(an_audit(), band=band)
    assert (check.check, check.outcome, check.value) == ("audit", outcome, 18.5)
    assert (
        check.message == f"{band}: net-int8 has an output SQNR of 18.5 dB against net on 6 inputs"
    )


@pytest.mark.parametrize(
    ("grid_db", "outcome"), [(20.0, "pass"), (19.9, "fail"), (math.inf, "pass")]
)
def test_the_file_keeps_so_much_of_its_float_file(grid_db, outcome):
    assert only(an_audit(grid_db=grid_db), min_audit_db=20).outcome == outcome


def test_what_fails_names_who_is_to_blame():
    notes = only(an_audit(), min_audit_db=20).notes
    assert notes[0].startswith("The weights cause the loss: ")
    assert any("weights of conv1 cost 7.5 dB" in note for note in notes)
    assert any("Tensor h costs 1.5 dB" in note for note in notes)
    assert only(an_audit(), min_audit_db=10).notes == ()


@pytest.mark.parametrize(("integer_db", "outcome"), [(17.5, "pass"), (17.25, "fail")])
def test_integer_kernels_may_lose_so_much(integer_db, outcome):
    check = only(an_audit(integer_db=integer_db), max_integer_gap_db=1)
    assert (check.outcome, check.value) == (outcome, 18.5 - integer_db)


def test_kernels_that_were_not_run_hold_nothing():
    check = only(an_audit(integer_db=math.nan), max_integer_gap_db=1)
    assert (check.outcome, check.message) == ("not measured", KERNELS_NOT_RUN)


def test_tensors_that_saturate_are_named_with_their_share():
    check = only(an_audit(), max_saturated_share=0.1)
    assert (check.outcome, check.value, check.unit) == ("fail", 0.125, "share")
    assert [(offender.layer, offender.value) for offender in check.offenders] == [("h", 0.125)]
    assert "12.5%  h" in checks.to_text([check])
    assert only(an_audit(), max_saturated_share=0.125).outcome == "pass"
    assert only(an_audit(tensors=()), max_saturated_share=0.1).message == NO_GRID


def test_layers_that_lost_too_much_of_their_float_weights_are_named():
    check = only(an_audit(), min_audit_layer_db=10)
    assert (check.outcome, check.value) == ("fail", 9.5)
    assert [(offender.layer, offender.value) for offender in check.offenders] == [("conv1", 9.5)]
    assert only(an_audit(), min_audit_layer_db=9.5).outcome == "pass"
    assert only(an_audit(), min_audit_layer_db=10, exclude=("conv1",)).outcome == "pass"


@pytest.mark.parametrize("limit", [{}, *({name: 0.5} for name in OF_AUDITS)])
def test_without_an_audit_nothing_holds_and_the_command_is_named(limit):
    check = only(None, **limit)
    assert (check.outcome, check.message) == ("not measured", no_audit("net-int8", "net"))
    assert "audit net net-int8" in check.message


def test_every_limit_is_checked_on_its_own():
    limits = dict.fromkeys(OF_AUDITS, 0.5)
    names = [check.check for check in judged(an_audit(), **limits)]
    assert names == [name.replace("_", "-") for name in OF_AUDITS]


def test_limits_of_an_audit_need_one():
    with pytest.raises(LimitsError, match=NEEDS_AUDIT):
        Limits(min_audit_db=20)
    with pytest.raises(LimitsError, match=SHARE):
        Limits(audit="net", max_saturated_share=2)


def test_the_store_has_what_is_judged_and_every_format_tells_it(demo_store, tmp_path):
    path = shutil.copy(demo_store, tmp_path / "s.duckdb")
    audited(path, INT8, FLOAT, an_audit(grid_db=5.5))
    limits = Config().limits(INT8, {"audit": FLOAT, "min_audit_db": 20})
    with store.reading(path) as con:
        found = [check for check in checks.run(con, {INT8: limits}) if check.audit is not None]
    (told,) = json.loads(checks.to_json(found))
    assert (told["audit"], told["value"], told["limit"]) == (FLOAT, 5.5, 20)
    for style in (checks.to_text, checks.to_junit, checks.to_github):
        assert f"audit against {FLOAT}" in style(found)
        assert "cost 7.5 dB" in style(found)


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = cli.main([*map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def demo(name):
    return next(path for path in demo_paths() if path.stem == name)


@pytest.mark.slow
def test_an_audit_is_made_once_where_there_is_none(run, demo_store, tmp_path, monkeypatch):
    fake_audit.install(tmp_path / "fake", monkeypatch)
    path = shutil.copy(demo_store, tmp_path / "s.duckdb")
    asked = ("--db", path, "check", INT8, "--audit", demo(FLOAT), "--min-audit-db", "20")
    code, out, err = run(*asked, "--inputs", "photos")
    assert code == 1
    assert "output SQNR of 18.5 dB" in out
    assert f"audited {INT8} against {FLOAT} on photos" in err
    code, out, err = run(*asked[:-1], "10")
    assert "pass" in out
    assert "audited" not in err
    with store.reading(path) as con:
        assert queries.audits(con)["input_source"].tolist() == ["photos"]
    _, _, err = run(*asked, "--inputs", "other/night")
    assert f"audited {INT8} against {FLOAT} on other/night" in err
    with store.reading(path) as con:
        assert set(queries.audits(con)["input_source"]) == {"other/night", "photos"}


def test_limits_of_an_audit_without_a_float_model_are_wrong_usage(run, demo_store):
    code, out, err = run("--db", demo_store, "check", INT8, "--min-audit-db", "20")
    assert (code, out) == (2, "")
    assert NEEDS_AUDIT in err


def test_a_float_model_that_is_not_there_is_named(run, demo_store):
    code, out, err = run("--db", demo_store, "check", INT8, "--audit", "nobody")
    assert (code, out) == (2, "")
    assert "nobody" in err
