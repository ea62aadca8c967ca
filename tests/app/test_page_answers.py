"""Answers on the Drift page: float and int8 side by side."""

import base64
import re
import shutil

import numpy as np
import pytest

from quantstore import store
from quantstore.answers import DetectedBox, NetworkAnswer, ScoredClass
from quantstore.app.sections.changed_answers import HEADING
from quantstore.records import AnswerRecord
from quantstore.run.thumbnails import encoded
from quantstore.wording import changed_answers as words
from tests.support.runs import a_run, a_tensor, add
from tests.support.visits import unopened, without_what_only_tests_bring

MODEL = "digits-plain"
EVIL = "<img src=x onerror=alert(1)> **b**.jpg"


def boxes(*stays):
    rows = [DetectedBox(0.1, 0.1, 0.5, 0.5, 0, 0.9, stays=item) for item in stays]
    return NetworkAnswer("boxes", boxes=tuple(rows), names={0: "<b>dog</b>"}).to_json()


def detected(rank=1, **changes):
    values = {
        "input_name": EVIL, "rank": rank, "sqnr_db": 9.5, "form": "boxes", "is_shown": True,
        "kept": 1, "lost": 1, "gained": 0,
        "float_answer": boxes(True, False), "int8_answer": boxes(True),
        "picture": encoded(np.full((30, 40, 3), 99, np.uint8)),
    }  # fmt: skip
    return AnswerRecord(**values | changes)


@pytest.fixture
def drift_page(demo_store, tmp_path, monkeypatch):
    """The Drift page of runs with these answers."""

    def shown(*answers, source="2 images from photos/"):
        path = shutil.copy(demo_store, tmp_path / "own.duckdb")
        with store.writing(path) as con:
            keys = [
                str(add(con, MODEL, a_run(8, source=source, answers=rows, minute=minute),
                        [a_tensor(0, 8)]))
                for minute, rows in enumerate(answers)
            ]  # fmt: skip
        monkeypatch.setenv("QUANTSTORE_DB", str(path))
        without_what_only_tests_bring(monkeypatch)
        app = unopened("drift", target="int8_tensor", runs=keys).run()
        assert [*app.exception, *app.error] == []
        return app

    return shown


def html_of(app):
    return "\n".join(element.proto.body for element in app.get("html"))


def text_of(app):
    elements = (*app.header, *app.markdown, *app.caption)
    text = "\n".join(str(element.value) for element in elements)
    return text.replace("\u00a0", " ").replace("\\", "")


@pytest.mark.slow
def test_both_answers_stand_side_by_side_with_the_difference_in_words(drift_page):
    app = drift_page((detected(), detected(2, is_shown=False, float_answer=None)))
    text = text_of(app)
    assert HEADING in text
    assert "2 of 4 detections stay; 2 lost (on 2 inputs)." in text
    shown = html_of(app)
    alternatives = re.findall(r'<img src="data:image/svg\+xml;base64,[^"]+" alt="([^"]*)"', shown)
    assert len(alternatives) == 2
    assert "2\u00a0detections" in alternatives[0]
    assert "1 lost in int8" in alternatives[0]
    # Names are text, wherever they are.
    assert "<img src=x" not in shown
    drawn = re.findall(r"base64,([^\"]+)\" alt", shown)
    assert all("<b>" not in base64.b64decode(item).decode() for item in drawn)


@pytest.mark.slow
def test_classes_are_two_short_lists(drift_page):
    answers = [
        NetworkAnswer("classes", classes=(ScoredClass(label, 0.5), ScoredClass(9, 0.25))).to_json()
        for label in (7, 8)
    ]
    app = drift_page((
        detected(form="classes", kept=0, lost=1, gained=1, float_class=7, int8_class=8,
                 float_answer=answers[0], int8_answer=answers[1]),
    ))  # fmt: skip
    assert "The top class changes on 1 of 1 input: from 7 to 8 on 1." in text_of(app)
    shown = html_of(app)
    assert shown.count("class 9") == 2
    assert "width:100%" in shown
    assert "width:50%" in shown


@pytest.mark.slow
def test_what_somebody_else_wrote_breaks_no_page(drift_page):
    app = drift_page((detected(float_answer="{", picture=b"no picture"),))
    assert "cannot be read" in html_of(app)


@pytest.mark.slow
def test_each_run_has_its_sentence_and_one_shows_its_pictures(drift_page):
    app = drift_page((detected(),), (detected(kept=0, lost=2),))
    text = text_of(app)
    assert "1 of 2 detections stay; 1 lost (on 1 input)." in text
    assert "0 of 2 detections stay; 2 lost (on 1 input)." in text
    assert html_of(app).count("image/svg+xml") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "sentence"),
    [("noise, image-like", words.FED_NOISE), ("2 images from photos/", words.NOT_KEPT)],
)
def test_without_answers_the_page_says_why(drift_page, source, sentence):
    assert sentence in text_of(drift_page((), source=source))
