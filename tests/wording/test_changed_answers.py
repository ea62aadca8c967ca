"""What int8 does to answers, in words."""

import math

import pytest

from quantstore.answers import DetectedBox, NetworkAnswer, ScoredClass, ValueMap
from quantstore.records import AnswerRecord
from quantstore.wording import changed_answers as words


def row(form="boxes", rank=1, sqnr_db=9.5, is_shown=True, **changes) -> AnswerRecord:
    return AnswerRecord(
        input_name=changes.pop("input_name", "cat.jpg"),
        rank=rank, sqnr_db=sqnr_db, form=form, is_shown=is_shown, **changes,
    )  # fmt: skip


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], ""),
        (
            [row(kept=5, lost=1, gained=1), row(kept=2, lost=1, gained=0)],
            "7 of 9 detections stay; 2 lost, 1 new (on 2 inputs).",
        ),
        ([row(kept=1, lost=0, gained=0)], "1 of 1 detection stays (on 1 input)."),
        (
            [row(kept=3, lost=0, gained=0, score_change=-0.3),
             row(kept=1, lost=0, gained=0, score_change=0.1), row(kept=0, lost=0, gained=0)],
            "4 of 4 detections stay (on 3 inputs). Scores of those that stay fall by 0.20 on"
            " average.",
        ),
        (
            [row(kept=2, lost=0, gained=0, score_change=0.04)],
            "2 of 2 detections stay (on 1 input).",
        ),
        ([row(kept=0, lost=0, gained=2)], "2 new detections, none in float (on 1 input)."),
        (
            [row(kept=0, lost=0, gained=0)] * 3,
            "Neither float nor int8 detects anything on 3 inputs.",
        ),
        (
            [row(kept=1, lost=39, gained=0, kept_by_heads=38, score_change=0.7)],
            "1 of 40 detections stay; 39 lost (on 1 input). With the decoder in float, 38 of 40"
            " stay: keep it out of int8.",
        ),
        (
            [row(kept=3, lost=1, gained=0, kept_by_heads=3)],
            "3 of 4 detections stay; 1 lost (on 1 input).",
        ),
        (
            [row("classes", kept=1, float_class=2, int8_class=2)] * 6,
            "The top class stays on all 6 inputs.",
        ),
        (
            [row("classes", kept=0, float_class=281, int8_class=285)] * 2
            + [row("classes", kept=1, float_class=2, int8_class=2)] * 4,
            "The top class changes on 2 of 6 inputs: from 281 to 285 on 2.",
        ),
        (
            [row("classes", kept=0, float_class=number, int8_class=9) for number in (1, 1, 2, 3)],
            "The top class changes on 4 of 4 inputs: from 1 to 9 on 2, from 2 to 9 on 1, ….",
        ),
        (
            [row("scores", kept=40, lost=5, gained=2, peak_shift=shift) for shift in (0, 3, 9)],
            "120 of 135 scores above 0.3 stay; 15 lost, 6 new (on 3 inputs). The peak of the score"
            " map moves by 3 cells at the median.",
        ),
        (
            [row("scores", kept=0, lost=0, gained=0)],
            "The map has no score above 0.3, neither in float nor in int8, on 1 input.",
        ),
        (
            [row("energy", peak_shift=0)],
            "The outputs have no boxes or classes. In the last map, the peak stays in its"
            " cell.",
        ),
        ([row("none")], words.HAS_NO_FORM),
    ],
)  # fmt: skip
def test_a_run_in_a_sentence(rows, sentence):
    assert plain(words.changes(rows)) == sentence


def test_classes_have_the_names_of_the_answers_that_are_kept():
    answers = [
        NetworkAnswer("classes", (), (ScoredClass(label, 1.0),), names={label: name}).to_json()
        for label, name in ((281, "tabby"), (285, "Egyptian cat"))
    ]
    changed = row(
        "classes", kept=0, float_class=281, int8_class=285,
        float_answer=answers[0], int8_answer=answers[1],
    )  # fmt: skip
    assert "from tabby to Egyptian cat on 1" in plain(words.changes([changed]))


@pytest.mark.parametrize(
    ("given", "words_of_it"),
    [
        (row(kept=2, lost=1, gained=0), "2 of 3 detections stay; 1 lost"),
        (row(kept=0, lost=0, gained=0), "nothing detected in either"),
        (row("classes", kept=1), "same top class"),
        (row("classes", kept=0), "another top class"),
        (row("scores", kept=4, lost=0, gained=0, peak_shift=1),
         "4 of 4 scores above 0.3 stay, peak moves by 1 cell"),
        (row("none"), ""),
    ],
)  # fmt: skip
def test_an_input_in_a_few_words(given, words_of_it):
    assert plain(words.change_of(given)) == words_of_it


@pytest.mark.parametrize(
    ("given", "count", "words_of_it"),
    [
        (row(rank=1), 6, "changed most, SQNR 9.5 dB"),
        (row(rank=2), 6, "2nd of 6 by change, SQNR 9.5 dB"),
        (row(rank=4), 6, "typical, SQNR 9.5 dB"),
        (row(rank=3, sqnr_db=math.inf), 12, "3rd of 12 by change, exact"),
    ],
)
def test_where_an_input_stands(given, count, words_of_it):
    assert plain(words.place_of(given, count)) == words_of_it


def test_a_picture_in_words():
    boxes = NetworkAnswer(
        "boxes",
        boxes=(
            DetectedBox(0, 0, 1, 1, 0, 0.9, stays=True),
            DetectedBox(0, 0, 1, 1, 0, 0.8, stays=False),
        ),
        names={0: "person"},
    )
    assert plain(words.described(row(), boxes, "float")) == (
        "float on cat.jpg: 2 detections, 2 × person; 1 lost in int8"
    )
    assert "1 new in int8" in words.described(row(), boxes, "int8")
    empty = NetworkAnswer("boxes")
    assert words.described(row(), empty, "int8") == "int8 on cat.jpg: nothing detected"
    value_map = NetworkAnswer("scores", map=ValueMap(2, 2, bytes([0, 0, 255, 0]), 0.5))
    assert words.described(row("scores"), value_map, "float") == (
        "float on cat.jpg: map of 2 by 2 cells, largest value 0.5 in row 2, column 1"
    )


def test_a_note_says_which_inputs_are_shown():
    rows = [row(rank=rank) for rank in range(1, 6)]
    assert words.note_on(rows, 12).startswith(words.BOX_NOTE)
    assert words.note_on(rows, 12).endswith("and a typical one.")
    assert words.note_on(rows, 5).endswith("largest change first.")
    assert words.note_on([row("energy")], 1) == words.MAP_NOTE


def test_why_there_is_nothing_to_see():
    assert words.why_none(["noise, image-like"]) == words.FED_NOISE
    assert words.why_none(["noise", "12 images from photos/"]) == words.NOT_KEPT


def test_a_text_that_is_no_answer_is_none():
    assert words.readable("{") is None
    assert words.readable(None) is None
