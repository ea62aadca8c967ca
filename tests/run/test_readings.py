"""Outputs of every kind of head as made tensors: how they are read as an answer."""

import numpy as np
import pytest

from quantstore.run import readings
from quantstore.run.boxes import Candidates, Detections, detections, matched, overlaps
from quantstore.run.points import Part
from quantstore.run.readings import OutputTensors, ReadingContext, recognised

WIDTH, HEIGHT = 320, 240
SIZE = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
# The anchor that scores, its class, and its box as shares of the picture.
ANCHOR, LABEL, BOX = 123, 2, (0.25, 0.5, 0.5, 0.75)


def picture(**changes) -> ReadingContext:
    return ReadingContext(width=WIDTH, height=HEIGHT, **changes)


def grid_boxes(count=400):
    """Boxes all over the picture, as shares; one of them is ``BOX``."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, 0.8, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(0.05, 0.2, (count, 2))], axis=1)
    boxes[ANCHOR] = BOX
    return boxes


def as_centers(boxes):
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def scores(classes=4, count=400):
    """One anchor has a class, the others next to nothing."""
    values = np.random.default_rng(1).uniform(0, 0.1, (count, classes))
    values[ANCHOR, LABEL] = 0.9
    return values


def logits(values):
    return np.log(values / (1 - values))


def tensors(heads=None, **handed) -> OutputTensors:
    """Tensors handed out, each of them a head as well, in single precision with a batch of one."""
    outputs = {name: np.float32(values)[np.newaxis] for name, values in handed.items()}
    return OutputTensors(outputs if heads is None else heads, outputs)


def read_boxes(given, context=None):
    reading = recognised(given, picture() if context is None else context)
    assert reading.form == "boxes"
    return detections(reading.candidates_of(given))


def assert_is_the_box(answer: Detections, label=LABEL, score=0.9):
    assert answer.labels.tolist() == [label]
    np.testing.assert_allclose(answer.boxes, [BOX], atol=1e-5)
    np.testing.assert_allclose(answer.scores, [score], atol=1e-5)


@pytest.mark.parametrize("in_pixels", [False, True])
@pytest.mark.parametrize("to_values", [lambda boxes: boxes, as_centers])
def test_boxes_beside_scores_lie_in_shares_or_pixels_as_corners_or_centers(in_pixels, to_values):
    values = to_values(grid_boxes()) * (SIZE if in_pixels else 1)
    assert_is_the_box(read_boxes(tensors(boxes=values, scores=scores())))


def test_scores_may_be_logits_and_may_lie_across():
    assert_is_the_box(read_boxes(tensors(boxes=grid_boxes().T, cls=logits(scores()).T)))


def test_the_class_that_most_anchors_are_of_is_the_background():
    faces = scores()[:, LABEL]
    given = tensors(boxes=grid_boxes(), scores=np.stack([1 - faces, faces], axis=1))
    assert_is_the_box(read_boxes(given), label=1)


def test_landmarks_are_not_taken_for_scores():
    points = np.random.default_rng(2).uniform(0, 1, (400, 10))
    given = tensors(boxes=grid_boxes(), landmarks=points, conf=scores())
    assert_is_the_box(read_boxes(given))


def test_what_decides_holds_the_scores_whatever_it_is_called():
    others = np.random.default_rng(2).uniform(0, 1, (400, 10))
    given = tensors(**{"17": grid_boxes(), "18": others, "19": scores()})
    parts = (Part("19", "", ("x",), "", decision="set"),)
    assert_is_the_box(read_boxes(given, picture(output_parts=parts)))


def test_anchors_last_have_no_score_for_an_object():
    given = tensors(output0=np.concatenate([as_centers(grid_boxes()) * SIZE, scores()], axis=1).T)
    assert_is_the_box(read_boxes(given))


def test_anchors_first_have_one():
    objects = np.full((400, 1), 0.5)
    rows = np.concatenate([as_centers(grid_boxes()) * SIZE, objects, scores()], axis=1)
    assert_is_the_box(read_boxes(tensors(output0=rows)), score=0.45)


def test_names_of_classes_count_the_scores():
    rows = np.concatenate([as_centers(grid_boxes()) * SIZE, scores()], axis=1)
    names = dict(enumerate(["a", "b", "c", "d"]))
    assert_is_the_box(read_boxes(tensors(output0=rows), picture(names=names)))


def test_coefficients_of_masks_are_no_scores():
    masks = np.random.default_rng(3).uniform(0, 5, (400, 32))
    rows = np.concatenate([as_centers(grid_boxes()) * SIZE, scores(), masks], axis=1)
    prototypes = np.ones((32, 40, 40))
    assert_is_the_box(read_boxes(tensors(output0=rows.T, output1=prototypes)))


def test_finished_boxes_carry_a_score_and_a_class():
    rows = np.zeros((400, 6))
    rows[:, :4] = grid_boxes() * SIZE
    rows[:, 4] = scores().max(axis=1)
    rows[ANCHOR, 5] = LABEL
    assert_is_the_box(read_boxes(tensors(output0=rows)))


def test_offsets_to_anchors_that_nobody_knows_are_no_boxes():
    offsets = np.random.default_rng(4).normal(0, 1, (400, 4))
    assert recognised(tensors(loc=offsets, conf=scores()), picture()) is None
    distances = np.abs(offsets) * 4
    assert recognised(tensors(loc=distances, conf=scores()), picture()) is None


def test_without_a_picture_there_are_no_boxes():
    assert recognised(tensors(boxes=grid_boxes(), scores=scores()), ReadingContext()) is None


def test_a_vector_of_scores_is_a_classifier():
    head = {"fc": np.float32([[1, 5, 3]])}
    given = tensors(head, prob=[0.1, 0.7, 0.2])
    reading = recognised(given, ReadingContext())
    assert reading.form == "classes"
    deciding, shown = reading.scores_of(given)
    assert deciding.tolist() == [1, 5, 3]
    np.testing.assert_allclose(shown, [0.1, 0.7, 0.2], rtol=1e-6)


def test_a_vector_to_compare_with_others_is_not():
    assert recognised(tensors(embedding=np.ones(128)), ReadingContext()) is None


def level(rows, classes=3):
    values = np.full((1, classes, rows, rows), -5.0, np.float32)
    return values


def test_scores_and_boxes_by_level_are_one_map_of_scores():
    fine, coarse = level(8), level(4)
    fine[0, 1, 2, 3] = 2
    coarse[0, 0, 3, 3] = 3
    heads = {
        "cls_8": fine, "reg_8": np.ones((1, 4, 8, 8), np.float32),
        "cls_4": coarse, "reg_4": np.ones((1, 4, 4, 4), np.float32),
    }  # fmt: skip
    reading = recognised(OutputTensors(heads, heads), picture())
    assert reading.form == "scores"
    values = reading.map_of(OutputTensors(heads, heads))
    assert values.shown.shape == (8, 8)
    # A cell of the coarse level covers four of the fine one.
    np.testing.assert_allclose(values.shown[6:, 6:], 1 / (1 + np.exp(-3)))
    np.testing.assert_allclose(values.shown[2, 3], 1 / (1 + np.exp(-2)))
    assert int(values.decided.sum()) == 2


def test_a_map_before_a_sigmoid_is_decided_as_everywhere_else():
    heads = {"x": level(8, classes=1)}
    heads["x"][0, 0, 1, 1] = 0.5
    part = Part("out", "", ("x",), "", decision="set", limit=0.4)
    reading = recognised(OutputTensors(heads, {}), picture(output_parts=(part,)))
    assert reading.form == "scores"
    assert int(reading.map_of(OutputTensors(heads, {})).decided.sum()) == 1


@pytest.mark.parametrize(("shape", "rows"), [((1, 7, 4, 5), (4, 5)), ((1, 6, 6, 9), (6, 6))])
def test_else_the_last_tensor_with_rows_and_columns_is_shown(shape, rows):
    heads = {"x": np.full(shape, -2, np.float32)}
    reading = recognised(OutputTensors(heads, heads), picture())
    assert reading.form == "energy"
    shown = reading.map_of(OutputTensors(heads, heads)).shown
    assert shown.shape == rows
    np.testing.assert_allclose(shown, 2)


def test_what_has_no_form_is_not_read():
    assert recognised(tensors(x=np.ones((400, 16))), picture()) is None


# Detections


def boxes_of(*rows):
    boxes = np.array([row[:4] for row in rows], np.float64).reshape(-1, 4)
    labels = np.array([row[4] for row in rows], np.int64)
    return Detections(boxes, labels, np.array([row[5] for row in rows], np.float64))


def test_overlap_is_intersection_over_union():
    one, other = np.array([[0, 0, 2, 2.0]]), np.array([[1, 1, 3, 3.0], [5, 5, 6, 6], [0, 0, 2, 2]])
    np.testing.assert_allclose(overlaps(one, other), [[1 / 7, 0, 1]])


def test_a_class_is_found_once_at_a_place():
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.9], [0, 0, 1, 0.9], [0.5, 0.5, 0.6, 0.6]])
    chosen = detections(Candidates(boxes, np.array([[0.8, 0], [0.9, 0], [0, 0.7], [0.2, 0.1]])))
    assert chosen.labels.tolist() == [0, 1]
    assert chosen.scores.tolist() == [0.9, 0.7]


def test_at_most_a_hundred_are_kept():
    corners = np.stack(np.meshgrid(np.arange(20), np.arange(20)), axis=-1).reshape(-1, 2) / 20
    boxes = np.concatenate([corners, corners + 0.04], axis=1)
    assert len(detections(Candidates(boxes, np.full((400, 1), 0.9)))) == 100


def test_what_is_not_finite_is_no_detection():
    boxes = np.array([[0, 0, np.nan, 1], [0, 0, 1, 1]])
    assert len(detections(Candidates(boxes, np.array([[0.9], [0.8]])))) == 1


def test_detections_match_by_class_and_overlap():
    first = boxes_of((0, 0, 1, 1, 0, 0.9), (2, 2, 3, 3, 1, 0.8), (5, 5, 6, 6, 0, 0.7))
    second = boxes_of((2, 2, 3, 3, 0, 0.9), (0, 0, 1, 0.8, 0, 0.6))
    assert matched(first, second) == [(0, 1)]
    assert matched(boxes_of(), second) == []
    assert matched(first, boxes_of()) == []


def test_every_recogniser_is_a_function_of_the_module():
    assert all(getattr(readings, item.__name__) is item for item in readings.RECOGNISERS)
