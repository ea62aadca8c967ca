"""Compare and Revisions in a real browser: what only a mouse and a keyboard can show."""

import re
from pathlib import Path

import pytest

from tests.support.browsing import expect


@pytest.mark.slow
def test_a_rectangle_over_the_dots_lists_layers_and_the_address_brings_it_back(
    visit, full_app: str
) -> None:
    visitor = visit(full_app)
    page = visitor.page
    page.set_viewport_size({"width": 1440, "height": 2600})
    visitor.turn_to("/")
    dots = page.locator("[data-testid=stVegaLiteChart]").nth(2)
    expect(dots.locator("svg.marks")).to_be_visible()
    place = dots.bounding_box()
    left, top = place["x"] + 120, place["y"] + 60
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(left + 500, top + 240, steps=8)
    page.mouse.up()
    visitor.shows("layers in the rectangle")
    visitor.settle()
    said = page.get_by_text("in the rectangle").first.inner_text()
    page.wait_for_url(re.compile("box="))
    (box,) = visitor.query()["box"]
    assert len(box.split("~")) == 4
    visitor.screenshot("rectangle")
    page.reload()
    visitor.shows("layers in the rectangle")
    visitor.settle()
    assert page.get_by_text("in the rectangle").first.inner_text() == said
    # Who clicks before the chart is drawn gets it all the same.
    drawing = dots.locator("svg.marks").element_handle()
    drawing.evaluate("svg => svg.classList.remove('marks')")
    with page.expect_download() as download:
        page.get_by_role("button", name="Weight range against SQNR").click()
        drawing.evaluate("svg => svg.classList.add('marks')")
    assert download.value.suggested_filename == "weight-range-against-sqnr.svg"
    assert "<svg" in Path(download.value.path()).read_text(encoding="utf-8")
    # A click beside it wipes it.
    place = dots.bounding_box()
    page.mouse.click(place["x"] + 80, place["y"] + 50)
    expect(page.get_by_text("layers in the rectangle")).to_have_count(0)
    visitor.settle()
    visitor.reaches("box")
    visitor.leaves_no_trace()


@pytest.mark.slow
def test_the_keyboard_sorts_the_matrix(visit, full_app: str) -> None:
    visitor = visit(full_app)
    page = visitor.page
    visitor.turn_to("/?target=int8_tensor")
    names = page.locator("td.name button")
    worst = names.first.inner_text()
    page.get_by_label("Sort the models by").focus()
    page.keyboard.press("ArrowDown")  # from the worst verdict to the name
    visitor.settle()
    visitor.reaches("sort", "name")
    expect(names.first).not_to_have_text(worst)
    visitor.leaves_no_trace()


@pytest.mark.slow
def test_two_models_lead_to_their_revisions_and_a_dot_to_its_layer(visit, full_app: str) -> None:
    visitor = visit(full_app)
    page = visitor.page
    visitor.turn_to("/?models=digits-separable&models=digits-rescaled&target=int8_tensor")
    page.get_by_text("layer by layer").click()
    visitor.shows("What changed")
    visitor.settle()
    visitor.reaches("before", "digits-separable")
    marks = page.locator("[data-testid=stVegaLiteChart] path[aria-roledescription='point']")
    marks.first.click()
    visitor.arrives("layer", "What would rescue it")
    visitor.leaves_no_trace()
