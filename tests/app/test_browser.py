"""The app as a person meets it: a real server, a real browser, no request to the outside."""

import zipfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
import onnx
import pytest

from quantstore.app.page_list import PAGES
from quantstore.app.pages.layer import RESCUE_TITLE
from quantstore.app.sidebar import PATH_PLACEHOLDER
from quantstore.app.widgets import welcome
from quantstore.app.widgets.report_button import NOTE_LABEL
from quantstore.charts.palette import DARK
from quantstore.errors import printable
from quantstore.schemes import DEFAULT_TARGET, TARGETS
from quantstore.wording import headlines
from tests.support.browsing import HOSTILE, Visitor, expect
from tests.support.facts import finding, many
from tests.support.graphs import conv_model, gaussian, make_model, node, save

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "quantstore" / "demo_models"


@pytest.mark.slow
def test_from_an_empty_store_to_an_answer(visit, empty_app, tmp_path) -> None:
    """Upload, compare, open a layer, ask in SQL: the whole job, in the order a newcomer does it."""
    visitor = visit(empty_app)
    page = visitor.page
    visitor.open("/")
    visitor.shows(welcome.TITLE)
    visitor.screenshot("empty")

    wrong = tmp_path / "letter<b>.onnx"
    wrong.write_text("Dear sir or madam")
    page.locator(".st-key-sidebar_upload input[type=file]").set_input_files(
        [DEMO / "digits-rescaled.onnx", DEMO / "digits-separable.onnx", wrong]
    )
    one_of_two = many(1, 0, 2, mode="both")
    visitor.shows(headlines.models_headline(one_of_two, [], DEFAULT_TARGET))
    # One sentence for the wrong one, whose name is shown as itself; the others went on.
    visitor.shows("failed: not an ONNX file")
    visitor.shows("letter<b>.onnx")
    visitor.settle()
    expect(page.get_by_role("button", name="digits-rescaled", exact=True)).to_be_visible()
    visitor.shows("done: 10 layers in")
    expect(page.locator("[data-testid=stVegaLiteChart] svg.marks").first).to_be_visible()
    visitor.screenshot("compare")

    page.get_by_role("button", name="digits-rescaled", exact=True).click()
    probed = finding("broken", "both", 0.3)
    visitor.shows(headlines.model_headline(probed, None, DEFAULT_TARGET))
    visitor.settle()
    visitor.reaches("model", "digits-rescaled")
    # What became of the files stays on every page, until somebody has read it.
    visitor.shows("failed: not an ONNX file")
    page.get_by_role("button", name="Dismiss finished").click()
    expect(page.get_by_text("failed: not an ONNX file")).to_have_count(0)
    visitor.screenshot("model")

    visitor.marks().first.click()
    visitor.arrives("layer", RESCUE_TITLE)
    visitor.reaches("model", "digits-rescaled")
    assert "layer" in visitor.query()
    layer = page.locator("h1").first.inner_text()
    visitor.screenshot("layer")

    # The address alone brings a colleague to the same layer.
    address = page.url
    page.goto(address)
    expect(page.locator("h1").first).to_have_text(layer, timeout=60_000)
    visitor.arrives("layer", RESCUE_TITLE)
    visitor.leaves_no_trace()


@pytest.mark.slow
def test_a_large_model_can_be_cancelled_and_the_pages_stay_usable(visit, full_app, tmp_path):
    """By path: bytes and layers move, another page opens meanwhile, nothing is stored."""
    # Large enough that nobody's machine is done with it before the click.
    plain = np.resize(gaussian(1000), (1400, 1400))
    weights = {f"w{i}": plain + np.float32(i) for i in range(24)}
    nodes = [node("MatMul", [f"t{i}" if i else "x", f"w{i}"], [f"t{i + 1}"]) for i in range(24)]
    large = save(make_model(nodes, weights, outputs=("t24",)), tmp_path / "large.onnx")
    small = save(conv_model(), tmp_path / "small.onnx")
    visitor = visit(full_app)
    page = visitor.page
    visitor.turn_to("/")
    box = page.get_by_placeholder(PATH_PLACEHOLDER)
    box.fill(str(large))
    box.press("Enter")
    page.get_by_text("of 24, ").first.wait_for(timeout=60_000)
    visitor.screenshot("queue")
    visitor.page.get_by_role("link", name="Model", exact=True).click()
    visitor.shows("Worst layers first")
    page.get_by_role("button", name="Cancel").click()
    visitor.shows("cancelled")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    box = page.get_by_placeholder(PATH_PLACEHOLDER)
    box.fill(str(small))
    box.press("Enter")
    visitor.shows("done: 1 layer in")
    visitor.settle()
    visitor.go("Models")
    expect(page.get_by_role("button", name="small", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="large", exact=True)).to_have_count(0)
    visitor.leaves_no_trace()


def stands_every_check(visitor, name: str, background: str) -> None:
    """Drawn in its colours, not wider than the window, by the rules of WCAG, charts in words."""
    page = visitor.page
    expect(page.locator("h1").first).to_be_visible()
    assert background == page.evaluate(
        "getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
    )
    assert visitor.sideways() <= 0, name
    width = page.viewport_size["width"]
    visitor.screenshot(f"{name}-{width}".replace(" ", "-").lower())
    assert visitor.violations() == [], name
    for chart in page.locator("[data-testid=stVegaLiteChart]").all():
        expect(chart.locator("svg.marks")).to_be_attached()
        assert len(chart.locator("[aria-label]").first.get_attribute("aria-label")) > 10


# Both themes and both widths; all four pairings cost as much again and never differed.
# The second is among the slow tests.
@pytest.mark.slow
def test_every_page_is_accessible_in_light_and_wide(visit, full_app) -> None:
    visitor = visit(full_app)
    visitor.turn_to("/")
    for listed in PAGES:
        if not listed.is_default:
            visitor.go(listed.title)
        stands_every_check(visitor, listed.title, "rgb(255, 255, 255)")
    visitor.leaves_no_trace()

    # What all this rests on: axe does find faint words inside a component.
    visitor.page.evaluate(
        """() => {
            const hosts = [...document.querySelectorAll("*")].filter((one) => one.shadowRoot);
            const table = hosts.map((one) => one.shadowRoot.querySelector("table")).find(Boolean);
            table.querySelector("td.name button").style.color = "#bbb";
        }"""
    )
    assert [rule for rule, _ in visitor.violations()] == ["color-contrast"]


@pytest.mark.slow
def test_every_page_is_accessible_in_dark_and_narrow_and_shows_names_as_themselves(
    visit, hostile_app
) -> None:
    """Wherever a name comes from, it neither becomes markup nor widens a page."""
    visitor = visit(hostile_app, width=800, theme="dark")
    page = visitor.page
    visitor.open("/")
    for listed in PAGES:
        if not listed.is_default:
            visitor.go(listed.title)
        stands_every_check(visitor, listed.title, "rgb(18, 21, 26)")
        if listed.name in ("compare", "models"):
            for model in HOSTILE:
                shown = page.get_by_role("button", name=printable(model), exact=True)
                expect(shown.first).to_be_visible()
    for words in ("<b>tag</b>", "**note** <script>alert(2)</script> $x$"):
        visitor.shows(words)
    for name in (HOSTILE[0], HOSTILE[2], HOSTILE[5], HOSTILE[8]):
        for path in (
            f"/model?model={quote(name)}",
            f"/layer?model={quote(HOSTILE[2])}&layer={quote(name)}",
        ):
            visitor.turn_to(path)
            expect(page.locator("h1").first).to_have_text(printable(name))
            assert page.locator("h1").first.inner_text() == printable(name)
            assert visitor.sideways() <= 0, path
    visitor.screenshot("hostile-layer")
    visitor.leaves_no_trace()


@pytest.mark.slow
def test_the_main_path_works_by_keyboard_alone(visit, full_app) -> None:
    visitor = visit(full_app)
    page = visitor.page
    visitor.open("/?target=int8_tensor")
    page.keyboard.press("Tab")
    assert visitor.focus() == "Skip to main content"
    page.keyboard.press("Enter")
    # The matrix is one stop, at the answer.
    visitor.tab_to("digits-rescaled, per-tensor int8: broken")
    assert visitor.has_visible_focus()
    page.keyboard.press("Enter")
    visitor.arrives("model", "Worst layers first")
    expect(page.locator("h1").first).to_have_text("digits-rescaled")
    visitor.tab_to("/", most=60)
    assert visitor.has_visible_focus()
    page.keyboard.press("Enter")
    visitor.arrives("layer", RESCUE_TITLE)
    page.go_back()
    visitor.arrives("model", "Worst layers first")
    visitor.turn_to("/sql")
    visitor.shows("rows in")
    editor = page.locator("textarea").first
    visitor.tab_to("SQL query")
    page.keyboard.press("Control+A")
    page.keyboard.type("select count(*) as layers_here from model_layers")
    page.keyboard.press("Control+Enter")
    visitor.shows("1 row")
    expect(editor).to_have_value("select count(*) as layers_here from model_layers")
    visitor.screenshot("sql")
    visitor.leaves_no_trace()


@pytest.mark.slow
def test_back_and_forward_take_one_press_per_deed(visit, full_app) -> None:
    visitor = visit(full_app)
    page = visitor.page
    visitor.turn_to("/")
    page.get_by_role("button", name=TARGETS["int8_weights"].title, exact=True).click()
    visitor.shows(f"with {TARGETS['int8_weights'].title}")
    visitor.settle()
    visitor.reaches("target", "int8_weights")
    page.get_by_role("button", name="digits-rescaled", exact=True).click()
    visitor.shows(headlines.model_headline(finding(), None, TARGETS["int8_weights"]))
    visitor.settle()
    visitor.marks().nth(3).click()
    visitor.arrives("layer", RESCUE_TITLE)
    layer = page.url
    visitor.go("Worked example")
    page.go_back()
    visitor.arrives("layer", RESCUE_TITLE)
    page.go_back()
    visitor.arrives("model", "Worst layers first")
    expect(page.locator("h1").first).to_have_text("digits-rescaled")
    page.go_back()
    visitor.arrives("", "How the layers differ")
    visitor.reaches("target", "int8_weights")
    page.go_back()
    visitor.arrives("", f"with {DEFAULT_TARGET.title}")
    for path, text in (
        ("", f"with {TARGETS['int8_weights'].title}"),
        ("model", "Worst layers first"),
        ("layer", RESCUE_TITLE),
    ):
        page.go_forward()
        visitor.arrives(path, text)
    # The page writes its address when it is done.
    expect(page).to_have_url(layer, timeout=30_000)
    visitor.leaves_no_trace()


@pytest.mark.slow
def test_charts_follow_the_theme_menu_and_the_page_comes_to_rest(visit, full_app) -> None:
    visitor = visit(full_app)
    page = visitor.page
    visitor.turn_to("/")
    page.locator("[data-testid=stMainMenu] button, [data-testid=stMainMenuButton]").first.click()
    page.locator('text="Dark"').last.click(force=True)
    page.keyboard.press("Escape")
    expect(
        page.locator(f"[data-testid=stVegaLiteChart] [fill='{DARK.text}']").first
    ).to_be_attached(timeout=30_000)
    # A page that reruns for ever can neither be used nor left.
    page.wait_for_timeout(1500)
    assert page.locator("[data-testid=stApp]").get_attribute("data-test-script-state") == (
        "notRunning"
    )
    visitor.leaves_no_trace()


@pytest.mark.slow
def test_a_model_is_labelled_found_and_removed(visit, full_app, tmp_path) -> None:
    """The Models page: by name, tag and note; a changed file is measured again; then it goes."""
    path = tmp_path / "shelved.onnx"
    model = conv_model(gaussian(4, 3, 3, 3, seed=7))
    onnx.save(model, path)
    visitor = visit(full_app)
    page = visitor.page
    visitor.open("/models")
    box = page.get_by_placeholder(PATH_PLACEHOLDER)
    box.fill(str(path))
    box.press("Enter")
    # Its page opens once it is measured.
    visitor.arrives("model", "shelved")
    page.get_by_role("link", name="Models", exact=True).click()
    page.get_by_role("button", name="Edit shelved").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("digits-plain")
    dialog.get_by_role("button", name="Save").click()
    visitor.shows("another model is already named")
    dialog.get_by_label("Name", exact=True).fill("on the shelf")
    dialog.get_by_label("Tags").fill("gate")
    dialog.get_by_label("Tags").press("Enter")
    dialog.get_by_label("Note", exact=True).fill("**ask** Ming\nbefore use")
    visitor.screenshot("models-edit")
    assert visitor.violations() == []
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    visitor.shows("**ask** Ming")

    page.get_by_role("button", name="gate", exact=True).click()
    expect(page.get_by_role("button", name="digits-plain", exact=True)).to_have_count(0)
    visitor.settle()
    visitor.reaches("models_tag", "gate")

    model.producer_name = "another hand"
    onnx.save(model, path)
    page.reload()
    visitor.shows("1 file has changed since it was measured")
    page.get_by_role("button", name="Edit on the shelf").click()
    dialog.get_by_role("button", name="Measure it again").click()
    visitor.shows("all in order")
    visitor.shows("**ask** Ming")

    page.get_by_role("checkbox", name="Mark on the shelf").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    visitor.shows("Remove on the shelf?")
    visitor.screenshot("models-remove")
    dialog.get_by_role("button", name="Remove", exact=True).click()
    expect(page.get_by_role("button", name="on the shelf", exact=True)).to_have_count(0)
    visitor.leaves_no_trace()


@pytest.mark.slow
def test_marked_models_are_handed_out_as_a_report_and_as_parquet(
    browser, visit, full_app, tmp_path
) -> None:
    """The report is one file that opens without a network, its charts at work."""
    visitor = visit(full_app)
    page = visitor.page
    visitor.turn_to("/models")
    for name in ("digits-plain", "digits-rescaled"):
        page.get_by_role("checkbox", name=f"Mark {name}", exact=True).click()
        visitor.settle()
    visitor.shows("2 selected")
    page.get_by_role("textbox", name=NOTE_LABEL).fill("Typed <b>and sent</b> at once")
    files = {}
    for button in ("Download report", "Export as Parquet"):
        with page.expect_download() as download:
            page.get_by_role("button", name=button, exact=True).click()
        files[button] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[button])
    visitor.leaves_no_trace()

    report = files["Download report"]
    assert report.name == "quantstore-2-models.html"
    assert "Typed &lt;b&gt;and sent&lt;/b&gt; at once" in report.read_text("utf-8")
    # Ten models shall stay below 5 MB, most of which every report carries.
    assert report.stat().st_size < 2_000_000
    offline = browser.new_context(offline=True)
    reader = Visitor(offline.new_page(), "")
    reader.page.goto(report.as_uri())
    expect(reader.page.get_by_role("heading", name="digits-rescaled", level=2)).to_be_visible()
    bar = reader.page.locator("svg path[aria-roledescription='rect mark']").first
    bar.scroll_into_view_if_needed()
    bar.hover()
    expect(reader.page.locator("#vg-tooltip-element, .vg-tooltip").first).to_be_visible()
    assert reader.errors == []
    assert [url for url in reader.outside if not url.startswith("file:")] == []
    offline.close()

    with zipfile.ZipFile(files["Export as Parquet"]) as archive:
        assert "models.parquet" in archive.namelist()
