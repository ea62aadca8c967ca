"""What is said of a rescue, in full."""

import math

import pytest

from quantstore.graph.findings.base import MOST_GAP_DB
from quantstore.rescuing.choices import REMEDIES
from quantstore.wording import rescues
from quantstore.wording.rescues import (
    NO_FILE,
    PROPOSAL,
    after_sentence,
    before_sentence,
    goal_sentence,
    progress_label,
    result_sentences,
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


def test_the_verdict_before_and_after_comes_last():
    assert plain(result_sentences(a_rescue(), "broken", "watch")) == [
        "With the integer kernels of this computer: 24.5 dB.",
        "Reached: 20 dB were asked for. 98.8 % of the multiply-accumulates stay in int8.",
        "Before: broken with per-channel int8, output SQNR 8.0 dB. 38 % of the decisions stay.",
        "After: watch, output SQNR 24.8 dB, measured on 3 inputs that the search did not use."
        " 97 % of the decisions stay.",
    ]


def test_kernels_that_saturate_are_told():
    (first, *_) = plain(result_sentences(a_rescue(integer_db=11.0), None, None))
    assert first == (
        "With the integer kernels of this computer: 11.0 dB; sums saturate on this processor."
    )


def test_a_goal_that_is_not_reached_has_its_best_plan():
    assert plain(goal_sentence(a_rescue(after=15.0))) == (
        "Not reached: 20 dB were asked for. 98.8 % of the multiply-accumulates stay in int8."
        " This is the best plan that was found."
    )


def test_a_proposal_says_that_nothing_was_quantized():
    proposal = a_rescue(
        is_proposal=True, test_count=1, agreement_before=math.nan, agreement_after=math.nan
    )
    assert plain(result_sentences(proposal, None, "watch")) == [
        PROPOSAL,
        "Reached: 20 dB were asked for. 98.8 % of the multiply-accumulates stay in int8.",
        "Before: per-channel int8, output SQNR 8.0 dB.",
        "After: watch, output SQNR 25.0 dB (the plan alone), measured on 1 noise input that the"
        " search did not use.",
    ]


def test_a_plan_without_a_file_says_so():
    unwritten = a_rescue(file_db=math.nan, integer_db=math.nan, reached=False)
    sentences = plain(result_sentences(unwritten, None, None))
    assert sentences[0] == NO_FILE
    assert "the best plan" not in sentences[1]
    assert "25.0 dB (the plan alone)" in sentences[-1]


def test_nothing_lost_is_exact_and_kernels_that_were_not_run_are_left_out():
    exact = a_rescue(file_db=math.inf, integer_db=math.nan)
    sentences = plain(result_sentences(exact, None, "fine"))
    assert len(sentences) == 3
    assert "After: fine, output SQNR exact, " in sentences[-1]


def test_a_failure_is_a_line_and_harmless():
    assert result_sentences(a_rescue(failure="stopped\x1b"), None, None) == (
        "No value: stopped\\x1b",
    )


@pytest.mark.parametrize(
    ("left", "label"),
    [(97.4, "ranges, about 97 s of the budget left"), (-3.0, "ranges, budget spent")],
)
def test_progress_says_how_much_of_the_budget_is_left(left, label):
    assert progress_label("ranges", left) == label


def test_before_and_after_do_without_bands():
    assert plain(before_sentence(a_rescue(), None)).startswith("Before: per-channel int8, ")
    assert plain(after_sentence(a_rescue(), None)).startswith("After: output SQNR 24.8 dB, ")
