"""A newcomer's way from a file to an answer: dropped, opened, run, handed out."""

import base64
from pathlib import Path

import pytest

from quantstore.app.main import tab_title
from quantstore.app.page_list import page_named
from quantstore.app.sections import answers, run_dialogs, ways_on
from quantstore.app.sidebar import PATH_PLACEHOLDER
from quantstore.app.widgets import model_files
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


def await_drops(page) -> None:
    """Wait until the page takes what is dropped: its script is loaded beside what is drawn."""
    page.locator(".quantstore-drop").wait_for(state="attached", timeout=60_000)


def drag(page, path: Path, *kinds: str) -> None:
    """What a browser says while a file is dragged over the page, and dropped."""
    await_drops(page)
    page.evaluate(DRAG, [list(kinds), path.name, base64.b64encode(path.read_bytes()).decode()])


@pytest.mark.slow
def test_a_file_dropped_anywhere_opens_its_model(visit, empty_app) -> None:
    visitor = visit(empty_app)
    page = visitor.page
    visitor.open("/")
    assert visitor.violations() == []
    await_drops(page)
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


@pytest.mark.slow
def test_an_upload_is_run_deleted_and_handed_out(visit, empty_app) -> None:
    """The newcomer's path to its end: kept, run on noise, without its worst layers, a report."""
    visitor = visit(empty_app)
    page = visitor.page
    visitor.open("/")
    page.get_by_text(model_files.KEEP).click()
    visitor.settle()
    drag(page, DEMO / "digits-rescaled.onnx", "dragenter", "drop")
    visitor.arrives("model", answers.HEADING)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download report").click()
    assert download.value.suggested_filename.endswith(".html")

    visitor.go("Drift")
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url(lambda url: "runs=" in url, timeout=60_000)
    visitor.shows("digits-rescaled")
    visitor.settle()
    page.get_by_role("button", name=ways_on.RUN_AGAIN).first.click()
    page.wait_for_function("location.search.split('runs=').length === 3", timeout=60_000)
    visitor.settle()

    page.get_by_role("button", name="Delete 2 runs").click()
    page.get_by_role("dialog").get_by_role("button", name=run_dialogs.DELETE, exact=True).click()
    visitor.shows("Deleted the run")
    visitor.settle()
    page.get_by_role("button", name="Undo").first.click()
    visitor.shows("Run restored")
    visitor.leaves_no_trace()


@pytest.mark.slow
def test_a_folder_is_dropped_with_all_it_holds(visit, empty_app) -> None:
    """Models in folders are named after them, as on the command line.

    They are taken also while the sidebar is still being drawn.
    """
    visitor = visit(empty_app)
    page = visitor.page
    visitor.open("/")
    await_drops(page)
    page.evaluate(
        """(contents) => {
            const entry = (name, content) => ({
                isDirectory: true, name,
                createReader: () => {
                    let isRead = false;
                    const file = { isFile: true, file: (take) => take(new File(
                        [Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], "model.onnx")) };
                    return { readEntries: (take) => {
                        take(isRead ? [] : [file]);
                        isRead = true;
                    } };
                },
            });
            const items = Object.entries(contents).map(([name, content]) =>
                ({ webkitGetAsEntry: () => entry(name, content) }));
            const box = document.querySelector(".st-key-sidebar_upload");
            box.classList.remove("st-key-sidebar_upload");
            setTimeout(() => box.classList.add("st-key-sidebar_upload"), 300);
            const event = new Event("drop", {bubbles: true, cancelable: true});
            event.dataTransfer = { types: ["Files"], items, files: [] };
            document.querySelector("[data-testid=stMain]").dispatchEvent(event);
        }""",
        {
            name: base64.b64encode((DEMO / f"{name}.onnx").read_bytes()).decode()
            for name in ("digits-plain", "digits-rescaled")
        },
    )
    for name in ("digits-plain", "digits-rescaled"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_visible(timeout=60_000)
    # Several models are compared.
    assert "/model" not in page.url
    visitor.leaves_no_trace()


@pytest.mark.slow
def test_the_keyboard_alone_leads_from_a_file_to_the_report(visit, empty_app) -> None:
    visitor = visit(empty_app)
    page = visitor.page
    # Before the key: a chooser that nobody waits for is not opened without a window.
    choosers = []

    def take(chooser) -> None:
        choosers.append(chooser)

    page.on("filechooser", take)
    visitor.open("/")
    # The name of the icon is part of its text.
    visitor.tab_to("uploadUpload")
    assert visitor.has_visible_focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    page.remove_listener("filechooser", take)
    (chooser,) = choosers
    chooser.set_files([DEMO / "digits-rescaled.onnx"])
    visitor.arrives("model", answers.HEADING)
    visitor.settle()
    visitor.tab_to("downloadDownload report", most=60)
    assert visitor.has_visible_focus()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.endswith(".html")
    visitor.leaves_no_trace()
