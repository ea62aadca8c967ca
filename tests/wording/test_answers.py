"""What can be done about a model: which answers there are, and which comes first."""

from dataclasses import replace

import pytest

from quantstore.schemes import LOST_DB
from quantstore.wording.answers import (
    GAIN_UNKNOWN,
    MOST_ANSWERS,
    StoredRescue,
    answers,
    opening,
)
from quantstore.wording.units import NO_BREAK_SPACE
from tests.support.facts import finding
from tests.support.runs import a_rescue


def value(target, db, verdict, **changes):
    facts = finding(verdict, "both", db, target=target)
    return replace(facts, evidence="probe", is_measured=True, **changes)


HERE = value("int8_tensor", 7.0, "broken")
PER_CHANNEL = value("int8_channel", 32.0, "fine")
FUSED = value("int8_channel_fused", 34.0, "fine")
WIDE = value("int8_channel_int16", 41.0, "fine")
WEIGHTS = value("int8_weights", 45.0, "fine")
FOUR_BITS = value("int4_weights", 26.0, "watch")


def stored(target="int8_tensor", after=25.0, band="watch", name="net.rescued.onnx", **changes):
    return StoredRescue(
        rescue_id=7, record=a_rescue(target, after=after, **changes), band=band, file_name=name
    )


def ranked(facts=HERE, others=(), rescues=(), *, can_be_rescued=True):
    return answers(facts, others, rescues, can_be_rescued=can_be_rescued)


def kinds(found):
    return [(answer.kind, answer.target) for answer in found]


def plain(text):
    return text.replace(NO_BREAK_SPACE, " ")


def test_the_file_of_this_target_comes_first_with_what_was_measured():
    first, *_ = ranked(others=[PER_CHANNEL], rescues=[stored()])
    assert (first.kind, first.rescue_id) == ("file", 7)
    assert plain(first.text) == "Use net.rescued.onnx: 8.0 → 24.8 dB"
    assert plain(first.gain) == "+16.8 dB, measured on 3 unseen inputs"


def test_then_what_costs_least_to_change():
    found = ranked(others=[WEIGHTS, FOUR_BITS, WIDE, FUSED, PER_CHANNEL])
    assert kinds(found) == [
        ("target", "int8_channel"),
        ("rescue", "int8_tensor"),
        ("target", "int8_channel_fused"),
    ]
    assert len(found) == MOST_ANSWERS


def test_another_target_is_an_estimate_and_says_so():
    first, second = ranked(others=[PER_CHANNEL])
    assert plain(first.text) == "Choose per-channel int8 instead: 7 dB → 32 dB"
    assert plain(first.gain) == "about +25 dB, estimated with noise"
    assert (second.kind, second.gain) == ("rescue", GAIN_UNKNOWN)


def test_where_nothing_was_kept_there_is_no_gain_in_db():
    lost = value("int8_tensor", LOST_DB, "broken")
    first, second, *_ = ranked(lost, [PER_CHANNEL], [stored(before=LOST_DB)])
    assert plain(first.text) == "Use net.rescued.onnx: −∞ → 24.8 dB"
    assert plain(first.gain) == "measured on 3 unseen inputs"
    assert plain(second.text) == "Choose per-channel int8 instead: −∞ dB → 32 dB"
    assert plain(second.gain) == "estimated with noise"


def test_a_run_on_own_inputs_is_no_estimate():
    own = replace(PER_CHANNEL, evidence="run", sample_count=12)
    first, *_ = ranked(others=[own])
    assert plain(first.gain) == "about +25 dB, on 12 of your inputs"


def test_what_stays_broken_comes_behind_what_does_not():
    poor = value("int8_channel", 15.0, "at risk")
    found = ranked(others=[poor, WEIGHTS])
    assert kinds(found) == [
        ("rescue", "int8_tensor"),
        ("target", "int8_weights"),
        ("target", "int8_channel"),
    ]


@pytest.mark.parametrize(
    "other",
    [
        value("int8_channel", 9.0, "broken"),
        replace(PER_CHANNEL, is_measured=False),
        replace(PER_CHANNEL, mode="weights"),
        replace(PER_CHANNEL, output_sqnr_db=None),
    ],
    ids=["hardly better", "not measured", "by weights alone", "no value"],
)
def test_a_target_without_a_telling_value_is_no_answer(other):
    assert kinds(ranked(others=[other])) == [("rescue", "int8_tensor")]


def test_a_file_for_another_target_names_it():
    broken = value("int8_channel", 8.0, "broken")
    rescue = stored("int8_channel", after=36.0, band="fine")
    first, *_ = ranked(others=[broken], rescues=[rescue])
    assert (first.kind, first.target) == ("other file", "int8_channel")
    assert plain(first.text) == "Use net.rescued.onnx with per-channel int8: 8.0 → 35.8 dB"


def test_a_target_that_is_fine_as_it_is_needs_no_file():
    first, *_ = ranked(others=[PER_CHANNEL], rescues=[stored("int8_channel", after=36.0)])
    assert kinds([first]) == [("target", "int8_channel")]


@pytest.mark.parametrize(
    "rescue",
    [
        stored(failure="the outputs are constant"),
        stored(is_proposal=True),
        stored(after=8.5, band="broken"),
    ],
    ids=["failed", "proposal", "no gain"],
)
def test_a_rescue_without_a_gain_leaves_the_search_open(rescue):
    assert kinds(ranked(rescues=[rescue])) == [("rescue", "int8_tensor")]


def test_a_rescue_that_fell_short_can_be_tried_again_with_more():
    found = ranked(rescues=[stored(after=15.0, band="at risk")])
    assert [answer.kind for answer in found] == ["file", "rescue"]
    assert found[1].text.startswith(
        "Rescue the model again for per-tensor int8: allow more remedies"
    )


def test_a_target_without_a_rescue_offers_none():
    facts = value("int4_weights", 7.0, "broken")
    assert kinds(ranked(facts, [WEIGHTS], can_be_rescued=False)) == [("target", "int8_weights")]


def test_a_model_that_is_fine_needs_one_calm_sentence():
    assert ranked(PER_CHANNEL, [WEIGHTS], [stored("int8_channel")]) == ()
    assert opening(PER_CHANNEL) == "No action needed for per-channel int8."


def test_a_visible_loss_is_usually_harmless():
    facts = value("int8_channel", 24.0, "watch")
    assert opening(facts).startswith("The loss is visible but usually harmless.")
    assert ranked(facts) != ()


def test_what_is_broken_goes_straight_to_the_answers():
    assert opening(HERE) == ""


def test_what_nobody_measured_says_so_and_offers_what_is_good_elsewhere():
    facts = finding("untested", target="int8_channel")
    assert opening(facts).startswith("The effect of per-channel int8 on this model is unknown.")
    found = ranked(facts, [FUSED, value("int8_channel_int16", 12.0, "at risk")])
    assert kinds(found) == [("rescue", "int8_channel"), ("target", "int8_channel_fused")]
    assert plain(found[1].text) == "Choose per-channel int8, fused instead: 34 dB"


def test_a_file_name_is_untrusted():
    first, *_ = ranked(rescues=[stored(name="a\x1bb.onnx")])
    assert "\x1b" not in first.text


def test_a_file_that_nobody_kept_is_named_by_what_it_is():
    first, *_ = ranked(rescues=[stored(name="")])
    assert first.text.startswith("Use the rescued model:")
