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


@pytest.mark.slow
def test_arrows_walk_the_matrix_and_back_leads_to_the_place_that_was_left(
    visit, full_app: str
) -> None:
    visitor = visit(full_app)
    page = visitor.page
    page.set_viewport_size({"width": 1000, "height": 500})
    visitor.turn_to("/?target=int8_tensor")
    visitor.tab_to("digits-rescaled, per-tensor int8:")
    page.keyboard.press("ArrowRight")
    assert visitor.focus().startswith("digits-rescaled, per-channel int8:")
    page.keyboard.press("End")
    assert visitor.focus().startswith("digits-rescaled, int8 weights only:")
    page.keyboard.press("Home")
    assert visitor.focus() == "digits-rescaled"
    page.keyboard.press("ArrowDown")
    second = visitor.focus()
    assert second != "digits-rescaled"
    assert visitor.has_visible_focus()
    # One stop: the next Tab leaves the matrix, and the way back leads to where one was.
    page.keyboard.press("Tab")
    assert not visitor.focus().startswith("digits-")
    page.keyboard.press("Shift+Tab")
    assert visitor.focus() == second

    def scrolled() -> int:
        return page.evaluate("document.querySelector('[data-testid=stMain]').scrollTop")

    page.locator("[data-testid=stMain]").evaluate("main => { main.scrollTop = 260; }")
    page.wait_for_timeout(100)
    left_at = scrolled()
    assert left_at > 100
    page.keyboard.press("Enter")
    visitor.arrives("model", "Worst layers first")
    assert scrolled() == 0
    page.go_back()
    visitor.arrives("", "How the layers differ")
    expect(page.locator("td.name button").first).to_be_attached()
    page.wait_for_timeout(500)
    assert abs(scrolled() - left_at) <= 1
    visitor.leaves_no_trace()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "label", "key"),
    [
        ("/model", "Model", "model"),
        ("/rescue", "Model", "model"),
        ("/revisions", "Before", "before"),
        ("/", "Models", "models"),
    ],
)
def test_enter_takes_the_best_match_of_what_is_typed(
    visit, full_app: str, path: str, label: str, key: str
) -> None:
    visitor = visit(full_app)
    page = visitor.page
    visitor.turn_to(path)
    box = page.locator("[data-testid=stMain]").get_by_role("combobox", name=label, exact=True)
    box.first.click()
    # Two names begin so.
    page.keyboard.type("digits-separable")
    expect(page.get_by_role("option").first).to_have_text("digits-separable")
    visitor.settle()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"[?&]{key}=digits-separable(&|$)"))
    visitor.settle()
    assert visitor.query()[key] == ["digits-separable"]
    visitor.leaves_no_trace()
