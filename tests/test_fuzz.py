"""Damaged models, the same ones every time; bench/fuzz.py makes thousands."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
import fuzz

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it needs alarms and limits")

SEED = 20
CASES, QUICK_CASES = 200, 40


@pytest.fixture(scope="module")
def models():
    return fuzz.corpus()


@pytest.mark.parametrize(
    "cases",
    [
        range(QUICK_CASES),
        pytest.param(range(QUICK_CASES, CASES), marks=pytest.mark.slow),
    ],
    ids=["a few", "many"],
)
def test_every_damaged_model_is_read_or_refused_in_one_sentence(models, tmp_path, cases):
    found = [fuzz.run(models, SEED, number, tmp_path, is_stored=False) for number in cases]
    assert [case for case in found if case.is_failure] == []
    outcomes = {case.outcome for case in found}
    assert outcomes == {"read", "refused"}


@pytest.mark.slow
def test_what_is_stored_is_whole_and_the_rest_leaves_no_trace(models, tmp_path, prober):
    cases = range(CASES, CASES + 8)
    found = [fuzz.run(models, SEED, number, tmp_path, prober=prober) for number in cases]
    assert [case for case in found if case.is_failure] == []
    stored = sum(case.outcome == "stored" for case in found)
    assert 0 < stored < len(found)
    assert fuzz.damage_of_store(tmp_path / "store.duckdb", stored) == ""


def test_a_case_is_the_same_every_time(models):
    assert fuzz.damaged(models, 1, 2) == fuzz.damaged(models, 1, 2)
    assert len({fuzz.damaged(models, 1, number) for number in range(20)}) == 20


def test_a_crash_is_a_failure_of_one_case(monkeypatch, tmp_path):
    """The child is started again behind the case that ended it."""
    script = tmp_path / "child.py"
    script.write_text(
        "import json, sys, os\n"
        "first = int(sys.argv[sys.argv.index('--first') + 1])\n"
        "for number in range(first, 4):\n"
        "    print(json.dumps({'start': number}), flush=True)\n"
        "    if number == 1: os.abort()\n"
        "    print(json.dumps({'case': [number, 'read', 0, '']}), flush=True)\n"
    )
    monkeypatch.setattr(fuzz, "__file__", str(script))
    found = list(fuzz.fuzz(1, 0, 4))
    assert [(case.number, case.outcome) for case in found] == [
        (0, "read"),
        (1, "crash"),
        (2, "read"),
        (3, "read"),
    ]
