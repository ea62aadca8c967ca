"""What becomes of the answers of a run: made networks with known outputs, and real ones."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from quantstore.answers import MOST_CELLS_ASIDE, NetworkAnswer
from quantstore.pipeline.files import demo_paths
from quantstore.records import OutputRecord
from quantstore.run import thumbnails
from quantstore.run.answers import RunOutputs, answers, class_names
from quantstore.run.choices import Choices
from quantstore.run.inputs import Samples, Source
from quantstore.run.outputs import JudgedPart
from quantstore.run.points import Part, Points
from quantstore.run.simulate import simulate

PICTURE = np.full((20, 30, 3), 128, np.uint8)


def samples(count, *, rows=1, size=(32, 32)) -> Samples:
    def origins(run):
        return [Source(f"{run}-{row}.jpg", lambda: PICTURE) for row in range(rows)]

    return Samples("made", count, lambda _: {}, picture_size=size, origins=origins)


def outputs_of(expected, actual, part) -> RunOutputs:
    points = Points(("x",), "made", (part,))
    before, after = ([[np.float32(values)] for values in runs] for runs in (expected, actual))
    return RunOutputs(points, before, after)


def judged(part) -> list[JudgedPart]:
    return [JudgedPart(part, OutputRecord(output=part.output), 20.0)]


PLAIN = Part("x", "", ("x",), "")


def rows_of(expected, actual, part=PLAIN, rows=1, names=None, **changes):
    given = outputs_of(expected, actual, part)
    options = {"with_pictures": True, **changes}
    return answers(samples(len(expected), rows=rows), given, judged(part), names or {}, **options)


def test_the_input_whose_outputs_changed_most_comes_first():
    y = [[[1.0, 2.0]], [[1.0, 2.0]], [[1.0, 2.0]]]
    changed = [[[1.0, 2.1]], [[2.0, 1.0]], [[1.0, 2.0]]]
    rows = rows_of(y, changed)
    assert [row.input_name for row in rows] == ["1-0.jpg", "0-0.jpg", "2-0.jpg"]
    assert [row.rank for row in rows] == [1, 2, 3]
    assert rows[0].sqnr_db == pytest.approx(10 * math.log10(5 / 2))
    assert rows[2].sqnr_db == math.inf
    assert [(row.float_class, row.int8_class) for row in rows] == [(1, 0), (1, 1), (1, 1)]
    assert [(row.kept, row.lost, row.gained) for row in rows] == [(0, 1, 1), (1, 0, 0), (1, 0, 0)]


def test_four_that_changed_most_and_a_typical_one_are_shown():
    y = [[[1.0, 2.0]]] * 20
    rows = rows_of(y, [[[1.0, 2.0 + 0.01 * index]] for index in range(1, 21)])
    assert [row.rank for row in rows if row.is_shown] == [1, 2, 3, 4, 11]
    for row in rows:
        has_answer = row.float_answer is not None and row.int8_answer is not None
        assert has_answer == (row.picture is not None) == row.is_shown


def test_pictures_can_be_left_out():
    rows = rows_of([[[1.0, 2.0]]], [[[2.0, 1.0]]], with_pictures=False)
    assert rows[0].picture is None
    assert rows[0].float_answer is not None


def test_names_of_the_classes_shown_go_along():
    rows = rows_of([[[1.0, 2.0]]], [[[2.0, 1.0]]], names={0: "cat", 1: "dog", 2: "cow"})
    answer = NetworkAnswer.from_json(rows[0].float_answer)
    assert answer.names == {0: "cat", 1: "dog"}
    assert answer.name_of(answer.classes[0].label) == "dog"
    assert answer.classes[0].score == 2


def test_each_row_of_a_batch_is_an_input():
    rows = rows_of([[[1.0, 2], [3, 0]]], [[[1.0, 2.2], [0, 3]]], rows=2)
    assert [(row.input_name, row.float_class, row.int8_class) for row in rows] == [
        ("0-1.jpg", 0, 1),
        ("0-0.jpg", 1, 1),
    ]


def test_outputs_without_rows_of_the_batch_are_not_read():
    rows = rows_of([[[1.0, 2, 3]]], [[[1.0, 2, 4]]], rows=2)
    assert [(row.form, row.kept) for row in rows] == [("none", None)]


def test_a_map_says_how_far_its_peak_moves_and_which_elements_stay():
    part = Part("x", "", ("x",), "", decision="set", limit=0.0)
    before, after = np.full((2, 1, 1, 8, 8), -4.0)
    before[0, 0, 2, 2], before[0, 0, 5, 5] = 4, 1
    after[0, 0, 4, 5], after[0, 0, 5, 5] = 2, 1
    (row,) = rows_of([before], [after], part)
    assert (row.form, row.kept, row.lost, row.gained, row.peak_shift) == ("scores", 1, 1, 1, 3)
    shown = NetworkAnswer.from_json(row.float_answer).map
    assert (shown.rows, shown.columns, shown.full_scale) == (8, 8, 1.0)
    assert shown.values[2 * 8 + 2] == round(255 / (1 + math.exp(-4)))


def test_a_map_without_a_score_has_no_peak():
    part = Part("x", "", ("x",), "", decision="set", limit=0.0)
    before, after = np.full((2, 1, 1, 8, 8), -4.0)
    after[0, 0, 1, 1] = -3
    (row,) = rows_of([before], [after], part)
    assert (row.kept, row.lost, row.gained, row.peak_shift) == (0, 0, 0, None)


def test_of_a_large_map_the_largest_of_each_block_is_kept():
    before = np.zeros((1, 1, 200, 130))
    before[0, 0, 199, 129] = 2
    (row,) = rows_of([before], [before * 0.5])
    shown, other = (
        NetworkAnswer.from_json(text).map for text in (row.float_answer, row.int8_answer)
    )
    assert (shown.rows, shown.columns) == (50, 33)
    assert max(shown.rows, shown.columns) <= MOST_CELLS_ASIDE
    assert shown.values[-1] == 255
    # Both on one scale.
    assert (other.values[-1], other.full_scale) == (128, shown.full_scale)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{0: 'person', 7: 'truck'}", {0: "person", 7: "truck"}),
        ("['a', 'b']", {0: "a", 1: "b"}),
        ("{0: 'a\\n<b>', -1: 'x', 'k': 'y', 2: 3}", {0: "a\\n<b>"}),
        ("{0: '0', 1: '1'}", {}),
        ("__import__('os')", {}),
        ("(" * 5000, {}),
        ("5", {}),
        ("", {}),
    ],
)
def test_names_of_classes_are_read_and_never_run(text, names):
    assert class_names({"names": text}) == names


def test_a_picture_is_small_and_says_nothing_but_itself():
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    data = thumbnails.encoded(noise)
    assert len(data) <= thumbnails.MOST_BYTES
    image = Image.open(io.BytesIO(data))
    assert image.size == (200, 150)
    assert not image.getexif()
    assert Image.open(io.BytesIO(thumbnails.encoded(noise[..., :1]))).mode == "L"


@pytest.fixture
def real(shared_models):
    """Run a real model on photographs."""
    images = shared_models.parent / "images"
    if not images.is_dir():
        pytest.skip("the photographs are absent (../shared/images)")

    def run(name, preprocess, **changes):
        choices = Choices(target="int8_channel", preprocess=preprocess, drift=False, **changes)
        return simulate(shared_models / f"{name}.onnx", str(images), choices).record

    return run


@pytest.mark.slow
def test_faces_are_detections(real):
    record = real("ultraface-rfb320", "ultraface")
    assert {row.form for row in record.answers} == {"boxes"}
    by_name = {row.input_name: row for row in record.answers}
    # Class 0 is the background: a picture without people holds nothing.
    assert by_name["street-1.jpg"].kept == by_name["street-1.jpg"].lost == 0
    assert by_name["people-16.jpg"].kept >= 8
    answer = NetworkAnswer.from_json(by_name["people-16.jpg"].float_answer)
    assert {box.label for box in answer.boxes} == {1}
    assert all(-0.1 <= box.x_min < box.x_max <= 1.1 for box in answer.boxes)
    assert len(by_name["people-16.jpg"].picture) <= thumbnails.MOST_BYTES


def test_noise_has_no_answers():
    path = next(path for path in demo_paths() if path.stem == "digits-plain")
    assert simulate(path, "noise", Choices(drift=False, samples=2)).record.answers == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "preprocess", "form"),
    [
        ("rtmdet-nano", "mmdet-bgr", "boxes"),
        ("yolov10n-quant", "zero-one", "boxes"),
        ("squeezenet-winml", "auto", "classes"),
        ("mobilenetv2-12-int8", "auto", "classes"),
        ("maui-model", "auto", "classes"),
        ("ppocr-v2-det", "paddle-bgr", "scores"),
        # Weights of its structure alone: boxes that no network decoded.
        ("fasterrcnn-structure", "zero-one", "energy"),
        # Offsets to anchors that the file does not hold.
        ("retinaface-mnet025", "caffe-bgr", "none"),
    ],
)
def test_real_heads_are_read_as_they_are(real, name, preprocess, form):
    record = real(name, preprocess, samples=4)
    assert {row.form for row in record.answers} == {form}


@pytest.mark.slow
def test_elements_of_maps_are_those_that_the_decisions_of_the_run_count(real):
    record = real("ppocr-v2-det", "paddle-bgr")
    kept, lost, gained = (
        sum(getattr(row, name) for row in record.answers) for name in ("kept", "lost", "gained")
    )
    (output,) = record.outputs
    assert output.decisions == kept + lost
    assert output.decision_f1 == pytest.approx(2 * kept / (2 * kept + lost + gained))


@pytest.mark.slow
def test_largest_scores_are_those_that_the_agreement_of_the_run_counts(real):
    record = real("mobilenetv2-12-int8", "imagenet")
    kept = np.mean([row.kept for row in record.answers])
    assert record.top1_agreement == pytest.approx(kept)


@pytest.mark.slow
def test_a_decoder_that_loses_what_the_heads_had_is_told_apart(real):
    record = real("yolov10n-quant", "zero-one", samples=4)
    assert sum(row.kept for row in record.answers) == 0
    assert sum(row.kept_by_heads for row in record.answers) > 0
