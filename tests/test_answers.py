"""An answer as text, and back: what somebody else wrote is checked whole."""

import json

import pytest

from quantstore.answers import DetectedBox, NetworkAnswer, ScoredClass, ValueMap

BOXES = NetworkAnswer(
    "boxes",
    boxes=(
        DetectedBox(0.25, 0.5, 0.75, 1.0, 3, 0.9, stays=True),
        DetectedBox(-0.1, 0, 0.2, 0.3, 0, 1.25, stays=False),
    ),
    names={3: "dog <b>"},
)
CLASSES = NetworkAnswer("classes", classes=(ScoredClass(7, 0.5), ScoredClass(1, -2.25)))
MAP = NetworkAnswer("scores", map=ValueMap(2, 3, bytes([0, 1, 2, 253, 254, 255]), 1.0))


@pytest.mark.parametrize("answer", [BOXES, CLASSES, MAP, NetworkAnswer("boxes")])
def test_what_is_written_is_read(answer):
    text = answer.to_json()
    assert "\n" not in text
    assert NetworkAnswer.from_json(text) == answer


def test_a_class_without_a_name_has_a_number():
    assert (BOXES.name_of(3), BOXES.name_of(0)) == ("dog <b>", "class 0")


def changed(answer, **changes):
    return json.dumps(json.loads(answer.to_json()) | changes)


@pytest.mark.parametrize(
    "text",
    [
        "", "5", "[]", "{}", "null", "{", '"boxes"', "[" * 100_000,
        changed(BOXES, form="pictures"),
        changed(BOXES, boxes=5),
        changed(BOXES, boxes=[[0, 0, 1, 1, 0]]),
        changed(BOXES, boxes=[[0, 0, 1, 1, 0, float("nan"), True]]),
        changed(BOXES, boxes=[[0, 0, "1", 1, 0, 0.5, True]]),
        changed(BOXES, boxes=[[0, 0, 1, 1, -1, 0.5, True]]),
        changed(BOXES, boxes=[[0, 0, 1, 1, 0, 0.5, True]] * 101),
        changed(BOXES, names=["a"]),
        changed(CLASSES, classes=[[0, 1]] * 6),
        changed(CLASSES, classes=[[0.5, 1]]),
        changed(MAP, map=None),
        changed(MAP, map={"rows": 2, "columns": 2, "values": "AAAA", "full_scale": 1}),
        changed(MAP, map={"rows": 65, "columns": 1, "values": "A" * 88, "full_scale": 1}),
        changed(MAP, map={"rows": 1, "columns": 3, "values": "A~A=", "full_scale": 1}),
        changed(MAP, map={"rows": 1, "columns": 3, "values": "AAAA", "full_scale": None}),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        NetworkAnswer.from_json(text)
