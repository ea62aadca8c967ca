"""A newcomer's way from a file to an answer: dropped, opened, run, handed out."""

import base64
from pathlib import Path

import pytest

from quantstore.app.main import tab_title
from quantstore.app.page_list import page_named
from quantstore.app.sidebar import PATH_PLACEHOLDER
from quantstore.schemes import DEFAULT_TARGET
from quantstore.wording import headlines
from tests.support.browsing import expect
from tests.support.facts import finding

DEMO = Path(__file__).resolve().parents[2] / "quantstore" / "demo_models"

DRAG = """([kinds, name, content]) => {
    const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name));
    const main = document.querySelector("[data-testid=stMain]");
    for (const kind of kinds) {
        main.dispatchEvent(new DragEvent(kind, {dataTransfer, bubbles: true, cancelable: true}));
    }
}"""


def drag(page, path: Path, *kinds: str) -> None:
    """What a browser says while a file is dragged over the page, and dropped."""
    page.evaluate(DRAG, [list(kinds), path.name, base64.b64encode(path.read_bytes()).decode()])


def test_a_file_dropped_anywhere_opens_its_model(visit, empty_app) -> None:
    visitor = visit(empty_app)
    page = visitor.page
    visitor.open("/")
    overlay = page.locator(".quantstore-drop")
    expect(overlay).to_be_hidden()
    drag(page, DEMO / "digits-rescaled.onnx", "dragenter", "dragover")
    expect(overlay).to_be_visible()
    drag(page, DEMO / "digits-rescaled.onnx", "drop")
    expect(overlay).to_be_hidden()
    visitor.arrives(
        "model",
        headlines.model_headline(finding("broken", "both", 0.3), None, DEFAULT_TARGET),
    )
    visitor.reaches("model", "digits-rescaled")
    expect(page).to_have_title(tab_title(page_named("model"), "digits-rescaled"))
    # Once: whoever leaves is not called back.
    visitor.go("Compare")
    visitor.settle()
    assert "/model" not in page.url
    visitor.leaves_no_trace()


@pytest.mark.slow
def test_nobody_is_taken_away_from_what_they_type(visit, full_app, tmp_path) -> None:
    visitor = visit(full_app)
    page = visitor.page
    visitor.open("/sql")
    page.locator(".st-key-sidebar_upload input[type=file]").set_input_files(
        [DEMO / "digits-plain.onnx"]
    )
    page.get_by_placeholder(PATH_PLACEHOLDER).focus()
    page.keyboard.type("models/")
    link = page.get_by_role("link", name="Open digits-plain")
    link.wait_for(timeout=60_000)
    visitor.settle()
    assert "/sql" in page.url
    link.click()
    visitor.reaches("model", "digits-plain")
    visitor.leaves_no_trace()


@pytest.mark.slow
def test_what_ends_in_a_hidden_tab_marks_it_until_it_is_seen(visit, full_app) -> None:
    visitor = visit(full_app)
    page = visitor.page
    visitor.open("/models")
    hide = "(is) => { Object.defineProperty(document, 'hidden', {value: is, configurable: true}); }"
    page.evaluate(hide, True)
    page.locator(".st-key-sidebar_upload input[type=file]").set_input_files(
        [DEMO / "digits-plain.onnx"]
    )
    page.wait_for_function("document.title.startsWith('\u2713 ')", timeout=60_000)
    page.evaluate(hide, False)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_function("!document.title.startsWith('\u2713 ')")
    visitor.leaves_no_trace()
