"""Answers drawn over pictures: what a browser gets, as XML."""

import base64
import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from quantstore.answers import DetectedBox, NetworkAnswer, ValueMap
from quantstore.charts import answers as charts
from quantstore.run.thumbnails import encoded

SVG = "{http://www.w3.org/2000/svg}"
PICTURE = encoded(np.full((60, 120, 3), 200, np.uint8))


def parsed(answer, picture=PICTURE, network="float"):
    return ElementTree.fromstring(charts.drawn(answer, picture, network))


def boxes(*stays, **changes):
    return NetworkAnswer(
        "boxes",
        boxes=tuple(DetectedBox(0.25, 0.5, 0.75, 1.5, 0, 0.9, stays=item) for item in stays),
        **changes,
    )


def lines(svg):
    return [item for item in svg.iter(f"{SVG}rect") if item.get("stroke") == "#fff"]


def words(svg):
    return [item.text for item in svg.iter(f"{SVG}text")]


def test_a_drawing_has_the_shape_of_its_picture():
    assert parsed(boxes()).get("viewBox") == f"0 0 {charts.WIDTH} {charts.WIDTH // 2}"
    assert parsed(boxes(), None).get("viewBox") == f"0 0 {charts.WIDTH} {charts.WIDTH}"


def test_a_box_is_drawn_as_far_as_the_picture_goes():
    (line,) = lines(parsed(boxes(True)))
    figures = [float(line.get(name)) for name in ("x", "y", "width", "height")]
    assert figures == [80, 80, 160, 80]


@pytest.mark.parametrize(
    ("network", "dash", "word"), [("float", charts.LOST, "lost"), ("int8", charts.NEW, "new")]
)
def test_what_does_not_stay_is_told_by_its_line_and_by_a_word(network, dash, word):
    svg = parsed(boxes(True, False), network=network)
    assert [line.get("stroke-dasharray") for line in lines(svg)] == [dash, None]
    assert words(svg) == [f"{word} 0.90", "0.90"]


def test_many_boxes_have_words_only_where_something_changed():
    assert words(parsed(boxes(*[True] * 9, False))) == ["lost"]


def test_names_are_text():
    answer = boxes(True, names={0: '<a href="x">&'})
    assert words(parsed(answer)) == ['<a href="x">& 0.90']


def test_a_map_is_white_as_far_as_its_values_go():
    answer = NetworkAnswer("scores", map=ValueMap(2, 2, bytes([0, 64, 128, 255]), 1.0))
    ground, light = (item.get("href") for item in parsed(answer).iter(f"{SVG}image"))
    image = Image.open(io.BytesIO(base64.b64decode(light.split(",")[1])))
    assert np.asarray(image)[..., 1].tolist() == [[0, 64], [128, 255]]
    assert (np.asarray(image)[..., 0] == 255).all()
    dimmed = Image.open(io.BytesIO(base64.b64decode(ground.split(",")[1])))
    assert np.asarray(dimmed).max() < 128


@pytest.mark.parametrize("picture", [b"", b"no picture", PICTURE[:200], b"<svg/>"])
def test_what_is_no_picture_is_left_out(picture):
    assert not list(parsed(boxes(True), picture).iter(f"{SVG}image"))
    assert charts.thumbnail(picture) == ""


def test_the_address_of_an_image_holds_all_of_it():
    address = charts.as_address("<svg/>")
    assert base64.b64decode(address.removeprefix("data:image/svg+xml;base64,")) == b"<svg/>"
    assert charts.thumbnail(PICTURE).startswith("data:image/jpeg;base64,")
