"""What is said of a rescue, in full."""

import dataclasses
import math

import pytest

from quantstore.graph.findings.base import MOST_GAP_DB
from quantstore.rescuing.causes import EVERY_CAUSE
from quantstore.rescuing.terms import REMEDIES
from quantstore.wording import rescues
from quantstore.wording.frames import rescue_record
from quantstore.wording.rescues import (
    NO_FILE,
    PROPOSAL,
    after_sentence,
    before_and_after,
    before_sentence,
    goal_sentence,
    headline,
    progress_label,
    result_sentences,
    step_title,
)
from quantstore.wording.units import NO_BREAK_SPACE
from tests.support.runs import a_rescue


def plain(sentences):
    if isinstance(sentences, str):
        return sentences.replace(NO_BREAK_SPACE, " ")
    return [plain(sentence) for sentence in sentences]


def test_every_remedy_has_a_title_and_the_gap_is_the_one_of_the_finding():
    assert set(REMEDIES) == set(rescues.REMEDY_NAMES)
    assert set(rescues.REMEDY_TITLES) == {"placement", *REMEDIES}
    assert rescues.MOST_GAP_DB == MOST_GAP_DB


def test_every_cause_has_a_sentence():
    assert tuple(rescues.CAUSE_SENTENCES) == EVERY_CAUSE


@pytest.mark.parametrize(
    ("changes", "beginnings"),
    [
        ({"test_count": 9, "int8_macs": 1.0}, ["SQNR is not", "The quantized model was run"]),
        ({"test_count": 9}, ["SQNR is not", "MACs are not", "The quantized model was run"]),
        ({"int8_macs": 1.0, "is_proposal": True}, ["SQNR is not", "With so few inputs"]),
        (
            {"target": "int8_channel_fused", "int8_macs": 1.0},
            ["SQNR is not", "With so few inputs", "A fused target", "The quantized model was run"],
        ),
        ({"failure": "stopped"}, []),
    ],
)
def test_of_the_limits_those_are_told_that_a_rescue_calls_for(changes, beginnings):
    sentences = rescues.limits(a_rescue(**changes))
    assert len(sentences) == len(beginnings)
    assert all(map(str.startswith, sentences, beginnings))
    assert set(sentences) <= set(rescues.LIMITS)


def test_the_verdict_before_and_after_comes_last():
    assert plain(result_sentences(a_rescue(), "broken", "watch")) == [
        "With the integer kernels of this computer: 24.5 dB.",
        "Goal reached: 20 dB. 98.8 % of the multiply-accumulates stay in int8.",
        "Before: broken with per-channel int8, output SQNR 8.0 dB. 38 % of decisions are"
        " unchanged.",
        "After: watch, output SQNR 24.8 dB, measured on 3 inputs that the search did not use."
        " 97 % of decisions are unchanged.",
    ]


def test_kernels_that_saturate_are_told():
    (first, *_) = plain(result_sentences(a_rescue(integer_db=11.0), None, None))
    assert first == (
        "With the integer kernels of this computer: 11.0 dB; sums saturate on this processor."
    )


def test_a_goal_that_is_not_reached_has_its_best_plan():
    assert plain(goal_sentence(a_rescue(after=15.0))) == (
        "Goal not reached: 20 dB. 98.8 % of the multiply-accumulates stay in int8."
        " This is the best plan found."
    )


def test_a_proposal_says_that_nothing_was_quantized():
    proposal = a_rescue(
        is_proposal=True, test_count=1, agreement_before=math.nan, agreement_after=math.nan
    )
    assert plain(result_sentences(proposal, None, "watch")) == [
        PROPOSAL,
        "Goal reached: 20 dB. 98.8 % of the multiply-accumulates stay in int8.",
        "Before: per-channel int8, output SQNR 8.0 dB.",
        "After: watch, output SQNR 25.0 dB (plan only, no file), measured on 1 noise input that the"
        " search did not use.",
    ]


def test_a_plan_without_a_file_says_so():
    unwritten = a_rescue(file_db=math.nan, integer_db=math.nan, reached=False)
    sentences = plain(result_sentences(unwritten, None, None))
    assert sentences[0] == NO_FILE
    assert "the best plan" not in sentences[1]
    assert "25.0 dB (plan only, no file)" in sentences[-1]


def test_nothing_lost_is_exact_and_kernels_that_were_not_run_are_left_out():
    exact = a_rescue(file_db=math.inf, integer_db=math.nan)
    sentences = plain(result_sentences(exact, None, "fine"))
    assert len(sentences) == 3
    assert "After: fine, output SQNR exact, " in sentences[-1]


def test_a_failure_is_a_line_and_harmless():
    assert result_sentences(a_rescue(failure="stopped\x1b"), None, None) == (
        "No result: stopped\\x1b",
    )


@pytest.mark.parametrize(
    ("left", "label"),
    [
        (97.4, "ranges, about 97 s of the budget left"),
        (0.0, "ranges, budget spent"),
        (None, "ranges"),
    ],
)
def test_progress_says_how_much_of_the_budget_is_left(left, label):
    assert progress_label("ranges", left) == label


def test_before_and_after_do_without_bands():
    assert plain(before_sentence(a_rescue(), None)).startswith("Before: per-channel int8, ")
    assert plain(after_sentence(a_rescue(), None)).startswith("After: output SQNR 24.8 dB, ")


def test_the_headline_is_the_verdict_before_and_after():
    assert plain(headline(a_rescue(), "broken", "watch")) == (
        "Broken → watch with per-channel int8: output SQNR 8.0 → 24.8 dB on 3 unseen inputs"
    )
    assert plain(headline(a_rescue(after=9.5), "broken", "broken")).startswith(
        "Still broken with per-channel int8: output SQNR 8.0 → 9.2 dB"
    )
    assert plain(headline(a_rescue(), None, "watch")).startswith("With per-channel int8: ")


def test_the_headline_of_a_proposal_and_of_a_failure_say_so():
    proposal = a_rescue(is_proposal=True, test_count=1)
    assert plain(headline(proposal, "broken", "watch")) == (
        "Proposal, broken → watch with per-channel int8: output SQNR 8.0 → 25.0 dB on 1 noise input"
    )
    failed = a_rescue(failure="the outputs are constant.")
    assert headline(failed, None, None) == (
        "No rescue with per-channel int8: the outputs are constant"
    )


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [(2.2, 35.4, "2.2 → 35.4 dB"), (2.2, math.inf, "2.2 dB → exact")],
)
def test_a_unit_stands_once_where_it_can(before, after, text):
    assert plain(before_and_after(before, after)) == text


def test_the_first_placement_is_the_target_and_a_later_one_a_step():
    assert step_title("placement", is_first=True) == rescues.REMEDY_TITLES["placement"]
    assert step_title("placement") == "other placement"
    assert step_title("of a later\x1brelease") == "of a later\\x1brelease"


def a_row(**changes):
    """A row of ``queries.rescues``, as pandas has it."""
    record = dataclasses.asdict(a_rescue(**changes))
    values = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
        if name not in ("steps", "units", "files")
    }
    return values | {"has_files": True}


def test_a_row_of_the_store_is_the_record_it_came_from():
    record = rescue_record(a_row())
    assert record == a_rescue(
        steps=(), units=(), files=(), drift=(), float_check_db=record.float_check_db
    )
    assert math.isnan(record.float_check_db)


def test_null_is_exact_where_there_is_a_plan_and_unknown_where_there_is_none():
    exact = rescue_record(a_row(after=math.inf, file_db=math.inf))
    assert (exact.after_db, exact.file_db) == (math.inf, math.inf)
    failed = rescue_record(
        a_row(before_db=math.nan, after_db=math.nan, file_db=math.nan, failure="no")
        | {"has_files": False}
    )
    assert all(math.isnan(value) for value in (failed.before_db, failed.after_db, failed.file_db))
    assert failed.failure == "no"
