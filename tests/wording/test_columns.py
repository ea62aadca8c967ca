"""Tables, notes and stories that the app and the report draw from the same functions."""

import math

import pytest

from quantstore.wording import columns, drift, notes, remedies, runs, stories
from quantstore.wording.verdicts import verdict
from tests.support.facts import finding

LIMITS = {"fine": 30.0, "watch": 20.0, "at risk": 10.0, "broken": -math.inf}


def test_bands_are_told_worst_first_with_what_they_span():
    spans = {band: text.replace("\u00a0", " ") for band, text in notes.band_ranges(LIMITS)}
    assert spans == {
        "broken": "below 10 dB",
        "at risk": "10 to 20 dB",
        "watch": "20 to 30 dB",
        "fine": "30 dB and more",
    }


def test_a_spark_gives_each_bin_the_band_of_its_lower_edge():
    spark = columns.spark([3, 0, 1, 0, 2], LIMITS, 50)
    assert spark.bands == ("broken", "at risk", "watch", "fine", "fine")
    assert spark.label == "3 of 6 channels below 10 dB"


@pytest.mark.parametrize(("db", "text"), [(36.84, "Rescued: 36.8 dB"), (None, "")])
def test_a_cell_says_what_a_rescue_reached(db, text):
    cell = verdict(finding("broken", "both", 2.0, rescued_db=db))
    assert cell.rescued.replace("\u00a0", " ") == text
    assert cell.band == "broken"


def test_notes_explain_what_occurs_and_nothing_else():
    row = {
        "verdict": "fine",
        "evidence": "probe",
        "provisional": "<b> cannot be imitated",
        "layers_already_quantized": 0,
    }
    first, provisional = notes.evidence_notes([row])
    assert first == f"{notes.PROBE_NOTE} {notes.BAND_NOTE}"
    assert "&lt;b&gt; cannot be imitated" in provisional
    untested = row | {"verdict": "untested", "evidence": "weights", "provisional": None}
    assert notes.evidence_notes([untested]) == [notes.BAND_NOTE, notes.UNTESTED_NOTE]


def test_the_worst_band_decides_what_a_model_is_told_about_equalization():
    hopes = [
        {"band": "at risk", "layers": 3, "layers_with_pair": 0, "layers_lifted": 0},
        {"band": "broken", "layers": 2, "layers_with_pair": 2, "layers_lifted": 1},
    ]
    sentence = remedies.equalization_hope("broken", layers=2, with_pair=2, lifted=1)
    assert remedies.model_remedies(hopes, {}) == sentence
    assert remedies.model_remedies([], {}) == ""


def test_a_story_of_one_model_names_layers_and_of_several_their_models_too():
    layer = {"model": "net", "layer": "conv", "range": 2.0}
    assert " conv " in stories.range_story([layer, None, None], "range", is_several=False)
    assert " net conv " in stories.range_story([layer, None, None], "range", is_several=True)
    assert stories.range_story([None, None, None], "range", is_several=True) == ""
    assert stories.spread_story({"net": 1.0}, "layer") == ""


def test_a_fall_from_above_what_can_be_told_says_so():
    fall = {"lowest_before_db": drift.FALLS_FROM_DB, "drop_db": 10.0}
    assert drift.before_and_after(fall).replace("\u00a0", " ") == "≥ 40.0 dB → 30.0 dB"


def test_schemes_of_another_release_are_left_out_of_runs():
    run = {"input_source": "photos", "scheme": "int8_of_tomorrow"}
    assert runs.own_runs_of([run]) == []
